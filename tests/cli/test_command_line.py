"""The program as a person meets it: help, lists, and one clear line with code 2 for each mistake."""

import errno
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from typer.testing import CliRunner

import unistep
from unistep import api
from unistep.cli import app
from unistep.cli.recipes import GROUPS
from unistep.recipes import builtin_recipes

VERBS = ("recipes", "teach", "pairs", "distill", "sample", "evaluate", "export", "convert")


def call(*arguments: str | Path) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of the program, in this process."""
    result = CliRunner().invoke(app, [str(a) for a in arguments], prog_name="unistep", catch_exceptions=False)
    return result.exit_code, result.stdout, result.stderr


def refuse(*arguments: str | Path) -> str:
    """The one line of a refusal."""
    code, out, err = call(*arguments)
    assert code == 2, (out, err)
    assert err.startswith("error: ") and err.count("\n") == 1 and "Traceback" not in err
    return err


# ------------------------------------------------------------------------------------------------------------- help


def test_help_lists_every_verb() -> None:
    code, out, _ = call("--help")
    assert code == 0
    assert all(verb in out for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_has_help(verb: str) -> None:
    code, out, _ = call(verb, "--help")
    assert code == 0
    assert f"unistep {verb}" in out


HEAVY = {"torch", "numpy", "scipy", "sklearn", "pydantic", "yaml", "PIL", "matplotlib", "tensorboard", "jinja2"}


def test_help_imports_nothing_heavy() -> None:
    """Quick by what it leaves out; `benchmarks/startup.py` measures the seconds."""
    code = "import sys, unistep.__main__\ntry: unistep.__main__.main()\nfinally: print(*sys.modules, file=sys.stderr)"
    program = [sys.executable, "-c", code, "--help"]
    shown = subprocess.run(program, check=True, capture_output=True, text=True, timeout=60)
    assert all(verb in shown.stdout for verb in VERBS)
    imported = set(shown.stderr.split())
    assert {"typer", "unistep.cli.commands"} <= imported
    assert not imported & (HEAVY | {"unistep.api", "unistep.recipes.schema"})


def test_an_unknown_verb_or_option_is_code_2() -> None:
    assert call("distil", "gaussians")[0] == 2
    assert call("distill", "gaussians", "--stes", "3")[0] == 2
    assert call("distill")[0] == 2


# ---------------------------------------------------------------------------------------------------------- recipes


def test_recipes_lists_each_with_its_cost_by_purpose() -> None:
    code, out, _ = call("recipes")
    assert code == 0
    *groups, last = [block.splitlines() for block in out.split("\n\n")]
    assert [block[0].lower() for block in groups] == [name.lower() for name in GROUPS]
    listed = {line.split()[0]: line for block in groups for line in block[1:]}
    assert sorted(listed) == sorted(builtin_recipes())
    for name, text in builtin_recipes().items():
        cost = next(line for line in text.splitlines() if line.startswith("# Cost: ")).removeprefix("# Cost: ")
        about = next((line for line in text.splitlines() if line.startswith("about: ")), "about: ")
        assert f" {cost} " in listed[name]
        assert listed[name].endswith(f"  {about.removeprefix('about: ')}")
    assert groups[0][1].split()[0] == "gaussians"
    assert "digits-teacher" in {line.split()[0] for line in groups[-2][1:]}
    assert last[-1].split(": ")[1].split(", ")[0] == "cifar10-cond:smoke"


def test_version() -> None:
    assert call("--version") == (0, f"unistep {unistep.__version__}\n", "")


def test_recipes_prints_one_to_copy() -> None:
    code, out, _ = call("recipes", "gaussians")
    assert code == 0
    assert out == builtin_recipes()["gaussians"]


# --------------------------------------------------------------------------------------------------------- mistakes


def test_unknown_recipe() -> None:
    assert "did you mean gaussians?" in refuse("recipes", "gausians")


def test_unknown_key(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(builtin_recipes()["gaussians"] + "\ncolour: red\n")
    assert f"{path}: colour: unknown key" in refuse("distill", path, "--out", tmp_path / "run")


def test_wrong_type(tmp_path: Path) -> None:
    message = refuse("distill", "gaussians", "--set", "training.steps=many", "--out", tmp_path / "run")
    assert "training.steps: found 'many', expected a whole number" in message
    assert not (tmp_path / "run").exists()


def test_wrong_kind(tmp_path: Path) -> None:
    assert "use `unistep distill gaussians`" in refuse("teach", "gaussians", "--out", tmp_path / "run")


def test_missing_teacher(tmp_path: Path) -> None:
    place = tmp_path / "nowhere"
    teacher = f"teacher={{load: {place}, teach: null}}"
    assert str(place) in refuse("distill", "digits", "--set", teacher, "--out", tmp_path / "run")


def test_missing_run(tmp_path: Path) -> None:
    for verb in ("sample", "evaluate"):
        assert str(tmp_path / "no") in refuse(verb, tmp_path / "no")


def test_missing_images(tmp_path: Path) -> None:
    place = tmp_path / "nowhere"
    message = refuse(
        "teach", "digits-teacher", "--set", f"data={{kind: folder, path: {place}}}", "--out", tmp_path / "run"
    )
    assert str(place) in message


def test_a_file_that_is_no_image(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    (images / "a.png").write_bytes(b"this is no picture")
    message = refuse(
        "teach", "digits-teacher", "--set", f"data={{kind: folder, path: {images}}}", "--out", tmp_path / "run"
    )
    assert "a.png" in message


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_unwritable_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert "choose another folder with --out" in refuse("distill", "gaussians", "--out", tmp_path / "run")


def test_a_folder_where_no_folder_can_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert str(tmp_path / "file") in refuse("distill", "gaussians", "--out", tmp_path / "file" / "run")


def test_another_recipe_does_not_resume(tmp_path: Path) -> None:
    api.open_run(api.load_recipe("gaussians"), tmp_path)
    (tmp_path / "checkpoints" / "step-0000001").mkdir(parents=True)
    message = refuse("distill", "gaussians", "--set", "training.steps=3", "--out", tmp_path)
    assert "training.steps: found 3, expected" in message


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "runs/a/pairs"),
            "runs/a/pairs: No space left on device; free",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "/runs"),
            "/runs: Permission denied; choose another folder",
        ),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "No space left on device; free some space"),
    ],
)
def test_the_systems_refusals_are_one_line(error: Exception, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr(api, "distill", full)
    assert words in refuse("distill", "gaussians")


def test_ctrl_c_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(api, "distill", interrupt)
    code, _, err = call("distill", "gaussians")
    assert code == 130
    assert "run the same command again to go on" in err


def test_a_bug_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(*args: object, **kwargs: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(api, "distill", bug)
    with pytest.raises(RuntimeError, match="a bug"):
        call("distill", "gaussians")


def test_options_reach_the_api(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: dict[str, object] = {}
    monkeypatch.setattr(api, "distill", lambda recipe, **kwargs: seen.update(kwargs, recipe=recipe))
    code, _, _ = call("distill", "digits", "--set", "a.b=1", "--set", "c=2", "--seed", "3", "--out", tmp_path, "-q")
    assert code == 0
    assert seen == {
        "recipe": "digits", "overrides": ["a.b=1", "c=2"], "seed": 3, "out": tmp_path, "quiet": True,
        "device": "auto", "recompute": False, "steps": None, "cache": True,
    }  # fmt: skip


def test_the_program_ends_with_code_2_and_no_traceback() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "unistep", "recipes", "nothing-like-it"], capture_output=True, text=True
    )
    assert result.returncode == 2
    assert result.stderr.startswith("error: recipe nothing-like-it: not found")
    assert "Traceback" not in result.stderr


def test_libraries_keep_their_warnings_to_themselves_unless_somebody_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRANSFORMERS_VERBOSITY", "")  # to be put back afterwards
    monkeypatch.delenv("TRANSFORMERS_VERBOSITY")
    monkeypatch.setenv("DIFFUSERS_VERBOSITY", "info")
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        assert call("recipes")[0] == 0
        warnings.warn_explicit("old", FutureWarning, "a.py", 1, module="diffusers.utils.deprecation_utils")
        warnings.warn_explicit("new", FutureWarning, "a.py", 1, module="diffuser")
    assert [str(warning.message) for warning in heard] == ["new"]
    assert (os.environ["TRANSFORMERS_VERBOSITY"], os.environ["DIFFUSERS_VERBOSITY"]) == ("error", "info")


# ------------------------------------------------------------------------------------------- texts that are no recipes


@pytest.mark.parametrize(
    "value",
    ["2001-13-45", "0x_", "1" * 4301, "!!int x", "!!float ''", "!!bool maybe", "!!timestamp x", "!!set", "!!map", "\0"],
)
def test_values_that_the_yaml_reader_chokes_on_are_refused(value: str, tmp_path: Path) -> None:
    assert "--set about=" in refuse("distill", "gaussians", "--set", f"about={value}", "--out", tmp_path / "run")


def test_anchors_that_multiply_are_counted_without_being_visited(tmp_path: Path) -> None:
    lines = ["a0: &a0 [1, 1]", *(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 60))]
    (tmp_path / "x.yaml").write_text("\n".join([*lines, "kind: distill"]))
    assert "more than 100,000" in refuse("distill", tmp_path / "x.yaml")


def test_many_keys_and_long_values_are_told_briefly(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("kind: distill\n" + "\n".join(f"k{i}: 1" for i in range(20_000)))
    code, _, err = call("distill", tmp_path / "x.yaml")
    assert code == 2 and err.count("\n") == 51 and "mistakes more" in err
    assert len(refuse("distill", "gaussians", "--set", f"about=[{'1,' * 5000}")) < 300


@pytest.mark.parametrize("setting", ["pairs.path=''", 'pairs.path="a\\0b"'])
def test_paths_that_are_none_are_refused(setting: str, tmp_path: Path) -> None:
    assert "pairs.path" in refuse("distill", "gaussians", "--set", setting, "--out", tmp_path / "run")


def test_control_characters_do_not_reach_the_terminal(tmp_path: Path) -> None:
    message = refuse("distill", "gaussians", "--set", 'teacher.load="\\e]0;x\\a"', "--out", tmp_path / "run")
    assert "\\x1b]0;x\\x07" in message and "\x1b]0" not in message
