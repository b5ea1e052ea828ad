"""Long stages show how far they are; short ones, quiet ones and those of other ranks show nothing."""

import io

import pytest
from rich.console import Console

from unistep.io import progress
from unistep.io.progress import StageProgress, show_progress, show_stages, show_waiting


class Clock:
    """Seconds that pass when they are told to."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("terminal", [False, True])
def test_a_stage_says_how_far_it_is_and_what_is_left(terminal: bool) -> None:
    out, clock = io.StringIO(), Clock()
    console = Console(file=out, force_terminal=terminal, width=100)
    shown = StageProgress("sampling the teacher", 1000, 0, console, clock)
    clock.now += 1.0
    shown.update(100)
    assert out.getvalue() == ""  # not yet: most stages are done by then
    clock.now += 9.0
    shown.update(250)
    shown.close()
    if terminal:
        assert "sampling the teacher" in out.getvalue() and "250/1000" in out.getvalue()
    else:
        assert out.getvalue() == "sampling the teacher 250/1,000  25 a second  0:30 left\n"


def test_what_was_done_before_counts_for_the_bar_and_not_for_the_rate() -> None:
    out, clock = io.StringIO(), Clock()
    shown = StageProgress("pairs", 1000, 500, Console(file=out), clock)
    clock.now += 10.0
    shown.update(600)
    shown.update(700)  # the next line waits
    assert out.getvalue() == "pairs 600/1,000  10 a second  0:40 left\n"


@pytest.mark.parametrize("show", [False, True])
def test_short_stages_and_quiet_ones_show_nothing(show: bool, capsys: pytest.CaptureFixture[str],
                                                  monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setattr(progress, "SHORT_SECONDS", 60.0 if show else 0.0)
    with show_progress("counting", 3, show) as update:
        for i in range(3):
            update(i + 1)
    with show_waiting("waiting", show):
        pass
    assert capsys.readouterr() == ("", "")


def test_a_stage_of_unknown_length_is_named_once_it_takes_long(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "SHORT_SECONDS", 0.0)
    with show_waiting("exporting"):
        for thread in progress.threading.enumerate():
            if isinstance(thread, progress.threading.Timer):
                thread.join()
    assert capsys.readouterr().err == "exporting ...\n"


def test_stages_follow_each_other(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SHORT_SECONDS", -1.0)
    monkeypatch.setattr(progress.time, "monotonic", iter(range(0, 10_000, 20)).__next__)
    with show_stages() as update:
        for title in ("teacher", "generator"):
            for done in (10, 20):
                update(title, done, 30)
    shown = capsys.readouterr().err.splitlines()
    assert [line.split("  ")[0] for line in shown] == ["teacher 20/30", "generator 20/30"]
    assert all("left" in line for line in shown)
    with show_stages(show=False) as update:
        update("teacher", 1, 2)
    assert capsys.readouterr().err == ""
