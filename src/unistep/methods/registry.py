"""The methods by name, what `method: {name: ...}` of a distill recipe may say; a new one is a file and a line here."""

from typing import Annotated, Any

from pydantic import Discriminator, Tag

from unistep.methods.config import MethodConfig
from unistep.methods.consistency import ConsistencyDistillationConfig, ConsistencyTrainingConfig
from unistep.methods.dmd import DMDConfig
from unistep.methods.dmd2 import DMD2Config
from unistep.methods.f_distill import FDistillConfig
from unistep.methods.gan import GANConfig
from unistep.methods.instaflow import InstaFlowConfig
from unistep.methods.knowledge import KnowledgeConfig
from unistep.methods.progressive import ProgressiveConfig
from unistep.methods.sid import SiDConfig
from unistep.methods.sida import SiDAConfig


def named(value: Any) -> str | None:
    """The name that decides which settings a `method` section is checked against: dmd where it has none."""
    if isinstance(value, dict):
        return str(value.get("name", "dmd"))
    return getattr(value, "name", None) if isinstance(value, MethodConfig) else None


AnyMethod = Annotated[
    Annotated[DMDConfig, Tag("dmd")]
    | Annotated[DMD2Config, Tag("dmd2")]
    | Annotated[FDistillConfig, Tag("f_distill")]
    | Annotated[GANConfig, Tag("gan")]
    | Annotated[SiDConfig, Tag("sid")]
    | Annotated[SiDAConfig, Tag("sida")]
    | Annotated[ConsistencyDistillationConfig, Tag("consistency_distillation")]
    | Annotated[ConsistencyTrainingConfig, Tag("consistency_training")]
    | Annotated[ProgressiveConfig, Tag("progressive")]
    | Annotated[InstaFlowConfig, Tag("instaflow")]
    | Annotated[KnowledgeConfig, Tag("knowledge")],
    Discriminator(named),
]
