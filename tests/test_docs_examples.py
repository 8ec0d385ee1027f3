"""Every block of code in the documentation is run, parsed or checked; `documents` tells what a page can say of one."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml

from documents import DOCUMENTS, READMES, Block, Document
from mtf_config import ConfigurationManager, ExperimentConfig, load_sweep
from mtf_slurm import SLURMLauncher
from mtf_slurm.testing import ClusterSettings, LocalCluster, is_available
from repository import ROOT

pytest_plugins = ["mtf_slurm.testing.pytest_plugin"]
pytestmark = pytest.mark.timeout(1800)  # a busy machine is no failure

PATIENCE_S = 900.0

BASE = {
    "experiment_name": "base",
    "model": {"name": "m"},
    "training": {},
    "data": {"dataset_name": "d"},
    "optimizer": {"name": "adamw"},
    "scheduler": {"name": "cosine"},
}
SHOWN_ONLY = {"text", "mermaid"}  # output and drawings

FIXED = {"OMP_NUM_THREADS": "1", "HYDRA_FULL_ERROR": "1"}

StartCluster = Callable[..., LocalCluster]
LONE = [block for document in DOCUMENTS if not document.is_story for block in document.blocks]
ALL = [block for document in DOCUMENTS for block in document.blocks]
STORIES = [document for document in DOCUMENTS if document.is_story]


def of(blocks: list[Block], *languages: str) -> Any:
    """A test for each block in these languages that is to be run."""
    chosen = [block for block in blocks if block.language in languages and "not run" not in block.marks]
    return pytest.mark.parametrize("block", chosen, ids=[block.place for block in chosen])


def run(place: str, words: list[str | Path], folder: Path, environ: dict[str, str]) -> None:
    """Run a command that has to come to a good end."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{environ.get('PATH', os.environ['PATH'])}"
    done = subprocess.run(
        words,
        cwd=folder,
        env=os.environ | FIXED | environ | {"PATH": path},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, f"{place}\n{done.stdout}\n{done.stderr}"


def run_block(block: Block, folder: Path, environ: dict[str, str]) -> None:
    """Run Python or a shell's lines; a block that is a file is written, and run by those that follow."""

    def shell(lines: str, **more: str) -> None:
        run(block.place, ["bash", "-euo", "pipefail", "-c", lines], folder, environ | more)

    if "given" in block.marks:
        shell(block.marks["given"], PYTHONPATH=str(ROOT / "tests" / "given"))
    if block.file:
        file = folder / block.file
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(block.code, "utf-8")
    elif block.language == "python":
        script = folder / "example.py"
        script.write_text(block.code, "utf-8")
        run(block.place, [sys.executable, script], folder, environ)
    elif block.commands:
        shell("\n".join(block.commands))


def is_here(need: str) -> bool:
    """Whether a module is installed, or a Slurm can be started."""
    return is_available() is None if need == "slurm" else importlib.util.find_spec(need) is not None


@contextlib.contextmanager
def surroundings(needs: set[str], slurm_cluster: StartCluster) -> Iterator[dict[str, str]]:
    """The environment of some blocks; skips the test if there is not what they need."""
    if missing := sorted(name for name in needs if not is_here(name)):
        pytest.skip(f"needs {', '.join(missing)}")
    with contextlib.ExitStack() as stack:
        wanted = "slurm" in needs
        yield stack.enter_context(slurm_cluster(ClusterSettings(nodes=1))).environment() if wanted else {}


@pytest.mark.parametrize("readme", READMES, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_every_readme_shows_an_example_that_runs(readme: Path) -> None:
    blocks = Document(readme).blocks
    assert any(block.language == "python" and "not run" not in block.marks for block in blocks)


@of(LONE, "python", "bash", "console")
def test_example_runs(block: Block, slurm_cluster: StartCluster, tmp_path: Path) -> None:
    with surroundings(set(block.needs), slurm_cluster) as environ:
        run_block(block, tmp_path, environ)


@pytest.mark.slow
@pytest.mark.parametrize("document", STORIES, ids=[document.name for document in STORIES])
def test_story_can_be_followed(document: Document, slurm_cluster: StartCluster, tmp_path: Path) -> None:
    wanted = [block for block in document.blocks if "not run" not in block.marks]
    blocks = [block for block in wanted if all(map(is_here, block.needs))]
    with surroundings({need for block in blocks for need in block.needs}, slurm_cluster) as environ:
        for block in blocks:
            run_block(block, tmp_path, environ)
    if missing := sorted({need for block in wanted for need in block.needs if not is_here(need)}):
        pytest.skip(f"{len(blocks)} of {len(wanted)} blocks ran well; the rest needs {', '.join(missing)}")


@of([block for block in ALL if not block.needs], "yaml")
def test_configuration_is_accepted(block: Block, tmp_path: Path) -> None:
    written = yaml.safe_load(block.code)
    extended = written.get("extends", [])
    for name in ["base.yaml", *([extended] if isinstance(extended, str) else extended), written.get("base", "")]:
        if name:
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(yaml.safe_dump(BASE))
    manager = ConfigurationManager(tmp_path, tmp_path)
    (tmp_path / "shown.yaml").write_text(block.code)
    if "grids" in written:
        assert len(load_sweep(tmp_path / "shown.yaml", manager).search) > 0
    elif "linked" in written:
        (tmp_path / "sweep.yaml").write_text(yaml.safe_dump({"base": "base.yaml", "grids": [{"name": "g"} | written]}))
        assert len(load_sweep(tmp_path / "sweep.yaml", manager).search) > 0
    else:
        layers = ["shown.yaml"] if "extends" in written else ["base.yaml", "shown.yaml"]
        manager.composition(layers[0], overrides=layers[1:]).experiment()


@of(ALL, "json")
def test_json_can_be_read(block: Block) -> None:
    json.loads(block.code)


def shown_commands() -> list[Any]:
    """Every line that calls `mtf`, in any block for a shell."""
    lines = [(block.place, line) for block in ALL for line in block.commands]
    return [pytest.param(line, id=f"{place} {line}") for place, line in lines if line.startswith("mtf ")]


def parser_of(verb: str) -> argparse.ArgumentParser:
    """The parser of a verb of `mtf`."""
    (entry,) = metadata.entry_points(group="mtf.commands", name=verb)
    parser = argparse.ArgumentParser(prog=f"mtf {verb}", allow_abbrev=False)
    entry.load().configure(parser)
    return parser


@pytest.mark.parametrize("line", shown_commands())
def test_shown_command_is_one(line: str) -> None:
    alone = re.split(r" (?:&&?|\|\|?|>|;)(?: |$)", line)[0]
    words = shlex.split(alone, comments=True)[1:]
    parser = parser_of(words[0])
    try:
        parser.parse_args(words[1:])
    except SystemExit:
        parser.parse_intermixed_args(words[1:])


def test_commands_in_sentences_have_these_verbs_and_options() -> None:
    for document in DOCUMENTS:
        for verb, rest in re.findall(r"`mtf ([a-z]+)((?: [^`]*)?)`", document.text):
            known = parser_of(verb).format_help()
            for option in re.findall(r"(?<!\S)--[a-z-]+", rest):
                assert re.search(rf"{option}(?![a-z-])", known), f"{document.name}: mtf {verb}{rest}"


@of(ALL, "jinja")
def test_template_is_accepted(block: Block, tmp_path: Path) -> None:
    (tmp_path / "site.sh.j2").write_text(block.code)
    launcher = SLURMLauncher(tmp_path / "site.sh.j2", tmp_path, project_root=tmp_path)
    experiment = ExperimentConfig.from_dict(BASE | {"slurm": {"partition": "gpu", "gres": "gpu:1"}})
    (draft,) = launcher.draft_scripts(tmp_path / "sweep", {"base": experiment})
    assert draft.text
    assert not draft.problem


def test_every_block_is_of_a_kind_that_is_checked() -> None:
    for document in DOCUMENTS:
        fences = re.findall(r"^\s*(?:```|~~~)", document.text, re.MULTILINE)
        assert len(fences) == 2 * len(document.blocks), f"{document.name}: a block that is not found is not run"
    for block in ALL:
        assert block.language in SHOWN_ONLY | {"python", "bash", "console", "yaml", "json", "jinja"}, block.place
        if block.language == "text" and not block.place.startswith("docs/benchmarks.md:"):
            assert not re.search(r"^\$ ", block.code, re.MULTILINE), f"{block.place}: commands are of the kind console"
