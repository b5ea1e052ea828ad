"""Who judges a run: an embedded judge, a folder's, one trained on the images, or exact samples for points."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from unistep.api.draws import Draws
from unistep.api.hooks import Features, QuickJudge
from unistep.api.talk import Talk
from unistep.data import ImageDataset
from unistep.errors import UserError
from unistep.evaluation.features import Judge, load_judge
from unistep.evaluation.judging import figures, judge_samples, quick_metrics
from unistep.evaluation.points import Modes, point_figures
from unistep.evaluation.train_judge import train_judge
from unistep.recipes.schema import DistillRecipe, EvaluationConfig
from unistep.teachers.analytic import GaussianMixture
from unistep.teachers.teacher import Teacher
from unistep.training.distributed import on_main

REFERENCE_SEEDS = (0, 50_000_000)  # of the exact samples compared with, and of those that stand for the floor


def trained_judge(folder: Path, data: ImageDataset, steps: int, say: Talk) -> Judge:
    """The judge in `folder`, trained on the images first if it is not there."""

    def train() -> None:
        if not (folder / "judge.safetensors").is_file():
            say(f"training a judge on {len(data):,} images")
            train_judge(data.images, data.labels, steps=steps, names=data.names).save(folder)

    on_main(train)
    judge = load_judge(folder)
    say(f"the judge classifies {100 * judge.accuracy:.1f} % of held-out images rightly")
    return judge


def find_judge(spec: str | None, run: Path) -> Judge | None:
    """The judge of a distillation: `train` means the one that the run's teacher was taught under.

    Raises:
        UserError: if there is none.
    """
    if spec is None:
        return None
    if spec != "train":
        return load_judge(spec)
    folder = run / "teacher" / "judge"
    if not folder.is_dir():
        raise UserError("evaluation.judge: found train, which needs teacher.teach; name a folder or embedded:NAME")
    return load_judge(folder)


@dataclass(frozen=True)
class PointReference:
    """Exact samples of a mixture, twice, and where its modes are."""

    real: Tensor
    held_out: Tensor
    modes: Modes


def point_reference(teacher: Teacher, count: int) -> PointReference | None:
    """`count` exact samples of an analytic teacher, twice; None for another teacher."""
    mixture = teacher.denoiser
    if not isinstance(mixture, GaussianMixture):
        return None
    real, held_out = (mixture.sample(torch.arange(count) + start) for start in REFERENCE_SEEDS)
    return PointReference(real, held_out, Modes(means=mixture.means.cpu(), sd=float(mixture.std[0])))


def find_quick_judge(recipe: DistillRecipe, teacher: Teacher, folder: Path, device: torch.device) -> QuickJudge | None:
    """The judge of evaluations during a distillation; None where nothing can judge."""
    judge = find_judge(recipe.evaluation.judge, folder)
    if judge is not None:
        judge.network.to(device)
        return quick_image_judge(judge, recipe.evaluation)
    reference = point_reference(teacher, recipe.evaluation.samples_during_training)
    return None if reference is None else quick_point_judge(reference, recipe.evaluation)


def judged_features(recipe: DistillRecipe, folder: Path, device: torch.device) -> Features | None:
    """What the judge sees images by, for the watch over diversity, which trains nothing; None without a judge."""
    judge = find_judge(recipe.evaluation.judge, folder)
    if judge is None:
        return None
    judge.network.to(device)
    return lambda images: judge.features(images)[0]


def quick_image_judge(judge: Judge, evaluation: EvaluationConfig) -> QuickJudge:
    """Frechet distance, class agreement and diversity of a few samples; the distance decides."""

    def quick(draws: Draws) -> Mapping[str, float]:
        metrics = quick_metrics(judge.reference("train"))
        count, first = evaluation.samples_during_training, evaluation.first_seed
        judge_samples(draws, judge, metrics, num_samples=count, first_seed=first, batch=evaluation.batch)
        found = figures(metrics)
        return {"score": found["frechet"], **found}

    return quick


def quick_point_judge(reference: PointReference, evaluation: EvaluationConfig) -> QuickJudge:
    """Energy distance, modes covered; the distance decides."""

    def quick(draws: Draws) -> Mapping[str, float]:
        first = evaluation.first_seed
        seeds = torch.arange(first, first + evaluation.samples_during_training)
        found = point_figures(draws(seeds)[0], reference.real, reference.modes)
        return {"score": found["energy"], **found}

    return quick
