"""Training of a judge and of a network for perceptual losses on any labelled image set, and reference features."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from unistep.errors import UserError
from unistep.evaluation.features import Judge
from unistep.evaluation.fit_classifier import ClassifierRecipe, accuracy, fit_classifier
from unistep.evaluation.judge_network import JudgeNetwork
from unistep.evaluation.perceptual_network import PerceptualNetwork
from unistep.evaluation.reference import ReferenceFeatures, Split, reference_of

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
