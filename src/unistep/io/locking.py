"""One writer at a time: a lock on a folder that the operating system releases when its holder ends."""

import errno
import fcntl
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from unistep.errors import UserError

UNSUPPORTED = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}
HELD: dict[tuple[int, int], int] = {}
"""How many blocks of this process hold each lock, by device and inode of its file."""

Say = Callable[[str], None]


@contextmanager
def locked(folder: Path, say: Say | None = None, *, beside: bool = False) -> Iterator[None]:
    """Holds the lock of a folder inside the `with` block; blocks of one process may hold it inside each other.

    The lock is `flock` on a hidden file, which the kernel releases when the process ends, however it ends: a file that
    a killed process left means nothing. It names the holder's process and host.

    Args:
        folder: what is written.
        say: told in one line where the file system knows no locks; the work then goes on without one.
        beside: the file lies beside the folder, which is replaced as a whole; else it lies in it.

    Raises:
        UserError: at once, if another process holds it, naming that process and its host.
        OSError: for a place that cannot be written.
    """
    file = folder.with_name(f".{folder.name}.lock") if beside else folder / ".lock"
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor, key = open_locked(file, folder, say)
    HELD[key] = HELD.get(key, 0) + 1
    try:
        yield
    finally:
        HELD[key] -= 1
        if HELD[key] == 0:
            del HELD[key]
            file.unlink(missing_ok=True)  # before the lock is released: who waits for this file looks again
        os.close(descriptor)


def open_locked(file: Path, folder: Path, say: Say | None) -> tuple[int, tuple[int, int]]:
    """Opens the lock's file and takes the lock, unless this process has it; returns the descriptor and the file's key.

    Raises:
        UserError: if another process holds it.
    """
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            status = os.fstat(descriptor)
            key = (status.st_dev, status.st_ino)
            if key in HELD:
                return descriptor, key
            take(descriptor, folder, say)
            if is_same(file, key):
                return descriptor, key
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # its holder ended and removed it between our opening and our locking


def is_same(file: Path, key: tuple[int, int]) -> bool:
    """Whether a path still is the file that was opened."""
    try:
        status = os.stat(file)
    except FileNotFoundError:
        return False
    return (status.st_dev, status.st_ino) == key


def take(descriptor: int, folder: Path, say: Say | None) -> None:
    """Takes the lock without waiting, and writes who has it.

    Raises:
        UserError: if another process has it.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "which just began"
        raise UserError(
            f"{folder}: found another process at work there ({holder}), expected none; wait for its end or stop it, or "
            "choose another folder with --out"
        ) from None
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        if say is not None:
            say(f"{folder}: no locks on this file system ({error.strerror}); start one process at a time there")
        return
    now = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"pid {os.getpid()} on {socket.gethostname()}, since {now}\n".encode(), 0)
