"""What goes wrong while a verb works: one line, code 2 or 130, nothing lost, and the same command goes on."""

import json
import resource
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import tiny_recipes
import yaml
from typer.testing import CliRunner

import unistep.evaluation.evaluate
import unistep.pairs.generate
import unistep.training.loop
from unistep.cli import app
from unistep.evaluation.metrics.kid import KernelDistance
from unistep.evaluation.throughput import Timing

SOLVER = {"name": "heun", "num_steps": 2}
TRAINING = {"steps": 6, "batch": 4, "ema": {"half_life": 3}, "checkpoint": {"every_steps": 2}, "log_every": 2}
TEACH = {
    **tiny_recipes.TEACH,
    "training": TRAINING,
    "evaluation": {"judge": "train", "judge_steps": 2, "samples_during_training": 130, "solver": SOLVER},
}  # fmt: skip
SILENT_TEACH = {**TEACH, "evaluation": {"judge": None, "solver": SOLVER}}


def call(*arguments: str | Path) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of the program, in this process."""
    result = CliRunner().invoke(app, [str(a) for a in arguments], prog_name="unistep", catch_exceptions=False)
    return result.exit_code, result.stdout, result.stderr


def succeed(*arguments: str | Path) -> None:
    assert call(*arguments, "--quiet") == (0, "", "")


def refuse(*arguments: str | Path) -> str:
    """The one line of a refusal; quiet, so that it is all there is."""
    code, out, err = call(*arguments, "--quiet")
    assert (code, out) == (2, ""), err
    assert err.startswith("error: ") and err.count("\n") == 1
    return err


def write_recipe(path: Path, recipe: dict) -> Path:
    path.write_text(yaml.safe_dump(recipe))
    return path


def weights(run: Path) -> bytes:
    return (run / "teacher" / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed, quiet run of `teach` with a judge."""
    folder = tmp_path_factory.mktemp("taught")
    succeed("teach", write_recipe(folder / "tiny.yaml", TEACH), "--out", folder / "run")
    return folder / "run"


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """The same teacher without a judge: the same weights."""
    return write_recipe(tmp_path / "tiny.yaml", SILENT_TEACH)


@pytest.fixture
def distill_recipe(tmp_path: Path, taught: Path) -> Path:
    recipe = {
        "kind": "distill",
        "about": "a tiny generator",
        "teacher": {"load": str(taught), "certify": False},
        "pairs": {"count": 24, "tile": 8, "solver": SOLVER},
        "method": {"lambda_reg": 1, "regression": "l2"},
        "training": TRAINING,
        "evaluation": {"judge": str(taught / "judge"), "samples": 1000, "solver": SOLVER},
    }
    return write_recipe(tmp_path / "distill.yaml", recipe)


# -------------------------------------------------------------------------------------------------------- full disks


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """Writing beyond so many bytes fails, as on a full disk (Python ignores the signal that comes with it)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [200, 20_000])
def test_no_room_for_a_file(size: int, recipe: Path, taught: Path, tmp_path: Path) -> None:
    with files_no_larger_than(size):
        assert "File too large; free s" in refuse("teach", recipe, "--out", tmp_path / "run").replace(" space", " s")
    succeed("teach", recipe, "--out", tmp_path / "run")
    assert weights(tmp_path / "run") == weights(taught)


def test_no_room_for_pairs(distill_recipe: Path, tmp_path: Path) -> None:
    with files_no_larger_than(2500):
        message = refuse("pairs", distill_recipe, "--out", tmp_path / "run")
    assert f"{tmp_path / 'run' / 'pairs'}: File too large" in message
    succeed("pairs", distill_recipe, "--out", tmp_path / "run")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[tuple[Path, Callable[[], object]]]:
    """A folder on a disk of 0.4 MB, and what makes it larger."""
    disk = tmp_path / "disk"
    disk.mkdir()
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(disk)], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no disk can be mounted here")
    try:
        yield disk, lambda: subprocess.run(["mount", "-o", "remount,size=20m", str(disk)], check=True)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_loses_nothing(small_disk: tuple[Path, Callable[[], object]], recipe: Path, taught: Path) -> None:
    disk, enlarge = small_disk
    message = refuse("teach", recipe, "--out", disk / "run")
    assert "writing the checkpoint failed: No space left on device; free space" in message
    assert (disk / "run/checkpoints/step-0000002/manifest.json").exists()
    enlarge()
    succeed("teach", recipe, "--out", disk / "run")
    assert weights(disk / "run") == weights(taught)


def test_a_disk_that_is_read_only(small_disk: tuple[Path, Callable[[], object]], recipe: Path) -> None:
    disk, _ = small_disk
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    assert "Read-only file system; choose another folder with --out" in refuse("teach", recipe, "--out", disk / "run")


def test_a_file_in_the_folders_place(recipe: Path, distill_recipe: Path, taught: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "found a file, expected a folder" in refuse("teach", recipe, "--out", tmp_path / "file")
    assert "choose another place with --out" in refuse("teach", recipe, "--out", tmp_path / "file" / "run")
    assert "choose another place with --out" in refuse("sample", taught, "--num", "1", "--out", tmp_path / "file")
    override = f"pairs.path={tmp_path / 'file'}"
    message = refuse("distill", distill_recipe, "--set", override, "--out", tmp_path / "run")
    assert "file: File exists; expected a folder" in message


# ------------------------------------------------------------------------------------------- recipes and their runs


def test_a_run_goes_on_with_its_own_recipe_only(recipe: Path, taught: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert "network.model_chanels: unknown key; did you mean model_channels?" in refuse(
        "teach", recipe, "--set", "network.model_chanels=4", "--out", run
    )
    succeed("teach", recipe, "--out", run)  # nothing was learnt, so the mended recipe takes over
    message = refuse("teach", recipe, "--set", "training.batch=5", "--out", run)
    assert f"training.batch: found 5, expected 4 as in {run / 'recipe.yaml'}; restore the setting" in message
    assert weights(run) == weights(taught)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("network.model_channels=7", "network.model_channels: found 7, expected an even number"),
        ("network.channel_mult=2", "network.channel_mult: found 2, expected a list"),
        ("network.model_channels=2", "network.model_channels: found 2 features of the noise level, expected 4 or more"),
        ("network.label_dim='10'", "network.label_dim: found '10', expected 10, the number of classes (0, 1, 2"),
        ("network.type=[unet]", "network.type: found ['unet'], expected one of unet, mlp"),
        ("network.num_blocks=0", "network.num_blocks: found 0, expected 1 or more"),
        ("network.num_heads=3", "network.num_heads: found 3, expected a divisor"),
        ("network.dropout=2", "network.dropout: found 2, expected 0 or more"),
        ("network.patch='2'", "network.patch: found '2', expected a whole number"),
        ("network.img_resolution=16", "network.img_resolution: found 16, expected 8"),
        ("process={type: edm, sigma_maxx: 3}", "process.sigma_maxx: unknown key; did you mean sigma_max?"),
        ("process={type: flow}", "process.type: found 'flow', expected 'edm'"),
        ("process={type: edm, rho: seven}", "process.rho: found 'seven', expected a number"),
        ("evaluation.judge=nowhere", "judge: found no folder nowhere"),
        ("init=nowhere", "nowhere/config.json: not found"),
        ("training.optim={denoser: {lr: 1e-3}}", "training.optim.denoser: no such network; expected one of default, d"),
    ],
)
def test_mistakes_found_when_teaching(override: str, words: str, recipe: Path, tmp_path: Path) -> None:
    assert words in refuse("teach", recipe, "--set", override, "--out", tmp_path / "run")


def test_a_judge_that_could_not_judge_is_found_before_teaching(tmp_path: Path) -> None:
    (tmp_path / "judged.yaml").write_text(json.dumps(TEACH))
    few = "evaluation.samples_during_training=10"
    found = refuse("teach", tmp_path / "judged.yaml", "--set", few, "--out", tmp_path / "run")
    assert "evaluation.samples_during_training: found 10, expected at least 100" in found
    assert not (tmp_path / "run" / "checkpoints").exists()
    succeed("teach", tmp_path / "judged.yaml", "--out", tmp_path / "run")


def test_guidance_without_conditions(recipe: Path, tmp_path: Path) -> None:
    overrides = ("--set", "network.label_dim=0", "--set", "guidance=2")
    assert "guidance: found 2, expected 1: network.label_dim is 0" in refuse(
        "teach", recipe, *overrides, "--out", tmp_path / "run"
    )


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("training.optim={default: {betas: [2, 0.9]}}", "training.optim.default.betas.0: found 2"),
        ("name=../elsewhere", "name: found '../elsewhere'"),
        (
            "method.perceptual_network=embedded:fashion-mnist",
            "found one for samples of shape [1, 28, 28], expected",
        ),
        ("teacher={load: null, teach: null}", "teacher: found neither load nor teach, expected one of them"),
        ("method.dm_from_step=100", "method.dm_from_step: found 100, expected less than training.steps"),
        ("evaluation.judge=embedded:fashion-mnist", "judge: found images uint8 [1, 1, 8, 8]"),
        ("evaluation.samples=10", "evaluation.samples: found 10, expected at least 20"),
        ("evaluation.beside={other: nowhere}", "nowhere/config.json: not found"),
        ("method.perceptual_network=nowhere", "perceptual network: found no folder nowhere"),
        ("training.optim={genrator: {lr: 1e-3}}", "training.optim.genrator: no such network; expected one of default"),
        ("generator.u_init=2", "generator.u_init: found 2, expected less than or equal to 1"),
        ("teacher.load=gaussians:ring9", "teacher: found 'gaussians:ring9', expected one of ring8"),
    ],
)
def test_mistakes_found_before_anything_costly(override: str, words: str, distill_recipe: Path, tmp_path: Path) -> None:
    assert words in refuse("distill", distill_recipe, "--set", override, "--out", tmp_path / "run")
    assert not list((tmp_path / "run").glob("pairs/seeds-*"))


def test_a_run_of_the_wrong_kind(taught: Path, recipe: Path, tmp_path: Path) -> None:
    assert f"{taught}: found a run of teach, expected a run of distill" in refuse("evaluate", taught)
    assert f"use `unistep teach {recipe}`" in refuse("distill", recipe, "--out", tmp_path / "run")


# ----------------------------------------------------------------------------------------------------- damaged files


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def test_a_damaged_checkpoint(recipe: Path, taught: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    succeed("teach", recipe, "--out", run)
    newest = max((run / "checkpoints").iterdir())
    cut(next(newest.glob("*.safetensors")))
    assert "delete the folder to go on from the checkpoint before it" in refuse("teach", recipe, "--out", run)
    shutil.rmtree(newest)
    succeed("teach", recipe, "--out", run)
    assert weights(run) == weights(taught)


@pytest.mark.parametrize(
    ("file", "words"), [("model.safetensors", "no readable saf"), ("config.json", "no readable J")]
)
def test_a_damaged_teacher(file: str, words: str, taught: Path, distill_recipe: Path, tmp_path: Path) -> None:
    shutil.copytree(taught / "teacher", tmp_path / "copy")
    cut(tmp_path / "copy" / file)
    assert words in refuse("sample", tmp_path / "copy")
    override = f"teacher.load={tmp_path / 'copy'}"
    assert words in refuse("distill", distill_recipe, "--set", override, "--out", tmp_path / "run")


def test_damaged_records(taught: Path, recipe: Path, tmp_path: Path) -> None:
    succeed("teach", recipe, "--out", tmp_path / "run")
    (tmp_path / "run" / "run.json").write_text("{")
    assert "run.json: no readable JSON" in refuse("teach", recipe, "--out", tmp_path / "run")
    (tmp_path / "config.json").write_text('{"format": "unistep-denoiser/1"}')
    shutil.copy(taught / "teacher" / "model.safetensors", tmp_path)
    assert "config.json: network: missing" in refuse("sample", tmp_path)


# ------------------------------------------------------------------------------------------------------------ Ctrl-C


def interrupting(function: Callable, call_number: int) -> Callable:
    """The function, with a Ctrl-C in the middle of one call."""
    calls = iter(range(1, 1000))

    def interrupted(*args: object, **kwargs: object) -> object:
        if next(calls) == call_number:
            signal.raise_signal(signal.SIGINT)
        return function(*args, **kwargs)

    return interrupted


def test_ctrl_c_while_teaching(recipe: Path, taught: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(unistep.training.loop, "train_step", interrupting(unistep.training.loop.train_step, 3))
        code, out, err = call("teach", recipe, "--out", tmp_path / "run", "--quiet")
    assert (code, out) == (130, "")
    assert err == "interrupted: run the same command again to go on\n"
    assert (tmp_path / "run/checkpoints/step-0000003/manifest.json").exists()
    succeed("teach", recipe, "--out", tmp_path / "run")
    assert weights(tmp_path / "run") == weights(taught)


def test_ctrl_c_in_the_last_step(distill_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(unistep.training.loop, "train_step", interrupting(unistep.training.loop.train_step, 6))
        code, out, err = call("distill", distill_recipe, "--out", run, "--quiet")
    assert (code, out, err) == (130, "", "interrupted: run the same command again to go on\n")
    assert (run / "checkpoints/step-0000006/manifest.json").exists() and not (run / "generator").exists()
    succeed("distill", distill_recipe, "--out", run)
    assert (run / "generator").is_dir() and (run / "evaluation.json").is_file()


def test_ctrl_c_while_making_pairs(distill_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(unistep.pairs.generate, "write_shard", interrupting(unistep.pairs.generate.write_shard, 2))
        assert call("pairs", distill_recipe, "--out", tmp_path / "run", "--quiet")[0] == 130
    assert len(list((tmp_path / "run").glob("pairs/seeds-*"))) == 1
    succeed("pairs", distill_recipe, "--out", tmp_path / "run")
    assert len(list((tmp_path / "run").glob("pairs/seeds-*"))) == 3


# ------------------------------------------------------------------------------------------------- quiet, and tables


def test_quiet_is_silent_and_the_table_fits_a_terminal(
    distill_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timing = Timing(device="cpu", threads=1, latency_ms=12.3, images_per_second=12345.6, batch=256, repeats=10)
    monkeypatch.setattr(unistep.evaluation.evaluate, "measure", lambda make, device: timing)
    monkeypatch.setattr(KernelDistance.__init__, "__defaults__", (1000, 2, 0))  # two subsets instead of fifty
    run = tmp_path / "run"
    succeed("distill", distill_recipe, "--out", run)
    succeed("evaluate", run)
    code, out, err = call("evaluate", run)
    assert code == 0
    assert "report: " in err
    table = out[: out.index(" samples per row")].splitlines()[:-1]
    assert all(any(title in line for line in table) for title in ("FD", "KID", "NFE")), out
    assert max(map(len, table)) <= 80, out
    code, out, err = call("sample", run, "--num", "2")
    assert (code, err) == (0, "")
    assert Path(out.strip()).is_file()
