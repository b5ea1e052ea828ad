"""`write_export`: a draft is written and proven in a fresh process, then it takes its place; or there is nothing."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import unistep.export.contract as contracts
from unistep.errors import UserError
from unistep.export.card import card_of
from unistep.export.comfy import write_comfy
from unistep.export.diffusers_folder import write_diffusers
from unistep.export.licence import licence_of
from unistep.export.lora_files import write_lora_comfyui, write_lora_peft
from unistep.export.onnx_file import write_onnx
from unistep.export.safetensors_file import write_safetensors
from unistep.export.student import Student
from unistep.io.arguments import require_choice
from unistep.io.atomic import atomic_folder, atomic_write
from unistep.io.locking import locked

Write = Callable[[Student, Path, dict[str, Any]], dict[str, Any]]
TARGETS: Mapping[str, Write] = {
    "diffusers": write_diffusers,
    "safetensors": write_safetensors,
    "onnx": write_onnx,
    "comfy": write_comfy,
    "lora-peft": write_lora_peft,
    "lora-comfyui": write_lora_comfyui,
}


@dataclass(frozen=True)
class Exported:
    """What an export left.

    Attributes:
        folder: with the model, `sampling_contract.json` and a model card.
        contract: as written; `verified` holds the differences found in the fresh process.
    """

    folder: Path
    contract: dict[str, Any]


def write_export(student: Student, to: str, folder: Path) -> Exported:
    """Exports a student.

    Args:
        student: what to export.
        to: a name in TARGETS.
        folder: where; an earlier export there is replaced, anything else is refused.

    Raises:
        UserError: for what cannot be exported so, or differs when it is opened again; nothing is left then.
    """
    write = TARGETS[require_choice(to, TARGETS, "to")]
    require_free(folder)
    licence = licence_of(student)
    contract = contracts.contract_of(student, licence)
    with locked(folder, beside=True), atomic_folder(folder) as draft:
        contract["verified"] = write(student, draft, contract)
        atomic_write(draft / contracts.FILE, (json.dumps(contract, indent=2) + "\n").encode())
        atomic_write(draft / "README.md", card_of(student, to, contract).encode())
    return Exported(folder, contract)


def require_free(folder: Path) -> None:
    """The place must be new, empty or an earlier export.

    Raises:
        UserError: naming what is there.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: a file is where a folder is needed; choose another place with --out")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / contracts.FILE).is_file():
        raise UserError(f"{folder}: holds other files, expected a new or an empty folder; choose another with --out")
