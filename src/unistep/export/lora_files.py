"""A student trained as LoRA as adapter files, in the key names of peft and diffusers, or of kohya and ComfyUI."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from unistep.errors import UserError
from unistep.export.diffusers_folder import proven, require_diffusers
from unistep.export.schedulers import scheduler_of
from unistep.export.student import Student
from unistep.networks.lora import LoRAConfig, peft_config
from unistep.teachers.adapters import StoredAdapter
from unistep.teachers.diffusers.denoiser import DiffusersDenoiser
from unistep.teachers.diffusers.folder import PipelineFolder, open_folder

PREFIX = "network."  # of a denoiser's network among the names of its parameters
DIFFUSERS_FILE = "pytorch_lora_weights.safetensors"  # what `load_lora_weights(folder)` looks for
COMFYUI_FILE = "lora.safetensors"
KOHYA = {"lora_A.weight": "lora_down.weight", "lora_B.weight": "lora_up.weight"}

Write = Callable[[StoredAdapter, DiffusersDenoiser, PipelineFolder, Path], str]
"""(adapter, denoiser, the teacher's pipeline, draft) -> the name of the file that it has written."""


def write_lora_peft(student: Student, draft: Path, contract: dict[str, Any]) -> dict[str, Any]:
    """Writes the file of diffusers' `load_lora_weights`, and beside it the folder of peft's `PeftModel`.

    Returns:
        What was verified.

    Raises:
        UserError: as `write_lora`.
    """
    return write_lora(student, draft, contract, peft_files)


def write_lora_comfyui(student: Student, draft: Path, contract: dict[str, Any]) -> dict[str, Any]:
    """Writes one file with the keys of kohya's scripts, which ComfyUI reads, and diffusers too.

    Returns:
        What was verified.

    Raises:
        UserError: as `write_lora`, or for a network that is no U-Net of Stable Diffusion.
    """
    return write_lora(student, draft, contract, comfyui_file)


def write_lora(student: Student, draft: Path, contract: dict[str, Any], write: Write) -> dict[str, Any]:
    """Writes an adapter and its scheduler; a fresh process lays both over the teacher's pipeline.

    Raises:
        UserError: for a student that was not trained as LoRA, a pipeline that loads none, or a difference above the
            limit.
    """
    adapter, denoiser = student.adapter, require_diffusers(student)
    if adapter is None:
        raise UserError(
            f"{student.name}: was not trained as LoRA (section lora of the recipe); export with --to diffusers"
        )
    if not adapter.base.source.startswith("diffusers:"):
        raise UserError(
            f"{student.name}: its teacher was {adapter.base.source}, expected a pipeline's folder or hub id"
        )
    folder, scheduler = open_folder(adapter.base.source.removeprefix("diffusers:")), scheduler_of(student)
    if not hasattr(folder.kind, "load_lora_weights"):
        raise UserError(f"{student.name}: {folder.kind.__name__} loads no LoRA; export with --to diffusers")
    name = write(adapter, denoiser, folder, draft)
    scheduler.save_pretrained(str(draft / "scheduler"))
    lora = adapter.lora
    contract["lora"] = {"file": name, "rank": lora.rank, "alpha": lora.alpha, "base": adapter.base.model_dump()}
    laid_over = {"base": str(folder.path), "lora": name, "scheduler": type(scheduler).__name__}
    return proven(student, denoiser, scheduler, folder.kind, draft, contract, laid_over)


def in_network(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An adapter's weights by their names in the network alone, contiguous."""
    return {name.removeprefix(PREFIX): tensor.contiguous() for name, tensor in state.items()}


def peft_files(adapter: StoredAdapter, denoiser: DiffusersDenoiser, folder: PipelineFolder, draft: Path) -> str:
    """`pytorch_lora_weights.safetensors` for the pipeline, and `peft/` for its network."""
    state, config = in_network(adapter.state), peft_config(denoiser, adapter.lora)
    known = {"r": config.r, "lora_alpha": config.lora_alpha, "target_modules": sorted(config.target_modules)}
    excluded = {"exclude_modules": config.exclude_modules} if config.exclude_modules else {}
    folder.kind.save_lora_weights(
        str(draft),
        **{f"{folder.denoiser}_lora_layers": state, f"{folder.denoiser}_lora_adapter_metadata": known | excluded},
    )
    config.inference_mode = True
    config.save_pretrained(str(draft / "peft"))
    named = {f"base_model.model.{name}": tensor for name, tensor in state.items()}
    save_file(named, str(draft / "peft" / "adapter_model.safetensors"), metadata={"format": "pt"})
    return DIFFUSERS_FILE


def comfyui_file(adapter: StoredAdapter, denoiser: DiffusersDenoiser, folder: PipelineFolder, draft: Path) -> str:
    """`lora.safetensors`.

    Raises:
        UserError: for a transformer: its layers have other names there, several in one.
    """
    if folder.denoiser != "unet":
        kind = type(denoiser.network).__name__
        raise UserError(f"network: found {kind}, whose layers kohya's keys name otherwise; export with --to lora-peft")
    save_file(kohya_keys(in_network(adapter.state), adapter.lora), str(draft / COMFYUI_FILE), metadata={"format": "pt"})
    return COMFYUI_FILE


def kohya_keys(state: Mapping[str, Tensor], lora: LoRAConfig) -> dict[str, Tensor]:
    """`mid_block.to_q.lora_A.weight` -> `lora_unet_mid_block_to_q.lora_down.weight`, and one `alpha` for each layer."""
    named: dict[str, Tensor] = {}
    for name, tensor in state.items():
        layer, factor = name.rsplit(".", 2)[0], ".".join(name.rsplit(".", 2)[1:])
        key = f"lora_unet_{layer.replace('.', '_')}"
        named |= {f"{key}.{KOHYA[factor]}": tensor, f"{key}.alpha": torch.tensor(float(lora.alpha))}
    return named
