"""Figures: what they are given is what they show, in colours that everybody can tell apart."""

from __future__ import annotations

import base64
import subprocess
import sys
from itertools import combinations

import matplotlib as mpl
import numpy as np
import pytest

from driftfield.report import figures, pictures, style
from driftfield.report.figures import Curve, History
from driftfield.report.parts import measured
from driftfield.report.quality import SOLVERS


def luminance(colour: str) -> float:
    """Relative luminance of an sRGB colour (WCAG 2)."""
    return float(np.dot(linear(colour), (0.2126, 0.7152, 0.0722)))


def linear(colour: str) -> np.ndarray:
    v = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)


def contrast(a: str, b: str) -> float:
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("ground", ["#ffffff", "#14171b"])
def test_colours_stand_out_in_light_and_dark(ground):
    """3:1 is what WCAG 2 asks of graphics."""
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    for colour in style.RUNS + style.SOLVERS:
        assert contrast(colour, ground) >= 3, colour


@pytest.mark.parametrize("seen", [np.eye(3), [[0.625, 0.375, 0], [0.7, 0.3, 0], [0, 0.3, 0.7]]])
def test_colours_of_runs_are_told_apart(seen):
    """By everybody, and by a dichromat (the usual linear picture of deuteranopia): at least 0.1 apart in linear RGB."""
    for a, b in combinations(style.RUNS, 2):
        assert np.linalg.norm(np.asarray(seen) @ (linear(a) - linear(b))) > 0.1, (a, b)


def test_runs_and_solvers_share_no_colour():
    assert not set(style.RUNS) & set(style.SOLVERS)
    assert len({(style.look_of_run(i).colour, str(style.look_of_run(i).dash)) for i in range(8)}) == 8
    looks = {style.look_of_solver(s, list(SOLVERS)).colour for s in SOLVERS}
    assert len(looks) == len(SOLVERS)


def curves() -> dict[str, dict[str, Curve]]:
    return {
        "frechet": {"euler": Curve((5, 9), (3.0, 2.0), (0.1, 0.1)), "heun": Curve((5, 9), (30.0, 1.5), (0.2, 0.1))},
        "sliced": {"euler": Curve((5, 9), (0.3, 0.2), (0.1, 0.1)), "heun": Curve((5, 9), (0.4, 0.1), (0.1, 0.2))},
    }


def test_quality_shows_the_values_with_their_errors():
    figure = figures.quality(curves(), list(SOLVERS), floors={"sliced": (0.1, 0.01)})
    for ax, by in zip(figure.axes, curves().values(), strict=True):
        for bars, (solver, curve) in zip(ax.containers, by.items(), strict=True):
            line, _, (stems,) = bars
            np.testing.assert_allclose(line.get_xydata(), np.stack((curve.x, curve.y), 1))
            ends = np.array([path.vertices[:, 1] for path in stems.get_paths()])
            np.testing.assert_allclose(ends.T, [np.subtract(curve.y, curve.error), np.add(curve.y, curve.error)])
            assert line.get_color() == style.look_of_solver(solver, list(SOLVERS)).colour
    assert figure.axes[0].get_yscale() == "log"
    assert figure.axes[1].get_yscale() == "linear"
    assert "NFE" in figure.axes[1].get_xlabel()


def test_limits_hold_every_bar_and_stay_positive_where_values_are():
    low, high = figures.limits_of([Curve((1, 2), (1.0, 4.0), (0.1, 0.5))], [0.5])
    assert low < 0.5
    assert high > 4.5
    low, _ = figures.limits_of([Curve((1,), (1.0,), (2.0,))])
    assert 0 < low < 1
    low, high = figures.limits_of([Curve((1, 2), (-1.0, 4.0), (0.5, 0.5))])
    assert low < -1.5
    assert high > 4.5


def history(scale: float = 1.0) -> History:
    judged = ((50.0, (0.1, 1.0), (0.6, 0.5), (0.5, 0.4)), (100.0, (0.1, 1.0), (0.4, 0.3), (0.3, 0.2)))
    return History((20.0, 60.0, 100.0), (scale, 0.8 * scale, 0.5 * scale), judged)


def test_losses_show_the_log():
    runs, looks = {"a": history(), "b": history(2)}, [style.look_of_run(0), style.look_of_run(1)]
    (ax,) = figures.training_curve(runs, looks).axes
    a, held, b, _ = ax.lines
    np.testing.assert_allclose(a.get_ydata(), [1, 0.8, 0.5])
    np.testing.assert_allclose(b.get_ydata(), [2, 1.6, 1.0])
    np.testing.assert_allclose(held.get_xydata(), [[50, 0.55], [100, 0.35]])
    assert (a.get_color(), b.get_color()) == style.RUNS[:2]
    (ax,) = figures.loss_by_level(runs, looks).axes
    np.testing.assert_allclose(ax.lines[0].get_xydata(), [[0.1, 0.4], [1.0, 0.3]])
    assert ax.get_xscale() == "log"
    ax = figures.loss_over_training(history()).axes[0]
    np.testing.assert_allclose([line.get_ydata() for line in ax.lines], [[0.6, 0.4], [0.5, 0.3]])


def test_proximity_is_the_empirical_law():
    figure = figures.proximity({"a": np.array([3.0, 1.0])}, np.array([2.0]), [style.look_of_run(1)], "raw values")
    line = figure.axes[0].lines[1]
    np.testing.assert_allclose(line.get_xydata()[-2:], [[1, 0.5], [3, 1.0]])
    assert line.get_color() == style.RUNS[1]


def test_marginals_of_equal_sets_lie_on_the_line():
    """Numbers by quantiles, names by shares; both exactly on the diagonal where the sets are one."""
    rng = np.random.default_rng(0)
    data = {"price": rng.normal(size=300), "cut": np.array(["good", "fair", "good"] * 100, dtype=object)}
    figure = figures.marginals(data, data, style.look_of_run(0))
    for ax in figure.axes[:2]:
        x, y = ax.lines[1].get_xydata().T
        np.testing.assert_allclose(x, y)
    np.testing.assert_allclose(sorted(figure.axes[1].lines[1].get_xdata()), [1 / 3, 2 / 3])


def test_a_mosaic_keeps_every_pixel():
    images = np.random.default_rng(1).integers(0, 256, (5, 4, 3), dtype=np.uint8)
    figure = pictures.mosaic(images, 2, ("x", "y", "z"))
    sheet = np.asarray(figure.axes[0].images[0].get_array())
    assert sheet.shape == (3 * 5 + 1, 2 * 4 + 1, 4)
    for i, image in enumerate(images):
        top, left = 1 + i // 2 * 5, 1 + i % 2 * 4
        np.testing.assert_array_equal(sheet[top : top + 4, left : left + 3, 0], image)
        assert (sheet[top : top + 4, left : left + 3, 3] == 255).all()
    assert (sheet[-4:, -3:, 3] == 0).all()  # there is no sixth: nothing is drawn


@pytest.mark.parametrize("colour", [False, True])
def test_pictures_of_ways_and_neighbours(colour):
    """Every state and estimate, row by row; every distance in print."""
    more = (3,) if colour else ()
    states, estimates = np.random.default_rng(2).integers(0, 256, (2, 4, 3, 5, 5, *more), dtype=np.uint8)
    figure = pictures.way_of_images(states, estimates, [np.inf, 2.0, 0.5, 0.0])
    sheet = np.asarray(figure.axes[0].images[0].get_array())[..., 0]
    first = (lambda a: a[..., 0]) if colour else (lambda a: a)
    np.testing.assert_array_equal(sheet[1:6, 7:12], first(states[1, 0]))
    np.testing.assert_array_equal(sheet[7:12, 1:6], first(estimates[0, 0]))
    assert [t.get_text() for t in figure.axes[0].get_xticklabels()] == ["∞", "2", "0.5", "0"]
    distances = np.array([[1.25, 2.5]] * 3)
    spaces = {"raw values": (states[:2, :].swapaxes(0, 1), distances)}
    figure = pictures.neighbours(states[0], spaces)
    assert len(figure.axes[0].images) == 3 * 3
    assert [t.get_text() for t in figure.axes[0].texts].count("1.25") == 3


@pytest.mark.parametrize("levels", [(80.0, 1.0, 0.0), (np.inf, 1.0, 0.1)])
def test_ways_of_points_and_of_values(levels):
    states, estimates = np.random.default_rng(3).normal(size=(2, 3, 20, 2))
    figure = pictures.way_in_plane(states, estimates, levels)
    segments = figure.axes[0].collections[0].get_segments()
    np.testing.assert_allclose(segments[0], states[:2, 0])
    assert len(segments) == 2 * 20
    np.testing.assert_allclose(figure.axes[0].collections[1].get_offsets(), states[-1])
    figure = pictures.way_of_values(states, estimates, levels, style.look_of_run(0))
    np.testing.assert_allclose(figure.axes[1].lines[0].get_ydata(), states[:, 0, 1])


def test_points_in_the_plane():
    points = np.random.default_rng(4).normal(size=(50, 2))
    figure = pictures.plane(points, 2 * points, style.look_of_run(0))
    np.testing.assert_allclose(figure.axes[1].collections[0].get_offsets(), points)
    assert figure.axes[0].get_xlim() == figure.axes[1].get_xlim()
    assert len(pictures.plane(points, None, style.look_of_run(0)).axes) == 1


def test_files_are_the_same_twice_and_nothing_global_changes():
    before = dict(mpl.rcParams)
    for form, start in ((style.png, b"\x89PNG"), (style.svg, b"<?xml")):
        first, second = (form(figures.loss_over_training(history())) for _ in range(2))
        assert first == second
        assert first.startswith(start)
    assert dict(mpl.rcParams) == before


def test_an_embedded_figure_follows_the_scheme():
    source = style.embedded(figures.loss_over_training(history()))
    text = base64.b64decode(source.removeprefix("data:image/svg+xml;base64,")).decode()
    assert "prefers-color-scheme:dark" in text
    body = text.partition("</style>")[2]
    assert style.INK not in body
    assert "var(--c0)" in body


def test_figures_need_no_pyplot():
    code = (
        "import sys; from driftfield.report import figures, pictures, style; import numpy as np;"
        "style.png(pictures.mosaic(np.zeros((2, 3, 3), np.uint8), 2)); print('matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (0.51234, 0.0131, "0.512 ± 0.013"),
        (5.2, 1.3, "5.2 ± 1.3"),
        (1234.5, 23.4, "1234 ± 23"),
        (-0.004, 0.0123, "−0.004 ± 0.012"),
        (0.5, None, "0.5"),
        (2.0, 0.0, "2 ± 0"),
        (1.5e-9, 2e-10, "1.500e−09 ± 2.0e−10"),
    ],
)
def test_numbers_have_the_digits_their_errors_earn(value, error, text):
    assert measured(value, error) == text
