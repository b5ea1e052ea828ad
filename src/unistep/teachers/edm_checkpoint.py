"""EDM checkpoints as teachers: what the file says as our own configuration, and the teacher built from it."""

import math
from pathlib import Path
from typing import Any

from unistep.errors import UserError
from unistep.networks.build import build_denoiser
from unistep.networks.state_dict import load_strictly
from unistep.teachers.checkpoint import teacher_from_config, teacher_from_folder
from unistep.teachers.conditioners import LabelConditioner
from unistep.teachers.edm_pickle import EDMRecord, read_edm_pickle
from unistep.teachers.teacher import Teacher

NETWORKS = {"SongUNet": "song_unet", "DhariwalUNet": "dhariwal_unet", "UNet": "edm2_unet"}
PRECONDITIONINGS = {
    "EDMPrecond": "edm",
    "Precond": "edm",  # EDM2's
    "VPPrecond": "vp",
    "VEPrecond": "ve",
    "iDDPMPrecond": "iddpm",
}
CONSTANTS = ("beta_d", "beta_min", "M", "epsilon_t", "C_1", "C_2")  # of the three older preconditionings
NOT_THE_NETWORKS = {"model_type", "use_fp16", "sigma_min", "sigma_max", "sigma_data", *CONSTANTS}
LOWEST, HIGHEST = 0.002, 80.0  # the levels that EDM samples from (arXiv:2206.00364, Table 1)


def load_edm_teacher(path: Path) -> Teacher:
    """A frozen teacher from an EDM checkpoint file, or from the folder that `convert` made of one.

    Raises:
        UserError: if there is neither, for a hostile or damaged file, or weights that do not fit the network.
    """
    if path.is_dir():
        return teacher_from_folder(path)
    record = read_edm_pickle(path)
    config = config_of(record)
    denoiser = build_denoiser(config)
    load_strictly(denoiser, record.state, path)
    return teacher_from_config(denoiser, config, source=str(path), sha256=record.sha256)


def config_of(record: EDMRecord) -> dict[str, Any]:
    """What an EDM checkpoint says, as the configuration of a denoiser: a pure function.

    The network's dropout is set to 0: a teacher is frozen, and its copies are trained without.

    Raises:
        UserError: for a class that is not known, or an argument that is missing or no number.
    """
    network = known(record, NETWORKS, record.network_class, "network")
    preconditioning = known(record, PRECONDITIONINGS, record.class_name, "preconditioning")
    size, channels, classes = (whole(record, name) for name in ("img_resolution", "img_channels", "label_dim"))
    arguments = {name: value for name, value in record.arguments.items() if name not in NOT_THE_NETWORKS}
    dropout = {"dropout": 0.0} if "dropout" in arguments else {}
    constants = {name: value for name in CONSTANTS if (value := plain(record, name)) is not None}
    return {
        "network": {"type": network, **arguments, **dropout},
        "preconditioning": {"type": preconditioning, **constants},
        "process": {"type": "edm", **levels(record), "rho": 7.0, "num_bins": 1000},
        "sigma_data": float(plain(record, "sigma_data") or 0.5),
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


def known(record: EDMRecord, names: dict[str, str], found: str, what: str) -> str:
    """Our own name of a published class."""
    if found not in names:
        raise UserError(f"{record.file}: found {what} {found or 'nothing'}, expected one of {', '.join(names)}")
    return names[found]


def plain(record: EDMRecord, name: str) -> float | None:
    """A constructor argument that is a number; where it was left out, what the object made of its default."""
    value = record.arguments.get(name, record.attributes.get(name))
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value)):
        raise UserError(f"{record.file}: {name}: found {spelled(value)!r}, expected a number; fetch the file again")
    return value


def whole(record: EDMRecord, name: str) -> int:
    """A size; `label_dim` may be 0 or missing, the others may not."""
    value, least = plain(record, name), 0 if name == "label_dim" else 1
    value = 0 if value is None else value
    if not isinstance(value, int) or not least <= value < 2**20:
        raise UserError(f"{record.file}: {name}: found {value}, expected a whole number from {least}")
    return value


def levels(record: EDMRecord) -> dict[str, float]:
    """The noise levels a teacher is asked about: EDM's own, as far as the network knows them."""
    low, high = plain(record, "sigma_min"), plain(record, "sigma_max")
    return {
        "sigma_min": LOWEST if low is None else max(LOWEST, float(low)),
        "sigma_max": HIGHEST if high is None else min(HIGHEST, float(high)),
    }


def spelled(value: Any) -> Any:
    """A value for JSON, which knows no infinity: that becomes text."""
    if isinstance(value, dict):
        return {name: spelled(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [spelled(entry) for entry in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
