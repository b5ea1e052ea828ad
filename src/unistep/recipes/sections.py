"""The sections that recipes are made of: frozen models, unknown keys refused."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from unistep.data.config import DataConfig
from unistep.evaluation.extractors.pretrained import is_feature_judge
from unistep.recipes.messages import SettingErrors
from unistep.training.config import TrainingConfig

ExportedWeights = Literal["best", "ema", "raw"]
SolverName = Literal["euler", "heun", "ddim", "dpmpp_2m", "pndm", "unipc", "consistency"]
OdeSolverName = Literal["euler", "heun", "ddim", "dpmpp_2m", "pndm", "unipc"]
LAST_SEED = 2**62  # of a first seed: those that follow are 64-bit numbers too


class Section(BaseModel):
    """A part of a recipe."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def mistakes(self) -> Iterator[str]:
        """Messages on settings that do not go together, `key: found ..., expected ...`; none by default."""
        return iter(())

    @model_validator(mode="after")
    def require_no_mistakes(self) -> Self:
        """Refuses settings that do not go together, all of them at once."""
        if found := [*self.mistakes()]:
            raise SettingErrors(found)
        return self


class SolverConfig(Section):
    """A sampler by name; the options are those of `unistep.diffusion.samplers.build_sampler`."""

    name: SolverName = "heun"
    num_steps: int = Field(default=18, ge=1, le=10_000)
    options: dict[str, Any] = {}


class AutoSolverConfig(Section):
    """The cheapest solver that keeps to a tolerance on a probe of seeds, see `pairs.choice`.

    `tolerance` bounds the error of endpoints against a fine reference: root mean square, relative to the spread of the
    reference's endpoints (0 = exact, 1 = no better than their mean). `probe` is a number of seeds, the pairs' first
    ones. `candidates` are tried at about each of `evaluations`, of the denoiser per sample (guidance doubles them); by
    default ddim, dpmpp_2m and heun, unipc where it is installed and there is signal at the terminal time, and pndm for
    a table of alpha-bar.
    """

    name: Literal["auto"]
    tolerance: float = Field(default=0.05, gt=0, lt=1)
    probe: int = Field(default=64, ge=8, le=65_536)
    candidates: Annotated[tuple[OdeSolverName, ...], Field(min_length=1)] | None = None
    evaluations: tuple[Annotated[int, Field(ge=1, le=10_000)], ...] = Field(
        default=(4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40), min_length=1
    )

    @model_validator(mode="before")
    @classmethod
    def check(cls, values: Any) -> Any:
        """Steps and options are found and not given. Lists are tuples here, as they are where JSON is read."""
        if not isinstance(values, dict):
            return values
        for key in ("num_steps", "options"):
            if key in values:
                raise ValueError(f"{key}: found {values[key]}, expected nothing: solver auto finds its own")
        return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}


class TeacherConfig(Section):
    """Where the teacher comes from: loaded, taught by a recipe into the run's `teacher` folder, or, with neither, given
    to `unistep.distill(..., teacher=...)` from Python.

    `guidance` w (1 = off) is one number for the pairs, the real score and the teacher that the generator is compared
    with: the generator learns the guided teacher and needs no guidance itself. `certify`: whether it is asked first
    if it is read as it was trained. `options` are what a pipeline of diffusers leaves open, prompts above all (see
    `teachers.diffusers.Options`).
    """

    load: str | None = None
    teach: str | None = None
    guidance: float = Field(default=1.0, ge=0, le=10**6)
    certify: bool = True
    options: dict[str, Any] = {}

    def mistakes(self) -> Iterator[str]:
        """More than one source."""
        if self.load is not None and self.teach is not None:
            yield (
                "found both load and teach, expected one of them, or neither for a teacher of your own; set the "
                "other to null"
            )


class FitConfig(Section):
    """The network fitted to a teacher without weights (an analytic mixture), the start of generator and fake score.

    It learns from `samples` exact samples and is refused when its error (see `run.fit`) exceeds `max_error`.
    """

    network: dict[str, Any] = {"type": "mlp"}
    training: TrainingConfig
    samples: int = Field(default=65_536, ge=1, le=10**9)
    max_error: float = Field(default=0.1, gt=0)


class GeneratorConfig(Section):
    """Where the generator starts, the noise level it is held at (by default the terminal time), and what is exported.

    `init` names a finished run's folder, or `embedded:NAME/FOLDER`, whose generator it starts from; by default the
    teacher's network.
    `sigma_init` is in units of the data (processes with alpha = 1); `u_init` is a place on the training grid, 0..1.
    `weights`: the average, the last ones, or the better of the two on samples that the evaluation does not use.
    """

    init: str | None = None
    sigma_init: float | None = Field(default=None, gt=0)
    u_init: float | None = Field(default=None, gt=0, le=1)
    weights: ExportedWeights = "best"

    def mistakes(self) -> Iterator[str]:
        """More than one noise level."""
        if self.sigma_init is not None and self.u_init is not None:
            yield "found both sigma_init and u_init, expected at most one of them; set the other to null"


class ExactData(Section):
    """Exact samples of an analytic teacher as the real ones, by default from seeds that nothing else has."""

    kind: Literal["exact"]
    count: int = Field(default=65_536, ge=1, le=10**9)
    first_seed: int = Field(default=30_000_000, ge=0, le=LAST_SEED)


RealImages = Annotated[DataConfig | ExactData, Field(discriminator="kind")]
"""Where a method's real images come from."""


class PairsConfig(Section):
    """Noise-image pairs: how many, and how the teacher's ODE is solved. Row i is a pure function of this and i.

    `solver: auto` stands for `{name: auto}`, and any other name alone for that solver with its usual settings.
    """

    count: int = Field(ge=1, le=10**10)
    solver: SolverConfig | AutoSolverConfig = Field(default_factory=SolverConfig, discriminator="name")
    tile: int = Field(default=64, ge=1, le=10**6)
    dtype: Literal["float32", "float16"] = "float32"
    first_seed: int = Field(default=0, ge=0, le=LAST_SEED)
    path: Annotated[str, Field(min_length=1)] | None = None

    @field_validator("solver", mode="before")
    @classmethod
    def named(cls, solver: Any) -> Any:
        """A name alone is a mapping; a mapping without one has the usual solver's."""
        if isinstance(solver, str):
            return {"name": solver}
        return {"name": SolverConfig().name, **solver} if isinstance(solver, dict) else solver


class EvaluationConfig(Section):
    """How samples are judged: briefly during training, fully at the end.

    `judge` is a classifier of the data, which brings the features of real images along: `embedded:NAME`, a folder, or
    `train`, trained on the images of the teach recipe, or on those of `real`. Or it is a network that knows no images
    of its own: `efficientnet-lite0` (extra `efficientnet`) or `inception:PATH`, FID's Inception-v3. Then `real` says
    where real images are, its train split to compare with and its test split for the floor (in a teach recipe those of
    `data` by default); or `reference` names an .npz with `mu` and `sigma`, of which only the Frechet distance can be
    computed. Without a judge (points) distances to exact samples are measured. `solver` is the teacher's. `beside`
    names other generators for the table, by row name: a finished run, its generator's folder, an export of it to
    safetensors, or `embedded:NAME/FOLDER`. `timed` asks
    for latency and throughput too.

    For models of text: `prompts` names those that samples are judged under, sample i under prompt i, instead of the
    teacher's own; `resize` brings images to that size before they are judged; `alignment`, `clip:FOLDER_OR_HUB_ID`,
    adds the CLIP score.
    """

    judge: str | None = None
    real: DataConfig | None = None
    reference: str | None = None
    samples: int = Field(default=10_000, ge=1, le=10**9)
    first_seed: int = Field(default=1_000_000, ge=0, le=LAST_SEED)
    samples_during_training: int = Field(default=2_000, ge=1, le=10**9)
    solver: SolverConfig = Field(default_factory=SolverConfig)
    batch: int = Field(default=100, ge=1, le=10**6)
    beside: dict[str, str] = {}
    timed: bool = True
    judge_steps: int = Field(default=1_500, ge=1, le=10**9)
    prompts: str | None = None
    resize: int | None = Field(default=None, ge=8, le=16_384)
    alignment: Annotated[str, Field(pattern=r"^clip:.+")] | None = None

    def mistakes(self) -> Iterator[str]:
        """Settings of a judge without one; real images for one that has its own, given twice, or only a split."""
        for name in ("resize", "alignment"):
            if getattr(self, name) is not None and self.judge is None:
                yield f"{name}: found {getattr(self, name)}, expected null: nothing judges"
        seeing = is_feature_judge(self.judge)
        can = {"real": seeing or self.judge == "train", "reference": seeing}
        for name, wanted in can.items():
            if getattr(self, name) is not None and not wanted:
                yield f"{name}: found a value, expected nothing: judge {self.judge} brings its own images"
        if self.real is not None and self.reference is not None:
            yield "found both real and reference, expected one of them; set the other to null"
        if self.real is not None and self.real.split is not None:
            yield f"real.split: found {self.real.split}, expected nothing: train is compared with, test is the floor"


class TextConfig(Section):
    """What reads the captions of `data`: an encoder's folder or `package:NAME`, and the tokens that a caption may have.

    See `teachers.diffusers.token_encoder`.
    """

    encoder: str
    tokens: int = Field(default=64, ge=2, le=65_536)
