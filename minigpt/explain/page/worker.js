// The worker, behind gpt2.js in one file: opens the trunk, then answers questions, in their order.
//
// The first message is the trunk as JSON: {config, vocab, weights (base64), probes (a matrix for
// each layer), head}. Then {box, text} asks for a reading, as word_by_word.py has it, and
// {box, text, after: t}, of the text read last, for the likeliest tokens after token t. An answer
// repeats its question. Each box has a GPT2 of its own, which remembers what it read last.

const NEXT = 5; // tokens that are named
const LONGEST = 256; // characters of a token at most, as in tokenizer.py
let trunk, tokenizer, boxes;

function open(json) {
  trunk = JSON.parse(json);
  const characters = atob(trunk.weights);
  const bytes = new Uint8Array(characters.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = characters.charCodeAt(i);
  const tensors = openTensors(bytes.buffer);
  tokenizer = new Tokenizer(trunk.vocab);
  boxes = [0, 1].map(() => new GPT2(trunk.config, tensors));
  read(boxes[0], "What is run before is compiled when it counts.");
}

function idsOf(text) { // -> ids, and whether the text was cut; as `tokenize` in data.py
  const room = trunk.config.n_positions;
  const ids = tokenizer.encode(text.slice(0, LONGEST * room));
  if (!ids.length) ids.push(trunk.vocab["<|endoftext|>"]);
  return [ids.slice(0, room), ids.length > room];
}

function probability([negative, positive], x) { // (2, C), (C) -> of the second class
  let score = 0;
  for (let i = 0; i < x.length; i++) score += (positive[i] - negative[i]) * x[i];
  return 1 / (1 + Math.exp(-score));
}

function read(box, text) {
  const [ids, truncated] = idsOf(text);
  const { hidden, looks, resting } = box.forward(ids);
  return {
    truncated,
    tokens: tokenizer.spell(ids),
    positive: hidden.map((xs, layer) => xs.map((x) => probability(trunk.probes[layer], x))),
    whole: probability(trunk.head, hidden.at(-1).at(-1)),
    attention: looks.map((rows) => rows.map((row) => Array.from(row))),
    resting,
  };
}

function likeliest(box, t) { // -> [[token, probability], ...]
  const shares = box.nextTokenProbabilities(box.past.hidden.at(-1)[t]);
  const ids = Array.from(shares.keys()).sort((a, b) => shares[b] - shares[a]).slice(0, NEXT);
  return ids.map((id) => [tokenizer.spell([id])[0], shares[id]]);
}

onmessage = ({ data }) => {
  if (typeof data === "string") {
    open(data);
    postMessage({ ready: true });
  } else if (data.after === undefined) {
    postMessage({ ...data, reading: read(boxes[data.box], data.text) });
  } else {
    postMessage({ ...data, next: likeliest(boxes[data.box], data.after) });
  }
};
