import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from indexer.errors import LockedError, SnapshotError
from indexer.store import FORMAT_VERSION, Store, checksum, replace_text, write_json


class CrashError(Exception):
    """Stands for the process ending at that call."""


class Faults:
    """Wraps the calls that reach the disk, so that the n-th of them fails."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[str] = []
        self.fails_at = 0
        for owner, name in ((os, "fsync"), (os, "rename"), (os, "open"), (Path, "write_text")):
            monkeypatch.setattr(owner, name, self._wrapped(name, getattr(owner, name)))

    def _wrapped(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            if len(self.calls) + 1 == self.fails_at:
                raise CrashError
            self.calls.append(name)
            return real(*args, **options)

        return call

    def start(self, fails_at: int) -> None:
        self.calls, self.fails_at = [], fails_at


def fill(folder: Path) -> Mapping[str, Any]:
    (folder / "part").mkdir()
    (folder / "part" / "a.txt").write_text("content of a")
    (folder / "b.txt").write_text("content of b")
    return {"counts": {"files": 2}, "title": "靴"}


def leftovers(store: Store) -> list[Path]:
    return list((store.root / "indexes").glob(".aside-*"))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def test_what_is_published_is_listed_read_and_sound(store: Store) -> None:
    first, second = store.publish("indexes", fill), store.publish("indexes", fill)
    assert store.ids("indexes") == [first, second]
    assert store.latest("indexes") == second
    assert store.ids("models") == []
    manifest = store.manifest("indexes", first)
    assert (manifest["id"], manifest["kind"], manifest["format_version"]) == (first, "indexes", FORMAT_VERSION)
    assert (manifest["counts"], manifest["title"]) == ({"files": 2}, "靴")
    assert sorted(manifest["files"]) == ["b.txt", "part/a.txt"]
    assert store.verify("indexes", first) == []
    assert (store.path("indexes", first) / "part" / "a.txt").read_text() == "content of a"


@pytest.mark.parametrize(("kind", "verb"), [("indexes", "vitrine index build"), ("models", "vitrine train")])
def test_an_empty_store_says_what_to_do(store: Store, kind: Any, verb: str) -> None:
    with pytest.raises(SnapshotError, match=f"holds no {kind}. Make one with `{verb}`"):
        store.latest(kind)


def test_a_crash_at_any_call_leaves_what_was_published(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    published = [store.publish("indexes", fill)]
    faults = Faults(monkeypatch)
    crashes = 0
    while True:
        faults.start(fails_at=crashes + 1)
        try:
            store.publish("indexes", fill)
            break
        except CrashError:
            crashes += 1
        renamed = "rename" in faults.calls
        faults.start(fails_at=0)
        # The last of a publishing that had reached its rename is there and whole, any other is not listed.
        assert store.ids("indexes")[: len(published)] == published
        assert len(store.ids("indexes")) == len(published) + renamed
        assert all(store.verify("indexes", name) == [] for name in store.ids("indexes"))
        assert len(leftovers(store)) <= 1
        published = store.ids("indexes")
        assert store.latest("indexes") == published[-1]
    # Two texts and the manifest are written, three files and two folders opened and flushed; the rename; a last flush.
    assert crashes >= 3 + 2 * (3 + 2) + 1 + 2
    assert leftovers(store) == []


def test_the_rename_is_what_publishes(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    live = store.publish("indexes", fill)
    faults = Faults(monkeypatch)
    faults.start(fails_at=0)
    store.publish("indexes", fill)
    rename = faults.calls.index("rename")
    # Everything written was flushed before, the folder that holds the name after.
    assert faults.calls[rename + 1 :] == ["open", "fsync"]
    assert faults.calls[:rename].count("fsync") == 5
    names = store.ids("indexes")
    faults.start(fails_at=rename + 1)
    with pytest.raises(CrashError):
        store.publish("indexes", fill)
    assert (store.ids("indexes"), len(leftovers(store))) == (names, 1)
    faults.start(fails_at=0)
    store.publish("indexes", fill)
    assert leftovers(store) == []
    assert store.ids("indexes")[0] == live


def test_a_failing_fill_publishes_nothing(store: Store) -> None:
    live = store.publish("indexes", fill)

    def fails(folder: Path) -> Mapping[str, Any]:
        fill(folder)
        raise CrashError

    with pytest.raises(CrashError):
        store.publish("indexes", fails)
    assert store.ids("indexes") == [live]


def test_a_flipped_byte_and_a_missing_file_are_found(store: Store) -> None:
    name = store.publish("indexes", fill)
    path = store.path("indexes", name) / "part" / "a.txt"
    content = bytearray(path.read_bytes())
    content[3] ^= 1
    path.write_bytes(content)
    assert store.verify("indexes", name) == ["part/a.txt has changed"]
    path.unlink()
    assert store.verify("indexes", name) == ["part/a.txt is missing"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": FORMAT_VERSION + 1}, f"version {FORMAT_VERSION + 1}, newer than .* Update the program"),
        ({"format_version": FORMAT_VERSION - 1}, f"version {FORMAT_VERSION - 1}, older than .* Build it again"),
        ({"format_version": None}, "version None, older than .* Build it again"),
        ({"format": "something else"}, "format something else version"),
    ],
)
def test_another_format_is_refused(store: Store, changes: dict[str, Any], message: str) -> None:
    name = store.publish("indexes", fill)
    path = store.path("indexes", name) / "manifest.json"
    write_json(path, json.loads(path.read_text(encoding="utf-8")) | changes)
    with pytest.raises(SnapshotError, match=message):
        store.manifest("indexes", name)


def test_a_manifest_that_cannot_be_read_is_named(store: Store) -> None:
    with pytest.raises(SnapshotError, match=r"gone.manifest\.json cannot be read"):
        store.manifest("indexes", "gone")
    name = store.publish("indexes", fill)
    (store.path("indexes", name) / "manifest.json").write_text('{"format": ')
    with pytest.raises(SnapshotError, match="cannot be read"):
        store.manifest("indexes", name)


def test_a_second_holder_is_refused_until_the_first_lets_go(store: Store) -> None:
    with store.locked("build"):
        with pytest.raises(LockedError, match="Another build is running"), store.locked("build"):
            pass
        with store.locked("train"):
            pass
    with store.locked("build"):
        pass


HOLDER = """
import sys
from pathlib import Path
from indexer.store import Store
with Store(Path(sys.argv[1])).locked("build"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_the_lock_holds_across_processes_and_dies_with_its_holder(store: Store) -> None:
    command = [sys.executable, "-c", HOLDER, str(store.root)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(LockedError), store.locked("build"):
            pass
        holder.kill()
    with store.locked("build"):
        pass


def test_who_waits_goes_on_when_the_holder_has_ended(store: Store) -> None:
    def wait() -> str:
        with store.locked("build", wait=True):
            return "held"

    command = [sys.executable, "-c", HOLDER, str(store.root)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(wait)
            with pytest.raises(TimeoutError):
                waiting.result(0.2)
            holder.kill()
            assert waiting.result(10) == "held"


def test_replacing_a_text_is_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "CURRENT"
    replace_text(path, "1")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(CrashError()))
        with pytest.raises(CrashError):
            replace_text(path, "2")
    assert path.read_text() == "1"
    replace_text(path, "靴")
    assert path.read_text(encoding="utf-8") == "靴"
    assert list(tmp_path.iterdir()) == [path]


def test_checksum_is_sha_256(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert checksum(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
