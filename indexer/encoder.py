"""Texts to unit vectors, by any sentence-transformers model; compiled on the CPU where that agrees with float32."""

import copy
import hashlib
import importlib.util
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

from indexer.arrays import Floats
from indexer.compiled import CompiledForward
from indexer.config import IndexerConfig
from indexer.device import choose
from indexer.errors import ConfigError
from indexer.text import normalise
from indexer.tokenise import Tokeniser

logger = logging.getLogger(__name__)

# The least cosine between compiled and float32 vectors of the probe texts below which the compiled model is not used.
AGREEMENT = 0.999
_BATCH = 32
# The files of a model folder that decide a vector: weights, tokeniser, greatest length and the modules after the model.
_DECISIVE = (
    *("modules.json", "config.json", "tokenizer.json", "vocab.txt", "sentence_bert_config.json", "*.model"),
    *("*.safetensors", "pytorch_model*.bin", "*/config.json", "*/*.safetensors", "*/pytorch_model*.bin"),
)
_PROBE = (
    "red dress",
    "3/4 in. x 10 ft. galvanized steel pipe",
    "Nordic Waterproof Hiking Boots, Brown, Size 42",
    "usb-c charger 65w",
    "防水登山靴 棕色 42码",
    "wireless noise cancelling headphones with microphone and carrying case, black, 30 hours of battery",
    "a",
    "SET OF 3 CAKE TINS PANTRY DESIGN",
)


class Forward(Protocol):
    """One padded batch, int64 [texts, tokens] twice, to unit vectors float32 [texts, dimensions]."""

    def __call__(self, input_ids: np.ndarray, attention_mask: np.ndarray) -> Floats: ...


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


def load_encoder(config: IndexerConfig, tuned: Mapping[str, Any] | None = None) -> Encoder:
    """The configured model on the configured device. Raises `ConfigError` where it cannot be found."""
    path = resolve(config.encoder)
    device = choose(config.device)
    model = load_sentence_transformer(path, device)
    tokeniser = Tokeniser(model.tokenizer, model.max_seq_length or 512)
    exact = _torch_forward(model, tokeniser, device)
    forward, backend = exact, "torch-float32"
    if device.type == "cuda":
        forward, backend = _agreeing(lambda: _half_forward(model, tokeniser, device), exact, tokeniser, "torch-float16")
    elif config.backend in ("auto", "openvino"):
        forward, backend = _agreeing(
            lambda: CompiledForward(model, tokeniser, config.threads), exact, tokeniser, "openvino"
        )
    if config.backend == "openvino" and backend != "openvino":
        raise ConfigError('indexer.backend = "openvino" cannot be used: see the warning above. Set it to "auto".')
    dimensions = exact(*tokeniser.pad(tokeniser(_PROBE[:1]))).shape[1]
    return Encoder(config.encoder, fingerprint(path), tokeniser, forward, dimensions, backend, tuned)


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


def load_sentence_transformer(path: Path, device: torch.device) -> SentenceTransformer:
    """The model of a folder. Raises `ConfigError` where it holds none."""
    try:
        return SentenceTransformer(str(path), device=str(device)).eval()
    except (OSError, ValueError) as error:
        raise ConfigError(f"indexer.encoder: {path} does not hold a sentence-transformers model: {error}") from error


def _half_forward(model: SentenceTransformer, tokeniser: Tokeniser, device: torch.device) -> Forward:
    # `half` changes the model itself, which the reference still needs in float32.
    return _torch_forward(copy.deepcopy(model).half(), tokeniser, device)


def _torch_forward(model: SentenceTransformer, tokeniser: Tokeniser, device: torch.device) -> Forward:
    def forward(input_ids: np.ndarray, attention_mask: np.ndarray) -> Floats:
        arrays = tokeniser.features(input_ids, attention_mask)
        features = {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
        with torch.inference_mode():
            vectors = torch.nn.functional.normalize(model(features)["sentence_embedding"].float(), dim=1)
        return np.asarray(vectors.cpu().numpy(), np.float32)

    return forward


def _agreeing(make: Callable[[], Forward], exact: Forward, tokeniser: Tokeniser, backend: str) -> tuple[Forward, str]:
    """The forward that `make` gives if its vectors agree with the exact ones, else the exact one, with a warning."""
    rows = tokeniser([normalise(text) for text in _PROBE])
    batches = [tokeniser.pad([row]) for row in rows] + [tokeniser.pad(rows)]
    reference = [exact(*batch) for batch in batches]
    try:
        candidate = make()
        cosines = np.concatenate([(a * candidate(*batch)).sum(1) for a, batch in zip(reference, batches, strict=True)])
    except Exception as error:  # Whatever a compiler raises, the model itself still works.
        logger.warning("The encoder runs in float32: %s could not be used (%s).", backend, error)
        return exact, "torch-float32"
    if not cosines.min() >= AGREEMENT:
        logger.warning("The encoder runs in float32: %s agrees only to a cosine of %.5f.", backend, cosines.min())
        return exact, "torch-float32"
    return candidate, backend
