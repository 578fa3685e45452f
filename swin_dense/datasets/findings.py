"""Findings: what a check saw in a data set or a config, as values that a command words.

A `Kind` is what can be found: a stable code, how grave it is, the rule and why it matters. It is
made once, beside the check that finds it; `KINDS` lists all that were imported. A `Finding` is one
case of it: in which file, of which entries, what was seen and what to do.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from swin_dense.errors import InputError

ERROR, WARNING, INFO = SEVERITIES = ("error", "warning", "info")
KINDS: dict[str, Kind] = {}  # by code, in the order in which they were made


@dataclasses.dataclass(frozen=True)
class Kind:
    """Describe what can be found.

    Args:
        code: two to four words with hyphens. It never changes: users search for it.
        severity: ERROR stops or spoils a training, WARNING may, INFO is good to know.
        rule: what holds in data that is right, a sentence.
        why: what goes wrong otherwise, a sentence.
    """

    code: str
    severity: str
    rule: str
    why: str

    def found(self, what: str, fix: str = "", file: Any = "", ids: Iterable[Any] = ()) -> Finding:
        """Return a finding of this kind.

        Args:
            what: was seen, with counts and the first cases; one sentence or several.
            fix: what to do next, a sentence.
            file: where it was seen: an annotation file, a folder, an image, a config.
            ids: the entries or files concerned, as the file calls them.
        """
        return Finding(self, what, fix, str(file), tuple(ids))


@dataclasses.dataclass(frozen=True)
class Finding:
    """Hold one case of a kind; see `Kind.found`."""

    kind: Kind
    what: str
    fix: str = ""
    file: str = ""
    ids: tuple[Any, ...] = ()

    @property
    def severity(self) -> str:
        return self.kind.severity

    @property
    def text(self) -> str:
        """Return what was seen and what to do, in one line."""
        return f"{self.what} {self.fix}".strip()

    def as_dict(self) -> dict[str, Any]:
        """Return what JSON holds of it: at most 100 ids, and how many there are."""
        return {
            "code": self.kind.code,
            "severity": self.severity,
            "file": self.file,
            "count": len(self.ids),
            "ids": list(self.ids[:100]),
            "found": self.what,
            "rule": self.kind.rule,
            "why": self.kind.why,
            "fix": self.fix,
        }


class FoundError(InputError):
    """Refuse data for what was found in it; `findings` holds that, errors and others."""

    def __init__(self, text: str, findings: Iterable[Finding]):
        super().__init__(text)
        self.findings = tuple(findings)


def kind(code: str, severity: str, rule: str, why: str) -> Kind:
    """Make a kind and list it in KINDS."""
    if code in KINDS or severity not in SEVERITIES:
        raise ValueError(f"kind {code!r}: codes are made once, {severity!r} is of {SEVERITIES}")
    KINDS[code] = Kind(code, severity, rule, why)
    return KINDS[code]


def of_error(error: InputError, otherwise: Kind) -> tuple[Finding, ...]:
    """Return what an error holds, else its text as a finding of another kind."""
    if isinstance(error, FoundError):
        return error.findings
    return (otherwise.found(str(error)),)


def stop(of: Kind, file: Any, text: str, fix: str = "", ids: Iterable[Any] = ()) -> FoundError:
    """Return the error of a file of which nothing more can be said: "FILE: text fix [code]"."""
    finding = of.found(text, fix, file, ids)
    return FoundError(f"{file}: {finding.text} [{of.code}]", [finding])


def refuse(file: Any, findings: Iterable[Finding]) -> None:
    """Raise one error with all that are errors, each with its code; return if none is.

    Raises:
        FoundError: "FILE: the data set cannot be used:", then a line for each.
    """
    findings = tuple(findings)
    lines = [f"{f.text} [{f.kind.code}]" for f in findings if f.severity == ERROR]
    if lines:
        raise FoundError("\n  ".join([f"{file}: the data set cannot be used:", *lines]), findings)
