"""Every comparison against a limit fails on NaN: where numbers are proven, and by a search for the risky patterns."""

import ast
import dataclasses
import json
import math
import re

import numpy as np
import pytest
import torch
from source_tree import modules

from unistep.errors import UserError
from unistep.evaluation.metrics.frechet import frechet_distance
from unistep.export.fresh import require_close
from unistep.run.weights import nearer
from unistep.teacher_checks.behaviour import calibration, condition, monotony, skill
from unistep.teacher_checks.certificate import nan_as_infinity
from unistep.teacher_checks.structure import conversions, shapes_and_rows

PROVING = ("export", "certification", "evaluation", "api", "training", "pairs", "teachers")
LIMIT = re.compile(r"limit|tolerance|max_error|^close$", re.IGNORECASE)


def is_limit(node: ast.expr) -> bool:
    name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
    return bool(LIMIT.search(name))


def forgetful(tree: ast.Module) -> list[int]:
    """Lines that keep a running maximum of measured numbers from 0.0 on: `max(0.0, nan)` is 0.0."""
    zeros = {
        target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        for target, value in assigned(node)
        if isinstance(target, ast.Name) and isinstance(value, ast.Constant) and value.value == 0.0
    }
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("max", "min")
        if not node.keywords and isinstance(node.args[0], ast.Name) and node.args[0].id in zeros
    ]


def assigned(node: ast.Assign) -> list[tuple[ast.expr, ast.expr]]:
    target, value = node.targets[0], node.value
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        return list(zip(target.elts, value.elts, strict=True))
    return [(target, value)]


def refusing_above(tree: ast.Module) -> list[int]:
    """Lines `if found > limit: raise`, which let a NaN pass; `if not found <= limit` does not."""
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and any(isinstance(inner, ast.Raise) for inner in node.body)
        if isinstance(node.test, ast.Compare) and isinstance(node.test.ops[0], ast.Gt)
        if is_limit(node.test.comparators[0])
    ]


@pytest.mark.parametrize("search", [forgetful, refusing_above])
def test_no_comparison_lets_nan_pass(search) -> None:
    found = {path: search(tree) for path, tree in modules().items() if path.startswith(PROVING)}
    assert not {path: lines for path, lines in found.items() if lines}


def test_the_search_finds_what_it_looks_for() -> None:
    assert forgetful(ast.parse("scale, worst = 1.0, 0.0\nworst = max(worst, x)")) == [2]
    assert refusing_above(ast.parse("if error > limit:\n    raise E")) == [1]
    assert not refusing_above(ast.parse("if not error <= limit:\n    raise E"))


def test_nan_is_the_largest() -> None:
    assert math.isnan(max([0.0, math.nan, 5.0], key=nan_as_infinity))


def test_frechet_distance_of_nan_is_refused() -> None:
    eye = np.eye(3)
    with pytest.raises(UserError, match="not finite"):
        frechet_distance(np.array([0.0, np.nan, 0.0]), eye, np.zeros(3), eye)


def test_weights_that_score_nan_are_never_the_better_ones() -> None:
    assert nearer({"raw": math.nan, "ema": 3.0}) == "ema" == nearer({"ema": 3.0, "raw": math.nan})
    with pytest.raises(UserError, match=r"generator\.weights: found no finite distance"):
        nearer({"raw": math.nan, "ema": math.inf})


def test_differences_of_nan_are_not_close() -> None:
    with pytest.raises(UserError, match="nothing was exported"):
        require_close({"differences": {"samples": math.nan}}, 1e-3, "onnx")


def test_an_onnx_file_whose_samples_are_nan_is_not_proven(tmp_path, monkeypatch, capsys) -> None:

    import onnxruntime
    from safetensors.numpy import save_file

    from unistep.export.fresh_onnx import main

    class Session:
        def __init__(self, *_: object, **__: object) -> None: ...

        def run(self, _: None, tensors: dict) -> list:
            return [np.full_like(tensors["z"], np.nan)]

    asked = tmp_path / "asked.safetensors"
    save_file({"z": np.ones((5, 2), np.float32), "samples": np.ones((5, 2), np.float32)}, asked)
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    main("generator.onnx", str(asked))
    assert math.isnan(json.loads(capsys.readouterr().out)["differences"]["samples"])


# ------------------------------------------------------------------------------------------------------ certificates


@pytest.fixture(scope="module")
def seen():
    from unistep.teacher_checks.probe import probe
    from unistep.teachers.analytic import mixture_teacher

    return probe(mixture_teacher("ring8"), torch.device("cpu"))


def test_a_certificate_fails_where_one_level_is_nan(seen) -> None:

    spoilt = dataclasses.replace(seen.levels[5], mu=torch.full_like(seen.levels[5].mu, math.nan))
    broken = dataclasses.replace(seen, levels=(*seen.levels[:5], spoilt, *seen.levels[6:]))
    checks = [calibration(broken), monotony(broken), skill(broken), conversions(broken), condition(broken)]
    assert not [check.name for check in checks if check is not None and check.passed]


def test_a_row_that_is_nan_alone_fails() -> None:

    from unistep.teachers.analytic import mixture_teacher

    teacher = mixture_teacher("ring8")
    inner = teacher.denoiser.forward

    def forward(x_t, t, cond=None):
        return inner(x_t, t, cond) * (math.nan if len(x_t) == 1 else 1.0)

    teacher.denoiser.forward = forward
    assert not shapes_and_rows(teacher, torch.device("cpu")).passed
