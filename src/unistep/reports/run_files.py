"""What a run folder holds for a report; missing parts stay None and are named."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unistep.errors import UserError
from unistep.evaluation.result import Evaluation
from unistep.io.text_files import parse_json, read_json
from unistep.teacher_checks.certificate import Certificate

SAMPLES = "evaluation"  # previews/evaluation.png (images) or .svg (points): all rows from the same seeds


@dataclass(frozen=True, kw_only=True)
class RunFiles:
    """The parts of a run folder.

    Attributes:
        folder: of the run.
        recipe: text of recipe.yaml.
        record: run.json: versions, commit, hashes, seeds.
        lines: metrics.jsonl, in order.
        health: health.json.
        certificate: certificate.json, of the teacher.
        evaluation: evaluation.json.
        samples: previews/evaluation.svg or .png.
        preview: the last of previews/step-*.png.
        missing: one sentence for each part that is not there or cannot be read.
    """

    folder: Path
    recipe: str | None = None
    record: dict[str, Any] | None = None
    lines: list[dict[str, Any]] = field(default_factory=list)
    health: dict[str, Any] | None = None
    certificate: Certificate | None = None
    evaluation: Evaluation | None = None
    samples: Path | None = None
    preview: Path | None = None
    missing: tuple[str, ...] = ()


def read_run(folder: Path) -> RunFiles:
    """Reads what is there.

    Raises:
        UserError: if there is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: found no such folder, expected a run folder")
    missing: list[str] = []
    previews = folder / "previews"
    recipe = folder / "recipe.yaml"
    if not recipe.is_file():
        missing.append("recipe.yaml is not there, so the recipe is not shown.")
    return RunFiles(
        folder=folder,
        recipe=recipe.read_text() if recipe.is_file() else None,
        record=read_object(folder / "run.json", missing, "versions are not shown"),
        lines=read_lines(folder / "metrics.jsonl", missing),
        health=read_object(folder / "health.json", [], ""),
        certificate=read_certificate(folder / "certificate.json", missing),
        evaluation=read_evaluation(folder / "evaluation.json", missing),
        samples=first_file(previews / f"{SAMPLES}.svg", previews / f"{SAMPLES}.png"),
        preview=max(previews.glob("step-*.png"), default=None),
        missing=tuple(missing),
    )


def read_object(path: Path, missing: list[str], consequence: str) -> dict[str, Any] | None:
    """A JSON object, or None and a sentence."""
    try:
        return read_json(path, "its part of the report is left out")
    except FileNotFoundError:
        missing.append(f"{path.name} is not there, so {consequence}.")
    except UserError as error:
        missing.append(f"{error}; so {consequence}.")
    return None


def read_lines(path: Path, missing: list[str]) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl; those that are no JSON object with a step (cut by a kill) are counted and named."""
    if not path.is_file():
        missing.append(f"{path.name} is not there, so no curves are drawn.")
        return []
    raw = [line for line in path.read_text(errors="replace").splitlines() if line.strip()]
    found = [line for line in map(parse_line, raw) if line is not None]
    if len(found) < len(raw):
        missing.append(f"{path.name}: {len(raw) - len(found)} of {len(raw)} lines cannot be read and are left out.")
    return found


def parse_line(line: str) -> dict[str, Any] | None:
    """One line, or None if it is not whole."""
    try:
        found = parse_json(line, "metrics.jsonl", "")
    except UserError:
        return None
    return found if isinstance(found, dict) and isinstance(found.get("step"), int) else None


def read_evaluation(path: Path, missing: list[str]) -> Evaluation | None:
    """evaluation.json, or None and a sentence."""
    if not path.is_file():
        missing.append(f"{path.name} is not there: `unistep evaluate` has not been run.")
        return None
    try:
        return Evaluation.load(path)
    except UserError as error:
        missing.append(f"{error}.")
        return None


def read_certificate(path: Path, missing: list[str]) -> Certificate | None:
    """certificate.json, or None; a sentence where it is there and cannot be read."""
    try:
        return Certificate.load(path) if path.is_file() else None
    except UserError as error:
        missing.append(f"{error}.")
        return None


def first_file(*paths: Path) -> Path | None:
    """The first that exists."""
    return next((path for path in paths if path.is_file()), None)
