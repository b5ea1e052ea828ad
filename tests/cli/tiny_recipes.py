"""What recipes of several tests have in common: a tiny teacher of digits, and a run on a tiny pipeline."""

from pathlib import Path
from typing import Any

NETWORK: dict[str, Any] = {
    "type": "unet", "img_resolution": 8, "img_channels": 1, "model_channels": 8, "channel_mult": [1], "num_blocks": 1,
    "attn_resolutions": [], "label_dim": 10,
}  # fmt: skip
TEACH: dict[str, Any] = {
    "kind": "teach", "about": "a tiny teacher", "data": {"kind": "digits", "split": "train"}, "network": NETWORK,
}  # fmt: skip
"""To be completed by `training` and `evaluation`."""


def write_pipeline_run(folder: Path, pipeline: Any, recipe: str) -> Path:
    """A pipeline, two prompts and the file of a recipe that names both, and a place for embeddings, in braces."""
    pipeline.save_pretrained(folder / "pipeline")
    (folder / "prompts.txt").write_text("a red fox\ntwo boats\n")
    places = {"pipeline": folder / "pipeline", "prompts": folder / "prompts.txt", "cache": folder / "cache"}
    (folder / "tiny.yaml").write_text(recipe.format(**places))
    return folder / "tiny.yaml"
