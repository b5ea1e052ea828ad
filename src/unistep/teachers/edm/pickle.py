"""The network in an EDM checkpoint as plain data: classes, constructor arguments and tensors; nothing is run."""

import hashlib
import math
import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from unistep.errors import UserError
from unistep.io.pickles import Allowed, Call, Defect, Name, read_pickle
from unistep.io.pickles.arrays import NUMPY, array_of, scalar_of
from unistep.io.pickles.read import refusals
from unistep.io.pickles.tensors import TENSORS, Tensors
from unistep.io.pickles.values import as_mapping, kind_of, shown

PERSISTENT = ("torch_utils.persistence", "_reconstruct_persistent_obj")
MODULE_DICT = ("torch.nn.modules.container", "ModuleDict")
EXPECTED = Allowed(
    NUMPY | TENSORS | {PERSISTENT, MODULE_DICT, ("collections", "OrderedDict"), ("builtins", "set"),
                       ("__builtin__", "set")},
    "the tensors, arrays and persistent objects of an EDM checkpoint",
)  # fmt: skip
DEEPEST, MOST_VALUES = 32, 10_000  # modules inside modules; values of all constructor arguments
LONGEST_KEY = 200
INSIDE = ("model.", "unet.")  # where the preconditioning keeps its network, in EDM and in EDM2


@dataclass(frozen=True)
class EDMRecord:
    """What an EDM checkpoint says about its averaged network `ema`.

    Attributes:
        class_name: the preconditioning's class, EDMPrecond for example.
        network_class: the class of the network inside, SongUNet for example.
        arguments: keyword arguments of the constructor, as plain values.
        attributes: plain attributes of the object (numbers, texts, None), where defaults can be read off.
        state: parameters and buffers by name, as `state_dict()` would give them.
        file: the file's name.
        sha256: of the file.
    """

    class_name: str
    network_class: str
    arguments: dict[str, Any]
    attributes: dict[str, Any]
    state: dict[str, Tensor]
    file: str
    sha256: str


def read_edm_pickle(path: Path) -> EDMRecord:
    """Reads `ema` of a checkpoint such as edm-cifar10-32x32-cond-vp.pkl; EDM2 snapshots have the same form.

    Memory: the tensors take at most the size of the file, once more while one that is not contiguous is copied; the
    file itself is mapped. All else is at most 300 MB, whatever the file says (`pickles/machine.py`).

    Raises:
        UserError: for a missing file, one that is no such checkpoint, or one that asks for anything else than data.
    """
    if not path.is_file():
        raise UserError(f"{path}: not found; expected an EDM checkpoint (.pkl)")
    if not path.stat().st_size:
        raise UserError(f"{path}: empty; expected an EDM checkpoint (.pkl), fetch it again")
    with path.open("rb") as file:
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    checkpoint = read_pickle(content, str(path), EXPECTED)
    with refusals(str(path), EXPECTED.expected):
        ema = as_mapping(checkpoint, "the checkpoint").get("ema")
        modules = list(walk(ema))
        return EDMRecord(
            class_name=modules[0].class_name,
            network_class=next((m.class_name for m in modules if m.prefix in INSIDE), ""),
            arguments=constructor_arguments(modules[0].attributes),
            attributes=plain_attributes(modules[0].attributes),
            state=state_dict(modules, Tensors(budget=len(content))),
            file=path.name,
            sha256=hashlib.sha256(content).hexdigest(),
        )


@dataclass(frozen=True)
class Module:
    """One module of the network: where it is, what it is, and the attributes that the pickle gives it."""

    prefix: str
    class_name: str
    attributes: dict[str, object]

    def tensors(self) -> Iterator[tuple[str, object]]:
        """Full name and call of each parameter, then of each buffer that a state dict holds."""
        passing = self.attributes.get("_non_persistent_buffers_set")
        for kind in ("_parameters", "_buffers"):
            for name, value in named(self.attributes.get(kind, {}), f"{self.prefix}{kind}"):
                if value is not None and not (kind == "_buffers" and name in names_in(passing)):
                    yield f"{self.prefix}{name}", value


def state_dict(modules: list[Module], tensors: Tensors) -> dict[str, Tensor]:
    """All tensors by their full names.

    Raises:
        Defect: for two of one name, or none at all.
    """
    state: dict[str, Tensor] = {}
    for name, value in (entry for module in modules for entry in module.tensors()):
        if name in state:
            raise Defect(f"two tensors of the name {shown(name)}")
        state[name] = tensors.tensor(value)
    if not state:
        raise Defect("a network without tensors")
    return state


def walk(root: object) -> Iterator[Module]:
    """The module and all modules inside it, in the order of a state dict; each may occur once.

    Raises:
        Defect: for a module that is none, occurs twice or is too deep.
    """
    seen: set[int] = set()
    waiting = [("", root, 0)]
    while waiting:
        prefix, value, depth = waiting.pop()
        module = module_of(value, prefix)
        if id(value) in seen or depth > DEEPEST:
            raise Defect(f"module {shown(prefix)} occurs twice, or deeper than {DEEPEST} modules")
        seen.add(id(value))
        yield module
        children = named(module.attributes.get("_modules", {}), f"{prefix}_modules")
        inner = [(f"{prefix}{name}.", child, depth + 1) for name, child in children if child is not None]
        waiting.extend(reversed(inner))


def module_of(value: object, prefix: str) -> Module:
    """A persistent object or a ModuleDict.

    Raises:
        Defect: for anything else.
    """
    match value:
        case Call(name=name, args=(meta,)) if name == PERSISTENT:
            record = as_mapping(meta, "a persistent object")
            kind, state = record.get("class_name"), record.get("state")
            if record.get("type") == "class" and isinstance(kind, str):
                return Module(prefix, shown(kind), attributes_of(state, prefix))
        case Call(name=name, args=(), state=state) if name == MODULE_DICT:
            return Module(prefix, "", attributes_of(state, prefix))
    raise Defect(f"found {kind_of(value)} as {shown(prefix) or 'ema'}, expected a network")


def attributes_of(state: object, prefix: str) -> dict[str, object]:
    """The attributes of a module, by name."""
    mapping = as_mapping(state, f"the state of {shown(prefix) or 'ema'}")
    return {name: value for name, value in mapping.items() if isinstance(name, str)}


def named(value: object, what: str) -> list[tuple[str, object]]:
    """Entries of a module's dictionary; their names become parts of a tensor's name.

    Raises:
        Defect: for a name that no module can have.
    """
    entries = [(name, entry) for name, entry in as_mapping(value, what).items() if isinstance(name, str)]
    for name, _ in entries:
        if not name.isascii() or not name.isprintable() or "." in name or not 0 < len(name) <= LONGEST_KEY:
            raise Defect(f"the name {shown(name)!r} in {shown(what)}, expected a short one without dots")
    return entries


def names_in(value: object) -> frozenset[object] | set[object]:
    """A set of names, also in the form that old protocols give it."""
    match value:
        case set() | frozenset():
            return value
        case Call(name=(_, "set"), args=(list(names),)):
            return {name for name in names if isinstance(name, str)}
    return frozenset()


def constructor_arguments(attributes: dict[str, object]) -> dict[str, Any]:
    """`_init_kwargs` as plain values.

    Raises:
        Defect: if there are arguments without a name, or one that is not plain.
    """
    if attributes.get("_init_args", ()) not in ((), []):
        raise Defect("constructor arguments without names, expected `_init_kwargs` only")
    values = as_mapping(attributes.get("_init_kwargs"), "`_init_kwargs`")
    return dict(Plain().mapping(values, 0))


def plain_attributes(attributes: dict[str, object]) -> dict[str, Any]:
    """The attributes that are a number, a text, a truth value or nothing."""
    simple = (bool, int, float, str, type(None))
    own = {name: value for name, value in attributes.items() if name[:1] != "_"}
    made = {name: scalar_of(v) for name, v in own.items() if isinstance(v, Call) and v.name[1] == "scalar"}
    return {name: value for name, value in own.items() if isinstance(value, simple)} | made


class Plain:
    """Values that JSON knows, from values of a pickle; counted, because a small file can repeat itself without end."""

    def __init__(self) -> None:
        self.left = MOST_VALUES

    def value(self, value: object, depth: int) -> Any:
        """One value; tuples and arrays become lists.

        Raises:
            Defect: for anything that is not plain, and for too many or too deep values.
        """
        self.left -= 1
        if self.left < 0 or depth > DEEPEST:
            raise Defect(f"constructor arguments of more than {MOST_VALUES} values or deeper than {DEEPEST}")
        match value:
            case None | bool() | int() | float() | str():
                return value
            case list() | tuple() if not isinstance(value, Name):  # a name is a tuple of two words
                return [self.value(item, depth + 1) for item in value]
            case Call(name=(_, "scalar")):
                return scalar_of(value)
            case Call(name=(_, "_reconstruct" | "_frombuffer")) if (
                math.prod((array := array_of(value)).shape) <= self.left
            ):
                self.left -= array.size
                return array.tolist()
        return self.mapping(value, depth + 1)

    def mapping(self, value: object, depth: int) -> dict[str, Any]:
        """A dictionary whose keys are texts."""
        entries = as_mapping(value, "a constructor argument")
        return {str(key): self.value(entry, depth) for key, entry in entries.items()}
