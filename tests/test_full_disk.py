"""Where there is no room for a file every command says so in a line that names it, and leaves what was there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from metaverify.cli import main
from metaverify.policies.storage import write_atomically
from tests.test_interrupts import COMMANDS, ROOT
from tests.test_interrupts import shop as shop

resource = pytest.importorskip("resource", reason="limits are POSIX's")

ROOM = 64  # bytes of a file
LIMITED = f"""
import resource, sys
from metaverify.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, ({ROOM}, resource.RLIM_INFINITY))
sys.exit(main(sys.argv[1:]))
"""

ALL = {
    **COMMANDS,
    "import to Parquet": "import long calls.jsonl -o out.parquet",
    "import packed": "import long calls.jsonl -o out.jsonl.gz",
    "report": "report policy.json -o out.html",
    "pomdp": "pomdp log.parquet --price 0.1 -o out.pomdp",
    "plots": "compare log.parquet --methods thresholds --folds 2 --budgets 5 --no-seconds --jobs 1 --plots out",
    "journal": "fit log.parquet --budget 5 --folds 2 --method optuna --trials 2 --storage out.log",
}


@pytest.mark.parametrize("command", ALL)
def test_a_command_without_room_names_the_file_in_one_line(command: str, shop: Path, tmp_path: Path) -> None:
    for file in shop.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    argv = ALL[command].split()
    if argv[-2] == "-o":
        (tmp_path / argv[-1]).write_text("old")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    ran = subprocess.run(
        [sys.executable, "-c", LIMITED, *argv],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "MPLCONFIGDIR": str(tmp_path / "matplotlib")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 1, ran.stderr
    told = ran.stderr.splitlines()[-1]
    assert re.search(r"^metaverify: .*\b(out|done)\b.* cannot be written.*: File too large$", told)
    assert "Traceback" not in ran.stderr
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    assert not [path.name for path in tmp_path.iterdir() if ".tmp" in path.name]


def test_an_error_of_writing_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("metaverify.policies.storage.os.fsync", full)
    with pytest.raises(OSError, match="No space left on device") as error:
        write_atomically(tmp_path / "policy.json", b"{}")
    assert error.value.filename == str(tmp_path / "policy.json")
    assert list(tmp_path.iterdir()) == []


def test_what_other_libraries_say_of_a_full_disk_is_one_line_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(options: object) -> None:
        raise LookupError("(sqlite3.OperationalError) database or disk is full [SQL: INSERT INTO studies]")

    monkeypatch.setattr("metaverify.commands.fit.run", full)
    assert main(["fit", "log.csv", "--budget", "3", "--storage", "study.db"]) == 1
    assert capsys.readouterr().err == "metaverify: study.db cannot be written: database or disk is full\n"
