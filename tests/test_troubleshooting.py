"""Each message that docs/troubleshooting.md quotes is one that the source can say."""

import ast
import re

import pytest
from conftest import ROOT

PAGE = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8")
QUOTED = [
    message
    for section in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:-1]
    for message in re.findall(r"^\| `(.+?)` \|", section, re.MULTILINE)
]


def said(node: ast.expr) -> str:
    """Return the text of a string of the source, "..." for what is filled in."""
    if isinstance(node, ast.JoinedStr):
        return "".join(said(part) for part in node.values)
    return node.value if isinstance(node, ast.Constant) else "..."


@pytest.fixture(scope="module")
def texts():
    """All strings of the source; a setting in backticks as the commands word it."""
    found = set()
    for path in (ROOT / "swin_dense").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.add(said(node))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
    worded = {re.sub(r"`(\w+)`", lambda m: "--" + m[1].replace("_", "-"), t) for t in found}
    return [" ".join(text.split()) for text in worded]


@pytest.mark.parametrize("message", QUOTED)
def test_a_quoted_message_is_in_the_source(message, texts):
    quoted = message.removesuffix("...").strip()
    assert any(quoted in text for text in texts)


def test_most_of_the_page_was_read():
    assert len(QUOTED) > 30
