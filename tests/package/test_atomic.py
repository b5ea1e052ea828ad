"""A file is written whole or not at all, and what a killed writer left is swept."""

import os
from pathlib import Path

import pytest

from unistep.io import atomic
from unistep.io.atomic import atomic_create, atomic_write, sweep


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def test_a_file_is_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    for content in (b"first", b"second"):
        atomic_write(tmp_path / "a", content)
        assert (tmp_path / "a").read_bytes() == content
    assert names(tmp_path) == ["a"]


def test_the_first_of_two_creators_wins(tmp_path: Path) -> None:
    for content in (b"first", b"second"):
        atomic_create(tmp_path / "a", content)
    assert (tmp_path / "a").read_bytes() == b"first"
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("write", [atomic_write, atomic_create])
@pytest.mark.parametrize("kind", [OSError, KeyboardInterrupt])
def test_a_failure_leaves_what_was_there(write, kind: type, tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "a").write_bytes(b"before")

    def fail(descriptor: int) -> None:
        raise kind(28, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", fail)
    with pytest.raises(kind) as raised:
        write(tmp_path / "a", b"after")
    assert (tmp_path / "a").read_bytes() == b"before" and names(tmp_path) == ["a"]
    if isinstance(raised.value, OSError):
        assert raised.value.filename == str(tmp_path / "a")


def test_drafts_are_swept_by_the_name_of_their_file(tmp_path: Path) -> None:
    for name in (".a.1.tmp", ".b.c.23.tmp", ".a.tmp", "a.1.tmp"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / ".folder.1.tmp").mkdir()
    sweep(tmp_path, {"a"})
    assert names(tmp_path) == [".a.tmp", ".b.c.23.tmp", ".folder.1.tmp", "a.1.tmp"]
    sweep(tmp_path)
    assert names(tmp_path) == [".a.tmp", ".folder.1.tmp", "a.1.tmp"]
