"""Run by itself, without unistep: a pipeline's folder, a LoRA on one or a checkpoint, called by diffusers."""

import functools
import json
import sys
from typing import Any


def main(folder: str, asked: str) -> None:
    """Prints the largest differences of samples (relative to the largest value, if above 1) and of images in [0, 1]."""
    import diffusers
    import torch
    from safetensors import safe_open

    with safe_open(asked, framework="pt") as file:
        facts = json.loads(file.metadata()["facts"])
        samples, images = file.get_tensor("samples"), file.get_tensor("images")
    pipeline = opened_checkpoint(folder, facts) if "checkpoint" in facts else opened(folder, facts)
    pipeline.set_progress_bar_config(disable=True)
    step, taken = pipeline.scheduler.step, []

    @functools.wraps(step)  # pipelines look at its arguments before they give it their generator
    def recording(*arguments: Any, **named: Any) -> Any:
        result = step(*arguments, **named)
        taken.append(result[0])
        return result

    pipeline.scheduler.step = recording
    generator = torch.manual_seed(facts["seed"])  # the global stream, which some schedulers draw from whatever is given
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


def opened(folder: str, facts: dict[str, Any]) -> Any:
    """The pipeline of a folder, or the one that a LoRA is laid over."""
    import diffusers
    import torch
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline

    if "lora" not in facts:
        return DiffusionPipeline.from_pretrained(folder, trust_remote_code=False)
    pipeline: Any = DiffusionPipeline.from_pretrained(facts["base"], torch_dtype=torch.float32, trust_remote_code=False)
    pipeline.load_lora_weights(folder, weight_name=facts["lora"])
    kind = getattr(diffusers, facts["scheduler"])
    pipeline.scheduler = kind.from_pretrained(folder, subfolder="scheduler")
    return pipeline


def opened_checkpoint(folder: str, facts: dict[str, Any]) -> Any:
    """The pipeline of a single file, whose weights must be those of the reference, bit for bit.

    `base` holds configurations and tokenizers without weights, so that none can come from elsewhere than the file.
    """
    import diffusers
    import torch

    kind, base = getattr(diffusers, facts["kind"]), facts["base"]
    pipeline = kind.from_single_file(f"{folder}/{facts['checkpoint']}", config=base, local_files_only=True)
    for name, part in pipeline.components.items():
        if isinstance(part, torch.nn.Module):
            part_kind: Any = type(part)
            dtype = {"dtype" if part_kind.__module__.startswith("transformers") else "torch_dtype": torch.float32}
            reference = part_kind.from_pretrained(facts["reference"], subfolder=name, **dtype).state_dict()
            found = part.state_dict()
            wrong = sorted(set(found) ^ set(reference))
            wrong += [key for key in reference if key in found and not torch.equal(found[key], reference[key])]
            if wrong:
                raise SystemExit(f"{len(wrong)} weights of the {name} differ, the first is {wrong[0]}")
    return pipeline


if __name__ == "__main__":
    main(*sys.argv[1:])
