"""Prompts with the encoder that reads them at hand: what a teacher trained on captions is conditioned on."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

import unistep.teachers.diffusers.embeddings as embeddings
from unistep.errors import UserError
from unistep.teachers.diffusers.conditioner import TextConditioner
from unistep.teachers.diffusers.token_encoder import TokenEncoder, encoder_digest, encoder_folder


@dataclass(frozen=True)
class TextEncoding:
    """How prompts become embeddings.

    Attributes:
        encoder: see `encoder_folder`.
        tokens: places of each prompt.
        sha256: of the encoder's files; embeddings are looked up by it, and another encoder is refused.
    """

    encoder: str
    tokens: int
    sha256: str

    @classmethod
    def of(cls, encoder: str, tokens: int) -> "TextEncoding":
        """With the encoder that is there now.

        Raises:
            UserError: if there is none.
        """
        return cls(encoder, tokens, encoder_digest(encoder_folder(encoder)))

    def load(self, device: torch.device | str) -> TokenEncoder:
        """The encoder itself.

        Raises:
            UserError: if there is none, or another one than was trained with.
        """
        folder = encoder_folder(self.encoder)
        if (found := encoder_digest(folder)) != self.sha256:
            raise UserError(
                f"text.encoder: {folder}: found an encoder with sha256 {found[:12]}, expected the one that was trained "
                f"with, {self.sha256[:12]}"
            )
        return TokenEncoder(folder, self.tokens, device)


@dataclass(frozen=True)
class Captions(TextConditioner):
    """Prompts 0..n-1 as named tensors; -1 is the empty prompt.

    Attributes:
        encoding: what made the embeddings.
    """

    encoding: TextEncoding = field(kw_only=True)

    @classmethod
    def encoded(cls, encoding: TextEncoding, prompts: Sequence[str], device: torch.device | str = "cpu") -> "Captions":
        """Embeddings from the cache, or computed into it; the encoder is let go afterwards.

        Raises:
            UserError: for a prompt that is too long, or an encoder that is missing where it is needed.
        """
        key = embeddings.key_of({"encoder": encoding.sha256, "tokens": encoding.tokens}, prompts)
        place = embeddings.default_cache() / key[:24]
        if not embeddings.is_complete(place):
            encoder = encoding.load(device)
            embeddings.compute(place, key, prompts, encoder, encoder.null)
        table, names, _ = embeddings.open_embeddings(Path(place), key)
        return cls(table, names, key, str(place), encoding=encoding)

    def with_prompts(self, prompts: Sequence[str], device: torch.device | str = "cpu") -> "Captions":
        """Other prompts, read by the same encoder."""
        return self.encoded(self.encoding, prompts, device)

    def config(self) -> dict[str, Any]:
        """Plain values: the prompts themselves, no place on this machine."""
        encoding = self.encoding
        return {
            "type": "captions",
            "encoder": encoding.encoder,
            "tokens": encoding.tokens,
            "sha256": encoding.sha256,
            "key": self.sha256,
            "prompts": list(self.names),
        }


def captions_from_config(encoder: str, tokens: int, sha256: str, key: str, prompts: tuple[str, ...]) -> Captions:
    """The way back from `Captions.config()`.

    Raises:
        UserError: if the embeddings are in no cache and their encoder is not there, or for prompts of another key.
    """
    captions = Captions.encoded(TextEncoding(encoder, tokens, sha256), prompts)
    if captions.sha256 != key:
        raise UserError(
            f"conditioner.key: found {key}, expected {captions.sha256}, that of its prompts; restore the file"
        )
    return captions
