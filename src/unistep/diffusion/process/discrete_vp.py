"""Variance-preserving processes from a table of alpha-bar (DDPM and Stable Diffusion families)."""

import math
from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor

import unistep.diffusion.process.noising as tables
from unistep.diffusion.process.noising import require_steps
from unistep.errors import UserError


class DiscreteVPProcess:
    """x_t = cos(phi) x_0 + sin(phi) eps, alpha-bar = cos^2(phi), t = timestep 0..T-1, data is t = -1.

    Between table entries the angle phi is linear in t, so alpha^2 + sigma^2 = 1 and both stay finite everywhere, also
    at zero terminal SNR (alpha = 0). Timestep 0 already is noisy; the step to clean data is t = -1, phi = 0.

    Args:
        alphas_cumprod: alpha-bar of timesteps 0..T-1, strictly decreasing, in [0, 1).
        origin: plain values from which `config` may rebuild the table, where a constructor made it.

    Raises:
        UserError: for a table that is not one.
    """

    def __init__(self, alphas_cumprod: Tensor | Sequence[float], origin: dict[str, Any] | None = None):
        table = torch.as_tensor(alphas_cumprod, dtype=torch.float64).detach().cpu()
        require_steps("process.alphas_cumprod (length)", len(table), minimum=2)
        if not (0 <= table[-1] and table[0] < 1 and bool((table.diff() < 0).all())):
            raise UserError("process.alphas_cumprod: found other values, expected strictly decreasing ones in [0, 1)")
        self.alphas_cumprod, self.num_bins = table, len(table)
        self._origin = origin
        angles = torch.atan2((1 - table).sqrt(), table.sqrt())
        self._phi = torch.cat([angles.new_zeros(1), angles])  # entry t + 1 is the angle at t; t = -1 is data
        self._on_device = {self._phi.device: self._phi}

    @classmethod
    def linear(cls, num_steps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02) -> Self:
        """beta linear in t (DDPM, arXiv:2006.11239)."""
        require_betas(beta_start, beta_end)
        return cls._named("linear", tables.linear, num_steps=num_steps, beta_start=beta_start, beta_end=beta_end)

    @classmethod
    def scaled_linear(cls, num_steps: int = 1000, beta_start: float = 0.00085, beta_end: float = 0.012) -> Self:
        """sqrt(beta) linear in t (latent diffusion, Stable Diffusion)."""
        require_betas(beta_start, beta_end)
        return cls._named(
            "scaled_linear", tables.scaled_linear, num_steps=num_steps, beta_start=beta_start, beta_end=beta_end
        )

    @classmethod
    def cosine(cls, num_steps: int = 1000, offset: float = 0.008, beta_max: float = 0.999) -> Self:
        """alpha-bar a squared cosine (arXiv:2102.09672, Eq. 17)."""
        if not (0 <= offset < math.inf and 0 < beta_max <= 1):
            raise UserError(
                f"process: found offset {offset} and beta_max {beta_max}, expected offset >= 0, 0 < beta_max <= 1"
            )
        return cls._named("cosine", tables.cosine, num_steps=num_steps, offset=offset, beta_max=beta_max)

    @classmethod
    def zero_terminal_snr(cls, base: "DiscreteVPProcess") -> Self:
        """The base's table shifted and scaled to end at alpha = 0 (arXiv:2305.08891, Algorithm 1)."""
        origin = None if base._origin is None else base._origin | {"zero_terminal_snr": True}
        return cls(tables.zero_terminal_snr(base.alphas_cumprod), origin)

    @classmethod
    def _named(cls, table: str, make: Any, **arguments: Any) -> Self:
        require_steps("process.num_steps", arguments["num_steps"], minimum=2)
        return cls(make(**arguments), {"table": table, **arguments})

    def angle(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """phi(t) and d phi / dt, float64 [b]; the slope at an entry is that of the segment above it."""
        if t.device not in self._on_device:
            self._on_device[t.device] = self._phi.to(t.device)
        phi = self._on_device[t.device]
        position = (t.double() + 1).clamp(0, self.num_bins)
        index = position.floor().long().clamp(max=self.num_bins - 1)
        slope = phi[index + 1] - phi[index]
        angle = phi[index] + (position - index) * slope
        return torch.where(position == self.num_bins, phi[-1], angle), slope

    def alpha(self, t: Tensor) -> Tensor:
        phi = self.angle(t)[0]
        # cos(pi / 2) is 6e-17 in floating point; the table's exact zero must stay one, or singular cases hide
        return torch.where(phi >= math.pi / 2, torch.zeros_like(phi), phi.cos()).to(_real(t))

    def sigma(self, t: Tensor) -> Tensor:
        return self.angle(t)[0].sin().to(_real(t))

    def alpha_dot(self, t: Tensor) -> Tensor:
        phi, slope = self.angle(t)
        return (-phi.sin() * slope).to(_real(t))

    def sigma_dot(self, t: Tensor) -> Tensor:
        phi, slope = self.angle(t)
        return (phi.cos() * slope).to(_real(t))

    def time(self, u: Tensor) -> Tensor:
        """The nearest timestep: a discrete model knows no others."""
        return (u.double() * (self.num_bins - 1)).round().to(u.dtype)

    def sampling_times(self, num_steps: int) -> Tensor:
        """T-1 down to -1 in equal steps, rounded ("trailing" spacing, arXiv:2305.08891, Table 2)."""
        require_steps("num_steps", num_steps, maximum=self.num_bins)
        steps = torch.arange(num_steps + 1, dtype=torch.float64) / num_steps
        return (self.num_bins * (1 - steps)).round() - 1

    def terminal(self, z: Tensor) -> Tensor:
        """z itself, as Stable Diffusion is sampled, although sigma(T-1) is slightly below 1."""
        return z

    def config(self) -> dict[str, Any]:
        table = self._origin if self._origin is not None else {"alphas_cumprod": self.alphas_cumprod.tolist()}
        return {"type": "discrete_vp", **table}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DiscreteVPProcess) and torch.equal(self.alphas_cumprod, other.alphas_cumprod)

    def __hash__(self) -> int:
        return hash(tuple(self.alphas_cumprod.tolist()))

    def __repr__(self) -> str:
        name = "custom" if self._origin is None else self._origin["table"]
        return f"DiscreteVPProcess({name}, {self.num_bins} timesteps)"


def require_betas(beta_start: float, beta_end: float) -> None:
    """Refuses what is no rising table of betas.

    Raises:
        UserError: unless 0 < beta_start < beta_end < 1.
    """
    if not 0 < beta_start < beta_end < 1:
        raise UserError(
            f"process: found beta_start {beta_start} and beta_end {beta_end}, expected 0 < beta_start < beta_end < 1"
        )


def _real(t: Tensor) -> torch.dtype:
    return t.dtype if t.is_floating_point() else torch.float32
