"""One way of making products, in a process of its own, timed on request: python -m bench.worker WAY.

Requests are lines of JSON on standard input: {"prepare": {the arguments of Case.of}} and {"time": seconds}.
"""

import contextlib
import importlib
import json
import os
import sys
import time

import numpy as np

from bench.peers import Case

WAYS = {
    "hfnb": "bench.peers:ours",
    "GEMM": "bench.peers:gemm",
    "GEMM, chunks": "bench.peers:gemm_chunks",
    "autograd": "bench.peers:plain_autograd",
    "JAX": "bench.peers_jax:compiled",
    "PyTorch": "bench.peers_torch:double_backward",
    "torch.func": "bench.peers_torch:func",
    "curvlinops": "bench.peers_torch:curvlinops",
}


@contextlib.contextmanager
def before_others(priority: int):
    """Run this process's threads in real time where the system lets it: other programs disturb it less."""
    if not priority:
        yield
        return
    threads = [int(thread) for thread in os.listdir("/proc/self/task")]
    try:
        for thread in threads:
            os.sched_setscheduler(thread, os.SCHED_FIFO, os.sched_param(priority))
        yield
    finally:
        for thread in threads:
            with contextlib.suppress(ProcessLookupError):
                os.sched_setscheduler(thread, os.SCHED_OTHER, os.sched_param(0))


def timed(call, seconds: float, priority: int) -> float:
    """Return the median time of a call over ``seconds``, at least 3 calls, after one that is not timed."""
    times: list[float] = []
    with before_others(priority):
        call()
        began = time.perf_counter()
        while len(times) < 3 or (time.perf_counter() - began < seconds and len(times) < 50):
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
    return float(np.median(times))


def fingerprint(vector) -> list[float] | None:
    """Return a few random projections of what a way returns: all ways must agree on them."""
    if vector is None:
        return None
    signs = np.random.default_rng(0).choice([-1.0, 1.0], size=(3, vector.size))
    return [float(x) for x in signs @ vector / np.sqrt(vector.size)] + [float(np.linalg.norm(vector))]


def main(way: str) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not come between the answers
    module, function = WAYS[way].split(":")
    call = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if "prepare" in request:
                make = getattr(importlib.import_module(module), function)
                call, flat = make(Case.of(**request["prepare"]))
                answer = {"fingerprint": fingerprint(flat(call()))}
            else:
                answer = {"seconds": timed(call, request["time"], request["priority"])}
        except Exception as error:  # whatever a peer raises is reported in its place in the table
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
