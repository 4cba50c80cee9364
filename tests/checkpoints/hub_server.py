"""A server on this machine that plays the Hub, and a program of its own that asks it."""

import contextlib
import hashlib
import http.server
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from conftest import ROOT

COMMIT = "c" * 40


@contextlib.contextmanager
def hub_of(repositories: dict[str, Path]) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Serve {ORG/REPO: folder}; give the address and the list of what is asked, which grows."""
    asked = []

    class Hub(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append((self.command, self.path))
            found = re.fullmatch("/(.+?/.+?)/resolve/[^/]+/(.+)", self.path)
            folder = repositories.get(found[1]) if found else None
            path = folder / found[2] if folder else None
            data = path.read_bytes() if path and path.is_file() else b""
            self.send_response(200 if data else 404)
            self.send_header("Content-Length", str(len(data)))
            if folder:
                self.send_header("X-Repo-Commit", COMMIT)
            if data:
                self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
            else:
                self.send_header("X-Error-Code", "EntryNotFound" if folder else "RepoNotFound")
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data)

        do_HEAD = do_GET

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


FIND = """
import sys, time
from pathlib import Path
from minigpt.checkpoints import find
from minigpt.edge.errors import InputError
find.BUNDLED = Path("nowhere")
for name in sys.argv[1:]:
    start = time.monotonic()
    try:
        found = find.find_checkpoint(name)
        find.open_tokenizer(found)
        print(found.folder)
    except find.NoNetwork as error:
        assert time.monotonic() - start < 4
        print("NoNetwork", error)
    except InputError as error:
        print("InputError", error)
"""


def find_in_a_new_process(cache: Path, endpoint: str, *names: str) -> list[str]:
    """Return the lines that a program prints which looks for these names at that Hub."""
    env = {"HF_HOME": cache, "HF_HUB_CACHE": cache, "HF_ENDPOINT": endpoint, "PYTHONPATH": ROOT}
    env |= {"HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    env |= {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    env = os.environ | {name: str(value) for name, value in env.items()}
    command = [sys.executable, "-u", "-c", FIND, *names]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}  # nobody else may say a word
    run = subprocess.run(command, env=env, cwd=cache, text=True, timeout=300, **streams)
    assert run.returncode == 0, run.stdout
    return run.stdout.splitlines()
