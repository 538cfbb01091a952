"""Observation models: a table taken apart and put together again, and a mixture against sums by hand."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given

from metaverify.fitting.ladders import Ladder, Rung
from metaverify.fitting.observation import ObservationModel, observation_model
from metaverify.fitting.table import JointTable
from tests.strategies import repeatable, tables

LADDERS = (
    Ladder("a", (Rung("free", (0.5,)), Rung("paid", (0.3, 0.7)))),
    Ladder("judge", (Rung("verdict"),), answer=False, needs=("a",)),
    Ladder("b", (Rung(None),)),
)


def random_mixture(ladders: tuple[Ladder, ...], hidden: int, seed: int) -> ObservationModel:
    """Hidden states of random chance that show random outcomes; every other price varies with them."""
    rng = np.random.default_rng(seed)
    sizes = [size for ladder in ladders for size in ladder.sizes]
    return ObservationModel(
        ladders,
        rng.dirichlet(np.ones(hidden)),
        tuple(rng.dirichlet(np.ones(size), hidden) for size in sizes),
        tuple(rng.random(hidden) if ladder.answer else None for ladder in ladders),
        tuple(
            tuple(rng.gamma(2.0, 0.5, hidden) if at % 2 else float(rng.random()) for at in range(len(ladder.rungs)))
            for ladder in ladders
        ),
    )


@given(tables())
@repeatable(60)
def test_a_row_of_a_table_comes_back_from_its_observation_model(table: JointTable) -> None:
    for row in range(len(table.share)):
        back = observation_model(table, row).table()
        assert back.ladders == table.ladders
        assert back.mass[0] == pytest.approx(table.mass[row], abs=1e-15)
        for mine, given_ in zip(back.quality, table.quality, strict=True):
            assert (mine is None) == (given_ is None)
            if mine is not None and given_ is not None:
                assert mine[0] == pytest.approx(given_[row], abs=1e-14)
        for rungs, given_rungs in zip(back.price, table.price, strict=True):
            for price, given_price in zip(rungs, given_rungs, strict=True):
                if isinstance(given_price, float):
                    assert price == given_price
                else:
                    assert isinstance(price, np.ndarray)
                    assert price[0] == pytest.approx(given_price[row], abs=1e-13)


def test_a_row_that_sums_to_something_else_is_scaled_to_one() -> None:
    table = random_mixture(LADDERS, 3, 0).table()
    half = replace(table, mass=table.mass / 2, quality=tuple(None if q is None else q / 2 for q in table.quality))
    model = observation_model(half)
    assert model.prior.sum() == pytest.approx(1.0)
    assert model.table().mass == pytest.approx(table.mass)
    assert model.table().quality[0] == pytest.approx(table.quality[0])


@pytest.mark.parametrize("seed", range(3))
def test_the_table_of_a_mixture_is_the_sum_over_its_hidden_states(seed: int) -> None:
    model = random_mixture(LADDERS, 4, seed)
    table = model.table()
    sizes = [size for ladder in LADDERS for size in ladder.sizes]
    for cell in itertools.product(*(range(size) for size in sizes)):
        joint = []
        for z in range(4):
            chance = float(model.prior[z])
            for emission, outcome in zip(model.emission, cell, strict=True):
                chance *= float(emission[z, outcome])
            joint.append(chance)
        assert table.mass[0, *cell] == pytest.approx(sum(joint), rel=1e-12)
        for s, quality in enumerate(model.quality):
            if quality is not None:
                expected = sum(p * q for p, q in zip(joint, quality, strict=True))
                assert table.quality[s][0, *cell] == pytest.approx(expected, rel=1e-12)
        for s, rungs in enumerate(model.price):
            for j, price in enumerate(rungs):
                if isinstance(price, np.ndarray):
                    expected = sum(p * c for p, c in zip(joint, price, strict=True))
                    assert table.price[s][j][0, *cell] == pytest.approx(expected, rel=1e-12)
                else:
                    assert table.price[s][j] == price


def test_an_emission_of_the_wrong_shape_is_refused() -> None:
    model = random_mixture(LADDERS, 3, 0)
    with pytest.raises(ValueError, match=r"\(3, 3\), not \(3, 4\)"):
        replace(model, emission=(model.emission[1], *model.emission[1:]))
