"use strict";
// A GPT-2 that reads in the browser: tokenizer.py, weights.py and model.py once more, in plain
// JavaScript, for one text at a time. Same names, same order; docstrings are there.
//
// A parameter is a Float32Array, as in the file: linear weights are (in, out). The hidden states of
// a text are an array of T Float32Arrays of C. T tokens, C channels, H heads, D = C / H channels
// of a head, V vocabulary.

// ---- tokenizer.py: text -> token ids ----

const WORDS = // as Python's, whose \s is White_Space: that of JavaScript is not quite
  /'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\p{White_Space}\p{L}\p{N}]+|\p{White_Space}+(?!\P{White_Space})|\p{White_Space}/gu;

function characterOfByte() {
  const printable = (b) => (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
  let next = 256;
  return Array.from({ length: 256 }, (_, b) => String.fromCharCode(printable(b) ? b : next++));
}

class Tokenizer {
  constructor(vocab) { // {token: id}; the ids of merged tokens rise in the order of the merges
    this.vocab = new Map(Object.entries(vocab));
    this.characters = characterOfByte();
    this.tokens = [];
    for (const [token, id] of this.vocab) this.tokens[id] = token;
  }

  encode(text) { // -> ids
    const ids = [];
    for (const [word] of text.matchAll(WORDS)) {
      const bytes = new TextEncoder().encode(word);
      const parts = Array.from(bytes, (byte) => this.characters[byte]);
      for (;;) { // merge the pair of neighbours that was learned first, until no pair is left
        let [first, at] = [Infinity, -1];
        for (let i = 0; i + 1 < parts.length; i++) {
          const id = this.vocab.get(parts[i] + parts[i + 1]) ?? Infinity;
          if (id < first) [first, at] = [id, i];
        }
        if (at < 0) break;
        parts.splice(at, 2, parts[at] + parts[at + 1]);
      }
      for (const part of parts) ids.push(this.vocab.get(part));
    }
    return ids;
  }

  // -> the tokens as texts, which together are the whole text: a character whose bytes are in
  // several tokens is part of the last of them
  spell(ids) {
    const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
    return ids.map((id, i) => {
      const bytes = Array.from(this.tokens[id], (c) => this.characters.indexOf(c));
      return decoder.decode(new Uint8Array(bytes), { stream: i + 1 < ids.length });
    });
  }
}

// ---- weights.py: a .safetensors file of float16 -> parameters ----

function float16(bits) {
  const [sign, exponent, fraction] = [bits >> 15 ? -1 : 1, (bits >> 10) & 31, bits & 1023];
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (exponent ? (1 + fraction / 1024) * 2 ** (exponent - 15) : fraction * 2 ** -24);
}

function openTensors(buffer) { // ArrayBuffer -> {name: Float32Array}
  const view = new DataView(buffer);
  const start = 8 + Number(view.getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, start - 8)));
  const value = Float32Array.from({ length: 65536 }, (_, bits) => float16(bits));
  const tensors = {};
  for (const [name, about] of Object.entries(header)) {
    if (name === "__metadata__") continue;
    if (about.dtype !== "F16") throw new Error(`${name} is ${about.dtype}, not F16`);
    const [from, to] = about.data_offsets;
    const bits = new Uint16Array(buffer.slice(start + from, start + to));
    const tensor = new Float32Array(bits.length);
    for (let i = 0; i < bits.length; i++) tensor[i] = value[bits[i]];
    tensors[name] = tensor;
  }
  return tensors;
}

// ---- model.py: token ids -> hidden states ----

// T of (in) -> T of (out). Four rows of the matrix and two tokens at a time, so that a number that
// was fetched from memory is used more than once.
function linear(xs, weight, bias) {
  const [inputs, outputs] = [weight.length / bias.length, bias.length];
  const ys = xs.map(() => Float32Array.from(bias));
  const zeros = new Float32Array(Math.max(inputs, outputs)); // where there is no fourth row, or second token
  const row = (i) => i < inputs ? weight.subarray(i * outputs, (i + 1) * outputs) : zeros;
  for (let i = 0; i < inputs; i += 4) {
    const rows = [row(i), row(i + 1), row(i + 2), row(i + 3)];
    for (let t = 0; t < xs.length; t += 2) {
      addProducts(rows, i, xs[t], xs[t + 1] ?? zeros, ys[t], ys[t + 1] ?? zeros.slice());
    }
  }
  return ys;
}

function addProducts([r, s, t, u], i, x, x2, y, y2) {
  const [a, b, c, d] = [x[i], x[i + 1] ?? 0, x[i + 2] ?? 0, x[i + 3] ?? 0];
  const [a2, b2, c2, d2] = [x2[i], x2[i + 1] ?? 0, x2[i + 2] ?? 0, x2[i + 3] ?? 0];
  for (let o = 0; o < y.length; o++) {
    y[o] += a * r[o] + b * s[o] + c * t[o] + d * u[o];
    y2[o] += a2 * r[o] + b2 * s[o] + c2 * t[o] + d2 * u[o];
  }
}

function layerNorm(xs, weight, bias, epsilon) {
  return xs.map((x) => {
    const mean = x.reduce((sum, value) => sum + value, 0) / x.length;
    const variance = x.reduce((sum, value) => sum + (value - mean) ** 2, 0) / x.length;
    const scale = 1 / Math.sqrt(variance + epsilon);
    return x.map((value, i) => (value - mean) * scale * weight[i] + bias[i]);
  });
}

function gelu(x) {
  return 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x * x * x)));
}

function softmax(scores) {
  const most = scores.reduce((a, b) => Math.max(a, b), -Infinity);
  const e = scores.map((score) => Math.exp(score - most));
  const sum = e.reduce((a, b) => a + b, 0);
  return e.map((value) => value / sum);
}

const add = (xs, ys) => xs.map((x, t) => x.map((value, i) => value + ys[t][i]));

// Causal attention of T tokens behind P in the past: each sees the past, those before it, itself.
// Returns the heads' outputs side by side, T of (C); the weights, T of (P + t + 1), the mean over
// heads; and how many heads rest on the first token: give it more than half of their weight.
function attention(qs, keys, values, heads) {
  const [C, P] = [qs[0].length, keys.length - qs.length];
  const D = C / heads;
  const looks = qs.map((_, t) => new Float32Array(P + t + 1));
  const resting = qs.map(() => 0);
  const ys = qs.map((q, t) => {
    const y = new Float32Array(C);
    for (let head = 0; head < C; head += D) {
      const scores = new Float32Array(P + t + 1);
      for (let s = 0; s <= P + t; s++) {
        let product = 0;
        for (let i = head; i < head + D; i++) product += q[i] * keys[s][i];
        scores[s] = product / Math.sqrt(D);
      }
      const weights = softmax(scores);
      if (weights[0] > 0.5) resting[t]++;
      weights.forEach((weight, s) => {
        looks[t][s] += weight / heads;
        for (let i = head; i < head + D; i++) y[i] += weight * values[s][i];
      });
    }
    return y;
  });
  return [ys, looks, resting];
}

class GPT2 {
  constructor(config, tensors) { // config.json, {name: Float32Array}
    this.config = config;
    this.tensors = tensors;
    this.forget();
  }

  // What was read last: ids, each layer's hidden states, and each block's keys, values, weights of
  // attention, and heads that rest.
  forget() {
    const layers = (n) => Array.from({ length: n }, () => []);
    const L = this.config.n_layer;
    const [keys, values, looks, resting] = [layers(L), layers(L), layers(L), layers(L)];
    this.past = { ids: [], hidden: layers(L + 1), keys, values, looks, resting };
  }

  embed(ids, start) { // -> T of (C)
    const { "wte.weight": wte, "wpe.weight": wpe } = this.tensors;
    const C = this.config.n_embd;
    return ids.map((id, t) =>
      Float32Array.from({ length: C }, (_, i) => wte[id * C + i] + wpe[(start + t) * C + i]));
  }

  block(xs, n) {
    const { n_head, n_embd: C, layer_norm_epsilon: epsilon } = this.config;
    const of = (name) => [this.tensors[`h.${n}.${name}.weight`], this.tensors[`h.${n}.${name}.bias`]];
    const { keys, values, looks, resting } = this.past;
    const qkv = linear(layerNorm(xs, ...of("ln_1"), epsilon), ...of("attn.c_attn"));
    keys[n].push(...qkv.map((row) => row.subarray(C, 2 * C)));
    values[n].push(...qkv.map((row) => row.subarray(2 * C)));
    const qs = qkv.map((row) => row.subarray(0, C));
    const [ys, weights, rest] = attention(qs, keys[n], values[n], n_head);
    looks[n].push(...weights);
    resting[n].push(...rest);
    xs = add(xs, linear(ys, ...of("attn.c_proj")));
    const wide = linear(layerNorm(xs, ...of("ln_2"), epsilon), ...of("mlp.c_fc"));
    return add(xs, linear(wide.map((row) => row.map(gelu)), ...of("mlp.c_proj")));
  }

  // Read ids; what the last text begins with is not computed again. Returns all that is kept of it:
  // hidden[layer][token] (layer 0: the embeddings; the last: after ln_f), and looks and resting,
  // [block][token].
  forward(ids) {
    const { past, config, tensors } = this;
    let same = 0;
    while (same < ids.length && ids[same] === past.ids[same]) same++;
    for (const lists of [past.hidden, past.keys, past.values, past.looks, past.resting]) {
      for (const list of lists) list.length = same;
    }
    past.ids = [...ids];
    if (same === ids.length) return past;
    let xs = this.embed(ids.slice(same), same);
    for (let n = 0; n < config.n_layer; n++) {
      past.hidden[n].push(...xs);
      xs = this.block(xs, n);
    }
    past.hidden[config.n_layer].push(
      ...layerNorm(xs, tensors["ln_f.weight"], tensors["ln_f.bias"], config.layer_norm_epsilon));
    return past;
  }

  nextTokenProbabilities(x) { // (C) -> (V)
    const { "wte.weight": wte } = this.tensors;
    return softmax(Float32Array.from({ length: wte.length / x.length }, (_, id) => {
      let score = 0;
      for (let i = 0, w = id * x.length; i < x.length; i++) score += x[i] * wte[w + i];
      return score;
    }));
  }
}
