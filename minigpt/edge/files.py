"""Files that appear whole or not at all, and that a crash does not take away again.

Each is written beside its place, flushed to the disk, and renamed: who looks finds the old one or
the new one, never half of one. Knows nothing of what is in them.
"""

import contextlib
import errno
import os
import shutil
import tempfile
from pathlib import Path

import safetensors
import safetensors.torch
import torch

from minigpt.edge.errors import InputError

NEW = ".new-"  # what the names of unfinished files and folders begin with
TAKEN = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)


def write(path: Path, content: str | dict[str, torch.Tensor], about: dict | None = None) -> None:
    """Write text or tensors, with `about` (str: str) in the tensors' header. Raises OSError.

    It is written in a folder of its own, since safetensors has an unfinished file, too. The name is
    always the same: what a killed process leaves is cleared by the next one, and does not pile up.
    """
    room = path.with_name(NEW + path.name)
    new = room / path.name
    discard(room)  # also a link that somebody has put there, to be written through
    try:
        room.mkdir()
        if isinstance(content, str):
            new.write_text(content, encoding="utf-8")
        else:
            try:
                safetensors.torch.save_file(content, new, {"format": "pt", **(about or {})})
            except safetensors.SafetensorError as error:  # what it makes of a full disk
                raise OSError(errno.EIO, str(error), str(path)) from None
            new.chmod(0o666 & ~umask())  # save_file lets nobody else read it
        flush(new)
        os.replace(new, path)
    finally:
        discard(room)
    flush(path.parent)


def discard(path: Path) -> None:
    """Remove what is there, whatever it is, if it can be removed."""
    with contextlib.suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def append(path: Path, line: str) -> None:
    """Add a line to a file, down to the disk, in one piece. Raises OSError."""
    with open(path, "ab", buffering=0) as file:
        before = file.seek(0, os.SEEK_END)
        try:
            data = line.encode()
            if file.write(data) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            os.fsync(file.fileno())
        except BaseException:
            file.truncate(before)  # half a line would spoil the next one, too
            raise


def umask() -> int:
    """Return which rights the user does not give away: to be asked for, it has to be set."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def lock(folder: Path) -> int | None:
    """Take a folder for this process alone, until its end or until the handle is closed.

    Raises InputError if another process has it. Where there are no locks, does nothing.
    """
    try:
        import fcntl  # there is none on Windows

        handle = os.open(folder, os.O_RDONLY)
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return handle
    except BlockingIOError:
        os.close(handle)
        raise InputError(f"{folder} is being written by another process; let it end") from None
    except (ImportError, OSError):
        return None


def flush(path: Path) -> None:
    """Have a file, or a folder's list of names, written to the disk itself."""
    if os.name == "nt" and path.is_dir():
        return  # Windows has no such thing, and needs none
    handle = os.open(path, os.O_RDWR if path.is_file() else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_folder(wanted: Path, files: dict, numbered: bool = False) -> Path:
    """Write files, all or nothing: beside the folder's place, then in it; return where.

    A file is text, tensors, or (tensors, about). If the place is taken and `numbered`, a number is
    added to its name. An empty folder that is there already gets the files, one after the other in
    their order: it may be a mounted one, in whose place nothing can be put. Raises OSError.
    """
    wanted.parent.mkdir(parents=True, exist_ok=True)
    inside = wanted.is_dir() and not numbered
    new = Path(tempfile.mkdtemp(prefix=NEW, dir=wanted if inside else wanted.parent))
    try:
        for name, content in files.items():
            write(new / name, *(content if isinstance(content, tuple) else (content,)))
        new.chmod(0o777 & ~umask())  # mkdtemp lets nobody else read it
        if inside:
            move_into(new, wanted, files)
            return wanted
        place, number = wanted, 1
        while new != place:
            try:
                new = new.rename(place)
            except OSError as error:  # another one has the name
                if not numbered or error.errno not in TAKEN:
                    raise
                number += 1
                place = wanted.with_name(f"{wanted.name}-{number}")
        flush(wanted.parent)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    return place


def move_into(new: Path, place: Path, names) -> None:
    """Move files into an empty folder in this order, or none of them."""
    if any(path != new for path in place.iterdir()):
        raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), str(place))
    try:
        for name in names:
            os.replace(new / name, place / name)
        new.rmdir()
        flush(place)
    except BaseException:
        for name in names:
            (place / name).unlink(missing_ok=True)
        raise


def part_of(folder: Path, name: str) -> Path:
    """Return the path of a folder's file, which may be missing. Raises InputError.

    A link must not lead out of the folder, except to where the Hub cache keeps its files' contents,
    and a pipe or a device is no file: neither is what somebody meant to hand over.
    """
    path, home = folder / name, folder.resolve()
    if not os.path.lexists(path):
        return path
    there = Path(os.path.realpath(path))  # as resolve(), but a link to itself is no error
    blobs = home.parent.parent / "blobs"  # .../models--ORG--NAME/snapshots/REVISION
    if not (there.is_relative_to(home) or there.parent == blobs):
        raise InputError(
            f"{path} is a link that leads out of its folder; put the file itself there"
        )
    if there.exists() and not there.is_file():
        raise InputError(f"{path} is no regular file")
    return path
