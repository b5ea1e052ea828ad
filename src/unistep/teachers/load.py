"""`load_teacher(spec)`: the one door through which teachers come in."""

from importlib.resources import files
from pathlib import Path

from unistep.errors import UserError
from unistep.teachers.analytic import MIXTURES, mixture_teacher
from unistep.teachers.checkpoint import teacher_from_folder
from unistep.teachers.teacher import Teacher


def embedded_folder(name: str) -> Path:
    """Folder of an embedded asset, for example `fashion-mnist`.

    Raises:
        UserError: if no such asset is packaged.
    """
    root = Path(str(files("unistep"))) / "assets"
    folder = root / name.replace("-", "_")
    if not folder.is_dir():
        known = sorted(p.name.replace("_", "-") for p in root.iterdir() if p.is_dir() and p.name[0] != "_")
        raise UserError(f"embedded:{name}: found no such asset, expected one of {', '.join(known)}")
    return folder


def load_teacher(spec: str | Path) -> Teacher:
    """A frozen teacher.

    Args:
        spec: `embedded:NAME` (packaged), `gaussians:NAME` (exact mixture), or the path of a checkpoint folder or of a
            run of `unistep teach`.

    Raises:
        UserError: if nothing is found there.
    """
    kind, _, name = str(spec).partition(":")
    if kind == "embedded":
        return teacher_from_folder(embedded_folder(name) / "teacher")
    if kind == "gaussians":
        if name not in MIXTURES:
            raise UserError(f"teacher: found 'gaussians:{name}', expected one of {', '.join(MIXTURES)}")
        return mixture_teacher(name)
    folder = Path(spec)
    if not folder.is_dir():
        raise UserError(f"teacher: found no folder {spec}, expected embedded:NAME, gaussians:NAME or a checkpoint folder")
    return teacher_from_folder(folder / "teacher" if (folder / "teacher").is_dir() else folder)
