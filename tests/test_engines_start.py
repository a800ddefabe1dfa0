"""Starting, attaching, stopping: what cannot work is said at once, and nothing listens to other machines."""

import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
from IPython.paths import get_ipython_dir
from on_engines import MPI, NET, PATHS, engine_pids, running, wait_until

from hfnb import Objective
from hfnb.engines import Cluster, EngineLost, launch, options
from hfnb.engines.watchdog import processes_of

pytestmark = pytest.mark.usefixtures("own_ipython_dir")
KINDS = pytest.mark.parametrize("kind", [pytest.param("mpi", marks=MPI), "local"])


# Engines that end at once


def program(folder, script):
    path = Path(folder, "program")
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


# Seconds that a cluster would wait for engines which cannot come. An error that comes at once comes in a
# fraction of them, also on a machine that other programs keep busy.
TIMEOUT = 500


def refused(*words, **options):
    """Cluster(**options) must not start, long before its timeout, say why, and leave no process."""
    start, before = time.monotonic(), set(psutil.Process().children(recursive=True))
    with pytest.raises(RuntimeError) as error:
        Cluster(timeout=TIMEOUT, **options).start()
    assert time.monotonic() - start < TIMEOUT / 2
    assert all(word in str(error.value) for word in words), error.value
    wait_until(lambda: not running(set(psutil.Process().children(recursive=True)) - before))


@KINDS
def test_engines_that_end_at_once(kind, tmp_path):
    python = program(tmp_path, "echo no module of this name; exit 3")
    refused("did not start", "ended", "no module of this name", n=2, engines=kind, python=python)


@KINDS
def test_python_that_is_not_there(kind):
    refused("did not start", "/no/such/python", n=2, engines=kind, python="/no/such/python")


@MPI
def test_mpiexec_that_is_another_program(tmp_path):
    mpiexec = program(tmp_path, "echo I print jobs")
    refused("did not start", mpiexec, "ended with exit code 0", "I print jobs", n=2, mpi_cmd=[mpiexec])


def test_controller_that_ends_at_once():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        arguments = [f"--port={taken.getsockname()[1]}"]
        refused("Controller stopped", "in use", n=1, engines="local", controller_args=arguments)


def held_ports(count):
    """Sockets that hold ports below those that systems choose, so that no other test takes them."""
    sockets, port = [], 12_000 + 61 * (os.getpid() % 200)
    while len(sockets) < count:
        port += 1
        with suppress(OSError):  # another program has it
            sockets.append(socket.create_server(("127.0.0.1", port)))
    return sockets


@pytest.mark.parametrize("number", [0, 2, 5])  # of the port: registration, messages to engines, heartbeats
def test_port_that_another_program_takes_first(number, monkeypatch, caplog, data, w0):
    sockets = held_ports(25)
    ports = ",".join(str(one.getsockname()[1]) for one in sockets)
    taken = sockets.pop(number)
    for one in sockets:
        one.close()
    warn = launch.log.warning

    def warn_and_free(message):
        taken.close()
        warn(message)

    monkeypatch.setattr(launch.log, "warning", warn_and_free)
    with Cluster(n=2, engines="local", timeout=60, controller_args=[f"--ports={ports}"]) as cluster:
        value = cluster.objective(NET, data).value(w0)
    assert caplog.text.count("in use by another program") == 1
    assert value == pytest.approx(Objective(NET, data).value(w0), rel=1e-12)


def test_folder_that_cannot_be_written(monkeypatch, tmp_path):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / (300 * "x")))  # a name that is too long, for root too
    refused("IPYTHONDIR: expected a folder that can be written to", n=1, engines="local")


def may_mount():
    """Whether this process may give programs file systems of their own."""
    mount = ["unshare", "-m", "mount", "-t", "tmpfs", "none", "/dev/shm"]
    return shutil.which("unshare") and subprocess.run(mount, capture_output=True).returncode == 0


SMALL = """
import sys, time
from hfnb.engines import Cluster
start = time.monotonic()
try:
    Cluster(n=2, engines=sys.argv[1], timeout=float(sys.argv[2])).start()
except RuntimeError as error:
    print(error)
print(time.monotonic() - start)
"""


def in_a_small_folder(folder, size, kind):
    """What a program prints that starts a cluster where a folder has so much space, and its seconds."""
    mounted = f'mount -t tmpfs -o size={size} none {folder} && exec "$@"'
    command = ["unshare", "-m", "sh", "-c", mounted, "sh", sys.executable, "-c", SMALL]
    command += [kind, str(TIMEOUT)]
    done = subprocess.run(command, env=PATHS | os.environ, capture_output=True, text=True, timeout=TIMEOUT)
    *lines, seconds = done.stdout.splitlines()
    return "\n".join(lines), float(seconds)


@MPI
@pytest.mark.skipif(not may_mount(), reason="file systems cannot be mounted here")
def test_little_shared_memory_is_named():
    said, seconds = in_a_small_folder("/dev/shm", "64k", "mpi")
    assert "2 engines (mpi) did not start" in said
    assert "Bus error" in said
    assert "/dev/shm, where MPI engines share memory, has 0.0 MB free of 0.1 MB" in said
    assert seconds < TIMEOUT / 2


@pytest.mark.skipif(not may_mount(), reason="file systems cannot be mounted here")
def test_full_disk_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    said, _ = in_a_small_folder(tmp_path, "32k", "local")
    assert "IPYTHONDIR: expected a folder that can be written to" in said
    assert "No space left on device" in said


# Files of clusters that do not run


@pytest.fixture
def stale():
    """Return a function that writes the connection file of the profile "stale"."""
    file = Path(get_ipython_dir(), "profile_stale", "security", "ipcontroller-client.json")
    file.parent.mkdir(parents=True)

    def write(text):
        file.write_text(text)
        return str(file)

    yield write
    shutil.rmtree(file.parents[1])


def unusable(file, *words):
    start = time.monotonic()
    with pytest.raises(ValueError, match="expected a file of a running cluster") as error:
        Cluster(engines="stale", timeout=TIMEOUT).start()
    assert time.monotonic() - start < TIMEOUT / 2  # it does not wait for the engines
    assert file in str(error.value)
    assert all(word in str(error.value) for word in words), error.value


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "Expecting value"),
        ("half of {", "Expecting value"),
        ("[]", "it lacks interface"),
        ('{"shell_port": 1, "transport": "tcp"}', "it lacks interface, registration"),
    ],
    ids=["empty", "damaged", "list", "kernel"],
)
def test_file_that_ipcontroller_has_not_written(text, why, stale):
    unusable(stale(text), why)


def described(cluster):
    """What the connection file of a running cluster says."""
    return json.loads(Path(cluster.client.cluster.controller.connection_files["client"]).read_text())


def test_file_of_a_controller_that_has_ended(pair, stale):
    with socket.create_server(("127.0.0.1", 0)) as once:
        port = once.getsockname()[1]
    file = stale(json.dumps(described(pair) | {"registration": port}))
    unusable(file, f"nothing listens at 127.0.0.1:{port}: its controller has ended")


def test_file_whose_port_another_program_has(pair, stale, monkeypatch):
    monkeypatch.setattr(launch, "ANSWER", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        file = stale(json.dumps(described(pair) | {"registration": port}))
        unusable(file, f"no controller that has its key answers at 127.0.0.1:{port} within 1 s")


def test_file_with_the_key_of_an_earlier_controller(pair, stale, monkeypatch):
    monkeypatch.setattr(launch, "ANSWER", 1.0)
    file = stale(json.dumps(described(pair) | {"key": "0" * 8 + "-another"}))
    unusable(file, "no controller that has its key answers")


def test_file_that_is_right(pair, stale, data, w0):
    stale(json.dumps(described(pair)))
    with Cluster(engines="stale") as cluster:
        assert cluster.objective(NET, data).value(w0) == pytest.approx(Objective(NET, data).value(w0))


def test_cluster_whose_controller_was_killed(tmp_path):
    """Its file names a process that has ended; the engines may still run."""
    with Cluster(n=1, engines="local") as cluster:
        started = cluster.client.cluster
        started.controller.process.kill()
        wait_until(lambda: not running([started.controller.process]))
        with pytest.raises(ValueError, match="its controller has ended") as error:
            Cluster(engines=started.cluster_id).start()
        assert started.cluster_file in str(error.value)


# Started twice, stopped meanwhile, forked


def test_start_of_a_running_cluster_is_an_error(pair, data, w0):
    client = pair.client
    with pytest.raises(RuntimeError, match="the cluster is running already"):
        pair.start()
    assert pair.client is client
    assert pair.objective(NET, data).value(w0) == pytest.approx(Objective(NET, data).value(w0))


def test_objective_ends_with_its_cluster(data, w0):
    """Stopped in a thread while a call runs; started again with the same object."""
    cluster = Cluster(n=1, engines="local")
    with cluster:
        objective = cluster.objective(NET, data)
        objective.value(w0)
        pid = engine_pids(cluster)[0]
        psutil.Process(pid).suspend()
        threading.Timer(0.5, cluster.stop).start()
        with pytest.raises((RuntimeError, EngineLost)):
            objective.value(w0)
        with pytest.raises(RuntimeError, match="the cluster is not running"):
            objective.value(w0)
    with cluster:
        assert cluster.objective(NET, data).value(w0) == pytest.approx(Objective(NET, data).value(w0))
        with pytest.raises(RuntimeError, match="the cluster has been started again"):
            objective.value(w0)
    assert not psutil.pid_exists(pid)


FORKED = """
import os
import numpy as np
from hfnb import Dataset, models
from hfnb.engines import Cluster
net, data = models.mlp([4, 3, 2]), Dataset(np.eye(4), np.array([0, 1, 0, 1]))
with Cluster(n=1, engines="local") as cluster:
    objective = cluster.objective(net, data)
    child = os.fork()
    if child == 0:
        for use in (lambda: objective.value(np.zeros(net.size)), cluster.start):
            try:
                use()
            except RuntimeError as error:
                print(error, flush=True)
        raise SystemExit  # through the end of the block, and the end of the program
    os.waitpid(child, 0)
    print(round(objective.value(np.zeros(net.size)), 4))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes do not fork here")
def test_fork_leaves_the_engines_to_the_process_that_started_them():
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKED], env=PATHS, capture_output=True, text=True
    )
    *said, value = done.stdout.splitlines()
    assert len(said) == 2
    assert all("the cluster was started by process" in line for line in said)
    assert float(value) == round(np.log(2), 4)


# Who may connect


@pytest.mark.parametrize("kind", [pytest.param("mpi_pair", marks=MPI), "pair"])
def test_nothing_listens_to_other_machines(kind, request):
    cluster = request.getfixturevalue(kind)
    listening = []
    for process in processes_of(cluster.client.cluster.cluster_id, cluster.client.cluster.profile_dir):
        found = process.net_connections("inet")
        listening += [one.laddr.ip for one in found if one.status == psutil.CONN_LISTEN]
    assert len(listening) > 10
    assert set(listening) == {"127.0.0.1"}


def test_only_the_owner_reads_the_keys(pair):
    for file in pair.client.cluster.controller.connection_files.values():
        assert stat.S_IMODE(os.stat(file).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(Path(file).parent).st_mode) == 0o700


@MPI
@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="no /proc here")
def test_mpi_leaves_no_shared_memory_behind(mpi_pair):
    """The names of the segments are gone while the engines use them: whatever ends them, nothing is left."""
    mapped = set()
    for pid in engine_pids(mpi_pair).values():
        lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
        mapped |= {line.split("/dev/shm/")[1] for line in lines if "/dev/shm/mpich" in line}
    assert all(name.endswith("(deleted)") for name in mapped)
    assert mapped or not options._one_machine_mpiexec()
