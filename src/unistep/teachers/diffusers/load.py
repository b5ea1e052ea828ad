"""`load_diffusers_teacher(spec)`: a pipeline's folder or hub id to a teacher, everything read from its own files."""

import hashlib
import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import nn

import unistep.teachers.diffusers.embeddings as embeddings
from unistep.errors import UserError
from unistep.io.arguments import require_type
from unistep.io.text_files import read_json
from unistep.teachers.codecs import PixelCodec
from unistep.teachers.conditioners import LabelConditioner
from unistep.teachers.diffusers.codec import VAECodec
from unistep.teachers.diffusers.compare import require_agreement
from unistep.teachers.diffusers.conditioner import TextConditioner
from unistep.teachers.diffusers.denoiser import Constants, DiffusersDenoiser
from unistep.teachers.diffusers.families import Family, family_of
from unistep.teachers.diffusers.folder import PipelineFolder, open_folder
from unistep.teachers.diffusers.prompts import read_prompts
from unistep.teachers.diffusers.schedule import read_schedule
from unistep.teachers.diffusers.shape import Shape, shape_of
from unistep.teachers.diffusers.text import TextEncoder, settings_of
from unistep.teachers.module import identity
from unistep.teachers.teacher import Conditioner, Teacher

CLEANERS = ("bs4", "ftfy")  # pipelines clean prompts with these where they are installed


@dataclass(frozen=True)
class Options:
    """What a pipeline leaves open; the `teacher.options` of a recipe.

    Attributes:
        prompts: a file or dataset (see `read_prompts`), or the prompts themselves; needed where text is read.
        size: height and width of the samples in pixels; None = the pipeline's own.
        frames: frames of a video; None = the pipeline's own.
        dtype: type of the weights: float32, bfloat16 or float16. Trainable copies are float32 always.
        guidance_embedding: the scale that a guidance-distilled network (FLUX.1-dev) is told; None = the pipeline's.
        null_class: whether the last class of a class-conditional UNet2DModel means "no class".
        cache: folder of text embeddings; None = see `embeddings.default_cache`.
        vae_tiling: decode previews and samples tile by tile, for latents of large images; needs a VAE.
        compare: steps of the sample that is compared with the pipeline's own (see `require_agreement`), 0 = none.
    """

    prompts: str | Sequence[str] | None = None
    size: tuple[int, int] | None = None
    frames: int | None = None
    dtype: str = "float32"
    guidance_embedding: float | None = None
    null_class: bool = False
    cache: str | None = None
    vae_tiling: bool = False
    compare: int = 2

    def __post_init__(self) -> None:
        for name, field in inspect.signature(Options).parameters.items():
            require_type(getattr(self, name), field.annotation, f"teacher.options.{name}")


def load_diffusers_teacher(spec: str, options: Options = Options(), device: str = "cpu") -> Teacher:
    """A frozen teacher from a diffusers pipeline.

    Text embeddings are computed once and kept; the text encoders are loaded only for that and let go before the
    denoiser is loaded.

    Args:
        spec: a pipeline's folder, or OWNER/NAME on the hub.
        options: what the pipeline leaves open.
        device: where to encode prompts and to compare; the teacher stays there.

    Raises:
        UserError: for a pipeline that is absent, damaged or of no known family, or options that do not fit it.
    """
    folder, text = opened(spec, options, device)
    pipeline = folder.load(options.dtype, folder.used).to(device)
    return assemble(pipeline, text, options, source=f"diffusers:{spec}", files=folder)


def opened(spec: str, options: Options, device: str) -> tuple[PipelineFolder, TextConditioner | None]:
    """A pipeline's folder, fetched if need be, and its prompts, encoded if need be: what one rank does for all.

    Raises:
        UserError: as `load_diffusers_teacher`.
    """
    folder = open_folder(spec)
    family = family_in(folder)
    if family.encoded:
        return folder, text_conditioner(folder, family, options, device)
    if options.prompts is not None:
        raise UserError("teacher.options.prompts: found some, expected none: this pipeline reads no text")
    return folder, None


def teacher_from_pipeline(pipeline: Any, options: Options = Options(), device: str = "cpu") -> Teacher:
    """A frozen teacher from a pipeline in memory, whose network it shares; embeddings are kept in memory too.

    Raises:
        UserError: as `load_diffusers_teacher`.
    """
    network = denoiser_of(pipeline)
    family, text = family_of(type(network).__name__, network.config), None  # type: ignore[arg-type]
    if family.encoded:
        prompts, encoder = required_prompts(options), TextEncoder(pipeline, family, device)
        parts = {name: part for name, part in pipeline.components.items() if name.startswith("text_encoder") and part}
        encoders = {name: identity(part, {}) for name, part in parts.items()}
        facts = {"pipeline": type(pipeline).__name__, "encoders": encoders, "settings": scalars(pipeline.config)}
        key = embeddings.key_of(facts, prompts)
        encoder.require_short(prompts)
        text = TextConditioner(embeddings.in_memory(prompts, encoder, encoder.null), prompts, key)
    return assemble(pipeline.to(device), text, options, source=f"a {type(pipeline).__name__} in memory", files=None)


def denoiser_of(pipeline: Any) -> nn.Module:
    """The pipeline's network: its unet or transformer."""
    return pipeline.components.get("unet") or pipeline.components["transformer"]


def family_in(folder: PipelineFolder) -> Family:
    """The family of a folder's denoiser, from its files."""
    file = folder.path / folder.denoiser / "config.json"
    try:
        config = read_json(file, "restore the file")
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror or error}); restore the file") from error
    return family_of(folder.components[folder.denoiser][1], config)


def required_prompts(options: Options) -> tuple[str, ...]:
    """The prompts that the options name.

    Raises:
        UserError: if there are none.
    """
    if options.prompts is None:
        raise UserError("teacher.options.prompts: missing; this pipeline reads text: name a file with prompts")
    prompts = read_prompts(options.prompts) if isinstance(options.prompts, str) else tuple(options.prompts)
    if not prompts:
        raise UserError("teacher.options.prompts: found no prompt, expected at least one")
    return prompts


def text_conditioner(folder: PipelineFolder, family: Family, options: Options, device: str) -> TextConditioner:
    """The prompts' embeddings, from the cache or computed into it."""
    prompts = required_prompts(options)
    missing = [name for name in ("text_encoder", "tokenizer") if name not in folder.components]
    if missing:
        raise UserError(f"{folder.path}: found no {' and no '.join(missing)}, expected them: the pipeline reads text")
    facts = {
        "pipeline": folder.kind.__name__,
        "settings": scalars(folder.settings),
        "encoders": list(folder.text),
        "components": folder.digest(folder.text),
        "width": None if folder.has_all_text else embeddings.digest(folder.path / folder.denoiser / "config.json"),
        "arguments": settings_of(folder.kind),
        "dtype": options.dtype,
        "cleaners": [name for name in CLEANERS if find_spec(name)],
    }
    key = embeddings.key_of(facts, prompts)
    place = (Path(options.cache) if options.cache else embeddings.default_cache()) / key[:24]
    if not embeddings.is_complete(place):
        encoder = TextEncoder(folder.load(options.dtype, folder.encoding), family, device)
        encoder.require_short(prompts)  # all of them, before hours are spent on the first ones
        embeddings.compute(place, key, prompts, encoder, encoder.null)
    return TextConditioner.open(str(place), key)


def scalars(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What a pipeline's own settings say in plain values, such as what its "no condition" is."""
    plain = {name: value for name, value in settings.items() if isinstance(value, bool | int | float | str)}
    return {name: value for name, value in plain.items() if not name.startswith("_")}


def assemble(
    pipeline: Any, text: TextConditioner | None, options: Options, source: str, files: PipelineFolder | None
) -> Teacher:
    """The teacher from its parts, compared with the pipeline."""
    network, shape = denoiser_of(pipeline), shape_of(pipeline, denoiser_of(pipeline), options.size, options.frames)
    schedule = read_schedule(pipeline.scheduler, shape.tokens)
    classes, null_label = classes_of(network, options.null_class)
    denoiser = DiffusersDenoiser(network, schedule, constants_of(pipeline, network, shape, options), null_label)
    conditioner: Conditioner | None = text or class_conditioner(pipeline, classes, null_label is not None)
    codec = codec_of(pipeline.components.get("vae"), files, shape.frames, options.vae_tiling)
    reading = denoiser.config() | {"shape": list(shape.dims)}
    config = reading | {"codec": codec.config(), "conditioner": conditioner.config() if conditioner else None}
    teacher = Teacher(
        denoiser=denoiser,
        process=schedule.process,
        weighting=denoiser.weighting,
        shape=shape.dims,
        codec=codec,
        conditioner=conditioner,
        source=source,
        sha256=identity(network, reading) if files is None else file_identity(files, options.dtype, reading),
        config=config,
    )
    if options.compare:
        require_agreement(pipeline, teacher, options.compare)
    return teacher


def codec_of(
    vae: nn.Module | None, files: PipelineFolder | None, frames: int | None, tiling: bool
) -> PixelCodec | VAECodec:
    """Latents to images by the pipeline's VAE, or pixels as they are.

    Raises:
        UserError: for tiling where there is no VAE.
    """
    if vae is not None:
        return VAECodec(vae, files.source if files else None, frames, tiling)
    if tiling:
        raise UserError("teacher.options.vae_tiling: found true, expected false: this pipeline has no VAE")
    return PixelCodec()


def file_identity(files: PipelineFolder, dtype: str, reading: dict[str, Any]) -> str:
    """sha256 over the files of denoiser, scheduler and VAE, and how they are read."""
    described = [files.digest(files.used), dtype, reading]
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


def classes_of(network: nn.Module, null_class: bool) -> tuple[int, int | None]:
    """How many classes a network knows, 0 for none, and which of its embeddings means "no class".

    Raises:
        UserError: for another way of embedding classes, or a null class where there are no classes.
    """
    config: Any = network.config
    if type(network).__name__ == "DiTTransformer2DModel":
        return config["num_embeds_ada_norm"], config["num_embeds_ada_norm"]
    if config.get("class_embed_type") is not None:
        raise UserError(f"network.class_embed_type: found {config['class_embed_type']!r}, expected none")
    classes = config.get("num_class_embeds") or 0
    if not null_class:
        return classes, None
    if classes < 2:
        raise UserError(f"teacher.options.null_class: found true, expected a network with classes; it has {classes}")
    return classes - 1, classes - 1


def class_conditioner(pipeline: Any, classes: int, has_null: bool) -> LabelConditioner | None:
    """Class labels, with the names that the pipeline gives them (DiT)."""
    names = {index: name for name, index in reversed(getattr(pipeline, "labels", {}).items())}
    named = tuple(names[i] for i in range(classes)) if set(range(classes)) <= set(names) else ()
    return LabelConditioner(classes, named, has_null) if classes else None


def constants_of(pipeline: Any, network: nn.Module, shape: Shape, options: Options) -> Constants:
    """Conditions that are the same for every row: SDXL's sizes, the scale of a guidance-distilled network."""
    config: Any = network.config
    constants: dict[str, float | list[float]] = {}
    if config.get("addition_embed_type") == "text_time":
        height, width = map(float, shape.pixels)
        constants["time_ids"] = [height, width, 0.0, 0.0, height, width]
    if config.get("guidance_embeds"):
        default = inspect.signature(type(pipeline).__call__).parameters["guidance_scale"].default
        scale = default if options.guidance_embedding is None else options.guidance_embedding
        if scale is None:
            raise UserError("teacher.options.guidance_embedding: missing; this network is told a guidance scale")
        constants["guidance"] = float(scale)
    elif options.guidance_embedding is not None:
        raise UserError("teacher.options.guidance_embedding: found one, expected none: this network is not told any")
    return constants
