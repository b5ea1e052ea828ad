"""One training step: every phase of the method with gradient accumulation, finite check, clipping and update."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from unistep.methods.base import Batch, LossOutput, Phase
from unistep.networks.precision import autocast
from unistep.training.batches import BatchSource
from unistep.training.config import TrainingConfig
from unistep.training.distributed import rank, set_gradient_sync, world_size
from unistep.training.finite import FiniteCheck, PhaseValues
from unistep.training.optim import NetworkOptimizer
from unistep.training.prefetch import Prefetcher, phase_random
from unistep.training.random import Shard
from unistep.training.state import TrainState


def train_step(
    state: TrainState,
    batches: BatchSource,
    config: TrainingConfig,
    device: torch.device,
    prefetcher: Prefetcher | None = None,
) -> "StepReport":
    """Runs the phases of step `state.step`, updates average and auxiliary networks, and counts the step.

    Args:
        state: the run's state.
        batches: a pure function of the step.
        config: the loop's settings.
        device: where the networks are.
        prefetcher: prepares random numbers and pairs of the next step meanwhile.

    Raises:
        NonFiniteError: at the end of the step; no update was made from the first value on that is not finite.
    """
    method, report, check = state.method, StepReport(), FiniteCheck()
    state.set_learning_rates(config.steps)
    for phase in method.phases(state.step):
        set_trainable(state.optimizers, phase)
        optimizers = {name: state.optimizers[name] for name in phase.trains}
        samples: list[Batch] = []
        finite: dict[str, Tensor] = {}
        for micro in range(config.accumulate):
            sync_gradients(method.networks, phase, last=micro == config.accumulate - 1)
            part = local_shard(micro, config.accumulate)
            if phase.reuses_samples:
                batch = report.batch(micro, phase)
            else:
                batch = batches.batch(state.step, phase, part, prefetcher)
            with phase_random(config.seed, state.step, phase.name, part, device, prefetcher) as rng:
                with autocast(device, config.precision):
                    output = phase.loss(batch, rng)
            (output.total() / config.accumulate).backward()
            report.add(output)
            note_finite(finite, output)
            if output.samples is not None:
                cond = batch.cond if output.cond is None else output.cond
                samples.append(replace(batch, samples=output.samples.detach(), cond=cond))
        gradients = {name: optimizer.gradient_norms(phase.name) for name, optimizer in optimizers.items()}
        norms = {name: torch.linalg.vector_norm(torch.stack([*each.values()])) for name, each in gradients.items()}
        found_inf = check.note(PhaseValues(phase.name, state.step, finite, optimizers, norms, gradients))
        for name, optimizer in optimizers.items():
            optimizer.clip(norms[name])
            optimizer.update(found_inf)
        state.note_norms(norms)
        report.note_update(norms, {name: optimizer.lr for name, optimizer in optimizers.items()}, samples)
    check.require_finite()
    if state.ema is not None:
        state.ema.update(state.step)
    method.after_step(state.step)
    state.step += 1
    if prefetcher is not None:
        prefetcher.discard_before(state.step)
    return report


@dataclass
class StepReport:
    """The results of a step on this rank, as tensors that have not been waited for.

    Attributes:
        terms: loss term -> its means, one per micro-batch and phase in which it occurred.
        logs: the method's scalars, likewise.
        norms: network -> gradient norm before clipping, of its last update.
        lrs: network -> learning rate, for the networks trained in the step.
        sample_batches: the batches with the generator's samples of the step, one per micro-batch.
    """

    terms: dict[str, list[Tensor]] = field(default_factory=dict)
    logs: dict[str, list[Tensor]] = field(default_factory=dict)
    norms: dict[str, Tensor] = field(default_factory=dict)
    lrs: dict[str, float] = field(default_factory=dict)
    sample_batches: list[Batch] = field(default_factory=list)

    def add(self, output: LossOutput) -> None:
        """Adds one micro-batch."""
        for name, term in output.terms.items():
            self.terms.setdefault(name, []).append(term.detach().float().mean())
        for name, value in output.logs.items():
            self.logs.setdefault(name, []).append(value.detach().float())

    def note_update(self, norms: Mapping[str, Tensor], lrs: Mapping[str, float], samples: list[Batch]) -> None:
        """Adds the update at the end of a phase; samples of earlier phases stay unless the phase has new ones."""
        self.norms |= norms
        self.lrs |= lrs
        self.sample_batches = samples or self.sample_batches

    def batch(self, micro: int, phase: Phase) -> Batch:
        """The micro-batch with the samples of an earlier phase of the step.

        Raises:
            ValueError: if no earlier phase returned samples.
        """
        if micro >= len(self.sample_batches):
            raise ValueError(f"phase {phase.name!r} reuses samples, but no earlier phase of the step returned any")
        return self.sample_batches[micro]

    def scalars(self) -> dict[str, float]:
        """All values as numbers: `loss/*`, `grad_norm/*`, `lr/*` and the method's logs; waits for the device once."""
        values = {f"loss/{name}": torch.stack(parts).mean() for name, parts in self.terms.items()}
        values |= {name: torch.stack(parts).mean() for name, parts in self.logs.items()}
        values |= {f"grad_norm/{name}": norm for name, norm in self.norms.items()}
        numbers = torch.stack([value.double() for value in values.values()]).tolist()
        return dict(zip(values, numbers, strict=True)) | {f"lr/{name}": lr for name, lr in self.lrs.items()}


def local_shard(micro: int, accumulate: int) -> Shard:
    """This rank's rows of a micro-batch, one of `accumulate` in a step."""
    return Shard(micro * world_size() + rank(), world_size() * accumulate)


def set_trainable(optimizers: Mapping[str, NetworkOptimizer], phase: Phase) -> None:
    """Makes only the parameters of the phase's networks require gradients.

    Raises:
        ValueError: if the phase trains a network that does not exist.
    """
    for name in phase.trains:
        if name not in optimizers:
            raise ValueError(f"phase {phase.name!r} trains {name!r}, expected one of {sorted(optimizers)}")
    for name, optimizer in optimizers.items():
        for p in optimizer.parameters.values():
            p.requires_grad_(name in phase.trains)


def sync_gradients(networks: Mapping[str, nn.Module], phase: Phase, last: bool) -> None:
    """Averages gradients over ranks once, with the last micro-batch of the networks that are trained."""
    for name, network in networks.items():
        set_gradient_sync(network, last and name in phase.trains)


def note_finite(finite: dict[str, Tensor], output: LossOutput) -> None:
    """Notes whether each term has been finite in all micro-batches so far, without waiting for the device."""
    for name, term in output.terms.items():
        now = torch.isfinite(term.detach()).all()
        finite[name] = now & finite[name] if name in finite else now
