"""Training of a judge and of a network for perceptual losses on any labelled image set, and reference features."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unistep.data.order import rows_for_step
from unistep.errors import UserError
from unistep.evaluation.extractors.features import Judge
from unistep.evaluation.extractors.network_file import JudgeNetwork, PerceptualNetwork
from unistep.evaluation.reference import ReferenceFeatures, Split, reference_of


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


FLOOR = 128  # held-out images that the Frechet distance of real images to real images needs: twice the judge's features


def train_judge(
    images: Tensor,
    labels: Tensor | None,
    *,
    steps: int,
    seed: int = 0,
    flip: bool = False,
    names: tuple[str, ...] = (),
    held_out: tuple[Tensor, Tensor] | None = None,
    device: str | torch.device = "cpu",
    on_step: Callable[[int, float], None] = lambda step, loss: None,
) -> Judge:
    """Trains a judge: a pure function of images, labels, steps, seed and flip (on one device and thread count).

    Args:
        images: uint8 [n, c, s, s], s >= 8, c = 1 or 3.
        labels: int64 [n], 0..k-1.
        steps: of 128 images each; 12 epochs give 93.1 % on Fashion-MNIST.
        seed: of the network's start, the batches and the augmentation.
        flip: mirror half the images left to right; right for clothes, wrong for digits.
        names: of the classes.
        held_out: images and labels that measure its accuracy and become the reference `test`; by default a tenth of
            the images (of few images more, see `hold_out`), drawn by a fixed seed and left out of the training.
        device: where to train.
        on_step: called after each step with its number and loss.

    Raises:
        UserError: without labels or with fewer than two classes, or if the images are not square.
    """
    labels = require_judgeable(images, labels)
    train, test = ((images, labels), held_out) if held_out else hold_out(images, labels)
    num_classes = max(len(names), int(labels.max()) + 1)
    recipe = ClassifierRecipe(steps=steps, seed=seed, flip=flip, max_shift=max(1, min(2, images.shape[-1] // 14)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = JudgeNetwork(images.shape[1], images.shape[-1], num_classes).to(device)
    fit_classifier(network, lambda x: network(x).logits, *train, recipe, on_step)
    score = accuracy(lambda x: network(x.to(device)).logits, *test)
    judge = Judge(network=network, accuracy=score, references={}, recipe=asdict(recipe), names=names)
    references: dict[Split, ReferenceFeatures] = {
        "train": reference_of(judge.features(train[0]).features, train[1]),
        "test": reference_of(judge.features(test[0]).features, test[1]),
    }
    return Judge(network=network, accuracy=score, references=references, recipe=asdict(recipe), names=names)


def train_perceptual(
    images: Tensor,
    labels: Tensor | None,
    *,
    steps: int,
    seed: int = 1,
    flip: bool = False,
    held_out: tuple[Tensor, Tensor] | None = None,
    device: str | torch.device = "cpu",
    on_step: Callable[[int, float], None] = lambda step, loss: None,
) -> tuple[PerceptualNetwork, dict[str, Any]]:
    """Trains the network of perceptual losses as a judge is trained, with another architecture and another seed.

    Args:
        images, labels, steps, flip, held_out, device, on_step: as for `train_judge`.
        seed: of start, batches and augmentation; not the judge's.

    Returns:
        The network, and what `save_perceptual` writes beside it.

    Raises:
        UserError: as `train_judge`.
    """
    labels = require_judgeable(images, labels)
    train, test = ((images, labels), held_out) if held_out else hold_out(images, labels)
    recipe = ClassifierRecipe(steps=steps, seed=seed, flip=flip, max_shift=max(1, min(2, images.shape[-1] // 14)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = PerceptualNetwork(images.shape[1], images.shape[-1], int(labels.max()) + 1).to(device)
    fit_classifier(network, network.logits, *train, recipe, on_step)
    score = accuracy(lambda x: network.logits(x.to(device)), *test)
    return network, {"accuracy": score, "recipe": asdict(recipe)}


def require_judgeable(images: Tensor, labels: Tensor | None) -> Tensor:
    """The labels. A classifier needs at least two classes, and this one square images of at least 8x8."""
    if labels is None:
        raise UserError("judge: found images without labels, expected classes; give a judge by its folder instead")
    h, w = images.shape[-2:]
    if h != w or h < 8:
        raise UserError(f"judge: found images of {h}x{w}, expected square ones of at least 8x8; set data.size")
    if len(images) < 20:
        raise UserError(f"judge: found {len(images)} images, expected 20 at the very least; give a judge by its folder")
    if len(classes := labels.unique()) < 2:
        raise UserError(f"judge: found {len(classes)} class, expected two or more; no judge can be trained on these")
    return labels


def hold_out(images: Tensor, labels: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Splits off a tenth of the images, the same ones every time; of few images up to a third, to reach `FLOOR`."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    cut = max(len(images) // 10, min(len(images) // 3, FLOOR))
    test, train = order[:cut], order[cut:]
    return (images[train], labels[train]), (images[test], labels[test])
