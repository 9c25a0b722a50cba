import faiss
import pytest
import torch

from indexer import device
from indexer.device import card, choose
from indexer.errors import ConfigError
from indexer.threads import one_thread


@pytest.mark.parametrize(
    ("wanted", "cards", "expected"),
    [
        ("auto", 0, "cpu"),
        ("auto", 2, "cuda:0"),
        ("cpu", 2, "cpu"),
        ("cuda", 1, "cuda"),
        ("cuda:1", 2, "cuda:1"),
    ],
)
def test_the_device_wanted(wanted: str, cards: int, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cards > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cards)
    assert choose(wanted) == torch.device(expected)


@pytest.mark.parametrize(("wanted", "cards"), [("cuda", 0), ("cuda:0", 0), ("cuda:2", 2)])
def test_a_card_that_is_not_there_is_refused(wanted: str, cards: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cards)
    with pytest.raises(ConfigError, match=f'"{wanted}": this machine shows {cards} CUDA cards. Use "auto" or "cpu"'):
        choose(wanted)


def test_pytorch_is_not_asked_where_no_card_can_be_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(device, "has_driver", lambda: False)
    monkeypatch.setattr(device, "choose", lambda wanted: asked.append(wanted) or torch.device(wanted))
    assert card("cpu") is card("auto") is None
    assert asked == []
    # What is asked for by name is looked for, and missed with a reason.
    assert card("cuda:0") == torch.device("cuda:0")


@pytest.mark.parametrize(("cards", "expected"), [(0, None), (2, torch.device("cuda:0"))])
def test_a_driver_without_a_card_is_the_cpu(
    cards: int, expected: torch.device | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "has_driver", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cards > 0)
    assert card("auto") == expected
    assert card("cpu") is None


@pytest.mark.parametrize(("platform", "library"), [("linux", "libcuda.so.1"), ("win32", "nvcuda.dll")])
def test_a_driver_is_there_if_its_library_can_be_loaded(
    platform: str, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    there: set[str] = set()

    def load(name: str) -> None:
        if name not in there:
            raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(device.sys, "platform", platform)
    monkeypatch.setattr(device.ctypes, "CDLL", load)
    assert not device.has_driver()
    there.add(library)
    assert device.has_driver()


def test_one_thread_is_one_inside_and_given_back_after_an_error() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    faiss.omp_set_num_threads(2)
    try:
        with one_thread():
            assert (torch.get_num_threads(), faiss.omp_get_max_threads()) == (1, 1)
        assert (torch.get_num_threads(), faiss.omp_get_max_threads()) == (2, 2)
        with pytest.raises(ZeroDivisionError), one_thread():
            raise ZeroDivisionError
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
