"""The opcodes of pickle protocols 0 to 5, by what they do to the machine; one that is not here is refused by name."""

import codecs
import pickle
import struct
from collections.abc import Callable

from unistep.io.pickles.machine import Machine
from unistep.io.pickles.values import Defect, PersistentId

Action = Callable[[Machine], object]  # what it returns does not matter


def constants() -> dict[bytes, Action]:
    """Values that are in the opcode itself."""
    return {
        pickle.NONE: lambda m: m.push(None),
        pickle.NEWTRUE: lambda m: m.push(True),
        pickle.NEWFALSE: lambda m: m.push(False),
        pickle.EMPTY_LIST: lambda m: m.push([]),
        pickle.EMPTY_TUPLE: lambda m: m.push(()),
        pickle.EMPTY_DICT: lambda m: m.push({}),
        pickle.EMPTY_SET: lambda m: m.push(set()),
    }


def numbers() -> dict[bytes, Action]:
    """Whole numbers and floats, binary and as text."""
    return {
        pickle.BININT: lambda m: m.push(m.cursor.signed(4)),
        pickle.BININT1: lambda m: m.push(m.cursor.unsigned(1)),
        pickle.BININT2: lambda m: m.push(m.cursor.unsigned(2)),
        pickle.LONG1: lambda m: m.push(long(m, m.cursor.unsigned(1))),
        pickle.LONG4: lambda m: m.push(long(m, m.cursor.signed(4))),
        pickle.INT: lambda m: m.push({b"00": False, b"01": True}.get(line := word(m), int(line))),
        pickle.LONG: lambda m: m.push(int(word(m).removesuffix(b"L"))),
        pickle.BINFLOAT: lambda m: m.push(struct.unpack(">d", m.cursor.take(8))[0]),
        pickle.FLOAT: lambda m: m.push(float(word(m))),
    }


def strings() -> dict[bytes, Action]:
    """Texts and bytes; Python 2's strings are bytes."""
    return {
        pickle.UNICODE: lambda m: m.push(m.text(m.cursor.line(), "raw-unicode-escape")),
        pickle.SHORT_BINUNICODE: lambda m: m.push(m.text(counted(m, 1), "utf-8")),
        pickle.BINUNICODE: lambda m: m.push(m.text(counted(m, 4), "utf-8")),
        pickle.BINUNICODE8: lambda m: m.push(m.text(counted(m, 8), "utf-8")),
        pickle.STRING: lambda m: m.push(quoted(bytes(m.cursor.line()))),
        pickle.SHORT_BINSTRING: lambda m: m.push(m.raw(counted(m, 1))),
        pickle.BINSTRING: lambda m: m.push(m.raw(counted(m, 4))),
        pickle.SHORT_BINBYTES: lambda m: m.push(m.raw(counted(m, 1))),
        pickle.BINBYTES: lambda m: m.push(m.raw(counted(m, 4))),
        pickle.BINBYTES8: lambda m: m.push(m.raw(counted(m, 8))),
        pickle.BYTEARRAY8: lambda m: m.push(m.raw(counted(m, 8))),
    }


def containers() -> dict[bytes, Action]:
    """Tuples, lists, dictionaries and sets."""
    return {
        pickle.MARK: Machine.mark,
        pickle.TUPLE: lambda m: m.push(tuple(m.pop_mark())),
        pickle.TUPLE1: lambda m: m.push(last(m, 1)),
        pickle.TUPLE2: lambda m: m.push(last(m, 2)),
        pickle.TUPLE3: lambda m: m.push(last(m, 3)),
        pickle.LIST: lambda m: m.push(m.pop_mark()),
        pickle.DICT: lambda m: m.push(m.dictionary(m.pop_mark())),
        pickle.FROZENSET: lambda m: m.push(frozenset(m.keys(m.pop_mark()))),
        pickle.APPEND: lambda m: m.extend([m.pop()]),
        pickle.APPENDS: lambda m: m.extend(m.pop_mark()),
        pickle.SETITEM: lambda m: m.fill(list(last(m, 2))),
        pickle.SETITEMS: lambda m: m.fill(m.pop_mark()),
        pickle.ADDITEMS: add_items,
    }


def bookkeeping() -> dict[bytes, Action]:
    """The memo, the stack itself, framing and the end."""
    return {
        pickle.PUT: lambda m: m.remember(int(word(m))),
        pickle.BINPUT: lambda m: m.remember(m.cursor.unsigned(1)),
        pickle.LONG_BINPUT: lambda m: m.remember(m.cursor.unsigned(4)),
        pickle.MEMOIZE: lambda m: m.remember(len(m.memo)),
        pickle.GET: lambda m: m.recall(int(word(m))),
        pickle.BINGET: lambda m: m.recall(m.cursor.unsigned(1)),
        pickle.LONG_BINGET: lambda m: m.recall(m.cursor.unsigned(4)),
        pickle.DUP: lambda m: m.push(m.top()),
        pickle.POP: lambda m: m.pop() if m.stack else m.pop_mark(),
        pickle.POP_MARK: Machine.pop_mark,
        pickle.PROTO: protocol,
        pickle.FRAME: frame,
        pickle.STOP: stop,
    }


def calls() -> dict[bytes, Action]:
    """What Python's own reader would look up and call: here it is written down."""
    return {
        pickle.GLOBAL: lambda m: m.push(m.name(name_line(m), name_line(m))),
        pickle.STACK_GLOBAL: lambda m: m.push(m.name(*last(m, 2))),
        pickle.REDUCE: Machine.call,
        pickle.NEWOBJ: Machine.call,
        pickle.BUILD: Machine.build,
        pickle.BINPERSID: persistent_id,
    }


def word(machine: Machine) -> bytes:
    """A line that holds a number."""
    return bytes(machine.number(machine.cursor.line()))


def name_line(machine: Machine) -> object:
    """A line that holds half a name."""
    return machine.text(machine.cursor.line(), "utf-8")


def counted(machine: Machine, width: int) -> memoryview:
    """Bytes behind their number."""
    return machine.cursor.take(machine.cursor.unsigned(width))


def long(machine: Machine, size: int) -> int:
    """A whole number of so many bytes."""
    if size < 0:
        raise Defect(f"a whole number of {size} bytes")
    return int.from_bytes(machine.number(machine.cursor.take(size)), "little", signed=True)


def quoted(line: bytes) -> bytes:
    """A quoted string with Python 2's escapes."""
    if len(line) < 2 or line[0] != line[-1] or line[:1] not in (b"'", b'"'):
        raise Defect("a string without its quotes")
    return codecs.escape_decode(line[1:-1])[0]  # type: ignore[attr-defined]  # known to pickle, not to the stubs


def last(machine: Machine, count: int) -> tuple[object, ...]:
    """The last values, taken from the stack."""
    return tuple([machine.pop() for _ in range(count)][::-1])


def add_items(machine: Machine) -> None:
    """Adds values to the set below the mark."""
    values = machine.keys(machine.pop_mark())
    owner = machine.top()
    if type(owner) is not set:
        raise Defect("adds items to something that is no set")
    owner.update(values)


def protocol(machine: Machine) -> None:
    """The protocol's number, 5 being the last one."""
    if (number := machine.cursor.unsigned(1)) > 5:
        raise Defect(f"found protocol {number}, expected at most 5")


def frame(machine: Machine) -> None:
    """A frame says how many bytes follow; nothing is read ahead, so it only has to be possible."""
    if (size := machine.cursor.unsigned(8)) > machine.cursor.left:
        raise Defect(f"a frame of {size} bytes where {machine.cursor.left} are left")


def stop(machine: Machine) -> None:
    """The end."""
    machine.stopped = True


def persistent_id(machine: Machine) -> None:
    """A reference to something outside; only a storage's own pickle has one."""
    if not machine.persistent:
        machine.refuse("a persistent id")
    machine.push(PersistentId(machine.pop()))


GROUPS = (constants(), numbers(), strings(), containers(), bookkeeping(), calls())
ACTIONS = {code[0]: action for group in GROUPS for code, action in group.items()}
