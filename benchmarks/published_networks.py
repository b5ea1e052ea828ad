"""The published EDM networks at full size: parameters, one forward pass, memory, and their state by name once around.

    python benchmarks/published_networks.py

Random weights; each network is measured in a process of its own.
"""

import multiprocessing
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "networks"))

from golden_values import FULL, golden  # noqa: E402

from unistep.networks import build_denoiser
from unistep.networks.preconditioning import count_parameters
from unistep.networks.state_dict import load_strictly
from unistep.training.memory import peak_bytes, reset_peak

CPU = torch.device("cpu")


def measure(name: str) -> str:
    """The table's row of one network."""
    torch.manual_seed(0)
    reset_peak(CPU)
    before = peak_bytes(CPU) or 0
    known = golden(name)
    denoiser = build_denoiser(known.config).eval()
    size, channels = known.kwargs["img_resolution"], known.kwargs["img_channels"]
    x, sigma, label = torch.randn(1, channels, size, size), torch.tensor([1.0]), torch.tensor([3])
    with torch.no_grad():
        begun = time.perf_counter()
        first = denoiser(x, sigma, label)
        seconds = time.perf_counter() - begun
    peak = (peak_bytes(CPU) or 0) - before
    names = round_trip(denoiser)
    with torch.no_grad():
        assert torch.equal(denoiser(x, sigma, label), first)
    assert names == known.shapes.keys()
    return (
        f"| `{name.removeprefix('full-')}` | {count_parameters(denoiser):,} | {seconds:.1f} s | {peak / 1e6:,.0f} MB | "
        f"{len(names)} tensors, {sum(value.nbytes for value in denoiser.state_dict().values()) / 1e6:,.0f} MB |"
    )


def round_trip(denoiser: torch.nn.Module) -> set[str]:
    """Saves the weights, spoils them, loads them strictly; their names in the file."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.safetensors"
        save_file({name: value.contiguous() for name, value in denoiser.state_dict().items()}, file)
        with torch.no_grad():
            for parameter in denoiser.parameters():
                parameter.zero_()
        state = load_file(file)
    load_strictly(denoiser, state, file)
    return set(state)


if __name__ == "__main__":
    print("| | parameters | one forward pass, batch 1 | memory for it | state, once around |\n|---|---|---|---|---|")
    for title in FULL:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            print(pool.apply(measure, (title,)), flush=True)
