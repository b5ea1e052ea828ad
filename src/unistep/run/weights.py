"""Which weights a generator starts from, and which a run exports: the average, the last ones, or the better of them."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from unistep.errors import UserError
from unistep.networks.state_dict import require_same_tensors
from unistep.recipes.sections import ExportedWeights, GeneratorConfig
from unistep.run.evaluation_checks import generator_folder
from unistep.run.folder import record
from unistep.run.teacher import StudentInit
from unistep.teachers.checkpoint import load_generator
from unistep.teachers.teacher import Teacher
from unistep.training.distributed import full_tensor, on_rank_zero, unwrap
from unistep.training.ema import EMA
from unistep.training.hooks import eval_mode

Measure = Callable[[nn.Module], float]
"""A generator -> a distance, lower is better."""


def initial_weights(
    init: str | None, start: StudentInit, held_at: float | None, folder: Path | None
) -> dict[str, Tensor] | None:
    """The denoiser of the generator that `generator.init` names, None where it names none.

    Args:
        init: a run, a generator's folder, or `embedded:NAME/FOLDER`.
        start: the network it must fit.
        held_at: the noise level it must be held at, None = the terminal time.
        folder: of the run that records its sha256; None records nothing.

    Raises:
        UserError: for a missing generator, another network, or one that is held at another noise level.
    """
    if init is None:
        return None
    generator, _, sha256 = load_generator(generator_folder(init), start.teacher)
    if generator.t_init != held_at:
        found, expected = ("the terminal time" if t is None else f"t = {t:g}" for t in (generator.t_init, held_at))
        raise UserError(
            f"generator.init: found a generator held at {found}, expected {expected} as in this recipe; give "
            "generator.sigma_init or generator.u_init the value it was trained with"
        )
    state = generator.denoiser.state_dict()
    require_same_tensors(start.copy(), state, f"generator.init {init}")
    if folder is not None:
        on_rank_zero(lambda: record(folder, generator_init={"source": init, "sha256": sha256}))
    return state


def initial_time(config: GeneratorConfig, teacher: Teacher) -> float | None:
    """The time the generator is held at, None for the terminal one.

    Raises:
        UserError: if sigma_init is given for a process whose time is not sigma.
    """
    if config.u_init is not None:
        return float(teacher.process.time(torch.tensor([config.u_init])))
    if config.sigma_init is not None and teacher.process.config()["type"] != "edm":
        raise UserError(
            f"generator.sigma_init: found {config.sigma_init} with process {teacher.process.config()['type']}, "
            "expected an EDM process; use generator.u_init, a place on the training grid"
        )
    return config.sigma_init


@dataclass(frozen=True)
class SelectedWeights:
    """The weights to export.

    Attributes:
        name: `ema` or `raw`.
        state: name -> tensor in full.
        scores: what both measured, where they were compared.
    """

    name: str
    state: dict[str, Tensor]
    scores: dict[str, float] = field(default_factory=dict)


def choose_weights(
    wanted: ExportedWeights, generator: nn.Module, ema: EMA | None, measure: Measure | None
) -> SelectedWeights:
    """The generator's averaged or last weights; every rank must call it.

    Args:
        wanted: `ema`, `raw`, or `best`: measured, or the average where nothing measures.
        generator: as trained, with the last weights, wrapped or not.
        ema: their average; None leaves only the last.
        measure: decides between the two.
    """
    raw = {name: full_tensor(value) for name, value in unwrap(generator).state_dict().items()}
    if ema is None or wanted == "raw":
        return SelectedWeights("raw", raw)
    if wanted == "ema" or measure is None:
        return SelectedWeights("ema", ema.state_dict())
    with eval_mode(generator):
        scores = {"raw": measure(generator)}
        with ema.applied():
            scores["ema"] = measure(generator)
    better = on_rank_zero(lambda: nearer(scores))  # ranks may differ in the last digit
    return SelectedWeights(better, raw if better == "raw" else ema.state_dict(), scores)


def nearer(scores: Mapping[str, float]) -> str:
    """Returns the weights of the smaller distance.

    Raises:
        UserError: if no distance is a finite number.
    """
    finite = {name: score for name, score in scores.items() if math.isfinite(score)}
    if not finite:
        raise UserError(
            "generator.weights: found no finite distance of either weights, so there is no better one: their samples "
            "are not finite; lower the learning rate and train anew, or set it to ema or raw to see them"
        )
    return min(finite, key=finite.__getitem__)
