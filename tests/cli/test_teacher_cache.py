"""Features of a teacher are kept for all runs on the same protocol; whatever changes the protocol misses them."""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import unistep
from unistep.data import DataConfig, load_images
from unistep.diffusion.process import DiscreteVPProcess
from unistep.errors import UserError
from unistep.evaluation import Evaluation, Identity
from unistep.evaluation.cache import save_features
from unistep.evaluation.evaluate import Candidate
from unistep.evaluation.extractors.base import Observed
from unistep.evaluation.extractors.train import train_judge
from unistep.networks import build_denoiser
from unistep.run import teacher_cache
from unistep.run.teacher_cache import TeacherCache, trim
from unistep.teachers import teacher_from_module
from unistep.teachers.checkpoint import save_denoiser
from unistep.teachers.codecs import PixelCodec
from unistep.teachers.teacher import Teacher

CPU = torch.device("cpu")
CONFIG: dict[str, Any] = {
    "network": {"type": "unet", "img_resolution": 8, "img_channels": 1, "model_channels": 8, "num_blocks": 1,
                "channel_mult": [1], "attn_resolutions": [], "label_dim": 10},
    "process": {"type": "edm"}, "sigma_data": 0.5, "shape": [1, 8, 8], "codec": {"type": "pixels"},
    "conditioner": {"type": "labels", "num_classes": 10},
}  # fmt: skip
IDENTITY = Identity(teacher="a" * 64, judge="b" * 64, first_seed=5, sampler={"name": "heun", "guidance": 1.0})


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UNISTEP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("UNISTEP_CACHE_GIB", "1")
    monkeypatch.setattr(teacher_cache, "git_commit", lambda: "c" * 40)
    return tmp_path / "cache" / "features"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny teacher with random weights and a judge of digits."""
    place = tmp_path_factory.mktemp("place")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_denoiser(place / "teacher", build_denoiser(CONFIG), CONFIG)
    digits = load_images(DataConfig(kind="digits", limit=400))
    train_judge(digits.images, digits.labels, steps=5, names=digits.names).save(place / "judge")
    return place


@pytest.fixture
def teacher(place: Path) -> Teacher:
    return unistep.load_teacher(place / "teacher")


# ---------------------------------------------------------------------------------------------------- run after run


def row(run: Path, role: Any) -> tuple[bool, dict[str, float]]:
    found = Evaluation.load(run / "evaluation.json").row(role)
    assert found is not None
    return found.cached, dict(found.figures)


def test_the_second_run_on_a_protocol_does_not_sample_the_teacher(place: Path, tmp_path: Path, folder: Path) -> None:
    recipe = {
        "name": "mine", "kind": "distill", "teacher": {"load": str(place / "teacher"), "certify": False},
        "pairs": {"count": 8, "tile": 8, "solver": {"name": "euler", "num_steps": 1}},
        "method": {"name": "dmd", "regression": "l2"}, "generator": {"weights": "raw"},
        "training": {"steps": 1, "batch": 4, "device": "cpu", "precision": "fp32"},
        "evaluation": {"judge": str(place / "judge"), "samples": 140, "solver": {"name": "euler", "num_steps": 1},
                       "timed": False, "batch": 500},
    }  # fmt: skip
    first = unistep.distill(recipe, out=tmp_path / "a", quiet=True)
    assert not row(first, "teacher")[0] and len(list(folder.iterdir())) == 2
    second = unistep.distill(recipe, overrides={"training.seed": 1}, out=tmp_path / "b", quiet=True)
    for role in ("teacher", "teacher_one_step"):
        assert row(second, role)[0] and row(second, role)[1] == pytest.approx(row(first, role)[1])
    assert not row(second, "student")[0]
    other = {"training.seed": 2, "evaluation.first_seed": 3_000_000}
    third = unistep.distill(recipe, overrides=other, out=tmp_path / "c", cache=False, quiet=True)
    assert not row(third, "teacher")[0] and len(list(folder.iterdir())) == 2


# ------------------------------------------------------------------------------------------------------- never wrong


def changed_weights(teacher: Teacher) -> Teacher:
    with torch.no_grad():
        next(teacher.denoiser.parameters()).add_(1e-6)
    return teacher


@dataclasses.dataclass(frozen=True)
class Darker(PixelCodec):
    """A codec of the user's own."""


@pytest.mark.parametrize(
    "change",
    [
        lambda t: (dataclasses.replace(IDENTITY, sampler={"name": "heun", "guidance": 1.5}), t, 10),
        lambda t: (dataclasses.replace(IDENTITY, sampler={"name": "euler", "guidance": 1.0}), t, 10),
        lambda t: (dataclasses.replace(IDENTITY, judge="d" * 64), t, 10),
        lambda t: (dataclasses.replace(IDENTITY, teacher="d" * 64), t, 10),
        lambda t: (dataclasses.replace(IDENTITY, first_seed=6), t, 10),
        lambda t: (IDENTITY, t, 11),
        lambda t: (IDENTITY, changed_weights(t), 10),
        lambda t: (IDENTITY, dataclasses.replace(t, config={**t.config, "sigma_data": 0.6}), 10),
        lambda t: (IDENTITY, dataclasses.replace(t, codec=Darker()), 10),
    ],
)
def test_any_change_of_the_protocol_misses(change: Callable[[Teacher], Any], teacher: Teacher, tmp_path: Path) -> None:
    stored(teacher, tmp_path)
    identity, other, count = change(teacher)
    assert TeacherCache(other, CPU, count).find(identity) is None


def stored(teacher: Teacher, run: Path, count: int = 10) -> Path:
    """Features in the cache, as a run keeps them."""
    seen = Observed(
        features=torch.randn(count, 4), labels=torch.zeros(count).long(), predicted=torch.zeros(count).long()
    )
    save_features(run / "features" / "teacher.safetensors", seen, IDENTITY)
    cache = TeacherCache(teacher, CPU, count)
    cache.keep([Candidate(name="teacher", sample=lambda _: None, nfe=1, role="teacher", identity=IDENTITY)],  # type: ignore[arg-type, return-value]
               run / "features")  # fmt: skip
    found = TeacherCache(teacher, CPU, count).find(IDENTITY)
    assert found is not None and found.read_bytes() == (run / "features" / "teacher.safetensors").read_bytes()
    return found


@pytest.mark.parametrize("commit", [None, "e" * 40, f"{'c' * 40}-dirty"])
def test_other_code_misses(commit: str | None, teacher: Teacher, tmp_path: Path, monkeypatch: Any) -> None:
    stored(teacher, tmp_path)
    monkeypatch.setattr(teacher_cache, "git_commit", lambda: commit)
    assert TeacherCache(teacher, CPU, 10).find(IDENTITY) is None


def test_other_versions_miss(teacher: Teacher, tmp_path: Path, monkeypatch: Any) -> None:
    stored(teacher, tmp_path)
    monkeypatch.setattr(teacher_cache, "versions", lambda: {"torch": "0"})
    assert TeacherCache(teacher, CPU, 10).find(IDENTITY) is None


def test_a_network_of_the_users_own_is_never_kept(folder: Path, tmp_path: Path) -> None:
    """Its code is in no hash."""
    own = teacher_from_module(torch.nn.Conv2d(1, 1, 1), DiscreteVPProcess.linear(), "eps", (1, 8, 8))
    assert TeacherCache(own, CPU, 10).place(IDENTITY) is None


def test_a_damaged_file_is_sampled_again(teacher: Teacher, tmp_path: Path) -> None:
    file = stored(teacher, tmp_path)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert TeacherCache(teacher, CPU, 10).find(IDENTITY) is None and not file.exists()
    assert stored(teacher, tmp_path) == file


# ---------------------------------------------------------------------------------------------------------- its size


def test_what_was_used_longest_ago_goes_first(tmp_path: Path) -> None:
    files = [tmp_path / f"{name}.safetensors" for name in "abc"]
    for age, file in enumerate(files):
        file.write_bytes(bytes(100))
        os.utime(file, (1000 + age, 1000 + age))
    os.utime(files[0])
    trim(tmp_path, 250)
    assert [file.exists() for file in files] == [True, False, True]


def test_a_limit_of_nothing_keeps_nothing(teacher: Teacher, monkeypatch: Any) -> None:
    monkeypatch.setenv("UNISTEP_CACHE_GIB", "0")
    assert TeacherCache(teacher, CPU, 10).place(IDENTITY) is None
    monkeypatch.setenv("UNISTEP_CACHE_GIB", "nan")
    assert TeacherCache(teacher, CPU, 10).place(IDENTITY) is None
    monkeypatch.setenv("UNISTEP_CACHE_GIB", "much")
    with pytest.raises(UserError, match="UNISTEP_CACHE_GIB: found 'much', expected a number of GiB"):
        TeacherCache(teacher, CPU, 10).place(IDENTITY)
