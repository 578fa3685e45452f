"""Fetching weights: whole or not at all, the right file or none, and never against the switch."""

import hashlib
import http.server
import sys
import threading
import time
import types

import pytest
import torch

import swin_dense.backbones  # noqa: F401  registers the published files
from swin_dense.checkpoints import architecture, downloads, files
from swin_dense.errors import InputError

GOOD = b"weights of some kind" * 1000
HASH = hashlib.sha256(GOOD).hexdigest()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    for name in ("SWIN_DENSE_OFFLINE", "HF_HUB_OFFLINE", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "torch/hub/checkpoints"


@pytest.fixture
def server():
    """/good, /missing, /cut (ends early), /headless (no HEAD), /slow; counts what it was asked."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.answer(body=False)

        def do_GET(self):
            asked.append(self.path)
            self.answer(body=True)

        def answer(self, body):
            if "missing" in self.path:
                self.send_error(404)
                return
            if "headless" in self.path and not body:
                self.send_error(405)
                return
            if "slow" in self.path and body:
                time.sleep(0.3)
            self.send_response(200)
            self.send_header("Content-Length", str(len(GOOD)))
            self.end_headers()
            if body:
                self.wfile.write(GOOD[:777] if "cut" in self.path else GOOD)

        def log_message(self, *_):
            """Quiet."""

    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    yield types.SimpleNamespace(url=f"http://127.0.0.1:{running.server_port}", asked=asked)
    running.shutdown()
    running.server_close()
    thread.join()


def kept(folder):
    """Files of the cache but locks."""
    return sorted(p.name for p in folder.rglob("*") if p.is_file() and p.suffix != ".lock")


def test_a_path_is_itself(tmp_path):
    assert downloads.locate(str(tmp_path / "no.pth")) == tmp_path / "no.pth"


def test_a_file_is_fetched_once_and_checked(server, cache):
    said = []
    for _ in range(2):
        found = downloads.fetch(f"{server.url}/good.pth", cache / "g.pth", HASH, said.append)
        assert found.read_bytes() == GOOD
    assert len(server.asked) == 1
    assert len(said) == 1
    assert kept(cache) == ["g.pth"]


@pytest.mark.parametrize("sha256", [None, HASH])
@pytest.mark.parametrize("name", ["cut.pth", "missing.pth"])
def test_no_half_file_is_left(server, cache, name, sha256):
    with pytest.raises(InputError, match=r"broke off|is not the file|404|cannot be reached"):
        downloads.fetch(f"{server.url}/{name}", cache / name, sha256, print)
    assert kept(cache) == []


def test_a_server_that_answers_no_head(server, cache):
    found = downloads.locate(f"{server.url}/headless.pth")
    assert found.read_bytes() == GOOD


def test_another_file_than_published_is_refused(server, cache):
    with pytest.raises(InputError, match=rf"not the file it should be .*{HASH}"):
        downloads.fetch(f"{server.url}/good.pth", cache / "g.pth", "0" * 64, print)
    assert kept(cache) == []


def test_the_first_download_is_the_measure_where_no_hash_is_known(server, cache):
    said = []
    found = downloads.fetch(f"{server.url}/good.pth", cache / "g.pth", None, said.append)
    assert HASH in said[-1]
    assert (cache / "g.pth.sha256").read_text() == f"{HASH}  g.pth\n"
    downloads.fetch(f"{server.url}/good.pth", cache / "g.pth", None, said.append)
    assert len(said) == 2
    found.write_bytes(GOOD[:-1] + b"x")
    with pytest.raises(InputError, match=rf"expected {HASH}\. .*delete it"):
        downloads.fetch(f"{server.url}/good.pth", cache / "g.pth", None, said.append)


def test_a_damaged_file_in_the_cache_is_noticed(server, cache):
    cache.mkdir(parents=True)
    (cache / "g.pth").write_bytes(GOOD[:100])
    with pytest.raises(InputError, match="damaged or another file: delete it"):
        downloads.fetch(f"{server.url}/good.pth", cache / "g.pth", HASH)
    assert server.asked == []


def test_a_hash_in_the_name_counts(server):
    assert downloads.locate(f"{server.url}/swin-{HASH[:8]}.pth").read_bytes() == GOOD
    with pytest.raises(InputError, match="not the file"):
        downloads.locate(f"{server.url}/swin_20220317-1cdeb081.pth")


def test_equal_names_of_two_addresses_do_not_meet(server):
    one, other = (downloads.locate(f"{server.url}/{folder}/model.pth") for folder in "ab")
    assert one != other
    assert one.name == other.name == "model.pth"


def test_many_processes_fetch_once(server, cache):
    threads = [
        threading.Thread(
            target=downloads.fetch, args=(f"{server.url}/slow.pth", cache / "s.pth", HASH, id)
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.asked == ["/slow.pth"]


@pytest.mark.parametrize("switch", downloads.SWITCHES)
def test_offline_says_which_file_to_put_where(server, cache, monkeypatch, switch):
    monkeypatch.setenv(switch, "1")
    name = "swin_tiny_patch4_window7_224"
    with pytest.raises(InputError, match=f"{switch}=1 forbids the network") as refusal:
        downloads.locate(name)
    assert architecture.published()[name].url in str(refusal.value)
    assert str(cache / f"{name}.pth") in str(refusal.value)
    with pytest.raises(InputError, match="forbids the network"):
        downloads.locate(f"{server.url}/good.pth")
    assert server.asked == []


def test_offline_uses_what_is_there(cache, monkeypatch):
    monkeypatch.setenv("SWIN_DENSE_OFFLINE", "1")
    name = "swin_small_patch4_window7_224"
    cache.mkdir(parents=True)
    (cache / f"{name}.pth").write_bytes(GOOD)
    assert downloads.locate(name) == cache / f"{name}.pth"


@pytest.mark.parametrize("off", ["", "0", "false"])
def test_the_switch_can_be_off(server, monkeypatch, off):
    monkeypatch.setenv("SWIN_DENSE_OFFLINE", off)
    assert downloads.locate(f"{server.url}/good.pth").is_file()


def test_a_published_name_comes_from_its_address(server, cache, monkeypatch):
    """Of any architecture that is registered; where the hash is known it counts."""
    monkeypatch.setattr(architecture, "_known", {})
    about = {"image_size": 32, "trained_on": "shapes", "top1": None, "licence": "MIT"}
    files_of = [
        architecture.Published(f"{name}_7", f"{server.url}/v1/{name}.pth", sha256=sha256, **about)
        for name, sha256 in (("small", None), ("tiny", "0" * 64))
    ]
    for file in files_of:
        rows = architecture.Rows(stem={}, block={})
        architecture.register(
            architecture.Architecture(file.name, rows, layouts=(), published=(file,))
        )
    found = downloads.locate("small_7")
    assert server.asked == ["/v1/small.pth"]
    assert found == cache / "small.pth"
    assert downloads.locate(files_of[0].url) == found
    with pytest.raises(InputError, match="not the file"):  # this one's hash is known
        downloads.locate("tiny_7")
    assert downloads.hint("smal_7") == " Did you mean 'small_7'?"


def test_a_file_of_that_name_goes_before_the_table(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "swin_tiny_patch4_window7_224").write_bytes(GOOD)
    assert str(downloads.locate("swin_tiny_patch4_window7_224")) == "swin_tiny_patch4_window7_224"


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("http://example.org/w.pth", "unprotected"),
        ("https://example.org/", "names no file"),
        ("hf://owner/w.pth", "write hf://OWNER/REPOSITORY/FILE"),
        ("http://127.0.0.1:1/w.pth", "cannot be reached"),
    ],
)
def test_addresses_that_cannot_be(source, says):
    with pytest.raises(InputError, match=says):
        downloads.locate(source)


def test_the_hub_without_its_package(server, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.setattr(downloads.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    assert downloads.locate("hf://timm/swin/deep/model.bin").read_bytes() == GOOD
    assert server.asked == ["/timm/swin/resolve/main/deep/model.bin"]


def test_the_hub_with_its_package(tmp_path, monkeypatch):
    calls = []

    def hf_hub_download(repository, file, local_files_only):
        calls.append((repository, file, local_files_only))
        if local_files_only:
            raise LookupError("not in the cache\nmore")
        return str(tmp_path / "w")

    package = types.SimpleNamespace(hf_hub_download=hf_hub_download)
    monkeypatch.setattr(downloads.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setitem(sys.modules, "huggingface_hub", package)
    assert downloads.locate("hf://timm/swin/model.safetensors") == tmp_path / "w"
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match=r"LookupError: not in the cache\)"):
        downloads.locate("hf://timm/swin/model.safetensors")
    assert calls == [("timm/swin", "model.safetensors", b) for b in (False, True)]


def test_what_was_fetched_is_read_like_any_file(server, cache):
    with pytest.raises(InputError, match=r"model\.pth"):
        files.read(downloads.locate(f"{server.url}/model.pth"))
    assert torch.hub.get_dir() == str(cache.parent)
