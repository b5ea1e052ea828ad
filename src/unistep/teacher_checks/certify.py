"""`certify`: every check that applies to a teacher, in an order in which the first failure says most."""

import platform
from importlib.metadata import version

import torch

import unistep
import unistep.teacher_checks.behaviour as behaviour
import unistep.teacher_checks.structure as structure
from unistep.teacher_checks.certificate import Certificate
from unistep.teacher_checks.probe import probe
from unistep.teachers.teacher import Teacher

BEHAVIOUR = (
    behaviour.samples,
    structure.conversions,
    behaviour.skill,
    behaviour.calibration,
    behaviour.monotony,
    behaviour.covariance,
    behaviour.density,
    behaviour.condition,
)


@torch.no_grad()
def certify(teacher: Teacher, device: torch.device | None = None) -> Certificate:
    """Asks a teacher of any kind what a denoiser must answer; needs no data, only some tens of evaluations per sample.

    Args:
        teacher: on `device`.
        device: None = the CPU.

    Returns:
        The certificate; `require()` stops on a failed check.
    """
    where = device or torch.device("cpu")
    checks, count = [structure.noise_process(teacher)], 0
    if checks[0].passed:
        checks.append(structure.shapes_and_rows(teacher, where))
    if checks[-1].passed:
        seen = probe(teacher, where)
        count = len(seen.x_0)
        asked = BEHAVIOUR if seen.levels else BEHAVIOUR[:1]
        checks += [found for check in asked if (found := check(seen)) is not None]
    return Certificate(
        teacher=teacher.sha256, source=teacher.source, checks=tuple(checks), samples=count, versions=versions()
    )


def versions() -> dict[str, str]:
    """Versions of what the figures depend on."""
    return {"unistep": unistep.__version__, "python": platform.python_version(), "torch": version("torch")}
