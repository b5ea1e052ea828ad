"""Counted evaluations: what each kind of forward and backward pass counts, and each call once."""

import pytest
import torch
from torch import Tensor, nn

from unistep.costing.step_cost import counted
from unistep.diffusion.process import EDMProcess
from unistep.methods.base import Batch
from unistep.methods.dmd2 import DMD2Config
from unistep.methods.inputs import MethodInputs
from unistep.networks import MLP, EDMDenoiser
from unistep.networks.discriminator import DenoiserWithDiscriminator
from unistep.teachers.module import teacher_from_module
from unistep.training.random import StepRandom


class Two(nn.Module):
    """A network with two outputs, as a fake score with a head has."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.inner(x)
        return y, y.sum(1)


class Points(nn.Module):
    """A network of points that names its bottleneck."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(3, 8), nn.Linear(8, 2)

    @property
    def bottleneck(self) -> nn.Module:
        return self.leave

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        return self.leave(self.enter(torch.cat([x_t, t[:, None]], dim=1)).tanh())


@pytest.mark.parametrize(
    ("trained", "moves", "expected"), [(False, False, (5, 0)), (False, True, (5, 5)), (True, False, (5, 10))]
)
def test_a_backward_pass_counts_one_through_and_one_into_the_weights(
    trained: bool, moves: bool, expected: tuple[int, int]
) -> None:
    network, x = nn.Linear(2, 2).requires_grad_(trained), torch.ones(5, 2, requires_grad=moves)
    with counted([network, network]) as tally:
        y = network(x).sum()
        if y.requires_grad:
            y.backward()
    assert (tally.forward, tally.backward) == expected
    assert tally.evaluations == sum(expected)


def test_a_call_with_two_outputs_counts_its_backward_pass_once() -> None:
    network = Two()
    with counted([network]) as tally:
        y, logit = network(torch.ones(3, 2))
        (y.sum() + logit.sum()).backward()
    assert (tally.forward, tally.backward) == (3, 6)


def test_an_answer_that_no_gradient_reaches_has_no_backward_pass() -> None:
    network = nn.Linear(2, 2)
    with counted([network]) as tally:
        used, unused = network(torch.ones(3, 2)), network(torch.ones(4, 2))
        (used.sum() + unused.detach().sum()).backward()
        with torch.no_grad():
            network(torch.ones(2, 2))
    assert (tally.forward, tally.backward) == (9, 6)


def test_nothing_is_counted_afterwards() -> None:
    network = nn.Linear(2, 2)
    with counted([network]) as tally:
        pass
    network(torch.ones(3, 2)).sum().backward()
    assert tally.evaluations == 0


def test_a_pass_that_ends_at_the_bottleneck_counts_the_encoders_share() -> None:
    network = DenoiserWithDiscriminator(EDMDenoiser(MLP(2, 8, 3), EDMProcess()), torch.zeros(1, 2), torch.ones(1))
    x, t = torch.randn(4, 2), torch.ones(4)
    with counted([network]) as tally:
        network(x, t, output="logits").sum().backward()
    share = network.encoder_share
    assert 0.3 < share < 0.8
    assert (tally.forward, tally.backward) == pytest.approx((4 * share, 8 * share))


def test_a_fake_score_phase_with_a_discriminator_is_b_rows_whole_and_2_b_of_the_encoder() -> None:
    teacher = teacher_from_module(Points(), EDMProcess(), "x0", (2,))
    made_of = MethodInputs(teacher=teacher, copy=teacher.trainable_copy, prepare=lambda network: network, steps=4)
    method = DMD2Config(name="dmd2").build(made_of)
    batch = Batch(size=5, real=torch.randn(5, 2), samples=torch.randn(5, 2))
    with counted([method.fake_score]) as tally:
        method.phases(0)[1].loss(batch, StepRandom(0, 0, "fake_score")).total().backward()
    share = method.fake_score.encoder_share
    assert tally.evaluations == pytest.approx(3 * (5 + 10 * share))  # type: ignore[operator]
