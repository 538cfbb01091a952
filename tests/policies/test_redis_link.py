"""Who speaks to Redis waits for it briefly, speaks by a thread of its own, and is another in every process."""

from __future__ import annotations

import gc
import importlib.util
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from metaverify.policies.guards import Guard
from metaverify.policies.integrations import redis_link
from metaverify.policies.integrations.redis import RedisBucket, connect
from metaverify.policies.integrations.redis_link import Link, registered
from metaverify.policies.integrations.redis_monitor import SharedMonitor
from metaverify.policies.router import Reply, Router

from .redis_server import Server, client, server
from .test_forks import status_of_child
from .test_guards import LOW, cascade

__all__ = ["client", "server"]

ROOT = Path(__file__).resolve().parents[2]
NOWHERE = "redis://127.0.0.1:1"


def eventually(true: Callable[[], bool]) -> bool:
    for _ in range(1000):
        if true():
            return True
        time.sleep(0.01)
    return False


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: redis.Redis(socket_timeout=None), "socket_timeout is None: requests would wait so long; use connect"),
        (lambda: redis.Redis(socket_timeout=0.1, socket_connect_timeout=5), "socket_connect_timeout is 5"),
        (lambda: redis.Redis(socket_timeout=0.1, socket_connect_timeout=0.1), "tries again by itself"),
    ],
)
def test_a_client_that_would_keep_requests_waiting_is_refused(made: Callable[[], redis.Redis], message: str) -> None:
    with made() as patient, pytest.raises(ValueError, match=message):
        registered(patient, "return 1")


def test_the_timeout_and_all_else_can_be_chosen() -> None:
    with connect(NOWHERE, timeout=0.5, decode_responses=True) as chosen:
        options = chosen.connection_pool.connection_kwargs
        assert (options["socket_timeout"], options["socket_connect_timeout"]) == (0.5, 0.5)
        assert options["decode_responses"] is True


def test_what_cannot_be_a_bucket_is_refused() -> None:
    with connect(NOWHERE) as line:
        for share in (0.0, 1.5, float("nan")):
            with pytest.raises(ValueError, match=rf"share is {share}; give this process's part"):
                RedisBucket(line, "bucket", 1.0, 1.0, share=share)
        with pytest.raises(ValueError, match=r"rate -1.0 and burst 1.0: give finite amounts"):
            RedisBucket(line, "bucket", -1.0, 1.0, share=0.5)


def test_replies_may_be_text(server: Server, client: redis.Redis) -> None:
    with connect(server.url, timeout=1.0, decode_responses=True) as line:
        with RedisBucket(line, "bucket", 0.0, 4.0, share=1.0) as bucket, SharedMonitor(line, "monitor") as monitor:
            Router(cascade(low=LOW, high=LOW), lambda tier, _: Reply(tier), monitor=monitor).route("?")
            assert bucket.take(3.0)
            assert bucket.level == 1.0
        assert SharedMonitor(line, "monitor").report()["fleet"]["requests"] == 1


def test_a_key_that_is_something_else_is_as_good_as_no_redis(client: redis.Redis) -> None:
    client.set("bucket", "text")
    with RedisBucket(client, "bucket", 1.0, 4.0, share=1.0) as bucket:
        assert not bucket.take(1.0)
        assert "WRONGTYPE" in bucket.error


def test_a_thread_tells_what_nobody_asked_for_and_finds_redis_back(tmp_path: Path) -> None:
    own = Server(tmp_path)
    try:
        with connect(own.url, timeout=1.0) as line, connect(own.url, timeout=1.0) as elsewhere:
            bucket, other = (RedisBucket(c, "bucket", 0.0, 4.0, share=0.5) for c in (line, elsewhere))
            assert bucket.take(3.0)
            assert other.level == 1.0
            bucket.settle(3.0, 1.0)
            assert eventually(lambda: other.level == 3.0)
            assert bucket.level == 3.0  # and it has heard so
            own.kill()
            assert not other.take(2.0)
            assert not bucket.take(2.0)
            assert bucket.away
            own.start()
            assert eventually(lambda: not bucket.away and not other.away)
            assert bucket.level == 0.0  # it came back with nothing
            thread = bucket._link._thread
            assert thread is not None
            bucket.close()
            bucket.close()
            assert not thread.is_alive()
            bucket.settle(2.0, 0.0)
            assert not bucket.take(3.0)  # told by the requests themselves from now on
            assert bucket.level == 2.0
            other.close()
    finally:
        own.kill()


def test_where_no_thread_can_be_had_requests_look_for_redis_themselves(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", none_left)
    now = 0.0
    bucket = RedisBucket(client, "bucket", 0.0, 4.0, share=0.5, clock=lambda: now)
    assert bucket.take(1.0)
    client.set("bucket", "text")
    now = 1.0
    assert not bucket.take(1.0)
    assert bucket.away
    client.delete("bucket")
    now = 2.0
    bucket.take(1.0)
    assert not bucket.away


def test_a_thread_ends_with_what_it_speaks_for() -> None:
    class Speaker:
        def __init__(self) -> None:
            self.beats = 0
            self.link = Link(self.beat, self.close, 0.001)

        def beat(self) -> None:
            self.beats += 1

        def close(self) -> None:
            self.beats = -1

    speakers = [Speaker()]
    link = speakers[0].link
    assert link.start()
    assert link.start()
    assert eventually(lambda: speakers[0].beats > 1)
    thread = link._thread
    assert thread is not None
    speakers.clear()
    gc.collect()
    thread.join(10)
    assert not thread.is_alive()
    link._close()  # at the end of the process, of what is no more
    link.end()
    assert not link.start()
    never = Speaker()
    never.link.end()
    assert not never.link.start()


def test_without_the_package_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    spec = importlib.util.spec_from_file_location("without_redis", redis_link.__file__)
    assert spec is not None
    assert spec.loader is not None
    with pytest.raises(ImportError, match=r"pip install 'metaverify\[redis\]'"):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_has_an_account_of_its_own(server: Server, client: redis.Redis) -> None:
    script = "import sys; from tests.policies.test_redis_link import fork_some; fork_some(*sys.argv[1:])"
    command = [sys.executable, "-W", "ignore", "-c", script, server.url]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (ran.returncode, ran.stderr) == (0, "")
    fleet = SharedMonitor(client, "monitor").report()["fleet"]
    assert (fleet["requests"], fleet["cost"]) == (4 * 20, 4 * 20.0)
    assert RedisBucket(client, "bucket", 0.0, 1000.0, share=0.25).level == 1000.0 - 4 * 20.0
    assert client.hkeys("monitor") == [b"gone"]


def fork_some(url: str) -> None:
    """A parent and three children, forked while it holds every lock, each with twenty requests of cost 1; the last
    child is one of multiprocessing, which closes nothing itself."""
    line = connect(url, timeout=1.0)
    bucket, monitor = RedisBucket(line, "bucket", 0.0, 1000.0, share=0.25), SharedMonitor(line, "monitor")
    guard = Guard(bucket=bucket)
    router = Router(cascade(low=LOW, high=LOW), lambda tier, _: Reply(tier), guard=guard, monitor=monitor)

    def serve() -> None:
        assert [router.route("?").answer for _ in range(20)] == ["small"] * 20

    def serve_and_close() -> None:
        serve()
        bucket.close()
        monitor.close()

    serve()
    for _ in range(2):
        with bucket._lock, bucket._link.wire, monitor._lock, monitor._link.wire, monitor._link._starting:
            assert status_of_child(serve_and_close) == 0
    child = multiprocessing.get_context("fork").Process(target=serve)
    child.start()
    child.join()
    assert child.exitcode == 0
    bucket.close()
    monitor.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_forked_while_redis_is_away_begins_with_an_empty_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Link, "start", lambda _: True)
    now = 0.0
    with connect(NOWHERE) as line:
        bucket = RedisBucket(line, "bucket", 8.0, 8.0, share=0.5, clock=lambda: now)
        assert not bucket.take(1.0)
        now = 1.0
        assert bucket.level == 2.0
        bucket._renew()  # as a child does
        assert (bucket.away, bucket.level) == (True, -2.0)
