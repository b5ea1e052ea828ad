"""Samplers that add noise, step for step against their papers' algorithms written out by hand."""

import math

import pytest
import torch
from torch import Tensor

from unistep.diffusion.process import DiscreteVPProcess, EDMProcess, FlowProcess, NoiseProcess
from unistep.diffusion.samplers import Consistency, Heun, seeded_normal
from unistep.teachers.analytic import GaussianMixture

SEEDS = torch.tensor([3, 4711, 12])
MEANS = torch.tensor([[0.8, -0.2], [-0.5, 0.6], [0.1, -1.0]])
Z = seeded_normal(SEEDS, (2,)).double()
STD = torch.tensor([0.3, 0.1, 0.5])


def fresh(step: int) -> Tensor:
    """The unit noise of step 0, 1, ...: a stream of each sample's own seed."""
    return seeded_normal(SEEDS, (2,), step + 1).double()


def algorithm_2(D: GaussianMixture, t: list[float], S_churn: float, S_min: float, S_max: float, S_noise: float):
    """Karras et al. 2022, Algorithm 2, line by line, with the levels t_0 > ... > t_N = 0."""
    N, x = len(t) - 1, t[0] * Z

    def slope(x: Tensor, level: float) -> Tensor:
        return (x - D(x, torch.full((len(x),), level, dtype=torch.float64))) / level

    for i in range(N):
        gamma = min(S_churn / N, math.sqrt(2) - 1) if S_min <= t[i] <= S_max else 0.0
        t_hat = t[i] + gamma * t[i]
        x_hat = x + math.sqrt(t_hat**2 - t[i] ** 2) * S_noise * fresh(i)
        d = slope(x_hat, t_hat)
        x = x_hat + (t[i + 1] - t_hat) * d
        if t[i + 1] != 0:
            x = x_hat + (t[i + 1] - t_hat) * (d + slope(x, t[i + 1])) / 2
    return x


@pytest.mark.parametrize("N", [64, 12])  # S_churn / N below and above the bound sqrt(2) - 1
@pytest.mark.parametrize(
    "churn",
    [
        {"S_churn": 20.0, "S_min": 0.05, "S_max": 50.0, "S_noise": 1.003},
        {"S_churn": 20.0, "S_min": 0.0, "S_max": math.inf, "S_noise": 1.0},
        {"S_churn": 0.0, "S_min": 0.0, "S_max": math.inf, "S_noise": 1.0},
    ],
    ids=["paper", "everywhere", "none"],
)
def test_heun_is_algorithm_2(N: int, churn: dict[str, float]) -> None:
    process = EDMProcess()
    D = GaussianMixture(MEANS, STD, process)
    x = Heun(N, **churn)(D, process, Z, seeds=SEEDS).x
    expected = algorithm_2(D, process.sampling_times(N).tolist(), **churn)
    torch.testing.assert_close(x, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("process", "times"),
    [(DiscreteVPProcess.linear(), (700.0, 300.0, 10.0)), (FlowProcess(), (0.8, 0.5, 0.1)), (EDMProcess(), (9, 2, 0.3))],
    ids=["vp", "flow", "edm"],
)
def test_consistency_sampling_is_its_formula(process: NoiseProcess, times: tuple[float, ...]) -> None:
    """x_s = alpha_s x_0 + sigma_s (fresh noise), and no more than that."""
    mu = GaussianMixture(MEANS, STD, process)
    x_0 = mu(process.terminal(Z), process.time(torch.ones(3, dtype=torch.float64)))
    for step, time in enumerate(times):
        s = torch.full((3,), time, dtype=torch.float64)
        x_0 = mu(process.alpha(s)[:, None] * x_0 + process.sigma(s)[:, None] * fresh(step), s)
    x = Consistency(4, times=times)(mu, process, Z, seeds=SEEDS).x
    torch.testing.assert_close(x, x_0, rtol=1e-9, atol=1e-9)
