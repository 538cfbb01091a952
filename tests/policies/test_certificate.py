"""Certificates in policy files: they come back, go with the dial as far as they hold, and what is odd is refused."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given
from jsonschema import Draft202012Validator

from metaverify.policies.certificate import Certificate, certificate_text
from metaverify.policies.drawing import draw_text
from metaverify.policies.explain import explain
from metaverify.policies.file import dump_policy, load_policy, parse_policy
from metaverify.policies.policy import Policy

from .reader import sealed
from .strategies import cascades, examples, policies
from .test_file import GOLDEN, refusal
from .test_schema import SCHEMA

Document = dict[str, Any]


def certified(**changes: Any) -> Policy:
    """The golden policy, its operating point certified."""
    policy = load_policy(GOLDEN)
    certificate = Certificate(
        "expected cost", 9.0, 0.05, "finite-sample", "betting", 8.5, policy.expected_cost, 900, 300, 3.0, 20.0, "cap"
    )
    return replace(policy, certificate=replace(certificate, **changes))


VARIANTS: tuple[dict[str, Any], ...] = (
    {},
    {"dearest": None, "dearest_from": "", "level": "approximate", "method": "student"},
    {"promise": "realised cost", "next": 1000},
    {"promise": "expected quality", "limit": 0.8, "bound": 0.81, "dearest": None, "dearest_from": ""},
    {"method": "e-process", "looks": 4},
)


@pytest.mark.parametrize("changes", VARIANTS)
def test_a_certificate_comes_back_from_its_file_and_the_schema_takes_it(changes: dict[str, Any]) -> None:
    policy = certified(**changes)
    text = dump_policy(policy)
    again = parse_policy(text.encode())
    assert again == policy
    assert dump_policy(again) == text
    Draft202012Validator(SCHEMA).validate(json.loads(text))


def test_a_file_without_one_has_no_such_key_and_keeps_its_bytes() -> None:
    assert dump_policy(load_policy(GOLDEN)).encode() == GOLDEN.read_bytes()
    assert "certificate" not in json.loads(GOLDEN.read_bytes())


def put(key: str, value: Any) -> Callable[[Document], None]:
    return lambda certificate: certificate.__setitem__(key, value)


@pytest.mark.parametrize(
    ("code", "place", "change"),
    [
        ("E_SCHEMA", "certificate.promise", put("promise", "lowest cost")),
        ("E_SCHEMA", "certificate.level", put("level", "none")),
        ("E_SCHEMA", "certificate.method", put("method", "faith")),
        ("E_SCHEMA", "certificate.dearest_from", put("dearest_from", "hope")),
        ("E_SCHEMA", "certificate.dearest_from", lambda certificate: certificate.pop("dearest")),
        ("E_SCHEMA", "certificate.next", put("next", 5)),
        ("E_SCHEMA", "certificate.next", put("promise", "realised cost")),
        ("E_SCHEMA", "certificate.colour", put("colour", "red")),
        ("E_SCHEMA", "certificate.rows", lambda certificate: certificate.pop("rows")),
        ("E_RANGE", "certificate.delta", put("delta", 0.6)),
        ("E_RANGE", "certificate.delta", put("delta", 0.0)),
        ("E_RANGE", "certificate.bound", put("bound", 9.1)),
        ("E_RANGE", "certificate.bound", put("limit", 0.5)),
        ("E_RANGE", "certificate.limit", put("limit", -1.0)),
        ("E_RANGE", "certificate.limit", put("promise", "expected quality")),
        ("E_RANGE", "certificate.groups", put("groups", 901)),
        ("E_RANGE", "certificate.groups", put("groups", 0)),
        ("E_RANGE", "certificate.looks", put("looks", 0)),
        ("E_TYPE", "certificate.rows", put("rows", 900.0)),
        ("E_NUMBER", "certificate.limit", put("limit", 9)),
        ("E_SCHEMA", "certificate.cost", put("cost", 1.0)),
    ],
)
def test_what_is_no_certificate_is_refused(code: str, place: str, change: Callable[[Document], None]) -> None:
    document = json.loads(dump_policy(certified()))
    change(document["certificate"])
    error = refusal(sealed(document))
    assert error.code == code
    assert place in error.place


def test_a_certificate_makes_sense_beside_the_file_or_is_refused_in_these_words() -> None:
    """All of it made up and sealed anew: a limit of half, a bound of fifty, never broken, of a point that costs 3."""
    cost, quality = certified().expected_cost, VARIANTS[3]
    for changes, words in (
        ({"delta": 0.0}, "delta: is 0, but nothing is certain"),
        ({"limit": 0.5, "bound": 50.0}, "bound: is 50.0, above the limit 0.5: the rows do not show it"),
        ({**quality, "bound": 0.7}, "bound: is 0.7, below the limit 0.8: the rows do not show it"),

        ({"limit": cost / 1.2, "bound": 0.1}, None),
        ({"limit": cost / 1.3, "bound": 0.1}, f"cost: is {cost}, far above the limit {cost / 1.3}: "
         "no such point is tested"),
        ({"bound": 9.0}, None),
        ({"bound": 9.0 * (1 + 1e-7)}, None),  # as far as it is searched for
        ({**quality, "bound": 0.8 - 1e-7}, None),
        ({**quality, "limit": 0.01, "bound": 0.01 - 1e-7}, None),
    ):  # fmt: skip
        document = dump_policy(certified(**changes)).encode()
        if words is None:
            assert parse_policy(document).certificate is not None
        else:
            error = refusal(document)
            assert str(error) == f"E_RANGE at document.certificate.{words}"


def test_the_cheapest_point_may_be_certified_whatever_it_was_expected_to_cost() -> None:
    """On rows that are cheaper than those that the policy was fitted on; every other point only near the limit."""
    policy = certified().at(budget=certified().vertices[0].cost)
    certificate = certified(limit=0.01, bound=0.01, cost=policy.expected_cost).certificate
    assert parse_policy(dump_policy(replace(policy, certificate=certificate)).encode()).certificate == certificate


def test_a_certificate_of_cost_goes_along_to_what_costs_less() -> None:
    policy = certified()
    cost = policy.expected_cost
    assert policy.at(budget=cost * 0.9).certificate == policy.certificate
    assert policy.at(budget=cost * 1.1).certificate is None
    assert replace(policy, certificate=None).at(budget=cost).certificate is None


def test_a_certificate_of_quality_goes_along_to_what_costs_more() -> None:
    policy = certified(**VARIANTS[3])
    cost = policy.expected_cost
    assert policy.at(budget=cost * 0.9).certificate is None
    assert policy.at(budget=cost * 1.1).certificate == policy.certificate


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, ["expected cost per query at most 9 (bound 8.5)", "probability 0.95", "900 rows in 300 groups",
              "no group above 3 rows", "no query above 20 by a cap on each request"]),
        ({"promise": "realised cost", "next": 1000}, ["mean cost of the next 1,000 queries at most 9"]),
        ({"promise": "expected quality", "limit": 0.8}, ["expected quality at least 0.8"]),
        ({"method": "e-process", "looks": 4}, ["e-process", "look 4"]),
        ({"level": "approximate", "method": "student"}, ["approximate by student on 900 rows"]),
    ],
)  # fmt: skip
def test_show_and_explain_say_what_is_promised(changes: dict[str, Any], words: list[str]) -> None:
    policy = certified(**changes)
    text = certificate_text(policy.certificate)
    assert all(word in text for word in words)
    assert text in draw_text(policy)
    assert text in str(explain(policy, {}, key="1"))
    assert explain(policy, {}, key="1").to_json()["certificate"]["limit"] == policy.certificate.limit  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {},
            "expected cost per query at most 9 (bound 8.5), with probability 0.95; finite-sample by betting on 900 "
            "rows in 300 groups, no group above 3 rows, no query above 20 by a cap on each request",
        ),
        (
            {"groups": 900, "largest_group": 1.0, "dearest_from": "prices", "looks": 3},
            "expected cost per query at most 9 (bound 8.5), with probability 0.95; finite-sample by betting on 900 "
            "rows, no query above 20 by its prices",
        ),
        (
            {"groups": 450, "largest_group": 2.0, "dearest_from": "fitting rows", "method": "e-process", "looks": 4},
            "expected cost per query at most 9 (bound 8.5), with probability 0.95; finite-sample by e-process on 900 "
            "rows in 450 groups, look 4, no group above 2 rows, no query above 20 as on the rows it was fitted on",
        ),
        (
            {"promise": "realised cost", "next": 1000, "level": "approximate", "method": "student", "groups": 900},
            "mean cost of the next 1,000 queries at most 9 (bound 8.5), with probability 0.95; approximate by student "
            "on 900 rows, no group above 3 rows",
        ),
        (
            {"promise": "expected quality", "limit": 0.8, "bound": 0.8125, "delta": 0.1, "dearest": None,
             "dearest_from": "", "rows": 1000, "groups": 1000, "largest_group": 1.0},
            "expected quality at least 0.8 (bound 0.8125), with probability 0.9; finite-sample by betting on 1,000 "
            "rows",
        ),
    ],
)  # fmt: skip
def test_a_certificate_reads_so(changes: dict[str, Any], text: str) -> None:
    certificate = certified(**changes).certificate
    assert str(certificate) == text
    assert certificate_text(certificate) == f"certificate: {text}"


def test_a_certificate_covers_its_own_point_and_what_is_it_but_for_rounding() -> None:
    for cost in (1.0, 0.007, 8.25, 1e6):
        of_cost = replace(certified().certificate, cost=cost)  # type: ignore[type-var]
        of_quality = replace(of_cost, promise="expected quality")
        above, below = cost * (1 + 1e-9), cost * (1 - 1e-9)
        assert [of_cost.covers(c) for c in (0.0, below, cost, above)] == [True] * 4
        assert [of_cost.covers(c) for c in (math.nextafter(above, math.inf), 2 * cost)] == [False] * 2
        assert [of_quality.covers(c) for c in (below, cost, above, 2 * cost)] == [True] * 4
        assert [of_quality.covers(c) for c in (0.0, math.nextafter(below, 0.0))] == [False] * 2
        assert of_cost.covers(-math.inf) != of_quality.covers(-math.inf)


def test_what_is_promised_by_nobody_is_said_to_be_none() -> None:
    policy = load_policy(GOLDEN)
    assert "certificate: none" in draw_text(policy)
    assert "certificate: none" in str(explain(policy, {}, key="1"))
    assert explain(policy, {}, key="1").to_json()["certificate"] is None


@examples(25)
@given(policies(cascades(least=2), outages=True))
def test_nothing_is_promised_of_an_outage(policy: Policy) -> None:
    assume(policy.vertices[0].outages)
    certificate = certified().certificate
    assert certificate is not None
    sure = replace(policy, certificate=replace(certificate, cost=policy.expected_cost))
    assert sure.without(*policy.vertices[0].outages[0].without).certificate is None
    assert sure.without().certificate == sure.certificate
