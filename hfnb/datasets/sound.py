"""Sound files as TIMIT is distributed: NIST SPHERE and RIFF, 16-bit PCM, read bit-exactly."""

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from hfnb.datasets.files import CorpusError

RATE = 16_000  # Hz, of TIMIT
WINDOW = 400  # samples, 25 ms: the shortest sound of which a frame of features can be made
HEADER_BYTES = 1024
SHORTEN = b"ajkg"  # how sound begins that is compressed by shorten
BYTE_ORDERS = {"01": "<i2", "10": ">i2"}
EXTENSIBLE = 0xFFFE  # a RIFF coding that is named in a later field
CONVERT = "convert it with 'sph2pipe -f wav IN OUT' or NIST's 'w_decode -o pcm IN OUT'"


def read_sound(path: Path) -> tuple[np.ndarray, int]:
    """Return the samples (n,) int16 and the rate in Hz of a NIST SPHERE or RIFF file with one channel.

    What counts is the content, not the name. Raises CorpusError, naming the file, for compressed SPHERE (and
    says how to convert it), for other codings, several channels, other formats, and files with less or more
    sound than their headers say.

    Source: NIST SPHERE 2.6 header: "NIST_1A", the header's size, then "name -type value" lines.
    """
    with open(path, "rb") as file:
        magic = file.read(8)
    if magic == b"NIST_1A\n":
        return _read_sphere(path)
    if magic[:4] == b"RIFF":
        return _read_riff(path)
    raise CorpusError(path, "expected a NIST SPHERE or RIFF sound file, found neither header")


def is_compressed(path: Path) -> bool:
    """Say whether a file is SPHERE compressed by shorten."""
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        raw = file.read(HEADER_BYTES + 4)
    return raw.startswith(b"NIST_1A\n") and (b"shorten" in raw or raw[HEADER_BYTES:] == SHORTEN)


def parse_header(path: Path, raw: bytes) -> tuple[dict[str, str], int]:
    """Return the fields of a SPHERE header and its size in bytes; raises CorpusError if it is malformed."""
    try:
        size = int(raw[8:16])
        if not 16 <= size <= len(raw):
            raise ValueError(f"it is to have {size} bytes, the file has {len(raw)}")
        lines = raw[16:size].decode("ascii").splitlines()
        end = lines.index("end_head")
        fields = {name: value for name, _, value in (line.split(None, 2) for line in lines[:end])}
    except ValueError as error:
        raise CorpusError(path, f"malformed SPHERE header ({error})") from error
    return fields, size


def _read_sphere(path: Path) -> tuple[np.ndarray, int]:
    """Read 16-bit PCM in the byte order that the header names."""
    raw = path.read_bytes()
    fields, size = parse_header(path, raw)
    coding = fields.get("sample_coding", "pcm")
    if "shorten" in coding or raw[size : size + 4] == SHORTEN:
        raise CorpusError(path, f"shorten-compressed SPHERE cannot be read: {CONVERT}")
    if coding != "pcm" or fields.get("sample_n_bytes") != "2":
        raise CorpusError(
            path, f"expected 16-bit PCM, found {coding} of {fields.get('sample_n_bytes')} bytes: {CONVERT}"
        )
    try:
        count, rate = int(fields["sample_count"]), int(fields["sample_rate"])
        channels, order = int(fields.get("channel_count", "1")), BYTE_ORDERS[fields["sample_byte_format"]]
    except (KeyError, ValueError) as error:
        raise CorpusError(path, f"malformed SPHERE header (field {error})") from error
    if channels != 1:
        raise CorpusError(path, f"expected one channel, found {channels}")
    _check_length(path, count, len(raw) - size)
    return np.frombuffer(raw, order, count, size).astype(np.int16), rate


def _check_length(path: Path, count: int, held: int) -> None:
    """Raise CorpusError unless a file's ``held`` bytes of sound are the samples that its header promises.

    Too much sound is refused, too: either the header or the sound is not this file's.
    """
    if 2 * count != held:
        problem = "truncated" if 2 * count > held else "too long"
        raise CorpusError(
            path, f"{problem}: header promises {count} samples, the file holds {held // 2} ({held} bytes)"
        )


def _read_riff(path: Path) -> tuple[np.ndarray, int]:
    """Read 16-bit PCM from the chunks of a RIFF file; what is in chunks of other names does not matter."""
    raw = path.read_bytes()
    chunks = dict(_chunks(path, raw))
    if missing := [name for name in ("fmt ", "data") if name not in chunks]:
        raise CorpusError(path, f"malformed RIFF file (no {missing[0].strip()!r} chunk)")
    if len(chunks["fmt "]) < 16:
        raise CorpusError(path, "malformed RIFF file (its 'fmt' chunk is too short)")
    coding, channels, rate, _, _, bits = struct.unpack("<HHIIHH", chunks["fmt "][:16])
    if coding == EXTENSIBLE:
        coding = int.from_bytes(chunks["fmt "][24:26], "little")
    if coding != 1:
        raise CorpusError(path, f"expected PCM, found coding {coding}: {CONVERT}")
    if (channels, bits) != (1, 16):
        raise CorpusError(path, f"expected one channel of 16 bits, found {channels} of {bits}")
    if len(chunks["data"]) % 2:
        raise CorpusError(path, f"malformed RIFF file ({len(chunks['data'])} bytes of 16-bit samples)")
    return np.frombuffer(chunks["data"], "<i2").astype(np.int16), rate


def _chunks(path: Path, raw: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of each chunk; raises CorpusError unless they make up the whole file.

    So a wrong size of the sound is noticed: what follows it is then no chunk.
    """
    if raw[8:12] != b"WAVE":
        raise CorpusError(path, "malformed RIFF file (it is not WAVE)")
    at, seen = 12, set()
    while at < len(raw):
        name, size = raw[at : at + 4], int.from_bytes(raw[at + 4 : at + 8], "little")
        if len(raw) < at + 8 or not (name.isascii() and name.decode().isprintable()):
            raise CorpusError(path, f"malformed RIFF file (no chunk begins at byte {at})")
        if name in seen:
            raise CorpusError(path, f"malformed RIFF file (two chunks {name.decode()!r})")
        if (held := len(raw) - at - 8) < size:
            if name == b"data":
                _check_length(path, size // 2, held)
            raise CorpusError(path, f"malformed RIFF file (it ends within its chunk {name.decode()!r})")
        yield name.decode(), raw[at + 8 : at + 8 + size]
        seen |= {name} & {b"fmt ", b"data"}
        at += 8 + size + size % 2


def write_sphere(path: Path, samples: np.ndarray, rate: int = 16_000, byte_order: str = "01") -> None:
    """Write samples (n,) int16 as NIST SPHERE; byte order "01" is little-endian (TIMIT's), "10" big."""
    fields = [
        "channel_count -i 1",
        f"sample_count -i {len(samples)}",
        f"sample_rate -i {rate}",
        "sample_n_bytes -i 2",
        f"sample_byte_format -s2 {byte_order}",
        "sample_sig_bits -i 16",
        "end_head",
    ]
    header = f"NIST_1A\n{HEADER_BYTES:7d}\n" + "\n".join(fields) + "\n"
    path.write_bytes(header.encode().ljust(HEADER_BYTES) + samples.astype(BYTE_ORDERS[byte_order]).tobytes())
