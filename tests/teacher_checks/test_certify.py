"""Teachers that are read rightly pass, whatever they predict; each way to misread one is caught and named."""

import dataclasses
import json
from pathlib import Path
from typing import get_args

import pytest
import torch
from misread import SHAPE, Bare, Swapped, pictures, teacher_of
from torch import Tensor, nn

import unistep
from unistep.diffusion.prediction import Prediction
from unistep.diffusion.process import ContinuousVPProcess, DiscreteVPProcess, EDMProcess, FlowProcess, NoiseProcess
from unistep.errors import UserError
from unistep.networks import build_denoiser
from unistep.teacher_checks import Certificate, Check, certify
from unistep.teachers.analytic import mixture_teacher, teacher_from_mixture
from unistep.teachers.checkpoint import save_denoiser, teacher_from_config, teacher_from_folder
from unistep.teachers.module import teacher_from_module
from unistep.teachers.teacher import Teacher

PROCESSES: dict[str, NoiseProcess] = {
    "edm": EDMProcess(),
    "linear": DiscreteVPProcess.linear(),
    "scaled linear": DiscreteVPProcess.scaled_linear(),
    "cosine": DiscreteVPProcess.cosine(),
    "zero terminal SNR": DiscreteVPProcess.zero_terminal_snr(DiscreteVPProcess.scaled_linear()),
    "continuous": ContinuousVPProcess(),
    "flow": FlowProcess(),
    "shifted flow": FlowProcess(shift=3.0),
}
RIGHT = [("linear", kind) for kind in get_args(Prediction)] + [(name, "v") for name in PROCESSES if name != "linear"]


def failures(teacher: Teacher) -> set[str]:
    return {check.name for check in certify(teacher).failed}


@pytest.mark.parametrize(("process", "kind"), RIGHT)
def test_a_teacher_read_rightly_passes(process: str, kind: Prediction) -> None:
    certify(teacher_of(PROCESSES[process], kind)).require()


def test_a_table_so_steep_that_levels_share_a_timestep() -> None:
    """The sigmoid schedule (arXiv:2212.11972) falls to its last alpha-bar in a few timesteps."""
    ends = torch.tensor([-3.0, 3.0], dtype=torch.float64)
    first, last = (ends / 0.9).sigmoid()
    u = torch.arange(1, 1001, dtype=torch.float64) / 1000
    table = (last - ((u * 6 - 3) / 0.9).sigmoid()) / (last - first)
    certify(teacher_of(DiscreteVPProcess(table.clamp(1e-4, 0.9999)), "v")).require()


@pytest.mark.parametrize("name", ["ring8", "grid25"])
def test_points_pass_and_their_score_is_the_slope_of_their_density(name: str) -> None:
    certificate = certify(mixture_teacher(name))
    certificate.require()
    score = next(check for check in certificate.checks if check.name == "score")
    assert score.figure is not None and score.figure < 1e-6


def test_the_embedded_teacher_passes() -> None:
    certify(unistep.load_teacher("embedded:fashion-mnist")).require()


# --------------------------------------------------------------------------------------- the six mistakes, and others


@pytest.mark.parametrize("trained", ["eps", "v", "x0", "score"])
@pytest.mark.parametrize("said", ["eps", "v", "x0", "score", "F"])
def test_a_wrong_prediction_type_is_caught(trained: Prediction, said: Prediction) -> None:
    if trained != said:
        assert failures(teacher_of(PROCESSES["linear"], trained, as_kind=said))


@pytest.mark.parametrize("kind", ["eps", "v"])
@pytest.mark.parametrize(
    ("trained", "said"),
    [("linear", "cosine"), ("cosine", "linear"), ("linear", "scaled linear"), ("scaled linear", "linear"),
     ("cosine", "scaled linear")],
)  # fmt: skip
def test_a_wrong_schedule_is_caught(trained: str, said: str, kind: Prediction) -> None:
    assert failures(teacher_of(PROCESSES[trained], kind, said=PROCESSES[said]))


def test_swapped_alpha_and_sigma_are_caught() -> None:
    process = PROCESSES["linear"]
    certificate = certify(teacher_of(process, "v", said=Swapped(process)))  # type: ignore[arg-type]
    with pytest.raises(UserError, match="noise process: found sigma/alpha .* swapped"):
        certificate.require()


def test_a_flow_that_runs_from_noise_to_data_is_caught() -> None:
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = teacher_of(PROCESSES["flow"], "velocity").denoiser.network

        def forward(self, x_t: Tensor, t: Tensor, cond: Tensor) -> Tensor:
            return -self.inner(x_t, 1 - t, cond)

    assert failures(teacher_from_module(Backwards(), PROCESSES["flow"], "velocity", SHAPE, num_classes=4))


def test_forgotten_preconditioning_is_caught() -> None:
    process = EDMProcess()
    assert failures(teacher_from_module(Bare(process, 0.5), process, "F", SHAPE))


NETWORK = {"type": "unet", "img_resolution": 8, "img_channels": 1, "model_channels": 16, "channel_mult": [1],
           "num_blocks": 1, "attn_resolutions": [], "label_dim": 4}  # fmt: skip
CONFIG = {
    "network": NETWORK, "process": {"type": "edm"}, "sigma_data": 0.5, "shape": [1, 8, 8],
    "conditioner": {"type": "labels", "num_classes": 4, "names": list("abcd")}, "codec": {"type": "pixels"},
}  # fmt: skip


@pytest.mark.parametrize("scale", [0.0, 1.0], ids=["fresh", "shuffled"])
def test_random_weights_are_caught(scale: float) -> None:
    torch.manual_seed(0)
    denoiser = build_denoiser(CONFIG)
    with torch.no_grad():
        for value in denoiser.parameters():
            value.add_(scale * torch.randn_like(value) * 0.1)
    teacher = teacher_from_config(denoiser, CONFIG, source="random", sha256="0" * 64)
    assert "skill" in failures(teacher)


def test_a_checkpoint_of_another_architecture_is_caught(tmp_path: Path) -> None:
    save_denoiser(tmp_path, build_denoiser({**CONFIG, "network": {**NETWORK, "model_channels": 32}}), CONFIG)
    with pytest.raises(UserError, match="model.safetensors"):
        teacher_from_folder(tmp_path)


def test_a_network_that_ignores_its_condition_is_caught() -> None:
    class Deaf(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mixture = pictures(PROCESSES["edm"])

        def forward(self, x_t: Tensor, t: Tensor, cond: Tensor) -> Tensor:
            return self.mixture(x_t, t)

    teacher = teacher_from_module(Deaf(), PROCESSES["edm"], "x0", SHAPE, num_classes=4)
    assert failures(teacher) == {"conditioning"}


def test_dropout_left_on_is_caught() -> None:
    class Forgetful(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mixture = pictures(PROCESSES["edm"])

        def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
            return nn.functional.dropout(self.mixture(x_t, t), 0.1, training=True)

    assert failures(teacher_from_module(Forgetful(), PROCESSES["edm"], "x0", SHAPE)) == {"shapes and rows"}


def test_a_wrong_shape_is_caught() -> None:
    teacher = teacher_from_mixture(pictures(EDMProcess()), source="pictures")

    class Half(nn.Module):
        def forward(self, x_t: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
            return teacher.denoiser(x_t, t)[..., :4]

    with pytest.raises(UserError, match=r"shapes and rows: found output \(3, 1, 8, 4\)"):
        certify(dataclasses.replace(teacher, denoiser=Half())).require()


# --------------------------------------------------------------------------------------------------- the certificate


def test_the_certificate_is_a_pure_function_of_the_teacher_and_survives_a_round_trip(tmp_path: Path) -> None:
    one, two = (certify(teacher_of(EDMProcess(), "x0")) for _ in range(2))
    assert one == two
    one.save(tmp_path / "certificate.json")
    assert Certificate.load(tmp_path / "certificate.json") == one


@pytest.mark.parametrize("text", ["", "[]", "{}", json.dumps({"format": "unistep-certificate/1", "checks": [{}]})])
def test_a_damaged_certificate_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "certificate.json").write_text(text)
    with pytest.raises(UserError, match="no readable certificate"):
        Certificate.load(tmp_path / "certificate.json")


def test_the_first_failure_is_told_in_words_and_the_others_by_name() -> None:
    checks = tuple(Check(name=name, passed=name == "a", words=f"words of {name}") for name in "abc")
    with pytest.raises(UserError, match=r"^teacher there: b: words of b \(failed too: c\)$"):
        Certificate(teacher="", source="there", checks=checks, samples=1).require()
