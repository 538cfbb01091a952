"""Where a partial log has never been a fit does not go, and says no number of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from metaverify.fitting.models.patterns import Patterns
from metaverify.fitting.partial_fit import fit_partial
from metaverify.fitting.support import gaps
from metaverify.policies.policy import Policy
from metaverify.simulators.log import LogError, LoggedReading, LoggedSignal, ReplayLog
from metaverify.simulators.offpolicy import appraise, robust_values
from metaverify.simulators.outcome import replay
from metaverify.simulators.partial import PartialLog, Sighting
from metaverify.simulators.trace import hide_tier
from metaverify.simulators.worlds import hopeless, shared_difficulty
from tests.simulators.test_offpolicy import NEW, OLD, forget

N = 6000


def with_second(log: ReplayLog, seed: int, price: float = 0.3) -> ReplayLog:
    """The log with a second reading of the first tier, which tells much and is to be paid for."""
    rng = np.random.default_rng(seed)
    first = log.tiers[0]
    told = np.clip(0.5 + 0.35 * (2.0 * first.correct - 1.0) + 0.1 * rng.normal(size=len(log)), 0.0, 1.0).round(3)
    reading = LoggedReading("conf2", told, np.full(len(log), price))
    return replace(log, tiers=(replace(first, readings=(*first.readings, reading)), *log.tiers[1:]))


def partly(log: ReplayLog, **called: np.ndarray) -> PartialLog:
    """What is left where these tiers were called, for certain, and everything else was seen."""
    always = np.ones(len(log), dtype=bool)
    seen = {name: called.get(name, always) for name in log.tier_names}
    answers = {name: Sighting(mask, mask.astype(float)) for name, mask in seen.items()}
    labels = {name: Sighting(mask, np.ones(len(log))) for name, mask in seen.items()}
    tiers = tuple(hide_tier(tier, seen[tier.name]) for tier in log.tiers)
    return PartialLog(replace(log, tiers=tiers), answers, labels)


def bought_where(log: ReplayLog, mask: np.ndarray) -> PartialLog:
    """What is left where the second reading was bought for some only."""
    first = log.tiers[0]
    *rest, last = first.readings
    shown = replace(last, confidence=np.where(mask, last.confidence, np.nan), price=np.where(mask, last.price, 0.0))
    partial = partly(replace(log, tiers=(replace(first, readings=(*rest, shown)), *log.tiers[1:])))
    return replace(partial, readings={(first.name, last.name): Sighting(mask, mask.astype(float))})


def supported_everywhere(policy: Policy, partial: PartialLog) -> bool:
    """Whether replay knows all that each graph of a policy wants, whatever the budget."""
    costs = [vertex.cost for vertex in policy.vertices]
    return all(appraise(policy.at(budget=cost), partial).identified for cost in costs)


def test_a_reading_that_was_not_bought_in_places_is_refused_and_not_bought_there() -> None:
    log = with_second(hopeless(3, 8).draw(N, 2), 3)
    doubted = log.tiers[0].readings[0].confidence
    partial = bought_where(log, (doubted > 0.3) & (doubted < 0.6))
    (gap,) = gaps(partial)
    assert (gap.wanted, gap.before) == ("conf2 of tier1", "tier1")
    assert gap.share == pytest.approx(1.0 - float(((doubted > 0.3) & (doubted < 0.6)).mean()), abs=1e-12)
    with pytest.raises(LogError, match=r"E_SUPPORT: never tried: conf2 of tier1 where the first reading of tier1 is"):
        fit_partial(partial, budget=5.0, folds=2)
    found = fit_partial(partial, budget=5.0, within_support=True, folds=2)
    assert supported_everywhere(found.policy, partial)
    assert found.notes == (f"never tried, and not to be: {gap}",)
    truth = replay(found.policy, with_second(hopeless(3, 8).draw(60_000, 78), 4))
    assert found.quality.low - 0.01 <= truth.quality.mean <= found.quality.high + 0.01
    assert truth.reads["tier1"]["conf2"] > 0.01


def test_a_tier_is_not_called_where_it_never_was_for_what_its_reading_would_tell() -> None:
    """The dear tier at once where the first one doubts much, else the tiers in order."""
    log = shared_difficulty(3, 8).draw(N, 2)
    first, second = (tier.readings[0].confidence for tier in log.tiers[:2])
    low = first < 0.4
    partial = partly(log, tier2=~low, tier3=low | (second < 0.5))
    found = fit_partial(partial, budget=8.0, within_support=True, folds=2)
    assert supported_everywhere(found.policy, partial)
    truth = replay(found.policy, shared_difficulty(3, 8).draw(60_000, 78))
    assert found.quality.mean is not None
    assert found.quality.low - 0.01 <= truth.quality.mean <= found.quality.high + 0.01
    old = np.where(low | (second < 0.5), log.tiers[2].correct, log.tiers[1].correct)
    cost = 1.0 + np.where(low, 16.0, 4.0 + 16.0 * (second < 0.5))
    share = 8.0 / float(cost.mean())  # of queries that might go the old way, the others being answered by the first
    assert found.quality.mean > share * float(old.mean()) + (1.0 - share) * float(log.tiers[0].correct.mean())
    text = "\n".join(found.notes)
    assert len(found.notes) == 2
    assert "tier2 where the first reading of tier1 is in [0, 0." in text


def test_queries_that_are_known_whole_do_not_stand_for_what_was_never_tried() -> None:
    log = shared_difficulty(2, 8).draw(600, 2)
    partial = partly(log, tier2=log.tiers[0].readings[0].confidence < 0.4)
    with pytest.raises(LogError, match=r"E_SUPPORT: never tried: tier2 .* by patterns is of .*; leave out --model"):
        fit_partial(partial, budget=2.0, within_support=True, model=Patterns())
    assert fit_partial(partly(log), budget=2.0, within_support=True, model=Patterns(), folds=2).gaps == ()


def test_a_context_that_never_calls_a_tier_is_not_taught_to_by_the_others() -> None:
    rng = np.random.default_rng(0)
    log = shared_difficulty(2, 6).draw(N, 2)
    easy = rng.random(N) < 0.5
    log = replace(log, contexts=np.where(easy, "easy", "hard").astype(object), context_names=("task",))
    partial = partly(log, tier2=~easy | (log.tiers[0].readings[0].confidence < 0.2))
    found = fit_partial(partial, budget=3.0, within_support=True, folds=2)
    assert supported_everywhere(found.policy, partial)
    truth = replay(found.policy, log)
    assert truth.calls["tier2"] > 0.2
    assert truth.quality.mean == pytest.approx(found.quality.mean, abs=0.02)


def test_a_signal_with_a_price_is_read_where_it_was() -> None:
    log = with_second(hopeless(3, 8).draw(N, 2), 3)
    first = log.tiers[0]
    mask = first.readings[0].confidence < 0.5
    (told,) = first.readings[1:]
    shown = replace(told, confidence=np.where(mask, told.confidence, np.nan), price=np.where(mask, told.price, 0.0))
    judge = LoggedSignal("judge", (shown,), needs=("tier1",))
    partial = partly(
        replace(log, tiers=(replace(first, readings=first.readings[:1]), *log.tiers[1:]), signals=(judge,))
    )
    partial = replace(partial, readings={("judge", "conf2"): Sighting(mask, mask.astype(float))})
    assert [gap.wanted for gap in gaps(partial)] == ["conf2 of judge"]
    found = fit_partial(partial, budget=5.0, within_support=True, folds=2)
    assert supported_everywhere(found.policy, partial)
    assert found.quality.mean is not None


def test_what_was_never_tried_is_valued_by_its_least_and_by_its_most() -> None:
    log = shared_difficulty(3, 8).draw(N, 2)
    first, second = (tier.readings[0].confidence for tier in log.tiers[:2])
    partial = partly(log, tier2=first < 0.4, tier3=(first < 0.4) & (second < 0.5))
    folds = log.folds(5, seed=0)
    (least, dearest), (most, cheapest) = robust_values(NEW, partial, 0, folds)
    truth = replay(NEW, log)
    assert least.mean() <= truth.quality.mean <= most.mean()
    assert cheapest.mean() <= truth.cost.mean <= dearest.mean()
    assert least.mean() < most.mean() - 0.05
    careful, hopeful = robust_values(OLD, partial, 0, folds)
    for one, other in zip(careful, hopeful, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_fit_that_cannot_tell_where_it_may_go_has_an_interval() -> None:
    """Labels of the dear tier are there only where the cheap one's confidence is low."""
    log = shared_difficulty(2, 8).draw(N, 2)
    known = log.tiers[0].readings[0].confidence < 0.6
    partial = partly(log)
    second = replace(log.tiers[1], correct=np.where(known, log.tiers[1].correct, np.nan))
    partial = replace(
        partial,
        log=replace(log, tiers=(log.tiers[0], second)),
        labels={**partial.labels, "tier2": Sighting(known, known.astype(float))},
    )
    found = fit_partial(partial, budget=4.9, folds=2)
    assert found.quality.mean is None
    truth = replay(found.policy, log).quality.mean
    assert found.quality.low <= truth <= found.quality.high
    assert "goes where the log has never been" in found.notes[-1]
    assert found.to_json()["quality"]["mean"] is None


def test_where_chances_are_not_logged_what_was_seen_tells_where_the_log_has_been() -> None:
    log = shared_difficulty(3, 8).draw(N, 2)
    first, second = (tier.readings[0].confidence for tier in log.tiers[:2])
    partial = forget(partly(log, tier2=first < 0.4, tier3=(first < 0.4) & (second < 0.5)))
    assert [gap.wanted for gap in gaps(partial)] == ["tier2", "tier3"]
    found = fit_partial(partial, budget=5.0, within_support=True, folds=2)
    assert supported_everywhere(found.policy, partial)


def test_votes_and_samples_are_refused_before_the_work() -> None:
    log = with_second(shared_difficulty(2, 4).draw(200, 2), 3)
    first = log.tiers[0]
    share = np.round(first.readings[1].confidence * 4.0) / 4.0
    changed = {
        r"'conf2' of 'tier1' is votes .*; leave out --votes conf2": replace(
            first.readings[1], confidence=share, votes=4
        ),
        r"'conf2' of 'tier1' is a sample.*; leave out --samples conf2": replace(
            first.readings[1], correct=first.correct
        ),
    }
    for text, reading in changed.items():
        tiers = (replace(first, readings=(first.readings[0], reading)), log.tiers[1])
        with pytest.raises(LogError, match=f"E_OPTION: {text}"):
            fit_partial(partly(replace(log, tiers=tiers)), budget=2.0)
