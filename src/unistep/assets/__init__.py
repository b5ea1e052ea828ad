"""What the package carries with it: teachers, judges and their reference statistics, each with a how-made note."""

import os
from importlib.resources import files
from pathlib import Path

from unistep.errors import UserError


def embedded_folder(name: str) -> Path:
    """Folder of an embedded asset, for example `fashion-mnist`.

    Raises:
        UserError: if no such asset is packaged.
    """
    root = Path(str(files("unistep.assets")))
    known = {p.name.replace("_", "-"): p for p in sorted(root.iterdir()) if p.is_dir() and p.name[0] != "_"}
    if name not in known:
        raise UserError(f"embedded:{name}: found no such asset, expected one of {', '.join(known)}")
    return known[name]


def user_cache(kind: str) -> Path:
    """Folder for what can be made again: in $UNISTEP_CACHE, else $XDG_CACHE_HOME/unistep, else ~/.cache/unistep."""
    own, shared = os.environ.get("UNISTEP_CACHE"), os.environ.get("XDG_CACHE_HOME")
    return Path(own or Path(shared or Path.home() / ".cache") / "unistep") / kind
