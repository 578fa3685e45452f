"""Build the kernels of swin_dense/ops, and pack configs/: pip install --no-build-isolation -e .

Everything else about the package is in setup.cfg. The compilers are called directly: the kernels
use the stable C++ interface of torch (2.10 and later) and no Python, so there is nothing for an
extension builder to know, and the two libraries serve any Python and any later torch.

    CXX, CUDA_HOME              which compilers; else c++ or g++ or clang++, and nvcc, of the PATH
    SWIN_DENSE_KERNELS=off      build nothing
    SWIN_DENSE_CUDA=0           build nothing for CUDA
    SWIN_DENSE_REQUIRE_KERNELS=1    a CPU library that cannot be built is an error
    MAX_JOBS                    compilers at a time, 2 if unset

Without a compiler, or without torch, the package installs all the same and runs in plain torch.
"""

import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
SOURCES = ROOT / "swin_dense" / "ops" / "csrc"
LIBRARIES = {"_cpu": ".cpp", "_cuda": ".cu"}

TARGET = "-DTORCH_TARGET_VERSION=0x020a000000000000"  # torch 2.10
CXX_FLAGS = ["-std=c++17", "-O3", "-fPIC", "-fvisibility=hidden"]
CXX_FLAGS += ["-fno-math-errno", "-fno-trapping-math"]
NVCC_FLAGS = ["-std=c++17", "-O3", "--expt-relaxed-constexpr", "-DUSE_CUDA"]
NVCC_FLAGS += ["-Xcompiler", "-fPIC,-fvisibility=hidden"]
ARCHITECTURES = (80, 86, 89, 90, 100, 120)  # of those, what nvcc knows; the last one as PTX too

# The sources in csrc/cpu/levels are compiled once for each of these, with its instructions allowed.
LEVELS = {"portable": []}
if platform.machine().lower() in ("x86_64", "amd64"):
    LEVELS["avx2"] = ["-mavx2", "-mfma", "-mf16c"]
    LEVELS["avx512"] = [*LEVELS["avx2"], "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"]

# A comparison of overlaps has to come out as in plain torch, which rounds after every operation.
ROUNDED = ("nms", "soft_nms")


class Unavailable(Exception):
    """Why a library is not built, in words."""


def say(text: str) -> None:
    print(f"swin_dense: {text}", flush=True)


def find_torch() -> tuple[Path, str]:
    """Its folder and version, without importing it."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        raise Unavailable("torch is not installed here (pip's --no-build-isolation shows it)")
    version = importlib.metadata.version("torch")
    if tuple(int(part) for part in version.split(".")[:2]) < (2, 10):
        raise Unavailable(f"compiled kernels need torch 2.10 or later, this is {version}")
    return Path(spec.origin).parent, version


def find_cxx() -> list[str]:
    named = os.environ.get("CXX")
    for candidate in [named] if named else ["c++", "g++", "clang++"]:
        words = shlex.split(candidate)
        if words and shutil.which(words[0]):
            return words
    if named:
        raise Unavailable(f"no C++ compiler found (CXX names {named}, which is not there)")
    raise Unavailable("no C++ compiler found (set CXX)")


def find_nvcc() -> str:
    if os.environ.get("SWIN_DENSE_CUDA") == "0":
        raise Unavailable("switched off by SWIN_DENSE_CUDA=0")
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        home = os.environ.get(variable)
        if home and (Path(home) / "bin" / "nvcc").exists():
            return str(Path(home) / "bin" / "nvcc")
    nvcc = shutil.which("nvcc", path=os.environ.get("PATH", "") + ":/usr/local/cuda/bin")
    if nvcc is None:
        raise Unavailable("no nvcc found (set CUDA_HOME)")
    return nvcc


def run(command: list[str]) -> str:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise Unavailable(f"{Path(command[0]).name} failed:\n{shlex.join(command)}\n{done.stdout}")
    return done.stdout


def fingerprint(*parts: object) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.read_bytes() if isinstance(part, Path) else repr(part).encode())
        digest.update(b"\0")
    return digest.hexdigest()


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
            torch, version = find_torch()
            self.cxx = find_cxx()
            self.objects.mkdir(parents=True, exist_ok=True)
            cpu = self.build_cpu(torch, version)
        except Unavailable as reason:
            say(f"{reason}; the plain-torch path is in use")
            if os.environ.get("SWIN_DENSE_REQUIRE_KERNELS") == "1":
                raise SystemExit("swin_dense: SWIN_DENSE_REQUIRE_KERNELS=1, stopping.") from None
            return
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(cpu, place / "_cpu.so")
        say(f"CPU kernels built against torch {version}")
        try:
            shutil.copy(self.build_cuda(torch, version), place / "_cuda.so")
            say(f"CUDA kernels built against torch {version}")
        except Unavailable as reason:
            say(f"{reason}; no CUDA kernels, on CUDA the plain-torch path is in use")

    def build_cpu(self, torch: Path, version: str) -> Path:
        compiler = [*self.cxx, *CXX_FLAGS, TARGET, f"-I{torch / 'include'}"]
        if platform.system() == "Darwin":
            link = [*self.cxx, "-dynamiclib", "-undefined", "dynamic_lookup"]
        else:
            link = [*self.cxx, "-shared", "-Wl,--no-as-needed", f"-L{torch / 'lib'}"]
            link += ["-ltorch_cpu", "-lc10"]
        return self.build_library("_cpu", compiler, "-ffp-contract=off", link, version)

    def build_cuda(self, torch: Path, version: str) -> Path:
        nvcc = find_nvcc()
        release = run([nvcc, "--version"]).split("release ")[-1].split(",")[0]
        wanted = self.cuda_of_torch(torch)
        if wanted and wanted.split(".")[0] != release.split(".")[0]:
            raise Unavailable(f"nvcc is of CUDA {release}, torch of CUDA {wanted}")
        known = run([nvcc, "--list-gpu-arch"])
        targets = [arch for arch in ARCHITECTURES if f"compute_{arch}" in known.split()]
        flags = [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in targets]
        flags.append(f"-gencode=arch=compute_{targets[-1]},code=compute_{targets[-1]}")
        compiler = [nvcc, *NVCC_FLAGS, *flags, "-ccbin", self.cxx[0], TARGET]
        compiler.append(f"-I{torch / 'include'}")
        # nvcc links its own runtime in, so that no file of a CUDA installation is needed to run.
        link = [nvcc, "-shared", "-ccbin", self.cxx[0], "-Xlinker", "--no-as-needed"]
        link += [f"-L{self.cuda_torch_or_stub(torch)}", "-ltorch_cuda"]
        link += [f"-L{torch / 'lib'}", "-ltorch_cpu", "-lc10"]
        return self.build_library("_cuda", compiler, "-fmad=false", link, version)

    @staticmethod
    def cuda_of_torch(torch: Path) -> str | None:
        for line in (torch / "version.py").read_text().splitlines():
            if line.startswith("cuda") and "=" in line:
                value = line.split("=")[-1].strip().strip("'\"")
                return None if value == "None" else value
        return None

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
        self, name: str, compiler: list[str], rounded: str, link: list[str], version: str
    ) -> Path:
        folder = SOURCES / name.strip("_")
        sources = sorted(folder.glob(f"*{LIBRARIES[name]}"))
        wanted = [(path.name, path, [rounded] if path.stem in ROUNDED else []) for path in sources]
        for path in sorted((folder / "levels").glob(f"*{LIBRARIES[name]}")):
            for level, flags in LEVELS.items():
                wanted.append(
                    (f"{level}.{path.name}", path, [*flags, f"-DSWIN_DENSE_LEVEL={level}"])
                )
        paths = {path for _, path, _ in wanted}
        headers = sorted(p for p in folder.rglob("*") if p.is_file() and p not in paths)
        jobs = []
        for label, source, flags in wanted:
            command = [*compiler, *flags]
            mark = fingerprint(version, command, source, *headers)
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
        return [str(path.relative_to(ROOT)) for path in sorted(SOURCES.rglob("*.*"))]


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
