"""Real images for judges that know none: features of a data set, published moments, and what is missing is said."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from unistep.data.dataset import ImageDataset
from unistep.errors import UserError
from unistep.evaluation import Candidate, evaluate_models
from unistep.evaluation.measure import all_metrics, left_out, usable
from unistep.evaluation.reference import (
    pack_reference,
    reference_from_images,
    reference_from_statistics,
    reference_of,
    unpack_reference,
)
from unistep.reports.table import cells

NAMES = ("mean", "cov", "count")


def see(images: Tensor) -> Tensor:
    return images.flatten(1).float() / 64


@pytest.fixture(scope="module")
def data() -> ImageDataset:
    images = torch.randint(0, 256, (230, 1, 2, 2), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return ImageDataset(images=images, labels=torch.arange(230) // 23, names=tuple("abcdefghij"))


def test_batches_give_the_moments_of_all_and_features_of_some_of_every_class(data: ImageDataset) -> None:
    seen: list[int] = []
    found = reference_from_images(see, data, stored=100, batch=37, on_progress=seen.append)
    whole = reference_of(see(data.images), data.labels)
    for name in NAMES:
        np.testing.assert_allclose(getattr(found, name), getattr(whole, name), rtol=1e-12)
    assert len(found.features) == 100 and set(found.labels.tolist()) == set(range(10))
    assert seen == [*range(37, 230, 37), 230]
    every = see(data.images).half().float()
    for reference in (found, whole):  # each feature with its own label, and the first of them of all classes
        rows = [int(torch.where((every == row).all(1))[0][0]) for row in reference.features]
        assert torch.equal(data.labels[rows], reference.labels)
        assert len(reference.labels[:50].unique()) >= 9


@pytest.mark.parametrize("labelled", [True, False])
def test_what_is_packed_comes_back(data: ImageDataset, labelled: bool) -> None:
    reference = reference_from_images(see, data if labelled else ImageDataset(images=data.images))
    tensors = {f"images.{name}": value for name, value in pack_reference(reference).items()}
    again = unpack_reference(tensors, "images", "ab" * 32, "somewhere")
    assert torch.equal(again.features, reference.features) and torch.equal(again.labels, reference.labels)
    assert all(np.array_equal(getattr(again, name), getattr(reference, name)) for name in NAMES)
    assert (again.sha256, again.source) == ("ab" * 32, "somewhere")


def statistics(path: Path, **arrays: object) -> Path:
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path


def test_published_moments_give_the_distance_and_nothing_else(judge, tmp_path: Path) -> None:
    real = judge.reference("train")
    reference = reference_from_statistics(statistics(tmp_path / "ref.npz", mu=real.mean, sigma=real.cov))
    assert reference.count is None and len(reference.features) == 0 and len(reference.sha256) == 64
    row = Candidate(name="student", sample=judge.sample, nfe=1, role="student")
    found = evaluate_models([row], judge, reference, num_samples=200, with_floor=False)
    assert set(found.rows[0].figures) == {"frechet", "agreement"}
    whole = evaluate_models([row], judge, num_samples=1000, with_floor=False).rows[0].figures["frechet"]
    assert evaluate_models([row], judge, reference, num_samples=1000, with_floor=False).rows[0].figures[
        "frechet"
    ] == pytest.approx(whole)
    note = cells(found).note
    assert f"against the moments in ref.npz ({reference.sha256[:12]})" in note
    assert note.endswith("kid (needs 1,000), prdc (needs 1,000), diversity (needs 2), because the reference holds moments alone and no real images one by one")  # fmt: skip  # noqa: E501
    assert found.reference_sha256 == reference.sha256


def test_a_small_reference_says_what_it_is_too_small_for(judge) -> None:
    real = judge.reference("train")
    small = reference_of(real.features[:600], real.labels[:600])
    metrics = all_metrics(small)
    assert [metric.name for metric in usable(metrics, small, 2000)] == ["frechet", "agreement", "diversity"]
    assert left_out(metrics, small, 2000) == (
        "left out: kid (needs 1,000), prdc (needs 1,000), because the reference holds 600 real images one by one",
    )
    assert len(usable(all_metrics(real), real, 2000)) == 5 and left_out(all_metrics(real), real, 2000) == ()


def test_foreign_statistics_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"evaluation\.reference: found no file .*no\.npz, expected reference statistics"
    ):
        reference_from_statistics(tmp_path / "no.npz")
    (tmp_path / "text.npz").write_text("not an archive")
    with pytest.raises(UserError, match=r"text\.npz is none"):
        reference_from_statistics(tmp_path / "text.npz")
    with pytest.raises(UserError, match=r"other\.npz is none .*sigma"):
        reference_from_statistics(statistics(tmp_path / "other.npz", mu=np.zeros(3)))
    with pytest.raises(UserError, match=r"found mu \[3\] and sigma \[2, 2\]"):
        reference_from_statistics(statistics(tmp_path / "odd.npz", mu=np.zeros(3), sigma=np.eye(2)))


def test_damaged_statistics_are_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "ref.npz"
    np.savez_compressed(path, mu=np.zeros(4), sigma=np.eye(4))
    whole, array = path.read_bytes(), io.BytesIO()
    np.save(array, np.eye(4))
    start, place = whole.index(b"mu.npy") + len("mu.npy"), whole.index(b"PK\x01\x02")
    damaged = {
        "empty": b"",
        "one array": array.getvalue(),
        **{f"cut at {end}": whole[:end] for end in range(1, len(whole), 40)},
        "compressed data": whole[: start + 30] + b"\xff" * 8 + whole[start + 38 :],
        "unknown compression": whole[: place + 10] + b"\x63" + whole[place + 11 :],
        "encrypted": whole[: place + 8] + b"\x01" + whole[place + 9 :],
    }
    for content in damaged.values():
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"^evaluation\.reference: .*ref\.npz is none .*$") as caught:
            reference_from_statistics(path)
        assert "\n" not in str(caught.value)
