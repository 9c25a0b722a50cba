"""The desk: requests of one kind and one state are answered together, each by its own function."""

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from server.desk import Desk
from server.pipeline import Ask


def state(name: str, first: Any = None) -> Any:
    made = SimpleNamespace(name=name)
    made.first = first or made
    return made


class Live:
    """Stands for the live side."""

    def __init__(self, now: Any = None, then: Any = None) -> None:
        self.state, self._then = now or state("live"), then
        self.refreshed = 0

    def refresh(self) -> None:
        self.refreshed += 1
        self.state = self._then or self.state

    def newest(self, checked: Any) -> Any:
        return self.state if checked.first is self.state.first else checked


def work(kind: str, calls: list[Any]) -> Any:
    def run(given: Any, asks: Sequence[Ask]) -> list[Any]:
        calls.append((kind, given.name, [ask.query for ask in asks]))
        return [f"{kind} {given.name} {ask.query}" for ask in asks]

    return run


async def test_each_is_answered_by_its_own_function_and_state() -> None:
    calls: list[Any] = []
    search, recommend = work("search", calls), work("recommend", calls)
    old, new = state("old"), state("new")
    desk = Desk(cast(Any, Live()), max_batch=8, max_waiting=100, threads=1)
    jobs = [(search, old, "a"), (recommend, old, "b"), (search, new, "c"), (search, old, "d"), (recommend, old, "e")]
    answers = await asyncio.gather(*[desk.answer(w, s, Ask(query=q)) for w, s, q in jobs])
    assert answers == ["search old a", "recommend old b", "search new c", "search old d", "recommend old e"]
    assert sorted(query for _, _, queries in calls for query in queries) == ["a", "b", "c", "d", "e"]
    assert desk.waiting == 0
    await desk.close()


async def test_what_came_after_the_release_is_in_answers_to_requests_checked_before() -> None:
    calls: list[Any] = []
    checked, other = state("checked"), state("another release")
    live = Live(checked, state("with more products", first=checked))
    desk = Desk(cast(Any, live), max_batch=8, max_waiting=100, threads=1)
    asked = [desk.answer(work("search", calls), each, Ask(query="q")) for each in (checked, other)]
    assert await asyncio.gather(*asked) == ["search with more products q", "search another release q"]
    await desk.close()


async def test_a_request_is_stamped_when_it_is_handed_in() -> None:
    seen: list[Ask] = []
    desk = Desk(cast(Any, Live()), max_batch=8, max_waiting=100, threads=1)
    await desk.answer(lambda _, asks: seen.extend(asks) or [cast(Any, 1)], state("s"), Ask())
    assert seen[0].asked > 0
    await desk.close()


async def test_too_few_answers_are_an_error() -> None:
    desk = Desk(cast(Any, Live()), max_batch=8, max_waiting=100, threads=1)
    with pytest.raises(ValueError, match="zip"):
        await desk.answer(lambda *_: [], state("s"), Ask())
    await desk.close()
