"""`sample`: a grid, and files if asked, from a one-step generator or a teacher."""

import itertools
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unistep.errors import UserError
from unistep.export.opened import is_export, open_export
from unistep.io.atomic import atomic_write
from unistep.io.locking import locked
from unistep.io.progress import show_progress
from unistep.recipes.sections import SolverConfig
from unistep.run.checkpoints import export_checkpoint
from unistep.run.hooks import PREVIEW_FIRST_SEED, picture_png
from unistep.run.sample_sources import Model, SampleSource, generator_source, solved_teacher
from unistep.teachers.checkpoint import codec_and_conditioner, load_generator
from unistep.teachers.diffusers.captions import Captions
from unistep.teachers.diffusers.prompts import read_prompts
from unistep.teachers.load import load_teacher
from unistep.teachers.teacher import Conditioner, Teacher
from unistep.training.distributed import resolve_device
from unistep.types import Cond

COLUMNS = 10
ROWS, VALUES = 100, 100 * 3 * 32 * 32  # at most that many samples at once, and numbers in them: large latents need room
SHOWN = 20  # names in a message; prompts are many


def sample(
    run: str | Path | Teacher,
    *,
    num: int = 64,
    first_seed: int = PREVIEW_FIRST_SEED,
    labels: Iterable[str | int] | None = None,
    prompts: str | Sequence[str] | None = None,
    files: bool = False,
    out: str | Path | None = None,
    teacher: Teacher | None = None,
    checkpoint: str | None = None,
    device: str = "auto",
    quiet: bool = False,
) -> Path:
    """Draws samples of seeds first_seed, first_seed + 1, ... and writes them.

    Args:
        run: a distilled run, its generator folder, or what was exported from it (to safetensors, diffusers or onnx); a
            teacher's folder, spec (`embedded:fashion-mnist`) or a teacher of your own works too, under an 18-step Heun
            solver.
        num: how many.
        first_seed: the first seed; the default is none of the pairs' or the evaluation's.
        labels: classes by name or index (or prompts by their text or index), dealt out in turn; None = each seed's own.
        prompts: for models that were taught on captions, other prompts than theirs, dealt out in turn: a file or
            dataset (see `read_prompts`), or the prompts themselves.
        files: write one PNG per image too (points: samples.npy).
        out: folder; None = RUN/samples, or a folder of the checkpoint's inside (`samples` for a teacher of your own).
            Other samples of the same seeds that are there already are kept: new ones are numbered (`-2`, `-3`, ...).
        teacher: your own teacher, if the run was made with one.
        checkpoint: `best`, `last` or `step-N` of the run's training instead of what it exported at its end; written
            to a folder of its own first, see `export_checkpoint`.
        device: auto, cpu or cuda.
        quiet: no progress on stderr, where it takes long.

    Returns:
        The picture's path.

    Raises:
        UserError: if there is nothing to sample there, or for an unknown label.
    """
    if isinstance(run, Teacher) and (checkpoint is not None or teacher is not None):
        raise UserError("run: found a teacher, expected the run of which a checkpoint or a teacher= is given")
    source = run if checkpoint is None or isinstance(run, Teacher) else export_checkpoint(run, checkpoint)
    draws = draws_from(source, resolve_device(device), teacher)
    if prompts is not None:
        texts = read_prompts(prompts) if isinstance(prompts, str) else tuple(prompts)
        draws, labels = prompted(draws, texts), labels or texts
    folder = Path(out) if out is not None else default_folder(source)
    seeds = torch.arange(first_seed, first_seed + num)
    wanted = labels_of(draws.conditioner, seeds, labels)
    shown = drawn_in_tiles(draws, seeds, wanted, quiet)
    rows = {"": shown} if shown.ndim == 2 else {f"{first_seed + i * COLUMNS}": r for i, r in enumerate(in_rows(shown))}
    name = f"seeds-{first_seed}-{first_seed + num - 1}"
    drawn = picture_png(rows, name)
    with locked(folder):
        tag = free_tag(folder, name, drawn)
        atomic_write(folder / f"{name}{tag}.png", drawn)
        if files:
            write_files(folder, shown, first_seed, tag)
    return folder / f"{name}{tag}.png"


def drawn_in_tiles(draws: SampleSource, seeds: Tensor, wanted: Tensor | None, quiet: bool) -> Tensor:
    """Decoded samples of seeds under labels [n, ...], a few at a time."""
    made: list[Tensor] = []
    with show_progress("sampling", len(seeds), not quiet) as update:
        for part in tiles(len(seeds), draws.shape):
            made.append(draws.decoded(seeds[part], condition(draws.conditioner, wanted, part)))
            update(sum(map(len, made)))
    return torch.cat(made)


def free_tag(folder: Path, name: str, drawn: bytes) -> str:
    """Returns what is put behind the names of a call's files, so that no earlier picture is overwritten.

    Nothing for the first picture of these seeds, or the same one again; then -2, -3, ...
    """
    for number in itertools.count(1):
        tag = f"-{number}" if number > 1 else ""
        earlier = folder / f"{name}{tag}.png"
        if not earlier.exists() or earlier.read_bytes() == drawn:
            return tag
    raise AssertionError("unreachable")


def draws_from(run: str | Path | Teacher, device: torch.device, own: Teacher | None = None) -> SampleSource:
    """Whatever can be sampled at a place: a generator first, a teacher else; or a teacher itself."""
    if isinstance(run, Teacher):
        run.denoiser.to(device)
        return solved_teacher(run, SolverConfig(), 1.0, device)[0]
    folder = Path(run)
    if (folder / "generator").is_dir() or is_generator(folder):
        generator, config, _ = load_generator(folder, own)
        return drawn_by(generator_source(generator.to(device)), config, own, device)
    if is_export(folder):
        return drawn_by(*open_export(folder, own, device), own, device)
    if (folder / "recipe.yaml").is_file() and not (folder / "teacher" / "config.json").is_file():
        raise UserError(f"{folder}: found a run without a finished model; run its command again to go on")
    return draws_from(load_teacher(run), device)


def drawn_by(model: Model, config: dict[str, Any], own: Teacher | None, device: torch.device) -> SampleSource:
    """Draws of a generator, as its configuration or the caller's own teacher decodes and conditions them."""
    codec, conditioner = codec_and_conditioner(config, own)
    return SampleSource(model=model, shape=tuple(config["shape"]), codec=codec, conditioner=conditioner, device=device)


def prompted(draws: SampleSource, prompts: Sequence[str]) -> SampleSource:
    """The same model asked for other prompts.

    Raises:
        UserError: for a model without captions, or prompts that its encoder does not read.
    """
    if not isinstance(draws.conditioner, Captions):
        raise UserError("prompts: found some, expected none: only models taught on captions read others than their own")
    return replace(draws, conditioner=draws.conditioner.with_prompts(prompts, draws.device))


def is_generator(folder: Path) -> bool:
    """Whether a place is a generator's folder, or the single file of one."""
    path = folder / "config.json"
    return folder.is_file() or path.is_file() and b'"t_init"' in path.read_bytes()


def default_folder(run: str | Path | Teacher) -> Path:
    """`samples` in the run, a folder inside for a checkpoint; in the present folder for a teacher without one."""
    if isinstance(run, Teacher):
        return Path("samples")
    folder = Path(run)
    inside = re.fullmatch(r"generator|export-.+|(?:generator|teacher)-(step-\d+)", folder.name)
    if not folder.is_dir() or inside is None:
        return folder / "samples" if folder.is_dir() else (folder.parent if folder.is_file() else Path()) / "samples"
    return folder.parent / "samples" / (inside[1] or "")


def tiles(num: int, shape: tuple[int, ...]) -> list[slice]:
    """The samples of one call each: fewer at once, the larger they are; a sample depends on its seed alone."""
    rows = max(1, min(ROWS, VALUES // math.prod(shape)))
    return [slice(first, first + rows) for first in range(0, num, rows)]


def condition(conditioner: Conditioner | None, labels: Tensor | None, part: slice) -> Cond:
    """The condition of some of the labels."""
    return None if conditioner is None or labels is None else conditioner.from_labels(labels[part])


def labels_of(conditioner: Conditioner | None, seeds: Tensor, labels: Iterable[str | int] | None) -> Tensor | None:
    """The label of each seed: its own, or those asked for in turn.

    Raises:
        UserError: for labels where there are no classes, or an unknown one.
    """
    wanted = [labels] if isinstance(labels, str | int) else list(labels or [])
    if conditioner is None:
        if wanted:
            raise UserError(f"label: found {wanted[0]}, expected none: this model has no classes")
        return None
    if not wanted:
        return conditioner.labels(seeds)
    indices = torch.tensor([index_of(conditioner, label) for label in wanted])
    return indices[torch.arange(len(seeds)) % len(indices)]


def index_of(conditioner: Conditioner, label: str | int) -> int:
    """A class by name (any case) or index, or a prompt by its text or index."""
    names = [name.lower() for name in conditioner.names]
    if str(label).lower() in names:
        return names.index(str(label).lower())
    if str(label).isdigit() and int(label) < len(names):
        return int(label)
    shown = ", ".join(conditioner.names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
    raise UserError(f"label: found {label}, expected 0..{len(names) - 1} or one of {shown}")


def in_rows(images: Tensor) -> list[Tensor]:
    """Images [n, ...] in rows of ten, the last one filled up with white."""
    missing = -len(images) % min(COLUMNS, len(images))
    white = torch.full((missing, *images.shape[1:]), 255, dtype=images.dtype)
    return list(torch.cat([images, white]).split(min(COLUMNS, len(images))))


def write_files(folder: Path, made: Tensor, first_seed: int, tag: str = "") -> None:
    """One PNG per image named by its seed, or all points in one .npy; the tag is put behind their names."""
    if made.ndim == 2:
        atomic_write(folder / f"samples{tag}.npy", written(lambda file: np.save(file, made.numpy())))
        return
    for seed, image in enumerate(made, start=first_seed):
        pixels = image.permute(1, 2, 0).numpy()
        picture = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
        atomic_write(folder / f"{seed:08d}{tag}.png", written(lambda file, p=picture: p.save(file, format="PNG")))


def written(write: Callable[[BytesIO], object]) -> bytes:
    """What a library writes into a file."""
    file = BytesIO()
    write(file)
    return file.getvalue()
