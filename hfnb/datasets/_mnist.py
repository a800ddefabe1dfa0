"""MNIST: 70,000 handwritten digits of 28 × 28 pixels, the canonical bytes whatever the source."""

import re
from pathlib import Path

import numpy as np

from hfnb.datasets.cache import cache_folder, named_folder, writable, written_whole
from hfnb.datasets.dataset import Dataset
from hfnb.datasets.errors import CorruptFile
from hfnb.datasets.folders import entries, folders_below, listing
from hfnb.datasets.idx import FILES, check, verified
from hfnb.datasets.mnist_sources import fetch

# Names that programs give to the four files: TRAIN-IMAGES.IDX3-UBYTE, train_images_idx3_ubyte (1).gz, …
NAME = re.compile(
    r"(?P<part>train|t10k|test)[\W_]*(?P<what>image|label)s?[\W_]*(idx\d|u?byte)[\W_]*(u?byte)?"
    r"( ?\(\d+\))?(?P<gzip>\.gz(ip)?)?"
)
# Folders in which they are MNIST's, as in torchvision's MNIST/raw: other datasets' files have the same names.
OWN_FOLDER = re.compile(r"mnist[\W_]*(data(set)?)?|raw")
DEPTH = 3  # of folders below the one that HFNB_DATA names


def mnist(dtype=np.float32) -> tuple[Dataset, Dataset]:
    """Return MNIST as (train, test): X (60000, 784) and (10000, 784), pixels / 255; Y labels 0 to 9.

    The four IDX files, plain or gzip, are read from the folder ``HFNB_DATA``, if that is set: from the folder
    itself, ``mnist`` or ``MNIST/raw`` in it, or a folder below, with the usual spellings of their names.
    Otherwise they are read from the user's cache (``HFNB_CACHE`` names another), or fetched into it. All must
    have the published SHA-256. Raises CorruptFile for a file in ``HFNB_DATA`` with other bytes,
    FileNotFoundError, saying what is there, if some of the four are missing there (nothing is fetched then),
    PermissionError if the cache cannot be written, ConnectionError if no source answers.

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
    if folder := named_folder("HFNB_DATA"):
        paths = find_files(folder)
        return {name: verified(name, path) for name, path in paths.items()}, f"HFNB_DATA, {folder}"
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


def find_files(folder: Path) -> dict[str, Path]:
    """Return where each of the four files is in ``folder`` or below; FileNotFoundError if one is nowhere.

    A file in MNIST's own folder goes before one in a folder of another name, one higher up before one below,
    the published name before other spellings, a plain file before a gzip one.
    """
    found: dict[str, list[tuple]] = {name: [] for name in FILES}
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


def _published_name(match: re.Match) -> str:
    """Return which of the four files has a name that `NAME` matched."""
    part = "train" if match["part"] == "train" else "t10k"
    return f"{part}-images-idx3-ubyte" if match["what"] == "image" else f"{part}-labels-idx1-ubyte"


def _pixels(content: bytes) -> np.ndarray:
    """View the images of an IDX3 file (16 bytes of header) as rows of 784 pixels."""
    return np.frombuffer(content, np.uint8, offset=16).reshape(-1, 784)
