"""The report page: all parts, nothing from outside, and every missing part said aloud."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

from unistep.errors import UserError
from unistep.evaluation import Candidate, Evaluation
from unistep.reports import write_report, write_samples

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Outline(HTMLParser):
    """Checks that tags nest and collects ids, headings and references."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []

    def handle_starttag(self, tag, attrs) -> None:
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name in ("src", "href", "xlink:href", "srcset", "action", "data"):
                self.references.append(value)

    def handle_startendtag(self, tag, attrs) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag


def outline(page: str) -> Outline:
    found = Outline()
    found.feed(page)
    assert not found.open
    return found


@pytest.fixture(scope="module")
def page(full_run_dir: Path) -> str:
    path = write_report(full_run_dir)
    assert path == full_run_dir / "report.html"
    return path.read_text()


def test_a_full_report_has_every_part(page: str) -> None:
    found = outline(page)
    assert {"figures", "samples", "curves", "health", "recipe", "versions"} <= set(found.ids)
    assert "missing" not in found.ids
    assert "Frechet distance of 8.93; its teacher reaches 4.62 with 35 (the student&#39;s is 1.93 times that)" in page
    assert "2.31 \u00b1 0.51" in page  # KID of the teacher
    assert "stored features: teacher, 35 evaluations" in page
    assert "it lags behind" in page and "step 420" in page
    assert "lambda_reg: 0.25" in page
    assert "9478aa5" in page and "starts.2.git_commit" in page and "teacher.source" in page
    assert page.count("data:image/png;base64,") == 2
    for title in ("Frechet distance during training", "Losses of the generator", "Denoising loss", "Gradient norms"):
        assert title in page


def test_nothing_comes_from_outside(page: str) -> None:
    assert not re.search(r"https?:|//cdn|@import|<script|<link", page)
    assert "url(" not in re.sub(r"url\(#[^)]*\)", "", page)
    references = outline(page).references
    assert references and all(r.startswith(("data:image/png;base64,", "#")) for r in references)
    ids = outline(page).ids
    assert len(ids) == len(set(ids))
    assert {r[1:] for r in references if r.startswith("#")} <= set(ids)


def test_an_empty_folder_gets_a_report_that_says_so(tmp_path: Path) -> None:
    page = write_report(tmp_path).read_text()
    outline(page)
    for words in (
        "This run has not been judged yet.",
        "No previews in this folder.",
        "No metrics in this folder.",
        "No recipe in this folder.",
        "Nothing is recorded about the health",
        "run.json is not there, so versions are not shown.",
        "metrics.jsonl is not there, so no curves are drawn.",
    ):
        assert words in page
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("run.json", "{", "run.json: no readable JSON (Expecting property name enclosed in double quotes: line 1"),
        ("run.json", "[]", "run.json: found JSON of type list, expected an object"),
        ("metrics.jsonl", '{"step": 1, "loss/dm": 1}\n{"step": 2, "lo', "1 of 2 lines cannot be read"),
        ("evaluation.json", "{}", "found no evaluation of format"),
    ],
)
def test_damaged_parts_are_named(file: str, content: str, words: str, run_dir: Path) -> None:
    (run_dir / file).write_text(content)
    page = write_report(run_dir).read_text()
    assert words in page
    assert "lambda_reg" in page  # the rest is there


def test_a_quiet_run_is_called_quiet(run_dir: Path) -> None:
    (run_dir / "health.json").write_text(json.dumps({"alarms": [], "ringing": []}))
    assert "No alarm rang." in write_report(run_dir).read_text()


def test_alarms_in_the_metrics_are_shown_once(run_dir: Path) -> None:
    with (run_dir / "metrics.jsonl").open("a") as file:
        for _ in range(2):
            file.write(json.dumps({"step": 1000, "health/diversity_collapse": "samples are <alike>"}) + "\n")
    page = write_report(run_dir).read_text()
    assert page.count("samples are &lt;alike&gt;") == 1
    assert "Diversity collapse:" in page


def test_points_get_scatters(run_dir: Path, point_evaluation: Evaluation) -> None:
    point_evaluation.save(run_dir / "evaluation.json")
    (run_dir / "previews" / "step-0001000.png").unlink()
    rows = [Candidate(name=n, sample=lambda s: (torch.randn(len(s), 2), None), nfe=1) for n in ("teacher", "student")]
    path = write_samples(run_dir, rows, real=torch.randn(100, 2), is_points=True)
    assert path.name == "evaluation.svg"
    assert not path.with_suffix(".png").exists()
    page = write_report(run_dir).read_text()
    outline(page)
    assert "energy distance of 0.00210" in page and "it covers 8 modes" in page
    assert page.count('aria-label="All rows from the same seeds"') == 1
    assert "currentColor" in page
    assert not re.search(r"https?:", page)


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="found no such folder"):
        write_report(tmp_path / "nothing")
