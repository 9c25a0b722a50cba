"""Releases: numbered pairs behind a gate, one of them live, whatever happens in between."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import Trained, adopted, copied

from indexer.errors import SnapshotError
from indexer.store import write_json
from server.release import LEAST_RECALL, GateError, Release, Releases
from server.state import load_state


class CrashError(Exception):
    """Stands for the process ending at that call."""


class Faults:
    """Wraps the calls that reach the disk, so that the n-th of them fails."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[str] = []
        self.fails_at = 0
        for owner, name in ((os, "fsync"), (os, "replace"), (os, "open"), (Path, "write_text"), (Path, "mkdir")):
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


@pytest.fixture
def mine(trained: Trained, tmp_path: Path) -> Trained:
    return copied(trained, tmp_path)


@pytest.fixture
def releases(mine: Trained) -> Releases:
    return Releases(mine.store)


def create(releases: Releases, made: Trained, note: str = "") -> Release:
    return releases.create(made.release.index, made.release.model, note, made.settings.indexer)


def number(releases: Releases) -> int | None:
    live = releases.current()
    return live.number if live else None


def test_an_empty_store_has_none(tmp_path: Path, mine: Trained) -> None:
    empty = Releases(mine.store.__class__(tmp_path / "empty"))
    assert (empty.list(), empty.current()) == ([], None)
    with pytest.raises(SnapshotError, match=r"no release 1 in .*; there are: none"):
        empty.get(1)
    with pytest.raises(SnapshotError, match="no earlier release"):
        empty.rollback()


def test_releases_are_numbered_listed_promoted_and_rolled_back(releases: Releases, mine: Trained) -> None:
    made = [create(releases, mine, note) for note in ("second", "third 靴")]
    assert [release.number for release in made] == [2, 3]
    assert [(r.number, r.note) for r in releases.list()] == [(1, "first"), (2, "second"), (3, "third 靴")]
    assert made == releases.list()[1:]
    # Nothing goes live by being created.
    assert number(releases) == 1
    assert releases.promote(3) == made[1]
    assert [releases.rollback().number for _ in range(2)] == [2, 1]
    with pytest.raises(SnapshotError, match="no earlier release"):
        releases.rollback()
    assert number(releases) == 1
    with pytest.raises(SnapshotError, match=r"no release 7 in .*; there are: 1, 2, 3"):
        releases.promote(7)
    assert number(releases) == 1


def test_what_the_gate_found_is_kept(releases: Releases, mine: Trained) -> None:
    gate = create(releases, mine).gate
    assert (gate["checksums"], gate["recall_at_100"]) == ("ok", 1.0)
    report = json.loads((mine.store.path("models", mine.release.model) / "report" / "report.json").read_text())
    chosen = next(row for row in report["table"] if row["scorer"] == report["chosen"])
    assert gate["ndcg"] == chosen["metrics"]["ndcg@10"]["mean"]


def test_a_model_without_a_ranking_is_refused_only_after_one_that_ranks(
    unlogged: Trained, trained: Trained, tmp_path: Path
) -> None:
    mine = copied(unlogged, tmp_path)
    releases = Releases(mine.store)
    assert create(releases, mine).gate == {"checksums": "ok", "recall_at_100": 1.0, "ndcg": None}
    releases.check_ranked(mine.release.model)
    ranked = adopted(mine, trained)
    releases.check_ranked(ranked.model)
    releases.promote(ranked.number)
    releases.check_ranked(ranked.model)
    with pytest.raises(GateError, match=rf"Release {ranked.number} stays live, .*model {mine.release.model} would not"):
        releases.check_ranked(mine.release.model)
    # Whoever promotes by hand means it.
    assert releases.promote(mine.release.number) == mine.release


@pytest.mark.parametrize("file", ["vectors.npy", "products.arrow"])
def test_a_damaged_file_does_not_pass_the_gate(releases: Releases, mine: Trained, file: str) -> None:
    path = mine.store.path("indexes", mine.release.index) / file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(GateError, match=f"{file} has changed"):
        create(releases, mine)
    assert (len(releases.list()), number(releases)) == (1, 1)
    assert GateError.exit_code == 6


def test_a_missing_file_does_not_pass_the_gate(releases: Releases, mine: Trained) -> None:
    (mine.store.path("models", mine.release.model) / "trees.txt").unlink()
    with pytest.raises(GateError, match=r"trees\.txt is missing"):
        create(releases, mine)


def test_a_recall_too_low_does_not_pass_the_gate(releases: Releases, mine: Trained) -> None:
    path = mine.store.path("indexes", mine.release.index) / "manifest.json"
    manifest = json.loads(path.read_text())
    for recall, passes in ((LEAST_RECALL - 0.001, False), (LEAST_RECALL, True)):
        manifest["index"]["recall_at_100"] = recall
        write_json(path, manifest)
        if passes:
            assert create(releases, mine).number == 2
            continue
        with pytest.raises(GateError, match=r"recall@100 0\.949, less than 0\.95"):
            create(releases, mine)


def test_a_pair_that_does_not_belong_together_is_refused(releases: Releases, mine: Trained) -> None:
    path = mine.store.path("models", mine.release.model) / "manifest.json"
    write_json(path, json.loads(path.read_text()) | {"index": "another"})
    with pytest.raises(SnapshotError, match="bound to index another"):
        create(releases, mine)
    with pytest.raises(SnapshotError, match="cannot be read"):
        releases.create("no such", mine.release.model, "", mine.settings.indexer)
    assert len(releases.list()) == 1


def test_a_crash_at_any_step_leaves_a_release_live_and_loadable(
    releases: Releases, mine: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = Faults(monkeypatch)
    steps: dict[str, int] = {}
    for name, work in (("create", lambda: create(releases, mine)), ("promote", lambda: releases.promote(2))):
        crashes = 0
        while True:
            faults.start(fails_at=crashes + 1)
            try:
                work()
                break
            except CrashError:
                crashes += 1
            replaced = "replace" in faults.calls
            faults.start(fails_at=0)
            assert number(releases) == (2 if name == "promote" and replaced else 1)
            # A release is listed whole or not at all; a number that a crash took is not given again.
            assert [release.number for release in releases.list()] == list(range(1, len(releases.list()) + 1))
        steps[name] = crashes
    faults.start(fails_at=0)
    assert number(releases) == 2
    live = releases.current()
    assert live is not None
    state = load_state(mine.store, live, mine.settings, mine.encoder, None)
    assert (state.release.number, len(state.snapshot)) == (2, 600)
    # A small file is written aside, opened and flushed, replaced, and its folder opened and flushed; and one mkdir.
    assert steps["promote"] == 6
    assert steps["create"] >= 7
