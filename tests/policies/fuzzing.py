"""Policy files under fire: ``python -m tests.policies.fuzzing 1000000`` (``make fuzz``), the same ones for a seed.

Golden files are mutated as bytes and as documents, half of them sealed anew with the id that their content has.  Each
is refused with a code, or accepted for what it says: then it is written again to the last digit, every walk through it
is proved once more from its JSON alone, and another reader decides the same.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import random
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from metaverify.policies.explain import action_json
from metaverify.policies.file import PolicyFileError, dump_policy, parse_policy
from metaverify.policies.policy import Policy

from .reader import Document, canonical, drawn, followed, identity, sealed, started

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
NAMES = ("policy", "signals", "votes", "numbers", "scores", "outages", "spread")
FILES = {name: (GOLDEN / f"{name}.json").read_bytes() for name in NAMES}
CODES = {
    *("E_EMPTY", "E_SIZE", "E_ENCODING", "E_SYNTAX", "E_DUPKEY", "E_DEPTH", "E_NUMBER", "E_NONFINITE", "E_TYPE"),
    *("E_SCHEMA", "E_NAME", "E_RANGE", "E_ACTION", "E_PROB", "E_VERSION", "E_CHECKSUM"),
}
SLOWEST = 0.05  # seconds of processor time that a file may take
TOKENS = (
    *(b"NaN", b"-Infinity", b"1e400", b"-0.0", b"1.0", b"9" * 30, b"true", b"null", b"{}", b"[]", b'""', b"\\ud800"),
    *(b"\xef\xbb\xbf", b"\x00", b"\xff", b'"id":', b'"votes":1,', b"[" * 20, b"\n", b",", b"e", b"\\u202e"),
)
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 3, 7, 10**18, 2**63, 2**64, 0.0, -0.0, 0.5, 1.0, 1.5, -0.5, 1e-320, 1e308, 4e9),
    *(math.nan, math.inf, -math.inf, "", "small", "large", "conf", "x" * 70, "\u202e", "\x00", "\ud800", "e\u0301"),
    *([], {}, [0.5], [1, 2], [[]], {"a": 1}, [None], {"accept": "small"}, {"abstain": True}),
)
KEYS = (
    "votes",
    "sample",
    "parts",
    "serial",
    "expires",
    "answer",
    "needs",
    "evidence",
    "context_cuts",
    "cost_sd",
    "outages",
    "without",
    "nodes",
    "colour",
)


# ---------------------------------------------------------------------------------------------------- mutations


def mutant(rng: random.Random) -> tuple[str, bytes]:
    """A mutated golden file, and which one it was."""
    name = rng.choice(NAMES)
    if rng.random() < 0.4:
        return name, mutated_bytes(rng, FILES[name])
    return name, mutated_document(rng, json.loads(FILES[name]))


def mutated_bytes(rng: random.Random, data: bytes) -> bytes:
    """One to three changes of bytes; the id is then put right in half of those that are still JSON."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        at = rng.randrange(len(data) + 1)
        end = min(len(data), at + rng.choice((1, 1, 2, 5, 40)))
        other = FILES[rng.choice(NAMES)]
        start = rng.randrange(len(other))
        match rng.randrange(8):
            case 0:
                data = data[:at] + bytes(byte ^ (1 << rng.randrange(8)) for byte in data[at:end][:1]) + data[at + 1 :]
            case 1:
                data = data[:at] + data[end:]
            case 2:
                data = data[:at] + data[at:end] * 2 + data[end:]
            case 3:
                data = data[:at] + rng.choice(TOKENS) + data[end:]
            case 4:
                data = data[:at] + rng.choice(TOKENS) + data[at:]
            case 5:
                data = data[:at] + other[start : start + end - at] + data[end:]
            case 6:
                data = data[:at] + bytes([rng.choice(b"0123456789")]) + data[at + 1 :]
            case 7:
                data = data[: at if rng.random() < 0.3 else None]
    return resealed(data) if rng.random() < 0.5 else data


def resealed(data: bytes) -> bytes:
    """The same bytes with the id that their content has, where they have content and an id."""
    try:
        document = json.loads(data)
        return data.replace(document["id"].encode(), identity(document).encode())
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return data


def mutated_document(rng: random.Random, document: Document) -> bytes:
    """One to three changes of the structure, sealed anew nine times in ten."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        places = places_of(document)
        if not places:
            break
        holder, key = rng.choice(places)
        value = holder[key]
        other, at = rng.choice(places)
        match rng.randrange(9):
            case 0:
                del holder[key]
            case 1:
                holder[key] = copy.deepcopy(rng.choice(VALUES))
            case 2:
                holder[key] = copy.deepcopy(other[at])
            case 3 | 4 | 5:
                holder[key] = nudged(rng, value)
            case 6 if isinstance(holder, list):
                holder.insert(key, copy.deepcopy(other[at] if rng.random() < 0.5 else value))
            case 6:
                holder[rng.choice(KEYS)] = copy.deepcopy(rng.choice(VALUES) if rng.random() < 0.5 else value)
            case 7 if isinstance(holder, list):
                rng.shuffle(holder)
            case 7:
                holder[key + rng.choice(("", "s", "\u0301"))] = holder.pop(key)
            case 8:
                holder[key], other[at] = copy.deepcopy(other[at]), copy.deepcopy(value)
    return sealed(document) if rng.random() < 0.9 else json.dumps(document).encode()


def places_of(document: Document) -> list[tuple[Any, Any]]:
    """Every place of a document: what holds it, and its key or position there."""
    found: list[tuple[Any, Any]] = []
    holders: list[Any] = [document]
    for holder in holders:
        keys, values = (holder, holder.values()) if type(holder) is dict else (range(len(holder)), holder)
        found += [(holder, key) for key in keys]
        holders += [value for value in values if type(value) is dict or type(value) is list]
    return found


def nudged(rng: random.Random, value: Any) -> Any:
    """A value near this one."""
    match value:
        case bool() | None:
            return not value
        case int():
            return value + rng.choice((-1, 1, 1, 2, 10**6))
        case float():
            return rng.choice(
                (value + 0.125, value - 0.125, value / 2, math.nextafter(value, 2.0), -value, value * 1e300)
            )
        case str():
            return rng.choice(
                (value + "x", value[:-1], value.upper(), f"{value}\u200f", f"{value}\u0301", "small", "large")
            )
        case list():
            return value[::-1] if rng.random() < 0.5 else value * 2
    return {**value, rng.choice(KEYS): 1}


# ------------------------------------------------------------------------------------------------------ judging


def judged(name: str, data: bytes, policy: Policy | PolicyFileError, rng: random.Random) -> str:
    """What became of a mutant that was read as ``policy``: the code of its refusal, "same" or "sealed".

    Raises:
        AssertionError: it was accepted, and should not have been.
    """
    if isinstance(policy, PolicyFileError):
        assert policy.code in CODES, policy.code
        assert len(str(policy)) < 400, "a message that nobody reads"
        return policy.code
    document = json.loads(data)
    assert document["id"] == identity(document), "accepted with an id that is not that of its content"
    assert canonical(json.loads(dump_policy(policy))) == canonical(document), "what was read is not what is written"
    if document["id"] == json.loads(FILES[name])["id"]:
        assert policy == parse_policy(FILES[name])
        return "same"
    prove(document)
    for _ in range(4):
        decides_alike(policy, document, rng)
    return "sealed"


def policy_or_refusal(data: bytes) -> Policy | PolicyFileError:
    """What these bytes are read as."""
    try:
        return parse_policy(data)
    except PolicyFileError as error:
        return error


def prove(document: Document) -> None:
    """Follow every walk through the JSON, and see that it ends, buys nothing twice and accepts what it has."""
    tiers = {tier["name"]: tier for tier in document["tiers"]}
    nodes, done, reached = document["nodes"], set(), set()

    def go(at: int, have: frozenset[tuple[str, str]], passed: frozenset[int], down: frozenset[str]) -> None:
        assert at not in passed, "a walk that comes back"
        if (at, have, down) in done:
            return
        done.add((at, have, down))
        reached.add(at)
        node, passed = nodes[at], passed | {at}
        if "call" in node:
            bought = (node["call"], "")
            assert tiers[node["call"]].get("answer", True), "calls a signal"
            assert node["call"] not in down, "calls what is down"
            following = [node["then"]]
        elif "accept" in node:
            assert (node["accept"], "") in have, "accepts what is not in hand"
            return
        elif "abstain" in node:
            return
        else:
            bought = (node["of"], node.get("read", node.get("poll")))
            tier = tiers[node["of"]]
            assert bought[1] in [reading["name"] for reading in tier["readings"]], "reads what is not there"
            assert all((need, "") in have for need in tier.get("needs", [tier["name"]])), "reads before it may"
            branches = node["then"] if "read" in node else [n for row in node["tallies"] for n in row["then"]]
            following = [node["missing"], *(child for child in branches if child is not None)]
        assert bought not in have, "buys twice"
        for child in following:
            go(child, have | {bought}, passed, down)

    answering = {name for name, tier in tiers.items() if tier.get("answer", True)}
    kinds = [[outage["without"] for outage in vertex.get("outages", [])] for vertex in document["vertices"]]
    for vertex, without in zip(document["vertices"], kinds, strict=True):
        assert without == kinds[0], "other outages than the first vertex"
        assert len({*map(tuple, without)}) == len(without), "an outage twice"
        for start in (vertex, *vertex.get("outages", [])):
            down = frozenset(start.get("without", []))
            assert start.get("without", []) == sorted(down), "down twice, or out of order"
            assert down < answering, "nothing is left, or what is down is no tier"
            assert start["context_roots"].keys() == vertex["context_roots"].keys(), "other contexts than its vertex"
            for root in (start["root"], *start["context_roots"].values()):
                go(root, frozenset(), frozenset(), down)
    assert reached == set(range(len(nodes))), "a node that nothing reaches"


def decides_alike(policy: Policy, document: Document, rng: random.Random) -> None:
    """One request from its first decision to its last, or from the middle, by the policy and by the JSON alone."""
    edges = [cut for node in document["nodes"] if "read" in node for cut in node["cuts"]] or [0.5]
    key = str(rng.randrange(10**6))
    vertex = document["vertices"][drawn(document, key)]
    context = rng.choice([None, "never seen", *vertex["context_roots"]])
    outages = [outage["without"] for outage in vertex.get("outages", [])]
    down = rng.choice([[], *outages, *([name] for without in outages for name in without)])
    policy, start = policy.without(*down), started(vertex, down)
    root = start["context_roots"].get(context, start["root"])
    votes = {(t["name"], r["name"]): r["votes"] for t in document["tiers"] for r in t["readings"] if "votes" in r}
    readings: dict[str, Any] = {}
    for _ in range(40):
        action = action_json(policy.decide(readings, context=context, key=key))
        assert action == followed(document, root, readings), (action, readings)
        match action["action"]:
            case "call":
                assert action["tier"] not in readings, "called twice"
                readings[action["tier"]] = {}
            case "verify":
                of, name = action["tier"], action["reading"]
                told = readings.setdefault(of, {})
                if (of, name) in votes:
                    yes, asked = told.get(name, (0, 0))
                    told[name] = (yes + rng.randrange(2), asked + 1)
                else:
                    assert name not in told, "read twice"
                    told[name] = rng.choice(
                        (rng.choice(edges), math.nextafter(rng.choice(edges), -1), rng.random(), None)
                    )
            case _:
                return
    assert votes, "a request without an end"


# ------------------------------------------------------------------------------------------------------ running


def fire(seed: int, count: int) -> tuple[Counter[str], float]:
    """Judge so many mutants; how many of each kind there were, and the most processor time that one took to load.

    Raises:
        AssertionError: a wrong accept, with the seed and the bytes.
    """
    rng, found, slowest = random.Random(seed), Counter[str](), 0.0
    for number in range(count):
        name, data = mutant(rng)
        started = time.thread_time()
        try:
            policy = policy_or_refusal(data)
            slowest = max(slowest, time.thread_time() - started)
            found[judged(name, data, policy, rng)] += 1
        except Exception as error:
            raise AssertionError(f"seed {seed}, mutant {number} of {name}.json: {error!r}\n{data!r}") from error
    return found, slowest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int, nargs="?", default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    parts = 100
    run: Callable[[int], tuple[Counter[str], float]] = partial(fire, count=math.ceil(options.count / parts))
    found, slowest, started = Counter[str](), 0.0, time.monotonic()
    with ProcessPoolExecutor(options.workers) as pool:
        for part, took in pool.map(run, range(options.seed * parts, (options.seed + 1) * parts)):
            found, slowest = found + part, max(slowest, took)
    for kind, number in found.most_common():
        print(f"{number:>9,}  {kind}")
    took = time.monotonic() - started
    print(f"{found.total():>9,}  files in {took:.0f} s, none wrongly accepted; the slowest took {1e3 * slowest:.1f} ms")
    assert slowest < SLOWEST, f"a file took longer than {SLOWEST} s"


if __name__ == "__main__":
    main()
