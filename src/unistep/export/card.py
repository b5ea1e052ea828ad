"""The model card of an export, written from its run: measured numbers, limits, how to use it."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from unistep.export.student import UNKNOWN_LICENCE, Student
from unistep.reports.table import to_markdown

TEMPLATE = Path(__file__).with_name("card.md.j2")
PYTHON = "```python\n{}\n```"


def card_of(student: Student, to: str, contract: dict[str, Any]) -> str:
    """README.md of an export, with the front matter that model hubs read."""
    source = student.teacher.get("source", "").removeprefix("diffusers:")
    evaluation = student.evaluation
    sha = student.teacher.get("sha256")
    verified = contract["verified"]
    parts = [f"{name} differ by at most {verified[name]:.1e}" for name in ("samples", "images") if name in verified]
    environment = Environment(undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True)
    return environment.from_string(TEMPLATE.read_text()).render(
        name=student.name,
        contract={**contract, "teacher": {"source": None, **contract["teacher"]}},
        unknown=contract["licence"] == UNKNOWN_LICENCE,
        library={"comfy": "diffusion-single-file"}.get(to, "diffusers" if to.startswith("lora-") else to),
        base_model=source if source.count("/") == 1 and not source.startswith((".", "/")) else None,
        sha=f" (sha256 {sha})" if sha else "",
        use=USES[to](contract),
        measured=to_markdown(evaluation).strip() if evaluation else "These weights have not been evaluated.",
        differences=", ".join(parts),
    )  # fmt: skip


def use_diffusers(contract: dict[str, Any]) -> str:
    """A pipeline's folder."""
    lines = (
        "from diffusers import DiffusionPipeline",
        "",
        'pipeline = DiffusionPipeline.from_pretrained("this-folder")',
        f"shown = {called(contract)}",
    )
    return PYTHON.format("\n".join(lines))


def use_lora(contract: dict[str, Any]) -> str:
    """The teacher's pipeline with adapter and scheduler laid over it."""
    scheduler, lora = contract["scheduler"]["class"], contract["lora"]
    base = lora["base"]["source"].removeprefix("diffusers:")
    lines = (
        "import torch",
        f"from diffusers import DiffusionPipeline, {scheduler}",
        "",
        f'pipeline = DiffusionPipeline.from_pretrained("{base}", torch_dtype=torch.float32)',
        f'pipeline.load_lora_weights("this-folder", weight_name="{lora["file"]}")',
        f'pipeline.scheduler = {scheduler}.from_pretrained("this-folder", subfolder="scheduler")',
        f"shown = {called(contract)}",
    )
    return PYTHON.format("\n".join(lines))


def called(contract: dict[str, Any]) -> str:
    """A pipeline's call with all that it must be given."""
    asked = {"text": '"a prompt", ', "labels": "class_labels=[0], "}.get(contract["conditioning"], "")
    given = ", ".join(f"{name}={value!r}" for name, value in contract["call"].items())
    return f"pipeline({asked}{given}).{'frames' if 'num_frames' in contract['call'] else 'images'}[0]"


def use_safetensors(contract: dict[str, Any]) -> str:
    """`load_generator` on the file."""
    cond = {"labels": "torch.zeros(4, dtype=torch.int64)", "text": "conditions"}.get(contract["conditioning"])
    arguments = "z, None" if cond is None else f"z, {cond}"
    lines = (
        "import torch",
        "import unistep",
        "",
        'generator, config, sha256 = unistep.load_generator("generator.safetensors")',
        f"z = torch.randn(4, {', '.join(map(str, contract['shape']))})  # unit noise, never pre-scaled",
        f"x = generator.sample({arguments}, torch.arange(4))  # in model space ({space_of(contract)})",
    )
    return PYTHON.format("\n".join(lines))


def use_onnx(contract: dict[str, Any]) -> str:
    """onnxruntime on the graph."""
    shapes = {name: tuple([4, *given["shape"][1:]]) for name, given in contract["inputs"].items()}
    fed = [f'"z": np.random.randn(*{shapes.pop("z")}).astype(np.float32)']
    types = {name: contract["inputs"][name]["dtype"] for name in shapes}
    fed += [f'"{name}": np.zeros({shape}, np.{types[name]})' for name, shape in shapes.items()]
    lines = (
        "import numpy as np",
        "import onnxruntime",
        "",
        'session = onnxruntime.InferenceSession("generator.onnx")',
        f"(x,) = session.run(None, {{{', '.join(fed)}}})  # in model space ({space_of(contract)})",
    )
    return PYTHON.format("\n".join(lines))


def space_of(contract: dict[str, Any]) -> str:
    """What an export's samples are, with the range of pixels."""
    span = contract["value_range"]
    return contract["space"] if span is None else f"{contract['space']} in [{span[0]:g}, {span[1]:g}]"


def use_comfy(contract: dict[str, Any]) -> str:
    """Where the files go, and what the workflow's sampler is set to."""
    told = contract["comfyui"]
    first = f", first sigma {told['first_sigma']:.6g}" if "first_sigma" in told else ""
    return "\n".join((
        f"Put `{told['file']}` into ComfyUI's folder `models/checkpoints`, drop `{told['workflow']}` onto its window.",
        "",
        f"In a workflow of your own: \"Load Checkpoint\", \"ModelSamplingDiscrete\" ({told['sampling']}, zsnr "
        f"{str(told['zsnr']).lower()}), latents of {told['width']}x{told['height']} pixels; steps {told['steps']}, cfg "
        f"{told['cfg']:g}, sampler `{told['sampler']}`, scheduler `{told['scheduler']}`, denoise 1{first}. With cfg 1 "
        "the negative prompt is not looked at.",
    ))  # fmt: skip


USES = {
    "diffusers": use_diffusers,
    "safetensors": use_safetensors,
    "onnx": use_onnx,
    "comfy": use_comfy,
    "lora-peft": use_lora,
    "lora-comfyui": use_lora,
}
