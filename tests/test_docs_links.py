"""Links inside the documentation lead somewhere, pages are in the navigation, quoted messages in the code."""

from __future__ import annotations

import ast
import re
import tomllib
from functools import cache
from pathlib import Path

import pytest
import yaml

from documents import DOCUMENTS, PAGES, Document
from repository import PACKAGES, ROOT

every_document = pytest.mark.parametrize("document", DOCUMENTS, ids=[document.name for document in DOCUMENTS])


@every_document
def test_links_lead_somewhere(document: Document) -> None:
    for target in document.links():
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (document.path.parent / name).resolve() if name else document.path
        assert file.exists(), f"{document.name} links to {target}"
        assert file.is_relative_to(ROOT), f"{document.name} links to {target}"
        if anchor:
            assert anchor in Document(file).anchors, f"{document.name} links to {target}"


def test_every_picture_is_shown() -> None:
    shown = {(page.path.parent / link).resolve() for page in DOCUMENTS for link in page.links()}
    pictures = [file for file in (ROOT / "docs" / "assets").rglob("*") if file.suffix in {".svg", ".png", ".jpg"}]
    assert pictures
    assert set(pictures) - shown == set()


@every_document
def test_tables_are_tables(document: Document) -> None:
    """A row with another number of cells, or one that a blank line has cut off, would show as it is written."""
    prose = re.sub(r"^```.*?^```$", "", document.text, flags=re.MULTILINE | re.DOTALL)
    for block in re.findall(r"(?:^\|.*\n)+", prose, re.MULTILINE):
        rows = block.splitlines()
        assert re.fullmatch(r"\|(?::?-+:?\|)+", rows[min(1, len(rows) - 1)].replace(" ", "")), (
            f"{document.name}: {block}"
        )
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1, f"{document.name}: {block}"


def test_modules_that_the_architecture_speaks_of_are_there() -> None:
    files = {package.folder.name: {file.name for file in package.source.rglob("*")} for package in PACKAGES}
    page = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    parts = re.split(r"^## (.+)$", page, flags=re.MULTILINE)[1:]
    spoken = {title: text for title, text in zip(parts[::2], parts[1::2], strict=True) if title in files}
    assert len(spoken) == 4
    for package, text in spoken.items():
        for cell in re.findall(r"^\| (`.+?) \|", text, re.MULTILINE):
            for name in re.findall(r"`([^`]+)`", cell):
                assert {Path(name).name, f"{Path(name).name}.py"} & files[package], f"{package}: {name}"


def test_every_page_is_in_the_navigation_once() -> None:
    text = (ROOT / "mkdocs.yml").read_text("utf-8")
    listed: list[str] = []

    def collect(item: object) -> None:
        if isinstance(item, str):
            listed.append(item)
        for inner in item.values() if isinstance(item, dict) else item if isinstance(item, list) else ():
            collect(inner)

    collect(yaml.safe_load(re.sub(r"!!python\S+", "", text))["nav"])
    assert sorted(listed) == sorted(page.path.relative_to(ROOT / "docs").as_posix() for page in PAGES)


def test_commands_of_hatch_are_there() -> None:
    environments = tomllib.loads((ROOT / "hatch.toml").read_text("utf-8"))["envs"]
    for document in DOCUMENTS:
        for environment, colon, script in re.findall(r"hatch run ([a-z-]+)(:?)([a-z-]*)", document.text):
            if colon:  # any program may be run in an environment
                assert environment in environments, f"{document.name}: hatch run {environment}:{script}"
            else:
                scripts = environments["default"]["scripts"]
                assert environment in scripts, f"{document.name}: hatch run {environment}"


def test_every_reference_page_is_of_a_package() -> None:
    assert {page.path.stem for page in PAGES if page.path.parent.name == "api"} == {
        "index",
        *(package.folder.name.removeprefix("mtf-") for package in PACKAGES if package.folder.name.startswith("mtf-")),
        "facade",
    }


@cache
def texts_of(file: Path) -> list[str]:
    """The texts of a source file as its messages have them, with `{}` for whatever is filled in."""
    if file.suffix != ".py":
        return file.read_text("utf-8").splitlines()
    found = []
    tree = ast.parse(file.read_text("utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.Constant) else "{}" for part in node.values]
            found.append("".join(map(str, parts)))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.append(node.value)
    return found


def quoted_messages() -> list[str]:
    """The headings of the page about messages that quote one."""
    page = (ROOT / "docs" / "troubleshooting.md").read_text("utf-8")
    return re.findall(r"^### `(.+)`$", page, re.MULTILINE)


@pytest.mark.parametrize("message", quoted_messages())
def test_quoted_message_is_in_the_code(message: str) -> None:
    """`…` stands for whatever is filled in, and for what is left out."""
    pattern = re.compile(".*".join(re.escape(part.strip()) for part in message.split("…")), re.DOTALL)
    sources = [file for package in PACKAGES for file in package.source.rglob("*") if file.suffix in {".py", ".sh"}]
    assert any(pattern.search(text) for file in sources for text in texts_of(file))


def test_messages_are_quoted() -> None:
    assert len(quoted_messages()) >= 20
