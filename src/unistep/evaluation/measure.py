"""One pass over the samples feeds all metrics: each image is made once, seen by the judge once, then forgotten."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from unistep.errors import Mistakes, UserError
from unistep.evaluation.extractors.base import ImageJudge, Metric, Observed, Reference
from unistep.evaluation.metrics.agreement import ClassAgreement
from unistep.evaluation.metrics.alignment import Alignment
from unistep.evaluation.metrics.diversity import Diversity
from unistep.evaluation.metrics.frechet import FrechetDistance
from unistep.evaluation.metrics.kid import KernelDistance
from unistep.evaluation.metrics.prdc import NeighbourMetrics

FEWEST = 100  # samples and real images that a distance is computed of

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


def quick_metrics(reference: Reference, samples: int | None = None) -> list[Metric]:
    """The metrics that a couple of thousand samples can feed in a second, for evaluation during training.

    The first is a distance, which decides: the Frechet distance, or the kernel distance where samples or real images
    are too few for it.

    Args:
        reference: what samples are compared with.
        samples: how many there will be; None = enough.
    """
    distance: Metric = FrechetDistance(reference)
    if samples is not None and not usable([distance], reference, samples):
        size = min(samples, len(reference.features), KernelDistance(reference).subset)
        distance = KernelDistance(reference, subset=max(size, FEWEST), num_subsets=10)
    return [distance, ClassAgreement(), Diversity(reference)]


def real_images_needed(metric: Metric) -> int:
    """Fewest real images behind the reference's moments; 0 where any number will do."""
    return metric.images_needed if isinstance(metric, FrechetDistance) else 0


def usable(metrics: Sequence[Metric], reference: Reference, samples: int) -> list[Metric]:
    """The metrics that can make figures of so many samples against this reference."""
    found, count = len(reference.features), reference.count
    return [
        metric
        for metric in metrics
        if samples >= metric.needed
        and found >= metric.real_needed
        and (count is None or count >= real_images_needed(metric))
    ]


def left_out(metrics: Sequence[Metric], reference: Reference, samples: int) -> tuple[str, ...]:
    """Sentences on the metrics that are not `usable`; nothing where all are."""
    found, count = len(reference.features), reference.count
    held = f"{found:,} real images one by one" if found else "moments alone and no real images one by one"
    images = 0 if count is None else int(count)
    causes = (
        ([(m, m.real_needed) for m in metrics if m.real_needed > found], f"the reference holds {held}"),
        (
            [(m, real_images_needed(m)) for m in metrics if count is not None and real_images_needed(m) > images],
            f"the reference is of {images:,} real images",
        ),
        ([(m, m.needed) for m in metrics if m.needed > samples], f"there are {samples:,} samples"),
    )
    named, sentences = set[Metric](), list[str]()
    for missing, why in causes:
        fresh = {metric: needed for metric, needed in missing if metric not in named}
        named |= set(fresh)
        if fresh:
            words = ", ".join(f"{metric.name} (needs {needed:,})" for metric, needed in fresh.items())
            sentences.append(f"left out: {words}, because {why}")
    return tuple(sentences)


def require_enough_samples(reference: Reference, samples: int | None, during: int | None) -> None:
    """Refuses numbers of samples that no figure can be made of, before the samples are made.

    Args:
        reference: what they will be compared with.
        samples: for `all_metrics`; None = none are wanted.
        during: for `quick_metrics`, of which a distance has to decide; None = none are wanted.

    Raises:
        UserError: naming the setting.
    """
    metrics, mistakes = [m for m in all_metrics(reference) if not isinstance(m, ClassAgreement)], Mistakes()
    if samples is not None and not usable(metrics, reference, samples):
        possible = usable(metrics, reference, 10**18)  # whatever the number of samples
        if not possible:
            mistakes.add(f"evaluation.real: found {len(reference.features)} images, expected at least 2")
        else:
            needed = min(metric.needed for metric in possible)
            mistakes.add(f"evaluation.samples: found {samples}, expected at least {needed}; fewer make no figure")
    if during is not None:
        with mistakes.collect():
            require_distance(reference, during, "samples_during_training")
    mistakes.require_none()


def require_distance(reference: Reference, samples: int, setting: str) -> None:
    """Refuses numbers of samples and real images that `quick_metrics` cannot make a distance of.

    Raises:
        UserError: naming the setting.
    """
    if usable(quick_metrics(reference, samples)[:1], reference, samples):
        return
    frechet = FrechetDistance(reference)
    enough = usable([frechet], reference, frechet.needed)
    if len(reference.features) < FEWEST and not enough:
        raise UserError(
            f"evaluation.real: found {len(reference.features)} images, expected at least {FEWEST}: weights are chosen "
            "by a distance to them; or set generator.weights to ema and training.evaluate_every to null"
        )
    needed = FEWEST if len(reference.features) >= FEWEST else frechet.needed
    raise UserError(
        f"evaluation.{setting}: found {samples}, expected at least {needed}: fewer make no distance that could decide"
    )


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


def figures(metrics: Sequence[Metric], on_progress: Progress = lambda done, wanted: None) -> dict[str, float]:
    """All figures by name; `on_progress` is called with the metrics that are done.

    Raises:
        UserError: if a metric has seen too few samples.
    """
    found: dict[str, float] = {}
    for done, metric in enumerate(metrics):
        on_progress(done, len(metrics))
        found |= metric.compute()
    on_progress(len(metrics), len(metrics))
    return found
