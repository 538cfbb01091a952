"""Kill writers of a policy file while others read it: ``python -m tests.policies.killing 200``, and say what was seen.

A program of its own, so that it forks from a single thread.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from metaverify.policies.file import load_policy, save_policy
from metaverify.policies.policy import Policy

from .fuzzing import GOLDEN

KEY = b"0123456789abcdef"
READERS = 2


def forked(work: Callable[[], None]) -> int:
    """A child that does this work and ends, with status 0 where all went well."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return child


def main() -> None:
    rounds, rng = int(sys.argv[1]), random.Random(7)
    golden = load_policy(GOLDEN / "policy.json")
    editions = [replace(golden, serial=serial, salt="x" * serial) for serial in range(1, 9)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "policy.json")
        save_policy(editions[0], path, key=KEY)
        stop = Path(folder, "stop")

        def write() -> None:
            while True:
                save_policy(rng.choice(editions), path, key=KEY)

        def read() -> None:
            while not stop.exists():
                assert load_policy(path) in editions

        readers = [forked(read) for _ in range(READERS)]
        left = wrong = stale = 0
        for _ in range(rounds):
            writer = forked(write)
            time.sleep(rng.uniform(0.0, 0.02))
            os.kill(writer, signal.SIGKILL)
            os.waitpid(writer, 0)
            left += any(file.suffix == ".tmp" for file in Path(folder).iterdir())
            wrong += not whole(path, editions)
            save_policy(editions[0], path, key=KEY)
            stale += any(file.suffix == ".tmp" for file in Path(folder).iterdir())
        stop.touch()
        failed = sum(os.waitpid(reader, 0)[1] != 0 for reader in readers)
    seen = {"rounds": rounds, "left": left, "wrong": wrong, "stale": stale, "failed_readers": failed}
    print(json.dumps(seen))


def whole(path: Path, editions: list[Policy]) -> bool:
    """Whether the file is one of the editions and signed."""
    try:
        return load_policy(path, key=KEY) in editions
    except ValueError:
        return False


if __name__ == "__main__":
    main()
