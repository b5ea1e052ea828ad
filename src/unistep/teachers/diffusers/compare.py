"""The proof that a pipeline was read rightly: its own few-step sample beside ours, from the same noise."""

import functools
import inspect
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unistep.diffusion.process import DiscreteVPProcess, EDMProcess, FlowProcess, NoiseProcess
from unistep.diffusion.samplers import build_sampler
from unistep.errors import UserError
from unistep.teachers.diffusers.calls import pack, unpack
from unistep.teachers.diffusers.denoiser import DiffusersDenoiser
from unistep.teachers.diffusers.rebuild import import_diffusers
from unistep.teachers.diffusers.shape import scale_factor
from unistep.teachers.teacher import Teacher
from unistep.types import Cond, to_device

SEED = 0
# A pipeline's latents are in its network's type, and its first x_0 comes of a division by a small alpha.
TOLERANCES = {torch.float32: 1e-3, torch.bfloat16: 1e-1, torch.float16: 2e-2}
PLAIN = {"clip_sample": False, "thresholding": False, "timestep_spacing": "trailing", "set_alpha_to_one": True}
OFF = {"true_cfg_scale": 1.0, "use_resolution_binning": False}


class AllTaken(Exception):
    """The last step is taken: what a pipeline would do after it, such as decoding, is of no interest."""


def require_agreement(pipeline: Any, teacher: Teacher, num_steps: int) -> float:
    """Compares the teacher's sample with the pipeline's own, unguided, of the first class or prompt.

    DDPMPipeline and DDIMPipeline know neither classes nor learned variances nor what EDM's schedulers ask for; such
    networks are not compared.

    Args:
        pipeline: with denoiser, scheduler and VAE, on its device; the network is the teacher's.
        teacher: read from the pipeline.
        num_steps: steps of both, a divisor of the timesteps.

    Returns:
        The difference relative to the sample (root mean squares); 0 where nothing was compared.

    Raises:
        UserError: if it is more than the precision of the network explains, or the pipeline refuses the size.
    """
    denoiser = teacher.denoiser
    assert isinstance(denoiser, DiffusersDenoiser)
    if not is_comparable(pipeline, denoiser):
        return 0.0
    device = next(denoiser.parameters()).device
    z = torch.randn(1, *teacher.shape, generator=seeded(), dtype=denoiser.dtype).float().to(device)
    first = torch.zeros(1, dtype=torch.int64)
    cond = to_device(None if teacher.conditioner is None else teacher.conditioner.from_labels(first), device)
    try:
        own = own_sample(pipeline, denoiser, z, num_steps, condition_of(pipeline, denoiser, cond))
    except (ValueError, TypeError, RuntimeError) as error:
        raise UserError(
            f"{teacher.source}: the pipeline makes no sample to compare with: {' '.join(str(error).split())}; choose "
            "another size, or switch this off with teacher.options.compare: 0"
        ) from error
    ours = build_sampler("euler", num_steps)(denoiser, teacher.process, z, cond).x
    apart, allowed = relative(ours, own), TOLERANCES[denoiser.dtype]
    if not apart <= allowed:
        raise UserError(
            f"{teacher.source}: found a sample of {num_steps} steps that differs by {apart:.2g} from the pipeline's "
            f"own from the same noise, expected at most {allowed:g}: it does what its configuration does not say"
        )
    return apart


def is_comparable(pipeline: Any, denoiser: DiffusersDenoiser) -> bool:
    """Whether the pipeline's call uses all that its network and scheduler know."""
    known, config = call_of(pipeline), denoiser.settings
    if "latents" in known or "class_labels" in known:
        return True
    varies = config["out_channels"] != config["in_channels"]
    return not (varies or config.get("num_class_embeds") or isinstance(denoiser.process, EDMProcess))


def own_sample(
    pipeline: Any, denoiser: DiffusersDenoiser, z: Tensor, num_steps: int, given: Mapping[str, Any]
) -> Tensor:
    """The sample that the pipeline's own call makes of z, in model space.

    Its own code is run, with a first-order solver on the process's grid in the place of its scheduler.

    Args:
        pipeline: with its network on z's device.
        denoiser: says how the pipeline was read.
        z: unit noise [b, *dims]; a pipeline that takes no latents draws it itself, from a generator of `SEED`.
        num_steps: steps.
        given: arguments of the call; those it does not know are left out.
    """
    known, process, packed = call_of(pipeline), denoiser.process, denoiser.family.packing > 1
    scheduler, before = first_order(pipeline.scheduler, process), pipeline.scheduler
    if isinstance(process, EDMProcess):  # diffusers adds the data's own variance to the first level
        z = z * process.sigma_max / scheduler.init_noise_sigma
    z = z if denoiser.family.wide_latents else z.to(denoiser.dtype)  # many pipelines take them as they are
    noise = {"latents": pack(z) if packed else z} if "latents" in known else {"generator": seeded()}
    size = size_of(pipeline, z)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler, taken = scheduler, recorded(scheduler, num_steps)
    try:
        with torch.no_grad(), suppress(AllTaken):
            form = "latent" if "latents" in known else "pt"
            arguments = {**OFF, "output_type": form, **size, **given, **noise}
            pipeline(num_inference_steps=num_steps, **{k: v for k, v in arguments.items() if k in known})
    finally:
        pipeline.scheduler = before
    return unpack(taken[-1], z.shape) if packed else taken[-1]


def first_order(scheduler: Any, process: NoiseProcess) -> Any:
    """Euler's method (DDIM for a table of alpha-bar) of diffusers, on the process's own grid."""
    diffusers = import_diffusers()
    if isinstance(process, EDMProcess):
        return diffusers.EDMEulerScheduler.from_config(scheduler.config, final_sigmas_type="zero")
    if isinstance(process, DiscreteVPProcess):
        table = process.alphas_cumprod
        betas = 1 - table / torch.cat([table.new_ones(1), table[:-1]])
        kind = scheduler.config.prediction_type
        return diffusers.DDIMScheduler(len(table), trained_betas=betas.numpy(), prediction_type=kind, **PLAIN)
    assert isinstance(process, FlowProcess)
    euler = diffusers.FlowMatchEulerDiscreteScheduler(process.num_bins, process.shift)
    begin = euler.set_timesteps

    @functools.wraps(begin)
    def on_our_grid(num_inference_steps: int | None = None, device: Any = None, **given: Any) -> None:
        steps = num_inference_steps or len(given["sigmas"])
        begin(device=device, sigmas=np.linspace(1, 1 / steps, steps).tolist())

    euler.set_timesteps = on_our_grid
    return euler


def recorded(scheduler: Any, num_steps: int) -> list[Tensor]:
    """The list of samples that the scheduler's steps are going to return; the last one raises `AllTaken`."""
    step, taken = scheduler.step, []

    @functools.wraps(step)
    def recording(*arguments: Any, **named: Any) -> Any:
        result = step(*arguments, **named)
        taken.append(result[0])
        if len(taken) == num_steps:
            raise AllTaken
        return result

    scheduler.step = recording
    return taken


def condition_of(pipeline: Any, denoiser: DiffusersDenoiser, cond: Cond) -> dict[str, Any]:
    """A condition, and guidance switched off, as arguments of the pipeline's call."""
    scale = call_of(pipeline).get("guidance_scale")
    told = denoiser.constants.get("guidance", denoiser.family.no_guidance)
    off = {} if scale is None or scale.default is None else {"guidance_scale": told}
    if isinstance(cond, Tensor):
        return off | {"class_labels": cond.tolist()}
    if cond is None:
        return off
    text, mask = cond["text"], cond.get("mask")
    if "mask" not in denoiser.family.encoded and mask is not None:  # the pipeline takes lists of texts unpadded
        return off | {"prompt_embeds": [row[kept.bool()] for row, kept in zip(text, mask, strict=True)]}
    masks = {"prompt_attention_mask": mask, "prompt_embeds_mask": mask}
    return off | {"prompt_embeds": text, "pooled_prompt_embeds": cond.get("pooled"), **masks}


def size_of(pipeline: Any, z: Tensor) -> dict[str, int]:
    """Height, width and frames of decoded samples."""
    factor = scale_factor(pipeline)
    size = {"height": z.shape[-2] * factor, "width": z.shape[-1] * factor}
    return size if z.ndim < 5 else size | {"num_frames": (z.shape[2] - 1) * pipeline.vae_scale_factor_temporal + 1}


def call_of(pipeline: Any) -> Mapping[str, inspect.Parameter]:
    """The arguments of a pipeline's call."""
    return inspect.signature(type(pipeline).__call__).parameters


def seeded() -> torch.Generator:
    """The generator of the noise that both sides begin with."""
    return torch.Generator().manual_seed(SEED)


def relative(a: Tensor, b: Tensor) -> float:
    """Root mean square of a - b, over that of b."""
    return float((a.float() - b.float()).square().mean().sqrt() / b.float().square().mean().sqrt())
