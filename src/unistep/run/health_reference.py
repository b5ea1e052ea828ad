"""What the health monitor compares a generator's samples with: statistics of the teacher's, made once in a run."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unistep.errors import UserError
from unistep.io.atomic import atomic_write
from unistep.io.text_files import read_json
from unistep.run.sample_sources import SampleSource
from unistep.training.distributed import on_rank_zero
from unistep.training.health import SampleStatistics, sample_statistics
from unistep.training.monitor_samples import Spread
from unistep.types import Cond, index_condition

FIRST_SEED = 10_000_000
MANY, FEW = 256, 64  # samples of a teacher
COSTLY = 1_000_000  # values times evaluations of one sample, above which few are drawn: latents of 64^2 under a solver
WATCHED = 64  # samples of a step, and of a rank, whose diversity is watched
FILE = "health-reference.json"

Features = Callable[[Tensor], Tensor]
"""Decoded samples [b, ...] -> features [b, d]."""


@dataclass(frozen=True)
class HealthReference:
    """The teacher's samples in numbers.

    Attributes:
        statistics: brightness and contrast.
        spread: how far apart samples lie, as `seen`.
        seen: samples in model space -> what their distances are measured by.
    """

    statistics: SampleStatistics
    spread: Spread
    seen: Callable[[Tensor], Tensor]

    def diversity(self, x: Tensor, cond: Cond) -> float:
        """How far apart samples [b, *dims] lie over how far the teacher's do."""
        return self.spread.ratio(self.seen(x[:WATCHED]), classes(index_condition(cond, slice(WATCHED))))


def health_reference(
    teacher: SampleSource,
    features: Features | None,
    batch: int,
    nfe: int,
    file: Path | None,
    made_with: Mapping[str, Any],
) -> HealthReference:
    """Reads the reference of a run, or draws some of the teacher's samples on the first rank and keeps their numbers.

    Args:
        teacher: under its solver, guided as in the run.
        features: what distances are measured by; None = the values in model space.
        batch: samples that are drawn at once.
        nfe: evaluations of a sample, which decide how many are drawn.
        file: of the run; None keeps nothing.
        made_with: plain values on which the numbers depend; a file made with others is replaced.

    Raises:
        UserError: for a file that cannot be read.
    """

    def seen(x: Tensor) -> Tensor:
        return x if features is None else features(teacher.codec.decode(x))

    seeds = reference_seeds(teacher.shape, nfe)
    facts = json.loads(json.dumps({**made_with, "first_seed": FIRST_SEED, "count": len(seeds)}))

    def numbers() -> tuple[SampleStatistics, Spread]:
        known = None if file is None else read(file, facts)
        if known is not None:
            return known
        made = drawn(teacher, seen, seeds, batch)
        if file is not None:
            values = {"statistics": {"mean": made[0].mean, "std": made[0].std}, "spread": asdict(made[1])}
            atomic_write(file, (json.dumps({"made_with": facts, **values}, indent=2) + "\n").encode())
        return made

    return HealthReference(*on_rank_zero(numbers), seen)


def reference_seeds(shape: tuple[int, ...], nfe: int) -> Tensor:
    """256 seeds, or 64 where a sample is dear: their mean is then known to a tenth of the limit that it is held to."""
    return torch.arange(FIRST_SEED, FIRST_SEED + (FEW if math.prod(shape) * nfe > COSTLY else MANY))


def drawn(
    teacher: SampleSource, seen: Callable[[Tensor], Tensor], seeds: Tensor, batch: int
) -> tuple[SampleStatistics, Spread]:
    """The numbers of the teacher's samples of some seeds, so many at once."""
    parts, features, labels = [], [], []
    for some in seeds.split(batch):
        cond = teacher.conditioner.from_seeds(some) if teacher.conditioner is not None else None
        x = teacher.raw(some, cond)
        parts.append(x.cpu())
        features.append(seen(x).cpu())
        labels.append(classes(cond))
    kinds = [part for part in labels if part is not None]
    spread = Spread.of(torch.cat(features), torch.cat(kinds) if kinds else None)
    return sample_statistics(torch.cat(parts)), spread


def read(file: Path, facts: Mapping[str, Any]) -> tuple[SampleStatistics, Spread] | None:
    """The numbers in a file, None where there is none that was made with these facts."""
    if not file.is_file():
        return None
    found = read_json(file, "delete this one file, it is made anew")
    try:
        if found["made_with"] != facts:
            return None
        by_class = {int(label): distance for label, distance in found["spread"]["by_class"].items()}
        return SampleStatistics(**found["statistics"]), Spread(**{**found["spread"], "by_class": by_class})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{file}: no readable reference ({error}); delete this one file, it is made anew") from error


def classes(cond: Cond) -> Tensor | None:
    """Class labels int64 [b] on the CPU, None for other conditions."""
    return cond.cpu() if isinstance(cond, Tensor) and cond.ndim == 1 and not cond.is_floating_point() else None
