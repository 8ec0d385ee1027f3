"""Inputs that nobody would write: whatever comes, a text is read or refused with a place, and nothing else happens."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from typing import Any

from config_support import DATA
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mtf_config import ConfigurationError, ConfigurationManager, LocatedProblem, load_sweep
from mtf_config.reader import MAX_BYTES, Document, parse_text
from mtf_utils.problems import Problem

SWEEP = """\
base: {experiment_name: a, model: {name: b}, data: {dataset_name: c}, optimizer: {name: d}}
naming: descriptive
limits: {max_concurrent_jobs: 2}
command: [python, train.py]
grids:
  - name: g
    parameters: {seed: [1, 2], training.epochs: [3, 4]}
    linked: [{model.a: [1, 2], model.b: [x, y]}]
    conditional: [{key: optimizer.momentum, values: [0.9], when: {seed: 1}}]
    sampled: [{count: 2, ranges: {model.c: {low: 1, high: 9, scale: log}}}]
    computed: {model.d: 4 * seed + training.batch_size}
    exclude: [{seed: 2, training.epochs: 4}]
"""

FRAGMENTS = st.sampled_from(
    ["a: ", "- ", "\n", "  ", "\t", "{", "}", "[", "]", ",", ":", "?", "&x ", "*x", "<<: ", "!!str ", "!", "|", ">-",
     "'", '"', "#", "---", "...", "%YAML 1.2\n", "1e999", "0o", ".nan", "\\x", "\x85", "\u2028", "\ufeff", "\x00", "é"]
)  # fmt: skip
TEXTS: st.SearchStrategy[bytes | str] = (
    st.binary(max_size=200) | st.text(max_size=100) | st.lists(FRAGMENTS, max_size=25).map("".join)
)
ODD: tuple[Any, ...] = (
    None, True, -1, 0, 2**80, -0.0, 1e308, "", " ", "x" * 300, "a\nb", "${model}", "${a.b", "${env:}", "${env:A,b}",
    "${delete}", "${seed}", "../..", "\u0000", [], [[]], {}, {"": 0}, {"a.b": {"c": [None]}}, ["gpu"], "1-2:3", "é",
)  # fmt: skip


def read(content: bytes | str, *, is_json: bool) -> Document | None:
    """The document of a text; None if it is refused, and then every problem has a place.

    Raises:
        AssertionError: a problem has no place.
        Exception: anything else is a fault of the reader.
    """
    try:
        document = parse_text(content, "file", is_json=is_json)
        document.position(("a", 0, "b"))
    except ConfigurationError as error:
        _check(error.problems, located=True)
        return None
    return document


def load(content: bytes, name: str, manager: ConfigurationManager) -> bool:
    """Whether a file loads as what its name says; a refusal has its problems.

    Args:
        content: of the file.
        name: of the file; one that begins with `sweep` is read as a sweep, and its points are made.
        manager: of the folder that it is written to.

    Raises:
        AssertionError: an error has no problems.
        Exception: anything else is a fault of the package.
    """
    path = manager.config_dir / name
    path.write_bytes(content)
    try:
        if name.startswith("sweep"):
            search = load_sweep(path, manager).search
            for point, _ in zip(search.points(), range(20), strict=False):
                assert point.name
        else:
            manager.load_config(path)
    except ConfigurationError as error:
        _check(error.problems, located=False)
        return False
    return True


def _check(problems: tuple[Problem, ...], *, located: bool) -> None:
    assert problems
    for problem in problems:
        assert str(problem)
        if located:
            assert isinstance(problem, LocatedProblem)
            assert problem.source is not None
            assert min(problem.source[1:]) >= 1


def texts(count: int) -> Iterator[bytes | str]:
    """So many texts of Hypothesis."""
    found: list[bytes | str] = []

    @settings(max_examples=count, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(TEXTS)
    def collect(text: bytes | str) -> None:
        found.append(text)

    collect()
    return iter(found)


def damaged_files(count: int, seed: int) -> Iterator[tuple[bytes, str]]:
    """Content and name of so many real files with random bytes in them, or with values replaced or taken away."""
    chance = random.Random(seed)
    files = [(path.name, path.read_bytes()) for path in sorted(DATA.iterdir())] + [("sweep.yaml", SWEEP.encode())]
    for number in range(count):
        name, original = chance.choice(files)
        if number % 2:
            yield _with_noise(original, chance), name
        else:
            data = parse_text(original, name).data
            for _ in range(chance.randint(1, 4)):
                data = mangled(data, chance)
            yield json.dumps(data).encode(), name


def _with_noise(original: bytes, chance: random.Random) -> bytes:
    damaged = bytearray(original)
    for _ in range(chance.randint(1, 6)):
        at = chance.randrange(len(damaged))
        damaged[at : at + chance.randint(0, 3)] = chance.randbytes(chance.randint(0, 3))
    return bytes(damaged)


def mangled(data: Any, chance: random.Random) -> Any:
    """Data with one thing in it replaced, moved to another key, or taken away."""
    if not isinstance(data, dict | list) or not data or chance.random() < 0.1:
        return chance.choice(ODD)
    if isinstance(data, list):
        at = chance.randrange(len(data))
        return [*data[:at], mangled(data[at], chance), *data[at + 1 :]]
    key = chance.choice(list(data))
    rest = {other: value for other, value in data.items() if other != key}
    match chance.randrange(6):
        case 0:
            return rest
        case 1:
            return rest | {chance.choice(["", "name", "seed", key + ".x", key[:-1], "é"]): data[key]}
    return data | {key: mangled(data[key], chance)}


def bombs() -> Mapping[str, bytes]:
    """Small or bounded texts that would become something huge."""
    aliases = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    aliases += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 30)]
    merges = ["m0: &m0 {k: 1}"] + [f"m{n}: &m{n} {{<<: *m{n - 1}, k{n}: *m{n - 1}}}" for n in range(1, 60)]
    references = ["r0: " + "x" * 1000] + [f"r{n}: {f'${{r{n - 1}}}' * 20}" for n in range(1, 30)]
    return {
        "aliases of aliases": "\n".join(aliases).encode(),
        "merges of merges": "\n".join(merges).encode(),
        "references of references": "\n".join(references).encode(),
        "depth": b"[" * MAX_BYTES,
        "flow mappings": b"{a: " * (MAX_BYTES // 4),
        "empty lists": b"[" + b"[]," * (MAX_BYTES // 3 - 1) + b"]",
        "lines": b"- a\n" * (MAX_BYTES // 4),
        "one string": b"a: " + b"x" * (MAX_BYTES - 3),
        "digits": b"a: " + b"9" * (MAX_BYTES - 3),
        "too large": b"a: " + b"x" * (2 * MAX_BYTES),
    }
