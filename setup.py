"""Build the kernels of swin_dense/ops, and pack configs/: pip install --no-build-isolation -e .

Everything else about the package is in setup.cfg. The compilers are called directly: the kernels
use the stable C++ interface of torch (2.10 and later) and no Python, so there is nothing for an
extension builder to know, and the two libraries serve any Python and any later torch.

    CXX, CUDA_HOME              which compilers, see tools/compilers.py
    SWIN_DENSE_KERNELS=off      build nothing
    SWIN_DENSE_CUDA             0: build nothing for CUDA; 1: a CUDA library that cannot be built is
                                an error; unset: build it where torch knows CUDA and nvcc is found
    SWIN_DENSE_CUDA_ARCHS       for which cards, "90" or "8.6,9.0" or "all"; else those present
    SWIN_DENSE_REQUIRE_KERNELS=1    a CPU library that cannot be built is an error
    MAX_JOBS                    compilers at a time, 2 if unset

Without a compiler, or without torch, the package installs all the same and runs in plain torch.
"""

import hashlib
import os
import platform
import re
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "tools"))
import compilers  # noqa: E402  the one module of ours that is there before the package is
from compilers import Torch, Unavailable, run  # noqa: E402

sys.path.remove(str(ROOT / "tools"))

SOURCES = ROOT / "swin_dense" / "ops" / "csrc"
LIBRARIES = ("_cpu", "_cuda")

TARGET = "-DTORCH_TARGET_VERSION=0x020a000000000000"  # torch 2.10
CXX_FLAGS = ["-std=c++17", "-O3", "-fPIC", "-fvisibility=hidden"]
CXX_FLAGS += ["-fno-math-errno", "-fno-trapping-math"]
NVCC_FLAGS = ["-std=c++17", "-O3", "--expt-relaxed-constexpr", "-DUSE_CUDA"]
NVCC_FLAGS += ["-Xcompiler", "-fPIC,-fvisibility=hidden"]
TENSOR_CORES = "tensor_core.cuh"  # who includes it is not compiled for cards too old for it

# The sources in csrc/cpu/levels are compiled once for each of these, with its instructions allowed.
LEVELS = {"portable": []}
if platform.machine().lower() in ("x86_64", "amd64"):
    LEVELS["avx2"] = ["-mavx2", "-mfma", "-mf16c"]
    LEVELS["avx512"] = [*LEVELS["avx2"], "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"]

# A comparison of overlaps has to come out as in plain torch, which rounds after every operation.
ROUNDED = ("nms", "soft_nms")


def say(text: str) -> None:
    print(f"swin_dense: {text}", flush=True)


def fingerprint(*parts: object) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.read_bytes() if isinstance(part, Path) else repr(part).encode())
        digest.update(b"\0")
    return digest.hexdigest()


def included(source: Path) -> set[Path]:
    """Return the files beside it that a source includes, through others too."""
    found: set[Path] = set()
    waiting = [source]
    while waiting:
        path = waiting.pop()
        for name in re.findall(r'^\s*#include "(.+)"', path.read_text(), re.MULTILINE):
            header = (path.parent / name).resolve()
            if header not in found:
                found.add(header)
                waiting.append(header)
    return found


class BuildKernels(build_ext):
    """Compile the sources that changed, link, and copy the libraries to where they are used."""

    def run(self) -> None:
        if self.editable_mode or self.inplace:
            place = ROOT / "swin_dense" / "ops"
        else:
            place = Path(self.build_lib) / "swin_dense" / "ops"
        self.objects = ROOT / "build" / "kernels"  # kept, so that the next build is quick
        for name in LIBRARIES:
            # What an earlier build left must not be taken for the result of this one.
            (place / f"{name}.so").unlink(missing_ok=True)
        try:
            if os.environ.get("SWIN_DENSE_KERNELS") == "off":
                raise Unavailable("switched off by SWIN_DENSE_KERNELS=off")
            if platform.system() not in ("Linux", "Darwin"):
                raise Unavailable(f"no build for {platform.system()} yet")
            torch = compilers.find_torch()
            self.cxx = compilers.find_cxx()
            self.objects.mkdir(parents=True, exist_ok=True)
            cpu = self.build_cpu(torch)
        except Unavailable as reason:
            say(f"{reason}; the plain-torch path is in use")
            if os.environ.get("SWIN_DENSE_REQUIRE_KERNELS") == "1":
                raise SystemExit("swin_dense: SWIN_DENSE_REQUIRE_KERNELS=1, stopping.") from None
            return
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(cpu, place / "_cpu.so")
        say(f"CPU kernels built against torch {torch.version}")
        try:
            shutil.copy(self.build_cuda(torch), place / "_cuda.so")
        except Unavailable as reason:
            say(f"no CUDA kernels: {reason}; on CUDA the plain-torch path is in use")
            if compilers.must_have_cuda():
                raise SystemExit("swin_dense: SWIN_DENSE_CUDA=1, stopping.") from None

    def build_cpu(self, torch: Torch) -> Path:
        compiler = [*self.cxx, *CXX_FLAGS, TARGET, f"-I{torch.folder / 'include'}"]
        if platform.system() == "Darwin":
            link = [*self.cxx, "-dynamiclib", "-undefined", "dynamic_lookup"]
        else:
            link = [*self.cxx, "-shared", "-Wl,--no-as-needed", f"-L{torch.folder / 'lib'}"]
            link += ["-ltorch_cpu", "-lc10"]
        units = []
        for path in sorted((SOURCES / "cpu").glob("*.cpp")):
            flags = ["-ffp-contract=off"] if path.stem in ROUNDED else []
            units.append((path.name, path, flags))
        for path in sorted((SOURCES / "cpu" / "levels").glob("*.cpp")):
            for level, flags in LEVELS.items():
                flags = [*flags, f"-DSWIN_DENSE_LEVEL={level}"]
                units.append((f"{level}.{path.name}", path, flags))
        return self.build_library("_cpu", torch.version, compiler, units, link)

    def build_cuda(self, torch: Torch) -> Path:
        compilers.require_cuda_wanted(torch)
        nvcc = compilers.find_nvcc(torch)
        chosen = compilers.choose_architectures(nvcc)
        everything = chosen.architectures
        modern = [each for each in everything if each >= compilers.TENSOR_CORES]
        what = f"CUDA kernels for {compilers.listed(everything)}"
        say(f"compiling {what} ({chosen.why}) ...")
        began = time.monotonic()
        compiler = [nvcc.path, *NVCC_FLAGS, "-ccbin", self.cxx[0], TARGET]
        compiler.append(f"-I{torch.folder / 'include'}")
        units = []
        for path in sorted((SOURCES / "cuda").glob("*.cu")):
            headers = {header.name for header in included(path)}
            architectures = modern if TENSOR_CORES in headers else everything
            if not architectures:
                continue  # its op then has no CUDA kernel, and is plain torch
            flags = compilers.generate_code(architectures)
            flags += ["-fmad=false"] if path.stem in ROUNDED else []
            if path.name == "launch.cu":  # which tells
                flags.append(f'-DSWIN_DENSE_ARCHITECTURES="{compilers.listed(everything)}"')
                flags.append(f'-DSWIN_DENSE_TENSOR_CORES="{compilers.listed(modern)}"')
            units.append((path.name, path, flags))
        # nvcc links its own runtime in, so that no file of a CUDA installation is needed to run.
        link = [nvcc.path, "-shared", "-ccbin", self.cxx[0], "-Xlinker", "--no-as-needed"]
        link += [*nvcc.link, f"-L{self.cuda_torch_or_stub(torch.folder)}", "-ltorch_cuda"]
        link += [f"-L{torch.folder / 'lib'}", "-ltorch_cpu", "-lc10"]
        library = self.build_library(
            "_cuda", f"{torch.version} {nvcc.release}", compiler, units, link
        )
        took = f"in {time.monotonic() - began:.0f} s"
        say(f"{what} ({chosen.why}) built against torch {torch.version} by {nvcc} {took}")
        if not modern:
            say("they lack window attention, whose tensor cores need 8.0")
        return library

    def cuda_torch_or_stub(self, torch: Path) -> Path:
        """Where libtorch_cuda.so is; beside a CPU torch, an empty library of the same name."""
        if (torch / "lib" / "libtorch_cuda.so").exists():
            return torch / "lib"
        stub = self.objects / "libtorch_cuda.so"
        source = self.objects / "empty.cpp"
        source.write_text("")
        soname = f"-Wl,-soname,{stub.name}"
        run([*self.cxx, "-shared", "-fPIC", soname, str(source), "-o", str(stub)])
        return self.objects

    def build_library(
        self,
        name: str,
        versions: str,
        compiler: list[str],
        units: list[tuple[str, Path, list[str]]],
        link: list[str],
    ) -> Path:
        """Compile the units, each a label, its source and its own flags, and link them.

        `versions` are those of what the commands only name by its place.
        """
        jobs = []
        for label, source, flags in units:
            command = [*compiler, *flags]
            mark = fingerprint(versions, command, source, *sorted(included(source)))
            target = self.objects / f"{label}.o"
            jobs.append((target, mark, [*command, "-c", str(source), "-o", str(target)]))
        library = self.objects / f"{name}.so"
        order = [*link, "-o", str(library), *(str(target) for target, _, _ in jobs)]
        # The largest first, so that none is left over at the end for one compiler alone.
        longest = sorted(jobs, key=lambda job: Path(job[2][-3]).stat().st_size, reverse=True)
        with ThreadPoolExecutor(int(os.environ.get("MAX_JOBS", "2"))) as pool:
            list(pool.map(lambda job: self.make(*job), longest))
        self.make(library, fingerprint(order, [mark for _, mark, _ in jobs]), order)
        return library

    @staticmethod
    def make(target: Path, mark: str, command: list[str]) -> None:
        """Run a command unless its target is already there, made from the same things."""
        stamp = target.with_name(f"{target.name}.made_from")
        if target.exists() and stamp.exists() and stamp.read_text() == mark:
            return
        stamp.unlink(missing_ok=True)
        warnings = run(command)
        if warnings.strip():
            print(warnings, file=sys.stderr)
        stamp.write_text(mark)

    # Neither what is built nor where it goes follows the rules of Python extensions.
    def get_outputs(self) -> list[str]:
        place = Path(self.build_lib) / "swin_dense" / "ops"
        return [str(path) for path in place.glob("_c*.so")]

    def get_output_mapping(self) -> dict[str, str]:
        return {}

    def get_source_files(self) -> list[str]:
        sources = [Path(compilers.__file__), *sorted(SOURCES.rglob("*.*"))]
        return [str(path.relative_to(ROOT)) for path in sources]


class BuildWithConfigs(build_py):
    """Lay configs/ into the package; an editable install finds them where they are."""

    def run(self) -> None:
        super().run()
        place = Path(self.build_lib) / "swin_dense" / "configs"
        if not self.editable_mode:
            # What an earlier build left there may have been deleted or renamed since.
            shutil.rmtree(place, ignore_errors=True)
            for path in self.configs():
                target = place / path.relative_to(ROOT / "configs")
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, target)

    @staticmethod
    def configs() -> list[Path]:
        return sorted((ROOT / "configs").rglob("*.py"))

    def get_source_files(self) -> list[str]:
        return super().get_source_files() + [str(path.relative_to(ROOT)) for path in self.configs()]


class PlatformWheel(bdist_wheel):
    """The libraries know the platform, but no version of Python."""

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


if __name__ == "__main__":
    setup(
        # Only to say that there is something to build; BuildKernels finds the sources itself.
        ext_modules=[Extension("swin_dense.ops._cpu", sources=[])],
        cmdclass={
            "build_ext": BuildKernels,
            "build_py": BuildWithConfigs,
            "bdist_wheel": PlatformWheel,
        },
    )
