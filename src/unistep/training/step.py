"""One training step: every phase of the method, each with accumulation, the finite check, clipping and AdamW."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from unistep.methods.base import Batch, LossOutput, Phase
from unistep.networks.precision import autocast
from unistep.training.ahead import Ahead
from unistep.training.batches import BatchSource, Streams
from unistep.training.config import TrainingConfig
from unistep.training.distributed import rank, set_gradient_sync, world_size
from unistep.training.finite import FiniteCheck, PhaseValues
from unistep.training.optim import NetworkOptimizer
from unistep.training.random import Part, StepRandom, derived_seed
from unistep.training.state import TrainState


@dataclass
class StepReport:
    """What a step produced on this rank, as tensors that nobody has waited for yet.

    Attributes:
        terms: loss term -> its means, one per micro-batch and phase in which it occurred.
        logs: the method's scalars, likewise.
        norms: network -> gradient norm before clipping, of its last update.
        lrs: network -> learning rate, of those that learnt in the step.
        made: the batches that carry the generator's samples of the step, one per micro-batch.
    """

    terms: dict[str, list[Tensor]] = field(default_factory=dict)
    logs: dict[str, list[Tensor]] = field(default_factory=dict)
    norms: dict[str, Tensor] = field(default_factory=dict)
    lrs: dict[str, float] = field(default_factory=dict)
    made: list[Batch] = field(default_factory=list)

    def add(self, output: LossOutput) -> None:
        """Takes note of one micro-batch."""
        for name, term in output.terms.items():
            self.terms.setdefault(name, []).append(term.detach().float().mean())
        for name, value in output.logs.items():
            self.logs.setdefault(name, []).append(value.detach().float())

    def scalars(self) -> dict[str, float]:
        """Everything as numbers: `loss/*`, `grad_norm/*`, `lr/*` and the method's own logs; one wait for the device."""
        values = {f"loss/{name}": torch.stack(parts).mean() for name, parts in self.terms.items()}
        values |= {name: torch.stack(parts).mean() for name, parts in self.logs.items()}
        values |= {f"grad_norm/{name}": norm for name, norm in self.norms.items()}
        numbers = torch.stack([value.double() for value in values.values()]).tolist()
        return dict(zip(values, numbers, strict=True)) | {f"lr/{name}": lr for name, lr in self.lrs.items()}


def train_step(
    state: TrainState,
    batches: BatchSource,
    config: TrainingConfig,
    device: torch.device,
    ahead: Ahead | None = None,
) -> StepReport:
    """Runs the phases of step `state.step`, updates what follows the networks and counts the step.

    Args:
        state: the run's state.
        batches: a pure function of the step.
        config: the loop's settings.
        device: where the networks are.
        ahead: makes random numbers and pairs of the next step meanwhile; None = each when it is needed.

    Raises:
        NonFiniteError: when the step ends; no optimiser step was made from the first value on that is not finite.
    """
    report, check, milestones = StepReport(), FiniteCheck(), state.method.milestones()
    for name, optimizer in state.optimizers.items():
        optimizer.set_step(state.step, config.steps, milestones.get(name, ()))
    if ahead is not None:
        ahead.forget(state.step)
    for phase in state.method.phases(state.step):
        report.made = run_phase(PhaseRun(state, batches, config, device, phase, ahead), report, check)
        report.lrs |= {name: state.optimizers[name].lr for name in phase.trains}
    check.require_finite()
    if state.ema is not None:
        state.ema.update(state.step)
    state.method.after_step(state.step)
    state.step += 1
    return report


def part_of(micro: int, accumulate: int) -> Part:
    """This rank's rows of a micro-batch, of so many a step."""
    return Part(micro * world_size() + rank(), world_size() * accumulate)


@dataclass(frozen=True)
class PhaseRun:
    """One phase of one step and everything it needs."""

    state: TrainState
    batches: BatchSource
    config: TrainingConfig
    device: torch.device
    phase: Phase
    ahead: Ahead | None = None

    @property
    def trained(self) -> dict[str, NetworkOptimizer]:
        """The networks this phase steps."""
        return {name: self.state.optimizers[name] for name in self.phase.trains}

    def part(self, micro: int) -> Part:
        """This rank's rows of a micro-batch."""
        return part_of(micro, self.config.accumulate)

    def batch(self, micro: int, made: list[Batch]) -> Batch:
        """A fresh micro-batch, or the one that carries the samples made earlier in this step."""
        if not self.phase.reuses_samples:
            where = self.state.step, self.phase.name, self.part(micro)
            if self.ahead is not None and isinstance(self.batches, Streams):
                return self.batches.batch(*where, self.ahead)
            return self.batches.batch(*where)
        if micro >= len(made):
            raise ValueError(f"phase {self.phase.name!r} reuses samples, but no earlier phase of the step made any")
        return made[micro]

    def loss(self, batch: Batch, micro: int) -> LossOutput:
        """The method's loss under autocast, with the phase's randomness; dropout draws from a seed of its own."""
        part, seed, step = self.part(micro), self.config.seed, self.state.step
        seed_layers(derived_seed(seed, step, self.phase.name, "layers", part.index), self.device)
        name, ahead = self.phase.name, self.ahead
        rng = StepRandom(seed, step, name, part, self.device) if ahead is None else ahead.random(seed, step, name, part)
        with autocast(self.device, self.config.precision):
            output = self.state.method.loss(self.phase, batch, rng)
        if ahead is not None and step + 1 < self.config.steps:
            ahead.repeat(seed, step + 1, name, rng)
        return output


def seed_layers(seed: int, device: torch.device) -> None:
    """Seeds what layers such as dropout draw from; torch.manual_seed would visit every kind of device each time."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


def run_phase(run: PhaseRun, report: StepReport, check: FiniteCheck) -> list[Batch]:
    """Gradients over all micro-batches, then one update; returns the batches that carry samples for later phases."""
    set_trainable(run.state.method.networks, run.state.optimizers, run.phase.trains)
    finite: dict[str, Tensor] = {}
    carrying: list[Batch] = []
    for micro in range(run.config.accumulate):
        sync_gradients(run.state.method.networks, run.phase, last=micro == run.config.accumulate - 1)
        batch = run.batch(micro, report.made)
        output = run.loss(batch, micro)
        (output.total() / run.config.accumulate).backward()
        note_finite(finite, output)
        report.add(output)
        if output.samples is not None:
            cond = batch.cond if output.cond is None else output.cond
            carrying.append(dataclasses.replace(batch, samples=output.samples.detach(), cond=cond))
    report.norms |= update(run, finite, check)
    return carrying or report.made


def update(run: PhaseRun, finite: Mapping[str, Tensor], check: FiniteCheck) -> dict[str, Tensor]:
    """Check, clip, step, forget the gradients; the norms of these."""
    for name, network in run.trained.items():
        if all(p.grad is None for p in network.parameters.values()):
            raise ValueError(f"phase {run.phase.name!r} trains {name!r}, but its loss does not depend on that network")
    gradients = {name: network.gradient_norms() for name, network in run.trained.items()}
    norms = {name: torch.linalg.vector_norm(torch.stack([*each.values()])) for name, each in gradients.items()}
    found_inf = check.note(PhaseValues(run.phase.name, run.state.step, finite, run.trained, norms, gradients))
    for name, network in run.trained.items():
        network.clip(norms[name])
        network.update(found_inf)
    run.state.note_norms(norms)
    return norms


def set_trainable(
    networks: Mapping[str, nn.Module], optimizers: Mapping[str, NetworkOptimizer], trains: tuple[str, ...]
) -> None:
    """Lets only the phase's networks require gradients."""
    for name in trains:
        if name not in networks:
            raise ValueError(f"phase trains {name!r}, expected one of {sorted(networks)}")
    for name, optimizer in optimizers.items():
        for p in optimizer.parameters.values():
            p.requires_grad_(name in trains)


def sync_gradients(networks: Mapping[str, nn.Module], phase: Phase, last: bool) -> None:
    """Gradients are averaged over ranks once, with the last micro-batch of the networks that learn."""
    for name, network in networks.items():
        set_gradient_sync(network, last and name in phase.trains)


def note_finite(finite: dict[str, Tensor], output: LossOutput) -> None:
    """Whether each term has been finite in all micro-batches so far, without waiting for the device."""
    for name, term in output.terms.items():
        now = torch.isfinite(term.detach()).all()
        finite[name] = now & finite[name] if name in finite else now
