"""What goes wrong with a throw-away cluster."""

from __future__ import annotations

from mtf_slurm.errors import SLURMError

__all__ = ["ClusterError", "ClusterUnavailableError"]


class ClusterError(SLURMError):
    """The cluster, or a command on it, did not do what was asked."""


class ClusterUnavailableError(ClusterError):
    """No cluster can run on this machine; the message says what is missing."""
