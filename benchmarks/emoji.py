"""The text-to-image run on emoji pictures: its data (`split`).

    python benchmarks/emoji.py split data/emoji64.parquet data/emoji
"""

import argparse
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as parquet

HELD_OUT, SEED = 0.1, 0


def split(source: Path, folder: Path) -> None:
    """Writes train.parquet and test.parquet: a tenth of the fluent pictures whose noto twin is trained on is held out.

    Which ones follows from the names, sorted, and `SEED` alone.
    """
    table = parquet.read_table(source)
    names, styles = table["text"].to_pylist(), table["style"].to_pylist()
    noto = {name for name, style in zip(names, styles, strict=True) if style == "noto"}
    twins = sorted({name for name, style in zip(names, styles, strict=True) if style == "fluent"} & noto)
    order = np.random.default_rng(SEED).permutation(len(twins))[: round(HELD_OUT * len(twins))]
    held = {twins[i] for i in order}
    test = pa.array([style == "fluent" and name in held for name, style in zip(names, styles, strict=True)])
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in (("train", pa.compute.invert(test)), ("test", test)):
        part = table.filter(rows)
        parquet.write_table(part, folder / f"{name}.parquet")
        print(f"{folder / name}.parquet: {part.num_rows} pictures")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    splitting = commands.add_parser("split")
    splitting.add_argument("source", type=Path)
    splitting.add_argument("folder", type=Path)
    splitting.set_defaults(run=lambda a: split(a.source, a.folder))
    arguments = parser.parse_args()
    arguments.run(arguments)
