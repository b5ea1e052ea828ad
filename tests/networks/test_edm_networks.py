"""The published architectures: outputs, names, shapes and sizes against golden values."""

import pytest
import torch
from golden_values import FULL, SMALL, class_indices, fill_by_rule, golden, values

from unistep.networks import build_denoiser
from unistep.networks.preconditioning import count_parameters


@pytest.mark.parametrize("name", SMALL)
def test_outputs_names_and_shapes_are_those_of_the_golden_files(name: str) -> None:
    known, held = golden(name), values(name)
    denoiser = build_denoiser(known.config).eval()
    assert {key: tuple(value.shape) for key, value in denoiser.state_dict().items()} == known.shapes
    assert count_parameters(denoiser) == known.num_parameters
    fill_by_rule(denoiser, known.edm2)
    with torch.no_grad():
        denoised = denoiser(held["x"], held["sigma"], class_indices(held["labels"]))
    # each sigma alone: at small sigma the input nearly is the output, and would hide the others in one maximum
    error = (denoised - held["denoised"]).flatten(1).abs().amax(1) / held["denoised"].flatten(1).abs().amax(1)
    print(f"{name}: largest relative difference {error.max():.1e}")
    assert error.max() < 1e-4


@pytest.mark.parametrize("name", FULL)
def test_published_sizes_have_the_published_names(name: str) -> None:
    known = golden(name)
    with torch.device("meta"):
        denoiser = build_denoiser(known.config)
    assert {key: tuple(value.shape) for key, value in denoiser.state_dict().items()} == known.shapes
    assert count_parameters(denoiser) == known.num_parameters
