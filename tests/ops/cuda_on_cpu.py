"""The CUDA kernels as CPU code: cuda_on_cpu.h says how, and what that shows."""

import functools
import os
import platform
import re
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor

HERE = Path(__file__).parent
SOURCES = HERE.parents[1] / "swin_dense" / "ops" / "csrc" / "cuda"
BLOCKS = 16  # of a kernel that deals work to blocks: few, so that each has several pieces
PARTIAL = 1 << 15  # numbers that blocks leave to be added up: few, so that it takes several rounds


def rewrite(source: str) -> str:
    """Replace what a C++ compiler cannot read, and where the ops are registered."""
    launches = re.compile(r"(\w+(?:<[\w, :]*>)?)<<<(.*?)>>>\(", re.DOTALL)
    source = launches.sub(r"cuda_on_cpu::launch(\1, \2)(", source)
    shared = re.compile(r"extern __shared__ (\w+) (\w+)\[\];")
    source = shared.sub(r"auto* \2 = reinterpret_cast<\1*>(cuda_on_cpu::dynamic_shared());", source)
    source = source.replace("torch::stable::accelerator::DeviceGuard", "cuda_on_cpu::DeviceGuard")
    source = source.replace("IMPL(swin_dense, CUDA, m)", "IMPL(cuda_on_cpu, CPU, m)")
    for name, value in (("int kBlocks", BLOCKS), ("int64_t kMostPartial", PARTIAL)):
        source = re.sub(f"constexpr {name} = [^;]+;", f"constexpr {name} = {value};", source)
    return source


@functools.cache
def _folder() -> tempfile.TemporaryDirectory:
    """The sources, rewritten; it goes with the process."""
    folder = tempfile.TemporaryDirectory(prefix="cuda_on_cpu_")
    at = Path(folder.name)
    for path in HERE.glob("*_on_cpu.h"):
        shutil.copy(path, at)
    (at / "cuda_runtime.h").write_text('#include "tensor_core_on_cpu.h"\n')
    for path in SOURCES.iterdir():
        target = path.with_suffix(".cpp").name if path.suffix == ".cu" else path.name
        (at / target).write_text(rewrite(path.read_text()))
    return folder


@functools.cache
def library(name: str, source: str | None = None) -> Path:
    """Made of the source of that name, or of what is given for one."""
    named = os.environ.get("CXX")
    compiler = next(filter(shutil.which, [named] if named else ["c++", "g++", "clang++"]), None)
    if compiler is None or platform.system() != "Linux":
        pytest.skip("needs a C++ compiler on Linux")
    if tuple(map(int, torch.__version__.split(".")[:2])) < (2, 10):
        pytest.skip("needs the stable C++ interface of torch 2.10")
    folder, torch_at = Path(_folder().name), Path(torch.__file__).parent
    if source is not None:
        (folder / f"{name}.cpp").write_text(rewrite(source))
    flags = ["-std=c++17", "-O1", "-w", "-fPIC", "-fvisibility=hidden", "-shared"]
    flags += ["-DTORCH_TARGET_VERSION=0x020a000000000000"]
    flags += [f"-I{folder}", f"-I{torch_at / 'include'}", f"-L{torch_at / 'lib'}"]
    target = folder / f"{name}.so"
    command = [compiler, *flags, str(folder / f"{name}.cpp"), "-o", str(target)]
    done = subprocess.run([*command, "-ltorch_cpu", "-lc10"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return target


@functools.cache
def _load(name: str) -> None:
    source = (SOURCES / f"{name}.cu").read_text()
    for op in re.findall(r'm\.impl\("(\w+)"', source):
        schema = str(getattr(torch.ops.swin_dense, op).default._schema)
        torch.library.define(f"cuda_on_cpu::{op}", schema.removeprefix(f"swin_dense::{op}"))
    torch.ops.load_library(library(name))


@contextmanager
def kernels(*names: str):
    """The ops of these sources; they take tensors of the CPU. Memory nobody wrote holds NaN."""
    for name in names:
        _load(name)
    torch.use_deterministic_algorithms(True)
    try:
        yield torch.ops.cuda_on_cpu
    finally:
        torch.use_deterministic_algorithms(False)


def gradient_of(out: Tensor) -> Tensor:
    return torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out.dtype)


def assert_near(ours: Tensor, right: Tensor, steps: float) -> None:
    """At most so far from the truth, seen from its largest number."""
    assert ours.shape == right.shape
    if right.numel():
        assert (ours.double() - right).abs().max() <= steps * right.abs().max()
