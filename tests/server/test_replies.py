"""What every ranked answer tells beside its hits."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from server import replies
from server.pipeline import Answer


def state() -> Any:
    return SimpleNamespace(
        snapshot=SimpleNamespace(id="index"),
        release=SimpleNamespace(number=3),
        model=SimpleNamespace(id="model"),
        encoder=SimpleNamespace(fingerprint="encoder"),
    )


@pytest.mark.parametrize("spent", [0.0, 1e-7, 0.0123456, 0.9999999999, 1.5, 60.25])
def test_what_every_answer_tells(spent: float) -> None:
    answer = Answer(cast(Any, state()), cast(Any, None), cast(Any, []), 7, [("wait", spent)], [("score", "late")])
    told = replies.info(answer, "")
    assert told.timings[0].duration.ToNanoseconds() == pytest.approx(spent * 1e9, abs=2)
    assert [(d.stage, d.reason) for d in told.degraded] == [("score", "late")]
    versions = told.versions
    assert (versions.release, versions.index, versions.model, versions.encoder) == ("3", "index", "model", "encoder")
    assert told.attribution_token.startswith("3.")
    assert (len(told.request_id), told.candidates) == (32, 7)
    assert replies.info(answer, "mine").request_id == "mine"
