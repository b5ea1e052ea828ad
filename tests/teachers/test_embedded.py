"""The embedded Fashion-MNIST teacher: small, named, and still the one whose stored features stand beside it."""

import torch
from safetensors import safe_open

from unistep.assets import embedded_folder
from unistep.diffusion.guidance import GuidedDenoiser
from unistep.diffusion.samplers import build_sampler, seeded_normal
from unistep.evaluation.extractors.features import load_judge
from unistep.teachers.load import load_teacher

FOLDER = embedded_folder("fashion-mnist")
FIRST_SEED, ROWS = 1_000_000, 20


def test_it_is_small_and_named() -> None:
    teacher = load_teacher("embedded:fashion-mnist")
    assert teacher.source == "embedded:fashion-mnist"
    assert teacher.shape == (1, 28, 28)
    assert teacher.conditioner is not None and teacher.conditioner.names[9] == "Ankle boot"
    assert sum(file.stat().st_size for file in (FOLDER / "teacher").iterdir()) < 10_000_000


def test_its_samples_are_those_whose_features_are_stored() -> None:
    teacher, judge = load_teacher("embedded:fashion-mnist"), load_judge()
    assert teacher.conditioner is not None
    seeds = torch.arange(FIRST_SEED, FIRST_SEED + ROWS)
    labels = teacher.conditioner.from_seeds(seeds)
    guided = GuidedDenoiser(teacher.denoiser, teacher.conditioner.null, 1.75)
    with torch.no_grad():
        x = build_sampler("dpmpp_2m", 16)(guided, teacher.process, seeded_normal(seeds, teacher.shape), labels, seeds).x
    seen = judge.features(teacher.codec.decode(x))
    with safe_open(FOLDER / "features" / "teacher.safetensors", "pt") as file:
        stored = {name: file.get_tensor(name)[:ROWS] for name in ("features", "labels")}
    assert torch.equal(stored["labels"].long(), labels)
    # A pixel may round to its neighbour on another machine: features then differ a little, never as samples differ.
    assert (seen.features - stored["features"].float()).abs().mean() < 0.02 * stored["features"].float().std()
