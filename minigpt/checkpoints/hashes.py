"""The sha256 of weights, remembered until they change: for gpt2 it is a third of a second."""

import contextlib
import hashlib
import re
import time
from pathlib import Path

from minigpt.edge import files


def sha256_of(paths: list[Path]) -> str:
    """Return the hash of files, one after the other."""
    status = [(str(path.resolve()), path.stat()) for path in paths]
    identity = [(p, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for p, s in status]
    name = hashlib.sha256(repr(identity).encode()).hexdigest()[:32]
    memory = files.cache_folder() / "sha256" / name
    with contextlib.suppress(OSError, UnicodeDecodeError):
        text = memory.read_text(encoding="ascii") if memory.is_file() else ""
        if re.fullmatch("[0-9a-f]{64}", text):  # else it is damaged
            return text
    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            hashlib.file_digest(file, lambda: digest)  # adds to it
    newest = max(s.st_ctime_ns for _, s in status)
    if time.time_ns() - newest > 2e9:  # else a file might change again within a tick of its clock
        with contextlib.suppress(OSError):  # where nothing can be written, nothing is remembered
            memory.parent.mkdir(parents=True, exist_ok=True)
            files.write(memory, digest.hexdigest())
    return digest.hexdigest()
