"""What each of the two ranks of test_two_ranks.py does: argument 1 is the folder that the test looks into."""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from stand_ins import TwoPhases, config, method, run, stop_after, streams
from tiny_dmd import ON_TWO_RANKS, first_gradients, run_method
from tiny_edm2 import edm2_steps
from torch import Tensor

from unistep.__main__ import leave
from unistep.errors import UserError
from unistep.methods.base import Batch, LossOutput, Random
from unistep.training import NonFiniteError, distributed, train


class BrokenOnRankOne(TwoPhases):
    """A loss term is nan on rank 1 from the first critic phase on."""

    def loss(self, phase: str, batch: Batch, rng: Random) -> LossOutput:
        output = super().loss(phase, batch, rng)
        if phase == "critic" and distributed.rank() == 1:
            output.terms["critic"][0] = float("nan")  # type: ignore[index]
        return output


def broken(folder: Path, strategy: str) -> str:
    """What the run says; with " moved" if the critic is not as it was before."""
    settings = config(strategy=strategy)
    networks = method(settings).networks
    before = [distributed.full_tensor(p.detach()).clone() for p in networks["critic"].parameters()]
    try:
        train(BrokenOnRankOne(*networks.values()), streams(settings), settings, folder)
    except NonFiniteError as error:
        after = [distributed.full_tensor(p.detach()) for p in networks["critic"].parameters()]
        return str(error) + ("" if all(map(torch.equal, before, after)) else " moved")
    return "no error"


def scalars_sharded() -> str:
    try:
        edm2_steps("fsdp")
    except UserError as error:
        return str(error)
    return "no error"


def agreed(values: Tensor) -> Tensor:
    """All ranks' rows, for the test of the helpers."""
    return torch.tensor(distributed.gather_objects(values.tolist()))


def main(out: Path) -> None:
    run(out / "ddp", strategy="ddp")
    for strategy in ("ddp", "fsdp"):
        run(out / f"{strategy}-accumulated", strategy=strategy, accumulate=4)
        run(out / f"{strategy}-from-one", strategy=strategy)
        run(out / f"{strategy}-to-one", strategy=strategy, hooks=stop_after(4, rank=1), preview_every=1)
        gradients = first_gradients(strategy)
        if distributed.is_rank_zero():
            save_file(gradients, out / f"{strategy}-gradients.safetensors")
    for strategy, name in ON_TWO_RANKS:
        run_method(out / f"{strategy}-{name}", name, strategy)
    weights, message = edm2_steps("ddp"), scalars_sharded()
    assert message.startswith("training.strategy: found fsdp, expected ddp: unet.out_gain is a scalar"), message
    if distributed.is_rank_zero():
        save_file(weights, out / "ddp-edm2.safetensors")
    for strategy in ("ddp", "fsdp"):
        message = broken(out / f"broken-{strategy}", strategy)
        (out / f"broken-{strategy}-{distributed.rank()}.txt").write_text(message)
    assert distributed.any_rank(distributed.rank() == 1, False) == (True, False)
    assert distributed.mean_over_ranks({"a": float(distributed.rank())}) == {"a": 0.5}
    assert agreed(torch.tensor([distributed.rank()])).tolist() == [[0], [1]]


if __name__ == "__main__":
    with distributed.process_group(torch.device("cpu")):
        main(Path(sys.argv[1]))
    leave(0)
