import pytest
import torch
from torch import nn

from unistep.diffusion.guidance import GuidedDenoiser
from unistep.diffusion.process import EDMProcess
from unistep.diffusion.samplers import build_sampler
from unistep.errors import UserError


class Labelled(nn.Module):
    """mu = label, counting its calls."""

    calls = 0

    def forward(self, x_t, t, cond):
        self.calls += 1
        return torch.zeros_like(x_t) + cond[:, None]


def null(rows: int) -> torch.Tensor:
    return torch.full((rows,), -1)


X, T, COND = torch.zeros(2, 3), torch.ones(2), torch.tensor([3, 5])


def test_scale_one_is_the_condition_alone_at_one_evaluation():
    inner = Labelled()
    guided = GuidedDenoiser(inner, null, 1.0)
    assert torch.equal(guided(X, T, COND), inner(X, T, COND))
    assert inner.calls == 2 and guided.evaluations_per_call == 1


@pytest.mark.parametrize(("scale", "expected"), [(0.0, [-1, -1]), (2.0, [7, 11]), (7.5, [29, 44])])
def test_scale_is_linear_from_null(scale, expected):
    inner = Labelled()
    guided = GuidedDenoiser(inner, null, scale)
    assert guided(X, T, COND)[:, 0].tolist() == expected
    assert inner.calls == guided.evaluations_per_call == 2


@pytest.mark.parametrize("scale", [1.0, 7.5])
def test_the_unguided_answer_comes_without_a_further_evaluation(scale):
    inner = Labelled()
    guided = GuidedDenoiser(inner, null, scale)
    found, unguided = guided.with_unguided(X, T, COND)
    assert inner.calls == guided.evaluations_per_call
    assert torch.equal(found, guided(X, T, COND)) and torch.equal(unguided, inner(X, T, COND))


def test_guidance_counts_in_a_sampler():
    sampler = build_sampler("heun", 3)
    inner = Labelled()
    result = sampler(GuidedDenoiser(inner, null, 2.0), EDMProcess(), torch.zeros(2, 3), COND)
    assert result.nfe == inner.calls == sampler.nfe(evaluations_per_call=2) == 10


def test_named_conditions_pass_through():
    class Text(nn.Module):
        def forward(self, x_t, t, cond):
            return x_t + cond["text"]

    guided = GuidedDenoiser(Text(), lambda rows: {"text": torch.zeros(rows, 3)}, 3.0)
    torch.testing.assert_close(guided(X, T, {"text": torch.ones(2, 3)}), torch.full((2, 3), 3.0))


def test_null_may_be_none():
    class Optional(nn.Module):
        def forward(self, x_t, t, cond):
            return x_t if cond is None else x_t + 1

    assert torch.equal(GuidedDenoiser(Optional(), lambda rows: None, 2.0)(X, T, COND), X + 2)


def test_guidance_without_condition_is_refused():
    with pytest.raises(UserError, match="guidance: found scale 2 and no condition"):
        GuidedDenoiser(Labelled(), null, 2.0)(X, T)
