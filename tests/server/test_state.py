"""A state: a release whose parts fit together, and a log folded into it as training folds it."""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from harness import Trained, copied, hash_encoder, last_time

from indexer.errors import SnapshotError
from indexer.store import write_json
from indexer.text import query_key
from ranker import exposure, features
from ranker.behaviour import Behaviour
from ranker.exposure import Exposure
from ranker.log import engagements, folding
from server import state as module
from server.state import State, load_state


def load(trained: Trained, **changes: Any) -> State:
    events = changes.pop("events", trained.dump.events)
    encoder = changes.pop("encoder", trained.encoder)
    limits = trained.settings.server.model_copy(update=changes)
    settings = trained.settings.model_copy(update={"server": limits})
    return load_state(trained.store, trained.release, settings, encoder, events)


@pytest.mark.parametrize("many", [1, 1_000_000])
def test_the_log_is_folded_as_training_folds_it(trained: Trained, monkeypatch: pytest.MonkeyPatch, many: int) -> None:
    monkeypatch.setattr(module, "_MANY", many)
    state = load(trained)
    expected = Behaviour(len(state.snapshot))
    assert trained.dump.events is not None
    expected.apply_all(folding(engagements(trained.dump.events, state.snapshot.row_of, 4.0)))
    assert state.behaviour.users == expected.users
    assert state.behaviour.queries == expected.queries
    np.testing.assert_array_equal(state.behaviour.counts, expected.counts)


def test_folding_in_parts_is_folding_the_whole(trained: Trained) -> None:
    whole, parts = load(trained), load(trained, events=None)
    events = trained.dump.events
    assert events is not None
    for start in range(0, len(events), 1_000):
        parts.fold(events.slice(start, 1_000))
    assert parts.behaviour.users == whole.behaviour.users
    np.testing.assert_allclose(parts.behaviour.counts, whole.behaviour.counts, rtol=1e-12)
    rows, query = np.arange(len(whole.snapshot)), query_key(events["query"].drop_nulls()[0])
    told = [state.behaviour.exposure.columns(query, rows) for state in (parts, whole)]
    for name in exposure.NAMES:
        assert np.ptp(told[0][name]) > 0
        # To the last bit.
        np.testing.assert_array_equal(told[0][name], told[1][name])


def test_places_are_weighed_as_the_model_was_trained(trained: Trained) -> None:
    state = load(trained)
    shares = np.array(state.model.manifest["examination"])
    assert np.ptp(shares) > 0
    assert trained.dump.events is not None
    expected = Exposure(len(state.snapshot), shares)
    expected.fold(trained.dump.events, state.row_of)
    rows = np.arange(len(state.snapshot))
    np.testing.assert_array_equal(
        state.behaviour.exposure.columns("", rows)["shown"], expected.columns("", rows)["shown"]
    )


def test_the_clock_of_the_log_goes_on_from_its_last_event(trained: Trained) -> None:
    assert trained.dump.events is not None
    old = trained.dump.events.with_columns(pl.col("event_time").dt.offset_by("-10y"))
    state = load(trained, clock="log", events=old)
    assert 0 <= state.now() - last_time(old) < 60
    assert abs(load(trained, events=old).now() - time.time()) < 1
    assert abs(load(trained, clock="log", events=None).now() - time.time()) < 1


def test_an_encoder_that_is_not_the_indexs_is_refused(trained: Trained) -> None:
    with pytest.raises(SnapshotError, match=rf"fingerprint-other.*{hash_encoder().fingerprint}"):
        load(trained, encoder=hash_encoder("other"))


@pytest.mark.parametrize(
    ("file", "changes", "says"),
    [
        ("manifest.json", {"encoder": "fedcba"}, f"encoder fedcba.*{hash_encoder().fingerprint}"),
        (
            "schema.json",
            {"fingerprint": "fedcba", "features": ["unheard_of", *features.NAMES]},
            f"schema fedcba.*{features.fingerprint()}.*unheard_of",
        ),
        ("manifest.json", {"index": "another"}, "bound to index another"),
        ("manifest.json", {"format_version": 2}, "newer than version 1"),
    ],
)
def test_a_model_that_does_not_fit_is_refused(
    trained: Trained, tmp_path: Path, file: str, changes: dict[str, Any], says: str
) -> None:
    made = copied(trained, tmp_path)
    path = made.store.path("models", made.release.model) / file
    write_json(path, json.loads(path.read_text()) | changes)
    with pytest.raises(SnapshotError, match=says):
        load(made)
