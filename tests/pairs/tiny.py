"""A tiny conditional teacher with random weights; as a script it makes pairs in processes that one may kill."""

import os
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from unistep.diffusion.process import EDMProcess
from unistep.diffusion.samplers import Heun
from unistep.pairs import PairStore, generate_pairs
from unistep.teachers.codecs import PixelCodec
from unistep.teachers.conditioners import LabelConditioner
from unistep.teachers.teacher import Teacher
from unistep.types import Cond

SHAPE = (1, 4, 4)
TILE, ROWS = 4, 8
SOLVER = Heun(3)


class TinyDenoiser(nn.Module):
    """tanh(W x / sqrt(1 + t^2)) plus a vector per class; the last class is "none"."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        self.weight = nn.Parameter(torch.randn(16, 16, generator=generator))
        self.classes = nn.Parameter(torch.randn(4, 16, generator=generator))

    def forward(self, x_t: Tensor, t: Tensor, cond: Cond = None) -> Tensor:
        flat = x_t.flatten(1) / (1 + t[:, None] ** 2).sqrt()
        label = cond if isinstance(cond, Tensor) else torch.full((len(x_t),), -1)
        return ((flat @ self.weight).tanh() + self.classes[label]).reshape(x_t.shape)


def tiny_teacher(sha256: str = "a" * 64, conditional: bool = True, denoiser: nn.Module | None = None) -> Teacher:
    return Teacher(
        denoiser=denoiser or TinyDenoiser(),
        process=EDMProcess(),
        weighting=lambda t: t**-2,
        shape=SHAPE,
        codec=PixelCodec(),
        source="tiny",
        sha256=sha256,
        conditioner=LabelConditioner(3) if conditional else None,
    )


def make(out: Path, count: int, **changes: object) -> PairStore:
    """Pairs of the tiny teacher; `changes` are arguments of `generate_pairs`, `teacher` and `sampler` included."""
    arguments: dict[str, object] = {"tile": TILE, "rows_per_shard": ROWS, "threads": 1, "progress": False, **changes}
    teacher, sampler = arguments.pop("teacher", None) or tiny_teacher(), arguments.pop("sampler", SOLVER)
    return generate_pairs(teacher, sampler, out, count=count, **arguments)  # type: ignore[arg-type]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a store, byte for byte."""
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def serve() -> None:
    """For each line `OUT COUNT RANK WORLD` on stdin a child makes these pairs: prints its id, then,
    asked by an empty line, its exit status.

    Forked from a process that has imported torch and used no thread, a child starts at once.
    """
    for line in sys.stdin:
        out, *numbers = line.split()
        count, rank, world = map(int, numbers)
        child = os.fork()
        if child == 0:
            make(Path(out), count, rank=rank, world=world)
            os._exit(0)
        print(child, flush=True)
        sys.stdin.readline()  # until then the id is the child's, dead or alive
        print(os.waitpid(child, 0)[1], flush=True)


if __name__ == "__main__":
    serve()
