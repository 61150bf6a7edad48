"""`egochef slurm`: a training, or the making of a store, as a job of a Slurm cluster."""

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from egochef.cluster.script import Job

HELP = "train or prepare on a Slurm cluster: write the job's script, or submit it"
EXAMPLE = "egochef slurm submit train --recipe frames16 --data EPIC-STORE --out RUN --partition gpu --time 12:00:00"
KINDS = {"train": "a run as a job that goes on after preemptions", "prepare": "a store, made by an array of jobs"}
ACTIONS = {"print": "write the script to standard output", "submit": "keep code and script beside the run, and submit"}


class _Parser(argparse.ArgumentParser):
    """Keeps the words that it does not know as `rest`: they are for the command that the job runs."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        known, rest = super().parse_known_args(args, namespace)
        known.rest = rest
        return known, []


class _TrainByDefault(argparse.ArgumentParser):
    """Reads `slurm print --recipe R` as `slurm print train --recipe R`."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        words = list(args or [])
        if words and words[0].startswith("-") and words[0] not in ("-h", "--help"):
            words.insert(0, "train")
        return super().parse_known_args(words, namespace)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="print|submit", required=True, parser_class=_TrainByDefault)
    for action, action_help in ACTIONS.items():
        chosen = actions.add_parser(action, help=action_help, description=action_help, allow_abbrev=False)
        kinds = chosen.add_subparsers(dest="kind", metavar="train|prepare", required=True, parser_class=_Parser)
        for kind, kind_help in KINDS.items():
            words = f"every other flag is one of `egochef {kind}`; see its --help"
            job = kinds.add_parser(kind, help=kind_help, description=kind_help, epilog=words, allow_abbrev=False)
            _add_job(job, kind, is_submit=action == "submit")


def _add_job(parser: argparse.ArgumentParser, kind: str, *, is_submit: bool) -> None:
    training = kind == "train"
    parser.add_argument("--data", type=Path, required=True, metavar="D", help=f"as of egochef {kind}")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="RUN" if training else "STORE", help=f"as of egochef {kind}"
    )
    if training:
        parser.add_argument("--config", type=Path, metavar="FILE", help="as of egochef train, instead of --recipe")
        parser.add_argument("--nodes", type=int, default=1, metavar="N", help="machines (default: 1)")
        parser.add_argument(
            "--gpus", default="1", metavar="N", help="a machine: 2, or a100:2 for a kind, or 0 (default: 1)"
        )
        parser.add_argument(
            "--stage", action="store_true", help="copy --data to each machine's own disk first ($SLURM_TMPDIR, $TMPDIR)"
        )
    else:
        parser.add_argument("--parts", type=int, default=8, metavar="N", help="jobs of the array (default: 8)")
        parser.add_argument("--at-once", type=int, metavar="N", help="jobs that run at a time, at most (default: all)")
    parser.add_argument(
        "--time",
        default="12:00:00" if training else "8:00:00",
        metavar="T",
        help="limit of one start, after which the job goes on in another (default: %(default)s)",
    )
    parser.add_argument("--partition", metavar="P", help="queue, see sinfo (default: the cluster's)")
    parser.add_argument("--account", metavar="A", help="project that pays (default: the cluster's)")
    each = "GPU" if training else "job"
    parser.add_argument("--cpus", type=int, default=8, metavar="N", help=f"processors for each {each} (default: 8)")
    per_cpu = "4G" if training else "2G"
    parser.add_argument("--mem", metavar="M", help=f"memory of a machine, as 64G (default: {per_cpu} a processor)")
    parser.add_argument(
        "--setup", default="", metavar="'SHELL'", help="before the work: 'module load X; source V/bin/activate'"
    )
    parser.add_argument("--container", type=Path, metavar="IMG.sif", help="Apptainer image to run in")
    parser.add_argument(
        "--python", metavar="P", help="(default: this one; with --setup or --container, the python3 found there)"
    )
    parser.add_argument(
        "--save-before",
        type=int,
        default=120,
        metavar="S",
        help="seconds before the time limit at which the job saves and starts anew (default: 120)",
    )
    parser.add_argument(
        "--sbatch", action="append", default=[], metavar="OPTION", help="any option of sbatch, as --sbatch=--qos=long"
    )
    if is_submit:
        parser.add_argument(
            "--new-code", action="store_true", help="run today's code, where the run has a copy of an earlier one"
        )
    parser.add_argument("--traceback", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    from egochef.cluster.script import write_script

    job = build_job(args)
    inner = _inner_arguments(args)
    if args.action == "print":
        from egochef.cluster.submit import check_shell

        text = write_script(job)
        check_shell(text)
        sys.stdout.write(text)
        folder = shlex.quote(str(job.slurm))
        print(
            f"before sbatch: mkdir -p {folder}   (egochef slurm submit does that and keeps the code)", file=sys.stderr
        )
        return 0
    return _submit(args, job, inner)


def build_job(args: argparse.Namespace) -> "Job":
    """What the flags ask for.

    Raises:
        InputError: a value that Slurm or the shell cannot take.
    """
    from egochef.cluster.script import Job, Resources

    training = args.kind == "train"
    out = _absolute(args.out)
    ours = {"partition": args.partition, "account": args.account, "memory": args.mem, "more": tuple(args.sbatch)}
    ours |= {"time": args.time, "cpus": args.cpus, "save_before_s": args.save_before}
    ours |= {"nodes": args.nodes, "gpus": args.gpus} if training else {"gpus": "0", "memory_per_cpu": "2G"}
    config = ["--config", str(_absolute(args.config))] if training and args.config else []
    has_own_python = bool(args.container or args.setup.strip())
    return Job(
        command=(args.kind, *config, *(word for word in args.rest if word != "--resume")),
        data=_absolute(args.data),
        out=out,
        home=out if training else out.with_name(out.name + "-job"),
        here=Path.cwd(),
        resources=Resources(**ours),
        parts=None if training else args.parts,
        at_once=None if training else args.at_once,
        python=args.python or ("python3" if has_own_python else sys.executable),
        setup=args.setup,
        container=_absolute(args.container) if args.container else None,
        stage=training and args.stage,
    )


def _inner_arguments(args: argparse.Namespace) -> argparse.Namespace:
    """What the command of the job will make of its words; wrong usage ends here, not in the job.

    Raises:
        InputError: a value that the command will refuse, or one that goes with the job.
    """
    from egochef.cli import prepare, train
    from egochef.errors import InputError

    command = train if args.kind == "train" else prepare
    parser = argparse.ArgumentParser(prog=f"egochef slurm {args.action} {args.kind}", allow_abbrev=False)
    command.add_arguments(parser)
    words: Sequence[str] = ["--data", str(args.data), "--out", str(args.out), *args.rest]
    if args.kind == "train" and args.config:
        words = [*words, "--config", str(args.config)]
    inner = parser.parse_args(words)
    if args.kind == "prepare":
        if inner.shard != "1/1" or inner.dry_run:
            raise InputError("--shard and --dry-run do not go with an array of jobs, which makes the shards: --parts N")
    else:
        train.build_config(inner)
    return inner


def _submit(args: argparse.Namespace, job: "Job", inner: argparse.Namespace) -> int:
    import dataclasses
    import shutil

    from egochef.cluster.submit import check_free, submit
    from egochef.errors import InputError

    for flag, path in (("--data", job.data), ("--container", job.container)):
        if path is not None and not path.exists():
            raise InputError(f"{flag} is {path}, which is not there")
    check_free(job)
    if args.kind == "train":
        from egochef.training.runfiles import locked, refuse_others

        refuse_others(job.out)
        with locked(job.out):  # nobody works on it
            pass
        _check_weights(job, inner)
        if args.config:
            kept = job.slurm / "config.json"
            kept.parent.mkdir(parents=True, exist_ok=True)
            if args.config.resolve() != kept:
                shutil.copyfile(args.config, kept)
            words = tuple(str(kept) if word == str(_absolute(args.config)) else word for word in job.command)
            job = dataclasses.replace(job, command=words)
    had_code = (job.code / "egochef").is_dir()
    number = submit(job, new_code=args.new_code)
    pattern = f"job-{number}_*.out" if job.parts else f"job-{number}.out"
    log = shlex.quote(str(job.slurm)) + "/" + pattern
    print(f"job {number} is submitted: {job.slurm / f'job-{number}.sh'}")
    kept_code = "as at the first submit; --new-code takes today's" if had_code and not args.new_code else "as it is now"
    print(f"code: {job.code / 'egochef'} ({kept_code})")
    print(f"next: squeue --job {number}     # PD waits, R runs")
    print(f"      tail -F {log}")
    print(f"      scancel {number}          # end it; submit again to go on")
    return 0


def _check_weights(job: "Job", inner: argparse.Namespace) -> None:
    """Fetch the encoder's first weights now: the machines that train often have no network.

    Raises:
        InputError: they cannot be had, or are damaged.
    """
    from egochef.cli.train import build_config
    from egochef.inference.features import is_features
    from egochef.model.encoders import build_encoder
    from egochef.model.weights import load_initial_weights
    from egochef.scoring.table import load_scores

    config = build_config(inner)
    if config.teacher:
        load_scores(Path(config.teacher))
    if (job.out / "config.json").is_file() or is_features(job.data):
        return
    name = config.model.encoder
    load_initial_weights(build_encoder(name), name, config.init, partial=config.init_partial)


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))  # noqa: PTH100  symbolic links stay: clusters have them for a reason
