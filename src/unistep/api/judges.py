"""Who judges a run: an embedded judge, a folder's, one trained on the images, or exact samples for points."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from unistep.api.draws import Draws
from unistep.api.hooks import Features, QuickJudge
from unistep.api.real_images import splits_of, with_references
from unistep.api.talk import Talk
from unistep.data import ImageDataset
from unistep.data.config import DataConfig
from unistep.errors import UserError
from unistep.evaluation.feature_judge import FeatureJudge, is_feature_judge, load_feature_judge
from unistep.evaluation.features import Judge, load_judge
from unistep.evaluation.judging import figures, judge_samples, quick_metrics, usable
from unistep.evaluation.points import Modes, point_figures
from unistep.evaluation.reference import Split
from unistep.evaluation.train_judge import train_judge
from unistep.recipes.schema import DistillRecipe, EvaluationConfig
from unistep.teachers.analytic import GaussianMixture
from unistep.teachers.teacher import Teacher
from unistep.training.distributed import on_main

REFERENCE_SEEDS = (0, 50_000_000)  # of the exact samples compared with, and of those that stand for the floor
AnyJudge = Judge | FeatureJudge


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


def find_judge(
    recipe: DistillRecipe, teacher: Teacher, folder: Path, device: torch.device, say: Talk, recompute: bool = False
) -> AnyJudge | None:
    """The judge of a distillation, on the device: `train` means the one that the run's teacher was taught under.

    Args:
        recipe: its evaluation names the judge, and real images for one that has none.
        teacher: whose images are judged.
        folder: of the run; the features of real images are kept there.
        device: where to look at images.
        say: told what takes time.
        recompute: look at real images anew.

    Raises:
        UserError: if there is none, or the teacher makes other images than it judges or than the real ones.
    """
    evaluation = recipe.evaluation
    if evaluation.judge is None:
        return None
    if evaluation.judge == "train" and recipe.teacher.teach is None:
        raise UserError("evaluation.judge: found train, which needs teacher.teach; name a folder or embedded:NAME")
    judge = judge_of(folder / "teacher" / "judge" if evaluation.judge == "train" else evaluation.judge)
    sample = teacher.codec.decode(torch.zeros(1, *teacher.shape))
    return ready(judge, evaluation, splits_of(evaluation), folder, sample, device, say, recompute)


def judge_of(spec: str | Path) -> AnyJudge:
    """The judge that a recipe names; one that is no classifier of the data is without references yet."""
    return load_feature_judge(str(spec)) if is_feature_judge(str(spec)) else load_judge(spec)


def ready(
    judge: AnyJudge,
    evaluation: EvaluationConfig,
    real: Mapping[Split, DataConfig],
    folder: Path,
    sample: Tensor,
    device: torch.device,
    say: Talk,
    recompute: bool = False,
) -> AnyJudge:
    """The judge on the device, with references.

    Args:
        judge: any; one that is a classifier of the data has its references.
        evaluation: may name statistics of real images for one that has none.
        real: else the images themselves.
        folder: of the run; the features of real images are kept there.
        sample: one image of those that will be judged.
        device: where to look at images.
        say: told what takes time.
        recompute: look at real images anew.

    Raises:
        UserError: for images that it cannot see, or that are of another shape than the real ones.
    """
    judge.network.to(device)
    judge.features(sample)
    if isinstance(judge, FeatureJudge):
        return with_references(judge, evaluation.reference, real, folder, sample, say, recompute)
    return judge


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


def find_quick_judge(
    recipe: DistillRecipe, teacher: Teacher, folder: Path, device: torch.device, say: Talk
) -> QuickJudge | None:
    """The judge of evaluations during a distillation; None where nothing can judge."""
    judge = find_judge(recipe, teacher, folder, device, say)
    if judge is not None:
        return quick_image_judge(judge, recipe.evaluation)
    reference = point_reference(teacher, recipe.evaluation.samples_during_training)
    return None if reference is None else quick_point_judge(reference, recipe.evaluation)


def judged_features(
    recipe: DistillRecipe, teacher: Teacher, folder: Path, device: torch.device, say: Talk
) -> Features | None:
    """What a judge trained on the data sees images by, for the watch over diversity, which trains nothing.

    None for any other: the large networks of photographs would take longer, for every line of the log, than a step.
    """
    judge = find_judge(recipe, teacher, folder, device, say)
    return (lambda images: judge.features(images)[0]) if isinstance(judge, Judge) else None


def quick_image_judge(judge: AnyJudge, evaluation: EvaluationConfig) -> QuickJudge:
    """Frechet distance, class agreement and diversity of a few samples, as far as the judge can tell them.

    The distance decides.
    """
    reference = judge.reference("train")

    def quick(draws: Draws) -> Mapping[str, float]:
        metrics = usable(quick_metrics(reference), reference)
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
