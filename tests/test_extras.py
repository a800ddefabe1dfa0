"""A package that an extra brings is needed by nothing else, and where it is missing one line says so."""

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HIDE = "import sys; sys.modules |= dict.fromkeys({names!r})\n"  # a module that is None cannot be imported
SPEECH = "import numpy as np; from hfnb.studies"
CASES = [
    ("engines", "ipyparallel", "import hfnb; hfnb.Cluster", "hfnb.Cluster"),
    ("engines", "IPython", "import hfnb; hfnb.EngineFailure", "hfnb.Cluster"),
    ("engines", "cloudpickle", "from hfnb.engines import Cluster", "hfnb.Cluster"),
    ("engines", "psutil", "from hfnb.engines import Cluster", "hfnb.Cluster"),
    ("engines", "tqdm", "import hfnb.studies.scaling_model", "hfnb.Cluster"),
    (
        "mpi",
        "mpi4py",
        "from hfnb.engines.distributed_evaluators import communicator; communicator((0,))",
        "hfnb.engines.distributed_evaluators",
    ),
    ("plots", "matplotlib", "import hfnb.plots", "hfnb.plots"),
    ("plots", "matplotlib", "from hfnb.studies import tasks; tasks.save('x.json', {})", "hfnb.plots"),
    ("notebooks", "tqdm", "import hfnb; hfnb.Progress(3)", "hfnb.Progress"),
    ("datasets", "pooch", "import hfnb; hfnb.datasets.mnist()", "hfnb.datasets"),
    (
        "datasets",
        "requests",
        "import os, hfnb; os.environ['HFNB_CACHE'] = 'none'; hfnb.datasets.mnist()",
        "hfnb.datasets.mnist",
    ),
    (
        "test",
        "sklearn",
        "from hfnb.studies import precision_problems; precision_problems.breast_cancer()",
        "hfnb.studies.precision_problems.breast_cancer",
    ),
    (
        "speech",
        "kaldi_native_fbank",
        f"{SPEECH} import features; features.log_mel(np.zeros(800))",
        "hfnb.studies.features",
    ),
    (
        "speech",
        "rapidfuzz",
        f"{SPEECH} import speech_recognition; speech_recognition.phone_error_rate(['a'], ['b'])",
        "hfnb.studies.speech_recognition",
    ),
    (
        "speech",
        "soundfile",
        "from pathlib import Path; from hfnb.datasets.timit_corpus import read_sound; read_sound(Path('x'))",
        "hfnb.studies.speech_dataset",
    ),
    (
        "speech",
        "espeakng_loader",
        "from hfnb.studies import synthetic_speech; synthetic_speech.synthesize('x')",
        "hfnb.studies.synthetic_speech",
    ),
]


def without(names, program, folder, python=sys.executable, **variables):
    """Run a program in an empty folder where modules of these names are not to be had."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HFNB_", "PYTHON"))}
    return subprocess.run(
        [python, "-c", HIDE.format(names=names) + program],
        cwd=folder,
        env=kept | variables,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(("extra", "module", "program", "user"), CASES, ids=lambda value: value.split(";")[0])
def test_what_is_missing_is_said_in_one_line(extra, module, program, user, tmp_path):
    done = without([module], program, tmp_path, PYTHONPATH=str(ROOT))
    package = module.lower().replace("_", "-")
    expected = f'ImportError: {user} needs {package}: pip install "hfnb[{extra}]"'
    assert done.stderr.splitlines()[-1:] == [expected], done.stderr
    assert "During handling" not in done.stderr


TRAIN = """
import numpy as np
import hfnb
random = np.random.default_rng(0)
X = random.standard_normal((200, 4))
data = hfnb.Dataset(X, (X[:, 0] * X[:, 1] > 0).astype(int))
net = hfnb.models.mlp([4, 8, 2])
objective, w0 = hfnb.Objective(net, data), net.init(0, dtype=float)
for optimizer in (hfnb.hessian_free, hfnb.first_order):
    run = optimizer(objective, w0, max_iter=10)
    assert run.fun < objective.value(w0), optimizer
assert hfnb.checks.symmetry_error(objective.curvature(run.x)) < 1e-12
print(hfnb.__file__)
"""
EXTRAS = ["IPython", "cloudpickle", "espeakng_loader", "ipyparallel", "ipywidgets", "jupyterlab", "mpi4py"]
EXTRAS += [
    "kaldi_native_fbank",
    "matplotlib",
    "pooch",
    "psutil",
    "rapidfuzz",
    "requests",
    "soundfile",
    "tqdm",
]


def test_training_needs_no_extra_and_writes_nothing(tmp_path):
    done = without(EXTRAS, TRAIN, tmp_path, PYTHONPATH=str(ROOT))
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_wheel_in_an_environment_of_its_own(tmp_path):
    """With what pip installs for it alone, in an empty folder, it trains and writes nothing."""
    pip = ["-I", "-m", "pip", "--disable-pip-version-check"]  # -I: without what PYTHONPATH names
    build = [sys.executable, *pip, "wheel", "-q", "--no-deps", "--wheel-dir", tmp_path / "wheels", ROOT]
    subprocess.run(build, check=True)
    (wheel,) = (tmp_path / "wheels").glob("hfnb-*.whl")
    venv.create(tmp_path / "environment", with_pip=True)
    python = tmp_path / "environment" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    subprocess.run([python, *pip, "install", "-q", wheel], check=True)
    listed = [python, *pip, "list", "--format=freeze"]
    names = subprocess.run(listed, check=True, capture_output=True, text=True).stdout.splitlines()
    installed = {name.split("==")[0] for name in names} - {"pip", "setuptools"}
    assert installed == {"autograd", "hfnb", "numpy", "scipy", "threadpoolctl"}
    empty = tmp_path / "empty"
    empty.mkdir()
    done = without([], TRAIN, empty, python)
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "environment") in done.stdout
    assert list(empty.iterdir()) == []
