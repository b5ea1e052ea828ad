"""A run that watches itself: alarms on a lagging fake score, drifting samples, lost diversity, exploding gradients."""

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from unistep.training.config import Settings

# ------------------------------------------------------------------------------------------------ what is looked at


@dataclass(frozen=True, kw_only=True)
class SampleStatistics:
    """Scalars of a set of samples.

    Attributes:
        mean, std: over all values of all samples (brightness and contrast).
        diversity: mean distance between two samples over that of the teacher's; nan where there is no telling.
    """

    mean: float
    std: float
    diversity: float = math.nan


@torch.no_grad()
def sample_statistics(x: Tensor) -> SampleStatistics:
    """Mean and spread of samples x [b, *dims], b >= 2."""
    x = x.detach().float()
    return SampleStatistics(mean=float(x.mean()), std=float(x.std()))


@dataclass(frozen=True, kw_only=True)
class Observation:
    """What the monitor sees at one log step; what a method does not have is None.

    Attributes:
        step: completed steps.
        fake_loss: the fake score's denoising loss on fresh samples.
        teacher_loss: the unguided teacher's denoising loss on the same noised samples.
        samples: statistics of the generator's samples.
        grad_norms: network -> largest gradient norm before clipping since the last log step.
    """

    step: int
    fake_loss: float | None = None
    teacher_loss: float | None = None
    samples: SampleStatistics | None = None
    grad_norms: Mapping[str, float] = field(default_factory=dict)


class HealthConfig(Settings):
    """Thresholds.

    Attributes:
        window: readings whose median is judged, so that one odd batch rings nothing.
        grace: completed steps before samples and the fake loss's trend are judged; None = a fifth of the run.
        lag_ratio: fake loss against the teacher's loss, above which the fake score lags.
        lag_rise: without the teacher's loss: fake loss against its own running median, above which it lags.
        mean_drift: difference of the means in units of the reference's std.
        std_ratio: the samples' std may be off the reference's by this factor either way.
        min_diversity: diversity against the teacher's, below which samples have collapsed.
        grad_ratio: gradient norm against its running median, twice within a window; once at five times this.
    """

    window: int = Field(default=5, ge=1, le=10**9)
    grace: int | None = Field(default=None, ge=0, le=10**9)
    lag_ratio: float = Field(default=1.15, gt=1)
    lag_rise: float = Field(default=3.0, gt=1)
    mean_drift: float = Field(default=0.25, gt=0)
    std_ratio: float = Field(default=1.35, gt=1)
    min_diversity: float = Field(default=0.7, gt=0, lt=1)
    grad_ratio: float = Field(default=20.0, gt=1)


@dataclass(frozen=True)
class Alarm:
    """One ringing: `name` in fake_score_lag, sample_drift, diversity_collapse, gradient_explosion."""

    step: int
    name: str
    words: str


REMEDY = {
    "fake_score_lag": "raise the fake score's learning rate (2 to 10 times the generator's) or its updates per step",
    "sample_drift": "lower the generator's learning rate, raise lambda_reg, or let the fake score learn faster",
    "diversity_collapse": "turn regression on or raise lambda_reg, add pairs, or update the fake score more often",
    "gradient_explosion": "lower the learning rate, lengthen the warm-up, or clip at a smaller norm",
}

HISTORY = 100  # readings that running medians look back on
ENOUGH = 10  # readings before a series is judged against its own past

# ------------------------------------------------------------------------------------------------------- the monitor


class HealthMonitor:
    """Collects readings and rings each alarm once until it has cleared: a window of readings without a reason.

    Args:
        reference: the teacher's samples in the same statistics; None leaves drift unjudged.
        steps: length of the run, for the default grace.
        config: thresholds.
    """

    def __init__(self, reference: SampleStatistics | None = None, steps: int = 0, config: HealthConfig | None = None):
        self.reference, self.config = reference, config or HealthConfig()
        self.grace = steps // 5 if self.config.grace is None else self.config.grace
        self.series: dict[str, deque[float]] = {}
        self.quiet: dict[str, int] = {}  # readings since each alarm last had a reason
        self.alarms: list[Alarm] = []

    def observe(self, reading: Observation) -> list[Alarm]:
        """Takes a reading; the alarms that begin to ring with it."""
        found = {
            "fake_score_lag": self.fake_score_lag(reading),
            "sample_drift": self.sample_drift(reading),
            "diversity_collapse": self.diversity_collapse(reading),
            "gradient_explosion": self.gradient_explosion(reading),
        }
        rung = [
            Alarm(reading.step, name, f"{words}; {REMEDY[name]}")
            for name, words in found.items()
            if words is not None and name not in self.ringing
        ]
        for name, words in found.items():
            self.quiet[name] = self.quiet.get(name, 0) + 1 if words is None else 0
        self.alarms += rung
        return rung

    @property
    def ringing(self) -> set[str]:
        """Alarms that have not been quiet for a whole window."""
        return {name for name in {a.name for a in self.alarms} if self.quiet[name] < self.config.window}

    # ---------------------------------------------------------------------------------------------- the four alarms

    def fake_score_lag(self, reading: Observation) -> str | None:
        """The fake score denoises fresh samples worse than the teacher, exactly like it, or ever worse."""
        if reading.fake_loss is None:
            return self.as_before("fake_score_lag")
        self.note("fake_loss", reading.fake_loss)
        if reading.teacher_loss:
            self.note("fake_over_teacher", reading.fake_loss / reading.teacher_loss)
            return self.behind_the_teacher()
        return self.above_its_trend() if reading.step >= self.grace else None

    def behind_the_teacher(self) -> str | None:
        """Having seen the samples, the fake score should denoise them at least as well as the teacher."""
        ratio, recent = self.windowed("fake_over_teacher"), list(self.series["fake_over_teacher"])[-ENOUGH:]
        if ratio is not None and not ratio <= self.config.lag_ratio:
            return f"the fake score denoises fresh samples {ratio:.2f} times worse than the teacher: it lags behind"
        if len(recent) == ENOUGH and all(abs(r - 1) < 1e-4 for r in recent):
            return "the fake score equals the teacher: it is not learning"
        return None

    def above_its_trend(self) -> str | None:
        """The loss may grow slowly as samples sharpen, not suddenly."""
        level, past = self.windowed("fake_loss"), list(self.series["fake_loss"])[: -self.config.window]
        if level is None or len(past) < ENOUGH or level <= self.config.lag_rise * median(past):
            return None
        return f"the fake score's loss is {level:.3g}, it was {median(past):.3g}: it lags behind"

    def sample_drift(self, reading: Observation) -> str | None:
        """Brightness or contrast of the samples leave the teacher's."""
        if reading.samples is None or self.reference is None:
            return self.as_before("sample_drift")
        self.note("mean", reading.samples.mean)
        self.note("std", reading.samples.std)
        mean, std, r = self.windowed("mean"), self.windowed("std"), self.reference
        if reading.step < self.grace or mean is None or std is None:
            return None
        if not abs(mean - r.mean) <= self.config.mean_drift * r.std:
            side = "brighter" if mean > r.mean else "darker"
            return f"samples are {side} than the teacher's (mean {mean:.3f}, teacher {r.mean:.3f})"
        if not 1 / self.config.std_ratio < std / r.std < self.config.std_ratio:
            side = "stronger" if std > r.std else "weaker"
            return f"samples have {side} contrast than the teacher's (std {std:.3f}, teacher {r.std:.3f})"
        return None

    def diversity_collapse(self, reading: Observation) -> str | None:
        """Samples of one batch are nearer to each other than the teacher's."""
        if reading.samples is None or math.isnan(reading.samples.diversity):
            return self.as_before("diversity_collapse")
        self.note("diversity", reading.samples.diversity)
        ratio = self.windowed("diversity")
        if reading.step < self.grace or ratio is None or ratio >= self.config.min_diversity:
            return None
        return f"samples are alike: their mean distance is {100 * ratio:.0f} % of the teacher's"

    def gradient_explosion(self, reading: Observation) -> str | None:
        """A gradient norm far above its running median: twice within a window, or once five times as far."""
        words = None
        for network, norm in reading.grad_norms.items():
            past = list(self.note(f"grad/{network}", norm))[:-1]
            if len(past) < ENOUGH or not median(past) > 0:
                continue
            limit = self.config.grad_ratio * median(past)
            above = sum(not n <= limit for n in [*past, norm][-self.config.window :])
            if not norm <= limit and (above >= min(2, self.config.window) or not norm <= 5 * limit):
                words = words or f"the gradient of {network} is {norm / median(past):.0f} times its running median"
        return words

    # ------------------------------------------------------------------------------------------------------- memory

    def as_before(self, name: str) -> str | None:
        """A reading without the values neither starts nor clears an alarm."""
        return name if name in self.ringing else None

    def note(self, name: str, value: float) -> deque[float]:
        """Appends to a series; returns it."""
        series = self.series.setdefault(name, deque(maxlen=HISTORY))
        series.append(value)
        return series

    def windowed(self, name: str) -> float | None:
        """Median of the last `window` readings, None before there are as many."""
        recent = list(self.series[name])[-self.config.window :]
        if len(recent) < self.config.window:
            return None
        return math.nan if any(map(math.isnan, recent)) else median(recent)  # a sort has no place for NaN

    def state(self) -> dict[str, Any]:
        """Plain values from which `restore` goes on."""
        return {
            "series": {name: list(values) for name, values in self.series.items()},
            "quiet": dict(self.quiet),
            "alarms": [asdict(alarm) for alarm in self.alarms],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes the values of `state` back."""
        self.series = {name: deque(values, maxlen=HISTORY) for name, values in state["series"].items()}
        self.quiet, self.alarms = dict(state["quiet"]), [Alarm(**alarm) for alarm in state["alarms"]]

    def report(self) -> dict[str, Any]:
        """What stands in health.json: alarms so far, those ringing now, the reference and the last readings."""
        return {
            "alarms": [asdict(alarm) for alarm in self.alarms],
            "ringing": sorted(self.ringing),
            "reference": {"mean": self.reference.mean, "std": self.reference.std} if self.reference else None,
            "last": {name: values[-1] for name, values in self.series.items() if values},
        }
