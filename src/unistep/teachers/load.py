"""`load_teacher(spec)`: the one door through which teachers come in."""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unistep.assets import embedded_folder
from unistep.errors import UserError
from unistep.io.arguments import require_arguments
from unistep.teachers.analytic import MIXTURES, mixture_teacher
from unistep.teachers.checkpoint import teacher_from_folder
from unistep.teachers.diffusers import Options, load_diffusers_teacher
from unistep.teachers.diffusers.captions import Captions
from unistep.teachers.diffusers.conditioner import TextConditioner
from unistep.teachers.diffusers.load import opened, required_prompts
from unistep.teachers.edm.checkpoint import load_edm_teacher
from unistep.teachers.teacher import Teacher


def load_teacher(spec: str | Path, options: Mapping[str, Any] | None = None, device: str = "cpu") -> Teacher:
    """A frozen teacher.

    Args:
        spec: `embedded:NAME` (packaged), `gaussians:NAME` (exact mixture), `edm:PATH` (an EDM checkpoint file or the
            folder that `unistep convert` made of it), `diffusers:FOLDER` or `diffusers:OWNER/NAME` (a pipeline, on
            the disk or the hub), the path of a checkpoint folder or of a run of `unistep teach`.
        options: what a pipeline of diffusers leaves open, see `teachers.diffusers.Options`; a teacher that was taught
            on captions takes `prompts` in their place.
        device: where a pipeline's text encoders run.

    Raises:
        UserError: if nothing is found there, or for options that do not belong there.
    """
    kind, _, name = str(spec).partition(":")
    if kind == "diffusers":
        return load_diffusers_teacher(name, options_of(options), device)
    teacher = load_own_teacher(spec, kind, name)
    if not options:
        return teacher
    if set(options) != {"prompts"} or not isinstance(teacher.conditioner, Captions):
        raise UserError(
            f"teacher.options.{next(iter(options))}: found it, expected none: only diffusers:... has options, and a "
            "teacher of captions has prompts"
        )
    return with_prompts(teacher, required_prompts(options_of(options)), device)


def load_own_teacher(spec: str | Path, kind: str, name: str) -> Teacher:
    """A teacher that leaves nothing open."""
    if kind == "embedded":
        return dataclasses.replace(teacher_from_folder(embedded_folder(name) / "teacher"), source=f"embedded:{name}")
    if kind == "gaussians":
        if name not in MIXTURES:
            raise UserError(f"teacher: found 'gaussians:{name}', expected one of {', '.join(MIXTURES)}")
        return mixture_teacher(name)
    if kind == "edm":
        return load_edm_teacher(Path(name))
    folder = Path(spec)
    if folder.is_file():
        raise UserError(
            f"teacher: {spec}: found a file, expected a checkpoint's folder or edm:{spec}; a network of your own "
            "becomes a teacher in Python, unistep.Teacher.from_module"
        )
    if not folder.is_dir():
        raise UserError(
            f"teacher: found no folder {spec}, expected embedded:NAME, gaussians:NAME, edm:PATH, diffusers:PIPELINE or "
            "a checkpoint"
        )
    return teacher_from_folder(folder / "teacher" if (folder / "teacher").is_dir() else folder)


def prepare_teacher(spec: str | Path, options: Mapping[str, Any] | None = None, device: str = "cpu") -> None:
    """What one rank does before all load: a pipeline is fetched and its prompts are encoded.

    Raises:
        UserError: as `load_teacher`.
    """
    kind, _, name = str(spec).partition(":")
    if kind == "diffusers":
        opened(name, options_of(options), device)


def load_prompts(spec: str, options: Mapping[str, Any], prompts: str, device: str = "cpu") -> TextConditioner:
    """Other prompts for a teacher that reads text, encoded (and kept) as its own are.

    Args:
        spec: `diffusers:...`, as for `load_teacher`.
        options: the teacher's; their prompts are not looked at.
        prompts: see `teachers.diffusers.prompts.read_prompts`.
        device: where to encode.

    Raises:
        UserError: for a teacher that reads no text, or prompts that are absent, empty or too long.
    """
    kind, _, name = spec.partition(":")
    if kind == "diffusers":
        _, conditioner = opened(name, dataclasses.replace(options_of(options), prompts=prompts), device)
        if conditioner is not None:
            return conditioner
    raise UserError(f"prompts: found {prompts}, expected none: {spec} is no pipeline that reads text")


def with_prompts(teacher: Teacher, prompts: Sequence[str], device: str) -> Teacher:
    """A teacher of captions with other prompts: another teacher as far as pairs and stored features go."""
    assert isinstance(teacher.conditioner, Captions)
    conditioner = teacher.conditioner.with_prompts(prompts, device)
    both = hashlib.sha256(f"{teacher.sha256} {conditioner.sha256}".encode()).hexdigest()
    config = {**teacher.config, "conditioner": conditioner.config()}
    return dataclasses.replace(teacher, conditioner=conditioner, sha256=both, config=config)


def options_of(values: Mapping[str, Any] | None) -> Options:
    """The options of a pipeline of diffusers, checked."""
    require_arguments(Options, values or {}, "teacher.options")
    return Options(**values or {})
