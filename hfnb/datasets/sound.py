"""Sound files as TIMIT is distributed: NIST SPHERE and RIFF, 16-bit PCM, read bit-exactly."""

import wave
from pathlib import Path

import numpy as np

from .errors import CorpusError

HEADER_BYTES = 1024
BYTE_ORDERS = {"01": "<i2", "10": ">i2"}
CONVERT = "convert it with 'sph2pipe -f wav IN OUT' or NIST's 'w_decode -o pcm IN OUT'"


def read_sound(path: Path) -> tuple[np.ndarray, int]:
    """Return the samples (n,) int16 and the rate in Hz of a NIST SPHERE or RIFF file with one channel.

    What counts is the content, not the name. Raises CorpusError, naming the file, for compressed SPHERE (and
    says how to convert it), for other codings, several channels, truncated files and other formats.

    Source: NIST SPHERE 2.6 header: "NIST_1A", the header's size, then "name -type value" lines.
    """
    with open(path, "rb") as file:
        magic = file.read(8)
    if magic == b"NIST_1A\n":
        return _read_sphere(path)
    if magic[:4] == b"RIFF":
        return _read_riff(path)
    raise CorpusError(path, "expected a NIST SPHERE or RIFF sound file, found neither header")


def parse_header(path: Path, raw: bytes) -> tuple[dict[str, str], int]:
    """Return the fields of a SPHERE header and its size in bytes; raises CorpusError if it is malformed."""
    try:
        size = int(raw[8:16])
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
    if "shorten" in coding or raw[size : size + 4] == b"ajkg":
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
    if not 0 <= 2 * count <= len(raw) - size:
        raise CorpusError(
            path, f"truncated: header promises {count} samples, the file holds {(len(raw) - size) // 2}"
        )
    return np.frombuffer(raw, order, count, size).astype(np.int16), rate


def _read_riff(path: Path) -> tuple[np.ndarray, int]:
    """Read a RIFF file by the standard library."""
    try:
        with wave.open(str(path)) as file:
            channels, width, rate, count = file.getparams()[:4]
            raw = file.readframes(count)
    except (wave.Error, EOFError) as error:
        raise CorpusError(path, f"malformed RIFF file ({error or 'it ends too soon'})") from error
    if (channels, width) != (1, 2):
        raise CorpusError(path, f"expected one channel of 16 bits, found {channels} of {8 * width}")
    if len(raw) < 2 * count:
        raise CorpusError(path, f"truncated: header promises {count} samples, the file holds {len(raw) // 2}")
    return np.frombuffer(raw, "<i2").astype(np.int16), rate


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
