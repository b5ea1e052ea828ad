"""Makes the embedded Fashion-MNIST teacher from a finished run of `unistep teach fashion-mnist-teacher`.

Usage: python tools/make_teacher.py RUN

Weights are stored as float16 in src/unistep/assets/fashion_mnist/teacher; the classes get their names.
"""

import sys
from pathlib import Path

import torch

from unistep.teachers.checkpoint import load_denoiser, save_denoiser

ASSETS = Path(__file__).parent.parent / "src" / "unistep" / "assets" / "fashion_mnist"
CLASSES = ("T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")


def main(run: Path) -> None:
    """Stores the teacher and prints its hash."""
    denoiser, config, _ = load_denoiser(run / "teacher")
    config = {key: value for key, value in config.items() if key != "format"}
    config["conditioner"] = {"type": "labels", "num_classes": len(CLASSES), "names": list(CLASSES)}
    save_denoiser(ASSETS / "teacher", denoiser, config, dtype=torch.float16)
    print(f"{ASSETS / 'teacher'}: sha256 {load_denoiser(ASSETS / 'teacher')[2]}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
