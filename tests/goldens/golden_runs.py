"""Golden runs: short runs of every method whose numbers are kept to the last bit.

    python tests/goldens/golden_runs.py FOLDER [NAME ...]     runs in FOLDER, compares with values/
    python tests/goldens/golden_runs.py FOLDER --record       writes values/ instead

A change of the code's structure must leave every value as it is. A change of its arithmetic records them again and
says so.
"""

import argparse
import hashlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

TESTS = Path(__file__).parents[1]
VALUES = Path(__file__).with_name("values")
TIMES = ("seconds_per_step", "images_per_second", "latency_ms", "throughput", "ms", "memory")

COMMON = ["training.preview_every=null", "training.checkpoint={every_steps: 1000, keep: 1}"]
POINTS = [
    *COMMON, "fit.network={type: mlp, dim: 2, width: 16, num_blocks: 2}", "fit.training={steps: 20, batch: 64}",
    "fit.samples=64", "fit.max_error=100", "training.steps=8", "training.batch=16", "evaluation.samples=300",
    "evaluation.samples_during_training=100", "evaluation.solver={name: heun, num_steps: 4}",
    "pairs.count=40", "pairs.tile=20", "pairs.solver={name: heun, num_steps: 4}",
]  # fmt: skip
DIGITS = [
    *COMMON, "evaluation.samples=300", "evaluation.judge_steps=10", "pairs.count=40", "pairs.tile=20",
    "method.dm_from_step=4", "method.fake_score_from_step=2", "training.steps=8", "training.batch=8",
]  # fmt: skip
FASHION = [
    *COMMON, "evaluation.samples=100", "evaluation.solver={name: dpmpp_2m, num_steps: 4}", "pairs.count=40",
    "pairs.tile=20", "method.fake_score_from_step=2", "method.dm_from_step=4", "training.steps=6", "training.batch=8",
]  # fmt: skip
ADAPTERS = """
name: adapters
kind: distill
teacher:
  certify: false # random weights
  load: diffusers:{pipeline}
  guidance: 3.0
  options: {{prompts: "{prompts}", cache: "{cache}", compare: 0}}
lora: {{rank: 2, alpha: 4}}
pairs: {{count: 4, solver: {{name: ddim, num_steps: 2}}, tile: 4}}
method: {{name: dmd, regression: l2}}
training: {{steps: 3, batch: 4, device: cpu, optim: {{default: {{lr: 0.02}}}}, checkpoint: {{every_steps: 1, keep: 3}}}}
evaluation: {{solver: {{name: euler, num_steps: 2}}}}
"""
SHORT_TEACHER = """
extends: digits-teacher
kind: teach
network: {model_channels: 16}
training: {steps: 12, batch: 16, preview_every: null}
evaluation: {judge_steps: 10, samples: 300}
"""
OTHER_METHODS = [
    "consistency",
    "consistency-training",
    "dmd2",
    "dmd2-steps",
    "f-distill",
    "gan",
    "knowledge",
    "sid",
    "sida",
]
RUNS: dict[str, tuple[str, list[str]]] = {
    "gaussians": ("gaussians", [*POINTS, "training.steps=40"]),
    "gaussians-regression": ("gaussians", [*POINTS, "method.lambda_reg=1"]),
    "two-ranks": ("gaussians-dmd2", POINTS),
    "gaussians-instaflow": ("gaussians-instaflow", [*POINTS, "method.distil_from_step=4"]),
    "gaussians-progressive": (
        "gaussians-progressive",
        [*POINTS, "method.start_steps=8", "method.final_steps=2", "method.long_rounds=1"],
    ),
    **{f"gaussians-{name}": (f"gaussians-{name}", POINTS) for name in OTHER_METHODS},
    "digits": ("digits", [*DIGITS, "teacher.certify=false", "teacher.teach={short_teacher}"]),
    "fashion-mnist": ("fashion-mnist", FASHION),
    "fashion-mnist-dmd2": (
        "fashion-mnist-dmd2",
        [*COMMON, "evaluation.samples=100", "training.steps=4", "training.batch=8", "data={kind: digits, size: 28}"],
    ),
    "adapters": ("adapters.yaml", []),
}  # fmt: skip


def main() -> None:
    """Runs the golden runs that are named, or all, and compares or records their values."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--record", action="store_true")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    names = arguments.names or list(RUNS)
    with ThreadPoolExecutor(2) as pool:
        futures = {name: pool.submit(run_and_read, name, arguments.folder) for name in names}
    different = False
    for name, future in futures.items():
        if future.exception() is not None:
            different = True
            print(f"{name}: failed: {future.exception()}")
            continue
        values, path = future.result(), VALUES / f"{name}.json"
        if arguments.record:
            path.write_text(json.dumps(values, indent=1, sort_keys=True) + "\n")
            continue
        wrong = differences(json.loads(path.read_text()), values)
        different |= bool(wrong)
        print(f"{name}: {'; '.join(wrong) if wrong else 'equal'}")
    sys.exit(1 if different else 0)


def run_and_read(name: str, folder: Path) -> dict[str, Any]:
    """Runs one golden run through the command line and returns its values."""
    recipe, overrides = RUNS[name]
    run = (folder / name).resolve()
    short_teacher = folder.resolve() / "short-teacher.yaml"
    short_teacher.write_text(SHORT_TEACHER)
    overrides = [each.replace("{short_teacher}", str(short_teacher)) for each in overrides]
    if recipe == "adapters.yaml":
        recipe = str(write_adapters(folder / "adapters-teacher"))
    arguments = ["distill", recipe, "--out", str(run), *(part for each in overrides for part in ("--set", each))]
    launch = [sys.executable, "-m", "unistep"]
    if name == "two-ranks":
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "unistep"]
        arguments += ["--set", "training.device=cpu"]
    cache = folder.resolve() / f"{name}-cache"
    call(name, [*launch, *arguments], cache)
    call(
        name, [sys.executable, "-m", "unistep", "sample", str(run), "--num", "8", "--out", str(run / "pictures")], cache
    )
    call(
        name,
        [sys.executable, "-m", "unistep", "export", str(run), "--to", "safetensors", "--out", str(run / "export")],
        cache,
    )
    return read_values(run)


def call(name: str, command: list[str], cache: Path) -> None:
    """Calls a command in one thread, with a cache that no other run has."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "UNISTEP_CACHE": str(cache)}
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    if done.returncode:
        raise RuntimeError(f"{name}: {' '.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}")


def write_adapters(folder: Path) -> Path:
    """Writes a tiny Stable Diffusion pipeline with random weights and the recipe of adapters on it."""
    recipe = folder / "adapters.yaml"
    if recipe.is_file():
        return recipe
    for part in ("teachers", "cli"):
        sys.path.insert(0, str(TESTS / part))
    import tiny_pipelines
    from tiny_recipes import write_pipeline_run

    folder.mkdir(parents=True)
    torch.manual_seed(0)
    return write_pipeline_run(folder, tiny_pipelines.sd15(), ADAPTERS).rename(recipe)


def read_values(run: Path) -> dict[str, Any]:
    """Reads what a run left: each logged series, pairs, weights, figures, samples, the exported file."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    names = sorted({name for line in lines for name in line if not is_time(name)})
    evaluation = run / "evaluation.json"
    rows = json.loads(evaluation.read_text())["rows"] if evaluation.is_file() else []
    return {
        "machine": machine(),
        "logged": {name: series([line[name] for line in lines if name in line]) for name in names},
        "pairs": tensors_digest(sorted((run / "pairs").glob("*.safetensors"))) if (run / "pairs").is_dir() else None,
        "generator": tensors_digest([run / "generator" / "model.safetensors"]),
        "figures": {row["name"]: {n: v for n, v in numbers(row.get("figures", {})) if not is_time(n)} for row in rows},
        "samples": [pixels_digest(path) for path in sorted((run / "pictures").rglob("*.png"))],
        "export": tensors_digest(sorted((run / "export").glob("*.safetensors"))),
    }


def is_time(name: str) -> bool:
    """True for what depends on the speed of the machine."""
    return any(name == time or name.startswith(f"{time}/") for time in TIMES) or "second" in name


def machine() -> dict[str, str]:
    """What the last bits depend on besides the code."""
    return {
        "torch": torch.__version__, "numpy": np.__version__, "python": platform.python_version(),
        "processor": torch.backends.cpu.get_cpu_capability(), "matrix_units": str(torch.cpu._is_amx_tile_supported()),
    }  # fmt: skip


def series(values: list[Any]) -> dict[str, Any]:
    """The length, the last value and a digest of all values of one logged series, exact in every bit."""
    return {"count": len(values), "last": values[-1], "sha256": digest(json.dumps(values).encode())}


def numbers(figures: Any, prefix: str = "") -> Iterable[tuple[str, Any]]:
    """The leaves of nested figures by their joined names."""
    for name, value in figures.items():
        if isinstance(value, dict):
            yield from numbers(value, f"{prefix}{name}/")
        else:
            yield f"{prefix}{name}", value


def tensors_digest(paths: Iterable[Path]) -> str:
    """A digest of the names, shapes and bits of the tensors in files, headers left out."""
    parts = [part for path in paths for item in sorted(load_file(path).items()) for part in describe(*item)]
    return digest(b"".join(parts))


def describe(name: str, tensor: Tensor) -> list[bytes]:
    """The bytes that stand for one tensor."""
    bits = (
        tensor.detach().contiguous().reshape(-1).view(torch.uint8)
        if tensor.numel()
        else torch.zeros(0, dtype=torch.uint8)
    )
    return [name.encode(), str(tensor.dtype).encode(), str(tuple(tensor.shape)).encode(), bits.numpy().tobytes()]


def pixels_digest(path: Path) -> str:
    """A digest of a picture's pixels."""
    return digest(np.asarray(Image.open(path).convert("RGB")).tobytes())


def digest(data: bytes) -> str:
    """The first 16 digits of the sha256."""
    return hashlib.sha256(data).hexdigest()[:16]


def differences(expected: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """Names the values that differ, each with what was recorded and what was found."""
    before, after = dict(numbers(expected)), dict(numbers(found))
    names = sorted(before.keys() | after.keys())
    return [f"{n}: {before.get(n)} -> {after.get(n)}" for n in names if before.get(n) != after.get(n)]


if __name__ == "__main__":
    main()
