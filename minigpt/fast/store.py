"""The cache: large arrays that are the same in the next run.

An array is a folder named after its key, with states.npy (read as a memory map) and about.json
(what it is, and the sha256 of states.npy). A folder appears whole or not at all; a damaged one is
removed and computed again; the least recently used are removed when all exceed the limit.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from minigpt.edge.errors import InputError
from minigpt.edge.files import NEW, cache_folder, discard
from minigpt.parallel.group import GROUP_OF_ONE, Group

LIMIT = 10e9  # bytes; the environment variable MINIGPT_CACHE_LIMIT has another number of them


def states_folder() -> Path:
    return cache_folder() / "states"


def cache_limit() -> float:
    """Return how many bytes all cached arrays may take. Raises InputError."""
    text = os.environ.get("MINIGPT_CACHE_LIMIT") or str(LIMIT)
    try:
        if float(text) >= 0:
            return float(text)
    except ValueError:
        pass
    raise InputError(f"MINIGPT_CACHE_LIMIT is {text!r}, not a number of bytes, such as 10e9")


def load(key: str, shape: tuple, dtype: str) -> np.ndarray | None:
    """Return a cached array, mapped from disk, or None if it is missing or cannot be read.

    One that is not what was written is removed.
    """
    folder = states_folder() / key
    if not all((folder / name).is_file() for name in ("about.json", "states.npy")):
        discard(folder)  # also if one is a pipe, which would be waited for
        return None
    try:
        about = json.loads((folder / "about.json").read_text(encoding="utf-8"))
        with open(folder / "states.npy", "rb") as file:
            sound = hashlib.file_digest(file, "sha256").hexdigest() == about["sha256"]
        array = np.lib.format.open_memmap(folder / "states.npy", mode="r") if sound else None
        if sound and (array.shape, array.dtype.str) == (shape, dtype) and array.flags.c_contiguous:
            with contextlib.suppress(OSError):  # somebody else's may be read, but not marked
                os.utime(folder)  # when it was last used
            return array
    except OSError:
        return None
    except Exception:  # whatever a file brings about that was damaged or forged
        pass
    discard(folder)
    return None


def store(
    key: str, shape: tuple, dtype: str, description: dict, pieces: Iterable[np.ndarray]
) -> np.ndarray:
    """Write an array that comes in pieces along its first axis; return it, mapped from disk.

    No more than a piece of it is in memory at a time. Older arrays are removed to make room; the
    newest stays, whatever its size. Of two processes that write the same at once, the first to
    finish wins. Raises InputError if it cannot be written.
    """
    limit, home = cache_limit(), states_folder()
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=NEW, dir=home, ignore_cleanup_errors=True) as made:
            new = Path(made)
            digest = write(new / "states.npy", shape, dtype, pieces)
            array = np.load(new / "states.npy", mmap_mode="r")  # stays mapped even if it is removed
            text = json.dumps({**description, "sha256": digest}, indent=2)
            (new / "about.json").write_text(text + "\n", encoding="utf-8")
            new.chmod(0o755)  # a temporary folder lets nobody else read it
            make_room(home, limit)
            with contextlib.suppress(OSError):  # another process was faster
                new.rename(home / key)
    except OSError as error:
        raise InputError(
            f"the cache in {home} cannot be written ({error.strerror}); free some space with "
            f"`python -m minigpt cache --clear`, or set MINIGPT_CACHE to another folder"
        ) from None
    return array


def stored(
    made_of: dict,
    title: str,
    shape: tuple,
    dtype: str,
    pieces: Callable[[], Iterable[np.ndarray]],
    group: Group = GROUP_OF_ONE,
) -> np.ndarray:
    """Return an array that depends on `made_of` alone: from the cache, or computed now.

    `pieces()` yields it in pieces along the first axis. In a group all processes compute them
    together, and one on each machine writes. Raises InputError if the cache cannot be written.
    """
    key = hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:32]
    array = load(key, shape, dtype)
    if not group.all_agree(array is not None):
        computed = pieces()
        if group.local_rank == 0:
            array = store(key, shape, dtype, made_of | {"title": title}, computed)
        else:
            for _ in computed:
                pass
        group.all_agree(True)  # none reads before all is written
        array = load(key, shape, dtype) if array is None else array
        if array is None:
            raise InputError("an array was removed from the cache at once; is its limit too low?")
    return np.asarray(array)  # still mapped from disk, but indexed as fast as an array in memory


def write(path: Path, shape: tuple, dtype: str, pieces: Iterable[np.ndarray]) -> str:
    """Write a .npy file, flushed to the disk; return its sha256."""
    header = {"shape": shape, "fortran_order": False, "descr": np.dtype(dtype).str}
    with open(path, "w+b") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for piece in pieces:
            file.write(np.ascontiguousarray(piece, dtype))
        file.flush()
        os.fsync(file.fileno())
        file.seek(0)
        return hashlib.file_digest(file, "sha256").hexdigest()


def entries(home: Path) -> list[tuple[float, Path]]:
    """Return (when last used, folder) of each cached array; the oldest use first.

    Unfinished ones are among them: their process may have been killed.
    """
    arrays = []
    for folder in home.glob("*"):
        if re.fullmatch(rf"[0-9a-f]{{32}}|{re.escape(NEW)}.*", folder.name):
            with contextlib.suppress(OSError):  # another process may have removed it just now
                used = [path.stat().st_mtime for path in (folder, *folder.glob("*"))]
                arrays.append((used[0] if NEW not in folder.name else max(used), folder))
    return sorted(arrays)


def remove(folder: Path, used: float) -> bool:
    """Remove a cached array, unless it may be being written; return whether it is gone."""
    if folder.name.startswith(NEW) and time.time() - used < 24 * 3600:
        return False
    shutil.rmtree(folder, ignore_errors=True)
    return not folder.exists()


def title_of(folder: Path) -> str:
    """Return the title of a cached array."""
    path = folder / "about.json"
    try:
        return json.loads(path.read_text(encoding="utf-8") if path.is_file() else "")["title"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return "unfinished or damaged"


def size_of(folder: Path) -> int:
    """Return the bytes of a folder's files."""
    total = 0
    for file in folder.glob("*"):
        with contextlib.suppress(OSError):
            total += file.stat().st_size
    return total


def make_room(home: Path, limit: float) -> None:
    """Remove what was used least recently until the rest, with the unfinished, is in the limit."""
    arrays = [(used, folder, size_of(folder)) for used, folder in entries(home)]
    total = sum(size for _, _, size in arrays)
    for used, folder, size in arrays:
        if total <= limit:
            return
        total -= size * remove(folder, used)
