"""LiveIndex: damaged, crafted and copied files, disks that fail, and file systems without locks."""

import errno
import json
import os
import shutil
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from livesupport import items_of

import hedgerow as hr
from hedgerow.index import locks
from hedgerow.index.hashed import HashedFile
from hedgerow.index.manifest import digest_of
from hedgerow.live.manifest import VersionInfo
from hedgerow.live.removed import removed_content, removed_rows
from hedgerow.live.store import Store

fcntl = pytest.importorskip("fcntl")

ITEMS = {"a": [0, 1], "b": [0, 1], "c": [2, 0]}
FIRST = hr.Catalog(list(ITEMS.values()), item_ids=list(ITEMS), codebook_sizes=4)
MORE = hr.Catalog([[3, 3]], item_ids=["d"], codebook_sizes=4)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "shop.live"


@pytest.fixture
def live(path):
    return hr.LiveIndex.create(path, hr.build_index(FIRST))


def flip(path, place=-1):
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def trie_of(path, number=1):
    return next((path / "versions" / str(number)).glob("trie-*"))


def test_damage_is_not_copied_to_the_next_version(path):
    catalog = hr.Catalog([[0, 1], [0, 2], [2, 0]], item_ids=["a", "b", "c"], codebook_sizes=200)
    more = hr.Catalog([[3, 3]], item_ids=["d"], codebook_sizes=200)
    live = hr.LiveIndex.create(path, hr.build_index(catalog))
    # The last byte is the last code: the SID [2, 0] becomes [2, 1], which is a trie as well.
    flip(trie_of(path))
    reopened = hr.LiveIndex.open(path)
    for change in (reopened.add, reopened.update, live.add):
        with pytest.raises(hr.VersionError, match=r"version 2 was refused, because the version .* checksum differs"):
            change(more)
    assert os.listdir(path / "versions") == ["1"]
    assert list(reopened.verify()) == [1]
    with pytest.raises(hr.IndexFileError, match="checksum differs"):
        hr.LiveIndex.open(path, verify="full")
    assert reopened.publish(hr.build_index(catalog)).number == 2


def test_damage_to_the_structure_is_detected_on_open(path):
    hr.LiveIndex.create(path, hr.build_index(FIRST))
    data = trie_of(path).read_bytes()
    trie_of(path).write_bytes(data[:-1] + b"\xff")
    with pytest.raises(hr.IndexFileError, match="written incorrectly: level"):
        hr.LiveIndex.open(path)


def test_verify_names_the_damaged_versions(live, path):
    live.add(MORE)
    live.remove(["d"])
    assert live.verify() == {}
    flip(path / "versions" / "3" / "removed.npy")
    assert list(live.verify()) == [3]
    flip(trie_of(path, 2))
    faults = live.verify()
    assert list(faults) == [2, 3]
    assert "checksum differs" in faults[2]
    (path / "versions" / "1" / "version.json").unlink()
    assert list(live.verify()) == [1, 2, 3]


@pytest.mark.usefixtures("live")
def test_verify_argument(path):
    for value in (True, "all"):
        with pytest.raises(hr.ArgumentError, match="verify must be one of full, structure, none; got"):
            hr.LiveIndex.open(path, verify=value)


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EIO, errno.EACCES, errno.ENAMETOOLONG])
@pytest.mark.parametrize("call", ["stat", "open"])
def test_errors_of_the_disk_are_version_errors(live, path, monkeypatch, number, call):
    hr.LiveIndex.open(path).add(MORE)
    message = os.strerror(number)

    def fail(*_, **__):
        raise OSError(number, message)

    with monkeypatch.context() as patch:
        if call == "stat":
            patch.setattr("hedgerow.live.store.stamp_of", fail)
        else:
            patch.setattr("hedgerow.live.store.read_state", fail)
        for _ in range(2):
            with pytest.raises(hr.VersionError, match=rf"cannot be read: {message}\. Version 1 is still served"):
                live.refresh()
        with pytest.raises(hr.IndexFileError, match=f"cannot be read: {message}"):
            hr.LiveIndex.open(path)
    assert live.version.number == 1
    assert items_of(live.version) == ITEMS
    assert live.refresh().number == 2


@pytest.mark.usefixtures("live")
def test_a_folder_without_permission(path):
    # Permissions do not bind the superuser.
    code = "import os; os.setgid(65534); os.setuid(65534)" if os.geteuid() == 0 else ""
    script = f"""
import os, sys, hedgerow as hr
{code}
for load in (hr.LiveIndex.open, hr.load_index):
    try:
        load(sys.argv[1])
    except hr.IndexFileError as error:
        print(error)
"""
    path.chmod(0)
    try:
        done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=False)
    finally:
        path.chmod(0o755)
    assert done.stdout.count("Permission denied") == 2, done.stderr


def test_a_path_that_is_too_long(tmp_path):
    for path in (tmp_path / ("x" * 300), tmp_path / "/".join(["x" * 200] * 30)):
        with pytest.raises(hr.IndexFileError, match="cannot be read: File name too long"):
            hr.LiveIndex.open(path)
        with pytest.raises(hr.IndexFileError, match="cannot be written: File name too long"):
            hr.LiveIndex.create(path, hr.build_index(FIRST))


@pytest.mark.parametrize("lost", ["hidden", "empty"])
def test_a_copy_without_hidden_or_empty_files(live, path, tmp_path, lost):
    live.add(MORE)
    live.remove(["d"])
    copy = tmp_path / "copy"
    shutil.copytree(path, copy)
    for file in copy.rglob("*"):
        if (lost == "hidden" and file.name.startswith(".")) or (lost == "empty" and not file.stat().st_size):
            file.unlink()
    copied = hr.LiveIndex.open(copy)
    assert items_of(copied.version) == ITEMS
    assert copied.rollback(2).num_items == 4
    version = copied.version
    assert copied.update(removed=["d"]).number == 4
    # The reader has created the lock again, which protects the version.
    assert copied.prune(keep=0) == [1, 3]
    assert version.num_items == 4


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_reading_needs_no_locks(live, path, monkeypatch, number):
    index = live.version.index

    def flock(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    reader = hr.LiveIndex.open(path)
    assert items_of(reader.version) == ITEMS
    assert reader.refresh().number == 1
    assert len(reader.versions()) == 1
    assert reader.verify() == {}
    for write in (lambda: reader.add(MORE), reader.rollback, reader.prune, lambda: index.save(path.parent / "x")):
        with pytest.raises(hr.IndexFileError, match=r"no file locks\. Write to a local folder and copy it there"):
            write()
    assert os.listdir(path / "versions") == ["1"]


@pytest.mark.usefixtures("live")
def test_reading_needs_no_permission_to_write(path, monkeypatch):
    (path / "versions" / "1" / ".lock").unlink()
    really_open = os.open

    def read_only(name, flags, *rest):
        if flags & os.O_CREAT:
            raise OSError(errno.EROFS, "Read-only file system")
        return really_open(name, flags, *rest)

    monkeypatch.setattr(os, "open", read_only)
    assert items_of(hr.LiveIndex.open(path).version) == ITEMS


@pytest.fixture
def held(live, path):  # noqa: ARG001
    """The lock of the folder, held shared by something that only reads."""
    with open(path / ".lock", "rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield file


@pytest.mark.usefixtures("held")
def test_a_writer_waits_for_a_limited_time(live, path):
    writer = hr.LiveIndex.open(path, lock_timeout=0.2)
    for write in (lambda: writer.add(MORE), lambda: writer.remove(["a"]), lambda: writer.rollback(1)):
        begin = time.monotonic()
        with pytest.raises(hr.IndexFileError, match=r"holds the lock .*shop\.live/\.lock .* within 0\.2 seconds"):
            write()
        assert 0.2 <= time.monotonic() - begin < 5
    begin = time.monotonic()
    assert live.prune(keep=0) == []
    assert time.monotonic() - begin < 5
    index = live.version.index
    with pytest.raises(hr.IndexFileError, match="holds the lock"):
        hr.LiveIndex.open(path, lock_timeout=0).publish(index)


@pytest.mark.usefixtures("live")
def test_a_writer_continues_when_the_lock_is_released(path, held):
    timer = threading.Timer(0.3, lambda: fcntl.flock(held, fcntl.LOCK_UN))
    timer.start()
    assert hr.LiveIndex.open(path, lock_timeout=60).add(MORE).number == 2
    timer.join()


def test_save_waits_for_a_limited_time(live, tmp_path):
    index = live.version.index
    index.save(tmp_path / "x")
    with open(tmp_path / "x" / ".lock", "rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        with pytest.raises(hr.IndexFileError, match="holds the lock"):
            index.save(tmp_path / "x", lock_timeout=0.1)
    index.save(tmp_path / "x", lock_timeout=float("inf"))


@pytest.mark.parametrize("value", [-1, float("nan"), None, "5", True])
def test_invalid_lock_timeouts(live, path, value, tmp_path):
    with pytest.raises(hr.ArgumentError, match="lock_timeout must be a number of seconds, at least 0; got"):
        hr.LiveIndex.open(path, lock_timeout=value)
    with pytest.raises(hr.ArgumentError, match="lock_timeout must be"):
        live.version.index.save(tmp_path / "x", lock_timeout=value)


def test_readers_do_not_wait_for_the_lock_of_a_version(path, monkeypatch):
    monkeypatch.setattr(locks, "SHARE_TIMEOUT", 0.1)
    hr.LiveIndex.create(path, hr.build_index(FIRST))
    with open(path / "versions" / "1" / ".lock", "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert items_of(hr.LiveIndex.open(path).version) == ITEMS


def test_a_change_does_not_depend_on_the_number_of_versions(live, path, monkeypatch):
    sizes, listed = [], []
    really_list = os.listdir
    monkeypatch.setattr(os, "listdir", lambda folder: listed.append(str(folder)) or really_list(folder))
    entry = live.version.info
    for number in range(2, 400):
        (path / "versions" / str(number)).mkdir()
        info = VersionInfo(number, 1, None, number - 1, 3, entry.created)
        (path / "versions" / str(number) / "version.json").write_bytes(info.to_bytes())
    for number in (2, 400):
        state = Store(path).read()
        (path / "current.json").write_bytes(type(state)(state.current, number).to_bytes())
        shutil.rmtree(path / "versions" / str(number), ignore_errors=True)
        writer = hr.LiveIndex.open(path)
        writer.rollback(1)
        listed.clear()
        assert writer.remove(["a"]).number == number
        assert str(path / "versions") not in listed
        sizes.append((path / "current.json").stat().st_size)
    assert abs(sizes[1] - sizes[0]) < 20
    assert len(writer.versions()) == 400


@pytest.mark.parametrize(
    "change",
    [
        {"number": "1"},
        {"number": 0},
        {"number": True},
        {"index": "../../x"},
        {"index": 2},
        {"index": 0},
        {"removed": 5},
        {"removed": {"bytes": 0, "sha256": ""}},
        {"removed": {"bytes": 136, "sha256": 5}},
        {"parent": "x"},
        {"items": -1},
        {"items": 3.0},
        {"created": 5},
    ],
)
def test_rejects_a_crafted_manifest_with_a_correct_checksum(live, path, change):
    for name in ("current.json", "versions/1/version.json"):
        content = json.loads((path / name).read_bytes())
        entry = content["current"] if name == "current.json" else content
        assert all(key in entry for key in change)
        entry.update(change)
        (path / name).write_text(json.dumps(content | {"sha256": digest_of(content)}))
    with pytest.raises(hr.IndexFileError, match="altered or damaged"):
        hr.LiveIndex.open(path)
    with pytest.raises(hr.VersionError, match="Version 1 is still served"):
        live.refresh()
    with pytest.raises(hr.IndexFileError, match="altered or damaged"):
        Store(path).entry(1)


def npy(array, **options):
    import io

    data = io.BytesIO()
    np.lib.format.write_array(data, np.asarray(array), **options)
    return data.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x93NUMPY",
        npy([2, 1]),
        npy([1, 1]),
        npy([-1, 1]),
        npy([[1, 2]]),
        npy(np.asarray([1, 2], np.int32)),
        npy(np.asarray([1.0])),
        npy([1, 2], version=(2, 0)),
        npy([1, 2])[:-1],
        npy([1, 2])[:-8],
        npy([1, 2]) + bytes(8),
        npy([1, 2]).replace(b"(2,)", b"(9" + b"9" * 12 + b",)")[:128],
    ],
)
def test_rejects_crafted_removed_rows(content):
    assert removed_rows(content) is None


def test_removed_rows_are_read_as_written():
    for rows in ([], [0], [0, 5, 2**40]):
        read = removed_rows(removed_content(np.asarray(rows, np.int64)))
        assert read is not None
        assert read.tolist() == rows


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs FIFOs")
@pytest.mark.parametrize("name", ["current.json", "current-new", "versions/2/removed.npy", "versions/1/.lock"])
def test_a_fifo_does_not_block(live, path, name):
    live.remove(["a"])
    (path / name).unlink(missing_ok=True)
    os.mkfifo(path / name)
    if name in ("current-new", "versions/1/.lock"):
        assert hr.LiveIndex.open(path).add(MORE).number == 3
    else:
        with pytest.raises(hr.IndexFileError, match=r"is not a file|altered or damaged"):
            hr.LiveIndex.open(path)


@pytest.mark.parametrize("part", ["trie", "items"])
def test_bytes_that_the_disk_changes_are_not_served(live, path, part, monkeypatch):
    write = HashedFile.write

    def changed(self, data):
        content = bytes(data)
        if f"{part}-new" in str(self._file.name) and len(content) > 1:
            # The checksum is that of the bytes that were to be written.
            self._hash.update(content)
            return self._file.write(content[:-1] + bytes([content[-1] ^ 1]))
        return write(self, data)

    with monkeypatch.context() as patch:
        patch.setattr(HashedFile, "write", changed)
        with pytest.raises(hr.VersionError, match=r"version 2 was refused.*checksum differs"):
            live.add(MORE)
    assert os.listdir(path / "versions") == ["1"]
    assert live.add(MORE).number == 2
