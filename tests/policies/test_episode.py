"""An episode is the decision loop, and what it was not asked to hear changes nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaverify.policies.actions import Abstain, Accept, Action, Call, Verify
from metaverify.policies.episode import Episode, EpisodeError
from metaverify.policies.file import load_policy
from metaverify.policies.policy import Policy

from .strategies import confidences, examples, policies

GOLDEN = load_policy(Path(__file__).resolve().parents[1] / "golden" / "policy.json")

World = Mapping[str, Mapping[str, Any]]  # tier -> reading -> confidence
Free = Mapping[str, frozenset[str]]  # tier -> the readings that come with its answer


def loop(policy: Policy, world: World, free: Free, context: str | None, key: Any) -> tuple[list[Action], Any]:
    """The decision loop: everything that was asked for, the last action included, and everything that was read."""
    actions: list[Action] = []
    readings: dict[str, dict[str, Any]] = {}
    for _ in range(4 * len(policy.nodes)):
        action = policy.decide(readings, context=context, key=key)
        actions.append(action)
        match action:
            case Call(tier):
                readings[tier] = {name: whole(world[tier][name]) for name in free[tier]}
            case Verify(tier, reading):
                given_ = world[tier][reading]
                if isinstance(given_, list):  # votes, one by one
                    yes, asked = readings.get(tier, {}).get(reading, (0, 0))
                    vote = given_[asked]
                    given_ = None if vote is None else (yes + vote, asked + 1)
                readings.setdefault(tier, {})[reading] = given_
            case _:
                return actions, readings
    raise AssertionError(f"no end after {actions}")


def whole(given_: Any) -> Any:
    """A reading as it comes with an answer: of votes all of them."""
    return (None if None in given_ else (sum(given_), len(given_))) if isinstance(given_, list) else given_


@examples(150)
@given(data=st.data())
def test_an_episode_takes_the_steps_of_the_decision_loop(data: st.DataObject) -> None:
    policy = data.draw(policies(votes=True, outages=True))
    values = confidences(policy.nodes)
    votes = st.lists(st.booleans() | st.sampled_from([0, 1]), min_size=3, max_size=3) | st.just([None] * 3)
    votes |= st.just([True, None, None])  # the second one fails
    world = {t.name: {r.name: data.draw(votes if r.votes else values) for r in t.readings} for t in policy.tiers}
    free = {
        tier.name: frozenset(r.name for r in tier.readings if data.draw(st.booleans(), label="free"))
        for tier in policy.tiers
    }
    context = data.draw(st.none() | st.sampled_from(["?", *policy.vertices[0].context_roots]))
    key = data.draw(st.integers() | st.text())
    actions, readings = loop(policy, world, free, context, key)

    episode = Episode(policy, context=context, key=key)
    assert episode.steps == ()
    while not episode.done:
        pending = episode.action
        match pending:
            case Call(tier):
                known = {name: whole(world[tier][name]) for name in free[tier]}
                following = episode.answered(known or data.draw(st.sampled_from([None, {}])))
            case Verify(tier, reading):
                given_ = world[tier][reading]
                if isinstance(given_, list):
                    given_ = given_[episode.readings.get(tier, {}).get(reading, (0, 0))[1]]
                following = episode.read(given_)
        assert following == episode.action
        assert episode.steps[-1] == pending
        assert len(episode.steps) < len(actions)
    assert [*episode.steps, episode.action] == actions
    assert repr(sorted(episode.readings.items())) == repr(sorted(readings.items()))


def state(episode: Episode) -> tuple[Any, ...]:
    return episode.action, episode.steps, episode.readings, episode.done


def refuses(episode: Episode, error: type[Exception], match: str, tell: Callable[[Episode], object]) -> None:
    before = state(episode)
    with pytest.raises(error, match=match):
        tell(episode)
    assert state(episode) == before


def dearer() -> Episode:
    """A request of the golden policy's dearer graph, before its first call."""
    return Episode(GOLDEN, key=next(key for key in range(100) if GOLDEN.arm(key) == 1))


def test_a_reading_is_not_heard_where_an_answer_is_awaited() -> None:
    episode = dearer()
    refuses(episode, EpisodeError, r"Call\(tier='small'\)", lambda e: e.read(0.5))
    assert episode.answered({"self_verify": 0.3}) == Verify("small", "judge")


def test_an_answer_is_not_heard_where_a_reading_is_awaited() -> None:
    episode = dearer()
    episode.answered({"self_verify": 0.3})
    refuses(episode, EpisodeError, r"Verify\(tier='small', reading='judge'\)", lambda e: e.answered())
    assert episode.read(0.7) == Accept("small")


@pytest.mark.parametrize("confidence", [0.9, 0.1])
def test_nothing_is_heard_after_the_end(confidence: float) -> None:
    episode = dearer()
    episode.answered({"self_verify": confidence})
    if confidence < 0.25:
        episode.answered()
    assert episode.done
    refuses(episode, EpisodeError, "Accept", lambda e: e.answered())
    refuses(episode, EpisodeError, "Accept", lambda e: e.read(0.5))


def test_nothing_is_heard_after_handing_over() -> None:
    episode = Episode(GOLDEN, context="résumé", key=1)
    assert episode.answered({"self_verify": None}) == Abstain()
    refuses(episode, EpisodeError, "Abstain", lambda e: e.answered())
    assert episode.steps == (Call("small"),)


@pytest.mark.parametrize("nonsense", ["0.5", [0.5], b"1"])
def test_a_confidence_that_is_no_number_changes_nothing(nonsense: Any) -> None:
    episode = dearer()
    refuses(episode, TypeError, "'self_verify' of 'small'", lambda e: e.answered({"self_verify": nonsense}))
    episode.answered()
    refuses(episode, TypeError, "'self_verify' of 'small'", lambda e: e.read(nonsense))
    assert episode.read(0.3) == Verify("small", "judge")


@pytest.mark.parametrize("bare", [0.9, 0.0, 0])
def test_a_bare_confidence_is_never_dropped_in_silence(bare: Any) -> None:
    episode = dearer()
    try:
        following = episode.answered(bare)
    except TypeError:
        assert state(episode) == state(dearer())
    else:
        assert following == GOLDEN.decide({"small": bare}, key=episode._key)


@pytest.mark.parametrize("vote", [0.5, 2, -1, "yes", (1, 1)])
def test_what_is_no_vote_is_not_heard(vote: Any) -> None:
    episode = Episode(load_policy(Path(__file__).resolve().parents[1] / "golden" / "votes.json"))
    episode.answered()
    assert episode.action == Verify("small", "self_verify")
    refuses(episode, TypeError, "vote 'self_verify' of 'small' is", lambda e: e.read(vote))


def test_a_failed_reading_is_missing() -> None:
    for missing in (None, math.nan, 1.5):
        episode = dearer()
        assert episode.answered({"self_verify": missing}) == Verify("small", "judge")


def test_an_episode_keeps_its_own_copy_of_what_was_told() -> None:
    episode = dearer()
    mine: dict[str, float | None] = {"self_verify": 0.3}
    episode.answered(mine)
    mine["judge"] = 0.9
    episode.readings["small"]["judge"] = 0.9
    episode.readings["medium"] = {}
    assert episode.readings == {"small": {"self_verify": 0.3}}
    assert episode.read(0.1) == Call("large")


def test_a_mixture_needs_a_key_from_the_start() -> None:
    with pytest.raises(ValueError, match="key="):
        Episode(GOLDEN)


def test_two_episodes_share_nothing() -> None:
    one, other = dearer(), dearer()
    one.answered({"self_verify": 0.9})
    assert state(other) == state(dearer())
