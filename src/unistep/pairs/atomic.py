"""Writing a file so that a reader sees all of it or nothing, whatever happens to the writer."""

import os
from collections.abc import Collection
from pathlib import Path


def atomic_write(file: Path, data: bytes) -> None:
    """Writes beside `file`, flushes to the disk, then renames.

    Raises:
        OSError: for an unwritable folder or a full disk; `file` is then as it was.
    """
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, file)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(file)  # a failed write does not say where
        raise


def sweep(folder: Path, names: Collection[str]) -> None:
    """Removes what killed writers of these files left; for the only writer of them, before it begins."""
    for entry in list(os.scandir(folder)):
        if entry.name.startswith(".") and entry.name.endswith(".tmp") and entry.name[1:].rsplit(".", 2)[0] in names:
            os.unlink(entry.path)
