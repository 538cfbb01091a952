"""Each verifier yields the confidence that its definition says, at the price of the calls that it made."""

from __future__ import annotations

import asyncio
import json
import math
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaverify.policies.integrations.models import Model, Request, answer_text, is_empty
from metaverify.policies.integrations.verifiers import (
    VERIFIERS,
    AnswerProbability,
    HTTPVerifier,
    Judge,
    PTrue,
    SelfConsistency,
    SelfVerification,
    find_verifier,
)
from metaverify.policies.router import Look
from tests.policies.strategies import examples

REQUEST = Request([{"role": "user", "content": "How many legs has a spider?"}], {"temperature": 0.1, "seed": 4})


def response(text: str | None = "Eight.", cost: float | None = 1.0, tokens: Any = None, **more: Any) -> Any:
    """What LiteLLM returns, as far as verifiers look."""
    message = SimpleNamespace(content=text, tool_calls=None, **more)
    message.model_dump = lambda exclude_none: {"role": "assistant", "content": text}
    logprobs = None if tokens is None else SimpleNamespace(content=tokens)
    choice = SimpleNamespace(message=message, logprobs=logprobs)
    return SimpleNamespace(choices=[choice], _hidden_params={"response_cost": cost})


class Scripted(Model):
    """A model that says one thing after the other; what is an exception is raised."""

    def __init__(self, says: list[Any], dollars: float = 1.0) -> None:
        super().__init__("small", {"model": "none"}, dollars)
        object.__setattr__(self, "says", iter(says))
        object.__setattr__(self, "asked", [])

    async def complete(self, messages: Any, **params: Any) -> Any:
        self.asked.append((messages, params))  # type: ignore[attr-defined]
        said = next(self.says)  # type: ignore[attr-defined]
        if isinstance(said, Exception):
            raise said
        return said if isinstance(said, SimpleNamespace) else response(said)


def read(verifier: Any, tier: Model, answer: Any = None, request: Request = REQUEST) -> Look:
    return asyncio.run(verifier(tier, request, answer or response()))  # type: ignore[no-any-return]


def token(logprob: float, **top: float) -> Any:
    others = [SimpleNamespace(token=word.replace("_", " "), logprob=math.log(p)) for word, p in top.items()]
    return SimpleNamespace(logprob=logprob, top_logprobs=others)


@examples(50)
@given(shares=st.lists(st.floats(0.01, 1.0), min_size=1, max_size=20))
def test_answer_probability_is_the_geometric_mean_or_the_least(shares: list[float]) -> None:
    answer = response(tokens=[token(math.log(p)) for p in shares])
    mean = AnswerProbability()(Scripted([]), REQUEST, answer)
    assert mean.confidence == pytest.approx(math.prod(shares) ** (1 / len(shares)))
    least = AnswerProbability("min")(Scripted([]), REQUEST, answer)
    assert least.confidence == pytest.approx(min(shares))
    assert (mean.cost, least.cost) == (0.0, 0.0)


def test_without_log_probabilities_there_is_no_answer_probability() -> None:
    assert AnswerProbability()(Scripted([]), REQUEST, response()).confidence is None
    assert AnswerProbability()(Scripted([]), REQUEST, response(tokens=[])).confidence is None


def test_self_verification_is_the_share_of_the_votes_that_can_be_read() -> None:
    says = ["Decision: correct", "Check: no.\nDecision: Incorrect", "I cannot say", OSError(), "Decision: CORRECT"]
    tier = Scripted(says, dollars=0.5)
    look = read(SelfVerification(k=5), tier)
    assert look.confidence == pytest.approx(2 / 3)
    assert look.cost == 8.0  # four calls that came, of a dollar each
    messages, params = tier.asked[0]  # type: ignore[attr-defined]
    assert [message["role"] for message in messages] == ["user", "assistant", "user"]
    assert messages[1]["content"] == "Eight."
    assert params == {"temperature": 0.7, "max_tokens": 256}


def test_what_is_thought_before_the_decision_is_no_vote() -> None:
    assert read(SelfVerification(k=1), Scripted(["At first I thought correct. Decision: incorrect"])).confidence == 0.0


def test_votes_come_one_by_one() -> None:
    verifier, tier = SelfVerification(), Scripted(["Decision: correct", "Decision: incorrect", "?"])
    votes = [asyncio.run(verifier.vote(tier, REQUEST, response())) for _ in range(3)]
    assert [(vote.confidence, vote.cost) for vote in votes] == [(1.0, 1.0), (0.0, 1.0), (None, 1.0)]


@pytest.mark.parametrize("verifier", [SelfVerification(k=2), SelfConsistency(k=2)])
def test_where_all_calls_fail_so_does_the_verifier(verifier: Any) -> None:
    with pytest.raises(OSError, match="first"):
        read(verifier, Scripted([OSError("first"), OSError("second")]))


def test_a_price_that_is_not_known_makes_the_sum_unknown() -> None:
    says = [response("Decision: correct"), response("Decision: correct", cost=None)]
    assert read(SelfVerification(k=2), Scripted(says)).cost is None


@pytest.mark.parametrize(
    ("top", "confidence"),
    [
        ({"True": 0.6, "False": 0.2}, 0.75),
        ({"True": 0.5, "_true": 0.1, "false": 0.2, "Maybe": 0.2}, 0.75),
        ({"False": 0.9}, 0.0),
        ({"Maybe": 1.0}, None),
        ({}, None),
    ],
)
def test_p_true_is_the_share_of_true_among_both(top: dict[str, float], confidence: float | None) -> None:
    tier = Scripted([response("True", tokens=[token(-0.1, **top), token(-0.1, False_=1.0)])])
    look = read(PTrue(), tier)
    assert look.confidence == (None if confidence is None else pytest.approx(confidence))
    assert look.cost == 1.0
    params = tier.asked[0][1]  # type: ignore[attr-defined]
    assert params == {"temperature": 0.0, "max_tokens": 1, "logprobs": True, "top_logprobs": 5}


def test_self_consistency_is_the_share_of_samples_that_say_the_same() -> None:
    tier = Scripted(["eight", " EIGHT!", "six", ValueError(), "Eight. Legs."])
    look = read(SelfConsistency(k=5), tier)
    assert (look.confidence, look.cost) == (0.5, 4.0)
    messages, params = tier.asked[0]  # type: ignore[attr-defined]
    assert messages == REQUEST.messages
    assert params == {"temperature": 0.7, "seed": 4, "n": 1}


def test_self_consistency_compares_what_its_pattern_finds() -> None:
    tier = Scripted(["Six? No: the answer is eight.", "The answer is six. Or not: the answer is 8", "eight"])
    look = read(SelfConsistency(k=3, pattern=r"answer is (\w+)"), tier, response("I think the answer is Eight"))
    assert look.confidence == pytest.approx(1 / 3)


def test_an_answer_without_text_has_no_consistency() -> None:
    assert read(SelfConsistency(), Scripted([]), response(None)) == Look(None, 0.0)


@pytest.mark.parametrize(
    ("said", "confidence"),
    [
        *[("85", 0.85), ("Grade: 7.5", 0.075), ("0", 0.0), ("100%", 1.0), ("101", None), ("-5", None), ("fine", None)],
        *[("8/10", 0.8), ("**85 / 100**", 0.85), ("3 out of 4", 0.75), ("0/5", 0.0), ("11/10", None), ("0/0", None)],
    ],
)
def test_a_judges_grade_is_a_hundredth_of_its_number_or_its_fraction(said: str, confidence: float | None) -> None:
    look = read(Judge(Scripted([said])), Scripted([]))
    assert look.confidence == (None if confidence is None else pytest.approx(confidence))
    assert look.cost == 1.0


def test_a_call_of_a_tool_is_told_to_verifiers_as_text() -> None:
    call = SimpleNamespace(function=SimpleNamespace(model_dump=lambda exclude_none: {"name": "look_up"}))
    answer = response(None)
    answer.choices[0].message.tool_calls = [call]
    judge = Scripted(["50"])
    assert read(Judge(judge), Scripted([]), answer).confidence == 0.5
    assert judge.asked[0][0][1] == {"role": "assistant", "content": '[{"name": "look_up"}]'}  # type: ignore[attr-defined]


# ------------------------------------------------------------------------------------------------ over HTTP


@pytest.fixture
def server() -> Iterator[Callable[[int, bytes], tuple[str, list[Any]]]]:
    """Serves one reply, and keeps what it was sent."""
    got: list[Any] = []
    servers = []

    def serve(status: int, body: bytes) -> tuple[str, list[Any]]:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                got.append(self.headers["Authorization"])
                self.send_response(status)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        made = HTTPServer(("127.0.0.1", 0), Handler)
        servers.append(made)
        threading.Thread(target=made.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{made.server_port}/score", got

    yield serve
    for one in servers:
        one.shutdown()
        one.server_close()


def test_a_verifier_behind_a_url_is_told_everything_and_says_the_confidence(server: Any) -> None:
    url, got = server(200, b'{"confidence": 0.25, "cost": 0.5}')
    look = read(HTTPVerifier(url, {"Authorization": "Bearer 1"}), Scripted([]))
    assert (look.confidence, look.cost) == (0.25, 0.5)
    said = {"role": "assistant", "content": "Eight."}
    assert got == [{"tier": "small", "messages": REQUEST.messages, "answer": said}, "Bearer 1"]


def test_a_verifier_behind_a_url_may_leave_the_price_to_the_file(server: Any) -> None:
    url, _ = server(200, b'{"confidence": null}')
    assert read(HTTPVerifier(url), Scripted([])) == Look(None, None)


@pytest.mark.parametrize(("status", "body"), [(500, b"{}"), (200, b"[]"), (200, b"no json"), (200, b"{}")])
def test_any_other_reply_is_a_failure(server: Any, status: int, body: bytes) -> None:
    url, _ = server(status, body)
    with pytest.raises((OSError, ValueError, KeyError, TypeError)):
        read(HTTPVerifier(url), Scripted([]))


def test_silence_is_a_failure(server: Any) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        with pytest.raises(TimeoutError):
            read(HTTPVerifier(url, timeout=0.05), Scripted([]))


# --------------------------------------------------------------------------------------------- by their names


def test_verifiers_are_found_by_name_or_where_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "verifiers_of_ours.py").write_text(
        "class Ours:\n    def __init__(self, weight=1.0): self.weight = weight\n    def __call__(self, *_): ...\n"
        "def plain(tier, request, answer, weight=1.0): return weight\n"
        "nothing = 4\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert find_verifier("self_verification", {"k": 3}) == SelfVerification(k=3)
    assert find_verifier("verifiers_of_ours:Ours", {"weight": 2.0}).weight == 2.0  # type: ignore[attr-defined]
    assert find_verifier("verifiers_of_ours:plain")(Scripted([]), REQUEST, None) == 1.0
    assert find_verifier("verifiers_of_ours:plain", {"weight": 2.0})(Scripted([]), REQUEST, None) == 2.0
    with pytest.raises(ValueError, match="is 4, which cannot be called"):
        find_verifier("verifiers_of_ours:nothing")


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("self_verifcation", {}, r"is none of .*; did you mean 'self_verification'\?"),
        ("nowhere:verify", {}, "'nowhere:verify' cannot be imported: No module named 'nowhere'"),
        ("json:verify", {}, "'json:verify' cannot be imported: module 'json' has no attribute 'verify'"),
        ("self_verification", {"k": 0}, "k is 0; give a whole number of at least 1"),
        ("self_verification", {"votes": 4}, "unexpected keyword argument 'votes'"),
        ("answer_probability", {"aggregate": "median"}, 'aggregate is \'median\'; give "mean" or "min"'),
        ("self_consistency", {"pattern": "("}, "is no regular expression"),
        ("self_consistency", {"pattern": "a"}, "has no group; put what is compared in brackets"),
        ("judge", {}, "missing 1 required positional argument: 'model'"),
        ("http", {"url": "file:///etc/passwd"}, "give one that begins with http:// or https://"),
    ],
)
def test_what_is_no_verifier_is_refused(name: str, params: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        find_verifier(name, params)


def test_each_verifier_says_what_it_yields_and_what_it_costs() -> None:
    for verifier in VERIFIERS.values():
        told = verifier.__doc__ or ""
        assert "Confidence:" in told
        assert "Price:" in told
        assert "issing" in told


# ---------------------------------------------------------------------------------------------- models


def test_what_a_response_cost_is_told_in_the_policys_unit() -> None:
    model = Model("small", {"model": "none"}, dollars=0.001)
    told: list[Any] = [0.005, 0, None, float("nan"), "much"]
    assert [model.cost(response(cost=cost)) for cost in told] == [5.0, 0.0, None, None, None]


@pytest.mark.parametrize(
    ("text", "more", "empty"),
    [
        ("yes", {}, False),
        ("  ", {}, True),
        (None, {}, True),
        (None, {"audio": object()}, False),
        (None, {"refusal": "I will not."}, False),
        (None, {"function_call": object()}, False),
        ([{"type": "text"}], {}, False),
    ],
)
def test_what_says_nothing_is_empty(text: Any, more: dict[str, Any], empty: bool) -> None:
    assert is_empty(response(text, **more)) is empty
    assert answer_text(response(text)) == (text if isinstance(text, str) else "")


def test_a_response_without_choices_is_empty() -> None:
    assert is_empty(SimpleNamespace(choices=[]))


def test_a_models_key_is_not_shown() -> None:
    assert "secret" not in repr(Model("small", {"model": "a/b", "api_key": "secret"}))
