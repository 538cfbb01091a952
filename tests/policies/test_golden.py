"""The golden policy file and its decisions stay as they are, and say all that another reader needs."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

from metaverify.policies.actions import Abstain, Accept, Action, Call, Verify
from metaverify.policies.file import dump_policy, load_policy, policy_id

from .reader import drawn, followed, identity, labelled, started

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
POLICIES = {
    "policy.json": "decisions.jsonl",
    "signals.json": "signals.jsonl",
    "votes.json": "votes.jsonl",
    "numbers.json": "numbers.jsonl",
    "scores.json": "scores.jsonl",
    "outages.json": "outages.jsonl",
    "spread.json": "spread.jsonl",
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
        deciding = policy.without(*case.get("without", ()))
        assert deciding.decide(case["readings"], context=case["context"], key=case["key"]) == wanted, case


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
        start = started(vertex, case.get("without", ()))
        root = start["context_roots"].get(labelled(document, case["context"]), start["root"])
        assert followed(document, root, case["readings"]) == case["action"], case


def test_the_id_is_the_hash_of_the_canonical_body() -> None:
    document = json.loads((GOLDEN / "policy.json").read_text("utf-8"))
    assert document["id"] == identity(document)
