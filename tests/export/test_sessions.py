"""What is said of files that cannot be opened."""

import builtins

import pytest
import torch

from swin_dense.errors import InputError, MissingInputError
from swin_dense.export import sessions


class Nothing(torch.nn.Module):
    def forward(self, image, size):
        return image.mean() + size.sum()


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(MissingInputError, match=r"no file .*none\.onnx"):
        sessions.open_file(tmp_path / "none.onnx")


def test_a_file_of_others_names_no_classes(tmp_path):
    path = tmp_path / "other.torchscript"
    torch.jit.save(torch.jit.script(Nothing()), str(path))
    with pytest.raises(InputError, match="does not say which classes"):
        sessions.open_file(path)


@pytest.mark.parametrize("suffix", [".torchscript", ".pt2"])
def test_a_damaged_file(tmp_path, suffix):
    path = tmp_path / f"half{suffix}"
    path.write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(InputError, match=r"cannot be read.*Write it again"):
        sessions.open_file(path)


@pytest.mark.parametrize(("suffix", "package"), [(".onnx", "onnxruntime"), (".xml", "openvino")])
def test_a_package_that_is_missing(tmp_path, monkeypatch, suffix, package):
    path = tmp_path / f"model{suffix}"
    path.write_bytes(b"x")
    real = builtins.__import__

    def without(name, *rest):
        if name.partition(".")[0] == package:
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.setattr(sessions.importlib, "import_module", without)
    with pytest.raises(InputError, match=rf"{package} is not installed.*pip install '\.\["):
        sessions.open_file(path)
