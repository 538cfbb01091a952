// The decisions of `metaverify decide`, from the policy file's own node table; docs/policy-format.md is what it reads.
//
// policy: the file, parsed, as `readPolicy` does it.  readings: tier -> confidence, null where it is missing,
// [yes, asked] for votes, or {reading: any of these}; {} has answered and is unread.  Everything here is a pure function
// of its arguments.  It needs nothing else, in a page or as a module: const { decide } = require("./decide.js").

const has = (object, name) => Object.hasOwn(object, name);
const isMapping = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
const UNREAD = Symbol("unread");

class Unread {
  constructor(reading) {
    this.reading = reading;
  }
}

function bisectRight(cuts, value) {
  let place = 0;
  while (place < cuts.length && cuts[place] <= value) place += 1;
  return place;
}

// ---------------------------------------------------------------------------------------------------- the dial

/** The policy with its dial at a mean cost per query; throws a RangeError below the cheapest vertex. */
function atBudget(policy, budget) {
  const costs = policy.vertices.map((vertex) => vertex.cost);
  if (!(budget >= costs[0] * (1 - 1e-9))) throw new RangeError(`budget ${budget} is below ${costs[0]}`);
  const high = bisectRight(costs, budget);
  const end = Math.min(high, costs.length - 1);
  const between = high > 0 && high < costs.length;
  const [low, share] = between ? [high - 1, (budget - costs[high - 1]) / (costs[high] - costs[high - 1])] : [end, 0];
  const cost = (1 - share) * costs[low] + share * costs[end];
  const certificate = covers(policy.certificate, cost) ? policy.certificate : null;
  return { ...policy, operating_point: { low, high: end, share, budget, price: null }, certificate };
}

/** The policy with its dial at a price, in quality per unit of cost: the cheapest of the vertices that are best at it. */
function atPrice(policy, price) {
  if (!(price >= 0 && price < Infinity)) throw new RangeError(`price ${price} is not a finite number of at least 0`);
  const worth = policy.vertices.map((vertex) => vertex.quality - price * vertex.cost);
  const best = worth.reduce((found, value, at) => (value > worth[found] ? at : found), 0);
  const certificate = covers(policy.certificate, policy.vertices[best].cost) ? policy.certificate : null;
  return { ...policy, operating_point: { low: best, high: best, share: 0, budget: null, price }, certificate };
}

/** Whether a certificate holds at an operating point of this cost: a promise of cost below its own, of quality above. */
function covers(certificate, cost) {
  if (!certificate) return false;
  const own = certificate.cost;
  return certificate.promise === "expected quality" ? cost >= own * (1 - 1e-9) : cost <= own * (1 + 1e-9);
}

/** The policy that decides while these tiers are down: every vertex begins where the smallest of its outages does that
    has them all.  Beliefs and evidence are of other graphs, and nothing is promised; they are left out. */
function without(policy, ...names) {
  if (names.length === 0) return policy;
  const vertices = policy.vertices.map(({ evidence, ...vertex }) => {
    const outages = (vertex.outages ?? []).filter((outage) => names.every((name) => outage.without.includes(name)));
    if (outages.length === 0) throw new Error(`the policy was not solved for an outage of ${names.join(" and ")}`);
    const least = outages.reduce((found, each) => (each.without.length < found.without.length ? each : found));
    return { ...vertex, root: least.root, context_roots: least.context_roots, beliefs: {}, outages };
  });
  return { ...policy, vertices, evidence: {}, certificate: null };
}

/** The vertex that a request follows: a hash of its key draws one of the two in use. */
function armOf(policy, key) {
  const { low, high, share } = policy.operating_point;
  if (low === high || share <= 0 || share >= 1) return share === 1 ? high : low;
  if (key === null || key === undefined) throw new Error("this policy mixes two decision graphs: a key is needed");
  return drawOf(policy.salt, key) < BigInt(Math.ceil(share * 2 ** 56)) ? high : low;
}

/** What a key draws, from 0 to below 2 ** 56: a hash of its bytes, or of its text. */
function drawOf(salt, key) {
  if (/\p{Surrogate}/u.test(String(key))) throw new TypeError("the key is no text: it has half a surrogate pair");
  const bytes = key instanceof Uint8Array ? key : new TextEncoder().encode(String(key));
  const digest = blake2b(bytes, new TextEncoder().encode(salt), 7);
  return digest.reduce((number, byte) => (number << 8n) | BigInt(byte), 0n);
}

// ------------------------------------------------------------------------------------------------- the context

/** A context's label, given as itself or as the values of the policy's context columns by name. */
function contextLabel(policy, context) {
  if (typeof context === "string") return context;
  const cuts = policy.context_cuts ?? {};
  if (!isMapping(context)) throw new TypeError("the context is neither a label nor the values of its columns by name");
  const values = policy.context.map((name) => {
    if (!has(context, name)) throw new Error(`the context has no ${name}`);
    return has(cuts, name) ? intervalLabel(name, cuts[name], context[name]) : String(context[name]);
  });
  if (values.length === 1) return values[0];
  return values.map((value) => value.replaceAll("\\", "\\\\").replaceAll("/", "\\/")).join("/");
}

function intervalLabel(name, cuts, value) {
  const number = ["number", "boolean"].includes(typeof value) || isNumeral(value) ? Number(value) : NaN;
  if (!Number.isFinite(number)) return `${name} missing`;
  const place = bisectRight(cuts, number);
  const ends = cuts.map(pythonNumber);
  if (place === 0) return `${name}<${ends[0]}`;
  return place === cuts.length ? `${name}>=${ends.at(-1)}` : `${ends[place - 1]}<=${name}<${ends[place]}`;
}

/** Whether a text reads as a number, as it would in a log. */
function isNumeral(value) {
  return typeof value === "string" && /^[ \t\n\v\f\r]*[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?[ \t\n\v\f\r]*$/i.test(value);
}

/** A number as Python writes it, without ".0". */
function pythonNumber(value) {
  const [mantissa, power] = value.toExponential().split("e");
  const exponent = Number(power);
  if (exponent < -4 || exponent >= 16) {
    return `${mantissa}e${exponent < 0 ? "-" : "+"}${String(Math.abs(exponent)).padStart(2, "0")}`;
  }
  const digits = mantissa.replace(/[-.]/g, "");
  const sign = value < 0 || Object.is(value, -0) ? "-" : "";
  if (exponent < 0) return `${sign}0.${"0".repeat(-exponent - 1)}${digits}`;
  const whole = digits.slice(0, exponent + 1).padEnd(exponent + 1, "0");
  return sign + whole + (digits.length > exponent + 1 ? `.${digits.slice(exponent + 1)}` : "");
}

// ------------------------------------------------------------------------------------------- what was read

function asConfidence(given, tier, reading) {
  if (given === null) return NaN;
  if (typeof given !== "number") {
    throw new TypeError(`the reading ${reading} of ${tier} is not a number or null`);
  }
  return given;
}

/** Votes as [yes, asked]; null where they are missing. */
function asVotes(given, tier, reading) {
  if (given === null || Number.isNaN(given)) return null;
  const whole = (part) => ["number", "boolean"].includes(typeof part) && Number.isInteger(Number(part));
  if (Array.isArray(given) && given.length === 2 && given.every(whole)) {
    const [yes, asked] = given.map(Number);
    if (yes >= 0 && yes <= asked) return [yes, asked];
  }
  throw new TypeError(`the votes ${reading} of ${tier} are not [yes, asked], such as [2, 3], or null`);
}

function nearestTally(yes, asked, most) {
  return asked <= most ? [yes, asked] : [Math.floor((2 * yes * most + asked) / (2 * asked)), most];
}

function lookUp(given, reading, first) {
  if (isMapping(given)) return has(given, reading) ? given[reading] : UNREAD;
  return first ? given : UNREAD;
}

/** A reading in what was told of a tier, its score where it is fused; Unread where one must be read first. */
function readingInHand(tier, name, given) {
  const first = tier.readings[0].name;
  const value = lookUp(given, name, first === name);
  if (value !== UNREAD) return value;
  const parts = tier.readings.find((reading) => reading.name === name).parts ?? [];
  if (parts.length === 0) return new Unread(name);
  let score = 0;
  for (const part of parts) {
    const told = lookUp(given, part.of, first === part.of);
    if (told === UNREAD) return new Unread(part.of);
    const confidence = asConfidence(told, tier.name, part.of);
    const known = confidence >= 0 && confidence <= 1;
    score += known ? part.points[bisectRight(part.cuts, confidence)] : part.missing;
  }
  return Math.min(score, 1);
}

// ---------------------------------------------------------------------------------------------------- the walk

const belief = (row) => row && { share: row[0], quality: row[1], worth: row[2] };

/** Where a confidence falls at a read node: what is seen there, the place among the outcomes, and the next node. */
function lookAtConfidence(node, rows, given) {
  const confidence = asConfidence(given, node.of, node.read);
  const usable = confidence >= 0 && confidence <= 1;
  const cell = usable ? bisectRight(node.cuts, confidence) : node.then.length;
  const look = {
    tier: node.of,
    reading: node.read,
    confidence: usable ? confidence : null,
    low: usable && cell > 0 ? node.cuts[cell - 1] : null,
    high: usable && cell < node.cuts.length ? node.cuts[cell] : null,
    belief: belief(rows?.[cell]) ?? null,
    votes: null,
  };
  return { look, cell, next: usable ? node.then[cell] : node.missing };
}

/** The same for votes; `next` is null where one more is to be asked for. */
function lookAtVotes(node, rows, given, votes) {
  const polls = has(node, "poll");
  const name = polls ? node.poll : node.read;
  const told = asVotes(given, node.of, name);
  const look = { tier: node.of, reading: name, confidence: null, low: null, high: null, belief: null, votes: told };
  if (told === null) {
    const cell = polls ? node.tallies.reduce((sum, tally) => sum + tally.then.length, 0) : node.then.length;
    return { look: { ...look, belief: belief(rows?.[cell]) ?? null }, cell, next: node.missing };
  }
  if (told[1] === 0) return { look: null, cell: null, next: null };
  look.confidence = told[0] / told[1];
  const [yes, asked] = nearestTally(...told, polls ? node.tallies.length : votes);
  if (!polls) {
    if (asked < votes) return { look, cell: null, next: null };
    const cell = bisectRight(node.cuts, yes / votes);
    return { look: { ...look, belief: belief(rows?.[cell]) ?? null }, cell, next: node.then[cell] };
  }
  const tally = node.tallies[asked - 1];
  const here = bisectRight(tally.cuts, yes);
  const cell = here + node.tallies.slice(0, asked - 1).reduce((sum, before) => sum + before.then.length, 0);
  return { look: { ...look, belief: belief(rows?.[cell]) ?? null }, cell, next: tally.then[here] };
}

/** The next action from a node, what was seen on the way, and the branches taken: [node, outcome]. */
function walk(policy, root, beliefs, readings) {
  const looks = [];
  const branches = [];
  let at = root;
  for (;;) {
    const node = policy.nodes[at];
    if (has(node, "accept")) return { action: { action: "accept", tier: node.accept }, looks, branches };
    if (has(node, "abstain")) return { action: { action: "abstain" }, looks, branches };
    if (has(node, "call")) {
      if (!has(readings, node.call)) return { action: { action: "call", tier: node.call }, looks, branches };
      at = node.then;
      continue;
    }
    const name = node.read ?? node.poll;
    const verify = (reading) => ({ action: { action: "verify", tier: node.of, reading }, looks, branches });
    const tier = policy.tiers.find((each) => each.name === node.of);
    const given = readingInHand(tier, name, has(readings, node.of) ? readings[node.of] : {});
    if (given instanceof Unread) return verify(given.reading);
    const votes = tier.readings.find((reading) => reading.name === name).votes;
    const rows = has(beliefs, at) ? beliefs[at] : undefined;
    const { look, cell, next } = votes ? lookAtVotes(node, rows, given, votes) : lookAtConfidence(node, rows, given);
    if (look !== null) looks.push(look);
    if (cell !== null) branches.push([at, cell]);
    if (next === null) return verify(name);
    at = next;
  }
}

/** The decision, and how the policy came to it, as `metaverify decide --explain --json` has it. */
function explain(policy, readings, { context = null, key = null } = {}) {
  const names = policy.tiers.map((tier) => tier.name);
  for (const name of Object.keys(readings)) {
    if (!names.includes(name)) throw new Error(`${name} is not one of the tiers ${names.join(", ")}`);
  }
  const vertex = armOf(policy, key);
  const corner = policy.vertices[vertex];
  const label = context === null ? null : contextLabel(policy, context);
  const known = label === null ? null : has(corner.context_roots, label);
  const root = known ? corner.context_roots[label] : corner.root;
  const { action, looks, branches } = walk(policy, root, corner.beliefs, readings);
  const { low, high, share } = policy.operating_point;
  const last = looks.at(-1)?.belief ?? null;
  const worth = last === null ? [] : worthOfActions(policy, readings, last);
  return {
    action,
    vertex,
    share: low === high ? 1 : vertex === high ? share : 1 - share,
    price: corner.price,
    looks,
    branches,
    quality: last === null ? [] : names.map((name, at) => [name, last.quality[at]]).filter(([, v]) => v !== null),
    worth,
    context: label,
    context_known: known,
    rival: rivalOf(worth, openAction(policy, readings, action)),
    certificate: policy.certificate ? { dearest: null, dearest_from: "", next: 0, ...policy.certificate } : null,
  };
}

/** The action that is worth most, where it is not the one taken. */
function rivalOf(worth, taken) {
  const own = worth.find(([name]) => name === taken);
  if (own === undefined) return null;
  const best = worth.reduce((most, each) => (each[1] > most[1] ? each : most));
  return best[1] > own[1] ? best[0] : null;
}

/** An action, as its worth is named. */
function openAction(policy, readings, { action, tier }) {
  if (action === "accept") return `accept ${tier}`;
  if (action === "abstain") return "abstain";
  return goingOn(
    policy.tiers.find(({ name }) => name === tier),
    readings,
  );
}

function goingOn(tier, readings) {
  const step = has(readings, tier.name) ? "read on at" : tier.answer === false ? "read" : "call";
  return `${step} ${tier.name}`;
}

function worthOfActions(policy, readings, last) {
  const worth = [];
  policy.tiers.forEach((tier, at) => {
    if (has(readings, tier.name) && last.quality[at] !== null) worth.push([`accept ${tier.name}`, last.quality[at]]);
  });
  if (policy.abstain !== null) worth.push(["abstain", policy.abstain]);
  policy.tiers.forEach((tier, at) => {
    if (last.worth[at] === null) return;
    worth.push([goingOn(tier, readings), last.worth[at]]);
  });
  return worth;
}

/** What to do next. */
function decide(policy, readings, known) {
  return explain(policy, readings, known).action;
}

// ---------------------------------------------------------------------------------------------------- the file

/** The policy in the text of its file; throws where it is of another format, has a key that is not known here, or its id
    is not that of its content. */
async function readPolicy(text) {
  const policy = JSON.parse(text);
  if (policy?.format !== "metaverify-policy") throw new Error("it is not a policy file");
  if (policy.version !== 1) throw new Error(`it is of version ${policy.version}; this reads version 1`);
  if (policy.id !== (await policyId(text))) throw new Error("its id is not that of its content: damaged or edited");
  checkKeys(policy, KEYS);
  return policy;
}

const OUTAGE = { without: true, root: true, context_roots: true };
const PART = { of: true, cuts: true, points: true, missing: true };
const READING = { name: true, price: true, cuts: true, counts: true, parts: PART, votes: true, sample: true };
const LOOK = { read: true, poll: true, of: true, cuts: true, tallies: { cuts: true, then: true }, missing: true };
const VERTEX = { price: true, cost: true, quality: true, root: true, context_roots: true, beliefs: true };
/** What an object may have: true stands for what is not looked into, an object for what this one may have, or each of a
    list. */
const KEYS = {
  ...{ format: true, version: true, id: true, serial: true, expires: true, salt: true },
  ...{ context: true, context_cuts: true, abstain: true, evidence: true, provenance: true, certificate: true },
  tiers: { name: true, price: true, readings: READING, answer: true, needs: true },
  nodes: { call: true, then: true, ...LOOK, accept: true, abstain: true },
  vertices: { ...VERTEX, evidence: true, outages: OUTAGE },
  operating_point: { low: true, high: true, share: true, budget: true, price: true },
};

function checkKeys(value, known) {
  if (known === true) return;
  if (Array.isArray(value)) return value.forEach((each) => checkKeys(each, known));
  for (const [key, inner] of Object.entries(value)) {
    if (!has(known, key)) throw new Error(`${key} is not a known key: a newer reader is needed`);
    checkKeys(inner, known[key]);
  }
}

/** The id that the content of a file has. */
async function policyId(text) {
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(canonicalBody(text)));
  return "sha256:" + Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** The canonical text of a document without its id.  Numbers are kept as text, since 1.0 is not 1 there. */
function canonicalBody(text) {
  const token = /"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*/g;
  const number = (digits) => (/[.eE]/.test(digits) ? pythonFloat(Number(digits)) : String(BigInt(digits)));
  const marked = text.replace(token, (found) => (found[0] === '"' ? `"t${found.slice(1)}` : `"n${number(found)}"`));
  const { tid, ...body } = JSON.parse(marked);
  return canonical(body);
}

/** Canonical JSON of values whose texts begin with "t", and whose numbers are texts that begin with "n". */
function canonical(value) {
  if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`;
  if (isMapping(value)) {
    const pairs = Object.entries(value).sort(([a], [b]) => byCodePoint(a, b));
    return `{${pairs.map(([key, inner]) => `${quoted(key.slice(1))}:${canonical(inner)}`).join(",")}}`;
  }
  if (typeof value !== "string") return String(value);
  return value[0] === "n" ? value.slice(1) : quoted(value.slice(1));
}

const quoted = (text) => JSON.stringify(text);

function byCodePoint(one, other) {
  const [a, b] = [one, other].map((text) => Array.from(text, (letter) => letter.codePointAt(0)));
  const at = a.findIndex((point, place) => point !== b[place]);
  return at < 0 ? a.length - b.length : a[at] - (b[at] ?? -1);
}

/** A number as Python writes it. */
function pythonFloat(value) {
  const text = pythonNumber(value);
  return /[.e]/.test(text) ? text : `${text}.0`;
}

// --------------------------------------------------------------------------------------- BLAKE2b (RFC 7693)

const BLAKE_START = [
  0x6a09e667f3bcc908n,
  0xbb67ae8584caa73bn,
  0x3c6ef372fe94f82bn,
  0xa54ff53a5f1d36f1n,
  0x510e527fade682d1n,
  0x9b05688c2b3e6c1fn,
  0x1f83d9abfb41bd6bn,
  0x5be0cd19137e2179n,
];
const BLAKE_ORDER = [
  [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
  [14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3],
  [11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4],
  [7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8],
  [9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13],
  [2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9],
  [12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11],
  [13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10],
  [6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5],
  [10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0],
];
const BLAKE_MIX = [
  [0, 4, 8, 12],
  [1, 5, 9, 13],
  [2, 6, 10, 14],
  [3, 7, 11, 15],
  [0, 5, 10, 15],
  [1, 6, 11, 12],
  [2, 7, 8, 13],
  [3, 4, 9, 14],
];

/** The keyed hash of some bytes, `size` bytes of it. */
function blake2b(message, key, size) {
  const word = (value) => BigInt.asUintN(64, value);
  const turn = (value, by) => word((value >> by) | (value << (64n - by)));
  const data = new Uint8Array((key.length ? 128 : 0) + message.length);
  data.set(key);
  data.set(message, key.length ? 128 : 0);
  const state = [...BLAKE_START];
  state[0] ^= BigInt(0x01010000 ^ (key.length << 8) ^ size);
  const blocks = Math.max(Math.ceil(data.length / 128), 1);
  for (let block = 0; block < blocks; block += 1) {
    const bytes = new Uint8Array(128);
    bytes.set(data.subarray(block * 128, block * 128 + 128));
    const view = new DataView(bytes.buffer);
    const words = Array.from({ length: 16 }, (_, at) => view.getBigUint64(8 * at, true));
    const v = [...state, ...BLAKE_START];
    v[12] ^= BigInt(Math.min((block + 1) * 128, data.length));
    if (block === blocks - 1) v[14] = word(~v[14]);
    for (let round = 0; round < 12; round += 1) {
      const order = BLAKE_ORDER[round % 10];
      BLAKE_MIX.forEach(([a, b, c, d], at) => {
        v[a] = word(v[a] + v[b] + words[order[2 * at]]);
        v[d] = turn(v[d] ^ v[a], 32n);
        v[c] = word(v[c] + v[d]);
        v[b] = turn(v[b] ^ v[c], 24n);
        v[a] = word(v[a] + v[b] + words[order[2 * at + 1]]);
        v[d] = turn(v[d] ^ v[a], 16n);
        v[c] = word(v[c] + v[d]);
        v[b] = turn(v[b] ^ v[c], 63n);
      });
    }
    state.forEach((value, at) => (state[at] = value ^ v[at] ^ v[at + 8]));
  }
  const out = new DataView(new ArrayBuffer(64));
  state.forEach((value, at) => out.setBigUint64(8 * at, value, true));
  return new Uint8Array(out.buffer, 0, size);
}

if (typeof module === "object") {
  module.exports = { atBudget, atPrice, canonicalBody, decide, drawOf, explain, policyId, readPolicy, without };
}
