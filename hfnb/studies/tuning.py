"""Tuning on geometric grids: options move to better neighbours until the best setting lies inside."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

MOST = 20  # settings that are tried at most
HALF_DECADE = 10**0.5  # the usual factor between neighbouring learning rates
TIES = 4  # places that a search goes on over settings that all fail alike


@dataclass(frozen=True)
class Axis:
    """An option to tune.

    Attributes
    ----------
    first : float or int
        The value that is tried first. If it is a whole number, all values are, and they are at least 1.
    factor : float
        The factor between neighbours on the grid.
    largest : float, optional
        The largest value that the option can have: the grid ends there.

    Examples
    --------
    >>> [Axis(1e-3, 3.0).value(k) for k in (-1, 0, 1, 2)], Axis(256, 2, largest=1000).value(3)
    ([0.00033, 0.001, 0.003, 0.009], 1000)
    """

    first: float
    factor: float
    largest: float | None = None

    def value(self, position: int) -> float:
        """Return the value at a position of the grid, to 2 digits; a whole number if the first one is.

        Parameters
        ----------
        position : int
            0 for the first value; negative for smaller ones.

        Returns
        -------
        float or int
        """
        value = self.first * self.factor**position
        if self.largest is not None:
            value = min(value, self.largest)
        return max(round(value), 1) if isinstance(self.first, int) else float(f"{value:.1e}")


@dataclass(frozen=True)
class Tuned:
    """What `tuned` found.

    Attributes
    ----------
    settings : dict
        All options at the best setting.
    cost : object
        What it costs.
    inside : bool
        Whether all neighbours of the best setting were tried, and none costs less.
    tried : int
        Number of settings that were tried.
    """

    settings: dict[str, Any]
    cost: Any
    inside: bool
    tried: int


def tuned(
    fixed: Mapping[str, Any],
    axes: Mapping[str, Axis],
    attempt: Callable[[dict], Any],
    *,
    most: int = MOST,
    diagonals: bool = False,
) -> Tuned:
    """Return the setting that costs least: its neighbours on every axis cost no less.

    Parameters
    ----------
    fixed : dict
        Options that stay as they are.
    axes : dict
        {option: its `Axis`}.
    attempt : callable
        (all options) -> what they cost: numbers, or tuples of them that are compared in order.
    most : int
        The most settings that are tried.
    diagonals : bool
        Whether settings are neighbours that differ on several axes, as well: a valley that runs across the
        axes, such as that of learning rate and batch size, is then followed to its end.

    Returns
    -------
    Tuned

    Notes
    -----
    One option at a time moves along its grid while that lowers the cost. While all settings have the same
    infinite cost, the search looks up to `TIES` places further. With ``diagonals``, several options move by
    one place each where no single one helps.

    Examples
    --------
    >>> tuned({}, {"rate": Axis(1.0, 10.0)}, lambda options: abs(options["rate"] - 0.01)).settings
    {'rate': 0.01}
    """
    tried: dict[tuple, Any] = {}

    def settings(position: tuple[int, ...]) -> dict[str, Any]:
        values = {name: axis.value(k) for (name, axis), k in zip(axes.items(), position, strict=True)}
        return {**fixed, **values}

    def cost(position: tuple[int, ...]) -> Any:
        options = settings(position)
        key = tuple(options[name] for name in axes)
        if key not in tried:
            if len(tried) >= most:
                return None
            tried[key] = attempt(options)
        return tried[key]

    best, inside, moving = (0,) * len(axes), True, True
    lowest = cost(best)
    while moving:
        moving, inside = False, True
        for move in _moves(len(axes), diagonals):
            other, ties = best, 0
            while ties < (TIES if _failed(lowest) else 1):
                other = tuple(k + step for k, step in zip(other, move, strict=True))
                found = cost(other)
                inside &= found is not None
                if found is None or found > lowest:
                    break
                if found < lowest:
                    best, lowest, ties, moving = other, found, 0, True
                else:
                    ties += 1
    return Tuned(settings(best), lowest, inside, len(tried))


def _failed(cost: Any) -> bool:
    """Return whether a cost, or the first number of a tuple, is infinite."""
    return bool(np.isinf(cost[0] if isinstance(cost, tuple) else cost))


def _moves(axes: int, diagonals: bool) -> Iterator[tuple[int, ...]]:
    """Yield the moves to neighbours, those along a single axis first."""
    for axis in range(axes):
        for sign in (1, -1):
            yield tuple(sign * (i == axis) for i in range(axes))
    if diagonals:
        yield from (move for move in product((1, 0, -1), repeat=axes) if sum(map(abs, move)) > 1)
