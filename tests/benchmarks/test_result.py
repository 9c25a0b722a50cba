"""What a result says of the machine it was made on."""

from pathlib import Path

import result

LISTING = """processor	: 0
model name	: A Processor
flags		: fpu sse2 avx2 avx512f amx_bf16 amx_tile

processor	: 1
model name	: A Processor
flags		: fpu sse2 avx2 avx512f amx_bf16 amx_tile
"""


def test_a_processor_is_told_by_its_name_and_by_what_it_can(tmp_path: Path) -> None:
    listing = tmp_path / "cpuinfo"
    listing.write_text(LISTING, encoding="utf-8")
    assert result._processor(listing) == ("A Processor", ["avx2", "avx512f", "amx_bf16"])


def test_where_nothing_is_listed_there_is_a_name_still(tmp_path: Path) -> None:
    name, extensions = result._processor(tmp_path / "nowhere")
    assert name
    assert extensions == []


def test_every_result_names_both() -> None:
    assert {"cpu", "extensions"} <= result.machine().keys()
