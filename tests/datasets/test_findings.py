"""Findings are values; only those that are errors refuse a data set, all in one message."""

import pytest

from swin_dense.datasets import findings
from swin_dense.errors import InputError

GRAVE = findings.Kind("test-grave", findings.ERROR, "Boxes have a width.", "Nothing is learnt.")
LIGHT = findings.Kind("test-light", findings.INFO, "Names are short.", "Tables are wide.")


def test_errors_are_raised_together_with_their_codes():
    found = [GRAVE.found("2 boxes.", "Correct them.", "a.json", [7, 9]), LIGHT.found("1 name.")]
    with pytest.raises(InputError) as caught:
        findings.refuse("a.json", [*found, GRAVE.found("1 more.")])
    assert str(caught.value).splitlines() == [
        "a.json: the data set cannot be used:",
        "  2 boxes. Correct them. [test-grave]",
        "  1 more. [test-grave]",
    ]
    assert caught.value.findings[:2] == tuple(found)
    findings.refuse("a.json", [found[1]])  # no error among them


def test_as_a_dictionary_with_at_most_a_hundred_ids():
    row = GRAVE.found("all", "mend", "a.json", range(123)).as_dict()
    assert (row["code"], row["count"], row["ids"]) == ("test-grave", 123, list(range(100)))
    assert (row["rule"], row["fix"]) == ("Boxes have a width.", "mend")


def test_a_code_is_made_once(monkeypatch):
    monkeypatch.setattr(findings, "KINDS", {})
    made = findings.kind("test-once", findings.WARNING, "a", "b")
    assert findings.KINDS["test-once"] is made
    with pytest.raises(ValueError, match="made once"):
        findings.kind("test-once", findings.WARNING, "a", "b")
