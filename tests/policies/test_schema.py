"""The published JSON Schema takes every file that the loader takes, and refuses what a schema can."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from jsonschema import Draft202012Validator

from metaverify.policies.file import PolicyFileError, dump_policy
from metaverify.policies.policy import Policy

from .fuzzing import FILES, NAMES, mutated_document, policy_or_refusal
from .reader import sealed
from .strategies import examples, policies
from .test_file import STRUCTURAL, golden

SCHEMA: dict[str, Any] = json.loads(
    (Path(__file__).resolve().parents[2] / "docs" / "policy.schema.json").read_text("utf-8")
)
CHECKER = Draft202012Validator(SCHEMA)


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("name", NAMES)
def test_the_golden_files_are_valid(name: str) -> None:
    CHECKER.validate(json.loads(FILES[name]))


@examples(60)
@given(policies(votes=True, outages=True))
def test_what_can_be_saved_is_valid(policy: Policy) -> None:
    CHECKER.validate(json.loads(dump_policy(policy)))


def test_what_the_loader_takes_of_mutated_documents_is_valid_and_what_is_not_valid_is_refused() -> None:
    rng, met = random.Random(5), Counter[tuple[bool, str]]()
    for _ in range(1_500):
        data = mutated_document(rng, json.loads(FILES[rng.choice(NAMES)]))
        policy = policy_or_refusal(data)
        valid = CHECKER.is_valid(json.loads(data))
        assert valid or isinstance(policy, PolicyFileError), data
        met[valid, policy.code if isinstance(policy, PolicyFileError) else "taken"] += 1
    assert met[True, "taken"] > 50
    assert met[False, "E_TYPE"] > 10 * met[True, "E_TYPE"]
    assert met[False, "E_SCHEMA"] > met[True, "E_SCHEMA"]


def test_most_structural_refusals_are_the_schema_s_too() -> None:
    seen = Counter[tuple[str, bool]]()
    for _, code, change, _ in STRUCTURAL:
        document = golden()
        change(document)
        seen[code, CHECKER.is_valid(json.loads(sealed(document)))] += 1
    assert seen["E_TYPE", False] > 10 * seen["E_TYPE", True]
    assert seen["E_VERSION", True] == 0
    assert seen["E_RANGE", False] > seen["E_RANGE", True]
    assert seen["E_SCHEMA", False] > seen["E_SCHEMA", True]
    assert {code for code, valid in seen if not valid} <= {"E_TYPE", "E_SCHEMA", "E_RANGE", "E_VERSION", "E_NAME"}
