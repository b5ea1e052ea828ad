"""What a distillation costs: pairs per second, both kinds of step, peak memory; python benchmarks/steps.py --help."""

import argparse
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from unistep import Teacher, load_teacher
from unistep.diffusion.samplers import build_sampler
from unistep.evaluation.throughput import device_name
from unistep.pairs import PairStore, generate_pairs
from unistep.recipes.load import recipe_of
from unistep.recipes.schema import DistillRecipe
from unistep.run.distill import build_method_inputs
from unistep.run.teacher import StudentInit
from unistep.training import HealthConfig, HealthMonitor, Streams
from unistep.training.distributed import resolve_device
from unistep.training.state import TrainState
from unistep.training.step import train_step


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call, the accelerator's queue included."""
    start = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def make_pairs(recipe: DistillRecipe, teacher: Teacher, folder: Path, count: int, device: torch.device) -> PairStore:
    """The recipe's pairs, `count` of them."""
    assert recipe.pairs is not None
    config = recipe.pairs
    solver = build_sampler(config.solver.name, config.solver.num_steps, **config.solver.options)
    tile = min(config.tile, count)
    guidance = recipe.teacher.guidance
    return generate_pairs(
        teacher, solver, folder, count=count, guidance=guidance, tile=tile, device=device, progress=False
    )


def started(recipe: DistillRecipe, teacher: Teacher, device: torch.device) -> TrainState:
    """The method's networks, their optimisers and the average, as the recipe has them before the first step."""
    method = recipe.method.build(build_method_inputs(recipe, StudentInit(teacher, teacher), device))
    return TrainState.start(method, recipe.training, HealthMonitor(None, recipe.training.steps, HealthConfig()))


def step_time(state: TrainState, streams: Streams, recipe: DistillRecipe, first: int, repeats: int) -> float:
    """Median seconds of the steps from `first` on, after one that is not counted."""
    state.step = first
    device = resolve_device(recipe.training.device)
    times = [seconds(lambda: train_step(state, streams, recipe.training, device)) for _ in range(repeats + 1)]
    return statistics.median(times[1:])


def peak_memory() -> str:
    """Of the process, and of the accelerator where there is one."""
    unit = 1 if sys.platform == "darwin" else 1024
    process = f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20:.0f} MiB"
    if not torch.cuda.is_available():
        return process
    return f"{process}, on the device {torch.cuda.max_memory_allocated() / 2**20:.0f} MiB"


def main(name: str, batch: int, pairs: int, repeats: int) -> None:
    """Measures one recipe at one batch size."""
    recipe = recipe_of(DistillRecipe, name, [f"training.batch={batch}"])
    assert recipe.teacher.load is not None, f"{name}: its teacher must be taught first; choose another recipe"
    device, teacher = resolve_device(recipe.training.device), load_teacher(recipe.teacher.load)
    teacher.denoiser.to(device)
    print(f"{name}, batch {batch}, {device_name(device)}, {torch.get_num_threads()} threads")
    with tempfile.TemporaryDirectory() as folder:
        spent = seconds(lambda: make_pairs(recipe, teacher, Path(folder), pairs, device))
        print(f"pairs: {pairs / spent:.1f} per second")
        store = make_pairs(recipe, teacher, Path(folder), pairs, device)
        state = started(recipe, teacher, device)
        streams = Streams(seed=0, batch=batch, device=device, conditioner=teacher.conditioner, pairs=store,
                          pair_phases=state.method.pair_phases)  # fmt: skip
        for first in sorted({0, *(step for steps in state.method.milestones().values() for step in steps)}):
            kind = ", ".join(phase.name for phase in state.method.phases(first))
            print(f"{kind}: {1e3 * step_time(state, streams, recipe, first, repeats):.0f} ms per step")
    print(f"peak memory: {peak_memory()}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe", nargs="?", default="fashion-mnist")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=10)
    arguments = parser.parse_args()
    main(arguments.recipe, arguments.batch, arguments.pairs, arguments.repeats)
