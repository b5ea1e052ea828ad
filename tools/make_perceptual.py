"""Makes the embedded network for perceptual losses: python tools/make_perceptual.py DATA_FOLDER [OUT_FOLDER]."""

import sys
import time
from pathlib import Path

import torch

from unistep.data.idx import read_idx
from unistep.evaluation.extractors.features import save_perceptual
from unistep.evaluation.extractors.train import train_perceptual

EPOCHS, BATCH = 7, 128  # the batch of `train_perceptual`


def main(data: Path, out: Path) -> None:
    """About seven CPU minutes on one thread."""
    torch.set_num_threads(1)
    (images, labels), test = (
        (
            read_idx(data / f"{part}-images-idx3-ubyte.gz", 3)[:, None],
            read_idx(data / f"{part}-labels-idx1-ubyte.gz", 1),
        )
        for part in ("train", "t10k")
    )
    steps = EPOCHS * len(images) // BATCH
    start = time.process_time()

    def report(step: int, loss: float) -> None:
        if step % 200 == 0:
            print(f"step {step}/{steps} loss {loss:.3f} cpu {time.process_time() - start:.0f} s", flush=True)

    network, description = train_perceptual(
        images, labels.long(), steps=steps, flip=True, held_out=(test[0], test[1].long()), on_step=report
    )
    save_perceptual(out, network, description)
    print(f"accuracy {description['accuracy']:.4f} cpu {time.process_time() - start:.0f} s")


if __name__ == "__main__":
    default = Path(__file__).parents[1] / "src" / "unistep" / "assets" / "fashion_mnist"
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else default)
