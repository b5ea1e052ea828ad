"""A checkpoint of a run as a folder that every verb opens: the best by evaluation, the last, or any that is kept."""

import re
from pathlib import Path

from unistep.errors import UserError
from unistep.teachers.checkpoint import save_state
from unistep.training.checkpoint import Checkpoints, read_record


def export_checkpoint(run: str | Path, which: str) -> Path:
    """Writes what a training has averaged up to one of its checkpoints, also of a run that never came to its end.

    Args:
        run: the folder of a run of `distill` or `teach`.
        which: `best`, `last`, or `step-N`.

    Returns:
        RUN/generator-step-N or RUN/teacher-step-N, to be opened like RUN/generator or RUN/teacher.

    Raises:
        UserError: if there is no such checkpoint, or it is damaged.
    """
    folder = Path(run)
    store = Checkpoints(folder / "checkpoints")
    step = step_of(store, which)
    state, description = store.averaged(step)
    kind = "generator" if "t_init" in description else "teacher"
    out = folder / f"{kind}-{store.path(step).name}"
    save_state(out, {name.removeprefix("denoiser."): tensor for name, tensor in state.items()}, description)
    return out


def step_of(store: Checkpoints, which: str) -> int:
    """The step of the checkpoint asked for.

    Raises:
        UserError: naming what there is.
    """
    steps = store.steps()
    if not steps:
        raise UserError(f"{store.folder}: found no checkpoint, expected those of a run's training")
    if which == "last":
        return steps[-1]
    if which == "best":
        best = read_record(store.path(steps[-1]))["best"]
        if not best:
            raise UserError(
                "checkpoint: found best, but nothing was evaluated during the training (training.evaluate_every, and "
                "something that judges); choose last or step-N"
            )
        return int(best["step"])
    named = re.fullmatch(r"step-(\d+)", which)
    if named is None or int(named[1]) not in steps:
        there = ", ".join(f"step-{step}" for step in steps)
        raise UserError(f"checkpoint: found {which!r}, expected best, last or one that is kept: {there}")
    return int(named[1])
