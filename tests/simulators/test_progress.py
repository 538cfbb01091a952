"""What a pass over rows says of itself: shares that rise to all of it, and how fast it is."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from metaverify.output import progress, working
from metaverify.simulators import progress as clocked
from metaverify.simulators.counting import count
from metaverify.simulators.progress import Passed
from metaverify.simulators.reader import write_log
from metaverify.simulators.sketching import sketch
from metaverify.simulators.worlds import shared_difficulty

Told = list[tuple[str, float | None]]


def test_rows_are_told_ten_times_a_second_with_their_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    now, told = [100.0], Told()
    monkeypatch.setattr(clocked.time, "monotonic", lambda: now[0])
    passed = Passed(lambda what, share: told.append((what, share)), "counting", 0.2, 0.5, 8_000_000)
    for _ in range(16):
        now[0] += 0.03125
        passed(250_000)
    assert told == [("counting, 8.0 M rows/s", 0.2 + 0.5 * done) for done in (0.125, 0.25, 0.375, 0.5)]


def test_more_rows_than_were_known_are_no_more_than_all() -> None:
    told = Told()
    passed = Passed(lambda what, share: told.append((what, share)), "counting", 0.0, 1.0, 10)
    passed._next = 0.0
    passed(25)
    assert [share for _, share in told] == [1.0]


@pytest.mark.parametrize("whole", [False, True])
def test_a_count_and_a_sketch_tell_shares_that_rise_to_one(whole: bool, tmp_path: Path) -> None:
    log = shared_difficulty(2).draw(90, 0)
    for at, form in enumerate(("parquet", "parquet", "csv")):
        write_log(log.take(np.arange(30 * at, 30 * at + 30)), tmp_path / f"log{at}.{form}")
    told = Told()
    (sketch if whole else count)(
        sorted(map(str, tmp_path.iterdir())), progress=lambda what, share: told.append((what, share))
    )
    for what in ("sketching",) if whole else ("sketching", "counting"):
        shares = [share for said, share in told if said.startswith(what) and share is not None]
        assert shares == sorted(shares)
        assert shares[0] == 0.0
        assert shares[-1] == pytest.approx(1.0)
        assert len(shares) >= 3


def test_a_bar_says_what_is_done_how_fast_and_how_long_still(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress() as tell:
        for at in range(5):
            tell("folding", at / 8)
        tell("nearly", None)
    with working("reading log.parquet"):
        pass
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "nearly" in captured.err
    assert "%/s" in captured.err
    assert "reading log.parquet" in captured.err


def test_without_a_terminal_nothing_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    with progress() as tell:
        tell("folding", 0.5)
    assert capsys.readouterr() == ("", "")
