"""Metrics are told in words that Prometheus reads."""

from __future__ import annotations

from metaverify.policies.exposition import counter, gauge


def test_a_family_is_what_it_is_and_its_values_one_a_line() -> None:
    assert counter("calls_total", "Calls.", {"a": 1, "b": 2.5}, "tier") == (
        "# HELP metaverify_calls_total Calls.\n"
        "# TYPE metaverify_calls_total counter\n"
        'metaverify_calls_total{tier="a"} 1\n'
        'metaverify_calls_total{tier="b"} 2.5\n'
    )
    assert counter("calls_total", "Calls.", {}, "tier").endswith(" counter\n")
    assert counter("requests_total", "Requests.", 3).endswith(" counter\nmetaverify_requests_total 3\n")
    assert gauge("age", "Age.", 0.5) == "# HELP metaverify_age Age.\n# TYPE metaverify_age gauge\nmetaverify_age 0.5\n"


def test_a_label_is_escaped_and_can_always_be_sent() -> None:
    told = counter("n", "N.", {'a"b\\c\nd\ud800ü': 1}, "of")
    assert told.splitlines()[-1] == 'metaverify_n{of="a\\"b\\\\c\\nd\\\\ud800ü"} 1'
    assert told.encode().decode() == told
