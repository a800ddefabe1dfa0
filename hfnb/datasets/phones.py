"""TIMIT's 61 phones, folded to 48 classes and to the 39 that phone errors are counted on.

Source: K.-F. Lee, H.-W. Hon, Speaker-independent phone recognition using hidden Markov models,
IEEE Transactions on Acoustics, Speech, and Signal Processing 37 (1989), table II.
"""

from collections.abc import Iterable

import numpy as np

NAMES = """
    aa ae ah ao aw ax ax-h axr ay b bcl ch d dcl dh dx eh el em en eng epi er ey f g gcl h# hh hv ih ix iy jh
    k kcl l m n ng nx ow oy p pau pcl q r s sh t tcl th uh uw ux v w y z zh
"""
PHONES_61 = tuple(NAMES.split())
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
