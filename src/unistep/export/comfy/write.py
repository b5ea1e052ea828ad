"""The generator for ComfyUI: one checkpoint in the original layout with text encoders and VAE, and its workflow."""

import json
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

import unistep.export.comfy.workflow as workflow
from unistep.errors import UserError
from unistep.export.comfy.names import original_clip, original_open_clip, original_unet, original_vae
from unistep.export.comfy.originals import (
    ORIGINALS,
    Original,
    original_of,
    require_encoder,
    require_settings,
    tokenizer_of,
)
from unistep.export.diffusers_folder import proven, require_diffusers, write_latents
from unistep.export.schedulers import scheduler_of
from unistep.export.student import Student
from unistep.io.atomic import atomic_write
from unistep.teachers.diffusers.denoiser import DiffusersDenoiser
from unistep.teachers.diffusers.folder import PipelineFolder, open_folder


def write_comfy(student: Student, draft: Path, contract: dict[str, Any]) -> dict[str, Any]:
    """Writes checkpoint and workflow; a fresh process opens the checkpoint by diffusers' `from_single_file`.

    All its weights must be bit for bit those of the diffusers form, and its samples unistep's.

    Returns:
        What was verified; `comfyui` is added to the contract.

    Raises:
        UserError: for a model that ComfyUI opens no checkpoint of, or a difference.
    """
    denoiser, scheduler = require_diffusers(student), scheduler_of(student)
    folder = require_stable_diffusion(student)
    original = original_of(folder.kind.__name__, denoiser.network)
    settings = workflow.settings_of(student, denoiser)
    file = re.sub(r"[^\w.-]+", "-", student.name) + ".safetensors"
    with tempfile.TemporaryDirectory(dir=draft) as scratch:
        reference, configs = Path(scratch) / "pipeline", Path(scratch) / "configs"  # the latter without its weights
        write_latents(student, denoiser, scheduler, reference)
        shutil.copytree(reference, configs, ignore=shutil.ignore_patterns("*.safetensors*"))
        save_file(weights_of(denoiser, open_folder(str(reference)), original, settings), str(draft / file))
        said = {**contract, "guidance": dict(contract["guidance"])}  # this one's scheduler and call are diffusers'
        opened = {"checkpoint": file, "base": str(configs), "reference": str(reference), "kind": folder.kind.__name__}
        verified = proven(student, denoiser, scheduler, folder.kind, draft, said, opened)
    height, width = said["call"]["height"], said["call"]["width"]
    nodes = workflow.workflow_of(file, settings, height, width)
    atomic_write(draft / workflow.FILE, (json.dumps(nodes, indent=2) + "\n").encode())
    contract["comfyui"] = {"file": file, "workflow": workflow.FILE, "model": original.name, **settings,
                           "height": height, "width": width}  # fmt: skip
    return verified


def require_stable_diffusion(student: Student) -> PipelineFolder:
    """The teacher's pipeline, which must be one whose checkpoints ComfyUI opens.

    Raises:
        UserError: for others.
    """
    source = student.config["codec"].get("source")
    if student.space != "vae" or source is None:
        raise UserError(f"{student.name}: found no pipeline with a VAE on the disk, which a checkpoint needs; "
                        "export with --to diffusers or --to safetensors")  # fmt: skip
    folder = open_folder(source)
    known = {row.pipeline for row in ORIGINALS}
    if folder.kind.__name__ not in known:
        raise UserError(
            f"{student.name}: found {folder.kind.__name__}, expected Stable Diffusion 1, 2 or XL, whose checkpoints "
            "ComfyUI opens; export with --to diffusers"
        )
    return folder


def weights_of(
    denoiser: DiffusersDenoiser, folder: PipelineFolder, original: Original, settings: dict[str, Any]
) -> dict[str, Tensor]:
    """All tensors of the checkpoint, float32 and contiguous.

    Raises:
        UserError: for a VAE, a text encoder or a tokenizer that is not the published one.
    """
    network: Any = denoiser.network
    pipeline = folder.load("float32", ("vae", *original.text, *map(tokenizer_of, original.text)))
    require_settings("vae", pipeline.vae, original.vae, original.name)
    found = prefixed("model.diffusion_model.", original_unet(network.state_dict(), network.config))
    found |= prefixed("first_stage_model.", original_vae(pipeline.vae.state_dict(), pipeline.vae.config))
    for component, encoder in original.text.items():
        model = getattr(pipeline, component)
        require_encoder(component, model, getattr(pipeline, tokenizer_of(component)), encoder, original.name)
        named = original_open_clip if encoder.open_clip else original_clip
        found |= prefixed(encoder.prefix, named(model.state_dict()))
    return {name: value.float().contiguous() for name, value in found.items()} | marks(settings)


def prefixed(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same with longer names."""
    return {prefix + name: value for name, value in state.items()}


def marks(settings: dict[str, Any]) -> dict[str, Tensor]:
    """Empty tensors by whose names ComfyUI knows what checkpoints of Stable Diffusion XL predict."""
    names = ("v_pred",) if settings["sampling"] == "v_prediction" else ()
    return {name: torch.zeros(0) for name in (*names, *(("ztsnr",) if settings["zsnr"] else ()))}
