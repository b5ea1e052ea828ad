"""Settings of the training loop, checked when they are read."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Settings(BaseModel):
    """Frozen settings that refuse unknown keys and wrong types."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)


Beta = Annotated[float, Field(ge=0, lt=1)]


class OptimConfig(Settings):
    """The optimizer of one network and its schedule.

    Attributes:
        algorithm: AdamW, or RAdam (arXiv:1908.03265), whose first steps are small by themselves, with AdamW's decay.
        lr: peak learning rate.
        betas, eps, weight_decay: the algorithm's.
        schedule: constant, or half a cosine or a line from `lr` at step 0 to `lr * final_fraction` at the last step.
        restart: the schedule begins anew at each of the network's milestones and ends at the next.
        warmup: steps of linear warm-up, at the start and again after each of the network's milestones: where one of its
            loss terms is switched on or a stage begins (for a fake score that starts later, its first update).
        clip: largest L2 norm of the network's gradient; None = no clipping.
        reset_at_milestones: forget Adam's moments there.
    """

    algorithm: Literal["adamw", "radam"] = "adamw"
    lr: float = Field(default=1e-4, gt=0)
    betas: tuple[Beta, Beta] = Field(default=(0.9, 0.999), strict=False)
    eps: float = Field(default=1e-8, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)
    schedule: Literal["constant", "cosine", "linear"] = "constant"
    restart: bool = False
    final_fraction: float = Field(default=0.0, ge=0, le=1)
    warmup: int = Field(default=0, ge=0, le=10**9)
    clip: float | None = Field(default=10.0, gt=0)
    reset_at_milestones: bool = False


class EMAConfig(Settings):
    """Averaging of the exported network: by half-life in steps or by decay per step, exactly one of the two.

    With `ramp_up` r the half-life is at most r times the steps done, so that the start is forgotten quickly.
    """

    half_life: float | None = Field(default=None, gt=0)
    decay: float | None = Field(default=None, ge=0, lt=1)
    ramp_up: float | None = Field(default=0.05, gt=0)

    @model_validator(mode="after")
    def one_of_two(self) -> "EMAConfig":
        """Exactly one of half_life and decay."""
        if (self.half_life is None) == (self.decay is None):
            raise ValueError(
                f"half_life, decay: found {self.half_life} and {self.decay}, expected exactly one of the two; set the "
                "other to null"
            )
        return self


class CheckpointConfig(Settings):
    """When to save and what to keep; the best by evaluation is kept beside the last `keep`."""

    every_steps: int | None = Field(default=None, ge=1, le=10**9)
    every_minutes: float | None = Field(default=10.0, gt=0)
    keep: int = Field(default=2, ge=1, le=10**9)


class TrainingConfig(Settings):
    """Everything the loop needs to know besides the method and its data.

    Attributes:
        steps: number of training steps; one step runs every phase of the method once.
        batch: rows of the unpaired stream per step, over all ranks and micro-batches.
        pair_batch: rows of the pair stream per step, likewise; None = batch.
        accumulate: micro-batches per optimiser update.
        seed: every random number follows from it and the step.
        precision, device, strategy, channels_last, compile: how the arithmetic is run, see `prepare_network`.
        optim: settings by network name; `default` serves the networks that are not named. In a recipe null leaves out a
            network that the recipe below it names.
        gradient_checkpointing: compute activations again in the backward pass, not keep them; networks of diffusers.
        ema: None = no averaging.
        log_every, preview_every, evaluate_every: in steps; None = only at the end.
        deterministic: ask torch for deterministic kernels, and fail where there is none.
    """

    steps: int = Field(ge=1, le=10**9)
    batch: int = Field(ge=1, le=10**7)
    pair_batch: int | None = Field(default=None, ge=1, le=10**7)
    accumulate: int = Field(default=1, ge=1, le=10**6)
    seed: int = Field(default=0, ge=0, lt=2**63)
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    strategy: Literal["none", "ddp", "fsdp"] = "ddp"
    optim: dict[str, OptimConfig] = Field(default_factory=lambda: {"default": OptimConfig()})
    ema: EMAConfig | None = Field(default_factory=lambda: EMAConfig(half_life=500.0))
    checkpoint: CheckpointConfig = Field(default_factory=CheckpointConfig)
    log_every: int = Field(default=10, ge=1, le=10**9)
    preview_every: int | None = Field(default=None, ge=1, le=10**9)
    evaluate_every: int | None = Field(default=None, ge=1, le=10**9)
    channels_last: bool = False
    compile: bool = False
    gradient_checkpointing: bool = False
    deterministic: bool = False
