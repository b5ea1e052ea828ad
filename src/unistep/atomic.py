"""Writing a file so that a reader sees all of it or nothing, whatever happens to the writer."""

import os
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
