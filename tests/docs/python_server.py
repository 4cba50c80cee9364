"""A `python` that starts at once: each command is forked from a process that has torch loaded.

    python python_server.py SOCKET SHIM     writes SHIM, a program to call as `python`, and serves

The shim sends its arguments, folder, environment, stdin, stdout and stderr; a fork takes them over
and is the command. Scripts are those of the project. To a command the flags are added that the
environment's SHORTER, a table of JSON, has for the first regular expression that matches it.
"""

import json
import os
import re
import runpy
import shlex
import socket
import sys
from pathlib import Path

import torch

import minigpt.__main__  # noqa: F401
import train  # noqa: F401
from minigpt.cli.commands import COMMANDS, command

ROOT = Path(__file__).parents[2]
SHIM = """#!{python} -SE
import json, os, socket, sys
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
order = json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)])
socket.send_fds(server, [b"x"], [0, 1, 2])
server.sendall(order.encode())
server.shutdown(socket.SHUT_WR)
sys.exit(int(server.makefile().read() or 1))
"""


def be(arguments: list[str]) -> None:
    """Do what `python` does with these arguments."""
    for pattern, flags in json.loads(os.environ.get("SHORTER", "{}")).items():
        if re.search(pattern, shlex.join(arguments)):
            arguments = [*arguments, *shlex.split(flags)]
            break
    program, *rest = arguments
    sys.argv = [program, *rest]
    if program == "-c":
        exec(compile(rest[0], "-c", "exec"), {"__name__": "__main__"})
    elif program == "-m":
        sys.argv = rest
        sys.modules.pop("minigpt.__main__")  # run_module runs it again
        runpy.run_module(rest[0], run_name="__main__")
    else:
        runpy.run_path(str(ROOT / program), run_name="__main__")


def serve(client: socket.socket) -> None:
    """Take over the streams, folder and environment of a command; be it; answer its status."""
    _, streams, *_ = socket.recv_fds(client, 1, 3)
    arguments, folder, environment = json.loads(client.makefile().read())
    pid = os.fork()
    if pid:
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        client.sendall(str(status if status >= 0 else 128 - status).encode())
        os._exit(0)
    for i, stream in enumerate(streams):
        os.dup2(stream, i)
    sys.stdin, sys.stdout, sys.stderr = map(os.fdopen, range(3), "rww")
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    if "PID_FILE" in environment:
        Path(environment["PID_FILE"]).write_text(str(os.getpid()))
    status = 0
    try:
        be(arguments)
    except SystemExit as exit:
        status = exit.code if isinstance(exit.code, int) else int(exit.code is not None)
    except BaseException:
        status = 1
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def main():
    address, shim = sys.argv[1:]
    for name in COMMANDS:
        command(name)
    torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))])  # torch imports much more for it
    server = socket.socket(socket.AF_UNIX)
    server.bind(address)
    server.listen()
    Path(shim).write_text(SHIM.format(python=sys.executable, address=address))
    Path(shim).chmod(0o755)
    print("ready", flush=True)
    while True:
        client, _ = server.accept()
        if os.fork() == 0:
            serve(client)
        client.close()
        while True:  # those that have ended
            try:
                if os.waitpid(-1, os.WNOHANG)[0] == 0:
                    break
            except ChildProcessError:
                break


if __name__ == "__main__":
    main()
