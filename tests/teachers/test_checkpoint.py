"""Checkpoint folders: round trip, storage types, and every kind of damage refused by name."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from unistep.errors import UserError
from unistep.networks import EDMDenoiser, build, build_denoiser
from unistep.teachers import checkpoint
from unistep.teachers.checkpoint import load_denoiser, load_generator, save_denoiser
from unistep.teachers.load import load_teacher

CONFIG: dict[str, Any] = {
    "network": {"type": "unet", "img_resolution": 8, "img_channels": 1, "model_channels": 8, "channel_mult": [1],
                "num_blocks": 1, "attn_resolutions": [], "label_dim": 3},
    "process": {"type": "edm", "sigma_min": 0.002, "sigma_max": 80.0, "rho": 7.0, "num_bins": 1000},
    "sigma_data": 0.7,
    "shape": [1, 8, 8],
    "conditioner": {"type": "labels", "num_classes": 3, "names": ["a", "b", "c"]},
    "codec": {"type": "pixels"},
}  # fmt: skip


@pytest.fixture
def denoiser() -> EDMDenoiser:
    torch.manual_seed(0)
    return build_denoiser(CONFIG).eval()


def test_round_trip_is_exact(tmp_path: Path, denoiser: EDMDenoiser) -> None:
    save_denoiser(tmp_path / "teacher", denoiser, CONFIG)
    teacher = load_teacher(tmp_path)
    x, t, cond = torch.randn(3, 1, 8, 8), torch.tensor([0.1, 1.0, 10.0]), torch.tensor([0, 2, -1])
    torch.testing.assert_close(teacher(x, t, cond), denoiser(x, t, cond), rtol=0, atol=0)
    assert teacher.shape == (1, 8, 8)
    assert teacher.conditioner is not None
    assert teacher.conditioner.names == ("a", "b", "c")
    assert not any(p.requires_grad for p in teacher.denoiser.parameters())
    assert teacher.weighting(torch.tensor([0.7])).item() == pytest.approx(2 / 0.49)


def test_half_precision_storage_loads_as_float32(tmp_path: Path, denoiser: EDMDenoiser) -> None:
    save_denoiser(tmp_path / "m", denoiser, CONFIG, dtype=torch.float16)
    loaded, _, _ = load_denoiser(tmp_path / "m")
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    for a, b in zip(loaded.parameters(), denoiser.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_saving_again_replaces_the_folder_and_leaves_nothing_behind(tmp_path: Path, denoiser: EDMDenoiser) -> None:
    for _ in range(2):
        save_denoiser(tmp_path / "m", denoiser, CONFIG)
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


class Killed(BaseException):
    """What no handler catches."""


def kill_at(monkeypatch: pytest.MonkeyPatch, place: object, name: str, call: int) -> None:
    """The function `name` of a module ends the writer at its n-th call."""
    function, calls = getattr(place, name), iter(range(1, 100))

    def killed(*arguments: object) -> object:
        if next(calls) == call:
            raise Killed
        return function(*arguments)

    monkeypatch.setattr(place, name, killed)


def test_a_writer_killed_between_the_renames_loses_nothing(
    tmp_path: Path, denoiser: EDMDenoiser, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "m"
    save_denoiser(folder, denoiser, CONFIG)
    before = load_denoiser(folder)[2]
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(patch, checkpoint.os, "replace", 2)
        save_denoiser(folder, denoiser, {**CONFIG, "sigma_data": 0.5})
    assert not folder.exists()
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(patch, checkpoint, "save_file", 1)
        save_denoiser(folder, denoiser, {**CONFIG, "sigma_data": 0.5})
    assert load_denoiser(folder)[2] == before
    save_denoiser(folder, denoiser, {**CONFIG, "sigma_data": 0.5})
    assert load_denoiser(folder)[1]["sigma_data"] == 0.5
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


def test_the_same_content_is_not_written_again(tmp_path: Path, denoiser: EDMDenoiser) -> None:
    save_denoiser(tmp_path / "m", denoiser, CONFIG)
    before = (tmp_path / "m").stat().st_ino
    save_denoiser(tmp_path / "m", denoiser, CONFIG)
    assert (tmp_path / "m").stat().st_ino == before
    save_denoiser(tmp_path / "m", denoiser, {**CONFIG, "sigma_data": 0.5})
    assert (tmp_path / "m").stat().st_ino != before


def test_the_leftovers_of_another_folder_are_left_alone(tmp_path: Path, denoiser: EDMDenoiser) -> None:
    (tmp_path / ".m.b.7.tmp").mkdir()
    (tmp_path / ".m.7.tmp").mkdir()
    save_denoiser(tmp_path / "m", denoiser, CONFIG)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".m.b.7.tmp", "m"]


def test_hash_identifies_weights_and_configuration(tmp_path: Path, denoiser: EDMDenoiser) -> None:
    save_denoiser(tmp_path / "a", denoiser, CONFIG)
    save_denoiser(tmp_path / "b", denoiser, CONFIG)
    save_denoiser(tmp_path / "c", denoiser, {**CONFIG, "sigma_data": 0.5})
    a, b, c = (load_denoiser(tmp_path / name)[2] for name in "abc")
    assert a == b != c


def test_generator_round_trip(tmp_path: Path, denoiser: EDMDenoiser) -> None:
    save_denoiser(tmp_path / "generator", denoiser, {**CONFIG, "t_init": 2.5})
    generator, config, _ = load_generator(tmp_path)
    z, cond = torch.randn(2, 1, 8, 8), torch.tensor([0, 1])
    torch.testing.assert_close(generator(z, cond), denoiser(2.5 * z, torch.tensor([2.5, 2.5]), cond))
    assert config["t_init"] == 2.5


def damage(folder: Path, what: str) -> None:
    config = json.loads((folder / "config.json").read_text())
    if what == "no weights":
        (folder / "model.safetensors").unlink()
    if what == "truncated":
        weights = folder / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:100])
    if what == "bad json":
        (folder / "config.json").write_text("{")
    if what == "foreign format":
        (folder / "config.json").write_text(json.dumps({**config, "format": "other"}))
    if what == "other network":
        config["network"]["model_channels"] = 16
        (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("what", "message"),
    [("no weights", "model.safetensors: not found"), ("truncated", "no readable safetensors"),
     ("bad json", "no readable JSON"), ("foreign format", "found format 'other'"), ("other network", "expected")],
)  # fmt: skip
def test_damage_is_refused_by_name(tmp_path: Path, denoiser: EDMDenoiser, what: str, message: str) -> None:
    save_denoiser(tmp_path / "m", denoiser, CONFIG)
    damage(tmp_path / "m", what)
    with pytest.raises(UserError, match=message) as error:
        load_teacher(tmp_path / "m")
    assert "\n" not in str(error.value)


LABELS = CONFIG["conditioner"]
POINTS = {"network": {"type": "mlp", "label_dim": 3}, "shape": [3], "codec": {"type": "points"}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shape": 5}, "shape: found 5, expected a list"),
        ({"shape": [1, 8, -8]}, r"shape: found \[1, 8, -8\], expected greater than 0"),
        ({"shape": [1, 16, 16]}, r"shape: found \[1, 16, 16\], expected \[1, 8, 8\], as the network has it"),
        (POINTS, r"shape: found \[3\], expected \[2\], as the network has it"),
        ({"codec": 5}, "codec: found 5, expected a mapping"),
        ({"codec": {"type": ["pixels"]}}, r"codec.type: found \['pixels'\], expected one of pixels, points"),
        ({"codec": {"type": "points"}}, "codec.type: found 'points', expected 'pixels' for shape"),
        ({"conditioner": 5}, "conditioner: found 5, expected a mapping"),
        ({"conditioner": {"type": "labels"}}, "conditioner.num_classes: missing, a value is needed"),
        ({"conditioner": {"type": "labels", "num_classes": "3"}}, "num_classes: found '3', expected a whole number"),
        ({"conditioner": {"type": "labels", "num_classes": -3}}, "num_classes: found -3, expected 1 or more"),
        ({"conditioner": {"type": "labels", "num_classes": 4}}, "num_classes: found 4, expected 3, the network's"),
        ({"conditioner": {**LABELS, "names": 5}}, "conditioner.names: found 5, expected a list"),
        ({"sigma_data": "x"}, "sigma_data: found 'x', expected a valid number"),
        ({"sigma_data": 0}, "sigma_data: found 0, expected greater than 0"),
        ({"sigma_data": -1}, "sigma_data: found -1, expected greater than 0"),
        ({"sigma_data": math.nan}, "sigma_data: found nan, expected "),
        ({"network": 5}, "network: found 5, expected a mapping"),
        ({"network": {"type": ["unet"]}}, r"network.type: found \['unet'\], expected one of unet, mlp"),
        ({"process": 5}, "process: found 5, expected a mapping"),
        ({"process": {"type": ["edm"]}}, r"process.type: found \['edm'\], expected one of edm"),
        ({"preconditioning": 5}, "preconditioning: found 5, expected a mapping"),
    ],
)
@pytest.mark.parametrize("t_init", [{}, {"t_init": 2.5}])
def test_configurations_that_make_no_denoiser(
    tmp_path: Path, denoiser: EDMDenoiser, t_init: dict, changes: dict, message: str
) -> None:
    save_denoiser(tmp_path / "m", denoiser, {**CONFIG, **changes, **t_init})
    with pytest.raises(UserError, match=rf"m/config.json: .*{message}") as error:
        load_generator(tmp_path / "m") if t_init else load_teacher(tmp_path / "m")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_channels": 2048, "channel_mult": [8]}, "the weights belong to another network"),
        ({"num_blocks": 129}, r"network\.num_blocks: found 129, expected at most 128"),
        ({"channel_mult": [1] * 17}, r"network\.channel_mult: found 17 levels, expected at most 16"),
    ],
)
def test_a_generator_takes_no_memory_before_its_sizes_are_those_of_its_weights(
    tmp_path: Path, denoiser: EDMDenoiser, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], message: str
) -> None:
    save_denoiser(tmp_path / "m", denoiser, {**CONFIG, "network": {**CONFIG["network"], **changes}, "t_init": 2.5})
    real = torch.nn.Parameter.__new__

    def on_meta(cls: type, data: torch.Tensor, *arguments: Any, **named: Any) -> Any:
        assert data.device.type == "meta", f"{data.numel():,} numbers were allocated"
        return real(cls, data, *arguments, **named)

    monkeypatch.setattr(torch.nn.Parameter, "__new__", on_meta)
    with pytest.raises(UserError, match=message):
        load_generator(tmp_path / "m")


def test_a_network_that_this_machine_cannot_hold_is_refused_before_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build.os, "sysconf", lambda name: 4096 if name == "SC_PAGE_SIZE" else 1)
    with pytest.raises(UserError, match=r"network: found sizes that make [\d,]+ parameters, expected at most 1,024"):
        build_denoiser(CONFIG)
    with torch.device("meta"):  # a forecast for a larger machine
        build_denoiser(CONFIG)


def test_a_level_that_is_no_number(tmp_path: Path, denoiser: EDMDenoiser) -> None:
    save_denoiser(tmp_path / "m", denoiser, {**CONFIG, "t_init": "2.5"})
    with pytest.raises(UserError, match="config.json: t_init: found '2.5', expected a valid number"):
        load_generator(tmp_path / "m")


def test_a_teacher_folder_is_no_generator(tmp_path: Path, denoiser: EDMDenoiser) -> None:
    save_denoiser(tmp_path / "m", denoiser, CONFIG)
    with pytest.raises(UserError, match="not a generator"):
        load_generator(tmp_path / "m")


@pytest.mark.parametrize("spec", ["embedded:nothing", "gaussians:ring9", "no/such/folder"])
def test_unknown_specs_name_the_choices(spec: str) -> None:
    with pytest.raises(UserError, match="expected"):
        load_teacher(spec)
