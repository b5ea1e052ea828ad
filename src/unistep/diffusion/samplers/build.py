"""`build_sampler`: a sampler by its name."""

from collections.abc import Mapping
from dataclasses import fields
from importlib.util import find_spec
from typing import Any

from unistep.diffusion.samplers.base import Sampler
from unistep.diffusion.samplers.consistency import Consistency
from unistep.diffusion.samplers.ddim import DDIM
from unistep.diffusion.samplers.dpmpp import DPMpp2M
from unistep.diffusion.samplers.euler import Euler
from unistep.diffusion.samplers.heun import Heun
from unistep.diffusion.samplers.pndm import PNDM
from unistep.diffusion.samplers.unipc import UniPC
from unistep.errors import UserError
from unistep.io.arguments import require_choice, require_type

SAMPLERS: Mapping[str, type[Sampler]] = {
    kind.name: kind for kind in (Euler, Heun, DDIM, DPMpp2M, PNDM, UniPC, Consistency)
}


def build_sampler(name: str, num_steps: int, **options: Any) -> Sampler:
    """A sampler by name; `build_sampler(**sampler.config())` is the sampler again.

    Args:
        name: euler, heun, ddim, dpmpp_2m, pndm, unipc (extra `diffusers`) or consistency.
        num_steps: steps of the time grid, at least 1.
        options: heun: S_churn, S_min, S_max, S_noise; ddim: eta; unipc: order; consistency: times.

    Raises:
        UserError: for an unknown name or option, or a value out of range.
    """
    require_choice(name, SAMPLERS, "sampler.name")
    kind = SAMPLERS[name]
    known = {field.name: field.type for field in fields(kind) if field.name != "num_steps"}
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise UserError(f"sampler.{unknown[0]}: found this option for {name}, which knows {', '.join(known) or 'none'}")
    for option, value in options.items():
        require_type(value, known[option], f"sampler.{option}")
    return kind(num_steps, **options)


def missing_package(name: str) -> str | None:
    """Why a sampler cannot be had here: the package that it lives in is not installed; None where it can be had."""
    if name != UniPC.name or find_spec("diffusers"):
        return None
    return "needs diffusers; pip install 'unistep[diffusers]'"
