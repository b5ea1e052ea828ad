"""The preconditionings of foreign networks: VP, VE and iDDPM in EDM's terms (alpha = 1, t = sigma), and EDM2's.

Karras et al. 2022 (arXiv:2206.00364), Table 1 and appendix C: each family's own network and noise schedule, seen as a
denoiser mu = c_skip x + c_out F(c_in x; c_noise) at noise level sigma. The training weight is 1 / c_out^2 in all.
EDM2 (arXiv:2312.02696) keeps EDM's coefficients and adds a head that only its training uses.
"""

import math

import torch
from torch import Tensor, nn

from unistep.diffusion.process import EDMProcess, NoiseProcess
from unistep.errors import UserError
from unistep.networks.magnitude_preserving import MPFourier, MPLayer
from unistep.networks.preconditioning import EDMDenoiser

Coefficients = tuple[Tensor, Tensor, Tensor, Tensor]
MOST_LEVELS = 100_000  # of an iDDPM network, 1000 in all that are published


class LevelDenoiser(EDMDenoiser):
    """What the three have in common: a process with t = sigma that stays within the levels the network knows."""

    kind = ""
    prediction = "eps"  # with either sign

    def check_process(self) -> None:
        if not isinstance(self.process, EDMProcess):
            found = self.process.config()["type"]
            raise UserError(f"process.type: found {found!r}, expected 'edm': {self.kind} preconditioning has t = sigma")
        low, high = self.sigma_min * (1 - 1e-6), self.sigma_max * (1 + 1e-6)
        if self.process.sigma_min < low or self.process.sigma_max > high:
            raise UserError(
                f"process: found sigma_min {self.process.sigma_min:g} and sigma_max {self.process.sigma_max:g}, "
                f"expected levels from {self.sigma_min:g} to {self.sigma_max:g}, as {self.kind} has them"
            )


class VPDenoiser(LevelDenoiser):
    """A network that predicts the noise of the continuous variance-preserving process (Table 1, VP column).

    c_noise = (M - 1) t where t is the time at which the process has the noise-to-signal ratio sigma.

    Args:
        model, process, label_dim: as for `EDMDenoiser`.
        beta_d, beta_min: the process's rate of noise is beta_d t + beta_min.
        M: levels of the network's own training; times are handed to it on this scale.
        epsilon_t: lowest time of its training.
    """

    kind = "vp"

    def __init__(self, model: nn.Module, process: NoiseProcess, label_dim: int = 0, beta_d: float = 19.9,
                 beta_min: float = 0.1, M: int = 1000, epsilon_t: float = 1e-5):  # fmt: skip
        super().__init__(model, process, label_dim=label_dim)
        self.beta_d, self.beta_min, self.M = beta_d, beta_min, M
        self.sigma_min, self.sigma_max = self.sigma_of(epsilon_t), self.sigma_of(1.0)

    def sigma_of(self, t: float) -> float:
        """sigma / alpha of the process at time t: sqrt(exp(beta_d t^2 / 2 + beta_min t) - 1)."""
        return math.sqrt(math.expm1(self.beta_d * t**2 / 2 + self.beta_min * t))

    def time_of(self, sigma: Tensor) -> Tensor:
        """The inverse of `sigma_of`, float64 [b] -> [b]."""
        log_scale = (sigma.double() ** 2).log1p()
        return ((self.beta_min**2 + 2 * self.beta_d * log_scale).sqrt() - self.beta_min) / self.beta_d

    def coefficients(self, t: Tensor) -> Coefficients:
        sigma = t.float()
        c_noise = ((self.M - 1) * self.time_of(t)).float()
        return torch.ones_like(sigma), -sigma, (sigma**2 + 1).rsqrt(), c_noise


class VEDenoiser(LevelDenoiser):
    """A network that predicts the noise, with the sign of a score, of the variance-exploding process (VE column).

    Args:
        model, process, label_dim: as for `EDMDenoiser`.
        sigma_min, sigma_max: levels of the network's training.
    """

    kind = "ve"

    def __init__(self, model: nn.Module, process: NoiseProcess, label_dim: int = 0, sigma_min: float = 0.02,
                 sigma_max: float = 100.0):  # fmt: skip
        super().__init__(model, process, label_dim=label_dim)
        self.sigma_min, self.sigma_max = sigma_min, sigma_max

    def coefficients(self, t: Tensor) -> Coefficients:
        sigma = t.float()
        return torch.ones_like(sigma), sigma, torch.ones_like(sigma), (sigma / 2).log()


class IDDPMDenoiser(LevelDenoiser):
    """A network of improved DDPM (arXiv:2102.09672), which knows M levels and predicts the noise (iDDPM column).

    The network may have twice as many output channels as x: the second half, its variances, is not used.

    Between two of its levels it is asked with the c_noise of the nearest one, while c_in and c_out are those of sigma
    itself, the noise that x really has. Nothing rounds the times of samplers and of training, where EDM's own sampler
    rounds: apart from the ends neighbouring levels differ by a few per cent or less, at sigma 80 by an eighth, near
    sigma_min by more. `round_sigma` is for those who want to ask at the network's own levels only.

    Args:
        model, process, label_dim: as for `EDMDenoiser`.
        C_1: lower bound on the ratio of successive alpha-bar, as the clipped betas of the cosine schedule have it.
        C_2: offset of the cosine schedule.
        M: number of levels, at most `MOST_LEVELS`.

    Raises:
        ValueError: for constants that make no levels.
    """

    kind = "iddpm"
    u: Tensor

    def __init__(self, model: nn.Module, process: NoiseProcess, label_dim: int = 0, C_1: float = 0.001,
                 C_2: float = 0.008, M: int = 1000):  # fmt: skip
        super().__init__(model, process, label_dim=label_dim)
        if not 2 <= M <= MOST_LEVELS:
            raise ValueError(f"M: found {M}, expected 2 to {MOST_LEVELS} levels")
        u, self.M = iddpm_levels(C_1, C_2, M), M
        self.register_buffer("u", u.float())
        self.sigma_min, self.sigma_max = float(u[M - 1]), float(u[0])

    def raw(self, x: Tensor, c_noise: Tensor, labels: Tensor | None) -> Tensor:
        return super().raw(x, c_noise, labels)[:, : x.shape[1]]

    def nearest(self, sigma: Tensor) -> Tensor:
        """argmin_j |u_j - sigma|, int64 [b]."""
        return (self.u.double() - sigma.double()[:, None]).abs().argmin(dim=1)

    def round_sigma(self, sigma: Tensor) -> Tensor:
        """The nearest of the M levels, or 0 where that is nearer."""
        return self.u[self.nearest(sigma)].to(sigma.dtype)

    def coefficients(self, t: Tensor) -> Coefficients:
        sigma = t.float()
        c_noise = (self.M - 1 - self.nearest(t)).float()
        return torch.ones_like(sigma), -sigma, (sigma**2 + 1).rsqrt(), c_noise


class EDM2Denoiser(EDMDenoiser):
    """EDM's preconditioning under the names of EDM2's checkpoints, which have a head for the loss's uncertainty.

    Args:
        model, process, sigma_data, label_dim: as for `EDMDenoiser`.
        logvar_channels: Fourier features of the head, 128 in the checkpoints; 0 = no head. Denoising does not use it.
    """

    raw_name = "unet"

    def __init__(self, model: nn.Module, process: NoiseProcess, sigma_data: float = 0.5, label_dim: int = 0,
                 logvar_channels: int = 0):  # fmt: skip
        super().__init__(model, process, sigma_data, label_dim)
        if logvar_channels:
            self.logvar_fourier = MPFourier(logvar_channels)
            self.logvar_linear = MPLayer(logvar_channels, 1)

    def log_variance(self, t: Tensor) -> Tensor:
        """u(sigma), the learned log variance of the loss at times t, [b] -> [b]; needs the head."""
        return self.logvar_linear(self.logvar_fourier(self.coefficients(t)[3])).squeeze(1)


def iddpm_levels(C_1: float, C_2: float, M: int) -> Tensor:
    """u_0 > ... > u_M = 0, float64 [M + 1]: iDDPM's cosine schedule as noise levels (EDM, appendix C.3.2).

    u_{j-1} = sqrt((u_j^2 + 1) / max(abar_{j-1} / abar_j, C_1) - 1) with abar_j = sin^2(pi j / (2 M (C_2 + 1))).
    """
    alpha_bar = [math.sin(math.pi / 2 * j / (M * (C_2 + 1))) ** 2 for j in range(M + 1)]
    u = [0.0]
    for j in range(M, 0, -1):
        u.append(math.sqrt((u[-1] ** 2 + 1) / max(alpha_bar[j - 1] / alpha_bar[j], C_1) - 1))
    return torch.tensor(u[::-1], dtype=torch.float64, device="cpu")  # also where networks are built on the meta device
