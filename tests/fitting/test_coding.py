"""From a log to ladders and codes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from metaverify.fitting.coding import code_log, ladders_of
from metaverify.fitting.ladders import leaf_shape
from tests.strategies import random_log

KINDS = ("free paid", "paid", "free", "")


def test_a_reading_that_comes_free_folds_into_the_call_and_every_other_has_its_own_rung() -> None:
    ladders = ladders_of(random_log(100, 0, readings=KINDS), 4)
    assert [[rung.reading for rung in ladder.rungs] for ladder in ladders] == [
        ["free", "paid"],
        [None, "paid"],
        ["free"],
        [None],
    ]
    assert [ladder.source for ladder in ladders] == ["tier0", "tier1", "tier2", "tier3"]
    assert all(ladder.answer and not ladder.needs for ladder in ladders)


def test_a_reading_that_costs_something_even_once_is_bought_apart() -> None:
    log = random_log(50, 1, readings=("free", ""))
    (free,) = log.tiers[0].readings
    price = np.where(np.arange(50) == 7, 0.1, 0.0)
    paid = replace(log, tiers=(replace(log.tiers[0], readings=(replace(free, price=price),)), log.tiers[1]))
    assert [rung.reading for rung in ladders_of(paid, 4)[0].rungs] == [None, "free"]


def test_no_reading_has_more_bins_than_were_asked_for() -> None:
    for bins in (1, 2, 5):
        ladders = ladders_of(random_log(200, 2, readings=KINDS), bins)
        assert all(rung.size <= bins + 1 for ladder in ladders for rung in ladder.rungs)


def test_codes_are_the_outcomes_of_each_row_and_prices_what_it_was_charged() -> None:
    log = random_log(80, 3, readings=KINDS, varying=True, weighted=True)
    ladders = ladders_of(log, 4)
    coded = code_log(log, ladders)
    assert len(coded) == 80
    columns = iter(coded.codes)
    for ladder, tier, prices, quality in zip(ladders, log.tiers, coded.price, coded.quality, strict=True):
        assert (quality == tier.correct).all()
        assert (prices[0] == tier.cost).all()
        for rung, price in zip(ladder.rungs, prices, strict=True):
            code = next(columns)
            readings = [r for r in tier.readings if r.name == rung.reading]
            expected = rung.code(readings[0].confidence) if readings else np.zeros(80)
            assert (code == expected).all()
            if readings and rung is not ladder.rungs[0]:
                assert (price == readings[0].price).all()
    assert next(columns, None) is None
    assert (coded.weights == log.weights).all()


def test_a_signal_is_a_ladder_without_an_answer() -> None:
    log = random_log(80, 3, readings=("free", ""), varying=True, signals=True)
    ladders = ladders_of(log, 4)
    assert [(la.source, la.answer, la.needs) for la in ladders[2:]] == [
        ("judge", False, ("tier0",)),
        ("early", False, ()),
    ]
    coded = code_log(log, ladders)
    assert coded.quality[2] is coded.quality[3] is None
    for at, (ladder, signal) in enumerate(zip(ladders[2:], log.signals, strict=True)):
        ((rung,), (read,)) = ladder.rungs, signal.readings
        assert (coded.codes[2 + at] == rung.code(read.confidence)).all()
        assert (coded.price[2 + at][0] == read.price).all()
    assert [la.source for la in ladders_of(log, {("judge", "paid"): 4})] == ["tier0", "tier1", "judge"]


def test_a_cell_is_the_place_of_a_row_in_the_table() -> None:
    log = random_log(60, 4)
    coded = code_log(log, ladders_of(log, 3))
    shape = leaf_shape(coded.ladders)
    assert coded.leaves() == np.prod(shape)
    for row, cell in enumerate(coded.cells()):
        assert np.unravel_index(cell, shape) == tuple(code[row] for code in coded.codes)


def test_contexts_are_numbered_and_an_unknown_one_is_none_of_them() -> None:
    log = random_log(30, 5, contexts=3)
    coded = code_log(log, ladders_of(log, 3), ("c2", "c0"))
    assert coded.context.tolist() == [{"c2": 0, "c0": 1}.get(label, -1) for label in log.contexts]
    assert (code_log(random_log(30, 5), ladders_of(log, 3), ("c2",)).context == -1).all()


@pytest.mark.parametrize("rows", [np.array([4, 1, 1]), np.arange(30) % 2 == 0], ids=["positions", "mask"])
def test_rows_are_taken_from_every_column(rows: np.ndarray) -> None:
    log = random_log(30, 6, contexts=2, varying=True, weighted=True)
    coded = code_log(log, ladders_of(log, 3), ("c0", "c1"))
    taken, again = coded.take(rows), code_log(log.take(rows), coded.ladders, coded.contexts)
    assert len(taken) == len(again)
    assert (taken.cells() == again.cells()).all()
    assert (taken.context == again.context).all()
    assert (taken.weights == again.weights).all()
    for left, right in zip(taken.price, again.price, strict=True):
        assert all((a == b).all() for a, b in zip(left, right, strict=True))
