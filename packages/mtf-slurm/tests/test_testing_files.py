"""What a cluster writes and reads before a daemon runs, and why there is none: needs no Slurm."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtf_slurm.testing import ClusterError, ClusterSettings, ClusterUnavailableError, LocalCluster, is_available
from mtf_slurm.testing.configuration import cgroup_conf, gres_conf, port_count, slurm_conf, slurmdbd_conf
from mtf_slurm.testing.description import Description
from mtf_slurm.testing.files import prepare_folder
from mtf_slurm.testing.layout import MAX_FOLDER_BYTES, Layout
from mtf_slurm.testing.output import not_ready, parse_rpc_counts
from mtf_slurm.testing.ports import is_listening, reserve_ports
from mtf_utils.settings import SettingsError

LAYOUT = Layout(Path("/c"))

SDIAG = """
Remote Procedure Call statistics by message type
\tREQUEST_PARTITION_INFO                  ( 2009) count:54     ave_time:76     total_time:4131
\tREQUEST_SUBMIT_BATCH_JOB                ( 4003) count:1      ave_time:395    total_time:395

Remote Procedure Call statistics by user
\troot            (       0) count:55     ave_time:98     total_time:5392

Pending RPC statistics
\tNo pending RPCs
"""


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder with a path that is short enough for sockets, wherever pytest's own lie."""
    with tempfile.TemporaryDirectory(prefix="mtf-", dir="/tmp") as folder:
        yield Path(folder).resolve()


def options_of(text: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        name, _, value = line.partition("=")
        found.setdefault(name.lower(), []).append(value)
    return found


@given(
    st.builds(
        ClusterSettings,
        nodes=st.integers(1, 64),
        cpus=st.integers(1, 64),
        gpus=st.integers(0, 8),
        grace_s=st.integers(0, 100),
        send_user_signal=st.booleans(),
        accounting=st.booleans(),
        options=st.dictionaries(st.sampled_from(["jobrequeue", "KillWait", "MaxJobCount"]), st.just("17")),
    ),
    st.integers(1024, 60000),
)
def test_slurm_conf_names_each_option_once_and_a_port_for_each_node(settings: ClusterSettings, port: int) -> None:
    options = options_of(slurm_conf(settings, LAYOUT, port, "me"))
    partitions = options.pop("partitionname")
    assert all(len(values) == 1 for values in options.values()), options
    assert len(partitions) == 3
    assert all(f"GraceTime={settings.grace_s} " in partition for partition in partitions[:2])
    ports = f"{port + 2}-{port + 1 + settings.nodes}" if settings.nodes > 1 else str(port + 2)
    assert f"Port={ports} " in options["nodename"][0]
    assert port_count(settings) == settings.nodes + 2
    assert ("slurmctldparameters" in options) == settings.send_user_signal
    assert ("accountingstoragehost" in options) == settings.accounting
    for name, value in settings.options.items():
        assert options[name.lower()] == [value]


def test_gpus_are_in_both_files_or_in_none() -> None:
    none, one, four = (ClusterSettings(nodes=1, gpus=gpus) for gpus in (0, 1, 4))
    assert gres_conf(none, LAYOUT) == ""
    assert "GresTypes" not in slurm_conf(none, LAYOUT, 2000, "me")
    assert "File=/c/gpus/gpu0\n" in gres_conf(one, LAYOUT)
    assert "File=/c/gpus/gpu[0-3]\n" in gres_conf(four, LAYOUT)
    assert "Gres=gpu:fake:4 " in slurm_conf(four, LAYOUT, 2000, "me")


def test_slurmdbd_has_the_second_port() -> None:
    assert "DbdPort=2001\n" in slurmdbd_conf(LAYOUT, 2000, "me")


def test_cgroups_are_left_alone_where_that_can_be_said() -> None:
    assert cgroup_conf((24, 5)) == cgroup_conf((25, 11)) == "CgroupPlugin=disabled\n"
    assert "CgroupPlugin" not in cgroup_conf((22, 5)) + cgroup_conf((23, 11))


@pytest.mark.parametrize("option", [{"Two words": "x"}, {"Name": "a\nb"}, {"": "x"}])
def test_an_option_is_one_line(option: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match=r"one line"):
        ClusterSettings(options=option)


def test_a_path_too_long_for_sockets_names_the_limit() -> None:
    fits = Path("/" + "x" * (MAX_FOLDER_BYTES - 1))
    assert Layout.of(fits).root == fits
    with pytest.raises(ClusterError, match=rf"{MAX_FOLDER_BYTES + 1} bytes is too long .* at most {MAX_FOLDER_BYTES}"):
        LocalCluster(folder=f"{fits}y")


def test_the_longest_socket_fits_into_the_longest_folder() -> None:
    folder = Path("/" + "x" * (MAX_FOLDER_BYTES - 1))
    with socket.socket(socket.AF_UNIX) as listener, pytest.raises(FileNotFoundError):  # not "path too long"
        listener.bind(f"{folder}/spool/node64/node64_67108863.4294967291")


@pytest.mark.parametrize("name", ["a b", "a,b", "a[1]", "50%", "a#b"])
def test_a_path_that_slurm_conf_cannot_hold_is_refused(name: str) -> None:
    with pytest.raises(ClusterError, match=r"slurm\.conf cannot hold"):
        LocalCluster(folder=Path("/tmp") / name)


def test_a_detached_cluster_needs_a_folder() -> None:
    with pytest.raises(ClusterError, match="needs a folder"):
        LocalCluster(detached=True)


def test_a_folder_with_other_files_is_left_alone(short_path: Path) -> None:
    (short_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ClusterError, match=r"thesis\.tex"):
        prepare_folder(Layout.of(short_path), 1)
    (short_path / "cluster.json").write_text("{}")
    with pytest.raises(ClusterError, match=r"thesis\.tex"):
        prepare_folder(Layout.of(short_path), 1)
    assert (short_path / "thesis.tex").read_text() == "years of work"
    assert len(list(short_path.iterdir())) == 2


def test_what_an_earlier_cluster_left_makes_room(short_path: Path) -> None:
    layout = Layout.of(short_path / "cluster")
    prepare_folder(layout, 2)
    assert layout.root.stat().st_mode & 0o077 == 0
    layout.description.write_text("{}")
    (layout.root / "state" / "job_state").write_text("old")
    prepare_folder(layout, 1)
    assert {path.name for path in (layout.root / "spool").iterdir()} == {"node1"}
    assert not (layout.root / "state" / "job_state").exists()


def test_a_description_comes_back(tmp_path: Path) -> None:
    written = Description(
        settings=ClusterSettings(nodes=3, options={"KillWait": "9"}), first_port=2000, detached=True, temporary=False
    )
    written.write(tmp_path / "cluster.json")
    assert Description.read(tmp_path / "cluster.json") == written


def test_attaching_to_nothing_says_so(short_path: Path) -> None:
    with pytest.raises(ClusterError, match=r"no cluster was started in .*gone"):
        LocalCluster.attach(short_path / "gone")
    (short_path / "cluster.json").write_text('{"version": 2}')
    with pytest.raises(ClusterError, match=r"cluster\.json does not describe a cluster"):
        LocalCluster.attach(short_path)


def test_reserved_ports_are_free_and_held() -> None:
    with reserve_ports(5) as first:
        assert not any(is_listening(port) for port in range(first, first + 5))
        for port in range(first, first + 5):
            with socket.socket() as other, pytest.raises(OSError, match="in use"):
                other.bind(("127.0.0.1", port))
    with socket.socket() as ours:
        ours.bind(("127.0.0.1", first))
        ours.listen()
        assert is_listening(first)


def test_a_socket_file_is_listened_on_or_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("door")
        assert not is_listening(Path("door"))
        listener.listen()
        assert is_listening(Path("door"))
    assert not is_listening(Path("door"))


@pytest.mark.parametrize(
    ("sinfo", "expected"),
    [
        ("node1 idle\nnode2 mix\n", None),
        ("node1 idle\nnode2 idle*\n", "node2 is idle*"),
        ("node1 unk*\nnode2 down\n", "node1 is unk*, node2 is down"),
        ("", "sinfo lists 0 of 2 nodes"),
    ],
)
def test_ready_is_when_every_node_has_reported(sinfo: str, expected: str | None) -> None:
    assert not_ready(sinfo, 2) == expected


def test_requests_are_counted_by_kind() -> None:
    assert parse_rpc_counts(SDIAG) == {"REQUEST_PARTITION_INFO": 54, "REQUEST_SUBMIT_BATCH_JOB": 1}
    assert parse_rpc_counts("") == {}


def test_the_reason_names_programs_and_packages(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(short_path))
    reason = is_available()
    assert reason is not None
    assert "\n" not in reason
    assert "sbatch" in reason
    assert "slurm-wlm" in reason
    cluster = LocalCluster(folder=short_path / "c")
    with pytest.raises(ClusterUnavailableError, match="slurm-wlm"):
        cluster.start()
    assert not cluster.folder.exists()


def test_the_installer_says_in_one_line_why_it_did_nothing(tmp_path: Path) -> None:
    environ = os.environ | {"PATH": str(tmp_path), "MTF_NO_INSTALL": "1"}
    words = [sys.executable, "-m", "mtf_slurm.testing.install", "--accounting"]
    done = subprocess.run(words, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "MTF_NO_INSTALL" in done.stderr
    assert "slurm-wlm" in done.stderr


@pytest.mark.skipif(is_available() is not None, reason=is_available() or "")
def test_the_installer_is_silent_when_everything_is_there() -> None:
    environ = os.environ | {"MTF_NO_INSTALL": "1"}
    words = [sys.executable, "-m", "mtf_slurm.testing.install"]
    done = subprocess.run(words, env=environ, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_package_does_not_load_it() -> None:
    probe = "import sys, mtf_slurm; sys.exit(any(name.startswith('mtf_slurm.testing') for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", probe], check=False).returncode == 0


def test_a_program_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for name, reason in [("squeue", "squeue was not found; install .* slurm-wlm"), ("sqeue", "sqeue was not found$")]:
        with pytest.raises(ClusterUnavailableError, match=reason):
            LocalCluster().run([name])
