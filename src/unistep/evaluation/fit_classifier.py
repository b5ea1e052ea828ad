"""Training of small classifiers (judge, perceptual network): AdamW, warm-up and cosine, light augmentation."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unistep.data.order import rows_for_step


@dataclass(frozen=True, kw_only=True)
class ClassifierRecipe:
    """How a classifier is trained; augmentation is light, so that features of seen and unseen images differ little."""

    steps: int
    seed: int = 0
    batch: int = 128
    lr: float = 4e-3
    weight_decay: float = 0.05
    label_smoothing: float = 0.05
    max_shift: int = 2  # pixels, either way, in both directions
    flip: bool = False  # left-right; wrong for digits, right for clothes


def fit_classifier(
    network: nn.Module,
    logits: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    recipe: ClassifierRecipe,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
) -> None:
    """Trains a network in place and leaves it in eval mode, its parameters rounded to what fp16 can hold.

    Args:
        network: whose parameters learn.
        logits: uint8-ranged images [b, c, h, w] -> logits [b, k], through that network.
        images: uint8 [n, c, h, w].
        labels: int64 [n].
        recipe: steps, seed and the rest; the result is a pure function of it and of the network's start.
        on_step: called after each step with its number and loss.
    """
    optimizer = torch.optim.AdamW(network.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay)
    device = next(network.parameters()).device
    network.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for step in range(recipe.steps):
        rows = rows_for_step(len(images), recipe.batch, recipe.seed, step)
        x = augment(images[rows], recipe, step).to(device, memory_format=torch.channels_last)
        loss = F.cross_entropy(logits(x), labels[rows].to(device), label_smoothing=recipe.label_smoothing)
        optimizer.param_groups[0]["lr"] = recipe.lr * schedule(step, recipe.steps)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        on_step(step, loss.item())
    network.eval().requires_grad_(False)
    for parameter in network.parameters():
        parameter.copy_(parameter.half())  # what is stored is exactly what was measured


def schedule(step: int, steps: int, warmup: float = 0.15) -> float:
    """Factor of the learning rate: linear over the first part of the steps, then half a cosine down to zero."""
    progress = (step + 1) / steps
    if progress < warmup:
        return progress / warmup
    return 0.5 + 0.5 * math.cos(math.pi * (progress - warmup) / (1 - warmup))


def augment(images: Tensor, recipe: ClassifierRecipe, step: int) -> Tensor:
    """Shifts each image by whole pixels (edges repeated) and flips half of them, [b, c, h, w] -> the same, uint8."""
    b, _, h, w = images.shape
    generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
    reach = recipe.max_shift
    dy, dx = torch.randint(-reach, reach + 1, (2, b), generator=generator)
    flipped = (torch.rand(b, generator=generator) < 0.5) & recipe.flip
    columns = torch.where(flipped[:, None], torch.arange(w - 1, -1, -1), torch.arange(w))
    ys = (torch.arange(h) + dy[:, None]).clamp(0, h - 1)
    xs = (columns + dx[:, None]).clamp(0, w - 1)
    row = torch.arange(b)[:, None, None]
    return images.movedim(1, -1)[row, ys[:, :, None], xs[:, None, :]].movedim(-1, 1)


@torch.inference_mode()
def accuracy(logits: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor, batch: int = 500) -> float:
    """Share of images whose most likely class is their label."""
    hits = sum(
        int((logits(x).argmax(1).cpu() == y).sum())
        for x, y in zip(images.split(batch), labels.split(batch), strict=True)
    )
    return hits / len(images)
