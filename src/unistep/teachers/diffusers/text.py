"""Prompts to embeddings by the pipeline's own `encode_prompt`, and what it takes for "no condition"."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from unistep.errors import UserError
from unistep.teachers.diffusers.families import Family

Rows = dict[str, Tensor]
"""Embeddings by name, a row for each prompt: `text` [b, length, width], `pooled` [b, width], `mask` [b, length]."""

AT_ONCE = 1024  # prompts that are tokenised in one call


class TextEncoder:
    """A pipeline's text encoders, as one function of prompts.

    Everything that the pipeline's call would give to `encode_prompt` by default (lengths, instructions) is given here.

    Args:
        pipeline: with text encoders and tokenizers.
        family: names what `encode_prompt` returns.
        device: where to encode.
    """

    def __init__(self, pipeline: Any, family: Family, device: torch.device | str = "cpu"):
        self.pipeline, self.family, self.device = pipeline.to(device), family, torch.device(device)
        self.settings = settings_of(type(pipeline))

    def __call__(self, prompts: Sequence[str]) -> Rows:
        """Embeddings of prompts, on the CPU.

        Raises:
            UserError: for a prompt that is longer than the encoder reads.
        """
        self.require_short(prompts)
        encoded = self.encode(list(prompts), guided=False)
        return {name: value for name, value in encoded.items() if not name.startswith("null ")}

    def null(self) -> Rows:
        """One row that means "no condition": what the pipeline itself takes without a negative prompt."""
        if not any(name.startswith("null ") for name in self.family.encoded):
            return self([self.family.null_prompt])
        encoded = self.encode([""], guided=True)
        return {name.removeprefix("null "): value for name, value in encoded.items() if name.startswith("null ")}

    @torch.no_grad()
    def encode(self, prompts: list[str], guided: bool) -> Rows:
        """What `encode_prompt` returns, by name."""
        known = inspect.signature(self.pipeline.encode_prompt).parameters
        given = self.settings | {"prompt": prompts, "device": self.device, "do_classifier_free_guidance": guided}
        required = {name: None for name, p in known.items() if p.default is p.empty}
        returned = self.pipeline.encode_prompt(**required | {name: v for name, v in given.items() if name in known})
        named = {name: value for name, value in zip(self.family.encoded, returned, strict=True) if name}
        return as_rows(named)

    def require_short(self, prompts: Sequence[str]) -> None:
        """Refuses what would be cut off by the encoder that reads most.

        Other encoders beside it may read less (FLUX's CLIP 77 tokens where its T5 reads 512), as they always did.
        """
        limits = {name: limit(self.pipeline, name, self.settings) for name in tokenizers(self.pipeline)}
        longest = max(limits, key=lambda name: limits[name])
        prefix = prefix_of(self.pipeline)
        tokenize = getattr(self.pipeline, longest)
        for prompt, count in counted(prompts, lambda part: tokenize([prefix + prompt for prompt in part]).input_ids):
            if count > limits[longest]:
                raise UserError(
                    f"prompt {prompt[:40]!r}...: found {count} tokens, expected at most {limits[longest]}, which "
                    f"{type(self.pipeline).__name__} reads; shorten it"
                )


def counted(
    prompts: Sequence[str], tokenize: Callable[[Sequence[str]], Sequence[Sequence[int]]]
) -> Iterator[tuple[str, int]]:
    """Each prompt and its tokens, tokenised some at a time: prompts may be millions."""
    for first in range(0, len(prompts), AT_ONCE):
        part = prompts[first : first + AT_ONCE]
        yield from ((prompt, len(ids)) for prompt, ids in zip(part, tokenize(part), strict=True))


def settings_of(kind: Any) -> dict[str, Any]:
    """The arguments of a pipeline class's `encode_prompt` that its call has defaults for."""
    call = inspect.signature(kind.__call__).parameters
    wanted = inspect.signature(kind.encode_prompt).parameters
    shared = {name: call[name].default for name in wanted if name in call and name not in ("self", "prompt")}
    single = {name: 1 for name in wanted if name.startswith("num_") and name.endswith("_per_prompt")}
    return {name: value for name, value in shared.items() if value not in (None, inspect.Parameter.empty)} | single


def tokenizers(pipeline: Any) -> list[str]:
    """Names of the pipeline's tokenizers."""
    return [name for name, part in pipeline.components.items() if name.startswith("tokenizer") and part is not None]


def limit(pipeline: Any, name: str, settings: dict[str, Any]) -> int:
    """Tokens that are read after a tokenizer: CLIP's are fixed, the others' are the pipeline's."""
    tokenizer = getattr(pipeline, name)
    own = int(tokenizer.model_max_length)
    return own if "CLIP" in type(tokenizer).__name__ else min(own, settings.get("max_sequence_length", own))


def prefix_of(pipeline: Any) -> str:
    """What stands before each prompt and counts among its tokens (Lumina2)."""
    system = getattr(pipeline, "system_prompt", None)
    return f"{system} <Prompt Start> " if system else ""


def as_rows(named: dict[str, Any]) -> Rows:
    """Tensors on the CPU: lists of texts padded and masked, a missing mask as ones."""
    for text, mask in (("text", "mask"), ("null text", "null mask")):
        if isinstance(named.get(text), list) and named[text]:
            ones = [torch.ones(len(row), dtype=torch.int64) for row in named[text]]
            named |= {text: pad_sequence(named[text], batch_first=True), mask: pad_sequence(ones, batch_first=True)}
        elif mask in named and named[mask] is None and named.get(text) is not None:
            named[mask] = torch.ones(named[text].shape[:2], dtype=torch.int64)
    return {name: value.detach().cpu() for name, value in named.items() if isinstance(value, Tensor)}
