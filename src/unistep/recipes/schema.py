"""The recipes of `distill` and `teach` as a whole: which sections they have, and which of them need each other."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field

from unistep.data.config import DataConfig
from unistep.evaluation.extractors.pretrained import is_feature_judge
from unistep.methods.registry import AnyMethod
from unistep.methods.teach import TeachConfig
from unistep.networks.lora import LoRAConfig
from unistep.recipes.sections import (
    EvaluationConfig,
    FitConfig,
    GeneratorConfig,
    PairsConfig,
    RealImages,
    Section,
    TeacherConfig,
    TextConfig,
)
from unistep.training.config import TrainingConfig

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")]
"""Of a recipe, and of its run's folder below `runs`."""


class StageConfig(Section):
    """A part of a training, up to `until_step`: `set` is laid over the recipe, see `recipes.stages`."""

    until_step: int = Field(ge=1, le=10**9)
    set: dict[str, Any] = {}


class DistillRecipe(Section):
    """A recipe of `unistep distill`; `stages` change some of its settings as the training goes on.

    `method_steps` is the length for which the method lays out a schedule of its own (rounds of progressive
    distillation and of reflow, levels of consistency training), by default that of the training; beyond it the method
    stays in its last round. A run that is continued keeps it.
    """

    name: Name
    kind: Literal["distill"]
    about: str = ""
    teacher: TeacherConfig = Field(default_factory=TeacherConfig)
    data: RealImages | None = None
    fit: FitConfig | None = None
    generator: GeneratorConfig = Field(default_factory=GeneratorConfig)
    lora: LoRAConfig | None = None
    pairs: PairsConfig | None = None
    method: AnyMethod
    method_steps: int | None = Field(default=None, ge=1, le=10**9)
    training: TrainingConfig
    stages: tuple[StageConfig, ...] = ()
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig)

    def mistakes(self) -> Iterator[str]:
        """Sections that need each other or exclude each other."""
        yield from self.stage_mistakes()
        yield from self.method_mistakes()
        if self.lora is not None and self.generator.init is not None:
            yield f"generator.init: found {self.generator.init} with lora, expected null: adapters start at zero"
        if self.pairs is not None:
            yield from judged_pairs(self.pairs, self.evaluation)
        evaluation = self.evaluation
        if is_feature_judge(evaluation.judge) and evaluation.real is None and evaluation.reference is None:
            yield (
                f"evaluation.real: found nothing, expected the section of a data set with train and test images, or "
                f"evaluation.reference, an .npz with mu and sigma: {evaluation.judge} knows no images of its own"
            )

    def stage_mistakes(self) -> Iterator[str]:
        """Stages that do not follow each other up to the last step."""
        ends = [stage.until_step for stage in self.stages]
        if ends and (ends != sorted({*ends}) or ends[-1] != self.training.steps):
            yield (
                f"stages: found until_step {', '.join(map(str, ends))}, expected growing numbers up to training.steps "
                f"{self.training.steps}"
            )

    def method_mistakes(self) -> Iterator[str]:
        """What the method needs and is not there, or cannot use."""
        method, start = self.method, self.generator
        for section, needed, what in (
            ("pairs", method.needs_pairs, "noise-image pairs"),
            ("data", method.needs_data, "real images"),
        ):
            if needed and getattr(self, section) is None:
                yield f"{section}: found nothing, expected a section: method {method.name} needs {what}"
        for key, found in (("sigma_init", start.sigma_init), ("u_init", start.u_init)):
            if method.from_terminal and found is not None:
                yield f"generator.{key}: found {found}, expected null: method {method.name} starts at the terminal time"
        try:
            method.check_length(self.method_steps or self.training.steps)
        except ValueError as error:
            yield f"method.{error}"


def judged_pairs(pairs: PairsConfig, evaluation: EvaluationConfig) -> Iterator[str]:
    """Seeds of pairs among those that are judged; the weights are chosen on seeds after those evaluated."""
    learnt = range(pairs.first_seed, pairs.first_seed + pairs.count)
    first = evaluation.first_seed
    judged = range(first, first + evaluation.samples + evaluation.samples_during_training)
    if learnt.start < judged.stop and judged.start < learnt.stop:
        yield (
            f"pairs.first_seed: found seeds {learnt.start}..{learnt.stop - 1}, expected none of those that are judged, "
            f"{judged.start}..{judged.stop - 1}; change pairs.first_seed or evaluation.first_seed"
        )


class TeachRecipe(Section):
    """A recipe of `unistep teach`.

    `text` makes the teacher text-conditional: on the captions of `data`, which its encoder reads. `init` names a
    checkpoint folder whose weights the network starts from; `guidance` is that of the samples it is judged by.
    """

    name: Name
    kind: Literal["teach"]
    about: str = ""
    data: DataConfig
    text: TextConfig | None = None
    init: str | None = None
    guidance: float = Field(default=1.0, ge=0)
    network: dict[str, Any]
    process: dict[str, Any] = {"type": "edm"}
    sigma_data: float = Field(default=0.5, gt=0)
    loss: TeachConfig = Field(default_factory=TeachConfig)
    training: TrainingConfig
    evaluation: EvaluationConfig

    def mistakes(self) -> Iterator[str]:
        """`teach` is EDM's training, of denoisers at alpha = 1 and t = sigma, on one set of images."""
        for name in ("prompts", "resize", "alignment"):
            if getattr(self.evaluation, name) is not None:
                yield f"evaluation.{name}: found a value, expected null: only distillations are judged so"
        if self.evaluation.judge == "train" and self.evaluation.real is not None:
            yield "evaluation.real: found a value, expected nothing: the judge is trained on those of data"
        if (self.text is None) != (self.data.caption is None):
            given, missing = ("text", "data.caption") if self.text is not None else ("data.caption", "text")
            yield f"{missing}: found nothing, expected a value: captions and an encoder ({given}) go together"
        kind = self.process.get("type")
        if kind != "edm":
            yield f"process.type: found {kind!r}, expected 'edm': teach trains as EDM does, where t is sigma"
