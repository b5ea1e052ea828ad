"""One pass over the samples feeds all metrics: each image is made once, seen by the judge once, then forgotten."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from unistep.errors import UserError
from unistep.evaluation.agreement import ClassAgreement
from unistep.evaluation.alignment import Alignment
from unistep.evaluation.base import ImageJudge, Metric, Observed, Reference
from unistep.evaluation.diversity import Diversity
from unistep.evaluation.frechet import FrechetDistance
from unistep.evaluation.kid import KernelDistance
from unistep.evaluation.prdc import NeighbourMetrics

Sample = Callable[[Tensor], tuple[Tensor, Tensor | None]]
"""Seeds int64 [b] -> images uint8 [b, c, h, w] and the classes asked for int64 [b] (None: unconditional)."""

Progress = Callable[[int, int], None]
"""Called with the samples done and the samples wanted."""


def all_metrics(reference: Reference) -> list[Metric]:
    """The metrics of an evaluation, empty, against one reference."""
    return [
        FrechetDistance(reference), KernelDistance(reference), NeighbourMetrics(reference),
        ClassAgreement(), Diversity(reference),
    ]  # fmt: skip


def quick_metrics(reference: Reference) -> list[Metric]:
    """The metrics that a couple of thousand samples can feed in a second, for evaluation during training."""
    return [FrechetDistance(reference), ClassAgreement(), Diversity(reference)]


def usable(metrics: Sequence[Metric], reference: Reference) -> list[Metric]:
    """The metrics for which the reference holds enough real images one by one."""
    return [metric for metric in metrics if len(reference.features) >= metric.real_needed]


def left_out(metrics: Sequence[Metric], reference: Reference) -> tuple[str, ...]:
    """A sentence on the metrics that are not `usable`; nothing where all are."""
    found = len(reference.features)
    missing = [f"{metric.name} (needs {metric.real_needed:,})" for metric in metrics if metric.real_needed > found]
    held = f"{found:,} real images one by one" if found else "moments alone and no real images one by one"
    return (f"left out: {', '.join(missing)}, because the reference holds {held}",) if missing else ()


def require_enough_samples(reference: Reference, samples: int | None, during: int | None) -> None:
    """Whether the metrics will be able to make figures of so many samples, asked before the samples are made.

    Args:
        reference: what they will be compared with.
        samples: for `all_metrics`; None = none are wanted.
        during: for `quick_metrics`; None = none are wanted.

    Raises:
        UserError: naming the setting.
    """
    for setting, found, metrics in (
        ("samples", samples, all_metrics),
        ("samples_during_training", during, quick_metrics),
    ):
        needed = max(metric.needed for metric in usable(metrics(reference), reference))
        if found is not None and found < needed:
            raise UserError(f"evaluation.{setting}: found {found}, expected at least {needed}")


def observe(images: Tensor, labels: Tensor | None, judge: ImageJudge) -> Observed:
    """Shows images uint8 [b, c, h, w] to the judge.

    Raises:
        UserError: for images that are not 8-bit, or labels that do not fit them.
    """
    if images.dtype != torch.uint8:
        raise UserError(f"evaluation: found images of {images.dtype}, expected uint8; decode them with the codec first")
    if labels is None:
        labels = torch.full((len(images),), -1)
    if len(labels) != len(images):
        raise UserError(f"evaluation: found {len(labels)} labels for {len(images)} images, expected one each")
    features, logits = judge.features(images)
    return Observed(
        features=features.detach().cpu().half().float(),
        labels=labels.cpu().long(),
        predicted=torch.full((len(images),), -1) if logits is None else logits.detach().argmax(1).cpu(),
        images=images,
    )


@torch.no_grad()
def judge_samples(
    sample: Sample,
    judge: ImageJudge,
    metrics: Sequence[Metric],
    *,
    num_samples: int,
    first_seed: int = 0,
    batch: int = 100,
    on_progress: Progress = lambda done, wanted: None,
    alignment: Alignment | None = None,
) -> Observed:
    """Makes samples of the seeds first_seed, first_seed + 1, ... and feeds every metric with them.

    Args:
        sample: seeds -> images and labels, each a pure function of its seed.
        judge: turns images into features.
        metrics: fed in place.
        num_samples: how many.
        first_seed: the first seed.
        batch: seeds handed to `sample` at once.
        on_progress: called after each batch.
        alignment: holds them against their prompts; None = nothing does.

    Returns:
        What the judge saw, without the images.
    """
    kept: list[Observed] = []
    for seeds in torch.arange(first_seed, first_seed + num_samples).split(batch):
        images, labels = sample(seeds)
        if len(images) != len(seeds):
            raise UserError(f"evaluation: found {len(images)} samples of {len(seeds)} seeds, expected one each")
        seen = observe(images, labels, judge)
        if alignment is not None:
            seen = replace(seen, alignment=alignment(images, seeds))
        feed(metrics, seen)
        kept.append(seen.head(len(seen)))
        on_progress(sum(map(len, kept)), num_samples)
    return Observed.join(kept)


def feed(metrics: Sequence[Metric], seen: Observed) -> None:
    """Shows a batch to every metric."""
    for metric in metrics:
        metric.update(seen)


def figures(metrics: Sequence[Metric]) -> dict[str, float]:
    """All figures by name.

    Raises:
        UserError: if a metric has seen too few samples.
    """
    return {name: value for metric in metrics for name, value in metric.compute().items()}
