"""Run by itself, without unistep: an ONNX file is run by onnxruntime at several batch sizes; differences as JSON."""

import json
import sys


def main(path: str, asked: str) -> None:
    """Prints the largest difference of samples, relative to the largest value if above 1."""
    import numpy as np
    import onnxruntime
    from safetensors.numpy import load_file

    tensors = load_file(asked)
    expected = tensors.pop("samples")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    scale, differences = max(1.0, float(np.abs(expected).max())), []
    for size in (1, 3, len(expected)):
        (found,) = session.run(None, {name: rows[:size] for name, rows in tensors.items()})
        differences.append(float(np.abs(found - expected[:size]).max()) / scale)
    clean = "unistep" not in sys.modules
    # np.max keeps a NaN, Python's max drops it: the caller must see it.
    print(
        json.dumps(
            {"differences": {"samples": float(np.max(differences))}, "clean": clean, "with": onnxruntime.__version__}
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
