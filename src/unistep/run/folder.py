"""A run's folder: opened anew or resumed, with the recipe as resolved and a record of what it was made with."""

import json
import platform
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch

import unistep
from unistep.errors import UserError
from unistep.io.atomic import atomic_write, sweep
from unistep.io.locking import locked
from unistep.io.text_files import read_json
from unistep.recipes.load import Recipe, dump_recipe, load_recipe
from unistep.run.console import Talk
from unistep.training.distributed import on_rank_zero
from unistep.training.resume import flatten, locked_settings, require_same_recipe

LEARNT = ("checkpoints/step-*", "judge/*", "generator/*")
WRITTEN = (".", "judge", "previews", "features", "samples", "teacher", "teacher/previews")  # by this run alone


@contextmanager
def only_writer(folder: Path, say: Talk) -> Iterator[None]:
    """Holds a run's folder for this command: all ranks of it are one writer, and a second command is refused.

    Raises:
        UserError: if another process is at work in the folder.
    """
    with ExitStack() as stack:
        on_rank_zero(lambda: hold(stack, folder, say))
        yield


def hold(stack: ExitStack, folder: Path, say: Talk) -> None:
    """Enters the lock of a folder."""
    stack.enter_context(locked(folder, say))


def agreed(recipe: Recipe) -> dict[str, Any]:
    """Returns what all ranks of a command must share: unistep's version and every setting."""
    return {"unistep's version": unistep.__version__, **flatten(recipe.model_dump(mode="json"))}


def folder_of(recipe: Recipe, out: str | Path | None) -> Path:
    """Returns where a recipe's run is: the folder named, or runs/<recipe name>.

    Raises:
        UserError: if a file is there.
    """
    folder = Path(out) if out else Path("runs") / recipe.name
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: found a file, expected a folder; choose another place with --out")
    return folder


def open_run(recipe: Recipe, out: Path | None) -> Path:
    """The run's folder, made if need be; `recipe.yaml` is written on the first start.

    As long as nothing has been learnt there, after a mistake in the recipe say, another recipe takes its place: pairs
    and a teacher taught in the run know themselves what they were made with.

    Args:
        recipe: as resolved, overrides included.
        out: where; None = runs/<recipe name>.

    Raises:
        UserError: if the folder holds a run of another recipe, or something that is no run.
    """
    folder = folder_of(recipe, out)
    folder.mkdir(parents=True, exist_ok=True)
    stored = folder / "recipe.yaml"
    if stored.is_file() and has_learnt(folder):
        require_same_recipe(settings(load_run_recipe(folder)), settings(recipe), str(stored))
    if not stored.is_file():
        foreign = next((path.name for path in folder.iterdir() if not path.name.startswith(".")), None)
        if foreign:
            raise UserError(f"{folder}: found {foreign} but no recipe.yaml, so this is no run; choose another --out")
    for place in filter(Path.is_dir, (folder / name for name in WRITTEN)):
        sweep(place)
    atomic_write(stored, dump_recipe(recipe).encode())
    return folder


def has_learnt(folder: Path) -> bool:
    """Whether a run's folder holds anything that training made: a checkpoint, a judge, a finished generator."""
    return any(any(folder.glob(made)) for made in LEARNT)


def load_run_recipe(folder: Path) -> Recipe:
    """The recipe a run was made with.

    Raises:
        UserError: if the folder is no run.
    """
    path = folder / "recipe.yaml"
    if not path.is_file():
        raise UserError(f"{folder}: found no recipe.yaml, expected the folder of a run")
    return load_recipe(path)


def settings(recipe: Recipe) -> dict[str, Any]:
    """The values that a resumed run must share with the one that was started; how it is judged may change."""
    return locked_settings(recipe.model_dump(mode="json", exclude={"about", "evaluation", "name"}))


def record(folder: Path, **facts: Any) -> None:
    """Adds facts to run.json; what is there under other names stays."""
    path = folder / "run.json"
    known = read_record(path)
    atomic_write(path, (json.dumps({**known, **facts}, indent=2) + "\n").encode())


def read_record(path: Path) -> dict[str, Any]:
    """What run.json says so far.

    Raises:
        UserError: if it is damaged.
    """
    known = read_json(path, "delete this one file, it is only a record") if path.is_file() else {}
    if not isinstance(known.get("starts", []), list):
        raise UserError(f"{path}: found no mapping with a list of starts; delete this one file, it is only a record")
    return known


def record_start(folder: Path, device: torch.device) -> None:
    """Adds this start of the command to run.json: when, with which versions, on what."""
    path = folder / "run.json"
    record(folder, starts=[*read_record(path).get("starts", []), environment(device)])


def environment(device: torch.device) -> dict[str, Any]:
    """Time, versions, git commit (where the package runs from a checkout) and device."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "unistep": unistep.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "git_commit": git_commit(),
        "device": f"{device.type} ({name})",
        "threads": torch.get_num_threads(),
    }


def git_commit() -> str | None:
    """Commit of the checkout this package runs from, `-dirty` appended where files changed; None without one."""
    root = Path(__file__).resolve().parents[3]
    if not (root / ".git").exists():
        return None
    try:
        command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
