"""Makes the embedded network for perceptual losses: python tools/make_perceptual.py DATA_FOLDER [OUT_FOLDER]."""

import sys
import time
from dataclasses import asdict
from pathlib import Path

import torch

from unistep.data.idx import read_idx
from unistep.evaluation.features import save_perceptual
from unistep.evaluation.fit_classifier import ClassifierRecipe, accuracy, fit_classifier
from unistep.evaluation.perceptual_network import PerceptualNetwork

EPOCHS, BATCH, SEED = 7, 128, 1


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
    recipe = ClassifierRecipe(steps=EPOCHS * len(images) // BATCH, seed=SEED, batch=BATCH, flip=True)
    torch.manual_seed(SEED)
    network = PerceptualNetwork(channels=1, size=28, num_classes=10)
    start = time.process_time()

    def report(step: int, loss: float) -> None:
        if step % 200 == 0:
            print(f"step {step}/{recipe.steps} loss {loss:.3f} cpu {time.process_time() - start:.0f} s", flush=True)

    fit_classifier(network, network.logits, images, labels.long(), recipe, report)
    score = accuracy(network.logits, test[0], test[1].long())
    save_perceptual(out, network, {"accuracy": score, "recipe": asdict(recipe)})
    print(f"accuracy {score:.4f} cpu {time.process_time() - start:.0f} s")


if __name__ == "__main__":
    default = Path(__file__).parents[1] / "src" / "unistep" / "assets" / "fashion_mnist"
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else default)
