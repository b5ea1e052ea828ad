"""The loop that runs every method: resume, steps, logging, evaluation, checkpoints, a clean stop."""

import dataclasses
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from unistep.methods.base import Method
from unistep.training.batches import BatchSource
from unistep.training.checkpoint import Checkpoints, read_record
from unistep.training.config import TrainingConfig
from unistep.training.distributed import (
    any_rank,
    is_rank_zero,
    mean_over_ranks,
    on_rank_zero,
    resolve_device,
    world_size,
)
from unistep.training.ema import EMA
from unistep.training.finite import require_finite_parameters
from unistep.training.health import HealthMonitor, Observation
from unistep.training.hooks import Hooks, View
from unistep.training.monitor_samples import statistics
from unistep.training.prefetch import Prefetcher
from unistep.training.progress import ProgressDisplay
from unistep.training.random import VERSION
from unistep.training.resume import locked_settings, require_same_randomness, require_same_recipe, require_whole_record
from unistep.training.signals import StopSignals
from unistep.training.state import TrainState
from unistep.training.step import StepReport, train_step
from unistep.training.timing import StepTimer
from unistep.training.tracking import Tracker


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """How a call of `train` ended.

    Attributes:
        step: completed steps.
        stopped: `done`, or `signal` when Ctrl-C or SIGTERM came before the end, be it in the last step or in its
            evaluation (the CLI exits with 130 then).
        best_step, best_score: the best evaluation, None without any.
        checkpoint: the last checkpoint.
        ema: the average of the method's averaged network, None if the settings keep none.
    """

    step: int
    stopped: Literal["done", "signal"]
    best_step: int | None
    best_score: float | None
    checkpoint: Path
    ema: EMA | None


def train(
    method: Method,
    batches: BatchSource,
    config: TrainingConfig,
    run_dir: Path | str,
    hooks: Hooks | None = None,
    recipe: Mapping[str, Any] | None = None,
    description: Mapping[str, Any] | None = None,
    until: int | None = None,
    earlier: Sequence[Mapping[str, Any]] = (),
) -> TrainResult:
    """Trains a method to the end, going on from the newest checkpoint in the run's folder if there is one.

    The networks have been through `prepare_network` and are on the device already. What is learnt is a pure function
    of the recipe and the seed: interruptions change nothing, bit for bit.

    Args:
        method: who learns what.
        batches: a pure function of the step.
        config: the loop's settings.
        run_dir: metrics.jsonl, tensorboard/, health.json and checkpoints/ are written here.
        hooks: evaluation, previews, references.
        recipe: what must not change between two parts of a run, plain values; None = the loop's settings.
        description: what `teachers.checkpoint` writes beside the averaged network's weights, so that any checkpoint can
            be opened like a finished run; None = none can.
        until: completed steps after which this call saves and returns, the end of a stage; None = all.
        earlier: what `recipe` was before the run was continued with other settings; checkpoints of then are taken too.

    Raises:
        UserError: settings that do not fit, a changed recipe, a damaged checkpoint, an unwritable folder.
        NonFiniteError: a value that is not finite, before it reached the weights.
    """
    trainer = Trainer(method, batches, config, Path(run_dir), hooks or Hooks(), recipe, description, until, earlier)
    devices = [trainer.device] if trainer.device.type == "cuda" else []
    with torch.random.fork_rng(devices), deterministic(config.deterministic), StopSignals() as signals:
        try:
            if trainer.state.step == 0:
                trainer.preview()
            stop = False
            while trainer.state.step < trainer.until and not stop:
                trainer.timer.start()
                report = train_step(trainer.state, batches, config, trainer.device, trainer.prefetcher)
                trainer.timer.stop()
                stop = trainer.after_step(report, signals)
            return trainer.finish(signals)
        finally:
            trainer.close()


class Trainer:
    """What the loop of one run in one process has beside its steps: state, checkpoints, logs and hooks."""

    def __init__(
        self,
        method: Method,
        batches: BatchSource,
        config: TrainingConfig,
        run_dir: Path,
        hooks: Hooks,
        recipe: Mapping[str, Any] | None,
        description: Mapping[str, Any] | None,
        until: int | None,
        earlier: Sequence[Mapping[str, Any]] = (),
    ):
        self.until = config.steps if until is None else until
        self.batches, self.config, self.run_dir, self.hooks = batches, config, run_dir, hooks
        self.device = resolve_device(config.device)
        self.recipe = locked_settings(recipe if recipe is not None else config.model_dump())
        self.earlier = [locked_settings(other) for other in earlier]
        self.averaged = {"name": method.ema_network, "description": description}
        monitor = HealthMonitor(hooks.reference, config.steps, hooks.health)
        self.state = TrainState.start(method, config, monitor)
        self.checkpoints = Checkpoints(run_dir / "checkpoints", config.checkpoint.keep)
        self.resume()
        self.tracker = Tracker(run_dir, self.state.step, is_rank_zero())
        self.progress = ProgressDisplay(config.steps, self.state.step, is_rank_zero(), hooks.message)
        self.saved_at, self.timer = time.monotonic(), StepTimer(config.batch)
        self.prefetcher = None if self.device.type == "cpu" else Prefetcher(self.device)

    def close(self) -> None:
        """Ends the prefetching thread and closes the files."""
        if self.prefetcher is not None:
            self.prefetcher.close()
        self.progress.close()
        self.tracker.close()

    # ------------------------------------------------------------------------------------------------------ the loop

    def finish(self, signals: StopSignals) -> TrainResult:
        """The result after the last step, the end of a stage or a signal."""
        (stop,) = any_rank(signals.received is not None)  # one that came while the last step was saved counts as well
        return self.stop_early() if stop else self.result("done")

    def after_step(self, report: StepReport, signals: StopSignals) -> bool:
        """Logging, previews, evaluation and saving, each when its step has come; whether to stop."""
        self.progress.advance(self.state.step)
        if self.due(self.config.log_every) or self.state.step == 1:
            self.log(report)
        best = self.preview_and_evaluate()
        stop, by_clock = any_rank(signals.received is not None, is_rank_zero() and self.time_to_save())
        ended = self.state.step == self.until
        if stop or by_clock or best or ended or self.due(self.config.checkpoint.every_steps):
            self.save()
        return stop

    def preview_and_evaluate(self) -> bool:
        """Calls preview and evaluation if they are due; returns whether this evaluation is the best so far.

        If either fails, the step is saved first. So it is at a second Ctrl-C, which ends a long evaluation at once, but
        not on several ranks: they may receive it at different places, and saving needs them all.
        """
        try:
            if self.due(self.config.preview_every):
                self.preview()
            return self.evaluate() if self.due(self.config.evaluate_every) else False
        except BaseException as error:
            if isinstance(error, Exception) or world_size() == 1:
                self.save()
            raise

    def due(self, every: int | None) -> bool:
        """Whether something that happens every so many steps happens now; everything happens at the end."""
        return self.last or (every is not None and self.state.step % every == 0)

    @property
    def last(self) -> bool:
        """Whether the last step has been done."""
        return self.state.step == self.config.steps

    def time_to_save(self) -> bool:
        """Whether a checkpoint is due by the clock."""
        minutes = self.config.checkpoint.every_minutes
        return minutes is not None and time.monotonic() - self.saved_at > 60 * minutes

    def stop_early(self) -> TrainResult:
        """Says how to go on."""
        self.progress.say(f"stopped after step {self.state.step}, saved; the same command goes on from here")
        return self.result("signal")

    def result(self, stopped: Literal["done", "signal"]) -> TrainResult:
        """The call's answer."""
        step, best = self.state.step, self.state.best
        return TrainResult(
            step=step, stopped=stopped, best_step=self.state.best_step, best_score=best.get("score"),
            checkpoint=self.checkpoints.path(step), ema=self.state.ema,
        )  # fmt: skip

    # ------------------------------------------------------------------------------------------------- checkpoints

    def resume(self) -> None:
        """Goes on from the newest checkpoint, if the recipe is the same."""
        newest = self.checkpoints.latest()
        if newest is None:
            return
        record = on_rank_zero(lambda: read_record(newest))
        require_whole_record(record, str(newest))
        if record["recipe"] not in self.earlier:
            require_same_recipe(record["recipe"], self.recipe, str(newest))
        if record["step"] < self.config.steps:
            require_same_randomness(record.get("randomness", 1), str(newest))
        self.state.restore(self.checkpoints.load(newest, self.state.tensors()))

    def save(self) -> None:
        """A checkpoint of the present step, unless a weight is not finite."""
        require_finite_parameters(self.state.optimizers, self.state.step)
        on_rank_zero(self.tracker.require_present)
        record = self.state.record() | {"recipe": self.recipe, "averaged": self.averaged, "randomness": VERSION}
        self.checkpoints.save(self.state.step, self.state.tensors(), record, self.state.best_step)
        self.saved_at = time.monotonic()

    # --------------------------------------------------------------------------------------------------- observation

    def log(self, report: StepReport) -> None:
        """Scalars averaged over ranks to disk and bar, and a reading for the health monitor."""
        values = mean_over_ranks(report.scalars())
        self.update_health(report, values)
        values |= self.timer.values()
        self.tracker.log(self.state.step, values)
        self.progress.values(self.state.step, values)

    def update_health(self, report: StepReport, values: dict[str, float]) -> None:
        """Feeds the health monitor; alarms go to the progress output."""
        norms = mean_over_ranks(self.state.take_peaks())
        fake_loss, teacher_loss = self.state.method.health_losses(values)
        reading = Observation(step=self.state.step, fake_loss=fake_loss, teacher_loss=teacher_loss, grad_norms=norms)
        samples = statistics(self.state, report.sample_batches, self.config, self.device, self.hooks.diversity)
        if samples is not None:
            known = {name: value for name, value in dataclasses.asdict(samples).items() if not math.isnan(value)}
            values |= {f"samples/{name}": value for name, value in known.items()}
            reading = dataclasses.replace(reading, samples=samples)
        for alarm in self.state.health.observe(reading):
            self.progress.say(f"health, step {alarm.step}: {alarm.words}")
        self.tracker.health(self.state.health.report())

    def view(self) -> View:
        """The run for a hook."""
        method = self.state.method
        return View(step=self.state.step, method=method, network=method.networks[method.ema_network],
                    ema=self.state.ema, run_dir=self.run_dir, device=self.device)  # fmt: skip

    def preview(self) -> None:
        """Calls the preview hook."""
        if self.hooks.preview is not None:
            with torch.no_grad():
                self.hooks.preview(self.view())

    def evaluate(self) -> bool:
        """Calls the evaluation hook; whether this is the best so far. Rank 0's answer counts."""
        if self.hooks.evaluate is None:
            return False
        with torch.no_grad():
            answer = self.hooks.evaluate(self.view())
        scores = on_rank_zero(lambda: dict(answer) if isinstance(answer, Mapping) else {"score": float(answer)})
        if "score" not in scores:
            raise ValueError(f"the evaluation hook answered {sorted(scores)}, expected a number under 'score'")
        self.tracker.log(self.state.step, {f"evaluation/{name}": value for name, value in scores.items()})
        self.progress.say(f"step {self.state.step}: " + "  ".join(f"{k} {v:.4g}" for k, v in scores.items()))
        score = scores["score"]
        if not math.isfinite(score) or (self.state.best and not score < self.state.best["score"]):
            return False
        self.state.best = {"step": self.state.step, "score": score}
        return True


@contextmanager
def deterministic(on: bool) -> Iterator[None]:
    """torch's deterministic kernels inside the `with` block."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(on or before)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
