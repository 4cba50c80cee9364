"""What stands between the program and the outside: errors for people, JSON, files.

errors.py   InputError, which a user can mend; Stopped, which a signal raises
fields.py   JSON that came from outside, held against a table of its fields
files.py    files that appear whole or not at all; where a command may write
progress.py   a bar, or lines, with the time left
checkout.py   where train.py and weights/ are

Every package may use it, and it uses none; it knows nothing of models, texts or runs.
"""
