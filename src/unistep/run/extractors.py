"""Who judges a run: an embedded judge, a folder's, one trained on the images, or exact samples for points."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unistep.data import ImageDataset
from unistep.data.config import DataConfig
from unistep.errors import UserError
from unistep.evaluation.extractors.features import Judge, load_judge, save_perceptual
from unistep.evaluation.extractors.pretrained import FeatureJudge, is_feature_judge, load_feature_judge
from unistep.evaluation.extractors.resized import resized
from unistep.evaluation.extractors.train import train_judge, train_perceptual
from unistep.evaluation.measure import figures, judge_samples, quick_metrics, usable
from unistep.evaluation.metrics.points import Modes, point_figures
from unistep.evaluation.reference import Split
from unistep.io.progress import show_progress
from unistep.recipes.schema import DistillRecipe
from unistep.recipes.sections import EvaluationConfig
from unistep.run.console import Talk
from unistep.run.evaluation_protocol import apply_protocol
from unistep.run.hooks import QuickJudge
from unistep.run.reference_images import key_of, load_real, splits_of, with_references
from unistep.run.sample_sources import SampleSource
from unistep.teachers.analytic import GaussianMixture
from unistep.teachers.teacher import Teacher
from unistep.training.distributed import on_rank_zero

REFERENCE_SEEDS = (0, 50_000_000)  # of the exact samples compared with, and of those that stand for the floor
AnyJudge = Judge | FeatureJudge


def trained_judge(
    folder: Path,
    images: Callable[[], ImageDataset],
    steps: int,
    say: Talk,
    held_out: Callable[[], ImageDataset] | None = None,
) -> Judge:
    """The judge in `folder`, trained on the images first if it is not there; they are loaded only then."""

    def train() -> None:
        if (folder / "judge.safetensors").is_file():
            return
        data, test = images(), held_out() if held_out is not None else None
        say(f"training a judge on {len(data):,} images")
        held = None if test is None or test.labels is None else (test.images, test.labels)
        with show_progress("training a judge", steps, say.shows) as update:
            judge = train_judge(
                data.images, data.labels, steps=steps, names=data.names, held_out=held,
                on_step=lambda step, _: update(step + 1),
            )  # fmt: skip
        judge.save(folder)
        say(f"the judge classifies {100 * judge.accuracy:.1f} % of held-out images rightly")

    on_rank_zero(train)
    return load_judge(folder)


def keep_perceptual(folder: Path, data: ImageDataset, steps: int, say: Talk) -> None:
    """Trains a network for perceptual losses beside a judge, unless it is there.

    Args:
        folder: of the judge.
        data: the images that the judge was trained on.
        steps: as many as the judge's.
        say: told what takes time.
    """

    def train() -> None:
        if (folder / "perceptual.safetensors").is_file():
            return
        say(f"training a network for perceptual losses on {len(data):,} images")
        with show_progress("training a perceptual network", steps, say.shows) as update:
            network, description = train_perceptual(
                data.images, data.labels, steps=steps, on_step=lambda step, _: update(step + 1)
            )
        save_perceptual(folder, network, description)

    on_rank_zero(train)


def find_judge(
    recipe: DistillRecipe, teacher: Teacher, folder: Path, device: torch.device, say: Talk, recompute: bool = False
) -> AnyJudge | None:
    """The judge of a distillation, on the device.

    `train` means one trained on the recipe's real images, or the one that the run's teacher was taught under.

    Args:
        recipe: its evaluation names the judge, and real images for one that has none.
        teacher: whose images are judged, as the evaluation sees them (see `apply_protocol`).
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
    judge = judge_on_data(recipe, folder, say) if evaluation.judge == "train" else judge_of(evaluation.judge)
    sample = teacher.codec.decode(torch.zeros(1, *teacher.shape)).cpu()
    return ready(judge, evaluation, splits_of(evaluation), folder, sample, device, say, recompute)


def judge_on_data(recipe: DistillRecipe, folder: Path, say: Talk) -> Judge:
    """The judge trained on `evaluation.real`, kept in the run, or the one that the run's teacher was taught under.

    Raises:
        UserError: if there are neither images nor such a teacher.
    """
    evaluation = recipe.evaluation
    require_images_for_judge(evaluation, recipe.teacher.teach)
    if evaluation.real is None:
        return load_judge(folder / "teacher" / "judge")
    train, test = splits_of(evaluation).values()
    place = folder / "reference" / f"judge-{key_of(evaluation.real, evaluation.judge_steps)}"
    return trained_judge(place, lambda: load_real(train), evaluation.judge_steps, say, lambda: load_real(test))


def require_images_for_judge(evaluation: EvaluationConfig, teach: str | None) -> None:
    """Refuses a judge that is to be trained where neither the evaluation nor the teacher's recipe `teach` has images.

    Raises:
        UserError: says what is needed.
    """
    if evaluation.real is None and teach is None:
        raise UserError(
            "evaluation.judge: found train, which needs evaluation.real or teacher.teach; or name a folder or "
            "embedded:NAME"
        )


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
    seen = apply_protocol(recipe, teacher, device)
    judge = find_judge(recipe, seen, folder, device, say)
    if judge is not None:
        quick = quick_image_judge(judge, recipe.evaluation)
        return lambda draws: quick(replace(draws, codec=seen.codec, conditioner=seen.conditioner))
    reference = point_reference(teacher, recipe.evaluation.samples_during_training)
    return None if reference is None else quick_point_judge(reference, recipe.evaluation)


@dataclass(frozen=True)
class JudgeFeatures:
    """Features of a judge: decoded samples [b, ...] -> [b, d].

    Attributes:
        judge: on its device.
        size: to which images are brought first; None = as they are.
    """

    judge: Judge
    size: int | None

    def __call__(self, images: Tensor) -> Tensor:
        return self.judge.features(images if self.size is None else resized(images, self.size))[0]

    @property
    def facts(self) -> dict[str, Any]:
        """Plain values that tell these features from others."""
        return {"judge": self.judge.sha256, "resize": self.size}


def judged_features(
    recipe: DistillRecipe, teacher: Teacher, folder: Path, device: torch.device, say: Talk
) -> JudgeFeatures | None:
    """What a judge trained on the data sees images by, for the watch over diversity, which trains nothing.

    None for any other: the large networks of photographs would take longer, for every line of the log, than a step.
    """
    judge = find_judge(recipe, apply_protocol(recipe, teacher, device), folder, device, say)
    return JudgeFeatures(judge, recipe.evaluation.resize) if isinstance(judge, Judge) else None


def quick_image_judge(judge: AnyJudge, evaluation: EvaluationConfig) -> QuickJudge:
    """A distance, class agreement and diversity of a few samples, as far as the judge can tell them.

    The distance decides, see `quick_metrics`.
    """
    reference = judge.reference("train")

    def quick(draws: SampleSource) -> Mapping[str, float]:
        count, first = evaluation.samples_during_training, evaluation.first_seed
        metrics = usable(quick_metrics(reference, count), reference, count)
        judge_samples(draws, judge, metrics, num_samples=count, first_seed=first, batch=evaluation.batch)
        found = figures(metrics)
        return {"score": found["frechet"] if "frechet" in found else found["kid"], **found}

    return quick


def quick_point_judge(reference: PointReference, evaluation: EvaluationConfig) -> QuickJudge:
    """Energy distance, modes covered; the distance decides."""

    def quick(draws: SampleSource) -> Mapping[str, float]:
        first = evaluation.first_seed
        seeds = torch.arange(first, first + evaluation.samples_during_training)
        found = point_figures(draws(seeds)[0], reference.real, reference.modes)
        return {"score": found["energy"], **found}

    return quick
