"""Verdicts over HTTP: what the server says is what the policy says, and what it cannot use it refuses."""

from __future__ import annotations

import http.client
import json
import math
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from metaverify.policies.actions import Abstain, Accept, Call
from metaverify.policies.explain import action_json
from metaverify.policies.file import load_policy, policy_id, save_policy
from metaverify.policies.store import PolicyStore
from metaverify.verdict import BODY_LIMIT, VerdictServer, Verifier, http_verifier, is_loopback, verdict_of

GOLDEN = Path(__file__).resolve().parent / "golden"


@contextmanager
def serving(path: Path, verifier: Verifier | None = None) -> Iterator[VerdictServer]:
    with VerdictServer(PolicyStore(path, every=0.0), port=0, verifier=verifier) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


JSON = {"Content-Type": "application/json; charset=utf-8"}


def ask(server: VerdictServer, path: str, body: Any = None, headers: Mapping[str, str] = JSON) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=5)
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    connection.request("GET" if body is None else "POST", path, data, dict(headers))
    reply = connection.getresponse()
    text = reply.read().decode()
    connection.close()
    return reply.status, json.loads(text) if reply.headers["Content-Type"] == "application/json" else text


@pytest.mark.parametrize("name", ["policy", "signals", "votes", "numbers", "scores", "outages"])
def test_decide_says_what_every_golden_case_says(name: str) -> None:
    cases = {"policy": "decisions"}.get(name, name)
    with serving(GOLDEN / f"{name}.json") as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=5)
        for line in (GOLDEN / f"{cases}.jsonl").read_text("utf-8").splitlines()[::7]:
            case = json.loads(line)
            wanted = case.pop("action")
            connection.request("POST", "/decide", json.dumps(case), JSON)
            reply = connection.getresponse()
            told = json.loads(reply.read())
            assert reply.status == 200
            assert wanted.items() <= told.items()
            assert "unknown" not in told
            assert told["escalate"] == (wanted["action"] in ("call", "abstain"))
            assert (told["policy"], told["serial"]) == (server.store.health().id, server.store.health().serial)
        connection.close()


def test_the_dial_turns_with_a_request() -> None:
    policy = load_policy(GOLDEN / "spread.json")
    with serving(GOLDEN / "spread.json") as server:
        for budget in (1.0, 5.5):
            wanted = policy.at(budget=budget).decide({"small": {}})
            status, told = ask(server, "/decide", {"readings": {"small": {}}, "budget": budget})
            assert status == 200
            assert action_json(wanted).items() <= told.items()


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("/decide", b"{", 400, "no JSON"),
        ("/decide", b"[]", 400, "no JSON object"),
        ("/decide", b"\xff", 400, "no JSON"),
        ("/decide", b"[" * 200_000, 400, "no JSON"),
        ("/decide", {"reading": {}}, 400, "'reading' is not one of readings, context"),
        ("/decide", {"readings": []}, 400, "readings is no object"),
        ("/decide", {"readings": {"smal": {}}, "key": 1}, 400, "did you mean 'small'"),
        ("/decide", {"readings": {"small": "0.5"}, "key": 1}, 400, "not a number or None"),
        ("/decide", {"readings": {}}, 400, "pass key="),
        ("/decide", {"readings": {}, "key": 1.5}, 400, "key is neither"),
        ("/decide", {"readings": {}, "key": 1, "context": 7}, 400, "neither a label nor"),
        ("/decide", {"readings": {}, "key": 1, "without": "large"}, 400, "without is no list"),
        ("/decide", {"readings": {}, "key": 1, "without": ["large"]}, 400, "was not solved for"),
        ("/decide", {"readings": {}, "key": 1, "budget": "3"}, 400, "budget is '3'"),
        ("/decide", {"readings": {}, "key": 1, "budget": 0.1}, 400, "E_BUDGET"),
        ("/else", {}, 404, "nothing is at /else"),
        ("/tiers/small/verify", {"question": "q"}, 400, "answer is missing"),
        ("/tiers/small/verify", {"question": "q", "answer": "a"}, 501, "--verifier"),
        ("/tiers/small/webhook", {"request": {"text": "q"}}, 400, "response.text is missing"),
    ],
)
def test_what_cannot_be_used_is_refused_and_counted(path: str, body: Any, status: int, words: str) -> None:
    with serving(GOLDEN / "policy.json") as server:
        found, told = ask(server, path, body)
        assert (found, list(told)) == (status, ["error"])
        assert words in told["error"]
        assert 'verdicts_total{verdict="refused"} 1' in ask(server, "/metrics")[1]


def test_a_body_without_a_length_or_too_large_is_not_read() -> None:
    def raw(port: int, head: str) -> bytes:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(f"POST /decide HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n".encode())
            parts = []
            while part := connection.recv(1 << 16):
                parts.append(part)
            return b"".join(parts)

    with serving(GOLDEN / "spread.json") as server:
        port = server.server_address[1]
        assert b"411" in raw(port, "Accept: */*").splitlines()[0]
        assert b"411" in raw(port, "Transfer-Encoding: chunked\r\nContent-Length: 2").splitlines()[0]
        assert b"413" in raw(port, f"Content-Length: {BODY_LIMIT + 1}").splitlines()[0]
        assert b"413" in raw(port, f"Content-Length: {'9' * 400}").splitlines()[0]
        assert b"400" in raw(port, "Content-Length: -1").splitlines()[0]


def fixed(confidence: float | None, heard: list[Mapping[str, str]] | None = None) -> Verifier:
    def verify(asked: Mapping[str, str]) -> float | None:
        if heard is not None:
            heard.append(asked)
        return confidence

    return verify


@pytest.mark.parametrize(("confidence", "accepted"), [(0.49, False), (0.5, True), (1.0, True), (None, False)])
def test_the_verifier_of_vllm_semantic_router_is_told_accepted_or_not(
    confidence: float | None, accepted: bool, tmp_path: Path
) -> None:
    save_policy(load_policy(GOLDEN / "spread.json").at(budget=5.5), tmp_path / "p.json")
    heard: list[Mapping[str, str]] = []
    with serving(tmp_path / "p.json", fixed(confidence, heard)) as server:
        body = {"question": "2+2?", "answer": "4", "threshold": 0.7, "context": "sums"}
        status, told = ask(server, "/tiers/small/verify", body)
        assert heard == [{"question": "2+2?", "answer": "4", "context": "sums"}]
        assert status == 200
        assert told["confidence"] == float(accepted)  # on either side of every threshold
        assert told["should_escalate"] is not accepted
        assert told["threshold"] == 0.7
        assert {"verified_count", "total_samples", "samples"} < told.keys()
        assert ask(server, "/tiers/large/verify", body)[1]["confidence"] == 1.0  # nothing is beyond it


def test_a_webhook_of_portkey_is_told_its_verdict_by_key_and_context() -> None:
    policy = load_policy(GOLDEN / "policy.json")
    with serving(GOLDEN / "policy.json", fixed(0.6)) as server:
        for key, context in [("request-1", None), ("request-2", None), ("request-7", "code"), ("request-3", "code")]:
            metadata = {"key": key} | ({"context": context} if context else {})
            body = {"request": {"text": "q"}, "response": {"text": "a"}, "metadata": metadata}
            _, told = ask(server, "/tiers/small/webhook", body)
            wanted = verdict_of(policy, "small", 0.6, context=context, key=key)
            assert told["verdict"] is isinstance(wanted, Accept)
            assert action_json(wanted).items() <= told["data"].items()


def test_a_verdict_forgets_what_the_gateway_does_not_know() -> None:
    policy = load_policy(GOLDEN / "policy.json")
    low, high = policy.at(budget=3.0), policy.at(budget=11.0)
    assert verdict_of(low, "small", 0.5) == Accept("small")
    assert verdict_of(low, "small", 0.4) == Call("medium")
    assert verdict_of(low, "small", None) == Call("medium")
    assert verdict_of(low, "medium", 0.4) == Accept("medium")
    assert verdict_of(low, "medium", 0.3) == Call("large")
    assert verdict_of(low, "large", None) == Accept("large")
    assert verdict_of(high, "small", 0.5) == Call("large")  # the judge, whom nobody can ask, is missing
    assert verdict_of(low, "small", None, context="résumé") == Abstain()
    with pytest.raises(ValueError, match="'smal' is not one of the tiers small, medium, large"):
        verdict_of(low, "smal", 0.5)


def test_a_new_policy_is_taken_up_and_a_bad_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    first = load_policy(GOLDEN / "spread.json")
    save_policy(first.at(budget=1.0), path)
    with serving(path) as server:
        assert ask(server, "/decide", {"readings": {"small": {}}})[1]["action"] == "accept"
        second = replace(first.at(budget=5.5), serial=2)
        save_policy(second, path)
        told = ask(server, "/decide", {"readings": {"small": {}}})[1]
        assert (told["action"], told["policy"], told["serial"]) == ("verify", policy_id(second), 2)
        path.write_text("{")
        assert ask(server, "/decide", {"readings": {"small": {}}})[1]["policy"] == policy_id(second)
        status, health = ask(server, "/healthz")
        assert (status, health["policy"], health["serial"]) == (200, policy_id(second), 2)
        assert "E_DEPTH" in health["error"] or "E_SYNTAX" in health["error"]
        metrics = ask(server, "/metrics")[1]
        assert 'metaverify_verdicts_total{verdict="accept"} 1' in metrics
        assert "metaverify_policy_serial 2" in metrics


def test_a_page_in_a_browser_cannot_ask_for_verdicts() -> None:
    with serving(GOLDEN / "spread.json") as server:
        for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
            status, told = ask(server, "/decide", {"readings": {}, "key": 1}, {"Content-Type": kind})
            assert (status, list(told)) == (415, ["error"])
        assert ask(server, "/decide", {"readings": {}, "key": 1})[0] == 200


def test_it_listens_on_ipv6_too() -> None:
    if not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    try:
        with VerdictServer(PolicyStore(GOLDEN / "spread.json"), "::1", 0) as server:
            assert server.server_address[0] == "::1"
            assert server.server_port > 0
    except OSError as error:
        pytest.skip(f"this machine has no IPv6 loopback: {error}")


def test_other_machines_may_ask_only_where_that_is_said() -> None:
    store = PolicyStore(GOLDEN / "spread.json")
    for host in ("0.0.0.0", "192.0.2.1", "example.com", ""):
        assert not is_loopback(host)
        with pytest.raises(ValueError, match="--allow-remote"):
            VerdictServer(store, host, 0)
    assert all(map(is_loopback, ("127.0.0.1", "127.9.9.9", "::1", "localhost")))


@pytest.fixture
def upstream() -> Iterator[tuple[str, list[Any]]]:
    """A verifier that answers with whatever the question is."""
    heard: list[Any] = []

    class Upstream(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            heard.append((self.path, body))
            data = body["question"].encode()
            self.send_response(500 if body["question"] == "fail" else 200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Upstream) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/", heard
        server.shutdown()
        thread.join()


def test_a_verifier_that_fails_has_no_confidence(upstream: tuple[str, list[Any]]) -> None:
    url, heard = upstream
    verify = http_verifier(url, 5.0)
    assert verify({"question": '{"confidence": 0.75}', "answer": "a"}) == 0.75
    assert heard == [("/verify", {"question": '{"confidence": 0.75}', "answer": "a", "threshold": 0.5})]
    assert verify({"question": '{"confidence": null}', "answer": "a"}) is None
    assert math.isnan(verify({"question": '{"confidence": NaN}', "answer": "a"}) or 0.0)
    for said in ("fail", "{", "[]", "{}", '{"confidence": "0.5"}', '{"confidence": true}'):
        with pytest.raises((OSError, ValueError)):
            verify({"question": said, "answer": "a"})
    with pytest.raises(OSError, match="refused"):
        http_verifier("http://127.0.0.1:1", 0.5)({"question": "q", "answer": "a"})


@pytest.mark.parametrize("url", ["file:///etc/passwd", "127.0.0.1:8800", "localhost", "ftp://host/", "http://", ""])
def test_a_verifier_is_asked_over_http_and_nothing_else(url: str) -> None:
    with pytest.raises(ValueError, match="give it as http"):
        http_verifier(url)


def test_what_the_verifier_fails_to_tell_is_missing_and_is_counted_and_told(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    told: list[Any] = [0.9, None, 5.0, math.nan, OSError("gone away"), "0.9", RuntimeError("again")]

    def verify(_: Mapping[str, str]) -> float | None:
        answer = told.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer  # type: ignore[no-any-return]

    policy = load_policy(GOLDEN / "spread.json").at(budget=5.5)
    save_policy(policy, tmp_path / "p.json")
    unread = verdict_of(policy, "small", None)
    with serving(tmp_path / "p.json", verify) as server:
        replies = [ask(server, "/tiers/small/verify", {"question": "q", "answer": "a"})[1] for _ in range(7)]
        assert (replies[0]["confidence"], replies[0]["total_samples"], replies[0]["verified_count"]) == (1.0, 1, 1)
        for reply in replies[1:]:  # what the policy does without the reading, and that it was not read
            assert reply["should_escalate"] is not isinstance(unread, Accept)
            assert (reply["total_samples"], reply["verified_count"]) == (0, 0)
        metrics = ask(server, "/metrics")[1]
    for outcome, times in (("read", 1), ("missing", 3), ("failed", 3)):
        assert f'metaverify_verifications_total{{outcome="{outcome}"}} {times}\n' in metrics
    err = capfd.readouterr().err.splitlines()  # not a line for each
    assert err == ["metaverify: the verifier failed, 1 times by now, and its reading is missing: OSError: gone away"]


def test_a_webhook_is_told_whether_a_confidence_was_read() -> None:
    body = {"request": {"text": "q"}, "response": {"text": "a"}, "metadata": {"key": "k"}}
    for confidence in (0.6, None):
        with serving(GOLDEN / "policy.json", fixed(confidence)) as server:
            assert ask(server, "/tiers/small/webhook", body)[1]["data"]["read"] is (confidence is not None)


@pytest.mark.parametrize("number", [b"1" + b"0" * 400, b"-1" + b"0" * 400, b"1e999", b"NaN", b"-Infinity"])
def test_numbers_beyond_all_floats_get_a_reply(number: bytes) -> None:
    with serving(GOLDEN / "policy.json", fixed(0.9)) as server:
        for name in (b"budget", b"price"):
            status, told = ask(server, "/decide", b'{"key": 1, "' + name + b'": ' + number + b"}")
            assert (status, list(told)) == (400, ["error"])
            assert f"{name.decode()} is " in told["error"]
        body = b'{"question": "q", "answer": "a", "threshold": ' + number + b"}"
        status, told = ask(server, "/tiers/large/verify", body)
        assert (status, told["threshold"]) == (200, 0.5)
        status, told = ask(server, "/decide", b'{"key": 1, "readings": {"small": ' + number + b"}}")
        wanted = load_policy(GOLDEN / "policy.json").decide({"small": None}, key=1)
        assert status == 200
        assert action_json(wanted).items() <= told.items()


def test_a_reading_that_the_policy_does_not_know_is_named() -> None:
    with serving(GOLDEN / "policy.json") as server:
        readings = {"small": {"self_verfy": 0.9, "self_verify": 0.9}, "medium": 0.5}
        told = ask(server, "/decide", {"readings": readings, "key": 1})[1]
        (unknown,) = told["unknown"]
        assert unknown.startswith("reading 'self_verfy' of 'small' is not one that the policy knows")
        assert "did you mean 'self_verify'" in unknown
        del readings["small"]["self_verfy"]  # type: ignore[attr-defined]
        again = ask(server, "/decide", {"readings": readings, "key": 1})[1]
        assert again == {name: value for name, value in told.items() if name != "unknown"}


def test_whatever_goes_wrong_there_is_a_reply(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise RuntimeError("a fault of our own")

    with serving(GOLDEN / "policy.json") as server:
        monkeypatch.setattr(server.store, "snapshot", fail)
        status, told = ask(server, "/decide", {"key": 1})
        assert (status, list(told)) == (500, ["error"])
        assert 'verdicts_total{verdict="failed"} 1' in ask(server, "/metrics")[1]
    assert "a fault of our own" in capfd.readouterr().err


def asking(port: int) -> socket.socket:
    """A connection that has asked for a decision, and read nothing yet."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=5)
    body = b'{"key": 1}'
    head = f"POST /decide HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body)
    return connection


def test_a_burst_of_clients_waits_and_is_served() -> None:
    with VerdictServer(PolicyStore(GOLDEN / "policy.json"), port=0) as server:
        clients = [asking(server.server_port) for _ in range(120)]  # nobody takes them yet
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            assert {client.recv(15) for client in clients} == {b"HTTP/1.1 200 OK"}
        finally:
            for client in clients:
                client.close()
            server.shutdown()
            thread.join()


def test_no_more_connections_are_served_at_a_time_than_there_are_threads() -> None:
    busy, most, lock, full, go_on = 0, 0, threading.Lock(), threading.Event(), threading.Event()

    def verify(_: Mapping[str, str]) -> float:
        nonlocal busy, most
        with lock:
            busy += 1
            most = max(most, busy)
            if busy == 3:
                full.set()
        assert go_on.wait(5)
        with lock:
            busy -= 1
        return 0.9

    store = PolicyStore(GOLDEN / "policy.json")
    with VerdictServer(store, port=0, verifier=verify, threads=3) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        told: list[int] = []
        body = {"question": "q", "answer": "a"}
        clients = [
            threading.Thread(target=lambda: told.append(ask(server, "/tiers/large/verify", body)[0])) for _ in range(12)
        ]
        for client in clients:
            client.start()
        assert full.wait(5)
        go_on.set()
        for client in clients:
            client.join()
        server.shutdown()
        thread.join()
    assert (told, most) == ([200] * 12, 3)


def test_idle_connections_leave_threads_to_others() -> None:
    with VerdictServer(PolicyStore(GOLDEN / "policy.json"), port=0, threads=4) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        clients = [asking(server.server_port) for _ in range(20)]  # and keep the connection
        try:
            replies = [client.recv(1 << 12) for client in clients]
            assert all(reply.startswith(b"HTTP/1.1 200 OK") for reply in replies)
            assert sum(b"Connection: close" not in reply for reply in replies) <= 2
        finally:
            for client in clients:
                client.close()
            server.shutdown()
            thread.join()
