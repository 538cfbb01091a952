"""Figures: every one in both formats, the same each time, with everything named and nothing told by colour alone."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from metaverify.figures import COLOURS, _cost_quality, _gain, _mixed, _shades, _style, write_figures
from metaverify.fitting.chain import Thresholds
from metaverify.fitting.compare import compare
from metaverify.fitting.comparison import Comparison, FixedTier
from metaverify.simulators.outcome import Estimate
from metaverify.simulators.worlds import shared_difficulty

NAMES = ("cost_quality", "gain", "calibration", "calls")


@pytest.fixture(scope="module")
def found() -> Comparison:
    ways = {"wide cuts": Thresholds(bins=4), "fine cuts": Thresholds()}
    return compare(shared_difficulty(2).draw(150, 1), ways, budgets=(2.0, 3.0, 4.0), folds=2, resamples=20)


def words(file: Path) -> Iterator[str]:
    """Texts of an SVG file, which stand in comments where letters are drawn as curves."""
    parser = ET.XMLParser(target=ET.TreeBuilder(insert_comments=True))
    for node in ET.parse(file, parser).iter():
        if node.tag is ET.Comment and node.text:
            yield node.text.strip()


def test_every_figure_is_written_as_png_and_svg(found: Comparison, tmp_path: Path) -> None:
    written = write_figures(found, tmp_path / "new" / "folder")
    assert {file.name for file in written} == {f"{name}.{suffix}" for name in NAMES for suffix in ("png", "svg")}
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in written if file.suffix == ".png")


def test_figures_name_methods_tiers_and_axes(found: Comparison, tmp_path: Path) -> None:
    write_figures(found, tmp_path)
    curves, calls = (set(words(tmp_path / f"{name}.svg")) for name in ("cost_quality", "calls"))
    named = {"wide cuts", "fine cuts", "cost per query", "quality", "fixed tiers mixed at random"}
    assert named | {"1  always tier1", "2  always tier2"} <= curves
    assert {"tier1", "tier2", "wide cuts", "fine cuts", "budget per query"} <= calls
    assert {"conf of tier1", "conf of tier2"} <= set(words(tmp_path / "calibration.svg"))


def test_the_same_comparison_is_drawn_in_the_same_bytes(found: Comparison, tmp_path: Path) -> None:
    first, second = (write_figures(found, tmp_path / name) for name in ("a", "b"))
    assert [file.read_bytes() for file in first] == [file.read_bytes() for file in second]


def test_more_methods_than_colours_and_logs_without_readings_or_budgets_to_spare(
    found: Comparison, tmp_path: Path
) -> None:
    many = tuple(replace(found.methods[0], name=f"method {at}") for at in range(11))
    assert len(write_figures(replace(found, methods=many), tmp_path / "many")) == 8
    bare = replace(
        found,
        budgets=found.budgets[:1],
        methods=tuple(replace(method, curve=method.curve[:1]) for method in found.methods),
        calibration=(),
    )
    assert {file.stem for file in write_figures(bare, tmp_path / "bare")} == {"cost_quality", "gain"}


def crowded(found: Comparison) -> Comparison:
    """With 28 methods and twelve tiers, most of them alike in cost and quality."""
    methods = tuple(replace(found.methods[0], name=f"a-method-with-a-long-name-{at}") for at in range(28))
    calls = {f"model {at}": at / 12 for at in range(12)}
    curve = tuple(replace(point, calls=calls) for point in found.methods[0].curve)
    tiers = [FixedTier(f"model {at}", exactly(1.0 + at % 4 / 5), exactly(0.5 + at / 100)) for at in range(11)]
    tiers.append(FixedTier("model 11", exactly(300.0), exactly(0.9)))
    return replace(found, methods=tuple(replace(m, curve=curve) for m in methods), tiers=tuple(tiers))


def exactly(value: float) -> Estimate:
    return Estimate(value, value, value)


@pytest.mark.parametrize("draw", [_cost_quality, _gain])
def test_every_name_of_a_long_legend_lies_on_the_figure(
    draw: Callable[[Figure, Comparison], bool], found: Comparison
) -> None:
    figure = Figure(layout="constrained")
    draw(figure, crowded(found))
    figure.draw_without_rendering()
    (legend,) = figure.legends
    whole, (width, height) = legend.get_window_extent(), figure.get_size_inches() * figure.dpi
    assert len(legend.texts) >= 29
    assert 0 <= whole.x0 <= whole.x1 <= width
    assert 0 <= whole.y0 <= whole.y1 <= height
    assert figure.axes[0].get_window_extent().x1 < whole.x0


def test_twelve_tiers_have_numbers_apart_from_each_other_and_colours_of_their_own(found: Comparison) -> None:
    figure = Figure(layout="constrained")
    _cost_quality(figure, crowded(found))
    figure.draw_without_rendering()
    numbers = [text for text in figure.axes[0].texts if text.get_text().isdigit()]
    assert [text.get_text() for text in numbers] == [str(at) for at in range(1, 13)]
    boxes = [Text.get_window_extent(text) for text in numbers]  # without the line that ties it to its point
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
    assert len(set(_shades(crowded(found)).values())) == 12


def test_costs_far_apart_are_drawn_in_logarithms_where_mixtures_bend(found: Comparison) -> None:
    figure, near = Figure(layout="constrained"), Figure(layout="constrained")
    _cost_quality(figure, crowded(found))
    _cost_quality(near, found)
    assert [each.axes[0].get_xscale() for each in (figure, near)] == ["log", "linear"]
    first, last = found.hull[0], found.hull[-1]
    cost, quality = _mixed(replace(found, hull=(first, last)))
    middle = len(cost) // 2
    assert cost[middle] == pytest.approx((first.cost + last.cost) / 2)
    assert quality[middle] == pytest.approx((first.quality + last.quality) / 2)


def test_no_two_methods_look_alike_even_in_grey() -> None:
    styles = [_style(at) for at in range(2 * len(COLOURS))]
    assert len({(str(style["marker"]), str(style["ls"])) for style in styles}) == len(styles)
