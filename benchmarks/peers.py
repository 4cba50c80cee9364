"""The peers of speed.py, each set up as someone who knows it well sets it up.

    documented   transformers as its documentation has it: batches of 32, padded, with a mask; to
                 read, in the order of the data
    sorted       transformers, texts of similar length together. No mask: padding is on the right,
                 where no token looks, and attention is faster without
    compiled     the same through torch.compile, which lays frozen weights out beforehand
    openvino     OpenVINO, with the hint for throughput
    onnx         ONNX Runtime; int8 by its dynamic quantization, a scale for each output

The last two read a graph that is exported here from our trunk, in the newest form that both have:
attention and GELU are one operator each. On a CPU every thread reads batches of its own, of 256
tokens, or 512 in bfloat16: of what was tried with both engines (all threads in one batch; 256, 512
and 1,024 tokens), that was the fastest.
"""

import importlib
import queue
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from ours import DEVICE, EPOCHS, FINE, GENERATED, LORA, texts_in
from torch import nn

from minigpt.data import TOKENS_AT_ONCE, Tokens, shuffled_batches, token_batches
from minigpt.fast import reuse_memory
from minigpt.weights import load_trunk

# N texts, B of them in a batch, T tokens, C channels
NAMES = {
    "documented": "transformers as documented",
    "sorted": "transformers, sorted",
    "compiled": "transformers, compiled",
    "openvino": "OpenVINO",
    "onnx": "ONNX Runtime",
}
NEEDS = {  # the packages of each
    "documented": ("transformers",),
    "sorted": ("transformers",),
    "compiled": ("transformers",),
    "openvino": ("openvino", "onnx", "onnxscript"),
    "onnx": ("onnxruntime", "onnx", "onnxscript"),
}
LATE = {  # what they would import in the time that is taken
    "sorted": ("transformers.models.gpt2.modeling_gpt2", "torch._dynamo"),
    "openvino": ("openvino",),
    "onnx": ("onnxruntime",),
}
AT_ONCE = torch.get_num_threads() if DEVICE == "cpu" else 1
TOKENS = {"float32": 256, "bfloat16": 512, "int8": 256}  # in a batch, on a CPU


def do(job: str, way: str, dtype: str, folder: Path) -> Callable:
    """Return a job as a function; what stands before it is not measured."""
    for module in (*LATE.get(way, LATE["sorted"]), *["peft"] * (job == "lora")):
        importlib.import_module(module)
    if way in ("documented", "sorted", "compiled"):
        from transformers.utils import logging

        logging.set_verbosity_error()
        logging.disable_progress_bar()
    if way != "documented":
        reuse_memory()  # as ours: an allocator that keeps what is freed
    if job in EPOCHS:
        if way != "documented" and job == "frozen":
            return head_on_vectors(folder)
        return train(way, job, folder)
    if job == "open":
        return lambda: classifier(folder)
    if job == "generate":
        return generate(folder)
    texts = texts_in(folder, "test")
    if job == "predict":
        return lambda: nn.LazyLinear(2)(reader(way, dtype, folder, texts)())
    read = reader(way, dtype, folder, texts)
    if way != "documented":
        read()  # each shape of a batch is prepared
    return read


def reader(way: str, dtype: str, folder: Path, texts: Tokens) -> Callable[[], torch.Tensor]:
    """Return what reads all texts, and returns their vectors, (N, C)."""
    if way == "documented":
        return read_in_order(folder, texts)
    torch.set_num_threads(1)  # in a batch: code is compiled for as many
    if way in ("onnx", "openvino"):
        read_batch = {"openvino": with_openvino, "onnx": with_onnx}[way](folder, dtype)
    else:
        read_batch = with_transformers(folder, getattr(torch, dtype), way == "compiled")
    tokens = TOKENS[dtype] if DEVICE == "cpu" else TOKENS_AT_ONCE[DEVICE]
    batches = token_batches(texts.lengths, tokens)
    order = torch.from_numpy(np.argsort(np.concatenate(batches)))

    def read():
        with ThreadPoolExecutor(AT_ONCE, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            inputs = (texts.batch(indices)[0] for indices in batches)
            return torch.cat([*pool.map(lambda batch: read_batch(*batch), inputs)])[order]

    return read


def read_in_order(folder: Path, texts: Tokens):
    model = classifier(folder)
    model.score = nn.Identity()  # what it returns as logits is then the vectors
    batches = in_batches(np.arange(len(texts)))
    return lambda: torch.cat([logits(model, texts, batch).float().cpu() for batch in batches])


@torch.no_grad()
def logits(model, texts: Tokens, indices: np.ndarray, mask=True) -> torch.Tensor:
    inputs, _ = inputs_of(model, texts, indices, mask)
    return run(model, inputs).logits


def classifier(folder: Path):
    from transformers import GPT2ForSequenceClassification

    model = GPT2ForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    model.config.pad_token_id = model.config.vocab_size - 1  # <|endoftext|>: no text ends with it
    return model.to(DEVICE).eval()


def in_batches(order: np.ndarray) -> list[np.ndarray]:
    return [order[i : i + 32] for i in range(0, len(order), 32)]


def inputs_of(model, texts: Tokens, indices: np.ndarray, mask: bool):
    """Return the ids of a batch, and if wanted its mask, as transformers takes them; the labels."""
    (ids, lengths), labels = texts.batch(indices)
    real = torch.arange(ids.size(1)) < lengths[:, None]
    inputs = {"input_ids": ids.masked_fill(~real, model.config.pad_token_id)}
    return inputs | ({"attention_mask": real.long()} if mask else {}), labels


def run(model, inputs: dict):
    """Return the output of transformers: logits, and the loss if there are labels."""
    with torch.autocast(DEVICE, torch.bfloat16, enabled=DEVICE == "cuda"):
        return model(**{name: x.to(DEVICE) for name, x in inputs.items()})


class LastToken(nn.Module):
    """The vector of the last token of each text, from our trunk or that of transformers."""

    def __init__(self, trunk, **how):
        super().__init__()
        self.trunk, self.how = trunk, how

    def forward(self, ids, lengths):  # (B, T), (B,) -> (B, C)
        hidden = self.trunk(ids, **self.how)
        hidden = getattr(hidden, "last_hidden_state", hidden)  # (B, T, C)
        return hidden[torch.arange(hidden.size(0), device=hidden.device), lengths - 1]


def with_transformers(folder: Path, dtype: torch.dtype, compiled: bool):
    from transformers import GPT2Model

    model = LastToken(GPT2Model.from_pretrained(folder, dtype=dtype), use_cache=False)
    model = model.to(DEVICE).eval()
    if compiled:
        from torch._inductor import config

        config.freezing = True
        model = torch.compile(model, dynamic=True)

    @torch.no_grad()
    def read_batch(ids, lengths):
        return model(ids.to(DEVICE), lengths.to(DEVICE)).float().cpu()

    return read_batch


def with_onnx(folder: Path, dtype: str):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # in one batch
    session = onnxruntime.InferenceSession(folder / f"{dtype}.onnx", options)

    def read_batch(ids, lengths):
        inputs = {"ids": ids.numpy(), "lengths": lengths.numpy()}
        return torch.from_numpy(session.run(None, inputs)[0])

    return read_batch


def with_openvino(folder: Path, dtype: str):
    import openvino

    hints = {"float32": "f32", "bfloat16": "bf16"}
    settings = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": hints[dtype]}
    settings |= {"INFERENCE_NUM_THREADS": AT_ONCE, "NUM_STREAMS": AT_ONCE}
    compiled = openvino.Core().compile_model(folder / "float32.onnx", "CPU", settings)
    requests = queue.SimpleQueue()  # one for each batch that is read at the same time
    for _ in range(AT_ONCE):
        requests.put(compiled.create_infer_request())

    def read_batch(ids, lengths):
        request = requests.get()
        outputs = request.infer({"ids": ids.numpy(), "lengths": lengths.numpy()})
        vectors = torch.from_numpy(outputs[0].copy())  # the request's memory is used again
        requests.put(request)
        return vectors

    return read_batch


def export(folder: Path, int8: bool) -> None:
    """Write the trunk of a folder as float32.onnx: ids and lengths in, the vectors out."""
    warnings.filterwarnings("ignore")
    batch, tokens = torch.export.Dim("batch"), torch.export.Dim("tokens")
    torch.onnx.export(
        LastToken(load_trunk(folder)),
        (torch.zeros(3, 17, dtype=torch.long), torch.tensor([17, 15, 9])),
        folder / "float32.onnx",
        input_names=["ids", "lengths"],
        dynamic_shapes=({0: batch, 1: tokens}, {0: batch}),
        opset_version=23,
        verbose=False,
    )
    if int8:
        from onnxruntime.quantization import quantize_dynamic

        files = folder / "float32.onnx", folder / "int8.onnx"
        quantize_dynamic(*files, per_channel=True, op_types_to_quantize=["MatMul"])


def train(way: str, job: str, folder: Path) -> Callable[[], None]:
    """Return what trains, and evaluates before and after each epoch: by hand, as documented."""
    train, dev = texts_in(folder, "train"), texts_in(folder, "dev")
    in_order = way == "documented"

    def batches_of(epoch: int) -> list[np.ndarray]:
        if in_order:
            return in_batches(np.random.default_rng(epoch).permutation(len(train)))
        return shuffled_batches(train.lengths, FINE.batch_size, FINE.seed, epoch)  # those of ours

    to_evaluate = token_batches(dev.lengths, TOKENS_AT_ONCE[DEVICE])
    to_evaluate = in_batches(np.arange(len(dev))) if in_order else to_evaluate

    def evaluate(model):
        model.eval()
        for batch in to_evaluate:
            logits(model, dev, batch, mask=in_order).argmax(-1).tolist()

    def training():
        model = to_train(classifier(folder), job)
        trained = [p for p in model.parameters() if p.requires_grad]
        fused = None if in_order else True
        optimizer = torch.optim.AdamW(trained, FINE.lr, weight_decay=FINE.weight_decay, fused=fused)
        evaluate(model)
        for epoch in range(EPOCHS[job]):
            model.train()
            for batch in batches_of(epoch):
                inputs, labels = inputs_of(model, train, batch, mask=in_order)
                run(model, inputs | {"labels": labels}).loss.backward()
                nn.utils.clip_grad_norm_(trained, FINE.clip)
                optimizer.step()
                optimizer.zero_grad()
            evaluate(model)

    return training


def head_on_vectors(folder: Path) -> Callable[[], None]:
    """Return what reads each text once, and trains a linear layer on the vectors."""
    train, dev = texts_in(folder, "train"), texts_in(folder, "dev")

    def training():
        x, x_dev = (reader("sorted", "float32", folder, texts)() for texts in (train, dev))
        head = nn.Linear(x.size(1), 2, bias=False)
        optimizer = torch.optim.AdamW(head.parameters(), FINE.lr, fused=True)
        for epoch in range(EPOCHS["frozen"]):
            for batch in in_batches(np.random.default_rng(epoch).permutation(len(train))):
                nn.functional.cross_entropy(head(x[batch]), train.labels[batch]).backward()
                optimizer.step()
                optimizer.zero_grad()
            head(x_dev).argmax(-1).tolist()

    return training


def to_train(model, job: str):
    """Freeze what a job freezes, and add what it adds."""
    if job == "lora":
        from peft import LoraConfig, get_peft_model

        how = {"task_type": "SEQ_CLS", "target_modules": [LORA["lora_on"]], "fan_in_fan_out": True}
        how |= {"r": LORA["lora"], "lora_alpha": LORA["lora_alpha"]}
        return get_peft_model(model, LoraConfig(**how))
    if job != "full":
        model.transformer.requires_grad_(False)
    if job == "last":
        model.transformer.h[-2:].requires_grad_(True)
        model.transformer.ln_f.requires_grad_(True)
    return model


def generate(folder: Path) -> Callable:
    from transformers import GPT2LMHeadModel

    ids = torch.from_numpy(texts_in(folder, "train").ids[0])[None].to(DEVICE)
    how = {"max_new_tokens": GENERATED, "do_sample": False, "pad_token_id": 0}

    def generating():
        model = GPT2LMHeadModel.from_pretrained(folder).to(DEVICE).eval()
        model.generation_config.eos_token_id = None
        return model.generate(ids, **how)

    return generating
