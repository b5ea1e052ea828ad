"""Convergence of the samplers on an exact mixture: the error of halved steps falls like 2^-order."""

import math

import pytest
import torch

from unistep.diffusion.process import ContinuousVPProcess, EDMProcess, FlowProcess
from unistep.diffusion.samplers import build_sampler
from unistep.teachers.analytic import GaussianMixture

MEANS = torch.tensor([[0.8, -0.2], [-0.5, 0.6], [0.1, -1.0]])
CASES = {
    "edm": EDMProcess(sigma_min=0.02, sigma_max=10.0, rho=3.0),
    "vp": ContinuousVPProcess(beta_d=8.0, beta_min=0.5, t_min=0.05),
    "flow": FlowProcess(),
}
STEPS = (32, 64, 128)
MULTISTEP_STEPS = (128, 256)  # its order is one in log-SNR, whose steps near data are long on these grids


def errors(name: str, process) -> list[float]:
    """Root mean square distance from a far finer solution at each number of steps."""
    model = GaussianMixture(MEANS, 0.4, process)  # wide modes: the flow is smooth on the scale of a step
    z = torch.randn(32, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    reference = build_sampler("heun", 1024)(model, process, z).x
    runs = [build_sampler(name, n)(model, process, z).x for n in (MULTISTEP_STEPS if name == "dpmpp_2m" else STEPS)]
    return [float((x - reference).square().mean().sqrt()) for x in runs]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("name", "order"), [("euler", 1), ("heun", 2), ("dpmpp_2m", 2)])
def test_order_of_convergence(case, name, order):
    found = errors(name, CASES[case])
    slopes = [math.log2(a / b) for a, b in zip(found, found[1:], strict=False)]
    print(case, name, found, slopes)
    assert slopes[-1] == pytest.approx(order, abs=0.35), found


@pytest.mark.parametrize("case", CASES)
def test_second_order_is_more_exact(case):
    euler, heun = errors("euler", CASES[case]), errors("heun", CASES[case])
    assert all(h < e / 3 for h, e in zip(heun, euler, strict=True))


def test_unipc_comes_closer_with_every_halving_on_the_edm_grid():
    pytest.importorskip("diffusers")
    model = GaussianMixture(MEANS, 0.4, CASES["edm"])
    z = torch.randn(32, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    reference = build_sampler("heun", 1024)(model, CASES["edm"], z).x
    runs = [build_sampler("unipc", n)(model, CASES["edm"], z) for n in (16, 32, 64)]
    found = [float((run.x - reference).square().mean().sqrt()) for run in runs]
    assert [run.nfe for run in runs] == [16, 32, 64]
    assert found[1] < found[0] / 2 and found[2] < found[1] / 2, found
