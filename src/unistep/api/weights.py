"""Which weights a run exports: the average, the last ones, or whichever measures better."""

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor, nn

from unistep.recipes.schema import ExportedWeights
from unistep.training.distributed import full_tensor, on_main, unwrap
from unistep.training.ema import EMA
from unistep.training.hooks import eval_mode

Measure = Callable[[nn.Module], float]
"""A generator -> a distance, lower is better."""


@dataclass(frozen=True)
class Chosen:
    """The weights to export.

    Attributes:
        name: `ema` or `raw`.
        state: name -> tensor in full.
        scores: what both measured, where they were compared.
    """

    name: str
    state: dict[str, Tensor]
    scores: dict[str, float] = field(default_factory=dict)


def choose_weights(wanted: ExportedWeights, generator: nn.Module, ema: EMA | None, measure: Measure | None) -> Chosen:
    """The generator's averaged or last weights; every rank must call it.

    Args:
        wanted: `ema`, `raw`, or `best`: measured, or the average where nothing measures.
        generator: as trained, with the last weights, wrapped or not.
        ema: their average; None leaves only the last.
        measure: decides between the two.
    """
    raw = {name: full_tensor(value) for name, value in unwrap(generator).state_dict().items()}
    if ema is None or wanted == "raw":
        return Chosen("raw", raw)
    if wanted == "ema" or measure is None:
        return Chosen("ema", ema.state_dict())
    with eval_mode(generator):
        scores = {"raw": measure(generator)}
        with ema.applied():
            scores["ema"] = measure(generator)
    better = on_main(lambda: min(scores, key=scores.__getitem__))  # ranks may differ in the last digit
    return Chosen(better, raw if better == "raw" else ema.state_dict(), scores)
