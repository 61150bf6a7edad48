"""Several processes that work on one run, each with a device of its own: ranks 0 to W-1, on one machine or several.

In: what the launcher (torchrun, or Slurm's srun) says in the environment. Out: `Ranks`, whose collectives do nothing
where there is one process only. Nothing is ever pickled: numbers go as tensors, texts as JSON.

Each rank writes a heartbeat into a common store. Where a rank ends by a fault, dies or loses its machine, the others
say which one and why, and end too, instead of waiting for it for ever.
"""

import json
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from egochef.errors import InputError, Stopped
from egochef.launch import Launch, read_launch

log = logging.getLogger(__name__)

BEAT_S = 1.0
SILENT_S = 35.0
"""without a heartbeat after which a rank counts as dead"""
ASK_S = 8.0
"""within which a rank that others lost has to show a heartbeat"""
JOIN_S = 300.0
"""for all ranks to start"""
COLLECTIVE_S = 1800.0
"""for one collective; the heartbeats see what is lost long before"""
IN_ORDER = "in order"
"""why a rank ends whose work is done, or that was told to stop as all are"""
NO_STORE = "rank 0 died or hangs, or its machine or the network did: the ranks' common store does not answer"
GO_ON = "Go on with the same command and --resume."


class Ranks:
    """This process among its peers. Every rank has to call the same collectives in the same order."""

    def __init__(self, launch: Launch | None = None, store: Any = None, device: torch.device | None = None):
        launch = launch or Launch()
        self.rank, self.num_ranks, self.launch = launch.rank, launch.num_ranks, launch
        self.device = device or torch.device("cpu")
        self._store = store
        self._round = 0
        self.end_together = False
        """all ranks have agreed to end here"""

    @property
    def is_first(self) -> bool:
        """Whether this rank writes files and speaks to people."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """The sum over the ranks, on the CPU; exact where all but one have zero."""
        if self.num_ranks == 1:
            return values
        moved = values.to(self.device, copy=True)
        dist.all_reduce(moved)
        return moved.cpu()

    def least(self, value: int) -> int:
        """The smallest of the ranks' numbers."""
        if self.num_ranks == 1:
            return value
        moved = torch.tensor(value, device=self.device)
        dist.all_reduce(moved, dist.ReduceOp.MIN)
        return int(moved.item())

    def any(self, flag: bool) -> bool:
        """Whether it is true on some rank."""
        return not self.least(int(not flag))

    def share_buffers(self, *modules: nn.Module) -> None:
        """Give all ranks rank 0's buffers, such as BatchNorm's statistics."""
        if self.num_ranks > 1:
            for module in modules:
                for buffer in module.buffers():
                    dist.broadcast(buffer, 0)

    def gather(self, value: Any) -> list[Any]:
        """The JSON values of all ranks, in their order."""
        if self.num_ranks == 1:
            return [value]
        self._round += 1
        self._store.set(f"gather/{self._round}/{self.rank}", json.dumps(value))
        return [json.loads(self._store.get(f"gather/{self._round}/{rank}")) for rank in range(self.num_ranks)]

    def from_first(self, value: Any) -> Any:
        """Rank 0's JSON value, on all ranks; the others wait for it however long it takes."""
        if self.num_ranks == 1:
            return value
        self._round += 1
        key = f"first/{self._round}"
        if self.is_first:
            self._store.set(key, json.dumps(value))
            return json.loads(json.dumps(value))
        while not self._store.check([key]):
            time.sleep(0.05)
        return json.loads(self._store.get(key))


@contextmanager
def join_ranks(device_type: str | None = None) -> Iterator[Ranks]:
    """Meet the other ranks, and leave them in good order.

    Args:
        device_type: cuda for NCCL, else gloo; None: cuda where there is one.

    Raises:
        InputError: they do not all come, or one of them ended or died; names it and says why.
    """
    launch = read_launch()
    if launch.num_ranks == 1:
        yield Ranks(launch)
        return
    on_cuda = torch.cuda.is_available() if device_type is None else device_type == "cuda"
    alone_on_gpu = on_cuda and torch.cuda.device_count() == 1  # where the launcher shows each rank its own only
    device = torch.device("cuda", 0 if alone_on_gpu else launch.local_rank) if on_cuda else torch.device("cpu")
    if on_cuda:
        if torch.cuda.device_count() > 1 and launch.local_rank >= torch.cuda.device_count():
            raise InputError(
                f"rank {launch.rank} would take GPU {launch.local_rank}, this machine shows "
                f"{torch.cuda.device_count()}. Start as many ranks a machine as it has GPUs."
            )
        torch.cuda.set_device(device)
    store = open_store(launch, is_server=launch.rank == 0 and not launch.agent_has_store)
    watch = Watch(launch)
    watch.start()
    ranks: Ranks | None = None
    try:
        dist.init_process_group(
            "nccl" if on_cuda else "gloo",
            store=dist.PrefixStore(f"collectives/{launch.attempt}", store),
            rank=launch.rank,
            world_size=launch.num_ranks,
            timeout=timedelta(seconds=COLLECTIVE_S),
        )
        ranks = Ranks(launch, dist.PrefixStore(launch.attempt, store), device)
        yield ranks
        watch.leave(IN_ORDER)
        dist.destroy_process_group()
    except Stopped as stopped:
        watch.leave(IN_ORDER if ranks and ranks.end_together else str(stopped))
        raise
    except Exception as error:
        lost, why = None, str(error)
        if not isinstance(error, InputError):  # perhaps of a collective
            lost = watch.who_is_lost()
            why = lost or f"{type(error).__name__}: {error}"
        watch.leave(why)
        if lost:
            raise InputError(f"{lost}. {GO_ON}") from error
        raise
    finally:
        watch.stop()


def open_store(launch: Launch, *, is_server: bool) -> dist.TCPStore:
    """The ranks' common store.

    Raises:
        InputError: there is no way to it.
    """
    try:
        return dist.TCPStore(
            launch.host,
            launch.port,
            launch.num_ranks,
            is_master=is_server,
            timeout=timedelta(seconds=JOIN_S),
            wait_for_workers=False,
        )
    except (RuntimeError, dist.DistError) as error:
        raise InputError(
            f"rank {launch.rank} cannot reach rank 0 at {launch.host}:{launch.port} "
            f"({str(error).splitlines()[0]}). Is the name right, and the port free and open between the machines?"
        ) from None


class Watch(threading.Thread):
    """Writes this rank's heartbeat and reads those of the others, over a connection of its own."""

    def __init__(self, launch: Launch):
        super().__init__(daemon=True, name="ranks")
        self._launch = launch
        self._store = dist.PrefixStore(launch.attempt, open_store(launch, is_server=False))
        self._looked = time.monotonic()
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._seen = {rank: ("", time.monotonic()) for rank in range(launch.num_ranks) if rank != launch.rank}
        """the last heartbeat of each other rank, and when it changed"""
        self._left: dict[int, str] = {}
        """ranks that said why they end"""
        self.store_is_gone = False
        threading.Thread(target=self._see_that_it_looks, daemon=True, name="ranks' watch").start()

    def run(self) -> None:
        count = 0
        while not self._ended.wait(BEAT_S):
            count += 1
            try:
                self._look(count)
            except (RuntimeError, dist.DistError):
                self.store_is_gone = True
                self._end(NO_STORE)
                return
            self._looked = time.monotonic()
            for rank, (beat, changed) in self._seen.items():
                patience_s = SILENT_S if beat else JOIN_S
                if rank not in self._left and time.monotonic() - changed > patience_s:
                    what = "died" if beat else "never came"
                    self._end(f"rank {rank}{self._where(rank)} {what}: no sign of life for {patience_s:g} s")
                    return
            if failed := self._failed():
                self._end(failed)
                return

    def _see_that_it_looks(self) -> None:
        """Reading the store waits without end where the machine that keeps it is gone, or rank 0 hangs."""
        while not self._ended.wait(BEAT_S):
            if time.monotonic() - self._looked > SILENT_S:
                self.store_is_gone = True
                self._end(NO_STORE)
                return

    def _look(self, count: int) -> None:
        with self._lock:
            about = {"host": socket.gethostname(), "pid": os.getpid(), "count": count}
            self._store.set(f"beat/{self._launch.rank}", json.dumps(about))
            for rank, (before, _) in self._seen.items():
                if self._store.check([f"beat/{rank}"]):
                    beat = self._store.get(f"beat/{rank}").decode()
                    if beat != before:
                        self._seen[rank] = (beat, time.monotonic())
                if rank not in self._left and self._store.check([f"left/{rank}"]):
                    self._left[rank] = self._store.get(f"left/{rank}").decode()

    def _where(self, rank: int) -> str:
        beat = self._seen[rank][0]
        if not beat:
            return ""
        about = json.loads(beat)
        return f" (process {about['pid']} on {about['host']})"

    def _failed(self) -> str | None:
        """A rank that told why it ends before the work was done."""
        for rank, why in self._left.items():
            if why != IN_ORDER:
                return f"rank {rank}{self._where(rank)} ended: {why}"
        return None

    def who_is_lost(self) -> str | None:
        """After something failed here that may be a collective: which rank is lost, and why? None: all live.

        A rank lives that shows two more heartbeats: the first may be of before its death, and only be read now.
        """
        asked = time.monotonic()
        shown = {rank: [beat] for rank, (beat, _) in self._seen.items()}
        while time.monotonic() - asked < ASK_S:
            if self.store_is_gone:
                return NO_STORE
            if failed := self._failed():
                return failed
            for rank, beats in shown.items():
                if self._seen[rank][0] != beats[-1]:
                    beats.append(self._seen[rank][0])
            time.sleep(0.2)
        silent = [rank for rank, beats in shown.items() if len(beats) < 3 and rank not in self._left]
        return ", ".join(f"rank {rank}{self._where(rank)}" for rank in silent) + " died" if silent else None

    def leave(self, why: str) -> None:
        """Tell the others that this rank ends, and why."""
        if self.store_is_gone or not self._lock.acquire(timeout=ASK_S):
            return
        try:
            self._store.set(f"left/{self._launch.rank}", why)
        except (RuntimeError, dist.DistError):
            log.debug("the ranks' store is gone")
        finally:
            self._lock.release()

    def stop(self) -> None:
        """End the watch. Where the store is rank 0's own, it stays until the others have done with it.

        A thread that comes back from the store while Python shuts down would abort the process.
        """
        self._ended.set()
        self.join(ASK_S)
        if self._launch.rank == 0 and not self._launch.agent_has_store and not self.store_is_gone:
            until = time.monotonic() + ASK_S
            others = [rank for rank in self._seen if self._seen[rank][0]]
            with self._lock:
                while time.monotonic() < until and not self._store.check([f"left/{rank}" for rank in others]):
                    time.sleep(0.1)

    def _end(self, why: str) -> None:
        """The main thread waits in a collective that nothing ends: say why, and end the process."""
        if self._ended.wait(ASK_S + 2):  # it may have heard of it by itself
            return
        log.critical("egochef: %s. %s", why, GO_ON)
        logging.shutdown()
        os._exit(Stopped.EXIT_CODE if " ended: stopped by " in why else 1)
