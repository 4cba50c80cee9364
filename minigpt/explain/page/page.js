"use strict";
// Texts word by word, in the colour of the prediction if the text ended there.
//
// The data: {labels: [negative, positive], heads in a block, sentences: [{text, label, pair, kind,
// truncated, tokens, positive[layer][token], whole, attention[block][token][earlier token or
// itself], resting[block][token]}]}; see word_by_word.py. A text that is typed gets the same from
// the worker, which also finds next[token]: the likeliest tokens after it.

const { labels, heads, sentences } = JSON.parse(document.getElementById("data").textContent);
const at = (id) => document.getElementById(id);
const percent = (share) => `${Math.round(100 * share)}\u00a0%`;

// What is shown: the texts of one choice (a text, or a pair), the layer whose predictions colour
// the words, the block whose attention underlines them, and the word whose details are listed.
const now = { choice: 0, layer: 0, block: 0, word: null };
let pinned = null; // the word that was clicked, focused or reached by keys: pointing at another is a glance
let clock = null; // while the text is played

// texts that follow each other and are of one pair are chosen, and shown, together
const choices = [];
sentences.forEach((sentence, i) => {
  const paired = i > 0 && sentence.pair && sentence.pair === sentences[i - 1].pair;
  if (paired) choices[choices.length - 1].push(i);
  else choices.push([i]);
});

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children); // strings become text, never markup
  return made;
}

// A token as it can be shown: an invisible character, or a part of one, gets a symbol in its place.
function visible(token) {
  if (token === "") return "◌";
  const word = token.trim();
  if (word === "") return token.includes("\n") ? "⏎" : "␣";
  return word.replace(/[\p{Cc}\p{Cs}\p{Bidi_Control}]/gu, "◌").replace(/^\p{C}+$/u, "◌");
}

function prediction(positive) {
  const [share, label] = positive >= 0.5 ? [positive, labels[1]] : [1 - positive, labels[0]];
  return `${percent(share)} for ${label}`;
}

function layerName(layer) {
  return layer === 0 ? "embeddings" : `after block ${layer}`; // blocks count from 1
}

const wordAt = ([i, t]) => at(`word-${i}-${t}`);
const length = (i) => sentences[i].tokens.length;

function showChoice(choice) {
  const shown = choices[(choice + choices.length) % choices.length];
  boxes.forEach((box, k) => { box.value = sentences[shown[k]]?.text ?? ""; });
  typed = false;
  showStrips(choice, 0);
}

// Show the texts of a choice, with the end of one of them pinned.
function showStrips(choice, k) {
  now.choice = (choice + choices.length) % choices.length;
  at("sentence").value = now.choice;
  const shown = choices[now.choice];
  const [first, second] = shown.map((i) => sentences[i]);
  at("layer").max = first.positive.length - 1;
  at("block").max = first.attention.length - 1;
  const common = second ? inBoth(first.tokens, second.tokens) : [null];
  at("strips").replaceChildren(...shown.map((i, n) => strip(i, n, common[n])));
  at("parting").textContent = second ? parting(first, second) : "";
  pin([shown[k], length(shown[k]) - 1]);
}

// Which tokens of two texts belong to their longest common subsequence: two sets of places.
function inBoth(a, b) {
  const long = Array.from({ length: a.length + 1 }, () => new Uint16Array(b.length + 1)); // of a[i:], b[j:]
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) {
      long[i][j] = a[i] === b[j] ? long[i + 1][j + 1] + 1 : Math.max(long[i + 1][j], long[i][j + 1]);
    }
  }
  const places = [new Set(), new Set()];
  for (let i = 0, j = 0; i < a.length && j < b.length;) {
    if (a[i] === b[j]) places[0].add(i++), places[1].add(j++);
    else if (long[i + 1][j] >= long[i][j + 1]) i++;
    else j++;
  }
  return places;
}

// Where two texts part, in words.
function parting(first, second) {
  const [a, b] = [first.tokens, second.tokens];
  let same = 0;
  while (same < a.length && a[same] === b[same]) same++;
  if (same === a.length && same === b.length) return "The two texts are the same.";
  const end = [first, second].map(({ positive }) => prediction(positive.at(-1).at(-1)));
  const start = same === 0 ? "The two texts part at their first token" :
    `Up to “${visible(a[same - 1])}” the two texts are the same, and so are their colours, in every ` +
    "layer: no token sees what comes after it. There they part";
  return `${start}; what only one of them has is dotted. At their ends: ${end[0]}, and ${end[1]}.`;
}

function strip(i, n, common) {
  const { tokens, label, kind, truncated, text, whole } = sentences[i];
  const words = element("div", { class: "strip", role: "listbox", "aria-orientation": "horizontal" });
  words.setAttribute("aria-label", `The words of the ${common ? ["first ", "second "][n] : ""}text`);
  tokens.forEach((token, t) => {
    if (/^\s/.test(token) && t > 0) words.append(" "); // the space is outside the colour
    const word = element("span", { class: "word", role: "option", id: `word-${i}-${t}` });
    word.classList.toggle("differs", common !== null && !common.has(t));
    word.append(visible(token));
    word.addEventListener("pointerenter", (event) => event.pointerType === "mouse" && look([i, t]));
    word.addEventListener("click", () => pin([i, t], true));
    word.addEventListener("focus", () => pin([i, t]));
    words.append(word);
    if (token.includes("\n")) words.append(element("br"));
  });
  words.addEventListener("pointerleave", () => look(pinned));
  words.addEventListener("keydown", (event) => walk(event, i));
  const truth = [label === null ? "a text without a label" : `labelled ${label}`];
  if (kind) truth.push(kind);
  if (text === "") truth.push("empty, and read as <|endoftext|>");
  if (truncated) truth.push(`too long: its first ${tokens.length} tokens`);
  truth.push(`the head of train.py says: ${prediction(whole)}`);
  return element("div", {}, element("p", { class: "truth" }, truth.join(" · ")), words);
}

function walk(event, i) {
  const t = pinned[1];
  const to = { ArrowLeft: t - 1, ArrowRight: t + 1, Home: 0, End: length(i) - 1 }[event.key];
  const up = { ArrowUp: 1, ArrowDown: -1 }[event.key];
  if (to === undefined && up === undefined) return;
  event.preventDefault();
  stop();
  if (up) showLayer(now.layer + up);
  else pin([i, Math.min(Math.max(to, 0), length(i) - 1)], true);
}

function showLayer(layer) {
  now.layer = Math.min(Math.max(layer, 0), Number(at("layer").max));
  at("layer").value = now.layer;
  at("layer-is").value = layerName(now.layer);
  at("layer").setAttribute("aria-valuetext", layerName(now.layer));
  paint();
}

function showBlock(block) {
  now.block = block;
  at("block").value = block;
  at("block-is").value = `attention in block ${block + 1}`;
  at("block").setAttribute("aria-valuetext", `block ${block + 1}`);
  paint();
}

function pin(word, focus = false) {
  pinned = word;
  if (focus && document.activeElement !== wordAt(word)) wordAt(word).focus(); // which pins it again
  look(word);
}

function look(word) {
  now.word = word;
  paint();
}

function paint() {
  const [chosen, here] = now.word;
  for (const i of choices[now.choice]) {
    const { tokens, positive, attention } = sentences[i];
    const weights = i === chosen ? attention[now.block][here] : [];
    const most = Math.max(...weights, 1e-9);
    tokens.forEach((token, t) => {
      const p = positive[now.layer][t];
      const word = wordAt([i, t]);
      word.classList.toggle("pro", p >= 0.5);
      word.classList.toggle("con", p < 0.5);
      word.classList.toggle("unread", i === chosen && t > here);
      word.style.setProperty("--lean", Math.abs(2 * p - 1));
      word.style.setProperty("--look", (weights[t] || 0) / most);
      word.tabIndex = t === (i === pinned[0] ? pinned[1] : tokens.length - 1) ? 0 : -1;
      word.setAttribute("aria-selected", i === chosen && t === here);
      const differs = word.classList.contains("differs") ? ", only in this text" : "";
      word.setAttribute("aria-label", `${visible(token)}: ${prediction(p)}${differs}`);
    });
  }
  tell(sentences[chosen], here);
  ask();
}

function tell({ tokens, positive, attention, resting, next }, here) {
  at("told").replaceChildren(
    "If the text ended at ",
    element("strong", {}, visible(tokens[here])),
    `, token ${here + 1} of ${tokens.length}: `,
    `${prediction(positive[now.layer][here])}, ${layerName(now.layer)}.`,
  );
  const predictions = positive.map((row, layer) => {
    const p = row[here];
    const line = bar(layer ? `block ${layer}` : "embeddings", p, Math.min(p, 0.5), Math.max(p, 0.5));
    line.classList.add(p >= 0.5 ? "pro" : "con");
    line.classList.toggle("shown", layer === now.layer);
    return line;
  });
  at("layers").replaceChildren(...predictions.reverse()); // the last on top, as the trunk is drawn
  const looks = attention[now.block][here].map((weight, t) => {
    return { weight, name: visible(tokens[t]) + (t === here ? " (itself)" : "") };
  });
  looks.sort((a, b) => b.weight - a.weight);
  at("attention-title").textContent = `Where its attention goes in block ${now.block + 1}`;
  at("attention").replaceChildren(
    ...looks.slice(0, 7).map(({ weight, name }) => bar(name, weight, 0, weight)),
  );
  const rest = here > 0 && resting[now.block][here];
  at("resting").textContent = !rest ? "" : `The mean of ${heads} heads. ${rest} of them ` +
    `${rest > 1 ? "rest" : "rests"} on the first token, as heads often do that find nothing to fetch.`;
  const likely = next?.[here] ?? [];
  at("next-token").replaceChildren(...likely.map(([token, p]) => bar(visible(token), p, 0, p)));
}

// A line of a list: a name, a bar from one share of the width to another, and the number.
function bar(name, share, from, to) {
  const inner = element("i");
  inner.style.setProperty("--from", `${100 * from}%`);
  inner.style.setProperty("--long", `${100 * (to - from)}%`);
  const track = element("span", { class: "bar", "aria-hidden": "true" }, inner);
  return element("li", {}, element("span", {}, name), track, element("span", {}, percent(share)));
}

function stop() {
  clearInterval(clock);
  clock = null;
  at("play").textContent = "Play";
}

function play() {
  if (clock) return stop();
  const i = pinned[0];
  const start = pinned[1] === length(i) - 1 ? 0 : pinned[1]; // from the pinned word, or from the start
  pin([i, start]);
  at("play").textContent = "Stop";
  clock = setInterval(() => {
    if (pinned[1] === length(i) - 1) return stop();
    pin([i, pinned[1] + 1]);
  }, 400);
}

// ---- texts that are typed: the worker reads them, with the trunk ----

const boxes = [at("box-0"), at("box-1")];
const own = [sentences.length, sentences.length + 1]; // where the readings of typed texts are
const ownChoice = choices.length;
const asked = [null, null]; // for each box, the text that the worker reads, or read last
const readings = [null, null]; // and what it made of it
let typed = false; // whether the boxes have a text of one's own
let worker = null;
let busy = true; // until the trunk is open; then while the worker has a question

function openTrunk() {
  const code = new Blob([at("worker").textContent], { type: "text/javascript" });
  worker = new Worker(URL.createObjectURL(code));
  worker.onmessage = ({ data }) => { busy = false; take(data); ask(); };
  worker.onerror = () => { at("state").textContent = "This browser cannot run the model."; };
  worker.postMessage(at("trunk").textContent);
  at("trunk").remove(); // it is large
}

// Ask the worker one question at a time, about what the boxes have now: whatever was typed and
// changed again in the meantime is never asked.
function ask() {
  if (!worker || busy) return;
  const [i, t] = now.word;
  const changed = boxes.findIndex((box, k) => box.value !== asked[k] && !(k === 1 && box.value === ""));
  const shown = choices[now.choice].indexOf(i);
  if (changed >= 0) {
    asked[changed] = boxes[changed].value;
    worker.postMessage({ box: changed, text: asked[changed] });
  } else if (asked[shown] === boxes[shown].value && !sentences[i].next?.[t]) {
    worker.postMessage({ box: shown, text: asked[shown], after: t });
  } else return;
  busy = true;
}

function take({ ready, box, text, reading, after, next }) {
  if (ready) at("state").textContent = "";
  if (ready || text !== boxes[box].value) return; // an answer that comes too late is dropped
  if (reading) {
    readings[box] = { text, label: null, kind: "", ...reading };
    if (typed) showOwn(box);
  } else {
    const shown = sentences[choices[now.choice][box]];
    (shown.next ??= [])[after] = next;
    tell(sentences[now.word[0]], now.word[1]);
  }
}

function showOwn(box) {
  const two = boxes[1].value !== "";
  if (!readings[0] || (two && !readings[1])) return; // the other comes
  readings.forEach((reading, k) => { sentences[own[k]] = reading; });
  if (!choices[ownChoice]) at("sentence").append(element("option", { value: ownChoice }, "your own"));
  choices[ownChoice] = two ? own : own.slice(0, 1);
  showStrips(ownChoice, two ? box : 0);
}

boxes.forEach((box, k) => box.addEventListener("input", () => {
  stop();
  typed = true;
  if (k === 1 && box.value === "") showOwn(0);
  ask();
}));

// ---- the start ----

if (sentences.length) {
  const groups = {};
  choices.forEach((texts, choice) => {
    const { kind, text } = sentences[texts[0]];
    const start = [...text].slice(0, 70).join("");
    const option = element("option", { value: choice }, visible(start), start === text ? "" : "…");
    if (choice > 0 && kind) { // the first stands by itself
      if (!groups[kind]) at("sentence").append(groups[kind] = element("optgroup", { label: kind }));
      groups[kind].append(option);
    } else at("sentence").append(option);
  });
  at("negative").textContent = labels[0];
  at("positive").textContent = labels[1];
  at("layers-title").textContent = `Probability of “${labels[1]}”, by layer`;
  at("sentence").addEventListener("change", () => { stop(); showChoice(Number(at("sentence").value)); });
  at("previous").addEventListener("click", () => { stop(); showChoice(now.choice - 1); });
  at("next").addEventListener("click", () => { stop(); showChoice(now.choice + 1); });
  at("play").addEventListener("click", play);
  at("layer").addEventListener("input", () => showLayer(Number(at("layer").value)));
  at("block").addEventListener("input", () => showBlock(Number(at("block").value)));
  now.layer = sentences[0].positive.length - 1;
  now.block = sentences[0].attention.length - 1;
  showChoice(0);
  showLayer(now.layer);
  showBlock(now.block);
  if (at("trunk")) openTrunk();
}

// Where a figure or table is wider than the window, show its right end: the last token.
for (const wide of document.querySelectorAll("#where figure, #where .scroll, #patching figure")) {
  wide.scrollLeft = wide.scrollWidth;
}
