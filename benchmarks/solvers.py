"""Errors of solvers against a fine reference, and what `auto` chooses: `python benchmarks/solvers.py TEACHER`."""

import argparse
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

import unistep
from unistep.diffusion.samplers import Sampler
from unistep.pairs.choice import (
    Probe,
    choose_solver,
    compatible_solvers,
    converged_reference,
    in_words,
    relative_error,
    trials,
)
from unistep.recipes.sections import AutoSolverConfig
from unistep.teachers.teacher import Teacher

AUTO = AutoSolverConfig(name="auto")
SHOWN = (5, 6, 8, 10, 12, 15, 20)  # evaluations, columns of the table


class Remembering(Probe):
    """A probe that solves nothing twice, and counts it as often as it is asked for."""

    def __init__(self, teacher: Teacher, guidance: float, device: torch.device):
        super().__init__(teacher, guidance, range(AUTO.probe), AUTO.probe, device)
        self.known: dict[str, tuple[Tensor, int]] = {}

    def __call__(self, sampler: Sampler) -> tuple[Tensor, int]:
        """Endpoints and network evaluations per sample."""
        before, key = self.spent, str(sampler.config())
        if key not in self.known:
            self.known[key] = super().__call__(sampler)
        self.spent = before + self.known[key][1] * len(self.seeds)
        return self.known[key]


def errors(probe: Remembering, names: Sequence[str], tolerance: float) -> Iterator[str]:
    """A line of the table for each solver."""
    endpoints, reference = converged_reference(probe, tolerance)
    yield f"| reference: {in_words(reference)} | {' | '.join(map(str, SHOWN))} |"
    yield "|" + "---|" * (1 + len(SHOWN))
    for name in names:
        at = {s.nfe(): relative_error(probe(s)[0], endpoints) for s in trials([name], SHOWN, probe.teacher.process)}
        cells = (f"{at[most]:.3f}" if most in at else "" for most in SHOWN)
        dearer = [f" {most}: {error:.3f}" for most, error in at.items() if most not in SHOWN]
        yield f"| {name}{',' if dearer else ''}{','.join(dearer)} | {' | '.join(cells)} |"


def choices(probe: Remembering, names: Sequence[str], tolerances: Sequence[float]) -> Iterator[str]:
    """A line for each tolerance."""
    yield "| tolerance | chosen | error | the choice took, evaluations |"
    yield "|---|---|---|---|"
    for tolerance in tolerances:
        probe.spent = 0
        choice = choose_solver(probe, tolerance=tolerance, candidates=names, evaluations=AUTO.evaluations)
        yield f"| {tolerance:g} | {in_words(choice.chosen)} | {choice.chosen.error:.4f} | {choice.spent:,} |"


def main() -> None:
    """Two tables in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("teacher", help="anything that `load_teacher` reads")
    parser.add_argument("--guidance", type=float, default=1.0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--tolerances", type=float, nargs="+", default=[0.1, 0.05, 0.02])
    given = parser.parse_args()
    teacher = unistep.load_teacher(given.teacher)
    probe, names = (
        Remembering(teacher, given.guidance, torch.device(given.device)),
        list(compatible_solvers(teacher.process)),
    )
    for line in (*errors(probe, names, min(given.tolerances)), "", *choices(probe, names, given.tolerances)):
        print(line, flush=True)


if __name__ == "__main__":
    main()
