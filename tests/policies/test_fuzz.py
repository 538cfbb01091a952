"""No mutated policy file gets in for something that it does not say, and none raises anything but its refusal."""

from __future__ import annotations

import json
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaverify.policies.file import dump_policy, parse_policy
from metaverify.policies.policy import Policy

from .fuzzing import CODES, FILES, NAMES, TOKENS, fire, judged, policy_or_refusal, prove
from .strategies import examples, policies


@pytest.mark.parametrize("seed", range(10))
def test_mutants_are_refused_or_mean_what_they_say(seed: int) -> None:
    found, _ = fire(seed, 2_000)
    assert found["sealed"] > 20
    assert found["same"] > 20
    assert found.total() == 2_000


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10, 110))
def test_a_hundred_thousand_mutants_meet_every_refusal(seed: int) -> None:
    found, _ = fire(seed, 1_000)
    assert found.keys() <= CODES | {"same", "sealed"}
    assert len(found.keys() & CODES) >= 10


def test_every_code_of_parsing_is_met_by_mutants() -> None:
    met = sum((fire(seed, 1_000)[0] for seed in range(200, 204)), Counter[str]())
    assert {*CODES} - met.keys() <= {"E_SIZE", "E_EMPTY"}


@examples(400)
@given(name=st.sampled_from(NAMES), data=st.data())
def test_bytes_put_anywhere_in_a_file_are_refused_or_leave_its_meaning(name: str, data: st.DataObject) -> None:
    text = FILES[name]
    at = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(at, min(len(text), at + 30)))
    changed = text[:at] + data.draw(st.binary(max_size=8) | st.sampled_from(TOKENS)) + text[end:]
    assert judged(name, changed, policy_or_refusal(changed), random.Random(1)) in CODES | {"same"}


@examples(60)
@given(policy=policies(votes=True, outages=True), seed=st.integers(0, 10**6))
def test_what_can_be_saved_passes_a_second_proof_and_none_of_its_damaged_files_is_another(
    policy: Policy, seed: int
) -> None:
    text = dump_policy(policy).encode()
    prove(json.loads(text))
    rng = random.Random(seed)
    for _ in range(10):
        at = rng.randrange(len(text))
        damaged = text[:at] + bytes([rng.randrange(256)]) + text[at + rng.randrange(3) :]
        assert policy_or_refusal(damaged) == policy or not isinstance(policy_or_refusal(damaged), Policy)


@pytest.mark.parametrize("name", NAMES)
def test_no_file_that_is_cut_short_is_read(name: str) -> None:
    text = FILES[name]
    assert parse_policy(text[:-1]) == parse_policy(text)  # the last byte is a line's end, and says nothing
    assert not [length for length in range(len(text) - 1) if isinstance(policy_or_refusal(text[:length]), Policy)]


def flipped(text: bytes, bit: int) -> bytes:
    return text[: bit // 8] + bytes([text[bit // 8] ^ 1 << bit % 8]) + text[bit // 8 + 1 :]


@pytest.mark.parametrize("name", NAMES)
def test_no_file_with_a_flipped_bit_is_read(name: str) -> None:
    text = FILES[name]
    seventh = range(0, 8 * len(text), 7)  # meets every bit of a byte in turn
    assert not [bit for bit in seventh if isinstance(policy_or_refusal(flipped(text, bit)), Policy)]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_no_file_with_any_flipped_bit_is_read(name: str) -> None:
    text = FILES[name]
    assert not [b for b in range(8 * len(text)) if isinstance(policy_or_refusal(flipped(text, b)), Policy)]
