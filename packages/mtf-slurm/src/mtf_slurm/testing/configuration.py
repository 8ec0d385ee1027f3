"""The configuration files of a cluster as pure functions of its settings, its folder and its ports."""

from __future__ import annotations

from typing import Final

from mtf_slurm.testing.layout import Layout
from mtf_slurm.testing.settings import ClusterSettings

__all__ = ["CLUSTER_NAME", "cgroup_conf", "gres_conf", "port_count", "slurm_conf", "slurmdbd_conf"]

CLUSTER_NAME: Final = "local"

# The first release that can be told to leave cgroups alone altogether.
_CGROUP_DISABLED_SINCE: Final = (24, 5)


def port_count(settings: ClusterSettings) -> int:
    """How many adjacent ports the cluster takes: the controller's, slurmdbd's, and one for each node."""
    return 2 + settings.nodes


def slurm_conf(settings: ClusterSettings, layout: Layout, first_port: int, user: str) -> str:
    """The text of slurm.conf.

    Args:
        settings: what the cluster pretends to be.
        layout: its folder.
        first_port: the first of its ports, see `port_count`.
        user: the name of the user whom the daemons run as.
    """
    options = _daemons(settings, layout, first_port, user) | _hosts(settings) | _scheduling(settings)
    options |= _accounting(layout, first_port) if settings.accounting else _NO_ACCOUNTING
    by_folded_name = {name.lower(): name for name in options}
    for name, value in settings.options.items():
        options[by_folded_name.get(name.lower(), name)] = value
    lines = [f"{name}={value}" for name, value in options.items()]
    return "\n".join([*lines, *_nodes(settings, first_port), ""])


def _daemons(settings: ClusterSettings, layout: Layout, first_port: int, user: str) -> dict[str, str]:
    root = layout.root
    return {
        "ClusterName": CLUSTER_NAME,
        "SlurmctldHost": "localhost(127.0.0.1)",
        "SlurmctldPort": str(first_port),
        "SlurmUser": user,
        "SlurmdUser": user,
        "AuthType": "auth/munge",
        # the life of a credential is also how long Slurm holds a requeued job back
        "AuthInfo": f"socket={layout.munge_socket},cred_expire={settings.requeue_wait_s}",
        "StateSaveLocation": f"{root}/state",
        "SlurmdSpoolDir": f"{root}/spool/%n",
        "SlurmctldPidFile": f"{root}/run/slurmctld.pid",
        "SlurmdPidFile": f"{root}/run/slurmd.%n.pid",
        "SlurmctldLogFile": f"{layout.logs}/slurmctld.log",
        "SlurmdLogFile": f"{layout.logs}/%n.log",
        "MailProg": "/bin/true",  # nobody gets mail from here
        "JobCompType": "jobcomp/filetxt",
        "JobCompLoc": f"{layout.logs}/jobcomp.txt",
        "MessageTimeout": str(settings.message_timeout_s),
        "KillWait": str(settings.kill_wait_s),
        "MinJobAge": str(settings.min_job_age_s),
        "SlurmdTimeout": "120",
        "InactiveLimit": "0",
        "CompleteWait": "0",
    }


def _hosts(settings: ClusterSettings) -> dict[str, str]:
    """Neither cgroups nor CPU binding: processes are followed through /proc, hardware is what the file says it is."""
    options = {
        "ProctrackType": "proctrack/linuxproc",
        "TaskPlugin": "task/none",
        "JobAcctGatherType": "jobacct_gather/linux",
        "MpiDefault": "none",
        "ReturnToService": "2",
        "SlurmdParameters": "config_overrides",
        "SelectType": "select/cons_tres",
        "SelectTypeParameters": "CR_Core",
    }
    return options | ({"GresTypes": "gpu"} if settings.gpus else {})


def _scheduling(settings: ClusterSettings) -> dict[str, str]:
    hasty = "batch_sched_delay=0,sched_interval=2,sched_min_interval=20000"
    options = {
        "SchedulerType": "sched/backfill",
        "SchedulerParameters": f"{hasty},bf_interval=2,bf_continue,bf_max_job_test=1000,default_queue_depth=1000",
        "PriorityType": "priority/multifactor",
        "PreemptType": "preempt/partition_prio",
        "PreemptMode": "REQUEUE",
        "JobRequeue": "1",
        "MaxArraySize": str(settings.max_array_size),
        # each task of an array counts as a job
        "MaxJobCount": str(max(20_000, 2 * settings.max_array_size)),
    }
    return options | ({"SlurmctldParameters": "preempt_send_user_signal"} if settings.send_user_signal else {})


_NO_ACCOUNTING: Final = {"AccountingStorageType": "accounting_storage/none"}


def _accounting(layout: Layout, first_port: int) -> dict[str, str]:
    return {
        "AccountingStorageType": "accounting_storage/slurmdbd",
        "AccountingStorageHost": "127.0.0.1",
        "AccountingStoragePort": str(first_port + 1),
        # on the way to slurmdbd this, not AuthInfo, says where munged listens
        "AccountingStoragePass": str(layout.munge_socket),
        "AccountingStorageTRES": "gres/gpu",
        "AccountingStoreFlags": "job_comment",
    }


def _nodes(settings: ClusterSettings, first_port: int) -> list[str]:
    first, last = first_port + 2, first_port + 1 + settings.nodes
    node = [
        f"NodeName={_numbered('node', 1, settings.nodes)}",
        "NodeHostname=localhost",
        "NodeAddr=127.0.0.1",
        f"Port={first}-{last}" if last > first else f"Port={first}",
        f"CPUs={settings.cpus} Sockets=1 CoresPerSocket={settings.cpus} ThreadsPerCore=1",
        f"RealMemory={settings.memory_mb}",
        *([f"Gres=gpu:fake:{settings.gpus}"] if settings.gpus else []),
        "State=UNKNOWN",
    ]
    common = "Nodes=ALL MaxTime=INFINITE DefaultTime=60 State=UP"
    preemptible = f"PriorityTier=1 PreemptMode=REQUEUE GraceTime={settings.grace_s} {common}"
    return [
        " ".join(node),
        f"PartitionName=low Default=YES {preemptible}",
        f"PartitionName=gpu {preemptible}",
        f"PartitionName=high PriorityTier=10 PreemptMode=OFF {common}",
    ]


def gres_conf(settings: ClusterSettings, layout: Layout) -> str:
    """The text of gres.conf; the devices are made by whoever writes the file."""
    if not settings.gpus:
        return ""
    nodes = _numbered("node", 1, settings.nodes)
    devices = _numbered(f"{layout.root}/gpus/gpu", 0, settings.gpus - 1)
    return f"AutoDetect=off\nNodeName={nodes} Name=gpu Type=fake Count={settings.gpus} File={devices}\n"


def cgroup_conf(version: tuple[int, int]) -> str:
    """The text of cgroup.conf for a release of Slurm, such as (22, 5)."""
    return "CgroupPlugin=disabled\n" if version >= _CGROUP_DISABLED_SINCE else "IgnoreSystemd=yes\n"


def slurmdbd_conf(layout: Layout, first_port: int, user: str) -> str:
    """The text of slurmdbd.conf; the database is reached through the socket that MYSQL_UNIX_PORT names."""
    options = {
        "AuthType": "auth/munge",
        "AuthInfo": f"socket={layout.munge_socket}",
        "DbdHost": "localhost",
        "DbdAddr": "127.0.0.1",
        "DbdPort": str(first_port + 1),
        "SlurmUser": user,
        "LogFile": f"{layout.logs}/slurmdbd.log",
        "PidFile": f"{layout.root}/run/slurmdbd.pid",
        "StorageType": "accounting_storage/mysql",
        "StorageHost": "localhost",
        "StorageUser": "slurm",
        "StorageLoc": "slurm_acct_db",
    }
    return "".join(f"{name}={value}\n" for name, value in options.items())


def _numbered(stem: str, first: int, last: int) -> str:
    return f"{stem}[{first}-{last}]" if last > first else f"{stem}{first}"
