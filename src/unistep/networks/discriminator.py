"""A discriminator on a denoiser: a small head reads the network's bottleneck features, which a hook takes out."""

from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from unistep.errors import UserError
from unistep.networks.layers import group_norm
from unistep.networks.lora import Adapted
from unistep.types import Cond, to_device

Output = Literal["mu", "logits", "both"]


class _BottleneckEntered(Exception):
    """Raised by the hook to skip the rest of a forward pass of which only the features are needed."""


class DenoiserWithDiscriminator(nn.Module):
    """mu(x_t, t, cond) and the logit of x_t being a noised real sample, from one network (DMD2, arXiv:2405.14867, F.1).

    The discriminator's head reads the features that enter the decoder, so it depends on noise level and class. Logits
    alone cost the encoder only: the forward pass stops where the decoder begins.

    Args:
        denoiser: (x_t, t, cond) -> x_0, around a network that has a `bottleneck`.
        x_t, t, cond: one row to run the network with, [1, *dims], [1] and its condition.
        train_decoder: whether the decoder is trained; without, parameters that no logit depends on are frozen.

    Attributes:
        encoder_share: floating-point operations of the encoder over those of the whole network, without the head;
            counted for the forward pass of one row.

    Raises:
        UserError: for a network without a bottleneck, or one with adapters.
    """

    def __init__(self, denoiser: nn.Module, x_t: Tensor, t: Tensor, cond: Cond = None, train_decoder: bool = True):
        super().__init__()
        self.denoiser = denoiser
        self.features: Tensor | None = None
        self.encoder_only = False
        self.hook = bottleneck(denoiser).register_forward_pre_hook(self.save_features, with_kwargs=True)
        device = next(denoiser.parameters()).device
        x_t, t, cond = x_t.to(device), t.to(device), to_device(cond, device)
        features, self.encoder_share = self.measure(x_t, t, cond)
        self.head = head(features).to(device)
        if not train_decoder:
            logit = self.compute_logits(x_t, t, cond)
            trainable = [p for p in self.parameters() if p.requires_grad]
            gradients = torch.autograd.grad(logit.sum(), trainable, allow_unused=True)
            for parameter, gradient in zip(trainable, gradients, strict=True):
                parameter.requires_grad_(gradient is not None)

    def forward(self, x_t: Tensor, t: Tensor, cond: Cond = None, output: Output = "mu") -> Any:
        """Evaluates denoiser, discriminator or both.

        Args:
            x_t, t, cond: [b, *dims], [b] and the condition of each row.
            output: `mu` [b, *dims]; `logits` [b], from the encoder alone; `both`, (mu, logits) from one pass.
        """
        if output == "logits":
            return self.compute_logits(x_t, t, cond)
        mu = self.denoiser(x_t, t, cond)
        features = self.pop_features()
        return (mu, self.apply_head(features)) if output == "both" else mu

    def compute_logits(self, x_t: Tensor, t: Tensor, cond: Cond) -> Tensor:
        """The logits [b], from the encoder alone."""
        self.encoder_only = True
        try:
            self.denoiser(x_t, t, cond)
        except _BottleneckEntered:
            pass
        finally:
            self.encoder_only = False
        return self.apply_head(self.pop_features())

    def apply_head(self, features: Tensor) -> Tensor:
        """Features [b, ...] to logits [b]."""
        return self.head(features.float()).flatten(1).sum(1)

    def save_features(self, module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        """The hook; diffusers passes features by name."""
        self.features = inputs[0] if inputs else named["hidden_states"]
        if self.encoder_only:
            raise _BottleneckEntered

    def hook_first(self) -> None:
        """Moves the hook before those added since: that of sharding must not gather weights that are not used."""
        self.hook.remove()
        self.hook = bottleneck(self.denoiser).register_forward_pre_hook(
            self.save_features, with_kwargs=True, prepend=True
        )

    @torch.no_grad()
    def measure(self, x_t: Tensor, t: Tensor, cond: Cond) -> tuple[Tensor, float]:
        """The features of one row and `encoder_share`, 1 for a network without counted operations."""
        encoder: list[int] = []
        with FlopCounterMode(display=False) as counter:
            hook = bottleneck(self.denoiser).register_forward_pre_hook(
                lambda *_: encoder.append(counter.get_total_flops())
            )
            self.denoiser(x_t, t, cond)
            hook.remove()
        features, total = self.pop_features(), counter.get_total_flops()
        return features, encoder[0] / total if total else 1.0

    def pop_features(self) -> Tensor:
        """Returns the features of the last forward pass, [b, ...], and drops them.

        Raises:
            ValueError: if the pass did not enter the bottleneck.
        """
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
