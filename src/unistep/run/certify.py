"""`certify`: a teacher is asked what a denoiser must answer, before anything is learnt from it."""

from pathlib import Path

import torch

from unistep import teacher_checks
from unistep.errors import UserError
from unistep.io.progress import show_waiting
from unistep.reports.certificate import print_certificate
from unistep.run.console import Talk
from unistep.teacher_checks.behaviour import BRIGHT_HALF
from unistep.teacher_checks.certificate import Certificate
from unistep.teachers.load import load_teacher
from unistep.teachers.teacher import Teacher
from unistep.training.distributed import on_rank_zero, resolve_device

FILE = "certificate.json"


def certify(
    teacher: str | Path | Teacher, *, out: str | Path | None = None, device: str = "auto", quiet: bool = False
) -> Certificate:
    """Certifies a teacher without training anything from it.

    Args:
        teacher: what `load_teacher` opens, or a teacher of your own.
        out: a JSON file to write the certificate to; None = none.
        device: auto, cpu or cuda.
        quiet: print nothing.

    Returns:
        The certificate, passed or not; `require()` stops on a failed check.

    Raises:
        UserError: if there is no such teacher, or its weights do not fit its network.
    """
    where = resolve_device(device)
    found = teacher if isinstance(teacher, Teacher) else load_teacher(teacher)
    found.denoiser.to(where)
    with show_waiting("certifying the teacher", not quiet):
        certificate = teacher_checks.certify(found, where)
    if out is not None:
        certificate.save(Path(out))
    if not quiet:
        print_certificate(certificate)
    return certificate


def require_certificate(teacher: Teacher, folder: Path, device: torch.device, say: Talk) -> None:
    """Certifies a run's teacher once; the certificate stays in the run's folder, a failed one too.

    Raises:
        UserError: the first failed check in words.
    """

    def certified() -> Certificate:
        if (known := stored(folder / FILE)) is not None and known.teacher == teacher.sha256 and not known.failed:
            return known
        teacher.denoiser.to(device)
        with show_waiting("certifying the teacher", say.shows):
            certificate = teacher_checks.certify(teacher, device)
        certificate.save(folder / FILE)
        if not certificate.failed:
            say(f"the teacher is certified: {len(certificate.checks)} checks on {certificate.samples:,} of its samples")
        if any(BRIGHT_HALF in check.words for check in certificate.checks):
            say(f"pixels of the teacher's samples {BRIGHT_HALF}")
        return certificate

    try:
        on_rank_zero(certified).require()
    except UserError as error:
        raise UserError(f"{error}; teacher.certify=false goes on regardless") from error


def stored(path: Path) -> Certificate | None:
    """The certificate in a run's folder, if there is one."""
    return Certificate.load(path) if path.is_file() else None
