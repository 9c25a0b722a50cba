import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from indexer.errors import ConfigError
from indexer.store import Store
from server import doctor
from server.cli import app
from server.machine import Card, Machine, Space, look


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In an empty folder, without a card."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("VITRINE_CONFIG", raising=False)
    monkeypatch.chdir(tmp_path)


def asked(*words: str) -> Result:
    return CliRunner().invoke(app, ["doctor", *words])


def test_it_works_before_there_is_a_configuration() -> None:
    result = asked()
    assert result.exit_code == 0
    for word in ("PyTorch", "FAISS", "openvino", "this machine", "what will be used", "encoder, build", "dense search"):
        assert word in result.output


def test_a_configuration_that_is_named_must_be_there() -> None:
    result = asked("--config", "other.toml")
    assert isinstance(result.exception, ConfigError)
    assert "other.toml cannot be read" in str(result.exception)


def test_as_json(tmp_path: Path) -> None:
    result = asked("--json")
    assert result.exit_code == 0
    told = json.loads(result.output)
    assert set(told["machine"]) == set(Machine._fields)
    assert told["machine"]["memory"]["total"] == look(tmp_path).memory.total
    assert [use["stage"] for use in told["uses"]][:3] == ["encoder, build", "encoder, serve", "dense search"]
    assert not any(use["fault"] for use in told["uses"])


def test_a_card_is_shown_with_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    def with_card(store: Path) -> Machine:
        card = Card("Big", "sm_90", Space(2**30, 2**32))
        return look(store)._replace(cards=(card,), driver="570.1", driver_cards=1, torch_cuda="13.0", faiss_cards=1)

    monkeypatch.setattr(doctor, "look", with_card)
    output = asked().output
    for words in ("Big, sm_90, 1.0 of 4.0 GiB free", "570.1", "CUDA 13.0", "sees 1 cards"):
        assert words in output
    assert json.loads(asked("--json").output)["machine"]["cards"][0]["memory"] == {"free": 2**30, "total": 2**32}


@pytest.mark.parametrize("words", [(), ("--json",)])
def test_what_is_asked_for_and_not_there_ends_with_exit_code_2(words: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "vitrine.toml").write_text('[indexer]\ndevice = "cuda:0"\n')
    result = asked(*words)
    # First it is shown, then refused.
    assert "encoder, build" in result.output
    assert isinstance(result.exception, ConfigError)
    assert result.exception.exit_code == 2
    # Three stages ask for it, and are told once.
    assert str(result.exception).count('indexer.device = "cuda:0"') == 1


def test_the_newest_index_says_what_is_searched(tmp_path: Path) -> None:
    manifest = {"index": {"kind": "IVF7,Flat"}, "counts": {"products": 3}, "dimensions": 4}
    Store(tmp_path / "store").publish("indexes", lambda _: manifest)
    assert "CPU, IVF7,Flat" in asked().output
