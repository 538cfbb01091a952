"""Standard errors of what latent classes say: against differences of the likelihood, closed forms, and many draws."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from metaverify.fitting.coding import code_log, code_partial, ladders_of
from metaverify.fitting.models.latent import LatentClasses
from metaverify.fitting.models.latent_errors import _Layout, tier_qualities
from metaverify.simulators.worlds import hopeless, shared_difficulty, tier_quality
from tests.fitting.test_partial_fit import doubted


def test_the_score_is_the_slope_of_the_likelihood_and_nothing_where_it_is_largest() -> None:
    partial = doubted(shared_difficulty(2, 4).draw(400, 3), 0.5, 0.2, 3)
    em = LatentClasses(2, starts=0).maximiser(code_partial(partial, ladders_of(partial.log, 4)))
    found = em.run(em.start(np.random.default_rng(0).dirichlet(np.ones(2), len(em.rows.weight))), 5)
    layout = _Layout(found)
    at, rows = layout.flat(found), float(em.rows.weight.sum())
    seen = np.flatnonzero(np.exp(at) > 1e-9)  # the logits of outcomes that never occur are as good as none
    told = [
        rows * (em.expect(layout.mixture(at + h)).value - em.expect(layout.mixture(at - h)).value) / 2e-5
        for h in 1e-5 * np.eye(len(at))[seen]
    ]
    np.testing.assert_allclose(layout.total(em, at)[seen], told, atol=2e-4)
    own = layout.scores(em, em.expect(found), found)
    assert own.shape == (len(em.rows.weight), len(at))
    best = em.run(found, 20_000)
    assert np.abs(_Layout(best).total(em, _Layout(best).flat(best))).max() < 0.02 * rows


@pytest.mark.parametrize("per_group", [1, 5])
def test_on_a_full_log_with_one_class_it_is_the_error_of_a_mean(per_group: int) -> None:
    log = shared_difficulty(2).draw(600, 4, per_group=per_group)
    _, groups = np.unique(log.group_ids, return_inverse=True)
    found = tier_qualities(LatentClasses(1, starts=0), code_log(log, ladders_of(log, 8)), groups)
    for tier in log.tiers:
        off = np.bincount(groups, weights=tier.correct - tier.correct.mean())
        count = len(off)
        assert found[tier.name].mean == pytest.approx(tier.correct.mean(), abs=1e-6)
        expected = np.sqrt((off**2).sum() * count / (count - 1)) / len(log)
        assert found[tier.name].error == pytest.approx(expected, rel=0.005)


def test_a_query_that_stands_for_two_is_two_of_one_group() -> None:
    partial = doubted(hopeless(2).draw(300, 4), 0.8, 0.2, 3)
    coded = code_partial(partial, ladders_of(partial.log, 4))
    model = LatentClasses(2, starts=0)
    weighed = tier_qualities(model, replace(coded, weights=2.0 * coded.weights), np.arange(300))
    twice = tier_qualities(model, coded.take(np.repeat(np.arange(300), 2)), np.repeat(np.arange(300), 2))
    for name, of in weighed.items():
        assert (of.mean, of.error) == pytest.approx((twice[name].mean, twice[name].error), rel=1e-5)


@pytest.mark.slow
def test_estimates_scatter_about_the_truth_as_their_errors_say() -> None:
    made, found = hopeless(2), []
    for seed in range(40):
        partial = doubted(made.draw(4000, seed), 0.8, 0.05, 1000 + seed)
        coded = code_partial(partial, ladders_of(partial.log, 8))
        told = tier_qualities(LatentClasses(starts=1), coded, np.arange(4000))
        found.append([(told[name].mean, told[name].error) for name in ("tier1", "tier2")])
    mean, error = np.moveaxis(np.array(found), 2, 0)  # [draws, tiers]
    first, second = np.median(error, axis=0)
    assert first == pytest.approx(np.sqrt(tier_quality(made)[0] * (1 - tier_quality(made)[0]) / 4000), rel=0.02)
    assert second == pytest.approx(mean[:, 1].std(ddof=1), rel=0.3)
    np.testing.assert_allclose(mean.mean(axis=0), tier_quality(made), atol=0.006)
    held = np.abs(mean - tier_quality(made)) < 1.645 * error
    assert (held.mean(axis=0) > 0.75).all()
