"""What the accounting of a real Slurm tells of the memory of a job that was killed for it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mtf_slurm.cluster.controller import Controller
from mtf_slurm.cluster.judgement import memory_words
from mtf_slurm.testing import ClusterSettings, LocalCluster, is_available

pytest_plugins = ["mtf_slurm.testing.pytest_plugin"]
pytestmark = pytest.mark.skipif(is_available(accounting=True) is not None, reason=is_available(accounting=True) or "")

DEADLINE_S = 120.0
# Here nothing but the sampling itself ends what uses too much.
ENFORCED = {
    "JobAcctGatherParams": "OverMemoryKill",
    "JobAcctGatherFrequency": "task=1",
    "SelectTypeParameters": "CR_Core_Memory",
}
GREEDY = """#!/bin/bash
python3 -c 'import time; held = bytearray(300 * 2**20); time.sleep(100)' &
wait
"""


@pytest.mark.slow
def test_a_job_that_used_too_much(
    slurm_cluster: Callable[..., LocalCluster], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with slurm_cluster(ClusterSettings(nodes=1, accounting=True, options=ENFORCED)) as cluster:
        for name, value in cluster.environment().items():
            monkeypatch.setenv(name, value)
        script = tmp_path / "greedy.sh"
        script.write_text(GREEDY)
        words = ["sbatch", "--parsable", "--mem=100M", "--job-name=greedy", "--output=/dev/null", str(script)]
        job_id = cluster.run(words).stdout.strip()
        controller = Controller()
        end = time.monotonic() + DEADLINE_S
        while True:
            task = controller.observe([job_id]).find(job_id, "greedy")
            if task is not None and task.peak_memory:  # the accounting lags
                break
            assert time.monotonic() < end, task
            time.sleep(0.2)
        assert task.signal == 9
        found = re.fullmatch(r"100M asked for, up to ([0-9]+)M in use when sampled", memory_words(task))
        assert found is not None, memory_words(task)
        assert 100 < int(found[1]) < 500  # it may be seen while it still grows
