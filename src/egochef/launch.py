"""What a launcher (torchrun, or Slurm's srun) says of this process in the environment.

In: environment variables. Out: a `Launch`. Imports nothing heavy, so that it can be asked first.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from egochef.errors import InputError


@dataclass(frozen=True)
class Launch:
    """What the launcher says of this process."""

    rank: int = 0
    num_ranks: int = 1
    local_rank: int = 0
    """among the ranks of this machine: which of its GPUs to take"""
    local_ranks: int = 1
    """ranks of this machine, as far as it is known: they share its processors"""
    host: str = ""
    """of rank 0"""
    port: int = 0
    agent_has_store: bool = False
    """torchrun's own process keeps the store"""
    attempt: str = "0"
    """of torchrun, which keeps its store when it starts all ranks again"""


def read_launch(environment: Mapping[str, str] | None = None) -> Launch:
    """What torchrun or srun say; one process alone where neither started it.

    Raises:
        InputError: a rank that does not fit, or several ranks without the address of the first.
    """
    said = os.environ if environment is None else environment
    if "RANK" in said and "WORLD_SIZE" in said:
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    elif "SLURM_PROCID" in said and "SLURM_STEP_NUM_TASKS" in said:  # inside srun, not in the batch script itself
        names = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID")
    else:
        return Launch()
    try:
        rank, num_ranks, local_rank = (int(said.get(name, "0")) for name in names)
        port = int(said.get("MASTER_PORT", "0"))
    except ValueError:
        values = ", ".join(f"{name} {said.get(name)!r}" for name in (*names, "MASTER_PORT"))
        raise InputError(f"{values}: expected whole numbers. They come from torchrun or srun.") from None
    if num_ranks == 1:
        return Launch(local_rank=local_rank)
    if not 0 <= rank < num_ranks:
        raise InputError(f"{names[0]} is {rank} and {names[1]} is {num_ranks}: expected a rank from 0 to below it")
    host = said.get("MASTER_ADDR", "")
    if not host or not 0 < port < 65536:
        raise InputError(
            f"{num_ranks} ranks, and MASTER_ADDR is {host!r}, MASTER_PORT {port}: set both to the first machine's name "
            "and a free port (egochef slurm does), or start with torchrun."
        )
    local_ranks = int(said.get("LOCAL_WORLD_SIZE", "1"))  # srun gives each task processors of its own
    agent_has_store = said.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    attempt = said.get("TORCHELASTIC_RESTART_COUNT", "0")
    return Launch(rank, num_ranks, local_rank, local_ranks, host, port, agent_has_store, attempt)
