// Hold JavaScript readers against the conformance vectors: node run.cjs FOLDER READER… prints what each gets wrong,
// as far as twenty faults.

const fs = require("node:fs");
const path = require("node:path");

const [, , folder, ...readers] = process.argv;
const read = (name) => JSON.parse(fs.readFileSync(path.join(folder, name), "utf8"));
const NUMBERS = { NaN, Infinity, "-Infinity": -Infinity };
const ALL_READERS = ["E_SYNTAX", "E_SCHEMA", "E_VERSION", "E_CHECKSUM"];

function untagged(value) {
  if (Array.isArray(value) || typeof value !== "object" || value === null) return value;
  const entries = Object.entries(value);
  if (entries.length === 1 && entries[0][0] === "float") return NUMBERS[entries[0][1]];
  return Object.fromEntries(entries.map(([key, inner]) => [key, untagged(inner)]));
}

function outcome(reader, filed, told) {
  try {
    let policy = filed;
    if ("budget" in told) policy = reader.atBudget(policy, told.budget);
    if ("price" in told) policy = reader.atPrice(policy, told.price);
    policy = reader.without(policy, ...(told.without ?? []));
    return reader.decide(policy, told.readings, { context: told.context ?? null, key: told.key ?? null });
  } catch (error) {
    return "refused";
  }
}

async function failures(reader) {
  const wrong = [];
  let count = 0;
  const check = (about, found, wanted) => {
    count += 1;
    const [a, b] = [found, wanted].map((value) => JSON.stringify(value));
    if (a !== b) wrong.push(`${about}: ${a}, not ${b}`);
  };
  for (const name of fs.readdirSync(folder).filter((each) => /^decide-.*\.json$/.test(each))) {
    const { policy, cases } = read(name);
    const filed = await reader.readPolicy(policy).catch(() => null);
    for (const { action, refused, ...given } of cases) {
      if (wrong.length > 20) return { count, wrong };
      check(`${name} ${JSON.stringify(given)}`, outcome(reader, filed, untagged(given)), refused ? "refused" : action);
    }
  }
  for (const { salt, key, draw } of read("draws.json").draws) {
    check(`draw of ${key} with ${salt}`, reader.drawOf(salt, key).toString(16).padStart(14, "0"), draw);
  }
  for (const { about, file, id, canonical, refused } of read("documents.json").documents) {
    const policy = await reader.readPolicy(file).catch(() => "refused");
    if (ALL_READERS.includes(refused)) check(about, policy, "refused");
    if (refused) continue;
    check(about, policy.id ?? policy, id);
    check(about, reader.canonicalBody(file), canonical);
  }
  return { count, wrong };
}

Promise.all(readers.map((name) => failures(require(path.resolve(name))))).then((found) =>
  console.log(JSON.stringify(found)),
);
