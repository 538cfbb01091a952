"""Settings are read whole, or refused with the place, the value and the way out."""

from __future__ import annotations

from pathlib import Path

import pytest

from metaverify.policies.integrations.settings import SettingsError, read_settings

from .cascades import COST, SETTINGS

WHOLE = SETTINGS.format(
    more="cap = 20.0\nrate = 1.0\nburst = 5\nfail_open = true\nbudget = 6", timeout=dict.fromkeys(COST, 0.5)
)


def write(folder: Path, text: str) -> Path:
    path = folder / "cascades.toml"
    path.write_text(text)
    return path


def test_settings_are_as_they_are_written(tmp_path: Path) -> None:
    cascade = read_settings(write(tmp_path, WHOLE))["support"]
    assert cascade.policy == tmp_path / "policy.json"
    assert (cascade.cap, cascade.rate, cascade.burst, cascade.fail_open, cascade.budget) == (20.0, 1.0, 5.0, True, 6.0)
    assert [*cascade.tiers] == ["small", "medium", "large"]
    medium = cascade.tiers["medium"]
    assert medium.timeout == 0.5
    assert medium.litellm_params is not None
    assert medium.litellm_params["model"] == "mock/medium"
    judge = medium.readings["judge"]
    assert (judge.verifier, judge.timeout, judge.params["litellm_params"]["model"]) == ("judge", 0.5, "mock/judge")


def test_keys_come_from_the_environment_and_are_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = WHOLE.replace('"mock/large"', '"mock/large", api_key = "os.environ/LARGE_KEY"')
    with pytest.raises(SettingsError, match=r"litellm_params\.api_key is .*; set the environment variable LARGE_KEY"):
        read_settings(write(tmp_path, told))
    monkeypatch.setenv("LARGE_KEY", "secret")
    cascade = read_settings(write(tmp_path, told))["support"]
    params = cascade.tiers["large"].litellm_params
    assert params is not None
    assert params["api_key"] == "secret"
    assert "secret" not in repr(cascade)


@pytest.mark.parametrize(
    ("told", "shown"),
    [
        ('litellm_params = { modle = "mock/large", api_key = "sk-secret" }', "a table of modle, api_key; give at"),
        ('litellm_params = ["sk-secret"]', "a list; give at least"),
        ('timeout = { api_key = "sk-secret" }', "a table of api_key; give a number above 0"),
        ('readings.j = { verifier = "v", litellm_params = { api_key = "sk-secret" } }', "a table of api_key; give at"),
        ("timeout = {}", "an empty table; give a number above 0"),
    ],
)
def test_what_may_be_a_key_is_not_shown_in_errors(tmp_path: Path, told: str, shown: str) -> None:
    text = f"[support]\npolicy = 'p.json'\n[support.tiers.large]\n{told}\n"
    with pytest.raises(SettingsError, match=rf"support\.tiers\.large.* is {shown}") as refused:
        read_settings(write(tmp_path, text))
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (WHOLE, "", r"cascades\.toml has no cascade; give it a table such as \[support\]"),
        (WHOLE, "a = ", r"cascades\.toml is no TOML: "),
        (WHOLE, "support = 4", r"support is 4; give a table"),
        (WHOLE, "[support]", "support has no policy; give the path of its file"),
        (WHOLE, "[support]\npolicy = 'p.json'", r"support has no tiers; give a table \[support\.tiers\.<tier>\]"),
        ("budget = 6", "bugdet = 6", "support has no 'bugdet'; did you mean 'budget'?"),
        ("budget = 6", "nonsense = 6", r"support has no 'nonsense' \(there are policy, "),
        ("budget = 6", "budget = 0", r"support\.budget is 0; give a number above 0"),
        ("budget = 6", "budget = true", r"support\.budget is True; give a number above 0"),
        ("budget = 6", "budget = nan", r"support\.budget is nan; give a number above 0"),
        ("budget = 6", "budgets = { intern = -1 }", r"support\.budgets\.intern is -1; give a number above 0"),
        ("budget = 6", "budgets = 3", r"support\.budgets is 3; give a table"),
        ("burst = 5", "", "support has only one of rate and burst; give both, or neither"),
        ("fail_open = true", "fail_open = 'yes'", r"support\.fail_open is 'yes'; give true or false"),
        ("dollars = 0.001", "dollars = -1", r"support\.dollars is -1; give a number above 0"),
        ("every = 0.0", "every = -1", r"support\.every is -1; give seconds of at least 0"),
        ('decisions = "decisions.jsonl"', "decisions = 4", r"support\.decisions is 4; give a text"),
        (WHOLE, "[support]\npolicy = 'p.json'\ntiers = 3", r"support\.tiers is 3; give a table"),
        ('verifier = "judge"', "", r"support\.tiers\.medium\.readings\.judge has no verifier; name one"),
        (
            'model = "mock/large"',
            'modell = "mock/large"',
            r"tiers\.large\.litellm_params is .*; give at least",
        ),
        ("[support.tiers.large]\n", "[support.tiers.large]\ntime_out = 3\n", "no 'time_out'; did you mean 'timeout'?"),
    ],
)
def test_settings_that_are_none_are_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in WHOLE
    with pytest.raises(SettingsError, match=message):
        read_settings(write(tmp_path, WHOLE.replace(old, new, 1)))


def test_a_file_that_is_not_there_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_settings(tmp_path / "nowhere.toml")


def test_the_answers_that_a_signal_needs_are_a_list(tmp_path: Path) -> None:
    text = "[a]\npolicy = 'p.json'\n[a.tiers.judge]\nneeds = {}\nreadings.v = {{ verifier = 'judge' }}\n"
    for told in ("'small'", "[1]", "4"):
        with pytest.raises(SettingsError, match=r"a\.tiers\.judge\.needs is .*; give a list of texts"):
            read_settings(write(tmp_path, text.format(told)))
