"""A program that stops a cluster once the process that started it is gone, even if that was killed.

It is started before the cluster, as ``python watchdog.py PID CLUSTER_FILE CLUSTER_ID PROFILE_FOLDER``. It is
run by path and imports nothing of the package, so that it needs little memory while it waits.
"""

import os
import re
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil

GRACE = 1.0  # seconds between SIGTERM and SIGKILL
QUIET = 3  # searches in a row that find no process, after which no other is expected to appear

SEGMENT = re.compile(r"(/dev/shm/mpich_shm_\S+)$", re.MULTILINE)  # of MPICH, as long as it has this name


def wait_for_exit(pid: int, interval: float = 0.5) -> None:
    """Return once a process is gone, or is a zombie that its parent has not waited for.

    Parameters
    ----------
    pid : int
    interval : float, optional
        Seconds between two checks.
    """
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            time.sleep(interval)


def processes_of(cluster_id: str, profile_dir: str) -> list[psutil.Process]:
    """Return the processes of a cluster on this machine, and those that they have started.

    Parameters
    ----------
    cluster_id : str
        ipyparallel's id of the cluster.
    profile_dir : str
        The folder of its IPython profile.

    Returns
    -------
    list of psutil.Process

    Notes
    -----
    ipyparallel puts the id and the folder into the environment of all that it starts. So a process is found
    even if it was interrupted before it was noted that it had been started.
    """
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            variables = process.environ()
            wanted = variables.get("IPP_CLUSTER_ID") == cluster_id
            if wanted and variables.get("IPP_PROFILE_DIR") == profile_dir and process.pid != os.getpid():
                found.append(process)
    return found


def unlink_segments(pid: int | None = None) -> None:
    """Remove the names of the shared memory of MPI that a process maps; the memory stays until it ends.

    Parameters
    ----------
    pid : int, optional
        The process; by default this one.

    Notes
    -----
    MPICH removes the names when a process finalizes MPI, but engines are usually ended by a signal. Call this
    only after every process of the MPI job has initialized MPI: a process that starts later needs the names.
    """
    try:
        found = set(SEGMENT.findall(Path(f"/proc/{pid or os.getpid()}/maps").read_text()))
    except OSError:  # no /proc here, or the process has ended
        return
    for path in found:
        with suppress(OSError):
            os.unlink(path)


def sweep(cluster_id: str, profile_dir: str, quiet: int = 1, seconds: float = 30) -> None:
    """End the processes of a cluster on this machine.

    Parameters
    ----------
    cluster_id, profile_dir : str
        The cluster, as `processes_of` takes it.
    quiet : int, optional
        Searches in a row that must find no process.
    seconds : float, optional
        The longest time to search.
    """
    asked: dict[psutil.Process, float] = {}
    empty, end = 0, time.monotonic() + seconds
    while cluster_id and time.monotonic() < end:
        found = processes_of(cluster_id, profile_dir)
        empty = 0 if found else empty + 1
        if empty >= quiet:
            return
        for process in found:
            unlink_segments(process.pid)
            with suppress(psutil.NoSuchProcess):
                if process not in asked:
                    asked[process] = time.monotonic()
                    process.terminate()
                elif time.monotonic() > asked[process] + GRACE:
                    process.kill()
        time.sleep(0.2)


def remove_files(cluster_id: str, profile_dir: str) -> None:
    """Remove the logs and the connection files of a cluster."""
    for folder in ("log", "security") if cluster_id else ():
        for file in Path(profile_dir, folder).glob(f"*{cluster_id}*"):
            with suppress(OSError):
                file.unlink()


def stop(cluster) -> None:
    """Stop the engines and the controller of an ``ipyparallel.Cluster``, and remove the files they leave."""
    for process in processes_of(cluster.cluster_id, cluster.profile_dir) if cluster.cluster_id else ():
        unlink_segments(process.pid)  # of engines that are stopped before they have done so themselves
    with suppress(Exception):  # a host that is gone: its engines end once they miss the controller
        cluster.stop_engines_sync()  # before the controller, from which they take leave
    with suppress(Exception):
        cluster.stop_controller_sync()
    # What a killed controller or mpiexec leaves, and what was being started at the moment of an interrupt.
    sweep(cluster.cluster_id, cluster.profile_dir)
    remove_files(cluster.cluster_id, cluster.profile_dir)


def reap(cluster_file: str, cluster_id: str, profile_dir: str) -> None:
    """Stop a cluster by its file, whatever launcher started it and however far its start has come."""
    sweep(cluster_id, profile_dir, QUIET)
    # Without a file the client has stopped the cluster; with an incomplete one no other launcher had started.
    with suppress(Exception):
        import ipyparallel

        stop(ipyparallel.Cluster.from_file(cluster_file))  # engines elsewhere
    remove_files(cluster_id, profile_dir)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    wait_for_exit(int(sys.argv[1]))
    reap(*sys.argv[2:5])
