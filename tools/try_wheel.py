"""Install the wheel of dist/ into a new environment without compilers and run the ops' tests there.

    .venv/bin/python tools/try_wheel.py                         (make test-wheel)
    .venv/bin/python tools/try_wheel.py --torch 2.10.0 newest   with others than the pinned torch

Nothing of the checkout is imported: the tests are copied to another folder. A torch other than the
pinned one may be a build for CUDA, which takes gigabytes; without a card it shows all the same that
_cuda.so loads beside it. Python is the one that runs this.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PINS = ROOT / "requirements.txt"
PYTEST = ("pytest", "pytest-timeout", "pytest-xdist")
# They need a C++ compiler: CUDA's sources on the CPU, and what torch compiles with it.
LEFT_OUT = ("*_on_cpu*", "test_self_check.py", "__pycache__")
NOT_COMPILED = "not compiles_whole"
LOOK = """
import os, shutil, sys
import torch, swin_dense
from swin_dense.ops import extension, self_check, trust
found = [name for name in ("c++", "g++", "cc", "clang++", "nvcc") if shutil.which(name)]
assert not found, f"compilers on the PATH: {found}"
assert swin_dense.__file__.startswith(sys.prefix), f"{swin_dense.__file__} is not the wheel's"
print(f"torch {torch.__version__}, {extension.describe()}")
# One wheel holds code of one CUDA; beside a torch of another its CPU kernels work.
wanted = {"cpu", "cuda"} if (torch.version.cuda or "").startswith("13.") else {"cpu"}
assert set(extension.loaded()) == wanted, f"loaded: {extension.loaded()}"
cpu = torch.device("cpu")
for family in self_check.families():
    for dtype in self_check.dtypes(family, cpu):
        wrong = trust.failures(self_check.run(family, cpu, dtype))
        assert wrong is None, wrong
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    what = "versions, or newest; the pinned one if left out"
    parser.add_argument("--torch", nargs="+", default=[_pinned()], help=what)
    versions = parser.parse_args().torch
    wheels = sorted((ROOT / "dist").glob("swin_dense-*.whl"))
    if len(wheels) != 1:
        parser.error(f"dist/ holds {len(wheels)} wheels of swin_dense, not one. Run: make wheel")
    failed = [version for version in versions if not _try(wheels[0], version)]
    if failed:
        print(f"error: {wheels[0].name} fails with torch {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _try(wheel: Path, version: str) -> bool:
    """Say whether the wheel passes beside this torch; what happens is printed."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="try_wheel-") as folder:
        place = Path(folder)
        python = place / "venv" / "bin" / "python"
        print(f"installing {wheel.name} beside torch {version} ...", flush=True)
        try:
            subprocess.run([sys.executable, "-m", "venv", str(place / "venv")], check=True)
            pip = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
            pip += ["-c", str(_constraints(place))]
            subprocess.run(
                [*pip, "torch" if version == "newest" else f"torch=={version}"], check=True
            )
            subprocess.run([*pip, str(wheel), *PYTEST], check=True)
        except subprocess.CalledProcessError as error:
            print(f"error: this command failed: {' '.join(error.cmd)}", file=sys.stderr)
            return False
        installed = time.monotonic()
        tests = place / "checkout" / "tests"
        shutil.copytree(ROOT / "tests/ops", tests / "ops", ignore=shutil.ignore_patterns(*LEFT_OUT))
        shutil.copy(ROOT / "tests/devices.py", tests / "ops")
        shutil.copy(ROOT / "setup.cfg", tests.parent)  # pytest's settings
        environment = _without_compilers(python.parent)
        options = ["-q", "-p", "no:cacheprovider", "-m", "not slow", "-k", NOT_COMPILED]
        options += ["-n", "auto", "--maxprocesses", "8", "--dist", "worksteal", str(tests / "ops")]
        for command in (["-c", LOOK], ["-m", "pytest", *options]):
            done = subprocess.run([python, *command], cwd=tests.parent, env=environment)
            if done.returncode:
                return False
    took = time.monotonic() - installed
    print(
        f"torch {version}: passed in {took:.0f} s, after {installed - started:.0f} s of installing"
    )
    return True


def _without_compilers(programs: Path) -> dict[str, str]:
    """Return the environment of a machine where nothing else than Python's own is installed."""
    ours = ("SWIN_DENSE", "CUDA", "CXX", "CC", "PYTHON", "PATH", "VIRTUAL_ENV")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return {**kept, "PATH": str(programs), "OMP_NUM_THREADS": "1"}  # each process has a core


def _constraints(place: Path) -> Path:
    """Pin what the tests run with, but not torch."""
    path = place / "constraints.txt"
    lines = PINS.read_text().splitlines()
    path.write_text("\n".join(line for line in lines if not line.startswith("torch==")))
    return path


def _pinned() -> str:
    lines = PINS.read_text().splitlines()
    return next(line for line in lines if line.startswith("torch==")).removeprefix("torch==")


if __name__ == "__main__":
    sys.exit(main())
