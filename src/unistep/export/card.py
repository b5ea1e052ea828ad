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
        library="diffusers" if to == "diffusers" else to,
        base_model=source if source.count("/") == 1 and not source.startswith((".", "/")) else None,
        sha=f" (sha256 {sha})" if sha else "",
        use=USES[to](contract),
        measured=to_markdown(evaluation).strip() if evaluation else "These weights have not been evaluated.",
        differences=", ".join(parts),
    )  # fmt: skip


def use_diffusers(contract: dict[str, Any]) -> str:
    """A pipeline's call."""
    asked = {"text": '"a prompt", ', "labels": "class_labels=[0], "}.get(contract["conditioning"], "")
    given = ", ".join(f"{name}={value!r}" for name, value in contract["call"].items())
    lines = (
        "from diffusers import DiffusionPipeline",
        "",
        'pipeline = DiffusionPipeline.from_pretrained("this-folder")',
        f"shown = pipeline({asked}{given}).{'frames' if 'num_frames' in contract['call'] else 'images'}[0]",
    )
    return PYTHON.format("\n".join(lines))


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
        f"x = generator.sample({arguments}, torch.arange(4))  # in model space ({contract['space']})",
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
        f"(x,) = session.run(None, {{{', '.join(fed)}}})  # in model space ({contract['space']})",
    )
    return PYTHON.format("\n".join(lines))


USES = {"diffusers": use_diffusers, "safetensors": use_safetensors, "onnx": use_onnx}
