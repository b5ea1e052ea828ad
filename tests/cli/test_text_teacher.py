"""A teacher of captions from nothing: taught, distilled, and asked for prompts that it never saw."""

import io
import json
import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import unistep
from unistep.data import DataConfig, load_images
from unistep.errors import UserError
from unistep.recipes.load import load_recipe, recipe_of
from unistep.recipes.schema import DistillRecipe, TeachRecipe
from unistep.run.evaluate import special
from unistep.run.evaluation_protocol import apply_protocol, captions
from unistep.run.folder import load_run_recipe
from unistep.run.teach_config import conditioning, teacher_config
from unistep.run.training_images import real_images
from unistep.teachers.diffusers.captions import Captions
from unistep.teachers.diffusers.denoiser import DiffusersDenoiser
from unistep.teachers.load import load_teacher

sys.path.insert(0, str(Path(__file__).parents[1] / "teachers"))
from tiny_encoder import WIDTH, save_encoder

NAMES = ("fox", "boat", "sun", "fox")
TEACH = """
name: tiny-text
kind: teach
about: a teacher of captions
data: {{kind: parquet, path: {data}, caption: 'a {{name}}', channels: 3}}
text: {{encoder: {encoder}, tokens: 8}}
network:
  type: diffusers
  class: UNet2DConditionModel
  patch: 2
  config:
    sample_size: 4
    in_channels: 12
    out_channels: 12
    block_out_channels: [8, 8]
    down_block_types: [DownBlock2D, CrossAttnDownBlock2D]
    up_block_types: [CrossAttnUpBlock2D, UpBlock2D]
    layers_per_block: 1
    norm_num_groups: 4
    attention_head_dim: 2
    cross_attention_dim: 16
guidance: 2
training: {{steps: 3, batch: 4, device: cpu, precision: bf16, preview_every: 2}} # embeddings are float16
evaluation: {{solver: {{name: euler, num_steps: 2}}}}
"""
DISTILL = """
name: tiny-student
kind: distill
teacher: {{load: {teacher}, guidance: 2, certify: false}} # three steps of training are too few to pass
pairs: {{count: 4, solver: {{name: euler, num_steps: 2}}, tile: 4}}
method: {{name: dmd, regression: multiscale}}
training: {{steps: 2, batch: 4, device: cpu, precision: bf16}}
evaluation: {{solver: {{name: euler, num_steps: 2}}}}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("text")
    save_encoder(folder / "encoder")
    pictures = []
    for shade in range(len(NAMES)):
        file = io.BytesIO()
        Image.new("RGB", (8, 8), (60 * shade, 0, 0)).save(file, format="PNG")
        pictures.append({"bytes": file.getvalue(), "path": None})
    pyarrow.parquet.write_table(pyarrow.table({"image": pictures, "name": list(NAMES)}), folder / "data.parquet")
    (folder / "teach.yaml").write_text(TEACH.format(data=folder / "data.parquet", encoder=folder / "encoder"))
    return folder


@pytest.fixture(scope="module", autouse=True)
def cache(place: Path) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNISTEP_CACHE", str(place / "cache"))
        yield


@pytest.fixture(scope="module")
def teacher(place: Path) -> Path:
    return unistep.teach(place / "teach.yaml", out=place / "teacher", quiet=True)


@pytest.fixture(scope="module")
def student(place: Path, teacher: Path) -> Path:
    (place / "distill.yaml").write_text(DISTILL.format(teacher=teacher))
    return unistep.distill(place / "distill.yaml", out=place / "student", quiet=True)


def test_the_teacher_knows_its_captions_and_their_encoder(place: Path, teacher: Path) -> None:
    config = json.loads((teacher / "teacher" / "config.json").read_text())
    assert config["conditioner"]["prompts"] == ["a fox", "a boat", "a sun"]
    assert config["conditioner"]["encoder"] == str(place / "encoder")
    loaded = load_teacher(teacher)
    assert isinstance(loaded.conditioner, Captions) and loaded.conditioner.embeddings.length == 8
    assert (teacher / "previews" / "step-0000002.png").is_file()


def test_a_run_that_goes_on_ends_where_it_would_have(place: Path, teacher: Path) -> None:
    assert unistep.teach(place / "teach.yaml", out=teacher, quiet=True) == teacher
    again = unistep.teach(place / "teach.yaml", out=place / "again", quiet=True)
    weights = [(run / "teacher" / "model.safetensors").read_bytes() for run in (teacher, again)]
    assert weights[0] == weights[1]


def test_the_network_sees_patches_under_edm_s_preconditioning(teacher: Path) -> None:
    """D = c_skip x + c_out F(c_in x; ln(sigma) / 4, text), F on 2x2 patches (EDM, Table 1)."""
    loaded, sigma_data = load_teacher(teacher), 0.5
    denoiser = loaded.denoiser
    assert isinstance(denoiser, DiffusersDenoiser)
    rng = torch.Generator().manual_seed(0)
    x, sigma = torch.randn(2, 3, 8, 8, generator=rng), torch.tensor([0.3, 5.0])
    text = loaded.conditioner.from_labels(torch.tensor([2, -1]))["text"].float()  # type: ignore[union-attr, index]
    total = (sigma**2 + sigma_data**2)[:, None, None, None]
    patches = (x / total.sqrt()).unflatten(3, (4, 2)).unflatten(2, (4, 2)).permute(0, 1, 3, 5, 2, 4).flatten(1, 3)
    with torch.no_grad():
        raw = denoiser.network(patches, sigma.log() / 4, encoder_hidden_states=text).sample  # type: ignore[operator]
    F_x = F.pixel_shuffle(raw, 2)
    expected = sigma_data**2 / total * x + sigma[:, None, None, None] * sigma_data / total.sqrt() * F_x
    torch.testing.assert_close(loaded(x, sigma, {"text": text}), expected, atol=1e-5, rtol=1e-4)
    assert not torch.equal(loaded(x, sigma, {"text": text}), loaded(x, sigma, {"text": text.flip(0)}))


def test_a_student_reads_prompts_that_nobody_trained_on(place: Path, student: Path, teacher: Path) -> None:
    (place / "prompts.txt").write_text("a cat\na fox\n")
    asked = str(place / "prompts.txt")
    for run in (student, teacher):
        picture = unistep.sample(run, num=2, prompts=asked, files=True, out=place / f"asked-{run.name}")
        assert picture.is_file()
    own = unistep.sample(student, num=2, labels=["a boat", "a fox"], files=True, out=place / "own").parent
    cat, fox = (sorted(folder.glob("0*.png"))[1].read_bytes() for folder in (place / "asked-student", own))
    assert cat == fox  # the second sample: the same seed and the same prompt, from another table
    with pytest.raises(UserError, match="found 12 tokens, expected at most 8"):
        unistep.sample(student, num=1, prompts=["a whale of it"])
    with pytest.raises(UserError, match="prompts: found some, expected none: only models taught on captions"):
        unistep.sample("embedded:fashion-mnist", num=1, prompts=["a cat"])


def test_an_evaluation_may_have_prompts_of_its_own(place: Path, student: Path) -> None:
    (place / "judged.txt").write_text("a cat\na fox\na cow\n")
    recipe = load_run_recipe(student)
    assert isinstance(recipe, DistillRecipe)
    asked = recipe_of(DistillRecipe, recipe, [f"evaluation.prompts={place / 'judged.txt'}"])
    plain = load_teacher(asked.teacher.load or "")
    judged = apply_protocol(asked, plain, torch.device("cpu"))
    first, conditioner = asked.evaluation.first_seed, judged.conditioner
    assert isinstance(conditioner, Captions) and isinstance(plain.conditioner, Captions)
    assert [conditioner.names[i] for i in conditioner.labels(torch.arange(first, first + 4))] == [
        "a cat", "a fox", "a cow", "a cat",
    ]  # fmt: skip
    fox, also = conditioner.from_seeds(torch.tensor([first + 1])), plain.conditioner.from_labels(torch.tensor([0]))
    assert torch.equal(fox["text"], also["text"])  # type: ignore[index]
    assert special(asked.evaluation, judged, None) == {"prompts": conditioner.sha256}
    assert special(recipe.evaluation, apply_protocol(recipe, plain, torch.device("cpu")), None) == {}
    (place / "judged.txt").write_text("a whale of it\n")
    captions.cache_clear()
    with pytest.raises(UserError, match="found 12 tokens, expected at most 8"):
        apply_protocol(asked, plain, torch.device("cpu"))


def test_a_teacher_with_other_prompts_is_another_teacher(teacher: Path) -> None:
    plain, other = load_teacher(teacher), load_teacher(teacher, {"prompts": ["a cat"]})
    assert other.conditioner is not None and other.conditioner.names == ("a cat",)
    assert other.sha256 != plain.sha256 and other.config["conditioner"]["prompts"] == ["a cat"]
    assert load_teacher(teacher, {"prompts": ["a cat"]}).sha256 == other.sha256
    for spec, options in ((teacher, {"size": [8, 8]}), ("embedded:fashion-mnist", {"prompts": ["a"]})):
        with pytest.raises(UserError, match="teacher.options.(size|prompts): found it, expected none"):
            load_teacher(spec, options)


def test_real_pictures_come_with_the_number_of_their_caption(place: Path, teacher: Path) -> None:
    data = DataConfig(kind="parquet", path=str(place / "data.parquet"), caption="a {name}")
    x, cond = real_images(data, loaded := load_teacher(teacher)).rows(torch.tensor([3, 1]))
    assert x.shape == (2, 3, 8, 8) and loaded.conditioner is not None
    assert torch.equal(cond["text"], loaded.conditioner.from_labels(torch.tensor([0, 1]))["text"])  # type: ignore[index]
    with pytest.raises(
        UserError,
        match="data.caption: found 'the fox' \\(and 2 other captions\\), expected one of the teacher's 3 prompts",
    ):
        real_images(data.model_copy(update={"caption": "the {name}"}), loaded)


def test_no_pipeline_holds_a_network_of_patches(student: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="its network sees patches of 2 pixels, which no pipeline makes"):
        unistep.export_generator(student, to="diffusers", out=tmp_path / "export")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("network.patch=3", "network.patch: found 3, expected a divisor of 8"),
        ("network.config.in_channels=3", "network.config.in_channels: found 3, expected 12"),
        ("network.config.sample_size=8", "network.config.sample_size: found 8, expected 4"),
        ("network.config.cross_attention_dim=8", f"network.config.cross_attention_dim: found 8, expected {WIDTH}"),
        ("network.class=UNet2DModel", "network.class: found 'UNet2DModel', expected UNet2DConditionModel"),
        ("network={type: unet}", "network.type: found 'unet', expected 'diffusers', which reads text"),
    ],
)
def test_networks_that_do_not_fit_the_captions(place: Path, override: str, message: str) -> None:
    recipe = recipe_of(TeachRecipe, place / "teach.yaml", [override])
    data = load_images(recipe.data)
    with pytest.raises(UserError, match=message):
        teacher_config(recipe, data, conditioning(recipe, data, torch.device("cpu"))[0])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("text=null", "text: found nothing, expected a value"),
        ("data.caption=null", "data.caption: found nothing, expected a value"),
        ("text.tokens=1", "text.tokens"),
    ],
)
def test_captions_and_encoder_go_together(place: Path, override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_recipe(place / "teach.yaml", [override])
