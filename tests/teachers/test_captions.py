"""Captions as conditions: the encoder's places, the cache, and the way back from a checkpoint's configuration."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from tiny_encoder import WIDTH, save_encoder

from unistep.errors import UserError
from unistep.teachers.conditioners import conditioner_from_config
from unistep.teachers.diffusers.captions import Captions, TextEncoding
from unistep.teachers.diffusers.token_encoder import TokenEncoder, encoder_digest, encoder_folder

PROMPTS = ("a red fox", "two boats", "sun")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_encoder(tmp_path_factory.mktemp("encoder") / "bert")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UNISTEP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "text"


def test_every_prompt_takes_the_same_places_and_is_zero_behind_its_end(folder: Path) -> None:
    rows = TokenEncoder(folder, 12)(["sun", "a red fox"])["text"]
    assert rows.shape == (2, 12, WIDTH) and rows.dtype == torch.float16
    assert (rows[0, :5] != 0).any(1).all() and (rows[0, 5:] == 0).all()  # [CLS] s u n [SEP]


def test_an_embedding_does_not_depend_on_how_many_places_there_are_or_on_the_other_prompts(folder: Path) -> None:
    short, long = TokenEncoder(folder, 12)(PROMPTS)["text"], TokenEncoder(folder, 20)(PROMPTS[:1])["text"]
    torch.testing.assert_close(long[0, :12], short[0], atol=2e-3, rtol=2e-3)


def test_the_empty_prompt_is_no_condition(folder: Path) -> None:
    encoder = TokenEncoder(folder, 12)
    assert torch.equal(encoder.null()["text"], encoder([""])["text"])
    captions = Captions.encoded(TextEncoding.of(str(folder), 12), PROMPTS)
    dropped, kept = captions.from_labels(torch.tensor([-1, 2]))["text"]  # type: ignore[index]
    torch.testing.assert_close(dropped, encoder.null()["text"][0], atol=2e-3, rtol=2e-3)
    torch.testing.assert_close(kept, encoder(PROMPTS[2:])["text"][0], atol=2e-3, rtol=2e-3)


def test_a_longer_prompt_is_refused(folder: Path) -> None:
    with pytest.raises(UserError, match="prompt 'a red fox'...: found 9 tokens, expected at most 8"):
        TokenEncoder(folder, 8)(["sun", "a red fox"])


# ------------------------------------------------------------------------------------------------- where it comes from


def test_an_installed_package_may_hold_the_encoder(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site" / "my_encoder"
    shutil.copytree(folder, package / "inside")
    (package / "__init__.py").write_text("raise RuntimeError('nothing of the package is run')\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site"), *sys.path])
    assert encoder_folder("package:my-encoder") == package / "inside"
    shutil.copytree(folder, package / "another")
    with pytest.raises(UserError, match="found 2 models in the package my-encoder, expected one"):
        encoder_folder("package:my-encoder")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("package:no-such-thing", "found no package no-such-thing, expected it installed: pip install no-such-thing"),
        ("package:../up", "found no package ../up"),
        ("/nowhere", "found no /nowhere/model.safetensors, expected a text encoder's folder"),
    ],
)
def test_an_encoder_that_is_not_there(spec: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        encoder_folder(spec)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"])
@pytest.mark.parametrize("content", ["", "{", "[]", "null", '"x"'])
def test_a_damaged_encoder_is_named(name: str, content: str, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "broken")
    (tmp_path / "broken" / name).write_text(content)
    require_refused(tmp_path / "broken")


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("config.json", {"hidden_size": "x"}),
        ("config.json", {"num_attention_heads": 0}),
        ("config.json", {"model_type": "t5"}),
        ("config.json", {"num_hidden_layers": 3}),  # transformers would draw the third at random
        ("tokenizer_config.json", {"tokenizer_class": 7}),
        ("tokenizer_config.json", {"pad_token": None}),
        ("tokenizer_config.json", {"model_max_length": "x"}),
    ],
)
def test_an_encoder_with_values_of_another_kind_is_named(
    name: str, values: dict[str, object], folder: Path, tmp_path: Path
) -> None:
    file = shutil.copytree(folder, tmp_path / "broken") / name
    file.write_text(json.dumps(json.loads(file.read_text()) | values))
    require_refused(tmp_path / "broken")


def test_an_encoder_whose_dependency_is_missing_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> None:
        raise ImportError("SentencePiece\nis not installed")

    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", missing)
    require_refused(folder)


def require_refused(folder: Path) -> None:
    with pytest.raises(UserError, match=f"^text.encoder: {folder}") as caught:
        TokenEncoder(folder, 8)
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------------------------------------------- the way back


def test_a_configuration_gives_the_same_conditions_and_names_no_place(folder: Path, cache: Path) -> None:
    captions = Captions.encoded(TextEncoding.of(str(folder), 12), PROMPTS)
    config = json.loads(json.dumps(captions.config()))
    assert str(cache) not in json.dumps(config)
    again = conditioner_from_config(config)
    assert again is not None and again.names == PROMPTS and again.config() == config
    index = torch.tensor([2, -1, 0])
    assert torch.equal(again.from_labels(index)["text"], captions.from_labels(index)["text"])  # type: ignore[index]
    shutil.rmtree(cache)  # computed anew
    fresh = conditioner_from_config(config)
    assert fresh is not None
    assert torch.equal(fresh.from_labels(index)["text"], captions.from_labels(index)["text"])  # type: ignore[index]


def test_cached_embeddings_do_without_the_encoder_and_another_encoder_is_refused(tmp_path: Path, cache: Path) -> None:
    folder = save_encoder(tmp_path / "bert")
    config = Captions.encoded(TextEncoding.of(str(folder), 12), PROMPTS).config()
    shutil.rmtree(folder)
    assert conditioner_from_config(config) is not None
    shutil.rmtree(cache)
    with pytest.raises(UserError, match="expected a text encoder's folder"):
        conditioner_from_config(config)
    save_encoder(folder, seed=6)
    assert encoder_digest(folder) != config["sha256"]
    with pytest.raises(UserError, match="found an encoder with sha256 .* expected the one that was trained with"):
        conditioner_from_config(config)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompts": ["another"]}, "conditioner.key: found .*, expected .*, that of its prompts"),
        ({"prompts": "one"}, "conditioner.prompts: found 'one', expected a"),
        ({"folder": "x"}, "conditioner.folder: unknown key"),
    ],
)
def test_a_configuration_that_was_tampered_with(folder: Path, change: dict[str, object], message: str) -> None:
    config = Captions.encoded(TextEncoding.of(str(folder), 12), PROMPTS).config()
    with pytest.raises(UserError, match=message):
        conditioner_from_config({**config, **change})


def test_other_prompts_are_read_by_the_same_encoder(folder: Path) -> None:
    captions = Captions.encoded(TextEncoding.of(str(folder), 12), PROMPTS)
    other = captions.with_prompts(["sun", "moon"])
    assert other.names == ("sun", "moon") and other.encoding == captions.encoding
    sun, also = other.from_labels(torch.tensor([0])), captions.from_labels(torch.tensor([2]))
    assert torch.equal(sun["text"], also["text"])  # type: ignore[index]
