"""One of many router processes on one Redis: ``python -m tests.policies.replica URL FOLDER NUMBER SECONDS``.

It follows the policy of the folder, from when all are there until they are told to stop, and writes what it spent into
a ledger of its own, a line a request: when it began and ended, billionths, who answered, whether Redis was away.
"""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path
from typing import Any

from metaverify.policies.file import load_policy
from metaverify.policies.guards import Guard
from metaverify.policies.integrations.redis import RedisBucket, connect
from metaverify.policies.integrations.redis_monitor import SharedMonitor
from metaverify.policies.router import Look, Reply, Router

RATE, BURST, PROCESSES = 400.0, 200.0, 4
DEAREST = {"small": 1.5, ("small", "judge"): 0.75, "large": 15.0}


def main(url: str, folder: str, number: str, seconds: str) -> None:
    """Route as fast as the budget allows, for so long ever more doubtful and dearer requests."""
    rng, place = random.Random(int(number)), Path(folder)
    Path(place, f"ready {number}").touch()
    while not Path(place, "go").exists():
        time.sleep(0.01)
    began = time.monotonic()

    def drift() -> float:
        return min((time.monotonic() - began) / float(seconds), 1.0)

    def cost(dearest: float) -> float:
        return round(rng.uniform(0.3, 0.5 + drift() / 2) * dearest, 9)

    def call(tier: str, _: Any) -> Reply:
        return Reply(tier, {"conf": rng.random() * (1.2 - drift())} if tier == "small" else {}, cost(DEAREST[tier]))

    def verify(*_: Any) -> Look:
        return Look(rng.random() * (1.0 - drift()), cost(DEAREST["small", "judge"]))

    with (
        connect(url) as client,
        RedisBucket(client, "budget", RATE, BURST, share=1 / PROCESSES) as bucket,
        SharedMonitor(client, "monitor") as monitor,
        Path(place, f"ledger {number}").open("w", encoding="ascii") as file,
    ):
        guard = Guard(bucket=bucket, dearest=DEAREST)
        router = Router(load_policy(place / "policy.json"), call, verify, guard=guard, monitor=monitor)
        while not Path(place, "stop").exists():
            start = time.monotonic()
            routed = router.route("?")
            file.write(f"{start} {time.monotonic()} {round(routed.cost * 1e9)} {routed.tier} {bucket.away}\n")
            time.sleep(0.001)
        while bucket.away or monitor.error:
            time.sleep(0.05)


if __name__ == "__main__":
    main(*sys.argv[1:])
