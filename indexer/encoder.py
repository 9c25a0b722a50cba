"""Texts to unit vectors, by any sentence-transformers model; compiled on the CPU where that agrees with float32."""

import copy
import hashlib
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from indexer.agreement import Forward, agreeing, probe_batches
from indexer.arrays import Floats
from indexer.compiled import CompiledForward, converted
from indexer.config import IndexerConfig
from indexer.device import choose
from indexer.errors import ConfigError
from indexer.kept import keep, open_kept
from indexer.text import normalise
from indexer.tokenise import Tokeniser

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_BATCH = 32
# The files of a model folder that decide a vector: weights, tokeniser, greatest length and the modules after the model.
_DECISIVE = (
    *("modules.json", "config.json", "tokenizer.json", "vocab.txt", "sentence_bert_config.json", "*.model"),
    *("*.safetensors", "pytorch_model*.bin", "*/config.json", "*/*.safetensors", "*/pytorch_model*.bin"),
)


class Encoder:
    """The one object that embeds titles and queries. Safe to call from several threads.

    `fingerprint` names weights, tokeniser and text normalisation: vectors of one fingerprint are comparable. `tuned`
    says what an encoder tuned on the shop's log has seen of it.
    """

    def __init__(
        self,
        name: str,
        fingerprint: str,
        tokeniser: Tokeniser,
        forward: Forward,
        dimensions: int,
        backend: str,
        tuned: Mapping[str, Any] | None = None,
    ):
        self.name = name
        self.fingerprint = fingerprint
        self.dimensions = dimensions
        self.backend = backend
        self.tuned = tuned
        self._tokeniser = tokeniser
        self._forward = forward

    def encode(self, texts: Sequence[str], progress: Callable[[int], None] | None = None) -> Floats:
        """Unit vectors float32 [texts, dimensions]; `progress` is told how many more texts are done.

        Texts are sorted by length into batches, so that little of a batch is padding.
        """
        rows = self._tokeniser([normalise(text) for text in texts])
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        vectors = np.empty((len(texts), self.dimensions), np.float32)
        for start in range(0, len(order), _BATCH):
            batch = order[start : start + _BATCH]
            vectors[batch] = self._forward(*self._tokeniser.pad([rows[i] for i in batch]))
            if progress:
                progress(len(batch))
        return vectors


def load_encoder(config: IndexerConfig, tuned: Mapping[str, Any] | None = None, kept: Path | None = None) -> Encoder:
    """The configured model on the configured device. Raises `ConfigError` where it cannot be found.

    What was compiled for the CPU is left in `kept`, by fingerprint, and found there the next time.
    """
    path = resolve(config.encoder)
    device = choose(config.device)
    name = fingerprint(path)
    compiles = device.type == "cpu" and config.backend in ("auto", "openvino")
    folder = kept / name if kept and compiles else None
    if folder and (opened := open_kept(folder, config.threads)):
        return Encoder(config.encoder, name, opened.tokeniser, opened.forward, opened.dimensions, "openvino", tuned)
    model = load_sentence_transformer(path, device)
    tokeniser = Tokeniser.of(model.tokenizer, model.max_seq_length or 512)
    exact = _torch_forward(model, tokeniser, device)
    batches = probe_batches(tokeniser)
    reference = [exact(*batch) for batch in batches]
    forward, backend = None, "torch-float32"
    if device.type == "cuda":
        backend = "torch-float16"
        forward = agreeing(lambda: _half_forward(model, tokeniser, device), batches, reference, backend)
    elif compiles:
        backend = "openvino"
        forward = agreeing(
            lambda: _compiled(model, tokeniser, config.threads, folder, reference), batches, reference, backend
        )
    if forward is None:
        forward, backend = exact, "torch-float32"
    if config.backend == "openvino" and backend != "openvino":
        raise ConfigError('indexer.backend = "openvino" cannot be used: see the warning above. Set it to "auto".')
    return Encoder(config.encoder, name, tokeniser, forward, reference[0].shape[1], backend, tuned)


def _compiled(
    model: "SentenceTransformer", tokeniser: Tokeniser, threads: int, folder: Path | None, reference: Sequence[Floats]
) -> Forward:
    graph = converted(model, tokeniser)
    return CompiledForward(keep(folder, graph, tokeniser, reference) if folder else graph, threads)


def resolve(name: str) -> Path:
    """The folder of a model: a local path, else an installed package that carries the weights, else a hub download."""
    if Path(name).is_dir():
        return Path(name)
    spec = importlib.util.find_spec(name.replace("-", "_")) if name.replace("-", "_").isidentifier() else None
    for location in (spec.submodule_search_locations or []) if spec else []:
        for modules in sorted(Path(location).glob("**/modules.json")):
            return modules.parent
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.txt", "*.model", "*.safetensors"]))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise ConfigError(
            f'indexer.encoder = "{name}" is neither a folder nor an installed package that carries a model, and the '
            f"hub did not give it: {error}"
        ) from error


def fingerprint(path: Path) -> str:
    """SHA-256 over the model's files that decide a vector, and the version of the text normalisation; 16 hex digits."""
    digest = hashlib.sha256(b"vitrine-text-1")
    for file in sorted({file for name in _DECISIVE for file in path.glob(name)}):
        digest.update(file.relative_to(path).as_posix().encode())
        with file.open("rb") as content:
            digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()[:16]


def load_sentence_transformer(path: Path, device: torch.device) -> "SentenceTransformer":
    """The model of a folder. Raises `ConfigError` where it holds none."""
    # Its import takes two seconds, which a server that finds its encoder compiled need not spend.
    from sentence_transformers import SentenceTransformer

    try:
        return SentenceTransformer(str(path), device=str(device)).eval()
    except (OSError, ValueError) as error:
        raise ConfigError(f"indexer.encoder: {path} does not hold a sentence-transformers model: {error}") from error


def _half_forward(model: "SentenceTransformer", tokeniser: Tokeniser, device: torch.device) -> Forward:
    # `half` changes the model itself, which the reference still needs in float32.
    return _torch_forward(copy.deepcopy(model).half(), tokeniser, device)


def _torch_forward(model: "SentenceTransformer", tokeniser: Tokeniser, device: torch.device) -> Forward:
    def forward(input_ids: np.ndarray, attention_mask: np.ndarray) -> Floats:
        arrays = tokeniser.features(input_ids, attention_mask)
        features = {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
        with torch.inference_mode():
            vectors = torch.nn.functional.normalize(model(features)["sentence_embedding"].float(), dim=1)
        return np.asarray(vectors.cpu().numpy(), np.float32)

    return forward
