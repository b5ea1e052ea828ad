"""Every family of diffusers from its folder to exports and back: `python benchmarks/families.py [FAMILY ...]`.

Each pipeline is of diffusers' real classes at tiny size with random weights, built from configuration (the builders are
those of the tests): loaded as a teacher and compared with the pipeline's own sample, certified, distilled for two
steps, exported; an export is opened in a fresh process, for diffusers and ONNX one that knows no unistep.
"""

import argparse
import json
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import diffusers
import transformers

import unistep
from unistep.errors import UserError
from unistep.teacher_checks import certify
from unistep.teachers.diffusers.compare import is_comparable, require_agreement
from unistep.teachers.diffusers.folder import open_folder
from unistep.teachers.load import load_teacher

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "teachers"))
import tiny_pipelines as tiny

PROMPTS = "a red fox\ntwo small boats on a lake\nsnow\n"
STRUCTURE = ("noise process", "shapes and rows", "conversions")  # what random weights must pass, too
RECIPE = {
    "name": "family",
    "kind": "distill",
    "pairs": {"count": 2, "solver": {"name": "euler", "num_steps": 2}, "tile": 2},
    "method": {"name": "dmd", "regression": "l2"},
    "training": {"steps": 2, "batch": 2, "pair_batch": 2, "device": "cpu", "precision": "fp32"},
    "evaluation": {"solver": {"name": "euler", "num_steps": 2}, "timed": False},
}


@dataclass(frozen=True)
class Family:
    """One row.

    Attributes:
        title: for the table.
        build: a tiny pipeline.
        options: of the teacher, besides prompts.
        guidance: w that is distilled; 1 where a family has no condition to leave out.
    """

    title: str
    build: Callable[[], Any]
    options: Mapping[str, Any] = field(default_factory=dict)
    guidance: float = 3.0


def pixels(scheduler: Any, **changes: Any) -> Callable[[], Any]:
    """A UNet2DModel under a scheduler."""
    return lambda: diffusers.DDPMPipeline(tiny.unet_2d(**changes), scheduler)


CLASSES = {"num_class_embeds": 5}
SMALL, LARGER = {"size": (16, 16)}, {"size": (32, 32)}
FAMILIES = {
    "ddpm": Family("`UNet2DModel`, DDPM", pixels(diffusers.DDPMScheduler()), guidance=1.0),
    "ddim-classes": Family(
        "the same, DDIM, v, classes",
        pixels(diffusers.DDIMScheduler(prediction_type="v_prediction"), **CLASSES),
        {"null_class": True},
    ),
    "edm": Family("the same, EDM", pixels(diffusers.EDMEulerScheduler()), guidance=1.0),
    "edm-classes": Family(
        "the same, EDM, classes", pixels(diffusers.EDMDPMSolverMultistepScheduler(), **CLASSES), {"null_class": True}
    ),
    "sd15": Family("Stable Diffusion 1.5 (eps)", tiny.sd15),
    "sd21": Family("Stable Diffusion 2.1 (v)", tiny.sd21),
    "sdxl": Family("Stable Diffusion XL", tiny.sdxl),
    "playground": Family("Playground 2.5 (EDM)", tiny.playground),
    "dit": Family("DiT", tiny.dit),
    "pixart": Family("PixArt-Sigma", tiny.pixart),
    "sd3": Family("Stable Diffusion 3", tiny.sd3),
    "flux": Family("FLUX.1-dev", tiny.flux, SMALL, 1.0),
    "sana": Family("Sana", tiny.sana),
    "lumina2": Family("Lumina-Image 2.0", tiny.lumina2),
    "z-image": Family("Z-Image", tiny.z_image, SMALL),
    "wan": Family("Wan 2.1", tiny.wan, {**LARGER, "frames": 5}),
    "qwen-image": Family("Qwen-Image", tiny.qwen_image, LARGER),
}


def row_of(family: Family, place: Path) -> list[str]:
    """The cells of a family, from a folder of its own."""
    family.build().save_pretrained(place / "pipeline")
    options = {**family.options, "cache": str(place / "cache")}
    if hasattr(open_folder(str(place / "pipeline")).kind, "encode_prompt"):
        (place / "prompts.txt").write_text(PROMPTS)
        options["prompts"] = str(place / "prompts.txt")
    run = unistep.distill(recipe_file(family, options, place), out=place / "run", quiet=True)
    loaded = [compared(place, options), certified(place, options), moved(run)]
    pipeline, graph = exported(run, "diffusers"), exported(run, "onnx")
    return [family.title, *loaded, pipeline or "refused", graph or f"safetensors: {exported(run, 'safetensors')}"]


def recipe_file(family: Family, options: Mapping[str, Any], place: Path) -> Path:
    """Two steps of DMD with regression on two pairs, as JSON, which is YAML."""
    size = {name: list(value) if isinstance(value, tuple) else value for name, value in options.items()}
    teacher = {"load": f"diffusers:{place / 'pipeline'}", "options": size, "certify": False}
    file = place / "family.yaml"
    file.write_text(json.dumps({**RECIPE, "teacher": {**teacher, "guidance": family.guidance}}))
    return file


def compared(place: Path, options: Mapping[str, Any]) -> str:
    """How far the teacher's sample of two steps is from the pipeline's own, relative."""
    folder = open_folder(str(place / "pipeline"))
    teacher: Any = load_teacher(f"diffusers:{place / 'pipeline'}", {**options, "compare": 0})
    pipeline = folder.load("float32", folder.used)
    if not is_comparable(pipeline, teacher.denoiser):
        return "not comparable"
    return f"{require_agreement(pipeline, teacher, 2):.0e}"


def certified(place: Path, options: Mapping[str, Any]) -> str:
    """How many checks of structure are passed, and of those that ask what was learnt."""
    certificate = certify(load_teacher(f"diffusers:{place / 'pipeline'}", {**options, "compare": 0}))
    structure = [check for check in certificate.checks if check.name in STRUCTURE]
    learnt = [check for check in certificate.checks if check.name not in STRUCTURE]
    return " / ".join(f"{sum(c.passed for c in checks)} of {len(checks)}" for checks in (structure, learnt))


def moved(run: Path) -> str:
    """The steps that the run says it took."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return str(max(line["step"] for line in lines if "step" in line))


def exported(run: Path, to: str) -> str:
    """The largest difference of samples, and of images, in a fresh process; nothing where the form is refused."""
    try:
        folder = unistep.export_generator(run, to=to)
    except UserError as error:
        print(f"<!-- {to}: {error} -->", flush=True)
        return ""
    found = json.loads((folder / "sampling_contract.json").read_text())["verified"]
    return ", ".join(f"{found[name]:.0e}" for name in ("samples", "images") if name in found)


def main(names: list[str]) -> None:
    """Prints a table in Markdown, with refusals in full and seconds of this process as comments."""
    warnings.simplefilter("ignore")
    for library in (diffusers, transformers):
        library.utils.logging.disable_progress_bar()
        library.utils.logging.set_verbosity_error()
    print("| | beside its own sample | certified | steps | diffusers: samples, images | ONNX |")
    print("|---|---|---|---|---|---|")
    for name in names:
        begun = time.process_time()
        with tempfile.TemporaryDirectory() as folder:
            print("|", " | ".join(row_of(FAMILIES[name], Path(folder))), "|", flush=True)
        print(f"<!-- {name}: {time.process_time() - begun:.0f} s -->", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("families", nargs="*", metavar="FAMILY", help=", ".join(FAMILIES))
    main(parser.parse_args().families or list(FAMILIES))
