"""All of the project's matplotlib: every function takes ``ax=None``, draws, and returns the axes."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from hfnb.validation import check_extra

check_extra("hfnb.plots", "plots", "matplotlib")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

# Okabe & Ito's colours, told apart in every common form of colour blindness; dashes and markers say it twice.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]
DASHES = ["-", "--", "-.", (0, (1, 1)), (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (8, 2))]
MARKERS = ["o", "s", "^", "D", "v", "P", "X"]
LABELS = {
    "iteration": "iteration",
    "passes": "passes over the data",
    "products": "curvature products",
    "reductions": "reductions over the engines",
    "seconds": "seconds",
    "loss": "training loss",
    "error": "test error (%)",
    "development": "development error (%)",
    "gradient_norm": "gradient norm",
    "damping": "damping λ",
}


def look(index: int) -> dict:
    """Return colour, dashes and marker of the ``index``-th line of a plot."""
    return {
        "color": COLOURS[index % len(COLOURS)],
        "linestyle": DASHES[index % len(DASHES)],
        "marker": MARKERS[index % len(MARKERS)],
        "markersize": 4,
    }


def curves(
    histories: dict[str, Sequence[dict]],
    x: str = "passes",
    y: str = "loss",
    ax: Axes | None = None,
    log: bool | None = None,
) -> Axes:
    """Draw entry ``y`` of each history's records against entry ``x``, a line for each name in ``histories``.

    ``log``: logarithmic x; None chooses so where the runs differ more than tenfold in length.
    """
    ax = ax or plt.subplots(figsize=(5.5, 4), layout="constrained")[1]
    for index, (name, history) in enumerate(histories.items()):
        records = [record for record in history if y in record]
        ax.plot(
            [record[x] for record in records],
            [record[y] for record in records],
            label=name,
            markevery=max(1, len(records) // 8),
            **look(index),
        )
    ends = [history[-1][x] for history in histories.values()]
    if log or (log is None and max(ends) > 10 * min(ends) > 0):
        ax.set_xscale("symlog", linthresh=min(end for end in ends if end > 0))
    ax.set_yscale("log")
    ax.set(xlabel=LABELS.get(x, x), ylabel=LABELS.get(y, y))
    if ax.get_ylabel().endswith("(%)"):  # 60, not 6 × 10¹
        ax.yaxis.set_major_formatter(LogFormatter())
        ax.yaxis.set_minor_formatter(LogFormatter())
    ax.grid(alpha=0.3)
    return ax


def comparison(
    histories: dict[str, Sequence[dict]],
    xs: Sequence[str] = ("passes", "reductions", "seconds"),
    ys: Sequence[str] = ("loss", "error"),
    title: str = "",
) -> Figure:
    """Draw `curves` of every y against every x, in a grid with one legend; ``title`` states the finding."""
    figure, axes = plt.subplots(
        len(ys),
        len(xs),
        figsize=(3.6 * len(xs), 3.1 * len(ys)),
        sharey="row",
        squeeze=False,
        layout="constrained",
    )
    for row, y in zip(axes, ys, strict=True):
        for ax, x in zip(row, xs, strict=True):
            curves(histories, x, y, ax).label_outer()
    handles, names = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=2, frameon=False)
    figure.suptitle(title)
    return figure


def surface(
    f: Callable, x: tuple[float, float], y: tuple[float, float], ax: Axes | None = None, levels: int = 24
) -> Axes:
    """Draw the contours of f, a function of a vector (2,), over the rectangle ``x`` = (from, to) × ``y``."""
    ax = ax or plt.subplots(figsize=(5, 4.2), layout="constrained")[1]
    xs, ys = np.linspace(*x, 101), np.linspace(*y, 101)
    values = [[float(f(np.array([u, v]))) for u in xs] for v in ys]
    ax.contour(xs, ys, values, levels=levels, colors="0.6", linewidths=0.7)
    ax.set(xlim=x, ylim=y, xlabel="$x_1$", ylabel="$x_2$")
    return ax


def path(points: Sequence[np.ndarray], ax: Axes, label: str = "", index: int = 0) -> Axes:
    """Draw points (2,) and the way through them, in the ``index``-th look."""
    line = np.array(points)
    ax.plot(line[:, 0], line[:, 1], label=label, **look(index))
    return ax


def parts(bars: dict[str, dict[str, float]], ax: Axes | None = None) -> Axes:
    """Draw bars, {name: {part: seconds}}, each as its parts side by side; `profiler` makes such bars."""
    ax = ax or plt.subplots(figsize=(7, 1.4 + 0.4 * len(bars)), layout="constrained")[1]
    start = np.zeros(len(bars))
    for index, part in enumerate(dict.fromkeys(part for each in bars.values() for part in each)):
        lengths = np.array([each.get(part, 0.0) for each in bars.values()])
        colour, hatch = COLOURS[index % len(COLOURS)], ("", "//", "..")[index % 3]
        ax.barh(list(bars), lengths, left=start, label=part, color=colour, hatch=hatch, edgecolor="white")
        start += lengths
    ax.set(xlabel=LABELS["seconds"])
    ax.invert_yaxis()
    return ax


def performance_profile(costs: dict[str, Sequence[float]], ax: Axes | None = None) -> Axes:
    """Draw the share of problems that each method solves within τ times the least cost (Dolan & Moré 2002).

    ``costs``: a method's cost > 0 for each problem, the same ones for all methods; inf where not solved.
    """
    ax = ax or plt.subplots(figsize=(5.5, 4), layout="constrained")[1]
    table = np.array(list(costs.values()), dtype=float)
    ratios = np.divide(table, table.min(axis=0), out=table.copy(), where=np.isfinite(table))
    taus = np.unique(ratios[np.isfinite(ratios)])
    shares = (ratios[:, :, None] <= taus).mean(axis=1)
    for index, name in enumerate(costs):
        ax.step(taus, shares[index], where="post", label=name, **(look(index) | {"marker": ""}))
    ax.set(xscale="log", xlabel="τ, times the least cost", ylabel="share of problems solved")
    return ax


def digits(X: np.ndarray, labels: Sequence | None = None, columns: int = 10) -> Figure:
    """Draw rows of pixels (n, 784) as images, ``labels`` above them."""
    rows = -(-len(X) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(0.8 * columns, 1.0 * rows), squeeze=False)
    for index, ax in enumerate(axes.flat):
        ax.axis("off")
        if index < len(X):
            ax.imshow(np.reshape(X[index], (28, 28)), cmap="gray_r")
            if labels is not None:
                ax.set_title(str(labels[index]), fontsize=9)
    return figure


def confusion(counts: np.ndarray, groups: dict[str, Sequence[str]], ax: Axes | None = None) -> Axes:
    """Draw the share of each row of ``counts`` (k, k) by column; ``groups`` names the classes in order."""
    ax = ax or plt.subplots(figsize=(7.5, 6.8), layout="constrained")[1]
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = ax.imshow(shares, cmap="gray_r", vmin=0, vmax=1)
    plt.colorbar(image, ax=ax, label="share of the frames of the row", shrink=0.8)
    names = [name for group in groups.values() for name in group]
    ax.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
    ax.set_yticks(range(len(names)), names, fontsize=7)
    ends = np.cumsum([len(group) for group in groups.values()]) - 0.5
    for index, (name, end) in enumerate(zip(groups, ends, strict=True)):
        start = end - len(groups[name])
        box = ([start, end, end, start, start], [start, start, end, end, start])
        ax.plot(*box, label=name, color=COLOURS[index % len(COLOURS)], clip_on=False)
    ax.set(xlabel="hypothesis", ylabel="reference")
    return ax


def marks(starts: Sequence[float], ends: Sequence[float], names: Sequence[str], ax: Axes) -> Axes:
    """Write ``names`` side by side along the x-axis, each between its start and its end."""
    for start, end, name in zip(starts, ends, names, strict=True):
        ax.axvspan(start, end, facecolor="none", edgecolor="0.6")
        middle = (start + end) / 2, 0.5
        text = ax.text(*middle, name, transform=ax.get_xaxis_transform(), ha="center", va="center")
        text.set(clip_on=True, fontsize=8)
    ax.set_yticks([])
    return ax


def figures_folder() -> Path:
    """Return the folder to which a run's figures go; made if need be.

    ``HFNB_FIGURES`` names it. By default it is ``figures/run``, which git ignores, in the checkout that the
    working folder is in, and the working folder itself elsewhere. The committed ones, in ``figures``, change
    by ``make run ARGS=--figures`` alone, which sets the variable.
    """
    named, here = os.environ.get("HFNB_FIGURES"), Path.cwd()
    checkout = next((folder for folder in (here, *here.parents) if _is_checkout(folder)), None)
    folder = Path(named).expanduser() if named else checkout / "figures" / "run" if checkout else here
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _is_checkout(folder: Path) -> bool:
    """Whether this is the root of the project: its own lessons and the package they are about."""
    return (folder / "notebooks" / "00_start_here.ipynb").exists() and (folder / "hfnb" / "plots.py").exists()


def save(figure: Figure | Axes, name: str) -> None:
    """Write a figure as ``name`` in `figures_folder`."""
    whole = figure.get_figure() if isinstance(figure, Axes) else figure
    assert isinstance(whole, Figure), "axes belong to a figure"
    whole.savefig(figures_folder() / name, dpi=120)
