"""Reading: YAML 1.2 values, places, bounds, and nothing but configuration errors for whatever comes."""

from __future__ import annotations

import json
import math
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from config_fuzzing import TEXTS, bombs, damaged_files, load, read
from config_support import DATA, place_of, plain_data
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mtf_config import ConfigurationError, ConfigurationManager, LocatedProblem
from mtf_config.builder import MAX_DEPTH, MAX_NODES
from mtf_config.reader import MAX_BYTES, parse_text, read_document


def failure(content: bytes | str, *, is_json: bool = False) -> LocatedProblem:
    """The one problem of a text."""
    with pytest.raises(ConfigurationError) as caught:
        parse_text(content, "file", is_json=is_json)
    (problem,) = caught.value.problems
    assert isinstance(problem, LocatedProblem)
    return problem


def mark(problem: LocatedProblem) -> tuple[int, int]:
    assert problem.source is not None
    return problem.source.line, problem.source.column


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-8", 1e-8), ("1E5", 1e5), ("-1.5e+3", -1500.0), (".5", 0.5), ("5.", 5.0), ("+1", 1), ("-0", 0),
        ("0o17", 15), ("0x1F", 31), ("017", 17), ("08", 8), (".inf", math.inf), ("-.INF", -math.inf),
        ("true", True), ("False", False), ("TRUE", True), ("null", None), ("~", None), ("Null", None), ("", None),
        ("no", "no"), ("yes", "yes"), ("on", "on"), ("Off", "Off"), ("y", "y"), ("24:00:00", "24:00:00"),
        ("1_000", "1_000"), ("2026-01-31", "2026-01-31"), ("0b11", "0b11"), ("1.2.3", "1.2.3"), ("e5", "e5"),
        ("1e", "1e"), (".", "."), ("-", None), ("0o8", "0o8"), ("=", "="), ("tRue", "tRue"), ("٣", "٣"),
        ("'1'", "1"), ('"true"', "true"), ("! 1", "1"), ("!!str 1", "1"), ("!!float 1", 1.0), ("!!int '7'", 7),
        ("!!null ''", None), ("!!bool 'true'", True),
    ],
)  # fmt: skip
def test_scalars_mean_what_yaml_1_2_says(text: str, value: Any) -> None:
    if text == "-":
        assert parse_text("a:\n  -", "file").data == {"a": [None]}
        return
    found = parse_text(f"a: {text}", "file").data["a"]
    assert found == value
    assert type(found) is type(value)


def test_nan_is_read() -> None:
    assert math.isnan(parse_text("a: .nan", "file").data["a"])


def test_anchors_are_copied_and_merged() -> None:
    text = "a: &x {p: 1, q: [1]}\nb: *x\nc:\n  <<: *x\n  p: 2\nd: {<<: [{p: 5}, *x], r: 3}\n'<<': kept\n"
    data = parse_text(text, "file").data
    assert data["b"] == {"p": 1, "q": [1]}
    assert data["b"] is not data["a"]
    assert data["b"]["q"] is not data["a"]["q"]
    assert data["c"] == {"p": 2, "q": [1]}
    assert data["d"] == {"p": 5, "q": [1], "r": 3}
    assert data["<<"] == "kept"


def test_places_of_keys_and_values() -> None:
    text = (DATA / "vision.yaml").read_text()
    document = read_document(DATA / "vision.yaml")
    for path, key, value in [
        (("training", "batch_size"), "batch_size", "0x40"),
        (("model", "channels", 1), None, "32]"),
        (("data", "preprocessing", "normalize"), "normalize", "yes please"),
        (("slurm", "setup", 1), None, "source .venv"),
        (("data", "preprocessing", "std"), "std", "&half"),
        (("performance", "num_workers"), "num_workers", "4, prefetch"),
    ]:
        found = document.position(path)
        assert found is not None
        assert found[1:] == place_of(text, value)
        if key:
            found = document.position(path, of_key=True)
            assert found is not None
            assert found[1:] == place_of(text, key)


def test_the_place_of_what_is_missing_is_where_it_would_belong() -> None:
    document = parse_text("a: 1\nmodel:\n  b: {c: 1}\n", "file")
    assert str(document.position(("model", "name"), of_key=True)) == "file:2:1"
    assert str(document.position(("model", "b", "x", "y"), of_key=True)) == "file:3:3"
    assert str(document.position(("training",), of_key=True)) == "file:1:1"


def test_places_in_json() -> None:
    text = (DATA / "language.json").read_text()
    document = read_document(DATA / "language.json")
    assert document.data == json.loads(text)
    found = document.position(("training", "batch_size"))
    assert found is not None
    assert found[1:] == place_of(text, '8,\n    "learning')


@pytest.mark.parametrize(
    ("text", "where", "message"),
    [
        ("a: [1, 2\nb: 3\n", (2, 2), "flow sequence"),
        ("a: 'x\n", (2, 1), "quoted scalar"),
        ("a: 1\n b: 2\n", (2, 3), "mapping"),
        ("a:\n\t- 1\n", (2, 1), "token"),
        ("a: 1\nb: *x\n", (2, 4), "not defined"),
        ("a: &x [1, *x]\n", (1, 11), "contains itself"),
        ("a: 1\n---\nb: 2\n", (2, 1), "second"),
        ("? [1]\n: 2\n", (1, 3), "expected a string as key"),
        ("{a: {}}: 2\n", (1, 1), "expected a string as key"),
        ("a: !!python/object/apply:os.system [id]\n", (1, 4), "not accepted"),
        ("a: !!binary aGk=\n", (1, 4), "not accepted"),
        ("a: !mine 3\n", (1, 4), "not accepted"),
        ("a: !!int x\n", (1, 4), "not what its tag"),
        ("a: x\x07y\n", (1, 5), "U+0007"),
        ("é: 1\nb: \x00\n", (2, 4), "U+0000"),
        ("a:\n  <<: 3\n", (2, 3), "merge"),
        (f"a: {'9' * 5000}\n", (1, 4), "5000 digits"),
        (".nan: 1\n", (1, 1), ".nan"),
    ],
)
def test_what_cannot_be_read_is_reported_with_its_place(text: str, where: tuple[int, int], message: str) -> None:
    problem = failure(text)
    assert mark(problem) == where
    assert message in problem.message


def test_every_duplicate_key_is_reported() -> None:
    text = "a: 1\nb: {c: 1, d: 2, c: 3}\na: 2\nb: {}\n"
    with pytest.raises(ConfigurationError) as caught:
        parse_text(text, "file")
    marks = [mark(problem) for problem in caught.value.problems if isinstance(problem, LocatedProblem)]
    assert marks == [(2, 17), (3, 1), (4, 1)]


def test_duplicate_keys_of_json_are_reported_with_their_place() -> None:
    problem = failure('{"a": 1,\n "b": {"x": 1,\n  "x": 2}}', is_json=True)
    assert mark(problem) == (3, 3)


TRAILING_COMMA = (1, 8) if sys.version_info >= (3, 13) else (1, 9)  # of the comma, or of what follows it


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ('{"a": 1,}', TRAILING_COMMA),
        ("{'a': 1}", (1, 2)),
        ("", (1, 1)),
        ('{"a": NaN}', (1, 1)),
        ('{"a": "\\ud800"}', (1, 7)),
    ],
)
def test_json_is_strict(text: str, where: tuple[int, int]) -> None:
    assert mark(failure(text, is_json=True)) == where


def test_a_byte_order_mark_is_no_content_and_moves_no_place() -> None:
    assert parse_text(b"\xef\xbb\xbfa: 1", "file").data == {"a": 1}
    assert parse_text("\ufeffa: 1", "file").data == {"a": 1}
    assert mark(failure(b"\xef\xbb\xbfa: *x")) == (1, 4)


def test_other_encodings_are_refused_with_their_place() -> None:
    problem = failure("a: 1\nb: ü\n".encode("latin-1"))
    assert mark(problem) == (2, 4)
    assert "0xfc" in problem.message
    assert "UTF-8" in failure("a: 1".encode("utf-16")).message


def test_depth_is_bounded() -> None:
    assert parse_text("[" * MAX_DEPTH + "]" * MAX_DEPTH, "file").data is not None
    for opening in ("[", "{a: ", "- "):
        assert "deep" in failure(opening * 100_000).message
    assert "deep" in failure("[" * 2000 + "]" * 2000, is_json=True).message
    assert "deep" in failure("[" * 200_000, is_json=True).message


def test_size_is_bounded(tmp_path: Path) -> None:
    assert "larger than" in failure("a: " + "x" * MAX_BYTES).message
    path = tmp_path / "large.yaml"
    with path.open("wb") as file:
        file.truncate(2**40)  # sparse: a terabyte that takes no space
    with pytest.raises(ConfigurationError, match="larger than"):
        read_document(path)


def test_the_number_of_values_is_bounded() -> None:
    assert "more than" in failure("[" + "0," * (MAX_NODES + 10) + "]").message
    assert "more than" in failure("[" + "0," * (MAX_NODES + 10) + "0]", is_json=True).message


def test_aliases_cannot_make_much_of_little() -> None:
    tracemalloc.start()
    try:
        problem = failure(bombs()["aliases of aliases"])
        assert tracemalloc.get_traced_memory()[1] < 100 * 2**20
    finally:
        tracemalloc.stop()
    assert "more than" in problem.message


@pytest.mark.parametrize("name", ["missing.yaml", "folder", "a\0b"])
def test_what_is_no_file_is_a_configuration_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigurationError, match="cannot read it"):
        read_document(tmp_path / name)


@settings(max_examples=300)
@given(TEXTS, st.booleans())
@example("? ", False)
@example("a: ! ", False)
@example("\ud800", False)
def test_nothing_but_configuration_errors(content: bytes | str, is_json: bool) -> None:
    read(content, is_json=is_json)


def test_damaged_files_give_nothing_but_configuration_errors(manager: ConfigurationManager) -> None:
    loaded = [load(content, name, manager) for content, name in damaged_files(600, seed=5)]
    assert 0 < sum(loaded) < len(loaded)  # they are neither all broken nor all sound


@pytest.mark.parametrize("name", bombs())
def test_bombs_are_defused(name: str, manager: ConfigurationManager) -> None:
    for file in ("experiment.yaml", "experiment.json", "sweep.yaml"):
        assert not load(bombs()[name], file, manager)


@given(plain_data())
def test_json_and_yaml_readings_of_json_agree(value: Any) -> None:
    text = json.dumps({"value": value})
    as_json = parse_text(text, "file", is_json=True)
    assert as_json.data == {"value": value}
    if "\\ud" not in text and "\\u007f" not in text:
        assert parse_text(text, "file").data == {"value": value}
