"""Makes the embedded Fashion-MNIST judge and its reference features: python tools/make_judge.py DATA_FOLDER [OUT]."""

import sys
import time
from pathlib import Path

import torch

from unistep.data.idx import read_idx
from unistep.evaluation.extractors.train import train_judge

NAMES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
EPOCHS, BATCH = 12, 128  # the batch of `train_judge`


def main(data: Path, out: Path) -> None:
    """About eleven CPU minutes on one thread."""
    torch.set_num_threads(1)
    train, test = (
        (
            read_idx(data / f"{part}-images-idx3-ubyte.gz", 3)[:, None],
            read_idx(data / f"{part}-labels-idx1-ubyte.gz", 1),
        )
        for part in ("train", "t10k")
    )
    steps = EPOCHS * len(train[0]) // BATCH
    start = time.process_time()

    def report(step: int, loss: float) -> None:
        if step % 200 == 0:
            print(f"step {step}/{steps} loss {loss:.3f} cpu {time.process_time() - start:.0f} s", flush=True)

    judge = train_judge(
        train[0],
        train[1].long(),
        steps=steps,
        seed=0,
        flip=True,
        names=NAMES,
        held_out=(test[0], test[1].long()),
        on_step=report,
    )
    judge.save(out)
    print(f"accuracy {judge.accuracy:.4f} sha256 {judge.sha256} cpu {time.process_time() - start:.0f} s")


if __name__ == "__main__":
    default = Path(__file__).parents[1] / "src" / "unistep" / "assets" / "fashion_mnist"
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else default)
