"""The folders and files of a TIMIT corpus: which utterances there are, how they are split, what they hold."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .errors import CorpusError
from .features import RATE, WINDOW
from .phones import PHONES_61
from .sound import read_sound

# Two men and a woman of each of the eight dialects (testset.doc of the corpus, table 1).
CORE_TEST = """
    mdab0 mwbt0 felc0 mtas1 mwew0 fpas0 mjmp0 mlnt0 fpkt0 mlll0 mtls0 fjlm0
    mbpm0 mklt0 fnlp0 mcmj0 mjdh0 fmgd0 mgrt0 mnjm0 fdhc0 mjln0 mpam0 fmld0
"""
# Of the free sample's sixteen speakers, two women and two men; no text is read on both sides.
SAMPLE_TEST = frozenset(("fvmh0", "madc0", "ftlg0", "madd0"))
SYNTHETIC_MARK = "SYNTHETIC.TXT"


@dataclass(frozen=True)
class Utterance:
    """One sentence read by one speaker: where its sound and its phone labels are."""

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
    """A corpus of TIMIT's form; ``kind`` is "LDC", "free sample" or "synthetic"."""

    kind: str
    folder: Path
    train: tuple[Utterance, ...]
    test: tuple[Utterance, ...]


def open_corpus(folder: Path, *, sa: bool = False, test: str = "core") -> Corpus:
    """Return the utterances of the LDC's tree (TRAIN/DR1/FCJF0/SA1.WAV) or of NLTK's (dr1-fvmh0/sa1.wav).

    Names may be in upper or lower case. ``test`` "core" takes the 24 speakers of the core test set,
    "complete" all in TEST (as is done for a synthetic corpus, which has no core). The SA sentences, which all
    speakers read, are left out unless ``sa``. Raises CorpusError for a folder that is not TIMIT, ValueError
    for ``test``.
    """
    if test not in ("core", "complete"):
        raise ValueError(f"test: expected 'core' or 'complete', got {test!r}")
    root = _root(folder)
    parts = {child.name.lower(): child for child in root.iterdir() if child.is_dir()}
    if {"train", "test"} <= parts.keys():
        kind = "synthetic" if (root / SYNTHETIC_MARK).exists() else "LDC"
        train, held_out = (_speakers(parts[part], "*/*") for part in ("train", "test"))
        if test == "core" and kind == "LDC":
            held_out = [place for place in held_out if place.name.lower() in CORE_TEST.split()]
    else:
        kind, places = "free sample", _speakers(root, "*")
        train = [place for place in places if _speaker(place) not in SAMPLE_TEST]
        held_out = [place for place in places if _speaker(place) in SAMPLE_TEST]
    corpus = Corpus(kind, root, _utterances(train, sa), _utterances(held_out, sa))
    for part in ("train", "test"):
        if not getattr(corpus, part):
            raise CorpusError(root, f"expected a TIMIT corpus, found no utterance of a {part} speaker in it")
    return corpus


def _root(folder: Path) -> Path:
    """Return the folder with TRAIN and TEST or the sample's speakers: the one given or one below it."""
    if not folder.is_dir():
        raise CorpusError(folder, "expected a folder with a TIMIT corpus, found none")
    for place in (folder, *sorted(folder.glob("*/")), *sorted(folder.glob("*/*/"))):
        names = {child.name.lower() for child in place.iterdir()}
        if {"train", "test"} <= names or any(re.fullmatch(r"dr[1-8]-[fm]\w{4}", name) for name in names):
            return place
    raise CorpusError(
        folder, "expected a TIMIT corpus, found neither TRAIN and TEST folders nor speakers such as dr1-fvmh0"
    )


def _speakers(place: Path, pattern: str) -> list[Path]:
    """Return the speakers' folders, in the order of their names."""
    folders = (
        path for path in place.glob(pattern) if path.is_dir() and re.fullmatch(r"[fm]\w{4}", _speaker(path))
    )
    return sorted(folders, key=lambda path: str(path.relative_to(place)).lower())


def _speaker(place: Path) -> str:
    """Return the speaker whose folder this is: ``FCJF0`` or ``dr1-fvmh0``."""
    return place.name.lower().split("-")[-1]


def _utterances(places: list[Path], sa: bool) -> tuple[Utterance, ...]:
    """Return the utterances in speakers' folders; a missing file is noticed when it is read."""
    found = []
    for place in places:
        files = {path.name.lower(): path for path in place.iterdir()}
        sentences = sorted({name.split(".")[0] for name in files if name.endswith((".wav", ".phn"))})
        for sentence in sentences:
            if sa or not re.fullmatch(r"sa\d", sentence):
                sound, labels = (
                    files.get(sentence + end, place / (sentence + end)) for end in (".wav", ".phn")
                )
                found.append(Utterance(_speaker(place), sentence, sound, labels))
    return tuple(found)


@dataclass(frozen=True)
class Labels:
    """A phone transcription: ``phones`` (numbers among the 61) from sample ``starts`` to before ``ends``."""

    starts: np.ndarray
    ends: np.ndarray
    phones: np.ndarray


def read_utterance(utterance: Utterance) -> tuple[np.ndarray, Labels]:
    """Return an utterance's samples (n,) int16 at 16 kHz and its labels.

    Raises CorpusError, naming the file and the line, for a missing file, another sampling rate, less sound
    than one window, and labels that are malformed, unknown, empty, overlapping or past the end of the sound.
    """
    for path, what in ((utterance.sound, "sound"), (utterance.labels, ".PHN")):
        if not path.is_file():
            raise CorpusError(path, f"missing {what} file of utterance {utterance.name}")
    samples, rate = read_sound(utterance.sound)
    if rate != RATE:
        raise CorpusError(utterance.sound, f"expected a sampling rate of {RATE} Hz, found {rate}")
    if len(samples) < WINDOW:
        raise CorpusError(
            utterance.sound, f"empty utterance: {len(samples)} samples, one window needs {WINDOW}"
        )
    return samples, read_labels(utterance.labels, len(samples))


def read_labels(path: Path, samples: int) -> Labels:
    """Return the labels in a .PHN file of lines "start end phone", for a sound of so many samples."""
    numbers = {phone: i for i, phone in enumerate(PHONES_61)}
    rows, previous = [], 0
    for line, text in enumerate(path.read_text("ascii", errors="replace").splitlines(), start=1):
        if not text.strip():
            continue
        try:
            start, end, phone = (
                read(field) for read, field in zip((int, int, str), text.split(), strict=True)
            )
        except ValueError:
            raise CorpusError(path, f"expected 'start end phone', found {text!r}", line) from None
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
