"""Finds the compilers of our kernels, and for which graphics cards they compile.

setup.py imports it. As a command it prints what pip has to install before CUDA kernels can be
compiled here, one requirement a line; nothing where nothing lacks or where none are wanted.

    CXX, CUDA_HOME          which compilers; else c++ or g++ or clang++, and nvcc, of the PATH, else
                            the nvcc that pip installed into this environment
    SWIN_DENSE_CUDA         1 asks for CUDA kernels, 0 refuses them; unset, torch decides
    SWIN_DENSE_CUDA_ARCHS   for which cards: "90" or "8.6,9.0" or "all"; unset, for those present

Letters: an architecture is a number, 86 for cards of compute capability 8.6.
"""

import difflib
import importlib.metadata
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

# What is compiled where no card is present, of that what nvcc knows. No nvcc since CUDA 13 knows
# older cards than 75, whose tensor cores lack the products that TENSOR_CORES and later have.
ARCHITECTURES = (75, 80, 86, 89, 90, 100, 110, 120)
TENSOR_CORES = 80
# Beside a torch without CUDA nothing has to fit, but nvcc has to know the cards.
OLDEST_CUDA = (12, 8)
INDEX_CUDA = "13.0"  # which one to install there
USUAL_PLACE = "/usr/local/cuda/bin"  # seldom on the PATH


class Unavailable(Exception):
    """Why a library is not built, in words."""


class Torch(NamedTuple):
    folder: Path
    version: str
    cuda: str | None  # "13.0", None for a build without


class Nvcc(NamedTuple):
    path: str
    release: str  # "13.0"
    link: tuple[str, ...]  # what its linking needs beside its own settings

    def __str__(self) -> str:
        return f"nvcc {self.release} ({self.path})"

    def known(self) -> list[int]:
        """Return the architectures it compiles for, of those that our sources allow."""
        listed = re.findall(r"^compute_(\d+)$", run([self.path, "--list-gpu-arch"]), re.MULTILINE)
        return sorted({int(number) for number in listed if int(number) >= ARCHITECTURES[0]})


class Chosen(NamedTuple):
    architectures: list[int]
    why: str


def run(command: list[str]) -> str:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise Unavailable(f"{Path(command[0]).name} failed:\n{shlex.join(command)}\n{done.stdout}")
    return done.stdout


def find_torch() -> Torch:
    """Read what torch is from its files: importing it takes seconds."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        raise Unavailable("torch is not installed here (pip's --no-build-isolation shows it)")
    version = importlib.metadata.version("torch")
    if tuple(int(part) for part in version.split(".")[:2]) < (2, 10):
        raise Unavailable(f"compiled kernels need torch 2.10 or later, this is {version}")
    folder = Path(spec.origin).parent
    stated = re.search(
        r"^cuda\b[^=\n]*=\s*['\"]([\d.]+)", (folder / "version.py").read_text(), re.MULTILINE
    )
    return Torch(folder, version, stated and stated[1])


def find_cxx() -> list[str]:
    named = os.environ.get("CXX")
    for candidate in [named] if named else ["c++", "g++", "clang++"]:
        words = shlex.split(candidate)
        if words and shutil.which(words[0]):
            return words
    if named:
        raise Unavailable(f"no C++ compiler found (CXX names {named}, which is not there)")
    raise Unavailable("no C++ compiler found (set CXX)")


def require_cuda_wanted(torch: Torch) -> None:
    """Raise where no CUDA kernels are asked for: minutes of work that nothing could use."""
    switch = os.environ.get("SWIN_DENSE_CUDA") or "unset"
    if switch not in ("0", "1", "unset"):
        raise SystemExit(
            f"swin_dense: SWIN_DENSE_CUDA is 0 or 1, not {switch!r}. Correct or unset it."
        )
    if switch == "0":
        raise Unavailable("switched off by SWIN_DENSE_CUDA=0")
    if switch == "unset" and torch.cuda is None:
        raise Unavailable(
            f"torch {torch.version} is without CUDA (SWIN_DENSE_CUDA=1 builds for it all the same)"
        )


def must_have_cuda() -> bool:
    return os.environ.get("SWIN_DENSE_CUDA") == "1"


def find_nvcc(torch: Torch) -> Nvcc:
    """Return the first that fits torch: of CUDA_HOME, CUDA_PATH, the PATH, this environment."""
    unfit = []
    for nvcc in _candidates():
        try:
            release = run([nvcc.path, "--version"]).split("release ")[-1].split(",")[0]
        except Unavailable:
            unfit.append(f"{nvcc.path} does not run")
            continue
        if _fits(release, torch.cuda):
            return nvcc._replace(release=release)
        unfit.append(f"{nvcc.path} is of CUDA {release}")
    if torch.cuda is None:
        wanted = f"CUDA {'.'.join(map(str, OLDEST_CUDA))} or later"
    else:
        wanted = f"torch's CUDA {torch.cuda.split('.')[0]}"
    requirement = nvcc_requirement(torch)
    if requirement is None:
        remedy = f"the package index has it from CUDA 13 on: install CUDA {torch.cuda} and "
        remedy += "point CUDA_HOME to it"
    else:
        remedy = f"run: {Path(sys.executable).name} -m pip install '{requirement}'"
    raise Unavailable(f"no nvcc of {wanted} found ({'; '.join([*unfit, remedy])})")


def _candidates() -> list[Nvcc]:
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH")]
    paths = [Path(home, "bin", "nvcc") for home in homes if home]
    on_path = shutil.which("nvcc", path=f"{os.environ.get('PATH', '')}:{USUAL_PLACE}")
    paths += [Path(on_path)] if on_path else []
    found = [Nvcc(str(path), "", ()) for path in paths if path.exists()]
    for place in sys.path:
        for home in sorted(Path(place, "nvidia").glob("cu[0-9]*"), reverse=True):
            # Its packages come one by one, and torch brings some of them without the compiler.
            parts = "bin/nvcc", "nvvm/bin/cicc", "include/crt/host_config.h", "include/cccl"
            parts += "include/cuda_runtime.h", "lib/libcudart_static.a"
            if all((home / part).exists() for part in parts):
                # It would look for libraries in lib64, as an installed toolkit has them.
                found.append(Nvcc(str(home / "bin" / "nvcc"), "", (f"-L{home / 'lib'}",)))
    return found


def _fits(release: str, cuda: str | None) -> bool:
    if cuda is None:
        return tuple(int(part) for part in release.split(".")[:2]) >= OLDEST_CUDA
    return release.split(".")[0] == cuda.split(".")[0]


def nvcc_requirement(torch: Torch) -> str | None:
    """Name what pip installs as nvcc of torch's CUDA; None before 13, whose package lacks it."""
    cuda = torch.cuda or INDEX_CUDA
    if int(cuda.split(".")[0]) < 13:
        return None
    return f"cuda-toolkit[nvcc,cccl]=={'.'.join(cuda.split('.')[:2])}.*"


def choose_architectures(nvcc: Nvcc) -> Chosen:
    """Return what to compile for, and why that in a few words."""
    known = nvcc.known()
    usual = [number for number in ARCHITECTURES if number in known]
    named = os.environ.get("SWIN_DENSE_CUDA_ARCHS", "").strip()
    if named == "all":
        return Chosen(usual, "all, by SWIN_DENSE_CUDA_ARCHS")
    if named:
        return Chosen(parse_architectures(named, known), "by SWIN_DENSE_CUDA_ARCHS")
    present = cards()
    if not present:
        return Chosen(usual, "all, as no card is present")
    described = ", ".join(
        f"{f'{count} x ' if count > 1 else ''}{name} ({capability // 10}.{capability % 10})"
        for (name, capability), count in Counter(present).items()
    )
    codes = {code_for(capability, known) for _, capability in present} - {None}
    if not codes:
        oldest = f"{known[0] // 10}.{known[0] % 10}"
        raise Unavailable(f"they need a card of capability {oldest} or later, here is {described}")
    return Chosen(sorted(code for code in codes if code), described)


def parse_architectures(text: str, known: list[int]) -> list[int]:
    """Read "90" or "8.6,9.0"; what nvcc does not know stops the build."""
    found = set()
    for word in re.split(r"[,;\s]+", text.strip(",; ")):
        number = word.replace(".", "", 1) if re.fullmatch(r"\d+\.\d|\d{2,3}", word) else word
        numbers = [str(number) for number in known]
        if number not in numbers:
            near = difflib.get_close_matches(number, numbers, 1, 0.4)
            raise SystemExit(
                f"swin_dense: SWIN_DENSE_CUDA_ARCHS names {word!r}, which nvcc does not know"
                f"{f'; did you mean {near[0]}?' if near else '.'} It knows {', '.join(numbers)}: "
                "write 90 or 9.0, several with commas, or all."
            )
        found.add(int(number))
    return sorted(found)


def cards() -> list[tuple[str, int]]:
    """Ask the driver's own command: [("NVIDIA H100 80GB HBM3", 90)]; empty without a driver."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return []
    query = [command, "--query-gpu=name,compute_cap", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return []
    rows = re.findall(r"^(.+?),\s*(\d+)\.(\d)\s*$", done.stdout, re.MULTILINE)
    return [(name, int(major) * 10 + int(minor)) for name, major, minor in rows]


def code_for(capability: int, known: list[int]) -> int | None:
    """Return the newest that a card runs: as code within its family, else from PTX."""
    return max((each for each in known if each <= capability), default=None)


def generate_code(architectures: list[int]) -> list[str]:
    """Return nvcc's options: code for each, and for later cards the last one as PTX."""
    last = architectures[-1]
    flags = [f"-gencode=arch=compute_{each},code=sm_{each}" for each in architectures]
    return [*flags, f"-gencode=arch=compute_{last},code=compute_{last}"]


def listed(architectures: list[int]) -> str:
    """[75, 90] -> "75,90+ptx"."""
    return ",".join(map(str, architectures)) + ("+ptx" if architectures else "")


def main() -> None:
    try:
        if os.environ.get("SWIN_DENSE_KERNELS") == "off":
            return
        torch = find_torch()
        require_cuda_wanted(torch)
        find_cxx()
    except Unavailable:
        return  # the build says so
    try:
        find_nvcc(torch)
    except Unavailable:
        requirement = nvcc_requirement(torch)
        if requirement is not None:
            print(requirement)


if __name__ == "__main__":
    main()
