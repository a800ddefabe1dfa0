"""TIMIT: which utterances a corpus has, how they are split into training and test, their sound and phones.

The 61 phones of the labels are folded to 48 classes, and to the 39 that phone errors are counted on.
Source: K.-F. Lee, H.-W. Hon, Speaker-independent phone recognition using hidden Markov models,
IEEE Transactions on Acoustics, Speech, and Signal Processing 37 (1989), table II.
"""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hfnb.datasets.files import CorpusError, entries, folders_below, listing
from hfnb.validation import check_extra

# Two men and a woman of each of the eight dialects (testset.doc of the corpus, table 1).
CORE_TEST = """
    mdab0 mwbt0 felc0 mtas1 mwew0 fpas0 mjmp0 mlnt0 fpkt0 mlll0 mtls0 fjlm0
    mbpm0 mklt0 fnlp0 mcmj0 mjdh0 fmgd0 mgrt0 mnjm0 fdhc0 mjln0 mpam0 fmld0
"""
# Two women and two men of the free sample's sixteen speakers. No sentence but SA1 and SA2, which all speakers
# read, is in both training and test.
SAMPLE_TEST = frozenset(("fvmh0", "madc0", "ftlg0", "madd0"))
SYNTHETIC_MARK = "SYNTHETIC.TXT"
DEPTH = 3  # of folders above TRAIN and TEST
RATE = 16_000  # Hz, of all its sound
WINDOW = 400  # samples, 25 ms: the shortest sound of which a frame of features can be made
HEADER_BYTES = 1024  # of SPHERE
CONVERT = "convert it with 'sph2pipe -f wav IN OUT' or NIST's 'w_decode -o pcm IN OUT'"
LABEL = re.compile(r"\s*(\d{1,15})\s+(\d{1,15})\s+(\S+)\s*", re.ASCII)


@dataclass(frozen=True)
class Utterance:
    """One sentence read by one speaker.

    Attributes
    ----------
    speaker : str
        Such as "fcjf0", whose first letter tells women (f) from men (m).
    sentence : str
        Such as "sx127".
    sound, labels : Path
        The files of its sound and of its phone labels.
    """

    speaker: str
    sentence: str
    sound: Path
    labels: Path

    @property
    def name(self) -> str:
        """Speaker and sentence, such as ``fcjf0_sx127``."""
        return f"{self.speaker}_{self.sentence}"


@dataclass(frozen=True)
class Corpus:
    """A corpus of TIMIT's form.

    Attributes
    ----------
    kind : {"LDC", "free sample", "synthetic"}
    folder : Path
        Its root.
    train, test : tuple of Utterance
        Of different speakers.
    """

    kind: str
    folder: Path
    train: tuple[Utterance, ...]
    test: tuple[Utterance, ...]


def open_corpus(folder: Path, *, sa: bool = False, test: str = "core") -> Corpus:
    """Return the utterances of a corpus, split into training and test.

    Parameters
    ----------
    folder : Path
        The LDC's tree (TRAIN/DR1/FCJF0/SA1.WAV) or NLTK's (dr1-fvmh0/sa1.wav), in upper or lower case, or a
        folder above it.
    sa : bool
        Keep the SA sentences, which all speakers read.
    test : {"core", "complete"}
        The 24 speakers of the core test set, or all in TEST. Of a synthetic corpus, which has no core, all
        are taken; of the free sample, four speakers.

    Returns
    -------
    Corpus

    Raises
    ------
    CorpusError
        For a folder that is not TIMIT, and for anything in it that is there twice.
    ValueError
        For another value of ``test``.
    """
    if test not in ("core", "complete"):
        raise ValueError(f"test: expected 'core' or 'complete', got {test!r}")
    root = _root(folder)
    if (parts := _parts(root)).keys() == {"train", "test"}:
        kind = "synthetic" if (root / SYNTHETIC_MARK).exists() else "LDC"
        for places in parts.values():
            _refuse_two(root, places)
        train, held_out = (
            _speakers(root, [path for path in entries(parts[part][0]) if path.is_dir()])
            for part in ("train", "test")
        )
        if both := sorted(train.keys() & held_out.keys()):
            raise CorpusError(root, f"expected other speakers in TEST than in TRAIN, found {both[0]} in both")
        if test == "core" and kind == "LDC":
            held_out = {name: place for name, place in held_out.items() if name in CORE_TEST.split()}
    else:
        kind, every = "free sample", _speakers(root, [root])
        train = {name: place for name, place in every.items() if name not in SAMPLE_TEST}
        held_out = {name: place for name, place in every.items() if name in SAMPLE_TEST}
    corpus = Corpus(kind, root, _utterances(train, sa), _utterances(held_out, sa))
    for part in ("train", "test"):
        if not getattr(corpus, part):
            raise CorpusError(root, f"expected a TIMIT corpus, found no utterance of a {part} speaker in it")
    return corpus


def is_corpus(folder: Path) -> bool:
    """Return whether a folder is the root of a corpus.

    Parameters
    ----------
    folder : Path

    Returns
    -------
    bool
        True for folders TRAIN, with dialects in it, and TEST, or for speakers such as dr1-fvmh0.
    """
    parts = _parts(folder)
    if parts.keys() == {"train", "test"}:
        return any(re.fullmatch(r"dr\d", path.name.lower()) for path in entries(parts["train"][0]))
    return any(
        path.is_dir() and re.fullmatch(r"dr[1-8]-[fm]\w{4}", path.name.lower()) for path in entries(folder)
    )


def _parts(root: Path) -> dict[str, list[Path]]:
    """Return the folders called TRAIN and TEST, in any case of letters, by name in lower case."""
    parts: dict[str, list[Path]] = {}
    for path in entries(root):
        if path.name.lower() in ("train", "test") and path.is_dir():
            parts.setdefault(path.name.lower(), []).append(path)
    return parts


def _refuse_two(folder: Path, places: list[Path]) -> None:
    """Raise CorpusError if there are several folders where one was expected."""
    if len({os.path.realpath(place) for place in places}) > 1:
        names = " and ".join(str(place.relative_to(folder)) for place in places[:2])
        raise CorpusError(folder, f"expected only one of {names}: name one, or remove the other")


def _root(folder: Path) -> Path:
    """Return the folder with TRAIN and TEST or the sample's speakers: the one given or one below it."""
    if not folder.is_dir():
        got = "a file" if folder.exists() else "none"
        raise CorpusError(folder, f"expected a folder with a TIMIT corpus, found {got}")
    found = [place for place in folders_below(folder, DEPTH) if is_corpus(place)]
    if not found:
        raise CorpusError(
            folder,
            "expected a TIMIT corpus, found neither TRAIN and TEST folders nor speakers such as dr1-fvmh0; "
            + listing(folder),
        )
    highest = min(len(place.parts) for place in found)
    _refuse_two(folder, [place for place in found if len(place.parts) == highest])
    return found[0]


def _speakers(root: Path, places: list[Path]) -> dict[str, Path]:
    """Return each speaker's folder in ``places``; raises CorpusError if a speaker has two."""
    folders: dict[str, Path] = {}
    for path in (path for place in places for path in entries(place) if path.is_dir()):
        if re.fullmatch(r"[fm]\w{4}", _speaker(path)):
            _refuse_two(root, [folders.setdefault(_speaker(path), path), path])
    return folders


def _speaker(place: Path) -> str:
    """Return the speaker whose folder this is: ``FCJF0`` or ``dr1-fvmh0``."""
    return place.name.lower().split("-")[-1]


def _utterances(speakers: dict[str, Path], sa: bool) -> tuple[Utterance, ...]:
    """Return the utterances in speakers' folders; a missing file is noticed when it is read."""
    found = []
    for speaker, place in speakers.items():
        files: dict[str, dict[str, list[Path]]] = {}
        for path in entries(place):
            sentence, _, end = path.name.lower().partition(".")
            if end in ("wav", "wav.wav", "phn"):
                files.setdefault(sentence, {}).setdefault(end[-3:], []).append(path)
        for sentence, paths in sorted(files.items()):
            if sa or not re.fullmatch(r"sa\d", sentence):
                sound = _one_sound(paths.get("wav", [place / f"{sentence}.wav"]))
                labels = paths.get("phn", [place / f"{sentence}.phn"])
                _refuse_two(place, labels)
                found.append(Utterance(speaker, sentence, sound, labels[0]))
    return tuple(found)


def _one_sound(paths: list[Path]) -> Path:
    """Return one of a sentence's sound files: SA1.WAV rather than its converted copy SA1.WAV.wav.

    If the original is compressed, its converted copy is returned: only that can be read.
    """
    if len(paths) == 1:
        return paths[0]
    return min(paths, key=lambda path: (_is_compressed(path), path.name.count(".")))


def _is_compressed(path: Path) -> bool:
    """Return whether a file is SPHERE compressed by shorten."""
    head = _head(path) if path.is_file() else b""
    return head.startswith(b"NIST_1A\n") and (b"shorten" in head or head[HEADER_BYTES:] == b"ajkg")


def _head(path: Path) -> bytes:
    """Return the header of a SPHERE file and the first four bytes behind it."""
    with open(path, "rb") as file:
        return file.read(HEADER_BYTES + 4)


def read_sound(path: Path) -> tuple[np.ndarray, int]:
    """Read a NIST SPHERE or RIFF file of 16-bit PCM with one channel.

    Parameters
    ----------
    path : Path
        Its content counts, not its name.

    Returns
    -------
    samples : ndarray of int16, shape (n,)
    rate : int
        Samples a second.

    Raises
    ------
    CorpusError
        Naming the file, for another format or coding (compressed SPHERE: with the way to convert it), for
        several channels, and for less or more sound than the file's header promises.
    """
    check_extra("hfnb.studies.speech_dataset", "speech", "soundfile")
    import soundfile

    if _is_compressed(path):
        raise CorpusError(path, f"shorten-compressed SPHERE cannot be read: {CONVERT}")
    try:
        with soundfile.SoundFile(path) as file:
            samples, log = file.read(dtype="int16"), file.extra_info
    except soundfile.LibsndfileError as error:
        problem = f"expected a NIST SPHERE or RIFF sound file, libsndfile says: {error.error_string}"
        raise CorpusError(path, problem) from error
    if file.format not in ("NIST", "WAV", "WAVEX"):
        raise CorpusError(path, f"expected a NIST SPHERE or RIFF sound file, found {file.format}")
    if file.subtype != "PCM_16":
        raise CorpusError(path, f"expected 16-bit PCM, found {file.subtype}: {CONVERT}")
    if file.channels != 1:
        raise CorpusError(path, f"expected one channel, found {file.channels}")
    promised = _promised_samples(path, log)
    if promised != len(samples):
        problem = "truncated" if promised > len(samples) else "too long"
        raise CorpusError(
            path, f"{problem}: header promises {promised} samples, the file holds {len(samples)}"
        )
    return samples, file.samplerate


def _promised_samples(path: Path, log: str) -> int:
    """Return how many samples the header of a sound file promises; libsndfile reads those that are there.

    For RIFF the number is in libsndfile's ``log``, which closes with "End" if all of the file was parsed.
    """
    head = _head(path)
    if head.startswith(b"NIST_1A\n"):
        if not (count := re.search(rb"^sample_count -i (\d+)$", head, re.MULTILINE)):
            raise CorpusError(path, "malformed SPHERE header (it has no line 'sample_count -i NUMBER')")
        return int(count[1])
    size = re.search(r"^data : (\d+)", log, re.MULTILINE)
    if size is None or not log.endswith("End\n"):
        raise CorpusError(path, "malformed RIFF file (its chunks do not make up the file)")
    return int(size[1]) // 2


@dataclass(frozen=True)
class Labels:
    """A phone transcription.

    Attributes
    ----------
    starts, ends : ndarray of int, shape (k,)
        The first sample of each phone, and the first one behind it.
    phones : ndarray of int, shape (k,)
        Numbers among the 61 phones.
    """

    starts: np.ndarray
    ends: np.ndarray
    phones: np.ndarray


def read_utterance(utterance: Utterance) -> tuple[np.ndarray, Labels]:
    """Read an utterance.

    Parameters
    ----------
    utterance : Utterance

    Returns
    -------
    samples : ndarray of int16, shape (n,)
        At 16 kHz.
    labels : Labels

    Raises
    ------
    CorpusError
        Naming the file and the line: for a missing file, another sampling rate, less sound than one window,
        and labels that are malformed, unknown, empty, overlapping or past the end of the sound.
    """
    for path, what in ((utterance.sound, "sound"), (utterance.labels, ".PHN")):
        if not path.is_file():
            raise CorpusError(path, f"missing {what} file of utterance {utterance.name}")
    try:
        samples, rate = read_sound(utterance.sound)
        if rate != RATE:
            raise CorpusError(utterance.sound, f"expected a sampling rate of {RATE} Hz, found {rate}")
        if len(samples) < WINDOW:
            raise CorpusError(
                utterance.sound, f"empty utterance: {len(samples)} samples, one window needs {WINDOW}"
            )
        return samples, read_labels(utterance.labels, len(samples))
    except OSError as error:
        raise CorpusError(error.filename, f"cannot be read ({error.strerror})") from error


def read_labels(path: Path, samples: int) -> Labels:
    """Read the labels in a .PHN file of lines "start end phone".

    Parameters
    ----------
    path : Path
    samples : int
        Length of the sound.

    Returns
    -------
    Labels

    Raises
    ------
    CorpusError
        As `read_utterance` does for labels.
    """
    numbers = {phone: i for i, phone in enumerate(PHONES_61)}
    rows, previous = [], 0
    for line, text in enumerate(path.read_text("ascii", errors="replace").splitlines(), start=1):
        if not text.strip():
            continue
        if not (match := LABEL.fullmatch(text)):
            raise CorpusError(path, f"expected 'start end phone', found {text[:80]!r}", line)
        start, end, phone = int(match[1]), int(match[2]), match[3]
        if phone not in numbers:
            raise CorpusError(path, f"unknown phone {phone!r}; TIMIT's are {' '.join(PHONES_61)}", line)
        if end <= start:
            raise CorpusError(path, f"empty label: it starts at sample {start} and ends at {end}", line)
        if start < previous:
            raise CorpusError(path, f"overlapping labels: it starts at {start}, before {previous}", line)
        if end > samples:
            raise CorpusError(
                path, f"label past the end of the sound: it ends at {end}, the sound at {samples}", line
            )
        rows.append((start, end, numbers[phone]))
        previous = end
    if not rows:
        raise CorpusError(path, "empty utterance: expected lines 'start end phone', found none")
    return Labels(*np.array(rows).T)


_PHONES = """
    aa ae ah ao aw ax ax-h axr ay b bcl ch d dcl dh dx eh el em en eng epi er ey f g gcl h# hh hv ih ix iy jh
    k kcl l m n ng nx ow oy p pau pcl q r s sh t tcl th uh uw ux v w y z zh
"""
PHONES_61 = tuple(_PHONES.split())
_TO_48 = {
    **{"ux": "uw", "axr": "er", "ax-h": "ax", "em": "m", "nx": "n", "eng": "ng", "hv": "hh"},
    **dict.fromkeys(("pcl", "tcl", "kcl"), "cl"),
    **dict.fromkeys(("bcl", "dcl", "gcl"), "vcl"),
    **dict.fromkeys(("h#", "pau"), "sil"),
}
_TO_39 = {
    **{"el": "l", "en": "n", "zh": "sh", "ao": "aa", "ix": "ih", "ax": "ah"},
    **dict.fromkeys(("cl", "vcl", "epi"), "sil"),
}


def _folded(phone: str, size: int) -> str:
    """Return the class of one of the 61 phones among 61, 48 or 39."""
    if size < 61:
        phone = _TO_48.get(phone, phone)
    return _TO_39.get(phone, phone) if size < 48 else phone


PHONES_48 = tuple(sorted({_folded(phone, 48) for phone in PHONES_61 if phone != "q"}))
PHONES_39 = tuple(sorted({_folded(phone, 39) for phone in PHONES_61 if phone != "q"}))
# The 39 by the manner in which they are made.
MANNERS = {
    "vowels": ["iy", "ih", "eh", "ae", "ah", "uw", "uh", "aa", "ey", "ay", "oy", "aw", "ow", "er"],
    "semivowels": ["l", "r", "w", "y"],
    "nasals": ["m", "n", "ng"],
    "fricatives": ["v", "f", "dh", "th", "z", "s", "sh", "jh", "ch", "hh"],
    "stops": ["b", "d", "dx", "g", "p", "t", "k"],
    "silence": ["sil"],
}
PHONE_SETS = {61: PHONES_61, 48: PHONES_48, 39: PHONES_39}


def phone_set(size: int) -> tuple[str, ...]:
    """Return the names of the phones.

    Parameters
    ----------
    size : {61, 48, 39}

    Returns
    -------
    tuple of str

    Raises
    ------
    ValueError
        For another number.

    Examples
    --------
    >>> phone_set(39)[:4]
    ('aa', 'ae', 'ah', 'aw')
    """
    try:
        return PHONE_SETS[size]
    except (KeyError, TypeError):
        raise ValueError(f"phones: expected 61, 48 or 39, got {size!r}") from None


def fold(phones: Iterable[str], size: int = 39) -> list[str]:
    """Fold a sequence of phones to fewer classes.

    Parameters
    ----------
    phones : iterable of str
        Names among the 61 phones or the 48.
    size : {61, 48, 39}
        Number of classes.

    Returns
    -------
    list of str
        The glottal stop q is in none of the 48 or 39 classes and is left out.

    Raises
    ------
    ValueError
        For an unknown phone.

    Examples
    --------
    >>> fold(["h#", "q", "ao", "l", "dcl", "d", "axr", "h#"])
    ['sil', 'aa', 'l', 'sil', 'd', 'er', 'sil']
    """
    known, kept = set(phone_set(size)), []
    for phone in phones:
        folded = _folded(phone, size)
        if folded in known:
            kept.append(folded)
        elif phone != "q":
            raise ValueError(f"phones: {phone!r} is not one of TIMIT's: {' '.join(PHONES_61)}")
    return kept


def fold_table(size: int) -> np.ndarray:
    """Return the class of each of the 61 phones.

    Parameters
    ----------
    size : {61, 48, 39}
        Number of classes.

    Returns
    -------
    ndarray of int, shape (61,)
        Numbers among the classes, −1 for a phone that is in none.

    Examples
    --------
    >>> fold_table(61)[:3], int(fold_table(39)[PHONES_61.index("q")])
    (array([0, 1, 2]), -1)
    """
    numbers = {phone: i for i, phone in enumerate(phone_set(size))}
    return np.array([numbers.get(_folded(phone, size), -1) for phone in PHONES_61])


def frame_targets(
    starts: np.ndarray,
    ends: np.ndarray,
    phones: np.ndarray,
    centres: np.ndarray,
    size: int = 61,
    states: int = 3,
) -> np.ndarray:
    """Return the target of each frame.

    Parameters
    ----------
    starts, ends : ndarray of int, shape (k,)
        The first sample of each label and the first one behind it, in order and without overlap.
    phones : ndarray of int, shape (k,)
        Numbers among the 61 phones.
    centres : ndarray of int, shape (frames,)
        The sample in the middle of each frame.
    size : {61, 48, 39}
        Number of phone classes.
    states : int
        Equal parts into which each phone is cut.

    Returns
    -------
    ndarray of int, shape (frames,)
        class × states + state, or −1 for a frame that no label covers or whose phone is in no class.

    Notes
    -----
    A frame belongs to the label with start ≤ centre < end, and to its state
    ⌊states (centre − start) / (end − start)⌋.

    Examples
    --------
    >>> frame_targets(np.array([0]), np.array([900]), np.array([3]), np.array([200, 360, 520, 680, 1000]))
    array([ 9, 10, 10, 11, -1])
    """
    label = np.searchsorted(starts, centres, side="right") - 1
    inside = (label >= 0) & (centres < ends[label])
    classes = np.where(inside, fold_table(size)[phones[label]], -1)
    state = states * (centres - starts[label]) // np.maximum(ends[label] - starts[label], 1)
    return np.where(classes >= 0, classes * states + state, -1)
