"""What many processes count is one sum, and what all of them read is compared with the file once."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import redis
from scipy.stats import chi2

from metaverify.policies.integrations import redis_monitor
from metaverify.policies.integrations.redis_link import Link
from metaverify.policies.integrations.redis_monitor import SharedMonitor
from metaverify.policies.monitor import Drift, Monitor
from metaverify.policies.routed import Routed
from metaverify.policies.router import Look, Reply, Router
from metaverify.policies.tiers import Reading, Tier

from .redis_server import Lossy, client, server
from .test_guards import LOW, cascade

__all__ = ["client", "server"]

JUDGE = cascade().tiers[0].readings[1]

CONF = Reading("conf", 0.0, (0.5,), (5000, 4500, 500))
POLICY = replace(cascade(low=LOW, high=LOW), tiers=(Tier("small", 1.0, (CONF, JUDGE)), Tier("large", 10.0)))


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """No thread speaks."""
    monkeypatch.setattr(Link, "start", lambda _: True)


def of(client: Any) -> SharedMonitor:
    return SharedMonitor(client, "monitor")


@cache
def routed(confidence: float | None, cost: float = 1.0) -> Routed:
    def call(tier: str, _: Any) -> Reply:
        return Reply(tier, {"conf": confidence}, cost)

    return Router(POLICY, call, lambda *_: Look(0.9)).route("?")


def test_totals_are_the_sum_of_all_to_the_last_billionth_whatever_was_lost(client: redis.Redis) -> None:
    rng = random.Random(3)
    lines = [Lossy(client) for _ in range(4)]
    monitors = [of(line) for line in lines]
    costs = [round(rng.random() * 10 ** rng.randrange(-9, 6), 9) for _ in range(300)]
    for cost in costs:
        at = rng.randrange(4)
        lines[at].lose = lambda: rng.choice(["", "request", "reply", "twice"])
        monitors[at].record(routed(0.7, cost))
        if rng.random() < 0.3:
            monitors[at]._tell()
        if rng.random() < 0.01:
            client.flushall()
    for monitor, line in zip(monitors, lines, strict=True):
        line.lose = lambda: ""
        assert monitor._tell()
    expected = sum(round(cost * 1e9) for cost in costs)
    for monitor in [*monitors, of(client)]:
        fleet = monitor.report()["fleet"]
        assert list(fleet["spent"].values()) == [expected]
        assert (fleet["requests"], fleet["calls"], fleet["handed_over"]) == (300, {"small": 300}, 0)
    assert sum(monitor.report()["requests"] for monitor in monitors) == 300
    for monitor in monitors:
        monitor.close()
        assert list(of(client).report()["fleet"]["spent"].values()) == [expected]
    assert client.hkeys("monitor") == [b"gone"]


def test_who_left_is_counted_once_though_a_message_of_his_comes_late(client: redis.Redis) -> None:
    monitor = of(client)
    monitor.record(routed(0.7))
    late = monitor._message(None)
    monitor.close()
    assert monitor._tell_all(*late) == []
    monitor.close()
    assert of(client).report()["fleet"]["requests"] == 1


def test_who_leaves_while_others_do_tries_again(client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = of(client), of(client)
    for monitor in (first, second):
        monitor.record(routed(0.7))
    ask = client.hmget
    calls = iter([True, False])

    def meanwhile(*told: Any) -> Any:
        answer = ask(*told)
        if next(calls, False):
            second.close()
        return answer

    monkeypatch.setattr(client, "hmget", meanwhile)
    first.close()
    assert client.hkeys("monitor") == [b"gone"]
    assert of(client).report()["fleet"]["requests"] == 2
    monkeypatch.setattr(redis_monitor, "TRIES", 0)  # who cannot leaves a record that is counted as it stands
    third = of(client)
    third.record(routed(0.7))
    third.close()
    assert of(client).report()["fleet"]["requests"] == 3


def test_a_drift_that_no_process_sees_alone_is_found_by_all_together(client: redis.Redis) -> None:
    rng = random.Random(5)
    monitors, alone = [of(client) for _ in range(4)], Monitor()
    for number in range(3200):  # from the middle on a tenth more of them are below the cut
        share = 5000 / 9500 + (0.1 if number >= 1600 else 0.0)
        confidence = None if rng.random() < 0.05 else 0.25 if rng.random() < share else 0.75
        for monitor in (monitors[number % 4], alone):
            monitor.record(routed(confidence))
        if number % 200 == 199:  # a block of each
            for monitor in monitors:
                assert monitor._tell()
        if number == 1599:
            assert [monitor.recalibrate for monitor in (*monitors, alone)] == [()] * 5
    assert all(monitor._tell() for monitor in monitors)
    histograms = [monitor._watch.readings["small", "conf"] for monitor in monitors if monitor._watch]
    limit = chi2.isf(0.01 / 100 / 2 / 2, 1)  # the least of both
    assert all(statistic < limit for h in histograms for statistic, _ in h.compare(h.blocks))
    assert [drift.name for monitor in (*monitors, alone) for drift in monitor.recalibrate] == ["conf of small"] * 5
    assert "\nmetaverify_recalibrate 1\n" in monitors[0].prometheus()
    told = [block for blocks in zip(*(h.blocks for h in histograms), strict=True) for block in blocks]
    window = [sum(column) for column in zip(*told[-12:], strict=True)]
    assert [monitor.report()["fleet"]["windows"] for monitor in monitors] == [{"conf of small": window}] * 4
    assert all(drift.statistic > drift.limit > 0.99 * limit for drift in monitors[0].recalibrate)


def test_blocks_are_in_the_window_once_whatever_is_lost_and_again_where_redis_forgot(client: redis.Redis) -> None:
    line = Lossy(client)
    monitor = of(line)
    losses = iter(["", "reply", "request", "twice", "reply", ""])
    line.lose = lambda: next(losses, "")
    for number in range(425):
        monitor.record(routed(number % 100 / 100))
        if number % 60 == 0:
            monitor._tell()
    assert monitor._tell()
    assert sum(monitor.report()["fleet"]["windows"]["conf of small"]) == 400
    client.flushall()
    assert monitor._tell()
    assert sum(monitor.report()["fleet"]["windows"]["conf of small"]) == 400
    for number in range(1000):
        monitor.record(routed(number % 100 / 100))
    assert monitor._tell()
    assert sum(monitor.report()["fleet"]["windows"]["conf of small"]) == 600


def test_what_one_finds_all_know_of_the_same_policy(client: redis.Redis) -> None:
    one, other = of(client), of(client)
    for _ in range(200):
        one.record(routed(0.01))
    assert one.recalibrate
    other.record(routed(0.7))
    other._tell()
    assert other.recalibrate == ()
    one._tell()
    other._tell()
    assert other.recalibrate == one.recalibrate
    assert isinstance(other.recalibrate[0], Drift)
    another = of(client)
    changed = cascade(low=1, high=1)
    Router(changed, lambda tier, _: Reply(tier, {"conf": 0.7}), lambda *_: Look(0.7), monitor=another).route("?")
    another._tell()
    assert another.recalibrate == ()
    assert another.report()["fleet"]["windows"] == {}


def test_where_redis_is_away_others_are_as_last_told(client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    line = Lossy(client)
    one, other = of(line), of(client)
    other.record(routed(0.7))
    other._tell()
    assert one.report()["fleet"]["requests"] == 1
    one.record(routed(0.7))
    other.record(routed(0.7))
    other._tell()

    def gone(*_: Any) -> Any:
        raise redis.ConnectionError("gone")

    monkeypatch.setattr(client, "hgetall", gone)
    monkeypatch.setattr(client, "hmget", gone)
    line.lose = lambda: "request"
    assert one.report()["fleet"]["requests"] == 2
    assert one.error == "ConnectionError: gone"
    assert not one._tell()
    one.close()  # and it has not left
    line.lose = lambda: ""
    assert one._tell()
    one.close()
    monkeypatch.undo()
    assert one.error == "ConnectionError: gone"
    assert of(client).report()["fleet"]["requests"] == 3


def test_a_policy_that_came_meanwhile_is_not_judged_by_what_was_heard_of_the_last(client: redis.Redis) -> None:
    one, other = of(client), of(client)
    for _ in range(200):
        other.record(routed(0.01))
    other._tell()
    line = Lossy(client)
    one = of(line)
    one.record(routed(0.7))

    def meanwhile() -> str:
        one._watch = None
        return ""

    line.lose = meanwhile
    assert one._tell()
    assert one.recalibrate == ()


def test_counts_of_all_are_told_beside_this_processs_own(client: redis.Redis) -> None:
    with of(client) as one, of(client) as other:
        one.record(routed(0.7, 0.25))
        other.record(routed(0.7, 0.5))
        other._tell()
        text = one.prometheus()
        assert "\nmetaverify_requests_total 1\n" in text
        assert "\nmetaverify_fleet_requests_total 2\n" in text
        assert "\nmetaverify_fleet_cost_total 0.75\n" in text
        policy = one.report()["policy"]
        assert text.endswith(f'\nmetaverify_fleet_spent_total{{policy="{policy}"}} 0.75\n')
        assert json.loads(json.dumps(one.report())) == one.report()
