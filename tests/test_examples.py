"""The examples route as their policies say, offline, against models that are not there."""

from __future__ import annotations

import json
import math
import os
import runpy
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from metaverify.policies.actions import Accept
from metaverify.policies.file import load_policy, save_policy

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


@pytest.mark.filterwarnings("ignore")  # of the client's own dependencies
def test_the_openai_client_escalates_where_the_policy_does(gateway: str, tmp_path: Path) -> None:
    pytest.importorskip("openai", reason="the plain OpenAI client is not installed: pip install openai")
    save_policy(DEAR, tmp_path / "policy.json")
    known = {"OPENAI_API_KEY": "none", "OPENAI_BASE_URL": gateway, "PYTHONPATH": str(ROOT)}
    for sure, tier in (("0.9", "small"), ("0.3", "large")):
        command = [sys.executable, EXAMPLES / "openai_client.py", tmp_path / "policy.json", sure]
        ran = subprocess.run(command, env={**os.environ, **known}, capture_output=True, text=True)
        assert (ran.returncode, ran.stdout) == (0, f"{tier} says {sure}\n"), ran.stderr


@pytest.mark.filterwarnings("ignore")
def test_the_graph_escalates_where_the_policy_does() -> None:
    pytest.importorskip("langgraph", reason="LangGraph is not installed: pip install langgraph")
    from langchain_core.language_models import FakeListChatModel

    cascade = runpy.run_path(str(EXAMPLES / "langchain_cascade.py"))["cascade"]
    models = {tier.name: FakeListChatModel(responses=[f"{tier.name} answers"]) for tier in DEAR.tiers}
    for sure, called in ((0.9, ["small"]), (0.3, ["small", "large"]), (None, ["small", "large"])):

        def confidence(question: str, answer: str, sure: Any = sure) -> Any:
            assert question == "why?"
            return sure if answer == "small answers" else None

        state = cascade(DEAR, models, confidence).invoke({"question": "why?"})
        assert state["answers"] == {tier: f"{tier} answers" for tier in called}
        assert DEAR.decide(state["readings"], key="why?") == Accept(called[-1])
