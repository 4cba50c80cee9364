"""The command line: flags, what a user is told, and the commands of python -m minigpt.

program.py       what every command does alike: how it reads its flags, and how it ends
flag_types.py    types of flags, each of which refuses values that make no sense
train_flags.py   the flags of train.py: as typed, and settled
commands.py      generate, explain, export, cache; predict.py has a file of its own

The commands are not imported here: to end well, a program needs nothing of what they import.
"""

from minigpt.cli.program import errors_for_people

__all__ = ["errors_for_people"]
