"""Sweep files: as strict as configurations, and the same as the Python interface."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from config_support import DATA, MINIMAL

from mtf_config import (
    ConfigurationError,
    ConfigurationManager,
    ExecutionMode,
    NamingStrategy,
    ParameterGridSearch,
    Range,
    SweepSpec,
    ValidationError,
    load_sweep,
)

SWEEP = """\
name: rates
base: complete.yaml
naming: descriptive
execution: local
limits: {max_concurrent_jobs: 2}
command: python train.py --config {config}
output_dir: experiments/rates
grids:
  - name: main
    parameters:
      training.learning_rate: [1e-3, 1e-4]
      optimizer.name: [adamw, sgd]
    conditional:
      - {key: optimizer.momentum, values: [0.9], when: {optimizer.name: sgd}}
    computed: {scheduler.min_lr: training.learning_rate / 100}
    exclude:
      - {training.learning_rate: 1e-4, optimizer.name: sgd}
  - name: random
    sampled:
      - {count: 3, seed: 1, ranges: {model.dropout: {low: 0, high: 0.5}}}
    linked:
      - {model.hidden_size: [64, 128], training.batch_size: [16, 8]}
"""


@pytest.fixture
def project(manager: ConfigurationManager) -> Path:
    for file in DATA.iterdir():
        shutil.copy(file, manager.config_dir)
    (manager.config_dir / "sweep.yaml").write_text(SWEEP)
    return manager.config_dir


def problems_of(manager: ConfigurationManager, project: Path, *changes: tuple[str, str]) -> list[str]:
    text = SWEEP
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    (project / "bad.yaml").write_text(text)
    with pytest.raises(ValidationError) as caught:
        load_sweep("bad.yaml", manager)
    return [str(problem).removeprefix(f"{project}/bad.yaml:") for problem in caught.value.problems]


def test_a_sweep_file_is_read(manager: ConfigurationManager, project: Path) -> None:
    sweep = load_sweep("sweep.yaml", manager)
    assert sweep.path == project / "sweep.yaml"
    assert (sweep.spec.naming, sweep.spec.execution) == (NamingStrategy.DESCRIPTIVE, ExecutionMode.LOCAL)
    assert sweep.spec.limits.max_concurrent_jobs == 2
    assert sweep.spec.command_words() == ["python", "train.py", "--config", "{config}"]
    points = list(sweep.search.points())
    assert len(points) == len(sweep.search) == 3 + 6
    assert points[0].config.scheduler is not None
    assert points[0].config.scheduler.min_lr == pytest.approx(1e-5)
    assert [point.name for point in points[:3]] == [
        "example_experiment-lr=0.001-optimizer=adamw-ml=1e-05",
        "example_experiment-lr=0.001-optimizer=sgd-momentum=0.9-ml=1e-05",
        "example_experiment-lr=0.0001-optimizer=adamw-ml=1e-06",
    ]


def test_the_file_and_the_python_interface_are_the_same(manager: ConfigurationManager, project: Path) -> None:
    sweep = load_sweep("sweep.yaml", manager)
    search = ParameterGridSearch(manager.load_config("complete.yaml"))
    search.set_naming_strategy(NamingStrategy.DESCRIPTIVE)
    grid = search.create_grid("main")
    grid.add_parameter("training.learning_rate", [1e-3, 1e-4])
    grid.add_parameter("optimizer.name", ["adamw", "sgd"])
    grid.add_conditional("optimizer.momentum", [0.9], {"optimizer.name": "sgd"})
    grid.add_computed("scheduler.min_lr", "training.learning_rate / 100")
    grid.exclude({"training.learning_rate": 1e-4, "optimizer.name": "sgd"})
    grid = search.create_grid("random")
    grid.add_sampled({"model.dropout": Range(0, 0.5)}, 3, seed=1)
    grid.add_linked({"model.hidden_size": [64, 128], "training.batch_size": [16, 8]})
    assert list(search.points()) == list(sweep.search.points())

    spec = SweepSpec.of(search, command=["python", "train.py"], limits={"max_concurrent_jobs": 3})
    manager.save_config(spec.to_dict(), "again.yaml")
    again = load_sweep("again.yaml", manager)
    assert again.spec == spec
    assert list(again.search.points()) == list(search.points())
    assert SweepSpec.from_dict(spec.to_dict()) == spec


def test_a_base_may_be_written_in_the_file(manager: ConfigurationManager) -> None:
    spec = SweepSpec(base=MINIMAL, grids=[{"name": "g", "parameters": {"seed": [1, 2]}}])  # type: ignore[list-item]
    assert len(list(spec.search().points())) == 2
    with pytest.raises(ConfigurationError, match="load_sweep"):
        SweepSpec(base="a.yaml", grids=spec.grids).search()


def test_a_base_lies_beside_the_sweep_or_where_configurations_lie(
    manager: ConfigurationManager, project: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "sweeps"
    folder.mkdir()
    shutil.move(project / "sweep.yaml", folder)
    assert len(load_sweep(folder / "sweep.yaml", manager).search) == 9
    (folder / "complete.yaml").write_text((DATA / "complete.yaml").read_text().replace("example_", "closer_"))
    assert load_sweep(folder / "sweep.yaml", manager).search.point(0).name.startswith("closer_")


def test_problems_have_their_place(manager: ConfigurationManager, project: Path) -> None:
    assert problems_of(
        manager,
        project,
        ("naming: descriptive", "nameing: descriptive"),
        ("max_concurrent_jobs: 2", "max_concurrent_jobs: 0"),
        ("count: 3", "count: many"),
        ("{low: 0, high", "{low: 1, high"),
        ("optimizer.name: [adamw, sgd]", "optimizer.name: []"),
    ) == [
        "3:1: nameing: unknown key 'nameing' (did you mean 'naming'?)",
        "5:31: limits.max_concurrent_jobs: expected a number >= 1, found 0",
        "12:23: grids[0].parameters.optimizer.name: the list of values is empty; give at least one",
        "20:17: grids[1].sampled[0].count: expected an integer, found the string 'many'",
        "20:71: grids[1].sampled[0].ranges.model.dropout.high: expected a number >= low (1.0), found 0.5",
    ]


def test_keys_and_values_are_checked_against_the_base(manager: ConfigurationManager, project: Path) -> None:
    found = problems_of(
        manager,
        project,
        ("      training.learning_rate: [1e-3", "      training.learnin_rate: [1e-3"),
        ("- {training.learning_rate", "- {training.learnin_rate"),
        ("computed: {scheduler.min_lr: training.learning_rate / 100}", "computed: {schedular.min_lr: '1'}"),
        ("model.dropout: {low", "model.dropuot: {low"),
        ("training.batch_size: [16, 8]", "training.batch_size: [16, 0.5]"),
    )
    message = "the base configuration has no such key"
    assert found == [
        f"11:7: grids[0].parameters.training.learnin_rate: {message} (did you mean 'training.learning_rate'?)",
        f"15:16: grids[0].computed.schedular.min_lr: {message} (did you mean 'scheduler.min_lr'?)",
        f"20:38: grids[1].sampled[0].ranges.model.dropuot: {message} (did you mean 'model.dropout'?)",
        "22:66: grids[1].linked[0].training.batch_size[1]: expected an integer, found 0.5",
    ]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("base: complete.yaml", "base: complet.yaml", "2:7: base: there is no such file"),
        ("name: random", "name: main", "18:11: grids[1].name: there is already a grid named 'main'"),
        ("when: {optimizer.name", "when: {optimizer.nam", "9:5: grids[0]: the condition of optimizer.momentum names"),
        ("training.learning_rate / 100", "open('x')", "15:34: grids[0].computed.scheduler.min_lr: "),
        ("command: python train.py --config {config}", "command: python 'train.py", "6:10: command: cannot be split"),
        ("command: python train.py --config {config}", "command: []", "6:10: command: expected a command"),
        (
            "command: python train.py --config {config}",
            "command: python train.py --config {confg}",
            "6:10: command: unknown placeholder {confg} (did you mean {config}?); to mean it literally",
        ),
        (
            "command: python train.py --config {config}",
            "command: [a, '{{x}}', '{gpu}']",
            "6:23: command[2]: unknown placeholder {gpu} (known are {python}, {config}, {run_dir}, {name})",
        ),
        (
            "command: python train.py --config {config}",
            "command: [a, '$${env:X}', '--token=${env:TOKEN}']",
            "6:27: command[2]: '${env:TOKEN}': no variable is looked up in a command",
        ),
        ("values: [0.9]", "values: []", "14:43: grids[0].conditional[0].values: the list of values is empty"),
        (
            "when: {optimizer.name: sgd}",
            "when: {optimizer.name: []}",
            "14:73: grids[0].conditional[0].when.optimizer.name: the list of values is empty",
        ),
        ("1e-4, optimizer.name: sgd}", "[], optimizer.name: sgd}", "17:34: grids[0].exclude[0].training.learning_rate"),
        ("[16, 8]", "[]", "22:61: grids[1].linked[0].training.batch_size: the list of values is empty; give at"),
        (
            "model.dropout: {low",
            "checkpoint.save_top_k: {low",
            "20:38: grids[1].sampled[0].ranges.checkpoint.save_top_k: its values alone do not make different runs",
        ),
        ("[64, 128]", "[64, 128, 256]", "22:9: grids[1].linked[0]: linked parameters need equally many values"),
    ],
)
def test_single_problems(manager: ConfigurationManager, project: Path, old: str, new: str, expected: str) -> None:
    (found,) = problems_of(manager, project, (old, new))
    assert found.startswith(expected)


@pytest.mark.parametrize("text", ["", "- 1", "grids: []\nbase: complete.yaml", "grids: {}\nbase: {}", "base: 3"])
def test_what_is_no_sweep_is_refused(manager: ConfigurationManager, project: Path, text: str) -> None:
    (project / "bad.yaml").write_text(text)
    with pytest.raises(ValidationError):
        load_sweep("bad.yaml", manager)


def test_conditions_are_written_as_they_were_meant() -> None:
    search = ParameterGridSearch(MINIMAL)
    grid = search.create_grid("g")
    grid.add_parameter("optimizer.betas", [[0.9, 0.99], [0.8, 0.9]])
    grid.add_parameter("seed", [1, 2, 3])
    grid.exclude({"optimizer.betas": [[0.9, 0.99]], "seed": 1})
    grid.exclude({"seed": [2, 3], "optimizer.betas": [[0.8, 0.9]]})
    written: dict[str, Any] = grid.to_dict()
    assert written["exclude"] == [
        {"optimizer.betas": [[0.9, 0.99]], "seed": 1},
        {"seed": [2, 3], "optimizer.betas": [[0.8, 0.9]]},
    ]
    assert len(grid) == 3


def test_a_key_that_makes_no_other_runs_has_its_place(manager: ConfigurationManager, project: Path) -> None:
    grid = "  - name: main\n    parameters:\n"
    found = problems_of(manager, project, (grid, f"{grid}      slurm.partition: [a, b]\n"))
    assert [text.split(";")[0] for text in found] == [
        "11:7: grids[0].parameters.slurm.partition: its values alone do not make different runs, so that all but one "
        "would be dropped"
    ]


def test_a_template_lies_beside_the_file_that_names_it(manager: ConfigurationManager, project: Path) -> None:
    text = (project / "complete.yaml").read_text()
    assert text.count('  mem: "32G"') == 1
    (project / "shared").mkdir()
    (project / "shared" / "site.yaml").write_text(text.replace('  mem: "32G"', "  template_path: site.sh.j2"))
    (project / "own.yaml").write_text("extends: shared/site.yaml\n")
    (project / "sweep.yaml").write_text(SWEEP.replace("complete.yaml", "own.yaml"))
    point = load_sweep("sweep.yaml", manager).search.point(0)
    assert point.config.slurm.template_path == str(project / "shared" / "site.sh.j2")
    assert manager.load_experiment("own.yaml").slurm.template_path == str(project / "shared" / "site.sh.j2")

    sweep = {
        "base": MINIMAL | {"slurm": {"template_path": "a.j2", "mem": "1G"}},
        "grids": [{"name": "g", "linked": [{"seed": [1, 2], "slurm.template_path": ["b.j2", "/c.j2"]}]}, {"name": "h"}],
    }
    manager.save_config(sweep, "inline.yaml")
    templates = [item.config.slurm.template_path for item in load_sweep("inline.yaml", manager).search.points()]
    assert templates == [str(project / "b.j2"), "/c.j2", str(project / "a.j2")]
    # what is no path is said by the checks
    sweep = {"base": MINIMAL | {"slurm": {"template_path": 3}}, "grids": [{"name": "h"}]}
    manager.save_config(sweep, "inline.yaml")
    with pytest.raises(ValidationError, match=r"slurm\.template_path: expected a string"):
        load_sweep("inline.yaml", manager)


def test_problems_of_the_base_are_reported_where_they_are_written(manager: ConfigurationManager, project: Path) -> None:
    text = (project / "complete.yaml").read_text()
    (project / "complete.yaml").write_text(text.replace("epochs: 100", "epohcs: 100").replace("nodes: 1", "nodes: 0"))
    with pytest.raises(ValidationError) as caught:
        load_sweep("sweep.yaml", manager)
    assert [str(problem).removeprefix(f"{project}/") for problem in caught.value.problems] == [
        "complete.yaml:12:3: training.epohcs: unknown key 'epohcs' (did you mean 'epochs'?)",
        "complete.yaml:39:10: slurm.nodes: expected a number >= 1, found 0",
    ]
    inline = "base:\n  experiment_name: x\n  model: {nmae: y}\ngrids: [{name: g}]\n"
    (project / "inline.yaml").write_text(inline)
    with pytest.raises(ValidationError) as caught:
        load_sweep("inline.yaml", manager)
    assert [
        str(problem).removeprefix(f"{project}/inline.yaml:").split(": ")[:2] for problem in caught.value.problems
    ] == [
        ["1:1", "data"],
        ["1:1", "optimizer"],
        ["3:3", "model.name"],
        ["3:11", "model.nmae"],
    ]
