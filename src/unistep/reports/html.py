"""The report of a run: one HTML file that needs nothing else, readable on a phone, in light and in dark."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from unistep.errors import UserError
from unistep.evaluation.result import Evaluation
from unistep.io.atomic import atomic_write
from unistep.reports.certificate import rows
from unistep.reports.columns import COST, percent, significant
from unistep.reports.curves import panels
from unistep.reports.figures import draw_panel, inline_svg, render
from unistep.reports.run_files import RunFiles, read_run
from unistep.reports.table import cells, to_html
from unistep.reports.verdict import distance_of, verdict


@dataclass(frozen=True, kw_only=True)
class Tile:
    """A number that stands out at the top of the report."""

    number: str
    words: str


def write_report(run_dir: Path) -> Path:
    """Writes report.html into a run folder, whole or not at all, from whatever the folder holds.

    Raises:
        UserError: if there is no such folder or it cannot be written.
    """
    run = read_run(Path(run_dir))
    path = run.folder / "report.html"
    try:
        atomic_write(path, page(run).encode())
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); expected a writable run folder") from error
    return path


def page(run: RunFiles) -> str:
    """The page as text."""
    return rendered("report.html.j2", **parts(run))


def rendered(template_name: str, **shown: Any) -> str:
    """One of the templates of this folder, with the style that all pages share."""
    import jinja2

    here = files("unistep.reports")
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    template = environment.from_string(here.joinpath(template_name).read_text())
    return template.render(css=here.joinpath("report.css").read_text(), **shown)


def parts(run: RunFiles) -> dict[str, Any]:
    """What the template shows; a part that is missing is empty."""
    evaluation = run.evaluation
    text = cells(evaluation) if evaluation else None
    return {
        "name": run.folder.resolve().name,
        "verdict": verdict(evaluation),
        "tiles": tiles(evaluation),
        "table": to_html(evaluation) if evaluation else "",
        "legend": text.legend if text else [],
        "note": text.note if text else "",
        "samples": picture(run.samples, "All rows from the same seeds"),
        "preview": picture(run.preview, "Last preview of the training"),
        "preview_step": int(run.preview.stem.removeprefix("step-")) if run.preview else None,
        "curves": curves(run),
        "alarms": alarms(run),
        "watched": run.health is not None or any(k.startswith("health/") for line in run.lines for k in line),
        "certificate": rows(run.certificate) if run.certificate else [],
        "certified": run.certificate,
        "recipe": run.recipe,
        "versions": flattened((run.record or {}) | ({"evaluation": made_with(evaluation)} if evaluation else {})),
        "missing": run.missing,
    }


def made_with(evaluation: Evaluation) -> dict[str, Any]:
    """What the figures depend on: versions, judge and reference, with their hashes."""
    judge = {"title": evaluation.judge_title or None, "sha256": evaluation.judge or None}
    reference = {"title": evaluation.reference, "sha256": evaluation.reference_sha256 or None}
    alignment = {"title": evaluation.alignment_title, "sha256": evaluation.alignment}
    named = {"alignment": alignment} if evaluation.alignment else {}
    return {**evaluation.versions, "judge": judge, "reference": reference, **named}


def tiles(evaluation: Evaluation | None) -> list[Tile]:
    """Up to four numbers of the student."""
    student = evaluation and evaluation.row("student")
    if evaluation is None or student is None:
        return []
    key, name = distance_of(evaluation)
    teacher = evaluation.row("teacher")
    found = [Tile(number=significant(student.figures[key]), words=name)] if key in student.figures else []
    if found and teacher is not None and teacher.figures.get(key):
        ratio = student.figures[key] / teacher.figures[key]
        found.append(Tile(number=f"{ratio:.2f}\u00d7", words="the teacher's distance"))
    if "agreement" in student.figures:
        found.append(Tile(number=percent(student.figures["agreement"]), words="show the class asked for"))
    if "modes" in student.figures:
        found.append(Tile(number=f"{round(student.figures['modes'])}", words="modes covered"))
    evaluations = COST[0].cell(student)
    than = f", teacher {teacher.nfe}" if teacher is not None else ""
    found.append(Tile(number=evaluations, words=f"network evaluation{'s' * (student.nfe != 1)}{than}"))
    return found


def picture(path: Path | None, words: str) -> str:
    """A picture as markup: SVG inline, PNG as data."""
    if path is None:
        return ""
    if path.suffix == ".svg":
        return f'<div class="chart" role="img" aria-label="{words}">{inline_svg(path.read_bytes())}</div>'
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<img alt="{words}" src="data:image/png;base64,{data}">'


def curves(run: RunFiles) -> list[tuple[str, str]]:
    """Title and SVG of each panel."""
    found = panels(run.lines, run.evaluation)
    return [(p.title, inline_svg(render(draw_panel(p), "svg", p.title))) for p in found]


def alarms(run: RunFiles) -> list[tuple[int | None, str, str]]:
    """Step, name and words of every alarm, from health.json and from the lines of metrics.jsonl, each once."""
    found = {
        (alarm.get("step"), str(alarm.get("name", "")).replace("_", " "), str(alarm.get("words", "")))
        for alarm in (run.health or {}).get("alarms", [])
        if isinstance(alarm, Mapping)
    }
    for line in run.lines:
        rung = {name.removeprefix("health/"): value for name, value in line.items() if name.startswith("health/")}
        found |= {
            (line["step"], name.replace("_", " "), words) for name, words in rung.items() if isinstance(words, str)
        }
    return sorted(found, key=lambda alarm: (alarm[0] or 0, *alarm[1:]))


def flattened(record: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Plain values by dotted name; records in lists are numbered, long hashes shortened."""
    found: list[tuple[str, str]] = []
    for name, value in record.items():
        if isinstance(value, list) and value and all(isinstance(entry, Mapping) for entry in value):
            value = {str(i): entry for i, entry in enumerate(value, 1)}
        if isinstance(value, Mapping):
            found += flattened(value, f"{prefix}{name}.")
        elif value is not None:
            text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            found.append((f"{prefix}{name}", f"{text[:16]}\u2026" if len(text) == 64 and text.isalnum() else text))
    return found
