"""The imitated rounding of another machine reaches notebooks' kernels and their engines."""

import importlib.util
import json
from pathlib import Path

import check_notebooks
import nbformat
import numpy as np
import perturbation
import pytest

pytestmark = pytest.mark.slow
CELLS = [
    """
import json, sys
before = sorted(name for name in sys.modules if name.split(".")[0] in ("hfnb", "autograd"))
names = sorted(name for name in dir() if "perturb" in name.lower())
import numpy as np
import hfnb
""",
    """
def measure(dtype):
    import numpy as np
    import hfnb
    from hfnb.objectives import curvature
    from hfnb import krylov, problems

    random = np.random.default_rng(0)
    data = hfnb.Dataset(random.standard_normal((96, 6)).astype(dtype), random.integers(0, 3, 96))
    net = hfnb.models.mlp([6, 5, 3])
    objective, w, v = hfnb.Objective(net, data), net.init(0, dtype=dtype), net.init(1, dtype=dtype)
    loss, gradient = objective.value_and_gradient(w)
    found = {"loss": [objective.value(w)], "both": [loss], "gradient": gradient}
    for kind in ("hessian", "gauss-newton"):
        found[kind] = objective.curvature(w, kind) @ v
    by_hand = curvature.hessian_product(lambda w: net.loss(w, data.X, data.Y), w)
    found["by hand"] = by_hand(v)
    saddle, x = problems.quartic_saddle(), np.array([0.5, 0.3])
    found["problem"] = [saddle.value(x), *saddle.gradient(x), *saddle.curvature(x) @ x]
    found["solver"] = krylov.cg(np.diag([1.0, 2.0]), np.ones(2), max_iter=1).x
    return {name: np.asarray(values, float).tolist() for name, values in found.items()}
""",
    """
result = {"before": before, "names": names, "kernel": [measure(dtype) for dtype in ("float64", "float32")]}
random = np.random.default_rng(0)
data = hfnb.Dataset(random.standard_normal((96, 6)), random.integers(0, 3, 96))
net = hfnb.models.mlp([6, 5, 3])
w = net.init(0, dtype=float)
with hfnb.Cluster(n=2) as cluster:
    result["engines"] = cluster.client[:].apply_sync(measure, "float64")
    result["client-driven"] = cluster.objective(net, data).value_and_gradient(w)[1].tolist()
    result["engine-driven"] = cluster.minimize(net, data, w, max_iter=3, progress=False).x.tolist()
result["serial"] = hfnb.hessian_free(hfnb.Objective(net, data), w, max_iter=3).x.tolist()
with open("../found.json", "w") as file:
    json.dump(result, file)
""",
]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What the notebook measures: {perturbed or not: results}."""
    results = {}
    for seed in (None, 1):
        folder = tmp_path_factory.mktemp("checked")
        cells = [
            nbformat.v4.new_code_cell(cell.strip().replace("../", f"{folder.as_posix()}/")) for cell in CELLS
        ]
        for number, cell in enumerate(cells, 1):
            cell.execution_count = number
        nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / "measure.ipynb")
        options = [] if seed is None else ["--perturb", str(seed)]
        assert check_notebooks.main(["--folder", str(folder), *options]) == 0
        results[seed] = json.loads((folder / "found.json").read_text())
    return results


def differences(found, other):
    """The relative difference of each group of numbers, by its norm."""
    return {
        name: np.linalg.norm(np.subtract(found[name], other[name])) / np.linalg.norm(other[name])
        for name in found
    }


def test_kernel_is_perturbed(found):
    for precision, (least, most) in enumerate([(1e-16, 1e-12), (1e-8, 1e-4)]):
        for name, difference in differences(
            found[1]["kernel"][precision], found[None]["kernel"][precision]
        ).items():
            if precision == 0 or name not in ("problem", "solver"):  # always in float64
                assert least < difference < most, name


def test_both_engines_are_perturbed_as_the_kernel_is(found):
    assert len(found[1]["engines"]) == 2
    assert found[1]["engines"] == [found[1]["kernel"][0]] * 2
    assert found[None]["engines"] == [found[None]["kernel"][0]] * 2


def test_a_run_is_still_the_same_on_engines(found):
    assert np.allclose(found[1]["client-driven"], found[1]["kernel"][0]["gradient"], rtol=0, atol=1e-15)
    for each in found.values():
        assert np.allclose(each["engine-driven"], each["serial"], rtol=0, atol=1e-12)
    assert found[1]["engine-driven"] != found[None]["engine-driven"]


def test_nothing_is_imported_or_named_early(found):
    assert found[1]["before"] == []
    assert found[1]["names"] == []


def test_numbers_are_normal_and_repeatable():
    noise, values = perturbation.Noise(seed=3), np.full(100_000, 2.0)
    z = (noise(values) / values - 1) / 1e-14
    assert abs(np.mean(z)) < 0.02
    assert abs(np.std(z) - 1) < 0.02
    assert np.array_equal(noise(values), noise(values))
    assert not np.array_equal(noise(values), perturbation.Noise(seed=4)(values))
    assert noise(3) == 3


def test_refuses_to_come_too_late():
    importlib.import_module("hfnb.objectives.evaluator")
    with pytest.raises(RuntimeError, match=r"hfnb\.objectives\.evaluator"):
        perturbation.install(1)


def test_startup_file_is_the_only_trace(tmp_path):
    perturbation.write_startup(tmp_path, 7)
    (path,) = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert path.relative_to(tmp_path) == Path("profile_default", "startup", "00-perturbation.py")


def test_kernel_that_the_processor_lacks_is_skipped_in_one_line(monkeypatch, capsys):
    monkeypatch.setattr(check_notebooks, "instructions", lambda: {"sse4_2"})
    assert check_notebooks.main(["--kernel", "SkylakeX"]) == 0
    assert capsys.readouterr().out.count("\n") == 1
