"""Hostile files: each asks for code, for memory or for time, or lies about what it holds."""

import io
import math
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from edm_writer import (
    ARGUMENTS,
    RECONSTRUCT,
    Named,
    Reduced,
    checkpoint,
    dumps,
    module_state,
    network,
    persistent,
    small_state,
)  # fmt: skip

FOREIGN = """
os.system posix.system nt.system os.execv os.popen subprocess.Popen subprocess.check_output pty.spawn
builtins.eval builtins.exec builtins.getattr builtins.setattr builtins.compile builtins.__import__ builtins.open
__builtin__.eval __builtin__.apply importlib.import_module operator.attrgetter operator.methodcaller functools.partial
types.FunctionType types.CodeType marshal.loads pickle.loads _pickle.loads dill.loads copyreg.add_extension
copyreg._reconstructor ctypes.CDLL runpy.run_path timeit.timeit code.interact pdb.run shutil.rmtree webbrowser.open
socket.create_connection logging.config.fileConfig torch.load torch.serialization.load torch.hub.load torch.jit.load
torch.utils.cpp_extension.load torch._utils._rebuild_device_tensor_from_numpy torch.storage._load_from_bytes2
numpy.load numpy.core.multiarray.fromfile numpy.f2py.compile torch_utils.persistence.persistent_class
torch_utils.persistence._src_to_module torch.nn.modules.module.Module dnnlib.util.open_url
""".split()
NESTED = (
    ("builtins", "getattr.__call__"),
    ("collections", "OrderedDict.__init__.__globals__"),
    ("torch_utils.persistence", "_reconstruct_persistent_obj.__globals__"),
    ("torch.storage", "_load_from_bytes.__globals__"),
    ("torch._utils", "torch.load"),
    ("numpy", "dtype.__reduce__"),
    ("numpy.core.multiarray", "_reconstruct.__self__"),
    ("torch.nn.modules.container", "ModuleDict.forward"),
    ("os\nsystem", "x"),
    ("\x1b[2J", "system"),
    ("o" * 5000, "system"),
)


FLOAT = Named("torch", "FloatStorage")


def tensor(storage: object, offset: object, size: object, stride: object) -> Reduced:
    args = (storage, offset, size, stride, False, OrderedDict())
    return Reduced(Named("torch._utils", "_rebuild_tensor_v2"), args)


def stored(payload: object) -> Reduced:
    return Reduced(Named("torch.storage", "_load_from_bytes"), (payload,))


def payload(
    count: object = 4, data: bytes = bytes(16), written: int | None = None, kind: Named = FLOAT,
    magic: int = 0x1950A86A20F9469CFC6C, version: int = 1001, little: object = True, view: object = None,
    keys: object = ("0",),
) -> bytes:  # fmt: skip
    """A storage as torch.save's old form has it, or with something wrong."""
    reference = dumps(("storage", kind, "0", "cpu", count, view), 2)[:-1] + pickle.BINPERSID + pickle.STOP
    parts = [dumps(part, 2) for part in (magic, version, {"protocol_version": version, "little_endian": little})]
    written = (count if isinstance(count, int) else 4) if written is None else written
    return b"".join([*parts, reference, dumps(list(keys), 2), struct.pack("<q", written), data])  # type: ignore[call-overload]


def with_tensor(value: object) -> bytes:
    """A checkpoint, one of whose parameters is `value`."""
    inner = persistent("SongUNet", **module_state({"weight": value}, {}, {}))
    state = module_state({}, {}, {"model": inner}, _init_args=(), _init_kwargs=ARGUMENTS)
    return dumps(checkpoint(persistent("EDMPrecond", **state)))


def with_payload(content: object) -> bytes:
    return with_tensor(tensor(stored(content), 0, (4,), (1,)))


def with_argument(value: object, name: str = "extra") -> bytes:
    """A checkpoint, one of whose constructor arguments is `value`."""
    return dumps(checkpoint(network(small_state(), {**ARGUMENTS, name: value})))


def with_ema(value: object) -> bytes:
    return dumps(checkpoint(value))


def laughs(make: Callable[[Any], object], levels: int = 60) -> object:
    """A value that contains itself twice, sixty times over: small in the file, endless when walked."""
    value: object = 0
    for _ in range(levels):
        value = make(value)
    return value


def modules(value: object) -> Reduced:
    return persistent("UNetBlock", **module_state({}, {}, value))  # type: ignore[arg-type]


def itself() -> Reduced:
    """A module that contains itself, by way of the memo."""
    children: dict[str, object] = {}
    own = persistent("EDMPrecond", **module_state({}, {}, {}, _init_kwargs=ARGUMENTS))
    own.args[0]["state"]["_modules"] = children  # type: ignore[index]
    children["model"] = Reduced(RECONSTRUCT, own.args)
    return own


def own_dictionary() -> dict[str, object]:
    value: dict[str, object] = {}
    value["again"] = value
    return value


def zip_bomb(size: int) -> bytes:
    """A zip archive as torch.save writes them, whose one record unpacks to many bytes."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("archive/data.pkl", dumps(("storage", "bomb"), 2))
        with archive.open("archive/data/0", "w") as record:
            for _ in range(size >> 24):
                record.write(bytes(1 << 24))
    return file.getvalue()


def calls(command: str) -> dict[str, bytes]:
    """Calls of foreign functions, at several places and in several spellings."""
    files = {}
    for where, put in (("top", dumps), ("ema", with_ema), ("argument", with_argument), ("tensor", with_tensor)):
        for name in FOREIGN if where == "top" else FOREIGN[:12]:
            files[f"call {name} as {where}"] = put(Reduced(Named(*name.rsplit(".", 1)), (command,)))
    for protocol in range(6):
        files[f"os.system, protocol {protocol}"] = dumps(Reduced(Named("os", "system"), (command,)), protocol)
    for module, name in NESTED:
        files[f"nested {ascii(module)[:30]} {name}"] = dumps(Reduced(Named(module, name), (command,)))
    hidden = dumps(Reduced(Named("os", "system"), (command,)), 2)
    files["a pickle in a storage"] = with_payload(hidden)
    files["a storage that names os.system"] = with_payload(payload(kind=Named("posix", "system")))
    files["a torch file in a storage"] = with_payload(saved_zip(hidden))
    return files


def saved_zip(hidden: bytes) -> bytes:
    file = io.BytesIO()
    torch.save({"x": torch.zeros(2)}, file)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("archive/data2.pkl", hidden)
    return file.getvalue()


def opcodes(command: str) -> dict[str, bytes]:
    """Opcodes that are never admitted, and admitted ones on values that they do not suit."""
    touch = command.encode()
    return {
        "INST": b"(S'" + touch + b"'\nios\nsystem\n.",
        "OBJ": b"(cos\nsystem\nS'" + touch + b"'\no.",
        "OBJ of an admitted name": b"(cnumpy\ndtype\nS'f4'\no.",
        "NEWOBJ": b"\x80\x02cos\nsystem\nX" + struct.pack("<I", len(touch)) + touch + b"\x85\x81.",
        "NEWOBJ_EX": b"\x80\x04cnumpy\ndtype\n)}\x92.",
        "EXT1": b"\x80\x02\x82\x01.",
        "EXT2": b"\x80\x02\x83\x01\x00.",
        "EXT4": b"\x80\x02\x84\x01\x00\x00\x00.",
        "PERSID": b"P0\n.",
        "BINPERSID": b"K\x00Q.",
        "NEXT_BUFFER": b"\x80\x05\x97.",
        "READONLY_BUFFER": b"\x80\x05C\x00\x98.",
        "no such opcode": b"\x80\x04\xff.",
        "protocol 6": b"\x80\x06N.",
        "BUILD of a dictionary": b"}}U\x01aK\x01sb.",
        "BUILD of a name": b"cnumpy\ndtype\n}U\x08__init__K\x01sb.",
        "BUILD twice": b"cnumpy\ndtype\n)R}b}b.",
        "REDUCE of a text": b"U\x06system(U\x01xtR.",
        "REDUCE with a list": b"cnumpy\ndtype\n]R.",
        "REDUCE of a call": b"cnumpy\ndtype\n)R)R.",
        "APPEND to a tuple": b")K\x01a.",
        "SETITEM of a list": b"]K\x00K\x01s.",
        "ADDITEMS to a list": b"\x80\x04](K\x01\x90.",
        "names that are numbers": b"\x80\x04K\x01K\x02\x93.",
        "a name of bytes": b"\x80\x04U\x02osU\x06system\x93.",
        "a global in Latin-1": b"c\xe9\nsystem\n.",
        "a global without an end": b"cos",
        "a string without quotes": b"Sabc\n.",
        "a string with a broken escape": b"S'\\x'\n.",
        "an integer of 5000 digits": b"I" + b"9" * 5000 + b"\n.",
        "a float of letters": b"Fabc\n.",
        "a text that is no UTF-8": b"X\x01\x00\x00\x00\xff.",
        "nothing on the stack": b".",
        "no mark": b"t.",
        "no memo": b"h\x05.",
        "a key without a value": b"(K\x01d.",
        "no end": b"N",
    }


def greedy() -> dict[str, bytes]:
    """Small files that ask for much memory or time."""
    huge = struct.pack("<Q", 2**62)
    twice: dict[str, Callable[[Any], object]] = {
        "list": lambda v: [v, v], "tuple": lambda v: (v, v), "dict": lambda v: {"a": v, "b": v},
    }  # fmt: skip
    return {
        **{f"laughs of {kind} as an argument": with_argument(laughs(make)) for kind, make in twice.items()},
        **{f"laughs of {kind} as ema": with_ema(laughs(make)) for kind, make in twice.items()},
        "laughs of modules": with_ema(laughs(lambda v: modules({"a": v, "b": v} if v else {}), 30)),
        "a laugh as a key": dumps(laughs(lambda v: (v, v)))[:-1] + b"}\x94" + b"h\x00N" + b"s.",
        "a memo index of 32 bits": b"Nr" + b"\xff" * 4 + b".",
        "a memo index of 60 digits": b"Np" + b"9" * 60 + b"\n.",
        **{f"length of {code!r}": b"\x80\x05" + code + huge + b"." for code in (b"\x8e", b"\x8d", b"\x96")},
        "length of LONG4": b"\x80\x02\x8b\xff\xff\xff\x7f.",
        "negative length of LONG4": b"\x80\x02\x8b\xff\xff\xff\xff.",
        "length of BINBYTES": b"B\xff\xff\xff\xff.",
        "length of BINSTRING": b"T\xff\xff\xff\x7f.",
        "length of a frame": b"\x80\x04\x95" + huge + b"N.",
        "a zip bomb": with_payload(zip_bomb(2**26)),
        "a long storage header": with_payload(dumps("x" * 5000, 2)),
        "a module in itself": with_ema(itself()),
        "a dictionary in itself": with_argument(own_dictionary()),
        "deep modules": with_ema(laughs(lambda v: modules({"a": v} if v else {}), 40)),
        "deep arguments": with_argument(laughs(lambda v: [v], 100)),
        "many arguments": with_argument([0] * 20_000),
        "one storage, many tensors": many_tensors(),
        "same bytes, many storages": many_storages(),
        "a parameter of parameters": with_tensor(
            laughs(lambda v: Reduced(Named("torch._utils", "_rebuild_parameter"), (v, True, OrderedDict())), 100)
        ),
    }


def endless() -> dict[str, bytes]:
    """Long files of operations that make much out of little; each takes about a second."""
    collisions = b"".join(b"\x8a\x0a" + (k * (2**61 - 1)).to_bytes(10, "little") + b"N" for k in range(50_000))
    return {
        "a hashed tuple, deep": b"}" + b")" + b"\x85" * 450_000 + b"Ns.",
        "a hashed tuple, wide": b"}" + b"K\x01" + b"2\x86" * 200_000 + b"Ns.",
        "a deep tuple": b")" + b"\x85" * 450_000 + b".",
        "a deep list": b"]" * 200_000 + b"a" * 199_999 + b".",
        "deep marks": b"(" * 450_000 + b".",
        "deep calls": b"\x80\x02" + b"cnumpy\ndtype\n" * 60_000 + b")" + b"R\x85" * 60_000 + b".",
        "sets without end": b"\x80\x04" + b"\x8f" * 3_000_000 + b".",
        "calls without end": b"\x80\x04cnumpy\ndtype\nq\x00" + b"0h\x00)R\x94" * 500_000 + b".",
        "memo without end": b"\x80\x04N" + b"\x94" * 3_000_000 + b".",
        "doubling": b"(N" + b"2" * 3_000_000 + b"l.",
        "texts without end": (b"X" + struct.pack("<I", 4096) + b"a" * 4096) * 10_000 + b".",
        "keys that hash alike": b"}(" + collisions + b"u.",
        "a large zip bomb": with_payload(zip_bomb(2**30)),
    }


def many_tensors() -> bytes:
    shared = stored(payload(count=25_000, data=bytes(100_000)))
    weights = {f"w{i}": tensor(shared, 0, (25_000,), (1,)) for i in range(1000)}
    return with_ema(persistent("EDMPrecond", **module_state(weights, {}, {}, _init_kwargs=ARGUMENTS)))


def many_storages() -> bytes:
    content = payload(count=25_000, data=bytes(100_000))
    weights = {f"w{i}": tensor(stored(content), 0, (25_000,), (1,)) for i in range(1000)}
    return with_ema(persistent("EDMPrecond", **module_state(weights, {}, {}, _init_kwargs=ARGUMENTS)))


def liars() -> dict[str, bytes]:
    """Tensors, storages and arrays that are not what they say."""
    good = stored(payload())
    shapes: Mapping[str, tuple[object, object, object]] = {
        "size": (0, (5,), (1,)), "stride": (0, (2, 2), (4, 1)), "offset": (1, (4,), (1,)),
        "far offset": (2**62, (1,), (1,)), "huge stride": (0, (2,), (2**61,)),
        "negative offset": (-1, (1,), (1,)), "negative size": (0, (-4,), (1,)), "negative stride": (3, (4,), (-1,)),
        "repeated": (0, (1000, 1000), (0, 0)), "overflowing": (0, (2**40, 2**40), (1, 1)),
        "size of texts": (0, ("4",), (1,)), "size of truth": (0, (True,), (1,)), "size that is a list": (0, [4], (1,)),
        "lengths that differ": (0, (2, 2), (1,)), "a hundred dimensions": (0, (1,) * 100, (1,) * 100),
        "no offset": (None, (4,), (1,)), "an offset of 0.0": (0.0, (4,), (1,)),
    }  # fmt: skip
    storages: Mapping[str, object] = {
        "claims more": payload(count=5), "claims less": payload(count=3), "claims a negative count": payload(count=-4),
        "claims a huge count": payload(count=2**62), "claims a count of 4.0": payload(count=4.0, written=4),
        "writes another count": payload(written=5), "is cut off": payload()[:-1], "has no count": payload()[:-20],
        "has more": payload() + b"x", "is big-endian": payload(little=False), "has no order": payload(little=None),
        "has another magic": payload(magic=1), "has another version": payload(version=1002),
        "is a view": payload(view=("0", 0, 4)), "has an unknown type": payload(kind=Named("torch", "BoolStorage")),
        "is untyped": payload(kind=Named("torch.storage", "UntypedStorage")), "is empty": b"", "is a number": 7,
        "is text": "torch", "is garbage": bytes(range(256)), "is a tar": b"storages" + bytes(600),
    }  # fmt: skip
    return {
        **{f"tensor: {what}": with_tensor(tensor(good, *place)) for what, place in shapes.items()},
        **{f"storage {what}": with_payload(content) for what, content in storages.items()},
        "tensor: of an array": with_tensor(tensor(np.zeros(4), 0, (4,), (1,))),
        "tensor: too few arguments": with_tensor(Reduced(Named("torch._utils", "_rebuild_tensor_v2"), (good,))),
        "tensor: an array": with_tensor(np.zeros(4)),
        "tensor: a number": with_tensor(7),
        "tensor: a module": with_tensor(modules({})),
        **{f"array: {what}": with_argument(value) for what, value in arrays().items()},
    }


def arrays() -> dict[str, object]:
    reconstruct, scalar = (Named("numpy.core.multiarray", name) for name in ("_reconstruct", "scalar"))
    array, kind = Named("numpy", "ndarray"), Named("numpy", "dtype")

    def dtype(name: object, order: str = "<") -> Reduced:
        return Reduced(kind, (name, False, True), (3, order, None, None, None, -1, -1, 0))

    def made(shape: object, dtype: object, content: object, fortran: bool = False) -> Reduced:
        return Reduced(reconstruct, (array, (0,), b"b"), (1, shape, dtype, fortran, content))

    return {
        "of objects": made((1,), dtype("O8", "|"), [Named("numpy", "dtype")]),
        "of object bytes": made((1,), dtype("O8", "|"), bytes(8)),
        "of records": made((1,), dtype([("a", "f4")]), bytes(4)),
        "in big-endian": made((1,), dtype("f4", ">"), bytes(4)),
        "without a state": Reduced(reconstruct, (array, (0,), b"b")),
        "with a large shape": made((2**40,), dtype("f4"), bytes(4)),
        "with an overflowing shape": made((2**40, 2**40), dtype("f4"), bytes(4)),
        "with a negative shape": made((-1,), dtype("f4"), bytes(4)),
        "in Fortran's order": made((1,), dtype("f4"), bytes(4), fortran=True),
        "with a text": made((1,), dtype("f4"), "abcd"),
        "of half a number": made((1,), dtype("f4"), bytes(3)),
        "scalar of objects": Reduced(scalar, (dtype("O8", "|"), [1])),
        "scalar of two": Reduced(scalar, (dtype("f4"), bytes(8))),
        "scalar of nothing": Reduced(scalar, ()),
        "from another codec": made((1,), dtype("f4"), Reduced(Named("_codecs", "encode"), ("aaaa", "zlib"))),
    }


def records() -> dict[str, bytes]:
    """Checkpoints whose records do not make a network."""
    state = small_state()
    whole, older = (dumps(checkpoint(network(state)), protocol) for protocol in (4, 2))
    odd_names = ("a.b", "", "a\nb", "\x1b[2J", "caf\xe9", "x" * 300)
    values = {"label_dim": (-1, 2**40, True, "4", 1.5, math.nan), "img_resolution": (0, None), "img_channels": ("3",)}
    return {
        "nothing": b"",
        "a web page": b"<!DOCTYPE html><html></html>",
        "gzip": b"\x1f\x8b\x08" + bytes(50),
        "zip": zip_bomb(2**24),
        "noise": bytes(range(256)) * 40,
        **{f"cut off at {k}": whole[: len(whole) * k // 50] for k in range(1, 50)},
        **{f"cut off at {k}, protocol 2": older[: len(older) * k // 20] for k in range(1, 20)},
        "a list": dumps([1]),
        "no ema": dumps({"loss_fn": None}),
        "ema is a list": with_ema([1]),
        "ema is a dictionary": with_ema({"state": {}}),
        "a function as a record": with_ema(persistent("EDMPrecond", **{"_modules": Named("numpy", "dtype")})),
        "a record without its form": with_ema(Reduced(RECONSTRUCT, ())),
        "no tensors": with_ema(persistent("EDMPrecond", **module_state({}, {}, {}, _init_kwargs=ARGUMENTS))),
        "positional arguments": with_ema(persistent("EDMPrecond", **module_state({}, {}, {}, _init_args=(32, 3)))),
        "unknown network": dumps(checkpoint(network(state, network_class="os.system"))),
        "unknown preconditioning": dumps(checkpoint(network(state, class_name="Popen"))),
        "a function as an argument": with_argument(Named("numpy", "dtype")),
        "a module as an argument": with_argument(modules({})),
        **{f"a tensor called {ascii(n)[:20]}": with_ema(named_tensor(n)) for n in odd_names},
        **{f"{name} {value}": with_argument(value, name) for name, tried in values.items() for value in tried},
    }  # fmt: skip


def named_tensor(name: str) -> Reduced:
    weights = {name: tensor(stored(payload()), 0, (4,), (1,))}
    return persistent("EDMPrecond", **module_state(weights, {}, {}, _init_kwargs=ARGUMENTS))


def hostile_files(command: str) -> dict[str, dict[str, bytes]]:
    """Groups of files by what they try; `command` is what they would have a shell run."""
    return {
        "calls": calls(command),
        "opcodes": opcodes(command),
        "greedy": greedy(),
        "liars": liars(),
        "records": records(),
    }
