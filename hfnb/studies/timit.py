"""TIMIT: read speech with every phone marked; from the corpus, its free sample, or synthetic speech."""

import os
import tempfile
import zipfile
from pathlib import Path

from hfnb.datasets import files
from hfnb.datasets._timit import is_corpus, open_corpus
from hfnb.datasets.files import (
    CorpusError,
    cache_folder,
    entries,
    listing,
    named_folder,
    writable,
    written_whole,
)
from hfnb.studies import synthetic_speech
from hfnb.studies.speech_dataset import load_frames
from hfnb.studies.speech import FrameOptions, SpeechDataset

SAMPLE = "https://raw.githubusercontent.com/nltk/nltk_data/gh-pages/packages/corpora/timit.zip"
IN_DATA = ("timit-sample", "timit_sample", "timit")  # folders in HFNB_DATA, in any case of letters
FOUND = {
    "LDC": "the LDC's corpus",
    "free sample": "the free sample of the corpus (16 speakers)",
    "synthetic": "synthetic speech by espeak-ng, no human voice",
}


def timit(
    corpus: str | Path | None = None,
    *,
    context: int = 4,
    phones: int = 61,
    states: int = 3,
    sa: bool = False,
    test: str = "core",
    alignment: str | Path | None = None,
    skip_bad: bool = False,
) -> tuple[SpeechDataset, SpeechDataset]:
    """Return (train, test) frames of speech, of different speakers, and print which corpus they are from.

    X (n, 40 (2 context + 1)) float32: log-mel energies every 10 ms, mean 0 and variance 1 for each speaker,
    with ``context`` neighbours on both sides. Y (n,): phone × states + state; phones are 61, 48 or 39
    classes, each cut into equal states, unless ``alignment`` names a file of lines "fcjf0_sx127 0 0 1 …".

    ``corpus`` is the corpus's folder, "sample" or "synthetic"; by default what is there: the folder
    ``HFNB_TIMIT``, ``timit-sample`` in ``HFNB_DATA``, NLTK's sample (fetched where the internet allows,
    unless ``HFNB_DATA`` is set), synthetic speech. ``test`` is the "core" or the "complete" test set, ``sa``
    keeps the sentences that all speakers read, ``skip_bad`` leaves out bad utterances and counts them. Raises
    CorpusError, naming the file and the line, ValueError for options, FileNotFoundError if there is no
    corpus.

    Source: J. S. Garofolo et al., TIMIT Acoustic-Phonetic Continuous Speech Corpus, LDC93S1 (1993).
    """
    options = FrameOptions(context, phones, states)
    opened = open_corpus(find_corpus(corpus), sa=sa, test=test)
    if corpus == "sample" and opened.kind != "free sample":
        raise CorpusError(opened.folder, f"expected the free sample of TIMIT, found {FOUND[opened.kind]}")
    frames = Path(alignment).expanduser() if alignment else None
    parts = load_frames(opened, options, cache_folder("timit"), frames, skip_bad)
    print(f"TIMIT: {FOUND[opened.kind]}: {' and '.join(_told(part) for part in parts)}")
    return parts


def _told(data: SpeechDataset) -> str:
    """Say how much there is, and what was left out."""
    part = data.name.split()[-1]
    told = f"{len(data.names):,} utterances, {len(data):,} frames to {part}"
    if data.skipped:
        told += f" ({len(data.skipped)} bad ones skipped; the first: {data.skipped[0]})"
    return told


def find_corpus(corpus: str | Path | None = None) -> Path:
    """Return the folder of the corpus asked for, or of the first there is; see ``timit``."""
    if not (corpus is None or isinstance(corpus, str | os.PathLike)):
        raise TypeError(f"corpus: expected a folder, 'sample', 'synthetic' or None, got {corpus!r}")
    if corpus is not None and not str(corpus).strip():
        raise ValueError(f"corpus: expected a folder, 'sample', 'synthetic' or None, got {corpus!r}")
    if corpus == "synthetic":
        return _synthetic()
    if corpus not in (None, "sample"):
        return Path(corpus).expanduser()
    if corpus is None and (folder := named_folder("HFNB_TIMIT")):
        return folder
    data = named_folder("HFNB_DATA")
    if sample := _sample_here(data) or _fetched_sample(may_fetch=data is None):
        return sample
    missing = "cannot be fetched"
    if data:
        missing = f"is not in HFNB_DATA (timit-sample in {data}; {listing(data)}), so nothing was fetched"
    if corpus is None and synthetic_speech.available():
        if data:
            print(f"TIMIT: the free sample {missing}")
        return _synthetic()
    raise FileNotFoundError(
        f"TIMIT: no corpus here, and the free sample {missing}. Set HFNB_TIMIT to the folder of the "
        "LDC's corpus, or run nltk.download('timit') where the internet allows and set HFNB_TIMIT to the "
        "folder that it makes, or install espeakng-loader (pip install 'hfnb[speech]') for synthetic speech"
    )


def _sample_here(data: Path | None) -> Path | None:
    """Return the sample's folder if it is on this machine: in ``data`` (HFNB_DATA) or where NLTK has it."""
    if data:
        if is_corpus(data):
            return data
        named = [path for path in entries(data) if path.name.lower() in IN_DATA and path.is_dir()]
        if named:
            return min(named, key=lambda path: IN_DATA.index(path.name.lower()))
    nltk = [Path(place) for place in os.environ.get("NLTK_DATA", "").split(os.pathsep) if place]
    places = [folder / "corpora" / "timit" for folder in (*nltk, Path.home() / "nltk_data")]
    return next((place for place in places if place.is_dir()), None)


def _fetched_sample(may_fetch: bool) -> Path | None:
    """Return the folder of the sample in the cache, fetched if possible where it may be; else None."""
    folder = cache_folder("timit-sample")
    if folder.is_dir():
        return folder
    if not may_fetch or not files.answering([SAMPLE]):
        return None
    print(f"TIMIT: fetching the free sample from {SAMPLE}")
    writable(folder.parent)
    try:
        with written_whole(folder) as working, tempfile.TemporaryDirectory() as place:
            archive = Path(place, "timit.zip")
            files.download(SAMPLE, archive)
            with zipfile.ZipFile(archive) as opened:
                opened.extractall(working)
            open_corpus(working)
    except (OSError, zipfile.BadZipFile, CorpusError) as error:
        print(f"TIMIT: the free sample could not be fetched: {error}")
        return None
    return folder


def _synthetic() -> Path:
    """Return the folder of the synthetic corpus in the cache, made on first use."""
    folder = cache_folder("timit-synthetic")
    if not folder.is_dir():
        print("TIMIT: making synthetic speech")
        writable(folder.parent)
        with written_whole(folder) as working:
            synthetic_speech.synthesize(working)
    return folder
