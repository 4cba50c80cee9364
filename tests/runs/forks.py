"""Starts runs of train.py by forking, so that none has to import torch again.

Reads a line of JSON for each: {"start": flags, "env": ..., "out": file} is answered by a process
number, {"wait": process number} by its exit status (or minus the signal that killed it).
"""

import json
import os
import signal
import sys
import traceback

import torch

import train
from minigpt.cli.program import errors_for_people
from minigpt.cli.train_flags import parse


def run(flags: list[str], env: dict, out: str) -> int:
    """Be a process of train.py, and return its exit status."""
    signal.alarm(100)  # whatever goes wrong, a test does not hang
    os.environ.update(env)
    sink = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(sink, 1)
    os.dup2(sink, 2)
    try:
        with errors_for_people():
            train.main(parse(train.__doc__, flags))
    except SystemExit as exit:
        return exit.code or 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))])  # torch imports a second's worth for it

for line in sys.stdin:
    order = json.loads(line)
    if "wait" in order:
        answer = os.waitstatus_to_exitcode(os.waitpid(order["wait"], 0)[1])
    else:
        answer = os.fork()
        if answer == 0:
            status = 1
            try:
                status = run(order["start"], order["env"], order["out"])
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
    print(answer, flush=True)
