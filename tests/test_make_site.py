"""The pages of docs/ as a site: built without a warning, and a link that is dead ends the build."""

import os
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT

SCRIPT = ROOT / "tools/make_site.py"
# What tools/install.py puts there comes first, as in the script.
SEARCHED = os.pathsep.join([str(ROOT / ".venv/peers"), os.environ.get("PYTHONPATH", "")])


@pytest.fixture(scope="module", autouse=True)
def _generator():
    environment = {**os.environ, "PYTHONPATH": SEARCHED}
    asked = [sys.executable, "-c", "import zensical"]
    if subprocess.run(asked, env=environment, capture_output=True).returncode:
        pytest.skip("Zensical is not installed (make setup, Python 3.11 or later)")


def build(script, folder):
    return subprocess.run([sys.executable, script, folder], capture_output=True, text=True)


def test_the_site_is_built_without_a_warning(tmp_path):
    done = build(SCRIPT, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "No issues found" in done.stdout
    site = tmp_path / "site"
    for page in (ROOT / "docs").glob("*.md"):
        assert (site / f"{page.stem}.html").is_file()
        assert f"{page.stem}.html" in (site / "index.html").read_text(), "not in the navigation"
    assert (site / "files/configs/mask_rcnn_swin_nano.py").is_file()  # named by model_zoo.md
    assert "fonts.googleapis.com" not in (site / "index.html").read_text()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("[there](other.md#no-heading)", "anchor does not exist"),
        ("[there](absent.md)", "page.md links to absent.md, which is no file here"),
        ("![seen](absent.png)", "page.md links to absent.png"),
        ("[there](../../outside.md)", "outside.md, which is no file here"),
        ('<img src="absent.png">', "page.html of the site names absent.png"),
    ],
)
def test_a_dead_link_ends_the_build(tmp_path, line, said):
    project = tmp_path / "project"
    for folder in ("tools", "docs"):
        (project / folder).mkdir(parents=True)
    shutil.copy(SCRIPT, project / "tools")
    (project / ".venv").symlink_to(ROOT / ".venv")
    for name in ("README.md", "CONTRIBUTING.md", "docs/other.md"):
        (project / name).write_text("# Title\n\n## A heading\n")
    (tmp_path / "outside.md").touch()
    page = project / "docs/page.md"
    page.write_text("# Page\n\n[in](other.md#a-heading) [up](../README.md)\n")
    assert build(project / "tools/make_site.py", tmp_path / "good").returncode == 0
    page.write_text(f"# Page\n\n{line}\n")
    done = build(project / "tools/make_site.py", tmp_path / "bad")
    assert done.returncode == 1
    assert said in done.stdout + done.stderr
