"""How setup.py builds the kernels: with which compilers, for which cards, and what it says.

Compilers that only write down how they are called stand in for the real ones, so that a whole build
takes a second. That the sources compile is shown by  make setup  and  make wheel.
"""

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest
import torch
from conftest import ROOT

from swin_dense.ops import extension

OPS = ROOT / "swin_dense" / "ops"
BUILD = ("setup.py", "-q", "build_ext", "--inplace")
CUDA_SOURCES = {path.name for path in (OPS / "csrc/cuda").glob("*.cu")}
WITH_TENSOR_CORES = {name for name in CUDA_SOURCES if name.startswith("window_attention")}

_spec = importlib.util.spec_from_file_location("compilers", ROOT / "tools/compilers.py")
compilers = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(compilers)

CPU_TORCH = compilers.Torch(ROOT, "2.13.0+cpu", None)
CUDA_TORCH = compilers.Torch(ROOT, "2.14.1+cu130", "13.0")
RELEASE = torch.version.cuda or "13.0"  # which fits the torch that is here
OLD_TORCH = compilers.Torch(ROOT, "2.10.0+cu126", "12.6")


def program(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def fake_nvcc(path, release, known="75 80 86 87 89 90 100 103 110 120 121"):
    """Write an nvcc that tells what it is, and notes in calls.txt what it has to compile."""
    return program(
        path,
        f"""
case "$*" in
--version) echo 'Cuda compilation tools, release {release}, V{release}.88' ;;
--list-gpu-arch) printf 'compute_%s\\n' {known} ;;
*) call=$(printf '%s\\t' "$@")  # one write a call: two compilers may run at once
   printf '%s\\n' "$call" >>{path.parent}/calls.txt
   while [ "$1" != -o ]; do shift; done; echo code >"$2" ;;
esac""",
    )


@pytest.fixture(autouse=True)
def nowhere(tmp_path, monkeypatch):
    """No compiler, no CUDA and no card on this machine, and no wish of its user's."""
    for name in [name for name in os.environ if name.startswith(("SWIN_DENSE", "CUDA", "CXX"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PATH", str(tmp_path / "programs"))
    monkeypatch.setattr(compilers, "USUAL_PLACE", str(tmp_path / "usual"))
    others = [place for place in sys.path if "site-packages" not in place]
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site-packages"), *others])
    return tmp_path


# Which architectures.

KNOWN = [75, 80, 86, 89, 90, 100, 120]


@pytest.mark.parametrize(
    ("text", "found"),
    [("90", [90]), ("9.0", [90]), ("8.6,9.0", [86, 90]), (" 120; 7.5 75,", [75, 120])],
)
def test_architectures_are_read(text, found):
    assert compilers.parse_architectures(text, KNOWN) == found


@pytest.mark.parametrize("text", ["9", "70", "9.00", "sm_90", "90a", "90 12", "8,6", ","])
def test_an_unknown_architecture_stops_the_build(text):
    with pytest.raises(SystemExit, match=r"^swin_dense: SWIN_DENSE_CUDA_ARCHS names .* 90 or "):
        compilers.parse_architectures(text, KNOWN)


def test_an_unknown_architecture_is_told_beside_the_nearest():
    with pytest.raises(SystemExit) as error:
        compilers.parse_architectures("80,sm_86", KNOWN)
    assert str(error.value) == (
        "swin_dense: SWIN_DENSE_CUDA_ARCHS names 'sm_86', which nvcc does not know; did you mean "
        "86? It knows 75, 80, 86, 89, 90, 100, 120: write 90 or 9.0, several with commas, or all."
    )


@pytest.mark.parametrize(
    ("capability", "code"),
    [
        (75, 75),
        (87, 86),  # code of its family, for an older card
        (89, 89),
        (103, 100),
        (110, 100),  # no code of its family: by PTX
        (121, 120),
        (130, 120),
        (70, None),
        (61, None),
    ],
)
def test_a_card_gets_the_newest_that_it_runs(capability, code):
    assert compilers.code_for(capability, KNOWN) == code


def test_the_last_architecture_is_there_as_ptx_too():
    assert compilers.generate_code([75, 90]) == [
        "-gencode=arch=compute_75,code=sm_75",
        "-gencode=arch=compute_90,code=sm_90",
        "-gencode=arch=compute_90,code=compute_90",
    ]
    assert (compilers.listed([75, 90]), compilers.listed([])) == ("75,90+ptx", "")


@pytest.mark.parametrize(
    ("answer", "named", "found"),
    [
        (None, "", ([75, 80, 86, 89, 90, 100, 110, 120], "all, as no card is present")),
        ("echo 'No devices were found'; exit 6", "", (..., "all, as no card is present")),
        ("echo 'NVIDIA H100 80GB HBM3, 9.0'", "", ([90], "NVIDIA H100 80GB HBM3 (9.0)")),
        ("echo 'NVIDIA H100 80GB HBM3, 9.0'", "all", (..., "all, by SWIN_DENSE_CUDA_ARCHS")),
        ("echo 'NVIDIA H100 80GB HBM3, 9.0'", "8.6", ([86], "by SWIN_DENSE_CUDA_ARCHS")),
        (
            "printf 'Tesla T4, 7.5\\nOdd, Card, 10.3\\nTesla T4, 7.5\\nTesla V100, 7.0\\n'",
            "",
            ([75, 103], "2 x Tesla T4 (7.5), Odd, Card (10.3), Tesla V100 (7.0)"),
        ),
    ],
)
def test_the_cards_present_decide_unless_told(nowhere, monkeypatch, answer, named, found):
    if answer is not None:
        asked = "--query-gpu=name,compute_cap --format=csv,noheader"
        program(nowhere / "programs/nvidia-smi", f'[ "$*" = "{asked}" ] || exit 1\n{answer}')
    monkeypatch.setenv("SWIN_DENSE_CUDA_ARCHS", named)
    nvcc = compilers.Nvcc(str(fake_nvcc(nowhere / "nvcc", "13.0")), "13.0", ())
    chosen = compilers.choose_architectures(nvcc)
    usual = [75, 80, 86, 89, 90, 100, 110, 120]
    assert chosen == (usual if found[0] is ... else found[0], found[1])


def test_cards_that_are_all_too_old_are_told(nowhere):
    program(nowhere / "programs/nvidia-smi", "echo 'Tesla V100, 7.0'")
    nvcc = compilers.Nvcc(str(fake_nvcc(nowhere / "nvcc", "12.8", "70 75 80")), "12.8", ())
    with pytest.raises(compilers.Unavailable) as error:
        compilers.choose_architectures(nvcc)
    assert str(error.value) == (
        "they need a card of capability 7.5 or later, here is Tesla V100 (7.0)"
    )


# Which nvcc.


def packages(top, cuda="13", without=None):
    """Lay out an environment's nvcc as its packages do, or all but one file of it."""
    home = top / f"site-packages/nvidia/cu{cuda}"
    for name in ("nvvm/bin/cicc", "include/crt/host_config.h", "include/cuda_runtime.h"):
        program(home / name, "")
    program(home / "lib/libcudart_static.a", "")
    program(home / "include/cccl/nv/target", "")
    fake_nvcc(home / "bin/nvcc", f"{cuda}.0")
    if without:
        (home / without).unlink()
    return home


def test_the_first_nvcc_of_torch_s_cuda_is_taken(nowhere, monkeypatch):
    """From the last that is looked for to the first."""

    def found():
        return compilers.find_nvcc(CUDA_TORCH)

    packed = packages(nowhere)
    assert found() == (str(packed / "bin/nvcc"), "13.0", (f"-L{packed / 'lib'}",))
    for place, release in (("usual/nvcc", "13.2"), ("programs/nvcc", "13.1")):
        fake_nvcc(nowhere / place, release)
        assert found() == (str(nowhere / place), release, ())
    for variable, release in (("CUDA_PATH", "13.3"), ("CUDA_HOME", "13.4")):
        monkeypatch.setenv(variable, str(nowhere / release))
        assert found().release != release  # set to a folder without one
        fake_nvcc(nowhere / release / "bin/nvcc", release)
        assert found() == (str(nowhere / release / "bin/nvcc"), release, ())
    fake_nvcc(nowhere / "13.4/bin/nvcc", "12.9")  # unfit: the next is taken
    assert found().release == "13.3"


def test_beside_a_cpu_torch_any_late_nvcc_will_do(nowhere):
    for release, fits in (("12.6", False), ("12.8", True), ("13.0", True), ("14.1", True)):
        fake_nvcc(nowhere / "programs/nvcc", release)
        if fits:
            assert compilers.find_nvcc(CPU_TORCH).release == release
        else:
            with pytest.raises(compilers.Unavailable, match=r"of CUDA 12\.8 or later"):
                compilers.find_nvcc(CPU_TORCH)


@pytest.mark.parametrize("part", ["bin/nvcc", "nvvm/bin/cicc", "include/crt/host_config.h"])
def test_half_of_the_packages_are_no_compiler(nowhere, part):
    """A torch for CUDA brings the runtime alone."""
    packages(nowhere, without=part)
    with pytest.raises(compilers.Unavailable) as error:
        compilers.find_nvcc(CUDA_TORCH)
    assert re.fullmatch(
        r"no nvcc of torch's CUDA 13 found \(run: python[\d.]* -m pip install "
        r"'cuda-toolkit\[nvcc,cccl\]==13\.0\.\*'\)",
        str(error.value),
    )


def test_an_nvcc_that_does_not_fit_is_named(nowhere):
    fake_nvcc(nowhere / "programs/nvcc", "13.0")
    program(nowhere / "usual/nvcc", "exit 1")
    with pytest.raises(compilers.Unavailable) as error:
        compilers.find_nvcc(OLD_TORCH)
    assert str(error.value) == (
        f"no nvcc of torch's CUDA 12 found ({nowhere}/programs/nvcc is of CUDA 13.0; the package "
        "index has it from CUDA 13 on: install CUDA 12.6 and point CUDA_HOME to it)"
    )


def test_what_pip_installs_is_of_torch_s_cuda():
    assert compilers.nvcc_requirement(CPU_TORCH) == "cuda-toolkit[nvcc,cccl]==13.0.*"
    late = CUDA_TORCH._replace(cuda="13.2")
    assert compilers.nvcc_requirement(late) == "cuda-toolkit[nvcc,cccl]==13.2.*"
    assert compilers.nvcc_requirement(OLD_TORCH) is None


@pytest.mark.parametrize(
    ("torch", "switch", "compiler", "nvcc", "asked"),
    [
        (CPU_TORCH, None, True, False, False),
        (CPU_TORCH, "0", True, False, False),
        (CPU_TORCH, "1", True, False, True),
        (CUDA_TORCH, None, True, False, True),
        (CUDA_TORCH, None, True, True, False),
        (CUDA_TORCH, None, False, False, False),
        (CUDA_TORCH, "0", True, False, False),
        (OLD_TORCH, None, True, False, False),
    ],
)
def test_pip_is_asked_for_nvcc_where_one_lacks_and_is_of_use(
    nowhere, monkeypatch, capsys, torch, switch, compiler, nvcc, asked
):
    monkeypatch.setattr(compilers, "find_torch", lambda: torch)
    if switch:
        monkeypatch.setenv("SWIN_DENSE_CUDA", switch)
    if compiler:
        program(nowhere / "programs/c++", "")
    if nvcc:
        fake_nvcc(nowhere / "programs/nvcc", "13.0")
    compilers.main()
    assert capsys.readouterr().out == ("cuda-toolkit[nvcc,cccl]==13.0.*\n" if asked else "")


@pytest.mark.parametrize("cuda", [None, "13.0"])
def test_torch_s_cuda_is_read_without_importing_it(nowhere, cuda):
    place = nowhere / "site-packages"
    (place / "torch").mkdir(parents=True)
    (place / "torch/__init__.py").write_text("raise AssertionError('imported')")
    (place / "torch/version.py").write_text(
        f"from typing import Optional\n__version__ = '2.11.0'\ncuda: Optional[str] = {cuda!r}\n"
    )
    (place / "torch-2.11.0.dist-info").mkdir()
    (place / "torch-2.11.0.dist-info/METADATA").write_text("Name: torch\nVersion: 2.11.0\n")
    importlib.invalidate_caches()
    hidden = sys.modules.pop("torch")  # an imported module is found as what it was
    try:
        assert compilers.find_torch() == (place / "torch", "2.11.0", cuda)
    finally:
        sys.modules["torch"] = hidden


# The whole build.


@pytest.fixture
def checkout(tmp_path):
    """The parts of the project that setup.py needs, nothing built."""
    top = tmp_path / "checkout"
    for name in ("setup.py", "setup.cfg", "tools/compilers.py", "swin_dense/__init__.py"):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, top / name)
    ignored = shutil.ignore_patterns("*.so", "__pycache__")
    shutil.copytree(OPS, top / "swin_dense" / "ops", ignore=ignored)
    return top


@pytest.fixture
def build(checkout, nowhere):
    """Run setup.py by compilers that only note how they are called; returns what it says."""
    program(nowhere / "programs/c++", 'while [ "$1" != -o ]; do shift; done; echo code >"$2"')
    fake_nvcc(nowhere / "toolkit/bin/nvcc", RELEASE)

    def run(**switches):
        (nowhere / "toolkit/bin/calls.txt").write_text("")
        environment = {**os.environ, "CUDA_HOME": str(nowhere / "toolkit"), **switches}
        environment.setdefault("CXX", str(nowhere / "programs/c++"))
        done = subprocess.run(
            [sys.executable, *BUILD], cwd=checkout, env=environment, capture_output=True, text=True
        )
        calls = (nowhere / "toolkit/bin/calls.txt").read_text().splitlines()
        return done, [call.split("\t")[:-1] for call in calls]

    return run


def compiled(calls):
    """Source -> the architectures it is compiled for, as code and as PTX."""
    found = {}
    for call in calls:
        if "-c" in call:
            codes = re.findall(r"code=(sm|compute)_(\d+)", " ".join(call))
            name = call[call.index("-c") + 1].split("/")[-1]
            found[name] = [f"{int(code)}{'+ptx' * (kind != 'sm')}" for kind, code in codes]
    return found


def test_turing_is_left_out_where_tensor_cores_are_needed(build, checkout):
    done, calls = build(SWIN_DENSE_CUDA="1", SWIN_DENSE_CUDA_ARCHS="7.5,8.0")
    assert done.returncode == 0, done.stderr
    found = compiled(calls)
    assert WITH_TENSOR_CORES
    assert found.keys() == CUDA_SOURCES
    for name, codes in found.items():
        assert codes == ["75"] * (name not in WITH_TENSOR_CORES) + ["80", "80+ptx"], name
    assert (checkout / "swin_dense/ops/_cuda.so").exists()
    again, calls = build(SWIN_DENSE_CUDA="1", SWIN_DENSE_CUDA_ARCHS="80 75")
    assert again.returncode == 0
    assert not calls  # all of it was there, made from the same things


def test_for_turing_alone_window_attention_is_left_out(build):
    done, calls = build(SWIN_DENSE_CUDA="1", SWIN_DENSE_CUDA_ARCHS="75")
    assert compiled(calls).keys() == CUDA_SOURCES - WITH_TENSOR_CORES
    assert done.stdout.endswith("they lack window attention, whose tensor cores need 8.0\n")


def test_one_line_says_what_is_built_for_which_cards(build, nowhere):
    done, _ = build(SWIN_DENSE_CUDA="1", SWIN_DENSE_CUDA_ARCHS="8.6,9.0")
    cpu, begins, ends = done.stdout.splitlines()
    assert cpu == f"swin_dense: CPU kernels built against torch {torch.__version__}"
    what = "CUDA kernels for 86,90+ptx (by SWIN_DENSE_CUDA_ARCHS)"
    assert begins == f"swin_dense: compiling {what} ..."
    by = f"torch {torch.__version__} by nvcc {RELEASE} ({nowhere}/toolkit/bin/nvcc)"
    assert re.fullmatch(re.escape(f"swin_dense: {what} built against {by} in ") + r"\d+ s", ends)


def test_the_library_tells_its_architectures(build, nowhere, monkeypatch):
    """By the macros that setup.py gives; a host compiler takes the place of nvcc."""
    monkeypatch.setenv("PATH", os.defpath)
    compiler = shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    _, calls = build(SWIN_DENSE_CUDA="1", SWIN_DENSE_CUDA_ARCHS="75,80,90")
    macros = {
        tuple(word for word in call if word.startswith("-DSWIN_DENSE_"))
        for call in calls
        if call[call.index("-o") - 1].endswith("launch.cu")
    }
    source, library = OPS / "csrc/cuda/launch.cu", nowhere / "launch.so"
    command = [compiler, "-shared", "-fPIC", "-D__CUDACC_VER_MAJOR__=13", *macros.pop()]
    subprocess.run([*command, "-x", "c++", str(source), "-o", str(library)], check=True)
    told = extension.told_by(library)
    assert told == {"cuda": "13", "architectures": "75,80,90+ptx", "tensor cores": "80,90+ptx"}


@pytest.mark.skipif(torch.version.cuda is not None, reason="asks what a CPU torch gets")
def test_beside_a_cpu_torch_no_cuda_is_built_unless_asked(build, checkout):
    (checkout / "swin_dense/ops/_cuda.so").write_text("of yesterday")
    done, calls = build()
    assert done.stdout.splitlines()[1:] == [
        f"swin_dense: no CUDA kernels: torch {torch.__version__} is without CUDA "
        "(SWIN_DENSE_CUDA=1 builds for it all the same); on CUDA the plain-torch path is in use"
    ]
    assert (done.returncode, calls) == (0, [])
    assert not (checkout / "swin_dense/ops/_cuda.so").exists()


def test_what_is_asked_for_and_cannot_be_built_is_an_error(build, nowhere):
    nvcc = nowhere / "toolkit/bin/nvcc"
    nvcc.write_text(nvcc.read_text().replace("echo code", "echo 'too much for me'; exit 1; echo"))
    done, _ = build(SWIN_DENSE_CUDA="1", SWIN_DENSE_CUDA_ARCHS="90")
    assert done.returncode == 1
    assert "swin_dense: no CUDA kernels: nvcc failed:" in done.stdout
    assert "too much for me" in done.stdout
    assert "swin_dense: SWIN_DENSE_CUDA=1, stopping." in done.stderr


def test_a_misspelt_switch_is_an_error(build):
    done, _ = build(SWIN_DENSE_CUDA="on")
    assert done.returncode == 1
    assert "swin_dense: SWIN_DENSE_CUDA is 0 or 1, not 'on'. Correct or unset it." in done.stderr


def test_a_build_without_compiler_says_so_and_succeeds(build, checkout):
    done, _ = build(CXX="nowhere")
    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        "swin_dense: no C++ compiler found (CXX names nowhere, which is not there); "
        "the plain-torch path is in use\n"
    )
    code = "import swin_dense.ops; print(swin_dense.ops.extension.describe())"
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=checkout, env=environment, capture_output=True, text=True
    )
    assert done.stdout.startswith("kernels: none, not built; in a checkout"), done.stderr


def test_a_build_that_must_have_kernels_fails_without(build):
    done, _ = build(CXX="nowhere", SWIN_DENSE_REQUIRE_KERNELS="1")
    assert done.returncode != 0
    assert "SWIN_DENSE_REQUIRE_KERNELS=1, stopping." in done.stderr


def test_a_failed_compile_shows_the_compiler_s_words(build, checkout, nowhere):
    broken = program(nowhere / "programs/broken", "echo 'error of my own making'; exit 1")
    done, _ = build(CXX=str(broken))
    assert done.returncode == 0, done.stderr
    assert "error of my own making" in done.stdout
    assert shlex.quote(str(checkout / "swin_dense/ops/csrc/cpu")) in done.stdout
    assert done.stdout.endswith("the plain-torch path is in use\n")
    assert not list((checkout / "swin_dense" / "ops").glob("*.so"))
