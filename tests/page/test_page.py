"""The page as a file: complete in itself, bound to its own script, and deaf to what names in a policy say."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Callable
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from metaverify.comparison import CLEAR, TELLING, terms, verdict
from metaverify.page import SIZE_LIMIT, load_comparison, report_page
from metaverify.policies.file import dump_policy, load_policy
from metaverify.policies.policy import Policy
from metaverify.simulators.digits import load_digits_log

from .comparison import comparison

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
PARTS = sorted(
    path for path in Path(str(files("metaverify.page"))).iterdir() if path.suffix in {".js", ".css", ".html"}
)
HOSTILE = "</script><script>alert(1)</script><!--<script>"


@pytest.fixture(scope="module")
def policy() -> Policy:
    return load_policy(GOLDEN / "policy.json")


@pytest.fixture(scope="module")
def compared() -> dict[str, Any]:
    return comparison(load_digits_log())


def elements(page: str, name: str) -> list[tuple[str, str]]:
    """Attributes and text of every element of this name, up to its end as a browser finds it."""
    return re.findall(rf"<{name}\b([^>]*)>(.*?)</{name}", page, re.DOTALL)


def data(page: str, which: str) -> Any:
    (text,) = (text for attributes, text in elements(page, "script") if f'id="{which}"' in attributes)
    return json.loads(text)


def test_the_page_holds_the_policy_file_and_the_comparison(policy: Policy, compared: dict[str, Any]) -> None:
    page = report_page(policy, compared)
    assert data(page, "policy-data") == json.loads(dump_policy(policy))
    told = data(page, "comparison-data")
    assert told.pop("verdict") == verdict(compared)
    assert told.pop("terms") == terms(compared)
    assert told == compared
    assert data(page, "levels") == {"clear": CLEAR, "telling": TELLING}
    assert data(report_page(policy), "comparison-data") is None


def test_the_page_may_run_its_own_script_and_style_and_do_nothing_else(policy: Policy) -> None:
    page = report_page(policy)
    (rules,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    allowed = dict(rule.split(" ", 1) for rule in html.unescape(rules).split("; "))
    (script,) = (text for attributes, text in elements(page, "script") if attributes == "")
    ((_, style),) = elements(page, "style")

    def hashed(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    assert allowed == {
        "default-src": "'none'",
        "style-src": hashed(style),
        "script-src": hashed(script),
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    assert not re.search(r"<[^>]+\s(?:on\w+|style|src|srcset)=", page.partition("<script")[0])


@pytest.mark.parametrize("path", PARTS, ids=lambda path: path.name)
def test_no_part_goes_to_the_network_or_makes_markup_or_code_of_text(path: Path) -> None:
    text = path.read_text("utf-8")
    addresses = set(re.findall(r"(?:https?:)?//[a-z][\w.-]*\.[a-z]+[\w/.]*", text))
    assert addresses <= {"http://www.w3.org/1999/xhtml", "http://www.w3.org/2000/svg"}
    for word in (
        "innerHTML",
        "outerHTML",
        "insertAdjacent",
        "document.write",
        "eval(",
        "Function(",
        "fetch(",
        "@import",
    ):
        assert word not in text
    if path.suffix != ".html":
        assert "</" not in text
        assert "<!--" not in text


def test_names_stand_in_the_data_alone_and_cannot_end_it(policy: Policy, compared: dict[str, Any]) -> None:
    hostile = replace(policy, provenance={HOSTILE: HOSTILE}, evidence={"note": HOSTILE + "\u2028"})
    plain, page = report_page(policy, compared), report_page(hostile, {**compared, "note": HOSTILE})
    assert data(page, "policy-data")["provenance"] == {HOSTILE: HOSTILE}
    assert data(page, "comparison-data")["note"] == HOSTILE
    assert page.lower().count("<script") == plain.lower().count("<script")
    assert page.count("<!--") == plain.count("<!--")
    assert page.count("</") == plain.count("</")


def test_the_same_policy_makes_the_same_page_small_enough_to_mail(policy: Policy, compared: dict[str, Any]) -> None:
    assert report_page(policy, compared) == report_page(policy, json.loads(json.dumps(compared)))
    largest = replace(policy, provenance={"note": "x" * 900_000})
    assert len(report_page(largest, compared).encode()) < SIZE_LIMIT


def test_a_page_that_would_be_too_large_is_refused(policy: Policy, compared: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"would have 3,\d{3},\d{3} bytes, more than 3,000,000; leave methods out"):
        report_page(policy, {**compared, "note": "x" * SIZE_LIMIT})


def test_a_comparison_comes_back_as_it_was_written(compared: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text(json.dumps(compared))
    assert load_comparison(tmp_path / "c.json") == compared


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("format"), "is None version 1, not a comparison; `metaverify compare LOG -o FILE` writes one"),
        (lambda c: c.update(format="metaverify-policy"), "is 'metaverify-policy' version 1, not a comparison"),
        (lambda c: c.update(version=2), "is 'metaverify-comparison' version 2, not a comparison"),
        (lambda c: c.pop("methods"), "lacks 'methods', or has something else there; write the comparison again"),
        (lambda c: c.update(differences=[]), "lacks 'differences', or has something else there"),
    ],
)
def test_what_is_no_comparison_is_refused(
    change: Callable[[dict[str, Any]], Any], message: str, compared: dict[str, Any], tmp_path: Path
) -> None:
    document = dict(compared)
    change(document)
    (tmp_path / "c.json").write_text(json.dumps(document))
    with pytest.raises(ValueError, match=re.escape(message)):
        load_comparison(tmp_path / "c.json")


@pytest.mark.parametrize("change", [lambda m: m.pop("gain"), lambda m: m["gain"].update(mean=None)])
def test_a_comparison_that_says_not_who_wins_is_refused(
    change: Callable[[dict[str, Any]], Any], policy: Policy, compared: dict[str, Any]
) -> None:
    broken = json.loads(json.dumps(compared))
    change(broken["methods"][1])
    with pytest.raises(ValueError, match=r"something missing or out of place .*; write it again"):
        report_page(policy, broken)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": NaN}', '{"a": 1, "a": 2}'])
def test_what_is_not_strict_json_is_refused_with_its_path(text: str, tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(ValueError, match=r"c\.json: E_"):
        load_comparison(tmp_path / "c.json")
