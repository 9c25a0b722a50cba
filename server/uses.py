"""What each stage will run on, on a machine and by a configuration, and why."""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch

from indexer.backends import BACKENDS
from indexer.config import IndexerConfig
from indexer.device import choose
from indexer.errors import ConfigError
from indexer.kinds import GRAPH
from indexer.placement import fault_of
from indexer.room import Form, needed, needed_for_codes, verdict
from server.config import Settings
from server.machine import Machine

_TORCH = "torch-float32"
# Why a card cannot be searched on, or None.
Probe = Callable[[torch.device], str | None]


class Use(NamedTuple):
    """What one stage runs on and why; `fault` where the configuration asks for what is not there."""

    stage: str
    on: str
    why: str = ""
    fault: bool = False


def uses(machine: Machine, settings: Settings, index: Mapping[str, Any] | None, probe: Probe = fault_of) -> list[Use]:
    """What each stage will run on; `index` is the manifest of the newest one, if there is any."""
    indexing = settings.indexer
    return [
        _encoder("encoder, build", machine, indexing, indexing.threads or machine.cores),
        _encoder("encoder, serve", machine, indexing, indexing.threads or 1),
        _search(machine, indexing, index, probe),
        _network(machine, settings, probe),
        Use("trees, serve", "CPU, machine code"),
        _training(machine, settings.ranker.device),
        Use("training of trees", "CPU, LightGBM"),
    ]


def _encoder(stage: str, machine: Machine, config: IndexerConfig, threads: int) -> Use:
    device, refused = _device(config.device, "indexer")
    if refused:
        return Use(stage, "nothing", refused, fault=True)
    if device.type == "cuda":
        if config.backend not in ("auto", "torch"):
            told = f'indexer.backend = "{config.backend}" is for the CPU, and indexer.device chooses {device}.'
            return Use(stage, "nothing", told, fault=True)
        return Use(stage, _named(device, machine), "in half precision if it agrees with float32")
    on = f"CPU, {threads} thread{'s' if threads > 1 else ''}"
    no_card = _no_card(machine, config.device, "indexer")
    names = [name for name in machine.backends if config.backend in ("auto", BACKENDS[name].family)]
    if config.backend == "torch" or (config.backend == "auto" and not names):
        reason = "" if config.backend == "torch" else "neither OpenVINO nor ONNX Runtime is installed: extra cpu"
        return Use(stage, f"{on}: {_TORCH}", _joined(reason, no_card))
    if not names:
        told = f'indexer.backend = "{config.backend}" is not installed. Install the extra that brings it, or "auto".'
        return Use(stage, "nothing", told, fault=True)
    told = f"the fastest that agrees with float32 of {', '.join(names)}"
    return Use(stage, on, _joined(told, no_card))


def _search(machine: Machine, config: IndexerConfig, index: Mapping[str, Any] | None, probe: Probe) -> Use:
    stage = "dense search"
    device, refused = _device(config.device, "indexer")
    if refused:
        return Use(stage, "nothing", refused, fault=True)
    on_cpu = f"CPU, {_kind(config, index)}"
    if device.type == "cpu":
        return Use(stage, on_cpu, _no_card(machine, config.device, "indexer"))
    if fault := probe(device):
        return Use(stage, on_cpu, f"{fault}.", fault=config.device != "auto")
    on_card = f"{_named(device, machine)}, exact"
    if index is None:
        return Use(stage, on_card, "if there is room: there is no index yet to tell")
    memory = machine.cards[device.index or 0].memory
    rows, dimensions, kind = index["counts"]["products"], index["dimensions"], index["index"]["kind"]
    what = f"{rows:,} vectors of {dimensions}"
    found = verdict(what, needed(rows, dimensions), "indexes", [], memory)
    if found.form is not None:
        return Use(stage, on_card, found.told)
    if coded := re.fullmatch(r"IVF(\d+),PQ(\d+)x4fsr?", kind):
        lists, parts = map(int, coded.groups())
        sizes: dict[Form, int] = {"codes": needed_for_codes(rows, -(-parts // 2), lists, dimensions)}
        codes = verdict(f"their codes, of {what},", sizes, "indexes", [], memory)
        return Use(stage, f"{_named(device, machine)}, {kind}" if codes.form else on_cpu, f"{found.told}; {codes.told}")
    return Use(stage, on_cpu, found.told)


def _network(machine: Machine, settings: Settings, probe: Probe) -> Use:
    stage, on_cpu = "DNN, serve", "CPU, NumPy"
    device, refused = _device(settings.indexer.device, "indexer")
    if refused:
        return Use(stage, "nothing", refused, fault=True)
    if device.type == "cpu":
        return Use(stage, on_cpu, _no_card(machine, settings.indexer.device, "indexer"))
    if settings.server.workers > 1:
        return Use(stage, on_cpu, f"each of the {settings.server.workers} server.workers has a core for it")
    if fault := probe(device):
        return Use(stage, on_cpu, f"{fault}.")
    return Use(stage, f"{_named(device, machine)} or {on_cpu}", "whichever is faster when the release is loaded")


def _training(machine: Machine, wanted: str) -> Use:
    stage = "training of networks"
    device, refused = _device(wanted, "ranker")
    if refused:
        return Use(stage, "nothing", refused, fault=True)
    if device.type == "cuda":
        return Use(stage, _named(device, machine))
    return Use(stage, "CPU, PyTorch", _no_card(machine, wanted, "ranker"))


def _device(wanted: str, table: str) -> tuple[torch.device, str]:
    """The device that a table of the configuration chooses; the CPU and what to say where it is not there."""
    try:
        return choose(wanted), ""
    except ConfigError as error:
        return torch.device("cpu"), f"{table}.{error}"


def _no_card(machine: Machine, wanted: str, table: str) -> str:
    """Why the CPU was chosen."""
    if wanted == "cpu":
        return f'{table}.device = "cpu"' if machine.cards else ""
    if machine.torch_cuda is None:
        return f"PyTorch {machine.torch} is built without CUDA: extra gpu" if machine.driver else "no NVIDIA driver"
    if machine.driver is None:
        return "no NVIDIA driver"
    return f"PyTorch sees none of the {machine.driver_cards} cards that driver {machine.driver} has"


def _kind(config: IndexerConfig, index: Mapping[str, Any] | None) -> str:
    if index is not None:
        return str(index["index"]["kind"])
    if config.index != "auto":
        return config.index
    return f"exact up to {config.exact_up_to:,} products, {GRAPH} up to {config.graph_up_to:,}, inverted lists above"


def _named(device: torch.device, machine: Machine) -> str:
    return f"cuda:{device.index or 0} ({machine.cards[device.index or 0].name})"


def _joined(*reasons: str) -> str:
    return "; ".join(filter(None, reasons))
