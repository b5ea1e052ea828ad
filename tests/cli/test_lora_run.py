"""A run whose generator and fake score are adapters on the teacher: who learns, what is stored, how it is opened."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import diffusers
import peft
import pytest
import torch
from safetensors.torch import load_file
from tiny_recipes import write_pipeline_run
from torch import Tensor

import unistep
from unistep.errors import UserError
from unistep.export import write_export
from unistep.export.lora_files import in_network, kohya_keys
from unistep.planning import plan as planning
from unistep.recipes.load import recipe_of
from unistep.recipes.schema import DistillRecipe
from unistep.run import teacher as adapting
from unistep.run.distill import build_method_inputs
from unistep.run.export import student_of
from unistep.run.teacher import StudentInit, apply_lora, require_suited
from unistep.teachers.adapters import Base
from unistep.teachers.checkpoint import load_generator, read_adapter
from unistep.teachers.load import load_teacher
from unistep.teachers.teacher import Teacher
from unistep.training import HealthMonitor, Streams, TrainingConfig
from unistep.training.state import TrainState
from unistep.training.step import train_step

sys.path.insert(0, str(Path(__file__).parents[1] / "teachers"))
import tiny_pipelines as tiny

RECIPE = """
name: tiny
kind: distill
teacher:
  certify: false # random weights
  load: diffusers:{pipeline}
  guidance: 3.0
  options: {{prompts: "{prompts}", cache: "{cache}", compare: 0}}
lora: {{rank: 2, alpha: 4}}
pairs: {{count: 4, solver: {{name: ddim, num_steps: 2}}, tile: 4}}
method: {{name: dmd, regression: l2}}
training:
  {{steps: 3, batch: 4, device: cpu, gradient_checkpointing: true, checkpoint: {{every_steps: 1, keep: 3}},
    optim: {{default: {{lr: 0.02}}}}}}
evaluation: {{solver: {{name: euler, num_steps: 2}}}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lora")
    write_pipeline_run(folder, tiny.sd15(), RECIPE)
    return folder


@pytest.fixture(scope="module")
def run(folder: Path) -> Path:
    return unistep.distill(folder / "tiny.yaml", out=folder / "run", quiet=True)


@pytest.fixture(scope="module")
def teacher(folder: Path) -> Teacher:
    options = {"prompts": str(folder / "prompts.txt"), "cache": str(folder / "cache"), "compare": 0}
    return load_teacher(f"diffusers:{folder / 'pipeline'}", options)


def samples(generator: Any, teacher: Teacher) -> Tensor:
    seeds, rng = torch.arange(2), torch.Generator().manual_seed(1)
    assert teacher.conditioner is not None
    with torch.no_grad():
        return generator.sample(torch.randn(2, *teacher.shape, generator=rng), teacher.conditioner.from_seeds(seeds))


def test_each_phase_moves_its_adapter_and_nothing_else(folder: Path, teacher: Teacher) -> None:
    recipe = recipe_of(DistillRecipe, folder / "tiny.yaml", ["method={name: dmd, lambda_reg: 0}", "pairs=null"])
    start, cpu = apply_lora(recipe, StudentInit(teacher, teacher)), torch.device("cpu")
    method = recipe.method.build(build_method_inputs(recipe, start, cpu))
    state = TrainState.start(method, recipe.training, HealthMonitor())
    streams = Streams(seed=0, batch=4, device=cpu, conditioner=teacher.conditioner)
    roles: dict[str, Any] = {"teacher": teacher.denoiser, **method.networks}
    phases = method.phases(0)
    for phase in phases:
        before = {role: {n: v.clone() for n, v in net.state_dict().items()} for role, net in roles.items()}
        with mock.patch.object(method, "phases", lambda step, phase=phase: (replace(phase, reuses_samples=False),)):
            train_step(state, streams, recipe.training, cpu)
        for role, network in roles.items():
            moved = [not torch.equal(before[role][name], value) for name, value in network.state_dict().items()]
            up = [name for name in before[role] if name.endswith("lora_B.weight")]  # A follows once B is not zero
            assert sum(moved) >= len(up) > 0 if role in phase.trains else not any(moved), (phase.name, role)
    assert [phase.trains for phase in phases] == [("generator",), ("fake_score",)]


def test_the_run_stores_adapters_and_goes_on_bit_for_bit(run: Path, folder: Path) -> None:
    state = load_file(run / "generator" / "model.safetensors")
    assert state and all(name.endswith((".lora_A.weight", ".lora_B.weight")) for name in state)
    kept = json.loads(next((run / "checkpoints").glob("step-0000003/manifest.json")).read_text())["tensors"]
    assert all("lora_" in name for name in kept if not name.startswith("carried"))
    again = folder / "again"
    shutil.copytree(run, again)
    for gone in ("generator", "checkpoints/step-0000003", "checkpoints/step-0000002"):
        shutil.rmtree(again / gone)
    unistep.distill(folder / "tiny.yaml", out=again, overrides=["training.gradient_checkpointing=false"], quiet=True)
    for file in ("model.safetensors", "config.json"):
        assert (again / "generator" / file).read_bytes() == (run / "generator" / file).read_bytes()


def test_it_is_opened_on_its_teachers_files_or_on_the_teacher_given(run: Path, teacher: Teacher) -> None:
    alone, config, _ = load_generator(run)
    given, _, _ = load_generator(run, teacher)
    assert "lora" not in config and torch.equal(samples(alone, teacher), samples(given, teacher))
    start = StudentInit(teacher, teacher).copy()
    assert alone.denoiser.state_dict().keys() == start.state_dict().keys()
    assert unistep.sample(run, num=2, labels=["two boats"], checkpoint="step-2").is_file()


def test_another_teacher_under_the_same_name_is_refused(run: Path, folder: Path, teacher: Teacher) -> None:
    file = folder / "pipeline" / "unet" / "diffusion_pytorch_model.safetensors"
    kept = file.read_bytes()
    try:
        tiny.randomised(tiny.unet(), seed=5).save_pretrained(folder / "pipeline" / "unet")
        with pytest.raises(UserError, match=r"pipeline: found a pipeline with sha256 \w+, expected .* trained on"):
            load_generator(run)
        load_generator(run, teacher)  # its weights are in memory
        file.unlink()
        with pytest.raises(UserError, match="found a pipeline with sha256"):
            load_generator(run)
    finally:
        file.write_bytes(kept)
    load_generator(run)


def test_a_damaged_description_is_one_line(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run / "generator", tmp_path / "generator")
    file = tmp_path / "generator" / "config.json"
    config = json.loads(file.read_text())
    for values in ({"rank": 0}, {"base": None}, {"dropout": 1.0}):
        file.write_text(json.dumps(config | {"lora": config["lora"] | values}))
        with pytest.raises(UserError, match=r"^[^\n]*config.json: lora: found no description of an adapter [^\n]+$"):
            load_generator(tmp_path)


def test_peft_files_are_opened_by_diffusers_and_by_peft(run: Path, folder: Path, teacher: Teacher) -> None:
    export = unistep.export_generator(run, to="lora-peft")
    contract = json.loads((export / "sampling_contract.json").read_text())
    assert contract["verified"]["images"] <= 1e-4 and contract["lora"]["rank"] == 2
    assert contract["lora"]["base"]["source"] == f"diffusers:{folder / 'pipeline'}"
    assert "pipeline.load_lora_weights(" in (export / "README.md").read_text()
    whole = load_generator(run, teacher)[0].denoiser.network
    network = diffusers.UNet2DConditionModel.from_pretrained(folder / "pipeline" / "unet")
    wrapped: Any = peft.PeftModel.from_pretrained(network, str(export / "peft"))
    merged = wrapped.merge_and_unload().state_dict()
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(merged[name], value, rtol=0, atol=1e-6)


def test_kohya_keys_are_opened_by_diffusers(run: Path, folder: Path, teacher: Teacher) -> None:
    adapter = read_adapter(run)
    assert adapter is not None
    state = kohya_keys(in_network(adapter.state), adapter.lora)
    pipeline: Any = diffusers.DiffusionPipeline.from_pretrained(folder / "pipeline", safety_checker=None)
    pipeline.load_lora_weights(dict(state))
    pipeline.fuse_lora()
    pipeline.unload_lora_weights()
    whole = load_generator(run, teacher)[0].denoiser.network.state_dict()  # type: ignore[union-attr]
    for name, value in pipeline.unet.state_dict().items():
        torch.testing.assert_close(value, whole[name], rtol=0, atol=1e-6)  # type: ignore[index]
    layers = {name.partition(".")[0] for name in state}
    assert "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_out_0" in layers
    assert {name.partition(".")[2] for name in state} == {"lora_down.weight", "lora_up.weight", "alpha"}
    assert len(state) == 3 * len(layers) and state[f"{min(layers)}.alpha"] == 4.0


@pytest.mark.slow
@pytest.mark.parametrize("to", ["diffusers", "lora-comfyui"])
def test_other_forms_in_a_fresh_process(run: Path, to: str) -> None:
    export = unistep.export_generator(run, to=to)
    assert json.loads((export / "sampling_contract.json").read_text())["verified"]["images"] <= 1e-4


@pytest.mark.slow
def test_two_ranks_learn_what_one_learns(run: Path, folder: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "-m", "unistep", "distill"]
    command += [str(folder / "tiny.yaml"), "--out", str(folder / "ranks"), "--quiet"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    one, two = (load_file(place / "generator" / "model.safetensors") for place in (run, folder / "ranks"))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-3, atol=1e-4)


def test_shards_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = TrainingConfig.model_validate({"steps": 1, "batch": 2, "strategy": "fsdp"})
    require_suited(settings)  # on one rank there is nothing to shard
    monkeypatch.setattr(adapting, "world_size", lambda: 2)
    with pytest.raises(UserError, match="training.strategy: found fsdp with lora, expected ddp"):
        require_suited(settings)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["teacher.load=embedded:fashion-mnist", "teacher.options={prompts: null, cache: null, compare: null}"],
            "lora: found it with teacher embedded:",
        ),
        (["training.compile=true"], "training.compile: found true with lora, expected false"),
        (["teacher.options.dtype=float16"], "lora: found a teacher in float16, expected bfloat16 or float32"),
        (["generator.init=elsewhere"], "generator.init: found elsewhere with lora, expected null"),
        (["lora.rank=0"], "lora.rank: found 0"),
        (["lora.dropout=0.1"], "lora.dropout: unknown key"),
        (["lora.target_modules=[to_z]"], r"lora.target_modules: found \['to_z'\]"),
    ],
)
def test_what_suits_no_adapter_is_refused(folder: Path, tmp_path: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        unistep.distill(folder / "tiny.yaml", out=tmp_path / "run", overrides=overrides, quiet=True)


def test_students_that_are_no_adapters_have_no_lora_files(run: Path, teacher: Teacher, tmp_path: Path) -> None:
    student = student_of(run, teacher)
    with pytest.raises(UserError, match="tiny: was not trained as LoRA .* export with --to diffusers"):
        write_export(replace(student, adapter=None), "lora-peft", tmp_path / "export")
    in_memory = student.adapter and replace(student.adapter, base=Base(source="in memory", sha256="0"))
    with pytest.raises(UserError, match="its teacher was in memory, expected a pipeline's folder"):
        write_export(replace(student, adapter=in_memory), "lora-comfyui", tmp_path / "export")
    assert not list(tmp_path.iterdir())


def test_a_plan_counts_the_adapters_and_not_copies_of_the_network(
    run: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "SECONDS", 0.2)
    found = unistep.plan(folder / "tiny.yaml", out=folder / "planned", quiet=True)
    stored = sum(tensor.numel() for tensor in load_file(run / "generator" / "model.safetensors").values())
    assert {net.name: net.parameters for net in found.networks if net.learns} == {
        "generator": stored, "fake_score": stored
    }  # fmt: skip
