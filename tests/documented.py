"""What README and docs show: pages, their blocks of code, and the commands in these."""

import re
from pathlib import Path
from typing import NamedTuple

from conftest import ROOT

PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/*.md")])
FENCE = re.compile(r"^ *```(\S*)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
OURS = re.compile(
    r"(?:\.venv/bin/)?(?:(?:python )?(?:tools|demo)/(\w+)\.py|swin-dense ([a-z][a-z-]*)) ?"
)
INLINE = re.compile(r"`([^`]+)`")


class Block(NamedTuple):
    """One block of code; `kind` is "python", "text" (what is printed), or "" for commands."""

    page: Path
    kind: str
    text: str

    @property
    def lines(self) -> list[str]:
        """The commands of a block, a continued one as a line, without comments behind them."""
        lines = self.text.replace("\\\n", " ").splitlines()
        bare = (re.sub(r"(^|\s)#.*", "", line).strip() for line in lines)
        return [line for line in bare if line]


def named(page: Path) -> str:
    """Return a page's path in the repository."""
    return str(page.relative_to(ROOT))


def blocks(page: Path) -> list[Block]:
    """Return the blocks of code of a page, in order."""
    return [Block(page, kind, text) for kind, text in FENCE.findall(page.read_text())]


def commands(page: Path) -> list[str]:
    """Return the commands that a page shows in blocks, those above what they print too."""
    shown = [line for block in blocks(page) if not block.kind for line in block.lines]
    texts = "\n".join(block.text for block in blocks(page) if block.kind == "text")
    return shown + re.findall(r"^\$ (.*)$", texts, re.MULTILINE)


def inline_commands(page: Path) -> list[str]:
    """Return the commands of ours, with arguments, that the text of a page names in backticks."""
    found = INLINE.findall(FENCE.sub("", page.read_text()))
    lines = [" ".join(text.split()) for text in found]
    return [line for line in lines if (ours := of_ours(line)) and ours[1]]


def of_ours(line: str) -> tuple[str, str] | None:
    """Return (name of the command, its arguments) of a line that runs a command of ours."""
    match = OURS.match(line)
    if not match:
        return None
    return (match[1] or match[2]).replace("-", "_"), line[match.end() :]
