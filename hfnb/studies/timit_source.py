"""Where speech with marked phones comes from: the TIMIT corpus, its free sample, or synthetic speech."""

import logging
import os
import tempfile
import warnings
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
from hfnb.studies.speech_dataset import FrameOptions, SpeechDataset, load_frames

logger = logging.getLogger(__name__)
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
    """Return frames of speech of TIMIT's form with their targets.

    Parameters
    ----------
    corpus : str or Path, optional
        The corpus's folder, "sample" or "synthetic". By default the first that is there: the folder
        ``HFNB_TIMIT``, ``timit-sample`` in ``HFNB_DATA``, NLTK's sample (fetched where the internet allows,
        unless ``HFNB_DATA`` is set), synthetic speech.
    context : int
        Neighbours of each frame on either side.
    phones : {61, 48, 39}
        Phone classes.
    states : int
        Equal parts into which each phone is cut.
    sa : bool
        Keep the sentences that all speakers read.
    test : {"core", "complete"}
        The test set of 24 speakers or of all.
    alignment : str or Path, optional
        A file of lines "fcjf0_sx127 0 0 1 …", the targets of each frame, instead of equal parts.
    skip_bad : bool
        Leave out bad utterances, with a warning that counts them.

    Returns
    -------
    train, test : SpeechDataset
        Of different speakers. X (n, 40 (2 context + 1)) float32: log-mel energies every 10 ms, mean 0 and
        variance 1 for each speaker, with their neighbours. Y (n,): phone × states + state.

    Raises
    ------
    CorpusError
        For a corpus or an utterance that cannot be used, naming the file and the line.
    FileNotFoundError
        If there is no corpus.
    ImportError
        If the packages of the extra "speech" are not installed.
    ValueError
        For an option out of range.

    Warns
    -----
    UserWarning
        If no corpus is found and synthetic speech is used instead, and if utterances are left out.

    References
    ----------
    J. S. Garofolo et al., TIMIT Acoustic-Phonetic Continuous Speech Corpus, LDC93S1 (1993).
    """
    options = FrameOptions(context, phones, states)
    opened = open_corpus(find_corpus(corpus), sa=sa, test=test)
    if corpus == "sample" and opened.kind != "free sample":
        raise CorpusError(opened.folder, f"expected the free sample of TIMIT, found {FOUND[opened.kind]}")
    frames = Path(alignment).expanduser() if alignment else None
    parts = load_frames(opened, options, cache_folder("timit"), frames, skip_bad)
    for part in parts:
        told = f"{len(part.names):,} utterances, {len(part):,} frames"
        logger.info("%s (%s): %s", part.name, FOUND[opened.kind], told)
        if part.skipped:
            problem = f"{part.name}: bad utterances left out: {len(part.skipped)}; first: {part.skipped[0]}"
            warnings.warn(problem, stacklevel=2)
    return parts


def find_corpus(corpus: str | Path | None = None) -> Path:
    """Return the folder of a corpus: the one asked for, or the first that is there.

    Parameters
    ----------
    corpus : str or Path, optional
        As for `timit`.

    Returns
    -------
    Path

    Raises
    ------
    FileNotFoundError
        If no corpus is there, or not the one asked for.
    TypeError, ValueError
        If ``corpus`` is no name of a folder.
    """
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
        warnings.warn(
            f"TIMIT: no corpus here, and the free sample {missing}: synthetic speech takes its place, "
            "which says nothing about speech recognition",
            stacklevel=3,
        )
        return _synthetic()
    raise FileNotFoundError(
        f"TIMIT: no corpus here, and the free sample {missing}. Set HFNB_TIMIT to the folder of the "
        "LDC's corpus, or run nltk.download('timit') where the internet allows and set HFNB_TIMIT to the "
        'folder that it makes, or install espeakng-loader (pip install "hfnb[speech]") for synthetic speech'
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
    logger.info("TIMIT: fetching the free sample from %s", SAMPLE)
    writable(folder.parent)
    try:
        with written_whole(folder) as working, tempfile.TemporaryDirectory() as place:
            archive = Path(place, "timit.zip")
            files.download(SAMPLE, archive)
            with zipfile.ZipFile(archive) as opened:
                opened.extractall(working)
            open_corpus(working)
    except (OSError, zipfile.BadZipFile, CorpusError) as error:
        warnings.warn(f"TIMIT: the free sample could not be fetched: {error}", stacklevel=4)
        return None
    return folder


def _synthetic() -> Path:
    """Return the folder of the synthetic corpus in the cache, made on first use."""
    folder = cache_folder("timit-synthetic")
    if not folder.is_dir():
        logger.info("TIMIT: making synthetic speech")
        writable(folder.parent)
        with written_whole(folder) as working:
            synthetic_speech.synthesize(working)
    return folder
