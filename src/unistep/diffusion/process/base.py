"""The contract of a noise process: x_t = alpha_t x_0 + sigma_t eps, t = 0 is data, larger t is more noise."""

from typing import Any, Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class NoiseProcess(Protocol):
    """Owns alpha(t), sigma(t), the training grid, the sampling grid and the terminal noise. Times are [b] tensors."""

    @property
    def num_bins(self) -> int:
        """Number of discrete levels of the training grid: `time(i / (num_bins - 1))` is level i."""
        ...

    def alpha(self, t: Tensor) -> Tensor:
        """Signal scale, [b] -> [b], in [0, 1]."""
        ...

    def sigma(self, t: Tensor) -> Tensor:
        """Noise scale, [b] -> [b], >= 0."""
        ...

    def alpha_dot(self, t: Tensor) -> Tensor:
        """d alpha / dt, [b] -> [b]."""
        ...

    def sigma_dot(self, t: Tensor) -> Tensor:
        """d sigma / dt, [b] -> [b]."""
        ...

    def time(self, u: Tensor) -> Tensor:
        """u in [0, 1] -> t on the training grid (EDM: Karras bins ascending, Stable Diffusion: timesteps)."""
        ...

    def sampling_times(self, num_steps: int) -> Tensor:
        """num_steps + 1 float64 times, decreasing; the first is the terminal time, the last is data."""
        ...

    def terminal(self, z: Tensor) -> Tensor:
        """Unit noise z to x_T at `time(1)` (EDM: 80 z)."""
        ...

    def config(self) -> dict[str, Any]:
        """Plain values from which `process_from_config` rebuilds the process; `type` names its class."""
        ...
