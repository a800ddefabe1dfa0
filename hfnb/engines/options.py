"""Options of the launchers: which there are, which values can work here, and what ipyparallel is given."""

import logging
import os
import pkgutil
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.metadata import entry_points
from typing import Any

import psutil

from hfnb.engines import blas
from hfnb.threads import THREAD_VARIABLES
from hfnb.validation import check_callable, check_positive_int

log = logging.getLogger(__name__)
# ipyparallel logs the whole output of engines; what matters of it is raised as an error instead.
quiet_log = logging.getLogger("hfnb.engines.ipyparallel")
quiet_log.setLevel(logging.CRITICAL)

# ssh must neither ask for a password that nobody can type, nor wait long for a host that is gone.
SSH = ["-o", "BatchMode=yes", "-o", "ConnectTimeout=5", "-o", "ServerAliveInterval=5"]
LOOPBACK = (None, "127.0.0.1", "localhost", "::1")  # where the controller listens for engines of this machine
# Variables that name MPI's network device: of UCX and libfabric (MPICH), and of Open MPI 4 and 5.
INTERFACE = ["UCX_NET_DEVICES", "FI_TCP_IFACE", "OMPI_MCA_btl_tcp_if_include", "OMPI_MCA_oob_tcp_if_include"]
INTERFACE += ["PRTE_MCA_oob_tcp_if_include", "PMIX_MCA_ptl_tcp_if_include"]
# Options of ipyparallel.Cluster; all others are its launcher's.
CLUSTER = {"controller", "controller_args", "controller_ip", "controller_location", "profile", "profile_dir"}
CLUSTER |= {"cluster_id", "delay", "send_engines_connection_env"}


def launchers() -> list[str]:
    """Return the names of ipyparallel's launchers, which can start engines.

    Examples
    --------
    >>> {"local", "mpi", "slurm", "ssh"} <= set(launchers())
    True
    """
    return sorted(entry.name for entry in entry_points(group="ipyparallel.engine_launchers"))


def traits(launcher: str) -> dict:
    """Return the options that a launcher takes.

    Parameters
    ----------
    launcher : str
        Its name.

    Returns
    -------
    dict
        {name of the option: its trait}, from the classes of ipyparallel.
    """
    return _class(launcher).class_traits(config=True)


def _class(launcher: str) -> Any:
    """Return ipyparallel's class of a launcher."""
    (entry,) = entry_points(group="ipyparallel.engine_launchers", name=launcher)
    return entry.load()


def path() -> str:
    """Return PATH with the folder of this Python first, where pip installs mpiexec."""
    return os.path.dirname(sys.executable) + os.pathsep + os.environ.get("PATH", os.defpath)


def check_options(launcher: str, n: int | None, options: dict) -> None:
    """Check what can be known of a launcher's options before anything is started.

    Parameters
    ----------
    launcher : str
        Its name.
    n : int or None
        How many engines to start.
    options : dict
        What a user has given to `hfnb.Cluster`.

    Raises
    ------
    ValueError
        For an option that neither `hfnb.Cluster` nor the launcher has, and for a value that is wrong on any
        machine.
    """
    known = {"hosts", "python", *traits(launcher)} - {"engines"}
    for name in options.keys() - known - CLUSTER:
        expected = ", ".join(sorted(known | CLUSTER))
        raise ValueError(f"{name}: expected an option of the launcher {launcher} ({expected})")
    environment = options.get("environment", {})
    if not isinstance(environment, dict) or any(
        not isinstance(word, str) for word in [*environment, *environment.values()]
    ):
        raise ValueError(f"environment: expected {{name: value}}, both strings, got {environment!r}")
    kind = _class(launcher)
    # The default of output_file would make a folder.
    quiet = {"output_file": ""} if "output_file" in kind.class_traits() else {}
    for name in options.keys() - CLUSTER - {"hosts", "python", "environment"}:
        value = options[name]
        if isinstance(value, str) and isinstance(traits(launcher)[name].default(), list):
            raise ValueError(f"{name}: expected a list of strings, got {value!r}")
        try:
            kind(**{name: value} | quiet)
        except Exception as error:  # of traitlets, or what an option makes of its value
            raise ValueError(f"{name}: expected another value than {value!r}: {error}") from None
    hosts = slots(launcher, options.get("hosts"))
    if hosts and n and n > sum(hosts.values()):
        raise ValueError(f"n: expected at most {sum(hosts.values())}, as hosts= says, got {n}")


def check_partitions(partitions: int, engines: int, name: str = "partitions") -> None:
    """Raise ValueError if there are more engines than partitions, or cells, of a dataset."""
    if check_positive_int(name, partitions) < engines:
        raise ValueError(f"{name}: expected at least {engines}, one for each engine, got {partitions}")


def prepare(launcher: str, n: int | None, threads: int, options: dict) -> tuple[int, dict, dict]:
    """Return what ipyparallel is to be given.

    Parameters
    ----------
    launcher : str
        Its name.
    n : int or None
        How many engines to start; None for as many as the hosts say, or 2.
    threads : int
        Threads of each engine's BLAS.
    options : dict
        What a user has given to `hfnb.Cluster`.

    Returns
    -------
    n : int
        How many engines to start.
    of_cluster : dict
        The options of ``ipyparallel.Cluster``.
    of_engines : dict
        Those of its launcher.

    Raises
    ------
    ValueError
        As `check_options` does; also for an address that this machine does not have, or cannot find out.
    RuntimeError
        If a program is missing here, or a host does not answer or cannot start engines.
    """
    check_options(launcher, n, options)
    cluster = {name: value for name, value in options.items() if name in CLUSTER}
    given = {name: value for name, value in options.items() if name not in CLUSTER}
    hosts, python = slots(launcher, given.pop("hosts", None)), given.pop("python", sys.executable)
    _check_program(launcher, given)
    _check_address(cluster)
    here = launcher in ("local", "mpi") and not hosts
    if lost := unreachable(launcher, options):
        raise RuntimeError("hosts: " + "; ".join(f"{host}: {why}" for host, why in lost.items()))
    if not here and not cluster.keys() & {"controller", "controller_ip"}:
        cluster["controller_ip"] = _address(hosts)
    alone = here and "controller" not in cluster and cluster.get("controller_ip") in LOOPBACK
    variables = _environment(launcher, threads, here) | (_loopback() if alone else {})
    given["environment"] = variables | given.get("environment", {})
    if launcher == "ssh":
        # A variable tells the engines where the controller is, so that ssh need not copy a connection file.
        each = {host: {"n": count, "to_send": []} for host, count in hosts.items()}
        given |= {"engines": each, "remote_python": python}
        given |= {name: [*given.get(name, []), *SSH, "-q"] for name in ("ssh_args", "scp_args")}
    else:
        given.setdefault("engine_cmd", [python, "-m", "ipyparallel.engine"])
    if launcher == "mpi" and hosts:
        places = ",".join(f"{host}:{count}" for host, count in hosts.items())
        given["mpi_args"] = [_host_flag(), places, *given.get("mpi_args", [])]
    free = launcher == "mpi" and alone and not given.keys() & {"mpi_cmd", "mpi_args"}
    if free and (mpiexec := _one_machine_mpiexec()):
        given["mpi_cmd"] = [mpiexec]
    return n or sum(hosts.values()) or 2, cluster, given


def slots(launcher: str, hosts) -> dict[str, int]:
    """Return how many engines to start on each host.

    Parameters
    ----------
    launcher : str
        Its name.
    hosts : dict, list or None
        {host: engines}, or a list of hosts with one engine each.

    Returns
    -------
    dict
        {host: engines}; empty if the launcher decides where engines run.

    Raises
    ------
    ValueError
        If the value has another form, if "ssh" has no hosts, or if the launcher takes none.
    """
    if launcher not in ("ssh", "mpi"):
        if hosts is not None:
            raise ValueError(f"hosts: the launcher {launcher} places engines by itself; got {hosts!r}")
        return {}
    if hosts is None and launcher == "mpi":
        return {}
    found = hosts if isinstance(hosts, dict) else dict.fromkeys(hosts, 1) if isinstance(hosts, list) else {}
    if not found or not all(
        isinstance(host, str) and count in range(1, 10**6) for host, count in found.items()
    ):
        raise ValueError(f"hosts: expected {{host: engines}} or a list of hosts, got {hosts!r}")
    return found


def unreachable(launcher: str, options: dict) -> dict[str, str]:
    """Return the hosts that ssh does not reach or that cannot start an engine.

    Parameters
    ----------
    launcher : str
        Its name.
    options : dict
        What a user has given to `hfnb.Cluster`, among it ``hosts`` and ``python``.

    Returns
    -------
    dict
        {host: why}.
    """
    hosts = list(slots(launcher, options.get("hosts")))
    modules = "ipyparallel, mpi4py" if launcher == "mpi" else "ipyparallel"
    python = options.get("python", sys.executable)

    def ask(host: str) -> str | None:
        name, _, port = host.partition(":")
        command = [*options.get("ssh_cmd", ["ssh"]), *options.get("ssh_args", []), *SSH]
        command += ["-p", port] if port else []
        command += [name, python, "-c", f"'import {modules}'"]
        try:
            asked = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
            )
        except subprocess.TimeoutExpired:
            return "gave no answer in 60 s"
        lines = asked.stderr.strip().splitlines() or [f"ssh ended with exit code {asked.returncode}"]
        return lines[-1] if asked.returncode else None

    with ThreadPoolExecutor(max(len(hosts), 1)) as pool:
        return {host: why for host, why in zip(hosts, pool.map(ask, hosts), strict=True) if why}


def without_lost_hosts(launcher: str, n: int | None, options: dict) -> tuple[int | None, dict]:
    """Return n and the options for those hosts that still answer, and log which do not.

    Parameters
    ----------
    launcher : str
        Its name.
    n : int or None
        How many engines were to be started.
    options : dict
        What a user has given to `hfnb.Cluster`.

    Returns
    -------
    n : int or None
    options : dict
        As they were if every host answers, or none.
    """
    hosts = slots(launcher, options.get("hosts"))
    lost = unreachable(launcher, options)
    left = {host: count for host, count in hosts.items() if host not in lost}
    if not left or not lost:
        return n, options
    log.warning("Going on without %s", "; ".join(f"{host} ({why})" for host, why in lost.items()))
    return n and min(n, sum(left.values())), options | {"hosts": left}


def _environment(launcher: str, threads: int, here: bool) -> dict[str, str]:
    """Return the variables of engines that must be set before they import NumPy or mpiexec is looked for.

    Engines ``here``, on this machine, get the BLAS kernel of this process, so that they round as it does.
    Another machine may have another processor, on which that kernel could crash. Its kernel is left to
    OpenBLAS, or to the user, and compared with this one's later (`hfnb.engines.blas.warn_of_others`).
    """
    variables, kernel = dict.fromkeys(THREAD_VARIABLES, str(threads)), blas.kernel()
    if here and kernel:
        variables[blas.KERNEL_VARIABLE] = kernel
    return variables | ({} if launcher == "ssh" else {"PATH": path()})


def _loopback() -> dict[str, str]:
    """Return the variables that let MPI engines on this machine listen at the loopback address only.

    They are those of MPICH (UCX, libfabric) and Open MPI. What is set in this process is the user's choice.
    """
    each = psutil.net_if_addrs().items()
    name = next((name for name, found in each if any(one.address == "127.0.0.1" for one in found)), None)
    return {} if name is None else {variable: name for variable in INTERFACE if variable not in os.environ}


def _one_machine_mpiexec() -> str | None:
    """Return the path of MPICH's mpiexec for one machine, if it is installed beside mpiexec.

    It talks to the processes that it starts by file descriptors. The general one listens on every network
    interface.
    """
    mpiexec = shutil.which("mpiexec", path=path())
    return mpiexec and shutil.which("mpiexec.gforker", path=os.path.dirname(mpiexec))


def _check_address(cluster: dict) -> None:
    """Raise ValueError if the controller is to listen at an address that this machine does not have."""
    address = cluster.get("controller_ip")
    if cluster.keys() & {"controller"} or address in (None, "*", "0.0.0.0", *psutil.net_if_addrs()):
        return
    try:
        for family, kind, protocol, _, place in socket.getaddrinfo(address, 0, type=socket.SOCK_STREAM)[:1]:
            with socket.socket(family, kind, protocol) as probe:
                probe.bind(place)
    except (OSError, TypeError, UnicodeError) as error:
        raise ValueError(
            f"controller_ip: expected an address of this machine, got {address!r} ({error})"
        ) from None


def _check_program(launcher: str, options: dict) -> None:
    """Raise RuntimeError if the program by which the launcher starts engines is not here."""
    commands = {
        name: trait.default()
        for name, trait in traits(launcher).items()
        if name in ("submit_command", "ssh_cmd")
    }
    for name, default in commands.items():
        program = options.get(name, default)[0]
        if not shutil.which(program):
            raise RuntimeError(f"engines: the launcher {launcher} needs {program}, which is not on PATH")


def _address(hosts: dict[str, int]) -> str:
    """Return this machine's address on the network of the hosts, where the controller then listens."""
    wanted = "controller_ip: expected this machine's address on the network of the engines' hosts"
    if not hosts:
        raise ValueError(f"{wanted} (hostname -I lists its addresses), got none")
    name = next(iter(hosts)).rpartition("@")[2].partition(":")[0]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((name, 9))  # sends nothing: only the route is looked up
        except OSError as error:
            raise ValueError(f"{wanted}: {name!r} gives none ({error})") from None
        return probe.getsockname()[0]


def _host_flag() -> str:
    """Return the option by which mpiexec takes hosts."""
    version = subprocess.run(
        ["mpiexec", "--version"], env=os.environ | {"PATH": path()}, capture_output=True, text=True
    )
    return "--host" if "Open MPI" in version.stdout or "OpenRTE" in version.stdout else "-hosts"


def needs_cells(optimizer: Callable, options: Mapping[str, Any]) -> bool:
    """Return whether an optimizer, perhaps a `functools.partial`, needs an objective with cells."""
    while isinstance(optimizer, partial):
        options = {**optimizer.keywords, **options}
        optimizer = optimizer.func
    solves = options.get("solves")  # of any type: the optimizer checks it
    return bool(getattr(optimizer, "needs_cells", False)) or (isinstance(solves, str) and solves == "local")


def find_optimizer(optimizer: Callable | str) -> Callable:
    """Return an optimizer that is given as it is or by its name, "module:function"."""
    if isinstance(optimizer, str):
        try:
            optimizer = pkgutil.resolve_name(optimizer)
        except (ValueError, ImportError, AttributeError) as error:
            raise ValueError(
                f'optimizer: expected a function or its name, "module:function", got {optimizer!r} ({error})'
            ) from error
    return check_callable("optimizer", optimizer, "(objective, w0, **options)")
