"""What is used is decided from what was found: machines with and without a card are made up."""

from typing import Any

import pytest
import torch

from server.config import Settings
from server.machine import Card, Machine, Space
from server.uses import Use, uses

GIB = 2**30
PLAIN = Machine(
    cards=(),
    driver=None,
    driver_cards=0,
    torch="2.9.0",
    torch_cuda=None,
    faiss="1.15",
    faiss_cards=0,
    packages={},
    backends=("openvino-float32", "onnx-int8"),
    cpu="Some CPU",
    cores=16,
    flags=(),
    memory=Space(GIB, GIB),
    disk=Space(GIB, GIB),
)
WITH_CARD = PLAIN._replace(
    cards=(Card("Big", "sm_90", Space(100 * GIB, 100 * GIB)),), driver="570", driver_cards=1, torch_cuda="13.0"
)
INDEX = {"index": {"kind": "HNSW16"}, "counts": {"products": 1_000_000}, "dimensions": 384}
BUILD, SERVE, DENSE, NETWORK, TREES = "encoder, build", "encoder, serve", "dense search", "DNN, serve", "trees, serve"
TRAINING, TRAINING_TREES = "training of networks", "training of trees"


def told(
    machine: Machine,
    monkeypatch: pytest.MonkeyPatch,
    index: dict[str, Any] | None = None,
    fault: str | None = None,
    ranker: str = "auto",
    workers: int = 1,
    **indexer: Any,
) -> dict[str, Use]:
    """Uses by stage; `fault` is what the search that is tried on a card finds."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(machine.cards))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(machine.cards))
    tables = {"indexer": indexer, "ranker": {"device": ranker}, "server": {"workers": workers}}
    settings = Settings.model_validate(tables)
    return {use.stage: use for use in uses(machine, settings, index, lambda _: fault)}


def test_without_a_card_all_runs_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    found = told(PLAIN, monkeypatch)
    assert list(found) == [BUILD, SERVE, DENSE, NETWORK, TREES, TRAINING, TRAINING_TREES]
    assert not any(use.fault for use in found.values())
    assert all(use.on.startswith("CPU") for use in found.values())
    assert (found[BUILD].on, found[SERVE].on) == ("CPU, 16 threads", "CPU, 1 thread")
    assert found[SERVE].why == "the fastest that agrees with float32 of openvino-float32, onnx-int8; no NVIDIA driver"
    assert found[DENSE] == Use(
        DENSE, "CPU, exact up to 20,000 products, HNSW16 up to 150,000, inverted lists above", "no NVIDIA driver"
    )
    assert found[TRAINING] == Use(TRAINING, "CPU, PyTorch", "no NVIDIA driver")
    assert found[NETWORK] == Use(NETWORK, "CPU, NumPy", "no NVIDIA driver")
    assert found[TREES] == Use(TREES, "CPU, machine code")


def test_with_a_card_encoder_search_and_training_run_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    found = told(WITH_CARD, monkeypatch, INDEX)
    assert not any(use.fault for use in found.values())
    assert found[BUILD].on == found[SERVE].on == found[TRAINING].on == "cuda:0 (Big)"
    assert found[DENSE].on == "cuda:0 (Big), exact"
    assert found[DENSE].why == f"{1_000_000 * 384 * 6 / GIB:.2f} GiB of 100.00 GiB free"
    assert found[NETWORK].on == "cuda:0 (Big) or CPU, NumPy"
    assert found[NETWORK].why == "whichever is faster when the release is loaded"
    assert found[TREES] == Use(TREES, "CPU, machine code")


def test_each_of_several_workers_has_its_own_network(monkeypatch: pytest.MonkeyPatch) -> None:
    found = told(WITH_CARD, monkeypatch, INDEX, workers=8)
    assert found[NETWORK] == Use(NETWORK, "CPU, NumPy", "each of the 8 server.workers has a core for it")


def test_a_card_without_room_for_the_newest_index(monkeypatch: pytest.MonkeyPatch) -> None:
    small = WITH_CARD._replace(cards=(Card("Small", "sm_75", Space(3 * GIB, 4 * GIB)),))
    found = told(small, monkeypatch, INDEX)
    assert (found[DENSE].on, found[DENSE].fault) == ("CPU, HNSW16", False)
    assert "1,000,000 vectors of 384 need" in found[DENSE].why
    assert "3.00 GiB of 4.00 GiB are free" in found[DENSE].why
    assert told(small, monkeypatch)[DENSE].on == "cuda:0 (Small), exact"


@pytest.mark.parametrize(("free", "on"), [(3, "cuda:0 (Small), IVF4096,PQ192x4fsr"), (2, "CPU, IVF4096,PQ192x4fsr")])
def test_a_card_with_room_for_the_codes_alone(free: int, on: str, monkeypatch: pytest.MonkeyPatch) -> None:
    small = WITH_CARD._replace(cards=(Card("Small", "sm_75", Space(free * GIB, 4 * GIB)),))
    coded = INDEX | {"index": {"kind": "IVF4096,PQ192x4fsr"}}
    found = told(small, monkeypatch, coded)[DENSE]
    assert (found.on, found.fault) == (on, False)
    assert found.why.startswith("1,000,000 vectors of 384 need 0.72 GiB, ")
    assert "; 0.10 GiB of 3.00 GiB free" in found.why if free == 3 else "; their codes, of 1,000,000" in found.why


@pytest.mark.parametrize(("device", "is_fault"), [("auto", False), ("cuda:0", True)])
def test_a_card_on_which_no_search_works(device: str, is_fault: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    found = told(WITH_CARD, monkeypatch, INDEX, fault="a search on cuda:0 failed: no kernel image", device=device)
    assert found[DENSE] == Use(DENSE, "CPU, HNSW16", "a search on cuda:0 failed: no kernel image.", is_fault)
    # The DNN was not asked for there: it goes where it is faster.
    assert found[NETWORK] == Use(NETWORK, "CPU, NumPy", "a search on cuda:0 failed: no kernel image.")


@pytest.mark.parametrize(
    ("machine", "why"),
    [
        (PLAIN._replace(driver="570", driver_cards=1), "PyTorch 2.9.0 is built without CUDA: extra gpu"),
        (PLAIN._replace(torch_cuda="13.0"), "no NVIDIA driver"),
        (
            PLAIN._replace(torch_cuda="13.0", driver="570", driver_cards=2),
            "PyTorch sees none of the 2 cards that driver 570 has",
        ),
    ],
)
def test_why_a_card_is_not_used(machine: Machine, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = told(machine, monkeypatch)
    assert found[DENSE].why == found[TRAINING].why == why
    assert found[BUILD].why.endswith(f"; {why}")


def test_a_card_that_the_configuration_leaves_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    found = told(WITH_CARD, monkeypatch, INDEX, device="cpu", ranker="cpu")
    assert (found[DENSE].on, found[DENSE].why) == ("CPU, HNSW16", 'indexer.device = "cpu"')
    assert found[TRAINING].why == 'ranker.device = "cpu"'
    assert not any(use.fault for use in found.values())


def test_a_card_that_is_not_there_is_a_fault_of_its_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    found = told(WITH_CARD, monkeypatch, device="cuda:3")
    assert {stage for stage, use in found.items() if use.fault} == {BUILD, SERVE, DENSE, NETWORK}
    assert found[DENSE].why.startswith('indexer.device = "cuda:3": this machine shows 1 CUDA cards')
    found = told(PLAIN, monkeypatch, ranker="cuda:0")
    assert {stage for stage, use in found.items() if use.fault} == {TRAINING}
    assert found[TRAINING].why.startswith('ranker.device = "cuda:0"')


@pytest.mark.parametrize(
    ("backend", "backends", "on", "why"),
    [
        ("openvino", PLAIN.backends, "CPU, 2 threads", "the fastest that agrees with float32 of openvino-float32"),
        ("torch", PLAIN.backends, "CPU, 2 threads: torch-float32", ""),
        ("auto", (), "CPU, 2 threads: torch-float32", "neither OpenVINO nor ONNX Runtime is installed: extra cpu"),
    ],
)
def test_the_encoders_backend(
    backend: str, backends: tuple[str, ...], on: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = PLAIN._replace(backends=backends)
    for stage in (BUILD, SERVE):
        use = told(machine, monkeypatch, backend=backend, device="cpu", threads=2)[stage]
        assert use == Use(stage, on, why)


def test_a_backend_that_cannot_be_had_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = told(PLAIN._replace(backends=("onnx-int8",)), monkeypatch, backend="openvino")
    assert missing[BUILD].fault
    assert 'indexer.backend = "openvino" is not installed' in missing[BUILD].why
    for_cpu = told(WITH_CARD, monkeypatch, backend="onnx")
    assert for_cpu[SERVE].fault
    assert 'indexer.backend = "onnx" is for the CPU, and indexer.device chooses cuda:0' in for_cpu[SERVE].why
    assert not told(WITH_CARD, monkeypatch, backend="torch")[SERVE].fault
