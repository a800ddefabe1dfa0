"""Tables on screen, results as JSON, and what they say of the machine and the versions."""

import json
import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from hfnb.engines import blas

RESULTS = Path(__file__).parent / "results"
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


def warn_if_busy() -> None:
    """Say on standard error if other programs compute: what is measured beside them is worth little."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load > 0.5:
        print(
            f"bench: the machine is busy (load {load:.1f}): repeat this when it is idle, or use --priority 5",
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
