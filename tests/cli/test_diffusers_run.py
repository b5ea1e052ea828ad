"""A pipeline of diffusers from a recipe: distilled, resumed, and sampled by its prompts without its text encoders."""

import shutil
import sys
from pathlib import Path

import pytest
import torch
from tiny_recipes import write_pipeline_run

import unistep
from unistep.errors import UserError
from unistep.planning import plan as planning
from unistep.teachers.load import prepare_teacher
from unistep.training.config import TrainingConfig
from unistep.training.prepare import prepare_network

sys.path.insert(0, str(Path(__file__).parents[1] / "teachers"))
import tiny_pipelines as tiny

RECIPE = """
name: tiny
kind: distill
teacher:
  certify: false # random weights
  load: diffusers:{pipeline}
  guidance: 3.0
  options: {{prompts: "{prompts}", cache: "{cache}"}}
pairs: {{count: 4, solver: {{name: ddim, num_steps: 2}}, tile: 4}}
method: {{name: dmd, regression: l2}}
training: {{steps: 2, batch: 4, device: cpu}}
evaluation: {{solver: {{name: euler, num_steps: 2}}}}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("diffusers")
    write_pipeline_run(folder, tiny.sd15(), RECIPE)
    return unistep.distill(folder / "tiny.yaml", out=folder / "run", quiet=True)


def test_pairs_store_the_prompts_number_and_not_its_embeddings(run: Path) -> None:
    from safetensors import safe_open

    with safe_open(next((run / "pairs").glob("*.safetensors")), framework="pt") as shard:
        assert set(shard.keys()) == {"seeds", "x", "label"} and shard.get_tensor("label").tolist() == [0, 1, 0, 1]


def test_the_run_goes_on_where_it_stopped_and_is_sampled_by_prompt(run: Path) -> None:
    generator = (run / "generator" / "model.safetensors").read_bytes()
    assert unistep.distill(run.parent / "tiny.yaml", out=run, quiet=True) == run
    assert (run / "generator" / "model.safetensors").read_bytes() == generator
    shutil.rmtree(run.parent / "pipeline" / "text_encoder")
    (run.parent / "pipeline" / "text_encoder").mkdir()
    assert unistep.sample(run, num=3, labels=["Two boats"]).is_file()
    with pytest.raises(UserError, match="label: found a cat, expected 0..1 or one of a red fox, two boats"):
        unistep.sample(run, num=3, labels=["a cat"])


def test_a_pipeline_is_planned_with_its_vae(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "SECONDS", 0.2)
    tiny.sd15().save_pretrained(run.parent / "pipeline")  # a test above takes its text encoder away
    plan = unistep.plan(run.parent / "tiny.yaml", out=run.parent / "planned", quiet=True)
    assert [network.name for network in plan.networks] == ["teacher", "codec", "generator", "fake_score"]
    assert plan.measured and plan.fits and not (run.parent / "planned").exists()
    assert plan.stages[0].evaluations == 4 * 2 * 2  # four pairs by two guided steps


def test_one_rank_can_encode_the_prompts_for_all(tmp_path: Path) -> None:
    options = {"prompts": ["a", "b"], "cache": str(tmp_path)}
    pipeline = tmp_path / "pipeline"
    tiny.sd15().save_pretrained(pipeline)
    prepare_teacher(f"diffusers:{pipeline}", options)
    assert len(list(tmp_path.glob("*/manifest.json"))) == 1
    prepare_teacher("gaussians:ring8")  # nothing to do


def test_videos_have_no_channels_last() -> None:
    settings = TrainingConfig.model_validate({"steps": 1, "batch": 1, "channels_last": True})
    with pytest.raises(UserError, match="training.channels_last: found true, expected false"):
        prepare_network(torch.nn.Conv3d(1, 1, 1), settings, torch.device("cpu"))
