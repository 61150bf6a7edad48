"""A Slurm of two nodes, started for these tests and ended after them. Needs Debian's slurm-wlm and munge, and root.

Both nodes are this machine: the second has another hostname, in a UTS namespace of its own. The partitions `low`
(preempted: 20 s of grace, then started again), `rude` (the same without grace) and `high` (preempts both) have the
first node, `pair` has both. Each node has two GPUs that are none. A job that is started again waits 7 s instead of
Slurm's two minutes (cred_expire).
"""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from conftest import need

PROGRAMS = ("unshare", "munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "squeue", "scancel")
CONFIG = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
SlurmctldPort={ports[0]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
ProctrackType=proctrack/pgid
TaskPlugin=task/none
MpiDefault=none
MailProg=/bin/true
ReturnToService=2
SchedulerParameters=bf_interval=1,sched_interval=1,batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=15
MinJobAge=3600
GresTypes=gpu
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=16 RealMemory=200000 Gres=gpu:2 State=UNKNOWN
NodeName={second} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=16 RealMemory=200000 Gres=gpu:2 State=UNKNOWN
PartitionName=low Nodes={host} Default=YES PriorityTier=1 GraceTime=20 MaxTime=INFINITE
PartitionName=rude Nodes={host} PriorityTier=1 GraceTime=0 MaxTime=INFINITE
PartitionName=high Nodes={host} PriorityTier=10 PreemptMode=OFF MaxTime=INFINITE
PartitionName=pair Nodes={host},{second} PreemptMode=OFF MaxTime=INFINITE
"""
GPUS = """
Name=gpu File=/dev/null
Name=gpu File=/dev/zero
"""


class Cluster:
    """What a person at the login node can do."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf"), "OMP_NUM_THREADS": "1"}

    def __call__(self, *words: object, ok: bool = True, cwd: Path | None = None) -> str:
        """Run a command; returns what it printed."""
        command = [str(word) for word in words]
        done = subprocess.run(command, capture_output=True, text=True, env=self.environment, cwd=cwd, check=False)
        assert (done.returncode == 0) == ok, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout if ok else done.stderr

    def egochef(self, *words: object, ok: bool = True, cwd: Path | None = None) -> str:
        return self(sys.executable, "-m", "egochef", *words, ok=ok, cwd=cwd)

    def submit(self, *words: object) -> str:
        """`egochef slurm submit`; returns the job's number."""
        said = self.egochef("slurm", "submit", *words)
        return said.split()[1]

    def facts(self, job: str) -> dict[str, str]:
        """What Slurm knows of a job."""
        return dict(
            word.split("=", 1) for word in self("scontrol", "--oneliner", "show", "job", job).split() if "=" in word
        )

    def wait(self, job: str, *states: str, restarts: int = 0, within_s: float = 180) -> dict[str, str]:
        """Wait until the job is in one of the states (COMPLETED, FAILED, ...) after at least so many restarts."""
        until = time.monotonic() + within_s
        while True:
            facts = self.facts(job)
            if facts["JobState"] in states and int(facts["Restarts"]) >= restarts:
                return facts
            ended = facts["JobState"] in ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT")
            told = f"job {job} is {facts['JobState']} ({facts['Reason']}), not {states}\n{self.log(facts)}"
            assert time.monotonic() < until and not ended, told
            time.sleep(0.2)

    def log(self, facts: dict[str, str]) -> str:
        path = Path(facts.get("StdOut", "/nowhere"))
        return path.read_text() if path.is_file() else f"no {path}"


@contextmanager
def _daemon(command: list[object], path: str, log: Path) -> Iterator[None]:
    """A server in the foreground, as a child that is ended in the end."""
    with log.open("w") as file:
        environment = os.environ | {"PATH": path}
        process = subprocess.Popen([str(word) for word in command], stdout=file, stderr=file, env=environment)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    path = os.environ["PATH"] + ":/usr/sbin:/sbin"
    missing = [program for program in PROGRAMS if shutil.which(program, path=path) is None]
    need(not missing, f"Slurm ({', '.join(missing)}): Debian's packages slurm-wlm and munge")
    need(os.geteuid() == 0, "root, to start a Slurm of its own")
    folder = tmp_path_factory.mktemp("slurm")
    host = socket.gethostname().split(".")[0]
    second = f"{host}-second"  # sorts after the first, whose name can be looked up
    for name in ("state", f"spool-{host}", f"spool-{second}"):
        (folder / name).mkdir()
    config = CONFIG.format(host=host, second=second, folder=folder, ports=_free_ports(3))
    (folder / "slurm.conf").write_text(config)
    (folder / "gres.conf").write_text(GPUS)
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(1024))
    key.chmod(0o400)
    here = Cluster(folder)
    here.environment["PATH"] = path
    munge = {"key-file": key, "socket": folder / "munge.socket", "pid-file": folder / "munged.pid"}
    munge |= {"log-file": folder / "munged-own.log", "seed-file": folder / "munge.seed"}
    daemons = {
        "munged": ["--foreground", "--force", *(f"--{name}={value}" for name, value in munge.items())],
        "slurmctld": ["-D", "-f", folder / "slurm.conf"],
        "slurmd": ["-D", "-f", folder / "slurm.conf"],
        "unshare": ["--uts", "bash", "-c", f'hostname {second}; exec slurmd -D -f "$0"', folder / "slurm.conf"],
    }
    with ExitStack() as stack:
        for name, flags in daemons.items():
            stack.enter_context(_daemon([shutil.which(name, path=path), *flags], path, folder / f"{name}.log"))
            if name == "munged":
                _until(lambda: (folder / "munge.socket").exists(), folder)
        _until(lambda: here("sinfo", "--noheader", "--partition=pair", "--format=%D %T").strip() == "2 idle", folder)
        try:
            yield here
        finally:
            here("scancel", "--user", "root")
            _until(lambda: not here("squeue", "--noheader"), folder)


def _until(is_so, folder: Path, within_s: float = 60) -> None:
    until = time.monotonic() + within_s
    while True:
        try:
            if is_so():
                return
        except AssertionError:  # it does not answer yet
            pass
        if time.monotonic() > until:
            logs = "\n".join(f"{path.name}: {path.read_text()[-1500:]}" for path in folder.glob("*.log"))
            pytest.fail(f"Slurm did not start or end within {within_s} s\n{logs}")
        time.sleep(0.1)
