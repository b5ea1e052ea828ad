"""Checkpoint folders: whole or absent, damaged ones refused, old ones dropped, storage errors in one line."""

import errno
import os
import resource
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from unistep.errors import UserError
from unistep.training import checkpoint
from unistep.training.checkpoint import Checkpoints, read_record


def state(value: float = 1.0) -> dict[str, Tensor]:
    image = torch.full((2, 3, 4, 4), value).to(memory_format=torch.channels_last)
    return {"a.weight": torch.full((3, 2), value), "a.step": torch.tensor(value), "n": torch.arange(3), "c": image}


def test_round_trip(tmp_path: Path) -> None:
    store, target = Checkpoints(tmp_path), state(0.0)
    path = store.save(7, state(2.5), {"step": 7, "note": [1, 2]})
    assert path.name == "step-0000007"
    assert store.latest() == path
    assert store.load(path, target) == {"step": 7, "note": [1, 2]} == read_record(path)
    for name, value in state(2.5).items():
        assert torch.equal(target[name], value)


def test_last_ones_and_the_best_are_kept(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path, keep=2)
    for step in range(1, 7):
        store.save(step, state(), {}, best=2)
    assert store.steps() == [2, 5, 6]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-0000002", "step-0000005", "step-0000006"]


def test_what_is_half_written_is_ignored_and_removed(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path)
    good = store.save(1, state(), {})
    (tmp_path / ".draft-step-0000002").mkdir()
    (tmp_path / ".draft-step-0000002" / "manifest.json").write_text("{}")
    (tmp_path / "step-0000003").mkdir()
    (tmp_path / "step-0000003" / "shard.safetensors").write_bytes(b"half")
    assert store.latest() == good
    store.save(3, state(), {})
    assert store.steps() == [1, 3]
    assert not list(tmp_path.glob(".draft*"))


@pytest.mark.parametrize("moment", ["write_tensors", "seal", "sync"])
def test_a_full_disk_leaves_the_older_ones(tmp_path: Path, moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Checkpoints(tmp_path)
    store.save(1, state(), {})

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, moment, full)
        with pytest.raises(UserError, match="No space left on device; free space"):
            store.save(2, state(), {})
    assert store.steps() == [1]
    store.save(2, state(), {})
    assert store.steps() == [1, 2]


def test_errors_inside_the_library_are_seen(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))  # larger files fail in the kernel
    try:
        with pytest.raises(UserError, match="writing the checkpoint failed: File too large; free space"):
            Checkpoints(tmp_path / "new").save(1, {"a": torch.zeros(5000)}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_file_in_the_way_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("a file")
    with pytest.raises(UserError, match="writing the checkpoint failed: (Not a directory|File exists)"):
        Checkpoints(tmp_path / "checkpoints").save(1, state(), {})


def test_damage_is_named(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path)
    path = store.save(1, state(), {})
    (file,) = path.glob("*.safetensors")
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(UserError, match=f"{file.name}: found sha256 .*, expected .*; delete the folder"):
        store.load(path, state())
    file.write_bytes(data[:-3])
    with pytest.raises(UserError, match=rf"found size {len(data) - 3}, expected {len(data)}"):
        store.load(path, state())
    file.unlink()
    with pytest.raises(UserError, match="missing, expected"):
        store.load(path, state())
    (path / "manifest.json").write_text("{")
    with pytest.raises(UserError, match="manifest.json: no readable JSON"):
        store.load(path, state())


def test_other_tensors_are_refused_by_name(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path)
    path = store.save(1, state(), {})
    with pytest.raises(
        UserError, match=r"tensor a.weight has shape \[3, 2\] in the checkpoint, the run expects \[4, 2\]"
    ):
        store.load(path, state() | {"a.weight": torch.zeros(4, 2)})
    with pytest.raises(UserError, match="tensor b has shape nothing"):
        store.load(path, state() | {"b": torch.zeros(1)})


def test_a_backup_beside_a_checkpoint_is_none(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path)
    path = store.save(3, state(), {})
    for name in ("step-0000003.bak", "step-0000009-copy", "step-9", "step-x"):
        shutil.copytree(path, tmp_path / name)
    assert store.steps() == [3] and store.latest() == path


@pytest.mark.parametrize("text", ['{"files": ', "null", "[]", '{"files": {}}',
                                  '{"files": {}, "tensors": {}, "record": null}',
                                  '{"files": {"a": 3}, "tensors": {}, "record": {}}', "[" * 100_000])  # fmt: skip
def test_a_damaged_manifest_is_one_line(tmp_path: Path, text: str) -> None:
    store = Checkpoints(tmp_path)
    path = store.save(3, state(), {})
    (path / "manifest.json").write_text(text)
    for read in (read_record, lambda folder: store.load(folder, state()), lambda _: store.averaged(3)):
        with pytest.raises(UserError, match=r"manifest\.json: .*; delete the folder to go on from the checkpoint"):
            read(path)


def test_a_foreign_file_beside_the_shards_is_named(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path)
    path = store.save(3, state(), {})
    (shard,) = path.glob("*.safetensors")
    shutil.copy(shard, path / "mine.safetensors")
    with pytest.raises(UserError, match=r"mine\.safetensors: found a file that the checkpoint does not list; move"):
        store.load(path, state())
