"""The model in the page: its hidden states are Python's, and a text that is typed is read."""

import base64
import json
import random

import pytest
import safetensors.torch
import torch
from conftest import ROOT, random_trunk, write_vocabulary
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait
from test_page import TEXTS, made_up, prediction, words

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
        expected = torch.stack(
            [x[0] for x in every_layer(study.trunk, torch.from_numpy(ids)[None])]
        )
        states = torch.tensor(ours["states"]).view_as(expected)
        torch.testing.assert_close(states, expected, atol=1e-3, rtol=0)


# --- the page ---


@pytest.fixture
def page(chromium, study, tmp_path):
    """Give a function that types into a box and returns what the page then shows of it."""
    trunk, probes, head = with_probes(study)
    results = made_up()
    reading = results["experiments"]["reading"]
    reading |= {"probes": [probe.tolist() for probe in probes], "head": head.tolist()}
    path = tmp_path / "index.html"
    write_page(results, {}, path, trunk)
    chromium.get_log("browser")
    chromium.get(path.as_uri())
    wait = WebDriverWait(chromium, 60, 0.05)
    wait.until(lambda _: chromium.find_element(By.ID, "state").text == "")
    tokens_of = """
      const strip = document.querySelectorAll(".strip")[arguments[0]];
      return strip ? [...strip.querySelectorAll(".word")].map((word) => word.textContent) : [];"""

    def type_in(box: int, text: str) -> dict:
        element = chromium.find_element(By.ID, f"box-{box}")
        if len(text) < 50:
            element.send_keys(Keys.CONTROL, "a")
            element.send_keys(Keys.DELETE, text)
        else:
            change = "arguments[0].value = arguments[1]"
            notice = "arguments[0].dispatchEvent(new Event('input'))"
            chromium.execute_script(f"{change}; {notice}", element, text)
        expected = read(study, probes, head, text)
        shown = [visible(token) for token in expected["tokens"]]
        wait.until(lambda _: chromium.execute_script(tokens_of, box) == shown)
        return expected

    yield type_in
    assert chromium.get_log("browser") == []


def read(study, probes, head, text: str) -> dict:
    """Return what Python reads in a text, with the likeliest tokens after its last."""
    trunk, weights = recording(study.trunk)
    reading = read_text(study, trunk, weights, probes, head, Example(text, ""))
    (ids,) = tokenize([Example(text, "n")], ("n",), study.tokenizer, 64).ids
    logits = trunk.next_token_logits(trunk(torch.from_numpy(ids)[None])[0, -1])
    return reading | {"next": logits.softmax(0).topk(5).values.tolist()}


def visible(token: str) -> str:
    return token.strip() or ("◌" if token == "" else "␣")


def same_numbers(chromium, name: str, shares: list[float]) -> bool:
    """Return whether a list of the page has these shares, to a percent."""
    spans = chromium.find_elements(By.CSS_SELECTOR, f"#{name} li > span:last-child")
    shown = [int(span.text.removesuffix(" %")) for span in spans]
    return shown == pytest.approx([100 * share for share in shares], abs=0.6)


def says(p: float) -> set[str]:
    """Return how the page may put a probability, which has been rounded to three digits here."""
    return {prediction(p + way * 0.0005) for way in (-1, 0, 1)}


def test_a_text_that_is_typed_is_read_as_python_reads_it(chromium, page):
    """Box by box: the verdict of each layer, attention, next tokens; and where two texts part."""
    wait = WebDriverWait(chromium, 30, 0.05)
    chromium.find_element(By.ID, "box-1").clear()
    for text in ("in the good tin", "in the bad tin"):
        expected = page(0, text)
        assert same_numbers(chromium, "layers", [row[-1] for row in expected["positive"]][::-1])
        looks = sorted(expected["attention"][-1][-1], reverse=True)
        assert same_numbers(chromium, "attention", looks[:7])
        wait.until(lambda _, e=expected: same_numbers(chromium, "next-token", e["next"]))
        strips = chromium.find_element(By.ID, "strips").text
        assert any(verdict in strips for verdict in says(expected["whole"]))
    other = page(1, "in the good tin")
    told, parting = (chromium.find_element(By.ID, name).text for name in ("told", "parting"))
    last = [reading["positive"][-1][-1] for reading in (expected, other)]
    assert says(last[0]).isdisjoint(says(last[1]))
    assert any(verdict in told for verdict in says(last[1]))
    dotted = [word.text for word in chromium.find_elements(By.CLASS_NAME, "differs")]
    assert dotted == ["bad", "good"] and "Up to “the”" in parting
    for p in last:
        assert any(verdict in parting for verdict in says(p))


def test_odd_texts_and_quick_fingers(chromium, page):
    """Empty, longer than the context, and a second letter before the first is answered."""
    assert page(0, "x " * 300)["truncated"]
    assert "too long: its first 64 tokens" in chromium.find_element(By.ID, "strips").text
    page(0, "")
    assert "empty, and read as <|endoftext|>" in chromium.find_element(By.ID, "strips").text
    for end in range(1, 9):
        chromium.find_element(By.ID, "box-0").send_keys("good bad"[end - 1])
    page(0, "good bad!")
    Select(chromium.find_element(By.ID, "sentence")).select_by_index(0)  # a text of the data again
    assert chromium.find_element(By.ID, "box-0").get_attribute("value") == "".join(TEXTS[0][2])
    assert words(chromium, 0)


def test_why_there_is_no_box_is_said(study, monkeypatch):
    monkeypatch.setattr(in_browser, "MOST", 1000)
    page = page_of(made_up(), {}, for_page(study))
    assert "There is no box to type a text of your own into: its trunk has" in page
    assert 'id="trunk"' not in page and 'id="boxes" hidden' in page


def test_the_page_of_the_bundled_trunk_has_its_very_weights_and_stays_small():
    study = open_study(str(ROOT / "weights" / "tiny"), "mirrored", "cpu", quiet=True)
    trunk = for_page(study)
    file = safetensors.torch.load(base64.b64decode(trunk["weights"]))
    for name, parameter in study.trunk.named_parameters():
        assert torch.equal(file[name].float(), parameter)
    assert len(json.dumps(trunk)) < 22e6
