"""What stands in for pairs that do not exist yet: noise of the right shape, under the right conditions."""

from dataclasses import dataclass

from torch import Tensor

from unistep.samplers import seeded_normal
from unistep.teachers.teacher import Teacher
from unistep.types import Cond


@dataclass(frozen=True)
class StandInRows:
    """Some rows: z, x [b, *dims] and their condition."""

    z: Tensor
    x: Tensor
    cond: Cond


@dataclass(frozen=True)
class StandInPairs:
    """As many pairs as a recipe asks for, each with noise for an answer."""

    teacher: Teacher
    count: int

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: Tensor) -> StandInRows:
        cond = self.teacher.conditioner.from_seeds(index) if self.teacher.conditioner else None
        z = seeded_normal(index, self.teacher.shape)
        return StandInRows(z, z.clamp(-1, 1), cond)
