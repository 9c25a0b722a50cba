import threading

import pytest
import torch

from indexer.owner import Caller, OneThread, owner_of

CPU = torch.device("cpu")


@pytest.fixture
def owner() -> OneThread:
    return OneThread(CPU)


def test_all_work_is_done_in_one_thread_in_the_order_asked(owner: OneThread) -> None:
    began, gate = threading.Event(), threading.Event()
    done: list[int] = []

    def first() -> int:
        began.set()
        assert gate.wait(10)
        done.append(0)
        return threading.get_ident()

    def ask(number: int) -> None:
        idents.append(owner.run(lambda: (done.append(number), threading.get_ident())[1]))

    idents: list[int] = []
    holding = threading.Thread(target=lambda: idents.append(owner.run(first)))
    holding.start()
    assert began.wait(10)
    waiting = []
    for number in (1, 2, 3):
        waiting.append(threading.Thread(target=ask, args=(number,)))
        waiting[-1].start()
        # It is in the queue before the next one asks.
        while owner._pool._work_queue.qsize() < number:
            pass
    assert done == []
    gate.set()
    for thread in (holding, *waiting):
        thread.join(10)
    assert done == [0, 1, 2, 3]
    assert len(set(idents)) == 1
    assert threading.get_ident() not in idents


def test_what_work_raises_is_raised_to_its_caller_and_the_next_is_done(owner: OneThread) -> None:
    with pytest.raises(ZeroDivisionError):
        owner.run(lambda: 1 // 0)
    assert owner.run(lambda: 3) == 3


def test_work_may_ask_for_work(owner: OneThread) -> None:
    assert owner.run(lambda: owner.run(lambda: "inner")) == "inner"


def test_the_thread_is_prepared_once_before_its_first_work() -> None:
    prepared: list[int] = []
    owner = OneThread(CPU, lambda: prepared.append(threading.get_ident()))
    assert [owner.run(threading.get_ident), owner.run(threading.get_ident)] == prepared * 2


def test_scratch_is_kept_and_grows(owner: OneThread) -> None:
    first = owner.run(lambda: owner.scratch(100))
    assert (first.shape, first.dtype) == ((100,), torch.uint8)
    assert owner.run(lambda: owner.scratch(40)).data_ptr() == first.data_ptr()
    assert owner.run(lambda: owner.scratch(400)).shape == (400,)


@pytest.mark.parametrize("made", [Caller(), OneThread(CPU)])
def test_no_gradients_are_kept(made: Caller | OneThread) -> None:
    assert made.run(torch.is_inference_mode_enabled)
    assert not torch.is_inference_mode_enabled()


def test_the_cpu_has_no_thread_and_no_common_scratch() -> None:
    owner = owner_of(CPU)
    assert owner.run(threading.get_ident) == threading.get_ident()
    assert owner.scratch(8).data_ptr() != owner.scratch(8).data_ptr() or owner.scratch(8) is not owner.scratch(8)


@pytest.mark.gpu
def test_a_card_has_one_owner_with_a_stream_of_its_own() -> None:
    owner = owner_of(torch.device("cuda"))
    assert owner is owner_of(torch.device("cuda:0"))
    assert owner.run(lambda: torch.cuda.current_stream()) != torch.cuda.default_stream()
