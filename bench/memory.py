"""Peak memory of a gradient and of a Hessian product beyond the data, ours and the peers', by batch.

Each number is that of a fresh process: ``python -m bench.memory WAY WHAT BATCH`` prints it. Linux only, whose
kernel can be asked to forget the peak of what came before.
"""

import gc
import importlib
import json
import subprocess
import sys
from pathlib import Path

from bench.peers import NETWORKS, Case
from bench.report import about, save, show
from bench.worker import WAYS

NOTHING_KEPT = "hfnb, memory=0"
LEFT_OUT = {"GEMM", "GEMM, chunks"}
MEASURED = {way: place for way, place in WAYS.items() if way not in LEFT_OUT}
MEASURED[NOTHING_KEPT] = "bench.peers:nothing_kept"
BATCHES = (6000, 20000, 60000)
LIMIT = 300  # seconds for each number: JAX folds constants as it compiles
BAR = 1.1  # the peak with 60,000 images over that with 6,000, if nothing is kept between products


def memory(field: str) -> float:
    """Return VmRSS, what this process has of memory now, or VmHWM, the most that it had, in MB."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) / 1024


def peak(way: str, what: str, batch: int) -> float:
    """Return the most memory, in MB, that a way takes beyond the data and what the library takes at all."""
    module, function = MEASURED[way].split(":")
    make = getattr(importlib.import_module(module), function)
    network = next(iter(NETWORKS))
    make(Case.of(network, 64, what, "float32"))[0]()
    case = Case.of(network, batch, what, "float32")
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    before = memory("VmRSS")
    call, _ = make(case)
    for _ in range(3):
        call()
    return memory("VmHWM") - before


def measured(way: str, what: str, batch: int) -> float | None:
    """Return the peak of a process of its own; None where it fails or takes too long."""
    command = [sys.executable, "-m", "bench.memory", way, what, str(batch)]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
    except subprocess.TimeoutExpired:
        return None
    return json.loads(found.stdout.splitlines()[-1]) if found.returncode == 0 else None


def run(options) -> None:
    """Measure, show, and write results/memory.json."""
    batches = BATCHES[:: len(BATCHES) - 1] if options.quick else BATCHES
    ways = [way for way in MEASURED if not options.ways or way in options.ways]
    rows = []
    for what in options.what or ("gradient", "hessian"):
        for way in ways:
            found = [measured(way, what, batch) for batch in batches]
            ratio = found[-1] / max(found[0], 1.0) if found[0] and found[-1] else None
            cells = {f"{batch} images": mb and round(mb) for batch, mb in zip(batches, found, strict=True)}
            holds = (
                None if way != NOTHING_KEPT or ratio is None else "holds" if ratio <= BAR else "DOES NOT HOLD"
            )
            rows.append({"what": what, "way": way, **cells, "ratio": ratio, f"at most {BAR}": holds})
            print(*rows[-1].values(), file=sys.stderr, flush=True)
    save("memory", {"about": about(unit="MB"), "rows": show(rows)})


if __name__ == "__main__":
    print(json.dumps(peak(sys.argv[1], sys.argv[2], int(sys.argv[3]))))
