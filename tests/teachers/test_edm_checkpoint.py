"""EDM checkpoints: what is read is what was written, the configuration says the same, the teacher is built of it."""

import hashlib
import json
import pickle
import pickletools
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import torch
from edm_writer import (
    ARGUMENTS,
    ATTRIBUTES,
    checkpoint,
    dumps,
    module_state,
    network,
    persistent,
    small_state,
    write_checkpoint,
)
from safetensors.torch import load_file
from torch import Tensor
from typer.testing import CliRunner

import unistep
from unistep.cli import app
from unistep.errors import UserError
from unistep.io.pickles.tensors import stored_numbers
from unistep.networks.build import build_denoiser
from unistep.teachers.edm.checkpoint import config_of, load_edm_teacher
from unistep.teachers.edm.pickle import read_edm_pickle


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
        ("EDMPrecond", "SongUNet", {"sigma_min": 0.01, "sigma_max": 50.0}, ("song_unet", "edm", 0.01, 50.0)),
        ("VPPrecond", "SongUNet", {"beta_d": 18.0, "M": 500}, ("song_unet", "vp", 0.002, 80.0)),
        ("VPPrecond", "SongUNet", {"epsilon_t": 1e-3, "beta_d": 1.0}, ("song_unet", "vp", 0.010027, 0.90665)),
        ("VEPrecond", "SongUNet", {}, ("song_unet", "ve", 0.02, 80.0)),
        ("VEPrecond", "SongUNet", {"sigma_min": 0.05, "sigma_max": 50}, ("song_unet", "ve", 0.05, 50.0)),
        ("iDDPMPrecond", "DhariwalUNet", {"C_1": 0.001}, ("dhariwal_unet", "iddpm", 0.0064254, 80.0)),
        ("Precond", "UNet", {"sigma_data": 0.25, "logvar_channels": 64}, ("edm2_unet", "edm", 0.002, 80.0)),
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
    assert found == (*expected[:2], *(pytest.approx(level, rel=1e-3) for level in expected[2:]))
    own = {
        "vp": ("beta_d", "beta_min", "M", "epsilon_t"),
        "ve": ("sigma_min", "sigma_max"),
        "iddpm": ("C_1", "C_2", "M"),
    }
    said = {**ATTRIBUTES[class_name], **arguments}
    assert config["preconditioning"] == {"type": expected[1], **{k: said[k] for k in own.get(expected[1], ())}}
    assert not {"use_fp16", "model_type", "logvar_channels", "sigma_data", *ATTRIBUTES[class_name]} & set(
        config["network"]
    )
    assert config.get("sigma_data") == (arguments.get("sigma_data", 0.5) if expected[1] == "edm" else None)
    assert config["network"].get("out_channels") == (6 if expected[1] == "iddpm" else None)


@pytest.mark.parametrize(
    ("class_name", "more", "message"),
    [
        ("EDMPrecond", {"sigma_data": 0.0}, "sigma_data: found 0.0, expected a positive number"),
        ("EDMPrecond", {"sigma_min": 90}, "found noise levels from 90 to 80, expected a range"),
        ("EDMPrecond", {"sigma_min": 10**400}, "sigma_min: found .*, expected a number"),
        ("VEPrecond", {"sigma_max": float("inf")}, "sigma_max: found inf, expected a finite number"),
        ("VPPrecond", {"beta_d": 1e300}, "preconditioning: found .*, which make no noise levels"),
        ("VPPrecond", {"beta_min": -1}, "preconditioning: found .*, which make no noise levels"),
        (
            "iDDPMPrecond",
            {"M": 2**40},
            "preconditioning: found .*: M: found 1099511627776, expected 2 to 100000 levels",
        ),
        ("iDDPMPrecond", {"M": 1000.0}, "preconditioning.M: found 1000.0, expected a whole number"),
        ("iDDPMPrecond", {"C_2": -1}, "preconditioning: found .*, which make no noise levels"),
    ],
)
def test_numbers_that_make_no_levels_are_refused(tmp_path: Path, class_name: str, more: Any, message: str) -> None:
    record = read_edm_pickle(write_checkpoint(tmp_path / "x.pkl", class_name=class_name, **more))
    with pytest.raises(UserError, match=rf"^x\.pkl: {message}") as error:
        config_of(record)
    assert len(str(error.value)) < 500 and "\n" not in str(error.value)


def test_infinity_is_text_in_json(tmp_path: Path) -> None:
    arguments = {**ARGUMENTS, "sigma_max": float("inf"), "label_dim": 0}
    config = config_of(read_edm_pickle(write_checkpoint(tmp_path / "x.pkl", arguments=arguments)))
    assert config["source"]["arguments"]["sigma_max"] == "inf" and config["process"]["sigma_max"] == 80.0
    assert config["conditioner"] is None
    json.dumps(config, allow_nan=False)


# ------------------------------------------------------------------------------------------------------- converting


@pytest.fixture
def whole(file: Path) -> tuple[Path, dict[str, Tensor]]:
    """A checkpoint with every tensor of its network, and these."""
    state = build_denoiser(config_of(read_edm_pickle(file))).state_dict()
    return write_checkpoint(file, state), state


def test_convert_writes_a_folder(whole: tuple[Path, dict[str, Tensor]]) -> None:
    file, state = whole
    folder = unistep.convert(file)
    assert folder == file.with_suffix("")
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "model.safetensors"]
    assert same(load_file(folder / "model.safetensors"), state)
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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_blocks": 1_000_000}, r"network\.num_blocks: found 1000000, expected at most 128"),
        ({"num_blocks": -8}, r"network\.num_blocks: found -8, expected 1 or more"),
        ({"model_channels": 1_000_000}, "the weights belong to another network"),
        ({"model_channels": 10**26}, r"network\.model_channels: found 1000+, expected at most 1,048,576"),
        ({"model_channels": float("nan")}, r"network\.model_channels: found nan, expected a whole number"),
        ({"channel_mult": [1] * 5000}, r"network\.channel_mult: found 5,000 values, expected at most 4,096"),
        ({"model_channels": 64}, "the weights belong to another network"),
    ],
)
def test_sizes_are_compared_with_the_weights_before_memory_is_taken(
    whole: tuple[Path, dict[str, Tensor]], changes: dict[str, Any], message: str
) -> None:
    file = write_checkpoint(whole[0], whole[1], arguments={**ARGUMENTS, **changes})
    for read in (unistep.convert, load_edm_teacher):
        tracemalloc.start()
        with pytest.raises(UserError, match=message) as error:
            read(file)
        assert tracemalloc.get_traced_memory()[1] < 2**25 and "\n" not in str(error.value)
        tracemalloc.stop()
    assert sorted(p.name for p in file.parent.iterdir()) == ["edm-tiny.pkl"]


def test_the_verb(whole: tuple[Path, dict[str, Tensor]], tmp_path: Path) -> None:
    file, _ = whole
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
            [sys.executable, "-c", "import sys, unistep.cli.commands; print(*sys.modules)"],
            capture_output=True,
            text=True,
        ).stdout.split()
    )
