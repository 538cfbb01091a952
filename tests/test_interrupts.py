"""Ctrl-C or SIGTERM at any touch of a file: what was there is there still, or what was to be written is, whole.

A command is broken off before one thing that it does to a file of its folder, then before another, and so on; in a
process of its own, since Python never takes an audit hook off.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from metaverify.cli import main
from metaverify.policies.decision_log import DecisionLog
from metaverify.policies.file import load_policy
from metaverify.policies.router import Reply, Router

ROOT = Path(__file__).resolve().parents[1]
TOUCHES = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.scandir", "os.listdir"}
MOST = 8  # places at which a command is broken off

COMMANDS = {
    "simulate": "simulate hopeless -n 50 -o out.csv",
    "count": "count log.parquet --bins 4 -o out.parquet",
    "sketch": "count log.parquet --sketch -o out.parquet",
    "import": "import long calls.jsonl -o out.csv",
    "join": "join decisions.jsonl labels.csv -o out.parquet",
    "fit": "fit log.parquet --budget 5 --method chain --folds 2 -o out.json",
    "compare": "compare log.parquet --methods thresholds --folds 2 --budgets 5 --resume done --jobs 1 --no-seconds "
    "-o out.json",
}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log, what a gateway wrote, what a router decided, and which answers were right."""
    folder = tmp_path_factory.mktemp("shop")
    assert main(["simulate", "hopeless", "-n", "120", "-o", str(folder / "log.parquet")]) == 0
    fit = ["fit", str(folder / "log.parquet"), "--budget", "5", "--method", "chain", "--folds", "2"]
    assert main([*fit, "-o", str(folder / "policy.json")]) == 0
    answers = [
        {"query_id": f"q{at}", "tier": tier, "correct": (at + number) % 3 > 0, "cost": 1 + 3 * number}
        for at in range(40)
        for number, tier in enumerate(("small", "large"))
    ]
    (folder / "calls.jsonl").write_text("".join(json.dumps(answer) + "\n" for answer in answers))
    with DecisionLog(folder / "decisions.jsonl", clock=lambda: 0.0) as decisions:
        router = Router(
            load_policy(folder / "policy.json"), lambda tier, query: Reply(tier, {"conf": 0.5}, 1.0), log=decisions
        )
        for at in range(20):
            router.route(f"r{at}", key=f"r{at}")
    labels = [
        {"query_id": f"r{at}", "tier": tier, "correct": at % 2}
        for at in range(20)
        for tier in ("tier1", "tier2", "tier3")
    ]
    pl.DataFrame(labels).write_csv(folder / "labels.csv")
    return folder


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_that_is_broken_off_leaves_whole_files(command: str, shop: Path, tmp_path: Path) -> None:
    for file in shop.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    code = f"import tests.test_interrupts as t; t.break_off_everywhere({str(tmp_path)!r}, {COMMANDS[command]!r})"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    found: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    assert found["odd"] == []
    assert found["broken off"] >= 3
    assert found["kept"] >= 1


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
@pytest.mark.parametrize("ignored", ["", "signal.signal(signal.SIGINT, signal.SIG_IGN); "])
def test_sigterm_ends_a_command_with_its_own_code_wherever_it_runs(ignored: str, shop: Path) -> None:
    """Also in a shell's background, where Ctrl-C is ignored; and what ignores SIGTERM goes on doing so."""
    end = "sys.addaudithook(lambda e, a: e == 'open' and 'policy.json' in str(a[0]) and os.kill(os.getpid(), 15))"
    run = f"main(['decide', {str(shop / 'policy.json')!r}, '{{}}', '--key', 'a'])"
    head = f"import os, signal, sys; from metaverify.cli import main; {ignored}"
    for said, code in (
        (f"{end}; sys.exit({run})", 143),
        (f"signal.signal(15, signal.SIG_IGN); {end}; sys.exit({run})", 0),
    ):
        ran = subprocess.run([sys.executable, "-c", head + said], cwd=ROOT, capture_output=True, text=True, check=False)
        assert ran.returncode == code, ran.stderr
        assert ran.stderr == ("" if code == 0 else "metaverify: interrupted; every file is as it was, or whole\n")


def test_a_handler_of_the_caller_is_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    for handler in (lambda *_: None, signal.SIG_IGN, signal.SIG_DFL):
        signal.signal(signal.SIGTERM, handler)
        try:
            assert main(["decide", "nowhere.json", "{}"]) == 1
            assert signal.getsignal(signal.SIGTERM) is handler
        finally:
            signal.signal(signal.SIGTERM, before)
    assert "nowhere.json" in capsys.readouterr().err


def break_off_everywhere(folder: str, command: str) -> None:
    """Run a command to its end, then break it off at up to `MOST` touches of a file; prints what was found."""
    os.chdir(folder)
    argv = command.split()
    out = argv[-1]
    touches = Touches(folder)
    before = {path.name: path.read_bytes() for path in Path().iterdir()}
    Path(out).write_text("old")
    with touches:
        assert main(argv) == 0
    whole, count = Path(out).read_bytes(), touches.seen
    odd, kept, broken = [], 0, 0
    for at in sorted({1 + step * (count - 1) // MOST for step in range(MOST + 1)}):
        _clear(before)
        Path(out).write_text("old")
        by = (signal.SIGINT, signal.SIGTERM)[(at + broken) % 2]
        with touches.breaking_off(at, by):
            code = main(argv)
        broken += code in (1, 143)
        if code not in (0, 143 if by == signal.SIGTERM else 1):
            odd.append(f"touch {at}: {by.name} gave {code}")
        if left := [path.name for path in Path().iterdir() if ".tmp" in path.name]:
            odd.append(f"touch {at}: {touches.last} left {left}")
        data = Path(out).read_bytes()
        kept += data == b"old"
        if data not in (b"old", whole) or any(Path(name).read_bytes() != raw for name, raw in before.items()):
            odd.append(f"touch {at}: {touches.last} left {data[:40]!r}")
        again = main(argv)
        if again or Path(out).read_bytes() != whole:
            odd.append(f"touch {at}: {touches.last}, and then the command could not be run again")
    print()
    print(json.dumps({"odd": odd, "kept": kept, "broken off": broken}))


def _clear(before: dict[str, bytes]) -> None:
    """Leave nothing in the folder but what was there before."""
    import shutil

    for path in Path().iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name not in before:
            path.unlink()


class Touches:
    """Counts what is done to files in a folder, and may send a signal before one of them."""

    def __init__(self, folder: str) -> None:
        self._folder, self._armed = os.path.realpath(folder), False
        self.seen, self._at, self.last = 0, 0, ""
        self._by = signal.SIGINT
        sys.addaudithook(self._hook)

    def breaking_off(self, at: int, by: signal.Signals) -> Touches:
        """Sends a signal before the ``at``-th of them."""
        self._at, self._by = at, by
        return self

    def __enter__(self) -> None:
        self.seen, self._armed = 0, True

    def __exit__(self, *_: object) -> None:
        self._armed = False

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._armed or event not in TOUCHES or not isinstance(arguments[0], str | Path):
            return
        if not os.path.abspath(arguments[0]).startswith(self._folder):  # noqa: PTH100
            return
        self.seen += 1
        if self.seen == self._at:
            self._armed, self.last = False, f"{event} {arguments[0]}"
            signal.raise_signal(self._by)
