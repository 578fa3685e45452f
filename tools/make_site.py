"""Build the pages of docs/ as a site: .venv/bin/python tools/make_site.py (make docs)

Zensical, the successor of Material for MkDocs (which ends in May 2027), makes build/site. The pages
are laid out beside it first: README.md is the first page, and files that pages link to outside
docs/ are copied, so that every link works both in the repository and in the site. A link that leads
nowhere, an anchor that is not there, or any warning ends the build with status 1.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PEERS = ROOT / ".venv" / "peers"  # where tools/install.py puts it: tests/peers.txt
# The order of docs/; a page that is not here comes last.
ORDER = [
    "install",
    "first_run",
    "own_data",
    "data",
    "recipes",
    "findings",
    "ops",
    "backbones",
    "new_backbone",
    "coming_from",
    "configs",
    "resume",
    "predict",
    "many_machines",
    "evaluation",
    "export",
    "large_images",
    "weights",
    "limits",
    "troubleshooting",
    "speed",
    "model_zoo",
]
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md"}
LINK = re.compile(r"(!?\[[^]]*\]\()([^)\s]+)\)")
ELSEWHERE = re.compile(r"[a-z]+:|//")
CONFIG = """\
[project]
site_name = "swin_dense"
site_description = "Detection and segmentation with Swin Transformers and any other backbone"
docs_dir = "pages"
site_dir = "site"
use_directory_urls = false
nav = {nav}

[project.theme]
font = false  # nothing is fetched from elsewhere
features = ["navigation.footer", "search.highlight", "content.code.copy"]

[project.markdown_extensions.toc]
permalink = true
slugify = {{ object = "pymdownx.slugs.slugify", kwds = {{ case = "lower" }} }}  # GitHub's anchors
[project.markdown_extensions.tables]
[project.markdown_extensions.pymdownx.highlight]
[project.markdown_extensions.pymdownx.superfences]
"""


class DeadLinkError(Exception):
    """A link leads nowhere."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="tools/make_site.py", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "build", help="(build)")
    folder = parser.parse_args().folder.resolve()
    try:
        lay_out(ROOT, folder)
        if status := generate(folder):
            return status
        check(folder / "site")
    except DeadLinkError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{folder / 'site' / 'index.html'}")
    return 0


def lay_out(root: Path, folder: Path) -> None:
    """Write the pages of a project and Zensical's settings into a folder.

    Raises:
        DeadLinkError: a page names a file that is not there.
    """
    pages = folder / "pages"
    for left in (pages, folder / "site", folder / ".cache"):
        shutil.rmtree(left, ignore_errors=True)
    for place, target in places(root).items():
        laid = pages / target
        laid.parent.mkdir(parents=True, exist_ok=True)
        if place.suffix != ".md":
            shutil.copy(place, laid)
            continue
        laid.write_text(moved(place, root, pages), encoding="utf-8")
    names = [PAGES["README.md"], *(f"{name}.md" for name in ordered(root)), "contributing.md"]
    (folder / "zensical.toml").write_text(CONFIG.format(nav=json.dumps(names)), encoding="utf-8")


def places(root: Path) -> dict[Path, str]:
    """Return where the project's pages, and what lies beside them, stand in the site."""
    docs = {path: str(path.relative_to(root / "docs")) for path in (root / "docs").rglob("*.*")}
    return {**{root / name: target for name, target in PAGES.items()}, **docs}


def ordered(root: Path) -> list[str]:
    """Return the names of the pages in docs/ as they are listed."""
    there = sorted(path.stem for path in (root / "docs").glob("*.md"))
    return [name for name in ORDER if name in there] + [n for n in there if n not in ORDER]


def moved(page: Path, root: Path, pages: Path) -> str:
    """Return a page's text with its links as they are in the site; copy what else they name."""
    known = places(root)

    def replaced(match: re.Match[str]) -> str:
        opening, link = match.groups()
        place, hash_, anchor = link.partition("#")
        if not place or ELSEWHERE.match(link):
            return match[0]
        target = (page.parent / place).resolve()
        if not target.is_file() or root not in target.parents:
            raise DeadLinkError(f"{page.relative_to(root)} links to {link}, which is no file here.")
        if target not in known:
            known[target] = f"files/{target.relative_to(root)}"
            (pages / known[target]).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(target, pages / known[target])
        to = os.path.relpath(known[target], Path(known[page]).parent)
        return f"{opening}{to}{hash_}{anchor})"

    text = page.read_text(encoding="utf-8")
    parts = re.split(r"(^```.*?^```)", text, flags=re.MULTILINE | re.DOTALL)
    return "".join(part if part.startswith("```") else LINK.sub(replaced, part) for part in parts)


def generate(folder: Path) -> int:
    """Have Zensical make the site; return its status, which is not 0 after any warning."""
    path = os.pathsep.join([str(PEERS), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "NO_COLOR": "1"}
    settings = folder / "zensical.toml"
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean", "-f", settings]
    done = subprocess.run(command, env=environment, text=True, capture_output=True)
    said = done.stdout + done.stderr.partition("Traceback")[0]
    if done.returncode and "No module named zensical" in done.stderr:
        said = "error: Zensical is not installed. It needs Python 3.11 or later; run make setup."
    print(said.strip(), file=sys.stderr if done.returncode else sys.stdout)
    return done.returncode


class Targets(HTMLParser):
    """Collect what a page's links and pictures name."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found |= {value for name, value in attributes if name in ("href", "src") and value}


def check(site: Path) -> None:
    """Check that every file that a page of the site names is there, pictures too.

    Raises:
        DeadLinkError: one is not.
    """
    for page in site.rglob("*.html"):
        if page.name == "404.html":  # its links begin at the root of a server
            continue
        targets = Targets()
        targets.feed(page.read_text(encoding="utf-8"))
        for target in sorted(targets.found):
            place = target.partition("#")[0].partition("?")[0]
            if place and not ELSEWHERE.match(target) and not (page.parent / place).exists():
                raise DeadLinkError(f"{page.name} of the site names {target}, which is not there.")


if __name__ == "__main__":
    sys.exit(main())
