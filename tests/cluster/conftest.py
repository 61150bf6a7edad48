"""A Slurm of two nodes, started for these tests and ended after them. Needs Debian's slurm-wlm and munge, and root.

Both nodes are this machine: the second has another hostname, in a UTS namespace of its own. The partitions `low`
(preempted: time to end, then started again), `rude` (the same without that time) and `high` (preempts both) have the
first node, `pair` has both. Each node has two GPUs that are none. Who ends in time waits for none of the limits below,
so they are longer than any load of the machine.

What a test interrupts is paused before, or it might be over by then: see `Cluster.submit`.
"""

import io
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path

import pytest
from conftest import need

from egochef.cli.main import main

PROGRAMS = ("unshare", "munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "squeue", "scancel")
CONFIG = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket
SlurmctldPort={ports[0]}
FirstJobId={first_job}
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
KillWait=120
MinJobAge=3600
GresTypes=gpu
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=16 RealMemory=200000 Gres=gpu:2 State=UNKNOWN
NodeName={second} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=16 RealMemory=200000 Gres=gpu:2 State=UNKNOWN
PartitionName=low Nodes={host} Default=YES PriorityTier=1 GraceTime=120 MaxTime=INFINITE
PartitionName=rude Nodes={host} PriorityTier=1 GraceTime=0 MaxTime=INFINITE
PartitionName=high Nodes={host} PriorityTier=10 PreemptMode=OFF MaxTime=INFINITE
PartitionName=pair Nodes={host},{second} PreemptMode=OFF MaxTime=INFINITE
"""
GPUS = """
Name=gpu File=/dev/null
Name=gpu File=/dev/zero
"""

LONG_S = 300.0
"""for what takes seconds; a busy machine is slow"""
PAUSE = """
import json, os, signal, sys

def pause(event, words):
    if event == "os.rename" and os.environ["PAUSE_AT"] in str(words[1]):
        try:
            with open(os.environ["PAUSED"], "x") as file:
                json.dump({"pid": os.getpid(), "task": os.environ.get("SLURM_ARRAY_TASK_ID")}, file)
        except FileExistsError:
            return
        os.kill(os.getpid(), signal.SIGSTOP)

sys.addaudithook(pause)
"""
"""a sitecustomize.py: the first process that is about to give a file a name like $PAUSE_AT stops, once"""


class Cluster:
    """What a person at the login node can do."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.scratch = folder / "scratch"
        self.scratch.mkdir()
        self.environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf"), "TMPDIR": str(self.scratch)}
        self.environment["OMP_NUM_THREADS"] = "1"
        self._pauses: dict[str, Path] = {}

    def __call__(self, *words: object, ok: bool = True) -> str:
        """Run a command; returns what it printed."""
        command = [str(word) for word in words]
        done = subprocess.run(command, capture_output=True, text=True, env=self.environment, check=False)
        assert (done.returncode == 0) == ok, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout if ok else done.stderr

    def egochef(self, *words: object, ok: bool = True) -> str:
        """`egochef` in this process, which has torch already; returns what it printed."""
        out, errors = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(errors):
            for name, value in self.environment.items():
                patch.setenv(name, value)
            code = main([str(word) for word in words])
        assert code == (0 if ok else 1), f"{words}: {code}\n{out.getvalue()}\n{errors.getvalue()}"
        return out.getvalue() if ok else errors.getvalue()

    def submit(self, *words: object, pause_at: str | None = None) -> str:
        """`egochef slurm submit`; returns the job's number.

        Args:
            pause_at: the job's program stops, once, before a file gets a name with this in it; see `paused`.
        """
        before = dict(self.environment)
        if pause_at is not None:
            folder = self.folder / f"pause-{secrets.token_hex(4)}"
            folder.mkdir()
            (folder / "sitecustomize.py").write_text(PAUSE)
            self.environment |= {"PYTHONPATH": str(folder), "PAUSE_AT": pause_at, "PAUSED": str(folder / "paused")}
        try:
            job = self.egochef("slurm", "submit", *words).split()[1]
        finally:
            self.environment = before
        if pause_at is not None:
            self._pauses[job] = folder / "paused"
        return job

    def paused(self, job: str) -> tuple[int, str | None]:
        """Wait until the job's program has stopped at `pause_at`; returns its process id, and its number in an array.

        Slurm wakes it where Slurm ends it; else `wake` does.
        """
        mark = self._pauses[job]
        _until(lambda: mark.is_file() and mark.read_text().endswith("}"), self.folder)
        said = json.loads(mark.read_text())
        _until(lambda: _is_stopped(_status(said["pid"])), self.folder)
        return said["pid"], said["task"]

    def wake(self, pid: int, after: signal.Signals) -> None:
        """Let a paused program go on once this signal has come to it, if Slurm has not done so already."""

        def is_awake_or_told() -> bool:
            status = _status(pid)
            return not _is_stopped(status) or bool(int(status["ShdPnd"], 16) >> (after - 1) & 1)

        _until(is_awake_or_told, self.folder)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)

    def start_again(self, job: str) -> None:
        """Wait until Slurm has put the job back into its queue, and spare us the two minutes that it stays there.

        A node launches nothing for a job within the second in which it was ended.
        """
        self.wait(job, "PENDING", restarts=1)
        self("scontrol", "update", f"JobId={job}", "StartTime=now+3seconds")

    def facts(self, job: str) -> dict[str, str]:
        """What Slurm knows of a job."""
        said = self("scontrol", "--oneliner", "show", "job", job).strip()
        return dict(re.findall(r"(?:^| )([\w:/]+)=(.*?)(?= [\w:/]+=|$)", said))

    def wait(self, job: str, *states: str, restarts: int = 0, within_s: float = LONG_S) -> dict[str, str]:
        """Wait until the job is in one of the states (COMPLETED, FAILED, ...) after at least so many restarts."""
        until = time.monotonic() + within_s
        while True:
            facts = self.facts(job)
            if facts["JobState"] in states and int(facts["Restarts"]) >= restarts:
                return facts
            ended = facts["JobState"] in ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT")
            told = f"job {job} is {facts['JobState']} ({facts['Reason']}), not {states}\n{self.log(facts)}"
            assert time.monotonic() < until and not ended, told
            time.sleep(0.4)

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
            process.wait(60)
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
    first_job = 1 + 50 * (os.getpid() % 400)  # a job's number gives its ranks their port: two suites at once need two
    config = CONFIG.format(host=host, second=second, folder=folder, ports=_free_ports(3), first_job=first_job)
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


def _status(pid: int) -> dict[str, str]:
    """What Linux says of a process; nothing of one that has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return {}
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _is_stopped(status: dict[str, str]) -> bool:
    return status.get("State", "").startswith("T")


def _until(is_so, folder: Path, within_s: float = LONG_S) -> None:
    until = time.monotonic() + within_s
    while True:
        try:
            if is_so():
                return
        except AssertionError:  # it does not answer yet
            pass
        if time.monotonic() > until:
            logs = "\n".join(f"{path.name}: {path.read_text()[-1500:]}" for path in folder.glob("*.log"))
            pytest.fail(f"Slurm did not come so far within {within_s} s\n{logs}")
        time.sleep(0.1)
