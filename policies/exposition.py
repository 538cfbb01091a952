"""Metrics as Prometheus reads them, in its text format; texts of several parts may be put one after the other."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["counter", "gauge"]


def counter(name: str, told: str, values: Mapping[str, float] | float, label: str = "") -> str:
    """What is counted since the process began, one number or one for each value of a label.

    Example:
        >>> print(counter("calls_total", "Calls of a tier.", {"small": 3}, "tier"), end="")
        # HELP metaverify_calls_total Calls of a tier.
        # TYPE metaverify_calls_total counter
        metaverify_calls_total{tier="small"} 3
    """
    return _family("counter", name, told, values, label)


def gauge(name: str, told: str, value: float) -> str:
    """What is so now."""
    return _family("gauge", name, told, value, "")


def _family(kind: str, name: str, told: str, values: Mapping[str, float] | float, label: str) -> str:
    lines = [f"# HELP metaverify_{name} {told}", f"# TYPE metaverify_{name} {kind}"]
    if isinstance(values, Mapping):
        lines += [f'metaverify_{name}{{{label}="{_escaped(value)}"}} {number}' for value, number in values.items()]
    else:
        lines.append(f"metaverify_{name} {values}")
    return "\n".join(lines) + "\n"


def _escaped(value: str) -> str:
    """A label's value; a lone surrogate, which no encoding has, by its number."""
    whole = value.encode(errors="backslashreplace").decode()
    return whole.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
