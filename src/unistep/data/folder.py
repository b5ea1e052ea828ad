"""Reader of a folder of picture files; each sub-folder is a class."""

from pathlib import Path

import torch

from unistep.data.captioned_folder import load_captioned_folder
from unistep.data.config import DataConfig
from unistep.data.dataset import ImageDataset
from unistep.data.images import decode_images, drawn_rows
from unistep.errors import UserError


def load_folder(config: DataConfig) -> ImageDataset:
    """Pictures of a folder without labels, or of its sub-folders with the sub-folder as label, sorted by name.

    With `caption` those that `metadata.jsonl` lists, see `captioned_folder`.

    Files and folders whose name begins with a dot are left out. Sub-folders may hold folders of their own.

    Raises:
        UserError: for a missing or empty folder, a file that is no image, or files beside class folders.
    """
    root = Path(config.path or "") / (config.split or "")
    if not root.is_dir():
        raise UserError(
            f"{root}: found no folder, expected one with images" + (f" ({config.split})" if config.split else "")
        )
    if config.caption is not None:
        return load_captioned_folder(config, root)
    classes = sorted(entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    files = [(file, label) for label, folder in enumerate(classes) for file in files_below(folder)]
    loose = [file for file in files_below(root) if file.parent == root]
    if classes and loose:
        raise UserError(
            f"{loose[0]}: a file beside class folders; move it into one of {', '.join(c.name for c in classes)}"
        )
    files = files or [(file, -1) for file in loose]
    if not files:
        raise UserError(f"{root}: found no files, expected images or one folder of images per class")
    rows = drawn_rows(len(files), config.limit).tolist()
    images = decode_images(((str(files[i][0]), files[i][0].read_bytes()) for i in rows), config)
    if not classes:
        return ImageDataset(images=images)
    labels = torch.tensor([files[i][1] for i in rows])
    return ImageDataset(images=images, labels=labels, names=tuple(folder.name for folder in classes))


def files_below(folder: Path) -> list[Path]:
    """All files below a folder that are not hidden, sorted."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return sorted(p for p in found if not any(part.startswith(".") for part in p.relative_to(folder).parts))
