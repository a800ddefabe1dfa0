"""Options of the launchers: what each takes, one clear error for what is missing, what programs are told."""

import os
import sys

import psutil
import pytest

from hfnb.engines import Cluster, options
from hfnb.engines.options import prepare, without_lost_hosts
from hfnb.threads import THREAD_VARIABLES


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Return a function that puts a program on PATH, in front of all others."""

    def write(name, script):
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)

    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return write


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"engines": "local", "quue": "cpu"}, ValueError, "quue: expected an option .*environment"),
        ({"engines": "local", "hosts": ["a"]}, ValueError, r"hosts: the launcher local places .*\['a'\]"),
        ({"engines": "ssh"}, ValueError, "hosts: expected {host: engines} or a list of hosts, got None"),
        ({"engines": "ssh", "hosts": {"a": 0}}, ValueError, "hosts: expected .* got {'a': 0}"),
        ({"engines": "ssh", "hosts": "a"}, ValueError, "hosts: expected .* got 'a'"),
        ({"engines": "ssh", "hosts": []}, ValueError, r"hosts: expected .* got \[\]"),
        (
            {"engines": "ssh", "hosts": ["a"], "n": 2},
            ValueError,
            "n: expected at most 1, as hosts= says, got 2",
        ),
        (
            {"engines": "slurm", "submit_command": ["no-such-sbatch"]},
            RuntimeError,
            "the launcher slurm needs no-such-sbatch, which is not on PATH",
        ),
        (
            {"engines": "ssh", "hosts": ["a"], "ssh_cmd": ["no-such-ssh"]},
            RuntimeError,
            "the launcher ssh needs no-such-ssh, which is not on PATH",
        ),
    ],
    ids=str,
)
def test_bad_options(arguments, error, message):
    with pytest.raises(error, match=message):
        Cluster(**arguments).start()


def test_batch_launchers_need_an_address(fake):
    fake("sbatch", "exit 1")
    with pytest.raises(ValueError, match="controller_ip: expected this machine's address on the network"):
        Cluster(engines="slurm").start()


def test_host_that_refuses_is_named_with_what_ssh_says(fake):
    fake("ssh", 'echo "me@b: Permission denied (publickey)." >&2; exit 255')
    with pytest.raises(RuntimeError, match=r"hosts: b: me@b: Permission denied \(publickey\)"):
        Cluster(engines="ssh", hosts=["b"]).start()


def test_hosts_that_do_not_answer_are_left_out(fake, caplog):
    """The fake ssh reaches the host "up" alone."""
    fake("ssh", 'for word; do test "$word" = up && exit 0; done; echo "no route" >&2; exit 255')
    kept = {"hosts": {"up": 2, "down": 3}, "python": "python3"}
    assert without_lost_hosts("ssh", 5, kept) == (2, kept | {"hosts": {"up": 2}})
    assert caplog.messages == ["Going on without down (no route)"]
    for hosts in ({"down": 1}, {"up": 1}):  # none is left; none is lost
        assert without_lost_hosts("ssh", None, {"hosts": hosts}) == (None, {"hosts": hosts})


def test_what_ssh_engines_are_told(fake):
    fake("ssh", "exit 0")
    given = {
        "hosts": {"localhost": 2},
        "python": "/x/python",
        "environment": {"A": "1"},
        "controller_ip": "::1",
    }
    n, cluster, engines = prepare("ssh", None, 3, given | {"ssh_args": ["-i", "key"]})
    assert (n, cluster) == (2, {"controller_ip": "::1"})
    assert engines["remote_python"] == "/x/python"
    assert engines["environment"] == dict.fromkeys(THREAD_VARIABLES, "3") | {"A": "1"}
    assert engines["ssh_args"][:2] == ["-i", "key"]
    assert engines["engines"] == {"localhost": {"n": 2, "to_send": []}}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 25, "partitions": 24}, "partitions: expected at least 25, one for each engine, got 24"),
        ({"n": 3, "partitions": 2}, "partitions: expected at least 3"),
        ({"partitions": 1}, "partitions: expected at least 2"),
        ({"partitions": 0}, "partitions: expected a whole number of at least 1, got 0"),
        ({"partitions": 2.5}, "partitions: expected a whole number of at least 1, got 2.5"),
        ({"engines": "ssh", "hosts": {"a": 20, "b": 6}, "partitions": 9}, "partitions: expected at least 26"),
        ({"timeout": 0}, "timeout: expected a number > 0 .*got 0"),
        ({"timeout": float("nan")}, "timeout: .* got nan"),
        ({"timeout": "60"}, "timeout: .* got '60'"),
        ({"deadline": -1.0}, "deadline: .* got -1.0"),
        ({"deadline": True}, "deadline: .* got True"),
        ({"engines": "local", "environment": {"A": 1}}, "environment: expected {name: value}, both strings"),
        ({"engines": "local", "environment": "A=1"}, "environment: .* got 'A=1'"),
        ({"engines": "local", "engine_args": "--debug"}, "engine_args: expected a list of strings"),
        ({"engines": "slurm", "queue": 3}, "queue: expected another value than 3"),
        ({"engines": "local", "quue": "cpu"}, "quue: expected an option"),
    ],
    ids=str,
)
def test_what_is_wrong_anywhere_is_refused_before_a_start(arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        Cluster(**arguments)


def test_as_many_partitions_as_engines_are_accepted():
    Cluster(n=30, partitions=30)
    Cluster(n=25)


@pytest.mark.parametrize("address", ["203.0.113.9", "no.such.host.invalid", 3])
def test_address_of_another_machine(address):
    """The first is reserved for documentation (RFC 5737): no machine has it."""
    with pytest.raises(
        ValueError, match=f"controller_ip: expected an address of this machine, got {address!r}"
    ):
        Cluster(n=1, engines="local", controller_ip=address).start()


def test_engines_of_one_machine_are_told_to_listen_on_loopback(fake, tmp_path, monkeypatch):
    """Unless the user has chosen devices, arguments of mpiexec or hosts."""
    monkeypatch.setattr(options, "path", lambda: os.environ["PATH"])
    fake("mpiexec", "exit 0")
    fake("mpiexec.gforker", "exit 0")
    fake("ssh", "exit 0")
    loopback = {
        name for name, found in psutil.net_if_addrs().items() if "127.0.0.1" in {a.address for a in found}
    }
    monkeypatch.delenv("UCX_NET_DEVICES", raising=False)
    for given in ({}, {"controller_ip": "127.0.0.1"}):
        _, _, engines = prepare("mpi", 2, 1, given)
        assert engines["mpi_cmd"] == [str(tmp_path / "mpiexec.gforker")]
        assert {engines["environment"]["UCX_NET_DEVICES"]} == loopback
    _, _, engines = prepare("mpi", 2, 1, {"mpi_args": ["-v"]})
    assert "mpi_cmd" not in engines
    for given in ({"hosts": {"localhost": 2}}, {"controller_ip": "0.0.0.0"}):
        _, _, engines = prepare("mpi", 2, 1, given)
        assert "mpi_cmd" not in engines
        assert "UCX_NET_DEVICES" not in engines["environment"]
    monkeypatch.setenv("UCX_NET_DEVICES", "mlx5_0:1")
    _, _, engines = prepare("mpi", 2, 1, {})
    assert "UCX_NET_DEVICES" not in engines["environment"]  # it is inherited


@pytest.mark.parametrize(
    ("version", "flag"), [("HYDRA build details:", "-hosts"), ("Open MPI 4.1", "--host")]
)
def test_what_mpiexec_is_told(version, flag, fake, tmp_path, monkeypatch):
    fake("ssh", "exit 0")
    fake("mpiexec", f'echo "{version}"')
    monkeypatch.setattr(options, "path", lambda: os.environ["PATH"])  # not the folder of this Python first
    n, cluster, engines = prepare("mpi", None, 1, {"hosts": {"localhost": 2}, "mpi_args": ["-v"]})
    assert (n, cluster) == (2, {"controller_ip": "127.0.0.1"})
    assert engines["mpi_args"] == [flag, "localhost:2", "-v"]
    assert engines["engine_cmd"] == [sys.executable, "-m", "ipyparallel.engine"]


def test_a_batch_script_finds_the_mpiexec_beside_this_python(fake):
    fake("sbatch", "exit 0")
    _, _, engines = prepare("slurm", 2, 1, {"controller_ip": "127.0.0.1"})
    assert engines["environment"]["PATH"].split(os.pathsep)[0] == os.path.dirname(sys.executable)
