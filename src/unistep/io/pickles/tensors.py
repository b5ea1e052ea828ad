"""PyTorch tensors, from the calls by which a pickle would make them; storages are opened without torch.load."""

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from unistep.io.pickles.arrays import bytes_of, sizes
from unistep.io.pickles.cursor import Cursor
from unistep.io.pickles.machine import Machine, Refused
from unistep.io.pickles.read import run
from unistep.io.pickles.values import Call, Defect, Name, PersistentId, kind_of, shown

REBUILD = ("_rebuild_tensor", "_rebuild_tensor_v2")
TENSORS = frozenset(
    {
        ("torch.storage", "_load_from_bytes"),
        ("torch._utils", "_rebuild_parameter"),
        *(("torch._utils", name) for name in REBUILD),
    }
)
MAGIC, FORMAT = 0x1950A86A20F9469CFC6C, 1001  # with which torch.save begins a file of its old kind
DTYPES = {
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "ByteStorage": torch.uint8,
    "CharStorage": torch.int8,
    "ShortStorage": torch.int16,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
}
STORAGES = frozenset(("torch", name) for name in DTYPES)
LONGEST_HEADER = 4096  # bytes of a storage before its numbers; about 300 in an honest one
HEADER_OPERATIONS = 200  # of each of its five small pickles


@dataclass
class Tensors:
    """Opens tensors, each with memory of its own, within a budget.

    Attributes:
        budget: bytes that all storages together may have, and all tensors together; the size of the file is enough for
            an honest one.
        opened: the storages so far, with the call that each came from (kept, so that its id stays its own).
        whole: ids of the calls whose storage was given away as it is.
    """

    budget: int
    storage_bytes: int = 0
    tensor_bytes: int = 0
    opened: dict[int, tuple[Call, Tensor]] = field(default_factory=dict)
    whole: set[int] = field(default_factory=set)

    def tensor(self, value: object) -> Tensor:
        """The tensor behind a call, on the CPU, contiguous, without gradients.

        Raises:
            Defect: for anything else, or a tensor that does not lie inside its storage.
        """
        match value:
            case Call(name=("torch._utils", "_rebuild_parameter"), args=(Call() as inner, *_)):
                return self.rebuilt(inner)
            case Call():
                return self.rebuilt(value)
        raise Defect(f"found {kind_of(value)} where a tensor was expected")

    def rebuilt(self, call: Call) -> Tensor:
        """The tensor of a `_rebuild_tensor` call."""
        match call:
            case Call(name=("torch._utils", name), args=(Call() as storage, offset, tuple(size), tuple(stride), *_)):
                if name in REBUILD:
                    return self.own(storage, offset, sizes(size, "a size"), sizes(stride, "a stride"))
        raise Defect(f"found {kind_of(call)} where a tensor was expected")

    def own(self, call: Call, offset: object, size: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
        """The part of a storage that a tensor is: the storage itself if it is all of it, else a copy."""
        storage = self.storage(call)
        view = placed(storage, offset, size, stride)
        self.tensor_bytes += view.numel() * view.itemsize
        require(self.tensor_bytes <= self.budget, "its tensors need more bytes than the file has")
        if view.is_contiguous() and len(view.flatten()) == len(storage) and id(call) not in self.whole:
            self.whole.add(id(call))
            return view
        return view.clone(memory_format=torch.contiguous_format)

    def storage(self, call: Call) -> Tensor:
        """The numbers of a storage, [n]."""
        if id(call) not in self.opened:
            self.opened[id(call)] = (call, self.fresh(call))
        return self.opened[id(call)][1]

    def fresh(self, call: Call) -> Tensor:
        """A storage, copied out of the file."""
        match call:
            case Call(name=("torch.storage", "_load_from_bytes"), args=(content,)):
                dtype, raw = stored_numbers(bytes_of(content))
                self.storage_bytes += len(raw)
                require(self.storage_bytes <= self.budget, "its storages need more bytes than the file has")
                copied = torch.empty(len(raw), dtype=torch.uint8)
                copied.numpy()[:] = np.frombuffer(raw, np.uint8)
                return copied.view(dtype)
        raise Defect(f"found {kind_of(call)} where a storage was expected")


def placed(storage: Tensor, offset: object, size: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    """The view of a storage that an offset, a size and a stride describe.

    Raises:
        Defect: if it reaches outside the storage or has more elements than it.
    """
    if type(offset) is not int or offset < 0 or len(size) != len(stride):
        raise Defect("a tensor whose offset, size and stride do not fit together")
    elements = math.prod(size)
    end = offset + (1 + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) if elements else 0)
    require(
        max(end, elements) <= len(storage),
        f"a tensor of {elements} elements that ends at {end} in a storage of {len(storage)}",
    )
    return storage.as_strided(size, stride, offset)


def stored_numbers(content: bytes | memoryview) -> tuple[torch.dtype, memoryview]:
    """What `torch.save` wrote for one storage in its old form: five small pickles, a count, the numbers.

    Raises:
        Defect: for anything else, a zip archive above all.
    """
    require(bytes(content[:2]) != b"PK", "a storage that is a zip archive, expected torch.save's old form")
    cursor = Cursor(bytes(content[:LONGEST_HEADER]))
    magic, version, system, reference, _ = (header(cursor) for _ in range(5))
    require(magic == MAGIC and version == FORMAT, "a storage that does not begin as torch.save's old form does")
    little = isinstance(system, dict) and system.get("little_endian") is True
    require(little, "a storage that is not in little-endian byte order")
    dtype, claimed = described(reference)
    count, raw = content[cursor.at : cursor.at + 8], memoryview(content)[cursor.at + 8 :]
    whole = len(count) == 8 and int.from_bytes(count, "little") == claimed and len(raw) == claimed * dtype.itemsize
    require(whole, f"a storage that claims {shown(str(claimed))} numbers of {dtype} in {len(raw)} bytes")
    return dtype, raw


def header(cursor: Cursor) -> object:
    """The next of a storage's small pickles.

    Raises:
        Defect: if it names anything but a kind of storage.
    """
    try:
        return run(Machine(cursor, STORAGES, HEADER_OPERATIONS, persistent=True))
    except Refused as refused:
        raise Defect(f"a storage that asks for {refused}; it was refused and nothing in it was run") from None


def described(reference: object) -> tuple[torch.dtype, int]:
    """Type and count of the numbers, from the storage's persistent id; where they once lay (cuda:0) does not matter.

    Raises:
        Defect: for anything else, or a storage that is a part of another.
    """
    match reference:
        case PersistentId(value=("storage", Name(name=kind), str(), str(), int(count), None)) if count >= 0:
            return DTYPES[kind], count
    raise Defect("a storage that is not described as torch.save does it")


def require(holds: bool, what: str) -> None:
    """Ends the reading with what is wrong unless a condition holds."""
    if not holds:
        raise Defect(what)
