"""A run as a folder that other people's libraries open: transformers, or peft.

    lines = export("runs/mine", "exported", "transformers")   # the Python that opens it

to_folder.py          which runs can be exported, and as what
for_transformers.py   a GPT2ForSequenceClassification, LoRA merged into its weights
for_peft.py           a LoRA, a prompt or a prefix alone
card.py               README.md, the model card: part of both
tokenizer_files.py    what AutoTokenizer opens: part of both
"""

from minigpt.export.to_folder import KINDS, export

__all__ = ["KINDS", "export"]
