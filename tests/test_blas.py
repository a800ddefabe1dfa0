"""The BLAS kernel: named as threadpoolctl names it, changed only where it gains."""

import os
import subprocess
import sys

import pytest
from threadpoolctl import threadpool_info

from hfnb import blas


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    blas.environment.cache_clear()
    monkeypatch.delenv(blas.VARIABLE, raising=False)
    yield
    blas.environment.cache_clear()


def test_the_kernel_is_the_one_in_use():
    names = [
        library.get("architecture") for library in threadpool_info() if library["internal_api"] == "openblas"
    ]
    assert blas.kernel() in (names or [None])


def pretend(monkeypatch, kernel="Haswell", flags=blas.BETTER[1], rates=(1.0, 2.0)):
    monkeypatch.setattr(blas, "kernel", lambda: kernel)
    monkeypatch.setattr(blas, "_flags", lambda: set(flags))
    monkeypatch.setattr(blas, "_rate", lambda **extra: rates[bool(extra)])


def test_a_better_kernel_is_named_with_how_to_get_it(monkeypatch):
    pretend(monkeypatch)
    assert blas.environment() == {"OPENBLAS_CORETYPE": "SkylakeX"}
    assert "OPENBLAS_CORETYPE=SkylakeX" in blas.report()


@pytest.mark.parametrize(
    "case",
    [
        {"kernel": "SkylakeX"},
        {"kernel": None},
        {"flags": {"avx2"}},
        {"rates": (1.0, 1.05)},
        {"rates": (1.0, 0.0)},
    ],
    ids=["already best", "no OpenBLAS", "no instructions for it", "no faster", "does not run"],
)
def test_nothing_changes_where_nothing_is_gained(monkeypatch, case):
    pretend(monkeypatch, **case)
    assert blas.environment() == {}
    assert "OPENBLAS_CORETYPE" not in blas.report()


def test_the_readers_choice_stands(monkeypatch):
    pretend(monkeypatch)
    monkeypatch.setenv(blas.VARIABLE, "Haswell")
    assert blas.environment() == {}


@pytest.mark.skipif(blas.kernel() is None, reason="numpy runs another BLAS than OpenBLAS here")
def test_the_variable_chooses_the_kernel_of_a_new_process():
    code = "from hfnb import blas; print(blas.kernel())"
    environment = {**os.environ, blas.VARIABLE: "Haswell"}
    found = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() in ("Haswell", blas.kernel())  # a processor without AVX2 keeps its own
