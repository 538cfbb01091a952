"""Sketches: a grid that every number has one place in, and edges whose ranks are as good as is said."""

from __future__ import annotations

from functools import reduce
from operator import add

import narwhals as nw
import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaverify.simulators.bins import CANDIDATES, balanced_cuts
from metaverify.simulators.counting import count
from metaverify.simulators.log import LogError, LoggedReading, LoggedTier, ReplayLog
from metaverify.simulators.sketch import Histogram, grid_cell
from metaverify.simulators.sketching import sketch
from tests.strategies import repeatable


def cells_of(values: np.ndarray) -> np.ndarray:
    frame = nw.from_native(pl.DataFrame({"value": values})).select(cell=grid_cell(nw.col("value")))
    return frame["cell"].to_numpy()


def log_of(values: np.ndarray) -> ReplayLog:
    ids = np.array([f"q{at}" for at in range(len(values))], dtype=object)
    rng = np.random.default_rng(0)
    tiers = tuple(
        LoggedTier(name, rng.integers(0, 2, len(values)).astype(float), np.full(len(values), cost), readings)
        for name, cost, readings in (
            ("a", 1.0, (LoggedReading("conf", values, np.zeros(len(values))),)),
            ("b", 2.0, ()),
        )
    )
    return ReplayLog(ids, tiers, np.ones(len(values)), ids)


def histogram(values: np.ndarray) -> Histogram:
    return sketch(log_of(values)).histograms["a", "conf"]


near_ends = st.one_of(
    st.floats(0.0, 1.0),
    st.floats(0.0, 1.0).map(lambda x: x * 2.0**-20),
    st.floats(0.0, 1.0).map(lambda x: 1.0 - x * 2.0**-20),
    st.integers(0, 40).map(lambda k: 2.0**-k),
    st.integers(1, 40).map(lambda k: 1.0 - 2.0**-k),
)


@repeatable(80)
@given(st.lists(near_ends, min_size=2, max_size=60))
def test_a_cell_of_the_grid_is_an_interval(values: list[float]) -> None:
    rising = np.sort(np.array(values))
    cells = cells_of(rising)
    assert (cells == np.round(cells)).all()
    runs = 1 + int((cells[1:] != cells[:-1]).sum())
    assert runs == len(set(cells.tolist()))


@pytest.mark.parametrize(("near", "bits"), [(1, 14), (8, 22), (16, 30), (24, 38)])
def test_cells_are_as_narrow_as_is_said(near: int, bits: int) -> None:
    apart = 2.0**-near - np.arange(1, 100) * 2.0**-bits
    assert len(set(cells_of(np.concatenate([apart, 1.0 - apart])).tolist())) == 2 * 99


DRAWN = {
    "even": lambda rng: rng.random(20_000),
    "near one": lambda rng: 1.0 - rng.random(20_000) ** 6,
    "crowded at one": lambda rng: 1.0 - 10.0 ** rng.uniform(-9, 0, 20_000),
    "crowded at zero": lambda rng: 10.0 ** rng.uniform(-9, 0, 20_000),
    "a narrow hump": lambda rng: np.clip(rng.normal(0.613, 0.001, 20_000), 0, 1),
    "single precision": lambda rng: rng.random(20_000).astype(np.float32).astype(np.float64),
}


@pytest.mark.parametrize("name", DRAWN)
def test_there_can_be_an_edge_within_the_rank_error_of_every_rank(name: str) -> None:
    values = DRAWN[name](np.random.default_rng(1))
    found = histogram(values)
    _, member, rows = np.unique(cells_of(values), return_inverse=True, return_counts=True)
    several = [len(set(values[member == at].tolist())) > 1 for at in np.flatnonzero(rows > 1)]
    assert found.rank_error == max(rows[rows > 1][several], default=0) / len(values)
    ranks = np.concatenate([[0.0], [(values < edge).mean() for edge in found.edges(200)], [1.0]])
    if len(ranks) == 201:
        assert np.diff(ranks).max() <= 1 / 200 + found.rank_error + 2.0 / CANDIDATES
    assert np.diff(np.cumsum(found.rows) / len(values)).max() <= max(found.rank_error, 1 / len(values)) + 1e-12


@pytest.mark.parametrize("name", [name for name in DRAWN if "hump" not in name])
@pytest.mark.parametrize("bins", [4, 32])
def test_edges_divide_readings_evenly(name: str, bins: int) -> None:
    values = DRAWN[name](np.random.default_rng(1))
    found = histogram(values)
    below = np.array([(values < edge).mean() for edge in found.edges(bins)])
    assert np.abs(below - np.arange(1, bins) / bins).max() <= found.rank_error + 1.0 / CANDIDATES


@pytest.mark.parametrize("name", [name for name in DRAWN if "hump" not in name])
def test_edges_of_sketches_that_were_added_up_lie_as_near_to_their_ranks_as_is_said(name: str) -> None:
    rng = np.random.default_rng(2)
    values = DRAWN[name](rng)
    part = rng.integers(0, 7, len(values))
    found = reduce(add, (histogram(values[part == at]) for at in (4, 0, 6, 2, 5, 1, 3)))
    below = np.array([(values < edge).mean() for edge in found.edges(32)])
    assert np.abs(below - np.arange(1, 32) / 32).max() <= found.rank_error + 1.0 / CANDIDATES
    assert found.rank_error == histogram(values).rank_error


@repeatable(40)
@given(st.lists(st.integers(0, 100), min_size=2, max_size=200), st.integers(2, 12))
def test_readings_of_few_values_have_the_edges_that_rows_would_give(percents: list[int], bins: int) -> None:
    values = np.array(percents) / 100.0
    found = histogram(values)
    assert found.rank_error == 0.0
    assert found.edges(bins) == balanced_cuts(values, np.ones(len(values)), bins)


@repeatable(40)
@given(st.lists(near_ends, min_size=2, max_size=60), st.integers(2, 8))
def test_what_stands_for_a_bin_lies_in_it(values: list[float], bins: int) -> None:
    found = histogram(np.array(values))
    edges = found.edges(bins)
    standing = np.array(found.values(edges))
    assert np.searchsorted(np.array(edges), standing, side="right").tolist() == list(range(len(edges) + 1))
    assert standing.min() >= 0.0
    assert standing.max() <= 1.0


def test_a_reading_that_is_always_missing_is_left_out() -> None:
    counted = count(log_of(np.full(50, np.nan))).log()
    assert counted.tier("a").readings == ()


def test_sketches_of_different_logs_do_not_add_up() -> None:
    one, other = sketch(log_of(np.linspace(0, 1, 50))), sketch(log_of(np.linspace(0, 1, 50)).with_tiers(["a"]))
    with pytest.raises(LogError, match=r"E_OPTION.*do not add up.*'a: conf', 'b: '"):
        _ = one + other
