"""The golden policy file and its decisions stay as they are, and say all that another reader needs."""

from __future__ import annotations

import hashlib
import json
import math
import runpy
from pathlib import Path
from typing import Any

import pytest

from metaverify.policies.actions import Abstain, Accept, Action, Call, Verify
from metaverify.policies.file import dump_policy, load_policy, policy_id

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
POLICIES = {
    "policy.json": "decisions.jsonl",
    "signals.json": "signals.jsonl",
    "votes.json": "votes.jsonl",
    "numbers.json": "numbers.jsonl",
}


def cases_of(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (GOLDEN / POLICIES[name]).read_text("utf-8").splitlines()]


CASES = cases_of("policy.json")


def action_of(body: dict[str, Any]) -> Action:
    match body:
        case {"action": "call", "tier": tier}:
            return Call(tier)
        case {"action": "verify", "tier": tier, "reading": reading}:
            return Verify(tier, reading)
        case {"action": "accept", "tier": tier}:
            return Accept(tier)
    assert body == {"action": "abstain"}
    return Abstain()


@pytest.mark.parametrize("name", POLICIES)
def test_a_golden_policy_decides_as_its_golden_file_says(name: str) -> None:
    policy = load_policy(GOLDEN / name)
    for case in cases_of(name):
        wanted = action_of(case["action"])
        assert policy.decide(case["readings"], context=case["context"], key=case["key"]) == wanted, case


@pytest.mark.parametrize("name", POLICIES)
def test_loading_and_writing_leaves_every_byte_and_the_id_as_they_are(name: str) -> None:
    policy = load_policy(GOLDEN / name)
    text = (GOLDEN / name).read_bytes()
    assert dump_policy(policy).encode() == text
    assert policy_id(policy) == json.loads(text)["id"]


@pytest.mark.parametrize("name", [*POLICIES, *POLICIES.values()])
def test_the_golden_files_are_what_their_maker_writes(name: str) -> None:
    made = runpy.run_path(str(GOLDEN / "make.py"))["golden_files"]()[name]
    assert (GOLDEN / name).read_bytes().decode() == made, "changed on purpose? run `python tests/golden/make.py`"


def test_the_golden_cases_cover_every_action_and_every_context_of_both_graphs() -> None:
    document = json.loads((GOLDEN / "policy.json").read_text("utf-8"))
    assert {case["action"]["action"] for case in CASES} == {"call", "verify", "accept", "abstain"}
    covered = {(case["context"], drawn(document, case["key"])) for case in CASES}
    assert covered == {(context, arm) for context in (None, "code", "résumé", "never seen") for arm in (0, 1)}


@pytest.mark.parametrize("name", POLICIES)
def test_a_reader_that_knows_only_the_file_decides_the_same(name: str) -> None:
    document = json.loads((GOLDEN / name).read_text("utf-8"))
    for case in cases_of(name):
        vertex = document["vertices"][drawn(document, case["key"])]
        root = vertex["context_roots"].get(labelled(document, case["context"]), vertex["root"])
        assert followed(document, root, case["readings"]) == case["action"], case


def labelled(document: dict[str, Any], context: Any) -> str | None:
    """The label of a context, from the file alone; no value here has a "/" or a backslash."""
    if not isinstance(context, dict):
        return None if context is None else str(context)
    words = []
    for column in document["context"]:
        value, cuts = context[column], document.get("context_cuts", {}).get(column)
        if cuts is None:
            words.append(str(value))
        elif not isinstance(value, int | float) or abs(value) >= 10**309:
            words.append(f"{column} missing")
        else:
            below = [f"{cut:g}" for cut in cuts if cut <= value]
            above = [f"{cut:g}" for cut in cuts if cut > value]
            if not below:
                words.append(f"{column}<{above[0]}")
            else:
                words.append(f"{below[-1]}<={column}<{above[0]}" if above else f"{column}>={below[-1]}")
    return "/".join(words)


def drawn(document: dict[str, Any], key: str | int) -> int:
    """The vertex of a request, from the file alone."""
    point = document["operating_point"]
    if point["low"] == point["high"]:
        return int(point["low"])
    digest = hashlib.blake2b(str(key).encode(), digest_size=7, key=document["salt"].encode()).hexdigest()
    return int(point["high"] if int(digest, 16) / 2**56 < point["share"] else point["low"])


def followed(document: dict[str, Any], root: int, readings: dict[str, Any]) -> dict[str, Any]:
    """The action from a root, from the file alone."""
    first = {tier["name"]: tier["readings"][0]["name"] for tier in document["tiers"] if tier["readings"]}
    at = root
    while True:
        node = document["nodes"][at]
        if "call" in node:
            if node["call"] not in readings:
                return {"action": "call", "tier": node["call"]}
            at = node["then"]
        elif "read" in node:
            given = readings.get(node["of"], {})
            by_name = given if isinstance(given, dict) else {first[node["of"]]: given}
            if node["read"] not in by_name:
                return {"action": "verify", "tier": node["of"], "reading": node["read"]}
            confidence = by_name[node["read"]]
            if confidence is None or not 0 <= confidence <= 1:
                at = node["missing"]
            else:
                at = node["then"][len([cut for cut in node["cuts"] if cut <= confidence])]
        elif "poll" in node:
            given = readings.get(node["of"], {})
            tally = given.get(node["poll"], [0, 0]) if isinstance(given, dict) else given
            after: int | None = node["missing"]
            if tally is not None:
                (yes, asked), most = tally, len(node["tallies"])
                if asked > most:
                    yes, asked = math.floor(yes * most / asked + 0.5), most
                row = node["tallies"][asked - 1] if asked else {"cuts": [], "then": [None]}
                after = row["then"][len([cut for cut in row["cuts"] if cut <= yes])]
            if after is None:
                return {"action": "verify", "tier": node["of"], "reading": node["poll"]}
            at = after
        elif "accept" in node:
            return {"action": "accept", "tier": node["accept"]}
        else:
            return {"action": "abstain"}


def test_the_id_is_the_hash_of_the_canonical_body() -> None:
    document = json.loads((GOLDEN / "policy.json").read_text("utf-8"))
    claimed = document.pop("id")
    body = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert claimed == "sha256:" + hashlib.sha256(body.encode()).hexdigest()
