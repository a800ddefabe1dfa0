"""Past one machine: hosts in namespaces, engines on them by SSH, MPI and Slurm, a host that is cut off."""

import ast
import pickle
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from hosts import Hosts
from hosts import missing as hosts_missing
from on_engines import MPI, NET, OPTIONS, assert_same, wait_until
from slurm import Slurm
from slurm import missing as slurm_missing

from hfnb.optimizers.checkpoint import Checkpoint

ROOT = Path(__file__).parents[1]
HOSTS = pytest.mark.needs("hosts", hosts_missing())
SLURM = pytest.mark.needs("Slurm", slurm_missing())
IMPATIENT = {"deadline": 5, "timeout": 90}
pytestmark = pytest.mark.slow


def page(engines, argument):
    """The arguments of the first Cluster(...) in docs/cluster.md with these engines and this argument."""
    source = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
    for block in re.findall(r"```python\n(hfnb\.Cluster\(.*?)```", source, re.DOTALL):
        words = {word.arg: word.value for word in ast.parse(block).body[0].value.keywords}
        if argument in words and ast.literal_eval(words["engines"]) == engines:
            return {name: ast.literal_eval(value) for name, value in words.items()}
    raise ValueError(f"docs/cluster.md has no Cluster with engines={engines!r} and {argument}")


def run_on_head(hosts, job, folder, halted=None):
    """Run a job of on_head.py; ``halted`` is called where it halts. Return its report and what it printed."""
    env = {"IPYTHONDIR": f"{folder}/ipython", "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
    program = [sys.executable, str(ROOT / "tests" / "on_head.py"), f"{folder}/report"]
    settings = [f"{name}={value}" for name, value in env.items()]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    printed = []
    with hosts.popen("env", *settings, "timeout", "150", *program, **pipes) as process:
        process.stdin.write(pickle.dumps(job))
        process.stdin.flush()
        for line in process.stdout:
            printed.append(line.decode())
            if line == b"halt\n":
                halted()
                process.stdin.write(b"\n")
                process.stdin.flush()
    assert process.returncode == 0, "".join(printed)
    return pickle.loads(Path(folder, "report").read_bytes()), "".join(printed)


# The hosts


@HOSTS
def test_hosts_have_names_and_reach_each_other():
    with Hosts(2) as hosts:
        asked = hosts.run("ssh", "host1", "ssh", "host2", "hostname", capture_output=True, text=True)
        assert (asked.stdout, asked.stderr) == ("host2\n", "")
        hosts.cut("host2")
        assert hosts.run("ssh", "host2", "true", capture_output=True).returncode == 255
        hosts.mend("host2")
        assert hosts.run("ssh", "host2", "true").returncode == 0


ALLREDUCE = """
import time, numpy as np
from mpi4py import MPI
comm, seconds = MPI.COMM_WORLD, []
numbers = np.ones(1_500_000 // 4, np.float32)
for _ in range(10):
    comm.Barrier()
    start = time.perf_counter()
    comm.Allreduce(MPI.IN_PLACE, numbers)
    seconds.append(time.perf_counter() - start)
if comm.rank == 0:
    print(min(seconds))
"""


@HOSTS
@MPI
@pytest.mark.parametrize("megabits", [100, 1000])
def test_links_have_the_bandwidth_asked_for(megabits):
    """Between two hosts each number crosses each link once, either way: 1.5 MB at 1 Gbit/s take 12 ms."""
    mpiexec = [str(Path(sys.executable).parent / "mpiexec"), "-hosts", "host1,host2", "-n", "2"]
    first = ["chrt", "-f", "5"]  # before all else that this machine may be doing
    with Hosts(2, rate=f"{megabits}mbit") as hosts:
        program = [*mpiexec, *first, sys.executable, "-c", ALLREDUCE]
        done = hosts.run(*program, capture_output=True, text=True)
    assert float(done.stdout) == pytest.approx(1.5 * 8 / megabits, rel=0.15), done.stderr


def left_of(name):
    """The namespaces and processes that bear the name of hosts' folder."""
    spaces = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True).stdout
    processes = [" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])]
    return [line for line in [*spaces.splitlines(), *processes] if name in line]


@HOSTS
def test_killed_program_leaves_no_hosts_behind():
    command = [sys.executable, str(ROOT / "tools" / "hosts.py"), "--", "sh", "-c", "echo $PATH; sleep 60"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        folder = Path(program.stdout.readline().split(":")[0]).parent
        assert len(left_of(folder.name)) > 6
        program.send_signal(signal.SIGKILL)
    wait_until(lambda: not left_of(folder.name) and not folder.exists())


@HOSTS
def test_failure_leaves_no_hosts_behind():
    hosts = Hosts(1, rate="slow")
    with pytest.raises(RuntimeError, match=r"tc .* rate"):
        hosts.__enter__()
    assert not left_of(hosts.folder.name)


@HOSTS
def test_the_first_program_of_the_page_prints_the_hosts_of_its_engines(tmp_path):
    source = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
    program = re.search(r"^```python\n(import socket\n.*?)^```$", source, re.DOTALL | re.MULTILINE)
    expected = re.search(
        r"^All is well.*?^```\n(.*?)^```$", source[program.end() :], re.DOTALL | re.MULTILINE
    )
    (tmp_path / "hello.py").write_text(program[1], encoding="utf-8")
    settings = [f"IPYTHONDIR={tmp_path}/ipython", f"PYTHONPATH={ROOT}", "OPENBLAS_NUM_THREADS=1"]
    command = ["env", *settings, sys.executable, str(tmp_path / "hello.py")]
    with Hosts(2) as hosts:
        done = hosts.run(*command, capture_output=True, text=True, timeout=150)
    assert (done.returncode, done.stdout) == (0, expected[1]), done.stderr
    assert "Warning" not in done.stderr


# Engines on them: the same run, and the same run although a host is cut off half-way


@HOSTS
def test_ssh_goes_on_where_a_host_is_cut_off(data, w0, alone, tmp_path):
    cluster = page("ssh", "hosts") | IMPATIENT | {"ssh_args": ["-o", "ConnectTimeout=2"]}
    job = {"cluster": cluster, "arguments": (NET, data, w0), "runs": [(OPTIONS, None), (OPTIONS, 4)]}
    with Hosts(2) as hosts:
        report, printed = run_on_head(hosts, job, tmp_path, lambda: hosts.cut("host2"))
    assert report["hosts"] == ["host1", "host2"]
    through, cut = report["runs"]
    assert_same(through["result"], alone)
    assert_same(cut["result"], alone)
    assert (through["engines"], cut["engines"]) == ([0, 1], [0])
    assert cut["seconds"] < 40
    assert report["down"] < 60
    assert "Traceback" not in printed


@HOSTS
@MPI
def test_mpi_restarts_on_the_hosts_that_are_left(data, w0, alone, tmp_path):
    cluster = page("mpi", "hosts") | IMPATIENT
    runs = [(OPTIONS, None), (OPTIONS | {"checkpoint": Checkpoint(tmp_path / "checkpoint")}, 4)]
    with Hosts(2) as hosts:
        job = {"cluster": cluster, "arguments": (NET, data, w0), "runs": runs}
        report, printed = run_on_head(hosts, job, tmp_path, lambda: hosts.cut("host2"))
    assert (report["hosts"], report["has_mpi"]) == (["host1", "host2"], True)
    through, cut = report["runs"]
    assert_same(through["result"], alone)
    assert_same(cut["result"], alone)
    assert cut["engines"] == [0]
    assert cut["seconds"] < 60
    assert "Going on without host2 (ssh: connect to host host2 port 22: Connection timed out)" in printed


@SLURM
@pytest.mark.parametrize(
    ("argument", "has_mpi"),
    [
        ("queue", False),
        pytest.param("batch_template", True, marks=MPI),
    ],
    ids=["client", "mpi"],
)
def test_slurm(argument, has_mpi, data, w0, alone, tmp_path):
    """An engine on each host, which has one CPU; they are connected by MPI where mpiexec starts them."""
    job = {"cluster": page("slurm", argument), "arguments": (NET, data, w0), "runs": [(OPTIONS, None)]}
    with Slurm(2) as slurm:
        report, _ = run_on_head(slurm, job, tmp_path)
        queue = slurm.run("squeue", "-h", "-t", "pending,running", capture_output=True, text=True)
        assert queue.stdout == ""
    assert (sorted(report["hosts"]), report["has_mpi"]) == (["host1", "host2"], has_mpi)
    assert_same(report["runs"][0]["result"], alone)
