"""unistep turns a pretrained diffusion model into a generator that needs one network evaluation."""

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unistep.api import certify as certify
    from unistep.api import compare as compare
    from unistep.api import convert as convert
    from unistep.api import distill as distill
    from unistep.api import evaluate as evaluate
    from unistep.api import export_generator as export_generator
    from unistep.api import load_generator as load_generator
    from unistep.api import make_pairs as make_pairs
    from unistep.api import plan as plan
    from unistep.api import sample as sample
    from unistep.api import teach as teach
    from unistep.errors import UserError as UserError
    from unistep.recipes import load_recipe as load_recipe
    from unistep.teachers.load import load_teacher as load_teacher
    from unistep.teachers.teacher import Teacher as Teacher

__version__ = "0.1.0"

# Libraries that report their use read these when they are imported, by whomever: see docs/security.md.
SWITCHES = ("ORT_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY", "DISABLE_SAFETENSORS_CONVERSION")
os.environ.update(dict.fromkeys(SWITCHES, "1"))
if "onnxruntime" in sys.modules:  # imported before, without the switch
    sys.modules["onnxruntime"].disable_telemetry_events()

_HOMES = {
    "certify": "unistep.api",
    "compare": "unistep.api",
    "convert": "unistep.api",
    "distill": "unistep.api",
    "evaluate": "unistep.api",
    "export_generator": "unistep.api",
    "load_generator": "unistep.api",
    "make_pairs": "unistep.api",
    "plan": "unistep.api",
    "sample": "unistep.api",
    "teach": "unistep.api",
    "UserError": "unistep.errors",
    "load_recipe": "unistep.recipes",
    "Teacher": "unistep.teachers.teacher",
    "load_teacher": "unistep.teachers.load",
}

__all__ = ["__version__", *_HOMES]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    """Public names are imported when first used, so that `import unistep` costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module 'unistep' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
