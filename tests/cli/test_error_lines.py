"""What ends a verb is one printable line that says what to lower or where to look; recipes that attack are refused."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
import typer

from unistep.cli.errors import describe_os_error, fail, one_line_errors
from unistep.errors import UserError
from unistep.planning.plan import plan
from unistep.recipes.load import load_recipe
from unistep.recipes.parse import parse_yaml


def line_of(action, capsys) -> str:
    with pytest.raises(typer.Exit) as caught:
        one_line_errors(action)()
    assert caught.value.exit_code == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    return err


@pytest.mark.parametrize(
    ("allocate", "asked"),
    [
        (lambda: torch.empty(2**55), r"DefaultCPUAllocator|36028797018963968 ?\w*|144115188075855872 bytes"),
        (lambda: np.zeros(2**55), r"256\. PiB|288 PB|PiB"),
        (lambda: bytearray(2**60), "an allocation failed"),
    ],
)  # fmt: skip
def test_an_allocation_that_fails_is_one_line(allocate, asked: str, capsys) -> None:
    assert re.search(rf"not enough memory: .*({asked}).*lower .*, or free memory", line_of(allocate, capsys))


def test_the_setting_to_lower_is_that_of_the_part_that_asked(capsys) -> None:
    def judged() -> None:
        from unistep.evaluation.metrics.frechet import FeatureMoments

        class Endless:
            def double(self) -> None:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has ...")

        FeatureMoments().update(Endless())  # type: ignore[arg-type]

    line = line_of(judged, capsys)
    assert "20.00 GiB could not be allocated in unistep.evaluation.metrics.frechet; lower evaluation.batch" in line


def test_other_runtime_errors_keep_their_traceback() -> None:
    def broken() -> None:
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        one_line_errors(broken)()


def test_an_overflow_is_one_line(capsys) -> None:
    assert "too large" in line_of(lambda: round(float("inf")), capsys)


def test_control_characters_do_not_reach_the_terminal(capsys) -> None:
    with pytest.raises(typer.Exit):
        fail("load: \x1b]0;x\x07 \u202e \x9b31m ä")
    err = capsys.readouterr().err
    assert err.rstrip("\n").endswith(r"load: \x1b]0;x\x07 \u202e \x9b31m ä")


def test_what_cannot_be_read_gets_no_advice_on_writing(tmp_path: Path, monkeypatch) -> None:
    missing, locked = tmp_path / "a.txt", tmp_path / "b.txt"
    locked.write_text("x")
    monkeypatch.setattr("os.access", lambda *_: False)
    assert "--out" not in describe_os_error(FileNotFoundError(2, "No such file", str(missing)))
    assert describe_os_error(PermissionError(13, "Permission denied", str(locked))).endswith(
        "make it readable, or name another file"
    )
    assert describe_os_error(PermissionError(13, "Permission denied", str(tmp_path / "x" / "y"))).endswith("with --out")


# ------------------------------------------------------------------------------------------------------------- YAML


@pytest.mark.parametrize(
    "text",
    ["2001-13-45", "0x_", "1" * 4301, "!!int x", "!!float ''", "!!bool maybe", "!!timestamp x", "!!int ''", "!!set 3",
     "!!map 3", "!!omap 3", "!!pairs 3", "!!binary ü", "? [a, {b: c}]\n: d", "1:60:99:x", "!!seq a", "&a [*a]"],
)  # fmt: skip
def test_what_yaml_stumbles_over_is_one_line(text: str) -> None:
    try:
        value = parse_yaml(text, "--set about")
    except UserError as error:
        assert "\n" not in str(error) and str(error).startswith("--set about") and len(str(error)) < 500
    else:
        assert value is not None  # read as text: that is no mistake


def test_aliases_do_not_multiply_without_end() -> None:
    lines = ["a0: &a0 [x, x]", *(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 60))]
    with pytest.raises(UserError, match="more than 100,000 values, aliases resolved"):
        parse_yaml("\n".join(lines), "recipe")
    assert parse_yaml("a: &a [1, 2]\nb: *a", "recipe") == {"a": [1, 2], "b": [1, 2]}


def test_keys_given_twice_are_found_among_many() -> None:
    text = "\n".join(f"k{i}: {i}" for i in range(20_000))
    assert len(parse_yaml(text, "recipe")) == 20_000
    with pytest.raises(UserError, match="k7: given twice"):
        parse_yaml(f"{text}\nk7: 1", "recipe")


@pytest.mark.parametrize("override", ["training.steps={}", "about=[{}", "{}", "nowhere={}", "training={}"])
def test_a_long_value_is_not_echoed_whole(override: str) -> None:
    with pytest.raises(UserError) as caught:
        load_recipe("gaussians", [override.format("x" * 5_000)])
    assert len(max(caught.value.lines, key=len)) < 700


@pytest.mark.parametrize(
    "override",
    ["evaluation.samples=18446744073709551616", "evaluation.samples_during_training=18446744073709551616",
     "fit.samples=1e23", "fit.samples=100000000000000000000000", "training.steps=1000000000000", "pairs.tile=99999999",
     "training.batch=2147483648", "training.seed=18446744073709551616", "evaluation.first_seed=9223372036854775807"],
)  # fmt: skip
def test_absurd_numbers_are_refused(override: str) -> None:
    with pytest.raises(UserError, match=re.escape(override.partition("=")[0])):
        load_recipe("gaussians", [override])


@pytest.mark.parametrize("memory", [1e308, float("inf"), float("nan"), -1.0])
def test_a_plan_for_absurd_memory_is_refused(memory: float) -> None:
    with pytest.raises(UserError, match="memory: found"):
        plan("gaussians", memory=memory)
