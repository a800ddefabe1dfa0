"""Benchmarks of times publish nothing that was measured while other programs computed."""

import subprocess
import sys

import pytest

from bench import report
from bench.report import OtherPrograms, own_seconds, published_if_idle

SPIN = "import time\nend = time.process_time() + {}\nwhile time.process_time() < end: pass"


@pytest.mark.parametrize("ended", [True, False])
def test_the_time_of_children_is_ones_own(ended):
    before = own_seconds()
    command = SPIN.format(0.5) + ("" if ended else "\nprint(flush=True)\ninput()")
    child = subprocess.Popen(
        [sys.executable, "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    if ended:
        child.wait(timeout=60)
    else:
        child.stdout.readline()
    assert own_seconds() - before >= 0.5
    child.communicate("\n", timeout=60)


def test_the_share_of_others_is_what_is_not_ones_own(monkeypatch):
    clock = {"now": 10.0, "all": 1000.0, "own": 3.0}
    monkeypatch.setattr(report.time, "perf_counter", lambda: clock["now"])
    monkeypatch.setattr(report, "all_seconds", lambda: clock["all"])
    monkeypatch.setattr(report, "own_seconds", lambda: clock["own"])
    monkeypatch.setattr(report.os, "cpu_count", lambda: 4)
    others = OtherPrograms()
    clock.update(now=20.0, all=1025.0, own=18.0)  # 40 s of four processors: 25 s computed, 15 s of them here
    assert others.share() == pytest.approx(10 / 40)
    clock.update(all=1010.0)  # clocks of processes and of processors tick differently
    assert others.share() == 0.0


@pytest.mark.parametrize(("share", "ends"), [(0.09, None), (0.11, None), (0.11, KeyboardInterrupt)])
def test_results_of_a_busy_machine_stand_beside_the_published_ones(
    monkeypatch, capsys, tmp_path, share, ends
):
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    monkeypatch.setattr(OtherPrograms, "share", lambda self: share)
    for name in ("vectors.json", "vectors.png", "products.json"):
        (tmp_path / name).write_text("old")

    def benchmark():
        (tmp_path / "vectors.json").write_text("new")
        if ends:
            raise ends

    if ends:
        with pytest.raises(ends), published_if_idle("vectors"):
            benchmark()
    else:
        with published_if_idle("vectors"):
            benchmark()
    found = {path.name: path.read_text() for path in tmp_path.iterdir()}
    old = {"vectors.json": "old", "vectors.png": "old", "products.json": "old"}
    if share < report.MOST_BUSY:
        assert found == old | {"vectors.json": "new"}
        assert not capsys.readouterr().err
    else:
        assert found == old | {"vectors_busy.json": "new"}
        assert "other programs used 11% of the processors" in capsys.readouterr().err


def test_a_first_result_of_a_busy_machine_is_not_published_either(monkeypatch, tmp_path):
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    monkeypatch.setattr(OtherPrograms, "share", lambda self: 0.5)
    with published_if_idle("growth"):
        (tmp_path / "growth.json").write_text("new")
    assert [path.name for path in tmp_path.iterdir()] == ["growth_busy.json"]
