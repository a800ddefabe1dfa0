"""eSpeak NG through ctypes: speech with the time of each phone (optional extra ``espeakng-loader``)."""

import ctypes

import numpy as np

RATE = 22_050  # Hz
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
    """A synthesizer; the same calls in the same order in a fresh process give the same bits."""

    def __init__(self, seed: int = 0):
        import espeakng_loader  # an optional extra

        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        data = espeakng_loader.get_data_path().encode()
        if self._library.espeak_Initialize(_SYNCHRONOUS, 0, data, _PHONEME_EVENTS | _DONT_EXIT) != RATE:
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
        """Return sound at 16 kHz (n,) float64, and (first sample, eSpeak's name) of each phone.

        ``voice`` is such as "en-us+f3"; ``parameters`` are rate (words a minute), pitch and range (0 to 99).
        Raises ValueError for an unknown voice.
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
