"""What the settings of every method share: what it needs, what it is compared by, and how it is built."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Set
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from unistep.diffusion.process.base import NoiseProcess
from unistep.diffusion.process.noising import data_time
from unistep.errors import UserError
from unistep.losses.regression import RegressionName
from unistep.methods.base import Batch, Method, Stream
from unistep.methods.inputs import MethodInputs
from unistep.networks.generator import StepSchedule
from unistep.types import Cond


@dataclass(frozen=True)
class Distance:
    """A distance between images by name, see `losses.regression.build_regression`."""

    name: RegressionName
    perceptual_network: str | None
    pixel_weight: float
    lpips_weights: tuple[str, ...] = ()
    decoder: str | None = None


class MethodConfig(BaseModel, ABC):
    """Settings of a method; `name` in a recipe tells which."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    from_terminal: ClassVar[bool] = False  # whether the generator must start at the terminal time
    follows_length: ClassVar[bool] = False  # whether a schedule of its own is laid out over the length of the training
    milestones: ClassVar[tuple[str, ...]] = ()  # settings that are steps of the training and move with its length
    staged: ClassVar[tuple[str, ...]] = ()  # settings that may change between stages: networks and state stay the same

    @property
    def needs_pairs(self) -> bool:
        """Whether noise-image pairs are learnt from."""
        return False

    @property
    def needs_data(self) -> bool:
        """Whether real images are learnt from."""
        return False

    @property
    def has_discriminator(self) -> bool:
        """Whether a discriminator reads the network's bottleneck."""
        return False

    @property
    def distance(self) -> Distance | None:
        """The distance between images that the losses need, if any."""
        return None

    def check_length(self, steps: int) -> None:
        """Refuses a training too short for the method's stages.

        Raises:
            ValueError: naming the setting.
        """
        return

    @abstractmethod
    def build(self, inputs: MethodInputs) -> Method:
        """The method with its networks, all initialized from the same one."""


class ComparesImages(MethodConfig):
    """Settings of a method whose loss is a distance between images.

    `lpips_weights` names the files of VGG16 (torchvision's `vgg16-397923af.pth`) and of LPIPS (its authors' `vgg.pth`),
    or one file with the tensors of both; without it the piq library brings them (extra `lpips`). `decoder` says what
    makes images of latents, for the distance to look at: `vae`, the teacher's own, or `tiny:FOLDER_OR_HUB_ID`, an
    AutoencoderTiny; without it latents are compared as they are. `perceptual_network`, for regression `perceptual`,
    names a run of `teach`, which leaves one beside the judge that it trains, a folder, or `embedded:NAME`.
    """

    staged = ("regression", "lpips_weights", "perceptual_network", "pixel_weight", "decoder")
    regression: RegressionName = "lpips"
    lpips_weights: tuple[str, ...] = ()
    perceptual_network: str | None = None
    pixel_weight: float = Field(default=1.0, ge=0)
    decoder: Annotated[str, Field(pattern=r"^(vae|tiny:.+)$")] | None = None

    @model_validator(mode="after")
    def check_lpips(self) -> "ComparesImages":
        """Weights that nothing would use are refused."""
        if self.lpips_weights and self.regression != "lpips":
            raise ValueError(f"lpips_weights: found a value, expected nothing: regression is {self.regression}")
        return self

    @property
    def distance(self) -> Distance | None:
        return Distance(self.regression, self.perceptual_network, self.pixel_weight, self.lpips_weights, self.decoder)


class LearnsFromImages(MethodConfig):
    """Settings of a method that noises clean images: real ones, or the teacher's from the noise-image pairs."""

    images: Literal["pairs", "data"] = "pairs"

    @property
    def needs_pairs(self) -> bool:
        return self.images == "pairs"

    @property
    def needs_data(self) -> bool:
        return self.images == "data"

    @property
    def image_inputs(self) -> Set[Stream]:
        """The stream that the images come from, see `Phase.inputs`."""
        return {"images" if self.images == "data" else "pairs"}


def clean_images(batch: Batch) -> tuple[Tensor, Cond]:
    """Real images with their condition, or those of the pairs where there are none."""
    if batch.real is not None:
        return batch.images()
    _, x, cond = batch.pairs()
    return x, cond


def refuse_unused(config: MethodConfig, names: Iterable[str], because: str) -> None:
    """Refuses settings that another one makes idle; their defaults pass, which a run's own recipe spells out.

    Raises:
        ValueError: naming the first that has another value.
    """
    for name in names:
        found = getattr(config, name)
        if found != type(config).model_fields[name].default:
            raise ValueError(f"{name}: found {found}, expected nothing: {because}")


def require_edm(process: NoiseProcess, found: str, remedy: str) -> None:
    """Refuses what is defined in terms of sigma for a process whose time is something else.

    Raises:
        UserError: naming what was found and the process.
    """
    kind = process.config()["type"]
    if kind != "edm":
        raise UserError(f"{found} with process {kind}, expected an EDM process, where t is sigma; {remedy}")


class MultiStepConfig(MethodConfig):
    """Settings of a method whose generator may be asked several times, with fresh noise in between.

    `places` are those of the levels after the first on the training grid, 0..1 and decreasing; None = equally spaced
    (0.75, 0.5, 0.25 for four steps; of 1,000 timesteps 999, 749, 500, 250, beside DMD2's 999, 749, 499, 249).
    """

    num_steps: int = Field(default=1, ge=1, le=10_000)
    places: tuple[float, ...] | None = None

    @model_validator(mode="after")
    def check_places(self) -> "MultiStepConfig":
        """One place for each later step."""
        if self.places is None:
            return self
        decreasing = list(self.places) == sorted(set(self.places), reverse=True)
        if len(self.places) != self.num_steps - 1 or not decreasing or not all(0 < u < 1 for u in self.places):
            raise ValueError(
                f"places: found {list(self.places)}, expected num_steps - 1 = {self.num_steps - 1} decreasing numbers "
                "between 0 and 1"
            )
        return self

    def steps(self, process: NoiseProcess) -> StepSchedule:
        """The levels on the training grid of a process.

        Raises:
            UserError: for a grid too coarse to tell the levels apart.
        """
        equal = tuple(1 - i / self.num_steps for i in range(1, self.num_steps))
        return StepSchedule(grid_times(process, self.places or equal), "noise")


def grid_times(process: NoiseProcess, places: tuple[float, ...]) -> tuple[float, ...]:
    """Places of the training grid as times, all of them between the terminal time and data.

    Raises:
        UserError: for a grid too coarse to tell the levels apart.
    """
    first, *times = process.time(torch.tensor([1.0, *places], dtype=torch.float64)).tolist()
    if not all(above > below for above, below in zip((first, *times), (*times, data_time(process)), strict=True)):
        raise UserError(
            f"method.num_steps: found levels {times} on a grid of {process.num_bins}, expected distinct ones; "
            "use fewer steps"
        )
    return tuple(times)
