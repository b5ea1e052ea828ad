"""`convert`: a foreign checkpoint to a folder of safetensors and configuration, nothing executed."""

from pathlib import Path

from unistep.errors import UserError
from unistep.teachers.checkpoint import FILES, save_state
from unistep.teachers.edm.checkpoint import described, state_of
from unistep.teachers.edm.pickle import read_edm_pickle


def convert(file: str | Path, *, out: str | Path | None = None) -> Path:
    """Writes model.safetensors and config.json of an EDM checkpoint; `load_teacher` opens the folder.

    Tensors keep their names and types; those that only EDM2's training uses are left out. The configuration holds the
    network's type and constructor arguments, the preconditioning, the noise levels, and the source file's name and
    sha256.

    Args:
        file: a checkpoint such as edm-cifar10-32x32-cond-vp.pkl.
        out: the folder to write, whole or not at all; None = beside the file, under its name without `.pkl`.

    Returns:
        The folder.

    Raises:
        UserError: for a missing, damaged or hostile file, an unknown network, weights of another shape, or a place that
            holds other files.
    """
    file = Path(file)
    folder = file.with_suffix("") if out is None else Path(out)
    require_free(folder)
    record = read_edm_pickle(file)
    save_state(folder, state_of(record), described(record))
    return folder


def require_free(folder: Path) -> None:
    """The place must be free, or hold nothing but an earlier result, which is replaced."""
    if folder.is_file():
        raise UserError(f"{folder}: a file is where a folder is needed; choose another place with --out")
    others = {entry.name for entry in folder.iterdir()} - set(FILES) if folder.is_dir() else set()
    if others:
        raise UserError(f"{folder}: holds {min(others)}, expected a new or an empty folder; choose another with --out")
