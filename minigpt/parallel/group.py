"""Several processes at one job, as torchrun starts them; one process alone is a group of one.

Every process has all the data and the same model. Of each batch it computes its share; sums over
the group are what a single process would have computed. Knows nothing of models or files.
"""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator

import torch
import torch.distributed as dist

from minigpt.edge.errors import InputError


@dataclasses.dataclass(frozen=True)
class Group:
    """The processes of a run: which one this is, and how to add up over all of them."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0  # among those on the same machine

    def share(self, rows):
        """Return the part of a sequence that falls to this process; it may be empty."""
        return rows[self.rank :: self.size]

    def add_up(self, tensors: list[torch.Tensor]) -> None:
        """Replace each tensor, in place, by its sum over the group."""
        if self.size == 1 or not tensors:
            return
        flat = torch.cat([t.flatten() for t in tensors])  # one message, not one for each
        with group_errors():
            dist.all_reduce(flat)
        for tensor, total in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(total.view_as(tensor))

    def map(self, read: Callable, batches: list) -> Iterator[torch.Tensor]:
        """Yield read(batch), (rows, ...), for each batch, in order: one process reads, all get it.

        Where the batches do not come out even, the last ones are read by several.
        """
        for i in range(0, len(batches), self.size):
            together = batches[i : i + self.size]
            mine = read(together[self.rank % len(together)])
            yield from self.gather(mine)[: len(together)]

    def gather(self, tensor: torch.Tensor) -> list[torch.Tensor]:  # (rows, ...)
        """Return everyone's tensor, in order of rank; they differ in their number of rows only."""
        if self.size == 1:
            return [tensor]
        rows = torch.zeros(self.size, dtype=torch.int64, device=tensor.device)
        rows[self.rank] = len(tensor)
        self.add_up([rows])
        mine = tensor.new_zeros(int(rows.max()), *tensor.shape[1:])  # all must send as much
        mine[: len(tensor)] = tensor
        everyone = [torch.empty_like(mine) for _ in rows]
        with group_errors():
            dist.all_gather(everyone, mine)
        return [part[:n] for part, n in zip(everyone, rows.tolist(), strict=True)]

    def all_agree(self, yes: bool) -> bool:
        """Return whether every process says yes; none goes on before all have answered."""
        votes = torch.tensor(float(yes), device=self.device)
        self.add_up([votes])
        return votes.item() == self.size

    @property
    def device(self) -> str:
        """The device whose memory messages are sent from."""
        nccl = self.size > 1 and dist.get_backend() == "nccl"
        return f"cuda:{self.local_rank}" if nccl else "cpu"


ALONE = Group()


@contextlib.contextmanager
def group_errors():
    """Say in one line that another process is gone, in place of a backend's trace."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise  # this process's own trouble
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"another process of this run has ended or cannot be reached ({reason}); its own "
            f"message says why"
        ) from None


@contextlib.contextmanager
def joined(device: str):
    """Give the group that torchrun started this process in, over NCCL on GPUs and gloo on CPUs."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        yield ALONE
        return
    rank, size, local_rank = (int(os.environ[n]) for n in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    if device == "mps":
        raise InputError("torchrun cannot share out the work of an Apple GPU; say --device cpu")
    if device == "cuda":
        if local_rank >= torch.cuda.device_count():
            raise InputError(f"{torch.cuda.device_count()} GPUs here: start no more processes")
        torch.cuda.set_device(local_rank)
    with group_errors():
        dist.init_process_group("nccl" if device == "cuda" else "gloo")
    yield Group(rank, size, local_rank)
    dist.destroy_process_group()  # not after an error: it would wait for those who are gone
