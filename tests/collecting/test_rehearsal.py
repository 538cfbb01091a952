"""A dry run: what it foresees is what comes, and nobody is asked."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest

litellm: Any = pytest.importorskip("litellm", reason="needs the extra `litellm`")

from metaverify.cli import main  # noqa: E402

from .mocks import VOTES, Mock, write_prompts, write_settings  # noqa: E402

pytestmark = pytest.mark.filterwarnings(
    "ignore:Items? .* using the `ReadOnly` qualifier:UserWarning", "ignore:Accessing the 'model_:DeprecationWarning"
)


@pytest.fixture(autouse=True)
def mock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mock]:
    before, found = litellm.custom_provider_map, Mock()
    litellm.custom_provider_map = [{"provider": "mock", "custom_handler": found}]
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    yield found
    litellm.custom_provider_map = before


@pytest.fixture
def argv(tmp_path: Path) -> list[str]:
    settings, prompts = write_settings(tmp_path / "cascades.toml"), write_prompts(tmp_path / "prompts.jsonl", 10)
    return ["collect", str(prompts), "--settings", str(settings), "-o", str(tmp_path / "log.parquet")]


def test_a_dry_run_foresees_every_call_and_asks_nobody(
    argv: list[str], tmp_path: Path, mock: Mock, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*argv, "--dry-run"]) == 0
    table = capsys.readouterr().out.splitlines()
    assert not mock.asked
    assert not [*tmp_path.glob("log*")]
    rows = {line[:12].strip(): line[12:].split() for line in table[2:7]}
    assert {name: int(row[0]) for name, row in rows.items()} == {
        "small": 10,
        "large": 10,
        "small votes": 30,
        "large judge": 10,
        "in all": 60,
    }
    assert rows["small"][2:] == ["100", "$0.1000", "$0.1000"]  # its answers have ten tokens at most
    assert rows["in all"][3] == "$2.4800"
    assert {len(line) for line in table[:7]} == {len(table[0])}
    assert main(argv) == 0
    assert sum(mock.asked.values()) == 60
    capsys.readouterr()
    assert main([*argv, "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[2].split() == ["in", "all", "0", "0", "0", "$0.0000", "$0.0000"]
    assert "are paid already" in out


def test_what_nobody_can_foresee_is_told(
    argv: list[str], tmp_path: Path, mock: Mock, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[object] = []
    monkeypatch.setitem(sys.modules, "own", SimpleNamespace(read=lambda *_: asked.append(_)))
    write_settings(tmp_path / "cascades.toml", f'{VOTES}readings.own = {{ verifier = "own:read" }}\n')
    assert main([*argv, "--dry-run"]) == 0
    assert "small own may cost more" in capsys.readouterr().out
    assert not asked
    assert not mock.asked


def test_prices_that_nobody_knows_are_question_marks(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    at = argv.index("--settings")
    tiers = ["--tiers", "gpt-4o-mini,large=mock/of-no-price", "--verifier", "answer-probability"]
    assert main([*argv[:at], *tiers, *argv[at + 2 :], "--dry-run", "--answer-tokens", "100"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[2:5]]
    assert rows[1] == ["large", "10", rows[1][2], "1,000", "?", "?"]
    tokens = int(rows[0][2])
    assert rows[0][4] == f"${tokens * 0.15e-6 + 1000 * 0.6e-6:.4f}"  # LiteLLM's table: dollars for a million tokens


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--cascade", "shopp"], "--cascade shopp: .* has shop; did you mean 'shop'?"),
        (["--limit", "lage=2"], "--limit lage: there is no such tier; did you mean 'large'?"),
        (["--limit", "large"], "--limit large: write it as name=number"),
        (["--verifier", "p-true"], "--verifier p-true: the verifiers are those of .*; leave it out"),
        (["--grade", "judge"], "E_OPTION: --grade judge: name the model that grades, --judge MODEL"),
    ],
)
def test_options_that_do_not_fit_are_told(
    argv: list[str], options: list[str], message: str, mock: Mock, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*argv, *options]) == 1
    err = capsys.readouterr().err
    before, _, after = message.partition(".*")
    assert before in err
    assert after in err
    assert not mock.asked


def test_without_litellm_it_is_told_what_to_install(
    argv: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "litellm", None)
    assert main(argv) == 1
    assert "collect needs the extra `litellm`: pip install 'metaverify[fit,litellm]'" in capsys.readouterr().err


def test_it_is_told_which_prices_nobody_knows_and_what_is_not_whole(
    argv: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    half = SimpleNamespace(grade=lambda prompt, answer: None if prompt.endswith("3") else 1)
    monkeypatch.setitem(sys.modules, "own", half)
    model = 'litellm_params = { model = "openai/nobody-knows", mock_response = "so" }'
    (tmp_path / "cascades.toml").write_text(f'[shop]\npolicy = "p.json"\n[shop.tiers.small]\n{model}\n')
    assert main([*argv, "--grade", "own:grade"]) == 0
    out = capsys.readouterr().out
    assert "queries without an answer or a grade of some tier: 1, left out; --partial keeps them" in out
    assert "price of small" in out
    assert f"next: metaverify inspect {argv[-1]}" in out
    log = pl.read_parquet(argv[-1])
    assert (len(log), "cost_small" in log.columns) == (9, False)
    assert main([*argv, "--grade", "own:grade", "--partial"]) == 0
    out = capsys.readouterr().out
    assert "queries without an answer or a grade of some tier: 1, kept" in out
    assert f"next: metaverify fit {argv[-1]} --partial" in out
    assert pl.read_parquet(argv[-1])["correct_small"].to_list() == [1.0] * 3 + [None] + [1.0] * 6
