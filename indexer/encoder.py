"""Texts to unit vectors, by any sentence-transformers model; compiled or in half precision where that agrees."""

import hashlib
import importlib.util
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain, islice, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from indexer import fallbacks
from indexer.agreement import Batch, CardForward, Catalogue, Forward, agreeing, probe_batches
from indexer.arrays import Floats
from indexer.backends import Backend, candidates
from indexer.batches import CARD, CPU, FEW, parts
from indexer.choice import EXACT, Choice, Trial
from indexer.config import IndexerConfig
from indexer.device import card
from indexer.errors import ConfigError
from indexer.kept import keep, open_kept, workshop
from indexer.text import normalise
from indexer.tokenise import Tokeniser

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer

K = TypeVar("K")

# The files of a model folder that decide a vector: weights, tokeniser, greatest length and the modules after the model.
_DECISIVE = (
    *("modules.json", "config.json", "tokenizer.json", "vocab.txt", "sentence_bert_config.json", "*.model"),
    *("*.safetensors", "pytorch_model*.bin", "*/config.json", "*/*.safetensors", "*/pytorch_model*.bin"),
)


class Encoder:
    """The one object that embeds titles and queries. Safe to call from several threads.

    `fingerprint` names weights, tokeniser and text normalisation: vectors of one fingerprint are comparable. `tuned`
    says what an encoder tuned on the shop's log has seen of it, `choice` how its backend was chosen (`choice.Choice`).
    `tokeniser` and `forward` are its two halves, for who runs them in different processes.
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
        choice: Mapping[str, Any] | None = None,
    ):
        self.name = name
        self.fingerprint = fingerprint
        self.dimensions = dimensions
        self.backend = backend
        self.tuned = tuned
        self.choice = choice
        self.tokeniser = tokeniser
        self.forward = forward
        self._limits = CARD if isinstance(forward, CardForward) else CPU

    def encode(self, texts: Sequence[str], progress: Callable[[int], None] | None = None) -> Floats:
        """Unit vectors float32 [texts, dimensions]; `progress` is told how many more texts are done."""
        vectors = np.empty((len(texts), self.dimensions), np.float32)
        for places, made in self._embedded(self._batches(texts)):
            vectors[places] = made
            if progress:
                progress(len(places))
        return vectors

    def on_device(self, texts: Sequence[str]) -> "torch.Tensor":
        """As `encode`, but where the vectors were computed; see `CardEncoder.on_device`."""
        import torch

        if not isinstance(self.forward, CardForward) or not len(texts):
            return torch.from_numpy(self.encode(texts))
        rows = self.tokeniser([normalise(text) for text in texts])
        batches = [self.tokeniser.pad(rows[start : start + FEW]) for start in range(0, len(rows), FEW)]
        made = [self.forward.on_device(*batch) for batch in batches]
        return made[0] if len(made) == 1 else self.forward.owner.run(partial(torch.cat, made))

    def warm_up(self) -> None:
        """Have done whatever a card does at the first batch of a shape."""
        if isinstance(self.forward, CardForward):
            self.forward.warm_up()

    def stream(self, texts: Iterable[str]) -> Iterator[tuple[list[str], Floats]]:
        """Texts, in another order than they came, with their unit vectors float32 [batch, dimensions].

        While one window of them is embedded, a thread tokenises the next: the tokenizer lets go of Python's lock.
        """
        yield from self._embedded(self._tokenised(texts))

    def _tokenised(self, texts: Iterable[str]) -> Iterator[tuple[list[str], Batch]]:
        rest, sizes = iter(texts), chain([self._limits.first], repeat(self._limits.window))

        def window() -> list[tuple[list[str], Batch]]:
            held = list(islice(rest, next(sizes)))
            return [([held[place] for place in places], batch) for places, batch in self._batches(held)]

        with ThreadPoolExecutor(1, "tokenise") as pool:
            coming = pool.submit(window)
            while batches := coming.result():
                coming = pool.submit(window)
                yield from batches

    def _batches(self, texts: Sequence[str]) -> Iterator[tuple[list[int], Batch]]:
        """The places of texts of like lengths, so that little of a batch is padding, and those texts tokenised."""
        rows = self.tokeniser([normalise(text) for text in texts])
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        for part in parts([len(rows[i]) for i in order], self._limits):
            places = order[part]
            yield places, self.tokeniser.pad([rows[i] for i in places])

    def _embedded(self, batches: Iterable[tuple[K, Batch]]) -> Iterator[tuple[K, Floats]]:
        """Each batch's vectors. A card has begun the next when those of one are handed out."""
        if not isinstance(self.forward, CardForward):
            for key, batch in batches:
                yield key, self.forward(*batch)
            return
        begun: list[tuple[K, Callable[[], Floats]]] = []
        for key, batch in batches:
            begun.append((key, self.forward.later(*batch)))
            if len(begun) > 1:
                first, vectors = begun.pop(0)
                yield first, vectors()
        for key, vectors in begun:
            yield key, vectors()


def load_encoder(config: IndexerConfig, tuned: Mapping[str, Any] | None = None, kept: Path | None = None) -> Encoder:
    """The configured model on the configured device. Raises `ConfigError` where it or its backend cannot be had.

    What was chosen and compiled for the CPU is left in `kept`, by fingerprint, and found there the next time.
    """
    path = resolve(config.encoder)
    device = card(config.device)
    name = fingerprint(path)
    folder = kept / name if kept and device is None and config.backend != "torch" else None
    found = open_kept(folder, config.backend, config.threads) if folder else None
    if found and found.forward:
        opened = (found.tokeniser, found.forward, found.dimensions)
        return Encoder(config.encoder, name, *opened, found.name, tuned, found.told)
    model = load_sentence_transformer(path)
    longest = model.max_seq_length or 512
    tokeniser = Tokeniser.of(model.tokenizer, longest)
    exact = _torch_forward(model, tokeniser)
    dimensions = exact(*probe_batches(tokeniser)[0]).shape[1]
    if found:
        choice = Choice(EXACT, exact, found.told)
    else:
        on_card = None if device is None else _on_card(model, tokeniser, longest, exact, device)
        choice = on_card or _chosen(model, tokeniser, exact, config, folder)
    if config.backend not in ("auto", choice.name.partition("-")[0]):
        raise ConfigError(f'indexer.backend = "{config.backend}" is for the CPU, the encoder runs on {device}.')
    return Encoder(config.encoder, name, tokeniser, choice.forward, dimensions, choice.name, tuned, choice.told or None)


def _on_card(
    model: "SentenceTransformer", tokeniser: Tokeniser, longest: int, exact: Forward, device: "torch.device"
) -> Choice | None:
    """In half precision, or else in float32; None, with a warning, where the card cannot be used."""
    # Imported here, as in all that a server on the CPU imports.
    import torch

    from indexer.card_encoder import CardEncoder

    batches = probe_batches(tokeniser)
    reference = [exact(*batch) for batch in batches]
    for dtype, instead in ((torch.float16, "in float32"), (torch.float32, "on the CPU")):
        name = str(dtype).replace(".", "-")
        make = partial(CardEncoder, model, tokeniser, device, dtype, longest)
        if forward := agreeing(make, batches, reference, f"{name} on {device}", instead):
            return Choice(name, forward, {})
    fallbacks.count("encoder")
    return None


def _chosen(
    model: "SentenceTransformer", tokeniser: Tokeniser, exact: Forward, config: IndexerConfig, folder: Path | None
) -> Choice:
    """What runs fastest on the CPU, of all or of the configured kind; kept in `folder`."""
    if config.backend == "torch":
        return Choice(EXACT, exact, {})
    backends = candidates(config.backend)
    if not backends:
        if config.backend != "auto":
            raise ConfigError(
                f'indexer.backend = "{config.backend}" is not installed. Install the extra of this package that brings '
                'it (cpu: OpenVINO, onnx: ONNX Runtime), or set it to "auto".'
            )
        logger.warning("The encoder runs in float32: neither OpenVINO nor ONNX Runtime is installed.")
        return Choice(EXACT, exact, {})
    batches = probe_batches(tokeniser)
    reference = [exact(*batch) for batch in batches]
    trial = Trial(exact, batches, reference, Catalogue(tokeniser))
    with workshop(folder) as made:
        forms = {each.name: partial(_compiled, each, model, tokeniser, made, config.threads) for each in backends}
        choice = trial.fastest(forms, or_exact=config.backend == "auto")
        if choice is None:
            why = "; ".join(f"{name} {told['refused']}" for name, told in trial.told.items() if "refused" in told)
            raise ConfigError(f'indexer.backend = "{config.backend}" cannot be used: {why}. Set it to "auto".')
        if folder:
            keep(folder, made, choice, config.backend, tokeniser, reference)
    return choice


def _compiled(
    backend: Backend, model: "SentenceTransformer", tokeniser: Tokeniser, made: Path, threads: int
) -> Forward:
    # What was written is opened, since its vectors differ from the traced model's in their last bits.
    backend.write(model, tokeniser, made)
    return backend.open(made, threads)


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


def load_sentence_transformer(path: Path, device: "torch.device | str" = "cpu") -> "SentenceTransformer":
    """The model of a folder. Raises `ConfigError` where it holds none."""
    # Its import takes two seconds, which a server that finds its encoder compiled need not spend.
    from sentence_transformers import SentenceTransformer

    try:
        return SentenceTransformer(str(path), device=str(device)).eval()
    except (OSError, ValueError) as error:
        raise ConfigError(f"indexer.encoder: {path} does not hold a sentence-transformers model: {error}") from error


def _torch_forward(model: "SentenceTransformer", tokeniser: Tokeniser) -> Forward:
    import torch

    def forward(input_ids: np.ndarray, attention_mask: np.ndarray) -> Floats:
        arrays = tokeniser.features(input_ids, attention_mask)
        features = {name: torch.from_numpy(array) for name, array in arrays.items()}
        with torch.inference_mode():
            vectors = torch.nn.functional.normalize(model(features)["sentence_embedding"].float(), dim=1)
        return np.asarray(vectors.numpy(), np.float32)

    return forward
