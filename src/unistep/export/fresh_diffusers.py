"""Run by itself, without unistep: a pipeline folder is opened and called by diffusers; differences as JSON."""

import functools
import json
import sys
from typing import Any


def main(folder: str, asked: str) -> None:
    """Prints the largest differences of samples (relative to the largest value, if above 1) and of images in [0, 1]."""
    import diffusers
    import torch
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline
    from safetensors import safe_open

    with safe_open(asked, framework="pt") as file:
        facts = json.loads(file.metadata()["facts"])
        samples, images = file.get_tensor("samples"), file.get_tensor("images")
    pipeline: Any = DiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    step, taken = pipeline.scheduler.step, []

    @functools.wraps(step)  # pipelines look at its arguments before they give it their generator
    def recording(*arguments: Any, **named: Any) -> Any:
        result = step(*arguments, **named)
        taken.append(result[0])
        return result

    pipeline.scheduler.step = recording
    generator = torch.Generator().manual_seed(facts["seed"])
    shown = pipeline(**facts["call"], generator=generator, output_type="np", return_dict=False)[0]
    scale = max(1.0, float(samples.abs().max()))
    differences = {
        "samples": float((taken[-1] - samples).abs().max()) / scale,
        "images": float((torch.as_tensor(shown) - images).abs().max()),
    }
    timesteps = [float(t) for t in pipeline.scheduler.timesteps]
    clean = "unistep" not in sys.modules
    print(
        json.dumps({"differences": differences, "timesteps": timesteps, "clean": clean, "with": diffusers.__version__})
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
