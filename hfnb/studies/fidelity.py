"""Our reading of the paper's method: what its abstracts fix, what we chose, and what each choice changes.

Only the abstracts of He, Mudigere, Smelyanskiy and Takáč are known to us. They fix the solver, the matrix and
that negative curvature is explored. How a direction of negative curvature becomes a step, when a solve ends,
how λ changes and how long a step may be, they leave open. Each of our choices is compared with an alternative
on the problems of `hfnb.studies.negative_curvature`, by what a run costs.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from hfnb.studies.negative_curvature import ENDLESS, FACTORS, RULES

AS_CHOSEN = "as chosen"


class Choice(NamedTuple):
    """A part of the method that the abstracts leave open.

    Attributes
    ----------
    part : str
        Of the method.
    chosen, other : str
        What we chose, and the alternative.
    options : dict
        The options of `hfnb.hessian_free` that make the alternative out of ``method="paper"``.
    """

    part: str
    chosen: str
    other: str
    options: dict[str, Any]


# What the abstracts of the paper say of the method.
FIXED = {
    "solver": "stabilized bi-conjugate gradients",
    "matrix": "the stochastic Hessian, which may be indefinite",
    "negative curvature": "it is explored",
}
CHOICES: dict[str, Choice] = {
    "end of a solve": Choice(
        "what a solve does at negative curvature",
        "it ends",
        "it goes on",
        {"solver_options": {"stop_indefinite": False}},
    ),
    "ignored": Choice(
        "what happens to a direction of negative curvature",
        "a search along it; the better step is taken",
        "it is ignored",
        {"step": "newton"},
    ),
    "curvilinear": Choice(
        "how it becomes a step",
        "a search along it; the better step is taken",
        "one search along a curve that has both directions (Moré and Sorensen 1979)",
        {"step": "curvilinear"},
    ),
    "lengthen": Choice(
        "how long a step may be",
        "it is doubled while the loss falls",
        "never longer than the solution",
        {"lengthen": False},
    ),
    "rule": Choice(
        "when a solve ends",
        "by Martens' rule of progress",
        "when the residual is a thousandth of the gradient",
        RULES["tolerance"]
        | {"solver_options": RULES["tolerance"]["solver_options"] | {"stop_indefinite": True}},
    ),
    "damping": Choice(
        "the first λ",
        "1",
        "a third of the curvature along the gradient",
        {"damping": "gradient"},
    ),
    "warm start": Choice(
        "where a solve starts",
        "0.95 times the last solution",
        "zero",
        {"warm_start_decay": 0.0},
    ),
}


@dataclass(frozen=True)
class Reading:
    """The paper's method with one choice replaced.

    Attributes
    ----------
    choice : str
        A name of ``CHOICES``, whose alternative is taken; or "as chosen", for none.
    start : {"ordinary", "near the saddle"}

    Examples
    --------
    >>> Reading("lengthen", "ordinary").options["lengthen"]
    False
    """

    choice: str
    start: str

    @property
    def options(self) -> dict[str, Any]:
        """The options of `hfnb.hessian_free`."""
        replaced = {} if self.choice == AS_CHOSEN else CHOICES[self.choice].options
        return {**ENDLESS, "method": "paper", **replaced}


def readings() -> list[Reading]:
    """Return the method as it is, and with each choice replaced, from each start.

    Returns
    -------
    list of Reading

    Examples
    --------
    >>> len(readings()) == 2 * (1 + len(CHOICES))
    True
    """
    return [Reading(choice, start) for start in FACTORS["start"] for choice in (AS_CHOSEN, *CHOICES)]


def table(document: Mapping[str, Any], cost: str = "passes") -> list[dict[str, str]]:
    """Return what each choice changes, from the results of ``python -m bench fidelity``.

    Parameters
    ----------
    document : mapping
        Such as ``tasks.published("bench/results/fidelity.json")``.
    cost : {"products", "passes", "reductions"}

    Returns
    -------
    list of dict
        For each choice what was chosen and the alternative, and for each start the cost of the method with
        the alternative ÷ the method as chosen, over all problems, with its interval of 95 %.

    Examples
    --------
    >>> each = {"ratio": 2.0, "interval": "1.50–2.50"}
    >>> asked = [[f"{choice}, {start}", "all", "passes"] for choice in CHOICES for start in FACTORS["start"]]
    >>> rows = table({"answers": {json.dumps(key): each for key in asked}})
    >>> rows[-1]["part"], rows[-1]["ordinary"]
    ('where a solve starts', '2.00 (1.50–2.50)')
    """
    rows = []
    for name, choice in CHOICES.items():
        row = {"part": choice.part, "chosen": choice.chosen, "alternative": choice.other}
        for start in FACTORS["start"]:
            found = document["answers"][json.dumps([f"{name}, {start}", "all", cost])]
            row[start] = f"{found['ratio']:.2f} ({found['interval']})"
        rows.append(row)
    return rows
