"""Two commands on one folder: the second one is refused at once, whichever verb it is."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from unistep.cli import app

sys.path.insert(0, str(Path(__file__).parents[1] / "package"))
from test_locking import other_process

POINTS = "gaussians"


def refused(*arguments: str | Path) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments], prog_name="unistep")
    assert result.exit_code == 2, result.output
    assert result.stderr.count("\n") == 1
    return result.stderr


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Path]:
    """A run's folder in which another process is at work."""
    folder = tmp_path / "run"
    folder.mkdir()
    with other_process(folder):
        yield folder


def test_training_pairs_and_comparison_are_refused(run: Path) -> None:
    for verb, name in (("teach", "digits-teacher"), ("distill", POINTS), ("pairs", POINTS), ("compare", "dmd-to-dmd2")):
        assert f"{run}: found another process at work there (pid " in refused(verb, name, "--out", run, "--quiet")
    assert [path.name for path in run.iterdir()] == [".lock"]
