"""`python -m minigpt explain`: experiments that show how the last token can contain the rating.

An experiment is one file with its question, its numbers (`measure`) and its figure (`draw`):
pooling, where, controls, knock_out, patching, heads, words, ladder, reading, arrival. They stand on
study.py (a frozen trunk, labelled texts and linear probes), hidden_states.py, interventions.py,
snapshots.py, accuracy.py and figures.py. `run.explain` is the command; `page` makes its page.
"""
