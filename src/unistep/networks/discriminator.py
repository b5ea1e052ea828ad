"""A discriminator on a denoiser: a small head reads the network's bottleneck features, which a hook takes out."""

from typing import Any, cast

import torch
from torch import Tensor, nn

from unistep.errors import UserError
from unistep.networks.layers import group_norm
from unistep.types import Cond, to_device


class Judged(nn.Module):
    """mu(x_t, t, cond) and, when asked, the logit of x_t being a noised real sample (DMD2, arXiv:2405.14867, F.1).

    Both come from one network: the head sees what enters the decoder. So D knows noise level and class.

    Args:
        denoiser: (x_t, t, cond) -> x_0, around a network that names its `bottleneck`.
        x_t, t, cond: a row to try the network with, [1, *dims], [1] and its condition.
        decodes: whether the decoder learns as well; without, the parameters that no logit depends on are frozen.

    Raises:
        UserError: for a network that names no bottleneck.
    """

    def __init__(self, denoiser: nn.Module, x_t: Tensor, t: Tensor, cond: Cond = None, decodes: bool = True):
        super().__init__()
        self.denoiser = denoiser
        self.features: Tensor | None = None
        bottleneck(denoiser).register_forward_pre_hook(self.keep, with_kwargs=True)
        device = next(denoiser.parameters()).device
        x_t, t, cond = x_t.to(device), t.to(device), to_device(cond, device)
        denoiser(x_t, t, cond)
        self.head = head(self.taken()).to(device)
        if not decodes:
            logit = self(x_t, t, cond, judged=True)[1]
            learning = [p for p in self.parameters() if p.requires_grad]
            reached = torch.autograd.grad(logit.sum(), learning, allow_unused=True)
            for parameter, gradient in zip(learning, reached, strict=True):
                parameter.requires_grad_(gradient is not None)

    def forward(
        self, x_t: Tensor, t: Tensor, cond: Cond = None, judged: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """mu [b, *dims]; with `judged`, mu and the logits [b]."""
        mu = self.denoiser(x_t, t, cond)
        features = self.taken()
        return (mu, self.head(features.float()).flatten(1).sum(1)) if judged else mu

    def keep(self, module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        """The hook; diffusers gives features by name."""
        self.features = inputs[0] if inputs else named["hidden_states"]

    def taken(self) -> Tensor:
        """What the hook kept, [b, ...]; nothing stays behind."""
        features, self.features = self.features, None
        if features is None:
            raise ValueError("discriminator: the network's forward pass did not enter its bottleneck")
        return features


def bottleneck(denoiser: nn.Module) -> nn.Module:
    """The module that a network's bottleneck features enter, the property `bottleneck` of the network.

    Raises:
        UserError: if none of the denoiser's modules has one.
    """
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
