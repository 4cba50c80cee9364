"""Files that appear whole or not at all, and that a crash does not take away again.

Each is written beside its place, flushed to the disk, and renamed: a reader sees the old one or the
new one, never half of one. Knows nothing of what is in them.
"""

import contextlib
import errno
import os
import shutil
import tempfile
from pathlib import Path

import platformdirs
import safetensors
import safetensors.torch
import torch

from minigpt.edge.errors import InputError

NEW = ".new-"  # what the names of unfinished files and folders begin with


def write(path: Path, content: str | dict[str, torch.Tensor], header: dict | None = None) -> None:
    """Write text or tensors, with `header` (str: str) in that of the file. Raises OSError.

    It is written in a folder of its own, since safetensors makes an unfinished file as well. The
    folder's name is always the same: what a killed process leaves, the next write clears away.
    """
    folder = path.with_name(NEW + path.name)
    new = folder / path.name
    discard(folder)  # also a link, which would have the file written somewhere else
    try:
        folder.mkdir()
        if isinstance(content, str):
            # Half a surrogate pair, in a label or a file's name, has no bytes in UTF-8
            new.write_text(content, encoding="utf-8", errors="backslashreplace")
        else:
            try:
                safetensors.torch.save_file(content, new, {"format": "pt", **(header or {})})
            except safetensors.SafetensorError as error:  # its error for a full disk
                raise OSError(errno.EIO, str(error), str(path)) from None
            new.chmod(0o666 & ~umask())  # save_file lets nobody else read it
        flush(new)
        os.replace(new, path)
    finally:
        discard(folder)
    flush(path.parent)


def cache_folder() -> Path:
    """Return where the cache is: MINIGPT_CACHE, or a folder in the user's cache directory."""
    named = os.environ.get("MINIGPT_CACHE")
    return Path(named).expanduser() if named else platformdirs.user_cache_path("minigpt")


def discard(path: Path) -> None:
    """Remove a file, a link or a folder, if there is one and it can be removed."""
    with contextlib.suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def umask() -> int:
    """Return the umask, the rights that new files do not get. Reading it is setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def lock(folder: Path) -> int | None:
    """Lock a folder for this process, until it ends or closes the handle that is returned.

    Raises InputError if another process has locked it. Does nothing where there are no locks.
    """
    try:
        import fcntl  # there is none on Windows

        handle = os.open(folder, os.O_RDONLY)
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return handle
    except BlockingIOError:
        os.close(handle)
        raise InputError(
            f"{folder} is being written by another process; wait for its end"
        ) from None
    except (ImportError, OSError):
        return None


def flush(path: Path) -> None:
    """Have a file, or a folder's list of names, written to the disk itself."""
    if os.name == "nt" and path.is_dir():
        return  # Windows does this by itself
    handle = os.open(path, os.O_RDWR if path.is_file() else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_folder(wanted: Path, files: dict, numbered: bool = False) -> Path:
    """Write files into a new or empty folder, all of them or none; return the folder.

    A file is text, tensors, or (tensors, header). All are written beside their places first and
    then moved there in their order. If the name is taken and `numbered`, a number is added to it.
    Raises OSError.
    """
    wanted.parent.mkdir(parents=True, exist_ok=True)
    inside = wanted.is_dir() and not numbered  # if it is mounted, its parent is on another disk
    beside = wanted if inside else wanted.parent
    with tempfile.TemporaryDirectory(prefix=NEW, dir=beside, ignore_cleanup_errors=True) as new:
        for name, content in files.items():
            write(Path(new, name), *(content if isinstance(content, tuple) else (content,)))
        folder = wanted if inside else make_folder(wanted, numbered)
        if not is_empty(folder):
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), str(folder))
        try:
            for name in files:
                os.replace(Path(new, name), folder / name)
            flush(folder)
            flush(folder.parent)
        except BaseException:
            for name in files:
                discard(folder / name)
            if not inside:
                discard(folder)
            raise
    return folder


def make_folder(wanted: Path, numbered: bool) -> Path:
    """Make a folder, with a number added to its name if that is taken and `numbered`."""
    folder, number = wanted, 1
    while True:
        try:
            folder.mkdir()
            return folder
        except FileExistsError:
            if not numbered:
                raise
        number += 1
        folder = wanted.with_name(f"{wanted.name}-{number}")


def is_empty(folder: Path) -> bool:
    """Return whether a folder holds nothing but what a killed process left unfinished."""
    return all(path.name.startswith(NEW) for path in folder.iterdir())


def check_output_folder(out: str | None, flag: str = "--out", own: str = "") -> Path | None:
    """Return where `flag` says to write, links followed, or None where it says nothing.

    Raises InputError unless files can be written there, before any work is done: into a new or
    empty folder, or one that has a file `own`, by which an earlier result is known. Nothing said
    means a new folder in runs/.
    """
    folder = Path("runs" if out is None else out).resolve()
    if out is not None and folder.exists():
        if not folder.is_dir():
            raise InputError(f"{flag} {out} is a file, not a folder; choose another name")
        if not is_empty(folder) and not (own and (folder / own).is_file()):
            of = f" and has no {own} of an earlier result" if own else ""
            raise InputError(f"{flag} {out} exists and is not empty{of}; choose another")
    nearest = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        tempfile.TemporaryDirectory(prefix=NEW, dir=nearest).cleanup()
    except OSError as error:
        reason = error.strerror
        raise InputError(f"{folder} cannot be written ({reason}); choose another {flag}") from None
    return None if out is None else folder


def part_of(folder: Path, name: str) -> Path:
    """Return the path of a folder's file, which may be missing. Raises InputError.

    A link must not lead out of the folder, except to where the Hub cache keeps the contents of its
    files, and a pipe or a device is not a file that somebody meant to hand over.
    """
    path, home = folder / name, folder.resolve()
    if not os.path.lexists(path):
        return path
    target = Path(os.path.realpath(path))  # as resolve(), but a link to itself is not an error
    blobs = home.parent.parent / "blobs"  # .../models--ORG--NAME/snapshots/REVISION
    if not (target.is_relative_to(home) or target.parent == blobs):
        raise InputError(
            f"{path} is a link that leads out of its folder; put the file itself there"
        )
    if target.exists() and not target.is_file():
        raise InputError(f"{path} is not a regular file")
    return path
