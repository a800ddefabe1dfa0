"""Tables on screen, results as JSON, and what they say of the machine and the versions."""

import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from hfnb.engines import blas

RESULTS = Path(__file__).parent / "results"
MOST_BUSY = 0.1  # share of the processors that other programs may use while times are measured
PACKAGES = [
    "hfnb",
    "numpy",
    "scipy",
    "autograd",
    "jax",
    "torch",
    "curvlinops-for-pytorch",
    "pytorch-minimize",
    "pytorch-optimizer",
    "scikit-learn",
]


def show(rows):
    """Print rows as a table and return them; nothing for none."""
    rows, widths = list(rows), {}
    if not rows:
        return rows
    text = [{key: cell(value) for key, value in row.items()} for row in rows]
    for key in rows[0]:
        widths[key] = max(len(key), *(len(line[key]) for line in text))
    for line in [{key: key for key in widths}, *text]:
        print("  ".join(line[key].ljust(width) for key, width in widths.items()).rstrip())
    return rows


def cell(value) -> str:
    """Return a value as a table shows it: 3 digits, nothing for None."""
    return "" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


def about(**settings) -> dict:
    """Return what a result depends on: the command, the machine, its load, the versions, the settings."""
    return {
        "command": "python -m bench " + " ".join(sys.argv[1:]),
        "machine": f"{processor()}, {os.cpu_count()} cores, {platform.system()}",
        "BLAS kernel": blas.kernel(),
        "load": [round(each, 1) for each in os.getloadavg()] if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "versions": {name: found for name in PACKAGES if (found := installed(name))},
        **settings,
    }


class OtherPrograms:
    """What programs other than this one and its children have used of the processors since it was made."""

    def __init__(self) -> None:
        self._start = time.perf_counter(), all_seconds(), own_seconds()

    def share(self) -> float:
        """Return the share of all processors' time, from 0 to 1."""
        start, everybody, own = self._start
        seconds = (time.perf_counter() - start) * (os.cpu_count() or 1)
        return max((all_seconds() - everybody) - (own_seconds() - own), 0.0) / seconds


def all_seconds() -> float:
    """Return the seconds that the processors have computed since the machine started."""
    times = psutil.cpu_times()
    return times.user + times.system + getattr(times, "nice", 0.0)


def own_seconds() -> float:
    """Return the seconds that this process and its children have computed, those that have ended included."""
    found = sum(os.times()[:4])
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):  # it has just ended
            found += sum(child.cpu_times()[:4])
    return found


@contextmanager
def published_if_idle(name: str) -> Iterator[None]:
    """Keep what a benchmark of times writes only if other programs used little of the processors meanwhile.

    On a busy machine the new results/``name``.* become results/``name``_busy.*, which git ignores, and the
    old ones stay.
    """
    before = {path: path.read_bytes() for path in RESULTS.glob(f"{name}.*")}
    others = OtherPrograms()
    try:
        yield
    finally:
        share = others.share()
        if share > MOST_BUSY:
            for path in RESULTS.glob(f"{name}.*"):
                if path.read_bytes() != before.get(path):
                    path.replace(path.with_stem(f"{name}_busy"))
            for path, content in before.items():
                path.write_bytes(content)
            print(
                f"bench: {name} is not published: other programs used {share:.0%} of the processors. The "
                f"results are in {name}_busy.json; repeat this when the machine is idle",
                file=sys.stderr,
                flush=True,
            )


def processor() -> str:
    """Return the processor's name and its widest instructions, as far as the system tells."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor() or platform.machine()
    lines = dict(line.partition(":")[::2] for line in info.read_text().splitlines() if ":" in line)
    fields = {key.strip(): value.strip() for key, value in lines.items()}
    wide = [name for name in ("avx2", "avx512f", "amx_tile") if name in fields.get("flags", "").split()]
    return ", ".join([fields.get("model name", platform.machine()), *wide])


def installed(name: str) -> str | None:
    """Return a package's version, None where it is not there."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def save(name: str, document: dict) -> None:
    """Write a document as results/``name``.json."""
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps(document, indent=1, ensure_ascii=False)
    (RESULTS / f"{name}.json").write_text(text + "\n", encoding="utf-8")


def load(name: str) -> dict | None:
    """Read results/``name``.json; None where there is none."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
