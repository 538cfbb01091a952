"""The examples route as their policies say, offline, against models that are not there."""

from __future__ import annotations

import json
import math
import os
import runpy
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from metaverify.policies.actions import Accept, Call, Verify
from metaverify.policies.file import load_policy, save_policy
from metaverify.policies.policy import Policy

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
DEAR = load_policy(ROOT / "tests" / "golden" / "spread.json").at(budget=5.5)  # `large` below 0.5


@pytest.mark.parametrize("name", ["openai_client.py", "langchain_cascade.py"])
def test_an_example_has_at_most_thirty_lines(name: str) -> None:
    assert len((EXAMPLES / name).read_text("utf-8").splitlines()) <= 30


class Mock(BaseHTTPRequestHandler):
    """Chat completions of models that are as sure as the question says."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        sure = asked["messages"][-1]["content"]
        tokens = [{"token": "a", "logprob": math.log(float(sure)), "bytes": None, "top_logprobs": []}] * 3
        message = {"role": "assistant", "content": f"{asked['model']} says {sure}"}
        logprobs = {"content": tokens, "refusal": None} if asked.get("logprobs") and asked["model"] == "small" else None
        choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": logprobs}
        body = {"id": "1", "object": "chat.completion", "created": 0, "model": asked["model"], "choices": [choice]}
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def gateway() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Mock) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
        server.shutdown()
        thread.join()


TWICE = load_policy(ROOT / "tests" / "golden" / "policy.json").at(budget=11.0)  # `judge` where `self_verify` is unsure


def replies(policy: Policy, question: str, sure: Mapping[str, float | None]) -> tuple[list[str], str | None]:
    """Which tiers a request calls, and whose answer it gets, by a walk that hands every reading in one at a time."""
    readings: dict[str, dict[str, Any]] = {}
    while isinstance(action := policy.decide(readings, key=question), Call | Verify):
        readings.setdefault(action.tier, {})
        if isinstance(action, Verify):
            readings[action.tier][action.reading] = sure[action.reading]
    return list(readings), action.tier if isinstance(action, Accept) else None


WALKS = [(DEAR, {"conf": sure}) for sure in (0.9, 0.3, None)] + [
    (TWICE, {"self_verify": first, "judge": second}) for first in (0.1, 0.5, 0.9) for second in (0.3, 0.9, None)
]


def test_the_walks_buy_a_second_reading_and_accept_after_it() -> None:
    assert replies(TWICE, "why?", {"self_verify": 0.5, "judge": 0.9}) == (["small"], "small")
    assert replies(TWICE, "why?", {"self_verify": 0.5, "judge": 0.3})[1] != "small"


@pytest.mark.filterwarnings("ignore")  # of the client's own dependencies
def test_the_openai_client_escalates_where_the_policy_does(gateway: str, tmp_path: Path) -> None:
    pytest.importorskip("openai", reason="the plain OpenAI client is not installed: pip install openai")
    known = {"OPENAI_API_KEY": "none", "OPENAI_BASE_URL": gateway, "PYTHONPATH": str(ROOT)}

    def run(policy: Policy, sure: str) -> subprocess.CompletedProcess[str]:
        save_policy(policy, tmp_path / "policy.json")
        command = [sys.executable, EXAMPLES / "openai_client.py", tmp_path / "policy.json", sure]
        return subprocess.run(command, env={**os.environ, **known}, capture_output=True, text=True)

    for sure, tier in (("0.9", "small"), ("0.3", "large")):
        ran = run(DEAR, sure)
        assert (ran.returncode, ran.stdout) == (0, f"{tier} says {sure}\n"), ran.stderr
    ran = run(TWICE, "0.5")  # which has readings that nothing there reads
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "the policy reads more than the token probability" in ran.stderr.splitlines()[-1]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("policy", "sure"), WALKS)
def test_the_graph_ends_with_the_answer_that_the_policy_accepts(
    policy: Policy, sure: Mapping[str, float | None]
) -> None:
    pytest.importorskip("langgraph", reason="LangGraph is not installed: pip install langgraph")
    from langchain_core.language_models import FakeListChatModel

    cascade = runpy.run_path(str(EXAMPLES / "langchain_cascade.py"))["cascade"]
    models = {tier.name: FakeListChatModel(responses=[f"{tier.name} answers"]) for tier in policy.tiers}
    called, accepted = replies(policy, "why?", sure)
    state = cascade(policy, models, {name: lambda *_, value=value: value for name, value in sure.items()}).invoke(
        {"question": "why?"}
    )
    assert state["answers"] == {tier: f"{tier} answers" for tier in called}
    assert state["answer"] == (accepted and f"{accepted} answers")


@pytest.mark.parametrize("name", ["policy", "votes", "signals"])
def test_the_graph_refuses_a_policy_that_reads_what_it_cannot(name: str) -> None:
    pytest.importorskip("langgraph", reason="LangGraph is not installed: pip install langgraph")
    cascade = runpy.run_path(str(EXAMPLES / "langchain_cascade.py"))["cascade"]
    policy = load_policy(ROOT / "tests" / "golden" / f"{name}.json")
    known = {reading.name: lambda *_: 0.5 for tier in policy.tiers for reading in tier.readings}
    known.pop("judge", None)
    with pytest.raises(ValueError, match="nothing here reads"):
        cascade(policy, {}, known)
