"""The page, opened in Chromium and clicked through; and without one, that it escapes and suffices.

What the browser shows is compared with a made-up results.json, with hostile texts.
"""

import base64
import hashlib
import html.parser
import json
import math
import re
from pathlib import Path

import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

from minigpt.explain.figures import GRID, INK
from minigpt.explain.page import page_of, write_page

NAMES = ("pooling", "where", "controls", "knock-out", "patching", "heads", "words", "ladder")
NAMES += ("reading",)
HOSTILE = "</script><script>document.title = 'broken'</script><!-- \"'&amp; \0 \ud800 ‮ \u2028 <b>"
TEXTS = [  # (pair, label, tokens)
    ("1", "bad", ["All", " its", " charm", ",", " and", " it", " is", " dull", "."]),
    ("1", "good", ["All", " its", " noise", ",", " and", " it", " is", " fun", "."]),
    ("", "good", ["Plain", "\n", "", "é", "\0", " ", "\u200b", "<|", "endoftext", "|>"]),
    ("", None, [HOSTILE, "x" * 300, " <img src=x onerror=alert(1)>"]),
    ("", None, ["One"]),
]
LAYERS, BLOCKS = 4, 3
SVG = f"""<?xml version="1.0" encoding="utf-8" standalone="no"?>
<!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" "http://www.w3.org/Graphics/SVG/1.1/DTD/svg11.dtd">
<svg xmlns:xlink="http://www.w3.org/1999/xlink" width="900pt" height="300pt" viewBox="0 0 900 300"
 xmlns="http://www.w3.org/2000/svg" version="1.1">
<metadata><a href="http://example.org/"/></metadata>
<defs><style type="text/css">*{{stroke-linejoin: round}}</style></defs>
<clipPath id="p1"><rect id="r1" width="900" height="300"/></clipPath>
<g clip-path="url(#p1)"><text id="ink" x="9" y="40" style="fill: {INK}">60 %</text>
<path d="M 0 9 H 900" style="stroke: {GRID}"/><use xlink:href="#r1" style="fill: none"/></g>
</svg>"""


def made_up_sentence(seed: int, pair: str, label: str | None, tokens: list[str]) -> dict:
    """Return a reading whose numbers differ at every place."""
    positive = [
        [round((37 * seed + 113 * layer + 271 * t) % 1001 / 1000, 3) for t in range(len(tokens))]
        for layer in range(LAYERS)
    ]
    attention = []
    for block in range(BLOCKS):
        rows = []
        for t in range(len(tokens)):
            raw = [1 + (seed + 7 * block + 5 * t + 3 * s) % 11 for s in range(t + 1)]
            rows.append([round(weight / sum(raw), 3) for weight in raw])
        attention.append(rows)
    about = {
        "text": "".join(tokens),
        "label": label,
        "pair": pair,
        "kind": "contrast" if pair else "own" if tokens == ["One"] else "",
    }
    about |= {"whole": 0.8, "resting": [[t % 3 for t in range(len(tokens))]] * BLOCKS}
    return about | {"tokens": tokens, "positive": positive, "attention": attention}


def made_up(names=NAMES) -> dict:
    """Return what results.json contains, with hostile texts wherever there is text."""
    sentences = [made_up_sentence(i, *text) for i, text in enumerate(TEXTS)]
    experiments = {
        name: {
            "question": f"What of {name}? {HOSTILE}",
            "headline": f"In a word: {HOSTILE}",
            "finding": f"It is so. {HOSTILE}",
            "chance": 0.5,
            "table": {
                "columns": ["read at", "accuracy", "interval", "pairs in order"],
                "rows": [[f"{i} {HOSTILE}", "79.2 %", "75.0 to 83.1", None] for i in range(3)],
            },
            "seconds": 1.0,
        }
        for name in names
    }
    if "patching" in names:
        experiments["patching"] = {"question": "Which?", "skipped": "the data has no pairs"}
    if "where" in names:
        experiments["where"]["table"]["rows"] *= 9
    if "reading" in names:
        experiments["reading"]["sentences"] = sentences
    weights = {"name": f"tiny{HOSTILE}", "sha256": "ab" * 32, "parameters": 6901760}
    weights |= {"layers": BLOCKS, "heads": 4, "width": 256}
    data = {"name": f"my {HOSTILE}", "labels": ["bad", "good"], "pairs": 1}
    about = {
        "weights": weights,
        "data": data | {"train": 8000, "dev": 10, "test": 44},
        "seed": 0,
        "device": "cpu",
        "threads": 2,
        "versions": {"python": "3.11", "torch": "2.9", "numpy": "2.0"},
        "command": f"python -m minigpt explain --data '{HOSTILE}'",
        "seconds": 241.3,
    }
    return {"about": about, "experiments": experiments}


RESULTS = made_up()
SENTENCES = RESULTS["experiments"]["reading"]["sentences"]
FIGURES = {name: SVG for name in NAMES if name != "patching"}
FIGURES["pooling"] = SVG.replace("900pt", "460pt").replace("0 0 900", "0 0 460")  # of rows


class Parsed(html.parser.HTMLParser):
    """The tags of a page, with their attributes, and the text in them."""

    def __init__(self, page: str):
        super().__init__()
        self.tags, self.text, self.inside = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.inside.append(tag)

    def handle_endtag(self, tag):
        while self.inside and self.inside.pop() != tag:
            pass

    def handle_data(self, data):
        self.text.append((self.inside[-1] if self.inside else "", data))

    def of(self, tag: str) -> list[str]:
        return [data for inside, data in self.text if inside == tag]


def test_the_page_asks_for_nothing_from_outside_and_lets_no_other_script_run():
    page = page_of(RESULTS, FIGURES)
    parsed = Parsed(page)
    links = [a[name] for _, a in parsed.tags for name in ("src", "href", "xlink:href") if name in a]
    assert links and all(link.startswith("#") or link == "data:," for link in links)
    assert {tag for tag, _ in parsed.tags}.isdisjoint({"img", "iframe", "object", "embed", "base"})
    assert all(re.findall(r"url\((.)", part) == [] for part in parsed.of("style"))
    assert "@import" not in page and "http:" not in page and "https:" not in page

    (policy,) = [a["content"] for _, a in parsed.tags if "http-equiv" in a]
    data, script = parsed.of("script")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy.startswith("default-src 'none';")
    assert f"script-src 'sha256-{digest}';" in policy
    assert json.loads(data) == {"labels": ["bad", "good"], "heads": 4, "sentences": SENTENCES}


def test_whatever_is_in_a_text_comes_out_as_text():
    parsed = Parsed(page_of(RESULTS, FIGURES))
    shown = HOSTILE.replace("\0", "\ufffd").replace("\ud800", "\ufffd")
    whole = "".join(data for inside, data in parsed.text if inside not in ("script", "style"))
    for before in ("What of pooling?", "In a word:", "It is so.", "2", "my"):
        assert f"{before} {shown}" in whole
    assert sum(tag == "script" for tag, _ in parsed.tags) == 2
    assert "b" not in {tag for tag, _ in parsed.tags}


def test_figures_take_the_ink_of_the_page_and_ids_of_their_own():
    page = page_of(RESULTS, FIGURES)
    ids = [a["id"] for _, a in Parsed(page).tags if "id" in a]
    assert len(ids) == len({*ids})
    assert INK not in page and page.count("fill: currentColor") == len(FIGURES)
    assert GRID not in page and page.count("stroke: var(--line)") == len(FIGURES)
    for name in FIGURES:
        assert f'id="{name}-p1"' in page and f"url(#{name}-p1)" in page


def test_only_what_was_run_is_on_the_page(tmp_path):
    write_page(made_up(["words"]), {}, tmp_path / "index.html")
    parsed = Parsed((tmp_path / "index.html").read_text(encoding="utf-8"))
    sections = [a for tag, a in parsed.tags if tag == "section"]
    assert [a["id"] for a in sections if a.get("class") == "experiment"] == ["words"]
    assert [("hidden" in a) for a in sections if a["id"] == "room"] == [True]


# --- in the browser ---

WINDOWS = [
    ((360, 740), "light"),
    ((1280, 900), "dark"),
    ((360, 740), "dark"),
    ((1280, 900), "light"),
]


def in_windows(count: int):
    """Run a test in that many of the windows."""
    names = [f"{width}-{scheme}" for (width, _), scheme in WINDOWS]
    return pytest.mark.parametrize("browser", WINDOWS[:count], ids=names[:count], indirect=True)


@pytest.fixture(scope="module")
def address(tmp_path_factory) -> str:
    path = Path(tmp_path_factory.mktemp("page"), "index.html")
    write_page(RESULTS, FIGURES, path)
    return path.as_uri()


@pytest.fixture
def browser(request, chromium, address):
    """Give the browser with the page open in a window, and see that nothing went wrong in it."""
    (width, height), scheme = request.param
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = {"prefers-color-scheme": scheme, "prefers-reduced-motion": "reduce"}
    media = [{"name": name, "value": value} for name, value in features.items()]
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})
    chromium.get_log("browser"), chromium.get_log("performance")  # what was before is past
    chromium.get(address)
    yield chromium
    assert chromium.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in chromium.get_log("performance")]
    sent = [
        e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"
    ]
    assert {url.partition("#")[0] for url in sent} <= {address, "data:,"}


def words(browser, i: int):
    return browser.find_elements(By.CSS_SELECTOR, f"[id^='word-{i}-']")


def text_of(browser, selector: str) -> str:
    return browser.find_element(By.CSS_SELECTOR, selector).text


def percent(share: float) -> str:
    return f"{math.floor(100 * share + 0.5)} %"


def prediction(p: float) -> str:
    return f"{percent(p)} for good" if p >= 0.5 else f"{percent(1 - p)} for bad"


def shows(browser, i: int, t: int, layer: int, block: int) -> None:
    """Assert that the page shows what the data says of word t of sentence i."""
    about = SENTENCES[i]
    chips = words(browser, i)
    told = text_of(browser, "#told")
    assert f"token {t + 1} of {len(chips)}: {prediction(about['positive'][layer][t])}" in told
    column = browser.find_elements(By.CSS_SELECTOR, "#layers li > span:last-child")
    assert [c.text for c in column] == [percent(row[t]) for row in reversed(about["positive"])]

    for p, chip in zip(about["positive"][layer], chips, strict=True):
        assert f": {prediction(p)}" in chip.get_attribute("aria-label").replace("\u00a0", " ")
        assert ("pro" if p >= 0.5 else "con") in chip.get_attribute("class").split()
    styles = "return [...arguments[0]].map((w) => +w.style.getPropertyValue(arguments[1]))"
    lean = [abs(2 * p - 1) for p in about["positive"][layer]]
    assert browser.execute_script(styles, chips, "--lean") == pytest.approx(lean)
    weights = about["attention"][block][t]
    look = [w / max(weights) for w in weights] + [0] * (len(chips) - t - 1)
    assert browser.execute_script(styles, chips, "--look") == pytest.approx(look)
    most = browser.find_elements(By.CSS_SELECTOR, "#attention li > span:last-child")
    assert [m.text for m in most] == [percent(w) for w in sorted(weights, reverse=True)[:7]]
    unread = ["unread" in chip.get_attribute("class").split() for chip in chips]
    assert unread == [s > t for s in range(len(chips))]


@in_windows(4)
def test_everything_is_there_and_nothing_sticks_out(browser):
    assert browser.title.startswith("Why the last token: tiny</script>")
    for name in NAMES:
        section = browser.find_element(By.ID, name)
        assert section.find_element(By.TAG_NAME, "h2").is_displayed()
        skipped = name == "patching"
        assert len(section.find_elements(By.TAG_NAME, "svg")) == (not skipped)
        assert len(section.find_elements(By.TAG_NAME, "table")) == (not skipped)
        assert ("Not run: the data has no pairs" in section.text) == skipped
    width = "return [document.documentElement.scrollWidth, innerWidth]"
    for _ in SENTENCES:
        wide, window = browser.execute_script(width)
        assert wide <= window
        browser.find_element(By.ID, "next").click()


@in_windows(4)
def test_all_text_can_be_read_on_its_background(browser):
    contrast = """
      const rgb = (colour) => {  // rgb(0 to 255) or color(srgb 0 to 1)
        const numbers = colour.match(/[\\d.e-]+/g).slice(0, 3).map(Number);
        return colour.startsWith("color") ? numbers : numbers.map((n) => n / 255);
      };
      const light = (colour) => {
        const curve = (c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
        const [r, g, b] = rgb(colour).map(curve);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
      };
      const behind = (element) => {  // the colour of the nearest element that has one
        const colour = getComputedStyle(element).backgroundColor;
        return colour.endsWith(", 0)") ? behind(element.parentElement) : colour;
      };
      const own = (node) => node.nodeType === Node.TEXT_NODE && node.data.trim();
      const seen = [...document.body.querySelectorAll(":not(script, svg *, option, optgroup)")]
        .filter((element) => element.checkVisibility() && [...element.childNodes].some(own));
      return seen.map((element) => {
        const colours = [getComputedStyle(element).color, behind(element)].map(light);
        const [a, b] = colours.sort((a, b) => b - a);
        return [(a + 0.05) / (b + 0.05), element.className || element.tagName];
      });"""
    words(browser, 0)[3].click()  # so that those after it are unread
    ratios = browser.execute_script(contrast)
    assert len(ratios) > 100 and min(ratios)[0] >= 4.5, min(ratios)
    assert any("unread" in name for _, name in ratios)


@in_windows(2)
def test_pairs_are_shown_together_and_other_texts_one_by_one(browser):
    chooser = Select(browser.find_element(By.ID, "sentence"))
    assert len(chooser.options) == 4
    for choice, texts in enumerate([[0, 1], [2], [3], [4]]):
        chooser.select_by_index(choice)
        for i, sentence in enumerate(SENTENCES):
            assert len(words(browser, i)) == (len(sentence["tokens"]) if i in texts else 0)
        shows(browser, texts[0], len(SENTENCES[texts[0]]["tokens"]) - 1, LAYERS - 1, BLOCKS - 1)
    browser.find_element(By.ID, "next").click()  # from the last to the first
    assert [w.text for w in words(browser, 1)] == [t.strip() for t in TEXTS[1][2]]
    browser.find_element(By.ID, "previous").click()
    assert [w.text for w in words(browser, 4)] == ["One"]


@in_windows(1)
def test_choices_are_grouped_by_kind_after_the_first(browser):
    chooser = browser.find_element(By.ID, "sentence")
    groups = chooser.find_elements(By.TAG_NAME, "optgroup")
    assert [group.get_attribute("label") for group in groups] == ["own"]
    assert [len(group.find_elements(By.TAG_NAME, "option")) for group in groups] == [1]
    assert len(chooser.find_elements(By.XPATH, "./option")) == 3
    strips = text_of(browser, "#strips")
    assert "labelled bad · contrast · the head of train.py says: 80 % for good" in strips


@in_windows(2)
def test_what_only_one_text_of_a_pair_has_is_marked(browser):
    dotted = [word.text for word in browser.find_elements(By.CLASS_NAME, "differs")]
    assert dotted == ["charm", "dull", "noise", "fun"]
    ends = [prediction(SENTENCES[i]["positive"][-1][-1]) for i in (0, 1)]
    parting = text_of(browser, "#parting")
    assert parting.startswith("Up to “its” the two texts are the same")
    assert parting.endswith(f"At their ends: {ends[0]}, and {ends[1]}.")


@in_windows(1)
def test_heads_that_rest_on_the_first_token_are_counted(browser):
    words(browser, 0)[4].click()  # whose `resting` is 1
    assert "The mean of 4 heads. 1 of them rests on the first token" in text_of(browser, "#resting")
    words(browser, 0)[3].click()
    assert text_of(browser, "#resting") == ""


@in_windows(1)
def test_a_phone_shows_a_figure_of_rows_whole_and_the_right_end_of_a_wide_one(browser):
    fits = "const [f] = arguments; return [f.scrollWidth <= f.clientWidth, f.scrollLeft]"
    figure = browser.find_element(By.CSS_SELECTOR, "#where figure")
    assert browser.execute_script(fits, figure)[0] is False
    assert browser.execute_script(fits, figure)[1] > 0
    assert browser.execute_script(fits, browser.find_element(By.CSS_SELECTOR, "#pooling figure"))[0]


@in_windows(2)
def test_invisible_characters_get_a_symbol_and_markup_stays_text(browser):
    chooser = Select(browser.find_element(By.ID, "sentence"))
    chooser.select_by_index(1)
    shown = [w.text for w in words(browser, 2)]
    assert shown == ["Plain", "⏎", "◌", "é", "◌", "␣", "◌", "<|", "endoftext", "|>"]
    chooser.select_by_index(2)
    first, long, image = words(browser, 3)
    assert first.text.startswith("</script><script>document.title = 'broken'</script>")
    assert long.text == "x" * 300 and image.text == "<img src=x onerror=alert(1)>"
    assert browser.find_elements(By.TAG_NAME, "img") == []


@in_windows(2)
def test_a_word_that_is_tapped_shows_its_layers_and_where_its_attention_goes(browser):
    for i, t in ((0, 2), (1, 5), (0, 0)):
        words(browser, i)[t].click()
        shows(browser, i, t, LAYERS - 1, BLOCKS - 1)


@in_windows(2)
def test_pointing_is_a_glance(browser):
    words(browser, 0)[6].click()
    ActionChains(browser).move_to_element(words(browser, 1)[3]).perform()
    shows(browser, 1, 3, LAYERS - 1, BLOCKS - 1)
    ActionChains(browser).move_to_element(browser.find_element(By.ID, "layers")).perform()
    shows(browser, 0, 6, LAYERS - 1, BLOCKS - 1)


@in_windows(2)
def test_keys_go_from_word_to_word_and_from_layer_to_layer(browser):
    browser.find_element(By.ID, "block").send_keys(Keys.TAB)  # into the strip
    keys = [(Keys.HOME, 0, 3), (Keys.LEFT, 0, 3), (Keys.RIGHT, 1, 3), (Keys.DOWN, 1, 2)]
    keys += [(Keys.DOWN, 1, 1), (Keys.DOWN, 1, 0), (Keys.DOWN, 1, 0), (Keys.UP, 1, 1)]
    keys += [(Keys.END, 8, 1), (Keys.RIGHT, 8, 1)]
    for key, t, layer in keys:
        browser.switch_to.active_element.send_keys(key)
        assert browser.switch_to.active_element.get_attribute("id") == f"word-0-{t}"
        shows(browser, 0, t, layer, BLOCKS - 1)
    browser.switch_to.active_element.send_keys(Keys.TAB)
    assert browser.switch_to.active_element.get_attribute("id") == "word-1-8"
    shows(browser, 1, 8, 1, BLOCKS - 1)


@in_windows(2)
def test_the_dials_choose_layer_and_block(browser):
    words(browser, 0)[4].click()
    layer, block = browser.find_element(By.ID, "layer"), browser.find_element(By.ID, "block")
    layer.send_keys(Keys.HOME)
    shows(browser, 0, 4, 0, BLOCKS - 1)
    assert text_of(browser, "#layer-is") == "embeddings"
    layer.send_keys(Keys.RIGHT, Keys.RIGHT)
    block.send_keys(Keys.LEFT, Keys.LEFT)
    shows(browser, 0, 4, 2, 0)
    assert text_of(browser, "#layer-is") == "after block 2"
    assert text_of(browser, "#block-is") == "attention in block 1"


@in_windows(2)
def test_it_reads_a_text_out_and_stops(browser):
    Select(browser.find_element(By.ID, "sentence")).select_by_index(2)
    watch = """
      const [done] = arguments, seen = [];
      const [play, told] = ["play", "told"].map((id) => document.getElementById(id));
      const on = (node, then) => new MutationObserver(then).observe(node, { childList: true });
      on(told, () => seen.push(told.textContent));
      on(play, () => play.textContent === "Play" && done(seen));
      play.click();"""
    seen = browser.execute_async_script(watch)
    assert [re.search(r"token \d of 3", text)[0] for text in seen] == [
        f"token {t} of 3" for t in (1, 2, 3)
    ]
    shows(browser, 3, 2, LAYERS - 1, BLOCKS - 1)
