"""The command line: what each command prints, writes, accepts and refuses, and that it says what the library says."""

from __future__ import annotations

import json
import os
import pkgutil
import random
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from metaverify import cli, commands
from metaverify.cli import main
from metaverify.fitting.fit import fit
from metaverify.fitting.models.zoo import MODELS, name_of
from metaverify.learning import MODEL_NAMES
from metaverify.page import report_page
from metaverify.policies.actions import Abstain, Accept, Action, Call, Verify
from metaverify.policies.decision_log import DecisionLog
from metaverify.policies.editions import promote
from metaverify.policies.explain import action_json, explain
from metaverify.policies.file import dump_policy, load_policy, parse_policy, policy_id, save_policy
from metaverify.policies.graph import Ask, Stop
from metaverify.policies.policy import OperatingPoint, Policy, Vertex
from metaverify.policies.router import Reply, Router
from metaverify.policies.tiers import Tier
from metaverify.simulators.inspection import inspect_log
from metaverify.simulators.log import LogError, LoggedReading, LoggedSignal, LoggedTier, ReplayLog
from metaverify.simulators.outcome import replay
from metaverify.simulators.reader import read_log, write_log
from metaverify.simulators.worlds import WORLDS, World, polled, token_prices

pytestmark = pytest.mark.filterwarnings(
    "ignore:Items? .* using the `ReadOnly` qualifier:UserWarning", "ignore:Accessing the 'model_:DeprecationWarning"
)

COMMANDS = ("demo", "collect", "inspect", "count", "fit", "compare", "pomdp", "certify", "replay", "explore", "join")
COMMANDS += ("decide", "show", "report", "simulate", "import", "shadow", "promote", "rollback", "serve-verdict")
COMMANDS += ("export-vllm-sr",)


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str

    def json(self) -> Any:
        """The one JSON document on stdout; JSON has no NaN."""
        return json.loads(self.out, parse_constant=lambda name: pytest.fail(f"{name} in JSON"))


Run = Callable[..., Ran]


def plain(value: object) -> Any:
    """A value as it comes back from JSON."""
    return json.loads(json.dumps(value))


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run one command in this process."""

    def command(*argv: str | Path) -> Ran:
        capsys.readouterr()
        try:
            code = main([str(arg) for arg in argv])
        except SystemExit as stop:
            code = int(stop.code or 0)
        return Ran(code, *capsys.readouterr())

    return command


def apart(*argv: str | Path, script: str | None = None, **environment: str) -> Ran:
    """Run one command, or a script, in a process of its own."""
    start = ["-m", "metaverify"] if script is None else ["-c", script]
    ran = subprocess.run(
        [sys.executable, *start, *map(str, argv)],
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        env={**os.environ, **environment},
        timeout=120,
        check=False,
    )
    return Ran(ran.returncode, ran.stdout, ran.stderr)


@dataclass(frozen=True)
class Shop:
    """A folder with two logs and a policy for each: one plain, one with all that a policy can have."""

    folder: Path
    log: Path
    policy: Path
    full_log: Path
    full_policy: Path
    other_log: Path  # as the first one, of other queries
    decisions: Path  # what a router with the first policy did with three of them
    labels: Path
    prompts: Path
    settings: Path  # of models that LiteLLM makes up


FULL = ("--context", "context", "--abstain", "0.3", "--bins", "4", "--folds", "2", "--budget", "3")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    folder = tmp_path_factory.mktemp("shop")
    found = Shop(
        folder,
        *(folder / name for name in ("log.csv", "policy.json", "full.parquet", "full.json", "other.csv")),
        *(folder / name for name in ("decisions.jsonl", "labels.csv", "prompts.csv", "cascades.toml")),
    )
    assert main(["simulate", "shared_difficulty", "-n", "300", "--levels", "4", "-o", str(found.log)]) == 0
    assert main(["fit", str(found.log), "--budget", "5", "--folds", "2", "-o", str(found.policy)]) == 0
    other = ("--levels", "4", "--seed", "9", "-o", str(found.other_log))
    assert main(["simulate", "shared_difficulty", "-n", "300", *other]) == 0
    with DecisionLog(found.decisions) as decisions:
        router = Router(load_policy(found.policy), lambda tier, _: Reply(tier, {"conf": 0.9}), log=decisions)
        for key in range(3):
            router.route("?", key=key)
    found.labels.write_text("query_id,tier,correct\n0,tier1,1\n1,tier1,0\n2,tier1,true\n", "utf-8")
    found.prompts.write_text("prompt,reference\n2 + 2?,4\n2 + 3?,5\n", "utf-8")
    model = 'litellm_params = { model = "openai/gpt-4o-mini", mock_response = "4" }'
    found.settings.write_text(f'[sums]\npolicy = "policy.json"\n[sums.tiers.small]\n{model}\n', "utf-8")
    write_log(full_log(), found.full_log)
    assert main(["fit", str(found.full_log), *FULL, "-o", str(found.full_policy)]) == 0
    for policy in (found.policy, found.full_policy):
        promote(policy, folder / "exchanged.json")
    return found


def full_log() -> ReplayLog:
    """Token prices, missing readings, contexts that matter, and a second reading that costs something."""
    log = token_prices(2, 5, missing=0.1).draw(600, 4)
    cheap, dear = log.tiers
    rng = np.random.default_rng(5)
    votes = np.clip(np.round(0.7 * cheap.correct + 0.3 * rng.random(len(log)), 1), 0.0, 1.0)
    second = LoggedReading("votes", votes, np.full(len(log), 0.2))
    contexts = np.where(dear.correct + rng.random(len(log)) > 1.2, "easy", "hard").astype(object)
    return replace(log, tiers=(replace(cheap, readings=(*cheap.readings, second)), dear), contexts=contexts)


def small(*argv: str | Path, shop: Shop) -> list[str | Path]:
    """A small run of a command that ends well."""
    command, *others = argv
    return {
        "collect": ["collect", shop.prompts, "--settings", shop.settings, "-o", shop.folder / "collected.parquet"],
        "inspect": ["inspect", shop.log],
        "count": ["count", shop.log, "-o", shop.folder / "counts.parquet"],
        "fit": ["fit", shop.log, "--budget", "5", "--folds", "2"],
        "compare": ["compare", shop.log, "--methods", "thresholds", "--folds", "2", "--jobs", "1"],
        "pomdp": ["pomdp", shop.log, "--price", "0.05", "--bins", "2", "-o", shop.folder / "cascade.pomdp"],
        "certify": ["certify", shop.policy, shop.other_log, "--budget", "5", "-o", shop.folder / "certified.json"],
        "replay": ["replay", shop.policy, shop.log],
        "explore": ["explore", shop.policy, shop.policy, shop.log, "--traffic", "9000", "--precision", "0.02"],
        "join": ["join", shop.decisions, shop.labels, "-o", shop.folder / "seen.parquet"],
        "decide": ["decide", shop.policy, '{"tier1": 0.4}', "--key", "7"],
        "show": ["show", shop.policy],
        "report": ["report", shop.policy, "-o", shop.folder / "report.html"],
        "simulate": ["simulate", "independent", "-n", "20", "-o", shop.folder / "drawn.csv"],
        "import": ["import", "wide", shop.log, "-o", shop.folder / "imported.parquet"],
        "shadow": ["shadow", shop.policy, shop.log, "--live", shop.policy],
        "promote": ["promote", shop.policy, shop.folder / "promoted.json"],
        "rollback": ["rollback", shop.folder / "exchanged.json"],
        "export-vllm-sr": ["export-vllm-sr", shop.policy, shop.log, "--verifier-url", "http://127.0.0.1:8800"],
    }[str(command)] + others


SMALL = [command for command in COMMANDS if command not in ("demo", "serve-verdict")]  # which has no end


# ------------------------------------------------------------------------------------------ what people read


def test_inspect_prints_a_row_for_each_tier_and_reading(run: Run, shop: Shop) -> None:
    ran = run("inspect", shop.full_log, "--context", "context")
    assert ran.code == 0
    assert ran.out.startswith("600 queries, 2 contexts, 2 tiers, 3 readings\n")
    assert re.search(r"^ +1  tier1 ", ran.out, re.MULTILINE)
    assert len(re.findall(r"^  tier1 +(?:conf|votes) ", ran.out, re.MULTILINE)) == 2
    assert re.search(r"^  (?:easy|hard) +\d+ ", ran.out, re.MULTILINE)


def test_fit_prints_the_policy_beside_everything_else(run: Run, shop: Shop) -> None:
    ran = run(*small("fit", shop=shop))
    assert ran.code == 0
    assert ran.out.startswith("budget 5; 300 queries; ")
    names = [line.partition("  ")[0] for line in ran.out.splitlines()]
    expected = ["this policy", "thresholds", "no readings", "hull: fixed tiers mixed"]
    expected += ["always tier1", "always tier2", "always tier3", "oracle"]
    at = names.index("this policy")
    assert names[at : at + len(expected)] == expected
    assert ran.out.endswith("no file was written; -o policy.json writes one\n")


def test_a_fit_by_context_stands_beside_routing_by_context_alone(run: Run, shop: Shop) -> None:
    ran = run("fit", shop.full_log, *FULL)
    assert re.search(r"^context only +\d", ran.out, re.MULTILINE)
    assert re.search(r"^\(handed over\) +\d", ran.out, re.MULTILINE)


def test_fit_says_what_it_wrote(run: Run, shop: Shop, tmp_path: Path) -> None:
    file = tmp_path / "policy.json"
    ran = run(*small("fit", "-o", file, shop=shop))
    told = re.search(r"^wrote (.*): (\d+) nodes, ([\d,]+) bytes$", ran.out, re.MULTILINE)
    assert told
    assert told[1] == str(file)
    assert int(told[2]) == len(load_policy(file).nodes)
    assert int(told[3].replace(",", "")) == file.stat().st_size


def test_replay_prints_what_was_earned(run: Run, shop: Shop) -> None:
    ran = run(*small("replay", shop=shop))
    assert ran.code == 0
    for start in ("300 queries", "cost per query", "quality", "gain over it, points", "share of queries", "tier1"):
        assert any(line.startswith(start) for line in ran.out.splitlines()), start


def test_decide_prints_one_action_in_words_and_with_explain_also_why(run: Run, shop: Shop) -> None:
    plain, told = run(*small("decide", shop=shop)), run(*small("decide", "--explain", shop=shop))
    assert plain.code == told.code == 0
    assert re.fullmatch(r"(?:call|accept the answer of) tier\d\n", plain.out)
    assert told.out.startswith(plain.out)
    assert "quality per unit cost" in told.out


def test_show_draws_a_tree_or_a_flowchart(run: Run, shop: Shop) -> None:
    text, chart = run("show", shop.full_policy), run("show", shop.full_policy, "--format", "mermaid")
    assert text.code == chart.code == 0
    assert text.out.startswith("tiers: tier1 (")
    assert "└─ " in text.out
    assert chart.out.startswith("flowchart ")


def test_simulate_says_what_it_wrote(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl.gz"
    ran = run("simulate", "hopeless", "-n", "1234", "--tiers", "2", "-o", file)
    assert ran == Ran(0, f"wrote {file}: 1,234 queries, tiers tier1, tier2\n", "")
    assert len(read_log(file)) == 1234


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Ran, Path]:
    file = tmp_path_factory.mktemp("demo") / "digits.json"
    return apart("demo", "-o", file), file


def test_demo_goes_the_whole_road(demo: tuple[Ran, Path]) -> None:
    ran, file = demo
    assert (ran.code, ran.err) == (0, "")
    for word in ("TIERS", "this policy", "oracle", "└─ ", "decide(", f"wrote {file}"):
        assert word in ran.out
    assert load_policy(file).tiers[0].name == "tiny"
    page = file.with_name("report.html")
    assert f"wrote {page}" in ran.out
    text = page.read_text("utf-8")
    (told,) = re.findall(r'id="comparison-data">(.*?)</script>', text)
    compared = json.loads(told)
    assert compared["log"]["queries"] == load_policy(file).provenance["queries"]
    assert all(line in ran.out for line in compared["verdict"])
    assert text == report_page(load_policy(file), compared)


def test_the_command_that_demo_tells_to_try_works_as_it_stands(demo: tuple[Ran, Path], run: Run) -> None:
    _, name, *argv = shlex.split(demo[0].out.splitlines()[-1].replace("metaverify", "x metaverify"))
    assert name == "metaverify"
    ran = run(*argv)
    assert (ran.code, ran.err) == (0, "")
    assert "is 0.5, in the interval" in ran.out


# ------------------------------------------------------------------------------------------------ JSON


@pytest.mark.parametrize("command", SMALL)
def test_json_is_one_document_on_stdout_and_nothing_else_anywhere(command: str, run: Run, shop: Shop) -> None:
    ran = run(*small(command, "--json", shop=shop))
    assert (ran.code, ran.err) == (0, "")
    assert isinstance(ran.json(), dict)
    assert ran.out.endswith("}\n")


def test_demo_has_json_too(tmp_path: Path, run: Run) -> None:
    ran = run("demo", "--json", "-o", tmp_path / "p.json")
    assert (ran.code, ran.err) == (0, "")
    assert ran.json()["policy"] == policy_id(load_policy(tmp_path / "p.json"))


def test_what_has_no_end_is_null_in_json(run: Run, shop: Shop, tmp_path: Path) -> None:
    file = tmp_path / "one-group.csv"
    pl.read_csv(shop.log).with_columns(group_id=pl.lit("all")).write_csv(file)
    found = run("replay", shop.policy, file, "--json").json()
    assert (found["groups"], found["cost"]["low"], found["cost"]["high"]) == (1, None, None)


def test_explain_has_json(run: Run, shop: Shop) -> None:
    readings = {"tier1": {"conf": 0.4}}
    ran = run(
        "decide", shop.full_policy, json.dumps(readings), "--key", "3", "--context", "easy", "--explain", "--json"
    )
    expected = explain(load_policy(shop.full_policy), readings, key="3", context="easy").to_json()
    assert ran.json() == json.loads(json.dumps(expected))


def test_show_json_is_the_policy_file(run: Run, shop: Shop) -> None:
    assert run("show", shop.policy, "--json").out == shop.policy.read_text("utf-8")
    policy = load_policy(shop.policy)
    turned = run("show", shop.policy, "--json", "--budget", "8").out
    assert parse_policy(turned.encode()) == policy.at(budget=8)


# ------------------------------------------------------------------------------------- help and wrong use


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example_that_is_no_wrong_use(
    command: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = run(command, "--help")
    assert (ran.code, ran.err) == (0, "")
    monkeypatch.chdir(tmp_path)
    for example in ran.out.partition("example:\n")[2].strip().splitlines():
        name, *argv = shlex.split(example)
        assert (name, argv[0]) == ("metaverify", command)
        if command != "demo":  # which is run elsewhere, and takes its time
            assert run(*argv).code == (0 if command == "simulate" else 1)  # the example's files are not there


def test_help_names_every_command(run: Run) -> None:
    ran = run("--help")
    assert ran.code == 0
    listed = re.findall(r"^ {4}([\w-]+)", ran.out.partition("commands:")[2], re.MULTILINE)
    assert listed == list(COMMANDS)


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["fi"],
        ["fit"],
        ["fit", "LOG"],
        ["fit", "LOG", "--budget", "4", "--price", "1"],
        ["fit", "LOG", "--budget", "much"],
        ["fit", "LOG", "--budget", "4", "--method", "magic"],
        ["fit", "LOG", "--budget", "4", "--bins", "2.5"],
        ["fit", "LOG", "--budget", "4", "--no-such-option"],
        ["inspect"],
        ["inspect", "LOG", "LOG"],
        ["replay", "POLICY"],
        ["replay", "POLICY", "LOG", "--budget", "4", "--price", "1"],
        ["decide", "POLICY"],
        ["decide", "POLICY", "{}", "--key"],
        ["show"],
        ["show", "POLICY", "--format", "crayon"],
        ["simulate", "utopia", "-o", "OUT"],
        ["simulate", "independent"],
        ["simulate", "independent", "-n", "0", "-o", "OUT"],
        ["simulate", "independent", "-n", "-5", "-o", "OUT"],
        ["simulate", "independent", "--tiers", "6", "-o", "OUT"],
    ],
    ids=" ".join,
)
def test_wrong_use_exits_with_2_and_says_how_to_use_it(argv: list[str], run: Run, shop: Shop, tmp_path: Path) -> None:
    places = {"LOG": shop.log, "POLICY": shop.policy, "OUT": tmp_path / "out.csv"}
    ran = run(*(places.get(arg, arg) for arg in argv))
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("usage: metaverify")
    assert re.search(r"^metaverify.*: error: ", ran.err, re.MULTILINE)
    assert not list(tmp_path.iterdir())


def test_the_version_is_that_of_the_distribution(run: Run) -> None:
    assert run("--version") == Ran(0, f"metaverify {version('metaverify')}\n", "")


def test_the_module_is_the_command() -> None:
    ran = apart("--version")
    assert (ran.code, ran.out) == (0, f"metaverify {version('metaverify')}\n")


# ------------------------------------------------------------------------------------ the library's figures


def test_fit_says_what_the_library_says(run: Run, shop: Shop, tmp_path: Path) -> None:
    file = tmp_path / "policy.json"
    found = run("fit", shop.full_log, *FULL, "--seed", "3", "-o", file, "--json").json()
    log = read_log(shop.full_log, context="context")
    expected = fit(log, budget=3.0, folds=2, seed=3, bins=4, abstain=0.3)
    warnings = [warning.slug for warning in inspect_log(log).warnings]
    assert found == {**plain(expected.to_json()), "out": str(file), "warnings": warnings}
    assert file.read_text("utf-8") == dump_policy(expected.policy)


@pytest.mark.parametrize("dial", [[], ["--budget", "2.5"], ["--price", "0.05"]], ids=["as it is", "budget", "price"])
def test_replay_says_what_the_library_says(dial: list[str], run: Run, shop: Shop) -> None:
    found = run("replay", shop.full_policy, shop.full_log, *dial, "--json").json()
    policy, log = load_policy(shop.full_policy), read_log(shop.full_log, context="context")
    if dial:
        policy = policy.at(**{dial[0].removeprefix("--"): float(dial[1])})
    expected = {
        **plain(replay(policy, log).to_json()),
        "in_sample": True,
        "certificate": None,
        "notes": [],
        "warnings": ["few-values"],
    }
    assert {**found, "notes": []} == expected
    (told,) = [
        line for line in run("replay", shop.full_policy, shop.full_log, *dial).out.splitlines() if "few-values" in line
    ]
    assert told.startswith("warning few-values: ")
    assert " of tier1: " in told  # the readings that it is about
    assert [note.split(",")[0] for note in found["notes"]] == ["the policy was fitted on this log"]


def test_a_budget_beyond_the_end_of_the_dial_is_named_in_a_replay(run: Run, shop: Shop) -> None:
    most = load_policy(shop.policy).vertices[-1].cost
    for budget, said in ((most, False), (most + 1.0, True)):
        note = f"the dial ends at {most:.4g}, below the {budget:g} allowed"
        assert (f"note: {note}" in run("replay", shop.policy, shop.log, "--budget", budget).out) is said
        notes = run("replay", shop.policy, shop.log, "--budget", budget, "--json").json()["notes"]
        assert any(each.startswith(note) for each in notes) is said


def test_replaying_a_fit_on_its_own_log_comes_near_what_the_fit_promised(run: Run, shop: Shop, tmp_path: Path) -> None:
    file = tmp_path / "policy.json"
    fitted = run(*small("fit", "-o", file, "--json", shop=shop)).json()["outcome"]
    replayed = run("replay", file, shop.log, "--json").json()
    assert replayed["n"] == fitted["n"] == 300
    for measure in ("cost", "quality"):
        low, high = fitted[measure]["low"], fitted[measure]["high"]
        assert low - 1e-8 <= replayed[measure]["mean"] <= high + 1e-8  # shares in files have nine digits


def as_plain(action: Action) -> dict[str, str]:
    return {"action": type(action).__name__.lower(), **asdict(action)}


def random_case(rng: random.Random, policy: Policy) -> tuple[dict[str, Any], dict[str, str], dict[str, float]]:
    """Readings, what else is known, and a turn of the dial."""
    values = [None, 0.0, 1.0, 1.5, *(rng.random() for _ in range(8))]
    readings: dict[str, Any] = {}
    for tier in policy.tiers:
        by_name = {r.name: rng.choice(values) for r in tier.readings if rng.random() < 0.7}
        told = rng.choice(["absent", "by name", "by name", "bare"])
        if told != "absent":
            readings[tier.name] = by_name if told == "by name" else rng.choice(values)
    known = {"key": str(rng.randrange(10**6))}
    if rng.random() < 0.7:
        known["context"] = rng.choice([*policy.vertices[0].context_roots, "never seen"])
    dial = rng.choice([{}, {"budget": rng.uniform(policy.vertices[0].cost, 6.0)}, {"price": rng.uniform(0.0, 0.3)}])
    return readings, known, dial


def test_decide_decides_as_the_policy_does(run: Run, shop: Shop) -> None:
    rng = random.Random(11)
    policy = load_policy(shop.full_policy)
    taken = set()
    for _ in range(250):
        readings, known, dial = random_case(rng, policy)
        action = (policy.at(**dial) if dial else policy).decide(readings, **known)
        options = [part for name, value in {**known, **dial}.items() for part in (f"--{name}", repr(value).strip("'"))]
        ran = run("decide", shop.full_policy, json.dumps(readings), *options, "--json")
        assert (ran.code, ran.err) == (0, "")
        assert ran.json() == as_plain(action)
        taken.add(type(action))
    assert taken == {Call, Verify, Accept, Abstain}


# ------------------------------------------------------------------------------------------ where things go


def test_messages_go_to_stderr_and_leave_stdout_empty(run: Run, shop: Shop) -> None:
    for flags in ([], ["--json"]):
        ran = run("fit", shop.log, "--budget", "0.001", *flags)
        assert (ran.code, ran.out) == (1, "")
        assert ran.err.startswith("metaverify: ")
        assert ran.err.count("\n") == 1


def test_fit_without_a_file_writes_nothing(
    run: Run, shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in shop.folder.iterdir()}
    assert run(*small("fit", shop=shop)).code == 0
    assert list(tmp_path.iterdir()) == []
    assert {path: path.stat().st_mtime_ns for path in shop.folder.iterdir()} == before


def test_no_command_but_fit_demo_and_simulate_writes_anything(
    run: Run, shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in shop.folder.iterdir()}
    for command in ("inspect", "replay", "decide", "show"):
        assert run(*small(command, shop=shop)).code == 0
    assert list(tmp_path.iterdir()) == []
    assert {path: path.stat().st_mtime_ns for path in shop.folder.iterdir()} == before


def test_a_reader_that_goes_away_is_no_error(shop: Shop) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "metaverify", "show", str(shop.policy)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout
    assert process.stderr
    process.stdout.close()
    with process.stderr:
        said = process.stderr.read()
    process.wait(60)
    assert said == b""


@pytest.mark.parametrize(
    "readings",
    ['{"tier1": 0.1, "tier1": 0.9}', '{"tier1": {"conf": 0.1, "conf": 0.9}}', '{"tier1": 0.1, "tier1": 0.1}'],
)
def test_readings_told_twice_are_refused(run: Run, shop: Shop, readings: str) -> None:
    ran = run("decide", shop.policy, readings, "--key", "7")
    twice = "conf" if "conf" in readings else "tier1"
    assert (ran.code, ran.out) == (1, "")
    wanted = f"E_DUPKEY: the readings are {readings}, with '{twice}' twice in one object; write it once\n"
    assert ran.err == f"metaverify: {wanted}"


@pytest.mark.parametrize("truth", ["true", '{"conf": false}'])
def test_true_is_no_confidence(run: Run, shop: Shop, truth: str) -> None:
    ran = run("decide", shop.policy, f'{{"tier1": {truth}}}', "--key", "7")
    assert (ran.code, ran.out) == (1, "")
    assert "of 'tier1' is " in ran.err
    assert "not a number or None" in ran.err


def test_what_is_typed_where_the_locale_knows_no_utf_8_is_what_was_typed(run: Run, shop: Shop) -> None:
    for key in ("ü", "日本", "plain"):
        typed = key.encode().decode("ascii", "surrogateescape")
        assert run("decide", shop.policy, "{}", "--key", typed) == run("decide", shop.policy, "{}", "--key", key)
    for wrong in (["{}", "--key", "\udcfc"], ["{}", "--key", "\ud800"], ['{"\udcfc": 0.5}', "--key", "7"]):
        ran = run("decide", shop.policy, *wrong)
        assert (ran.code, ran.out) == (1, "")
        assert ran.err.startswith("metaverify: E_ENCODING: ")
    place = run("decide", shop.full_policy, "{}", "--key", "7", "--context", "\udcfc").err
    assert place.startswith(r"metaverify: E_ENCODING: --context '\udcfc' is not UTF-8; ")


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
@pytest.mark.parametrize("argv", [["show", "POLICY"], ["decide", "--help"]], ids=["show", "help"])
def test_a_terminal_without_the_letters_for_it_gets_the_rest(argv: list[str], encoding: str, shop: Shop) -> None:
    ran = apart(*(str(shop.policy) if arg == "POLICY" else arg for arg in argv), PYTHONIOENCODING=encoding)
    assert (ran.code, ran.err) == (0, "")


# --------------------------------------------------------------------------------------------- the same again


def test_the_same_seed_gives_the_same_bytes(run: Run, shop: Shop, tmp_path: Path) -> None:
    for name in ("a.json", "b.json"):
        assert run("fit", shop.full_log, *FULL, "-o", tmp_path / name).code == 0
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes() == shop.full_policy.read_bytes()


def test_the_order_of_rows_and_the_format_do_not_matter(run: Run, shop: Shop, tmp_path: Path) -> None:
    table = pl.read_csv(shop.log, infer_schema_length=None)
    table.sample(fraction=1.0, shuffle=True, seed=1).write_parquet(tmp_path / "a.parquet")
    table.reverse().write_ndjson(tmp_path / "b.jsonl")
    table.select(reversed(table.columns)).write_csv(tmp_path / "c.csv")
    for name in ("a.parquet", "b.jsonl", "c.csv"):
        ran = run("fit", tmp_path / name, "--budget", "5", "--folds", "2", "-o", tmp_path / "policy.json")
        assert ran.code == 0
        assert (tmp_path / "policy.json").read_bytes() == shop.policy.read_bytes(), name


def test_the_seed_of_python_s_hashes_does_not_matter(shop: Shop, tmp_path: Path) -> None:
    for seed in ("1", "2"):
        file = tmp_path / f"{seed}.json"
        ran = apart("fit", shop.full_log, *FULL, "-o", file, PYTHONHASHSEED=seed)
        assert (ran.code, ran.err) == (0, "")
        assert file.read_bytes() == shop.full_policy.read_bytes()


@pytest.mark.parametrize("world", WORLDS)
def test_simulate_draws_the_same_log_from_the_same_seed_alone(world: str, run: Run, tmp_path: Path) -> None:
    def drawn(seed: int) -> bytes:
        options = ("-n", "50", "--missing", "0.2", "--seed", str(seed))
        assert run("simulate", world, *options, "-o", tmp_path / "log.csv").code == 0
        return (tmp_path / "log.csv").read_bytes()

    assert drawn(1) == drawn(1) != drawn(2)


# ------------------------------------------------------------------------------------------ options of a log


def fitted(run: Run, log: Path, *options: str) -> bytes:
    file = log.with_name("fitted.json")
    ran = run("fit", log, "--budget", "5", "--folds", "2", *options, "-o", file)
    assert (ran.code, ran.err) == (0, "")
    return file.read_bytes()


def test_percent_with_its_scale_is_the_same_log(run: Run, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    percent = rng.integers(0, 101, 200)
    right = (rng.random(200) < percent / 100).astype(int)
    columns = {"query_id": [f"q{i:03d}" for i in range(200)], "correct_a": right, "cost_a": 1, "conf_a": percent}
    table = pl.DataFrame({**columns, "correct_b": 1, "cost_b": 9})
    table.write_csv(tmp_path / "percent.csv")
    table.with_columns(conf_a=pl.Series(percent / 100)).write_csv(tmp_path / "unit.csv")
    assert fitted(run, tmp_path / "percent.csv", "--scale", "100") == fitted(run, tmp_path / "unit.csv")


def test_prices_may_be_given_instead_of_their_columns(run: Run, shop: Shop, tmp_path: Path) -> None:
    pl.read_csv(shop.log).drop("cost_tier1", "cost_tier3").write_csv(tmp_path / "log.csv")
    given = fitted(run, tmp_path / "log.csv", "--cost", "tier1=1", "--cost", "tier3=16")
    assert given == shop.policy.read_bytes()


def test_group_and_weight_may_have_other_names(run: Run, shop: Shop, tmp_path: Path) -> None:
    rows = pl.int_range(300)
    table = pl.read_csv(shop.log).with_columns(group_id=rows // 3, weight=1.0 + rows % 2)
    table.write_csv(tmp_path / "usual.csv")
    table.rename({"group_id": "prompt", "weight": "times"}).write_csv(tmp_path / "other.csv")
    usual = fitted(run, tmp_path / "usual.csv")
    assert usual == fitted(run, tmp_path / "other.csv", "--group", "prompt", "--weight", "times")
    assert usual != shop.policy.read_bytes()


def test_tiers_and_readings_may_be_chosen(run: Run, shop: Shop) -> None:
    found = run(*small("fit", "--tiers", "tier1, tier3", "--json", shop=shop)).json()
    assert set(found["outcome"]["calls"]) == {"tier1", "tier3"}
    found = run("fit", shop.full_log, "--budget", "3", "--readings", "votes", "--bins", "4", "--json").json()
    assert {name for reads in found["outcome"]["reads"].values() for name in reads} <= {"votes"}


def test_the_command_line_knows_every_model() -> None:
    assert list(MODEL_NAMES) == list(MODELS)


@pytest.mark.parametrize("model", ["counts", "automix-kde"])
def test_a_model_can_be_named(model: str, run: Run, shop: Shop, tmp_path: Path) -> None:
    file = tmp_path / "policy.json"
    assert run(*small("fit", "--model", model, "--method", "lattice", "-o", file, shop=shop)).code == 0
    recorded = load_policy(file).provenance["options"]
    assert recorded["model"] == name_of(MODELS[model]()) or not recorded["read"]


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log with a judge of the cheap tier that is worth its price, and a column that says where both agree."""
    log = WORLDS["shared_difficulty"](2, 3).draw(600, 8)
    cheap, dear = log.tiers
    rng = np.random.default_rng(8)
    verdict = np.round(0.75 * cheap.correct + 0.25 * rng.random(len(log)), 2)
    judge = LoggedSignal("judge", (LoggedReading("conf", verdict, np.full(len(log), 0.1)),), ("tier1",))
    same = LoggedReading("agree", (cheap.correct == dear.correct).astype(float), np.zeros(len(log)))
    path = tmp_path_factory.mktemp("judged") / "log.csv"
    signals = (judge, LoggedSignal("agree_tier1_tier2", (same,), ("tier1", "tier2")))
    write_log(replace(log, signals=signals), path)
    return path


def test_a_judge_goes_the_whole_road(run: Run, judged: Path, tmp_path: Path) -> None:
    out = tmp_path / "policy.json"
    told = run("inspect", judged, "--signal", "judge=tier1")
    assert told.code == 0
    assert re.search(r"judge \(of tier1\) +conf +0\.1", told.out)
    ran = run("fit", judged, "--signal", "judge=tier1", "--budget", "2.5", "--folds", "2", "-o", out)
    assert ran.code == 0, ran.err
    shares = re.search(r"^judge +([\d.]+)%$", ran.out, re.MULTILINE)
    assert shares
    assert float(shares[1]) > 50
    shown = run("show", out)
    assert "signal: judge (conf 0.1), once tier1 answered" in shown.out
    assert "read conf of judge" in shown.out
    replayed = run("replay", out, judged)  # the file says what the judge needs
    assert replayed.code == 0, replayed.err
    key = next(str(key) for key in range(100) if load_policy(out).arm(str(key)) == load_policy(out).point.high)
    assert run("decide", out, '{"tier1": 0.5}', "--key", key).out == "read conf of judge\n"
    sure = run("decide", out, '{"tier1": 0.5, "judge": 0.99}', "--key", key, "--explain")
    assert sure.out.startswith("accept the answer of tier1\n")
    assert "conf of judge is 0.99, in the interval conf >= " in sure.out


def test_votes_go_the_whole_road_and_the_drawing_says_where_asking_stops(run: Run, tmp_path: Path) -> None:
    yes = np.array([[0.1, 0.95]])
    world = World(
        ("small", "large"),
        np.ones(1),
        np.array([[0.6, 0.95]]),
        np.array([[1.0, 10.0]]),
        ((polled("self_verify", yes, 8, 2.0),), ()),
    )
    log, out = tmp_path / "log.csv", tmp_path / "policy.json"
    write_log(world.draw(500, 0), log)
    ran = run("fit", log, "--votes", "self_verify=8", "--budget", "6", "--folds", "2", "-o", out)
    assert ran.code == 0, ran.err
    shown = run("show", out).out
    assert "poll self_verify of small (up to" in shown
    assert re.search(r"[01] of [23] yes", shown)
    assert re.search(r"\d of [2-5] yes .*: accept small", shown)
    assert run("replay", out, log).code == 0  # the file says how many votes there are
    key = next(str(key) for key in range(100) if load_policy(out).arm(str(key)) == load_policy(out).point.high)
    told = [run("decide", out, json.dumps({"small": votes}), "--key", key).out for votes in ({}, [8, 8], [0, 8])]
    assert told == ["read self_verify of small\n", "accept the answer of small\n", "call large\n"]
    assert (
        "self_verify of small is 8 of 8 yes" in run("decide", out, '{"small": [8, 8]}', "--key", key, "--explain").out
    )
    wrong = run("decide", out, '{"small": 0.5}', "--key", key)
    assert "not (yes, asked)" in wrong.err


def test_samples_go_the_whole_road(run: Run, tmp_path: Path) -> None:
    """A second sample at half the price mends every error, and the first confidence tells where there is one."""
    rng = np.random.default_rng(0)
    right = rng.random(400) < 0.6
    sure, half, one = np.where(right, 0.9, 0.2), np.full(400, 0.5), np.ones(400)
    second = LoggedReading("conf2", half, half, correct=one)
    small = LoggedTier("small", right.astype(float), one, (LoggedReading("conf", sure, 0.0 * one), second))
    ids = np.array([f"q{row:03d}" for row in range(400)], dtype=object)
    log, out = tmp_path / "log.csv", tmp_path / "policy.json"
    write_log(ReplayLog(ids, (small, LoggedTier("large", one, 10.0 * one)), one, ids), log)
    assert run("inspect", log, "--json").json()["ignored_columns"] == ["correct2_small"]
    assert run("inspect", log, "--samples", "conf2", "--json").json()["ignored_columns"] == []
    found = run("fit", log, "--samples", "conf2", "--budget", "1.2", "--folds", "2", "-o", out, "--json").json()
    without = run("fit", log, "--budget", "1.2", "--folds", "2", "--json").json()
    assert found["outcome"]["quality"]["mean"] > 0.9 > 0.7 > without["outcome"]["quality"]["mean"]
    replayed = run("replay", out, log, "--json").json()  # the file says what is a sample
    with pytest.raises(LogError, match="--samples conf2"):
        replay(load_policy(out), read_log(log))
    mended = replayed["quality"]["mean"] - right.mean()
    assert mended == pytest.approx(replayed["reads"]["small"]["conf2"])  # bought where it mends, and nowhere else
    key = next(str(key) for key in range(100) if load_policy(out).arm(str(key)) == load_policy(out).point.high)
    readings = ({"conf": 0.2}, {"conf": 0.2, "conf2": 0.5}, {"conf": 0.9})
    told = [run("decide", out, json.dumps({"small": given}), "--key", key).out for given in readings]
    accept = "accept the answer of small\n"
    assert told == ["read conf2 of small\n", accept, accept]


@pytest.mark.parametrize("text", ["self_verify", "self_verify=", "self_verify=many"])
def test_votes_that_are_declared_badly_are_told_how(text: str, run: Run, shop: Shop) -> None:
    ran = run("inspect", shop.log, "--votes", text)
    told = f"metaverify: --votes {text}: write it as reading=number, for example --votes self_verify=8\n"
    assert (ran.code, ran.err) == (1, told)


@pytest.mark.parametrize("text", ["=tier1", "judge=", "judge=,"])
def test_a_signal_that_is_declared_badly_is_told_how(text: str, run: Run, judged: Path) -> None:
    ran = run("inspect", judged, "--signal", text)
    assert (ran.code, ran.err) == (
        1,
        f"metaverify: --signal {text}: write it as name=tier, for example --signal judge=small\n",
    )


def test_a_column_of_a_judge_that_was_not_declared_is_never_taken_for_one(run: Run, judged: Path) -> None:
    ran = run("inspect", judged)
    assert ran.code == 1
    assert "conf_judge belongs to no tier" in ran.err
    assert "--signal" in ran.err


@pytest.mark.parametrize("method", ["auto", "chain", "lattice", "thresholds"])
def test_every_method_fits_a_log_with_signals(method: str, run: Run, judged: Path, tmp_path: Path) -> None:
    ran = run(
        "fit", judged, "--signal", "judge=tier1", "--method", method, "--budget", "3", "--folds", "2", "--json",
        "-o", tmp_path / "p.json",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert set(ran.json()["outcome"]["calls"]) == {"tier1", "tier2"}


@pytest.mark.parametrize("method", ["auto", "chain", "lattice", "thresholds"])
def test_every_method_fits_and_is_recorded(method: str, run: Run, shop: Shop, tmp_path: Path) -> None:
    file = tmp_path / "policy.json"
    ran = run(*small("fit", "--method", method, "-o", file, shop=shop))
    assert ran.code == 0
    recorded = load_policy(file).provenance
    assert recorded["method"] in {"chain" if method == "auto" else method, "chain"}  # which reads nothing at times
    assert run("replay", file, shop.log).code == 0


def test_a_policy_needs_no_options_to_be_replayed_on_its_log(run: Run, shop: Shop) -> None:
    assert run("replay", shop.full_policy, shop.full_log).code == 0


@pytest.mark.parametrize("name", ["gpt-4o", "o3, high", "two words", "a=b", "模型", "x|y", "-n"])
def test_a_tier_of_any_name_can_be_fitted_shown_and_replayed(name: str, run: Run, shop: Shop, tmp_path: Path) -> None:
    old = pl.read_csv(shop.log)
    log, file = tmp_path / "log.parquet", tmp_path / "policy.json"
    old.rename({column: column.replace("tier2", name) for column in old.columns}).write_parquet(log)
    assert run("fit", log, "--budget", "5", "--folds", "2", "-o", file).code == 0
    assert name in run("show", file).out
    assert run("decide", file, json.dumps({name: 0.5}), "--key", "1").code == 0
    ran = run("replay", file, log)
    assert (ran.code, ran.err) == (0, "")


@pytest.mark.parametrize("seed", range(8))
def test_where_nothing_is_read_and_prices_are_constant_the_budget_is_kept_to_the_letter(
    seed: int, run: Run, tmp_path: Path
) -> None:
    rng = np.random.default_rng(seed)
    log, file = tmp_path / "log.csv", tmp_path / "policy.json"
    columns: dict[str, Any] = {"query_id": [f"q{i:03d}" for i in range(200)]}
    for place, tier in enumerate("abc"):
        columns |= {f"correct_{tier}": rng.random(200) < 0.5 + 0.03 * place, f"cost_{tier}": 5.0**place}
    pl.DataFrame(columns).write_csv(log)
    budget = rng.uniform(1.2, 24.0)
    assert run("fit", log, "--budget", str(budget), "-o", file).code == 0
    spent = run("replay", file, log, "--json").json()["cost"]["mean"]
    assert spent <= budget * (1 + 1e-6)
    assert load_policy(file).expected_cost == pytest.approx(spent, rel=1e-6)


# --------------------------------------------------------------------------------------- turning the dial


def test_a_larger_budget_spends_more_and_earns_more(run: Run, shop: Shop) -> None:
    found = [run("replay", shop.policy, shop.log, "--budget", b, "--json").json() for b in ("2", "4", "8", "16", "inf")]
    costs = [outcome["cost"]["mean"] for outcome in found]
    assert costs == sorted(costs)
    assert found[0]["quality"]["mean"] < found[-1]["quality"]["mean"]


def test_show_draws_the_graphs_at_the_dial(run: Run, shop: Shop) -> None:
    policy = load_policy(shop.policy)
    for budget in (policy.vertices[0].cost, 8.0):
        expected = f"at cost {policy.at(budget=budget).expected_cost:.4g} per query"
        assert expected in run("show", shop.policy, "--budget", str(budget)).out


@pytest.mark.parametrize("price", ["0.02", "1000"])
def test_a_fit_at_a_price_has_no_budget(price: str, run: Run, shop: Shop, tmp_path: Path) -> None:
    ran = run("fit", shop.log, "--price", price, "--folds", "2", "-o", tmp_path / "policy.json")
    assert ran.code == 0
    assert ran.out.startswith("price ")
    assert load_policy(tmp_path / "policy.json").point.budget is None


def test_a_fit_at_a_price_says_which_one_was_asked_for(run: Run, shop: Shop) -> None:
    assert run("fit", shop.log, "--price", "0.02", "--folds", "2").out.startswith("price 0.02;")


# -------------------------------------------------------------------------------------- what is not needed

OTHERS = """
import sys
before = set(sys.modules)
from metaverify.cli import main
try:
    code = main(sys.argv[1:])
except SystemExit as stop:
    code = stop.code
tops = {name.partition(".")[0] for name in set(sys.modules) - before}
print(*sorted(tops - set(sys.stdlib_module_names) - {"metaverify"}), file=sys.stderr)
sys.exit(code)
"""


@pytest.mark.parametrize(
    "argv",
    [
        ["--help"],
        ["--version"],
        ["fit", "--help"],
        ["decide", "POLICY", "{}", "--key", "1", "--explain"],
        ["show", "POLICY"],
    ],
    ids=["help", "version", "help of a command", "decide", "show"],
)
def test_what_needs_no_numbers_loads_nothing_beside_the_standard_library(argv: list[str], shop: Shop) -> None:
    ran = apart(*(str(shop.policy) if arg == "POLICY" else arg for arg in argv), script=OTHERS)
    assert (ran.code, ran.err) == (0, "\n")


ROOM_OF_COMMANDS = """
import sys
from metaverify.cli import main
try:
    main(sys.argv[1:])
except SystemExit:
    pass
print(*sorted(name for name in sys.modules if name.startswith("metaverify.commands.")), file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("argv", "loaded"),
    [
        ([], ""),
        (["--help"], ""),
        (["--version"], ""),
        (["nonsense"], ""),
        (["show", "--help"], "metaverify.commands.show"),
        (["decide", "no.json", "{}"], "metaverify.commands.decide"),
    ],
)
def test_only_the_command_that_is_called_is_loaded(argv: list[str], loaded: str) -> None:
    assert apart(*argv, script=ROOM_OF_COMMANDS).err.splitlines()[-1] == loaded


def test_every_module_of_a_command_has_its_line_in_the_table() -> None:
    modules = [name for _, name, _ in pkgutil.iter_modules(commands.__path__)]
    assert modules == sorted(map(cli.module_name, cli.COMMANDS))


def test_import_says_what_of_a_log_is_no_tier_and_which_mapping_finds_nothing(run: Run, tmp_path: Path) -> None:
    calls = [
        {"trace_id": f"q{at:02}", "model": model, "response_cost": cost, "p": at / 40, "ok": right}
        for at in range(40)
        for model, cost, right in (("small", 0.5, at % 2), ("judge", 0.1, None), ("large", 4.0, 1))
    ]
    (tmp_path / "calls.jsonl").write_text("".join(json.dumps(call) + "\n" for call in calls))
    mapping = ("--map", "confidence=p", "--map", "correct=ok", "--map", "lang=metadata.lang")
    log = tmp_path / "log.csv"
    ran = run("import", "litellm", tmp_path / "calls.jsonl", *mapping, "-o", log)
    assert (ran.code, ran.err) == (0, "")
    assert "no record has anything there: --map lang=metadata.lang" in ran.out
    (advice,) = re.findall(r"no labels of judge: .*fit (--tiers \S+)", ran.out)
    assert run("fit", log, "--budget", "2", "--folds", "2", "-o", tmp_path / "p.json").code == 1
    assert run("fit", log, *advice.split(), "--budget", "2", "--folds", "2", "-o", tmp_path / "p.json").code == 0


@pytest.mark.parametrize(
    ("command", "module"), [("fit", "fit"), ("serve-verdict", "serve_verdict"), ("import", "import_")]
)
def test_a_module_is_named_as_its_command_as_far_as_python_takes_it(command: str, module: str) -> None:
    assert cli.module_name(command) == module


WITHOUT_EXTRA = """
import sys
EXTRA = {"numpy", "scipy", "sklearn", "optuna", "joblib", "polars", "narwhals", "rich", "matplotlib", "threadpoolctl"}

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in EXTRA:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocker())
from metaverify.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("command", ["inspect", "fit", "replay", "simulate"])
def test_without_the_extra_a_command_that_needs_it_says_which(command: str, shop: Shop, tmp_path: Path) -> None:
    argv = small(command, shop=shop)
    if command == "simulate":
        argv[-1] = tmp_path / "log.csv"
    ran = apart(*argv, script=WITHOUT_EXTRA)
    assert (ran.code, ran.out) == (1, "")
    assert re.fullmatch(r"metaverify: .*pip install 'metaverify\[fit\]'.*\n", ran.err)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["decide", "show"])
def test_without_the_extra_a_router_can_decide_and_show(command: str, run: Run, shop: Shop) -> None:
    assert apart(*small(command, shop=shop), script=WITHOUT_EXTRA) == run(*small(command, shop=shop))


def test_a_fault_of_ours_is_not_mistaken_for_a_missing_extra(monkeypatch: pytest.MonkeyPatch, shop: Shop) -> None:
    monkeypatch.setitem(sys.modules, "metaverify.policies.drawing", None)
    with pytest.raises(ModuleNotFoundError):
        main(["show", str(shop.policy)])


def test_an_interruption_is_one_line(monkeypatch: pytest.MonkeyPatch, run: Run, shop: Shop) -> None:
    def interrupted(*_: object, **__: Mapping[str, object]) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("metaverify.policies.file.load_policy", interrupted)
    assert run("show", shop.policy) == Ran(1, "", "metaverify: interrupted; every file is as it was, or whole\n")


# ------------------------------------------------------------------------------------------ numbers as contexts


@pytest.fixture(scope="module")
def lengths(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A log whose small tier fails on long prompts, another with longer ones, and a policy of the first."""
    folder = tmp_path_factory.mktemp("lengths")
    for name, seed, scale in (("log", 1, 300.0), ("other", 2, 500.0)):
        rng = np.random.default_rng(seed)
        tokens = np.ceil(rng.exponential(scale, 400))
        small = rng.random(400) < np.where(tokens < 200, 0.9, 0.3)
        columns = {
            "task": rng.choice(["qa", "code"], 400),
            "tokens": pl.Series(np.where(rng.random(400) < 0.1, np.nan, tokens)).fill_nan(None),
            "conf_small": np.round(0.5 + 0.2 * small + 0.3 * rng.random(400), 2),
            "correct_small": small.astype(int),
            "cost_small": np.ones(400),
            "correct_large": (rng.random(400) < 0.9).astype(int),
            "cost_large": np.full(400, 10.0),
        }
        pl.DataFrame(columns).write_csv(folder / f"{name}.csv")
    files = folder / "log.csv", folder / "other.csv", folder / "policy.json"
    options = ["--context", "task,tokens:3", "--budget", "5", "--folds", "2", "-o", str(files[2])]
    assert main(["fit", str(files[0]), *options]) == 0
    return files


def test_a_policy_by_numbers_goes_the_whole_road(run: Run, lengths: tuple[Path, Path, Path]) -> None:
    log, other, file = lengths
    policy = load_policy(file)
    low, high = policy.context_cuts["tokens"]
    assert policy.context == ("task", "tokens")
    inspected = run("inspect", log, "--context", "task,tokens:3").out
    shown = run("show", file).out
    for label in (f"qa/tokens<{low:g}", f"code/{low:g}<=tokens<{high:g}", f"qa/tokens>={high:g}"):
        assert label in inspected
        assert label in shown
    told = run("decide", file, '{"small": 0.75}', "--context", '{"task": "qa", "tokens": 7}', "--key", "1", "--explain")
    assert told.out.startswith(str(explain(policy, {"small": 0.75}, context=f"qa/tokens<{low:g}", key="1")))
    assert f"context qa/tokens<{low:g}: its own graph" in told.out
    missing = run("decide", file, "{}", "--context", '{"task": "qa", "tokens": null}', "--key", "1", "--explain")
    assert "context qa/tokens missing: its own graph" in missing.out

    cut = read_log(other, context=policy.context, context_cuts=policy.context_cuts)
    expected = {**plain(replay(policy, cut).to_json()), "in_sample": False, "certificate": None, "notes": []}
    expected["warnings"] = [warning.slug for warning in inspect_log(cut).warnings]
    assert expected["warnings"]
    assert run("replay", file, other, "--json").json() == expected
    assert run("replay", file, other, "--context", "task,tokens:9", "--json").json() == expected
    assert run("replay", file, log, "--json").json()["in_sample"] is True


def test_values_of_a_context_without_a_column_are_refused(run: Run, lengths: tuple[Path, Path, Path]) -> None:
    ran = run("decide", lengths[2], "{}", "--context", '{"task": "qa"}', "--key", "1")
    assert (ran.code, ran.out) == (1, "")
    assert "nor the values of task, tokens by name: 'tokens' is missing" in ran.err


@pytest.mark.parametrize(
    ("context", "words"),
    [
        ("{", "is no JSON"),
        ("{}x", "is no JSON"),
        ("{'task': 1}", "is no JSON"),
        ("[qa", "is no JSON"),
        ("[1]", "is not a JSON object"),
        ("[" * 100_000, "nested too deep"),
    ],
)
def test_a_context_that_begins_as_json_is_json_or_refused(
    run: Run, lengths: tuple[Path, Path, Path], context: str, words: str
) -> None:
    ran = run("decide", lengths[2], "{}", "--context", context, "--key", "1")
    assert (ran.code, ran.out) == (1, "")
    assert words in ran.err
    assert ran.err.count("\n") == 1


def test_a_label_of_the_policy_may_begin_as_json_does(run: Run, tmp_path: Path) -> None:
    nodes = (Ask("small", 1), Stop(Accept("small")))
    vertex = Vertex(0.0, 1.0, 0.7, 0, {"[a": 0})
    policy = Policy((Tier("small", 1.0),), nodes, (vertex,), OperatingPoint(0, 0, 0.0), context=("kind",))
    save_policy(policy, tmp_path / "policy.json")
    ran = run("decide", tmp_path / "policy.json", "{}", "--context", "[a", "--explain")
    assert (ran.code, ran.err) == (0, "")
    assert "context [a: its own graph" in ran.out


def test_a_number_of_the_context_may_be_told_as_text(run: Run, lengths: tuple[Path, Path, Path]) -> None:
    said = [
        run("decide", lengths[2], "{}", "--context", f'{{"task": "qa", "tokens": {n}}}', "--key", "1", "--explain").out
        for n in ("17", '"17"')
    ]
    assert said[0] == said[1]
    assert "missing" not in said[1]


def test_a_reading_that_the_policy_does_not_know_changes_nothing_and_is_named(run: Run, shop: Shop) -> None:
    for flags in ([], ["--explain"], ["--json"]):
        plain = run("decide", shop.policy, '{"tier1": {"conf": 0.4}}', "--key", "7", *flags)
        odd = run("decide", shop.policy, '{"tier1": {"conf": 0.4, "cnf": 0.9}}', "--key", "7", *flags)
        assert plain.err == ""
        assert (odd.code, odd.out) == (0, plain.out)
        assert odd.err.startswith("metaverify: reading 'cnf' of 'tier1' is not one that the policy knows (conf)")
        assert odd.err.endswith("; did you mean 'conf'?\n")


@pytest.mark.parametrize(
    ("context", "words"),
    [("tokens:0", "is no number of bins"), ("token:3", "did you mean 'tokens'?"), ("task:3", "not a number")],
)
def test_a_context_that_cannot_be_cut_is_refused(
    run: Run, lengths: tuple[Path, Path, Path], context: str, words: str
) -> None:
    for command in (["inspect", lengths[0]], ["fit", lengths[0], "--budget", "5"], ["replay", lengths[2], lengths[1]]):
        ran = run(*command, "--context", context)
        assert (ran.code, ran.out) == (1, "")
        assert words in ran.err


@pytest.mark.parametrize("method", ["auto", "chain", "lattice"])
def test_pooling_is_an_option_of_every_method_on_a_table(
    run: Run, lengths: tuple[Path, Path, Path], tmp_path: Path, method: str
) -> None:
    options = ["--context", "task,tokens:3", "--budget", "5", "--folds", "2", "--method", method, "--json"]
    found = {}
    for pooling in ("average", "offsets"):
        file = tmp_path / f"{pooling}.json"
        ran = run("fit", lengths[0], *options, "--pooling", pooling, "-o", file)
        assert ran.code == 0
        policy = load_policy(file)
        assert policy.provenance["options"]["pooling"] == pooling
        found[pooling] = ran.json()["outcome"]["quality"]["mean"]
    assert found["average"] != found["offsets"]


@pytest.mark.parametrize("other", [("--method", "thresholds"), ("--solver", "pomdp-py:value-iteration")])
def test_pooling_without_a_table_is_refused(run: Run, shop: Shop, other: tuple[str, str]) -> None:
    ran = run("fit", shop.log, "--budget", "5", "--pooling", "offsets", *other)
    assert (ran.code, ran.out) == (1, "")
    assert "--pooling is of tables" in ran.err


# Outages, editions, keys ----------------------------------------------------------------------------------------------


def test_outages_are_learnt_decided_shown_and_replayed(run: Run, shop: Shop, tmp_path: Path) -> None:
    out = tmp_path / "policy.json"
    assert run("fit", shop.log, "--budget", "5", "--folds", "2", "-o", out, "--outages").code == 0
    assert run("replay", out, shop.log).out == run("replay", shop.policy, shop.log).out
    policy = load_policy(out)
    assert [o.without for o in policy.vertices[0].outages] == [("tier1",), ("tier2",), ("tier3",)]
    for down in policy.vertices[0].outages:
        (name,) = down.without
        wanted = replay(policy.without(name), read_log(shop.log))
        told = run("replay", out, shop.log, "--without", name, "--json").json()
        assert {key: told[key] for key in ("quality", "cost", "calls")} == plain(
            {key: wanted.to_json()[key] for key in ("quality", "cost", "calls")}
        )
        assert told["calls"][name] == 0.0
        decided = run("decide", out, "{}", "--key", "7", "--without", name, "--json").json()
        assert decided == plain(action_json(policy.without(name).decide({}, key="7")))
        shown = run("show", out, "--without", name).out
        assert shown.startswith(f"without {name}; what is expected is so while all tiers are up\n")
        assert f"call {name}" not in shown
        assert parse_policy(run("show", out, "--without", name, "--json").out.encode()) == policy.without(name)
    refused = run("decide", out, "{}", "--key", "7", "--without", "tier1,tier2")
    assert (refused.code, "the policy was not solved for that outage" in refused.err) == (1, True)
    assert "it was for none" in run("show", shop.policy, "--without", "tier1").err


def test_outages_can_be_named_and_joined(run: Run, shop: Shop, tmp_path: Path) -> None:
    out = tmp_path / "policy.json"
    fitted = ("fit", shop.log, "--budget", "5", "--folds", "2", "-o", out)
    assert run(*fitted, "--outages", "tier3, tier2+tier1").code == 0
    assert [o.without for o in load_policy(out).vertices[0].outages] == [("tier3",), ("tier1", "tier2")]
    assert "an outage of 'teir1'" in run(*fitted, "--outages", "teir1").err
    assert "name tiers, and leave one" in run(*fitted, "--outages", "tier1+tier2+tier3").err


def test_an_edition_an_end_and_a_signature_go_into_the_file_and_are_asked_for(
    run: Run, shop: Shop, tmp_path: Path
) -> None:
    out, key = tmp_path / "policy.json", tmp_path / "key"
    key.write_bytes(bytes(range(32)))
    key.chmod(0o640)
    fitted = ("fit", shop.log, "--budget", "5", "--folds", "2", "-o", out)
    told = run(*fitted, "--serial", "12", "--expires", "2199-01-01T00:00+00:00", "--key-file", key)
    assert f"its signature is in {out}.sig" in told.out
    policy = load_policy(out, key=bytes(range(32)), at_least=12)
    assert (policy.serial, policy.expires) == (12, 7226582400.0)
    uses: list[tuple[str | Path, ...]] = [("decide", out, "{}", "--key", "7"), ("show", out), ("replay", out, shop.log)]
    uses.append(("report", out, "-o", tmp_path / "report.html"))
    for use in uses:
        assert run(*use, "--key-file", key).code == 0
        other = tmp_path / "other"
        other.write_bytes(b"another secret of 16")
        other.chmod(0o600)
        refused = run(*use, "--key-file", other)
        assert (refused.code, "E_SIGNATURE" in refused.err) == (1, True)
    key.chmod(0o644)
    if os.name == "posix":
        assert "everybody on this machine can read: chmod o-rwx" in run(*uses[0], "--key-file", key).err
    assert "No such file" in run(*uses[0], "--key-file", tmp_path / "none").err


def test_a_public_key_may_be_read_by_everybody_and_does_not_sign(run: Run, shop: Shop, tmp_path: Path) -> None:
    out, private, public = tmp_path / "policy.json", tmp_path / "private.pem", tmp_path / "public.pem"
    pair = Ed25519PrivateKey.generate()
    private.write_bytes(pair.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(pair.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    private.chmod(0o600)
    public.chmod(0o644)
    fitted = ("fit", shop.log, "--budget", "5", "--folds", "2", "-o", out)
    assert run(*fitted, "--key-file", private).code == 0
    assert run("show", out, "--key-file", public).code == 0
    refused = run(*fitted, "--key-file", public)
    assert (refused.code, "sign with the private one" in refused.err) == (1, True)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (("--serial", "0"), "serial is 0; give at least 1"),
        (("--expires", "2199-01-01T00:00"), "has no zone; write it as 2027-01-01T00:00Z"),
        (("--expires", "2001-01-01T00:00Z"), "is over"),
        (("--expires", "soon"), "soon is no time; write it as"),
        (("--serial", "3"), "--serial is of a file, and none is to be written"),
        (("--key-file", "key"), "--key-file is of a file, and none is to be written"),
    ],
)
def test_editions_and_ends_that_are_none_are_refused(
    run: Run, shop: Shop, options: tuple[str, ...], match: str
) -> None:
    ran = run("fit", shop.log, "--budget", "5", *options)
    assert ran.code > 0
    assert match in ran.err
