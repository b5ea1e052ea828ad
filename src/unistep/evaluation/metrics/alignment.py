"""How well samples fit their prompts: the CLIP score, mean cosine of image and text (arXiv:2104.08718)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from unistep.errors import UserError, one_line
from unistep.evaluation.extractors.base import Observed, require_samples
from unistep.io.hub import announce_download, is_hub_id
from unistep.io.optional import without_bars
from unistep.teachers.module import identity

KEY = "evaluation.alignment"


class Alignment(Protocol):
    """What tells how well images fit what was asked for."""

    @property
    def title(self) -> str:
        """Readable name."""
        ...

    @property
    def sha256(self) -> str:
        """Names it beside a number."""
        ...

    def __call__(self, images: Tensor, seeds: Tensor) -> Tensor:
        """uint8 images [b, c, h, w] and the seeds they were made of [b] -> float32 [b]."""
        ...


class Clip:
    """A CLIP of transformers with its tokenizer and image processor. It is never part of a training loss.

    Args:
        folder: of the model; or OWNER/NAME on the hub.

    Raises:
        UserError: if there is none, or it cannot be reached or loaded.
    """

    def __init__(self, folder: str):
        try:
            import transformers
        except ImportError as error:
            raise UserError(f"{KEY}: needs transformers; pip install 'unistep[diffusers]'") from error
        if not Path(folder).is_dir():
            if not is_hub_id(folder):
                raise UserError(f"{KEY}: found no folder {folder}, expected clip:FOLDER or clip:OWNER/NAME of the hub")
            announce_download(folder)
        images = getattr(transformers, "CLIPImageProcessorPil", None) or transformers.CLIPImageProcessor
        kinds: tuple[Any, ...] = (transformers.CLIPModel, transformers.AutoTokenizer, images)
        try:
            with without_bars():
                model, self.tokenizer, self.processor = (
                    kind.from_pretrained(folder, use_safetensors=True, trust_remote_code=False) for kind in kinds
                )
        except Exception as error:  # whatever the hub's client and its transport raise
            raise UserError(
                f"{KEY}: cannot load a CLIP model from {folder}: {one_line(error)}; expected clip:FOLDER or "
                "clip:OWNER/NAME with model.safetensors, tokenizer and preprocessor_config.json"
            ) from error
        self.model: Any = model.eval().requires_grad_(False)
        self.title = f"CLIP {Path(folder).name}"
        self.sha256 = identity(self.model, {"processor": self.processor.to_dict()})

    def to(self, device: torch.device) -> "Clip":
        """The same, looking there."""
        self.model.to(device)
        return self

    @torch.inference_mode()
    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Cosines float32 [b] of uint8 images [b, 1 or 3, h, w] and their prompts, whose beginning is read if long."""
        pictures = [image.movedim(0, -1).numpy() for image in images.cpu().expand(-1, 3, -1, -1)]
        limit = self.model.config.text_config.max_position_embeddings
        text = self.tokenizer(list(prompts), padding=True, truncation=True, max_length=limit, return_tensors="pt")
        pixels = self.processor(images=pictures, input_data_format="channels_last", return_tensors="pt")
        given = {**text, **pixels}
        known = ("input_ids", "attention_mask", "pixel_values")
        found = self.model(**{name: given[name].to(self.model.device) for name in known})
        return F.cosine_similarity(found.image_embeds.float(), found.text_embeds.float()).cpu()


@dataclass(frozen=True)
class PromptAlignment:
    """CLIP's answer for samples whose prompt follows from their seed.

    Attributes:
        clip: looks at images and prompts.
        prompts: seeds [b] -> the prompts.
    """

    clip: Clip
    prompts: Callable[[Tensor], Sequence[str]]

    @property
    def title(self) -> str:
        """Of the model."""
        return self.clip.title

    @property
    def sha256(self) -> str:
        """Of the model's weights and how it prepares images."""
        return self.clip.sha256

    def __call__(self, images: Tensor, seeds: Tensor) -> Tensor:
        """Cosines [b]."""
        return self.clip(images, self.prompts(seeds))


class MeanAlignment:
    """The mean over samples; no figure for images that nobody asked for in words (held-out real ones)."""

    name = "alignment"
    needed, real_needed = 1, 0

    def __init__(self) -> None:
        self.total, self.seen, self.known = 0.0, 0, 0

    def update(self, seen: Observed) -> None:
        self.seen += len(seen)
        if seen.alignment is not None:
            self.total, self.known = self.total + float(seen.alignment.double().sum()), self.known + len(seen)

    def merge(self, other: "MeanAlignment") -> None:
        self.total, self.seen, self.known = (
            self.total + other.total, self.seen + other.seen, self.known + other.known
        )  # fmt: skip

    def compute(self) -> dict[str, float]:
        require_samples(self.name, self.seen, 1, "a mean of nothing is no number")
        return {"alignment": self.total / self.known} if self.known else {}

    def settings(self) -> Mapping[str, Any]:
        return {}
