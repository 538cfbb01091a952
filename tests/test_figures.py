"""Figures: every one in both formats, the same each time, with everything named and nothing told by colour alone."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from metaverify.figures import COLOURS, _style, write_figures
from metaverify.fitting.chain import Thresholds
from metaverify.fitting.compare import compare
from metaverify.fitting.comparison import Comparison
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


def test_no_two_methods_look_alike_even_in_grey() -> None:
    styles = [_style(at) for at in range(2 * len(COLOURS))]
    assert len({(str(style["marker"]), str(style["ls"])) for style in styles}) == len(styles)
