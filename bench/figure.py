"""The figure of the products: ours and the peers' time over the GEMM bound, from results/products.json.

``python -m bench.figure`` writes results/products.png.
"""

import matplotlib.pyplot as plt

from bench.peers import NETWORKS, PRODUCTS
from bench.report import RESULTS, load
from hfnb import plots

DRAWN = ("hfnb", "JAX", "PyTorch", "torch.func", "curvlinops", "autograd")


def draw(rows, network: str):
    """Return the figure of a network in float32: a panel for each kind of product and number of threads."""
    rows = [row for row in rows if row["network"] == network and row["dtype"] == "float32"]
    threads = sorted({row["threads"] for row in rows})
    size = {"figsize": (3.3 * len(PRODUCTS), 2.9 * len(threads)), "layout": "constrained"}
    figure, axes = plt.subplots(len(threads), len(PRODUCTS), sharex=True, sharey=True, squeeze=False, **size)
    for line, count in zip(axes, threads, strict=True):
        for ax, what in zip(line, PRODUCTS, strict=True):
            panel(ax, [row for row in rows if (row["threads"], row["what"]) == (count, what)])
            ax.set_title(f"{what}, {count} thread{'s' if count > 1 else ''}", fontsize=10)
            ax.label_outer()
    handles, names = axes[0, 0].get_legend_handles_labels()
    more = axes[0, 1].get_legend_handles_labels()
    legend = dict(zip([*names, *more[1]], [*handles, *more[0]], strict=True))
    figure.legend(legend.values(), legend, loc="outside lower center", ncols=len(legend), frameon=False)
    figure.suptitle(f"{network}: time over that of the matrix products alone")
    return figure


def panel(ax, rows) -> None:
    """Draw a line for each way: its median time over the bound's, against the batch."""
    rows = sorted(rows, key=lambda row: row["batch"])
    for index, way in enumerate(DRAWN):
        found = [(row["batch"], row["ms"][way][1] / row["ms"]["GEMM"][1]) for row in rows if way in row["ms"]]
        if found:
            ax.plot(*zip(*found, strict=True), label=way, **plots.look(index))
    ax.axhline(1, color="0.5", linewidth=0.8)
    ax.set(xscale="log", xlabel="batch", ylabel="time ÷ GEMM bound", ylim=(0.8, 4.5))
    ax.grid(alpha=0.3)


def main() -> None:
    """Write the figure of the network that most is asked of."""
    document = load("products")
    if document is None:
        raise SystemExit("results/products.json is not there: run python -m bench products first")
    draw(document["rows"], next(iter(NETWORKS))).savefig(RESULTS / "products.png", dpi=120)


if __name__ == "__main__":
    main()
