"""Commands for other gateways: what is exported says again what was decided, and the server serves."""

from __future__ import annotations

import http.client
import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from metaverify.cli import main
from metaverify.fitting.fit import fit
from metaverify.fitting.one_threshold import OneThreshold, simplify
from metaverify.policies.file import load_policy, policy_id, save_policy
from metaverify.simulators.reader import read_log, write_log
from metaverify.simulators.worlds import shared_difficulty
from tests.fitting.test_one_threshold import chain_policy

yaml = pytest.importorskip("yaml", reason="PyYAML, which Optuna brings, is not here")
GOLDEN = Path(__file__).resolve().parent / "golden"


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a log and two policies: one that is one threshold, and one that is more."""
    folder = tmp_path_factory.mktemp("shop")
    log = shared_difficulty(3).draw(600, 1)
    write_log(log, folder / "log.parquet")
    save_policy(chain_policy(OneThreshold(log.tier_names, "conf", 0.4375), log), folder / "chain.json")
    save_policy(fit(log, budget=3.0, compare=False).policy, folder / "policy.json")
    return folder


def test_a_policy_that_is_one_threshold_is_exported_as_it_is_without_a_log(
    shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export-vllm-sr", str(shop / "chain.json"), "--verifier-url", "http://127.0.0.1:8900/tiers/a b"]) == 0
    out = capsys.readouterr().out
    assert yaml.safe_load(out) == {
        "modelRefs": [{"model": "tier1"}, {"model": "tier2"}, {"model": "tier3"}],
        "algorithm": {
            "type": "confidence",
            "confidence": {
                "confidence_method": "automix_entailment",
                "threshold": 0.4375,
                "escalation_order": "declared",
                "on_error": "skip",
                "verifier_server_url": "http://127.0.0.1:8900/tiers/a b",
            },
        },
    }
    assert "nothing is lost" in out
    assert policy_id(load_policy(shop / "chain.json")) in out


def test_a_policy_that_is_more_is_simplified_on_a_log_and_the_loss_is_said(
    shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy, log = str(shop / "policy.json"), str(shop / "log.parquet")
    url = ["--verifier-url", "http://127.0.0.1:8800"]
    assert main(["export-vllm-sr", policy, *url]) == 1
    assert "name a log to simplify it on" in capsys.readouterr().err
    assert main(["export-vllm-sr", policy, log, "--method", "avg_logprob", "-o", str(shop / "out.yaml")]) == 0
    said = capsys.readouterr().out
    found = simplify(load_policy(policy), read_log(log))
    assert f"loses {100 * found.loss.mean:+.2f} points" in said
    written = yaml.safe_load((shop / "out.yaml").read_text("utf-8"))
    assert [each["model"] for each in written["modelRefs"]] == list(found.chain.tiers)
    assert written["algorithm"]["confidence"]["threshold"] == found.chain.threshold
    assert "verifier_server_url" not in written["algorithm"]["confidence"]
    assert said.splitlines()[:-1] == [
        line.removeprefix("# metaverify: ") for line in (shop / "out.yaml").read_text().splitlines()[1:4]
    ]
    assert main(["export-vllm-sr", policy, log, *url, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["simplified"]["loss"]["mean"] == found.loss.mean


def test_the_address_of_the_verifier_is_asked_for_and_not_made_up(
    shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = shop / "none.yaml"
    for policy in ("chain.json", "policy.json"):
        assert main(["export-vllm-sr", str(shop / policy), str(shop / "log.parquet"), "-o", str(out)]) == 1
        assert "give --verifier-url URL, where POST URL/verify" in capsys.readouterr().err
    argv = ["export-vllm-sr", str(shop / "chain.json"), "--method", "margin"]
    assert main([*argv, "--verifier-url", "http://127.0.0.1:8800"]) == 1
    assert "leave --verifier-url out" in capsys.readouterr().err
    assert main(argv) == 0
    assert "verifier_server_url" not in capsys.readouterr().out
    assert not out.exists()


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_serve_verdict_serves_until_it_is_interrupted(by: signal.Signals, shop: Path) -> None:
    command = [sys.executable, "-m", "metaverify", "serve-verdict", shop / "chain.json", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        found = re.search(r"serving (\S+) on http://127.0.0.1:(\d+);", server.stdout.readline())
        assert found is not None
        connection = http.client.HTTPConnection("127.0.0.1", int(found[2]), timeout=5)
        connection.request(
            "POST", "/decide", json.dumps({"readings": {"tier1": 0.5}}), {"Content-Type": "application/json"}
        )
        told = json.loads(connection.getresponse().read())
        connection.close()
        server.send_signal(by)
        _, err = server.communicate(timeout=10)
    wanted = {"action": "accept", "tier": "tier1", "escalate": False, "policy": found[1], "serial": 0}
    assert (told, server.returncode, err) == (wanted, 0, "")


def test_serve_verdict_refuses_other_machines_and_files_that_are_no_policies(
    shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve-verdict", str(shop / "chain.json"), "--host", "0.0.0.0"]) == 1
    assert "--allow-remote" in capsys.readouterr().err
    assert main(["serve-verdict", str(shop / "log.parquet")]) == 1
    assert "E_ENCODING" in capsys.readouterr().err
    save_policy(load_policy(GOLDEN / "spread.json"), shop / "spread.json")
    assert main(["serve-verdict", str(shop / "spread.json"), "--budget", "0.5"]) == 1
    assert "E_BUDGET" in capsys.readouterr().err
