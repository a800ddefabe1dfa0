"""MNIST: 70,000 handwritten digits of 28 × 28 pixels, the canonical bytes whatever the source."""

import hashlib
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np

from .cache import cache_folder, named_folder, writable, written_whole
from .dataset import Dataset
from .errors import CorruptFile
from .mnist_sources import fetch

# SHA-256 of the uncompressed IDX files.
FILES = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}


def mnist(dtype=np.float32) -> tuple[Dataset, Dataset]:
    """Return MNIST as (train, test): X (60000, 784) and (10000, 784), pixels / 255; Y labels 0 to 9.

    The four IDX files, plain or gzip, are looked for in the folder ``HFNB_DATA`` (or ``mnist`` in it), then
    in the user's cache (``HFNB_CACHE`` names another), and are then fetched; all must have the published
    SHA-256. Raises CorruptFile for a file in ``HFNB_DATA`` with other bytes, FileNotFoundError if some of the
    four are missing there, PermissionError if the cache cannot be written, ConnectionError if no source
    answers.

    Source: Y. LeCun, C. Cortes, C. Burges, The MNIST database of handwritten digits (1998).

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
    """Return the verified content of the four files, and the place it came from."""
    folder = named_folder("HFNB_DATA")
    paths = _paths(folder) if folder else {}
    if len(paths) == len(FILES):
        return {name: verified(name, path) for name, path in paths.items()}, f"HFNB_DATA, {folder}"
    if paths:
        missing = ", ".join(name for name in FILES if name not in paths)
        raise FileNotFoundError(
            f"HFNB_DATA: {folder} holds a part of MNIST only; missing: {missing} (plain or .gz)"
        )
    cache = cache_folder("mnist")
    try:
        return {name: verified(name, cache / name) for name in FILES}, f"cache, {cache}"
    except FileNotFoundError:
        pass
    except NotADirectoryError:
        pass  # `writable` says below what is wrong with the cache
    except CorruptFile as error:
        print(f"MNIST: fetching again: {error}")
    writable(cache)
    files, source = fetch(FILES, check)
    for name, content in files.items():
        with written_whole(cache / name) as temporary:
            temporary.write_bytes(content)
    return files, source


def _paths(folder: Path) -> dict[str, Path]:
    """Return which of the four files are in ``folder`` or in ``mnist`` in it."""
    choices = {
        name: [folder / place / (name + end) for place in ("", "mnist") for end in ("", ".gz")]
        for name in FILES
    }
    found = {name: next((path for path in paths if path.is_file()), None) for name, paths in choices.items()}
    return {name: path for name, path in found.items() if path}


def verified(name: str, path: Path) -> bytes:
    """Return the uncompressed content of a file; raises CorruptFile if it is not the canonical one."""
    return check(name, path.read_bytes(), path)


def check(name: str, raw: bytes, origin) -> bytes:
    """Return ``raw``, uncompressed if gzip; raises CorruptFile unless its SHA-256 is the canonical one."""
    content = raw
    if raw[:2] == b"\x1f\x8b":
        with suppress(zlib.error):  # of a truncated file this returns what there is, whose hash then differs
            content = zlib.decompressobj(wbits=31).decompress(raw)
    found = hashlib.sha256(content).hexdigest()
    if found != FILES[name]:
        raise CorruptFile(
            f"{origin}: truncated or corrupt: expected SHA-256 {FILES[name]} of the uncompressed file, "
            f"found {found} ({len(content):,} bytes)"
        )
    return content


def _pixels(content: bytes) -> np.ndarray:
    """View the images of an IDX3 file (16 bytes of header) as rows of 784 pixels."""
    return np.frombuffer(content, np.uint8, offset=16).reshape(-1, 784)
