"""What samplers promise: counted evaluations, per-sample randomness, exact answers where there are any."""

import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unistep.diffusion.process import DiscreteVPProcess, EDMProcess, FlowProcess
from unistep.diffusion.samplers import DDIM, SAMPLERS, Consistency, Heun, build_sampler, seeded_normal, seeded_uniform
from unistep.errors import UserError
from unistep.teachers.analytic import GaussianMixture

MEANS = torch.tensor([[0.8, -0.2], [-0.5, 0.6], [0.1, -1.0]])
STOCHASTIC = {
    "heun": {"S_churn": 10.0, "S_min": 0.05, "S_max": 50.0, "S_noise": 1.003},
    "ddim": {"eta": 1.0},
    "consistency": {},
}
COUNTS = {"heun": lambda n: 2 * n - 1, "pndm": lambda n: n + (n > 1)}


class Counting:
    """An exact denoiser that counts its calls and remembers the times it was asked about."""

    def __init__(self, process):
        self.model = GaussianMixture(MEANS, 0.4, process)
        self.times: list[float] = []

    def __call__(self, x_t, t, cond=None):
        assert x_t.dtype == torch.float32 and t.dtype == torch.float32
        assert (t == t[0]).all()
        self.times.append(float(t[0]))
        return self.model(x_t, t, cond)


def fitting(name: str, num_steps: int, process):
    """The sampler, where it serves the process; some refuse those without signal at the terminal time."""
    sampler = build_sampler(name, num_steps)
    if name in ("unipc", "pndm") and float(process.alpha(process.time(torch.ones(1)))) == 0:
        with pytest.raises(UserError, match=f"found {name} for a process without signal at the terminal time"):
            sampler(Counting(process), process, torch.zeros(1, 2))
        pytest.skip("refused, as it should be")
    return sampler


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("n", [1, 2, 7])
def test_nfe_is_what_is_spent(process, name, n):
    sampler, denoiser = fitting(name, n, process), Counting(process)
    result = sampler(denoiser, process, seeded_normal(torch.arange(3), (2,)), seeds=torch.arange(3))
    assert result.nfe == sampler.nfe() == len(denoiser.times) == COUNTS.get(name, lambda n: n)(n)
    assert sampler.nfe(evaluations_per_call=2) == 2 * result.nfe
    assert result.x.isfinite().all() and result.x.dtype == torch.float32
    assert denoiser.times[0] == pytest.approx(float(process.time(torch.ones(1))))


def test_published_counts():
    assert build_sampler("heun", 18).nfe() == 35
    assert build_sampler("heun", 256).nfe() == 511


@pytest.mark.parametrize("name", SAMPLERS)
def test_one_step_is_the_denoiser_s_answer_to_noise(process, name):
    denoiser, z = Counting(process), seeded_normal(torch.arange(3), (2,))
    x = fitting(name, 1, process)(denoiser, process, z).x
    t = process.time(torch.ones(3))
    torch.testing.assert_close(x, denoiser(process.terminal(z), t))


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_known_sample_is_found_exactly(process, name):
    """With mu = c the ODE is a straight line to c in (alpha, sigma), and every sampler ends on it."""
    c = torch.tensor([0.3, -0.7])
    x = fitting(name, 5, process)(
        lambda x_t, t, cond: c.expand_as(x_t), process, torch.randn(4, 2), seeds=torch.arange(4)
    ).x
    torch.testing.assert_close(x, c.expand(4, 2))


@pytest.mark.parametrize("name", SAMPLERS)
def test_image_4711_is_the_same_in_any_batch(name):
    process, options = EDMProcess(sigma_max=20.0), STOCHASTIC.get(name, {})
    denoiser, sampler = Counting(process), build_sampler(name, 6, **options)

    def image(seeds: list[int]) -> torch.Tensor:
        rows = torch.tensor(seeds)
        z = seeded_normal(rows, (2,))
        return sampler(denoiser, process, z, seeds=rows).x[seeds.index(4711)]

    alone = image([4711])
    for batch in ([1, 4711], [4711, 2, 3], [*range(30), 4711, 99]):
        torch.testing.assert_close(image(batch), alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", STOCHASTIC)
def test_stochastic_samplers_need_seeds_and_use_them(name):
    process, sampler = EDMProcess(sigma_max=20.0), build_sampler(name, 4, **STOCHASTIC[name])
    z = seeded_normal(torch.arange(3), (2,))
    with pytest.raises(UserError, match="seeds: found none"):
        sampler(Counting(process), process, z)
    one, other = (sampler(Counting(process), process, z, seeds=torch.arange(3) + k).x for k in (0, 10))
    assert (one - other).abs().min() > 0


@settings(max_examples=20, deadline=None)
@given(seeds=st.lists(st.integers(0, 2**62), min_size=1, max_size=6), stream=st.integers(0, 50))
def test_noise_is_bit_identical_in_any_company(seeds, stream):
    together = seeded_normal(torch.tensor(seeds), (1, 3, 3), stream)
    assert together.dtype == torch.float32 and together.shape == (len(seeds), 1, 3, 3)
    for row, seed in zip(together, seeds, strict=True):
        assert torch.equal(row, seeded_normal(torch.tensor([seed]), (1, 3, 3), stream)[0])


def test_noise_is_normal_and_streams_and_high_bits_differ():
    seeds = torch.arange(2000)
    z, churn = seeded_normal(seeds, (8,)), seeded_normal(seeds, (8,), stream=1)
    assert abs(float(z.mean())) < 0.03 and float(z.std()) == pytest.approx(1, abs=0.03)
    assert abs(float((z * churn).mean())) < 0.03
    assert not torch.equal(*seeded_normal(torch.tensor([5, 5 + 2**32]), (4,)))
    assert float(seeded_uniform(seeds, 3).mean()) == pytest.approx(0.5, abs=0.03)
    assert seeded_normal(seeds[:0], (4,)).shape == (0, 4)


def test_noise_has_pinned_values():
    """Stored pairs name only their seeds: these numbers may never change."""
    expected = torch.tensor([-0.2845169007778168, -0.08287196606397629, -2.050508975982666])
    assert torch.equal(seeded_normal(torch.tensor([4711]), (3,))[0], expected)


def test_negative_seeds_are_refused():
    with pytest.raises(UserError, match="seed: found -2"):
        seeded_normal(torch.tensor([1, -2]), (3,))


@pytest.mark.parametrize(("name", "options"), [("heun", STOCHASTIC["heun"]), ("ddim", {"eta": 1.0})])
def test_stochastic_samplers_keep_the_distribution(name, options):
    """One Gaussian has a closed form: the spread of the samples must be that of the data."""
    process = EDMProcess(sigma_min=0.02, sigma_max=10.0)
    model = GaussianMixture(torch.full((1, 1000), 0.5), 0.4, process)
    seeds = torch.arange(10)
    x = build_sampler(name, 150, **(options | {"S_noise": 1.0} if name == "heun" else options))(
        model, process, seeded_normal(seeds, (1000,)), seeds=seeds
    ).x
    assert float(x.mean()) == pytest.approx(0.5, abs=0.02)
    assert float(x.std()) == pytest.approx(0.4, abs=0.02)


def test_heun_without_room_to_churn_is_deterministic():
    process, z = EDMProcess(), seeded_normal(torch.arange(3), (2,))
    quiet = Heun(6, S_churn=40.0, S_min=100.0)(Counting(process), process, z).x
    assert torch.equal(quiet, Heun(6)(Counting(process), process, z).x)


def test_churn_raises_sigma_by_at_most_sqrt_2():
    process, denoiser = EDMProcess(), Counting(EDMProcess())
    Heun(4, S_churn=1e9)(denoiser, process, seeded_normal(torch.arange(3), (2,)), seeds=torch.arange(3))
    assert denoiser.times[0] == pytest.approx(80 * math.sqrt(2))


def test_churn_belongs_to_edm():
    with pytest.raises(UserError, match="churn is defined for EDM processes only"):
        Heun(4, S_churn=1.0)(Counting(FlowProcess()), FlowProcess(), torch.zeros(1, 2), seeds=torch.arange(1))


def test_ddim_without_noise_is_euler(process):
    z = seeded_normal(torch.arange(3), (2,)).double()
    model = GaussianMixture(MEANS, 0.4, process)
    ddim, euler = (build_sampler(name, 6)(model, process, z).x for name in ("ddim", "euler"))
    torch.testing.assert_close(ddim, euler)


@pytest.mark.parametrize("times", [(1000, 10), (999, 10), (10, -1), (10, -3), (math.nan, 10)])
def test_consistency_refuses_times_outside_the_process(times):
    process = DiscreteVPProcess.linear()
    with pytest.raises(UserError, match=r"sampler\.times: found .*"):
        Consistency(3, times=times)(Counting(process), process, torch.zeros(1, 2), seeds=torch.arange(1))


def test_consistency_visits_the_training_grid_or_the_given_times():
    process = DiscreteVPProcess.linear()
    z, seeds = seeded_normal(torch.arange(2), (2,)), torch.arange(2)
    for sampler, times in (
        (Consistency(4), [999, 749, 500, 250]),
        (Consistency(3, times=(700, 10)), [999, 700, 10]),
    ):
        denoiser = Counting(process)
        sampler(denoiser, process, z, seeds=seeds)
        assert denoiser.times == times


def test_conditions_reach_the_denoiser():
    process = EDMProcess(sigma_min=0.02, sigma_max=10.0)
    model = GaussianMixture(MEANS, 0.1, process)
    x = build_sampler("heun", 18)(model, process, seeded_normal(torch.arange(6), (2,)), torch.arange(6) % 3).x
    assert torch.cdist(x, MEANS).argmin(1).tolist() == [0, 1, 2, 0, 1, 2]


def test_half_precision_asks_with_float32_times():
    asked = []

    def denoiser(x_t, t, cond):
        asked.append((x_t.dtype, t.dtype))
        return torch.zeros_like(x_t)

    x = build_sampler("euler", 2)(denoiser, EDMProcess(), torch.zeros(1, 2, dtype=torch.bfloat16)).x
    assert x.dtype == torch.bfloat16 and asked == [(torch.bfloat16, torch.float32)] * 2


@pytest.mark.parametrize(
    ("name", "options"),
    [*((name, {}) for name in SAMPLERS), *STOCHASTIC.items(), ("consistency", {"times": [5.0, 1.0, 0.1]})],
)
def test_config_round_trip(name, options):
    sampler = build_sampler(name, 4, **options)
    assert build_sampler(**json.loads(json.dumps(sampler.config(), allow_nan=False))) == sampler


@pytest.mark.parametrize(
    ("name", "steps", "options", "words"),
    [
        ("hein", 4, {}, r"sampler.name: found 'hein'; did you mean heun\? expected one of euler, heun"),
        ("euler", 0, {}, "sampler.num_steps: found 0"),
        ("euler", 4, {"eta": 1}, "sampler.eta: found this option for euler, which knows none"),
        ("heun", 4, {"S_churn": -1}, "sampler.S_churn: found -1"),
        ("heun", 4, {"S_churn": math.nan}, "sampler.S_churn: found nan, expected a finite number"),
        ("heun", 4, {"S_noise": -1.0}, "sampler.S_noise: found -1.0, expected a finite number, 0 or more"),
        ("heun", 4, {"S_noise": math.inf}, "sampler.S_noise: found inf"),
        ("heun", 4, {"S_min": 2.0, "S_max": 1.0}, "sampler.S_max: found 1.0, expected at least S_min, which is 2.0"),
        ("heun", 4, {"S_max": math.nan}, "sampler.S_max: found nan"),
        ("ddim", 4, {"eta": 2}, "sampler.eta: found 2"),
        ("consistency", 3, {"times": [1.0]}, "num_steps - 1 = 2"),
        ("consistency", 3, {"times": [1.0, 2.0]}, "decreasing"),
    ],
)
def test_mistakes_are_named(name, steps, options, words):
    with pytest.raises(UserError, match=words):
        build_sampler(name, steps, **options)


def test_samplers_do_not_track_gradients():
    weight = torch.ones(1, requires_grad=True)
    assert not DDIM(2)(lambda x_t, t, cond: weight * x_t, FlowProcess(), torch.ones(1, 2)).x.requires_grad
