"""A step of a decision log, as a line of it tells one: what it may hold, and what is wrong with one that does not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NoReturn

from metaverify.simulators.files import distinct_keys, refuse_constant
from metaverify.simulators.log import LogError

__all__ = ["ENDS", "check_step", "read_step"]

ENDS = ("accept", "abstain")
"""The actions that end a request."""

_WAY_OUT = "give the file that DecisionLog wrote"
_ACTIONS = ("call", "verify", *ENDS)
_NOTHING = type(None)
_FIELDS: dict[str, tuple[tuple[type, ...], str]] = {
    "key": ((str, int), "text or a whole number"),
    "step": ((int,), "a whole number"),
    "action": ((str,), "text"),
    "tier": ((str, _NOTHING), "text"),
    "reading": ((str, _NOTHING), "text or null"),
    "confidence": ((dict,), "an object of readings"),
    "cost": ((int, float), "a number"),
    "propensity": ((int, float, _NOTHING), "a number or null"),
    "reason": ((str,), "text"),
}
_EXTRAS: dict[str, tuple[tuple[type, ...], str]] = {
    "context": ((str, _NOTHING), "text or null"),
    "unseen": ((dict,), "an object of chances"),
}


def read_step(line: bytes, place: str) -> dict[str, Any] | None:
    """The step in a line; None where the line was cut short, or has nothing.

    Raises:
        LogError: it is none.
    """
    try:
        step = json.loads(line.decode(), object_pairs_hook=distinct_keys, parse_constant=refuse_constant)
    except (json.JSONDecodeError, UnicodeDecodeError):
        return None
    except (ValueError, RecursionError) as error:
        why = "it is nested too deep" if isinstance(error, RecursionError) else error
        raise LogError("E_SYNTAX", f"{place}: {why}; {_WAY_OUT}") from None
    check_step(step, place)
    return dict(step)


def check_step(step: Any, place: str) -> None:
    """Make sure that this is a step of a decision log.

    Raises:
        LogError: it is none; the place, the field, the value and the way out are named.
    """
    if not isinstance(step, Mapping) or not all(name in step for name in _FIELDS):
        raise LogError("E_SYNTAX", f"{place}: is no step of a decision log; {_WAY_OUT}")
    if step["key"] is None:
        raise LogError(
            "E_MISSING", f"{place}: the request has no key, so nothing can be joined; route with key=<the request's id>"
        )
    for name, (kinds, told) in (_FIELDS | _EXTRAS).items():
        if name in step:
            _check_kind(step[name], kinds, told, place, name)
    _check_action(step, place)
    _check_amounts(step, place)


def _check_kind(value: Any, kinds: tuple[type, ...], told: str, place: str, field: str) -> None:
    if isinstance(value, bool) or not isinstance(value, kinds):
        _refuse("E_TYPE", place, field, value, f"not {told}; {_WAY_OUT}")
    for text in (value, *value) if isinstance(value, dict) else (value,):
        if isinstance(text, str) and any("\ud800" <= letter <= "\udfff" for letter in text):
            _refuse("E_ENCODING", place, field, text, "with half a letter; write whole ones")


def _check_action(step: Mapping[str, Any], place: str) -> None:
    if step["step"] < 0:
        _refuse("E_RANGE", place, "step", step["step"], "below 0; the steps of a request are counted from 0")
    action = step["action"]
    if action not in _ACTIONS:
        _refuse("E_SYNTAX", place, "action", action, f"none of {', '.join(_ACTIONS)}; {_WAY_OUT}")
    for field, wanted in (("tier", action != "abstain"), ("reading", action == "verify")):
        if wanted and step[field] is None:
            _refuse("E_MISSING", place, field, None, f"of a step that is to {action}; say which")


def _check_amounts(step: Mapping[str, Any], place: str) -> None:
    cost = step["cost"]
    if not (cost == 0 or 1e-100 <= cost <= 1e100):  # as in every log
        _refuse("E_RANGE", place, "cost", cost, "no cost; write what was paid, 0 or from 1e-100 to 1e100")
    if step["propensity"] is not None:
        _check_share(step["propensity"], place, "propensity", "write a chance, or null where it is not known")
    for tier, chance in step.get("unseen", {}).items():
        _check_share(chance, place, f"unseen of {tier!a}", "write the chance that the tier was called")
    for name, told in step["confidence"].items():
        field = f"confidence of {name!a}"
        if isinstance(told, list):
            if [type(part) for part in told] != [int, int] or not 0 <= told[0] <= told[1]:
                _refuse("E_RANGE", place, field, told, "no votes; write [yes, asked]")
        elif told is not None:
            _check_share(told, place, field, "write null where it is missing, as which it was taken")


def _check_share(value: Any, place: str, field: str, way_out: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        _refuse("E_TYPE", place, field, value, f"not a number; {way_out}")
    if not 0.0 <= value <= 1.0:
        _refuse("E_RANGE", place, field, value, f"outside [0, 1]; {way_out}")


def _refuse(code: str, place: str, field: str, value: Any, why: str) -> NoReturn:
    shown = json.dumps(value)
    raise LogError(code, f"{place}: {field} is {shown if len(shown) <= 60 else f'{shown[:57]}...'}, {why}")
