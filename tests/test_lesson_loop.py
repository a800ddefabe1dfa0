"""The optimizer makes the steps of the loop that the lesson "Build Hessian-free step by step" builds."""

import ast
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from hfnb import Dataset, Objective, hessian_free, krylov, models

LESSON = Path(__file__).parent.parent / "notebooks" / "06_build_hessian_free_step_by_step.ipynb"
PARTS = ("line_search", "trust", "levenberg_marquardt", "negative_curvature_step", "best_step", "train")


@pytest.fixture(scope="module")
def lesson():
    """The lesson's functions by name: their definitions, taken from the cells and run as they stand there."""
    cells = json.loads(LESSON.read_text(encoding="utf-8"))["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    found = [
        node for node in ast.parse(code).body if isinstance(node, ast.FunctionDef) and node.name in PARTS
    ]
    assert sorted(node.name for node in found) == sorted(PARTS)
    names = {"np": np, "krylov": krylov}
    exec(compile(ast.Module(found, []), str(LESSON), "exec"), names)
    return names


@pytest.mark.parametrize("tilt", [1e-17, 0.0, -1e-17])
def test_a_slope_that_is_rounding_does_not_choose_the_side(lesson, tilt):
    """The loss falls on both sides of y = 0, further where y < 0."""

    def F(w):
        return w[0] - 0.5 * w[1] ** 2 + 0.3 * w[1] ** 3 + 0.25 * w[1] ** 4

    solution = SimpleNamespace(direction=np.array([tilt, 1.0]), curvature=-1.0)
    found, alpha, d = lesson["negative_curvature_step"](F, np.zeros(2), 0.0, np.array([1.0, 0.0]), solution)
    assert found == F(alpha * d) < 0
    assert (alpha * d)[1] < 0


@pytest.mark.parametrize("activation", ["tanh", "sigmoid"])
@pytest.mark.parametrize("seed", range(3))
def test_the_optimizer_makes_the_steps_of_the_lesson(lesson, activation, seed):
    # Much damping, as in the lesson, so that rounding errors stay small.
    random = np.random.default_rng(seed)
    X = random.standard_normal((120, 8))
    data = Dataset(X, (X @ random.standard_normal((8, 3))).argmax(axis=1))
    net = models.mlp([8, 6, 5, 3], activation=activation)
    w0 = net.init(seed, dtype=float)
    steps, library = lesson["train"](Objective(net, data, partitions=1), w0, products=120, damping=10.0), []
    hessian_free(
        Objective(net, data, partitions=1),
        w0,
        damping=10.0,
        max_iter=len(steps) - 1,
        callback=lambda record: library.append((record.w, record.loss, record.products)),
    )
    assert len(steps) == len(library) > 10
    for expected, (w, loss, products) in zip(steps, library, strict=True):
        np.testing.assert_allclose(w, expected["w"], atol=1e-8)
        assert loss == pytest.approx(expected["loss"], abs=1e-10)
        assert products == expected["products"]
