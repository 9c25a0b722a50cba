"""The file of rules: what it says, and what is told where something in it is wrong."""

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from indexer.errors import ConfigError
from server.filters import All, Equals, In, Range
from server.rule_file import MOST_PINS, MOST_RULES, read_rules
from server.rules import Boost, Rule

WHOLE = """
[[rule]]
name = "summer boots"
on = ["search"]
queries = ["Hiking  BOOTS", "Boots"]
words = ["waterproof boots"]
from = 2026-06-01
until = 2026-09-01T02:00:00+02:00
pin = ["P12", "P99"]
hide = { brand = "Acme" }
only = { category = ["Boots", "Shoes"], price = { least = 10, most = 80 }, in_stock = true }
boost = [{ where = { brand = "Nord" }, times = 2 }, { where = { price = { most = 9.5 } }, times = 0.5 }]
rewrite = "hiking boots"
redirect = "https://shop.example/sale"
"""


def written(folder: Path, content: str | bytes) -> Path:
    path = folder / "rules.toml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def one(line: str) -> str:
    """A rule that is whole but for `line`."""
    return f'[[rule]]\nname = "r"\npin = ["P1"]\n{line}\n'


def test_a_whole_rule(tmp_path: Path) -> None:
    (rule,) = read_rules(written(tmp_path, WHOLE))
    assert (rule.name, rule.on, rule.queries) == ("summer boots", {"search"}, {"hiking boots", "boots"})
    assert rule.words == {"waterproof", "boot"}
    assert rule.begins == datetime(2026, 6, 1, tzinfo=UTC).timestamp()
    assert rule.ends == datetime(2026, 9, 1, tzinfo=UTC).timestamp()
    assert rule.pin == ("P12", "P99")
    # By what they read as, since tuples are equal whatever their names.
    parts = [In("category", ["Boots", "Shoes"]), Range("price", 10.0, 80.0), Equals("in_stock", True)]
    boosts = (Boost(Equals("brand", "Nord"), 2.0), Boost(Range("price", None, 9.5), 0.5))
    told = map(repr, (rule.hide, rule.only, rule.boosts))
    assert list(told) == list(map(repr, (Equals("brand", "Acme"), All(parts), boosts)))
    assert (rule.rewrite, rule.redirect) == ("hiking boots", "https://shop.example/sale")


def test_the_documented_file(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")
    (block,) = (block for block in re.findall(r"```toml\n(.*?)```", page, re.S) if "[[rule]]" in block)
    boots, acme = read_rules(written(tmp_path, block))
    assert (boots.on, acme.on) == ({"search"}, {"recommend", "similar"})
    assert (boots.pin, boots.rewrite, boots.redirect) == (("P12", "P99"), "hiking boots", "https://shop.example/sale")
    assert (boots.boosts, acme.hide) == ((Boost(Equals("brand", "Nord"), 2.0),), Equals("brand", "Acme"))
    assert acme.only == All([In("category", ["Boots", "Shoes"]), Range("price", 10.0, 80.0)])


def test_what_is_left_out(tmp_path: Path) -> None:
    assert read_rules(written(tmp_path, "# none yet\n")) == []
    (always,) = read_rules(written(tmp_path, one("")))
    assert always == Rule("r", {"search", "recommend", "similar"}, pin=("P1",))
    assert always.is_due(0.0)
    (searched,) = read_rules(written(tmp_path, one('words = ["mug"]')))
    assert searched.on == {"search"}


def test_rules_come_in_the_files_order(tmp_path: Path) -> None:
    names = ["b", "a", "c"]
    content = "".join(f'[[rule]]\nname = "{name}"\nhide = {{ brand = "x" }}\n' for name in names)
    assert [rule.name for rule in read_rules(written(tmp_path, content))] == names


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('querys = ["a"]', r"rule 'r': querys: unknown key\. Did you mean queries\? Known: name, on, queries"),
        ("form = 2026-01-01", r"form: unknown key\. Did you mean from\?"),
        (
            "boost = [{ were = { a = 1 }, times = 2.0 }]",
            r"boost\.0\.were: unknown key\. Did you mean where\? Known: where, t",
        ),
        ("hide = { price = { lest = 1 } }", r"hide: price: unknown key\. Did you mean least\?"),
        ("queries = 'boots'", r"queries: must be a list"),
        ("queries = [1]", r"queries\.0: .*string \(got 1\)"),
        ("queries = []", r"queries: is empty; give one, or leave it out"),
        ("queries = [' ']", r"queries: a blank query is never asked"),
        ("words = ['!']", r"words: '!' holds no word"),
        ("words = []", r"words: is empty"),
        ("on = []", r"on: is empty"),
        ("on = ['serch']", r"on: there is no 'serch'; there are search, recommend, similar"),
        ("queries = ['a']\non = ['search', 'similar']", r"rule 'r': queries and words are those of a search"),
        ("words = ['a']\non = ['recommend']", r"rule 'r': queries and words are those of a search"),
        ("from = '2026-01-01'", r"from: must be a date such as 2026-06-01, .* without quotes"),
        ("until = 07:32:00", r"until: must be a date"),
        ("from = 2026-01-01T08:00:00", r"from: .* says no offset; write 2026-01-01T08:00:00Z for UTC"),
        ("from = 2026-01-01\nuntil = 2026-01-01", r"rule 'r': from must be before until"),
        ("from = 2026-01-01T00:00:01Z\nuntil = 2026-01-01", r"rule 'r': from must be before until"),
        ("hide = 'Acme'", r"hide: must be a table of columns and values"),
        ("hide = {}", r"hide: must be a table of columns and values"),
        ("hide = { brand = [] }", r"hide: brand: a list needs one value or more, all of one type"),
        ("hide = { brand = ['a', 1] }", r"hide: brand: a list needs one value or more, all of one type"),
        ("hide = { brand = [['a']] }", r"hide: brand: .* cannot be compared with"),
        ("hide = { day = 2026-01-01 }", r"hide: day: 2026-01-01 cannot be compared with; give a string, a number"),
        ("hide = { price = nan }", r"hide: price: nan cannot be compared with"),
        ("hide = { price = 1" + "0" * 400 + " }", r"hide: price: 10+ cannot be compared with"),
        ("only = { price = {} }", r"only: price: is empty; give least, most or both"),
        ("only = { price = { least = true } }", r"only: price\.least: True cannot be compared with; give a number"),
        ("only = { price = { most = inf } }", r"only: price\.most: inf cannot be compared with"),
        ("only = { price = { least = 2, most = 1 } }", r"only: price: no number is at least 2 and at most 1"),
        ("boost = []", r"boost: is empty"),
        ("boost = [2.0]", r"boost\.0: must be a table"),
        ("boost = [{ times = 2.0 }]", r"boost\.0\.where: must be given"),
        ("boost = [{ where = { a = 1 } }]", r"boost\.0\.times: must be given"),
        ("boost = [{ where = { a = 1 }, times = 0 }]", r"boost\.0\.times: .*0\.001 \(got 0\)"),
        ("boost = [{ where = { a = 1 }, times = -1 }]", r"boost\.0\.times: .*\(got -1\)"),
        ("boost = [{ where = { a = 1 }, times = inf }]", r"boost\.0\.times: .*1000 \(got inf\)"),
        ("boost = [{ where = { a = 1 }, times = nan }]", r"boost\.0\.times: .*\(got nan\)"),
        ("boost = [{ where = { a = 1 }, times = true }]", r"boost\.0\.times: .*number \(got True\)"),
        ("boost = [{ where = { a = 1 }, times = '2' }]", r"boost\.0\.times: .*number \(got 2\)"),
        ("rewrite = 'boots'", r"rule 'r': rewrite and redirect need queries or words"),
        ("redirect = '/sale'\non = ['search']", r"rule 'r': rewrite and redirect need queries or words"),
        ("rewrite = ' '\nqueries = ['a']", r"rewrite: is blank"),
        ("redirect = ''\nqueries = ['a']", r"redirect: .*at least 1 character"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, line: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        read_rules(written(tmp_path, one(line)))
    assert "rule 'r'" in str(caught.value)
    assert "rules.toml cannot be used" in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("[[rules]]\nname = 'r'", r"rules: unknown key\. Did you mean rule\? Known: rule"),
        ("rule = 3", r"rule: must be a list"),
        ("rule = [3]", r"rule 1, without a name: must be a table"),
        ("[[rule]]\npin = ['a']", r"rule 1, without a name: name: must be given"),
        ("[[rule]]\nname = ''\npin = ['a']", r"rule '': name: .*at least 1 character"),
        ("[[rule]]\nname = 3\npin = ['a']", r"rule 1, without a name: name: .*string \(got 3\)"),
        ("[[rule]]\nname = 'r'", r"rule 'r': does nothing; give pin, hide, only, boost, rewrite or redirect"),
        ("[[rule]]\nname = 'r'\npin = []", r"rule 'r': pin: is empty"),
        ("[[rule]]\nname = 'r'\npin = ['a', 'b', 'a']", r"rule 'r': pin: 'a' is there twice"),
        (one("") + one(""), r"rule 'r': is there more than once; rename one"),
        (f"[[rule]]\nname = 'r'\npin = {[str(i) for i in range(MOST_PINS + 1)]}", r"rule 'r': pin: .* at most 100 are"),
        ("[[rule", "is not valid TOML"),
        (b"\xff", "is not valid TOML"),
        ("x = " + "[" * 100_000, "is not valid TOML"),
    ],
)
def test_a_mistake_of_the_whole(tmp_path: Path, content: str | bytes, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        read_rules(written(tmp_path, content))
    assert "rules.toml" in str(caught.value)


def test_every_mistake_is_told_at_once(tmp_path: Path) -> None:
    content = "[[rule]]\nname = 'a'\nhide = 3\npin = [1]\n[[rule]]\nname = 'b'\n"
    with pytest.raises(ConfigError) as caught:
        read_rules(written(tmp_path, content))
    assert all(told in str(caught.value) for told in ("rule 'a': hide:", "rule 'a': pin.0:", "rule 'b': does nothing"))


def test_no_more_rules_than_are_accepted(tmp_path: Path) -> None:
    def many(count: int) -> str:
        return "".join(f"[[rule]]\nname = '{i}'\npin = ['a']\n" for i in range(count))

    assert len(read_rules(written(tmp_path, many(MOST_RULES)))) == MOST_RULES
    with pytest.raises(ConfigError, match=r"rule: is too long: at most 1,000 are accepted"):
        read_rules(written(tmp_path, many(MOST_RULES + 1)))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.toml cannot be read: .* Mend server\.rules, or leave it out"):
        read_rules(tmp_path / "gone.toml")
