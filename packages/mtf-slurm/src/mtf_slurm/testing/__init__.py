"""A throw-away real Slurm on one host, for tests and for trying things out; nothing else of the package imports it.

Example::

    with LocalCluster(ClusterSettings(nodes=2)) as cluster:
        cluster.run(["sbatch", "--wait", "job.sh"])
"""

from __future__ import annotations

from mtf_slurm.testing.cluster import LocalCluster
from mtf_slurm.testing.errors import ClusterError, ClusterUnavailableError
from mtf_slurm.testing.programs import is_available
from mtf_slurm.testing.settings import ClusterSettings

__all__ = ["ClusterError", "ClusterSettings", "ClusterUnavailableError", "LocalCluster", "is_available"]
