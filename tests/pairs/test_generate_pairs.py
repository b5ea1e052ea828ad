"""Pairs are a pure function of facts and seeds: same bytes for any request, resume point, rank count; and kept safe."""

import errno
import json
import os
import re
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from unistep.diffusion.guidance import GuidedDenoiser
from unistep.diffusion.samplers import Heun, seeded_normal
from unistep.errors import UserError
from unistep.io import atomic
from unistep.pairs import facts as facts_of_pairs
from unistep.pairs import open_pairs, row_facts
from unistep.pairs.progress import Lines

COUNT = 40  # five shards of two tiles of four


def test_a_row_is_the_solver_applied_to_its_seeds_noise_and_class(tiny: ModuleType, tmp_path: Path) -> None:
    teacher = tiny.tiny_teacher()
    pairs = tiny.make(tmp_path, 16, teacher=teacher)[torch.arange(16)]
    seeds = torch.arange(16)
    z, cond = seeded_normal(seeds, tiny.SHAPE), seeds % 3
    assert torch.equal(pairs.z, z)
    assert torch.equal(pairs.cond, cond)  # type: ignore[arg-type]
    assert torch.equal(pairs.seeds, seeds)
    torch.testing.assert_close(pairs.x, tiny.SOLVER(teacher.denoiser, teacher.process, z, cond).x)


def test_guidance_reaches_the_solver(tiny: ModuleType, tmp_path: Path) -> None:
    teacher = tiny.tiny_teacher()
    pairs = tiny.make(tmp_path, 8, teacher=teacher, guidance=2.5)[torch.arange(8)]
    guided = GuidedDenoiser(teacher.denoiser, teacher.conditioner.null, 2.5)
    torch.testing.assert_close(pairs.x, tiny.SOLVER(guided, teacher.process, pairs.z, pairs.cond).x)


@pytest.mark.parametrize("requests", [[1, 7, 8, 9, 40], [33], [40, 3]])
def test_request_sizes_and_resume_points_do_not_change_a_byte(
    tiny: ModuleType, tmp_path: Path, requests: list[int]
) -> None:
    tiny.make(tmp_path / "at once", COUNT)
    for count in requests:
        assert len(tiny.make(tmp_path / "in parts", count)) == count
    assert tiny.contents(tmp_path / "in parts") == tiny.contents(tmp_path / "at once")


def test_first_seed_shifts_the_window_over_the_same_rows(tiny: ModuleType, tmp_path: Path) -> None:
    whole = tiny.make(tmp_path / "whole", COUNT)
    part = tiny.make(tmp_path / "part", 10, first_seed=13)
    assert part.seeds_on_disk == range(8, 24)
    assert torch.equal(part[torch.arange(10)].x, whole[torch.arange(13, 23)].x)
    for name, data in tiny.contents(tmp_path / "part").items():
        assert name == "manifest.json" or data == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_two_ranks_make_what_one_makes(tiny: ModuleType, tmp_path: Path, order: tuple[int, int]) -> None:
    tiny.make(tmp_path / "one", COUNT)
    for rank in order:
        tiny.make(tmp_path / "two", COUNT, rank=rank, world=2)
    assert tiny.contents(tmp_path / "two") == tiny.contents(tmp_path / "one")


def test_a_store_whose_other_rank_is_late_names_what_is_missing(tiny: ModuleType, tmp_path: Path) -> None:
    tiny.make(tmp_path, COUNT, rank=1, world=2)
    with pytest.raises(UserError, match=r"2 of the 5 shards .* seeds-000000000000.safetensors is missing"):
        open_pairs(tmp_path, first_seed=0, count=COUNT)


class Counting(nn.Module):
    """Counts calls and remembers batch sizes; can interrupt or fail at a call."""

    def __init__(self, inner: nn.Module, at: int = -1, error: type[BaseException] = KeyboardInterrupt):
        super().__init__()
        self.inner, self.at, self.error, self.sizes = inner, at, error, list[int]()

    def forward(self, x_t: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        self.sizes.append(len(x_t))
        if len(self.sizes) == self.at:
            raise self.error
        return self.inner(x_t, t, cond)


def test_every_solve_has_the_tiles_shape_and_stored_shards_are_not_solved_again(
    tiny: ModuleType, tmp_path: Path
) -> None:
    denoiser = Counting(tiny.TinyDenoiser())
    teacher = tiny.tiny_teacher(denoiser=denoiser)
    tiny.make(tmp_path, 11, teacher=teacher)
    assert denoiser.sizes == [4] * (5 * 4)  # Heun(3) asks 5 times; 11 rows are four tiles of four
    tiny.make(tmp_path, 16, teacher=teacher)
    assert len(denoiser.sizes) == 20


def test_ctrl_c_keeps_what_is_stored_and_says_how_to_go_on(tiny: ModuleType, tmp_path: Path) -> None:
    tiny.make(tmp_path / "undisturbed", COUNT)
    teacher = tiny.tiny_teacher(denoiser=Counting(tiny.TinyDenoiser(), at=33))
    with pytest.raises(KeyboardInterrupt, match="24 of 40 pairs are stored; run the same command again"):
        tiny.make(tmp_path / "out", COUNT, teacher=teacher)
    assert len(open_pairs(tmp_path / "out")) == 24
    tiny.make(tmp_path / "out", COUNT)
    assert tiny.contents(tmp_path / "out") == tiny.contents(tmp_path / "undisturbed")


def test_a_full_disk_is_one_line_and_loses_nothing(
    tiny: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []

    def fsync(_: int) -> None:
        written.append(1)
        if len(written) == 4:  # the manifest and two shards are there
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(atomic.os, "fsync", fsync)
    with pytest.raises(UserError, match="No space left on device; .* run the same command again") as error:
        tiny.make(tmp_path, COUNT)
    assert "\n" not in str(error.value)
    assert len(open_pairs(tmp_path)) == 16
    assert not list(tmp_path.glob(".*"))
    assert len(tiny.make(tmp_path, COUNT)) == COUNT


def test_a_folder_that_cannot_be_made_is_one_line_before_any_solving(tiny: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    denoiser = Counting(tiny.TinyDenoiser())
    with pytest.raises(UserError, match="file/pairs: Not a directory"):
        tiny.make(tmp_path / "file" / "pairs", COUNT, teacher=tiny.tiny_teacher(denoiser=denoiser))
    assert not denoiser.sizes


def test_left_overs_of_a_killed_writer_are_swept(tiny: ModuleType, tmp_path: Path) -> None:
    tiny.make(tmp_path, 8)
    (tmp_path / ".seeds-000000000008.safetensors.4711.tmp").write_bytes(b"half")
    (tmp_path / ".manifest.json.4711.tmp").write_bytes(b"half")  # of its beginning, too
    tiny.make(tmp_path, COUNT)
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"guidance": 2.0}, "guidance: found 1.0, expected 2.0"),
        ({"sampler": Heun(4)}, "solver.num_steps: found 3, expected 4"),
        ({"dtype": "float16"}, "dtype: found float32, expected float16"),
        ({"tile": 8}, "tile: found 4, expected 8"),
        ({"rows_per_shard": 16}, "rows_per_shard: found 8, expected 16"),
        ({"threads": 2}, "threads: found 1, expected 2"),
    ],
)
def test_a_store_made_another_way_is_refused(
    tiny: ModuleType, tmp_path: Path, change: dict[str, object], field: str
) -> None:
    tiny.make(tmp_path, 8)
    before = tiny.contents(tmp_path)
    with pytest.raises(UserError, match=f"manifest.json: {field}; .* another folder"):
        tiny.make(tmp_path, 16, **change)
    assert tiny.contents(tmp_path) == before


def test_another_teacher_is_refused(tiny: ModuleType, tmp_path: Path) -> None:
    tiny.make(tmp_path, 8)
    with pytest.raises(UserError, match=f"teacher: found {'a' * 64}, expected {'b' * 64}"):
        tiny.make(tmp_path, 16, teacher=tiny.tiny_teacher("b" * 64))


def test_going_on_takes_the_thread_count_the_store_was_begun_with(tiny: ModuleType, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    tiny.make(tmp_path, 8, threads=2)
    store = tiny.make(tmp_path, 16, threads=None)
    assert store.manifest["facts"]["threads"] == 2
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("change", "message"),
    [({"count": 0}, "pairs.count: found 0"), ({"first_seed": -1}, "pairs.first_seed: found -1"),
     ({"tile": 0}, "pairs.tile: found 0"), ({"rows_per_shard": 6}, "pairs.rows_per_shard: found 6"),
     ({"dtype": "uint8"}, "pairs.dtype: found 'uint8'"), ({"rank": 2, "world": 2}, "pairs.rank: found 2")],
)  # fmt: skip
def test_senseless_arguments_are_named(
    tiny: ModuleType, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        tiny.make(tmp_path / "out", **{"count": 8, **change})
    assert not (tmp_path / "out").exists()


def test_guidance_of_an_unconditional_teacher_is_refused(tiny: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="guidance: found 3, expected 1"):
        tiny.make(tmp_path, 8, teacher=tiny.tiny_teacher(conditional=False), guidance=3.0)


class Overflowing(nn.Module):
    """Answers 1e5, too large for float16."""

    def forward(self, x_t: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        return torch.full_like(x_t, 1e5)


def test_answers_that_are_not_finite_name_the_seed_and_are_not_stored(tiny: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="seed 0: found an x that is not finite in float16"):
        tiny.make(tmp_path, 8, teacher=tiny.tiny_teacher(denoiser=Overflowing()), dtype="float16")
    assert list(tiny.contents(tmp_path)) == ["manifest.json"]


def test_the_manifest_holds_every_fact_and_every_shard(tiny: ModuleType, tmp_path: Path) -> None:
    tiny.make(tmp_path, 16)
    manifest = json.loads((tmp_path / "manifest.json").read_text(), parse_constant=pytest.fail)  # strict JSON
    facts = manifest["facts"]
    assert facts.items() >= row_facts(tiny.tiny_teacher(), tiny.SOLVER).items()
    assert {"tile", "rows_per_shard", "device", "threads", "torch", "float32_matmul"} <= facts.keys()
    assert [(e["first_seed"], e["rows"]) for e in manifest["shards"].values()] == [(0, 8), (8, 8)]
    assert all((tmp_path / name).stat().st_size == e["bytes"] for name, e in manifest["shards"].items())


@pytest.mark.parametrize("allowed", [False, True])
def test_a_gpus_facts_tell_how_its_convolutions_round(allowed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts_of_pairs, "device_name", str)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", allowed)
    facts = {d: facts_of_pairs.kernel_facts(tile=8, rows_per_shard=8, device=torch.device(d), threads=1)
             for d in ("cpu", "cuda")}  # fmt: skip
    assert facts["cuda"]["cudnn_tf32"] is allowed
    assert "cudnn_tf32" not in facts["cpu"]


def test_the_bar_shows_rate_and_time_left(
    tiny: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # a terminal
    monkeypatch.setenv("NO_COLOR", "1")
    tiny.make(tmp_path, 16, progress=True)
    shown = capsys.readouterr().err
    assert "16/16" in shown
    assert "pairs/s" in shown
    assert "left" in shown


def test_without_a_terminal_there_is_a_line_every_so_often(
    tiny: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny.make(tmp_path, 16, progress=True)
    first, last = capsys.readouterr().err.splitlines()  # four tiles take no quarter of a minute
    assert re.fullmatch(r"pairs 4/16  [\d.e+]+ pairs/s  0:00 left", first)
    assert re.fullmatch(r"pairs 16/16  [\d.e+]+ pairs/s  0:00 left", last)
    tiny.make(tmp_path, 16, progress=True)  # all there: nothing to tell
    tiny.make(tmp_path, 24, progress=False)
    assert capsys.readouterr().err == ""


def test_lines_come_by_the_clock_and_count_what_this_call_makes() -> None:
    said: list[str] = []
    now = [0.0]
    lines = Lines(400, 100, said.append, lambda: now[0])
    for _ in range(6):
        now[0] += 10
        lines.advance(50)
    assert said == [
        "pairs 150/400  5 pairs/s  0:50 left",  # the first at once
        "pairs 250/400  5 pairs/s  0:30 left",  # then when 15 seconds have passed
        "pairs 350/400  5 pairs/s  0:10 left",
        "pairs 400/400  5 pairs/s  0:00 left",
    ]
