"""The command line: flags, what a user is told, and the commands of python -m minigpt.

program.py       what every command does alike: how it reads its flags, and how it ends
flag_types.py    types of flags, each of which refuses values that make no sense
train_flags.py   the flags of train.py, as typed; train_settings.py, the same settled
devices.py       what --device and --dtype mean here
commands.py      the commands; each has a file of its own, which is imported when it is called
"""
