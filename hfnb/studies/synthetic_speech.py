"""A synthetic corpus of TIMIT's form, spoken by eSpeak NG: for machines without TIMIT, and for tests.

It is no human speech; a file at its root and the name of the dataset say so. The sentences come from a small
grammar that uses every phone of English. eSpeak NG (the package ``espeakng-loader``) is called by ctypes and
tells when each phone begins.
"""

import ctypes
import importlib.util
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np

from hfnb.datasets.files import CorpusError
from hfnb.datasets.timit_corpus import RATE, SYNTHETIC_MARK
from hfnb.validation import check_extra

WORDS = {
    "name": "Mary|George|Roy|Judith|Thelma|Hugh|Charles|Joyce|Yvonne|Ruth|Zachary|Beth|Owen|Theo|Sheila",
    "person": "teacher|boy|old cook|young girl|fisherman|engineer|neighbor|judge|author|pilot|nurse|thief",
    "adjective": "yellow|heavy|usual|smooth|thin|noisy|beige|good|huge|rare|cheap|azure|quiet|broken|raw",
    "thing": "bottle|measure|book|treasure|garage|leather jacket|chair|button|river|garden|pencil|mirror|"
    "kitchen table|watch|engine|piano|letter|ladder|sugar bowl|cushion|oyster|bath|rug|house|vision|toy",
    "verb": "found|bought|carried|followed|noticed|pushed|wanted|watched|enjoyed|forgot|painted|gathered|"
    "measured|put away|breathed on|hid|brought|paid for|jumped over|thought about",
    "place": "near the harbor|under the bridge|at the corner|by the fireplace|in the south|along the shore|"
    "beyond the hill|on the judge's yacht|behind the church|in the city|across the road",
    "time": "yesterday|every Thursday|in July|before noon|at five|after the storm|once a year|last winter",
    "reason": "because it was cheap|although nobody asked|while the others slept|so that we could hear|"
    "if the weather allows it|until the music stopped|though her throat was sore|as the fog grew thicker",
}
PATTERNS = (
    "{name} {verb} the {adjective} {thing} {place}.",
    "The {person} {verb} a {thing} {time}, {reason}.",
    "{time}, the {adjective} {person} {verb} {name}'s {thing}.",
    "Why has the {person} {place} {verb} this {adjective} {thing}?",
    "The {thing} {place} is {adjective}, {reason}.",
    "{name} and the {person} {verb} their {adjective}, {adjective} {thing}.",
)
# Read by every synthetic speaker, as TIMIT's two dialect sentences are.
SHARED = (
    "Both boys thought the huge yellow bird was measuring good water near our house.",
    "Usually your father sings as he washes the dark leather chair in the garage.",
)


def sentence(random: np.random.Generator) -> str:
    """Return a sentence drawn from the grammar.

    Parameters
    ----------
    random : numpy.random.Generator

    Returns
    -------
    str

    Examples
    --------
    >>> sentence(np.random.default_rng(0)) == sentence(np.random.default_rng(0))
    True
    """
    text = PATTERNS[random.integers(len(PATTERNS))]
    for kind, words in WORDS.items():
        choices = words.split("|")
        while "{" + kind + "}" in text:
            text = text.replace("{" + kind + "}", choices[random.integers(len(choices))], 1)
    return text[0].upper() + text[1:]


ESPEAK_RATE = 22_050  # Hz
_SYNCHRONOUS, _PHONEME_EVENTS, _DONT_EXIT, _UTF8, _END, _PHONEME = 2, 0x1, 0x8000, 1, 0, 7
_PARAMETERS = {"rate": 1, "pitch": 3, "range": 4}


class _Identity(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    """``espeak_EVENT`` of speak_lib.h."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Identity),
    )


_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


class Espeak:
    """A synthesizer. The same calls in the same order in a fresh process give the same bits.

    Parameters
    ----------
    seed : int
        Of the noise in its voices.
    """

    def __init__(self, seed: int = 0):
        import espeakng_loader  # an optional extra

        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        data = espeakng_loader.get_data_path().encode()
        rate = self._library.espeak_Initialize(_SYNCHRONOUS, 0, data, _PHONEME_EVENTS | _DONT_EXIT)
        if rate != ESPEAK_RATE:
            raise RuntimeError(f"eSpeak NG does not start with its data in {data.decode()}")
        self._library.espeak_ng_SetRandSeed(ctypes.c_long(seed))
        self._pieces: list[np.ndarray] = []
        self._phones: list[tuple[int, str]] = []
        self._callback = _CALLBACK(self._receive)
        self._library.espeak_SetSynthCallback(self._callback)

    def _receive(self, samples, count: int, events) -> int:
        """Take a piece of sound and the events in it."""
        if samples and count:
            self._pieces.append(np.ctypeslib.as_array(samples, (count,)).copy())
        i = 0
        while events[i].type != _END:
            if events[i].type == _PHONEME:
                self._phones.append((events[i].sample, events[i].id.string.decode()))
            i += 1
        return 0

    def speak(self, text: str, voice: str, **parameters: int) -> tuple[np.ndarray, list[tuple[int, str]]]:
        """Speak a text.

        Parameters
        ----------
        text : str
        voice : str
            Such as "en-us+f3".
        **parameters : int
            ``rate`` in words a minute, ``pitch`` and ``range`` from 0 to 99.

        Returns
        -------
        sound : ndarray of float64, shape (n,)
            At 16 kHz, on the scale of int16.
        phones : list of (int, str)
            First sample and eSpeak's name of each phone.

        Raises
        ------
        ValueError
            For an unknown voice.
        """
        if self._library.espeak_SetVoiceByName(voice.encode()):
            raise ValueError(f"voice: eSpeak NG has none called {voice!r}")
        for name, value in parameters.items():
            self._library.espeak_SetParameter(_PARAMETERS[name], value, 0)
        self._pieces.clear()
        self._phones.clear()
        raw = text.encode() + b"\0"
        self._library.espeak_Synth(raw, ctypes.c_size_t(len(raw)), 0, 1, 0, _UTF8, None, None)
        self._library.espeak_Synchronize()
        from scipy.signal import resample_poly  # slow to import, and seldom needed

        sound = resample_poly(np.concatenate(self._pieces).astype(np.float64), 320, 441)
        return sound, [(sample * 320 // 441, name) for sample, name in self._phones]


MARK = """This is not TIMIT: it is synthetic speech by eSpeak NG, in the form of TIMIT, made by hfnb.
No human voice is in it; results on it say nothing about speech recognition.
"""
# eSpeak's names of its American English phones, without stress marks, as TIMIT writes them.
PHONES = {
    **{
        "a": "ae",
        "aa": "ae",
        "A:": "aa",
        "0": "aa",
        "O:": "ao",
        "O": "ao",
        "O2": "ao",
        "V": "ah",
        "@": "ax",
        "a#": "ax",
    },
    **{
        "@2": "ax",
        "I": "ih",
        "I2": "ix",
        "I#": "ix",
        "i": "iy",
        "i:": "iy",
        "E": "eh",
        "U": "uh",
        "u:": "uw",
    },
    **{
        "u": "uw",
        "3": "axr",
        "3:": "er",
        "eI": "ey",
        "aI": "ay",
        "OI": "oy",
        "aU": "aw",
        "oU": "ow",
        "@L": "el",
    },
    **{"A@": "aa r", "o@": "ao r", "O@": "ao r", "e@": "eh r", "i@3": "ih r", "U@": "uh r", "aI@": "ay ax"},
    **{"aI3": "ay axr", "i@": "iy ax", "n-": "en", "t#": "dx", "r-": "r", "N": "ng", "S": "sh", "Z": "zh"},
    **{"T": "th", "D": "dh", "j": "y", ";": "y", "h": "hh", "?": "q", "tS": "tcl ch", "dZ": "dcl jh"},
    **{stop: f"{stop}cl {stop}" for stop in "pbtdkg"},
    **{same: same for same in "fvszmnlrw"},
    **{"_": "pau", "_:": "pau", "_!": "pau"},
}
SILENCE = 1600, 2800  # samples before and after a sentence
NOISE = 4.0  # standard deviation, throughout


def available() -> bool:
    """Say whether eSpeak NG, which comes with the extra "speech", is installed."""
    return importlib.util.find_spec("espeakng_loader") is not None


def synthesize(folder: Path, speakers: tuple[int, int] = (12, 4), sentences: int = 10, seed: int = 0) -> None:
    """Write a corpus of the form of TIMIT; the same arguments give the same bits.

    Parameters
    ----------
    folder : Path
        Where the corpus goes.
    speakers : (int, int)
        Speakers in TRAIN and in TEST; TIMIT has (462, 168).
    sentences : int
        By each speaker, two of them the same for all; TIMIT has 10.
    seed : int

    Raises
    ------
    CorpusError
        If eSpeak NG fails.
    ImportError
        If the packages of the extra "speech" are not installed.
    ValueError
        For impossible numbers.
    """
    numbers = (*speakers, sentences, seed)
    if min(speakers) < 1 or sum(speakers) > 676 or not 3 <= sentences <= 99 or seed < 0:
        raise ValueError(
            "speakers, sentences, seed: expected at least 1 speaker in each part and at most 676 in all, "
            f"3 to 99 sentences, a seed of at least 0, got {numbers}"
        )
    check_extra("hfnb.studies.synthetic_speech", "speech", "espeakng_loader", "soundfile")
    command = [sys.executable, "-m", __name__, str(folder), *map(str, numbers)]
    run = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if run.returncode:
        raise CorpusError(folder, f"no synthetic corpus made: {run.stderr.strip().splitlines()[-1]}")


def speak_corpus(folder: Path, train: int, test: int, sentences: int, seed: int) -> None:
    """Write a corpus, with the parameters of `synthesize`.

    It is called in a fresh process, since what eSpeak NG says depends on what it has said before.
    """
    import soundfile

    espeak = Espeak(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(train + test):
        random = np.random.default_rng([seed, number])
        sex, part = "MF"[number % 2], "TRAIN" if number < train else "TEST"
        initials = chr(65 + number // 26) + chr(65 + number % 26)
        place = folder / part / f"DR{number // 2 % 8 + 1}" / f"{sex}S{initials}0"
        place.mkdir(parents=True)
        voice = f"en-us+{sex.lower()}{random.integers(1, 6 if sex == 'F' else 8)}"
        manner = {
            "rate": int(random.integers(140, 200)),
            "pitch": int(random.integers(30, 70)),
            "range": int(random.integers(30, 70)),
        }
        for i in range(sentences):
            kind = "SA" if i < 2 else "SI" if i < 5 else "SX"
            name = f"{kind}{i + 1 if i < 2 else number * 100 + i}"
            text = SHARED[i] if i < 2 else sentence(random)
            samples, labels = _spoken(espeak, text, voice, manner, random)
            sphere = {"format": "NIST", "subtype": "PCM_16", "endian": "LITTLE"}
            soundfile.write(place / f"{name}.WAV", samples, RATE, **sphere)
            (place / f"{name}.PHN").write_text("".join(f"{a} {b} {phone}\n" for a, b, phone in labels))
            (place / f"{name}.TXT").write_text(f"0 {len(samples)} {text}\n")
    (folder / SYNTHETIC_MARK).write_text(MARK)


def _spoken(espeak: Espeak, text: str, voice: str, manner: dict, random: np.random.Generator) -> tuple:
    """Return samples int16 with silence around them and faint noise, and their labels (start, end, phone)."""
    sound, phones = espeak.speak(text, voice, **manner)
    before, after = random.integers(*SILENCE, size=2).tolist()
    noisy = random.normal(scale=NOISE, size=before + len(sound) + after)
    noisy[before : before + len(sound)] += sound
    samples = np.clip(np.rint(noisy), -32768, 32767).astype(np.int16)
    return samples, _labels([(before + start, name) for start, name in phones], len(samples))


def _labels(phones: list[tuple[int, str]], total: int) -> list[tuple[int, int, str]]:
    """Return TIMIT's labels (start, end, phone) for eSpeak's phones, stops in closure and release."""
    marks = [(0, "h#")]
    for start, name in phones:
        written = PHONES[name.strip("',%=|")]
        if written != "pau" or marks[-1][1] != "pau":
            marks.append((start, written))
    marks[-1] = (marks[-1][0], "h#")  # eSpeak ends a sentence with a pause
    labels: list[tuple[int, int, str]] = []
    for (start, written), (end, _) in pairwise([*marks, (total, "")]):
        names = written.split()
        cuts = np.linspace(start, end, len(names) + 1).astype(int).tolist()
        labels += zip(cuts[:-1], cuts[1:], names, strict=True)
    return [label for label in labels if label[0] < label[1]]


if __name__ == "__main__":
    speak_corpus(Path(sys.argv[1]), *map(int, sys.argv[2:]))
