"""The page in a browser: what it shows is what the library says, by mouse and by keyboard, with nothing sent anywhere.

Needs Debian's ``chromium``, or another of its names, on the path; without one these tests are skipped.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import random
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from metaverify.comparison import CLEAR, terms, verdict
from metaverify.fitting.fit import fit
from metaverify.page import report_page
from metaverify.policies.actions import Accept
from metaverify.policies.drawing import draw_text
from metaverify.policies.explain import action_json, explain
from metaverify.policies.file import dump_policy, load_policy, parse_policy
from metaverify.policies.graph import Ask, Poll, Read, Stop, Tally, successors
from metaverify.policies.policy import OperatingPoint, Outage, Policy, Vertex
from metaverify.policies.tiers import Points, Reading, Tier
from metaverify.simulators.digits import load_digits_log
from metaverify.simulators.log import fingerprint
from metaverify.simulators.outcome import replay
from metaverify.simulators.references import no_information_hull
from tests.policies.reader import sealed
from tests.policies.strategies import examples, policies

from .comparison import comparison

playwright = pytest.importorskip("playwright.sync_api", reason="the extra `dev` brings playwright, which is not here")
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no browser: apt-get install chromium")

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}

Open = Callable[..., Any]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    root = hasattr(os, "geteuid") and os.geteuid() == 0  # whom the browser's own sandbox does not serve
    with playwright.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"] if root else [])
        yield running
        running.close()


@pytest.fixture
def show(browser: Any, tmp_path: Path) -> Iterator[Open]:
    """Open a page; at the end no one may have complained, and nothing may have been asked of any network."""
    heard: list[str] = []
    contexts = []

    def opened(
        policy: Policy, compared: Mapping[str, Any] | None = None, size: Any = DESKTOP, theme: str = "light"
    ) -> Any:
        file = tmp_path / f"{len(contexts)}.html"
        file.write_text(report_page(policy, compared), "utf-8")
        contexts.append(browser.new_context(viewport=size, color_scheme=theme))
        page = contexts[-1].new_page()
        page.set_default_timeout(5000)
        page.on("console", lambda message: heard.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: heard.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (heard.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda request: None if request.url == file.as_uri() else heard.append(request.url))
        page.goto(file.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert heard == []


@pytest.fixture(scope="module")
def digits() -> Policy:
    return fit(load_digits_log(), budget=2.0, compare=False).policy


@pytest.fixture(scope="module")
def compared() -> dict[str, Any]:
    return comparison(load_digits_log())


def texts(found: Any) -> list[str]:
    return [text.strip() for text in found.all_inner_texts()]


def drawn_texts(found: Any) -> list[str]:
    return [text.strip() for text in found.all_text_contents()]


# The dial -------------------------------------------------------------------------------------------------------------


def test_the_slider_turns_everything_to_a_budget_of_the_frontier(show: Open, digits: Policy) -> None:
    page = show(digits)
    before = page.locator("#graphs svg").first.get_attribute("aria-label")
    slider = page.get_by_role("slider")
    slider.focus()
    for _ in range(40):
        slider.press("ArrowRight")
    budget = page.evaluate("metaverify.explain && document.getElementById('budget').valueAsNumber")
    assert budget > 2.2
    turned = digits.at(budget=budget)
    cost, quality, _ = page.locator("#readout .big").all_inner_texts()
    assert float(cost) == pytest.approx(turned.expected_cost, rel=1e-3)
    assert float(quality) == pytest.approx(turned.expected_quality, abs=2e-4)
    assert f"quality {quality}" in slider.get_attribute("aria-valuetext")
    point = turned.point
    share = max(point.share, 1 - point.share)
    after = page.locator("#graphs svg").first.get_attribute("aria-label")
    assert after != before
    assert float(after.split(" %")[0]) == pytest.approx(100 * share, abs=0.2)
    low, high = (turned.vertices[at].evidence for at in (point.low, point.high))
    for row, at in zip(page.locator("#shares tbody tr").all(), range(4), strict=True):
        called, accepted = (float(text.rstrip(" %")) / 100 for text in row.locator("td").all_inner_texts()[1:3])
        for shown, key in ((called, "calls"), (accepted, "accepts")):
            wanted = (1 - point.share) * getattr(low, key)[at] + point.share * getattr(high, key)[at]
            assert shown == pytest.approx(wanted, abs=1.1e-3)


def test_a_typed_budget_does_as_the_dial_of_the_library_and_one_too_small_is_marked(show: Open, digits: Policy) -> None:
    page = show(digits)
    field = page.get_by_role("spinbutton")
    for budget in (0.2, 7.0, 1e6):
        field.fill(str(budget))
        turned = digits.at(budget=budget)
        cost, quality, _ = page.locator("#readout .big").all_inner_texts()
        assert float(cost) == pytest.approx(turned.expected_cost, rel=1e-3)
        assert float(quality) == pytest.approx(turned.expected_quality, abs=6e-5)
    field.fill("0.001")
    assert field.get_attribute("aria-invalid") == "true"
    page.get_by_role("button", name="As filed").click()
    assert page.locator("#readout .big").first.inner_text() == "2"


def test_the_gain_is_what_the_quality_beside_it_lies_above_the_hull(
    show: Open, digits: Policy, compared: dict[str, Any]
) -> None:
    """The fit's hull and width where filed; elsewhere a comparison's."""
    page = show(digits)
    gain = page.locator("#readout .big").nth(2)
    filed = 100 * (digits.expected_quality - digits.evidence["hull"])
    assert float(gain.inner_text()) == pytest.approx(filed, abs=0.006)
    low, high = re.findall(r"[+−]\d+\.\d+", page.locator("#readout dd").nth(2).inner_text())[1:]
    width = 100 * (digits.evidence["gain"]["high"] - digits.evidence["gain"]["low"])
    assert float(high.replace("−", "-")) - float(low.replace("−", "-")) == pytest.approx(width, abs=0.011)
    page.get_by_role("spinbutton").fill("7")
    assert gain.inner_text() == "–"
    page = show(digits, compared)
    field, gain = page.get_by_role("spinbutton"), page.locator("#readout .big").nth(2)
    hull, curve = no_information_hull(load_digits_log()), compared["methods"][0]["curve"]
    above = digits.expected_quality - hull.quality(digits.expected_cost)
    assert float(gain.inner_text()) == pytest.approx(100 * above, abs=0.006)
    for before, after in itertools.pairwise(curve[3:]):
        budget = (before["budget"] + after["budget"]) / 2
        field.fill(repr(budget))
        turned = digits.at(budget=budget)
        assert float(gain.inner_text()) == pytest.approx(
            100 * (turned.expected_quality - hull.quality(budget)), abs=0.006
        )
        low, high = re.findall(r"[+−]\d+\.\d+", page.locator("#readout dd").nth(2).inner_text())[1:]
        width = sum(point["gain"]["high"] - point["gain"]["low"] for point in (before, after)) / 2
        assert float(high.replace("−", "-")) - float(low.replace("−", "-")) == pytest.approx(100 * width, abs=0.011)
    other = show(of_another_log(digits), compared)
    other.get_by_role("spinbutton").fill("7")
    assert other.locator("#readout .big").nth(2).inner_text() == "–"


def of_another_log(policy: Policy) -> Policy:
    return replace(policy, provenance={**policy.provenance, "log": "sha256:other", "queries": "sha256:others"})


def test_a_budget_beyond_the_range_is_explained_and_the_dial_stands_at_the_end(show: Open, digits: Policy) -> None:
    page = show(digits)
    field, told = page.get_by_role("spinbutton"), page.get_by_role("status").and_(page.locator("#beyond"))
    least, most = digits.vertices[0], digits.vertices[-1]
    for budget, end, text in (
        ("0.001", least, f"No policy of this file costs less than {least.cost:.4g}"),
        ("500", most, f"Nothing in this file costs more than {most.cost:.4g}"),
    ):
        field.fill(budget)
        assert told.inner_text().startswith(text)
        field.press("Tab")  # what was typed is left
        assert told.inner_text().startswith(text)
        assert float(field.input_value()) == pytest.approx(end.cost, rel=1e-4)
        assert float(page.locator("#readout .big").first.inner_text()) == pytest.approx(end.cost, rel=1e-3)
        field.fill("2")
        assert told.inner_text() == ""
    field.fill("0.001")
    page.get_by_role("button", name="As filed").click()
    assert (told.inner_text(), field.get_attribute("aria-invalid")) == ("", "false")


@pytest.mark.parametrize(
    ("mean", "half", "few"), [(0.05, 0.04, False), (0.004, 0.010, False), (0.004, 0.02, True), (-0.05, 0.07, True)]
)
def test_a_gain_that_so_few_queries_cannot_tell_is_called_so(
    mean: float, half: float, few: bool, show: Open, digits: Policy
) -> None:
    hull = digits.expected_quality - mean
    assert 0.010 < (1 - hull) / 10 < 0.02 or mean != 0.004
    gain = {"mean": mean, "low": mean - half, "high": mean + half}
    page = show(replace(digits, evidence={**digits.evidence, "gain": gain, "hull": hull}))
    assert ("too few queries to tell" in page.locator("#readout").inner_text()) == few


# The trees ------------------------------------------------------------------------------------------------------------


def lines_of_text(policy: Policy) -> list[tuple[str, str, str]]:
    """Each branch of the text drawing: where the reading falls, its share, what follows."""
    found = re.findall(r"^[│ ]*[├└]─ (.*?)(?: \((\d+\.\d%)\))?: (.*)$", draw_text(policy), re.MULTILINE)
    signs = {">=": "≥", "<=": "≤"}
    return [
        (
            re.sub("|".join(signs), lambda sign: signs[sign[0]], label),
            share,
            re.sub(r", quality .*|  \[\d+\]$", "", acts),
        )
        for label, share, acts in found
    ]


@pytest.mark.parametrize("budget", [0.2, 2.0, 40.0])
def test_the_trees_have_the_lines_of_the_text_drawing(budget: float, show: Open, digits: Policy) -> None:
    page = show(digits)
    page.get_by_role("spinbutton").fill(str(budget))
    labels = [line.get_attribute("aria-label") for line in page.locator("#graphs [role=button]").all()]
    wanted = lines_of_text(digits.at(budget=budget))
    assert len(labels) == len(wanted) > 0
    for label, (where, share, acts) in zip(labels, wanted, strict=True):
        name, rest = label.split(", ", 1)
        assert name in [tier.name for tier in digits.tiers]
        assert rest.replace(" %", "%").startswith(f"{where}: {acts}; {share} of this graph")


@pytest.mark.parametrize("name", ["votes", "signals"])
def test_votes_and_signals_are_drawn_as_in_the_text_drawing(name: str, show: Open) -> None:
    policy = load_policy(GOLDEN / f"{name}.json")
    page = show(policy)
    labels = [line.get_attribute("aria-label") for line in page.locator("#graphs [role=button]").all()]
    wanted = lines_of_text(policy)
    assert len(labels) == len(wanted) > 1
    for label, (where, _, _) in zip(labels, wanted, strict=True):
        assert re.sub(r"(\d)-(\d)", r"\1–\2", where) in label


def test_a_line_chosen_by_click_or_enter_tells_its_beliefs(show: Open, digits: Policy) -> None:
    page = show(digits)
    vertex = digits.vertices[digits.point.high if digits.point.share > 0.5 else digits.point.low]
    (node,) = [at for at in vertex.beliefs if isinstance(digits.nodes[at], Read)]
    below, above, missing = vertex.beliefs[node]
    lines = page.locator("#graphs [role=button]")
    lines.nth(1).click()
    assert lines.nth(1).get_attribute("aria-pressed") == "true"
    (table,) = page.locator("#belief table").all()
    cells = [float(text.replace("−", "-")) for text in texts(table.locator("td:nth-child(2)"))]
    assert cells == pytest.approx(list(above.quality), abs=5e-4)
    lines.nth(1).press("ArrowUp")
    page.keyboard.press("Enter")
    assert lines.nth(0).get_attribute("aria-pressed") == "true"
    assert lines.nth(0).evaluate("(line) => line === document.activeElement")
    first, second = page.locator("#belief table").all()
    for table, belief in ((first, below), (second, missing)):
        worth = dict(zip(texts(table.locator("tbody th")), texts(table.locator("td:nth-child(3)")), strict=True))
        wanted = zip(digits.tiers, belief.worth, strict=True)
        assert worth == {t.name: "–" if w is None else f"{w:.3f}".replace("-", "−") for t, w in wanted}
    page.keyboard.press("End")
    assert lines.nth(1).evaluate("(line) => line === document.activeElement")  # the last of its tree
    assert page.locator("#graphs [tabindex='0']").count() == 2  # one a tree


def test_a_file_without_beliefs_says_where_they_are_kept(show: Open) -> None:
    page = show(load_policy(GOLDEN / "policy.json").at(budget=11.0))
    page.locator("#context").select_option(label="any other")
    page.locator("#graphs [role=button]").first.click()
    assert "beliefs at the operating point only" in page.locator("#belief").inner_text()


def test_a_file_without_any_beliefs_promises_none(show: Open, digits: Policy) -> None:
    bare = replace(digits, vertices=tuple(replace(v, beliefs={}, evidence=None) for v in digits.vertices))
    page = show(bare)
    page.locator("#graphs [role=button]").first.click()
    section = page.locator("section", has=page.locator("#graphs")).inner_text()
    assert "This file holds no beliefs" in section
    assert "is believed" not in section
    assert "The way there" in section
    heads = drawn_texts(page.locator("#graphs svg").first.locator("> text"))
    assert heads == ["where it falls", "what follows", "share"]  # the last from the first reading's histogram
    assert texts(page.locator("#shares thead th")) == ["tier", "price"]
    full = show(digits)
    assert "what is believed there" in full.locator("#lines").inner_text()
    heads = drawn_texts(full.locator("#graphs svg").first.locator("> text"))
    assert heads == ["where it falls", "what follows", "share", "quality"]


def test_each_context_has_its_own_tree(show: Open) -> None:
    policy = load_policy(GOLDEN / "policy.json")
    page = show(policy.at(budget=11.0))
    select = page.locator("#context")
    assert texts(select.locator("option")) == ["any other", "code", "résumé"]
    select.select_option(label="code")
    assert "accept large" in page.locator("#graphs").text_content()
    assert page.locator("#graphs [role=button]").count() == 0
    select.select_option(label="résumé")
    assert "hand over" in page.locator("#graphs").text_content()


# By hand --------------------------------------------------------------------------------------------------------------


def test_readings_typed_by_hand_are_decided_and_explained(show: Open, digits: Policy) -> None:
    page = show(digits)
    act, key = page.locator("#decision .act"), page.get_by_role("textbox", name="key")
    assert act.inner_text() == "Call small"
    assert page.locator(".field.next").count() == 1
    page.locator("fieldset", has_text="small").get_by_label("in hand").check()
    assert act.inner_text() == "Read conf of small"
    conf = page.get_by_label("conf of small", exact=True)
    for typed, told in (("0.5", 0.5), ("missing", None), ("0.99", 0.99), ("7", 7.0), ("0,25", 0.25)):
        for request in ("request 1", "request 2", "another"):
            conf.fill(typed)
            key.fill(request)
            found = explain(digits, {"small": {"conf": told}}, key=request)
            text = page.locator("#decision").inner_text()
            wanted = "Accept the answer of small" if found.action == Accept("small") else "Call medium"
            assert act.inner_text() == wanted
            assert f"graph {found.vertex}," in text
            assert ("is missing" in text) == (told is None or told > 1)
            for name, value in found.worth.items():
                row = page.locator("#decision tr", has=page.get_by_role("rowheader", name=name, exact=True))
                assert row.locator("td").inner_text() == f"{value:.3f}".replace("-", "−")


def test_what_cannot_be_read_is_marked_and_told(show: Open, digits: Policy) -> None:
    page = show(digits)
    conf = page.get_by_label("conf of small", exact=True)
    conf.fill("rather sure")
    assert conf.get_attribute("aria-invalid") == "true"
    assert "conf of small: a confidence is a number in [0, 1]" in page.locator("#decision").inner_text()
    conf.fill("")
    assert page.locator("#decision .act").inner_text() == "Call small"


def test_votes_and_contexts_are_told_by_hand_too(show: Open) -> None:
    page = show(load_policy(GOLDEN / "votes.json"))
    yes, asked = (page.get_by_label(f"self_verify of small: {what}") for what in ("yes", "asked"))
    for told in ([1, 1], [3, 3], [0, 2]):
        yes.fill(str(told[0]))
        asked.fill(str(told[1]))
        action = load_policy(GOLDEN / "votes.json").decide({"small": {"self_verify": tuple(told)}})
        wanted = {"verify": "Read self_verify of small", "accept": "Accept the answer of small", "call": "Call large"}
        assert page.locator("#decision .act").inner_text() == wanted[action_json(action)["action"]]
    numbers = load_policy(GOLDEN / "numbers.json")
    page = show(numbers)
    page.locator("#try select").select_option(label="by its columns")
    page.get_by_label("task", exact=True).fill("qa")
    for tokens, wanted in (("480.5", "Call large"), ("12", "Call small")):
        page.get_by_label("tokens (number)").fill(tokens)
        assert page.locator("#decision .act").inner_text() == wanted
        label = numbers.context_of({"task": "qa", "tokens": float(tokens)})
        assert label.replace("<=", "") in page.locator("#decision").inner_text().replace("<=", "")


# The same decisions ---------------------------------------------------------------------------------------------------


def fused() -> Policy:
    """One tier whose two readings are fused, its graph cut where sums of points fall."""
    parts = (Points("a", (0.3, 0.7), (0.1, 0.2, 0.3), 0.15), Points("b", (0.5,), (0.0, 0.7), 0.25))
    readings = (Reading("a", 0.0, (), (1, 0)), Reading("b", 0.0, (), (1, 0)), Reading("f", 0.0, (), (1, 0), parts))
    nodes = (Ask("s", 1), Read("s", "f", (0.3, 0.9, 0.1 + 0.2 + 0.7), (2, 4, 2, 4), 2), Ask("l", 3))
    stops = (Stop(Accept("l")), Stop(Accept("s")))
    tiers = (Tier("s", 1.0, readings), Tier("l", 4.0))
    return Policy(tiers, (*nodes, *stops), (Vertex(0.1, 2.0, 0.8, 0),), OperatingPoint(0, 0, 0.0))


def drawn_policies(count: int) -> list[Policy]:
    found: list[Policy] = []

    @examples(count)
    @given(policies(votes=True, outages=True))
    def draw(policy: Policy) -> None:
        found.append(policy)

    draw()
    return found


NUMERALS = ("120", " 480.5\n", "1e3", "-.5", "+5.", "1_000", "0x10", "inf", "", ".", "\u0661", "480.5 s")


def told_at_random(policy: Policy, rng: random.Random) -> dict[str, Any]:
    """One request in plain JSON: what was read in any state, a context, a key, a budget or none."""
    cuts = [cut for node in policy.nodes if isinstance(node, Read) for cut in node.cuts]
    cuts += [cut for tier in policy.tiers for r in tier.readings for part in r.parts for cut in part.cuts]
    near = [value for cut in cuts for value in (cut, math.nextafter(cut, -1), math.nextafter(cut, 2))]
    odd = [None, -1, 2, 0, 1, 0.5, -5e-324, math.nextafter(1.0, 2.0), True, 10**30]

    def confidence() -> Any:
        return rng.choice([rng.random(), rng.choice(near or odd), rng.choice(odd)])

    def votes() -> Any:
        asked = rng.choice([0, 1, 2, 3, 4, 8])
        return rng.choice([[rng.randint(0, asked), asked], [rng.randint(0, asked), asked], None, 0.5, [2, 1]])

    readings: dict[str, Any] = {}
    for tier in policy.tiers:
        kinds = {reading.name: votes if reading.votes else confidence for reading in tier.readings}
        state = rng.random()
        if state < 0.6:
            readings[tier.name] = {name: kind() for name, kind in kinds.items() if rng.random() < 0.8}
        elif state < 0.8 and kinds:
            readings[tier.name] = next(iter(kinds.values()))()
    if rng.random() < 0.02:
        readings["no such tier"] = {}
    labels = [*policy.vertices[0].context_roots, "never seen", ""]
    context: Any = rng.choice([None, *labels])
    if policy.context and rng.random() < 0.5:
        known = {name: rng.choice([None, 120, 119.999, 480.5, 431, -1e300, *NUMERALS]) for name in policy.context_cuts}
        context = {name: known.get(name, rng.choice(["qa", "code", "a/b\\c"])) for name in policy.context}
    key = rng.choice([None, "", "é", f"request {rng.randrange(10**6)}", "x" * 300])
    costs = [vertex.cost for vertex in policy.vertices]
    budget = rng.choice([None, rng.uniform(costs[0], 1.1 * costs[-1] + 1e-9)])
    outages = [list(outage.without) for outage in policy.vertices[0].outages]
    alone = [[name] for names in outages for name in names]
    without = rng.choice([[], *outages, *alone, ["no such tier"]] if outages else [[]])
    return {"readings": readings, "context": context, "key": key, "budget": budget, "without": without}


def answer(policy: Policy, case: dict[str, Any]) -> Any:
    """What the library says, in the page's form; None where it refuses."""
    told = policy if case["budget"] is None else policy.at(budget=case["budget"])
    try:
        told = told.without(*case["without"])
        found = explain(told, case["readings"], context=case["context"], key=case["key"])
    except (ValueError, TypeError):
        return None
    assert told.decide(case["readings"], context=case["context"], key=case["key"]) == found.action
    plain = json.loads(json.dumps(found.to_json()))
    return {**plain, "quality": [*map(list, found.quality.items())], "worth": [*map(list, found.worth.items())]}


def test_on_a_thousand_random_inputs_the_page_decides_and_explains_as_the_library_does(
    show: Open, digits: Policy
) -> None:
    golden = [load_policy(GOLDEN / f"{name}.json") for name in ("policy", "votes", "signals", "numbers", "outages")]
    rng = random.Random(0)
    pool = [digits, fused(), *golden, *drawn_policies(43)]
    asked = [(policy, [told_at_random(policy, rng) for _ in range(20)]) for policy in pool]
    page = show(digits)
    answers = page.evaluate(
        """(pool) => pool.map(([file, cases]) => {
          const policy = JSON.parse(file);
          return JSON.parse(cases).map(({ readings, context, key, budget, without }) => {
            try {
              const dialled = budget === null ? policy : metaverify.atBudget(policy, budget);
              const turned = metaverify.without(dialled, ...without);
              const { branches, ...found } = metaverify.explain(turned, readings, { context, key });
              const action = metaverify.decide(turned, readings, { context, key });
              return JSON.stringify(action) === JSON.stringify(found.action) ? found : "two answers";
            } catch (error) {
              return null;
            }
          });
        })""",
        [[dump_policy(policy), json.dumps(cases)] for policy, cases in asked],
    )
    decided = 0
    for (policy, cases), found in zip(asked, answers, strict=True):
        for case, got in zip(cases, found, strict=True):
            assert got == answer(policy, case), case
            decided += got is not None
    assert sum(len(cases) for _, cases in asked) == 1000
    assert decided > 600  # the others are refused by both


# Without a tier -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def prepared() -> Policy:
    """What is best while one of two tiers is down, of a file that holds beliefs."""
    return fit(load_digits_log(), budget=2.0, compare=False, outages=[["small"], ["tiny", "medium"]]).policy


def test_the_tree_without_a_tier_is_the_text_drawing_of_the_policy_without_it(show: Open, prepared: Policy) -> None:
    page = show(prepared)
    select = page.get_by_label("Without")
    assert texts(select.locator("option")) == ["none", "small", "medium and tiny"]

    def labels() -> list[str]:
        return [line.get_attribute("aria-label") for line in page.locator("#graphs [role=button]").all()]

    whole = labels()
    for choice, names in (("small", ["small"]), ("medium and tiny", ["medium", "tiny"])):
        select.select_option(label=choice)
        down = prepared.without(*names)
        wanted = lines_of_text(down)
        found = labels()
        assert len(found) == len(wanted)
        for label, (where, _, acts) in zip(found, wanted, strict=True):
            assert f", {where}: {acts}" in label
        assert not any(f"call {name}" in label for name in names for label in found)
        assert f"Without {choice}: what is best" in page.locator("#outage").inner_text()
        assert "The way" in page.locator("#belief").inner_text()
    select.select_option(label="none")
    assert (labels(), page.locator("#outage").is_visible()) == (whole, False)


def test_without_a_tier_is_chosen_by_keyboard_and_decides_by_hand_as_the_library_does(
    show: Open, prepared: Policy
) -> None:
    page = show(prepared)
    select = page.get_by_label("Without")
    select.focus()
    page.keyboard.press("ArrowDown")
    assert select.evaluate("(box) => box.selectedOptions[0].textContent") == "small"
    down = prepared.without("small")
    act = page.locator("#decision .act")
    assert act.inner_text() == "Call tiny"
    conf = page.get_by_label("conf of tiny", exact=True)
    names = {"call": "Call {}", "accept": "Accept the answer of {}"}
    met = set()
    for typed in ("0.1", "0.69", "0.71", "0.89", "0.91", "missing"):
        conf.fill(typed)
        told = None if typed == "missing" else float(typed)
        found = explain(down, {"tiny": {"conf": told}}, key="request 1")
        wanted = action_json(found.action)
        assert act.inner_text() == names[wanted["action"]].format(wanted["tier"])
        assert f"By graph {found.vertex} as it is without small," in page.locator("#decision").inner_text()
        met.add(wanted["action"])
    assert met == {"call", "accept"}


def test_shares_without_a_tier_are_those_of_the_log_as_far_as_the_first_reading_tells(
    show: Open, prepared: Policy
) -> None:
    """Against a replay of the log: what the first reading decides is told, the rest is not."""
    page = show(prepared)
    page.get_by_label("Without").select_option(label="small")
    log, down = load_digits_log(), prepared.without("small")
    outcome = replay(replace(down, tiers=prepared.tiers), log)
    rows = page.locator("#outage tbody tr").all()
    assert [row.locator("th").inner_text() for row in rows] == [tier.name for tier in prepared.tiers]
    for row, tier in zip(rows, prepared.tiers, strict=True):
        price, called, accepted = row.locator("td").all_inner_texts()
        assert (price == "down") == (tier.name == "small")
        assert float(called.rstrip(" %")) / 100 == pytest.approx(outcome.calls[tier.name], abs=6e-4)
        assert float(accepted.rstrip(" %")) / 100 == pytest.approx(outcome.accepts[tier.name], abs=6e-4)


def deep() -> Policy:
    """Where the larger tier is down, the small one is read twice, the second time of some only."""
    conf, judge = Reading("conf", 0.0, (0.5,), (30, 60, 10)), Reading("judge", 0.5, (0.4,), (20, 80, 0))
    nodes = (
        Ask("large", 5),
        Ask("small", 2),
        Read("small", "conf", (0.5,), (3, 4), 3),
        Read("small", "judge", (0.4,), (6, 4), 4),
        Stop(Accept("small")),
        Stop(Accept("large")),
        Ask("mid", 7),
        Stop(Accept("mid")),
    )
    vertex = Vertex(0.1, 9.0, 0.8, 0, outages=(Outage(("large",), 1),))
    tiers = (
        Tier("small", 1.0, (conf, judge)),
        Tier("mid", 3.0),
        Tier("large", 9.0, (Reading("conf", 0.0, (), (1, 0)),)),
    )
    return Policy(tiers, nodes, (vertex,), OperatingPoint(0, 0, 0.0))


def test_what_depends_on_a_later_reading_is_not_told_and_what_is_never_bought_has_no_box(show: Open) -> None:
    page = show(deep())
    fieldsets = page.locator("#try fieldset:visible legend")
    assert texts(fieldsets) == ["large price 9", "Request"]
    assert page.get_by_label("conf of large", exact=True).is_hidden()  # it is called and not read
    page.get_by_label("Without").select_option(label="large")
    assert texts(fieldsets) == ["small price 1", "mid price 3", "Request"]
    rows = page.locator("#outage tbody tr").all()
    assert [row.locator("td").all_inner_texts() for row in rows] == [
        ["1", "100.0 %", "–"],
        ["3", "–", "–"],
        ["down", "0.0 %", "0.0 %"],
    ]
    labels = [line.get_attribute("aria-label") for line in page.locator("#graphs [role=button]").all()]
    shares = [re.findall(r"; (\S+ %) of", label) for label in labels]
    assert shares == [["40.0 %"], [], [], ["60.0 %"]]
    assert "it depends on more than the first reading" in page.locator("#outage").inner_text()
    page.get_by_label("judge of small", exact=True).fill("0.9")
    page.get_by_label("conf of small", exact=True).fill("0.1")
    assert page.locator("#decision .act").inner_text() == "Accept the answer of small"
    page.get_by_label("Without").select_option(label="none")
    assert page.locator("#decision .act").inner_text() == "Call large"  # what was told of small is left out


def test_boxes_follow_the_dial(show: Open, digits: Policy) -> None:
    page = show(digits)
    for budget in (0.006, 0.3, 2.0, 40.0):
        page.get_by_role("spinbutton").fill(str(budget))
        turned = digits.at(budget=budget)
        used = {turned.point.low, turned.point.high} if 0 < turned.point.share < 1 else {turned.arm("")}
        nodes, waiting = set(), [turned.vertices[at].root for at in used]
        while waiting:
            at = waiting.pop()
            nodes.add(at)
            waiting += successors(turned.nodes[at])
        bought = [turned.nodes[at] for at in sorted(nodes)]
        called = {node.tier for node in bought if isinstance(node, Ask)}
        read = {(node.tier, node.reading) for node in bought if isinstance(node, Read)}
        assert {text.split(" ")[0] for text in texts(page.locator("#try fieldset:visible legend"))} - {
            "Request"
        } == called
        for tier in digits.tiers:
            for reading in tier.readings:
                box = page.get_by_label(f"{reading.name} of {tier.name}", exact=not reading.votes).first
                assert box.is_visible() == ((tier.name, reading.name) in read)


# The comparison -------------------------------------------------------------------------------------------------------


def test_the_table_sorts_by_click_and_by_key_and_says_so(show: Open, digits: Policy, compared: dict[str, Any]) -> None:
    page = show(digits, compared)
    of = {
        "method": lambda method: method["name"],
        "gain, points": lambda method: -method["gain"]["mean"],
        "s": lambda method: -method["seconds"],
    }

    def order() -> Any:
        return page.locator("#methods tbody tr").evaluate_all("(rows) => rows.map((row) => row.dataset.method)")

    assert order() == [method["name"] for method in sorted(compared["methods"], key=of["gain, points"])]
    page.get_by_role("button", name="s", exact=True).click()
    slowest = [method["name"] for method in sorted(compared["methods"], key=of["s"])]
    assert order() == slowest
    page.keyboard.press("Enter")  # the same heading again
    assert order() == slowest[::-1]
    heads = page.locator("#methods thead th")
    sorts = {head.inner_text().strip(" ↑↓"): head.get_attribute("aria-sort") for head in heads.all()}
    assert sorts.pop("s") == "ascending"
    assert set(sorts.values()) == {"none"}
    page.get_by_role("button", name="method", exact=True).focus()
    page.keyboard.press("Space")
    assert order() == sorted(method["name"] for method in compared["methods"])


def test_ticked_methods_are_drawn_and_set_against_each_other(
    show: Open, digits: Policy, compared: dict[str, Any]
) -> None:
    page = show(digits, compared)
    legend, matrix = page.locator("#curves .legend li"), page.locator("#differences tbody tr")
    assert legend.count() == matrix.count() == page.locator("#curves svg[role=img] path.curve").count() / 2
    before = legend.count()
    page.get_by_label("draw random").check()
    assert legend.count() == matrix.count() == before + 1
    names = compared["differences"]["names"]
    shown = texts(page.locator("#differences tbody th"))
    mean = compared["differences"]["mean"]
    for row, line in zip(shown, matrix.all(), strict=True):
        for column, cell in zip(shown, texts(line.locator("td")), strict=True):
            if row != column:
                wanted = 100 * mean[names.index(row)][names.index(column)]
                assert float(cell.split("\n")[0].replace("−", "-")) == pytest.approx(wanted, abs=0.0051)


def test_what_inspection_found_and_where_the_file_comes_from_stand_there(
    show: Open, digits: Policy, compared: dict[str, Any]
) -> None:
    warned = {"slug": "few-rows", "text": "these rows are few", "cases": ["tiny: 3"]}
    page = show(digits, {**compared, "inspection": {**compared["inspection"], "warnings": [warned]}})
    log = page.locator("#log").inner_text()
    assert "these rows are few" in log
    assert "tiny: 3" in log
    for tier in compared["inspection"]["tiers"]:
        assert f"{tier['quality']:.4f}" in log
    record = page.locator("#record").inner_text()
    assert json.loads(dump_policy(digits))["id"] in record
    assert digits.provenance["log"] in record


def test_the_record_says_where_a_comparison_comes_from(show: Open, digits: Policy, compared: dict[str, Any]) -> None:
    def told(policy: Policy, compared: dict[str, Any] | None) -> dict[str, str]:
        page = show(policy, compared)
        facts = page.locator("#record h3", has_text=re.compile("^Comparison$")).locator("+ dl")
        names, values = (texts(facts.locator(kind)) for kind in ("dt", "dd")) if facts.count() else ([], [])
        return dict(zip(names, values, strict=True))

    facts = told(digits, {**compared, "metaverify": "9.8.7", "seed": 4321, "repeats": 3})
    assert (facts["metaverify"], facts["seed"], facts["folds"]) == ("9.8.7", "4321", "5, 3 times")
    assert (facts["log"], facts["queries"]) == (compared["log"]["fingerprint"], compared["log"]["queries"])
    assert facts["as this policy’s"] == "the same queries and tiers"
    older = {key: value for key, value in compared.items() if key != "metaverify"}
    other = told(of_another_log(digits), older)
    assert other["as this policy’s"] == "other queries or tiers"
    assert "metaverify" not in other
    assert told(digits, None) == {}


def test_a_comparison_of_another_log_is_told_of_at_the_top_and_left_out_of_the_policys_drawings(
    show: Open, digits: Policy, compared: dict[str, Any]
) -> None:
    known = load_digits_log()
    with_context = fingerprint(replace(known, contexts=known.query_ids, context_names=("id",)))
    assert with_context != digits.provenance["log"]
    for policy in (digits, replace(digits, provenance={**digits.provenance, "log": with_context})):
        page = show(policy, compared)
        assert page.get_by_text("Another log.").count() == 0
        assert page.locator("#frontier rect").count() == len(compared["log"]["tiers"])
        assert page.locator("#frontier .hull").count() == page.locator("#methods tr.ours").count() == 1
    page = show(of_another_log(digits), compared)
    assert page.locator("main > :first-child").inner_text().startswith("Another log.")
    assert page.locator("#frontier :is(rect, .hull)").count() == 0
    assert page.locator("#curves .dial-line").count() == page.locator("#methods tr.ours").count() == 0
    assert "as fitted" in page.locator("#log").inner_text()
    older = {**compared, "log": {key: value for key, value in compared["log"].items() if key != "queries"}}
    assert show(digits, older).get_by_text("Another log.").count() == 0


def test_the_page_says_who_wins_in_the_words_of_the_terminal(
    show: Open, digits: Policy, compared: dict[str, Any]
) -> None:
    def gaining(points: float, half: float, holm: float) -> dict[str, Any]:
        gain = {"mean": points / 100, "low": (points - half) / 100, "high": (points + half) / 100}
        methods = [{**compared["methods"][0], "gain": gain}, *compared["methods"][1:]]
        square = [[holm] * len(methods) for _ in methods]
        return {**compared, "methods": methods, "differences": {**compared["differences"], "holm": square}}

    failed = {**compared, "failed": [{"name": "odd", "error": "RuntimeError: <b>no luck</b>"}]}
    for each in (compared, failed, gaining(9, 1, 0.01), gaining(9, 1, 0.4), gaining(9, 10, 0.4), gaining(9, 60, 0.4)):
        page = show(digits, each)
        assert texts(page.locator("#verdict li")) == verdict(each)
        assert page.locator("#terms dd").all_text_contents() == list(terms(each).values())


def test_a_difference_is_bold_where_the_terminal_calls_it_clear(
    show: Open, digits: Policy, compared: dict[str, Any]
) -> None:
    size = len(compared["methods"])
    levels = [0.04, CLEAR, 1.01 * CLEAR, 0.5]
    square = [[levels[(row + column) % 4] for column in range(size)] for row in range(size)]
    page = show(digits, {**compared, "differences": {**compared["differences"], "holm": square}})
    names = compared["differences"]["names"]
    shown = texts(page.locator("#differences tbody th"))
    for row, line in zip(shown, page.locator("#differences tbody tr").all(), strict=True):
        for column, cell in zip(shown, line.locator("td").all(), strict=True):
            if row != column:
                sure = square[names.index(row)][names.index(column)] <= CLEAR
                assert ("sure" in cell.get_attribute("class").split()) == sure


def many(compared: dict[str, Any], count: int) -> dict[str, Any]:
    """The comparison with so many methods, all alike, and twelve tiers, most of them in one corner."""
    first = compared["methods"][0]
    names = [f"method-with-a-long-name-{at}" for at in range(count)]
    methods = [{**first, "name": name, "label": "the same as all others"} for name in names]
    tiers = [
        {"name": f"model {at} of twelve", "cost": flat(0.3 + 0.05 * (at % 6)), "quality": flat(0.6 + 0.01 * at)}
        for at in range(11)
    ]
    log = {**compared["log"], "tiers": [*tiers, {"name": "dear", "cost": flat(92.0), "quality": flat(0.98)}]}
    square = [[1.0] * count for _ in names]
    differences = dict.fromkeys(compared["differences"], square) | {"names": names}
    return {**compared, "methods": methods, "log": log, "differences": differences}


def flat(value: float) -> dict[str, float]:
    return {"mean": value, "low": value, "high": value}


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_twelve_tiers_are_named_without_one_name_upon_another(
    size: Any, show: Open, digits: Policy, compared: dict[str, Any]
) -> None:
    page = show(digits, many(compared, 2), size)
    boxes = page.locator("#frontier text.halo").evaluate_all(
        "(all) => all.map((each) => { const b = each.getBBox(); return [b.x, b.y, b.x + b.width, b.y + b.height]; })"
    )
    assert len(boxes) > 9
    for one, other in itertools.combinations(boxes, 2):
        apart = one[2] <= other[0] + 1 or other[2] <= one[0] + 1 or one[3] <= other[1] + 1 or other[3] <= one[1] + 1
        assert apart
    titles = drawn_texts(page.locator("#frontier rect title"))
    assert [title.split(":")[0] for title in titles] == [tier["name"] for tier in many(compared, 2)["log"]["tiers"]]


def test_twenty_eight_methods_have_a_line_each_that_no_other_has(
    show: Open, digits: Policy, compared: dict[str, Any]
) -> None:
    page = show(digits, many(compared, 28))
    page.evaluate("document.querySelectorAll('#methods input:not(:checked)').forEach((box) => box.click())")
    styles = page.locator("#curves .legend line").evaluate_all(
        "(all) => all.map((each) => `${each.getAttribute('stroke')} ${each.getAttribute('stroke-dasharray')}`)"
    )
    assert len(styles) == len(set(styles)) == 28
    wide = page.locator("#curves .legend").evaluate("(list) => [list.scrollWidth, list.clientWidth]")
    assert wide[0] <= wide[1]


def test_on_a_phone_the_methods_names_stay_where_they_are(show: Open, digits: Policy, compared: dict[str, Any]) -> None:
    page = show(digits, many(compared, 28), PHONE)
    box = page.locator("#methods .scroll")
    box.evaluate("(box) => (box.scrollLeft = box.scrollWidth)")
    seconds, name = (
        page.locator("#methods tbody tr")
        .nth(3)
        .locator("td, th")
        .evaluate_all("(cells) => [cells.at(-1), cells[0]].map((cell) => cell.getBoundingClientRect().toJSON())")
    )
    assert name["left"] >= 0
    assert name["right"] <= seconds["left"]
    assert seconds["right"] <= PHONE["width"]


def test_a_page_without_a_comparison_says_how_to_make_one(show: Open, digits: Policy) -> None:
    assert "metaverify compare LOG" in show(digits).locator("#comparison").inner_text()


# Everyone, everywhere -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "theme"),
    [
        (DESKTOP, "light"),
        (PHONE, "dark"),
        pytest.param(DESKTOP, "dark", marks=pytest.mark.slow),
        pytest.param(PHONE, "light", marks=pytest.mark.slow),
    ],
)
def test_axe_finds_nothing_to_complain_of(
    size: Any, theme: str, show: Open, digits: Policy, compared: dict[str, Any]
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="the extra `dev` brings axe")
    page = show(digits, compared, size, theme)
    page.locator("#graphs [role=button]").first.click()
    page.get_by_label("conf of small", exact=True).fill("0.5")
    found = axe.Axe().run(page).response
    assert [(fault["id"], fault["impact"], fault["nodes"][0]["html"]) for fault in found["violations"]] == []
    assert len(found["passes"]) > 20


def renamed(policy: Policy, compared: Mapping[str, Any], letter: str) -> tuple[Policy, dict[str, Any]]:
    """Policy and comparison with names of tiers of 80 letters that no line can be broken at."""
    told = [json.dumps(json.loads(dump_policy(policy))), json.dumps(compared)]
    for tier in policy.tiers:
        told = [text.replace(f'"{tier.name}"', f'"{tier.name + letter * (80 - len(tier.name))}"') for text in told]
    return parse_policy(sealed(json.loads(told[0]))), json.loads(told[1])


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_names_of_eighty_letters_are_broken_or_cut(
    size: Any, show: Open, prepared: Policy, compared: dict[str, Any]
) -> None:
    page = show(*renamed(prepared, compared, "m"), size)
    page.get_by_label("Without").select_option(index=1)
    page.locator("#graphs [role=button]").first.click()
    assert page.evaluate("document.documentElement.scrollWidth") == size["width"]
    beyond = page.evaluate(
        """() => [...document.querySelectorAll("main *, header *")]
          .filter((each) => each.getClientRects().length > 0 && !each.closest(".scroll, option"))
          .filter((each) => each.getBoundingClientRect().right > innerWidth + 1)
          .map((each) => each.tagName + ": " + each.textContent.slice(0, 60))"""
    )
    assert beyond == []
    for row in page.locator("#shares tbody th, #outage tbody th, #log tbody th").all():
        assert row.bounding_box()["width"] <= max(0.36 * size["width"], 150)


@pytest.mark.parametrize("name", ["digits", "policy", "votes", "signals", "numbers", "outages"])
def test_on_a_phone_nothing_sticks_out(name: str, show: Open, digits: Policy, compared: dict[str, Any]) -> None:
    page = show(digits if name == "digits" else load_policy(GOLDEN / f"{name}.json"), compared, PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]


def test_the_theme_is_the_systems_until_it_is_switched(show: Open, digits: Policy) -> None:
    paper = "getComputedStyle(document.body).backgroundColor"
    light, dark = show(digits), show(digits, theme="dark")
    assert light.evaluate(paper) != dark.evaluate(paper)
    light.get_by_role("button", name="Dark theme").click()
    assert light.evaluate(paper) == dark.evaluate(paper)
    light.get_by_role("button", name="Light theme").click()
    assert light.evaluate(paper) != dark.evaluate(paper)


MARKUP, TURNED, RIGHT = (
    "</script><script>alert(1)</script>",
    "\u202egnp.exe\u2066",
    '<img src=x onerror="alert(1)">שלום',
)


def hostile() -> Policy:
    """Names that would be markup, turn a line around, or be found in every object."""
    tiers = (
        Tier(MARKUP, 1.0, (Reading("<b>", 0.0, (0.5,), (1, 2, 3)), Reading("__proto__", 1.0, (), (4, 0), votes=5))),
        Tier(TURNED, 4.0, (Reading("constructor", 0.0, (0.4,), (1, 2, 3)),)),
        Tier(RIGHT * 9, 20.0),
        Tier("__proto__", 30.0),
    )
    nodes = (
        Ask(MARKUP, 1),
        Read(MARKUP, "<b>", (0.2, 0.5), (3, 2, 6), 3),
        Poll(MARKUP, "__proto__", (Tally((), (None,)), Tally((1,), (3, 6))), 3),
        Ask(TURNED, 4),
        Read(TURNED, "constructor", (0.4,), (5, 7), 5),
        Ask(RIGHT * 9, 8),
        Stop(Accept(MARKUP)),
        Stop(Accept(TURNED)),
        Ask("__proto__", 9),
        Stop(Accept("__proto__")),
    )
    roots = {"__proto__": 0, TURNED: 0}
    evidence, provenance = {MARKUP: TURNED}, {"method": MARKUP, "__proto__": {RIGHT: 1}}
    point = OperatingPoint(0, 0, 0.0)
    return Policy(tiers, nodes, (Vertex(0.1, 4.0, 0.7, 0, roots),), point, "", ("task",), None, evidence, provenance)


def test_hostile_names_are_shown_and_do_nothing(show: Open, compared: dict[str, Any]) -> None:
    policy = hostile()
    methods = [{**method, "label": MARKUP + TURNED + method["label"]} for method in compared["methods"]]
    page = show(policy, {**compared, "methods": methods}, PHONE)
    counted = page.evaluate("['script', 'img', 'b'].map((name) => document.querySelectorAll(name).length)")
    assert counted == [4, 0, 0]
    seen = page.locator("body").inner_text()
    assert MARKUP in seen
    assert "\\u{202e}gnp.exe\\u{2066}" in seen
    assert not set("\u202a\u202b\u202d\u202e\u2066\u2067") & set(page.locator("main").text_content())
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    page.get_by_role("textbox", name="constructor of").fill("0.9")
    page.get_by_role("textbox", name="<b> of").fill("0.1")
    assert page.locator("#decision .act").inner_text() == "Accept the answer of \\u{202e}gnp.exe\\u{2066}"
    page.get_by_role("textbox", name="constructor of").fill("missing")
    for place in (2, 3):
        page.locator("fieldset").nth(place).get_by_label("in hand").check()
    page.locator("#try select").select_option(label="__proto__")
    assert page.locator("#decision .act").inner_text() == "Accept the answer of __proto__"
    assert "in the context __proto__" in page.locator("#decision").inner_text()
    read = {MARKUP: {"<b>": 0.1}, TURNED: None, RIGHT * 9: {}, "__proto__": {}}
    assert action_json(policy.decide(read, context="__proto__")) == {"action": "accept", "tier": "__proto__"}


def test_the_page_refuses_to_reach_the_network(browser: Any, digits: Policy, tmp_path: Path) -> None:
    (tmp_path / "p.html").write_text(report_page(digits), "utf-8")
    page = browser.new_page()
    page.goto((tmp_path / "p.html").as_uri())
    tried = "fetch('http://127.0.0.1:9/').then(() => 'sent', (error) => error.message)"
    with page.expect_console_message(lambda message: "Content Security Policy" in message.text):
        assert page.evaluate(tried) != "sent"
    page.close()
