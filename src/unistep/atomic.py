"""Writing a file so that a reader sees all of it or nothing, whatever happens to the writer."""

import os
import re
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


def sweep(folder: Path, names: Collection[str] | None = None) -> None:
    """Removes what killed writers of these files (None: of any) left; for their only writer, before it begins."""
    for entry in list(os.scandir(folder)):
        draft = DRAFT.fullmatch(entry.name)
        if draft and (names is None or draft["name"] in names) and entry.is_file(follow_symlinks=False):
            os.unlink(entry.path)
