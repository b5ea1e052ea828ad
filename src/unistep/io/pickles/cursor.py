"""A place in a pickle: every length is checked against what is left before it is believed; nothing is read ahead."""

import mmap

from unistep.io.pickles.values import Defect

Content = bytes | mmap.mmap


class Cursor:
    """Reads a stretch of bytes from its start to its end.

    Args:
        content: the bytes, in memory or mapped from a file.
        start: the first byte of the stretch.
        end: the byte after its last one; None = the end of the content.
    """

    def __init__(self, content: Content, start: int = 0, end: int | None = None) -> None:
        self.content, self.view = content, memoryview(content)
        self.at = start
        self.end = len(content) if end is None else end

    @property
    def left(self) -> int:
        """How many bytes are left."""
        return self.end - self.at

    def take(self, size: int) -> memoryview:
        """The next bytes, as a view.

        Raises:
            Defect: if fewer are left.
        """
        if size > self.left:
            raise Defect(f"cut off at byte {self.end}, or a length of {size} is wrong at byte {self.at}")
        self.at += size
        return self.view[self.at - size : self.at]

    def unsigned(self, width: int) -> int:
        """A little-endian whole number of so many bytes, not negative."""
        return int.from_bytes(self.take(width), "little")

    def signed(self, width: int) -> int:
        """A little-endian whole number in two's complement."""
        return int.from_bytes(self.take(width), "little", signed=True)

    def line(self) -> memoryview:
        """Up to the next newline, without it.

        Raises:
            Defect: if there is none.
        """
        end = self.content.find(b"\n", self.at, self.end)
        if end < 0:
            raise Defect(f"cut off at byte {self.end}: a line does not end")
        line = self.take(end - self.at)
        self.at += 1
        return line
