"""The embedded judge and its reference features, a judge trained on the spot, and what is refused."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from unistep.assets import embedded_folder
from unistep.data import DataConfig, load_images
from unistep.errors import UserError
from unistep.evaluation.extractors.features import Judge, load_judge
from unistep.evaluation.extractors.network_file import JudgeNetwork, read_file
from unistep.evaluation.extractors.train import ClassifierRecipe, augment, schedule, train_judge

FOLDER = embedded_folder("fashion-mnist")


@pytest.fixture(scope="module")
def judge() -> Judge:
    return load_judge("embedded:fashion-mnist")


@pytest.fixture(scope="module")
def digits_judge() -> Judge:
    digits = load_images(DataConfig(kind="digits", limit=400))
    assert digits.labels is not None
    return train_judge(digits.images, digits.labels, steps=20, names=digits.names)


def patterns(n: int = 2) -> torch.Tensor:
    """Slanted stripes, each image another slope."""
    i = torch.arange(28)
    return torch.stack([((i[:, None] * (9 + k) + i * 5) % 256).to(torch.uint8) for k in range(n)])[:, None]


def test_it_tells_at_least_93_percent_of_the_test_images_apart(judge: Judge) -> None:
    test = judge.reference("test")
    agree = judge.network.classify(test.features).argmax(1) == test.labels
    assert len(agree) == 10_000 == test.count and judge.num_classes == 10 == len(judge.names)
    assert float(agree.float().mean()) >= 0.93 and judge.accuracy >= 0.93
    assert float(agree.float().mean()) == pytest.approx(judge.accuracy, abs=5e-4)


def test_reference_moments_are_those_of_the_stored_features(judge: Judge) -> None:
    test, features = judge.reference("test"), judge.reference("test").features.double().numpy()
    assert test.mean.dtype == test.cov.dtype == np.float64 and test.features.dtype == torch.float32
    assert np.abs(test.mean - features.mean(0)).max() < 1e-4  # float16 storage
    assert np.abs(test.cov - np.cov(features, rowvar=False)).max() < 1e-3
    train = judge.reference("train")
    assert train.count == 60_000 and train.features.shape == (10_000, 64)
    assert np.abs(train.mean - train.features.double().numpy().mean(0)).max() < 0.02  # the first sixth of them
    assert train.labels.bincount().min() > 900


def test_features_are_the_same_every_time_and_in_every_batch(judge: Judge) -> None:
    images = patterns(9)
    features, logits = judge.features(images)
    assert features.shape == (9, 64) and logits.shape == (9, 10) and features.dtype == logits.dtype == torch.float32
    assert torch.equal(features, judge.features(images).features)
    assert torch.allclose(features, judge.features(images, batch=2).features, atol=1e-4)
    assert torch.allclose(logits, judge.network.classify(features), atol=1e-4)


def test_features_of_a_pattern_stay_what_they_were_when_the_references_were_made(judge: Judge) -> None:
    features = judge.features(patterns(1)).features[0]
    assert features[:6].tolist() == pytest.approx([0.1769, 0.0270, 0.2940, 0.9891, 0.7863, 0.4455], abs=2e-3)
    assert float(features.sum()) == pytest.approx(24.428, abs=0.02)


def test_the_note_names_these_very_files(judge: Judge) -> None:
    note = (FOLDER / "README.md").read_text()
    for name in ("judge", "perceptual", "reference"):
        assert hashlib.sha256((FOLDER / f"{name}.safetensors").read_bytes()).hexdigest() in note
    assert judge.sha256 == hashlib.sha256((FOLDER / "judge.safetensors").read_bytes()).hexdigest()
    assert "Zalando SE" in (FOLDER / "LICENSE-fashion-mnist.txt").read_text(encoding="utf-8")


def test_a_judge_is_frozen(judge: Judge) -> None:
    assert not judge.network.training and not any(p.requires_grad for p in judge.network.parameters())


def test_saving_and_loading_changes_nothing(digits_judge: Judge, tmp_path: Path) -> None:
    digits_judge.save(tmp_path)
    loaded = load_judge(tmp_path)
    images = load_images(DataConfig(kind="digits", split="test")).images
    assert torch.equal(loaded.features(images).features, digits_judge.features(images).features)
    assert loaded.sha256 == digits_judge.sha256 and loaded.accuracy == digits_judge.accuracy
    assert loaded.recipe == digits_judge.recipe and loaded.names == digits_judge.names
    for split in ("train", "test"):
        a, b = loaded.reference(split), digits_judge.reference(split)
        assert torch.equal(a.features, b.features) and torch.equal(a.labels, b.labels) and a.count == b.count
        assert (a.mean == b.mean).all() and (a.cov == b.cov).all()
    digits_judge.save(tmp_path / "again")
    for run in ("taught", "distilled/teacher"):
        digits_judge.save(tmp_path / run / "judge")
        assert load_judge(tmp_path / run.removesuffix("/teacher")).sha256 == digits_judge.sha256
    for file in ("judge.safetensors", "reference.safetensors"):
        assert (tmp_path / file).read_bytes() == (tmp_path / "again" / file).read_bytes()


def test_a_judge_learns_and_is_a_function_of_its_seed(digits_judge: Judge) -> None:
    digits = load_images(DataConfig(kind="digits", limit=40))
    assert digits.labels is not None and digits_judge.accuracy > 0.3
    state = torch.get_rng_state()
    short = [train_judge(digits.images, digits.labels, steps=1, seed=seed).sha256 for seed in (0, 0, 1)]
    assert short[0] == short[1] != short[2]
    assert torch.equal(torch.get_rng_state(), state)
    assert digits_judge.reference("train").count == 272 and digits_judge.reference("test").count == 128


@pytest.mark.parametrize(("channels", "size"), [(1, 8), (3, 8), (1, 28), (3, 32), (3, 64)])
def test_the_network_fits_usual_sizes(channels: int, size: int) -> None:
    features, logits = JudgeNetwork(channels, size, 4).eval()(torch.zeros(2, channels, size, size, dtype=torch.uint8))
    assert features.shape == (2, 64) and logits.shape == (2, 4)


def test_other_images_are_refused(judge: Judge) -> None:
    with pytest.raises(UserError, match=r"found images uint8 \[2, 1, 8, 8\], expected uint8 \[n, 1, 28, 28\]"):
        judge.features(torch.zeros(2, 1, 8, 8, dtype=torch.uint8))
    with pytest.raises(UserError, match="found images float32"):
        judge.features(torch.zeros(2, 1, 28, 28))


@pytest.mark.parametrize(
    ("shape", "labels", "message"),
    [
        ((30, 1, 8, 8), None, "without labels"),
        ((30, 1, 8, 8), torch.zeros(30, dtype=torch.int64), "found 1 class"),
        ((30, 1, 8, 9), torch.arange(30) % 2, "found images of 8x9"),
        ((30, 1, 4, 4), torch.arange(30) % 2, "found images of 4x4"),
        ((9, 1, 8, 8), torch.arange(9) % 2, "found 9 images"),
    ],
)
def test_images_that_no_judge_can_be_trained_on(shape: tuple, labels: torch.Tensor | None, message: str) -> None:
    with pytest.raises(UserError, match=message):
        train_judge(torch.zeros(shape, dtype=torch.uint8), labels, steps=1)


def test_missing_damaged_and_mixed_up_files(judge: Judge, digits_judge: Judge, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="embedded:nothing: found no such asset, expected one of fashion-mnist"):
        load_judge("embedded:nothing")
    with pytest.raises(UserError, match="judge: found no folder"):
        load_judge(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"judge: found no judge\.safetensors in .*`unistep teach` leaves one"):
        load_judge(tmp_path)
    digits_judge.save(tmp_path)
    replace(digits_judge, accuracy=0.0).save(tmp_path / "other")
    (tmp_path / "reference.safetensors").write_bytes((tmp_path / "other" / "reference.safetensors").read_bytes())
    with pytest.raises(UserError, match="the two files do not belong together"):
        load_judge(tmp_path)
    weights = tmp_path / "judge.safetensors"
    state = load_file(weights)
    save_file(state, weights)
    with pytest.raises(UserError, match="found format None, expected 'unistep-judge/1'"):
        load_judge(tmp_path)
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match="no readable safetensors file"):
        load_judge(tmp_path)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ([], "found format None"),
        ({"network": None}, "network: found None, expected a mapping"),
        ({"network": {"channels": 1}}, "network.size: missing"),
        ({"network": {"channels": -1, "size": 8, "num_classes": 2}}, "network: found .*, which makes none; restore"),
        ({"accuracy": None}, "accuracy: found None, expected a number"),
        ({"names": 5}, "names: found 5, expected a list"),
    ],
)
def test_a_judge_whose_header_says_something_else(
    digits_judge: Judge, tmp_path: Path, header: dict | list, message: str
) -> None:
    digits_judge.save(tmp_path)
    weights = tmp_path / "judge.safetensors"
    config, state, _ = read_file(weights, None)
    said = {**config, **header} if isinstance(header, dict) else header
    save_file(state, weights, {"config": json.dumps(said)})
    with pytest.raises(UserError, match=rf"judge\.safetensors: {message}"):
        load_judge(tmp_path)


def test_augmentation_shifts_and_flips_and_nothing_else() -> None:
    images = torch.arange(2 * 3 * 6 * 6, dtype=torch.uint8).reshape(2, 3, 6, 6)
    still = ClassifierRecipe(steps=1, max_shift=0)
    assert torch.equal(augment(images, still, 0), images)
    flips = torch.stack([augment(images, replace(still, flip=True), step) for step in range(20)])
    plain = torch.stack([(flip == image).all() for step in flips for flip, image in zip(step, images, strict=True)])
    turned = torch.stack([(f == i.flip(-1)).all() for step in flips for f, i in zip(step, images, strict=True)])
    assert bool((plain ^ turned).all()) and 5 < int(turned.sum()) < 35
    moved = augment(images, replace(still, max_shift=2), 3)
    assert moved.shape == images.shape and set(moved.unique().tolist()) <= set(images.unique().tolist())
    assert torch.equal(moved, augment(images, replace(still, max_shift=2), 3))


def test_the_learning_rate_rises_then_falls_to_zero() -> None:
    factors = [schedule(step, 100) for step in range(100)]
    assert max(factors) == 1.0 and factors[:15] == sorted(factors[:15]) and factors[15:] == sorted(factors[15:])[::-1]
    assert factors[-1] == pytest.approx(0, abs=1e-12)
