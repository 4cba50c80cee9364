"""Several processes at one job, as torchrun starts them; one process alone is a group of one.

Every process has all the data and the same model. Of each batch it computes its share; sums over
the group are what a single process would have computed. (A head on stored vectors is trained whole
by each: a message would take longer than a step.) Knows nothing of models or files.
"""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator

import torch
import torch.distributed as dist

from minigpt.edge.errors import InputError
from minigpt.fit import Alone


@dataclasses.dataclass(frozen=True)
class Group(Alone):
    """The processes of a run: which one this is, and how to add up over all of them."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0  # among those on the same machine

    def share(self, texts):
        """Return the part of a batch that this process computes; it may be empty."""
        return texts[self.rank :: self.size]

    def add_up(self, total: torch.Tensor, parameters: list[torch.nn.Parameter]) -> None:
        """Replace a sum, and the gradients, by those over the group."""
        if self.size == 1:
            return
        for parameter in parameters:
            if parameter.grad is None:  # this process had no text of the step
                parameter.grad = torch.zeros_like(parameter)
        self.all_reduce([total, *(parameter.grad for parameter in parameters)])

    def all_reduce(self, tensors: list[torch.Tensor]) -> None:
        """Replace each tensor, in place, by its sum over the group."""
        if self.size == 1:
            return
        flat = torch.cat([t.flatten() for t in tensors])  # one message, not one for each
        with group_errors():
            dist.all_reduce(flat)
        for tensor, total in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(total.view_as(tensor))

    def broadcast(self, tensor: torch.Tensor) -> None:
        """Replace a tensor, in place, by that of the first process."""
        if self.size > 1:
            with group_errors():
                dist.broadcast(tensor.detach(), 0)

    def map(self, function: Callable, batches: list) -> Iterator[torch.Tensor]:
        """Yield function(batch), (rows, ...), for each batch, in order.

        Each is computed by one process and sent to all; by several, if fewer batches are left than
        there are processes.
        """
        for i in range(0, len(batches), self.size):
            together = batches[i : i + self.size]
            own = function(together[self.rank % len(together)])
            yield from self.gather(own)[: len(together)]

    def gather(self, tensor: torch.Tensor) -> list[torch.Tensor]:  # (rows, ...)
        """Return the tensors of all processes, by rank; only their numbers of rows may differ."""
        if self.size == 1:
            return [tensor]
        rows = torch.zeros(self.size, dtype=torch.int64, device=tensor.device)
        rows[self.rank] = len(tensor)
        self.all_reduce([rows])
        own = tensor.new_zeros(int(rows.max()), *tensor.shape[1:])  # all must have the same shape
        own[: len(tensor)] = tensor
        parts = [torch.empty_like(own) for _ in rows]
        with group_errors():
            dist.all_gather(parts, own)
        return [part[:n] for part, n in zip(parts, rows.tolist(), strict=True)]

    def all_agree(self, yes: bool) -> bool:
        """Return whether every process says yes; none continues before all have answered."""
        votes = torch.tensor(float(yes), device=self.device)
        self.all_reduce([votes])
        return votes.item() == self.size

    @property
    def device(self) -> str:
        """The device whose memory messages are sent from."""
        nccl = self.size > 1 and dist.get_backend() == "nccl"
        return f"cuda:{self.local_rank}" if nccl else "cpu"


GROUP_OF_ONE = Group()


@contextlib.contextmanager
def group_errors():
    """Say in one line that another process has ended, in place of a backend's trace."""
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
    """Enter the group in which torchrun started this process: NCCL on GPUs, gloo on CPUs."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        yield GROUP_OF_ONE
        return
    rank, size, local_rank = (int(os.environ[n]) for n in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    if device == "mps":
        raise InputError("torchrun cannot use an Apple GPU; say --device cpu")
    if device == "cuda":
        if local_rank >= torch.cuda.device_count():
            raise InputError(f"{torch.cuda.device_count()} GPUs here: start no more processes")
        torch.cuda.set_device(local_rank)
    with group_errors():
        dist.init_process_group("nccl" if device == "cuda" else "gloo")
    yield Group(rank, size, local_rank)
    dist.destroy_process_group()  # not after an error: it would wait for the others
