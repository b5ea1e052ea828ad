"""EDM checkpoints as teachers: every published network answers as it should, from the file and from the folder."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from edm_writer import ARGUMENTS, write_checkpoint
from golden_values import SMALL, class_indices, fill_by_rule, golden, values
from safetensors.torch import load_file
from torch import Tensor

import unistep
from unistep.errors import UserError
from unistep.networks import EDMDenoiser, build_denoiser
from unistep.networks.edm_preconditioning import IDDPMDenoiser
from unistep.networks.preconditioning import channels_last
from unistep.teachers.teacher import Teacher

CLASSES = {"song_unet": "SongUNet", "dhariwal_unet": "DhariwalUNet", "edm2_unet": "UNet"}
SMALL_SONG = {k: v for k, v in ARGUMENTS.items() if k != "model_type"}
SMALL_ADM = {k: v for k, v in SMALL_SONG.items() if k not in ("resample_filter", "augment_dim")}


def golden_file(folder: Path, name: str, dtype: torch.dtype = torch.float32) -> tuple[Path, EDMDenoiser]:
    """A golden network as a checkpoint, and the network itself."""
    known = golden(name)
    source = build_denoiser(known.config).eval()
    fill_by_rule(source, known.edm2)
    channels_last(source)  # as teachers are: other kernels make other sums
    state = {name: value.to(dtype) for name, value in source.state_dict().items()}
    network_class = CLASSES[known.config["network"]["type"]]
    options = dict(arguments=known.kwargs, class_name=known.kind, network_class=network_class)
    return write_checkpoint(folder / f"{name}.pkl", state, **options), source


def loaded(file: Path) -> list[Teacher]:
    """The teacher from the file, and from the folder that it becomes."""
    return [unistep.load_teacher(f"edm:{file}"), unistep.load_teacher(f"edm:{unistep.convert(file)}")]


def error(found: Tensor, expected: Tensor) -> float:
    """Largest difference relative to the largest value, each image alone."""
    return ((found - expected).flatten(1).abs().amax(1) / expected.flatten(1).abs().amax(1)).max().item()


@pytest.mark.parametrize("name", SMALL)
def test_golden_networks_answer_as_published(tmp_path: Path, name: str) -> None:
    file, source = golden_file(tmp_path, name)
    known, held = golden(name), values(name)
    x, sigma, cond = held["x"], held["sigma"], class_indices(held["labels"])
    with torch.no_grad():
        expected = source(x, sigma, cond)
    for teacher in loaded(file):
        denoised = teacher(x, sigma, cond)
        assert error(denoised, held["denoised"]) < 1e-4
        assert error(denoised, expected) < 1e-6
        assert teacher.shape == x.shape[1:] and (teacher.conditioner is not None) == (cond is not None)
        process = teacher.process.config()
        assert (process["sigma_min"], process["sigma_max"], process["num_bins"]) == (0.002, 80.0, 1000)
        weight = 4.0 if known.kind == "VPPrecond" else 8.0
        assert teacher.weighting(torch.tensor([0.5])).item() == pytest.approx(weight)
    assert unistep.load_teacher(f"edm:{file}").sha256 == hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("class_name", "preconditioning", "network", "lowest"),
    [
        ("VEPrecond", {"type": "ve"}, {"type": "song_unet", **SMALL_SONG}, 0.02),
        ("VEPrecond", {"type": "ve", "sigma_min": 0.05}, {"type": "song_unet", **SMALL_SONG}, 0.05),
        ("iDDPMPrecond", {"type": "iddpm"}, {"type": "dhariwal_unet", **SMALL_ADM, "out_channels": 6}, 0.0064254128),
    ],
)
def test_older_preconditionings_answer_as_their_source(
    tmp_path: Path, class_name: str, preconditioning: dict[str, Any], network: dict[str, Any], lowest: float
) -> None:
    process = {"type": "edm", "sigma_min": lowest, "sigma_max": 80.0}
    source = build_denoiser({"network": network, "process": process, "preconditioning": preconditioning}).eval()
    fill_by_rule(source)
    channels_last(source)
    options = {k: v for k, v in preconditioning.items() if k != "type"}
    arguments = {k: v for k, v in network.items() if k not in ("type", "out_channels")}
    file = write_checkpoint(tmp_path / "x.pkl", source.state_dict(), arguments={**arguments, **options},
                            class_name=class_name, network_class=CLASSES[network["type"]])  # fmt: skip
    x, sigma, cond = torch.randn(3, 3, 16, 16), torch.tensor([lowest, 1.0, 80.0]), torch.tensor([0, 3, -1])
    with torch.no_grad():
        expected = source(x, sigma, cond)
    for teacher in loaded(file):
        assert error(teacher(x, sigma, cond), expected) < 1e-6
        assert teacher.process.config()["sigma_min"] == pytest.approx(lowest, rel=1e-4)
        assert isinstance(teacher.denoiser, IDDPMDenoiser) == (class_name == "iDDPMPrecond")


def test_edm2_is_kept_as_stored_without_its_head_and_trained_in_float32(tmp_path: Path) -> None:
    file, source = golden_file(tmp_path, "edm2-latent-cond", torch.float16)
    for teacher in loaded(file):
        copy = teacher.trainable_copy()
        assert {value.dtype for value in copy.state_dict().values()} == {torch.float32}
        copy(torch.randn(2, *teacher.shape), torch.tensor([0.5, 5.0]), torch.tensor([0, 4])).square().mean().backward()
        assert not [name for name, p in copy.named_parameters() if p.grad is None]
    stored = load_file(tmp_path / "edm2-latent-cond" / "model.safetensors")
    wanted = {k: v.half() for k, v in source.state_dict().items() if not k.startswith("logvar")}
    assert stored.keys() == wanted.keys() and all(torch.equal(stored[k], v) for k, v in wanted.items())
    assert "logvar" not in (tmp_path / "edm2-latent-cond" / "config.json").read_text()


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    _, source = golden_file(tmp_path, "ddpmpp-edm-cond")
    state = {**source.state_dict(), "model.map_layer0.bias": torch.ones(2)}
    file = write_checkpoint(tmp_path / "x.pkl", state, arguments=golden("ddpmpp-edm-cond").kwargs)
    with pytest.raises(
        UserError, match=r"x\.pkl: .*misshapen: model\.map_layer0\.bias found \(2,\), expected \(128,\)"
    ):
        unistep.load_teacher(f"edm:{file}")
    with pytest.raises(UserError, match="found no file .*nowhere, expected a checkpoint of EDM"):
        unistep.load_teacher(f"edm:{tmp_path / 'nowhere'}")


def test_a_distillation_from_an_edm_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for judging in ("require_judging", "evaluate_run"):  # tested elsewhere; samples after two steps are no use
        monkeypatch.setattr(f"unistep.run.distill.{judging}", lambda *_: None)
    file, _ = golden_file(tmp_path, "ddpmpp-edm-cond")
    optim = {"generator": {"lr": 1e-4}, "fake_score": {"lr": 1e-4}}
    solver = {"name": "heun", "num_steps": 2}
    recipe = {
        "name": "edm", "kind": "distill", "about": "two steps",
        "teacher": {"load": f"edm:{file}", "certify": False},  # random weights
        "pairs": {"count": 8, "solver": solver, "tile": 8},
        "method": {"name": "dmd", "lambda_reg": 0.25, "regression": "l2"},
        "training": {"steps": 2, "batch": 4, "optim": optim},
        "evaluation": {"solver": solver},
    }  # fmt: skip
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    run = unistep.distill(tmp_path / "recipe.yaml", out=tmp_path / "run", device="cpu", quiet=True)
    teacher = unistep.load_teacher(f"edm:{file}")
    generator, config, _ = unistep.load_generator(run)
    assert json.loads((run / "run.json").read_text())["teacher"]["sha256"] == teacher.sha256
    assert config["source"]["file"] == file.name
    trained, start = generator.denoiser.state_dict(), teacher.denoiser.state_dict()
    assert trained.keys() == start.keys() and any(not torch.equal(trained[k], start[k]) for k in trained)
    assert generator(torch.randn(2, 3, 16, 16), torch.tensor([0, 3])).shape == (2, 3, 16, 16)
