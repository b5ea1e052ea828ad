"""What is exported: a generator and what is known of how it was made and how well it measures."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from unistep.evaluation.result import Evaluation
from unistep.networks.generator import Generator, first_level
from unistep.teachers.adapters import StoredAdapter
from unistep.teachers.checkpoint import codec_and_conditioner
from unistep.teachers.teacher import Codec, Conditioner, Teacher
from unistep.types import Cond

Draw = Callable[..., Tensor]
UNKNOWN_LICENCE = "unknown: see the teacher"


@dataclass(frozen=True, kw_only=True)
class Student:
    """A generator to export, on the CPU in float32.

    Attributes:
        generator: in eval mode.
        config: of its folder: network, process, shape, codec, conditioner.
        sha256: of its folder.
        name: readable.
        weights: `ema` or `raw`; None where no run says.
        teacher: source and sha256, as far as a run says.
        guidance: the teacher's scale w that the student learnt; None where no run says.
        evaluation: of these weights, or None.
        adapter: what was trained, where that was LoRA; the generator has it merged.
        own: the caller's own teacher, whose codec and conditioner are taken; None = those that `config` names.
    """

    generator: Generator
    config: Mapping[str, Any]
    sha256: str
    name: str
    weights: str | None = None
    teacher: Mapping[str, str] = field(default_factory=dict)
    guidance: float | None = None
    evaluation: Evaluation | None = None
    adapter: StoredAdapter | None = None
    own: Teacher | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Dims of one sample in model space."""
        return tuple(self.config["shape"])

    @property
    def space(self) -> str:
        """What samples are before they are decoded: the codec's type, or its class's name where it has none."""
        return str(self.config["codec"].get("type") or type(self.codec).__name__)

    @property
    def codec(self) -> Codec:
        """Model space to images."""
        return self.interface[0]

    @property
    def conditioner(self) -> Conditioner | None:
        """Labels or prompts to conditions."""
        return self.interface[1]

    @cached_property
    def interface(self) -> tuple[Codec, Conditioner | None]:
        """Codec and conditioner, opened once."""
        return codec_and_conditioner(dict(self.config), self.own)

    @property
    def start(self) -> tuple[float, float]:
        """Scale of the unit noise that the network first sees, and its time, in the process's own unit."""
        scale, t = first_level(self.generator.process, self.generator.t_init, torch.ones(1))
        return float(scale), float(t)

    @property
    def times(self) -> list[float]:
        """Times of all evaluations, in the process's own unit."""
        return [self.start[1], *self.generator.steps.later_times]

    def cond(self, labels: Tensor) -> Cond:
        """The condition of labels [b], None where there is none."""
        conditioner = self.conditioner
        return None if conditioner is None else conditioner.from_labels(labels)

    def labels(self, rows: int) -> Tensor:
        """Labels of the first rows: seeds count through classes or prompts."""
        conditioner, seeds = self.conditioner, torch.arange(rows)
        return seeds if conditioner is None else conditioner.labels(seeds)

    @torch.no_grad()
    def sample(self, z: Tensor, cond: Cond) -> Tensor:
        """x [b, *dims] in model space, all steps, as `unistep sample` draws it; seeds are 0, 1, ..."""
        return self.generator.sample(z, cond, torch.arange(len(z)))

    @torch.no_grad()
    def sample_from(self, rng: torch.Generator, cond: Cond, rows: int, noise: Draw = torch.randn) -> Tensor:
        """The same with all noise from one stream, as pipelines draw it: z first, then what comes between the steps.

        Args:
            rng: the stream.
            cond: of the rows.
            rows: how many.
            noise: (shape, generator=rng) -> what comes between the steps.
        """
        z = torch.randn(rows, *self.shape, generator=rng)
        return self.generator.sample_with_noise(z, cond, lambda step: noise(z.shape, generator=rng))
