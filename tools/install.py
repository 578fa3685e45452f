"""Make .venv with the pinned packages and our compiled ops: python3 tools/install.py

Needs nothing but Python. A second run changes nothing and takes seconds.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
PINS = ROOT / "requirements.txt"
PEERS = ROOT / "tests/peers.txt"
COMPILERS = ROOT / "tools/compilers.py"
STAMP = VENV / "requirements.sha256"
PIP_INSTALL = [str(PYTHON), "-m", "pip", "install", "--disable-pip-version-check"]
SUPPORTED = ((3, 10), (3, 13))
# Asked for by packages and left out on purpose, see requirements.txt.
LEFT_OUT = ("opencv-python", "imagecorruptions-imaug", "hf-xet", "typer")
REPORT = """
import swin_dense.openmmlab  # all that the commands import
import cv2, mmcv, mmdet, mmengine, mmseg, numpy, torch
from swin_dense.ops import extension
print(f"swin_dense {swin_dense.__version__}, torch {torch.__version__}, numpy {numpy.__version__},"
      f" opencv {cv2.__version__}, mmengine {mmengine.__version__}, mmcv {mmcv.__version__},"
      f" mmdet {mmdet.__version__}, mmseg {mmseg.__version__}")
print(extension.describe())
"""


def main() -> int:
    started = time.monotonic()
    if not SUPPORTED[0] <= sys.version_info[:2] <= SUPPORTED[1]:
        return _fail(
            f"Python {sys.version.split()[0]} is not among the tested ones, 3.10 to 3.13. "
            "Choose one with: make setup PYTHON=python3.12"
        )
    try:
        if not PYTHON.exists():
            _step("making .venv", sys.executable, "-m", "venv", str(VENV))
        _install_pins()
        install_nvcc()
        built = time.monotonic()
        build("building our ops", "install", "--no-deps", "-e", str(ROOT))
        built = time.monotonic() - built
    except subprocess.CalledProcessError as error:
        return _fail(f"this command failed, its output is above: {' '.join(map(str, error.cmd))}")
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    if subprocess.run([PYTHON, "-c", REPORT], env=environment, cwd=ROOT).returncode:
        return _fail("the installed packages do not import, see above. Remove .venv and try again")
    print(f"done in {time.monotonic() - started:.0f} s, {built:.0f} s of it for our ops")
    return 0


def _install_pins() -> None:
    """Install what the two files of requirements pin, unless these very files were before."""
    content = PINS.read_bytes() + PEERS.read_bytes() + sys.version.encode()
    stamp = hashlib.sha256(content).hexdigest()
    if STAMP.exists() and STAMP.read_text() == stamp and not _second_opencv():
        return
    torch = next(line for line in PINS.read_text().splitlines() if line.startswith("torch=="))
    _pip("installing torch", torch)
    # In its isolated build mmcv sees no torch and leaves out its ops, which swin_dense brings.
    _pip("installing the other pins", "--no-deps", "-r", str(PINS))
    if _second_opencv():  # two builds share one folder: whichever is removed breaks the other
        opencv = next(line for line in PINS.read_text().splitlines() if line.startswith("opencv"))
        names = ("opencv-python", "opencv-python-headless")
        _step("removing a second OpenCV", PYTHON, "-m", "pip", "uninstall", "-q", "-y", *names)
        _pip("installing the headless OpenCV", "--no-deps", opencv)
    peers = VENV / "peers"
    shutil.rmtree(peers, ignore_errors=True)
    _pip("installing what the tests compare with", "--no-deps", "-t", str(peers), "-r", str(PEERS))
    check = subprocess.run([PYTHON, "-m", "pip", "check"], capture_output=True, text=True)
    lacking = [
        line
        for line in check.stdout.splitlines()
        if " requires " in line and line.split(" requires ")[1].split(",")[0] not in LEFT_OUT
    ]
    for line in lacking:
        print(f"warning: {line}")
    STAMP.write_text(stamp)


def install_nvcc() -> None:
    """Install what compiles CUDA kernels, where they are wanted and no CUDA is there to do it."""
    found = subprocess.run([PYTHON, COMPILERS], check=True, stdout=subprocess.PIPE, text=True)
    if not found.stdout.strip():
        return
    try:
        _pip("installing nvcc into .venv (105 MB)", *found.stdout.split())
    except subprocess.CalledProcessError:
        print("warning: no nvcc, see above. The CUDA kernels are left out", flush=True)


def build(what: str, *arguments: str) -> None:
    """Have pip build this checkout; of its long report only our own lines are shown."""
    print(f"{what} ...", flush=True)
    pip = [str(PYTHON), "-m", "pip", "--disable-pip-version-check"]
    command = [*pip, arguments[0], "-v", "--no-build-isolation", *arguments[1:]]
    lines, whole = [], False
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "errors": "replace"}
    with subprocess.Popen(command, cwd=ROOT, text=True, **output) as building:
        for line in building.stdout:
            lines.append(line.rstrip())
            if line.strip().startswith("swin_dense: "):
                print(line.strip(), flush=True)
                whole = whole or " failed:" in line
    if whole or building.returncode:
        print("\n".join(lines), flush=True)
    if building.returncode:
        raise subprocess.CalledProcessError(building.returncode, command)


def _second_opencv() -> bool:
    return any(VENV.glob("lib/python*/site-packages/opencv_python-*.dist-info"))


def _pip(what: str, *arguments: str) -> None:
    _step(what, *PIP_INSTALL, "-q", *arguments)


def _step(what: str, *command: object) -> None:
    print(f"{what} ...", flush=True)
    subprocess.run([str(part) for part in command], check=True, cwd=ROOT)


def _fail(text: str) -> int:
    print(f"error: {text}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
