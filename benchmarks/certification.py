"""Certification of the embedded teacher, read rightly and in six wrong ways: `python benchmarks/certification.py`."""

import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

import unistep
from unistep.diffusion.prediction import Prediction, from_x0
from unistep.diffusion.process import DiscreteVPProcess, EDMProcess, NoiseProcess
from unistep.errors import UserError
from unistep.networks import build_denoiser
from unistep.teacher_checks import certify
from unistep.teachers.checkpoint import save_denoiser, teacher_from_config, teacher_from_folder
from unistep.teachers.module import teacher_from_module
from unistep.teachers.teacher import Teacher
from unistep.types import Cond, bcast

EMBEDDED = unistep.load_teacher("embedded:fashion-mnist")
LINEAR, COSINE = DiscreteVPProcess.linear(), DiscreteVPProcess.cosine()


class Foreign(nn.Module):
    """The embedded teacher as a network of another process that predicts another kind."""

    def __init__(self, process: NoiseProcess, kind: Prediction):
        super().__init__()
        self.denoiser, self.process, self.kind = EMBEDDED.denoiser, process, kind

    def forward(self, x_t: Tensor, t: Tensor, cond: Cond = None) -> Tensor:
        """EDM's x and sigma are those of x_t over alpha; beyond its highest level nothing changes."""
        alpha, sigma = self.process.alpha(t).float(), self.process.sigma(t).float()
        level = (sigma / alpha.clamp_min(1e-8)).clamp(0.002, 80)
        mu = self.denoiser(x_t * bcast(level / sigma, x_t), level, cond)
        return from_x0(mu, x_t, t, self.kind, self.process)


class Swapped(DiscreteVPProcess):
    """A table whose alpha and sigma are taken for each other."""

    def angle(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """The table's alpha and sigma, swapped."""
        alpha, sigma = super().angle(t)
        return sigma, alpha


def foreign(
    kind: Prediction, trained: NoiseProcess, said: NoiseProcess | None = None, as_kind: Prediction | None = None
) -> Teacher:
    """A teacher of one kind and process, loaded as another."""
    network = Foreign(trained, kind)
    return teacher_from_module(network, said or trained, as_kind or kind, EMBEDDED.shape, num_classes=10)


def unprepared() -> Teacher:
    """EDM's raw network, called with x_t and sigma themselves."""
    raw = EMBEDDED.denoiser

    class Raw(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.raw = raw

        def forward(self, x_t: Tensor, t: Tensor, cond: Tensor) -> Tensor:
            return self.raw.raw(x_t, t, self.raw.one_hot(cond))

    return teacher_from_module(Raw(), EDMProcess(), "F", EMBEDDED.shape, num_classes=10, sigma_data=0.7)


def random_weights() -> Teacher:
    """The embedded architecture, fresh."""
    torch.manual_seed(0)
    return teacher_from_config(build_denoiser(EMBEDDED.config), EMBEDDED.config, source="random", sha256="0" * 64)


def another_architecture() -> Teacher:
    """The weights of a wider network beside the embedded configuration."""
    wider = {**EMBEDDED.config, "network": {**EMBEDDED.config["network"], "model_channels": 128}}
    with tempfile.TemporaryDirectory() as folder:
        save_denoiser(Path(folder), build_denoiser(wider), EMBEDDED.config)
        return teacher_from_folder(Path(folder))


CASES = {
    "as it is": lambda: EMBEDDED,
    "as an eps network of a linear table": lambda: foreign("eps", LINEAR),
    "wrong prediction type (eps read as v)": lambda: foreign("eps", LINEAR, as_kind="v"),
    "wrong schedule (linear read as cosine)": lambda: foreign("v", LINEAR, said=COSINE),
    "swapped alpha and sigma": lambda: foreign("v", LINEAR, said=Swapped.linear()),
    "forgotten preconditioning": unprepared,
    "random weights": random_weights,
    "a checkpoint of another architecture": another_architecture,
}

if __name__ == "__main__":
    for name, make in CASES.items():
        try:
            certificate = certify(make())
            certificate.require()
            print(f"{name}: passed, {len(certificate.checks)} checks")
        except UserError as error:
            print(f"{name}: {error}")
