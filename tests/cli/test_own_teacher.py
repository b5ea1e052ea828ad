"""A network of the user's own from Python: distilled, sampled and opened again; its run refuses another teacher."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import unistep
from unistep.diffusion.prediction import Prediction
from unistep.diffusion.process import DiscreteVPProcess
from unistep.diffusion.samplers import seeded_normal
from unistep.errors import UserError
from unistep.export import safetensors_file
from unistep.export.held import FixedTimeGenerator
from unistep.export.student import Student
from unistep.networks import build_denoiser
from unistep.networks.generator import Generator
from unistep.teachers import teacher_from_module
from unistep.teachers.checkpoint import save_denoiser
from unistep.teachers.module import ModuleDenoiser

RECIPE = """
name: mine
kind: distill
teacher: {certify: false} # random weights
pairs: {count: 8, solver: {name: ddim, num_steps: 2}, tile: 4}
method: {name: dmd, regression: l2}
training: {steps: 2, batch: 4}
"""


class MyUNet(nn.Module):
    """Called as network(x_t, t), with t = 0..999."""

    def __init__(self) -> None:
        super().__init__()
        self.inside, self.out = nn.Conv2d(2, 8, 3, padding=1), nn.Conv2d(8, 1, 3, padding=1)

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        level = (t / 1000)[:, None, None, None].expand(-1, 1, *x_t.shape[2:])
        return self.out(self.inside(torch.cat([x_t, level.to(x_t.dtype)], dim=1)).relu())


def my_teacher(seed: int) -> unistep.Teacher:
    torch.manual_seed(seed)
    return teacher_from_module(
        MyUNet(), process=DiscreteVPProcess.linear(), prediction="eps", shape=(1, 8, 8), source="unet.pt"
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    (folder / "mine.yaml").write_text(RECIPE)
    return unistep.distill(folder / "mine.yaml", out=folder / "run", teacher=my_teacher(0), quiet=True)


def test_without_a_judge_samples_are_shown_and_not_measured(run: Path) -> None:
    assert (run / "report.html").is_file() and (run / "previews" / "evaluation.png").is_file()
    assert not (run / "evaluation.json").exists()
    with pytest.raises(UserError, match=r"evaluation\.judge: found nothing, expected embedded:NAME, a folder"):
        unistep.evaluate(run, teacher=my_teacher(0), quiet=True)


def test_the_generator_is_opened_and_sampled_with_its_teacher(run: Path) -> None:
    generator, config, _ = unistep.load_generator(run, my_teacher(0))
    assert config["shape"] == [1, 8, 8]
    assert generator(torch.randn(2, 1, 8, 8)).shape == (2, 1, 8, 8)
    assert unistep.sample(run, num=3, teacher=my_teacher(0)).is_file()
    assert unistep.sample(run, num=3, teacher=my_teacher(0), checkpoint="last").is_file()
    with pytest.raises(UserError, match="its teacher was a module of your own"):
        unistep.sample(run, num=3)


@pytest.mark.slow
def test_it_goes_to_onnx_which_needs_none_of_its_code(run: Path, tmp_path: Path) -> None:
    for module in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(module)
    export = unistep.export_generator(run, to="onnx", teacher=my_teacher(0), out=tmp_path / "graph")
    contract = json.loads((export / "sampling_contract.json").read_text())
    assert contract["prediction"] == "eps" and contract["process"]["table"] == "linear"
    assert np.abs(pixels(export) - pixels(run, teacher=my_teacher(0), out=tmp_path / "run").astype(int)).max() <= 1


@pytest.mark.parametrize("kind", ["x0", "eps", "v", "F"])
def test_held_at_its_time_it_answers_as_it_is_called(kind: Prediction) -> None:
    torch.manual_seed(0)
    denoiser = ModuleDenoiser(MyUNet(), DiscreteVPProcess.linear(), kind, conditional=False)
    generator = Generator(denoiser, denoiser.process).eval()
    student = Student(generator=generator, config={"shape": [1, 8, 8]}, sha256="", name="mine")
    z = torch.randn(3, 1, 8, 8)
    assert torch.allclose(FixedTimeGenerator(student, []).eval()(z), generator(z), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("to", ["safetensors", "diffusers"])
def test_forms_that_need_its_code_are_refused_and_name_the_one_that_does_not(run: Path, to: str) -> None:
    with pytest.raises(UserError, match="export with --to onnx") as refused:
        unistep.export_generator(run, to=to, teacher=my_teacher(0))
    assert "safetensors" not in str(refused.value)


def test_the_teacher_itself_is_sampled(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert unistep.sample(my_teacher(0), num=2).parent == Path("samples")
    both: tuple[dict[str, Any], ...] = ({"checkpoint": "last"}, {"teacher": my_teacher(0)})
    for other in both:
        with pytest.raises(UserError, match="run: found a teacher, expected the run"):
            unistep.sample(my_teacher(0), **other)


def test_weights_alone_are_no_teacher_and_the_message_says_what_makes_one(tmp_path: Path) -> None:
    torch.save(MyUNet().state_dict(), tmp_path / "unet.pt")
    with pytest.raises(UserError, match=r"found a file, .*in Python, unistep\.Teacher\.from_module"):
        unistep.certify(tmp_path / "unet.pt", quiet=True)


def test_another_teacher_is_refused(run: Path) -> None:
    with pytest.raises(UserError, match=r"found teacher unet\.pt .*, expected the run's own"):
        unistep.evaluate(run, teacher=my_teacher(1), quiet=True)
    with pytest.raises(UserError, match="teacher: found neither load nor teach"):
        unistep.evaluate(run, quiet=True)


# ------------------------------------------------------------------------------------------- a codec of the user's own


@dataclass(frozen=True)
class AsinhCodec:
    """Counts 0..255 seen through asinh, as astronomers look at them; nothing that unistep knows."""

    softening: float = 20.0

    def encode(self, images: Tensor) -> Tensor:
        return torch.asinh(images.float() / self.softening)

    def decode(self, x: Tensor) -> Tensor:
        return (torch.sinh(x.float()) * self.softening).round().clamp(0, 255).to(torch.uint8)

    def config(self) -> dict[str, Any]:
        return {"type": "asinh", "softening": self.softening}


def sky(seed: int = 0) -> unistep.Teacher:
    return dataclasses.replace(my_teacher(seed), codec=AsinhCodec())


@pytest.fixture(scope="module")
def sky_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sky")
    (folder / "mine.yaml").write_text(RECIPE)
    return unistep.distill(folder / "mine.yaml", out=folder / "run", teacher=sky(), quiet=True)


def pixels(run: Path, **options: Any) -> np.ndarray:
    picture = unistep.sample(run, num=1, files=True, **options)
    with Image.open(picture.parent / "02000000.png") as file:
        return np.asarray(file)


def test_samples_are_decoded_by_the_given_teachers_codec(sky_run: Path, tmp_path: Path) -> None:
    generator, _, _ = unistep.load_generator(sky_run, sky())
    with torch.no_grad():
        x = generator(seeded_normal(torch.tensor([2_000_000]), (1, 8, 8)))
    assert np.array_equal(pixels(sky_run, out=tmp_path, teacher=sky()), AsinhCodec().decode(x)[0, 0].numpy())
    with pytest.raises(UserError, match="its teacher was a module of your own"):
        unistep.sample(sky_run, num=1)
    small = teacher_from_module(MyUNet(), DiscreteVPProcess.linear(), "eps", (1, 4, 4))
    with pytest.raises(UserError, match=r"teacher: found .* of shape \[1, 4, 4\], expected the gener"):
        unistep.sample(sky_run, num=1, teacher=small)


def test_a_known_network_with_a_codec_of_ones_own(tmp_path: Path) -> None:
    """The generator opens by itself; whoever decodes its samples needs the teacher, an export too."""
    network = {"type": "unet", "img_resolution": 8, "img_channels": 1, "model_channels": 8, "num_blocks": 1,
               "channel_mult": [1], "attn_resolutions": [], "label_dim": 0}  # fmt: skip
    config = {"network": network, "process": {"type": "edm"}, "sigma_data": 0.5, "shape": [1, 8, 8],
              "codec": {"type": "pixels"}, "conditioner": None}  # fmt: skip
    torch.manual_seed(0)
    denoiser = build_denoiser(config)
    for p in denoiser.parameters():
        torch.nn.init.normal_(p, std=0.1)
    save_denoiser(tmp_path / "teacher", denoiser, config)
    teacher = dataclasses.replace(unistep.load_teacher(tmp_path / "teacher"), codec=AsinhCodec())
    save_denoiser(tmp_path / "generator", denoiser, {**config, "codec": teacher.codec.config(), "t_init": 2.0})
    unistep.load_generator(tmp_path / "generator")
    with pytest.raises(UserError, match=r"codec\.type: found 'asinh', a class of your own; give the teacher"):
        unistep.sample(tmp_path / "generator", num=1)
    expected = pixels(tmp_path / "generator", out=tmp_path / "a", teacher=teacher)
    export = unistep.export_generator(tmp_path / "generator", to="safetensors", teacher=teacher, out=tmp_path / "e")
    assert np.array_equal(pixels(export, out=tmp_path / "b", teacher=teacher), expected)
    assert len(np.unique(expected)) > 3


def test_rows_beside_may_be_runs_and_exports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = [
        "fit.training={steps: 2, batch: 16}", "fit.samples=64", "fit.max_error=100", "training.steps=2",
        "training.batch=16", "training.preview_every=null", "generator.weights=raw", "teacher.certify=false",
        "evaluation.solver={name: heun, num_steps: 2}", "evaluation.samples=128", "evaluation.timed=false",
    ]  # fmt: skip
    other = ["evaluation.beside={fashion: embedded:fashion-mnist/regression_only}"]
    with pytest.raises(UserError, match=r"beside\.fashion: found a generator of shape \[1, 28, 28\]"):
        unistep.distill("gaussians", overrides=[*tiny, *other], out=tmp_path / "run", quiet=True)
    run = unistep.distill("gaussians", overrides=tiny, out=tmp_path / "run", quiet=True)
    monkeypatch.setattr(
        safetensors_file, "verify_in_subprocess", lambda *_: {"differences": {"samples": 0.0}, "with": ""}
    )
    export = unistep.export_generator(run, to="safetensors")
    beside = {"evaluation.beside": {"dmd": run, "export": export}}
    rows = {row.name: row.figures for row in unistep.evaluate(run, overrides=beside, quiet=True).rows}
    assert rows["dmd"] == rows["export"] == rows["one-step generator"] and "energy" in rows["dmd"]


@pytest.mark.parametrize("config", [None, lambda: {"type": torch.float32}])
def test_a_codec_that_cannot_be_described_is_refused_at_once(config: Any, tmp_path: Path) -> None:
    codec: Any = type("Mine", (), {} if config is None else {"config": lambda self: config()})()
    (tmp_path / "mine.yaml").write_text(RECIPE)
    with pytest.raises(UserError, match=r"^teacher\.codec: found Mine without a config\(\) of plain values"):
        unistep.distill(
            tmp_path / "mine.yaml", out=tmp_path / "run", teacher=dataclasses.replace(my_teacher(0), codec=codec)
        )
