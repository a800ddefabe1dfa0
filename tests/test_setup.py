"""The set-up: one list of packages in three files, environments made whole or not at all, saved notebooks."""

import ast
import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
import tomllib
import venv
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import nbformat
import psutil
import pytest
import yaml
from jupyter_client import BlockingKernelClient
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from running_server import TOKEN, address, ask
from traitlets.config.loader import PyFileConfigLoader

import hfnb
from hfnb import threads
from hfnb.engines import blas

ROOT = Path(__file__).parent.parent
SYSTEMS = {
    "linux": {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix"},
    "macos": {"sys_platform": "darwin", "platform_system": "Darwin", "os_name": "posix"},
    "windows": {"sys_platform": "win32", "platform_system": "Windows", "os_name": "nt"},
}


def load(name):
    """Import a script of tools/."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def asked_for(project, *extras):
    """What hfnb and some of its extras need, where an extra may name others."""
    found = list(map(Requirement, project["dependencies"]))
    for extra in extras:
        for each in map(Requirement, project["optional-dependencies"][extra]):
            found += asked_for(project, *each.extras) if each.name == "hfnb" else [each]
    return found


@pytest.fixture(scope="module")
def locked():
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines]


def test_conda_and_pip_agree(project):
    conda = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    assert conda["channels"] == ["conda-forge"]
    assert conda["dependencies"].pop() == {"pip": ["-e .[all]"]}
    listed = {Requirement(line).name: Requirement(line).specifier for line in conda["dependencies"]}
    assert listed.pop("pip") == SpecifierSet()
    assert listed.pop("python") == SpecifierSet(project["requires-python"])
    # `pip: -e .[all]` adds what conda does not have (speech), and what only some systems have.
    wanted = asked_for(project, "notebooks")
    assert listed == {each.name: each.specifier for each in wanted if each.marker is None}


def test_core_is_what_the_optimizers_need(project):
    assert {each.name for each in asked_for(project)} == {"autograd", "numpy", "scipy", "threadpoolctl"}


def test_all_is_all_that_is_not_for_development(project):
    extras = project["optional-dependencies"].keys() - {"all", "test"}
    everything = {str(each) for each in asked_for(project, *extras)}
    assert {str(each) for each in asked_for(project, "all")} == everything


def test_lock_names_versions_and_no_host(locked):
    for each in locked:
        assert each.url is None
        assert [part.operator for part in each.specifier] == ["=="], each


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13", "3.14"])
@pytest.mark.parametrize("system", SYSTEMS)
def test_lock_has_one_version_of_all_that_is_asked_for(project, locked, system, python):
    machine = dict(SYSTEMS[system], python_version=python, python_full_version=f"{python}.9")
    for wanted in asked_for(project, "all", "test"):
        asked = wanted.marker is None or wanted.marker.evaluate(machine)
        found = [
            each.specifier
            for each in locked
            if each.name == wanted.name and (each.marker is None or each.marker.evaluate(machine))
        ]
        assert len(found) == asked, wanted
        for specifier in found:
            assert wanted.specifier.contains(next(iter(specifier)).version), wanted


@pytest.mark.parametrize("name", ["bootstrap", "environments"])
def test_an_old_python_can_read_it_and_needs_no_package(name):
    tree = ast.parse((ROOT / "tools" / f"{name}.py").read_text(encoding="utf-8"), feature_version=(3, 6))
    modules = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules.add(node.module.split(".")[0])
    assert modules - {"environments"} <= sys.stdlib_module_names


def test_python_too_old_or_cut_down_is_told_in_one_line(monkeypatch):
    environments = load("environments")
    environments.check_python()
    monkeypatch.setattr(sys, "version_info", (3, 9, 2))
    with pytest.raises(SystemExit, match=r"needs Python 3\.11 or newer, and this is 3\.9 .*PYTHON=[^\n]*$"):
        environments.check_python()
    monkeypatch.setattr(sys, "version_info", (3, 12, 1))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match=r"sudo apt-get install python3\.12-venv$"):
        environments.check_python()


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """An empty project whose environments are real, with a stand-in for pip: what it was asked to install."""
    environments = load("environments")
    make = venv.create

    def create(folder, **options):
        make(folder, **dict(options, with_pip=False))
        (Path(folder) / "Lib" / "site-packages").mkdir(parents=True, exist_ok=True)
        python = environments.python_of(Path(folder))
        where = subprocess.check_output(
            [python, "-c", "import site; print(site.getsitepackages()[0])"], text=True
        )
        Path(where.strip(), "pip.py").touch()

    asked = []
    monkeypatch.delenv("HFNB_VENV", raising=False)  # tools/check_versions.py sets it for the tests themselves
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "requirements.lock").write_text("numpy==2.0.0\n")
    monkeypatch.setattr(environments, "ROOT", tmp_path)
    monkeypatch.setattr(environments.venv, "create", create)
    monkeypatch.setattr(environments, "pip", lambda folder, what, arguments, total=0: asked.append(what))
    environments.asked = asked
    return environments


def test_environment_is_made_once_and_updated_when_the_lock_changes(checkout, tmp_path):
    folder = checkout.setup()
    assert checkout.asked == ["1 packages from requirements.lock", "hfnb itself"]
    (folder / "kept").touch()
    assert checkout.setup() == folder
    assert len(checkout.asked) == 2
    (tmp_path / "requirements.lock").write_text("numpy==2.1.0\n")
    checkout.setup()
    assert len(checkout.asked) == 4
    assert (folder / "kept").exists()


def test_the_environment_variable_names_the_folder(checkout, tmp_path, monkeypatch):
    assert checkout.setup() == tmp_path / ".venv"
    monkeypatch.setenv("HFNB_VENV", ".venv-3.99")
    assert checkout.setup() == tmp_path / ".venv-3.99"
    assert len(checkout.asked) == 4


def test_interpreters_are_found_that_answer_with_their_version(tmp_path, monkeypatch):
    """This Python is among them; a name on PATH that answers with another version, or not at all, is not."""
    monkeypatch.syspath_prepend(ROOT / "tools")
    versions = load("check_versions")
    fakes = {
        "python3.12": "#!/bin/sh\necho 3 11\n",
        "python3.13": "#!/bin/sh\nexit 127\n",
        "python3.14": "no program",
    }
    for name, text in fakes.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "none"))
    assert set(versions.interpreters()) == {sys.version_info[:2]}


def test_interrupted_install_starts_from_nothing(checkout, monkeypatch):
    def interrupted(folder, *rest):
        (folder / "rubble").touch()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkout, "pip", interrupted)
        with pytest.raises(KeyboardInterrupt):
            checkout.setup()
    folder = checkout.setup()
    assert not (folder / "rubble").exists()
    assert len(checkout.asked) == 2


def test_environment_that_was_moved_or_broken_is_made_anew(checkout, tmp_path, monkeypatch):
    folder = checkout.setup()
    checkout.python_of(folder).unlink()
    checkout.setup()
    assert checkout.python_of(folder).exists()
    tmp_path.joinpath("moved").mkdir()
    for name in (".venv", "pyproject.toml", "requirements.lock"):
        tmp_path.joinpath(name).rename(tmp_path / "moved" / name)
    (tmp_path / "moved" / ".venv" / "old").touch()
    monkeypatch.setattr(checkout, "ROOT", tmp_path / "moved")
    assert not (checkout.setup() / "old").exists()


def test_make_has_the_commands_of_the_script(capsys, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tools")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = next(line for line in makefile.splitlines() if line.startswith(".PHONY:"))
    assert set(phony.split()[1:]) == set(load("bootstrap").COMMANDS)


def test_commands_start_with_one_blas_thread_and_print_no_warning(capfd, monkeypatch):
    """The variables that every command sets, found by the Python that runs these tests."""
    monkeypatch.syspath_prepend(ROOT / "tools")
    bootstrap = load("bootstrap")
    monkeypatch.setattr(bootstrap, "python_of", lambda folder: Path(sys.executable))
    for name in (blas.KERNEL_VARIABLE, *threads.THREAD_VARIABLES):
        monkeypatch.delenv(name, raising=False)
    variables = bootstrap.environment(Path(sys.prefix))
    assert {variables[name] for name in threads.THREAD_VARIABLES} == {"1"}
    assert variables.get(blas.KERNEL_VARIABLE) == blas.environment().get(blas.KERNEL_VARIABLE)
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "2")
    assert [bootstrap.environment(Path(sys.prefix)).get(name) for name in threads.THREAD_VARIABLES] == [
        "2",
        None,
        None,
        None,
    ]
    assert capfd.readouterr().err == ""


def test_conda_sets_one_blas_thread():
    conda = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    assert conda["variables"] == dict.fromkeys(threads.THREAD_VARIABLES, "1")


def test_citation_is_of_this_version_and_of_the_paper(project):
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (citation["version"], citation["license"]) == (hfnb.__version__, project["license"])
    assert "1606.00511" in citation["preferred-citation"]["url"]


def written(folder, *sources):
    """A notebook with a code cell for each source, in a folder like the project's."""
    cells = [nbformat.v4.new_code_cell(source, id=f"c{i}") for i, source in enumerate(sources)]
    (folder / "notebooks").mkdir()
    path = folder / "notebooks" / "00_case.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    return path


def test_saved_notebook_is_the_same_every_time_and_names_no_folder(tmp_path):
    progress = "from tqdm.auto import tqdm\nfor _ in tqdm(range(3)):\n    print(1)"
    path = written(tmp_path, progress, "import json\njson.loads('')")
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[1].metadata.tags = ["raises-exception"]
    nbformat.write(notebook, path)
    run = load("run_notebooks")
    run.execute(path, timeout=60, keep=True, variables=dict(os.environ))
    once = path.read_text(encoding="utf-8")
    run.execute(path, timeout=60, keep=True, variables=dict(os.environ))
    assert path.read_text(encoding="utf-8") == once
    assert "JSONDecodeError" in once
    assert "site-packages" not in once
    assert "model_id" not in once


def test_running_lessons_leaves_the_clusters_of_others_alone(tmp_path, monkeypatch):
    """At its end it stops those that its notebooks left running, in a profile folder of its own."""
    path, stopped_in = written(tmp_path, "1 + 1"), []
    path.rename(path.with_name("00_start_here.ipynb"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "of-others"))
    run = load("run_notebooks")

    def stop(command, env=os.environ):
        stopped_in.append(env["IPYTHONDIR"])

    monkeypatch.setattr(run, "ROOT", tmp_path)
    monkeypatch.setattr(run.subprocess, "call", stop)
    monkeypatch.setattr(sys, "argv", ["run_notebooks.py"])
    assert run.main() == 0
    assert len(stopped_in) == 1
    assert str(tmp_path / "of-others") not in stopped_in
    assert os.environ["IPYTHONDIR"] == str(tmp_path / "of-others")


@pytest.mark.parametrize(
    ("arguments", "place"), [([], "figures/run"), (["--figures"], "figures"), (["--save"], "figures")]
)
def test_committed_figures_and_outputs_change_by_request_only(tmp_path, monkeypatch, arguments, place):
    draw = "import matplotlib.pyplot as plt\nfrom hfnb import plots\nplots.save(plt.figure(), 'a.png')"
    path = written(tmp_path, draw, "1 + 1")
    before = path.rename(path.with_name("00_start_here.ipynb")).read_bytes()
    (tmp_path / "hfnb").mkdir()
    (tmp_path / "hfnb" / "plots.py").touch()
    monkeypatch.delenv("HFNB_FIGURES", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    run = load("run_notebooks")
    monkeypatch.setattr(run, "ROOT", tmp_path)
    monkeypatch.setattr(sys, "argv", ["run_notebooks.py", *arguments])
    assert run.main() == 0
    assert [found.parent.relative_to(tmp_path).as_posix() for found in tmp_path.rglob("a.png")] == [place]
    assert (path.with_name("00_start_here.ipynb").read_bytes() != before) == ("--save" in arguments)


def test_what_every_command_asks_of_the_environment_warns_of_nothing(capfd):
    """A warning on the terminal at each `make lab`, `make test` or `make run` is noise."""
    variables = load("bootstrap").environment(Path(sys.prefix))
    assert variables["VIRTUAL_ENV"] == sys.prefix
    assert capfd.readouterr().err == ""


CLUSTER = """
import hfnb
with hfnb.Cluster(n=1, engines="local") as cluster:
    assert cluster.engines == [0]
"""


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """JupyterLab as `make lab` starts it, with none of the user's settings: what asks it, and its log."""
    bootstrap, started = load("bootstrap"), []
    monkeypatch.setattr(bootstrap, "setup", lambda: Path(sys.prefix))
    monkeypatch.setattr(bootstrap, "fetch_data", lambda *_: None)
    monkeypatch.setattr(bootstrap, "start", lambda *call: started.extend(call))
    bootstrap.lab(["--no-browser", "--ip=127.0.0.1", "--port=0", f"--IdentityProvider.token={TOKEN}"])
    command, variables = started
    places = {f"JUPYTER_{name}_DIR": str(tmp_path / name) for name in ("CONFIG", "DATA", "RUNTIME")}
    variables |= places | {"IPYTHONDIR": str(tmp_path / "ipython"), "PYTHONPATH": str(ROOT)}
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(list(map(str, command)), cwd=ROOT, env=variables, stdout=log, stderr=log)
    try:
        end = time.monotonic() + 60
        while not (url := address(tmp_path / "RUNTIME")):
            assert time.monotonic() < end
            assert server.poll() is None
            time.sleep(0.2)
        yield partial(ask, url), tmp_path / "log"
    finally:
        server.terminate()
        server.wait(60)


def test_a_server_that_does_not_listen_yet_is_waited_for(tmp_path):
    """Jupyter writes down its address before it listens there."""
    with socket.create_server(("127.0.0.1", 0), backlog=1) as free:
        port = free.getsockname()[1]
    told = {"url": f"http://127.0.0.1:{port}/"}
    (tmp_path / "jpserver-1.json").write_text(json.dumps(told))
    assert address(tmp_path) is None
    with ThreadingHTTPServer(("127.0.0.1", port), Answers) as server, ThreadPoolExecutor() as pool:
        serving = pool.submit(server.serve_forever)
        assert address(tmp_path) == told["url"]
        server.shutdown()
        serving.result(30)


class Answers(BaseHTTPRequestHandler):
    """A server that answers every request by the path that was asked for."""

    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(self.path).encode())

    def log_message(self, *arguments):
        pass


def test_make_lab_says_nothing_of_a_healthy_cluster(lab, tmp_path):
    """A notebook starts and stops a cluster; ipyparallel's side bar asks the server which ones there are."""
    ask, log = lab
    kernel = ask("api/kernels", {"name": "python3"})["id"]
    client = BlockingKernelClient()
    client.load_connection_file(str(tmp_path / "RUNTIME" / f"kernel-{kernel}.json"))
    client.hb_channel.time_to_dead = 30.0  # a busy machine is no dead kernel
    client.start_channels()
    client.wait_for_ready(60)
    with ThreadPoolExecutor() as pool:
        running = pool.submit(client.execute_interactive, CLUSTER, timeout=120)
        seen = 0
        while not running.done():
            seen += any(cluster.get("controller") for cluster in ask("ipyparallel/clusters"))
            time.sleep(0.2)
    assert running.result()["content"]["status"] == "ok"
    assert seen
    ask("ipyparallel/clusters")
    time.sleep(1)
    client.stop_channels()
    ask(f"api/kernels/{kernel}", method="DELETE")
    said = log.read_text()
    told = said[said.index("Kernel started") :]
    assert "Kernel shutdown" in told
    assert told.count("\n") < 10
    for noise in ("Traceback", "Output for", "IPEngine", "Warning", "WARNING"):
        assert noise not in told


def test_lessons_saved_in_make_lab_keep_their_metadata():
    """What JupyterLab adds to a lesson does not reach the tracked file; other notebooks are left alone."""
    place = ROOT / "tools" / "jupyter"
    settings = PyFileConfigLoader("jupyter_server_config.py", str(place)).load_config()
    hook, manager = settings.ContentsManager.pre_save_hook, SimpleNamespace(root_dir=str(ROOT))
    lesson = json.loads((ROOT / "notebooks" / "00_start_here.ipynb").read_text(encoding="utf-8"))
    for path in ("notebooks/00_start_here.ipynb", "notebooks/mine/x.ipynb"):
        opened = deepcopy(lesson)
        opened["metadata"]["language_info"] |= {"version": "3.11.7", "file_extension": ".py"}
        hidden = [cell["metadata"] for cell in opened["cells"] if cell["metadata"].get("jupyter")]
        for metadata in hidden:
            metadata["collapsed"] = True
        assert hidden
        hook(model={"type": "notebook", "content": opened}, path=path, contents_manager=manager)
        assert (opened == lesson) == (path == "notebooks/00_start_here.ipynb")
    hook(model={"type": "file", "content": "text"}, path="notebooks/x.txt", contents_manager=manager)


@pytest.mark.parametrize("committed", ["2", "3"])
def test_check_compares_outputs_and_stops_clusters_left_behind(tmp_path, monkeypatch, committed):
    leave = "import ipyparallel\nleft = ipyparallel.Cluster(n=1, log_level=50).start_cluster_sync()"
    tell = f"with open({str(tmp_path / 'pid')!r}, 'w') as file:\n    print(left.controller.pid, file=file)"
    path = written(tmp_path, *([leave, tell] if committed == "2" else []), "print(1 + 1)")
    notebook = nbformat.read(path, as_version=4)
    for count, cell in enumerate(notebook.cells, 1):
        cell.execution_count = count
    notebook.cells[-1].outputs = [nbformat.v4.new_output("stream", text=f"{committed}\n")]
    nbformat.write(notebook, path)
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.syspath_prepend(ROOT / "tools")
    check = load("check_notebooks")
    monkeypatch.setattr(check, "ROOT", tmp_path)
    assert check.main(["--folder", str(path.parent)]) == (committed == "3")
    if committed == "2":
        controller = int((tmp_path / "pid").read_text())
        assert (
            not psutil.pid_exists(controller) or psutil.Process(controller).status() == psutil.STATUS_ZOMBIE
        )


def test_parts_share_the_notebooks(monkeypatch, tmp_path, capsys):
    monkeypatch.syspath_prepend(ROOT / "tools")
    check, ran = load("check_notebooks"), []
    for name in "abcde":
        (tmp_path / f"{name}.ipynb").touch()

    def call(command, **options):
        ran.append([argument for argument in command if str(argument).endswith(".ipynb")])
        return 0

    monkeypatch.setattr(check.subprocess, "call", call)
    for part in ("1/2", "2/2", "1/1"):
        assert check.main(["--folder", str(tmp_path), "--part", part]) == 0
    parts = [[Path(name).stem for name in names] for names in ran if names]
    assert parts == [["a", "c", "e"], ["b", "d"], list("abcde")]
    assert check.main(["--folder", str(tmp_path), "--part", "6/6"]) == 1  # there are only five
    for wrong in ("0/2", "3/2", "1", "1/x", "-1/2"):
        with pytest.raises(SystemExit):
            check.main(["--folder", str(tmp_path), f"--part={wrong}"])
        assert "expected K/N with whole numbers" in capsys.readouterr().err


@pytest.mark.skipif(os.name != "posix", reason="sockets are files on POSIX only")
def test_kernels_of_the_check_need_no_port(tmp_path, monkeypatch):
    """Ports that are chosen before they are opened may be taken by another kernel or a cluster."""
    ask = "import json, ipykernel\nfile = open(ipykernel.get_connection_file())"
    path = written(tmp_path, f"{ask}\nprint(json.load(file)['transport'])")
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[0].execution_count = 1
    notebook.cells[0].outputs = [nbformat.v4.new_output("stream", text="ipc\n")]
    nbformat.write(notebook, path)
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.syspath_prepend(ROOT / "tools")
    check = load("check_notebooks")
    monkeypatch.setattr(check, "ROOT", tmp_path)
    assert check.main(["--folder", str(path.parent)]) == 0


def test_clean_removes_what_commands_make_again_and_nothing_else(tmp_path, monkeypatch):
    bootstrap = load("bootstrap")
    monkeypatch.setattr(bootstrap, "ROOT", tmp_path)
    made = [".venv/bin/python", ".venv-docs/x", "html/index.html", "hfnb-course.zip", "figures/run/a.png"]
    made += ["hfnb/__pycache__/a.pyc", ".pytest_cache/a"]
    kept = ["student/00_start_here.ipynb", "notebooks/mine.ipynb", "figures/00_saddle.png", "data/train"]
    for name in made + kept:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("text")
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    bootstrap.clean([])
    left = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert before - left == {tmp_path / name for name in made}
