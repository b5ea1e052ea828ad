"""What the figures of a comparison's rows are of, the same for all: teacher, judge, reference, samples, seeds."""

from dataclasses import dataclass

from unistep.evaluation import Evaluation
from unistep.recipes.schema import DistillRecipe
from unistep.run.extractors import AnyJudge
from unistep.teachers.teacher import Teacher


@dataclass(frozen=True)
class Judging:
    """What the figures of all rows are of; a row of anything else is made anew.

    Attributes:
        teacher, judge, reference: sha256 of each; the last two empty for points.
        samples: judged.
        first_seed: of them.
    """

    teacher: str
    judge: str
    reference: str
    samples: int
    first_seed: int

    @classmethod
    def of(cls, recipe: DistillRecipe, teacher: Teacher, judge: AnyJudge | None) -> "Judging":
        """That of an entry's recipe; without a judge that of points."""
        seen = ("", "") if judge is None else (judge.sha256, judge.reference("train").sha256)
        return cls(teacher.sha256, *seen, recipe.evaluation.samples, recipe.evaluation.first_seed)

    def made(self, evaluation: Evaluation) -> bool:
        """Whether an evaluation says so of itself."""
        row = evaluation.row("student")
        if row is None or row.first_seed is None:
            return False
        found = evaluation.teacher, evaluation.judge, evaluation.reference_sha256, row.num_samples, row.first_seed
        return Judging(*found) == self
