"""The IDX files of MNIST: which bytes they must hold, and what is wrong with a file that holds others."""

import hashlib
import math
import struct
import zlib
from pathlib import Path

from hfnb.datasets.errors import CorruptFile

# SHA-256 of the uncompressed IDX files.
FILES = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
SHAPES = {
    name: (60_000 if name.startswith("train") else 10_000, *((28, 28) if "images" in name else ()))
    for name in FILES
}
MOST = 100_000_000  # bytes: twice the largest of the four, so that no other file is read or unpacked whole
ARCHIVES = {b"PK": "ZIP", b"BZ": "bzip2", b"\xfd7": "xz", b"7z": "7z", b"Ra": "RAR"}


def verified(name: str, path: Path) -> bytes:
    """Return the uncompressed content of a file; raises CorruptFile if it is not the canonical one."""
    with open(path, "rb") as file:
        return check(name, file.read(MOST), path)


def check(name: str, raw: bytes, origin) -> bytes:
    """Return ``raw``, uncompressed if gzip; raises CorruptFile unless its SHA-256 is the canonical one."""
    content, problem = raw, ""
    if raw[:2] == b"\x1f\x8b":
        content, problem = _unpacked(raw)
    found = hashlib.sha256(content).hexdigest()
    if found != FILES[name]:
        raise CorruptFile(
            f"{origin}: {problem or _problem(name, content)}: expected SHA-256 {FILES[name]} of the "
            f"uncompressed file, found {found} ({len(content):,} bytes)"
        )
    return content


def _unpacked(raw: bytes) -> tuple[bytes, str]:
    """Return what a gzip file holds, or what of it can be unpacked, and what is wrong with it."""
    unpacker = zlib.decompressobj(wbits=31)
    try:
        content = unpacker.decompress(raw, MOST)
    except zlib.error as error:
        return b"", f"corrupt gzip file ({error})"
    if unpacker.eof:
        return content, ""
    return content, "gzip file of too many bytes" if unpacker.unconsumed_tail else "truncated gzip file"


def _problem(name: str, content: bytes) -> str:
    """Say what is wrong with a file: another format, other sizes, a part missing, or other data."""
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
