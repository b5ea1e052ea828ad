"""EDM checkpoints as teachers: what the file says as our own configuration, and the teacher built from it."""

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unistep.errors import UserError
from unistep.io.pickles.values import shown
from unistep.networks.build import build_denoiser, known_levels
from unistep.networks.state_dict import load_strictly, require_same_tensors
from unistep.teachers.checkpoint import teacher_from_config, teacher_from_folder
from unistep.teachers.conditioners import LabelConditioner
from unistep.teachers.edm.pickle import EDMRecord, read_edm_pickle
from unistep.teachers.teacher import Teacher

NETWORKS = {"SongUNet": "song_unet", "DhariwalUNet": "dhariwal_unet", "UNet": "edm2_unet"}
PRECONDITIONINGS = {
    "EDMPrecond": "edm",
    "Precond": "edm",  # EDM2's
    "VPPrecond": "vp",
    "VEPrecond": "ve",
    "iDDPMPrecond": "iddpm",
}
OPTIONS = {
    "edm": (),
    "vp": ("beta_d", "beta_min", "M", "epsilon_t"),
    "ve": ("sigma_min", "sigma_max"),
    "iddpm": ("C_1", "C_2", "M"),
}
NOT_THE_NETWORKS = {"model_type", "use_fp16", "sigma_min", "sigma_max", "sigma_data", "logvar_channels"}.union(
    *OPTIONS.values()
)
TRAINING_ONLY = ("logvar_fourier.", "logvar_linear.")  # EDM2's head for the loss's uncertainty
LOWEST, HIGHEST = 0.002, 80.0  # the levels that EDM samples from (arXiv:2206.00364, Table 1)


def load_edm_teacher(path: Path) -> Teacher:
    """A frozen teacher from an EDM checkpoint file, or from the folder that `convert` made of one.

    Raises:
        UserError: if there is neither, for a hostile or damaged file, or weights that do not fit the network.
    """
    if path.is_dir():
        return teacher_from_folder(path)
    if not path.is_file():
        raise UserError(
            f"teacher.load: found no file {path}, expected a checkpoint of EDM or EDM2, or the folder that `unistep "
            "convert` made of one; get it from where EDM publishes it and name its place in teacher.load, edm:PATH"
        )
    record = read_edm_pickle(path)
    config, state = described(record), state_of(record)
    denoiser = build_denoiser(config)
    load_strictly(denoiser, state, path)
    return teacher_from_config(denoiser, config, source=str(path), sha256=record.sha256)


def described(record: EDMRecord) -> dict[str, Any]:
    """The configuration that a file describes, once a network of it has the shapes of the file's own tensors.

    Raises:
        UserError: as `config_of`, for sizes that make no network, or tensors of another one.
    """
    config = config_of(record)
    try:
        with torch.device("meta"):  # sizes are compared before memory is taken for them
            network = build_denoiser(config)
    except UserError as error:
        raise UserError(f"{record.file}: {error}") from error
    require_same_tensors(network, state_of(record), record.file)
    return config


def config_of(record: EDMRecord) -> dict[str, Any]:
    """What an EDM checkpoint says, as the configuration of a denoiser: a pure function.

    The network's dropout is set to 0: a teacher is frozen, and its copies are trained without. EDM2's head is left out,
    see `state_of`. Samples count as pixels, whatever their channels: for a network of latents there is no decoder here.

    Raises:
        UserError: for a class that is not known, an argument that is missing or no number, or noise levels that make no
            range.
    """
    network = known(record, NETWORKS, record.network_class, "network")
    kind = known(record, PRECONDITIONINGS, record.class_name, "preconditioning")
    size, channels, classes = (whole(record, name) for name in ("img_resolution", "img_channels", "label_dim"))
    arguments = {name: value for name, value in record.arguments.items() if name not in NOT_THE_NETWORKS}
    arguments |= {"dropout": 0.0} if "dropout" in arguments else {}
    arguments |= {"out_channels": 2 * channels} if kind == "iddpm" else {}  # it predicts variances too
    preconditioning = {"type": kind, **options(record, kind)}
    return {
        "network": {"type": network, **arguments},
        "preconditioning": preconditioning,
        "process": {"type": "edm", **levels(record, preconditioning), "rho": 7.0, "num_bins": 1000},
        **({"sigma_data": sigma_data(record)} if kind == "edm" else {}),
        "shape": [channels, size, size],
        "conditioner": LabelConditioner(classes).config() if classes else None,
        "codec": {"type": "pixels"},
        "source": {
            "file": record.file,
            "sha256": record.sha256,
            "class": f"{record.class_name}({record.network_class})",
            "arguments": {name: spelled(value) for name, value in record.arguments.items()},
        },
    }


def state_of(record: EDMRecord) -> dict[str, Tensor]:
    """The tensors of the denoiser that `config_of` describes, as they are in the file.

    EDM2's head for the loss's uncertainty, which only its training uses, is left out: no image depends on it, so in a
    teacher's trainable copies its parameters would never have a gradient.
    """
    left_out = TRAINING_ONLY if record.class_name == "Precond" else ()
    return {name: value for name, value in record.state.items() if not name.startswith(left_out)}


def known(record: EDMRecord, names: dict[str, str], found: str, what: str) -> str:
    """Our own name of a published class."""
    if found not in names:
        raise UserError(f"{record.file}: found {what} {found or 'nothing'}, expected one of {', '.join(names)}")
    return names[found]


def plain(record: EDMRecord, name: str) -> float | None:
    """A constructor argument that is a number; where it was left out, what the object made of its default."""
    value = record.arguments.get(name, record.attributes.get(name))
    if value is None or (type(value) is int and abs(value) < 2**63):
        return value
    if isinstance(value, float) and not math.isnan(value):
        return value
    raise UserError(f"{record.file}: {name}: found {shown(repr(value))}, expected a number; fetch the file again")


def options(record: EDMRecord, kind: str) -> dict[str, float]:
    """What the file says of its preconditioning; what it leaves open is our own default."""
    found = {name: value for name in OPTIONS[kind] if (value := plain(record, name)) is not None}
    for name, value in found.items():
        if not math.isfinite(value):
            raise UserError(f"{record.file}: {name}: found {value}, expected a finite number; fetch the file again")
    return found


def sigma_data(record: EDMRecord) -> float:
    """The data's standard deviation, 0.5 in a file that does not say."""
    value = plain(record, "sigma_data")
    if value is not None and not 0 < value < math.inf:
        raise UserError(f"{record.file}: sigma_data: found {value}, expected a positive number; fetch the file again")
    return 0.5 if value is None else float(value)


def whole(record: EDMRecord, name: str) -> int:
    """A size; `label_dim` may be 0 or missing, the others may not."""
    value, least = plain(record, name), 0 if name == "label_dim" else 1
    value = 0 if value is None else value
    if not isinstance(value, int) or not least <= value < 2**20:
        raise UserError(f"{record.file}: {name}: found {value}, expected a whole number from {least}")
    return value


def levels(record: EDMRecord, preconditioning: dict[str, Any]) -> dict[str, float]:
    """The noise levels a teacher is asked about: EDM's own, as far as file and preconditioning know them.

    Raises:
        UserError: if that is no range, or the preconditioning's options make none.
    """
    try:
        lowest, highest = known_levels(preconditioning)
    except UserError as error:
        raise UserError(f"{record.file}: {error}") from error
    low, high = plain(record, "sigma_min"), plain(record, "sigma_max")
    low = max(LOWEST, lowest, lowest if low is None else float(low))
    high = min(HIGHEST, highest, highest if high is None else float(high))
    if not low < high:
        raise UserError(
            f"{record.file}: found noise levels from {low:g} to {high:g}, expected a range; fetch the file again"
        )
    return {"sigma_min": low, "sigma_max": high}


def spelled(value: Any) -> Any:
    """A value for JSON, which knows no infinity: that becomes text."""
    if isinstance(value, dict):
        return {name: spelled(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [spelled(entry) for entry in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
