"""Memory of DMD's three roles on Stable Diffusion 1.5's U-Net, as full copies and as LoRA; random float32 weights, CPU.

Counted are the tensors that are there after the backward passes of both trained roles: weights, gradients and Adam's
moments, each storage once. Activations, the average and text encoders are not. Every row is measured in a process of
its own, which says too by how much it grew.
"""

import argparse
import copy
import multiprocessing
import re
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from unistep.diffusion.process import DiscreteVPProcess
from unistep.networks.lora import Adapted, LoRAConfig, sharing_copy
from unistep.teachers.diffusers.denoiser import DiffusersDenoiser
from unistep.teachers.diffusers.schedule import Schedule
from unistep.training.config import OptimConfig
from unistep.training.optim import build_optimizer
from unistep.training.prepare import checkpoint_gradients

WIDTHS, TEXT = (320, 640, 1280, 1280), 768  # the rest of its configuration is what the class has by default
LATENTS = 16  # of the step that is taken: small, for activations are not what is measured
COPIES = 1 + 2 * 4  # the teacher; of generator and fake score weights, gradient and two moments


class Row(NamedTuple):
    """What one process found: numbers of parameters, then bytes."""

    parameters: int
    learning: int
    held: int
    grown: int


def resident() -> int:
    """Bytes of this process in memory."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None, "only Linux says how large a process is"
    return 1024 * int(found[1])


def teacher_of(divisor: int) -> DiffusersDenoiser:
    """The U-Net, its channels divided by a number."""
    from diffusers import UNet2DConditionModel

    widths = tuple(width // divisor for width in WIDTHS)
    network = UNet2DConditionModel(sample_size=64, cross_attention_dim=TEXT, block_out_channels=widths)
    schedule = Schedule(DiscreteVPProcess.scaled_linear(), "eps", 1.0, 1.0)
    return DiffusersDenoiser(network, schedule).eval().requires_grad_(False)


def trained_role(teacher: DiffusersDenoiser, rank: int) -> nn.Module:
    """Generator or fake score: an adapter of that rank, or at rank 0 a full copy."""
    if rank == 0:
        return copy.deepcopy(teacher).requires_grad_(True)
    lora = LoRAConfig(rank=rank, alpha=float(rank), target_modules=teacher.family.lora)
    return Adapted(sharing_copy(teacher), lora, seed=0)


def take_step(role: nn.Module) -> list[Tensor]:
    """One update; the gradient stays. Returns Adam's moments."""
    optimizer = build_optimizer(role, OptimConfig(), "role")
    x_t, text = torch.randn(1, 4, LATENTS, LATENTS), torch.randn(1, 77, TEXT)
    role(x_t, torch.tensor([500.0]), {"text": text}).square().mean().backward()
    optimizer.adam.step()
    return list(optimizer.state().values())


def held(roles: list[nn.Module], moments: list[Tensor]) -> int:
    """Bytes of weights, gradients and moments, what is shared counted once."""
    parameters = [p for role in roles for p in role.parameters()]
    found = [*parameters, *(p.grad for p in parameters if p.grad is not None), *moments]
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in found}
    return sum(storages.values())


def measure(divisor: int, rank: int, answer: "SimpleQueue[Row]") -> None:
    """Builds the three roles and takes a step of the two that learn."""
    import diffusers.models.unets.unet_2d_condition  # noqa: F401  # in memory before anything is measured
    import peft  # noqa: F401

    before, teacher = resident(), teacher_of(divisor)
    roles = [trained_role(teacher, rank) for _ in range(2)]
    moments: list[Tensor] = []
    for role in roles:
        checkpoint_gradients(role)
        moments += take_step(role)
    all_weights = [teacher, *roles, *(role.denoiser for role in roles if isinstance(role, Adapted))]
    learning = sum(p.numel() for role in roles for p in role.parameters())
    parameters = sum(p.numel() for p in teacher.parameters())
    answer.put(Row(parameters, learning, held(all_weights, moments), resident() - before))


def measured(divisor: int, rank: int) -> Row:
    """The same in a process of its own."""
    context = multiprocessing.get_context("spawn")
    answer = context.SimpleQueue()
    process = context.Process(target=measure, args=(divisor, rank, answer))
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"divisor {divisor}, rank {rank}: ended with {process.exitcode}; is there enough memory?")
    return answer.get()


def line(name: str, row: Row, form: str) -> str:
    """A line of the table."""
    one = 4 * row.parameters
    return (
        f"| {name} | {form} | {row.parameters / 1e6:.1f} M | {row.learning / 1e6:.1f} M | {one / 1e9:.2f} GB "
        f"| {row.held / 1e9:.2f} GB | {row.held / one:.3f} | {row.grown / 1e9:.2f} GB |"
    )


def main(rank: int, half_only: bool) -> None:
    """Prints the table; full copies at full width are arithmetic, the half width shows that it holds."""
    print("| width | roles | parameters | learning | one copy | three roles | ratio | process grew by |")
    print("|---|---|---|---|---|---|---|---|")
    print(line("half", measured(2, 0), f"copies (arithmetic: {COPIES})"))
    print(line("half", measured(2, rank), f"LoRA, rank {rank}"))
    if half_only:
        return
    full = measured(1, rank)
    one = 4 * full.parameters
    print(f"| full | copies, by arithmetic | {full.parameters / 1e6:.1f} M | {2 * full.parameters / 1e6:.1f} M "
          f"| {one / 1e9:.2f} GB | {COPIES * one / 1e9:.2f} GB | {COPIES} | - |")  # fmt: skip
    print(line("full", full, f"LoRA, rank {rank}"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--half-only", action="store_true", help="1.4 GB in place of 5")
    arguments = parser.parse_args()
    main(arguments.rank, arguments.half_only)
