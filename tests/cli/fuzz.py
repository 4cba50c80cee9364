"""Damaged and hostile files, by the thousand: `make fuzz`, or with FUZZ="--files N --seed S".

Each is a good file changed in one or a few ways. Whatever opens it must take it or refuse it in one
line, within seconds, and without asking for memory that the file does not have: no other exception,
no crash, no hang. Every case follows from its number, which is printed if it fails.
"""

import argparse
import collections
import contextlib
import json
import os
import random
import re
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
from pathlib import Path

import numpy as np
from conftest import random_trunk, write_vocabulary
from safetensors.torch import load_file, save_file

import train
from minigpt.checkpoints import describe, open_tokenizer, read_head
from minigpt.cli.predict import Skipped, lines_of
from minigpt.cli.program import errors_for_people
from minigpt.cli.train_flags import parse
from minigpt.datasets import load_dataset, read_examples, records
from minigpt.edge.errors import InputError, one_line
from minigpt.fast import store as cache
from minigpt.runs.folder import load_run
from minigpt.tokenizer import END_OF_TEXT
from minigpt.weights import load_trunk, save_trunk

SECONDS, BYTES = 10, 2**30  # what one file may take, at most
NUMBERS = (b"0", b"-1", b"1", b"3.5", b"1e999", b"NaN", b"2147483648", b"9223372036854775808")
NUMBERS += (b"9" * 5000, b"null", b"true", b'"7"', b"[]", b"{}", b"1000000000")
DEEP = b"[" * 100_000
STRANGE = (b"\xff\xfe", b"\0", b"\xed\xa0\x80", b"\xf0\x9f", b'"', b"\\", b"\n", b"../../", b"\t")


# Ways to change a file: (bytes, random) -> bytes


def cut(data: bytes, r: random.Random) -> bytes:
    return data[: r.randrange(len(data) + 1)]


def flip(data: bytes, r: random.Random) -> bytes:
    """Change bits: mostly near the start, where headers are."""
    changed = bytearray(data)
    for _ in range(r.choice((1, 1, 2, 8))):
        if changed:
            most = len(changed) if r.random() < 0.3 else min(len(changed), 3000)
            changed[r.randrange(most)] ^= 1 << r.randrange(8)
    return bytes(changed)


def absurd_number(data: bytes, r: random.Random) -> bytes:
    """Put another number, or what is none, in the place of one that is written in digits."""
    found = list(re.finditer(rb"-?\d+(\.\d+)?", data[:200_000]))
    if not found:
        return data
    one = r.choice(found)
    return data[: one.start()] + r.choice(NUMBERS) + data[one.end() :]


def insert(data: bytes, r: random.Random) -> bytes:
    at = r.randrange(min(len(data), 5000) + 1)
    return data[:at] + r.choice((*STRANGE, *NUMBERS, DEEP, r.randbytes(8))) + data[at:]


def repeat(data: bytes, r: random.Random) -> bytes:
    """Have a part twice: names that are there already, offsets that overlap."""
    start = r.randrange(min(len(data), 5000) + 1)
    part = data[start : start + r.choice((1, 10, 100, 1000))]
    return data[: start + len(part)] + part + data[start + len(part) :]


def swap_words(data: bytes, r: random.Random) -> bytes:
    """Exchange two strings in quotes: a type for a name, one name for another."""
    found = list(re.finditer(rb'"[^"\n]{0,80}"', data[:100_000]))
    if len(found) < 2:
        return data
    a, b = sorted(r.sample(found, 2), key=lambda match: match.start())
    middle = data[a.end() : b.start()]
    return data[: a.start()] + b[0] + middle + a[0] + data[b.end() :]


def header_length(data: bytes, r: random.Random) -> bytes:
    """Claim another length for a safetensors header."""
    length = r.choice((0, 1, 2**20, 2**40, 2**63, 2**64 - 1, len(data), r.randrange(10_000)))
    return struct.pack("<Q", length) + data[8:]


def own_header(data: bytes, r: random.Random) -> bytes:
    """Rewrite a safetensors header that can be read, with its length put right."""
    try:
        size = struct.unpack("<Q", data[:8])[0]
        header = json.loads(data[8 : 8 + size])
        name = r.choice(list(header))
        one = header[name]
        change = r.randrange(6)
        if change == 0:
            one["shape"] = r.choice(([2**40, 2**40], [0], [-1], [], [2**31] * 9, "no", [1.5]))
        elif change == 1:
            one["dtype"] = r.choice(("F64", "I8", "BOOL", "F8_E4M3", "F1000", "", None, "F16"))
        elif change == 2:
            offsets = ([0, 2**62], [-4, 0], [10, 2], [0, 4], [2**64, 2**65], [], None)
            one["data_offsets"] = r.choice(offsets)
        elif change == 3:
            header[r.choice(("../../out", "transformer." + name, "", "x" * 10_000))] = one
        elif change == 4:
            del header[name]
        else:
            header["__metadata__"] = r.choice(({"a": 1}, [], None, {"state": DEEP.decode()}))
        text = json.dumps(header).encode()
        return struct.pack("<Q", len(text)) + text + data[8 + size :]
    except (ValueError, KeyError, TypeError, RecursionError, struct.error):
        return data


LEAVES = (10**400, -1, 0, 1e308, 2**63, None, "", "../x", [], {}, True, [[]], "a" * 5000)


def another_leaf(data: bytes, r: random.Random) -> bytes:
    """Put another value at one place of some JSON: of a file, or in the header of a state."""
    try:
        size = struct.unpack("<Q", data[:8])[0] if data[8:9] == b"{" else 0
        outer = json.loads(data[8 : 8 + size] if size else data)
        inner = size and "state" in outer.get("__metadata__", {})
        table = json.loads(outer["__metadata__"]["state"]) if inner else outer
        place = table
        while True:
            key = r.choice([*place] if isinstance(place, dict) else range(len(place)))
            if not isinstance(place[key], dict | list) or not place[key] or r.random() < 0.2:
                break
            place = place[key]
        place[key] = r.choice(LEAVES)
        if inner:
            outer["__metadata__"]["state"] = json.dumps(table)
        text = json.dumps(outer).encode()
        return struct.pack("<Q", len(text)) + text + data[8 + size :] if size else text
    except (
        ValueError,
        KeyError,
        TypeError,
        IndexError,
        RecursionError,
        AttributeError,
        struct.error,
    ):
        return data


def no_numbers(data: bytes, r: random.Random) -> bytes:
    """Put NaN or infinity among the values at the end."""
    changed, value = bytearray(data), r.choice((b"\0\0\xc0\x7f", b"\0\0\x80\x7f", b"\0\x7e\0\x7e"))
    for _ in range(3):
        at = r.randrange(len(data) // 2, len(data)) // 4 * 4 if len(data) > 8 else 0
        changed[at : at + 4] = value
    return bytes(changed[: len(data)])


CHANGES = (cut, flip, absurd_number, insert, repeat, swap_words, header_length, own_header)
CHANGES += (no_numbers, another_leaf)


def another_thing(path: Path, r: random.Random) -> None:
    """Put in a file's place what is none: a link out of the folder, a pipe, a device, nothing."""
    path.unlink(missing_ok=True)
    kind = r.randrange(6)
    if kind == 0:
        path.mkdir()
    elif kind == 1:
        os.mkfifo(path)  # who opens it to read waits for ever
    elif kind == 2:
        path.symlink_to("/dev/zero")  # has no end
    elif kind == 3:
        path.symlink_to(path)
    elif kind == 4:
        path.symlink_to("/etc/hostname")


# What opens the files of a folder


def open_checkpoint(folder: Path) -> None:
    found = describe(str(folder), folder)
    tokenizer = open_tokenizer(found)
    for text in ("", "a <url> b", "[PAD]"):
        tokenizer.encode_ordinary(text)
    load_trunk(found.folder)
    read_head(found)


def open_run(folder: Path) -> None:
    load_run(str(folder))


def open_data(folder: Path) -> None:
    load_dataset(str(folder), 0)


def open_forms(folder: Path) -> None:
    """Read each file as predict does, and then as training does."""
    for path in sorted(folder.iterdir()):
        for _, record, _ in records(path, labelled=False, longest=2**20):
            assert isinstance(record, dict | InputError)
        read_examples(path)


def open_lines(folder: Path) -> None:
    for _ in lines_of(str(folder / "lines"), "lines", Skipped()):
        pass


def open_cache(folder: Path) -> None:
    """It is right or it is gone: a cache is never wrong."""
    good = np.arange(12).reshape(4, 3)
    found = cache.load("a" * 32, (4, 3), "<f4")
    if found is None:
        cache.store("a" * 32, (4, 3), "<f4", {"title": "again"}, [good])
        found = cache.load("a" * 32, (4, 3), "<f4")
    assert np.array_equal(found, good)


def resume(folder: Path) -> None:
    train.main(parse("", ["--resume", str(folder), "--quiet"]))


def write_forms(folder: Path, rows: list[tuple[str, str]]) -> None:
    """Write the same texts and labels in other forms that people have."""
    folder.mkdir()
    objects = [{"review": text, "stars": int(label)} for text, label in rows]
    quoted = [f'"{text}\n""so"""\t{label}' for text, label in rows]
    for name, content in {
        "list.json": json.dumps(objects, indent=1),
        "semicolons.csv": "\n".join(["text;label;;", *(f"{t};{k};;" for t, k in rows)]),
        "no-header.csv": "\n".join(f"{k},{t}" for t, k in rows),
        "quoted.tsv": "\n".join(["title\tcategory\tdescription", *(q + "\tx" for q in quoted)]),
        "first-word.txt": "\n".join(f"{k} {t}" for t, k in rows),
        "wide.csv": "\n".join(["v1,v2,,", *(f"{k},{t},," for t, k in rows)]),
        "wide.jsonl": "\n".join(map(json.dumps, objects)),
    }.items():
        encoding = "utf-16" if name.startswith("wide") else "utf-8"
        (folder / name).write_text(content, encoding=encoding)


def more_checkpoints(checkpoint: Path, home: Path) -> None:
    """Make two more of one: with all the settings that a tokenizer can have, and in two shards."""
    folder = shutil.copytree(checkpoint, home / "tokenizer")
    vocab = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    merges = (folder / "merges.txt").read_text(encoding="utf-8").split("\n")[1:-1]
    size, end, never = len(vocab), END_OF_TEXT, {"lstrip": False, "rstrip": False}
    added = [{"id": vocab[end], "content": end, "special": True, "normalized": False} | never]
    added += [{"id": size, "content": "<url>", "special": False, "normalized": True} | never]
    template = [{"SpecialToken": {"id": end, "type_id": 0}}, {"Sequence": {"id": "A"}}]
    known = {end: {"id": end, "ids": [vocab[end]], "tokens": [end]}}
    step = {"type": "TemplateProcessing", "single": template, "special_tokens": known}
    words = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True}
    parts = {"normalizer": None, "pre_tokenizer": words, "post_processor": step}
    model = {"type": "BPE", "dropout": None, "vocab": vocab, "merges": merges}
    listed = {str(t["id"]): t for t in added}
    save_trunk(random_trunk(vocab_size=size + 3), folder)
    for name, fields in {
        "tokenizer.json": {"added_tokens": added} | parts | {"model": model},
        "tokenizer_config.json": {"add_prefix_space": True, "added_tokens_decoder": listed}
        | {"model_max_length": 60, "pad_token": "[PAD]", "add_bos_token": True},
        "special_tokens_map.json": {"pad_token": {"content": "[PAD]"} | never},
        "added_tokens.json": {"<url>": size},
    }.items():
        (folder / name).write_text(json.dumps(fields), encoding="utf-8")

    folder = shutil.copytree(checkpoint, home / "shards")
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names, places = sorted(tensors), {}
    for i, part in enumerate((names[::2], names[1::2]), 1):
        shard = f"model-0000{i}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, folder / shard)
        places |= dict.fromkeys(part, shard)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))


def prepare(home: Path) -> dict:
    """Make good files of each kind; return {kind: (folder, what opens it, share of the cases)}."""
    os.environ |= {"MINIGPT_CACHE": str(home / "cache"), "HF_HUB_OFFLINE": "1"}
    checkpoint = home / "checkpoint"
    save_trunk(random_trunk(), checkpoint)
    write_vocabulary(checkpoint)
    more_checkpoints(checkpoint, home)
    rows = [f"{['good', 'bad'][i % 2]} {i}\t{i % 2}" for i in range(30)]
    for name, lines in {
        "tsv": rows,
        "csv": ["text,label", *(row.replace("\t", ",") for row in rows)],
        "jsonl": [json.dumps({"text": row[:-2], "label": row[-1]}) for row in rows],
    }.items():
        for split in ("train", "dev", "test"):
            (home / name).mkdir(exist_ok=True)
            (home / name / f"{split}.{name}").write_text("\n".join(lines))
    write_forms(home / "forms", [tuple(row.split("\t")) for row in rows])
    (home / "lines").mkdir()
    (home / "lines" / "lines").write_text("\n".join(rows))
    folder = home / "cache" / "states" / ("a" * 32)
    cache.store("a" * 32, (4, 3), "<f4", {"title": "x"}, [np.arange(12).reshape(4, 3)])
    flags = [f"--weights={checkpoint}", f"--data={home / 'tsv'}", "--quiet", "--epochs=1"]
    train.main(parse("", [*flags, "--lora=2", f"--out={home / 'run'}"]))
    real = train.runs.save_run

    def stop(*_):
        raise KeyboardInterrupt

    train.runs.save_run = stop  # all done but for the last files: what is quickest to resume
    try:
        train.main(parse("", [*flags, "--train-last=1", f"--out={home / 'state'}"]))
    except KeyboardInterrupt:
        pass
    finally:
        train.runs.save_run = real
    return {
        "checkpoint": (checkpoint, open_checkpoint, 10),
        "tokenizer": (home / "tokenizer", open_checkpoint, 6),
        "shards": (home / "shards", open_checkpoint, 3),
        "run": (home / "run", open_run, 6),
        "state": (home / "state", resume, 1),
        "tsv": (home / "tsv", open_data, 2),
        "csv": (home / "csv", open_data, 2),
        "jsonl": (home / "jsonl", open_data, 2),
        "forms": (home / "forms", open_forms, 4),
        "lines": (home / "lines", open_lines, 1),
        "cache": (folder, open_cache, 2),
    }


def spoil(folder: Path, case: int) -> str:
    """Change one file of a folder, as the case's number has it; return what was done."""
    r = random.Random(case)
    names = ("history.jsonl", "metrics.json")  # which nobody reads again
    path = r.choice([p for p in sorted(folder.iterdir()) if p.name not in names])
    if r.random() < 0.03 and path.name != "lines":  # predict reads pipes, too
        path = r.choice((path, path, path.with_name(f".new-{path.name}")))
        another_thing(path, r)
        return f"{path.name}: another thing"
    changes = r.choices(CHANGES, k=r.choice((1, 1, 1, 2, 3)))
    data = path.read_bytes()
    for change in changes:
        data = change(data, r)
    path.write_bytes(data)
    return f"{path.name}: {', '.join(change.__name__ for change in changes)}"


class Hangs(BaseException):
    """Nothing that opens a file may catch this."""


def too_long(*_):
    raise Hangs(f"more than {SECONDS} seconds")


def attempt(opens, folder: Path) -> str:
    """Return "taken" or "refused", or how it failed."""
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        with contextlib.redirect_stdout(None), contextlib.redirect_stderr(None):
            opens(folder)
        return "taken"
    except InputError as error:
        return "refused" if one_line(error) else "refused without a word"
    except OSError as error:  # which errors_for_people puts into words
        return "refused" if error.filename else traceback.format_exc(limit=-4)
    except BaseException:
        return traceback.format_exc(limit=-4)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def fuzz(files: int, seed: int, show=lambda *_: None) -> tuple[dict, list[str]]:
    """Try so many files; return {kind: {"taken" or "refused": count}}, and how others failed."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    alarm = signal.signal(signal.SIGALRM, too_long)
    environment, argv = dict(os.environ), sys.argv
    counts, failures = collections.defaultdict(collections.Counter), []
    with tempfile.TemporaryDirectory() as home:
        with contextlib.redirect_stdout(None):
            kinds = prepare(Path(home))
        names = random.Random(seed).choices(
            [*kinds], weights=[share for *_, share in kinds.values()], k=files
        )
        size = int(re.search(r"VmSize:\s+(\d+)", Path("/proc/self/status").read_text())[1]) * 1024
        resource.setrlimit(resource.RLIMIT_AS, (size + BYTES, before[1]))
        try:
            for case, kind in enumerate(names):
                folder, opens, _ = kinds[kind]
                good = Path(home, "good", kind)
                if not good.exists():
                    shutil.copytree(folder, good)
                what = spoil(folder, seed * 1_000_003 + case)
                found = attempt(opens, folder)
                if found in ("taken", "refused"):
                    counts[kind][found] += 1
                else:
                    failures.append(f"seed {seed}, case {case}, {kind}, {what}: {found}")
                shutil.rmtree(folder, ignore_errors=True)
                shutil.copytree(good, folder)
                show(case + 1)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, before)
            signal.signal(signal.SIGALRM, alarm)
            os.environ.clear()
            os.environ.update(environment)
            sys.argv = argv
    return counts, failures


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    began = time.monotonic()

    def show(done):
        if done % 1000 == 0:
            print(f"{done:,} files, {time.monotonic() - began:.0f} s", flush=True)

    counts, failures = fuzz(args.files, args.seed, show)
    for kind, outcomes in sorted(counts.items()):
        print(f"{kind:12}{outcomes['refused']:7,} refused in one line{outcomes['taken']:7,} taken")
    print(*failures, sep="\n\n")
    sys.exit(bool(failures))


if __name__ == "__main__":
    with errors_for_people():
        main()
