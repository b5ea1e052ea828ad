"""A discriminator on a denoiser: a small head reads the network's bottleneck features, which a hook takes out."""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from unistep.errors import UserError
from unistep.networks.layers import group_norm
from unistep.networks.lora import Adapted
from unistep.types import Cond, to_device


class _BottleneckEntered(Exception):
    """Raised by the hook to skip the rest of a forward pass of which only the features are needed."""


class Judged(nn.Module):
    """mu(x_t, t, cond) and, when asked, the logit of x_t being a noised real sample (DMD2, arXiv:2405.14867, F.1).

    Both come from one network: the head sees what enters the decoder. So D knows noise level and class. A logit alone
    costs the encoder only: the pass stops where the decoder begins.

    Args:
        denoiser: (x_t, t, cond) -> x_0, around a network that names its `bottleneck`.
        x_t, t, cond: a row to try the network with, [1, *dims], [1] and its condition.
        decodes: whether the decoder learns as well; without, the parameters that no logit depends on are frozen.

    Attributes:
        encoder_share: floating-point operations of a logit's pass over those of a whole one, the head aside; counted
            on one row, forward.

    Raises:
        UserError: for a network that names no bottleneck, or one with adapters.
    """

    def __init__(self, denoiser: nn.Module, x_t: Tensor, t: Tensor, cond: Cond = None, decodes: bool = True):
        super().__init__()
        self.denoiser = denoiser
        self.features: Tensor | None = None
        self.stops = False
        self.hook = bottleneck(denoiser).register_forward_pre_hook(self.keep, with_kwargs=True)
        device = next(denoiser.parameters()).device
        x_t, t, cond = x_t.to(device), t.to(device), to_device(cond, device)
        features, self.encoder_share = self.try_out(x_t, t, cond)
        self.head = head(features).to(device)
        if not decodes:
            logit = self.logits(x_t, t, cond)
            learning = [p for p in self.parameters() if p.requires_grad]
            reached = torch.autograd.grad(logit.sum(), learning, allow_unused=True)
            for parameter, gradient in zip(learning, reached, strict=True):
                parameter.requires_grad_(gradient is not None)

    def forward(
        self, x_t: Tensor, t: Tensor, cond: Cond = None, judged: bool = False, decoded: bool = True
    ) -> Tensor | tuple[Tensor, Tensor]:
        """mu [b, *dims]; with `judged`, mu and the logits [b]; not `decoded`, the logits alone."""
        if not decoded:
            return self.logits(x_t, t, cond)
        mu = self.denoiser(x_t, t, cond)
        features = self.taken()
        return (mu, self.opinion(features)) if judged else mu

    def logits(self, x_t: Tensor, t: Tensor, cond: Cond) -> Tensor:
        """The logits [b], from the encoder alone."""
        self.stops = True
        try:
            self.denoiser(x_t, t, cond)
        except _BottleneckEntered:
            pass
        finally:
            self.stops = False
        return self.opinion(self.taken())

    def opinion(self, features: Tensor) -> Tensor:
        """Features [b, ...] to logits [b]."""
        return self.head(features.float()).flatten(1).sum(1)

    def keep(self, module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        """The hook; diffusers gives features by name."""
        self.features = inputs[0] if inputs else named["hidden_states"]
        if self.stops:
            raise _BottleneckEntered

    def hook_first(self) -> None:
        """Moves the hook before those that were added since: sharding's must not gather weights that nobody uses."""
        self.hook.remove()
        self.hook = bottleneck(self.denoiser).register_forward_pre_hook(self.keep, with_kwargs=True, prepend=True)

    @torch.no_grad()
    def try_out(self, x_t: Tensor, t: Tensor, cond: Cond) -> tuple[Tensor, float]:
        """One row's features and `encoder_share`; a network without counted operations has the share 1."""
        encoder: list[int] = []
        with FlopCounterMode(display=False) as counter:
            hook = bottleneck(self.denoiser).register_forward_pre_hook(
                lambda *_: encoder.append(counter.get_total_flops())
            )
            self.denoiser(x_t, t, cond)
            hook.remove()
        features, whole = self.taken(), counter.get_total_flops()
        return features, encoder[0] / whole if whole else 1.0

    def taken(self) -> Tensor:
        """What the hook kept, [b, ...]; nothing stays behind."""
        features, self.features = self.features, None
        if features is None:
            raise ValueError("discriminator: the network's forward pass did not enter its bottleneck")
        return features


def bottleneck(denoiser: nn.Module) -> nn.Module:
    """The module that a network's bottleneck features enter, the property `bottleneck` of the network.

    Raises:
        UserError: if none of the denoiser's modules has one, or its weights are an adapter's.
    """
    if isinstance(denoiser, Adapted):
        raise UserError(
            "lora: found adapters with a method that has a discriminator, expected none: its head learns with the "
            "network's own encoder; leave lora out, or use a method without a discriminator"
        )
    for module in denoiser.modules():
        entered = getattr(module, "bottleneck", None)
        if isinstance(entered, nn.Module):
            return entered
    raise UserError(
        f"method: found a network {named(denoiser)} without a bottleneck, which the discriminator reads; give "
        "the network a property `bottleneck`, the module that its deepest features enter, or use a method without one"
    )


def named(denoiser: nn.Module) -> str:
    """The class of the network inside a denoiser."""
    return type(next(denoiser.children(), denoiser)).__name__


def head(features: Tensor) -> nn.Module:
    """Layers from one sample's features [1, c, h, w] or [1, c] to its logit.

    Strided convolutions down to 4 x 4 or less, one over what is left, then to a number, with group norm and SiLU
    (DMD2, F.1, for whom it is 8 x 8 of 768 channels). The last layer starts at zero: no opinion.
    """
    c = features.shape[1]
    if features.ndim == 2:
        last = nn.Linear(c, 1)
        layers: list[nn.Module] = [nn.Linear(c, c), nn.SiLU(), last]
    else:
        layers, (h, w) = [], features.shape[-2:]
        while min(h, w) > 4:
            layers += [nn.Conv2d(c, c, 4, stride=2, padding=1), group_norm(c), nn.SiLU()]
            h, w = h // 2, w // 2
        last = nn.Conv2d(c, 1, 1)
        layers += [nn.Conv2d(c, c, (h, w)), group_norm(c), nn.SiLU(), last]
    nn.init.zeros_(last.weight)
    nn.init.zeros_(cast(Tensor, last.bias))
    return nn.Sequential(*layers)
