"""Files from the Hub: its cache, and downloads into it. Knows nothing of what is in them."""

import contextlib
import sys
import threading
from pathlib import Path

from minigpt.edge.errors import InputError


class NoNetwork(InputError):
    """A repository is not in the Hub cache, and the Hub cannot be reached."""


def from_hub(
    repository: str,
    files: tuple[str, ...] = (),
    revision: str | None = None,
    kind: str = "model",
    optional: tuple[str, ...] = (),
) -> Path:
    """Return the folder of a Hub repository in the user's Hub cache, downloading what is missing.

    `files` have to be there, `optional` ones need not. The cache, which also remembers what a
    repository does not have, is the one that the user's other tools share. Raises InputError for a
    missing file, and NoNetwork within 3 seconds, where huggingface_hub by itself would try for half
    a minute. Without a network, optional files that the cache does not know of are left out.
    """
    import huggingface_hub
    from huggingface_hub.errors import HFValidationError

    where, names = {"revision": revision, "repo_type": kind}, (*optional, *files)
    lookup = huggingface_hub.try_to_load_from_cache
    try:
        known = {name: lookup(repository, name, **where) for name in names}
    except HFValidationError as error:
        raise InputError(f"{repository} is not a name of a Hub repository: {error}") from None
    paths = {name: Path(path) for name, path in known.items() if type(path) is str}
    complete = bool(paths) and paths.keys() >= {*files}
    unknown = [name for name in names if known[name] is None]
    if unknown and reachable(huggingface_hub.hf_hub_url(repository, unknown[0], repo_type=kind)):
        if not complete:
            print(f"downloading {repository}, once, into the Hub cache", file=sys.stderr)
        for name in unknown:
            if paths and revision is None:  # one commit for all, also if another one is pushed
                where["revision"] = next(iter(paths.values())).parent.name
            if path := fetch(repository, name, name in optional, **where):
                paths[name] = path
    elif unknown and not complete:
        raise NoNetwork(
            f"{repository} is not in the Hub cache and the network cannot be reached; connect, or "
            f"put {', '.join(names)} into a folder and name that instead"
        )
    if not paths:
        raise InputError(f"{repository} has none of {', '.join(names)}")
    return next(iter(paths.values())).parent


def fetch(repository: str, name: str, optional: bool, **where) -> Path | None:
    """Download a file, or return None for an optional one that there is not. Raises InputError."""
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        return Path(huggingface_hub.hf_hub_download(repository, name, **where))
    except Exception as error:  # the HTTP library's own, too, whichever that is
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        # The second is a kind of the first, and says that the network broke off
        if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
            if optional:
                return None
            reason = f"it has no {name}"
        raise InputError(f"{repository}: {reason}") from None


def exists(repository: str, name: str) -> bool:
    """Return whether a Hub repository has a file, as far as can be known now."""
    import huggingface_hub

    with contextlib.suppress(Exception):
        return huggingface_hub.file_exists(repository, name)
    return False


def reachable(url: str, seconds: float = 3.0) -> bool:
    """Return whether the Hub answers, in bounded time even where the look-up of its name hangs.

    Any answer counts but an error of a proxy or a login page in between; the Hub's own errors,
    which have a header of theirs, are reported by the download.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import build_hf_headers, get_session

    if constants.HF_HUB_OFFLINE:
        return False
    answered = threading.Event()

    def ask():
        with contextlib.suppress(Exception):  # whatever is wrong, nothing can be downloaded
            answer = get_session().head(url, timeout=seconds, headers=build_hf_headers())
            if answer.status_code < 400 or "x-error-code" in answer.headers:
                answered.set()

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    return answered.is_set()
