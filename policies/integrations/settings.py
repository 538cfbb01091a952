"""What a gateway is told beside its policies: where the tiers' models are, how readings are had, what may be spent.

A TOML file with a table for each cascade; its name is the model's, ``metaverify/<name>``:

    [support]
    policy = "policy.json"                # beside this file
    budget = 1.5                          # turns the dial; else what the policy's file says
    dollars = 0.001                       # what a unit of the policy's cost is, 1 where it is not said
    decisions = "decisions.jsonl"

    [support.tiers.small]
    litellm_params = { model = "openai/small", api_key = "os.environ/KEY" }
    timeout = 5.0
    readings.conf = { verifier = "answer_probability" }

    [support.budgets]
    team-a = 1.0                          # a key's alias, or a team's
"""

from __future__ import annotations

import math
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from metaverify.policies.names import did_you_mean

__all__ = ["CascadeSettings", "ReadingSettings", "SettingsError", "TierSettings", "read_settings"]

ENVIRONMENT = "os.environ/"
"""As in LiteLLM's own files: what follows is the name of a variable."""


class SettingsError(ValueError):
    """A settings file that cannot be used; the message names the place, the value and the way out."""


@dataclass(frozen=True, slots=True)
class ReadingSettings:
    """How a reading is had: by which verifier, with which parameters, within how many seconds (of votes, each)."""

    verifier: str
    params: Mapping[str, Any] = field(default_factory=dict, repr=False)  # may hold a key
    timeout: float | None = None
    dearest: float | None = None


@dataclass(frozen=True, slots=True)
class TierSettings:
    """A tier's model, None of a signal; seconds for its call; the most that it can cost; its readings.

    ``needs`` are the tiers whose answers a signal is read of, for who collects a log: a policy knows them.
    """

    litellm_params: Mapping[str, Any] | None = field(default=None, repr=False)  # may hold a key
    timeout: float | None = None
    dearest: float | None = None
    readings: Mapping[str, ReadingSettings] = field(default_factory=dict)
    needs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CascadeSettings:
    """One cascade: see the top of this file, and `Guard` for ``cap``, ``rate``, ``burst`` and ``fail_open``."""

    name: str
    folder: Path  # of the settings file
    policy: Path
    tiers: Mapping[str, TierSettings]
    budget: float | None = None
    budgets: Mapping[str, float] = field(default_factory=dict)
    dollars: float = 1.0
    every: float = 1.0
    decisions: Path | None = None
    exploration: Path | None = None
    cap: float = math.inf
    rate: float | None = None
    burst: float | None = None
    fail_open: bool = False


def read_settings(path: str | os.PathLike[str]) -> dict[str, CascadeSettings]:
    """The cascades of a settings file by name; relative paths in it are seen from where it is.

    Raises:
        OSError: the file cannot be read.
        SettingsError: it is none.
    """
    file = Path(path).absolute()
    try:
        told = tomllib.loads(file.read_bytes().decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file.name} is no TOML: {error}") from error
    if not told:
        raise SettingsError(f"{file.name} has no cascade; give it a table such as [support], for metaverify/support")
    return {name: _cascade(name, _Table(file, name, table)) for name, table in told.items()}


class _Table:
    """A table of the file, from which everything is taken once."""

    def __init__(self, file: Path, place: str, told: Any) -> None:
        self.file, self.place = file, place
        if not isinstance(told, dict):
            raise self.fault("", told, "give a table")
        self.left = dict(told)
        self.known: list[str] = []

    def fault(self, key: str, told: Any, way_out: str) -> SettingsError:
        where = ".".join(filter(None, [self.place, key]))
        return SettingsError(f"{self.file.name}: {where} is {_shown(told)}; {way_out}")

    def take(self, key: str) -> Any:
        self.known.append(key)
        return self.left.pop(key, None)

    def text(self, key: str) -> str | None:
        told = self.take(key)
        if told is not None and not (isinstance(told, str) and told.strip()):
            raise self.fault(key, told, "give a text")
        return told

    def amount(self, key: str, *, least: float = math.ulp(0.0), way_out: str = "give a number above 0") -> float | None:
        told = self.take(key)
        if told is None:
            return None
        number = float(told) if isinstance(told, int | float) and not isinstance(told, bool) else math.nan
        if not least <= number < math.inf:
            raise self.fault(key, told, way_out)
        return number

    def flag(self, key: str) -> bool:
        told = self.take(key)
        if told not in (None, True, False):
            raise self.fault(key, told, "give true or false")
        return bool(told)

    def beside(self, key: str) -> Path | None:
        told = self.text(key)
        return None if told is None else self.file.parent / told

    def texts(self, key: str) -> tuple[str, ...]:
        told = self.take(key) or ()
        if not isinstance(told, list | tuple) or not all(isinstance(one, str) for one in told):
            raise self.fault(key, told, "give a list of texts")
        return tuple(told)

    def tables(self, key: str) -> dict[str, _Table]:
        told = _Table(self.file, f"{self.place}.{key}", self.take(key) or {})
        return {name: _Table(self.file, f"{told.place}.{name}", table) for name, table in told.left.items()}

    def end(self) -> None:
        """Nothing is left over."""
        if self.left:
            key = next(iter(self.left))
            hint = did_you_mean(key, self.known) or f" (there are {', '.join(self.known)})"
            raise SettingsError(f"{self.file.name}: {self.place} has no {key!r}{hint}")


def _cascade(name: str, table: _Table) -> CascadeSettings:
    policy = table.beside("policy")
    if policy is None:
        raise SettingsError(f"{table.file.name}: {name} has no policy; give the path of its file")
    tiers = {tier: _tier(of) for tier, of in table.tables("tiers").items()}
    if not tiers:
        raise SettingsError(f"{table.file.name}: {name} has no tiers; give a table [{name}.tiers.<tier>] for each")
    budgets_told = table.take("budgets")
    budgets = _Table(table.file, f"{name}.budgets", {} if budgets_told is None else budgets_told)
    rate, burst = table.amount("rate", least=0.0, way_out="give a cost per second of at least 0"), table.amount("burst")
    if (rate is None) != (burst is None):
        raise SettingsError(f"{table.file.name}: {name} has only one of rate and burst; give both, or neither")
    made = CascadeSettings(
        name=name,
        folder=table.file.parent,
        policy=policy,
        tiers=tiers,
        budget=table.amount("budget"),
        budgets={key: budgets.amount(key) or 0.0 for key in [*budgets.left]},
        dollars=table.amount("dollars") or 1.0,
        every=_or(table.amount("every", least=0.0, way_out="give seconds of at least 0"), 1.0),
        decisions=table.beside("decisions"),
        exploration=table.beside("exploration"),
        cap=table.amount("cap") or math.inf,
        rate=rate,
        burst=burst,
        fail_open=table.flag("fail_open"),
    )
    table.end()
    return made


def _tier(table: _Table) -> TierSettings:
    params = _model(table)
    readings = {name: _reading(of) for name, of in table.tables("readings").items()}
    made = TierSettings(params, table.amount("timeout"), table.amount("dearest"), readings, table.texts("needs"))
    table.end()
    return made


def _reading(table: _Table) -> ReadingSettings:
    verifier = table.text("verifier")
    if verifier is None:
        raise SettingsError(f"{table.file.name}: {table.place} has no verifier; name one")
    timeout, dearest = table.amount("timeout"), table.amount("dearest")
    model = _model(table)
    params = {key: _from_environment(told, table, key) for key, told in table.left.items()}
    params |= {} if model is None else {"litellm_params": model}
    return ReadingSettings(verifier, params, timeout, dearest)


def _model(table: _Table) -> dict[str, Any] | None:
    """A model's parameters, with the keys from the environment."""
    params = table.take("litellm_params")
    if params is None:
        return None
    if not isinstance(params, dict) or not isinstance(params.get("model"), str):
        raise table.fault("litellm_params", params, 'give at least { model = "provider/name" }')
    return {name: _from_environment(told, table, f"litellm_params.{name}") for name, told in params.items()}


def _from_environment(told: Any, table: _Table, key: str) -> Any:
    """The value with every "os.environ/NAME" in it replaced by the variable."""
    if isinstance(told, dict):
        return {name: _from_environment(value, table, f"{key}.{name}") for name, value in told.items()}
    if isinstance(told, str) and told.startswith(ENVIRONMENT):
        name = told.removeprefix(ENVIRONMENT)
        if name not in os.environ:
            raise table.fault(key, told, f"set the environment variable {name}")
        return os.environ[name]
    return told


def _shown(told: Any) -> str:
    """What an error shows of a value: of what has parts not those, of which one may be a key."""
    if isinstance(told, dict):
        return f"a table of {', '.join(told)}" if told else "an empty table"
    return "a list" if isinstance(told, list) else repr(told)


def _or(told: float | None, otherwise: float) -> float:
    return otherwise if told is None else told
