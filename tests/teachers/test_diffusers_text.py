"""Prompts and their embeddings: read once, kept in shards, refused in one line when something is wrong."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import tiny_pipelines as tiny
import torch
from hypothesis import given
from hypothesis import strategies as st

from unistep.errors import UserError
from unistep.teachers.conditioners import conditioner_from_config
from unistep.teachers.diffusers import Options, embeddings, teacher_from_pipeline, text
from unistep.teachers.diffusers.conditioner import TextConditioner
from unistep.teachers.diffusers.embeddings import Embeddings, compute, open_embeddings
from unistep.teachers.diffusers.families import FAMILIES
from unistep.teachers.diffusers.prompts import read_prompts
from unistep.teachers.diffusers.text import TextEncoder

PROMPTS = tuple(f"prompt {i}" for i in range(11))


# ---------------------------------------------------------------------------------------------------------- prompts


def write_parquet(path: Path, table: dict[str, list[Any]]) -> Path:
    pyarrow.parquet.write_table(pyarrow.table(table), path)
    return path


def test_prompts_of_every_form_are_the_same(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("a red fox\n\n  two boats \n")
    (tmp_path / "p.jsonl").write_text('{"caption": "a red fox", "id": 3}\n"two boats"\n')
    write_parquet(tmp_path / "p.parquet", {"id": [1, 2], "text": ["a red fox", "two boats"]})
    for name in ("p.txt", "p.jsonl", "p.parquet"):
        assert read_prompts(str(tmp_path / name)) == ("a red fox", "two boats")


def test_prompts_of_a_dataset(monkeypatch: pytest.MonkeyPatch) -> None:
    class Rows(dict[str, list[str]]):
        column_names = ("image", "prompt")

    asked: list[tuple[str, str]] = []

    def load_dataset(name: str, subset: None, *, split: str) -> Rows:
        asked.append((name, split))
        return Rows(prompt=["a", "b"])

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    assert read_prompts("datasets:someone/prompts") == read_prompts("datasets:someone/prompts:test") == ("a", "b")
    assert asked == [("someone/prompts", "train"), ("someone/prompts", "test")]
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"^datasets: not installed .*unistep\[datasets\]"):
        read_prompts("datasets:someone/prompts")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.txt", b"\n \n", "found no prompt, expected at least one"),
        ("p.txt", b"caf\xe9", "no UTF-8 text"),
        ("p.jsonl", b'{"prompt": "a"}\n{"prompt": 3}', "row 2: found 3, expected a text"),
        ("p.jsonl", b'{"id": 3}', "row 1: found the columns id, expected one of prompt, text, caption"),
        ("p.jsonl", b"{", "row 1: no readable JSON"),
        ("p.jsonl", b"[1]", "row 1: found \\[1\\], expected an object with one of prompt"),
        ("p.parquet", b"PAR1", "no readable parquet file"),
        ("p.csv", b"a", "expected a file ending in .txt, .jsonl, .parquet, or datasets:ID"),
    ],
)
def test_bad_prompts_are_refused_in_one_line(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        read_prompts(str(tmp_path / name))
    assert "\n" not in str(caught.value)


def test_a_parquet_row_without_text_is_named(tmp_path: Path) -> None:
    file = write_parquet(tmp_path / "p.parquet", {"prompt": ["a", None]})
    with pytest.raises(UserError, match="row 2: found None, expected a text"):
        read_prompts(str(file))
    with pytest.raises(UserError, match="found no file .*nowhere.txt"):
        read_prompts(str(tmp_path / "nowhere.txt"))


# ------------------------------------------------------------------------------------------------------- embeddings


def encode(prompts: Any) -> dict[str, torch.Tensor]:
    """Texts as long as their prompts, told apart by their characters."""
    codes = [torch.tensor([float(ord(c)) for c in prompt]) for prompt in prompts]
    text = torch.nn.utils.rnn.pad_sequence(codes, batch_first=True).unsqueeze(-1)
    return {"text": text, "mask": (text[..., 0] > 0).long(), "pooled": text.sum(1)}


def null() -> dict[str, torch.Tensor]:
    return encode(["-"])


def test_shards_hold_what_was_encoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embeddings, "ROWS_PER_SHARD", 4)
    compute(tmp_path, "key", PROMPTS, encode, null)
    table, prompts, key = open_embeddings(tmp_path, "key")
    assert (prompts, key, len(table), len(table.shards)) == (PROMPTS, "key", 11, 3)
    rows = table.rows(torch.tensor([10, -1, 3]))
    assert rows["text"].shape == (3, len("prompt 10"), 1) and rows["mask"].sum(1).tolist() == [9, 1, 8]
    for row, prompt in zip((0, 1, 2), ("prompt 10", "-", "prompt 3"), strict=True):
        expected = encode([prompt])
        assert torch.equal(rows["text"][row, : len(prompt)], expected["text"][0])
        assert torch.equal(rows["pooled"][row], expected["pooled"][0])


@given(st.lists(st.text("abc", min_size=1, max_size=9), min_size=1, max_size=20))
def test_rows_do_not_depend_on_their_tile(prompts: list[str]) -> None:
    table = Embeddings([embeddings.encode_all(prompts, encode)], null())
    for i, prompt in enumerate(prompts):
        row = table.rows(torch.tensor([i]))
        assert torch.equal(row["text"][0, : len(prompt)], encode([prompt])["text"][0])
        assert row["mask"].sum() == len(prompt)


def test_rows_kept_in_float16_come_out_under_autocast() -> None:
    table = Embeddings([{"text": torch.randn(3, 2, 4).half()}], {"text": torch.zeros(1, 2, 4).half()})
    index = torch.tensor([2, -1])
    with torch.autocast("cpu", torch.bfloat16):
        rows = table.rows(index)
    assert rows["text"].dtype == torch.float16 and torch.equal(rows["text"], table.rows(index)["text"])


def test_an_interrupted_computation_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embeddings, "ROWS_PER_SHARD", 4)
    asked: list[str] = []

    def until_the_second(prompts: Any) -> dict[str, torch.Tensor]:
        asked.extend(dict.fromkeys(prompts))
        if "prompt 8" in prompts and asked.count("prompt 8") == 1:
            raise KeyboardInterrupt
        return encode(prompts)

    with pytest.raises(KeyboardInterrupt):
        compute(tmp_path, "key", PROMPTS, until_the_second, null)
    assert not embeddings.is_complete(tmp_path)
    with pytest.raises(UserError, match="manifest.json: not found; load the teacher again"):
        open_embeddings(tmp_path)
    compute(tmp_path, "key", PROMPTS, until_the_second, null)
    assert asked.count("prompt 0") == 1 and open_embeddings(tmp_path)[0].rows(torch.tensor([0]))["text"].shape[0] == 1


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "null.safetensors").unlink(), "null.safetensors: found another content than the manifest"),
        (lambda f: (f / "rows-000000000000.safetensors").write_bytes(b"x"), "rows-.*: found another content"),
        (lambda f: (f / "manifest.json").write_text("{"), "manifest.json: no readable JSON"),
        (lambda f: (f / "manifest.json").write_text('{"format": "x"}'), "found format 'x', expected a whole"),
    ],
)  # fmt: skip
def test_damaged_embeddings_are_refused(tmp_path: Path, damage: Any, message: str) -> None:
    compute(tmp_path, "key", PROMPTS, encode, null)
    damage(tmp_path)
    with pytest.raises(UserError, match=message):
        open_embeddings(tmp_path)


def test_a_shard_is_hashed_when_its_first_row_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embeddings, "ROWS_PER_SHARD", 4)
    compute(tmp_path, "key", PROMPTS, encode, null)
    second = tmp_path / "rows-000000000004.safetensors"
    second.write_bytes(second.read_bytes()[:-1] + b"x")  # of the same size
    table = open_embeddings(tmp_path, "key")[0]
    hashed: list[str] = []
    digest = embeddings.digest
    monkeypatch.setattr(embeddings, "digest", lambda file: hashed.append(file.name) or digest(file))
    for again in (table, open_embeddings(tmp_path, "key")[0]):
        again.rows(torch.tensor([0, 3, -1, 10]))
    assert hashed == ["rows-000000000000.safetensors", "rows-000000000008.safetensors"]
    with pytest.raises(UserError, match="rows-000000000004.safetensors: found another content than the manifest"):
        table.rows(torch.tensor([0, 5]))


def test_embeddings_of_an_older_format_are_no_finished_ones(tmp_path: Path) -> None:
    compute(tmp_path, "key", PROMPTS, encode, null)
    assert embeddings.is_complete(tmp_path)
    manifest = tmp_path / "manifest.json"
    manifest.write_text(manifest.read_text().replace(embeddings.FORMAT, "unistep-text/1"))
    assert not embeddings.is_complete(tmp_path)
    with pytest.raises(UserError, match="found format 'unistep-text/1', expected a whole"):
        open_embeddings(tmp_path)


def test_embeddings_of_another_key_are_refused(tmp_path: Path) -> None:
    compute(tmp_path, "key", PROMPTS, encode, null)
    with pytest.raises(UserError, match="found embeddings of key key, expected other"):
        open_embeddings(tmp_path, "other")


# ----------------------------------------------------------------------------------------------------- the conditioner


def test_a_prompt_follows_from_its_seed(tmp_path: Path) -> None:
    compute(tmp_path, "key", PROMPTS, encode, null)
    conditioner = TextConditioner.open(str(tmp_path), "key")
    seeds = torch.tensor([0, 12, 1_000_000])
    assert conditioner.labels(seeds).tolist() == [0, 1, 1_000_000 % 11]
    by_seed, by_label = conditioner.from_seeds(seeds), conditioner.from_labels(conditioner.labels(seeds))
    assert isinstance(by_seed, dict) and isinstance(by_label, dict)
    assert all(torch.equal(by_seed[name], by_label[name]) for name in by_seed)
    no_condition = conditioner.null(2)
    assert isinstance(no_condition, dict) and no_condition["text"].shape == by_seed["text"][:2].shape
    with pytest.raises(UserError, match=r"prompt: found 11, expected 0..10"):
        conditioner.from_labels(torch.tensor([11]))


def test_a_conditioner_comes_back_from_its_configuration(tmp_path: Path) -> None:
    compute(tmp_path, "key", PROMPTS, encode, null)
    conditioner = TextConditioner.open(str(tmp_path), "key")
    again = conditioner_from_config(json.loads(json.dumps(conditioner.config())))
    assert again is not None and again.names == PROMPTS and "names" not in conditioner.config()
    with pytest.raises(UserError, match="conditioner.folder: found none"):
        conditioner_from_config({"type": "text", "sha256": "key", "folder": None})
    with pytest.raises(UserError, match="conditioner.folder: missing"):
        conditioner_from_config({"type": "text", "sha256": "key"})


# ---------------------------------------------------------------------------------------------------- text encoders


def test_a_prompt_longer_than_the_encoder_reads_is_refused() -> None:
    encoder = TextEncoder(tiny.sd15(), FAMILIES["UNet2DConditionModel"])
    assert encoder(["a" * 75])["text"].shape == (1, 77, 16)
    with pytest.raises(UserError, match="prompt 'b+'...: found 78 tokens, expected at most 77, which StableDiffusion"):
        encoder(["short", "b" * 76])


def test_the_encoder_that_reads_most_decides() -> None:
    encoder = TextEncoder(tiny.flux(), FAMILIES["FluxTransformer2DModel"])
    assert encoder(["a" * 300])["text"].shape == (1, 512, 16)
    with pytest.raises(UserError, match="expected at most 512, which FluxPipeline reads"):
        encoder(["a" * 520])


def test_all_prompts_are_measured_before_the_first_is_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = (*PROMPTS * 2, "b" * 76)
    monkeypatch.setattr(text, "AT_ONCE", 4)
    monkeypatch.setattr(TextEncoder, "encode", None)  # a use of the text encoders would fail
    with pytest.raises(UserError, match="prompt 'b+'...: found 78 tokens"):
        teacher_from_pipeline(tiny.sd15(), Options(prompts=prompts))


def test_sdxl_takes_zeros_for_no_condition() -> None:
    nothing = TextEncoder(tiny.sdxl(), FAMILIES["UNet2DConditionModel + text_time"]).null()
    assert set(nothing) == {"text", "pooled"} and all(not value.any() for value in nothing.values())


def test_no_prompts_where_text_is_read() -> None:
    with pytest.raises(UserError, match=r"teacher.options.prompts: missing; this pipeline reads text"):
        teacher_from_pipeline(tiny.sd15())
    with pytest.raises(UserError, match=r"teacher.options.prompts: found no prompt"):
        teacher_from_pipeline(tiny.sd15(), Options(prompts=()))
