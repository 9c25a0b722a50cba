"""The fastest form that agrees runs; time is a clock that the forms themselves put forward."""

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from indexer.agreement import Batch, Forward, Vectors
from indexer.arrays import Floats
from indexer.choice import EXACT, Choice, Trial

DIMENSIONS = 16


class Clock:
    """Seconds since the start, moved by what runs."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Form:
    """Row i of a batch is number `first` + i of some texts; a call takes `seconds` for each row, and `late` is added to
    every other call's, as by a busy machine."""

    def __init__(self, clock: Clock, seconds: float, noise: float = 0.0, late: float = 0.0, numb: bool = False) -> None:
        self.clock, self.seconds, self.noise, self.late, self.numb = clock, seconds, noise, late, numb
        self.calls = 0

    def __call__(self, input_ids: np.ndarray, attention_mask: np.ndarray) -> Floats:
        self.calls += 1
        self.clock.now += self.seconds * len(input_ids) + self.late * (self.calls % 2)
        return np.concatenate([self.vector(int(row[0])) for row in input_ids])

    def vector(self, number: int) -> Floats:
        vector = np.random.default_rng(number).normal(size=(1, DIMENSIONS))
        # Titles of one kind lie close together: what `numb` does to them, no cosine tells.
        vector[:, 1:] *= 0.02
        vector[:, 0] = 1
        if self.numb:
            vector[:, 2:] = 0
        vector += self.noise * np.random.default_rng(number + 1_000_000).normal(size=(1, DIMENSIONS))
        return np.asarray(vector / np.linalg.norm(vector), np.float32)


def batch(first: int, rows: int) -> Batch:
    ids = np.arange(first, first + rows)[:, None]
    return ids, np.ones_like(ids)


class Texts:
    """Stands in for the probe catalogue: 400 titles and 8 queries."""

    samples = (batch(0, 1), batch(0, 4), batch(0, 32))

    def vectors(self, forward: Forward) -> Vectors:
        return Vectors(forward(*batch(0, 400)), forward(*batch(400, 8)))


@pytest.fixture
def clock() -> Clock:
    return Clock()


def trial(exact: Form) -> Trial:
    catalogue: Any = Texts()
    batches = [batch(900, 1), batch(901, 5)]
    return Trial(exact, batches, [exact(*each) for each in batches], catalogue, exact.clock)


def choice(exact: Form, or_exact: bool = True, **forms: Form) -> Choice | None:
    made: dict[str, Callable[[], Forward]] = {name: (lambda form=form: form) for name, form in forms.items()}
    return trial(exact).fastest(made, or_exact)


def test_the_fastest_that_agrees_is_chosen(clock: Clock) -> None:
    found = choice(Form(clock, 3), slow=Form(clock, 2), fast=Form(clock, 1))
    assert found is not None
    assert found.name == "fast"
    assert found.told["fast"] == {"cosine": 1.0, "ms": [1_000, 4_000, 32_000], "overlap": 1.0}
    assert found.told["slow"] == {"cosine": 1.0, "ms": [2_000, 8_000, 64_000]}
    assert found.told[EXACT] == {"ms": [3_000, 12_000, 96_000]}


def test_a_busy_machine_decides_nothing(clock: Clock) -> None:
    found = choice(Form(clock, 3), slow=Form(clock, 2), fast=Form(clock, 1, late=100))
    assert found is not None
    assert found.name == "fast"


def test_the_model_itself_is_chosen_where_it_is_the_fastest(clock: Clock) -> None:
    exact = Form(clock, 1)
    found = choice(exact, slow=Form(clock, 2))
    assert found == (EXACT, exact, found.told if found else None)
    assert found is not None
    assert "overlap" not in found.told["slow"]


def test_a_cosine_below_the_bound_is_refused_with_its_figure(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    found = choice(Form(clock, 3), agreeing=Form(clock, 2), wrong=Form(clock, 1, noise=0.05))
    assert found is not None
    assert found.name == "agreeing"
    cosine = found.told["wrong"]["cosine"]
    assert 0.9 < cosine < 0.999
    assert [record.levelno for record in caplog.records] == [logging.INFO]
    assert f"wrong, which agrees only to a cosine of {cosine:.5f}" in caplog.text
    assert found.told["wrong"]["refused"] == f"agrees only to a cosine of {cosine:.5f}"
    assert "ms" not in found.told["wrong"]


def test_an_overlap_below_the_bound_is_refused_with_its_figure(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    found = choice(Form(clock, 3), agreeing=Form(clock, 2), near=Form(clock, 1, noise=0.003))
    assert found is not None
    assert found.name == "agreeing"
    told = found.told["near"]
    assert told["cosine"] >= 0.999
    assert told["overlap"] < 0.99
    assert [record.levelno for record in caplog.records] == [logging.INFO]
    assert f"near, which finds only {told['overlap']:.4f} of the 100 nearest titles" in caplog.text


def test_what_raises_is_refused(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> Forward:
        raise RuntimeError("no such instruction")

    exact = Form(clock, 1)
    found = trial(exact).fastest({"broken": broken})
    assert found is not None
    assert found.name == EXACT
    assert found.told["broken"] == {"refused": "could not be used (no such instruction)", "failed": True}
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "no such instruction" in caplog.text


def test_nothing_is_chosen_where_only_the_refused_may_be(clock: Clock) -> None:
    assert choice(Form(clock, 3), or_exact=False, wrong=Form(clock, 1, noise=0.05)) is None
    assert choice(Form(clock, 3), or_exact=False, near=Form(clock, 1, noise=0.003)) is None
    assert choice(Form(clock, 1), or_exact=False, slow=Form(clock, 2)) is not None
