"""Verdicts over HTTP: what a policy says of an answer, for gateways that can ask a server and not a library.

A server of the standard library, for the machine that the gateway runs on; what each path takes and gives is in
docs/gateways.md.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from socketserver import TCPServer
from typing import Any, NoReturn
from urllib.parse import unquote, urlsplit

from metaverify.policies.actions import Accept, Action, Call, Verify
from metaverify.policies.explain import action_json, unknown_readings
from metaverify.policies.exposition import counter
from metaverify.policies.graph import as_number
from metaverify.policies.policy import Policy
from metaverify.policies.store import PolicyStore, Snapshot

__all__ = ["BODY_LIMIT", "VerdictServer", "http_verifier", "is_loopback", "verdict_of"]

BODY_LIMIT = 1 << 20
"""Bytes of a request's body, at most."""

PATIENCE = 10.0  # seconds that a client may be silent for
KNOWN = ("readings", "context", "key", "without", "budget", "price")  # what a request to decide may say

LOUD = 60.0  # seconds between two lines on what fails

Verifier = Callable[[Mapping[str, str]], float | None]
"""The confidence in an answer, given ``question``, ``answer`` and perhaps ``context``; None where there is none.  Where
it raises it failed, and there is none either."""


class _Refusal(Exception):  # noqa: N818 - it is what is answered
    """An answer that is no verdict: a status and a sentence."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def verdict_of(
    policy: Policy,
    tier: str,
    confidence: float | None,
    *,
    context: str | Mapping[str, Any] | None = None,
    key: str | None = None,
) -> Action:
    """What follows an answer of this tier, of which no more is known than its first reading.

    Gateways that escalate by a verdict forget: tiers that the policy calls before this one count as answered and
    unread, and any other reading that it asks for as missing.  The result is `Accept`, `Abstain`, or the `Call` of
    another tier.

    Raises:
        ValueError: the policy has no such tier, or needs a key; or as `Policy.decide`.
    """
    answering = [each.name for each in policy.tiers if each.answer]
    if tier not in answering:
        raise ValueError(f"{tier!r} is not one of the tiers {', '.join(answering)}")
    earlier = answering[: answering.index(tier)]
    first = next((reading.name for each in policy.tiers if each.name == tier for reading in each.readings[:1]), None)
    readings: dict[str, dict[str, Any]] = {tier: {} if first is None else {first: confidence}}
    while True:
        action = policy.decide(readings, context=context, key=key)
        match action:
            case Verify(of, reading):
                readings.setdefault(of, {})[reading] = None
            case Call(name) if name in earlier:
                readings[name] = {}
            case _:
                return action


def http_verifier(url: str, timeout: float = 30.0) -> Verifier:
    """A verifier that speaks as AutoMix's server in vLLM semantic-router does: POST {question, answer, context} to
    URL/verify, which answers with a ``confidence``.

    It raises OSError, HTTPException or ValueError where none is told; a confidence that is null is None.

    Raises:
        ValueError: the URL is none of HTTP.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"the verifier is {url!r}; give it as http://HOST:PORT or https://HOST")

    def verify(asked: Mapping[str, str]) -> float | None:
        body = json.dumps({**asked, "threshold": 0.5}).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{url.rstrip('/')}/verify", body, headers)
        with urllib.request.urlopen(request, timeout=timeout) as reply:
            told = json.loads(reply.read(BODY_LIMIT))
        if not isinstance(told, dict) or "confidence" not in told:
            raise ValueError("what it tells has no confidence")
        number = as_number(told["confidence"])
        if number is None and told["confidence"] is not None:
            raise ValueError("the confidence that it tells is no number")
        return number

    return verify


def is_loopback(host: str) -> bool:
    """Whether an address is one that only this machine can reach."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class VerdictServer(ThreadingHTTPServer):
    """Serves the verdicts of the policy in a store; `serve_forever` runs it, `shutdown` ends that.

    Clients that come at once wait in the kernel's queue, and beyond so many threads there.  Beyond half of them
    a connection ends with its reply, so that idle ones never hold all.

    Args:
        store: the policy, taken up anew when its file changes.
        host: where to listen.
        port: where to listen; 0 is any that is free (see ``server_address``).
        verifier: what is asked for the confidence in an answer where the gateway does not know it.
        allow_remote: whether other machines may ask.
        threads: connections served at a time, at most.

    Raises:
        ValueError: other machines could ask, and may not.
        OSError: the port is taken.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 1024  # connections that nobody has taken yet

    def __init__(
        self,
        store: PolicyStore,
        host: str = "127.0.0.1",
        port: int = 8900,
        *,
        verifier: Verifier | None = None,
        allow_remote: bool = False,
        threads: int = 256,
    ) -> None:
        if not (allow_remote or is_loopback(host)):
            raise ValueError(
                f"{host} can be reached from other machines, and whoever reaches the port can ask; listen on 127.0.0.1,"
                " or say --allow-remote where the network is your own"
            )
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.store = store
        self.verifier = verifier
        self._counts: Counter[str] = Counter()
        self._verified: Counter[str] = Counter()
        self._loud = -LOUD  # when a failure of the verifier was last told
        self._lock = threading.Lock()
        self._free = threading.Semaphore(threads)
        self._most, self._serving = threads, 0
        super().__init__((host, port), _Handler)

    def server_bind(self) -> None:
        """Take the port, without asking any network what the host is called."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a thread, once there is one for it."""
        self._free.acquire()
        with self._lock:
            self._serving += 1
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._served()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a connection, and leave its thread to the next."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._served()

    def _served(self) -> None:
        with self._lock:
            self._serving -= 1
        self._free.release()

    @property
    def crowded(self) -> bool:
        """Whether more than half of the threads serve."""
        return 2 * self._serving > self._most

    def count(self, what: str) -> None:
        """Count a verdict, or a request that got none."""
        with self._lock:
            self._counts[what] += 1

    def confidence(self, asked: Mapping[str, str]) -> float | None:
        """The verifier's confidence in an answer; None where it has none or fails, which is counted and told."""
        if self.verifier is None:
            raise _Refusal(501, "nobody knows the confidence in an answer; start the server with --verifier URL")
        told, fault, known = None, None, False
        try:
            told = self.verifier(asked)
            known = told is not None and 0.0 <= told <= 1.0
        except Exception as error:  # whatever it is, the reading is missing
            fault = f"{type(error).__name__}: {error}"
        now = time.monotonic()
        with self._lock:
            self._verified["read" if known else "missing" if fault is None else "failed"] += 1
            failed, loud = self._verified["failed"], fault is not None and now - self._loud >= LOUD
            self._loud = now if loud else self._loud
        if loud:
            what = f"the verifier failed, {failed:,} times by now, and its reading is missing: {fault}"
            print(f"metaverify: {what}", file=sys.stderr, flush=True)
        return told if known else None

    def prometheus(self) -> str:
        """What was said, and the state of the policy, in Prometheus' text format."""
        with self._lock:
            counts, verified = dict(sorted(self._counts.items())), dict(sorted(self._verified.items()))
        return "".join(
            [
                counter("verdicts_total", "Requests, by what was answered.", counts, "verdict"),
                counter("verifications_total", "Answers that the verifier was asked for.", verified, "outcome"),
                self.store.prometheus(),
            ]
        )


class _Handler(BaseHTTPRequestHandler):
    server: VerdictServer
    timeout = PATIENCE
    wbufsize = -1  # head and body in one packet: the second would wait for the first to be acknowledged
    protocol_version = "HTTP/1.1"
    server_version = "metaverify"
    sys_version = ""

    def log_message(self, *_: object) -> None:
        """Say nothing: what a request holds is nobody else's business; /metrics has the counts."""

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if path in ("/healthz", "/health"):
            health = self.server.store.health()
            self._send(
                200, {"policy": health.id, "serial": health.serial, "expired": health.expired, "error": health.error}
            )
        elif path == "/metrics":
            self._write(200, self.server.prometheus().encode(), "text/plain; version=0.0.4; charset=utf-8")
        else:
            self._send(404, {"error": f"nothing is at {path[:80]}"})

    def do_POST(self) -> None:
        try:
            body = self._body()
            snapshot = self.server.store.snapshot()
            what, told = self._answer(snapshot, body)
        except _Refusal as refusal:
            self.server.count("refused")
            self._send(refusal.status, {"error": str(refusal)})
            return
        except (ValueError, TypeError) as error:  # of the policy, about what the request says
            self.server.count("refused")
            self._send(400, {"error": str(error)})
            return
        except Exception as error:  # a reply all the same
            self.server.count("failed")
            self.close_connection = True
            self._send(500, {"error": f"{type(error).__name__}, which should not be"})
            raise
        self.server.count(what)
        self._send(200, {**told, "policy": snapshot.id, "serial": snapshot.serial})

    def _answer(self, snapshot: Snapshot, body: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """What is counted, and what is sent."""
        match [unquote(part) for part in urlsplit(self.path).path.split("/")[1:]]:
            case ["decide"]:
                action = _decided(snapshot.policy, body)
                unknown = unknown_readings(snapshot.policy, body.get("readings", {}))
                return action_json(action)["action"], _told(action) | ({"unknown": unknown} if unknown else {})
            case ["tiers", tier, "verify"]:
                asked = {"question": _text(body, "question"), "answer": _text(body, "answer")}
                asked |= {"context": _text(body, "context")} if body.get("context") else {}
                action, read = self._judged(snapshot.policy, tier, asked, None, asked["question"])
                return _what(action), _as_vllm(action, read, body.get("threshold"))
            case ["tiers", tier, "webhook"]:
                asked = {"question": _said(body, "request"), "answer": _said(body, "response")}
                metadata = body.get("metadata")
                known = metadata if isinstance(metadata, dict) else {}
                key = str(known.get("key", asked["question"]))
                action, read = self._judged(snapshot.policy, tier, asked, known.get("context"), key)
                accepted = isinstance(action, Accept)
                return _what(action), {"verdict": accepted, "data": {**_told(action), "read": read}}
        raise _Refusal(
            404, f"nothing is at {self.path[:80]}; POST to /decide, /tiers/TIER/verify or /tiers/TIER/webhook"
        )

    def _judged(
        self, policy: Policy, tier: str, asked: Mapping[str, str], context: Any, key: str
    ) -> tuple[Action, bool]:
        """The verdict, and whether a confidence was read for it."""
        confidence = self.server.confidence(asked)
        label = context if isinstance(context, str) and context else None
        return verdict_of(policy, tier, confidence, context=label, key=key), confidence is not None

    def _body(self) -> dict[str, Any]:
        """The JSON object that was sent, read in bounds."""
        length = self.headers.get("Content-Length")
        if length is None or self.headers.get("Transfer-Encoding"):
            self._refuse(411, "say how long the body is in Content-Length")
        if not (length.isascii() and length.isdigit()):
            self._refuse(400, f"Content-Length is {length[:20]!r}, not a whole number")
        if len(length) > 12 or int(length) > BODY_LIMIT:
            self._refuse(413, f"the body is larger than {BODY_LIMIT:,} bytes")
        if self.headers.get_content_type() != "application/json":
            self._refuse(415, "say Content-Type: application/json; a page in a browser may not do so without leave")
        data = self.rfile.read(int(length))
        try:
            body = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise _Refusal(400, f"the body is no JSON: {error}") from None
        if not isinstance(body, dict):
            raise _Refusal(400, "the body is no JSON object")
        return body

    def _refuse(self, status: int, message: str) -> NoReturn:
        """Refuse what was not read: what follows it on the connection cannot be told from it."""
        self.close_connection = True
        raise _Refusal(status, message)

    def _send(self, status: int, told: Mapping[str, Any]) -> None:
        self._write(status, json.dumps(told).encode(), "application/json")

    def _write(self, status: int, data: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.close_connection = self.close_connection or self.server.crowded
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(data)


def _decided(policy: Policy, body: Mapping[str, Any]) -> Action:
    """The decision that a body asks for."""
    for name in body:
        if name not in KNOWN:
            raise _Refusal(400, f"{name[:40]!r} is not one of {', '.join(KNOWN)}")
    readings, without = body.get("readings", {}), body.get("without", [])
    if not isinstance(readings, dict):
        raise _Refusal(400, "readings is no object: tier to confidence, or to {reading: confidence}")
    if not isinstance(without, list) or not all(isinstance(name, str) for name in without):
        raise _Refusal(400, "without is no list of tiers")
    dial = {name: body[name] for name in ("budget", "price") if body.get(name) is not None}
    for name, value in dial.items():
        if not _is_finite(value):
            raise _Refusal(400, f"{name} is {str(value)[:40]!r}, not a number")
    key = body.get("key")
    if key is not None and type(key) not in (str, int):
        raise _Refusal(400, "key is neither text nor a whole number")
    policy = (policy.at(**dial) if dial else policy).without(*without)
    return policy.decide(readings, context=body.get("context"), key=key)


def _told(action: Action) -> dict[str, Any]:
    """An action, and whether it means that the answer in hand is not to be returned."""
    return {**action_json(action), "escalate": _what(action) == "escalate"}


def _what(action: Action) -> str:
    """What an action is to a gateway."""
    return "accept" if isinstance(action, Accept) else "verify" if isinstance(action, Verify) else "escalate"


def _is_finite(value: Any) -> bool:
    """Whether a value of JSON is a number that a float can hold."""
    return type(value) in (int, float) and abs(value) <= sys.float_info.max


def _as_vllm(action: Action, read: bool, threshold: Any) -> dict[str, Any]:
    """A verdict as AutoMix's verifier in vLLM semantic-router tells it: accepted is a confidence of 1, and 0 is not.

    No sample is one that was not read.
    """
    accepted = isinstance(action, Accept)
    return {
        "confidence": float(accepted),
        "should_escalate": not accepted,
        "verified_count": int(accepted and read),
        "total_samples": int(read),
        "samples": [],
        "threshold": threshold if _is_finite(threshold) else 0.5,
    }


def _text(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str):
        raise _Refusal(400, f"{name} is {'missing' if value is None else 'no text'}")
    return value


def _said(body: Mapping[str, Any], side: str) -> str:
    """What the user asked last, or what the model answered, in a webhook of Portkey's."""
    found = body.get(side)
    text = found.get("text") if isinstance(found, dict) else None
    if not isinstance(text, str) or not text:
        raise _Refusal(400, f"{side}.text is missing: give the webhook to an output guardrail")
    return text
