"""Propensities that are guessed come from the cuts by which calls were decided; those that are logged are checked."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from metaverify.simulators.partial import Sighting
from metaverify.simulators.propensities import alike, misfit, shares

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def reading(n: int, seed: int) -> Floats:
    return np.random.default_rng(seed).random(n)


def likelihood(seen: Bools) -> float:
    k, n = int(seen.sum()), len(seen)
    return sum(count * math.log(count / n) for count in (k, n - k) if count)


@pytest.mark.parametrize("cut", [0.03, 0.31, 0.75, 0.97])
@pytest.mark.parametrize("n", [300, 4000])
def test_what_was_always_called_and_what_never_was_are_told_apart_wherever_the_cut_is(n: int, cut: float) -> None:
    x = reading(n, n)
    found = shares(x < cut, np.ones(n, dtype=bool), {"conf": x, "noise": reading(n, 1)})
    np.testing.assert_array_equal(found, (x < cut).astype(float))


def test_cuts_on_two_readings_and_missing_ones_are_found() -> None:
    x, y = reading(3000, 1), reading(3000, 2)
    x[::7] = np.nan
    called = np.where(np.isnan(x), True, (x < 0.4) & (y < 0.6))
    found = shares(called, np.ones(3000, dtype=bool), {"x": x, "y": y})
    np.testing.assert_array_equal(found, called.astype(float))


def test_what_was_explored_is_not_taken_for_certain_or_never() -> None:
    x, rng = reading(4000, 3), np.random.default_rng(4)
    for _ in range(10):
        called = (x < 0.5) | (rng.random(4000) < 0.05)
        found = shares(called, np.ones(4000, dtype=bool), {"conf": x})
        assert (found[x < 0.5] == 1.0).all()
        assert (found[x > 0.51] > 0.0).all()
        assert found[x > 0.51].mean() == pytest.approx(0.05, abs=0.02)


def test_calls_by_chance_alone_are_one_leaf_and_the_first_cut_is_the_most_likely_one() -> None:
    x, rng = reading(80, 5), np.random.default_rng(6)
    assert sum(alike(rng.random(80) < 0.3, {"x": x}).max() > 0 for _ in range(100)) <= 5
    called = rng.random(80) < np.where(x < 0.3, 0.95, 0.05)
    leaf = alike(called, {"x": x})
    best = max(np.sort(x)[1:], key=lambda cut: likelihood(called[x < cut]) + likelihood(called[x >= cut]))
    assert len(set(leaf[x < best]) & set(leaf[x >= best])) == 0


def test_a_column_that_was_drawn_divides_only_those_that_all_have_it() -> None:
    x, y, rng = reading(3000, 1), reading(3000, 2), np.random.default_rng(3)
    there = x < 0.4
    seen = there & (y < 0.3)
    every = np.ones(3000, dtype=bool)
    found = shares(seen, every, {"x": x, "y": np.where(there, y, np.nan)}, {"y": there})
    np.testing.assert_array_equal(found, seen.astype(float))
    drawn = rng.random(3000) < 0.4  # whatever x is
    seen = drawn & (y < 0.3)
    found = shares(seen, every, {"x": x, "y": np.where(drawn, y, np.nan)}, {"y": drawn})
    assert found == pytest.approx(seen.mean(), abs=0.1)
    assert (found > 0.0).all()


def test_what_it_was_not_drawn_among_has_no_share() -> None:
    found = shares(np.array([True, False]), np.array([False, False]), {})
    assert np.isnan(found).all()


@pytest.mark.parametrize("known", [True, False], ids=["all chances", "chances of what was seen"])
def test_right_propensities_fit_and_wrong_ones_do_not(known: bool) -> None:
    n, always = 8000, np.ones(8000, dtype=bool)
    x, rng = reading(n, 7), np.random.default_rng(8)
    right = np.where(x < 0.6, 0.9, 0.1)
    alarms = 0
    for _ in range(50):
        seen = rng.random(n) < right
        alarms += bool(misfit(Sighting(seen, np.where(seen | known, right, np.nan)), always, {"conf": x}))
    assert alarms == 0
    for wrong in (np.full(n, right.mean()), 1.0 - right, right / 2.0):
        told = misfit(Sighting(seen, np.where(seen | known, wrong, np.nan)), always, {"conf": x})
        assert told
    constant = np.where(seen | known, right.mean(), np.nan)
    assert "where conf is in [0" in misfit(Sighting(seen, constant), always, {"conf": x})


def test_what_was_certain_and_is_not_there_is_told_of() -> None:
    sighting = Sighting(np.array([True, False]), np.array([1.0, 1.0]))
    assert misfit(sighting, np.ones(2, dtype=bool), {}).startswith("1 that were certain")
    assert not misfit(sighting, np.array([True, False]), {})
