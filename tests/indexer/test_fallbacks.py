import threading

import pytest

from indexer import fallbacks


@pytest.fixture(autouse=True)
def _none_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fallbacks, "_counts", type(fallbacks._counts)())


def test_they_are_counted_by_stage() -> None:
    assert fallbacks.counted() == {}
    fallbacks.count("search")
    fallbacks.count("search", 3)
    fallbacks.count("encoder")
    fallbacks.count("DNN", 0)
    assert fallbacks.counted() == {"search": 4, "encoder": 1}


def test_no_thread_loses_another_ones() -> None:
    threads = [threading.Thread(target=lambda: [fallbacks.count("search") for _ in range(2_000)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert fallbacks.counted() == {"search": 16_000}
