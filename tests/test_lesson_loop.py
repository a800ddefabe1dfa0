"""The optimizer makes the steps of the loop that the lesson "Build Hessian-free step by step" builds."""

import ast
import json
from pathlib import Path

import numpy as np
import pytest

from hfnb import Dataset, Objective, hessian_free, krylov, models

LESSON = Path(__file__).parent.parent / "notebooks" / "05_build_hessian_free_step_by_step.ipynb"
PARTS = ("line_search", "trust", "levenberg_marquardt", "negative_curvature_step", "best_step", "train")


@pytest.fixture(scope="module")
def train():
    """The lesson's loop: its function definitions, taken from the cells and run as they stand there."""
    cells = json.loads(LESSON.read_text(encoding="utf-8"))["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    found = [
        node for node in ast.parse(code).body if isinstance(node, ast.FunctionDef) and node.name in PARTS
    ]
    assert sorted(node.name for node in found) == sorted(PARTS)
    names = {"np": np, "krylov": krylov}
    exec(compile(ast.Module(found, []), str(LESSON), "exec"), names)
    return names["train"]


@pytest.mark.parametrize("activation", ["tanh", "sigmoid"])
@pytest.mark.parametrize("seed", range(3))
def test_the_optimizer_makes_the_steps_of_the_lesson(train, activation, seed):
    # Much damping, as in the lesson, so that rounding errors stay small.
    random = np.random.default_rng(seed)
    X = random.standard_normal((120, 8))
    data = Dataset(X, (X @ random.standard_normal((8, 3))).argmax(axis=1))
    net = models.mlp([8, 6, 5, 3], activation=activation)
    w0 = net.init(seed, dtype=float)
    lesson, library = train(Objective(net, data, partitions=1), w0, products=120, damping=10.0), []
    hessian_free(
        Objective(net, data, partitions=1),
        w0,
        damping=10.0,
        max_iter=len(lesson) - 1,
        callback=lambda record: library.append((record.w, record.loss, record.products)),
    )
    assert len(lesson) == len(library) > 10
    for expected, (w, loss, products) in zip(lesson, library, strict=True):
        np.testing.assert_allclose(w, expected["w"], atol=1e-8)
        assert loss == pytest.approx(expected["loss"], abs=1e-10)
        assert products == expected["products"]
