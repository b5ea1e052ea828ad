"""The stack, the memo and the budgets of a pickle that is being read."""

from typing import NoReturn

from unistep.io.pickles.cursor import Cursor
from unistep.io.pickles.values import Call, Defect, LongText, Name, kind_of, shown

SHORT = 4096  # longer texts and bytes stay where they are in the file
MOST_OPERATIONS = 500_000  # the EDM checkpoint for CIFAR-10 has about 30,000
MOST_TEXT = 2**25  # bytes of short texts that are decoded
LONGEST_NUMBER = 256  # bytes of a whole number


class Refused(Exception):
    """A name that is not admitted."""


class Machine:
    """What opcodes work on.

    Memory is bounded whatever the bytes say: each of at most `MOST_OPERATIONS` opcodes makes at most one object of a
    few hundred bytes; short texts and bytes together are at most `MOST_TEXT`; everything longer stays a view.

    Args:
        cursor: where the pickle starts.
        admitted: (module, name) of what the pickle may name.
        operations: how many opcodes it may have.
        persistent: whether persistent ids may occur.
    """

    def __init__(
        self, cursor: Cursor, admitted: frozenset[tuple[str, str]], operations: int = MOST_OPERATIONS,
        persistent: bool = False,
    ) -> None:  # fmt: skip
        self.cursor, self.admitted, self.operations, self.persistent = cursor, admitted, operations, persistent
        self.text_left = MOST_TEXT
        self.stack: list[object] = []
        self.marked: list[list[object]] = []  # the stacks below each open mark
        self.memo: dict[int, object] = {}
        self.stopped = False

    def push(self, value: object) -> None:
        """Puts a value on the stack."""
        self.stack.append(value)

    def pop(self) -> object:
        """Takes the top value.

        Raises:
            Defect: if there is none.
        """
        if not self.stack:
            raise Defect(f"takes a value that is not there, before byte {self.cursor.at}")
        return self.stack.pop()

    def top(self) -> object:
        """The top value, which stays.

        Raises:
            Defect: if there is none.
        """
        if not self.stack:
            raise Defect(f"looks at a value that is not there, before byte {self.cursor.at}")
        return self.stack[-1]

    def mark(self) -> None:
        """Starts a new stack on top of the present one."""
        self.marked.append(self.stack)
        self.stack = []

    def pop_mark(self) -> list[object]:
        """All values since the last mark.

        Raises:
            Defect: if there was none.
        """
        if not self.marked:
            raise Defect(f"takes a mark that is not there, before byte {self.cursor.at}")
        values, self.stack = self.stack, self.marked.pop()
        return values

    def remember(self, key: int) -> None:
        """Keeps the top value in the memo, a dictionary: a large key costs no more than a small one.

        Raises:
            Defect: for a key of more than 32 bits.
        """
        if not 0 <= key < 2**32:
            raise Defect("a memo key of more than 32 bits")
        self.memo[key] = self.top()

    def recall(self, key: int) -> None:
        """Pushes what the memo holds.

        Raises:
            Defect: for a key that it does not hold.
        """
        if key not in self.memo:
            raise Defect(f"recalls entry {shown(str(key))} that was never kept")
        self.push(self.memo[key])

    def spend(self, size: int) -> None:
        """Counts bytes of decoded text.

        Raises:
            Defect: if there are too many of them.
        """
        self.text_left -= size
        if self.text_left < 0:
            raise Defect(f"more than {MOST_TEXT} bytes of text")

    def text(self, raw: memoryview, codec: str) -> str | LongText:
        """Text, decoded unless it is long."""
        if len(raw) > SHORT:
            return LongText(raw, codec)
        self.spend(len(raw))
        return str(raw, codec, "surrogatepass")

    def raw(self, raw: memoryview) -> bytes | memoryview:
        """Bytes, copied unless they are long."""
        if len(raw) > SHORT:
            return raw
        self.spend(len(raw))
        return bytes(raw)

    def number(self, raw: memoryview) -> memoryview:
        """The bytes of a whole number.

        Raises:
            Defect: if there are too many of them.
        """
        if len(raw) > LONGEST_NUMBER:
            raise Defect(f"a whole number of {len(raw)} bytes")
        return raw

    def name(self, module: object, name: object) -> Name:
        """An admitted name.

        Raises:
            Refused: if it is not admitted.
            Defect: if it is no text.
        """
        if type(module) is not str or type(name) is not str:
            raise Defect(f"names {kind_of(module)} and {kind_of(name)}, expected two texts")
        if (module, name) not in self.admitted:
            raise Refused(f"{shown(module)}.{shown(name)}")
        return Name(module, name)

    def call(self) -> None:
        """Replaces a name and its arguments by the call, which is not made.

        Raises:
            Defect: if something else than an admitted name is called.
        """
        args, name = self.pop(), self.pop()
        if type(name) is not Name or type(args) is not tuple:
            raise Defect(f"calls {kind_of(name)} with {kind_of(args)}, expected an admitted name and a tuple")
        self.push(Call(name, args))

    def build(self) -> None:
        """Keeps the state of a new object beside it; nothing else has a state.

        Raises:
            Defect: for the state of something else, or a second one.
        """
        state, owner = self.pop(), self.top()
        if type(owner) is not Call or owner.state is not None:
            raise Defect(f"sets the state of {kind_of(owner)}, expected a new object without one")
        owner.state = state

    def extend(self, values: list[object]) -> None:
        """Appends to the list on top."""
        owner = self.top()
        if type(owner) is not list:
            raise Defect(f"appends to {kind_of(owner)}, expected a list")
        owner.extend(values)

    def fill(self, pairs: list[object]) -> None:
        """Sets items of the dictionary (or the new object) on top."""
        owner = self.top()
        items = owner.items if type(owner) is Call else owner
        if type(items) is not dict:
            raise Defect(f"sets items of {kind_of(owner)}, expected a dictionary")
        items.update(self.dictionary(pairs))

    def dictionary(self, pairs: list[object]) -> dict[object, object]:
        """Alternating keys and values as a dictionary."""
        if len(pairs) % 2:
            raise Defect("a key without a value")
        return dict(zip(self.keys(pairs[::2]), pairs[1::2], strict=True))

    def keys(self, values: list[object]) -> list[object]:
        """Values that may be keys. Hashing anything nested could take for ever, and large numbers hash alike.

        Raises:
            Defect: for anything but texts, bytes, None and whole numbers of 60 bits.
        """
        for value in values:
            small = type(value) is int and abs(value) < 2**60
            if not small and type(value) not in (str, bytes, bool, type(None)):
                raise Defect(f"a key that is {kind_of(value)}, expected a text, bytes or a small whole number")
        return values

    def refuse(self, what: str) -> NoReturn:
        """Ends the reading at something that is never admitted."""
        raise Refused(what)
