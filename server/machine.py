"""What a machine has of what Vitrine can use: cards, libraries, CPU, memory, disk."""

import os
import platform
import shutil
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

import faiss
import torch

from indexer.backends import candidates

_PACKAGES = ("openvino", "onnxruntime", "lightgbm", "numba")
# What the encoder's, FAISS's and BLAS's kernels are chosen by.
_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16")
_CPUINFO, _MEMINFO = Path("/proc/cpuinfo"), Path("/proc/meminfo")
_DRIVER = Path("/proc/driver/nvidia")


class Space(NamedTuple):
    """Bytes; 0 where the system does not say."""

    free: int
    total: int


class Card(NamedTuple):
    """A card that PyTorch sees; `architecture` is, for example, sm_90."""

    name: str
    architecture: str
    memory: Space


class Machine(NamedTuple):
    """What was found. `driver` is the NVIDIA driver's version, if there is one, and `driver_cards` what it drives.

    `backends` are the compiled forms of the encoder that are installed and suit the CPU.
    """

    cards: tuple[Card, ...]
    driver: str | None
    driver_cards: int
    torch: str
    torch_cuda: str | None
    faiss: str
    faiss_cards: int
    packages: Mapping[str, str | None]
    backends: tuple[str, ...]
    cpu: str
    cores: int
    flags: tuple[str, ...]
    memory: Space
    disk: Space


def look(store: Path) -> Machine:
    """This machine, with the disk that `store` is on."""
    driver, driver_cards = _driver(_DRIVER)
    cpu, flags = _cpu(_CPUINFO)
    return Machine(
        cards=_cards(),
        driver=driver,
        driver_cards=driver_cards,
        torch=torch.__version__,
        torch_cuda=torch.version.cuda,
        faiss=f"{faiss.__version__}, {faiss.get_compile_options().strip()}",
        faiss_cards=_faiss_cards(),
        packages={name: _version(name) for name in _PACKAGES},
        backends=tuple(backend.name for backend in candidates("auto")),
        cpu=cpu,
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        flags=flags,
        memory=_memory(_MEMINFO),
        disk=_disk(store),
    )


def _cards() -> tuple[Card, ...]:
    return tuple(map(_card, range(torch.cuda.device_count())))


def _card(number: int) -> Card:
    major, minor = torch.cuda.get_device_capability(number)
    try:
        free, total = torch.cuda.mem_get_info(number)
    except RuntimeError:
        # A card that cannot even say this is not used; the search that is tried on it says why.
        free, total = 0, torch.cuda.get_device_properties(number).total_memory
    return Card(torch.cuda.get_device_name(number), f"sm_{major}{minor}", Space(free, total))


def _faiss_cards() -> int:
    try:
        return int(faiss.get_num_gpus())
    except RuntimeError:
        # Of a build for CUDA, where the driver is missing or too old.
        return 0


def _driver(folder: Path) -> tuple[str | None, int]:
    """The NVIDIA kernel module's version, and how many cards it drives whether or not PyTorch sees them."""
    try:
        words = (folder / "version").read_text().splitlines()[0].split()
    except (OSError, IndexError):
        return None, 0
    numbers = [word for word in words if word[0].isdigit() and "." in word]
    return numbers[0] if numbers else "unknown", len(list(folder.glob("gpus/*")))


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _cpu(path: Path) -> tuple[str, tuple[str, ...]]:
    """Its name, and those of _FLAGS that it has."""
    if not path.exists():
        return platform.processor() or platform.machine(), ()
    first = path.read_text().split("\n\n")[0]
    lines = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in first.splitlines())}
    has = set(lines.get("flags", "").split())
    return lines.get("model name", platform.machine()), tuple(flag for flag in _FLAGS if flag in has)


def _memory(path: Path) -> Space:
    if not path.exists():
        return Space(0, 0)
    lines = dict(line.split(":", 1) for line in path.read_text().splitlines() if ":" in line)
    # Lines such as "MemTotal:       24605012 kB".
    free, total = (1024 * int(lines[name].split()[0]) if name in lines else 0 for name in ("MemAvailable", "MemTotal"))
    return Space(free, total)


def _disk(store: Path) -> Space:
    """Of the first of the store's folders that there is: a new shop has no store yet."""
    there = next(folder for folder in (store.absolute(), *store.absolute().parents) if folder.exists())
    usage = shutil.disk_usage(there)
    return Space(usage.free, usage.total)
