"""A generator that is stored as an adapter: what its folder says, and the way to whole weights through its teacher."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from unistep.errors import UserError, one_line
from unistep.networks.lora import Adapted, LoRAConfig
from unistep.networks.state_dict import load_strictly
from unistep.teachers.diffusers.base import load_base
from unistep.teachers.teacher import Teacher


class Base(BaseModel):
    """The teacher whose weights an adapter belongs to; `dtype` is that of the weights while it learnt."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    sha256: str
    dtype: str = "float32"


@dataclass(frozen=True)
class StoredAdapter:
    """The `lora` of a generator's configuration, and its weights.

    Attributes:
        lora: rank, alpha and target modules.
        base: where its teacher is.
        state: name in the denoiser (`network.mid.to_q.lora_A.weight`) -> tensor.
    """

    lora: LoRAConfig
    base: Base
    state: Mapping[str, Tensor]


def described(lora: LoRAConfig, base: Base) -> dict[str, Any]:
    """What a generator's configuration says of its adapter, plain values."""
    return {**lora.model_dump(mode="json"), "base": base.model_dump(mode="json")}


def adapter_of(config: Mapping[str, Any], state: Mapping[str, Tensor], folder: Path) -> StoredAdapter | None:
    """The adapter in a generator's folder, None where whole weights are stored.

    Raises:
        UserError: for a description that makes none.
    """
    values = config.get("lora")
    if values is None:
        return None
    try:
        lora = LoRAConfig.model_validate({key: value for key, value in values.items() if key != "base"})
        return StoredAdapter(lora, Base.model_validate(values.get("base")), state)
    except (ValidationError, AttributeError) as error:
        raise UserError(
            f"{folder / 'config.json'}: lora: found no description of an adapter ({one_line(error)})"
        ) from error


def merged_denoiser(adapter: StoredAdapter, config: Mapping[str, Any], folder: Path, teacher: Teacher | None) -> Any:
    """The teacher's network in float32 with the adapter added to its weights.

    Args:
        adapter: of the folder.
        config: of the folder; says how the network is read.
        folder: for messages.
        teacher: whose weights are copied if they are the adapter's; else they are read from the pipeline's files.

    Raises:
        UserError: if the teacher is not to be found, or is another one now.
    """
    base = adapter.base
    if teacher is not None and teacher.sha256 == base.sha256:
        denoiser: Any = teacher.trainable_copy()
    elif base.source.startswith("diffusers:"):
        denoiser = load_base(base.source.removeprefix("diffusers:"), base.dtype, base.sha256, config)
    else:
        raise UserError(
            f"{folder}: holds an adapter for {base.source} ({base.sha256[:12]}), which is not on the disk; give that "
            "teacher as load_generator(folder, teacher)"
        )
    adapted = Adapted(denoiser, adapter.lora, seed=0)
    load_strictly(adapted, adapter.state, folder / "model.safetensors")
    return adapted.merged()
