"""Samples of several models from the same seeds, drawn into the run folder for the report."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from unistep.errors import UserError
from unistep.evaluation.evaluate import Candidate
from unistep.io.atomic import atomic_write
from unistep.reports.figures import draw_points, render
from unistep.reports.grids import grid_png
from unistep.reports.run_files import SAMPLES


@torch.no_grad()
def write_samples(
    run_dir: Path,
    candidates: Sequence[Candidate],
    first_seed: int = 0,
    columns: int = 10,
    num_points: int = 2000,
    real: Tensor | None = None,
    is_points: bool = False,
) -> Path:
    """Writes previews/evaluation.png (images, one row per candidate) or previews/evaluation.svg (points).

    Args:
        run_dir: the run's folder.
        candidates: rows, from top to bottom (points: from left to right).
        first_seed: column j shows seed first_seed + j.
        columns: images per row.
        num_points: points per scatter.
        real: real points, drawn behind.
        is_points: draw scatters.
    """
    seeds = torch.arange(first_seed, first_seed + (num_points if is_points else columns))
    made = {candidate.name: candidate.sample(seeds)[0].cpu() for candidate in candidates}
    if is_points:
        return write(run_dir, "svg", render(draw_points(made, real), "svg", SAMPLES))
    return write(run_dir, "png", grid_png({wrapped(name): images for name, images in made.items()}))


def wrapped(name: str, width: int = 14) -> str:
    """A name broken into lines at spaces."""
    import textwrap

    return "\n".join(textwrap.wrap(name, width))


def write(run_dir: Path, ending: str, content: bytes) -> Path:
    """Writes the picture in one go and removes one of the other kind."""
    path = Path(run_dir) / "previews" / f"{SAMPLES}.{ending}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, content)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); expected a writable run folder") from error
    path.with_suffix(".png" if ending == "svg" else ".svg").unlink(missing_ok=True)
    return path
