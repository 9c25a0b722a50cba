"""The form that was chosen for an encoder kept on disk: opened in a second, without the framework it came from."""

import contextlib
import json
import logging
import os
import platform
import shutil
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from indexer.agreement import Forward, agreeing, probe_batches
from indexer.arrays import Floats
from indexer.backends import BACKENDS
from indexer.choice import EXACT, Choice
from indexer.tokenise import Tokeniser

logger = logging.getLogger(__name__)

_REFERENCE, _MADE = "reference.npz", "made.json"
_CPU = Path("/proc/cpuinfo")


class Kept(NamedTuple):
    """What embeds; `forward` is None where float32 itself was chosen. `told` is as in `Choice`."""

    tokeniser: Tokeniser
    forward: Forward | None
    dimensions: int
    name: str
    told: dict[str, dict[str, Any]]


@contextlib.contextmanager
def workshop(folder: Path | None) -> Iterator[Path]:
    """A passing folder for the graphs that are tried: beside `folder`, so that it can take its place, or anywhere."""
    with _aside(folder) as aside:
        (made := Path(aside) / "kept").mkdir()
        yield made


def _aside(folder: Path | None) -> tempfile.TemporaryDirectory[str]:
    if folder:
        # `keep` says that it cannot be written to.
        with contextlib.suppress(OSError):
            folder.parent.mkdir(parents=True, exist_ok=True)
            return tempfile.TemporaryDirectory(prefix=".aside-", dir=folder.parent)
    return tempfile.TemporaryDirectory()


def keep(
    folder: Path, made: Path, choice: Choice, asked: str, tokeniser: Tokeniser, reference: Sequence[Floats]
) -> None:
    """Keep the chosen one of the graphs in `made`, its tokeniser and the model's own vectors of the probe texts.

    `folder` appears whole, `made` is gone. What cannot be written is not kept, and the next start chooses again; so it
    does where float32 was chosen because something failed, which may have been for the day only.
    """
    if choice.name == EXACT and any("failed" in told for told in choice.told.values()):
        return
    try:
        files = () if choice.name == EXACT else BACKENDS[choice.name].files
        for path in made.iterdir():
            if path.name not in files:
                path.unlink()
        tokeniser.save(made)
        np.savez(made / _REFERENCE, *reference)
        told = {"circumstances": circumstances(asked), "backend": choice.name, "choice": choice.told}
        (made / _MADE).write_text(json.dumps(told, indent=1))
        shutil.rmtree(folder, ignore_errors=True)
        # Of several processes that start at once, the first to get here is as good as any.
        os.rename(made, folder)
    except OSError as error:
        logger.warning("The compiled encoder cannot be kept in %s: %s. The next start compiles again.", folder, error)


def open_kept(folder: Path, asked: str, threads: int) -> Kept | None:
    """What `keep` wrote, if it is there, was chosen under the same circumstances, and still agrees with the model."""
    try:
        made = json.loads((folder / _MADE).read_text())
        if made.get("circumstances") != circumstances(asked):
            return None
        name, told = made["backend"], made["choice"]
        tokeniser = Tokeniser.load(folder)
        with np.load(folder / _REFERENCE) as arrays:
            reference = [arrays[name] for name in arrays.files]
        dimensions = reference[0].shape[1]
        if name == EXACT:
            return Kept(tokeniser, None, dimensions, name, told)
        backend = BACKENDS[name]
    except FileNotFoundError:
        return None
    except Exception as error:  # The tokenizer's library raises plain exceptions.
        logger.warning("The compiled encoder kept in %s is damaged (%s); it is made anew.", folder, error)
        return None
    batches = probe_batches(tokeniser)
    forward = agreeing(lambda: backend.open(folder, threads), batches, reference, f"the kept {name} graph")
    return Kept(tokeniser, forward, dimensions, name, told) if forward else None


def circumstances(asked: str) -> dict[str, str]:
    """What a choice depends on: what was asked for, the CPU and the versions of the libraries."""
    versions = {name: _version(name) for name in ("torch", "openvino", "onnx", "onnxruntime")}
    return {"asked": asked, "cpu": _cpu(), **{name: found for name, found in versions.items() if found}}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _cpu() -> str:
    """Its name, and a checksum of what it can do: rented machines of several kinds call themselves the same."""
    if not _CPU.exists():
        return platform.processor()
    first = _CPU.read_text().split("\n\n")[0]
    lines = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in first.splitlines())}
    able = lines.get("flags") or lines.get("Features", "")
    return f"{lines.get('model name', platform.machine())} {zlib.crc32(able.encode()):08x}"
