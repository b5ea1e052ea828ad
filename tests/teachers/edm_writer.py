"""A writer of EDM's record layout: it names the classes of an EDM checkpoint without having any of them."""

import io
import pickle
import sys
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

SOURCE = "# Python source travels in each record as text\nraise SystemExit('this text was run')\n" * 200
ARGUMENTS = {
    "img_resolution": 16, "img_channels": 3, "label_dim": 4, "model_channels": 32, "channel_mult": [1, 2],
    "num_blocks": 1, "attn_resolutions": [8], "model_type": "SongUNet", "augment_dim": 9, "dropout": 0.13,
    "resample_filter": [1, 1],
}  # fmt: skip

ATTRIBUTES: dict[str, dict[str, Any]] = {  # what the constructor of each class leaves in the object
    "EDMPrecond": {"sigma_min": 0, "sigma_max": float("inf"), "sigma_data": np.float64(0.5)},
    "VPPrecond": {"beta_d": 19.9, "beta_min": 0.1, "M": 1000, "epsilon_t": 1e-5, "sigma_min": 0.0010005,
                  "sigma_max": 152.1669},
    "VEPrecond": {"sigma_min": 0.02, "sigma_max": 100},
    "iDDPMPrecond": {"C_1": 0.001, "C_2": 0.008, "M": 1000, "sigma_min": 0.0064254, "sigma_max": 20291.17},
    "Precond": {"sigma_data": 0.5, "use_fp16": True},
}  # fmt: skip


class Named(NamedTuple):
    """A global that is written by name."""

    module: str
    name: str


BUFFERS = ("resample_filter", "freqs", "phases")
RECONSTRUCT = Named("torch_utils.persistence", "_reconstruct_persistent_obj")
MODULE_DICT = Named("torch.nn.modules.container", "ModuleDict")


class Reduced:
    """Written as func(*args), with a state where one is given."""

    def __init__(self, func: object, args: tuple[object, ...], state: object = None, new: bool = False) -> None:
        self.func, self.args, self.state, self.new = func, args, state, new


class Writer(pickle._Pickler):  # type: ignore[attr-defined]  # the one in Python, whose parts can be replaced
    dispatch = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]

    def save_named(self, named: Named) -> None:
        if self.proto >= 4:
            self.save(named.module)
            self.save(named.name)
            self.write(pickle.STACK_GLOBAL)
        else:
            self.write(pickle.GLOBAL + f"{named.module}\n{named.name}\n".encode())
        self.memoize(named)

    def save_reduced(self, reduced: Reduced) -> None:
        self.save(reduced.func)
        self.save(reduced.args)
        self.write(pickle.NEWOBJ if reduced.new and self.proto >= 2 else pickle.REDUCE)
        self.memoize(reduced)
        if reduced.state is not None:
            self.save(reduced.state)
            self.write(pickle.BUILD)

    dispatch[Named] = save_named
    dispatch[Reduced] = save_reduced


def dumps(value: object, protocol: int = 4) -> bytes:
    """The pickle of a value; the writer calls itself for each level, some of which are deep on purpose."""
    file, usual = io.BytesIO(), sys.getrecursionlimit()
    sys.setrecursionlimit(5000)
    try:
        Writer(file, protocol).dump(value)
    finally:
        sys.setrecursionlimit(usual)
    return file.getvalue()


def persistent(class_name: str, **state: object) -> Reduced:
    """A persistent object with its source text."""
    meta = {"type": "class", "version": 6, "module_src": SOURCE, "class_name": class_name, "state": state}
    return Reduced(RECONSTRUCT, (meta,))


def module_state(parameters: dict, buffers: dict, modules: Mapping[str, object], **more: object) -> dict[str, object]:
    """The attributes that every torch module has, and more."""
    return {
        "training": False,
        "_parameters": OrderedDict(parameters),
        "_buffers": OrderedDict(buffers),
        "_non_persistent_buffers_set": set(),
        "_backward_hooks": OrderedDict(),
        "_modules": OrderedDict(modules),
        **more,
    }


def nested(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """{"a.b.weight": w} as {"a": {"b": {"weight": w}}}."""
    tree: dict[str, Any] = {}
    for name, value in state.items():
        *path, leaf = name.split(".")
        place = tree
        for part in path:
            place = place.setdefault(part, {})
        place[leaf] = value
    return tree


def module(name: str, tree: dict[str, Any], class_name: str | None = None, **more: object) -> Reduced:
    """A tree of tensors as a tree of records: ModuleDicts under `enc` and `dec`, persistent objects elsewhere."""
    tensors = {key: value for key, value in tree.items() if isinstance(value, Tensor)}
    buffers = {key: value for key, value in tensors.items() if key in BUFFERS}
    parameters = {key: torch.nn.Parameter(value) for key, value in tensors.items() if key not in buffers}
    modules = {key: module(key, value) for key, value in tree.items() if isinstance(value, dict)}
    parameters |= {} if parameters else {"bias": None}
    state = module_state(parameters, buffers, modules, **more)
    if name in ("enc", "dec"):
        return Reduced(MODULE_DICT, (), state, new=True)
    return persistent(class_name or ("Conv2d" if parameters else "UNetBlock"), **state)


def network(
    state: Mapping[str, Tensor], arguments: Mapping[str, Any] = ARGUMENTS, class_name: str = "EDMPrecond",
    network_class: str = "SongUNet", **more: object,
) -> Reduced:  # fmt: skip
    """`ema`: the preconditioning around one network."""
    tree = nested(state)
    buffers = {name: value for name, value in tree.items() if isinstance(value, Tensor)}
    (inside, inner), *others = ((name, value) for name, value in tree.items() if name not in buffers)
    init = {"_init_args": (), "_init_kwargs": dict(arguments)}
    modules = {inside: module(inside, inner, network_class, **init)} | {k: module(k, v) for k, v in others}
    numbers = {**ATTRIBUTES.get(class_name, ATTRIBUTES["EDMPrecond"]), **more}
    return persistent(class_name, **module_state({}, buffers, modules, **init, **numbers))


def checkpoint(ema: object) -> dict[str, object]:
    return {
        "ema": ema,
        "loss_fn": persistent("EDMLoss", P_mean=-1.2, P_std=1.2, sigma_data=0.5),
        "augment_pipe": persistent("AugmentPipe", p=0.12, xflip=1e8, noise=np.float32(0.5), table=np.arange(3.0)),
        "dataset_kwargs": {"path": "datasets/images.zip", "use_labels": True, "xflip": False},
    }


def small_state(dtype: torch.dtype = torch.float32, conditional: bool = True) -> dict[str, Tensor]:
    """Tensors with the names of a tiny SongUNet."""
    torch.manual_seed(0)
    shapes = {
        "model.map_label.weight": (8, 4),
        "model.map_layer0.weight": (8, 8),
        "model.map_layer0.bias": (8,),
        "model.enc.16x16_conv.weight": (8, 3, 3, 3),
        "model.enc.8x8_down.conv0.weight": (8, 8, 3, 3),
        "model.enc.8x8_down.conv0.resample_filter": (1, 1, 2, 2),
        "model.dec.16x16_aux_conv.weight": (3, 8, 3, 3),
        "model.gain": (),
    }
    return {name: torch.randn(shape).to(dtype) for name, shape in shapes.items() if conditional or "label" not in name}


def write_checkpoint(file: Path, state: Mapping[str, Tensor] | None = None, protocol: int = 4, **options: Any) -> Path:
    """A whole checkpoint file."""
    file.write_bytes(dumps(checkpoint(network(small_state() if state is None else state, **options)), protocol))
    return file
