"""Reader of a folder of picture files, with sub-folders as classes and captions from texts or names."""

import os
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from unistep.data.captioned_folder import METADATA, folder_captions, listed_pictures, several, split_texts
from unistep.data.config import DataConfig
from unistep.data.dataset import ImageDataset
from unistep.data.images import decode_images, drawn_rows
from unistep.errors import Mistakes, UserError

SYSTEM = {"thumbs.db", "desktop.ini"}  # what Windows leaves in folders of pictures
SPLITS = {"train", "test", "val", "valid", "validation"}


def load_folder(config: DataConfig) -> ImageDataset:
    """The pictures of a folder and of all its sub-folders, sorted by name, with labels and captions if asked for.

    `data.labels` says whether sub-folders are classes; `data.caption` where texts come from, see `captioned_folder`.
    Files and folders whose name begins with a dot are left out; links are followed.

    Raises:
        UserError: naming every mistake: a missing or empty folder, files that are no pictures, pictures beside class
            folders, classes without pictures, pictures without captions.
    """
    root = Path(config.path or "") / (config.split or "")
    if not root.is_dir():
        split = "; evaluation.real is made of train and test" if config.split and root.parent.is_dir() else ""
        raise UserError(f"{root}: found no folder, expected one with images{split}")
    mistakes = Mistakes()
    with mistakes.collect():
        found = files_below(root)
    mistakes.require_none()
    files, side_cars, texts = split_texts(root, found)
    rows: list[dict[str, Any]] = []
    if config.caption is not None and (root / METADATA).is_file():
        files, rows = listed_pictures(root, config.caption)
    elif texts:
        mistakes.add(
            f"data.path: found {len(texts):,} text files that belong to no image ({several(texts, root)}), expected "
            "them beside one of the same name; remove them, or begin their names with a dot"
        )
    if not files:
        mistakes.require_none()
        raise UserError(f"{root}: found no files, expected images or one folder of images per class")
    drawn = drawn_rows(len(files), config.limit)
    labels, names, captions = None, (), ()
    if takes_classes(config, root):
        with mistakes.collect():
            labels, names = folder_classes(config, root, files)
    if config.caption is not None:
        with mistakes.collect():
            captions = folder_captions(config.caption, root, files, rows, side_cars)
    with mistakes.collect():
        images = decode_images(((str(files[i]), files[i].read_bytes()) for i in drawn.tolist()), config)
    mistakes.require_none()
    captions = tuple(captions[i] for i in drawn.tolist()) if captions else ()
    return ImageDataset(images=images, labels=None if labels is None else labels[drawn], names=names, captions=captions)


def takes_classes(config: DataConfig, root: Path) -> bool:
    """Whether sub-folders are classes."""
    if config.labels == "auto":
        return config.caption is None and bool(class_folders(root))
    return config.labels == "folders"


def class_folders(root: Path) -> list[Path]:
    """The sub-folders that are not hidden, sorted by name."""
    return sorted(entry for entry in root.iterdir() if entry.is_dir() and not is_hidden(entry.name))


def folder_classes(config: DataConfig, root: Path, files: list[Path]) -> tuple[Tensor, tuple[str, ...]]:
    """The class of each picture, int64 [n], and the names of the classes: sub-folders of `root`, sorted by name.

    Raises:
        UserError: for no sub-folders, pictures beside them, empty ones, or ones that are splits and no classes.
    """
    folders = class_folders(root)
    if not folders:
        raise UserError(
            f"data.labels: found folders, but {root} has no sub-folders; expected one of images per class, or auto"
        )
    names = tuple(folder.name for folder in folders)
    mistakes = Mistakes()
    if config.labels == "auto" and config.split is None and "train" in names and {*names} <= SPLITS:
        mistakes.add(
            f"data.split: found nothing, but {root} has the sub-folders {', '.join(names)}; expected train or test, or "
            "data.labels: folders if these are classes"
        )
    if loose := [file for file in files if file.parent == root]:
        others = f" (and {len(loose) - 1:,} more)" if len(loose) > 1 else ""
        mistakes.add(
            f"{loose[0]}: a file beside class folders{others}; move it into one of {', '.join(names)}, or set "
            "data.labels: none to learn without classes"
        )
    index = {folder.name: k for k, folder in enumerate(folders)}
    labels = [index.get(file.relative_to(root).parts[0], -1) for file in files]
    if empty := [folder for k, folder in enumerate(folders) if k not in {*labels}]:
        mistakes.add(
            f"data.path: found {len(empty):,} of {len(folders):,} class folders empty ({several(empty, root)}), "
            "expected images in each; fill or remove them, or set data.labels: none to learn without classes"
        )
    mistakes.require_none()
    return torch.tensor(labels), names


def is_hidden(name: str) -> bool:
    """Whether a file or folder is no data of the user's."""
    return name.startswith(".") or name.lower() in SYSTEM


def files_below(root: Path) -> list[Path]:
    """All files below a folder that are not hidden, sorted; links to files and folders are followed.

    Raises:
        UserError: for links that lead nowhere, or to a folder that they are in.
    """
    mistakes, files = Mistakes(), list[Path]()
    for place, folders, names in os.walk(root, followlinks=True, onerror=stop):
        here = Path(place)
        above = {folder.resolve() for folder in (here, *here.parents) if folder.is_relative_to(root)}
        for folder in [*folders]:
            if is_hidden(folder):
                folders.remove(folder)
            elif (here / folder).resolve() in above:
                mistakes.add(f"{here / folder}: a link to a folder that it is in; remove it")
                folders.remove(folder)
        for file in (here / name for name in names if not is_hidden(name)):
            if file.is_file():
                files.append(file)
            elif file.is_symlink():
                mistakes.add(f"{file}: a link to nothing; mend or remove it")
    mistakes.require_none()
    return sorted(files)


def stop(error: OSError) -> NoReturn:
    """A folder that cannot be read is not passed over."""
    raise error
