"""A world's joint, its draws and its closed forms must tell the same story."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metaverify.simulators.log import ReplayLog
from metaverify.simulators.reader import read_log, write_log
from metaverify.simulators.worlds import (
    WORLDS,
    Emission,
    World,
    hopeless,
    independent,
    joint,
    shared_difficulty,
    tier_cost,
    tier_quality,
    token_prices,
    useless_verifier,
)

VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "two readings": {"reading_prices": (0.0, 0.25)},
    "missing": {"missing": 0.2},
}
SIGMAS = 5.0
RARE = 10.0  # queries: cells with fewer expected are looked at together


@pytest.fixture(params=list(itertools.product(WORLDS, VARIANTS)), ids=lambda p: f"{p[0]}, {p[1]}")
def world(request: pytest.FixtureRequest) -> World:
    name, variant = request.param
    return WORLDS[name](2, 3, **VARIANTS[variant])


def by_hand(world: World) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The joint by enumeration: every class, every pattern of right and wrong, every combination of levels."""
    emissions = [(k, e) for k, readings in enumerate(world.readings) for e in readings]
    has_missing = int(world.missing > 0)
    shape = [len(e.levels) + has_missing for _, e in emissions]
    tiers = len(world.tiers)
    mass, quality, price = np.zeros(shape), np.zeros((tiers, *shape)), np.zeros((tiers, *shape))
    for z, p in enumerate(world.prior):
        for right in itertools.product((0, 1), repeat=tiers):
            pattern = math.prod(world.success[z, k] if c else 1 - world.success[z, k] for k, c in enumerate(right))
            for cell in np.ndindex(*shape):
                chance = p * pattern
                for (k, e), level in zip(emissions, cell, strict=True):
                    if level == len(e.levels):
                        chance *= world.missing
                    else:
                        chance *= (1 - world.missing) * e.chance[z, right[k], level]
                mass[cell] += chance
                for k in range(tiers):
                    quality[(k, *cell)] += chance * right[k]
                    price[(k, *cell)] += chance * world.price[z, k]
    return mass, quality, price


def cells(world: World, log: ReplayLog) -> np.ndarray:
    """The cell of each query in the flattened joint, found by comparing confidences with levels."""
    codes, shape = [], []
    for name, emissions in zip(world.tiers, world.readings, strict=True):
        for e, reading in zip(emissions, log.tier(name).readings, strict=True):
            equal = reading.confidence[:, None] == e.levels
            codes.append(np.where(np.isnan(reading.confidence), len(e.levels), equal.argmax(axis=1)))
            assert np.all(equal.any(axis=1) | np.isnan(reading.confidence))
            shape.append(len(e.levels) + (world.missing > 0))
    return np.ravel_multi_index(codes, shape)


def pooled(expected: np.ndarray, *others: np.ndarray) -> list[np.ndarray]:
    """The same arrays with all rare cells added up into one, left out if that is still rare."""
    rare = expected < RARE
    kept = [np.append(a[~rare], a[rare].sum()) for a in (expected, *others)]
    return kept if kept[0][-1] >= RARE else [a[:-1] for a in kept]


def test_joint_equals_enumeration_over_classes_and_answers(world: World) -> None:
    truth, (mass, quality, price) = joint(world), by_hand(world)
    np.testing.assert_allclose(truth.mass, mass, atol=1e-14)
    np.testing.assert_allclose(truth.quality, quality, atol=1e-14)
    np.testing.assert_allclose(truth.price, price, atol=1e-13)


@pytest.mark.parametrize("name", WORLDS)
@pytest.mark.parametrize("tiers", [2, 3, 4, 5])
def test_joint_sums_to_one_and_to_the_means_of_each_tier(name: str, tiers: int) -> None:
    world = WORLDS[name](tiers)
    truth = joint(world)
    assert truth.mass.shape == (8,) * tiers
    assert truth.mass.sum() == pytest.approx(1.0, abs=1e-12)
    np.testing.assert_allclose(truth.quality.reshape(tiers, -1).sum(axis=1), tier_quality(world), rtol=1e-12)
    np.testing.assert_allclose(truth.price.reshape(tiers, -1).sum(axis=1), tier_cost(world), rtol=1e-12)
    assert np.all(np.diff(tier_quality(world)) > 0.0)
    assert np.all(np.diff(tier_cost(world)) > 0.0)


def test_a_large_draw_agrees_with_the_joint_cell_by_cell(world: World) -> None:
    n = 200_000
    log, truth = world.draw(n, seed=7), joint(world)
    cell, size = cells(world, log), truth.mass.size

    expected, seen = pooled(n * truth.mass.ravel(), np.bincount(cell, minlength=size))
    chi_square, freedom = np.sum((seen - expected) ** 2 / expected), len(expected) - 1
    assert chi_square < freedom + SIGMAS * math.sqrt(2 * freedom)
    assert np.all(np.abs(seen - expected) < SIGMAS * np.sqrt(expected))

    for k, name in enumerate(world.tiers):
        tier = log.tier(name)
        for column, mean in ((tier.correct, truth.quality[k]), (tier.cost, truth.price[k])):
            total, square = (np.bincount(cell, column**power, minlength=size) for power in (1, 2))
            _, total, square, mean_total = pooled(n * truth.mass.ravel(), total, square, n * mean.ravel())
            assert np.all(np.abs(total - mean_total) < SIGMAS * np.sqrt(np.maximum(square, mean_total)))


def test_the_same_seed_draws_the_same_log_and_another_seed_does_not(world: World) -> None:
    first, again, other = (world.draw(500, seed) for seed in (3, 3, 4))
    assert list(first.query_ids[:2]) == ["q000001", "q000002"]
    assert len(set(first.query_ids)) == len(first) == 500
    for a, b, c in zip(first.tiers, again.tiers, other.tiers, strict=True):
        np.testing.assert_array_equal(a.correct, b.correct)
        np.testing.assert_array_equal(a.cost, b.cost)
        assert not np.array_equal(a.correct, c.correct)
        for x, y in zip(a.readings, b.readings, strict=True):
            np.testing.assert_array_equal(x.confidence, y.confidence)
            np.testing.assert_array_equal(x.price, y.price)


def test_independent_tiers_say_nothing_of_each_other() -> None:
    world = independent(3, 5)
    truth = joint(world)
    margins = [truth.mass.sum(axis=tuple({0, 1, 2} - {k})) for k in range(3)]
    np.testing.assert_allclose(truth.mass, np.einsum("a,b,c->abc", *margins), atol=1e-15)
    right = [truth.quality[k].sum(axis=tuple({0, 1, 2} - {k})) for k in range(3)]
    np.testing.assert_allclose(truth.quality[1], np.einsum("a,b,c->abc", margins[0], right[1], margins[2]), atol=1e-15)


def test_tiers_that_share_difficulty_are_not_independent() -> None:
    truth = joint(shared_difficulty(2, 5))
    assert np.abs(truth.mass - np.outer(truth.mass.sum(axis=1), truth.mass.sum(axis=0))).max() > 0.01


def test_a_useless_verifier_leaves_the_prior_as_it_is() -> None:
    world = useless_verifier(3, 5, reading_prices=(0.0, 0.1), missing=0.1)
    truth = joint(world)
    for k in range(3):
        np.testing.assert_allclose(truth.quality[k] / truth.mass, tier_quality(world)[k], rtol=1e-12)
        np.testing.assert_allclose(truth.price[k] / truth.mass, tier_cost(world)[k], rtol=1e-12)


@pytest.mark.parametrize("tiers", [2, 3, 4, 5])
def test_in_the_hopeless_world_the_gain_is_not_monotone_in_confidence(tiers: int) -> None:
    truth = joint(hopeless(tiers))
    others = tuple(range(1, tiers))
    gain = (truth.quality[-1] - truth.quality[0]).sum(axis=others) / truth.mass.sum(axis=others)
    middle = gain[2:5].max()
    assert gain[0] < 0.05 < 0.5 < middle
    assert gain[-2] < 0.2 < 0.4 < gain[-1] < middle


@pytest.mark.parametrize("tiers", [2, 3, 4, 5])
def test_where_difficulty_is_shared_more_confidence_means_more_often_right(tiers: int) -> None:
    truth = joint(shared_difficulty(tiers))
    for k in range(tiers):
        others = tuple(set(range(tiers)) - {k})
        assert np.all(np.diff(truth.quality[k].sum(axis=others) / truth.mass.sum(axis=others)) > 0.0)


def test_token_prices_are_higher_where_confidence_is_low() -> None:
    truth = joint(token_prices(2))
    price = truth.price[0].sum(axis=1) / truth.mass.sum(axis=1)
    assert np.all(np.diff(price) < 0.0)


def test_prices_are_exact_without_spread_and_spread_as_stated_with_it() -> None:
    world = independent(2)
    assert set(world.draw(100, 0).tiers[1].cost) == {4.0}
    cost = replace(world, spread=0.5).draw(200_000, 0).tiers[1].cost
    assert cost.mean() == pytest.approx(4.0, abs=0.03)
    assert cost.std() / cost.mean() == pytest.approx(0.5, abs=0.01)
    assert cost.min() > 0.0


def test_readings_carry_their_price_and_go_missing_at_the_stated_rate() -> None:
    log = shared_difficulty(2, reading_prices=(0.0, 0.25), missing=0.1).draw(100_000, 0)
    free, paid = log.tiers[1].readings
    assert (free.name, paid.name) == ("conf", "conf2")
    assert set(free.price) == {0.0}
    assert set(paid.price) == {1.0}
    for reading in (free, paid):
        assert np.isnan(reading.confidence).mean() == pytest.approx(0.1, abs=0.005)


def test_a_drawn_log_survives_a_file(tmp_path: Path) -> None:
    log = token_prices(3, reading_prices=(0.0, 0.25), missing=0.1).draw(200, 0)
    write_log(log, tmp_path / "log.parquet")
    again = read_log(tmp_path / "log.parquet")
    assert list(again.query_ids) == list(log.query_ids)
    for a, b in zip(again.tiers, log.tiers, strict=True):
        assert a.name == b.name
        np.testing.assert_array_equal(a.correct, b.correct)
        np.testing.assert_array_equal(a.cost, b.cost)
        for x, y in zip(a.readings, b.readings, strict=True):
            assert x.name == y.name
            np.testing.assert_array_equal(x.confidence, y.confidence)
            np.testing.assert_array_equal(x.price, y.price)


def test_a_drawn_log_has_its_tiers_in_order_of_mean_cost() -> None:
    world = replace(independent(2), price=np.array([[1.0, 1.0001]]), spread=1.0)
    for seed in range(10):
        log = world.draw(50, seed)
        assert log.tiers[0].cost.mean() <= log.tiers[1].cost.mean()


def test_a_joint_that_is_too_large_is_refused_with_a_way_out() -> None:
    with pytest.raises(ValueError, match=r"1\.07e\+09 cells, above 5e\+07; take fewer tiers, readings or levels"):
        joint(shared_difficulty(5, reading_prices=(0.0, 0.25)))


@pytest.mark.parametrize("tiers", [1, 6])
def test_a_named_world_has_two_to_five_tiers(tiers: int) -> None:
    with pytest.raises(ValueError, match=f"tiers is {tiers}; a named world has 2 to 5"):
        independent(tiers)


def test_a_reading_with_one_level_is_refused() -> None:
    with pytest.raises(ValueError, match="levels is 1"):
        independent(2, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tiers": ("a", "a")}, "distinct names"),
        ({"prior": np.array([0.9])}, "prior holds"),
        ({"prior": np.array([[1.0]])}, r"prior has shape \[Z\]"),
        ({"success": np.array([[0.5]])}, r"success has shape \[Z, N\] = \[1, 2\]"),
        ({"success": np.array([[0.5, 1.5]])}, "success holds"),
        ({"success": np.array([[0.5, np.nan]])}, "success holds"),
        ({"price": np.array([[-1.0, 1.0]])}, "price holds"),
        ({"price": np.array([[2.0, 1.0]])}, "order of mean price"),
        ({"spread": -1.0}, "spread is -1"),
        ({"missing": 1.0}, "missing is 1"),
        ({"readings": ()}, "one tuple a tier"),
    ],
)
def test_a_world_that_makes_no_sense_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(independent(2), **change)


def test_readings_that_do_not_fit_the_world_are_refused() -> None:
    world = independent(2)
    emission = world.readings[0][0]
    with pytest.raises(ValueError, match="two readings of one name"):
        replace(world, readings=((emission, emission), ()))
    other = shared_difficulty(2).readings[0]
    with pytest.raises(ValueError, match="11 classes, the prior has 1"):
        replace(world, readings=(other, ()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"levels": np.array([0.1, 1.3])}, r"confidences in \[0, 1\]"),
        ({"levels": np.array([0.1, 0.1])}, "distinct"),
        ({"chance": np.ones((1, 2, 3)) / 3}, r"shape \[Z, 2, 2\]"),
        ({"chance": np.ones((1, 2, 2))}, "not a distribution"),
        ({"price": math.inf}, "price is inf"),
    ],
)
def test_an_emission_that_makes_no_sense_is_refused(change: dict[str, Any], message: str) -> None:
    emission = Emission("votes", np.array([0.1, 0.9]), np.full((1, 2, 2), 0.5))
    with pytest.raises(ValueError, match=message):
        replace(emission, **change)


def test_a_tier_that_is_never_read_has_no_axis() -> None:
    world = replace(independent(2, 4), readings=(independent(2, 4).readings[0], ()))
    assert joint(world).mass.shape == (4,)
    assert world.draw(10, 0).tiers[1].readings == ()
