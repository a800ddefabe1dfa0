"""The bundle for class rooms: its content, what is said where something is missing, and a set-up from it."""

import gzip
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import bootstrap
import classroom_bundle
import environments
import pytest

from hfnb.datasets import _mnist
from hfnb.datasets._mnist import FILES, read_files
from hfnb.datasets.files import CorruptFile

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared" / "data"
HERE = f"Python {sys.version_info[0]}.{sys.version_info[1]} on "


def lacks():
    """Say what this machine lacks for a set-up without a network, or None."""
    if sys.platform != "linux" or os.geteuid():
        return "root on Linux"
    for program in ("git", "unshare", "tar"):
        if not shutil.which(program):
            return f"the program {program}"
    if subprocess.run(["unshare", "-n", "true"], capture_output=True).returncode:
        return "network namespaces"
    return None if (ROOT / ".git").exists() else "a clone of git"


def commit(folder):
    """Make a folder a repository with one commit of all that is in it."""
    name = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    for command in (["init", "-q"], ["add", "--all"], [*name, "commit", "-q", "-m", "all"]):
        subprocess.run(["git", *command], cwd=folder, check=True)


def make_wheel(folder, name):
    """Write a wheel that holds nothing."""
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A small project, and an index of packages, a folder, that is all that pip reaches."""
    folder = tmp_path / "checkout"
    (tmp_path / "index").mkdir()
    folder.mkdir()
    (folder / "pyproject.toml").write_text('[build-system]\nrequires = ["builder"]\n')
    (folder / "requirements.lock").write_text("one==1.0\ntwo==1.0 ; sys_platform == 'nowhere'\n")
    for module in (bootstrap, classroom_bundle, environments):
        monkeypatch.setattr(module, "ROOT", folder)
    monkeypatch.setattr(classroom_bundle, "ARCHIVE", folder / "hfnb-classroom.tar")
    for name, value in {"NO_INDEX": "1", "FIND_LINKS": str(tmp_path / "index"), "CONSTRAINT": ""}.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.delenv("HFNB_VENV", raising=False)
    return folder


@pytest.fixture
def small_mnist(tmp_path, monkeypatch):
    """Four small files in place of MNIST's, in a folder in place of the checkout's ``data/mnist``."""
    content = {name: name.encode() for name in FILES}
    for name, data in content.items():
        monkeypatch.setitem(FILES, name, hashlib.sha256(data).hexdigest())
        path = tmp_path / "data" / "mnist" / f"{name}.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(data))
    monkeypatch.setattr(_mnist, "IN_CHECKOUT", path.parent)
    monkeypatch.delenv("HFNB_DATA", raising=False)
    monkeypatch.delenv("HFNB_CACHE", raising=False)
    return content


# What the set-up does with a bundle


def test_pip_asks_no_network_where_the_checkout_has_wheels(checkout, monkeypatch):
    asked = []
    monkeypatch.setattr(environments, "pip", lambda folder, what, options, total=0: asked.append(options))
    monkeypatch.setattr(environments.venv, "create", lambda *_, **__: None)
    monkeypatch.setattr(environments.subprocess, "call", lambda *_, **__: 1)
    environments.setup()
    assert not [options for options in asked if "--no-index" in options]
    (checkout / "wheels").mkdir()
    environments.setup(".venv-2")
    assert len(asked) == 4
    for options in asked[2:]:
        assert options[:3] == ["--no-index", "--find-links", str(checkout / "wheels")]
    (checkout / "other.lock").touch()
    environments.setup(".venv-3", "other.lock")
    assert not [options for options in asked[4:] if "--no-index" in options]


def test_wheels_for_another_python_are_told_in_one_line(checkout):
    (checkout / "wheels").mkdir()
    mark = checkout / "wheels" / "made_for.txt"
    mark.write_text(f"{environments.machine()}\n")
    assert environments.offline_options("requirements.lock")
    mark.write_text("Python 3.99 on Plan9 mips\n")
    with pytest.raises(SystemExit) as caught:
        environments.setup()
    assert f"are for Python 3.99 on Plan9 mips, and this is {HERE}" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (checkout / ".venv").exists()


def test_mnist_is_read_from_the_checkout(small_mnist):
    files, source = read_files()
    assert files == small_mnist
    assert source == f"checkout, {_mnist.IN_CHECKOUT}"


@pytest.mark.parametrize("variable", ["HFNB_DATA", "HFNB_CACHE"])
def test_a_folder_that_the_user_names_comes_before_the_checkout(variable, small_mnist, tmp_path, monkeypatch):
    named = tmp_path / "named" / "mnist"
    named.mkdir(parents=True)
    for name, data in small_mnist.items():
        (named / name).write_bytes(data)
    monkeypatch.setenv(variable, str(named.parent))
    assert str(named.parent) in read_files()[1]


def test_a_part_of_mnist_in_the_checkout_is_not_used(small_mnist, tmp_path, monkeypatch):
    (_mnist.IN_CHECKOUT / "t10k-labels-idx1-ubyte.gz").unlink()
    (tmp_path / "cache").mkdir()
    for name, data in small_mnist.items():
        (tmp_path / "cache" / name).write_bytes(data)
    monkeypatch.setattr(_mnist, "cache_folder", lambda name: tmp_path / "cache")
    assert read_files() == (small_mnist, f"cache, {tmp_path / 'cache'}")


def test_a_corrupt_file_in_the_checkout_is_named(small_mnist):
    path = _mnist.IN_CHECKOUT / "t10k-labels-idx1-ubyte.gz"
    path.write_bytes(gzip.compress(b"other"))
    with pytest.raises(CorruptFile, match=path.name):
        read_files()


# How a bundle is made


@pytest.mark.skipif(not shutil.which("git"), reason="needs git")
def test_the_bundle_holds_what_is_committed_and_wheels_and_mnist(checkout, small_mnist, tmp_path, capsys):
    for name in ("one", "builder", "editables", "another"):
        make_wheel(tmp_path / "index", name)
    (checkout / "start").write_text("committed")
    (checkout / "start").chmod(0o755)
    commit(checkout)
    (checkout / "start").write_text("changed")
    (checkout / "own").touch()
    classroom_bundle.build()
    assert "not committed" in capsys.readouterr().out
    assert not list(checkout.glob("*.part"))
    with tarfile.open(checkout / "hfnb-classroom.tar") as archive:
        members = {member.name.removeprefix("hfnb-classroom/"): member for member in archive}
        assert archive.extractfile(members["start"]).read() == b"committed"
        made_for = archive.extractfile(members["wheels/made_for.txt"]).read().decode()
        found = {
            name: gzip.decompress(archive.extractfile(members[f"data/mnist/{name}.gz"]).read())
            for name in FILES
        }
    assert found == small_mnist
    assert made_for.startswith(HERE)
    wheels = {Path(name).name.partition("-")[0] for name in members if name.endswith(".whl")}
    assert wheels == {"one", "builder", "editables"}
    assert {"pyproject.toml", "requirements.lock"} < members.keys()
    assert "own" not in members
    assert members["start"].mode & 0o111 == 0o111
    for member in members.values():
        assert member.mode & 0o444 == 0o444
        assert (member.uid, member.uname) == (0, "root")


def refused(action, *arguments):
    """What a step says before it ends, which is one line."""
    with pytest.raises(SystemExit) as caught:
        action(*arguments)
    message = str(caught.value)
    assert message.startswith("hfnb: ")
    assert "\n" not in message
    return message


def test_one_line_where_git_or_the_clone_is_missing(checkout, tmp_path, monkeypatch):
    assert "no clone of git" in refused(classroom_bundle.write_committed, tmp_path / "a.tar")
    (checkout / ".git").touch()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "git is not installed" in refused(classroom_bundle.write_committed, tmp_path / "a.tar")


@pytest.mark.skipif(not shutil.which("git"), reason="needs git")
def test_one_line_where_nothing_is_committed(checkout, tmp_path):
    subprocess.run(["git", "init", "-q"], cwd=checkout, check=True)
    assert "HEAD" in refused(classroom_bundle.write_committed, tmp_path / "a.tar")


def test_one_line_where_packages_or_mnist_cannot_be_fetched(checkout, tmp_path, monkeypatch):
    said = refused(classroom_bundle.write_wheels, tmp_path)
    assert "is there a network?" in said
    assert "No matching distribution found" in said
    monkeypatch.setenv("HFNB_DATA", str(tmp_path / "nowhere"))
    assert "nowhere" in refused(classroom_bundle.write_mnist, tmp_path / "data")


def test_clean_removes_the_archive_and_no_part_of_an_unpacked_bundle(checkout):
    kept = [checkout / "wheels" / "one.whl", checkout / "data" / "mnist" / "train.gz"]
    for path in kept:
        path.parent.mkdir(parents=True)
        path.touch()
    made = [checkout / "hfnb-classroom.tar", checkout / "hfnb-classroom.tar.part"]
    for path in made:
        path.touch()
    bootstrap.clean([])
    assert all(path.exists() for path in kept)
    assert not any(path.exists() for path in made)


# On another machine

LOAD = """
import socket, sys
assert [name for _, name in socket.if_nameindex()] == ["lo"]
import hfnb
train, test = hfnb.datasets.mnist()
print(hfnb.__file__, sys.prefix, train.X.shape, test.X.shape, train.Y[:5].tolist(), sep="\\n")
"""


@pytest.mark.slow
@pytest.mark.needs("bundle", lacks())
def test_a_bundle_is_set_up_without_a_network():
    """In another folder, with an empty home, in a namespace that has no network but its own loopback."""
    with tempfile.TemporaryDirectory() as temporary:
        clone, place, home = (Path(temporary, name) for name in ("clone", "other place", "home"))
        place.mkdir()
        home.mkdir()
        listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        for name in subprocess.check_output(listed, cwd=ROOT, text=True).split("\0"):
            if name and (ROOT / name).is_file():
                (clone / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, clone / name)
        commit(clone)
        variables = dict(os.environ, PYTHONPATH=str(clone))
        if "HFNB_DATA" not in variables and (SHARED / "mnist").is_dir():
            variables["HFNB_DATA"] = str(SHARED)
        script = clone / "tools" / "classroom_bundle.py"
        subprocess.run([sys.executable, script], check=True, env=variables)
        subprocess.run(["tar", "-xf", clone / "hfnb-classroom.tar"], cwd=place, check=True)
        (unpacked,) = place.iterdir()
        shutil.rmtree(clone)

        there = {"HOME": str(home), "PATH": os.defpath, "PIP_CONFIG_FILE": os.devnull}
        python = getattr(sys, "_base_executable", sys.executable)
        setup = ["unshare", "-n", python, "tools/bootstrap.py", "setup"]
        subprocess.run(setup, cwd=unpacked, env=there, check=True)
        load = ["unshare", "-n", unpacked / ".venv" / "bin" / "python", "-W", "error", "-c", LOAD]
        said = subprocess.check_output(load, cwd=home, env=there, text=True).splitlines()
        assert said == [
            str(unpacked / "hfnb" / "__init__.py"),
            str(unpacked / ".venv"),
            "(60000, 784)",
            "(10000, 784)",
            "[5, 0, 4, 1, 9]",
        ]
        assert not list(home.rglob("*-ubyte*"))
