"""Reading pairs: order, windows, types, laziness; and every kind of damage refused by name."""

import json
import os
import shutil
from pathlib import Path
from types import ModuleType

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from unistep.errors import UserError
from unistep.pairs import PairStore, noise, open_pairs, pair_batch, row_facts, store

COUNT = 40
SHARD = "seeds-000000000008.safetensors"


@pytest.fixture(scope="module")
def made(tiny: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    tiny.make(folder, COUNT)
    return folder


@pytest.fixture
def pairs(made: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(made, tmp_path / "pairs"))


def all_rows(pairs: PairStore) -> torch.Tensor:
    return pairs[torch.arange(len(pairs))].x


def test_rows_come_in_the_order_asked_for(made: Path) -> None:
    pairs = open_pairs(made)
    index = torch.tensor([39, 0, 8, 7, 8, 21])
    rows = pairs[index]
    assert torch.equal(rows.x, all_rows(pairs)[index])
    assert torch.equal(rows.seeds, index)
    assert torch.equal(rows.cond, index % 3)  # type: ignore[arg-type]
    assert len(rows) == 6


@pytest.mark.parametrize("index", [[], [-1], [40]])
def test_rows_outside_are_refused(made: Path, index: list[int]) -> None:
    with pytest.raises(IndexError, match=r"expected at least one, each 0\.\.39"):
        open_pairs(made)[torch.tensor(index, dtype=torch.int64)]


def test_a_window_sees_only_its_rows(made: Path) -> None:
    whole, window = open_pairs(made), open_pairs(made, first_seed=5, count=20)
    assert len(window) == 20
    assert torch.equal(all_rows(window), all_rows(whole)[5:25])
    shards = list(window.by_shard())
    assert [len(part) for part in shards] == [3, 8, 8, 1]
    assert torch.equal(torch.cat([part.seeds for part in shards]), torch.arange(5, 25))


def test_a_window_larger_than_the_store_is_refused(made: Path) -> None:
    with pytest.raises(UserError, match="5 of the 6 shards that hold 41 pairs"):
        open_pairs(made, first_seed=0, count=41)
    with pytest.raises(UserError, match="found a request for 0 pairs"):
        open_pairs(made, count=0)


def test_a_training_step_takes_each_pair_once_per_epoch(made: Path) -> None:
    pairs = open_pairs(made)
    epoch = torch.cat([pair_batch(pairs, 8, seed=3, step=step).seeds for step in range(5)])
    assert torch.equal(epoch.sort().values, torch.arange(40))
    assert torch.equal(pair_batch(pairs, 8, 3, 7).x, pair_batch(open_pairs(made), 8, 3, 7).x)


def test_half_precision_is_rounded_storage(tiny: ModuleType, tmp_path: Path, made: Path) -> None:
    half = tiny.make(tmp_path, 8, dtype="float16")
    with safe_open(tmp_path / "seeds-000000000000.safetensors", framework="pt") as shard:
        assert shard.get_tensor("x").dtype == torch.float16
    assert all_rows(half).dtype == torch.float32
    assert torch.equal(all_rows(half), all_rows(open_pairs(made))[:8].half().float())


def test_an_unconditional_store_has_no_condition(tiny: ModuleType, tmp_path: Path) -> None:
    assert tiny.make(tmp_path, 8, teacher=tiny.tiny_teacher(conditional=False))[torch.arange(3)].cond is None


def test_z_is_the_same_kept_or_drawn_again(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, index = open_pairs(made), torch.tensor([3, 30, 3])
    monkeypatch.setattr(noise, "KEPT_BYTES", 0)
    drawn = open_pairs(made)
    for _ in range(2):
        assert torch.equal(kept[index].z, drawn[index].z)


def test_expected_facts_are_compared(tiny: ModuleType, made: Path) -> None:
    facts = row_facts(tiny.tiny_teacher(), tiny.SOLVER)
    assert len(open_pairs(made, facts)) == COUNT
    with pytest.raises(UserError, match=r"manifest.json: guidance: found 1\.0, expected 3\.0"):
        open_pairs(made, row_facts(tiny.tiny_teacher(), tiny.SOLVER, guidance=3.0))
    with pytest.raises(UserError, match="manifest.json: colour: found nothing, expected red"):
        open_pairs(made, {"colour": "red"})


def test_other_noise_from_the_same_seeds_is_refused(pairs: Path) -> None:
    manifest = json.loads((pairs / "manifest.json").read_text())
    manifest["facts"]["noise"][0] += 1e-3
    (pairs / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="noise: seed 0 now draws"):
        open_pairs(pairs)


# Damage.


def flip(file: Path, position: int, bit: int = 0) -> None:
    data = bytearray(file.read_bytes())
    data[position] ^= 1 << bit
    file.write_bytes(data)


def test_a_corrupted_shard_is_refused_by_name_when_it_is_touched(pairs: Path) -> None:
    flip(pairs / SHARD, -3)
    opened = open_pairs(pairs)
    assert len(opened[torch.tensor([0, 39])]) == 2  # other shards are fine
    with pytest.raises(UserError, match=f"{SHARD}: checksum: found sha256 .* it is corrupted; delete this one file"):
        opened[torch.tensor([0, 12])]
    assert len(open_pairs(pairs, verify="size")[torch.tensor([12])]) == 1  # the quick check does not read the rows


def test_the_checksum_covers_the_header(pairs: Path) -> None:
    flip(pairs / SHARD, (pairs / SHARD).read_bytes().index(b'"seeds"') + 1)  # a tensor's name, still valid JSON
    with pytest.raises(UserError, match=f"{SHARD}: checksum"):
        open_pairs(pairs)[torch.tensor([8])]


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), header=st.booleans())
def test_any_flipped_bit_is_noticed(pairs: Path, place: float, bit: int, header: bool) -> None:
    whole = (pairs / SHARD).read_bytes()
    length = 8 + int.from_bytes(whole[:8], "little") if header else len(whole)
    flip(pairs / SHARD, int(place * length), bit)
    with pytest.raises(UserError, match=SHARD) as error:
        open_pairs(pairs)[torch.tensor([8])]
    assert "\n" not in str(error.value)
    (pairs / SHARD).write_bytes(whole)


def test_another_digit_of_the_same_number_is_noticed(pairs: Path) -> None:
    written, other = b"-0.13264712691307068", b"-0.13264712691307069"  # of seed 0's noise
    assert float(written) == float(other)
    (pairs / SHARD).write_bytes((pairs / SHARD).read_bytes().replace(written, other, 1))
    with pytest.raises(UserError, match=f"{SHARD}: no readable header"):
        open_pairs(pairs)[torch.tensor([8])]


@pytest.mark.parametrize("size", [0, 5, 100, -1])
def test_a_truncated_shard_is_refused_by_reader_and_writer(tiny: ModuleType, pairs: Path, size: int) -> None:
    data = (pairs / SHARD).read_bytes()
    (pairs / SHARD).write_bytes(data[:size])
    with pytest.raises(UserError, match=rf"{SHARD}: (no readable header|found \d+ bytes, expected {len(data)})"):
        all_rows(open_pairs(pairs, verify="size"))
    with pytest.raises(UserError, match=f"{SHARD}: .* delete this one file and run"):
        tiny.make(pairs, COUNT)
    (pairs / SHARD).unlink()
    tiny.make(pairs, COUNT)
    assert (pairs / SHARD).read_bytes() == data


def test_a_flipped_bit_that_the_writer_left_is_found_on_reading(tiny: ModuleType, pairs: Path) -> None:
    """Going on looks at headers and sizes alone: reading every stored row again would cost more than it saves."""
    whole = (pairs / SHARD).read_bytes()
    flip(pairs / SHARD, -3)
    store = tiny.make(pairs, COUNT)
    assert (pairs / SHARD).read_bytes() != whole
    with pytest.raises(UserError, match=f"{SHARD}: checksum: found sha256 .* it is corrupted; delete this one file"):
        store[torch.tensor([12])]
    (pairs / SHARD).unlink()
    assert len(tiny.make(pairs, COUNT)[torch.arange(COUNT)]) == COUNT
    assert (pairs / SHARD).read_bytes() == whole


def test_a_foreign_shard_is_refused_with_the_differing_fact(tiny: ModuleType, tmp_path: Path, pairs: Path) -> None:
    tiny.make(tmp_path / "other", 16, guidance=2.0)
    shutil.copy(tmp_path / "other" / SHARD, pairs / SHARD)
    for use in (lambda: all_rows(open_pairs(pairs)), lambda: tiny.make(pairs, COUNT)):
        with pytest.raises(UserError, match=rf"{SHARD}: guidance: found 2\.0, expected 1\.0"):
            use()


def test_a_shard_under_another_name_is_refused(pairs: Path) -> None:
    shutil.copy(pairs / "seeds-000000000000.safetensors", pairs / SHARD)
    with pytest.raises(UserError, match=f"{SHARD}: first_seed: found 0, expected 8"):
        all_rows(open_pairs(pairs))


def test_a_shard_that_contradicts_the_table_is_refused(pairs: Path) -> None:
    manifest = json.loads((pairs / "manifest.json").read_text())
    manifest["shards"][SHARD]["sha256"] = "0" * 64
    (pairs / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=f"{SHARD}: checksum"):
        all_rows(open_pairs(pairs))


def test_a_file_that_is_no_shard_is_refused(pairs: Path) -> None:
    (pairs / SHARD).write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    with pytest.raises(UserError, match=f"{SHARD}: no readable header"):
        all_rows(open_pairs(pairs))


def test_a_lost_shard_is_missed(pairs: Path) -> None:
    (pairs / SHARD).unlink()
    with pytest.raises(UserError, match=f"4 of the 5 shards .*{SHARD} is missing"):
        open_pairs(pairs)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "not found; expected a folder of pairs"),
        ("{", "no readable JSON"),
        ("[]", "found JSON of type list, expected an object"),
        ('{"format": "other"}', "found format 'other'"),
        ('{"format": "unistep-pairs/1"}', "expected a whole 'unistep-pairs/1'"),
    ],
)
def test_a_damaged_manifest_is_refused(pairs: Path, text: str | None, message: str) -> None:
    (pairs / "manifest.json").unlink()
    if text is not None:
        (pairs / "manifest.json").write_text(text)
    with pytest.raises(UserError, match=f"manifest.json: .*{message}|manifest.json: {message}"):
        open_pairs(pairs)


def test_a_lost_manifest_is_written_anew_from_the_shards(tiny: ModuleType, pairs: Path) -> None:
    before = tiny.contents(pairs)
    (pairs / "manifest.json").unlink()
    tiny.make(pairs, COUNT)
    assert tiny.contents(pairs) == before


def test_a_store_without_shards_is_refused(pairs: Path) -> None:
    for file in pairs.glob("*.safetensors"):
        file.unlink()
    with pytest.raises(UserError, match="found no pairs"):
        open_pairs(pairs)


# Laziness.


def resident_anonymous() -> int:
    """Bytes of this process's memory that no file backs."""
    fields = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["RssAnon"].split()[0]) * 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_reading_maps_files_instead_of_loading_them(
    tiny: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    big = torch.nn.Module()
    teacher = tiny.tiny_teacher(denoiser=big, conditional=False)
    object.__setattr__(teacher, "shape", (1, 128, 128))  # 16 rows of 64 KiB a shard: 12 MiB in all
    big.forward = lambda x_t, t, cond: x_t * 0.5  # type: ignore[method-assign]
    monkeypatch.setattr(noise, "KEPT_BYTES", 0)
    monkeypatch.setattr(store, "MAPPED_SHARDS", 4)
    pairs = tiny.make(tmp_path, 192, teacher=teacher, tile=16, rows_per_shard=16)
    pairs[torch.arange(4)]
    files, before, peak = len(os.listdir("/proc/self/fd")), resident_anonymous(), 0
    for rows in torch.randperm(192).split(8):  # touches all shards over and over
        pairs[rows]
        peak = max(peak, resident_anonymous() - before)
    assert peak < 2 << 20
    assert len(pairs._mapped) <= 4
    assert len(os.listdir("/proc/self/fd")) <= files + 4
