"""Which requests are explored, by place and count; the file of it; and what a router makes of it."""

from __future__ import annotations

import json
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaverify.policies.actions import Abstain, Accept
from metaverify.policies.document import PolicyFileError
from metaverify.policies.exploration import (
    Exploration,
    ExploredBin,
    Explorer,
    dump_exploration,
    load_exploration,
    save_exploration,
)
from metaverify.policies.graph import Ask, Read, Stop
from metaverify.policies.guards import Guard
from metaverify.policies.policy import OperatingPoint, Policy, Vertex
from metaverify.policies.router import Failure, Reply, Router
from metaverify.policies.tiers import Reading, Tier

DOUBTFUL = ExploredBin("small", "conf", 0.4, 0.8, 0.5)
SURE = ExploredBin("small", "conf", 0.8, 1.0, 0.25, enough=2)
PLACES = Exploration(0.125, "s", (DOUBTFUL, SURE))


def chain(*, hands_over: bool = False) -> Policy:
    """small, and large where it is below 0.4."""
    tiers = (Tier("small", 1.0, (Reading("conf", 0.0, (0.5,), (1, 1, 0)),)), Tier("large", 9.0))
    nodes = (
        Ask("small", 1),
        Read("small", "conf", (0.4,), (2, 3), 2),
        Ask("large", 4),
        Stop(Accept("small")),
        Stop(Abstain() if hands_over else Accept("large")),
    )
    return Policy(tiers, nodes, (Vertex(0.0, 5.0, 0.5, 0),), OperatingPoint(0, 0, 0.0), abstain=0.3)


def asked(policy: Policy, exploration: Exploration | None, confidence: Any, **options: Any) -> Router:
    return Router(
        policy,
        lambda tier, _: Reply(tier, {"conf": confidence} if tier == "small" else {}),
        exploration=exploration,
        **options,
    )


# Rates ----------------------------------------------------------------------------------------------------------------


@given(st.integers(), st.floats(0.0, 1.0))
def test_a_request_is_explored_where_its_hash_is_below_the_rate(key: int, rate: float) -> None:
    secret = blake2b(b"explore s").digest()
    drawn = int(blake2b(str(key).encode(), digest_size=7, key=secret).hexdigest(), 16)
    assert PLACES.explores(key, rate) == (drawn / 2**56 < rate or drawn < rate * 2**56)
    assert PLACES.explores(key) == PLACES.explores(str(key).encode(), 0.125)


def test_all_or_none_are_explored_at_the_ends() -> None:
    assert all(Exploration(1.0).explores(key) for key in range(1000))
    assert not any(Exploration(0.0).explores(key) for key in range(1000))


@pytest.mark.parametrize(
    ("tier", "told", "at"),
    [
        ("small", 0.4, 0),
        ("small", 0.7999, 0),
        ("small", 0.8, 1),
        ("small", 1, 1),
        ("small", 0.3999, None),
        ("small", None, None),
        ("small", float("nan"), None),
        ("small", (3, 5), 0),
        ("small", [4, 4], 1),
        ("small", (0, 0), None),
        ("large", 0.5, None),
        (None, 0.5, None),
    ],
)
def test_a_bin_is_found_by_tier_and_reading(tier: str | None, told: Any, at: int | None) -> None:
    assert PLACES.place(tier, {"conf": told}) == at
    assert PLACES.place(tier, {}) is None


def test_once_there_is_enough_the_rate_falls_with_the_number_of_requests() -> None:
    explorer = Explorer(PLACES)
    assert [explorer.rate("small", {"conf": 0.9}) for _ in range(10)] == [0.25] * 8 + [2 / 9, 0.2]
    assert [explorer.rate("small", {"conf": 0.5}) for _ in range(10)] == [0.5] * 10
    assert explorer.rate("large", {}) == 0.125
    assert (PLACES.highest, Exploration(0.0).highest) == (0.5, 0.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"low": 0.8}, r"\[0.8, 0.8\) of 'small'"),
        ({"high": 1.5}, "no interval"),
        ({"rate": -0.1}, "rate is -0.1"),
        ({"rate": float("nan")}, "rate is nan"),
        ({"enough": 0.0}, "enough is 0"),
        ({"enough": float("inf")}, "enough is inf"),
    ],
)
def test_a_bin_that_is_none_is_refused(change: dict[str, float], message: str) -> None:
    given = {"low": 0.4, "high": 0.8, "rate": 0.5, "enough": 3.0} | change
    with pytest.raises(ValueError, match=message):
        ExploredBin("small", "conf", **given)


# The file -------------------------------------------------------------------------------------------------------------

rates = st.floats(0.0, 1.0)
names = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
bins = st.builds(
    lambda tier, reading, ends, rate, enough: ExploredBin(tier, reading, *sorted(ends), rate, enough),
    names,
    names,
    st.lists(rates, min_size=2, max_size=2, unique=True),
    rates,
    st.none() | st.floats(1e-300, 1e300),
)


@given(st.builds(Exploration, rates, names, st.lists(bins, max_size=3).map(tuple)))
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, exploration: Exploration) -> None:
    path = tmp_path_factory.mktemp("file") / "exploration.json"
    save_exploration(exploration, path)
    assert load_exploration(path) == exploration
    assert path.read_text("utf-8") == dump_exploration(exploration)


WRITTEN = json.loads(dump_exploration(PLACES))


@pytest.mark.parametrize(
    ("change", "code", "place"),
    [
        ({"format": "metaverify-policy"}, "E_SCHEMA", "document.format"),
        ({"version": 2}, "E_VERSION", "document.version"),
        ({"rate": 1.5}, "E_RANGE", "document.rate"),
        ({"rate": True}, "E_TYPE", "document.rate"),
        ({"salt": None}, "E_TYPE", "document.salt"),
        ({"bins": {}}, "E_TYPE", "document.bins"),
        ({"bin": []}, "E_SCHEMA", "document.bin"),
        ({"bins": [WRITTEN["bins"][0] | {"low": 0.8}]}, "E_RANGE", "bins[0].high"),
        ({"bins": [WRITTEN["bins"][1] | {"enough": 0}]}, "E_RANGE", "bins[0].enough"),
        ({"bins": [WRITTEN["bins"][1] | {"cap": 3}]}, "E_SCHEMA", "bins[0].cap"),
        ({"bins": [{"tier": "small"}]}, "E_SCHEMA", "bins[0].reading"),
    ],
)
def test_a_file_that_is_none_is_refused_with_its_place(
    change: dict[str, Any], code: str, place: str, tmp_path: Path
) -> None:
    path = tmp_path / "exploration.json"
    path.write_text(json.dumps(WRITTEN | change), "utf-8")
    with pytest.raises(PolicyFileError) as refused:
        load_exploration(path)
    assert (refused.value.code, refused.value.place) == (code, place)


def test_a_file_that_is_too_large_or_not_there_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "exploration.json"
    with pytest.raises(PolicyFileError, match=r"E_NOTFILE.*metaverify explore"):
        load_exploration(path)
    path.write_text(" " * (1 << 20) + "{}", "utf-8")
    with pytest.raises(PolicyFileError, match="E_SIZE"):
        load_exploration(path)


# The router -----------------------------------------------------------------------------------------------------------


def test_each_request_is_explored_at_the_rate_of_its_bin_and_its_log_says_so() -> None:
    for confidence, rate in ((0.5, 0.5), (None, 0.0), (0.9, 0.25)):
        places = Exploration(0.0, "s", (DOUBTFUL, ExploredBin("small", "conf", 0.8, 1.0, 0.25)))
        router = asked(chain(), places, confidence)
        for key in range(200):
            routed = router.route("?", key=key)
            if confidence is None:  # it called large itself
                assert [step.propensity for step in routed.steps[:-1]] == [1.0, 1.0]
                assert (routed.tier, routed.unseen) == ("large", {})
            elif places.explores(key, rate):
                assert [step.propensity for step in routed.steps[:-1]] == [1.0, rate]
                assert (routed.tier, routed.reasons, routed.unseen) == ("small", ("explored",), {})
            else:
                assert (routed.cost, routed.unseen) == (1.0, {"large": rate})


def test_after_enough_of_a_bin_propensities_fall() -> None:
    router = asked(chain(), Exploration(0.0, "s", (SURE,)), 0.9)
    told = []
    for key in range(40):
        routed = router.route("?", key=key)
        told.append(routed.unseen.get("large", routed.steps[1].propensity))
    assert told == [min(0.25, 2 / t) for t in range(1, 41)]


def test_a_request_that_is_handed_over_is_explored_at_the_rate_of_the_rest() -> None:
    router = asked(chain(hands_over=True), Exploration(0.125, "s", (DOUBTFUL,)), 0.1)
    assert {router.route("?", key=key).unseen.get("large", 0.0) for key in range(50)} == {0.0}  # it was called
    only = Policy(
        chain().tiers, (Stop(Abstain()),), (Vertex(0.0, 0.0, 0.3, 0),), OperatingPoint(0, 0, 0.0), abstain=0.3
    )
    router = asked(only, Exploration(0.125, "s", (DOUBTFUL,)), 0.1)
    for key in range(50):
        routed = router.route("?", key=key)
        explored = PLACES.explores(key)
        assert routed.tier is None
        assert [step.propensity for step in routed.steps[:-1]] == ([0.125, 0.125] if explored else [])
        assert routed.unseen == ({} if explored else {"small": 0.125, "large": 0.125})


def test_where_the_answer_is_not_there_no_chance_is_told() -> None:
    def call(tier: str, _: Any) -> Reply:
        if tier == "large":
            raise Failure("down", 0.0)
        return Reply(tier, {"conf": 0.1})

    routed = Router(chain(), call, exploration=PLACES).route("?", key=1)
    assert (routed.tier, routed.reasons, routed.unseen) == ("small", ("down", "unanswered"), {})


def test_what_fails_or_is_too_dear_is_not_explored_and_the_answer_stays() -> None:
    def call(tier: str, _: Any) -> Reply:
        if tier == "large":
            raise Failure("down", 0.5)
        return Reply(tier, {"conf": 0.9})

    always = Exploration(1.0)
    failed = Router(chain(), call, exploration=always).route("?", key=1)
    assert (failed.answer, failed.cost, failed.reasons) == ("small", 1.5, ("down",))
    capped = asked(chain(), always, 0.9, guard=Guard(cap=9.5)).route("?", key=1)
    assert (capped.answer, capped.cost, capped.reasons) == ("small", 1.0, ("cap",))


def test_what_explores_nothing_is_none_and_the_ids_of_what_does_are_needed() -> None:
    assert asked(chain(), Exploration(0.0), 0.9).route("?").unseen == {}
    with pytest.raises(ValueError, match="explored by their ids"):
        asked(chain(), PLACES, 0.9).route("?")
