"""What a rank pays for its random numbers at several world sizes, simulated: python benchmarks/draws.py [--rows 32]."""

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from unistep.data import rows_between
from unistep.training import Shard, StepRandom

WORLD_SIZES = (1, 8, 72, 512)


def milliseconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    work()
    return 1e3 * (time.perf_counter() - start)


def draws(world: int, rows: int, dims: tuple[int, ...], images: int) -> dict[str, Callable[[], object]]:
    """What the last of so many ranks draws in a step."""
    part, step = Shard(world - 1, world), 7
    rng = StepRandom(0, step, "generator", part)
    return {
        f"normal {rows} x {dims}": lambda: rng.normal(rows, *dims),
        "t": lambda: rng.integers(rows, 0, 999),
        "seeds of conditions": lambda: StepRandom(0, step, "conditions", part).integers(rows, 0, 2**62),
        f"rows of {images:,} images": lambda: rows_between(images, step * rows * world + part.index * rows, rows, 0),
    }


def main(rows: int, dims: tuple[int, ...], images: int, repeats: int) -> None:
    """Prints the median of each draw by world size, measured in turns, and the same with torch for comparison."""
    works = {world: draws(world, rows, dims, images) for world in WORLD_SIZES}
    times: dict[tuple[str, int], list[float]] = {}
    for _ in range(repeats + 1):  # the first ones draw the orders of epochs, and warm up
        for world, by_name in works.items():
            for name, work in by_name.items():
                times.setdefault((name, world), []).append(milliseconds(work))
    print(f"{'ms per draw of a rank':32}" + "".join(f"{f'{world} ranks':>12}" for world in WORLD_SIZES))
    for name in works[1]:
        found = [statistics.median(times[name, world][1:]) for world in WORLD_SIZES]
        print(f"{name:32}" + "".join(f"{value:12.3f}" for value in found))
    whole = [milliseconds(lambda: torch.randn(rows * 8, *dims)) for _ in range(repeats)]
    print(f"torch.randn of the global batch of 8 ranks: {statistics.median(whole):.3f} ms")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--dims", type=int, nargs="+", default=[4, 64, 64])
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--repeats", type=int, default=100)
    arguments = parser.parse_args()
    main(arguments.rows, tuple(arguments.dims), arguments.images, arguments.repeats)
