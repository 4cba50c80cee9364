"""The model in the page: its hidden states are Python's, and a text that is typed is read."""

import base64
import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, random_trunk, write_vocabulary
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait
from test_page import made_up

from minigpt.data import Example, tokenize
from minigpt.explain import in_browser
from minigpt.explain.hidden_states import every_layer
from minigpt.explain.in_browser import for_page
from minigpt.explain.page import page_of, write_page
from minigpt.explain.study import open_study
from minigpt.explain.word_by_word import read_text, recording, spell
from minigpt.weights import save_trunk

PAGE = ROOT / "minigpt" / "explain" / "page"
NASTY = [
    "", " ", "\n", "a", "good", " bad good", "I hated it.", "don't we'll I'M they're 'sup",
    "  two  spaces\n\n\tand tabs  ", "end  ", "x\u0085y\u2028z\u00a0\u1680w", "\ufeff bom \ufeff",
    "שלום 👩‍👩‍👧 e\u0301", "日本語のテキスト", "ﬁ ½ Ⅷ ² ³ \u200b\u3000 z", "<|endoftext|> is text",
    "\0 \x01 \x7f", "\ud800 alone", "🎬" * 9, "naïve café", "ǅ Ω ℵ", "１２３ 123 ४५६", "</script>",
    "'s 'S 't'd'm'll", "a" * 80, "good" * 30, "x " * 400,
]  # fmt: skip
ALPHABET = "ab ' good\n\t.,é日🎬\u00a0\u200b1½"


def texts() -> list[str]:
    """Return 50 texts: Unicode, empty, longer than the context."""
    draw = random.Random(0)
    made = ("".join(draw.choices(ALPHABET, k=draw.randint(1, 60))) for _ in range(50 - len(NASTY)))
    return [*NASTY, *made]


@pytest.fixture
def study(tmp_path):
    """Give a small random trunk, of values that float16 has, and a few texts."""
    trunk = random_trunk(n_inner=50).half().float()  # 50: no multiple of four
    save_trunk(trunk, tmp_path)
    write_vocabulary(tmp_path)
    rows = [f"the {['good', 'bad'][i % 2]} {i}\t{'pn'[i % 2]}" for i in range(60)]
    data = tmp_path / "few.tsv"
    data.write_text("text\tlabel\n" + "\n".join(rows), encoding="utf-8")
    return open_study(str(tmp_path), str(data), "cpu", quiet=True)


def with_probes(study) -> tuple[dict, list, torch.Tensor]:
    """Return the trunk as the page gets it, random probes for each layer, and a random head."""
    generator = torch.Generator().manual_seed(1)
    shape = study.layers + 1, 2, study.trunk.config.n_embd
    *probes, head = torch.randn(shape, generator=generator) / 4
    return for_page(study), probes, head


def in_javascript(chromium, study, texts: list[str]) -> list[dict]:
    """Return what the page's own code makes of texts: ids, tokens, and all hidden states."""
    run = """
      const texts = JSON.parse(arguments[1]);
      open(arguments[0]);
      return JSON.stringify(texts.map((text) => {
        const [ids] = idsOf(text);
        boxes[0].forget();
        const states = boxes[0].forward(ids).hidden.flat().flatMap((x) => Array.from(x));
        return { ids, tokens: tokenizer.spell(ids), states };
      }));"""
    code = "".join((PAGE / name).read_text(encoding="utf-8") for name in ("gpt2.js", "worker.js"))
    trunk, probes, head = with_probes(study)
    trunk |= {"probes": [probe.tolist() for probe in probes], "head": head.tolist()}
    chromium.get("about:blank")
    return json.loads(chromium.execute_script(code + run, json.dumps(trunk), json.dumps(texts)))


@pytest.mark.parametrize("weights", ["random", "tiny"])
@torch.no_grad()
def test_hidden_states_are_those_of_python(chromium, study, weights):
    if weights == "tiny":
        study = open_study(str(ROOT / "weights" / "tiny"), "mirrored", "cpu", quiet=True)
    some = texts() if weights == "random" else ["", "Ça ne vaut rien, 日本!", "I hated it."]
    labelled = [Example(text, study.labels[0]) for text in some]
    context = study.checkpoint.config.n_positions
    theirs = tokenize(labelled, study.labels, study.tokenizer, context)
    for text, ids, ours in zip(some, theirs.ids, in_javascript(chromium, study, some), strict=True):
        assert ours["ids"] == ids.tolist(), repr(text)
        assert ours["tokens"] == spell(study.tokenizer, ids), repr(text)
        expected = torch.stack([x[0] for x in every_layer(study.trunk, torch.from_numpy(ids)[None])])
        states = torch.tensor(ours["states"]).view_as(expected)
        torch.testing.assert_close(states, expected, atol=1e-3, rtol=0)
