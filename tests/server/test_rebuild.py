"""The offline job: a failure at any step leaves the live release, and the log says at which."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import Trained, copied

from indexer import tuned
from indexer.errors import InputError, LockedError
from ranker.journal import Entry
from ranker.log import Sources
from ranker.sqlite_journal import FILE, SqliteJournal
from server import rebuild as job
from server.release import GateError, Release, Releases

STEPS = {
    "read log": (job, "read_sources"),
    "encoder": (job, "newest_encoder"),
    "build": (job, "build_index"),
    "train": (job, "train"),
    "release": (Releases, "create"),
    "promote": (Releases, "promote"),
}


@pytest.fixture
def mine(trained: Trained, tmp_path: Path) -> Trained:
    small = trained.settings.ranker.model_copy(update={"trees": 5, "network_epochs": 1, "tower_epochs": 1})
    made = copied(trained, tmp_path)
    return made._replace(settings=made.settings.model_copy(update={"ranker": small}))


@pytest.fixture
def run(mine: Trained, monkeypatch: pytest.MonkeyPatch) -> Callable[[], tuple[Release, list[dict[str, Any]]]]:
    monkeypatch.setattr(tuned, "load_encoder", lambda *_: mine.encoder)

    def rebuild(stream: io.StringIO | None = None, **options: bool) -> tuple[Release, list[dict[str, Any]]]:
        stream = stream or io.StringIO()
        made = job.rebuild(mine.settings, job.JobLog(stream), lambda *_: None, lambda _: None, "again", **options)
        return made, lines(stream)

    return rebuild


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_the_job_brings_a_new_release_live_and_logs_each_step(mine: Trained, run: Callable[..., Any]) -> None:
    made, told = run()
    assert Releases(mine.store).current() == made
    assert (made.number, made.note) == (2, "again")
    assert made.index != mine.release.index
    named = [(line["step"], line["state"]) for line in told]
    pairs = [(step, state) for step in STEPS for state in ("started", "done")]
    assert [pair for pair in named if pair[0] in STEPS] == pairs
    assert named[-1] == ("rebuild", "done")
    assert all(line["time"] > 0 and line["elapsed"] >= 0 for line in told)
    (report,) = (line for line in told if line["step"] == "evaluate")
    assert report["chosen"] in report["table"]


@pytest.mark.parametrize(
    ("step", "error"), [*((step, RuntimeError("out of memory")) for step in STEPS), ("build", KeyboardInterrupt())]
)
def test_a_failure_at_any_step_leaves_the_live_release(
    mine: Trained, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, step: str, error: BaseException
) -> None:
    def fails(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(*STEPS[step], fails)
    stream = io.StringIO()
    with pytest.raises(type(error)):
        run(stream)
    live = Releases(mine.store).current()
    assert live is not None
    assert live.number == 1
    assert (lines(stream)[-1]["step"], lines(stream)[-1]["state"]) == (step, "failed")
    assert type(error).__name__ in lines(stream)[-1]["error"]
    # The lock was let go.
    with mine.store.locked("rebuild"):
        pass


def test_a_second_run_is_refused(mine: Trained, run: Callable[..., Any]) -> None:
    with mine.store.locked("rebuild"), pytest.raises(LockedError, match="Another rebuild is running") as caught:
        run()
    assert caught.value.exit_code == 5


def test_a_model_the_gate_refuses_does_not_go_live(
    mine: Trained, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.release.LEAST_RECALL", 1.5)
    with pytest.raises(GateError):
        run()
    live = Releases(mine.store).current()
    assert live is not None
    assert live.number == 1


def test_a_lost_log_does_not_take_the_ranking_away(
    mine: Trained, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless it is meant. Refused, no release is made: `rollback` must not find one that was never live."""
    monkeypatch.setattr(job, "read_sources", lambda _: Sources(None, None))
    releases, stream = Releases(mine.store), io.StringIO()
    with pytest.raises(GateError, match=r"Release 1 stays live.*slice members has 0.*`vitrine rebuild --unranked`"):
        run(stream)
    assert (lines(stream)[-1]["step"], lines(stream)[-1]["state"]) == ("gate", "failed")
    assert releases.list() == [releases.current()] == [mine.release]
    made, told = run(unranked=True)
    (figures,) = (line for line in told if line["step"] == "evaluate")
    assert (figures["state"], "hits come in recall order" in figures["reason"]) == ("skipped", True)
    assert (made.number, made.gate["ndcg"]) == (2, None)
    # Nothing is taken away by the next one.
    assert run()[0].number == 3
    assert releases.rollback() == made


def test_the_journal_is_learnt_from(mine: Trained) -> None:
    before = job.read_sources(mine.settings).events
    journal = SqliteJournal(mine.store.root / FILE)
    journal.append([[Entry("live", 0, 1_700_000_000_000_000, "click", "u", None, None, None, "p")]])
    journal.close()
    after = job.read_sources(mine.settings).events
    assert before is not None
    assert after is not None
    assert len(after) == len(before) + 1
    assert "live" in after["event_id"]


def test_a_log_that_is_missing_is_named(mine: Trained) -> None:
    ranker = mine.settings.ranker.model_copy(update={"events": mine.store.root / "gone.parquet"})
    with pytest.raises(InputError, match=r"gone\.parquet does not exist"):
        job.read_sources(mine.settings.model_copy(update={"ranker": ranker}))
