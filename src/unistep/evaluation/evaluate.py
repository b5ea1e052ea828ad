"""Judging several models alike: real against real, the teacher, the teacher at one step, the student."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from unistep.errors import UserError
from unistep.evaluation.cache import Identity, load_features, save_features
from unistep.evaluation.extractors.base import ImageJudge, Metric, Observed, Reference, TooFewSamplesError
from unistep.evaluation.measure import Sample, all_metrics, feed, figures, judge_samples, left_out, usable
from unistep.evaluation.metrics.alignment import Alignment, MeanAlignment
from unistep.evaluation.metrics.points import Modes, point_figures
from unistep.evaluation.result import Evaluation, Role, Row, versions
from unistep.evaluation.throughput import MakeImages, Timing, measure

Metrics = Callable[[Reference], list[Metric]]
Report = Callable[[str, int, int], None]
"""Called with a row's name, the samples done and the samples wanted."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A model to be judged.

    Attributes:
        name: readable, unique.
        sample: seeds int64 [b] -> images uint8 [b, c, h, w] (or points [b, d]) and labels int64 [b] or None, each row
            a pure function of its seed.
        nfe: network evaluations per sample.
        role: what it stands for in a comparison.
        latency: makes a batch of that many finished images, for timing; None = not timed.
        device: where it makes them.
        identity: what its samples depend on; needed to read or keep a feature file.
        cached: a feature file to load instead of sampling.
    """

    name: str
    sample: Sample
    nfe: int
    role: Role = "other"
    latency: MakeImages | None = None
    device: torch.device = torch.device("cpu")
    identity: Identity | None = None
    cached: Path | None = None


def evaluate_models(
    rows: Sequence[Candidate],
    judge: ImageJudge,
    reference: Reference | None = None,
    num_samples: int = 10_000,
    first_seed: int = 0,
    *,
    batch: int = 100,
    metrics: Metrics = all_metrics,
    recompute: bool = False,
    keep_features: Path | None = None,
    with_floor: bool = True,
    alignment: Alignment | None = None,
    teacher: str = "",
    on_progress: Report = lambda name, done, wanted: None,
    waiting: Callable[[str], AbstractContextManager[None]] = lambda title: nullcontext(),
) -> Evaluation:
    """Judges all candidates on the same seeds, in one pass each.

    Args:
        rows: the candidates, in the order of the table; the floor goes before them.
        judge: turns images into features.
        reference: real images to compare with; the judge's training images by default.
        num_samples: samples per candidate.
        first_seed: sample i is made of seed first_seed + i.
        batch: samples made at once.
        metrics: makes the metrics, empty.
        recompute: sample anew even where a candidate has a feature file.
        keep_features: folder for a feature file of each sampled row that has an identity.
        with_floor: judge held-out real images too; the judge must have some.
        alignment: holds samples against their prompts; None = nothing does.
        teacher: sha256 of the teacher, for the record.
        on_progress: called as samples and figures are made.
        waiting: surrounds the timing of a row, of which nobody knows how long it takes.

    Raises:
        UserError: for two rows of one name, too few samples for a metric, or a feature file of something else.
    """
    require_distinct([row.name for row in rows])
    reference = judge.reference("train") if reference is None else reference
    settings: dict[str, dict] = {}
    done = [floor(judge, usable(metrics(reference), reference, num_samples), num_samples)] if with_floor else []
    for candidate in rows:
        aligned = [MeanAlignment()] if alignment is not None else []
        fresh = [*usable(metrics(reference), reference, num_samples), *aligned]
        seen, cached = observe_candidate(
            candidate, judge, fresh, num_samples, first_seed, batch, recompute, on_progress, alignment
        )
        if keep_features is not None and candidate.identity is not None and not cached:
            save_features(keep_features / f"{slug(candidate.name)}.safetensors", seen, candidate.identity)
        found = figures(fresh, partial(on_progress, f"figures of {candidate.name}"))
        with waiting(f"timing {candidate.name}"):
            done.append(row_of(candidate, found, num_samples, first_seed, cached))
        settings = {metric.name: dict(metric.settings()) for metric in fresh}
    held = {} if alignment is None else {"alignment": alignment.sha256, "alignment_title": alignment.title}
    return Evaluation(
        kind="images", rows=tuple(done), reference=in_words(reference), reference_sha256=reference.sha256,
        judge=judge.sha256, judge_title=judge.title, distance=judge.distance, teacher=teacher,
        notes=left_out(metrics(reference), reference, num_samples), settings=settings, versions=versions(), **held,
    )  # fmt: skip


def in_words(reference: Reference) -> str:
    """What the samples are compared with."""
    if reference.count is None:
        return f"the moments in {reference.source}"
    images = f"{int(reference.count):,} real images"
    whence = f" of {reference.source}" if reference.source else ""
    return f"{images}{whence}, {len(reference.features):,} of them one by one"


def observe_candidate(
    candidate: Candidate,
    judge: ImageJudge,
    metrics: Sequence[Metric],
    num_samples: int,
    first_seed: int,
    batch: int,
    recompute: bool,
    on_progress: Report,
    alignment: Alignment | None = None,
) -> tuple[Observed, bool]:
    """What the judge sees of a candidate, fed to the metrics; and whether it came from a file."""
    if candidate.cached is not None and not recompute:
        if candidate.identity is None:
            raise UserError(f"evaluation: row {candidate.name!r} has a feature file but no identity to check it with")
        check_identity(candidate, judge, first_seed)
        seen = load_features(candidate.cached, candidate.identity, num_samples)
        feed(metrics, seen)
        return seen, True
    if candidate.identity is not None:
        check_identity(candidate, judge, first_seed)
    seen = judge_samples(
        candidate.sample,
        judge,
        metrics,
        num_samples=num_samples,
        first_seed=first_seed,
        batch=batch,
        on_progress=lambda done, wanted: on_progress(candidate.name, done, wanted),
        alignment=alignment,
    )
    return seen, False


def check_identity(candidate: Candidate, judge: ImageJudge, first_seed: int) -> None:
    """An identity speaks of this judge and these seeds."""
    identity = candidate.identity
    assert identity is not None
    if (identity.judge, identity.first_seed) != (judge.sha256, first_seed):
        raise UserError(
            f"evaluation: row {candidate.name!r} names judge {identity.judge[:12]} and seeds from "
            f"{identity.first_seed}, expected {judge.sha256[:12]} and {first_seed}"
        )


def floor(judge: ImageJudge, metrics: Sequence[Metric], num_samples: int) -> Row:
    """Held-out real images against the reference: what no generator need beat, at the same sample count if they last.

    Class agreement is the judge's accuracy on all held-out images, for a judge that tells classes apart. A metric for
    which they are too few has no figure in this row.
    """
    real = judge.reference("test")
    n = min(num_samples, len(real.features))
    labels = real.labels[:n]
    predicted = torch.full_like(labels, -1) if judge.accuracy is None else labels
    feed(metrics, Observed(features=real.features[:n], labels=labels, predicted=predicted))
    found: dict[str, float] = {}
    for metric in metrics:
        with suppress(TooFewSamplesError):
            found |= metric.compute()
    if judge.accuracy is not None and "agreement" in found:
        found["agreement"] = judge.accuracy
    return Row(name="real images, held out", role="floor", figures=found, num_samples=n)


def evaluate_points(
    rows: Sequence[Candidate],
    real: Tensor,
    held_out: Tensor | None = None,
    modes: Modes | None = None,
    num_samples: int = 4000,
    first_seed: int = 0,
    *,
    teacher: str = "",
) -> Evaluation:
    """Judges samplers of points against real points [n, d], all on the same seeds.

    Args:
        rows: candidates whose `sample` gives points [b, d].
        real: points of the data.
        held_out: more points of the data, for the floor.
        modes: centres, where they are known.
        num_samples: points per candidate; as many of `real` are used.
        first_seed: sample i is made of seed first_seed + i.
        teacher: sha256 of the teacher, for the record.

    Raises:
        UserError: for two rows of one name or too few points.
    """
    require_distinct([row.name for row in rows])
    done = []
    if held_out is not None:
        exact = held_out[:num_samples]
        found = point_figures(exact, real, modes)
        done.append(Row(name="exact samples", role="floor", figures=found, num_samples=len(exact)))
    seeds = torch.arange(first_seed, first_seed + num_samples)
    for candidate in rows:
        with torch.no_grad():
            points, _ = candidate.sample(seeds)
        done.append(row_of(candidate, point_figures(points.cpu(), real, modes), num_samples, first_seed, False))
    return Evaluation(
        kind="points",
        rows=tuple(done),
        reference=f"{min(num_samples, len(real)):,} exact samples",
        teacher=teacher,
        settings={"modes": {"threshold": 0.25, "within_sd": 4.0}, "sliced_wasserstein": {"directions": 128, "seed": 0}},
        versions=versions(),
    )


def row_of(candidate: Candidate, found: dict[str, float], num_samples: int, first_seed: int, cached: bool) -> Row:
    """The row of a candidate, timed if it can be."""
    with torch.no_grad():
        timing: Timing | None = None if candidate.latency is None else measure(candidate.latency, candidate.device)
    return Row(
        name=candidate.name,
        role=candidate.role,
        figures=found,
        num_samples=num_samples,
        first_seed=first_seed,
        nfe=candidate.nfe,
        timing=timing,
        cached=cached,
    )


def require_distinct(names: list[str]) -> None:
    """Rows are told apart by name."""
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"evaluation: found several rows named {', '.join(twice)}; give each its own name")


def slug(name: str) -> str:
    """A file name made of a row's name."""
    return "-".join("".join(c if c.isalnum() else " " for c in name.lower()).split())
