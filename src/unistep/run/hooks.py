"""What the loop is given to look at a run with: previews from fixed seeds and a quick evaluation."""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from unistep.io.atomic import atomic_write
from unistep.reports import draw_points, grid_png, render
from unistep.run.console import Talk
from unistep.run.health_reference import HealthReference
from unistep.run.sample_sources import SampleSource
from unistep.training.distributed import is_rank_zero
from unistep.training.hooks import Hooks, View

PREVIEW_FIRST_SEED = 2_000_000  # of previews and `sample`; neither pairs nor evaluations use seeds from here on
IMAGE_SEEDS, POINT_SEEDS = (
    torch.arange(PREVIEW_FIRST_SEED, PREVIEW_FIRST_SEED + 10),
    torch.arange(PREVIEW_FIRST_SEED, PREVIEW_FIRST_SEED + 2000),
)

QuickJudge = Callable[[SampleSource], Mapping[str, float]]
"""Draws -> figures, the deciding one under `score`, lower is better."""


def build_hooks(
    draws: Callable[[nn.Module], SampleSource],
    quick: QuickJudge | None,
    say: Talk,
    teacher: SampleSource | None = None,
    health: HealthReference | None = None,
) -> Hooks:
    """Previews and quick figures of the averaged network.

    Args:
        draws: the network of a run, as what draws samples.
        quick: judges them; None = never.
        say: when quiet the loop shows neither bar nor lines.
        teacher: shown above in previews; None while teaching one.
        health: what the health monitor compares samples with; None leaves drift and diversity unjudged.
    """
    above: dict[str, Tensor] = {}  # the teacher's samples, made once, when first needed

    def preview(view: View) -> None:
        with view.averaged() as network:
            drawn = draws(network)
            seeds = IMAGE_SEEDS if len(drawn.shape) > 1 else POINT_SEEDS
            below = {f"step {view.step}": drawn(seeds)[0]}
        if teacher is not None and not above:
            above["teacher"] = teacher(seeds)[0]
        if is_rank_zero():
            write_picture(view.run_dir / "previews" / f"step-{view.step:07d}.png", above | below)

    def evaluate(view: View) -> Mapping[str, float]:
        assert quick is not None
        with view.averaged() as network:
            return quick(draws(network))

    return Hooks(
        evaluate=None if quick is None else evaluate,
        preview=preview,
        diversity=None if health is None else health.diversity,
        reference=None if health is None else health.statistics,
        message=say if say.quiet else None,
    )


def write_picture(path: Path, samples: Mapping[str, Tensor]) -> None:
    """Writes samples of one kind as a PNG, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, picture_png(samples, path.stem))


def picture_png(samples: Mapping[str, Tensor], title: str) -> bytes:
    """Draws samples of one kind as a PNG: images in rows, points in scatters side by side."""
    images = next(iter(samples.values())).ndim == 4
    return grid_png(samples) if images else render(draw_points(dict(samples)), "png", title)
