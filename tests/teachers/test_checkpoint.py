"""Checkpoint folders: round trip, storage types, and every kind of damage refused by name."""

import json
from pathlib import Path

import pytest
import torch

from unistep.errors import UserError
from unistep.networks import EDMDenoiser, build_denoiser
from unistep.teachers.checkpoint import load_denoiser, load_generator, save_denoiser
from unistep.teachers.load import load_teacher

CONFIG = {
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


def test_a_teacher_folder_is_no_generator(tmp_path: Path, denoiser: EDMDenoiser) -> None:
    save_denoiser(tmp_path / "m", denoiser, CONFIG)
    with pytest.raises(UserError, match="not a generator"):
        load_generator(tmp_path / "m")


@pytest.mark.parametrize("spec", ["embedded:nothing", "gaussians:ring9", "no/such/folder"])
def test_unknown_specs_name_the_choices(spec: str) -> None:
    with pytest.raises(UserError, match="expected"):
        load_teacher(spec)
