"""Writing a file or a folder so that a reader sees all of it or nothing, whatever happens to the writer."""

import os
import re
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

DRAFT = re.compile(r"\.(?P<name>.+)\.\d+\.tmp")


def atomic_write(file: Path, data: bytes) -> None:
    """Writes beside `file`, flushes to the disk, then renames.

    Raises:
        OSError: for an unwritable folder or a full disk; `file` is then as it was.
    """
    with draft_of(file, data) as draft:
        os.replace(draft, file)


def atomic_create(file: Path, data: bytes) -> None:
    """The same, but a file that is there already stays as it is: of two writers at once one wins.

    Raises:
        OSError: for an unwritable folder or a full disk.
    """
    with draft_of(file, data) as draft, suppress(FileExistsError):
        os.link(draft, file)  # refuses to overwrite, unlike a rename


@contextmanager
def draft_of(file: Path, data: bytes) -> Iterator[Path]:
    """The content under a hidden name, on the disk; gone after the `with` block, whatever happens inside."""
    draft = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        with draft.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        yield draft
    except OSError as error:
        if error.filename is None:
            error.filename = str(file)  # a failed write does not say where
        raise
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """An empty folder under a hidden name that takes `folder`'s place, an earlier one's too, when the block is done.

    A block that fails leaves nothing, and `folder` as it was. There must be one writer at a time.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    clear_leftovers(folder)
    draft = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    draft.mkdir()
    try:
        yield draft
        put_in_place(draft, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def put_in_place(draft: Path, folder: Path) -> None:
    """Flushes a draft to the disk; then two renames put an earlier folder aside and the draft in its place.

    Between the two there is no folder: a writer that is killed just there leaves the earlier one under a hidden name,
    which `clear_leftovers` puts back.
    """
    for path in filter(Path.is_file, draft.rglob("*")):
        with path.open("rb+") as file:
            os.fsync(file.fileno())
    if not folder.exists():
        os.replace(draft, folder)
        return
    old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    os.replace(folder, old)
    os.replace(draft, folder)
    shutil.rmtree(old)


def clear_leftovers(folder: Path) -> None:
    """Undoes what a writer that was killed or had no room left behind; the earlier folder comes back if it is gone."""
    ours = re.compile(rf"\.{re.escape(folder.name)}\.\d+\.(tmp|old)")
    for leftover in sorted(folder.parent.iterdir()):
        if not ours.fullmatch(leftover.name):
            continue
        if leftover.suffix == ".old" and not folder.exists():
            os.replace(leftover, folder)
        else:
            shutil.rmtree(leftover)


def sweep(folder: Path, names: Collection[str] | None = None) -> None:
    """Removes what killed writers of these files (None: of any) left; for their only writer, before it begins."""
    for entry in list(os.scandir(folder)):
        draft = DRAFT.fullmatch(entry.name)
        if draft and (names is None or draft["name"] in names) and entry.is_file(follow_symlinks=False):
            os.unlink(entry.path)
