from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from mtf_trainer.config import GenericTrainerConfig
from mtf_trainer.loggers import build_loggers

_spec = importlib.util.find_spec("wandb")
HAS_WANDB = _spec is not None and _spec.origin is not None  # W&B leaves folders of its name behind

ASK_FOR_WANDB = """
import sys
from pathlib import Path
if sys.argv[2] == "hidden":
    sys.modules["wandb"] = None
from mtf_trainer.config import GenericTrainerConfig
from mtf_trainer.loggers import build_loggers
build_loggers(GenericTrainerConfig.from_experiment({"logging": {"use_wandb": True}}), Path(sys.argv[1]))
"""


def test_no_logger_is_made_unless_asked_for(tmp_path: Path) -> None:
    assert build_loggers(GenericTrainerConfig(), tmp_path) == []


@pytest.mark.parametrize("how", ["hidden", "beside a folder that W&B left"])
def test_a_missing_package_is_named_with_the_command_that_installs_it(tmp_path: Path, how: str) -> None:
    if how != "hidden":
        if HAS_WANDB:
            pytest.skip("wandb is installed, so a folder of its name does not hide it")
        (tmp_path / "wandb").mkdir()
    command = [sys.executable, "-c", ASK_FOR_WANDB, str(tmp_path), how]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "TrainerError: logging.use_wandb: " in done.stderr
    assert 'pip install "mtf-trainer[wandb]"' in done.stderr
