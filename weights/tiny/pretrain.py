"""How the bundled checkpoint was made: next-token prediction on film reviews, and nothing else.

    python weights/tiny/pretrain.py reviews-1.txt reviews-2.txt --tokens 92e6

The input is plain text, one review a line, without a rating; the output is a model that has only
ever been asked "which token comes next?". To answer that well after "a warm, funny film with two
leads I could", it helps to know that the review is a good one: this is where the rating that
`train.py --freeze-trunk` reads off comes from.

Stop it at any time: the same command goes on from its last state, and keeps snapshots on the way.
`--tokens` may be changed as long as the learning rate has not begun to fall (the last 40 % of the
steps). Needs `tokenizers`, to learn the vocabulary; everything else is the package's own. It has a
loop of its own beside `minigpt.fit`: two optimizers, another schedule, no epochs and no labels.
"""

import argparse
import json
import re
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from tqdm import tqdm

from minigpt.config import GPT2Config
from minigpt.edge.files import write
from minigpt.language.initialize import initialize
from minigpt.model import GPT2, attention
from minigpt.tokenizer import END_OF_TEXT, load_tokenizer
from minigpt.weights import save_trunk

CONFIG = GPT2Config(vocab_size=8192, n_positions=256, n_embd=256, n_layer=6, n_head=4)
T = CONFIG.n_positions
BATCH = 32  # windows of T tokens a step
MICRO = 8  # windows at once; BATCH / MICRO gradients are added up
PEAK = 3e-3  # learning rate
WARM_UP, DECAY = 0.02, 0.4  # shares of the steps
WEIGHT_DECAY = 0.1  # of the matrices of the blocks
SEED = 0
# Snapshots of the model are kept in state/, at the start and at these numbers of tokens seen
SNAPSHOTS = [1e6 * m for m in (0.1, 0.2, 0.5, 1, 2, 4, 8, 16, 23, 32, 46, 64, 92)]


def read_reviews(files: list[str]) -> tuple[list[str], list[str]]:
    """Return the texts to learn from, and those of one review in a hundred, held out.

    Texts come in many forms, and the model should know them all. Two of every four reviews are
    split into sentences, each a text of its own: what follows its end is the next thing that the
    reviewer has to say. And every second one is spelled as in older corpora: lower case, spaces
    around punctuation, no hyphens, no final stop ("it 's far fetched , is n't it"). Those held out
    are all of the form that is both.
    """
    lines = [line for f in files for line in Path(f).read_text(encoding="utf-8").splitlines()]
    texts, held_out = [], []
    for i, text in enumerate(lines):
        sentences = re.split(r"(?<=[.!?])\s+", text) if i % 4 < 2 else [text]
        if i % 2 == 0:
            sentences = [plain for text in sentences if (plain := plain_form(text))]
        (texts if i % 100 else held_out).extend(sentences)
    return texts, held_out


def plain_form(text: str) -> str:
    """Return a text as older corpora spell it: see `read_reviews`."""
    text = re.sub(r"(n't|'(?:s|re|ve|ll|d|m))\b", r" \1", text.lower())
    text = re.sub(r'([.,!?;:()"]+)', r" \1 ", text).replace("-", " ")
    return " ".join(text.split()).removesuffix(".").rstrip()


def learn_vocabulary(texts: list[str], folder: Path) -> None:
    """Learn byte-pair merges and write vocab.json and merges.txt, numbered as GPT-2's own."""
    from tokenizers import ByteLevelBPETokenizer

    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(texts, vocab_size=CONFIG.vocab_size - 1, show_progress=False)
    bpe.save_model(str(folder))
    vocab = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    tokens = [*sorted(vocab, key=vocab.get), END_OF_TEXT]  # bytes, merges, and the end last
    table = {token: i for i, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(table, ensure_ascii=False), encoding="utf-8")


def encode(texts: list[str], folder: Path) -> np.ndarray:
    """Return all texts as one run of token ids, each text followed by the end-of-text token."""
    tokenizer = load_tokenizer(folder)
    encoded = ([*tokenizer.encode_ordinary(text), tokenizer.eot_token] for text in texts)
    return np.concatenate([np.array(ids, dtype=np.uint16) for ids in encoded])


def windows(ids: np.ndarray, step: int) -> torch.Tensor:  # -> (BATCH, T + 1)
    """Return the windows of one step: a pure function of the step, so that a stop loses nothing.

    In each epoch the run of tokens is cut at other places and the pieces are shuffled anew.
    """
    per_epoch = (len(ids) - 2 * T) // T // BATCH
    epoch, i = divmod(step, per_epoch)
    random = np.random.default_rng((SEED, epoch))
    start = random.integers(T)
    pieces = random.permutation(per_epoch * BATCH)[i * BATCH : (i + 1) * BATCH]
    rows = [ids[start + p * T : start + p * T + T + 1].astype(np.int64) for p in pieces]
    return torch.from_numpy(np.stack(rows))


def learning_rate(step: int, steps: int) -> float:
    """Warm up, hold, and fall to zero along a straight line."""
    return PEAK * min(1, (step + 1) / (WARM_UP * steps), (steps - step) / (DECAY * steps))


def optimizers(model: GPT2) -> list[torch.optim.Optimizer]:
    """Muon (Jordan et al. 2024) for the matrices of the blocks, AdamW for everything else."""
    matrices = [p for p in model.h.parameters() if p.dim() == 2]
    rest = [p for name, p in model.named_parameters() if not (name[:2] == "h." and p.dim() == 2)]
    return [
        torch.optim.Muon(
            matrices, lr=PEAK, weight_decay=WEIGHT_DECAY, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(rest, lr=PEAK, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def save_state(path: Path, model: GPT2, optimizing, progress: dict) -> None:
    """Write everything that the next step depends on, whole or not at all."""
    tensors = {f"model.{name}": t for name, t in model.state_dict().items()}
    for n, optimizer in enumerate(optimizing):
        for i, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{n}.{i}.{k}": torch.as_tensor(v) for k, v in state.items()}
    new = path.with_suffix(".new")
    save_file(tensors, new, {"progress": json.dumps(progress)})
    new.replace(path)


def load_state(path: Path, model: GPT2, optimizing) -> dict:
    """Put a saved state into a model and its optimizers; return the progress saved with it."""
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        progress = json.loads(file.metadata()["progress"])
    model.load_state_dict({n[6:]: t for n, t in tensors.items() if n.startswith("model.")})
    for n, optimizer in enumerate(optimizing):
        states = {}
        for name, tensor in tensors.items():
            if name.startswith(f"optimizer.{n}."):
                i, key = name.split(".")[2:]
                states.setdefault(int(i), {})[key] = tensor
        optimizer.load_state_dict(optimizer.state_dict() | {"state": states})
    return progress


def prepare(files: list[str], out: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the tokens to learn from and those held out; make the vocabulary, once."""
    state = out / "state"  # not part of the checkpoint; may be deleted at the end
    state.mkdir(parents=True, exist_ok=True)
    if not (state / "held_out.npy").exists():
        texts, held_out = read_reviews(files)
        learn_vocabulary(texts, out)
        np.save(state / "train.npy", encode(texts, out))
        np.save(state / "held_out.npy", encode(held_out, out))
    return np.load(state / "train.npy", mmap_mode="r"), np.load(state / "held_out.npy")


def next_token_loss(model: GPT2, rows):  # (B, T + 1) -> a number
    """Return the mean over B * T predictions of -log p(the token that came), in nats."""
    with torch.autocast(rows.device.type, torch.bfloat16):
        logits = model.next_token_logits(model(rows[:, :-1]))  # (B, T, V)
    return F.cross_entropy(logits.float().flatten(0, 1), rows[:, 1:].flatten())


@torch.no_grad()
def held_out_loss(model: GPT2, ids: np.ndarray, most: int) -> float:
    """Return the loss over the first `most` windows of the held-out tokens."""
    starts = range(0, len(ids) - T - 1, T)[:most]
    rows = torch.from_numpy(np.stack([ids[s : s + T + 1] for s in starts]).astype(np.int64))
    batches = rows[: len(rows) // MICRO * MICRO].to(model.wte.weight.device).split(MICRO)
    return sum(next_token_loss(model, batch).item() for batch in batches) / len(batches)


def pretrain(ids: np.ndarray, held_out: np.ndarray, tokens: float, out: Path) -> dict:
    """Pre-train from the last state, or from the start if there is none; return how it ended."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_float32_matmul_precision("high")
    model = initialize(GPT2(CONFIG), SEED).eval().to(device)  # eval: no dropout, so much is new
    if device == "cpu":
        for block in model.h:
            block.attn.attention = attention  # compiled, the one by hand is the faster one there
    optimizing = optimizers(model)
    progress = {"step": 0, "seconds": 0.0}
    state = out / "state" / "last.safetensors"
    if state.exists():
        progress = load_state(state, model, optimizing)
    history = out / "history.jsonl"
    lines = history.read_text().splitlines(keepends=True) if history.exists() else []
    lines = [line for line in lines if json.loads(line)["step"] <= progress["step"]]

    compiled_loss = torch.compile(next_token_loss)  # 1.5 times as fast; needs a C++ compiler
    steps = round(tokens / (BATCH * T))
    first, began = progress["step"], time.monotonic() - progress["seconds"]
    recent, saved = [], time.monotonic()
    if first == 0:
        save_trunk(model, out / "state" / "0", torch.float16)
    bar = tqdm(range(first, steps), initial=first, total=steps, mininterval=5)
    for step in bar:
        for optimizer in optimizing:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, steps)
        for rows in windows(ids, step).to(device).split(MICRO):
            loss = compiled_loss(model, rows) / (BATCH // MICRO)
            loss.backward()
            recent.append(loss.detach())
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizing:
            optimizer.step()
        model.zero_grad()
        seen = (step + 1) * BATCH * T
        if any(seen - BATCH * T < at <= seen for at in SNAPSHOTS):
            save_trunk(model, out / "state" / str(seen), torch.float16)

        last = step + 1 == steps
        if last or (step + 1) % 100 == 0:
            progress = {"step": step + 1, "tokens": seen}
            progress["seconds"] = round(time.monotonic() - began, 1)
            progress["loss"] = round(sum(recent).item() * (BATCH // MICRO) / len(recent), 4)
            progress["held_out"] = round(held_out_loss(model, held_out, 10**9 if last else 64), 4)
            recent = []
            bar.set_postfix(loss=progress["loss"], held_out=progress["held_out"])
            lines.append(json.dumps(progress) + "\n")
            write(history, "".join(lines))
            if last or time.monotonic() - saved > 300:
                save_state(state, model, optimizing, progress)
                save_trunk(model, out, torch.float16)
                saved = time.monotonic()

    return progress


def main():
    """Read the flags, prepare the tokens, and pre-train on them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("reviews", nargs="+", help="text files, one review a line")
    parser.add_argument("--tokens", type=float, default=92e6, help="how many to learn from")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    args = parser.parse_args()
    ids, held_out = prepare(args.reviews, args.out)
    pretrain(ids, held_out, args.tokens, args.out)


if __name__ == "__main__":
    main()
