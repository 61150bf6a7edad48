"""The script of a Slurm job. In: a `Job`, what to run and what it needs. Out: text for sbatch.

The text is `job.sh`, one bash script for all jobs, with #SBATCH lines and a few shell variables put in at its top.
"""

import re
import shlex
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from egochef.errors import InputError

TEMPLATE = "job.sh"
MOST_STARTS = 5
"""after which a job that saved nothing new ends"""

TIME_S = (
    (r"(?P<m>\d+)(:(?P<s>\d+))?", "minutes[:seconds]"),
    (r"(?P<h>\d+):(?P<m>\d+):(?P<s>\d+)", "hours:minutes:seconds"),
    (r"(?P<d>\d+)-(?P<h>\d+)(:(?P<m>\d+)(:(?P<s>\d+))?)?", "days-hours[:minutes[:seconds]]"),
)
"""how Slurm writes a length of time"""
UNIT_S = {"d": 86400, "h": 3600, "m": 60, "s": 1}


@dataclass(frozen=True)
class Resources:
    """What a job asks Slurm for."""

    time: str = "12:00:00"
    """at most, of one start; in one of Slurm's spellings"""
    nodes: int = 1
    gpus: str = "1"
    """a node: a number, or a kind and a number such as a100:2; 0: none"""
    cpus: int = 8
    """for each process: one a GPU, or one a node without GPUs"""
    memory: str | None = None
    """a node, such as 64G; None: `memory_per_cpu` for each of its processors"""
    memory_per_cpu: str = "4G"
    partition: str | None = None
    """None: the cluster's default"""
    account: str | None = None
    """who pays; None: the cluster's default"""
    save_before_s: int = 120
    """before the time limit: when the job is told to save and start again"""
    more: tuple[str, ...] = ()
    """further options of sbatch, such as --qos=long"""

    def __post_init__(self) -> None:
        for flag, value in (("--nodes", self.nodes), ("--cpus", self.cpus), ("--save-before", self.save_before_s)):
            if value < 1:
                raise InputError(f"{flag} is {value}, expected at least 1")
        if not re.fullmatch(r"([A-Za-z][\w.-]*:)?\d+", self.gpus, re.ASCII):
            raise InputError(f"--gpus is {self.gpus!r}, expected a number such as 2, or a kind and a number as a100:2")
        for memory in (self.memory, self.memory_per_cpu):
            if memory is not None and not re.fullmatch(r"\d+[KMGT]?", memory, re.ASCII):
                raise InputError(f"--mem is {memory!r}, expected a number and a unit such as 64G")
        for flag, name in (("--partition", self.partition), ("--account", self.account)):
            if name is not None and not re.fullmatch(r"[\w.,@+-]+", name):
                raise InputError(f"{flag} is {name!r}, expected a name as `sinfo` or your cluster's guide gives it")
        if self.save_before_s > 65535:
            raise InputError(f"--save-before is {self.save_before_s}, expected at most 65535 seconds")
        if seconds_of(self.time) <= self.save_before_s:
            raise InputError(
                f"--time is {self.time}, and --save-before {self.save_before_s} seconds: the job would be told to save "
                "as it starts. Ask for more time."
            )
        for option in self.more:
            if not re.fullmatch(r"--[a-z][^\n\r\0]*", option):
                raise InputError(f"--sbatch is {option!r}, expected an option of sbatch such as --sbatch=--qos=long")

    @property
    def num_gpus(self) -> int:
        """a node"""
        return int(self.gpus.rpartition(":")[2])


@dataclass(frozen=True)
class Job:
    """A command of ours as a job of Slurm's."""

    command: tuple[str, ...]
    """words after `egochef`, without --data, --out and what continues"""
    data: Path
    out: Path
    home: Path
    """where the job's `code` and `slurm` folders are"""
    here: Path
    """folder in which the command runs"""
    resources: Resources
    parts: int | None = None
    """None: one job that trains; N: an array of N jobs, each a shard of `egochef prepare`"""
    at_once: int | None = None
    """parts that run at the same time; None: as many as there is room for"""
    python: str = "python3"
    setup: str = ""
    """shell commands before the work, such as `module load Python`"""
    container: Path | None = None
    """an Apptainer image to run in"""
    stage: bool = False
    """copy the data to each node's own disk first"""

    def __post_init__(self) -> None:
        for flag, count in (("--parts", self.parts), ("--at-once", self.at_once)):
            if count is not None and count < 1:
                raise InputError(f"{flag} is {count}, expected at least 1")
        if "\0" in self.setup:
            raise InputError("--setup holds a zero byte, expected shell commands")
        for flag, path in (("--data", self.data), ("--out", self.out), ("--container", self.container)):
            if path is not None and re.search(r"[\x00-\x1f]", str(path)):
                raise InputError(f"{flag} is {str(path)!r}: a path with control characters cannot be used in a job")
        if "\\" in str(self.home):
            raise InputError(f"--out is {self.out}: Slurm cannot write its log below a path with a backslash")
        if self.container is not None:
            for path in (self.data, self.home, self.here):
                if re.search("[,:]", str(path)):
                    raise InputError(f"{path}: Apptainer cannot bind a path with a comma or colon. Choose another.")

    @property
    def code(self) -> Path:
        return self.home / "code"

    @property
    def slurm(self) -> Path:
        return self.home / "slurm"

    @property
    def log(self) -> str:
        """Slurm's pattern for the path of the job's output."""
        return str(self.slurm).replace("%", "%%") + ("/job-%A_%a.out" if self.parts else "/job-%j.out")


def seconds_of(time: str) -> int:
    """A length of time as Slurm writes it, in seconds.

    Raises:
        InputError: not such a time, or none.
    """
    for pattern, _ in TIME_S:
        if match := re.fullmatch(pattern, time, re.ASCII):
            parts = {name: int(value or 0) for name, value in match.groupdict().items()}
            seconds = sum(UNIT_S[name] * value for name, value in parts.items())
            if seconds and parts.get("s", 0) < 60 and ("h" not in parts or parts.get("m", 0) < 60):
                return seconds
    raise InputError(f"--time is {time!r}, expected {', '.join(name for _, name in TIME_S)}, for example 12:00:00")


def write_script(job: Job) -> str:
    """The job's script."""
    template = resources.files(__package__).joinpath(TEMPLATE).read_text(encoding="utf-8")
    head, rest = template.split("@directives@")
    middle, tail = rest.split("@values@")
    return "".join([head, _directives(job), middle, _values(job), tail])


def _directives(job: Job) -> str:
    asked = job.resources
    name = re.sub(r"[^\w.-]", "-", f"egochef-{job.out.name}", flags=re.ASCII)
    lines = [f"--job-name={name}", f"--output={shlex.quote(job.log)}", "--open-mode=append"]
    if job.parts:
        lines.append(f"--array=1-{job.parts}" + (f"%{job.at_once}" if job.at_once else ""))
    if asked.partition:
        lines.append(f"--partition={asked.partition}")
    if asked.account:
        lines.append(f"--account={asked.account}")
    lines += [f"--time={asked.time}", f"--nodes={asked.nodes}", f"--ntasks-per-node={asked.num_gpus or 1}"]
    lines += [f"--cpus-per-task={asked.cpus}"]
    lines += [f"--mem={asked.memory}" if asked.memory else f"--mem-per-cpu={asked.memory_per_cpu}"]
    if asked.num_gpus:
        lines.append(f"--gres=gpu:{asked.gpus}")
    lines += ["--requeue", f"--signal=USR1@{asked.save_before_s}", *map(shlex.quote, asked.more)]
    return "\n".join(f"#SBATCH {line}" for line in lines)


def _values(job: Job) -> str:
    command = shlex.join(job.command)
    if job.parts:
        command += f' --shard "$SLURM_ARRAY_TASK_ID/{job.parts}"'
        if "--workers" not in job.command:
            command += ' --workers "$SLURM_CPUS_PER_TASK"'
        results = '"$out"'
    else:
        command += " --resume"
        results = '"$out/checkpoints/last" "$out/features"'
    container = ""
    if job.container is not None:
        words = ["apptainer", "exec", *(["--nv"] if job.resources.num_gpus else [])]
        for path in dict.fromkeys((job.here, job.data, job.out.parent if job.parts else job.home)):
            words += ["--bind", str(path)]
        container = shlex.join(words)
        if job.stage:
            container += ' --bind "${SLURM_TMPDIR:-${TMPDIR:-/tmp}}"'
        container += f" {shlex.quote(str(job.container))}"
    lines = [
        f"here={shlex.quote(str(job.here))}",
        f"data={shlex.quote(str(job.data))}",
        f"out={shlex.quote(str(job.out))}",
        f"code={shlex.quote(str(job.code))}",
        f"slurm={shlex.quote(str(job.slurm))}",
        f"command=({command})",
        f"python={shlex.quote(job.python)}",
        f"container=({container})",
        f"parts={job.parts or ''}",
        f"stage={'yes' if job.stage else ''}",
        f"results=({results})  # what grows as the work goes on",
        f"most_starts={MOST_STARTS}",
    ]
    if job.setup.strip():
        lines += ["setup() {", *(f"    {line}".rstrip() for line in job.setup.splitlines()), "}"]
    else:
        lines += ["setup() { :; }"]
    return "\n".join(lines)
