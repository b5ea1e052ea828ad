"""Classifier-free guidance as a denoiser around a denoiser (Ho and Salimans 2022, arXiv:2207.12598)."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from unistep.errors import UserError
from unistep.types import Cond, to_device


class GuidedDenoiser(nn.Module):
    """mu = mu(null) + w (mu(cond) - mu(null)); w = 1 is off and asks the network once.

    Some code counts w from 0 = off; add 1 to such a scale. Guiding x_0, eps or v is the same thing, because they are
    linear in each other at a given x_t.

    Args:
        denoiser: (x_t, t, cond) -> x_0.
        null: number of rows -> the condition that means "no condition", called for one row on each device; every row of
            a batch is this one.
        scale: the guidance scale w.
    """

    def __init__(self, denoiser: nn.Module, null: Callable[[int], Cond], scale: float):
        super().__init__()
        self.denoiser, self.null, self.scale = denoiser, null, scale
        self._null_on: dict[torch.device, Cond] = {}

    @property
    def evaluations_per_call(self) -> int:
        """Network evaluations per sample: 1 at w = 1, otherwise 2."""
        return (1 if self.scale == 1 else 2) * getattr(self.denoiser, "evaluations_per_call", 1)

    def forward(self, x_t: Tensor, t: Tensor, cond: Cond = None) -> Tensor:
        return self.with_unguided(x_t, t, cond)[0]

    def with_unguided(self, x_t: Tensor, t: Tensor, cond: Cond = None) -> tuple[Tensor, Tensor]:
        """The guided mu and mu(cond) itself, which is evaluated on the way."""
        if self.scale == 1:
            mu_cond = self.denoiser(x_t, t, cond)
            return mu_cond, mu_cond
        if cond is None:
            raise UserError(f"guidance: found scale {self.scale:g} and no condition, expected a condition or scale 1")
        mu_null, mu_cond = self.denoiser(x_t, t, self.null_rows(x_t)), self.denoiser(x_t, t, cond)
        return mu_null + self.scale * (mu_cond - mu_null), mu_cond

    def null_rows(self, x_t: Tensor) -> Cond:
        """One "no condition", uploaded once, expanded to the rows of x_t."""
        if x_t.device not in self._null_on:
            with torch.inference_mode(False):  # or no gradient could pass by it later
                self._null_on[x_t.device] = to_device(self.null(1), x_t.device)
        null, rows = self._null_on[x_t.device], x_t.shape[0]  # not len(x_t), which to a tracer is a fixed number
        if isinstance(null, Mapping):
            return {name: value.expand(rows, *value.shape[1:]) for name, value in null.items()}
        return None if null is None else null.expand(rows, *null.shape[1:])
