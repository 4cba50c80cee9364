"""The command line: flags, what a user is told, and the commands of python -m minigpt."""

from minigpt.cli.commands import main
from minigpt.cli.program import errors_for_people

__all__ = ["errors_for_people", "main"]
