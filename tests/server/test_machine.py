import os
from pathlib import Path

import faiss
import numpy as np
import pytest
import torch

from server import machine
from server.machine import Card, Space, look

CPUINFO = """processor\t: 0
model name\t: Some CPU 9000
flags\t\t: fpu sse2 avx2 avx512f amx_tile avx512_bf16

processor\t: 1
model name\t: Some CPU 9000
flags\t\t: fpu
"""
VERSION = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86.15  Thu Jan 23 02:56:52 UTC 2025\nGCC version: 12\n"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of which nothing is known, to which the tests add."""
    for name in ("_CPUINFO", "_MEMINFO", "_DRIVER"):
        monkeypatch.setattr(machine, name, tmp_path / "proc" / name)


def test_the_libraries_are_those_installed(tmp_path: Path) -> None:
    found = look(tmp_path)
    assert found.torch == torch.__version__
    assert found.faiss.startswith(faiss.__version__)
    assert set(found.packages) == {"openvino", "onnxruntime", "lightgbm", "numba"}
    assert found.packages["lightgbm"]
    assert found.cores == len(os.sched_getaffinity(0))


def test_a_package_that_is_not_installed_has_no_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_PACKAGES", ("numba", "no-such-package-1"))
    packages = look(tmp_path).packages
    assert packages["numba"]
    assert packages["no-such-package-1"] is None


def test_a_machine_without_a_card(tmp_path: Path) -> None:
    found = look(tmp_path)
    assert (found.cards, found.driver, found.driver_cards, found.faiss_cards) == ((), None, 0, 0)


def test_cards_are_named_with_their_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda number: f"Card {number}")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda number: (9, number))

    def memory(number: int) -> tuple[int, int]:
        if number == 1:
            raise RuntimeError("out of order")
        return 3, 5

    monkeypatch.setattr(torch.cuda, "mem_get_info", memory)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: type("P", (), {"total_memory": 7}))
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 2)
    found = look(tmp_path)
    assert found.cards == (Card("Card 0", "sm_90", Space(3, 5)), Card("Card 1", "sm_91", Space(0, 7)))
    assert found.faiss_cards == 2


def test_a_faiss_for_cuda_without_a_driver_sees_no_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> int:
        raise RuntimeError("CUDA driver version is insufficient")

    monkeypatch.setattr(faiss, "get_num_gpus", fails)
    assert look(tmp_path).faiss_cards == 0


def test_the_drivers_cards_are_counted_whether_or_not_pytorch_sees_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = tmp_path / "nvidia"
    for name in ("0000:01:00.0", "0000:02:00.0"):
        (driver / "gpus" / name).mkdir(parents=True)
    monkeypatch.setattr(machine, "_DRIVER", driver)
    # Without its version file it is not a driver.
    assert (look(tmp_path).driver, look(tmp_path).driver_cards) == (None, 0)
    (driver / "version").write_text(VERSION)
    assert (look(tmp_path).driver, look(tmp_path).driver_cards) == ("570.86.15", 2)
    (driver / "version").write_text("something else\n")
    assert look(tmp_path).driver == "unknown"


def test_the_cpu_and_its_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in (("_CPUINFO", CPUINFO), ("_MEMINFO", "MemTotal:  64 kB\nMemFree: 1 kB\nMemAvailable:  32 kB\n")):
        (tmp_path / name).write_text(text)
        monkeypatch.setattr(machine, name, tmp_path / name)
    found = look(tmp_path)
    assert (found.cpu, found.flags) == ("Some CPU 9000", ("avx2", "avx512f", "avx512_bf16", "amx_tile"))
    assert found.memory == Space(32 * 1024, 64 * 1024)


def test_where_the_system_does_not_say_it_is_unknown(tmp_path: Path) -> None:
    found = look(tmp_path)
    assert found.cpu
    assert (found.flags, found.memory) == ((), Space(0, 0))


def test_the_disk_of_a_store_that_is_not_there_yet(tmp_path: Path) -> None:
    here, there = look(tmp_path).disk, look(tmp_path / "not" / "yet").disk
    assert here.total == there.total > 0
    assert np.isclose(here.free, there.free, rtol=0.1)
