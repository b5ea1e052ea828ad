"""A ComfyUI workflow (API format) that walks exactly as the generator does.

ComfyUI walks in x' = x / alpha: a level is sigma' = sqrt(1 / alpha-bar - 1), and the network sees x = x' / sqrt(1 +
sigma'^2).

The first level. At the table's last entry ComfyUI scales unit noise z by sqrt(1 + sigma'^2): the network sees z itself,
which is where a student held at the last timestep starts. Below it ComfyUI scales by sigma': the network sees
sigma(t) z, the start of a student with `u_init`.

The last step. Euler's method from sigma' to 0 ends at x' - sigma' (x' - x_0) / sigma' = x_0, and so does `lcm`, whose
steps in between are x_0 + sigma' noise. x_0 = x' - sigma' eps = (x - sigma(t) eps) / alpha(t) is the student's own.

The levels. Scheduler `simple` takes entries T - 1 - int(i T / steps) of the table, trailing spacing, and 0 at the end;
others interpolate, or start at another entry.

With zero terminal SNR ComfyUI holds the last alpha-bar at 4.9e-8 instead of 0: x_0 is off by 2.2e-4 z.
"""

from typing import Any

from unistep.diffusion.process import DiscreteVPProcess
from unistep.errors import UserError
from unistep.export.student import Student
from unistep.teachers.diffusers.denoiser import DiffusersDenoiser
from unistep.teachers.diffusers.schedule import CLOSE

FILE = "workflow_api.json"
PROMPT = "a red fox in the snow"
SAMPLINGS = {"eps": "eps", "v": "v_prediction"}
INSTEAD = "export with --to diffusers"


def settings_of(student: Student, denoiser: DiffusersDenoiser) -> dict[str, Any]:
    """What ComfyUI must be told: steps, cfg, sampler, scheduler, prediction; `first_sigma` for a start below the last.

    Args:
        student: one that a scheduler of diffusers walks.
        denoiser: its denoiser.

    Raises:
        UserError: for a table or a prediction that ComfyUI's nodes cannot express.
    """
    prediction, process = denoiser.schedule.prediction, denoiser.process
    if prediction not in SAMPLINGS:
        raise UserError(f"prediction: found {prediction!r}, expected eps or v, which ComfyUI samples; {INSTEAD}")
    generator = student.generator
    noise = generator.steps.later_times and generator.steps.transition == "noise"
    settings = {
        "steps": generator.steps.count, "cfg": 1.0, "sampler": "lcm" if noise else "euler", "scheduler": "simple",
        "sampling": SAMPLINGS[prediction], "zsnr": is_zero_snr(process),
    }  # fmt: skip
    if generator.t_init is None:
        return settings
    assert isinstance(process, DiscreteVPProcess)
    return settings | {"first_sigma": float((1 / process.alphas_cumprod[int(generator.t_init)] - 1).sqrt())}


def is_zero_snr(process: object) -> bool:
    """Whether a table is Stable Diffusion's with zero terminal SNR, False for Stable Diffusion's own.

    Raises:
        UserError: for any other table: checkpoints hold none, and ComfyUI builds these two.
    """
    published = DiscreteVPProcess.scaled_linear()
    found = process.alphas_cumprod if isinstance(process, DiscreteVPProcess) else published.alphas_cumprod[:0]
    for zero, table in ((False, published), (True, DiscreteVPProcess.zero_terminal_snr(published))):
        expected = table.alphas_cumprod
        if len(found) == len(expected) and ((found - expected).abs() <= CLOSE * expected).all():
            return zero
    raise UserError(
        "process: found another one, expected Stable Diffusion's table of alpha-bar (scaled_linear, 0.00085 to 0.012, "
        f"1000 steps) or that with zero terminal SNR: checkpoints hold no table; {INSTEAD}"
    )


def workflow_of(file: str, settings: dict[str, Any], height: int, width: int) -> dict[str, Any]:
    """Nodes by id, in the format of ComfyUI's `/prompt` and of its files saved for the API.

    The prediction is said whatever the file lets ComfyUI guess: it guesses that of Stable Diffusion 2 from a weight.
    """
    model = ["prediction", 0]
    return {
        "checkpoint": node("CheckpointLoaderSimple", ckpt_name=file),
        "prediction": node(
            "ModelSamplingDiscrete", model=["checkpoint", 0], sampling=settings["sampling"], zsnr=settings["zsnr"]
        ),
        "prompt": node("CLIPTextEncode", text=PROMPT, clip=["checkpoint", 1]),
        "nothing": node("CLIPTextEncode", text="", clip=["checkpoint", 1]),  # is not evaluated at cfg 1
        "size": node("EmptyLatentImage", width=width, height=height, batch_size=1),
        **(sampled_below(settings, model) if "first_sigma" in settings else sampled(settings, model)),
        "decoded": node("VAEDecode", samples=["sampled", 0], vae=["checkpoint", 2]),
        "image": node("SaveImage", images=["decoded", 0], filename_prefix="unistep"),
    }


def sampled(settings: dict[str, Any], model: list[Any]) -> dict[str, Any]:
    """From the last entry of the table."""
    return {
        "sampled": node(
            "KSampler", model=model, seed=0, steps=settings["steps"], cfg=settings["cfg"],
            sampler_name=settings["sampler"], scheduler=settings["scheduler"], denoise=1.0,
            positive=["prompt", 0], negative=["nothing", 0], latent_image=["size", 0],
        )
    }  # fmt: skip


def sampled_below(settings: dict[str, Any], model: list[Any]) -> dict[str, Any]:
    """One step from an earlier entry: the scheduler's levels (last, 0) with the first one replaced."""
    return {
        "levels": node("BasicScheduler", model=model, scheduler=settings["scheduler"], steps=1, denoise=1.0),
        "first": node("SetFirstSigma", sigmas=["levels", 0], sigma=settings["first_sigma"]),
        "sampler": node("KSamplerSelect", sampler_name=settings["sampler"]),
        "sampled": node(
            "SamplerCustom", model=model, add_noise=True, noise_seed=0, cfg=settings["cfg"], positive=["prompt", 0],
            negative=["nothing", 0], sampler=["sampler", 0], sigmas=["first", 0], latent_image=["size", 0],
        ),
    }  # fmt: skip


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    """A node; an input [id, n] is the n-th output of another one."""
    return {"class_type": kind, "inputs": inputs}
