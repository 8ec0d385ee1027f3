"""A fixture that starts throw-away Slurm clusters; a test module opts in by naming this one in `pytest_plugins`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest

from mtf_slurm.testing import ClusterSettings, LocalCluster, is_available

__all__ = ["slurm_cluster"]


@pytest.fixture(scope="session")
def slurm_cluster() -> Iterator[Callable[..., LocalCluster]]:
    """A function that starts a cluster and returns it; the test is skipped where none can run.

    It takes a `ClusterSettings`, or None for the defaults. The cluster is up until the session ends, or until the
    test stops it, best by using it as a context manager.
    """
    with contextlib.ExitStack() as stack:

        def start(settings: ClusterSettings | None = None) -> LocalCluster:
            settings = settings or ClusterSettings()
            if reason := is_available(accounting=settings.accounting):
                pytest.skip(reason)
            return stack.enter_context(LocalCluster(settings))

        yield start
