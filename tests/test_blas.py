"""The BLAS kernel: named as threadpoolctl names it, chosen by the processor's flags, the same on engines."""

import json
import os
import platform
import subprocess
import sys
import warnings

import pytest
from threadpoolctl import threadpool_info

from hfnb.engines import blas, options
from hfnb.threads import THREAD_VARIABLES

FLAGS = set().union(*(needed for _, needed, _ in blas.BETTER))
# What a fresh process finds, by threadpoolctl alone: the kernel of numpy's BLAS.
KERNEL = """
import numpy, threadpoolctl
libraries = threadpoolctl.threadpool_info()
found = [each["architecture"] for each in libraries if each["internal_api"] == "openblas"]
"""


def fresh(code, **variables):
    """Run code in a new process that has no variable of BLAS but these; return what it prints, as JSON."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in (blas.KERNEL_VARIABLE, *THREAD_VARIABLES)
    }
    command = [sys.executable, "-W", "error::RuntimeWarning", "-c", code]
    found = subprocess.run(command, env=kept | variables, capture_output=True, text=True, check=True)
    return json.loads(found.stdout)


@pytest.fixture
def features():
    """The processor's instructions as numpy finds them, which has its own look at the processor."""
    core = pytest.importorskip("numpy._core._multiarray_umath")
    return {name for name, has in core.__cpu_features__.items() if has}


ON_X86 = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64") or blas.kernel() is None,
    reason="numpy has another BLAS than OpenBLAS here, or it has no kernels to choose from",
)


@pytest.mark.parametrize(
    "variables", [{}, {blas.KERNEL_VARIABLE: "Nehalem"}, {blas.KERNEL_VARIABLE: "Haswell"}], ids=str
)
def test_the_kernel_is_the_one_that_threadpoolctl_finds(variables):
    code = KERNEL + "import json; from hfnb.engines import blas; print(json.dumps([found, blas.kernel()]))"
    found, kernel = fresh(code, **variables)
    assert kernel == (found[0] if found else None)
    if (
        variables.get(blas.KERNEL_VARIABLE) == "Nehalem"
        and platform.machine() in ("x86_64", "AMD64")
        and found
    ):
        assert kernel == "Nehalem"  # every x86-64 processor that NumPy runs on has its instructions


@ON_X86
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the flags are read from Linux's /proc")
def test_the_flags_choose_the_kernel_and_the_variable_sets_it(features):
    code = (
        "import json; from hfnb.engines import blas; print(json.dumps([blas.kernel(), blas.environment()]))"
    )
    best = "SkylakeX" if "AVX512_SKX" in features else "Haswell" if {"AVX2", "FMA3"} <= features else None
    script = "from hfnb.engines import blas; import json; print(json.dumps(blas.better()))"
    assert fresh(script, **{blas.KERNEL_VARIABLE: "Nehalem"}) == best
    if best:
        assert fresh(code, **{blas.KERNEL_VARIABLE: best}) == [
            best,
            dict.fromkeys(THREAD_VARIABLES, "1"),
        ]


def pretend(monkeypatch, kernel="Haswell", flags=FLAGS):
    monkeypatch.setattr(blas, "kernel", lambda: kernel)
    monkeypatch.setattr(blas, "_flags", lambda: set(flags))
    for name in (blas.KERNEL_VARIABLE, *THREAD_VARIABLES):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("kernel", "flags", "best"),
    [
        ("Haswell", FLAGS, "SkylakeX"),
        ("Zen", FLAGS, "SkylakeX"),
        ("Katmai", FLAGS, "SkylakeX"),
        ("Nehalem", {"avx2", "fma"}, "Haswell"),
        ("Nehalem", {"sse4_2"}, None),
        ("Haswell", {"avx2", "fma"}, None),
        ("Haswell", FLAGS - {"avx512vl"}, None),
        ("SkylakeX", FLAGS, None),
        ("Cooperlake", FLAGS, None),
        ("neoversen1", set(), None),
        (None, FLAGS, None),
    ],
)
def test_a_better_kernel_is_named_with_how_to_get_it(kernel, flags, best, monkeypatch):
    pretend(monkeypatch, kernel, flags)
    assert blas.environment().get(blas.KERNEL_VARIABLE) == best
    assert (f"{blas.KERNEL_VARIABLE}={best}" in blas.report()) == (best is not None)


def test_what_the_user_has_set_stays(monkeypatch):
    pretend(monkeypatch)
    ones = dict.fromkeys(THREAD_VARIABLES, "1")
    assert blas.environment() == ones | {blas.KERNEL_VARIABLE: "SkylakeX"}
    monkeypatch.setenv(blas.KERNEL_VARIABLE, "Haswell")
    assert blas.environment() == ones
    monkeypatch.setenv("OMP_NUM_THREADS", "4")  # OPENBLAS_NUM_THREADS=1 would overrule it
    assert blas.environment() == {}


@pytest.mark.parametrize("launcher", ["local", "mpi"])
def test_engines_on_this_machine_get_the_kernel_that_this_process_runs(launcher, monkeypatch):
    found = [each["architecture"] for each in threadpool_info() if each["internal_api"] == "openblas"]
    monkeypatch.setenv(
        blas.KERNEL_VARIABLE, "Katmai"
    )  # set after numpy was imported: it is not what runs here
    variables = options._environment(launcher, 3, True)
    assert variables.get(blas.KERNEL_VARIABLE) == (found[0] if found else None)
    assert {variables[name] for name in THREAD_VARIABLES} == {"3"}
    assert blas.KERNEL_VARIABLE not in options._environment("ssh", 3, False)


@ON_X86
def test_another_kernel_gives_another_arithmetic_and_threads_do_not():
    code = "import json; from hfnb.engines import blas; print(json.dumps(blas.arithmetic()))"
    old = fresh(code, **{blas.KERNEL_VARIABLE: "Nehalem", "OPENBLAS_NUM_THREADS": "1"})
    assert old == fresh(code, **{blas.KERNEL_VARIABLE: "Nehalem", "OPENBLAS_NUM_THREADS": "2"})
    if fresh(code)[0] != "Nehalem":
        assert old[1] != fresh(code)[1]


def test_engines_that_round_otherwise_are_named_in_one_line():
    own = blas.arithmetic()
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        blas.warn_of_others({0: own, 1: own})
    with pytest.warns(RuntimeWarning, match="engine 1: Other") as caught:
        blas.warn_of_others({0: own, 1: ("Other", "another digest")})
    assert len(caught) == 1
    assert "engine 0" not in str(caught[0].message)
    assert "\n" not in str(caught[0].message)
