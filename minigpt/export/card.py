"""The model card of an export: README.md, whose header the Hub reads and whose text people do.

Names no path of this machine: a card is there to be handed on.
"""

from pathlib import Path

from minigpt.checkpoints import OFFICIAL
from minigpt.datasets.splits import SST2
from minigpt.edge import fields, files
from minigpt.edge.errors import InputError, first_few, one_line
from minigpt.runs import Run, rows_of_test

LICENSED = {"tiny": "mit", **dict.fromkeys(OFFICIAL, "mit")}  # of the base
HUB_DATASETS = {"sst2": SST2[0]}
FIELDS = {
    "data.name": fields.text,
    **{f"data.{split}": fields.whole(1) for split in ("train", "dev", "test")},
    "freezing.policy": fields.text,
    "freezing.learning": fields.whole(1),
    "freezing.total": fields.whole(1),
    "freezing.frozen_unchanged": fields.flag,
    "test.n": fields.whole(1),
    "test.pairs": fields.optional(fields.table),
    "test.accuracy": fields.number(0),
    "test.interval": fields.array,
    "test.interval.*": fields.number(0),
    "test.commonest": fields.number(0),
    "test.macro_f1": fields.number(0),
    "test.recall": fields.array,
    "test.recall.*": fields.number(0),
    "test.confusion": fields.array,
    "test.confusion.*": fields.array,
    "test.confusion.*.*": fields.whole(),
}
TEXT = """\
# {name}

A GPT-2 that says which of {k} classes a text is of: {labels}. A linear layer reads it off the
vector of the text's last token{end}.

## What was trained

- base: {base} (sha256 `{sha256}`)
{trained}
## How good it is

{figures}
## Limits

- The figures hold for texts like those it was trained on: {lengths}in their language and of their
  kind. On others it is worse, and often sure of its mistakes: its probabilities are not calibrated.
- Of a text, the {kept} {max_length} tokens are read.
- It knows no other classes, and answers with one of them whatever it is given.{empty}
- What is unfair or wrong in the texts of the base, or in the labels, is in its answers as well.

## How to open it

```python
{how}
```

Made by minigpt.
"""


def metrics_of(folder: str, classes: int) -> dict | None:
    """Return what was measured of a run, every field checked, or None. Raises InputError."""
    path = files.part_of(Path(folder), "metrics.json")
    if not path.is_file():
        return None
    metrics = fields.check(path, fields.read_json(path), FIELDS)
    test = metrics["test"]
    lengths = {len(row) for row in (test["recall"], test["confusion"], *test["confusion"])}
    if pairs := test.get("pairs"):
        fields.check(path, pairs, {"n": fields.whole(1), "in_order": fields.number(0)})
    if lengths != {classes} or len(test["interval"]) != 2:
        raise InputError(f"{path}: the figures are not those of {classes} classes")
    return metrics


def card(run: Run, metrics: dict | None, name: str, library: str, how: str) -> str:
    """Return the card of a run that is exported as `name` for a library.

    `how` are the lines of Python that open it, and `metrics` what was measured, if it is known.
    """
    repository = run.checkpoint.repository
    labels = [f"`{one_line(label).replace('`', chr(39))}`" for label in run.labels]
    trained, figures = "", "It was not measured.\n"
    if metrics:
        data, freezing = metrics["data"], metrics["freezing"]
        rest = "; the others stayed as they were, bit for bit"
        proven = freezing["frozen_unchanged"] and freezing["learning"] < freezing["total"]
        trained = (
            f"- data: {Path(data['name']).name}: {data['train']:,} texts to train on, "
            f"{data['dev']:,} for choices, {data['test']:,} to test\n"
            f"- trained: {freezing['policy']}, {freezing['learning']:,} of {freezing['total']:,} "
            f"parameters{rest if proven else ''}\n"
        )
        rows = rows_of_test(metrics["test"], run.labels)
        table = "\n".join(f"    {name:16}{value}" for name, value in rows)
        dtype = str(run.model.dtype).removeprefix("torch.")  # an export is in float32
        figures = f"{table}\n\nMeasured once, on {metrics['test']['n']:,} texts, in {dtype}.\n"
    lengths = "{} to {} tokens long, ".format(*run.train_lengths) if run.train_lengths else ""
    text = TEXT.format(
        name=name,
        k=len(labels),
        labels=first_few(labels),
        end=", `<|endoftext|>`" if run.append_end else "",
        base=f"`{repository or Path(run.checkpoint.name).name}`",
        sha256=run.checkpoint.sha256,
        trained=trained,
        figures=figures,
        lengths=lengths,
        kept="last" if run.keep == "end" else "first",
        max_length=run.max_length,
        empty="" if run.append_end else " An empty text has no token to read: leave it out.",
        how=how,
    )
    license = LICENSED.get(run.checkpoint.name, "unknown")
    return f"---\n{header(license, repository, metrics, name, library)}\n---\n\n{text}"


def header(license: str, repository: str | None, metrics: dict | None, name: str, library: str):
    """Return the fields that the Hub knows, in YAML."""
    from huggingface_hub import EvalResult, ModelCardData  # slow to load

    known = {"license": license, "base_model": repository}
    known |= {"library_name": library, "pipeline_tag": "text-classification"}
    if metrics:
        data, test = metrics["data"]["name"], metrics["test"]
        low, high = test["interval"]
        on = {
            "dataset_name": Path(data).name,
            "dataset_type": HUB_DATASETS.get(data, Path(data).name),
        }
        on |= {"dataset_split": "test", "task_type": "text-classification"}
        interval = f"Accuracy (95 % interval {low:.3f} to {high:.3f})"
        known |= {
            "datasets": [HUB_DATASETS[data]] if data in HUB_DATASETS else None,
            "metrics": ["accuracy", "f1"],
            "model_name": name,
            "eval_results": [
                EvalResult(metric_type=kind, metric_value=value, metric_name=words, **on)
                for kind, value, words in (
                    ("accuracy", test["accuracy"], interval),
                    ("f1", test["macro_f1"], "macro-F1"),
                )
            ],
        }
    return ModelCardData(**known).to_yaml()
