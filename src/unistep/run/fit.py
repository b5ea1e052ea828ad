"""A network of the student's class fitted to a teacher without weights: trained, timed and certified."""

import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unistep.errors import UserError
from unistep.methods import Fit
from unistep.networks import build_denoiser
from unistep.recipes.schema import DistillRecipe
from unistep.recipes.sections import FitConfig
from unistep.run.console import Talk
from unistep.run.hooks import build_hooks
from unistep.run.sample_sources import SampleSource, teacher_source
from unistep.teachers.analytic import GaussianMixture
from unistep.teachers.checkpoint import save_denoiser
from unistep.teachers.checkpoint_config import random_denoiser
from unistep.teachers.load import load_teacher
from unistep.teachers.teacher import Teacher
from unistep.training.batches import Streams, TensorImages
from unistep.training.distributed import full_tensor, on_rank_zero, unwrap
from unistep.training.loop import TrainResult, train
from unistep.training.prepare import prepare_network
from unistep.training.random import derived_seed
from unistep.types import bcast

CERTIFICATE_SEEDS = torch.arange(20_000_000, 20_010_000)


def mixture_of(teacher: Teacher) -> GaussianMixture:
    """The mixture behind an analytic teacher.

    Raises:
        UserError: for another teacher without weights, of which no samples can be drawn.
    """
    if not isinstance(teacher.denoiser, GaussianMixture):
        raise UserError(
            f"teacher: {teacher.source} has neither weights nor exact samples, so nothing can be fitted to it"
        )
    return teacher.denoiser


def fit_of(recipe: DistillRecipe, teacher: Teacher) -> FitConfig:
    """The settings of the fit that a teacher without weights needs.

    Raises:
        UserError: if the recipe has none, or a network that does not suit the points.
    """
    fit = recipe.fit
    if fit is None:
        raise UserError(
            f"fit: found nothing, expected a section: {teacher.source} has no weights, so a network is fitted to it"
        )
    if fit.network.get("type") != "mlp" or fit.network.get("dim") not in (None, *teacher.shape):
        raise UserError(
            f"fit.network: found {fit.network}, expected an mlp of dim {teacher.shape[0]}, as the points have"
        )
    return fit


def fitted(recipe: DistillRecipe, teacher: Teacher, folder: Path, device: torch.device, say: Talk) -> Teacher:
    """The fitted network as a teacher; what is in `folder` already is gone on from.

    Raises:
        UserError: if the recipe has no `fit`, or the fit is worse than `fit.max_error`.
        KeyboardInterrupt: after Ctrl-C, with everything saved.
    """
    mixture, fit = mixture_of(teacher), fit_of(recipe, teacher)
    config = fit_config(fit, teacher, mixture)
    method = build_fit(fit, teacher, config, device)

    def draws(network: torch.nn.Module) -> SampleSource:
        model, _ = teacher_source(network, teacher.process, None, recipe.evaluation.solver, 1.0)
        return SampleSource(model=model, shape=teacher.shape, codec=teacher.codec, conditioner=None, device=device)

    if not is_fitted(folder):
        say(f"fitting a network to {teacher.source}, which has no weights")
    result = train(
        method,
        samples_of(fit, teacher, mixture, device),
        fit.training,
        folder,
        build_hooks(draws, None, say),
        {**fit.model_dump(mode="json", exclude={"max_error"}), "teacher_sha256": teacher.sha256},
        config,
    )
    export_average(result, unwrap(method.denoiser), folder / "teacher", config)
    return load_teacher(folder / "teacher")


def build_fit(fit: FitConfig, teacher: Teacher, config: dict[str, Any], device: torch.device) -> Fit:
    """The method of a fit, its network at the start.

    Raises:
        UserError: for values that make no network.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derived_seed(fit.training.seed, "initial weights"))
        return Fit(teacher, prepare_network(build_denoiser(config), fit.training, device))


def is_fitted(folder: Path) -> bool:
    """Whether a fit in `folder` has come to its end, so that `fitted` will train no more."""
    return (folder / "teacher" / "config.json").is_file()


def fit_config(fit: FitConfig, teacher: Teacher, mixture: GaussianMixture) -> dict[str, Any]:
    """What `save_denoiser` stores beside the weights."""
    return {
        "network": fit.network,
        "process": teacher.process.config(),
        "sigma_data": mixture.sigma_data,
        "shape": list(teacher.shape),
        "conditioner": teacher.conditioner.config() if teacher.conditioner is not None else None,
        "codec": teacher.codec.config(),
    }


def samples_of(fit: FitConfig, teacher: Teacher, mixture: GaussianMixture, device: torch.device) -> Streams:
    """Exact samples as the stream of real ones."""
    seeds = torch.arange(fit.samples)
    cond = teacher.conditioner.from_seeds(seeds) if teacher.conditioner is not None else None
    images = TensorImages(mixture.sample(seeds, cond), cond)
    return Streams(seed=fit.training.seed, batch=fit.training.batch, device=device, images=images)


@torch.no_grad()
def fit_error(network: Teacher, teacher: Teacher, device: torch.device) -> float:
    """How far the fitted network is from mu_base on noised fresh samples, over all levels of the training grid alike.

    The root of E[w(t) |mu - mu_base|^2] over E[w(t) |mu_linear - mu_base|^2], w the training weight and mu_linear the
    answer of a single Gaussian with the data's spread: 0 is exact, 1 is a network that knows the spread only.
    """
    process, mixture = teacher.process, mixture_of(teacher)
    cond = teacher.conditioner.from_seeds(CERTIFICATE_SEEDS) if teacher.conditioner is not None else None
    x = mixture.sample(CERTIFICATE_SEEDS, cond).to(device)
    draws = torch.Generator().manual_seed(int(CERTIFICATE_SEEDS[0]))
    t = process.time(torch.arange(len(x)) % process.num_bins / (process.num_bins - 1)).to(device)
    eps = torch.randn(x.shape, generator=draws).to(device)
    x_t = bcast(process.alpha(t), x) * x + bcast(process.sigma(t), x) * eps
    alpha, sigma, exact = process.alpha(t), process.sigma(t), teacher(x_t, t, cond)
    variance = mixture.sigma_data**2
    linear = bcast(alpha * variance / (alpha**2 * variance + sigma**2), x) * x_t
    error, unit = (
        (teacher.weighting(t) * (mu - exact).square().flatten(1).mean(1)).mean()
        for mu in (network(x_t, t, cond), linear)
    )
    return float((error / unit).sqrt())


def certified(
    recipe: DistillRecipe, teacher: Teacher, folder: Path, device: torch.device, say: Talk
) -> tuple[Teacher, dict[str, float]]:
    """The fitted network and its certificate: the error and the seconds this call took.

    Raises:
        UserError: if the error exceeds `fit.max_error`.
    """
    started = time.perf_counter()
    network = fitted(recipe, teacher, folder, device, say)
    network.denoiser.to(device)
    seconds, error = time.perf_counter() - started, fit_error(network, teacher, device)
    say(f"the fitted network's error is {error:.4f} (0 = exact, 1 = a single Gaussian), {seconds:.0f} s")
    limit = recipe.fit.max_error if recipe.fit is not None else 0.0
    if not error <= limit:  # also not a number
        raise UserError(
            f"fit.max_error: found an error of {error:.4f}, expected at most {limit}; "
            "raise fit.training.steps or fit.network.width, and choose another --out"
        )
    return network, {"error": error, "seconds": seconds}


def export_average(result: TrainResult, network: nn.Module, folder: Path, config: dict[str, Any]) -> None:
    """Writes the averaged weights (the last ones where no average is kept) of a finished training.

    Raises:
        KeyboardInterrupt: if the training was stopped before its end.
    """
    if result.stopped == "signal":
        raise KeyboardInterrupt
    exported = random_denoiser(config)  # not a copy: sharded networks cannot be copied
    last = network.state_dict() if result.ema is None else result.ema.state_dict()
    exported.load_state_dict({name: full_tensor(value) for name, value in last.items()})
    on_rank_zero(lambda: save_denoiser(folder, exported, config))
