"""Archives: what is in them comes out, once; what is made to do harm does not."""

import io
import os
import stat
import tarfile
import zipfile

import pytest

from swin_dense.errors import InputError
from swin_dense.preparation import archives

FILES = {"set/images/a.jpg": b"j" * 5000, "set/b.txt": b"", "set/images/c d é.png": b"png"}


def pack(path, files=FILES):
    """Write an archive of the kind that its suffix says."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in files.items():
                archive.writestr(name, data)
    else:
        with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as archive:
            for name, data in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    return path


def unpack(path, to):
    """What was written, and what was said."""
    said = []
    count = archives.unpack(path, to, said.append)
    found = {p.relative_to(to).as_posix(): p.read_bytes() for p in to.rglob("*") if p.is_file()}
    return found, count, said


@pytest.mark.parametrize("suffix", archives.SUFFIXES)
def test_all_that_is_in_it_comes_out(tmp_path, suffix):
    path = pack(tmp_path / f"a{suffix}")
    assert archives.is_archive(path)
    found, count, said = unpack(path, tmp_path / "to")
    assert found == FILES
    assert count == 3
    assert said == [f"a{suffix}: 3 files, 5.0 kB unpacked"]


@pytest.mark.parametrize("suffix", archives.SUFFIXES)
def test_what_is_there_is_passed_by_and_what_is_cut_off_is_not(tmp_path, suffix):
    path, to = pack(tmp_path / f"a{suffix}"), tmp_path / "to"
    unpack(path, to)
    (to / "set/images/a.jpg").write_bytes(b"half")
    untouched = (to / "set/images/c d é.png").stat().st_mtime_ns
    found, count, said = unpack(path, to)
    assert found == FILES
    assert count == 1
    assert "2 of them there already" in said[0]
    assert (to / "set/images/c d é.png").stat().st_mtime_ns == untouched


@pytest.mark.parametrize("suffix", [".zip", ".tar"])
@pytest.mark.parametrize("name", ["../a.txt", "set/../../a.txt", "/a.txt", "C:/a", "..\\a", "\\a"])
def test_names_that_lead_out_write_nothing(tmp_path, suffix, name):
    path = pack(tmp_path / f"a{suffix}", {"good.txt": b"1", name: b"2"})
    with pytest.raises(InputError, match="leads out of the folder"):
        unpack(path, tmp_path / "to")
    assert [p.name for p in tmp_path.rglob("*")] == [path.name]


def test_links_write_nothing(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        link = zipfile.ZipInfo("set/link")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(InputError, match="'set/link' is a link"):
        unpack(path, tmp_path / "to")
    for kind, word in ((tarfile.SYMTYPE, "a link"), (tarfile.LNKTYPE, "a link"),
                       (tarfile.FIFOTYPE, "a device")):  # fmt: skip
        with tarfile.open(tmp_path / "a.tar", "w") as archive:
            member = tarfile.TarInfo("set/odd")
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
        with pytest.raises(InputError, match=f"'set/odd' is {word}"):
            unpack(tmp_path / "a.tar", tmp_path / "to")
    assert not (tmp_path / "to").exists()


def test_back_slashes_and_what_a_system_adds(tmp_path):
    path = pack(
        tmp_path / "a.zip",
        {"set\\images\\a.jpg": b"a", "__MACOSX/set/._a.jpg": b"x", "set/.DS_Store": b"x"},
    )
    found, _, _ = unpack(path, tmp_path / "to")
    assert found == {"set/images/a.jpg": b"a"}


def test_no_room_is_told_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda _: Free)
    with pytest.raises(InputError, match=r"needs 5\.0 kB more, .* has 4\.0 kB free"):
        unpack(pack(tmp_path / "a.zip"), tmp_path / "to")
    assert not (tmp_path / "to").exists()


class Free:
    """A disk with little room."""

    free = 4000


def test_an_archive_made_to_fill_a_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "LARGE", 10**5)
    path = pack(tmp_path / "a.zip", {"zeros": bytes(10**6)})
    with pytest.raises(InputError, match=r"times as much.*made to fill a disk"):
        unpack(path, tmp_path / "to")
    assert not (tmp_path / "to").exists()


@pytest.mark.parametrize("suffix", archives.SUFFIXES)
def test_a_copy_that_was_cut_off(tmp_path, suffix):
    path = pack(tmp_path / f"a{suffix}", {"a.bin": os.urandom(30_000), "b.bin": os.urandom(9000)})
    path.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(InputError, match="cut off"):
        unpack(path, tmp_path / "to")
    assert not (tmp_path / "to" / "a.bin").exists()


def test_a_byte_that_changed_is_found(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:  # stored as it is
        archive.writestr("a.bin", b"abcdefgh" * 100)
    data = bytearray(path.read_bytes())
    data[200] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match="damaged"):
        unpack(path, tmp_path / "to")
    assert not (tmp_path / "to" / "a.bin").exists()


def test_what_is_no_archive(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"<html>not found</html>")
    with pytest.raises(InputError, match="damaged"):
        unpack(tmp_path / "a.zip", tmp_path / "to")
    with pytest.raises(InputError, match="holds no file"):
        unpack(pack(tmp_path / "b.tar", {}), tmp_path / "to")
