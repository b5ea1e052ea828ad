"""The generator as a pipeline folder: the teacher's other components, the student's network, a scheduler that fits."""

import inspect
import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unistep.diffusion.process import FlowProcess
from unistep.errors import UserError
from unistep.export.fresh import require_close, verify_in_subprocess
from unistep.export.schedulers import OTHER_FORMS, scheduler_of
from unistep.export.student import Student
from unistep.io.atomic import atomic_write
from unistep.io.text_files import read_json
from unistep.teachers.codecs import PixelCodec
from unistep.teachers.conditioners import LabelConditioner
from unistep.teachers.diffusers.calls import pack, unpack
from unistep.teachers.diffusers.codec import VAECodec
from unistep.teachers.diffusers.compare import OFF
from unistep.teachers.diffusers.conditioner import TextConditioner
from unistep.teachers.diffusers.denoiser import DiffusersDenoiser
from unistep.teachers.diffusers.folder import PipelineFolder, open_folder
from unistep.teachers.diffusers.rebuild import import_diffusers
from unistep.teachers.diffusers.text import TextEncoder
from unistep.types import Cond

LIMIT = 1e-4
ROUNDED = {"float32": LIMIT, "float16": 2e-2, "bfloat16": 5e-2}  # an adapter's, by the type of what it learnt on
RESTORE = "restore the file"
LEFT_OUT = ("safety_checker", "feature_extractor", "image_encoder")
PICKLES = re.compile(r".*(\.(bin|ckpt|pt|pth|msgpack|h5|pkl)|\.(fp16|bf16|non_ema)\..*)")  # and what is not read
SEED, ROWS = 0, 2


def write_diffusers(student: Student, draft: Path, contract: dict[str, Any]) -> dict[str, Any]:
    """Writes the folder and calls it in a fresh process that knows diffusers only.

    Returns:
        What was verified; `scheduler` and `call` are added to the contract.

    Raises:
        UserError: for a network or a walk that diffusers has no words for, or a difference above the limit.
    """
    denoiser = require_diffusers(student)
    scheduler = scheduler_of(student)
    write = write_latents if student.space == "vae" else write_pixels
    kind = write(student, denoiser, scheduler, draft)
    return proven(student, denoiser, scheduler, kind, draft, contract)


def require_diffusers(student: Student) -> DiffusersDenoiser:
    """The student's denoiser, whose network must be of one of diffusers' classes.

    Raises:
        UserError: for others.
    """
    denoiser = student.generator.denoiser
    if not isinstance(denoiser, DiffusersDenoiser):
        others = "--to onnx or --to safetensors" if "network" in student.config else "--to onnx"  # which needs no code
        raise UserError(f"{student.name}: its network is none of diffusers' classes; export with {others}")
    if denoiser.patch > 1:
        raise UserError(
            f"{student.name}: its network sees patches of {denoiser.patch} pixels, which no pipeline makes; export "
            "with --to onnx or --to safetensors"
        )
    return denoiser


def proven(
    student: Student,
    denoiser: DiffusersDenoiser,
    scheduler: Any,
    kind: Any,
    draft: Path,
    contract: dict[str, Any],
    laid_over: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """What a fresh process finds when diffusers opens the draft; scheduler and call are added to the contract.

    Args:
        student: what was exported.
        denoiser: its denoiser.
        scheduler: its scheduler.
        kind: class of the pipeline.
        draft: the folder, a pipeline's or with what is laid over one.
        contract: to add to.
        laid_over: `base`, the pipeline's folder, and `lora`, the file in the draft; None where the draft is a pipeline.

    Raises:
        UserError: for a difference above the limit.
    """
    labels, rng = student.labels(ROWS), torch.Generator().manual_seed(SEED)
    packed = denoiser.family.packing > 1
    x = student.sample_from(rng, embedded(student, denoiser, labels), ROWS, packed_noise if packed else torch.randn)
    images = seen(student, x)
    call = call_of(student, denoiser, kind, images)
    contract["scheduler"] = {"class": type(scheduler).__name__, "config": plain(scheduler.config)}
    contract["pipeline"], contract["call"] = kind.__name__, call
    contract["guidance"]["scale"] = call.get("guidance_scale", 1.0)
    asked = {"samples": pack(x) if packed else x, "images": images}
    facts = {"seed": SEED, "call": {**call, **rows_of(student, kind, labels)}, **(laid_over or {})}
    found = verify_in_subprocess("diffusers", draft, asked, facts)
    limit = limit_of(student, laid_over or {})
    require_close(found, limit, "diffusers")
    return {**found["differences"], "limit": limit, "timesteps": found["timesteps"],
            "with": f"diffusers {found['with']}"}  # fmt: skip


def packed_noise(shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Unit noise as a scheduler draws it that is given packed latents, unpacked."""
    return unpack(torch.randn(shape, generator=generator), shape)


def limit_of(student: Student, laid_over: Mapping[str, str]) -> float:
    """The largest difference allowed; an adapter alone lies on weights that are not rounded as when it learnt."""
    return ROUNDED[student.adapter.base.dtype] if student.adapter and "lora" in laid_over else LIMIT


def embedded(student: Student, denoiser: DiffusersDenoiser, labels: Tensor) -> Cond:
    """The condition of labels as a pipeline in float32 makes it: embeddings that are kept in half are made anew."""
    conditioner = student.conditioner
    if not isinstance(conditioner, TextConditioner):
        return student.cond(labels)
    rows, source = conditioner.embeddings.rows(labels), student.config["codec"].get("source")
    if rows["text"].dtype == torch.float32 or source is None:
        return rows
    folder = open_folder(source)
    encoder = TextEncoder(folder.load("float32", folder.encoding), denoiser.family)
    return encoder([conditioner.names[i] for i in labels.tolist()])


def write_pixels(student: Student, denoiser: DiffusersDenoiser, scheduler: Any, draft: Path) -> Any:
    """A pipeline of network and scheduler alone; diffusers' one for consistency models takes classes and one step.

    Raises:
        UserError: for samples that it cannot hold.
    """
    if student.codec != PixelCodec():
        raise UserError(
            f"codec: found {student.codec}, expected pixels in [-1, 1], the only ones that diffusers' pipelines "
            "make; export with --to safetensors or --to onnx"
        )
    network: Any = denoiser.network
    config, shape = denoiser.settings, student.shape
    if shape[-1] != shape[-2]:
        raise UserError(f"shape: found {list(shape)}, expected square images: no pipeline of pixels takes others")
    if config["out_channels"] != config["in_channels"]:
        raise UserError("network.out_channels: found a learned variance, which no pipeline of pixels leaves out")
    kind = import_diffusers().ConsistencyModelPipeline
    network.register_to_config(sample_size=shape[-1])
    kind(network, scheduler).save_pretrained(str(draft))
    return kind


def write_latents(student: Student, denoiser: DiffusersDenoiser, scheduler: Any, draft: Path) -> Any:
    """The teacher's folder with another network and another scheduler.

    Raises:
        UserError: if the teacher's folder is not there any more.
    """
    source = student.config["codec"].get("source")
    if source is None:
        raise UserError(f"{student.name}: its VAE was in memory only; distil from the pipeline's folder to export")
    folder = open_folder(source)
    taken = [name for name in folder.components if name not in (folder.denoiser, "scheduler", *LEFT_OUT)]
    for name in taken:
        shutil.copytree(folder.path / name, draft / name, ignore=ignored)
        if folder.components[name][0] == "transformers":
            open_as_float32(draft / name / "config.json")
    network: Any = denoiser.network
    network.save_pretrained(str(draft / folder.denoiser))
    scheduler.save_pretrained(str(draft / "scheduler"))
    atomic_write(draft / "model_index.json", (json.dumps(index_of(folder, scheduler), indent=2) + "\n").encode())
    return folder.kind


def open_as_float32(config: Path) -> None:
    """Has a text encoder opened in the student's type; transformers takes the type that the configuration names."""
    if config.is_file():  # tokenizers have none
        said = {name: value for name, value in read_json(config, RESTORE).items() if name != "torch_dtype"}
        atomic_write(config, (json.dumps(said | {"dtype": "float32"}, indent=2) + "\n").encode())


def ignored(folder: str, names: list[str]) -> set[str]:
    """Files of a component that are not copied: pickles, and weights in a second precision."""
    return {name for name in names if PICKLES.fullmatch(name)}


def index_of(folder: PipelineFolder, scheduler: Any) -> dict[str, Any]:
    """model_index.json: the teacher's, with the scheduler's class, without what judges the images."""
    described = read_json(folder.path / "model_index.json", RESTORE)
    described["scheduler"] = ["diffusers", type(scheduler).__name__]
    described |= {name: [None, None] for name in LEFT_OUT if name in described}
    described.pop("_name_or_path", None)  # where the teacher lay
    return described | ({"requires_safety_checker": False} if "requires_safety_checker" in described else {})


@torch.no_grad()
def seen(student: Student, x: Tensor) -> Tensor:
    """Images in [0, 1], [b, h, w, c], or videos [b, frames, h, w, c], before they are rounded to 8 bits."""
    codec = student.codec
    if not isinstance(codec, VAECodec):
        return (x / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)
    pixels = (codec.pixels(x) / 2 + 0.5).clamp(0, 1)
    if codec.frames is None:
        return pixels.permute(0, 2, 3, 1)
    return pixels.unflatten(-1, (codec.frames, -1)).permute(0, 3, 2, 4, 1)


def call_of(student: Student, denoiser: DiffusersDenoiser, kind: Any, images: Tensor) -> dict[str, Any]:
    """Arguments that the pipeline must be given whatever is asked for: steps, guidance off, and the size.

    Raises:
        UserError: for several steps of rectified flow in a pipeline that cannot be told their levels.
    """
    known = inspect.signature(kind.__call__).parameters
    levels = {}
    if isinstance(denoiser.process, FlowProcess) and student.generator.steps.later_times:
        levels = {"sigmas": student.times}
    if not levels.keys() <= known.keys():
        raise UserError(
            f"steps: found {student.generator.steps.count}, expected 1: {kind.__name__} takes no sigmas, and its own "
            f"are others; {OTHER_FORMS}"
        )
    size = {"height": images.shape[-3], "width": images.shape[-2]}
    size |= {"num_frames": images.shape[1]} if images.ndim == 5 else {}
    told = denoiser.constants.get("guidance", denoiser.family.no_guidance)
    wanted = {"num_inference_steps": student.generator.steps.count, "guidance_scale": told, **OFF, **size, **levels}
    scale = known.get("guidance_scale")
    if scale is not None and scale.default is None:
        wanted.pop("guidance_scale")
    return {name: value for name, value in wanted.items() if name in known}


def rows_of(student: Student, kind: Any, labels: Tensor) -> dict[str, Any]:
    """What is asked for, by class or prompt, as arguments of the call."""
    conditioner, known = student.conditioner, inspect.signature(kind.__call__).parameters
    rows: dict[str, Any] = {"batch_size": len(labels)} if "batch_size" in known else {}
    if conditioner is None:
        return rows
    if isinstance(conditioner, LabelConditioner):
        return rows | {"class_labels": labels.tolist()}
    return rows | {"prompt": [conditioner.names[i] for i in labels.tolist()]}


def plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """A scheduler's settings as JSON has them; the folder holds a table of betas in full."""
    kept = {name: value for name, value in config.items() if not name.startswith("_")}
    if kept.get("trained_betas") is not None:
        kept["trained_betas"] = f"{len(kept['trained_betas'])} values, see scheduler/scheduler_config.json"
    return json.loads(json.dumps(kept, default=str))
