"""The package as a whole: what it exports, what importing it costs, and whether its README tells the truth."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import mtf_config
from mtf_config import ConfigurationManager, load_sweep
from mtf_utils.cli import Command

README = Path(__file__).parents[1] / "README.md"


def test_everything_exported_is_there_once_and_documented() -> None:
    assert len(set(mtf_config.__all__)) == len(mtf_config.__all__)
    for name in mtf_config.__all__:
        assert (getattr(mtf_config, name).__doc__ or "").strip(), name
    assert {
        "CheckpointConfig", "ConfigurationError", "ConfigurationManager", "DataConfig", "DistributedConfig",
        "ExecutionMode", "ExperimentConfig", "LoggingConfig", "ModelConfig", "NamingStrategy", "OptimizerConfig",
        "ParameterGrid", "ParameterGridSearch", "PerformanceConfig", "PreemptionConfig", "SLURMConfig",
        "SchedulerConfig", "TrainingConfig", "ValidationError",
    } <= set(mtf_config.__all__)  # fmt: skip


def test_importing_loads_nothing_heavy() -> None:
    program = "import sys, mtf_config; print([m for m in ('yaml', 'jsonschema', 'torch', 'numpy') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout.strip() == "[]"


def test_reading_and_sweeping_load_no_json_schema() -> None:
    program = (
        "import sys\n"
        "from mtf_config import ParameterGridSearch\n"
        "from mtf_config.reader import parse_text\n"
        "text = '{experiment_name: a, model: {name: b}, data: {dataset_name: c}, optimizer: {name: d}}'\n"
        "base = parse_text(text, '')\n"
        "search = ParameterGridSearch(base.data)\n"
        "search.create_grid('g').add_parameter('seed', [1, 2])\n"
        "print(len(list(search.points())), 'jsonschema' in sys.modules)\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout.split() == ["2", "False"]


def test_the_verbs_are_commands() -> None:
    entries = [entry for entry in metadata.entry_points(group="mtf.commands") if entry.value.startswith("mtf_config.")]
    assert {entry.name for entry in entries} == {"init", "validate", "show", "diff", "schema"}
    for entry in entries:
        assert isinstance(entry.load(), Command)


def test_the_example_of_the_readme_runs(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        "1e-08 24:00:00 64",
        "digits-hs=64-optimizer=adamw 64",
        "digits-hs=64-optimizer=sgd-momentum=0.9 64",
        "digits-hs=64-optimizer=sgd-momentum=0.99 64",
        "digits-hs=128-optimizer=adamw 128",
        "digits-hs=128-optimizer=sgd-momentum=0.9 128",
        "digits-hs=128-optimizer=sgd-momentum=0.99 128",
    ]

    (sweep,) = re.findall(r"```yaml\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
    (tmp_path / "configs/sweep.yaml").write_text(sweep)
    loaded = load_sweep("sweep.yaml", ConfigurationManager(tmp_path))
    assert len(list(loaded.search.points())) == 1 + 4 + 20
