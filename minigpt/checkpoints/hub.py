"""Files from the Hub: its cache, and downloads into it. Knows nothing of what is in them."""

import contextlib
import sys
import threading
from pathlib import Path

from minigpt.edge.errors import InputError


class NoNetwork(InputError):
    """A repository is not in the Hub cache, and the Hub cannot be reached."""


def from_hub(
    repository: str, files: tuple[str, ...], revision: str | None = None, kind: str = "model"
) -> Path:
    """Return the folder of a Hub repository in the user's Hub cache, downloading what is missing.

    The cache is the one that the user's other tools share. Raises NoNetwork within 3 seconds,
    where huggingface_hub by itself would try for half a minute.
    """
    import huggingface_hub
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    def fetch(offline: bool) -> Path:
        where = {"revision": revision, "repo_type": kind, "local_files_only": offline}
        paths = [huggingface_hub.hf_hub_download(repository, file, **where) for file in files]
        return Path(paths[0]).parent

    try:
        return fetch(offline=True)
    except HFValidationError as error:
        raise InputError(f"{repository} is not a name of a Hub repository: {error}") from None
    except LocalEntryNotFoundError:
        pass
    if not reachable(huggingface_hub.hf_hub_url(repository, files[0], repo_type=kind)):
        raise NoNetwork(
            f"{repository} is not in the Hub cache and the network cannot be reached; connect, or "
            f"put {', '.join(files)} into a folder and name that instead"
        )
    try:
        print(f"downloading {repository}, once, into the Hub cache", file=sys.stderr)
        return fetch(offline=False)
    except Exception as error:  # the HTTP library's own, too, whichever that is
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"{repository}: {reason}") from None


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
