"""Shared memory of MPI engines on one host: what they leave in /dev/shm, and how much of it there is."""

import os
import re
import shutil

from hfnb.engines import watchdog

FOLDER = "/dev/shm"
NEEDED = (
    32 * 2**20
)  # bytes for each engine; two started with 64 MB, the default of Docker, and not with 16 MB


def unlink() -> None:
    """Remove the names of the MPI segments that this process maps; the memory stays until the maps end.

    MPICH removes them when a process finalizes MPI, but an engine usually ends by a signal. To be called when
    every process of the MPI job has initialized MPI: later ones could not find the segment.
    """
    watchdog.unlink_segments(os.getpid())


def shortage(n: int, output: str) -> str:
    """Say, of n engines that ended with this output, whether too little shared memory may be the cause."""
    if not re.search(r"Bus error|Segmentation fault|SIGBUS|SIGSEGV|No space left", output):
        return ""
    try:
        usage = shutil.disk_usage(FOLDER)
    except OSError:
        return ""
    if usage.free >= n * NEEDED:
        return ""
    return (
        f"; {FOLDER}, where MPI engines share memory, has {usage.free / 2**20:.1f} MB free of "
        f"{usage.total / 2**20:.1f} MB, and {n} engines need up to {n * NEEDED / 2**20:.0f} MB "
        "(in Docker: --shm-size=1g)"
    )
