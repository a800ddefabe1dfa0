"""Plots draw what they are given, on the axes they are given, and show nothing by themselves."""

import subprocess
from pathlib import Path

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from hfnb import plots
from hfnb.optimizers.history import Record


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def history(length, factor):
    return [
        Record(passes=i, reductions=9 * i, loss=factor * 0.5**i, error=10 / (i + 1)) for i in range(length)
    ]


def test_curves_draw_the_entries_asked_for():
    _, ax = plt.subplots()
    assert plots.curves({"a": history(5, 1), "b": history(6, 2)}, "reductions", "loss", ax) is ax
    lines = ax.get_lines()
    np.testing.assert_array_equal(lines[0].get_xdata(), 9 * np.arange(5))
    np.testing.assert_array_equal(lines[1].get_ydata(), 2 * 0.5 ** np.arange(6))
    assert [line.get_label() for line in lines] == ["a", "b"]
    assert ax.get_xlabel() == plots.LABELS["reductions"]


def test_bands_have_lines_between_their_bounds():
    _, ax = plt.subplots()
    given = {"a": [(2, 1, 4), (3, 2, 9)], "b": [(5, 5, 5), (np.inf, 5, np.inf)]}
    assert plots.bands([1, 16], given, ax) is ax
    a, b = ax.get_lines()
    np.testing.assert_array_equal(a.get_xydata(), [(1, 2), (16, 3)])
    np.testing.assert_array_equal(b.get_ydata(), [5, np.nan])
    corners = {tuple(corner) for corner in ax.collections[0].get_paths()[0].vertices}
    assert corners == {(1, 1), (1, 4), (16, 2), (16, 9)}
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert ax.get_legend_handles_labels()[1] == ["a", "b"]


def test_lines_differ_in_more_than_colour():
    looks = [plots.look(i) for i in range(7)]
    for part in ("color", "linestyle", "marker"):
        assert len({str(look[part]) for look in looks}) == 7


def test_a_method_looks_alike_in_every_figure():
    records = history(5, 1)
    names = ("SGD", "Adam", "Hessian-free (auto)", "Hessian-free (CG, Gauss–Newton)")
    few = plots.curves(dict.fromkeys(names[1:3], records)).get_lines()
    many = plots.curves(dict.fromkeys(names, records)).get_lines()
    assert [line.get_color() for line in few] == [line.get_color() for line in many[1:3]]
    profile = plots.performance_profile({"auto": [1.0], "GN-CG": [2.0]}).get_lines()
    assert [line.get_color() for line in profile] == [line.get_color() for line in many[2:]]
    band = plots.bands([1.0], {"tuned Adam": [(1.0, 1.0, 1.0)]}).get_lines()
    assert band[0].get_color() == plots.style("adam")["color"] == few[0].get_color()


def test_no_two_methods_look_alike():
    """Three colours would do for few of them, so that lines differ in dashes and markers as well."""
    numbers = set(plots.METHODS.values())
    looks = {(look["color"], look["linestyle"], look["marker"]) for look in map(plots.look, numbers)}
    assert len(looks) == len(numbers)
    for one in numbers:
        for other in numbers - {one}:
            same = [
                plots.look(one)[key] == plots.look(other)[key] for key in ("color", "linestyle", "marker")
            ]
            assert sum(same) < 2, (one, other)


def test_intervals_have_the_colours_of_their_methods():
    found = {name: {"A": (1.0, 0.5, 2.0)} for name in ("Gauss–Newton", "a factor", "Adam")}
    handles, names = plots.intervals(found).get_legend_handles_labels()
    colours = dict(zip(names, (handle[0].get_color() for handle in handles), strict=True))
    assert colours["Gauss–Newton"] == plots.style("martens")["color"]
    assert colours["Adam"] == plots.style("adam")["color"]


def test_a_saved_figure_says_its_title(tmp_path, monkeypatch):
    monkeypatch.setenv("HFNB_FIGURES", str(tmp_path))
    figure, (left, right) = plt.subplots(1, 2)
    figure.suptitle("Two\nlines")
    right.set_title("at the right")
    plots.save(left, "a.png")
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.info["Title"] == "Two lines; at the right"


def test_lines_of_one_method_differ_within_a_figure():
    names = ["Adam", "Adam, cosine schedule", "GN-CG", "GN-CG, marginal gain", "a", "b", "c"]
    found = plots.styles(names)
    assert list(found) == names
    assert len({str(each) for each in found.values()}) == 7
    assert (found["Adam"], found["GN-CG"]) == (plots.style("Adam"), plots.style("Martens"))


def test_a_line_without_a_method_takes_a_colour_that_is_left():
    found = plots.styles(["Levenberg–Marquardt", "something else"])  # a method's number beyond the colours
    assert len({look["color"] for look in found.values()}) == 2


def test_a_method_without_a_style_is_named():
    with pytest.raises(ValueError, match=r"name: expected a name with one of local sgd, .* got 'rmsprop'"):
        plots.style("rmsprop")


def test_a_landscape_has_the_heights_of_its_function():
    ax = plt.figure().add_subplot(projection="3d")
    points = [np.array([1.0, 0.0]), np.array([0.0, 2.0])]
    plots.landscape(lambda w: w[0] - 3 * w[1], (-1.0, 1.0), (-2.0, 2.0), ax, {"SGD": points})
    (line,) = ax.get_lines()
    np.testing.assert_array_equal(np.array(line.get_data_3d()), [[1, 0], [0, 2], [1, -6]])
    assert line.get_color() == plots.style("SGD")["color"]
    np.testing.assert_allclose(ax.get_zlim(), (-7, 7), rtol=0.1)  # a margin stands beside the heights


def test_intervals_stand_side_by_side_at_their_places():
    found = {"one": {"CG": (2.0, 1.0, 4.0), "MINRES": (0.5, 0.25, 1.0)}, "other": {"MINRES": (3.0, 3.0, 3.0)}}
    ax = plots.intervals(found)
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["CG", "MINRES"]
    one, other = ax.containers
    assert [bar.get_label() for bar in (one, other)] == ["one", "other"]
    np.testing.assert_array_equal(one.lines[0].get_ydata(), [2.0, 0.5])
    np.testing.assert_array_equal(np.isnan(other.lines[0].get_ydata()), [True, False])
    ends = [segment[:, 1].tolist() for segment in one.lines[2][0].get_segments()]
    assert ends == [[1.0, 4.0], [0.25, 1.0]]
    assert one.lines[0].get_xdata()[1] < 1 < other.lines[0].get_xdata()[1]
    assert ax.get_yscale() == "log"


def test_comparison_is_a_grid_with_one_legend_and_a_title():
    figure = plots.comparison({"a": history(5, 1)}, ("passes", "reductions"), ("loss", "error"), "A finding")
    assert len(figure.axes) == 4
    assert len(figure.legends) == 1
    assert figure.get_suptitle() == "A finding"


def test_the_diagram_of_a_reduction_has_every_engine_and_adds_every_part():
    texts = [text.get_text() for text in plots.reduction(engines=3).texts]
    engines = [text.splitlines()[0] for text in texts if text.startswith("engine")]
    assert engines == ["engine 1", "engine 2", "engine 3"]
    assert texts[-1] == "sum = part 1 + part 2 + part 3"


def test_figures_go_to_the_folder_asked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("HFNB_FIGURES", str(tmp_path / "figures"))
    plots.save(plots.curves({"a": history(3, 1)}), "a.png")
    plots.save(plots.digits(np.zeros((3, 784)), [1, 2, 3]), "b.png")
    assert (tmp_path / "figures" / "a.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "figures" / "b.png").exists()


def test_figures_of_a_run_change_nothing_that_is_committed(tmp_path, monkeypatch):
    """In the checkout they go to a folder that git ignores, elsewhere to the working folder."""
    monkeypatch.delenv("HFNB_FIGURES", raising=False)
    ax = plots.curves({"a": history(3, 1)})
    for path in ("hfnb/plots.py", "notebooks/00_start_here.ipynb", "figures/a.png"):
        (tmp_path / "checkout" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "checkout" / path).write_bytes(b"committed")
    for place in ("checkout", "checkout/notebooks", "elsewhere/deeper"):
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
        monkeypatch.chdir(tmp_path / place)
        plots.save(ax, f"{len(place)}.png")
    written = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.png"))
    run = "checkout/figures/run"
    assert written == ["checkout/figures/a.png", f"{run}/18.png", f"{run}/8.png", "elsewhere/deeper/16.png"]
    assert (tmp_path / "checkout" / "figures" / "a.png").read_bytes() == b"committed"


def test_git_ignores_the_figures_of_runs():
    root = Path(__file__).parent.parent
    if not (root / ".git").exists():
        pytest.skip("this is no git checkout")
    ignored = subprocess.run(
        ["git", "check-ignore", "figures/run/00_digits.png", "figures/run/07_train_mnist_full.json"], cwd=root
    )
    kept = subprocess.run(["git", "check-ignore", "-q", "figures/00_digits.png"], cwd=root)
    assert (ignored.returncode, kept.returncode) == (0, 1)


def test_confusion_draws_shares_in_the_order_given():
    counts = np.array([[3, 1, 0], [0, 0, 0], [0, 5, 5]])
    ax = plots.confusion(counts, {"vowels": ["a", "e"], "silence": ["sil"]})
    expected = [[0.75, 0.25, 0], [0, 0, 0], [0, 0.5, 0.5]]
    np.testing.assert_array_equal(ax.images[0].get_array(), expected)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "e", "sil"]
    assert [line.get_label() for line in ax.get_lines()] == ["vowels", "silence"]


def test_marks_are_where_the_labels_are():
    _, ax = plt.subplots()
    plots.marks([0.0, 0.5], [0.5, 2.0], ["h#", "sh"], ax)
    assert [(text.get_text(), text.get_position()[0]) for text in ax.texts] == [("h#", 0.25), ("sh", 1.25)]
    assert [patch.get_x() for patch in ax.patches] == [0.0, 0.5]


def test_parts_stand_side_by_side():
    ax = plots.parts({"engine 0": {"product": 2.0, "waiting": 1.0}, "engine 1": {"product": 3.0}})
    product, waiting = ax.containers
    assert [(bar.get_x(), bar.get_width()) for bar in product] == [(0, 2), (0, 3)]
    assert [(bar.get_x(), bar.get_width()) for bar in waiting] == [(2, 1), (3, 0)]
    assert ax.get_legend_handles_labels()[1] == ["product", "waiting"]


def test_performance_profile_counts_what_is_solved_within_a_factor():
    """Counted by hand: costs over the least are a: 1, 2, 1, never; b: 4, 1, never, never."""
    never = np.inf
    ax = plots.performance_profile({"a": [1, 6, 5, never], "b": [4, 3, never, never]})
    a, b = ax.get_lines()
    assert list(a.get_xdata()) == list(b.get_xdata()) == [1, 2, 4]
    assert list(a.get_ydata()) == [0.5, 0.75, 0.75]
    assert list(b.get_ydata()) == [0.25, 0.25, 0.5]
    assert [line.get_label() for line in (a, b)] == ["a", "b"]


def test_an_animation_has_all_its_pictures_and_leaves_the_last_one(tmp_path, monkeypatch):
    monkeypatch.setenv("HFNB_FIGURES", str(tmp_path))
    figure, ax = plt.subplots(figsize=(2, 1))
    bar = ax.barh([0], [0])[0]
    ax.set(xlim=(0, 3))
    plots.animate(figure, lambda k: bar.set_width(k + 1), 3, "bar", per_second=4)
    with Image.open(tmp_path / "bar.gif") as film:
        durations, widths = [], []
        for number in range(film.n_frames):
            film.seek(number)
            durations.append(film.info["duration"])
            widths.append(np.asarray(film.convert("RGB")).astype(float).std(axis=2).astype(bool).sum())
    assert durations == [250, 250, 3000]
    np.testing.assert_allclose(np.array(widths) / widths[0], [1, 2, 3], rtol=0.1)  # the bar is coloured
    assert (tmp_path / "bar.png").read_bytes().startswith(b"\x89PNG")


def test_sliders_draw_only_when_they_are_moved_and_again_after_an_interrupt():
    drawn = []

    def draw(damping, start=1):
        drawn.append((damping, start))
        if damping == 2.0:
            raise KeyboardInterrupt

    view = plots.sliders(draw, damping=(0.0, 4.0, 0.5), start=[1, 2])
    damping, start, _ = view.children
    assert drawn == []
    damping.value = 1.0
    with pytest.raises(KeyboardInterrupt):
        damping.value = 2.0
    damping.value = 3.0
    start.value = 2
    assert drawn == [(1.0, 1), (2.0, 1), (3.0, 1), (3.0, 2)]


def test_sliders_say_in_one_line_what_they_are_where_they_cannot_be_shown():
    view = plots.sliders(lambda x, y: None, x=(0, 1), y=ipywidgets.IntSlider(description="start"))
    assert view._repr_mimebundle_()["text/plain"] == "Controls of x and start: run this cell, then move them."
