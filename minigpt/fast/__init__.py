"""What makes it fast: what is frozen computed once, stored, laid out for kernels; and oneDNN.

The core has the same, slower: `head.vectors_of` in memory for `precompute` on disk, from any block
on and in bfloat16 or int8; `Classifier` for `PartialClassifier`; plain layers for `packed` ones.
"""

from minigpt.fast.frozen import FrozenPart, check_frozen_part, precompute
from minigpt.fast.packing import packed, packed_to_generate
from minigpt.fast.partial import PartialClassifier, compile_blocks
from minigpt.fast.process import (
    in_processes,
    one_thread,
    own_process,
    processes_at_once,
    reuse_memory,
)
from minigpt.fast.products import use_onednn
from minigpt.fast.store import stored

__all__ = [
    "FrozenPart",
    "PartialClassifier",
    "check_frozen_part",
    "compile_blocks",
    "in_processes",
    "one_thread",
    "own_process",
    "packed",
    "packed_to_generate",
    "precompute",
    "processes_at_once",
    "reuse_memory",
    "stored",
    "use_onednn",
]
