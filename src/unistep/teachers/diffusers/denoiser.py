"""A diffusers network as a denoiser: called as its family wants, read as its scheduler says."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unistep.diffusion.prediction import require_x0_on_grid, to_x0
from unistep.diffusion.process import EDMProcess, FlowProcess
from unistep.diffusion.weighting import require_weight, training_weight
from unistep.errors import UserError
from unistep.networks.precision import own_precision
from unistep.teachers.diffusers.calls import Named
from unistep.teachers.diffusers.families import family_of
from unistep.teachers.diffusers.schedule import Schedule
from unistep.types import Cond, bcast, constant

Constants = Mapping[str, float | list[float]]


class DiffusersDenoiser(nn.Module):
    """mu(x_t, t, cond) = E[x_0 | x_t] from a network of diffusers.

    The network is asked in its own floating type, outside autocast where that is half precision; the conversion to x_0
    is done in x_t's. An output of twice the channels holds a learned variance in its second half, which is left out.

    Args:
        network: a model of diffusers, of a class in `FAMILIES`.
        schedule: process, prediction type, sign and sigma_data.
        constants: conditions that are the same for every row: `time_ids` of SDXL, `guidance` of FLUX.
        null_label: the class that means "no class", where the network has one.
        patch: side of the squares of x_t that the network sees as one place with patch^2 times the channels; it
            halves (at 2) the resolution that the network works at. 1 = as it is; pipelines have no other.

    Raises:
        UserError: for a prediction that does not determine x_0 at some time of the schedule.
    """

    adapted = False  # whether the network carries layers of LoRA, see `networks.lora.Adapted`

    def __init__(self, network: nn.Module, schedule: Schedule, constants: Constants | None = None,
                 null_label: int | None = None, patch: int = 1):  # fmt: skip
        super().__init__()
        self.network, self.schedule, self.process = network, schedule, schedule.process
        self.constants, self.null_label, self.patch = dict(constants or {}), null_label, patch
        self.family = family_of(type(network).__name__, self.settings)
        require_weight(schedule.prediction, schedule.process, schedule.sigma_data)
        require_x0_on_grid(schedule.prediction, schedule.process, schedule.sigma_data)

    def forward(self, x_t: Tensor, t: Tensor, cond: Cond = None) -> Tensor:
        schedule = self.schedule
        output = self.raw(x_t, t, cond).to(x_t.dtype)  # half precision is too coarse for the differences below
        output = schedule.sign * self.family.sign * output
        return to_x0(output, x_t, t, schedule.prediction, schedule.process, schedule.sigma_data)

    def raw(self, x_t: Tensor, t: Tensor, cond: Cond) -> Tensor:
        """What the network itself says, in its own type, [b, *dims]."""
        x = bcast(self.c_in(t), x_t) * x_t if isinstance(self.process, EDMProcess) else x_t
        x = F.pixel_unshuffle(x, self.patch) if self.patch > 1 else x
        with own_precision(x.device, self.dtype, self.adapted):
            output = self.family.call(self.network, x.to(self.dtype), self.clock(t), self.named(cond, x_t))
        output = output[:, : x.shape[1]]
        return F.pixel_shuffle(output, self.patch) if self.patch > 1 else output

    def requires_grad_(self, requires_grad: bool = True) -> "DiffusersDenoiser":
        """As every module's, but parameters on which the prediction does not depend stay frozen: ranks cannot agree on
        gradients that never come.
        """
        super().requires_grad_(requires_grad)
        for name, parameter in self.network.named_parameters():
            if name.startswith(self.idle):
                parameter.requires_grad_(False)
        return self

    @property
    def idle(self) -> tuple[str, ...]:
        """How names of the network's parameters begin on which the prediction does not depend."""
        last = (self.settings.get("num_layers") or 0) - 1
        return tuple(f"transformer_blocks.{last}.{name}" for name in self.family.idle)

    @property
    def sigma_data(self) -> float:
        """Standard deviation of the data, as the schedule has it."""
        return self.schedule.sigma_data

    @property
    def settings(self) -> dict[str, Any]:
        """The network's own configuration."""
        network: Any = self.network
        return dict(network.config)

    @property
    def bottleneck(self) -> nn.Module | None:
        """The module that a U-Net's deepest features enter, its decoder; a transformer has none."""
        decoder = getattr(self.network, "up_blocks", None)
        return None if decoder is None else decoder[0]

    @property
    def dtype(self) -> torch.dtype:
        """The type the network is asked in; some of its weights may be kept in float32 beside it."""
        return self.network.dtype  # type: ignore[return-value]

    def c_in(self, t: Tensor) -> Tensor:
        """EDM's scale of the input, [b] (arXiv:2206.00364, Table 1)."""
        return 1 / (self.schedule.sigma_data**2 + t**2).sqrt()

    def clock(self, t: Tensor) -> Tensor:
        """What the network is told of the time, [b]."""
        process = self.process
        if isinstance(process, EDMProcess):
            return t.log() / 4  # c_noise
        if not isinstance(process, FlowProcess):
            return t
        return {"timestep": t * process.num_bins, "noise": t, "data": 1 - t}[self.family.clock]

    def named(self, cond: Cond, x_t: Tensor) -> Named:
        """Conditions by name, the constants among them, floating ones in the network's type.

        Raises:
            UserError: if there is none where the network needs one, or it is of the wrong kind.
        """
        given = {"label": self.labels(cond)} if isinstance(cond, Tensor) else dict(cond or {})
        if self.family.encoded and "text" not in given:
            raise UserError(f"condition: found {', '.join(given) or 'none'}, expected the embeddings of a prompt")
        # not len(x_t), which to a tracer is a fixed number
        rows = {name: constant(value, x_t.device) for name, value in self.constants.items()}
        rows = {name: value.expand(x_t.shape[0], *value.shape) for name, value in rows.items()}
        return {
            name: value.to(self.dtype) if value.is_floating_point() else value for name, value in (rows | given).items()
        }

    def labels(self, labels: Tensor) -> Tensor:
        """Class indices [b] as the network counts them: -1, "no class", is a class of its own there.

        Where the network has no such class, its conditioner refuses -1.
        """
        return labels if self.null_label is None else torch.where(labels < 0, self.null_label, labels)

    def weighting(self, t: Tensor) -> Tensor:
        """The training weight of Eq. 6, of what the network predicts, [b]."""
        return training_weight(self.schedule.prediction, self.process, t, self.schedule.sigma_data)

    def config(self) -> dict[str, Any]:
        """Plain values from which `rebuild.denoiser_from_config` rebuilds the denoiser, its weights apart."""
        own = {k: v for k, v in self.settings.items() if not k.startswith("_")}
        schedule = self.schedule
        return {
            "network": {"type": "diffusers", "class": type(self.network).__name__, "config": own},
            "process": schedule.process.config(),
            "reading": {
                "prediction": schedule.prediction,
                "sign": schedule.sign,
                "sigma_data": schedule.sigma_data,
                "constants": self.constants,
                "null_label": self.null_label,
                **({"patch": self.patch} if self.patch > 1 else {}),
            },
        }
