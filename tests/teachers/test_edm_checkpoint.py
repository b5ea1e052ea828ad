"""EDM checkpoints: what is read is what was written, the configuration says the same, the teacher is built of it."""

import hashlib
import json
import pickle
import pickletools
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from edm_writer import ARGUMENTS, checkpoint, dumps, module_state, network, persistent, small_state, write_checkpoint
from safetensors.torch import load_file
from torch import Tensor, nn
from typer.testing import CliRunner

import unistep
from unistep.cli import app
from unistep.errors import UserError
from unistep.networks import build
from unistep.pickles.tensors import stored_numbers
from unistep.teachers.edm_checkpoint import config_of
from unistep.teachers.edm_pickle import read_edm_pickle


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(a[k].dtype == b[k].dtype and torch.equal(a[k], b[k]) for k in a)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "edm-tiny.pkl")


# ---------------------------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize("protocol", range(6))
def test_what_is_read_is_what_was_written(tmp_path: Path, protocol: int) -> None:
    record = read_edm_pickle(write_checkpoint(tmp_path / "x.pkl", protocol=protocol))
    assert same(record.state, small_state())
    assert (record.class_name, record.network_class, record.arguments) == ("EDMPrecond", "SongUNet", ARGUMENTS)
    assert record.attributes["sigma_data"] == 0.5 and record.attributes["sigma_max"] == float("inf")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.uint8])
def test_types_are_kept(tmp_path: Path, dtype: torch.dtype) -> None:
    buffers = {"resample_filter": torch.arange(-6, 6).reshape(3, 4).to(dtype)}
    inner = persistent("SongUNet", **module_state({}, buffers, {}))
    outer = persistent("EDMPrecond", **module_state({}, {}, {"model": inner}, _init_kwargs=ARGUMENTS))
    (tmp_path / "x.pkl").write_bytes(dumps(checkpoint(outer)))
    assert same(read_edm_pickle(tmp_path / "x.pkl").state, {"model.resample_filter": buffers["resample_filter"]})


def test_views_are_read_as_tensors_of_their_own(tmp_path: Path) -> None:
    whole = torch.arange(24.0).reshape(4, 6)
    views = {
        "a.transposed": whole.T,
        "a.part": whole[1:3, 2:4],
        "a.whole": whole,
        "a.again": whole,
        "b.empty": whole[:0],
    }
    weights = {
        "channels_last": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
        "scalar": torch.tensor(3.0),
    }
    (tmp_path / "x.pkl").write_bytes(dumps(checkpoint(network(views | {f"c.{k}": v for k, v in weights.items()}))))
    state = read_edm_pickle(tmp_path / "x.pkl").state
    assert same(state, views | {f"c.{k}": v for k, v in weights.items()})
    assert all(value.is_contiguous() for value in state.values())
    assert len({value.untyped_storage().data_ptr() for value in state.values() if value.numel()}) == 6


def test_what_a_state_dict_leaves_out_is_left_out(tmp_path: Path) -> None:
    inner = module_state(
        {"w": torch.ones(2), "none": None}, {"kept": torch.ones(1), "passing": torch.ones(1)}, {"n": None}
    )
    ema = persistent(
        "EDMPrecond",
        **module_state(
            {}, {}, {"model": persistent("SongUNet", **inner | {"_non_persistent_buffers_set": {"passing"}})}
        ),
        _init_kwargs=ARGUMENTS,
    )
    for protocol in (2, 4):
        (tmp_path / "x.pkl").write_bytes(dumps(checkpoint(ema), protocol))
        assert list(read_edm_pickle(tmp_path / "x.pkl").state) == ["model.w", "model.kept"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.int32])
def test_storages_are_read_as_torch_reads_them(dtype: torch.dtype) -> None:
    written = pickletools.genops(pickle.dumps(torch.arange(7).to(dtype), 4))  # as torch itself writes it
    (content,) = [argument for code, argument, _ in written if "BINBYTES" in code.name]
    found, raw = stored_numbers(content)
    assert found == dtype
    assert bytes(raw) == torch.arange(7).to(dtype).view(torch.uint8).numpy().tobytes()


# ---------------------------------------------------------------------------------------------------- configuration


def test_the_configuration_says_what_the_file_says(file: Path) -> None:
    config = config_of(read_edm_pickle(file))
    kept = {k: v for k, v in ARGUMENTS.items() if k != "model_type"}
    assert config["network"] == {"type": "song_unet", **kept, "dropout": 0.0}
    assert config["preconditioning"] == {"type": "edm"}
    assert config["process"] == {"type": "edm", "sigma_min": 0.002, "sigma_max": 80.0, "rho": 7.0, "num_bins": 1000}
    assert (config["sigma_data"], config["shape"], config["codec"]) == (0.5, [3, 16, 16], {"type": "pixels"})
    assert config["conditioner"]["num_classes"] == 4
    assert config["source"]["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert config["source"]["arguments"] == ARGUMENTS


@pytest.mark.parametrize(
    ("class_name", "network_class", "arguments", "expected"),
    [
        ("EDMPrecond", "DhariwalUNet", {}, ("dhariwal_unet", "edm", 0.002, 80.0)),
        ("VPPrecond", "SongUNet", {"beta_d": 19.9, "M": 1000}, ("song_unet", "vp", 0.002, 80.0)),
        ("VEPrecond", "SongUNet", {"sigma_min": 0.02, "sigma_max": 100}, ("song_unet", "ve", 0.02, 80.0)),
        ("iDDPMPrecond", "DhariwalUNet", {"C_1": 0.001, "sigma_max": 50.0}, ("dhariwal_unet", "iddpm", 0.002, 50.0)),
        ("Precond", "UNet", {"sigma_data": 0.25, "use_fp16": True}, ("edm2_unet", "edm", 0.002, 80.0)),
    ],
)
def test_each_published_class(
    tmp_path: Path, class_name: str, network_class: str, arguments: dict[str, Any], expected: tuple[object, ...]
) -> None:
    state = {k.replace("model.", "unet." if class_name == "Precond" else "model."): v for k, v in small_state().items()}
    options = dict(class_name=class_name, network_class=network_class, arguments={**ARGUMENTS, **arguments})
    config = config_of(read_edm_pickle(write_checkpoint(tmp_path / "x.pkl", state, **options)))
    process = config["process"]
    found = config["network"]["type"], config["preconditioning"]["type"], process["sigma_min"], process["sigma_max"]
    assert found == expected
    constants = {k: v for k, v in arguments.items() if k in ("beta_d", "M", "C_1")}
    assert config["preconditioning"] == {"type": expected[1], **constants}
    assert not {"use_fp16", "model_type", "sigma_max", *constants} & config["network"].keys()
    assert config["sigma_data"] == arguments.get("sigma_data", 0.5)


def test_infinity_is_text_in_json(tmp_path: Path) -> None:
    arguments = {**ARGUMENTS, "sigma_max": float("inf"), "label_dim": 0}
    config = config_of(read_edm_pickle(write_checkpoint(tmp_path / "x.pkl", arguments=arguments)))
    assert config["source"]["arguments"]["sigma_max"] == "inf" and config["process"]["sigma_max"] == 80.0
    assert config["conditioner"] is None
    json.dumps(config, allow_nan=False)


# ------------------------------------------------------------------------------------------------------- converting


def test_convert_writes_a_folder(file: Path) -> None:
    folder = unistep.convert(file)
    assert folder == file.with_suffix("")
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "model.safetensors"]
    assert same(load_file(folder / "model.safetensors"), small_state())
    config = json.loads((folder / "config.json").read_text())
    assert config == {"format": "unistep-denoiser/1", **config_of(read_edm_pickle(file))}
    before = (folder / "model.safetensors").read_bytes()
    assert unistep.convert(file) == folder and (folder / "model.safetensors").read_bytes() == before
    assert sorted(p.name for p in file.parent.iterdir()) == ["edm-tiny", "edm-tiny.pkl"]


def test_convert_touches_no_foreign_folder(file: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match=r"mine: holds thesis.tex, expected a new or an empty folder"):
        unistep.convert(file, out=tmp_path / "mine")
    with pytest.raises(UserError, match="a file is where a folder is needed"):
        unistep.convert(file, out=file)
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "years of work"


def test_the_verb(file: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["convert", str(file), "--out", str(tmp_path / "out")])
    assert (done.exit_code, done.stdout.strip()) == (0, str(tmp_path / "out"))
    done = CliRunner().invoke(app, ["convert", str(tmp_path / "no.pkl")])
    assert (
        done.exit_code == 2
        and done.stderr == f"error: {tmp_path}/no.pkl: not found; expected an EDM checkpoint (.pkl)\n"
    )
    assert (
        "torch"
        not in subprocess.run(
            [sys.executable, "-c", "import sys, unistep.cli.convert; print(*sys.modules)"],
            capture_output=True,
            text=True,
        ).stdout.split()
    )


# ---------------------------------------------------------------------------------------------------------- teacher


class Mini(nn.Module):
    """Stands for SongUNet: its tensors have the names of `small_state`, its answer depends on all it is given."""

    def __init__(self, label_dim: int = 0, **others: object) -> None:
        super().__init__()
        for name, value in small_state(conditional=label_dim > 0).items():
            *path, leaf = name.removeprefix("model.").split(".")
            place: nn.Module = self
            for part in path:
                if part not in place._modules:
                    place.add_module(part, nn.Module())
                place = place.get_submodule(part)
            place.register_buffer(leaf, torch.zeros_like(value))

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        shift = 0.0 if labels is None else (labels @ self.map_label.weight.T).sum(1)[:, None, None, None]  # type: ignore[union-attr]
        return x * self.gain + c_noise[:, None, None, None] + shift


@pytest.mark.parametrize("classes", [0, 4])
def test_a_teacher_from_the_file_and_from_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, classes: int
) -> None:
    monkeypatch.setattr(build, "NETWORKS", {**build.NETWORKS, "song_unet": Mini})
    state = small_state(torch.float16, conditional=classes > 0)
    file = write_checkpoint(tmp_path / "x.pkl", state, arguments={**ARGUMENTS, "label_dim": classes})
    teachers = [unistep.load_teacher(f"edm:{file}"), unistep.load_teacher(f"edm:{unistep.convert(file)}")]
    x, t = torch.randn(3, 3, 16, 16), torch.tensor([0.01, 1.0, 50.0])
    cond = torch.tensor([0, 3, -1]) if classes else None
    a, b = (teacher(x, t, cond) for teacher in teachers)
    assert torch.equal(a, b) and a.isfinite().all()
    for teacher in teachers:
        assert same(dict(teacher.denoiser.state_dict()), {k: v.float() for k, v in state.items()})
        assert teacher.shape == (3, 16, 16) and teacher.codec.config() == {"type": "pixels"}
        assert (teacher.conditioner is not None) == (classes > 0)
        assert (teacher.process.config()["num_bins"], teacher.process.config()["sigma_max"]) == (1000, 80.0)
        assert teacher.weighting(torch.tensor([0.5])).item() == pytest.approx(8.0)
    assert teachers[0].sha256 == hashlib.sha256(file.read_bytes()).hexdigest()


def test_older_preconditionings_were_trained_with_another_weight() -> None:
    config = {"network": {"type": "mlp"}, "process": {"type": "edm"}, "preconditioning": {"type": "vp"}}
    assert build.build_denoiser(config).weighting(torch.tensor([0.5])).item() == pytest.approx(4.0)


def test_weights_of_another_network_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "NETWORKS", {**build.NETWORKS, "song_unet": Mini})
    state = {**small_state(), "model.gain": torch.ones(2)}
    with pytest.raises(UserError, match=r"x\.pkl: .*misshapen: model\.gain found \(2,\), expected \(\)"):
        unistep.load_teacher(f"edm:{write_checkpoint(tmp_path / 'x.pkl', state)}")
    with pytest.raises(UserError, match="nowhere: not found"):
        unistep.load_teacher(f"edm:{tmp_path / 'nowhere'}")
