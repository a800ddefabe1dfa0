"""All plots, in matplotlib: the colours and styles first, then functions that draw and return the axes.

A function with ``ax=None`` makes a new figure unless axes are given. No function calls ``plt.show``.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hfnb.validation import check_extra

check_extra("hfnb.plots", "plots", "matplotlib")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, NullLocator
from PIL import Image  # matplotlib needs it, too

# Okabe & Ito's colours can be told apart in every common form of colour blindness. Lines also differ in
# dashes and markers.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]
DASHES = ["-", "--", "-.", (0, (1, 1)), (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (8, 2))]
MARKERS = ["o", "s", "^", "D", "v", "P", "X"]
HATCHES = ["", "//", ".."]
BACKGROUND_LINES = "0.6"  # contours and frames behind what a plot is about
BAR_EDGES = "white"
HEIGHTS = "Greys_r"  # colour map of a surface seen from above: dark where it is low
IMAGES = "gray_r"  # colour map of pixels and shares: white for 0, black for the largest
GRID_OPACITY = 0.3
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


# The number of each method's `look`, by the first of these words that its name contains. Methods with one
# number are the same under several names: Martens' is CG on the Gauss–Newton matrix, the paper's Bi-CG-STAB.
METHODS = {
    "local sgd": 10,
    "local hessian-free": 7,
    "local solves": 8,
    "global solves": 12,
    "levenberg": 14,
    "auto": 2,
    "martens": 1,
    "gauss–newton": 1,
    "gn-cg": 1,
    "paper": 0,
    "bi-cg-stab": 0,
    "bicgstab": 0,
    "minres": 9,
    "conjugate residuals": 13,
    "momentum": 5,
    "adam": 4,
    "sgd": 3,
    "gradient descent": 3,
    "steepest descent": 3,
    "l-bfgs": 6,
    "lbfgs": 6,
    "cg": 1,
}


def look(index: int) -> dict[str, Any]:
    """Return colour, dashes and marker of a line, as keyword arguments of ``Axes.plot``.

    Parameters
    ----------
    index : int
        Number of the line in its plot, from 0. Seven lines differ in all three, more in two of them at least.

    Returns
    -------
    dict
        The keyword arguments.

    Examples
    --------
    >>> look(1)["color"]
    '#D55E00'
    """
    again = index // len(COLOURS)  # how often the colours have been used up
    return {
        "color": COLOURS[index % len(COLOURS)],
        "linestyle": DASHES[(index + again) % len(DASHES)],
        "marker": MARKERS[(index + 2 * again) % len(MARKERS)],
        "markersize": 4,
    }


def style(name: str) -> dict[str, Any]:
    """Return colour, dashes and marker of a method, which are the same in every figure.

    Parameters
    ----------
    name : str
        Of the method, such as "adam" or "Hessian-free (auto)"; upper and lower case are alike.

    Returns
    -------
    dict
        Keyword arguments of ``Axes.plot``.

    Raises
    ------
    ValueError
        If the name contains none of the words in ``METHODS``.

    Examples
    --------
    >>> style("Adam") == style("tuned Adam") == look(4)
    True
    """
    place = _place(name)
    if place is None:
        raise ValueError(f"name: expected a name with one of {', '.join(METHODS)}, got {name!r}")
    return look(place)


def styles(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the style of each line of a figure: that of its method, where no other line has it.

    Parameters
    ----------
    names : sequence of str
        The labels of the lines.

    Returns
    -------
    dict
        {label: keyword arguments of ``Axes.plot``}. A name without a known method, or with that of an
        earlier label, gets a look that is left over.

    Examples
    --------
    >>> found = styles(["SGD", "Adam", "something else"])
    >>> found["Adam"] == style("Adam"), found["something else"] == look(0)
    (True, True)
    """
    places: dict[str, int] = {}
    for name in names:
        place = _place(name)
        if place is not None and place not in places.values():
            places[name] = place
    taken = {place % len(COLOURS) for place in places.values()}
    unused = [index for index in range(len(COLOURS) + len(names)) if index not in places.values()]
    left = iter(sorted(unused, key=lambda index: index % len(COLOURS) in taken))  # other colours first
    return {name: look(places[name] if name in places else next(left)) for name in names}


def _place(name: str) -> int | None:
    """Return the place of a method in the lists of looks, None if its name is not known."""
    return next((place for word, place in METHODS.items() if word in name.lower()), None)


def curves(
    histories: Mapping[str, Sequence[Mapping[str, Any]]],
    x: str = "passes",
    y: str = "loss",
    ax: Axes | None = None,
    log: bool | None = None,
) -> Axes:
    """Draw one entry of each history's records against another, a line for each run.

    Parameters
    ----------
    histories : dict
        {name of the run: its records}, such as ``result.history``. Records without the entry ``y`` are left
        out.
    x, y : str
        Entries of a record; ``LABELS`` says how axes name them.
    ax : Axes, optional
        Where to draw.
    log : bool, optional
        Whether x is logarithmic. By default it is where the lengths of the runs differ more than tenfold.

    Returns
    -------
    Axes
        What was drawn on.
    """
    ax = ax or plt.subplots(figsize=(5.5, 4), layout="constrained")[1]
    looks = styles(list(histories))
    for name, history in histories.items():
        records = [record for record in history if y in record]
        ax.plot(
            [record[x] for record in records],
            [record[y] for record in records],
            label=name,
            markevery=max(1, len(records) // 8),
            **looks[name],
        )
    ends = [history[-1][x] for history in histories.values()]
    if log or (log is None and max(ends) > 10 * min(ends) > 0):
        ax.set_xscale("symlog", linthresh=min(end for end in ends if end > 0))
    ax.set_yscale("log")
    ax.set(xlabel=LABELS.get(x, x), ylabel=LABELS.get(y, y))
    if ax.get_ylabel().endswith("(%)"):  # write 60, not 6 × 10¹
        ax.yaxis.set_major_formatter(LogFormatter())
        ax.yaxis.set_minor_formatter(LogFormatter())
    ax.grid(alpha=GRID_OPACITY)
    return ax


def bands(
    x: Sequence[float], intervals: Mapping[str, Sequence[Sequence[float]]], ax: Axes | None = None
) -> Axes:
    """Draw a line with its interval for each name, on logarithmic axes.

    Parameters
    ----------
    x : sequence of float, length n
        For example numbers of nodes.
    intervals : dict
        {name: for each x the middle, the lower and the upper value}; what is infinite is left out.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes
        What was drawn on.
    """
    ax = ax or plt.subplots(figsize=(5.5, 4), layout="constrained")[1]
    looks = styles(list(intervals))
    for name, each in intervals.items():
        middle, low, high = np.where(np.isfinite(each), each, np.nan).T
        ax.plot(x, middle, label=name, **looks[name])
        ax.fill_between(x, low, high, color=looks[name]["color"], alpha=0.2)
    ax.set(xscale="log", yscale="log")
    ax.grid(alpha=GRID_OPACITY)
    return ax


def intervals(found: Mapping[str, Mapping[str, Sequence[float]]], ax: Axes | None = None) -> Axes:
    """Draw ratios with their intervals, side by side for each place on the axis, and a line at 1.

    Parameters
    ----------
    found : dict
        {label: {place on the axis: (middle, low, high)}}, all positive. What is NaN is left out.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes
        What was drawn on.
    """
    ax = ax or plt.subplots(figsize=(5.5, 4), layout="constrained")[1]
    places = list(dict.fromkeys(place for each in found.values() for place in each))
    looks = styles(list(found))
    for index, (label, each) in enumerate(found.items()):
        middle, low, high = np.array([each.get(place, (np.nan,) * 3) for place in places], dtype=float).T
        x = np.arange(len(places)) + 0.12 * (index - (len(found) - 1) / 2)
        given = looks[label] | {"linestyle": "", "markersize": 6}
        ax.errorbar(x, middle, [middle - low, high - middle], label=label, capsize=3, **given)
    ax.axhline(1, color=BACKGROUND_LINES, linewidth=0.8, zorder=0)
    ax.set_xticks(range(len(places)), places)
    ax.set(yscale="log", xlim=(-0.5, len(places) - 0.5))
    low, high = ax.get_ylim()
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))))
    ticks = [digit * 10.0**decade for decade in decades for digit in (1, 1.5, 2, 3, 5, 7)]
    ticks = [tick for tick in ticks if low <= tick <= high]
    ax.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.yaxis.set_minor_locator(NullLocator())
    ax.grid(alpha=GRID_OPACITY, axis="y")
    return ax


def comparison(
    histories: Mapping[str, Sequence[Mapping[str, Any]]],
    xs: Sequence[str] = ("passes", "reductions", "seconds"),
    ys: Sequence[str] = ("loss", "error"),
    title: str = "",
) -> Figure:
    """Draw `curves` of every y against every x, in a grid with one legend.

    Parameters
    ----------
    histories : dict
        {name of the run: its records}, such as ``result.history``.
    xs, ys : sequence of str
        Entries of a record: a column of the grid for each x, a row for each y.
    title : str
        Title of the figure: what it shows.

    Returns
    -------
    Figure
        The figure.
    """
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
    f: Callable[[np.ndarray], float],
    x: tuple[float, float],
    y: tuple[float, float],
    ax: Axes | None = None,
    levels: int = 24,
) -> Axes:
    """Draw the contours of a function of two variables on a background that is darker where it is lower.

    Parameters
    ----------
    f : callable
        ``f(w)``, from (2,) to a number.
    x, y : tuple of float
        First and last value of each variable.
    ax : Axes, optional
        Where to draw.
    levels : int
        About how many contours.

    Returns
    -------
    Axes
        What was drawn on.
    """
    ax = ax or plt.subplots(figsize=(5, 4.2), layout="constrained")[1]
    xs, ys = np.linspace(*x, 101), np.linspace(*y, 101)
    values = [[float(f(np.array([u, v]))) for u in xs] for v in ys]
    ax.contourf(xs, ys, values, levels=levels, cmap=HEIGHTS, alpha=0.25, zorder=0)
    ax.contour(xs, ys, values, levels=levels, colors=BACKGROUND_LINES, linewidths=0.7)
    ax.set(xlim=x, ylim=y, xlabel="$x_1$", ylabel="$x_2$")
    return ax


def landscape(
    f: Callable[[np.ndarray], float],
    x: tuple[float, float],
    y: tuple[float, float],
    ax: Any,
    paths: Mapping[str, Sequence[np.ndarray]] | None = None,
) -> Any:
    """Draw a function of two variables as a surface seen from the side, with paths on it.

    Parameters
    ----------
    f : callable
        ``f(w)``, from (2,) to a number.
    x, y : tuple of float
        First and last value of each variable.
    ax : Axes3D
        Where to draw: axes with ``projection="3d"``.
    paths : dict, optional
        {name: points}, drawn in the `styles` of their names.

    Returns
    -------
    Axes3D
        What was drawn on.
    """
    xs, ys = np.meshgrid(np.linspace(*x, 61), np.linspace(*y, 61))
    values = np.vectorize(lambda u, v: float(f(np.array([u, v]))))(xs, ys)
    ax.plot_surface(xs, ys, values, cmap="Greys", alpha=0.55, linewidth=0, rcount=61, ccount=61)
    for name, given in styles(list(paths or {})).items():
        points = np.array((paths or {})[name])
        heights = [float(f(w)) for w in points]
        ax.plot(*points.T, heights, label=name, zorder=5, **given)
    ax.set(xlim=x, ylim=y, xlabel="$x$", ylabel="$y$")
    return ax


def path(points: Sequence[np.ndarray], ax: Axes, label: str = "", index: int = 0) -> Axes:
    """Draw points of the plane and the lines between them.

    Parameters
    ----------
    points : sequence of ndarray, shape (2,)
        The points, in order.
    ax : Axes
        Where to draw.
    label : str
        Name in the legend.
    index : int
        Number of the line's style; see `look`.

    Returns
    -------
    Axes
        What was drawn on.
    """
    line = np.array(points)
    ax.plot(line[:, 0], line[:, 1], label=label, **look(index))
    return ax


def parts(bars: Mapping[str, Mapping[str, float]], ax: Axes | None = None) -> Axes:
    """Draw horizontal bars, each of which shows its parts one after the other.

    Parameters
    ----------
    bars : dict
        {name of the bar: {name of the part: seconds}}; `hfnb.objectives.profiler.totals` makes such bars.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes
        What was drawn on.
    """
    ax = ax or plt.subplots(figsize=(7, 1.4 + 0.4 * len(bars)), layout="constrained")[1]
    start = np.zeros(len(bars))
    for index, part in enumerate(dict.fromkeys(part for each in bars.values() for part in each)):
        lengths = np.array([each.get(part, 0.0) for each in bars.values()])
        colour, hatch = COLOURS[index % len(COLOURS)], HATCHES[index % len(HATCHES)]
        ax.barh(list(bars), lengths, left=start, label=part, color=colour, hatch=hatch, edgecolor=BAR_EDGES)
        start += lengths
    ax.set(xlabel=LABELS["seconds"])
    ax.invert_yaxis()
    return ax


def performance_profile(costs: Mapping[str, Sequence[float]], ax: Axes | None = None) -> Axes:
    """Draw the share of problems that each method solves within τ times the least cost [1]_.

    Parameters
    ----------
    costs : dict
        {name of the method: its cost for each problem}; positive, and infinite for a problem that it did not
        solve. The problems are the same, in the same order, for all methods.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes
        What was drawn on.

    References
    ----------
    .. [1] E. Dolan, J. Moré, "Benchmarking optimization software with performance profiles", Mathematical
       Programming 91, 2002.
    """
    ax = ax or plt.subplots(figsize=(5.5, 4), layout="constrained")[1]
    table = np.array(list(costs.values()), dtype=float)
    ratios = np.divide(table, table.min(axis=0), out=table.copy(), where=np.isfinite(table))
    taus = np.unique(ratios[np.isfinite(ratios)])
    shares = (ratios[:, :, None] <= taus).mean(axis=1)
    looks = styles(list(costs))
    for index, name in enumerate(costs):
        ax.step(taus, shares[index], where="post", label=name, **(looks[name] | {"marker": ""}))
    ax.set(xscale="log", xlabel="τ, times the least cost", ylabel="share of problems solved")
    return ax


def digits(X: np.ndarray, labels: Sequence[Any] | None = None, columns: int = 10) -> Figure:
    """Draw images of 28 × 28 pixels.

    Parameters
    ----------
    X : ndarray, shape (n, 784)
        The pixels of an image in each row.
    labels : sequence, optional
        What to write above each image.
    columns : int
        Number of images side by side.

    Returns
    -------
    Figure
        The figure.
    """
    rows = -(-len(X) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(0.8 * columns, 1.0 * rows), squeeze=False)
    for index, ax in enumerate(axes.flat):
        ax.axis("off")
        if index < len(X):
            ax.imshow(np.reshape(X[index], (28, 28)), cmap=IMAGES)
            if labels is not None:
                ax.set_title(str(labels[index]), fontsize=9)
    return figure


def confusion(counts: np.ndarray, groups: Mapping[str, Sequence[str]], ax: Axes | None = None) -> Axes:
    """Draw a confusion matrix as shares of its rows, with a box around each group of classes.

    Parameters
    ----------
    counts : ndarray, shape (k, k)
        Entry (i, j): number of frames of reference class i that were classified as class j.
    groups : dict
        {name of the group: names of its classes}, in the order of the rows.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes
        What was drawn on.
    """
    ax = ax or plt.subplots(figsize=(7.5, 6.8), layout="constrained")[1]
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = ax.imshow(shares, cmap=IMAGES, vmin=0, vmax=1)
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
    """Write names side by side along the x-axis, each in the middle of its interval.

    Parameters
    ----------
    starts, ends : sequence of float
        Where each interval begins and ends.
    names : sequence of str
        What to write.
    ax : Axes
        Where to draw.

    Returns
    -------
    Axes
        What was drawn on.
    """
    for start, end, name in zip(starts, ends, names, strict=True):
        ax.axvspan(start, end, facecolor="none", edgecolor=BACKGROUND_LINES)
        middle = (start + end) / 2, 0.5
        text = ax.text(*middle, name, transform=ax.get_xaxis_transform(), ha="center", va="center")
        text.set(clip_on=True, fontsize=8)
    ax.set_yticks([])
    return ax


def reduction(engines: int = 4, ax: Axes | None = None) -> Axes:
    """Draw one reduction: every engine contributes its part, and every engine receives the sum.

    Parameters
    ----------
    engines : int
        Number of engines, at least 1.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes
        What was drawn on.
    """
    ax = ax or plt.subplots(figsize=(1.8 * engines, 2.6), layout="constrained")[1]
    box = {"boxstyle": "round,pad=0.5", "facecolor": "white", "edgecolor": COLOURS[0]}
    arrows = [{"arrowstyle": "->", "color": colour} for colour in COLOURS[1:3]]
    for number in range(engines):
        ax.text(number, 1, f"engine {number + 1}\nits images", ha="center", va="center", bbox=box)
        ax.annotate("", (number - 0.1, 0.16), (number - 0.1, 0.76), arrowprops=arrows[0])
        ax.annotate("", (number + 0.1, 0.76), (number + 0.1, 0.16), arrowprops=arrows[1])
        ax.text(number - 0.14, 0.46, f"part {number + 1}", ha="right", va="center", color=COLOURS[1])
        ax.text(number + 0.14, 0.46, "sum", ha="left", va="center", color=COLOURS[2])
    ax.barh(0, engines - 0.2, left=-0.4, height=0.28, color="white", edgecolor=COLOURS[0])
    total = " + ".join(f"part {number + 1}" for number in range(engines))
    ax.text((engines - 1) / 2, 0, f"sum = {total}", ha="center", va="center")
    ax.set(xlim=(-0.6, engines - 0.4), ylim=(-0.2, 1.25), title="One reduction")
    ax.axis("off")
    return ax


def figures_folder() -> Path:
    """Return the folder to which a run's figures go, which is made if it does not exist.

    The variable ``HFNB_FIGURES`` names it. Without that variable it is ``figures/run`` of the checkout that
    contains the working folder, which git ignores; outside of a checkout it is the working folder. Only
    ``make run ARGS=--figures``, which sets the variable, changes the committed figures in ``figures``.

    Returns
    -------
    Path
        The folder.
    """
    named, here = os.environ.get("HFNB_FIGURES"), Path.cwd()
    checkout = next((folder for folder in (here, *here.parents) if _is_checkout(folder)), None)
    folder = Path(named).expanduser() if named else checkout / "figures" / "run" if checkout else here
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _is_checkout(folder: Path) -> bool:
    """Return whether this is the root of the project, with the lessons and the package."""
    return (folder / "notebooks" / "00_start_here.ipynb").exists() and (folder / "hfnb" / "plots.py").exists()


def save(figure: Figure | Axes, name: str) -> None:
    """Write a figure to `figures_folder`, with its title in the file for readers who cannot see it.

    Parameters
    ----------
    figure : Figure or Axes
        The figure, or axes on it.
    name : str
        Name of the file; its ending says the format.
    """
    whole = figure.get_figure() if isinstance(figure, Axes) else figure
    assert isinstance(whole, Figure), "axes belong to a figure"
    titles = [whole.get_suptitle(), *(ax.get_title() for ax in whole.axes)]
    told = "; ".join(" ".join(title.split()) for title in titles if title)
    whole.savefig(figures_folder() / name, dpi=120, metadata={"Title": told})


def animate(
    figure: Figure, draw: Callable[[int], Any], frames: int, name: str, *, per_second: float = 2.0
) -> None:
    """Write an animation that repeats to `figures_folder`, and its last picture beside it.

    Parameters
    ----------
    figure : Figure
        The figure. Margins that are fixed (``subplots_adjust``) keep its axes in place; a layout that adapts
        to what is drawn may move them.
    draw : callable
        ``draw(k)`` changes the figure to its picture number k.
    frames : int
        Number of pictures, at least 1. The last one stays for three seconds.
    name : str
        Name of the files, without ending: the animation is a GIF, and the last picture, for places in which
        nothing can move, a PNG.
    per_second : float
        Pictures a second.
    """
    pictures = []
    for number in range(frames):
        draw(number)
        figure.canvas.draw()
        pixels = np.asarray(figure.canvas.buffer_rgba())[:, :, :3]  # type: ignore[attr-defined]
        pictures.append(Image.fromarray(np.ascontiguousarray(pixels)))
    colours = pictures[-1].quantize(64)  # one palette for all, so that nothing flickers
    first, *others = [picture.quantize(palette=colours, dither=Image.Dither.NONE) for picture in pictures]
    durations = [int(1000 / per_second)] * (frames - 1) + [3000]
    first.save(
        figures_folder() / f"{name}.gif", save_all=True, append_images=others, duration=durations, loop=0
    )
    save(figure, f"{name}.png")


def sliders(draw: Callable[..., Any], **controls: Any) -> Any:
    """Return controls for a notebook that draw a picture whenever one of them is moved.

    Nothing is drawn before that, so that the cell can show and save a picture of its own above the controls.
    If a drawing fails or is interrupted, the next move draws again.

    Parameters
    ----------
    draw : callable
        ``draw(**values)`` draws a figure and shows it.
    **controls
        What ``ipywidgets.interactive`` takes for each argument of ``draw``: a range ``(least, most, step)``,
        a list of values, or a widget.

    Returns
    -------
    ipywidgets.interactive
        The controls. Where they cannot be shown, on a web page say, one line of text says what they are.

    Examples
    --------
    >>> sliders(lambda damping: print(damping), damping=(0.0, 4.0, 0.1))
    Controls of damping: run this cell, then move them.
    """
    check_extra("hfnb.plots.sliders", "notebooks", "ipywidgets")
    import ipywidgets

    class Sliders(ipywidgets.interactive):
        def update(self, *moved: Any) -> None:
            if moved:  # nothing has moved when they are made
                super().update(*moved)

        def __repr__(self) -> str:
            names = [control.description for control in self.kwargs_widgets]
            return f"Controls of {' and '.join(names)}: run this cell, then move them."

    return Sliders(draw, **controls)
