"""Run by itself: the single file of an export is opened by `load_generator`; differences as JSON."""

import json
import sys


def main(path: str, asked: str) -> None:
    """Prints the largest difference of samples, relative to the largest value if above 1."""
    import torch
    from safetensors.torch import load_file

    import unistep

    tensors = load_file(asked)
    z, expected = tensors.pop("z"), tensors.pop("samples")
    cond = tensors.pop("label", None) if "label" in tensors else tensors or None
    generator, _, _ = unistep.load_generator(path)
    with torch.no_grad():
        found = generator.sample(z, cond, torch.arange(len(z)))
    scale = max(1.0, float(expected.abs().max()))
    differences = {"samples": float((found - expected).abs().max()) / scale}
    print(json.dumps({"differences": differences, "with": unistep.__version__}))


if __name__ == "__main__":
    main(*sys.argv[1:])
