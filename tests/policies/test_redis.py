"""What many processes spend is bounded and counted once, whatever Redis and the line to it do."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest
import redis as redis_py

from metaverify.policies.file import save_policy
from metaverify.policies.guards import Guard, TokenBucket
from metaverify.policies.integrations import redis, redis_link
from metaverify.policies.integrations.redis import RedisBucket, connect
from metaverify.policies.integrations.redis_monitor import SharedMonitor
from metaverify.policies.router import Reply, Router

from .redis_server import LASTING, Lossy, Relay, Server, client, server
from .replica import BURST, PROCESSES, RATE
from .test_guards import cascade

__all__ = ["client", "server"]

ROOT = Path(__file__).resolve().parents[2]


class World:
    """Processes on one Redis with a clock that is set by hand, and that Redis goes by too; no thread speaks."""

    def __init__(self, client: redis_py.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
        self.client, self.now = client, 1000.0
        script = redis.SCRIPT.replace("redis.call('TIME')", "redis.call('LRANGE', 'clock', 0, 1)")
        assert script != redis.SCRIPT
        monkeypatch.setattr(redis, "SCRIPT", script)
        monkeypatch.setattr(redis_link.Link, "start", lambda _: True)
        self.wait(0.0)

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.client.pipeline().delete("clock").rpush("clock", int(self.now), round(self.now % 1 * 1e6)).execute()

    def process(self, rate: float, burst: float, share: float = 0.25) -> tuple[RedisBucket, Lossy]:
        line = Lossy(self.client)
        return RedisBucket(line, "bucket", rate, burst, share=share, clock=lambda: self.now), line  # type: ignore[arg-type]


@pytest.fixture
def world(client: redis_py.Redis, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(client, monkeypatch)


@pytest.mark.parametrize("seed", range(20))
def test_a_bucket_of_many_is_a_token_bucket(world: World, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Eighths are exact in both."""
    monkeypatch.setattr(redis, "FRESH", -1.0)
    rng = random.Random(seed)
    alone = TokenBucket(1.5, 8.0, lambda: world.now)
    buckets = [world.process(1.5, 8.0)[0] for _ in range(3)]
    for _ in range(40):
        bucket, amount, spent = rng.choice(buckets), rng.randrange(40) / 8, rng.randrange(40) / 8
        match rng.randrange(6):
            case 0:
                world.wait(rng.randrange(-4, 24) / 8)
            case 1:
                bucket.settle(amount, spent)
                alone.settle(amount, spent)
                bucket._tell()
            case 2:
                assert bucket.level == alone.level
            case _:
                assert bucket.take(amount) == alone.take(amount)
    bucket.reset()
    alone.reset()
    assert bucket.level == alone.level == 8.0


@pytest.mark.parametrize("seed", range(20))
def test_whatever_is_lost_every_billionth_is_out_once(world: World, seed: int) -> None:
    rng = random.Random(seed)
    processes = [world.process(0.0, 1000.0) for _ in range(3)]
    assert processes[0][0].level == 1000.0
    spent = 0
    for _ in range(100):
        bucket, line = rng.choice(processes)
        line.lose = lambda: rng.choice(["", "", "request", "reply", "twice"])
        taken, cost = rng.randrange(20 * 10**9), rng.randrange(25 * 10**9)
        if rng.random() < 0.5 and bucket.take(taken / 1e9):
            bucket.settle(taken / 1e9, cost / 1e9)
            spent += cost
        world.wait(rng.random())
        if rng.random() < 0.5:
            bucket._beat()
    for bucket, line in processes:
        line.lose = lambda: ""
        bucket.close()
        assert not bucket.away
    assert spent > 0
    assert round(processes[0][0].level * 1e9) == 1000 * 10**9 - spent


def test_a_message_that_comes_late_changes_nothing(world: World, client: redis_py.Redis) -> None:
    bucket, _ = world.process(0.0, 10.0)
    late = bucket._args(5 * 10**9, False)
    assert bucket.take(3.0)
    assert bucket._run([bucket.key, f"{bucket.key}:{bucket._link.name}"], late) == []
    assert bucket.level == 7.0


def bound_exceeded(grants: list[tuple[float, float]], rate: float) -> float:
    """The most that was granted in any stretch of time beyond what flowed in then: (when, amount), in order."""
    worst = height = 0.0
    for (before, _), (now, amount) in pairwise([grants[0], *grants]):
        height = max(height - rate * (now - before), 0.0) + amount
        worst = max(worst, height)
    return worst


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("loses", ["nothing", "its memory"])
def test_the_joint_bound_holds_in_every_stretch_of_time_while_redis_comes_and_goes(
    world: World, seed: int, loses: str
) -> None:
    rng = random.Random(seed)
    rate, burst = 4.0, 12.0
    processes = [world.process(rate, burst, share) for share in (0.25, 0.25, 0.5)]
    there = True
    for _, line in processes:
        line.lose = lambda: "" if there else "request"
    grants: list[tuple[float, float]] = []
    held: list[tuple[int, float, float, RedisBucket]] = []
    away = greed = 0
    for step in range(400):
        if rng.random() < 0.03:
            there = not there
            if there and loses == "its memory":
                world.client.flushall()
                world.wait(0.0)
        if rng.random() < 0.06:
            greed = rng.choice([0, 0, 3])  # the bucket and the shares fill up, and are emptied as fast as they can be
        for bucket, _ in [*rng.sample(processes, 3)] * max(greed, 1):
            amount = rng.choice([0.5, 1.0, 2.0])
            if greed and bucket.take(amount):
                grants.append((world.now, amount))
                held.append((step + rng.randrange(8), amount, rng.choice([0.5, 1.0, 1.0]) * amount, bucket))
                away += bucket.away
            bucket._beat()
        for due in [lease for lease in held if lease[0] <= step]:
            held.remove(due)
            _, taken, spent, bucket = due
            bucket.settle(taken, spent)
            if not bucket.away:
                bucket._tell()  # what is given back is in the bucket when it is told
            grants.append((world.now, spent - taken))
        world.wait(0.125)
    assert len(grants) > 100
    assert away > 5
    assert bound_exceeded(grants, rate) <= burst


@pytest.mark.parametrize("full", [False, True])
def test_the_bound_holds_while_some_have_found_redis_back_and_some_not_yet(world: World, full: bool) -> None:
    (early, line), (late, other) = (world.process(4.0, 8.0, 0.5) for _ in range(2))
    grants = [(world.now, 0.0)]

    def take_all() -> None:
        for bucket in (early, late):
            while bucket.take(0.0625):
                grants.append((world.now, 0.0625))

    line.lose = other.lose = lambda: "request" if 1010.0 <= world.now < 1020.0 else ""
    assert early.level == late.level == 8.0
    while world.now < 1021.0:
        if not full or world.now >= 1020.0:
            take_all()
        if world.now != 1020.0:
            late._beat()  # it tried a moment before
        early._beat()
        if world.now == 1020.0:
            assert (early.away, late.away) == (False, True)
            take_all()
        world.wait(0.125)
    assert not late.away
    assert bound_exceeded(grants, 4.0) <= 8.0


def test_who_is_cut_off_spends_its_share_beyond_the_bound_and_repays_it(world: World) -> None:
    (cut, line), (other, _) = (world.process(2.0, 8.0, 0.5) for _ in range(2))
    granted = {cut: 0.0, other: 0.0}

    def seconds(count: int) -> None:
        for _ in range(8 * count):
            for bucket in granted:
                granted[bucket] += bucket.take(0.25) * 0.25
                bucket._beat()
            world.wait(0.125)

    seconds(10)
    line.lose = lambda: "request"
    began = sum(granted.values())
    seconds(20)
    assert cut.away
    assert 2.0 * 20 < sum(granted.values()) - began <= 2.0 * 20 + 1.0 * 20
    line.lose = lambda: ""
    cut._beat()
    debt = -other.level
    assert 10.0 < debt <= 20.0  # what was spent of the share while all of it flowed in here too
    seconds(11)
    assert sum(granted.values()) <= 8.0 + 2.0 * 41


def test_what_flowed_into_shares_while_redis_was_away_is_not_asked_back(world: World) -> None:
    processes = [world.process(2.0, 8.0, 0.5) for _ in range(2)]
    while processes[0][0].take(1.0):
        pass
    for _, line in processes:
        line.lose = lambda: "request"
    spent = 0
    for _ in range(8000):  # a thousand seconds
        spent += sum(bucket.take(1.0) for bucket, _ in processes)
        world.wait(0.125)
    assert 1990 <= spent <= 2000
    for bucket, line in processes:
        line.lose = lambda: ""
        bucket._beat()
    assert -2.0 <= bucket.level <= 0.0  # the last request of each


def test_a_debt_outlives_the_memory_of_redis_and_a_new_bucket_begins_empty(world: World) -> None:
    rich, poor = (world.process(1.0, 10.0, 0.5)[0] for _ in range(2))
    rich.key = poor.key + " of the rich"
    poor.settle(0.0, 25.0)
    assert (rich.level, poor.level) == (10.0, -15.0)
    world.client.flushall()
    world.wait(0.0)
    assert (rich.level, poor.level) == (0.0, -15.0)
    assert not rich.take(0.5)
    rich.settle(4.0, 1.0)  # taken of the bucket that is no more, which was not below 0
    assert rich.level == 3.0


def test_who_never_heard_of_a_bucket_begins_it_full_unless_redis_was_away(world: World) -> None:
    (first, _), (late, line) = (world.process(1.0, 10.0) for _ in range(2))
    late.key = "another"
    line.lose = lambda: "request"
    assert not late.take(1.0)
    line.lose = lambda: ""
    world.wait(1.0)
    late._beat()
    assert (first.level, late.level) == (10.0, 0.0)


def test_while_redis_is_known_to_be_away_no_request_asks_it(world: World) -> None:
    bucket, line = world.process(8.0, 16.0, 0.5)
    assert bucket.take(1.0)
    line.lose = lambda: "request"
    assert [bucket.take(1.0) for _ in range(50)] == [False] * 50
    assert line.asked == 2
    assert "ConnectionError: the request was lost" in bucket.error
    assert bucket.prometheus().endswith("metaverify_redis_away 1.0\n")
    world.wait(1.0)  # half a second of which nothing flowed
    assert bucket.level == 2.0
    assert bucket.take(2.0)
    assert not bucket.take(0.125)
    bucket.settle(2.0, 0.5)
    assert bucket.level == 1.5
    bucket.settle(1.0, 0.0)  # half of it of what Redis had given
    assert bucket.level == 2.0
    with pytest.raises(ConnectionError, match=r"the bucket 'bucket' may not be full: .*the request was lost"):
        bucket.reset()
    line.lose = lambda: ""
    asked = line.asked
    bucket._beat()
    assert (bucket.away, line.asked) == (True, asked)  # it was asked a moment ago
    world.wait(0.25)
    bucket._beat()
    assert not bucket.away
    assert bucket.error == ""
    assert bucket.prometheus().endswith("metaverify_redis_away 0.0\n")
    # Full, less what the other half may have saved up in 1.25 s, and half a second's for coming back a moment later;
    # what was spent of the share had flowed in there again.
    assert bucket.level == 16.0 - 4.0 * 1.25 - 8.0 * 0.5 + 0.5


def test_who_is_refused_is_refused_for_a_moment_without_asking(world: World) -> None:
    bucket, line = world.process(1.0, 10.0)
    assert bucket.take(8.0)
    assert [bucket.take(amount) for amount in (7.0, 5.0, 3.0, float("inf"), float("nan"))] == [False] * 5
    assert line.asked == 1
    bucket.settle(8.0, 7.0)
    assert bucket.take(3.0)
    world.wait(0.011)
    assert not bucket.take(1.0)
    assert line.asked == 3


def test_what_nobody_told_is_told_and_told_again(world: World) -> None:
    (bucket, line), (other, _) = (world.process(0.0, 10.0) for _ in range(2))
    assert bucket.take(8.0)
    bucket._beat()
    assert line.asked == 1
    bucket.settle(8.0, 1.0)
    assert other.level == 2.0
    bucket._beat()
    assert (line.asked, other.level) == (2, 9.0)
    world.wait(1.0)
    bucket._beat()
    assert line.asked == 3


def test_what_redis_forgot_of_the_last_second_it_is_told_again(world: World, client: redis_py.Redis) -> None:
    bucket, _ = world.process(0.0, 10.0)
    assert bucket.take(1.0)
    kept = {key: client.dump(key) for key in client.keys("bucket*")}
    assert bucket.take(5.0)
    for key, text in kept.items():
        client.restore(key, 0, text, replace=True)
    other, _ = world.process(0.0, 10.0)
    assert other.level == 9.0
    assert bucket.level == 4.0


def test_a_reply_that_a_proxy_drops_is_made_good(server: Server, client: redis_py.Redis) -> None:
    relay = Relay(server.port)
    with connect(relay.url) as line, RedisBucket(line, "bucket", 0.0, 100.0, share=0.5) as bucket:
        monitor = SharedMonitor(line, "monitor")
        router = Router(
            cascade(), lambda tier, _: Reply(tier, {"conf": 0.7}), guard=Guard(bucket=bucket), monitor=monitor
        )
        spent = 0.0
        for request in range(12):
            relay.drop = request % 3 == 1
            spent += router.route("?").cost
            relay.drop = request % 4 == 2
            monitor._tell()
            bucket._tell()
        monitor.close()
        assert (relay.dropped, spent) == (7, 8.0)  # a request that was not granted costs nothing
        assert bucket.level == 92.0
    relay.close()
    with SharedMonitor(client, "monitor") as other:
        assert (other.report()["fleet"]["requests"], other.report()["fleet"]["cost"]) == (12, 8.0)


def ledger_of(folder: Path) -> list[tuple[float, float, int, str, str]]:
    """All requests of all processes, by when they ended."""
    lines = [line.split() for path in folder.glob("ledger*") for line in path.read_text().splitlines()]
    return sorted(((float(a), float(b), int(c), d, e) for a, b, c, d, e in lines), key=lambda line: line[1])


def run_replicas(folder: Path, seconds: float, lasting: tuple[str, ...], outages: list[tuple[float, float]]) -> None:
    """Four routers for so many seconds, while Redis is killed, each time after so long and for so long."""
    server = Server(folder, *lasting)
    save_policy(cascade(), folder / "policy.json")
    command = [sys.executable, "-m", "tests.policies.replica", server.url, str(folder)]
    replicas = [subprocess.Popen([*command, str(n), str(seconds)], cwd=ROOT) for n in range(PROCESSES)]
    gone: list[tuple[float, float]] = []
    try:
        while len([*folder.glob("ready*")]) < PROCESSES:
            time.sleep(0.01)
        began = time.monotonic()
        Path(folder, "go").touch()
        for after, length in outages:
            time.sleep(max(began + after - time.monotonic(), 0.0))
            killed = time.monotonic()
            server.kill()
            time.sleep(length)
            gone.append((killed, time.monotonic()))
            server.start()
        time.sleep(max(began + seconds - time.monotonic(), 0.0))
        Path(folder, "stop").touch()
        assert [replica.wait(60) for replica in replicas] == [0] * PROCESSES
        ledger = ledger_of(folder)
        spent = 0
        for _, ended, cost, _, _ in ledger:
            spent += cost
            assert spent <= 1e9 * (RATE * (ended - began) + BURST)
        for killed, started in gone:
            meanwhile = [line for line in ledger if killed < line[0] and line[1] < started]
            assert {line[4] for line in meanwhile} >= {"True"}
            assert sum(line[2] for line in meanwhile) > 0  # requests went on
        assert sum(line[2] for line in ledger if line[0] > gone[-1][1]) > 0
        with connect(server.url, timeout=1.0) as client, SharedMonitor(client, "monitor") as monitor:
            fleet = monitor.report()["fleet"]
            assert sum(fleet["spent"].values()) == spent
            assert round(fleet["cost"] * 1e9) == spent
            assert fleet["requests"] == len(ledger)
            assert fleet["handed_over"] == sum(line[3] == "None" for line in ledger)
            assert client.hkeys("monitor") == [b"gone"]
    finally:
        for replica in replicas:
            replica.kill()
            replica.wait()
        server.kill()


@pytest.mark.parametrize("lasting", [LASTING, ()], ids=["with its memory", "without"])
def test_four_routers_keep_to_one_budget_while_redis_is_killed_and_comes_back(
    tmp_path: Path, lasting: tuple[str, ...]
) -> None:
    run_replicas(tmp_path, 3.6, lasting, [(1.0, 1.4)])


@pytest.mark.slow
@pytest.mark.parametrize("lasting", [LASTING, ()], ids=["with its memory", "without"])
def test_four_routers_keep_to_one_budget_whatever_redis_does(tmp_path: Path, lasting: tuple[str, ...]) -> None:
    run_replicas(tmp_path, 40.0, lasting, [(2.0 + 5 * at, 0.8 + 0.4 * at) for at in range(6)])
