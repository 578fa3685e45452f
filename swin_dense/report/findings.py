"""Findings as text for a console, and the page that explains each code."""

from collections.abc import Iterable, Sequence

from swin_dense.datasets.findings import KINDS, SEVERITIES, Finding, Kind


def told(findings: Sequence[Finding]) -> str:
    """Return the findings, the gravest first, each with its code, rule, reason and fix."""
    lines: list[str] = []
    for severity in SEVERITIES:
        for finding in (f for f in findings if f.severity == severity):
            where = f"{finding.file}: " if finding.file else ""
            lines.append(f"{severity} [{finding.kind.code}] {where}{finding.what}")
            if severity != SEVERITIES[-1]:
                lines.append(f"    rule: {finding.kind.rule} {finding.kind.why}")
            if finding.fix:
                lines.append(f"    fix:  {finding.fix}")
    return "\n".join([*lines, counted(findings)])


def counted(findings: Iterable[Finding]) -> str:
    """Return how many there are of each severity, in a line."""
    found = [finding.severity for finding in findings]
    parts = [f"{found.count(s)} {s}{'s' if found.count(s) != 1 else ''}" for s in SEVERITIES[:2]]
    return f"{', '.join(parts)}, {found.count(SEVERITIES[-1])} notes"


def page(kinds: Iterable[Kind] | None = None) -> str:
    """Return the Markdown page of all kinds, by severity and code."""
    kinds = list(KINDS.values() if kinds is None else kinds)
    lines = [
        "# What the checks of data find",
        "",
        "A training makes the quick ones before it starts; `swin-dense doctor CONFIG` makes all,",
        "prints each with its code, and writes them as JSON. Errors stop a training. This page is",
        "made of the checks' own words.",
    ]
    for severity in SEVERITIES:
        rows = sorted((k for k in kinds if k.severity == severity), key=lambda k: k.code)
        lines += ["", f"## {severity}", "", "| code | rule | otherwise |", "|---|---|---|"]
        lines += [
            "| " + " | ".join(c.replace("|", "\\|") for c in (f"`{k.code}`", k.rule, k.why)) + " |"
            for k in rows
        ]
    return "\n".join(lines) + "\n"
