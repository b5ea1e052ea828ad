"""A graph of one row at any length of prompt becomes one of any number of rows: a loop over them, in ONNX itself."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

OF_A_ROW = "row."
"""Before the names of what belongs to one row: in ONNX a name means one thing, inside and outside of a loop."""


def loop_over_rows(file: Path, inputs: Mapping[str, Tensor]) -> None:
    """Rewrites a graph of one row: each row's text loses its padding, then the graph runs.

    Args:
        file: inputs `row.NAME` of one row, without `mask`, and output `row.x`. Its weights stay where they are, and so
            does a file of them beside it.
        inputs: of the graph that it becomes, z first; z, text [b, length, width] and mask [b, length] among them.
    """
    import onnx
    from onnx import helper

    model = onnx.load(str(file), load_external_data=False)
    graph, names = model.graph, list(inputs)
    body = helper.make_graph(
        [*nodes_before(names), *graph.node, node("Squeeze", [f"{OF_A_ROW}x", "axis.0"], f"{OF_A_ROW}x.alone")],
        "row", [value(f"{OF_A_ROW}{name}.padded", tensor, tensor.shape[1:]) for name, tensor in inputs.items()],
        [value(f"{OF_A_ROW}x.alone", inputs["z"], inputs["z"].shape[1:])], value_info=graph.value_info,
    )  # fmt: skip
    weights = [*graph.initializer, helper.make_tensor("axis.0", onnx.TensorProto.INT64, [1], [0])]
    loop = helper.make_node("Scan", names, ["x"], body=body, num_scan_inputs=len(names))
    rows = [value(name, tensor, ("batch", *tensor.shape[1:])) for name, tensor in inputs.items()]
    whole = helper.make_graph(
        [loop], graph.name, rows, [value("x", inputs["z"], ("batch", *inputs["z"].shape[1:]))], weights
    )
    model.graph.CopyFrom(whole)
    onnx.save(model, str(file))


def nodes_before(names: Sequence[str]) -> list[Any]:
    """From the rows of the loop to the inputs of the graph of one row."""
    nodes = [node("Cast", [f"{OF_A_ROW}mask.padded"], f"{OF_A_ROW}mask", to=9)]  # 9: BOOL
    for name in names:
        source = f"{OF_A_ROW}{name}.padded"
        if name == "text":
            nodes.append(node("Compress", [source, f"{OF_A_ROW}mask"], f"{OF_A_ROW}text.short", axis=0))
            source = f"{OF_A_ROW}text.short"
        if name != "mask":
            nodes.append(node("Unsqueeze", [source, "axis.0"], f"{OF_A_ROW}{name}"))
    return nodes


def node(kind: str, sources: Sequence[str], result: str, **attributes: Any) -> Any:
    """A node with one output."""
    from onnx import helper

    return helper.make_node(kind, sources, [result], **attributes)


def value(name: str, tensor: Tensor, shape: Sequence[int | str]) -> Any:
    """A name with a tensor's type and a shape."""
    import numpy as np
    from onnx import helper

    kind = np.dtype(str(tensor.dtype).removeprefix("torch."))
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(kind), shape)
