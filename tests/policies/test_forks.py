"""What a forked child is told, and that nothing which the parent's threads hold keeps it waiting."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from metaverify.policies.decision_log import DecisionLog
from metaverify.policies.file import save_policy
from metaverify.policies.forks import renew_in_children
from metaverify.policies.guards import Guard, TokenBucket
from metaverify.policies.monitor import Monitor
from metaverify.policies.router import Reply, Router
from metaverify.policies.store import PolicyStore

from .test_guards import cascade

ROOT = Path(__file__).resolve().parents[2]


class Renewed:
    def __init__(self) -> None:
        self.times = 0

    def renew(self) -> None:
        self.times += 1


def test_what_lives_is_renewed_in_a_child_and_what_is_gone_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Callable[[], None]] = []
    monkeypatch.setattr(os, "register_at_fork", lambda *, after_in_child: told.append(after_in_child), raising=False)
    one, other = Renewed(), Renewed()
    renew_in_children(one.renew)
    renew_in_children(other.renew)
    del other
    gc.collect()
    for in_child in told:
        in_child()
    assert (len(told), one.times) == (2, 1)


def test_where_nothing_forks_nothing_is_renewed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "register_at_fork", raising=False)
    one = Renewed()
    renew_in_children(one.renew)
    assert one.times == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("held", ["by hand", "by traffic"])
def test_a_child_forked_while_threads_hold_every_lock_routes_and_writes(tmp_path: Path, held: str) -> None:
    """In a process of its own: what measures coverage of threads has locks too, and does not renew them."""
    script = "import sys; from tests.policies.test_forks import fork_often; fork_often(*sys.argv[1:])"
    command = [sys.executable, "-W", "ignore", "-c", script, str(tmp_path), held]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert (ran.returncode, ran.stderr) == (0, "")
    written = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text("utf-8").splitlines()]
    keys = [line["key"] for line in written if line["action"] == "accept" and line["key"] != "parent"]
    assert sorted(keys) == sorted(f"child {child}" for child in range(10) for _ in range(50))


def fork_often(folder: str, held: str) -> None:
    """Fork ten children, each while every lock is held, or while three threads route."""
    save_policy(cascade(), Path(folder, "policy.json"))
    store = PolicyStore(Path(folder, "policy.json"), every=0.0)
    bucket, monitor = TokenBucket(1e6, 1e6), Monitor()
    log = DecisionLog(Path(folder, "log.jsonl"), size=10**6)
    guard = Guard(1e3, bucket)
    router = Router(store, lambda tier, _: Reply(tier, {"conf": 0.1}), guard=guard, monitor=monitor, log=log)
    router.route("?", key="parent")
    done = threading.Event()

    def requests() -> None:
        while not done.is_set():
            router.route("?", key="parent")

    threads = [threading.Thread(target=requests, daemon=True) for _ in range(3 if held == "by traffic" else 0)]
    for thread in threads:
        thread.start()
    locks: list[Any] = [store._loading, bucket._lock, monitor._lock, log._lock]
    try:
        for child in range(10):
            with ExitStack() as stack:
                for lock in locks if held == "by hand" else []:
                    stack.enter_context(lock)
                assert status_of_child(lambda child=child: serve(router, log, f"child {child}")) == 0
    finally:
        done.set()
        for thread in threads:
            thread.join(60)
        log.close()


def serve(router: Router, log: DecisionLog, key: str) -> None:
    assert [router.route("?", key=key).answer for _ in range(50)] == ["large"] * 50
    log.close(None)
    assert log.dropped == 0


def status_of_child(work: Callable[[], None]) -> int:
    """How a forked child ends that does this: 0 where all went well, SIGALRM's where it waits."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.alarm(30)
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitpid(child, 0)[1]
