// The page: one dial, and everything that follows from it.

const filed = JSON.parse(byId("policy-data").textContent);
const comparison = JSON.parse(byId("comparison-data").textContent);
const state = { policy: filed, context: null, chosen: null, sort: { key: "gain", falling: true }, compared: null };

// ------------------------------------------------------------------------------------------------------ the dial

const ends = [filed.vertices[0].cost, filed.vertices.at(-1).cost];
const dialScale = scaleOf(Math.max(ends[0], ends[1] * 1e-9), ends[1], 0, 1000, costRange(filed.vertices.map((v) => v.cost)).log);

const mixed = (policy, of) => {
  const { low, high, share } = policy.operating_point;
  const [a, b] = [of(policy.vertices[low]), of(policy.vertices[high])];
  return a === null || b === null ? null : (1 - share) * a + share * b;
};

/** What the dial's mixture costs, earns and does, as cross-fitting found it. */
function standing(policy) {
  const of = (key) => mixed(policy, (vertex) => vertex[key]);
  const both = [policy.operating_point.low, policy.operating_point.high].every((at) => policy.vertices[at].evidence);
  const list = (key) => policy.vertices[policy.operating_point.low].evidence[key].map((_, at) => mixed(policy, (vertex) => vertex.evidence[key][at]));
  const evidence = both ? Object.fromEntries(["cost", "quality", "calls", "accepts"].map((key) => [key, list(key)])) : null;
  return { cost: of("cost"), quality: of("quality"), evidence };
}

/** The method of the comparison that the policy is one of: the same, described alike, or what a fit takes. */
function ownMethod() {
  const methods = comparison?.methods ?? [];
  const told = JSON.stringify(sorted({ method: filed.provenance.method, options: filed.provenance.options }));
  return methods.find((each) => each.describe && JSON.stringify(sorted(each.describe)) === told) ?? methods.find((each) => each.name === "default") ?? null;
}

function sorted(value) {
  if (!isMapping(value)) return value;
  return Object.keys(value).sort().map((key) => [key, sorted(value[key])]);
}

const ofThisLog = () => comparison !== null && comparison.log.fingerprint === filed.provenance.log;

/** The gain over the hull of fixed tiers at the dial: as the fit found it where filed, elsewhere over the hull of a
    comparison on the same log, its interval as wide as the comparison's around that budget. */
function gainAt(policy, at) {
  const same = JSON.stringify(policy.operating_point) === JSON.stringify(filed.operating_point);
  if (same && isNumber(filed.evidence.gain?.mean)) return { ...filed.evidence.gain, from: "the fit" };
  if (!ofThisLog()) return null;
  const mean = at.quality - along(comparison.hull.map((point) => [point.cost, point.quality]), at.cost);
  const known = (ownMethod()?.curve ?? []).filter((point) => ["mean", "low", "high"].every((key) => isNumber(point.gain[key])));
  const within = known.length > 0 && at.cost >= known[0].budget && at.cost <= known.at(-1).budget;
  const end = (key) => within ? mean + along(known.map((point) => [point.budget, point.gain[key] - point.gain.mean]), at.cost) : null;
  return { mean, low: end("low"), high: end("high"), from: "the comparison’s hull" };
}

function turnTo(budget) {
  const held = Math.min(Math.max(budget, ends[0]), ends[1]);
  if (!isNumber(held)) return;
  show(atBudget(filed, held));
}

function show(policy) {
  state.policy = policy;
  const at = standing(policy);
  const budget = policy.operating_point.budget ?? at.cost;
  if (document.activeElement !== byId("budget")) byId("budget").value = Number(at.cost.toPrecision(5));
  const slider = byId("slider");
  if (document.activeElement !== slider) slider.value = Math.round(dialScale(Math.max(at.cost, dialScale.ends[0])));
  slider.setAttribute("aria-valuetext", `budget ${amount(Math.min(budget, ends[1]))}, quality ${quality(at.quality)}`);
  const gain = gainAt(policy, at);
  byId("brief").textContent = `cost ${amount(at.cost)} · quality ${quality(at.quality)}${gain ? ` · gain ${points(gain.mean)}` : ""}`;
  frontierChart(byId("frontier"), policy, comparison, at, turnTo);
  drawReadout(policy, at, gain);
  drawShares(policy, at);
  drawGraphs(policy);
  drawDecision();
  drawCurves();
}

function drawReadout(policy, at, gain) {
  const item = (name, value, range, under) => el("div", {}, el("dt", {}, name), el("dd", {}, el("span", { class: "big" }, value), el("span", { class: "small muted" }, [range, under].filter(Boolean).join("; "))));
  const found = at.evidence;
  byId("readout").replaceChildren(
    item("Cost per query", amount(at.cost), found ? between(...found.cost, amount) : "", ""),
    item("Quality", quality(at.quality), found ? between(...found.quality, quality) : "", ""),
    item("Gain over fixed tiers", gain ? points(gain.mean) : dash, gain ? between(gain.low, gain.high, points) : "", gain ? `points, by ${gain.from}` : "known as filed, or with a comparison on the same log"),
  );
  byId("frontier-caption").textContent = [
    "Each dot is a decision graph of the file; between two of them requests are mixed. Click to set the dial.",
    policy.vertices.some((vertex) => vertex.evidence) ? " Band and bars: 90 % intervals on unseen queries (between dots, at most so wide)." : "",
    comparison ? " Squares: one tier for all; dashed: the best that mixing them by lot can do." : "",
  ].join("");
}

function drawShares(policy, at) {
  const abstained = at.evidence && policy.abstain !== null ? Math.max(1 - at.evidence.accepts.reduce((sum, share) => sum + (share ?? 0), 0), 0) : null;
  const bar = (share) => {
    const inner = el("span", {});
    inner.style.width = `${100 * (share ?? 0)}%`;
    return el("span", { class: "bar", "aria-hidden": "true" }, inner);
  };
  const rows = policy.tiers.map((tier, place) => [tier, place]).filter(([tier]) => tier.answer !== false).map(([tier, place]) => {
    const [called, accepted] = at.evidence ? [at.evidence.calls[place], at.evidence.accepts[place]] : [null, null];
    return el("tr", {}, el("th", { scope: "row" }, shown(tier.name)), el("td", {}, amount(tier.price)), el("td", {}, percent(called)), el("td", {}, percent(accepted)), at.evidence ? el("td", {}, bar(accepted)) : null);
  });
  if (abstained !== null) rows.push(el("tr", {}, el("th", { scope: "row" }, "handed over"), el("td", {}), el("td", {}), el("td", {}, percent(abstained)), el("td", {}, bar(abstained))));
  const head = ["tier", "price", "called", "accepted", ...(at.evidence ? [""] : [])].map((name) => name ? el("th", { scope: "col" }, name) : el("td", {}));
  byId("shares").replaceChildren(
    scrollable("Shares of queries", el("table", {}, el("caption", {}, "Share of queries at each tier"), el("thead", {}, el("tr", {}, head)), el("tbody", {}, rows))),
    at.evidence ? "" : el("p", { class: "small muted" }, "This file has no cross-fitted shares or intervals."),
  );
}

function scrollable(label, table) {
  const box = el("div", { class: "scroll" }, table);
  queueMicrotask(() => {
    if (box.scrollWidth > box.clientWidth) for (const [key, value] of [["tabindex", "0"], ["role", "region"], ["aria-label", label]]) box.setAttribute(key, value);
  });
  return box;
}

// ---------------------------------------------------------------------------------------------------- the graphs

function armsOf(policy) {
  const { low, high, share } = policy.operating_point;
  if (low === high || share === 0) return [[low, 1]];
  if (share === 1) return [[high, 1]];
  return [[high, share], [low, 1 - share]].sort((a, b) => b[1] - a[1]);
}

function drawGraphs(policy) {
  const width = Math.max(byId("graphs").clientWidth, 280);
  const arms = armsOf(policy);
  let chosen = null;
  const figures = arms.map(([at, share]) => {
    const vertex = policy.vertices[at];
    const root = state.context !== null && has(vertex.context_roots, state.context) ? vertex.context_roots[state.context] : vertex.root;
    const lines = linesOf(policy, vertex, root);
    const title = arms.length === 1 ? "Every request" : `${percent(share)} of requests, drawn by key`;
    const choose = (line) => {
      const again = document.activeElement?.getAttribute("aria-label");
      state.chosen = { vertex: at, trail: JSON.stringify(line.trail) };
      drawGraphs(state.policy);
      const same = [...byId("graphs").querySelectorAll('[aria-pressed="true"]')][0];
      if (again && same) same.focus();
    };
    const drawn = drawTree(policy, lines, width, title, choose);
    const buttons = drawn.querySelectorAll('[role="button"]');
    lines.filter((line) => line.branch !== null).forEach((line, place) => {
      if (state.chosen === null || state.chosen.vertex !== at || state.chosen.trail !== JSON.stringify(line.trail)) return;
      for (const button of buttons) button.setAttribute("tabindex", "-1");
      buttons[place].setAttribute("aria-pressed", "true");
      buttons[place].setAttribute("tabindex", "0");
      chosen = [at, line];
    });
    return el("div", { class: "tree" }, el("h3", { class: "tree-head" }, title, el("span", { class: "muted small" }, `pays ${amount(vertex.price)} of quality per unit of cost`)), drawn);
  });
  byId("graphs").replaceChildren(...figures);
  drawBelief(policy, chosen);
}

function drawBelief(policy, chosen) {
  const into = byId("belief");
  if (chosen === null) {
    into.replaceChildren(el("h3", {}, "What it believes"), el("p", { class: "muted" }, "Nothing is chosen yet."));
    return;
  }
  const [at, line] = chosen;
  const path = el("ol", {}, line.trail.map((step) => el("li", {}, `${shown(step.tier)}: ${step.label}`)));
  const cells = line.branch.cells;
  const parts = [el("h3", {}, "What it believes there"), path, el("p", {}, `Then: ${actText(line)}.`)];
  if (cells.every((cell) => cell.belief === null)) {
    parts.push(el("p", { class: "note" }, "The file keeps beliefs at the operating point only. ", el("button", { type: "button", class: "quiet", click: () => show(filed) }, "Turn the dial back")));
  } else {
    for (const cell of cells) parts.push(beliefTable(policy, cell));
    parts.push(el("p", { class: "small muted" }, `Going on: expected quality less ${amount(policy.vertices[at].price)} × the cost to come.`));
  }
  into.replaceChildren(...parts);
}

function beliefTable(policy, cell) {
  const known = policy.tiers.map((tier, place) => [tier, cell.belief.quality[place], cell.belief.worth[place]]);
  const rows = known.filter(([, right, worth]) => right !== null || worth !== null).map(([tier, right, worth]) => {
    return el("tr", {}, el("th", { scope: "row" }, shown(tier.name)), el("td", {}, decimal(right)), el("td", {}, decimal(worth)));
  });
  return scrollable(cell.label, el("table", {}, el("caption", {}, cell.label, " ", el("span", { class: "muted small" }, `${percent(cell.belief.share)} of queries`)), el("thead", {}, el("tr", {}, ["tier", "quality", "going on"].map((name) => el("th", { scope: "col" }, name)))), el("tbody", {}, rows)));
}

function setUpContexts() {
  const labels = Object.keys(filed.vertices[0].context_roots);
  if (labels.length === 0) return;
  byId("context-label").hidden = false;
  const select = byId("context");
  select.append(el("option", { value: "" }, "any other"), ...labels.map((label, at) => el("option", { value: String(at) }, shown(label))));
  select.addEventListener("change", () => {
    state.context = select.value === "" ? null : labels[Number(select.value)];
    drawGraphs(state.policy);
  });
  select.value = "0";
  state.context = labels[0];
}

// -------------------------------------------------------------------------------------------------- try by hand

const fields = { tiers: [], context: null, key: null };

function setUpTry() {
  const form = byId("try");
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", drawDecision);
  const field = (label, ...inside) => el("label", { class: "field" }, el("span", {}, label), ...inside);
  for (const tier of filed.tiers) {
    const own = { tier, answered: null, box: null, readings: [] };
    if (tier.answer !== false) {
      own.answered = el("input", { type: "checkbox" });
      own.box = el("label", { class: "field" }, el("span", {}, "answer"), el("span", { class: "check" }, own.answered, "in hand"));
    }
    for (const reading of tier.readings) {
      const name = shown(reading.name);
      const price = reading.price > 0 ? ` (costs ${amount(reading.price)})` : "";
      if (reading.votes) {
        const [yes, asked] = ["yes", "asked"].map((what) => el("input", { type: "text", inputmode: "numeric", placeholder: what, "aria-label": `${name} of ${shown(tier.name)}: ${what}` }));
        const box = el("div", { class: "field" }, el("span", {}, `${name}, of ${reading.votes} votes${price}`), el("span", { class: "votes" }, yes, "of", asked));
        own.readings.push({ reading, inputs: [yes, asked], box });
      } else {
        const input = el("input", { type: "text", inputmode: "decimal", placeholder: reading.parts ? "added up" : "not read", "aria-label": `${name} of ${shown(tier.name)}` });
        own.readings.push({ reading, inputs: [input], box: field(name + price, input) });
      }
    }
    fields.tiers.push(own);
    const what = tier.answer === false ? `signal${tier.needs?.length ? `, once ${tier.needs.map(shown).join(" and ")} answered` : ""}` : `price ${amount(tier.price)}`;
    const boxes = [own.box, ...own.readings.map((each) => each.box)].filter(Boolean);
    form.append(el("fieldset", {}, el("legend", {}, shown(tier.name), " ", el("span", { class: "muted small" }, what)), el("div", { class: "fields" }, boxes)));
  }
  fields.key = el("input", { type: "text", value: "request 1" });
  const request = [field("key", fields.key)];
  const labels = Object.keys(filed.vertices[0].context_roots);
  if (labels.length > 0 || filed.context.length > 0) {
    const select = el("select", {}, el("option", { value: "" }, "not told"), labels.map((label, at) => el("option", { value: String(at) }, shown(label))), filed.context.length > 0 ? el("option", { value: "columns" }, "by its columns") : null);
    const columns = filed.context.map((name) => {
      const numeric = has(filed.context_cuts ?? {}, name);
      const input = el("input", { type: "text", inputmode: numeric ? "decimal" : "text" });
      return { name, numeric, input, box: field(shown(name) + (numeric ? " (number)" : ""), input) };
    });
    fields.context = { select, columns, labels };
    select.addEventListener("change", () => columns.forEach((column) => (column.box.hidden = select.value !== "columns")));
    columns.forEach((column) => (column.box.hidden = true));
    request.push(field("context", select), ...columns.map((column) => column.box));
  }
  form.append(el("fieldset", {}, el("legend", {}, "Request"), el("div", { class: "fields" }, request)));
}

/** A confidence from what was typed: undefined where nothing was, null where it is missing. */
function typed(text) {
  const plain = text.trim().toLowerCase();
  if (plain === "") return undefined;
  if (["missing", "none", "null", "nan", "-"].includes(plain)) return null;
  const number = Number(plain.replace(",", "."));
  if (Number.isNaN(number)) throw new Error("a confidence is a number in [0, 1], or the word missing");
  return number;
}

function typedVotes([yes, asked]) {
  const told = [yes, asked].map((input) => typed(input.value));
  if (told.every((part) => part === undefined)) return undefined;
  if (told.includes(null)) return null;
  if (told.some((part) => !Number.isInteger(part)) || told[0] < 0 || told[0] > told[1]) throw new Error("votes are two whole numbers, such as 2 of 3, or the word missing");
  return told;
}

/** What the form says: readings, context and key; a field that cannot be read is marked, and told of. */
function told() {
  const readings = Object.create(null);
  const faults = [];
  for (const own of fields.tiers) {
    const known = Object.create(null);
    for (const { reading, inputs } of own.readings) {
      let value;
      for (const input of inputs) input.removeAttribute("aria-invalid");
      try {
        value = reading.votes ? typedVotes(inputs) : typed(inputs[0].value);
      } catch (error) {
        for (const input of inputs) input.setAttribute("aria-invalid", "true");
        faults.push(`${shown(reading.name)} of ${shown(own.tier.name)}: ${error.message}`);
      }
      if (value !== undefined) known[reading.name] = value;
    }
    if (own.answered?.checked || Object.keys(known).length > 0) readings[own.tier.name] = known;
  }
  let context = null;
  if (fields.context !== null && fields.context.select.value === "columns") {
    context = Object.create(null);
    for (const { name, numeric, input } of fields.context.columns) {
      const number = input.value.trim() === "" ? NaN : Number(input.value);
      context[name] = !numeric ? input.value : Number.isFinite(number) ? number : null;
    }
  } else if (fields.context !== null && fields.context.select.value !== "") {
    context = fields.context.labels[Number(fields.context.select.value)];
  }
  return { readings, context, key: fields.key.value, faults };
}

function actionText(action) {
  if (action.action === "call") return `Call ${shown(action.tier)}`;
  if (action.action === "verify") return `Read ${shown(action.reading)} of ${shown(action.tier)}`;
  return action.action === "accept" ? `Accept the answer of ${shown(action.tier)}` : "Hand over";
}

function drawDecision() {
  if (fields.key === null) return;
  const into = byId("decision");
  const { readings, context, key, faults } = told();
  for (const own of fields.tiers) for (const box of [own.box, ...own.readings.map((each) => each.box)]) box?.classList.remove("next");
  if (faults.length > 0) {
    into.replaceChildren(el("p", { class: "act bad" }, "That cannot be read"), el("ul", {}, faults.map((fault) => el("li", {}, fault))));
    return;
  }
  const found = explain(state.policy, readings, { context, key });
  const own = fields.tiers.find((each) => each.tier.name === found.action.tier);
  if (found.action.action === "call") own.box.classList.add("next");
  if (found.action.action === "verify") own.readings.find((each) => each.reading.name === found.action.reading).box.classList.add("next");
  const table = (caption, rows) => rows.length === 0 ? null : el("table", {}, el("caption", {}, caption), el("tbody", {}, rows.map(([name, value]) => el("tr", {}, el("th", { scope: "row" }, shown(name)), el("td", {}, decimal(value))))));
  const looks = found.looks.map((look) => {
    const what = `${shown(look.reading)} of ${shown(look.tier)}`;
    if (look.votes !== null) return `${what}: ${look.votes[0]} of ${look.votes[1]} yes`;
    return look.confidence === null ? `${what} is missing` : `${what} is ${cutText(look.confidence)}: ${intervalText(look.reading, look.low, look.high)}`;
  });
  const share = found.share === 1 ? "all requests" : `${percent(found.share)} of requests`;
  const graph = found.context === null ? "" : found.context_known ? `, in the context ${shown(found.context)}` : `; the context ${shown(found.context)} is not known, so the graph for all others`;
  const parts = [
    el("p", { class: "act" }, actionText(found.action)),
    looks.length > 0 ? el("ol", {}, looks.map((look) => el("li", {}, look))) : null,
    el("p", { class: "small muted" }, `By graph ${found.vertex}, which ${share} follow${found.share === 1 ? "" : ", this key among them"}${graph}.`),
    table("Expected quality of each answer", found.quality),
    table("Worth of each action", found.worth),
    looks.length > 0 && found.quality.length === 0 ? el("p", { class: "small muted" }, "The file holds no beliefs at this place.") : null,
  ];
  into.replaceChildren(...parts.filter(Boolean));
}

// ------------------------------------------------------------------------------------------------ the comparison

const columns = [
  { key: "name", name: "method", of: (m) => m.name, text: true },
  { key: "gain", name: "gain, points", of: (m) => m.gain?.mean, form: points, range: (m) => m.gain },
  { key: "area", name: "area", of: (m) => m.area?.mean, form: points, range: (m) => m.area },
  { key: "over", name: "over budget", of: (m) => m.adherence?.mean, form: ratio },
  { key: "optimism", name: "optimism", of: (m) => m.optimism, form: points },
  { key: "aiq", name: "AIQ", of: (m) => m.aiq?.mean, form: (v) => v.toFixed(4) },
  { key: "apgr", name: "APGR", of: (m) => m.apgr?.mean, form: (v) => v.toFixed(3) },
  { key: "ibc", name: "IBC lift", of: (m) => m.ibc_lift?.mean, form: ratio },
  { key: "seconds", name: "seconds", of: (m) => m.seconds, form: (v) => v.toFixed(1) },
];

function setUpComparison() {
  const into = byId("comparison");
  if (comparison === null) {
    into.replaceChildren(el("p", { class: "note" }, "No comparison was given. ", el("code", {}, "metaverify compare LOG -o comparison.json"), " makes one, and ", el("code", {}, "metaverify report POLICY --comparison comparison.json"), " puts it here: other ways of learning on the same folds, their gains with intervals, and the log’s health."));
    return;
  }
  const byGain = [...comparison.methods].sort((a, b) => (b.gain?.mean ?? -1) - (a.gain?.mean ?? -1));
  const own = ownMethod();
  state.compared = new Set([own, ...byGain].filter(Boolean).slice(0, 4).map((method) => method.name));
  into.replaceChildren(...[
    !ofThisLog() ? el("p", { class: "note" }, el("strong", {}, "Another log. "), "This comparison was made on another log than the policy was fitted on, or on other columns of it; its hull and gains are of that one.") : null,
    el("p", { class: "muted" }, `${count(comparison.log.rows)} queries, ${comparison.folds} folds${comparison.repeats > 1 ? ` × ${comparison.repeats}` : ""}. Gain is quality above the hull of fixed tiers at the same cost, in the mean over ${comparison.budgets.length} budgets; every query is routed by a policy that did not see it. Area is that under the gain curve, “over budget” what was spent beyond it, optimism what a method’s own expectation promised too much.`),
    (comparison.failed ?? []).length > 0 ? el("p", { class: "note" }, `Could not be tried: ${comparison.failed.map((each) => `${shown(each.name)} (${shown(each.error)})`).join("; ")}.`) : null,
    el("div", { id: "methods" }),
    el("div", { id: "curves" }),
    el("div", { id: "differences" }),
    comparison.calibration.length === 0 ? null : el("div", {}, el("h3", {}, "Are confidences what they say?"), el("p", { class: "muted" }, "Mean quality against confidence, of the tier’s own answers; a dot’s area is its share of queries. On the dashed line a reading says what it means."), el("div", { class: "multiples" }, comparison.calibration.map(reliability))),
  ].filter(Boolean));
  drawMethods();
}

function drawMethods() {
  const { key, falling } = state.sort;
  const by = columns.find((column) => column.key === key);
  const order = [...comparison.methods].sort((a, b) => {
    const [x, y] = [by.of(a), by.of(b)];
    if (x === y) return 0;
    if (x === null || x === undefined) return 1;
    if (y === null || y === undefined) return -1;
    const way = by.text ? x.localeCompare(y) : x - y;
    return falling ? -way : way;
  });
  const gains = comparison.methods.flatMap((method) => [method.gain?.low, method.gain?.high, method.gain?.mean, 0]);
  const range = rangeOf(gains, 0.03);
  const own = ownMethod();
  const used = columns.filter((column) => column.text || comparison.methods.some((method) => isNumber(column.of(method))));
  const head = used.map((column) => {
    const here = column.key === key;
    const sort = () => {
      state.sort = { key: column.key, falling: here ? !falling : !column.text };
      drawMethods();
      byId("methods").querySelector(`[data-sort="${column.key}"]`).focus();
    };
    return el("th", { scope: "col", class: column.text ? "text" : null, "aria-sort": here ? (falling ? "descending" : "ascending") : "none" }, el("button", { type: "button", "data-sort": column.key, click: sort }, column.name));
  });
  const rows = order.map((method) => {
    const box = el("input", { type: "checkbox", "aria-label": `draw ${shown(method.name)}` });
    box.checked = state.compared.has(method.name);
    box.addEventListener("change", () => {
      state.compared[box.checked ? "add" : "delete"](method.name);
      drawCurves();
      drawDifferences();
    });
    const cells = used.map((column) => {
      if (column.text) return el("th", { scope: "row", class: "text" }, shown(method.name), el("span", { class: "about" }, shown(method.label)));
      const value = column.of(method);
      const spread = column.range?.(method);
      return el("td", {}, isNumber(value) ? column.form(value) : dash, spread ? el("span", { class: "range" }, ` ${between(spread.low, spread.high, points)}`) : null);
    });
    cells.splice(1, 0, el("td", {}, whisker(method.gain, range)));
    return el("tr", { class: method === own ? "ours" : null, "data-method": method.name }, el("td", {}, box), cells);
  });
  head.splice(1, 0, el("td", {}));
  byId("methods").replaceChildren(scrollable("Methods side by side", el("table", {}, el("caption", {}, "Methods, ", el("span", { class: "muted" }, "ticked ones are drawn below")), el("thead", {}, el("tr", {}, el("td", {}), head)), el("tbody", {}, rows))));
  drawCurves();
  drawDifferences();
}

function drawCurves() {
  if (comparison === null || !byId("curves")) return;
  const drawn = comparison.methods.filter((method) => state.compared.has(method.name)).slice(0, 12);
  const line = (method, over, of) => method.curve.filter((point) => isNumber(of(point)?.mean)).map((point) => [over(point), of(point).mean, of(point).low, of(point).high]);
  const gains = drawn.map((method) => ({ name: shown(method.name), line: line(method, (p) => p.budget, (p) => p.gain) }));
  const curves = drawn.map((method) => ({ name: shown(method.name), line: line(method, (p) => p.cost.mean, (p) => p.quality) }));
  const [first, second] = [el("div", { class: "chart" }), el("div", { class: "chart" })];
  const caption = drawn.length <= 4 ? "Bands: 90 %." : "Bands are drawn for at most four.";
  byId("curves").replaceChildren(legend(gains), el("div", { class: "pair" },
    el("figure", {}, first, el("figcaption", {}, `Gain over the hull, in points. ${caption}`)),
    el("figure", {}, second, el("figcaption", {}, "Quality; dashed, the hull of fixed tiers."))));
  if (drawn.length === 0) return;
  const { range, log } = costRange([...comparison.budgets, ...curves.flatMap((each) => each.line.map(([cost]) => cost))]);
  const mark = standing(state.policy).cost;
  const whole = comparison.hull.map((point) => [point.cost, point.quality]);
  const inside = whole.filter(([cost]) => cost > range[0] && cost < range[1]);
  const hull = [[range[0], along(whole, range[0])], ...inside, [range[1], along(whole, range[1])]];
  const names = gains.map((each) => each.name).join(", ");
  curvesChart(first, gains, { label: `Gain against budget: ${names}`, yTitle: "gain, points", yForm: (v) => (100 * v).toFixed(1), xTitle: "budget", range, log, mark, floor: 0 });
  curvesChart(second, curves, { label: `Quality against cost: ${names}`, yTitle: "quality", yForm: (v) => v.toFixed(3), xTitle: "cost per query", range, log, mark, under: [hull] });
}

function drawDifferences() {
  const { names, mean, low, high, p, holm } = comparison.differences;
  const places = names.map((_, at) => at).filter((at) => state.compared.has(names[at]));
  if (places.length < 2) {
    byId("differences").replaceChildren();
    return;
  }
  const label = (at) => shown(names[at]);
  const rows = places.map((row) => el("tr", {}, el("th", { scope: "row" }, label(row)), places.map((column) => {
    if (row === column) return el("td", {}, "");
    const sure = isNumber(holm[row][column]) && holm[row][column] < 0.05;
    const told = `${between(low[row][column], high[row][column], points)}; p ${amount(p[row][column], 2)}, ${amount(holm[row][column], 2)} after Holm`;
    return el("td", { class: `${sure ? "sure" : ""} ${mean[row][column] > 0 ? "more" : "less"}`, title: told }, points(mean[row][column]), el("br"), el("span", { class: "range" }, between(low[row][column], high[row][column], points)));
  })));
  byId("differences").replaceChildren(scrollable("Differences in gain", el("table", { class: "matrix" }, el("caption", {}, "Differences in gain, row less column, ", el("span", { class: "muted" }, "points; bold where it stands at 5 % after Holm’s correction for all pairs of methods")), el("thead", {}, el("tr", {}, el("td", {}), places.map((at) => el("th", { scope: "col" }, label(at))))), el("tbody", {}, rows))));
}

// ----------------------------------------------------------------------------------------------- log and record

function tableOf(caption, head, rows, texts = 1) {
  const cells = (row) => row.map((cell, at) => at === 0 ? el("th", { scope: "row" }, cell) : el("td", { class: at < texts ? "text" : null }, cell));
  return scrollable(caption, el("table", { class: "narrow" }, el("caption", {}, caption), el("thead", {}, el("tr", {}, head.map((name, at) => name ? el("th", { scope: "col", class: at < texts ? "text" : null }, name) : el("td", {})))), el("tbody", {}, rows.map((row) => el("tr", {}, cells(row))))));
}

function drawLog() {
  const into = byId("log");
  const found = comparison?.inspection;
  if (!found) {
    const rows = filed.tiers.flatMap((tier) => tier.readings.map((reading) => {
      const total = reading.counts.reduce((sum, each) => sum + each, 0);
      return [shown(tier.name), shown(reading.name), reading.price > 0 ? amount(reading.price) : "free", percent(total > 0 ? reading.counts.at(-1) / total : null), count(reading.cuts.length + 1)];
    }));
    into.replaceChildren(
      tableOf("Tiers and signals, as fitted", ["name", "price", "readings"], filed.tiers.map((tier) => [shown(tier.name), tier.answer === false ? "signal" : amount(tier.price), tier.readings.map((r) => shown(r.name)).join(", ") || "none"])),
      rows.length > 0 ? tableOf("Readings, as fitted", ["of", "reading", "price", "missing", "bins"], rows, 2) : "",
    );
    return;
  }
  const hull = new Set(found.hull.map((point) => point.tier));
  const readings = [...found.tiers, ...(found.signals ?? [])].flatMap((tier) => tier.readings.map((reading) => [
    shown(tier.name), shown(reading.name), reading.price > 0 ? amount(reading.price) : "free", percent(reading.missing), count(reading.values),
    ...["auroc", "calibration_error", "bias"].map((key) => decimal(reading[key])),
  ]));
  const names = found.tiers.map((tier) => shown(tier.name));
  into.replaceChildren(...[
    el("p", { class: "muted" }, [`${count(found.rows)} queries`, found.groups ? `${count(found.groups)} groups` : "", found.contexts ? `${count(found.contexts.length)} contexts` : "", `best tier of each query, were it known: ${quality(found.oracle.quality)} at ${amount(found.oracle.cost)}`].filter(Boolean).join("; ")),
    found.warnings.length === 0 ? el("p", { class: "note" }, "Nothing about this log calls for a warning.") : el("div", {}, el("h3", {}, "Warnings"), el("ul", { class: "warnings" }, found.warnings.map((each) => el("li", {}, shown(each.text), (each.cases ?? []).length > 0 ? el("ul", {}, each.cases.map((one) => el("li", { class: "small" }, shown(one)))) : null)))),
    tableOf("Tiers", ["tier", "price", "95th percentile", "quality", "on the hull"], found.tiers.map((tier) => [shown(tier.name), amount(tier.price), amount(tier.price_p95), quality(tier.quality), hull.has(tier.name) ? "yes" : "no"])),
    readings.length > 0 ? tableOf("Readings: AUROC tells right from wrong, ECE is the calibration error, bias the overconfidence", ["of", "reading", "price", "missing", "values", "AUROC", "ECE", "bias"], readings, 2) : null,
    names.length > 1 ? tableOf("Correlation of errors, 1 where two tiers fail on the same queries", ["tier", ...names], found.error_correlation.map((row, at) => [names[at], ...row.map((cell, to) => (to > at ? "" : decimal(cell, 2)))])) : null,
    found.contexts ? tableOf("Contexts, and the tiers’ quality there", ["context", "rows", ...names], found.contexts.slice(0, 20).map((each) => [shown(each.name || "(empty)"), count(each.rows), ...each.qualities.map((value) => decimal(value))])) : null,
  ].filter(Boolean));
}

function record(value) {
  if (!isMapping(value)) {
    if (value === null) return dash;
    if (Array.isArray(value)) return value.map((each) => (isMapping(each) ? shown(JSON.stringify(each)) : shown(each))).join(", ") || dash;
    return typeof value === "string" ? el("span", { class: value.startsWith("sha256:") ? "mono" : null }, shown(value)) : String(value);
  }
  if (Object.keys(value).length === 3 && ["mean", "low", "high"].every((key) => isNumber(value[key]))) {
    return `${amount(value.mean, 5)} (${between(value.low, value.high, (v) => amount(v, 5))})`;
  }
  return el("dl", { class: "record" }, Object.entries(value).flatMap(([key, each]) => [el("dt", {}, shown(key)), el("dd", {}, record(each))]));
}

function drawRecord() {
  const point = filed.operating_point;
  const facts = { "policy id": filed.id, "file format": `${filed.format}, version ${filed.version}`, filed: point.budget === null ? `at price ${amount(point.price)}` : `at budget ${amount(point.budget)}`, nodes: filed.nodes.length, graphs: filed.vertices.length, "beliefs kept": beliefsKept() };
  byId("record").replaceChildren(
    el("div", { class: "pair" },
      el("div", {}, el("h3", {}, "The file"), record(facts), el("h3", {}, "Evidence, as filed"), Object.keys(filed.evidence).length > 0 ? record(filed.evidence) : el("p", { class: "muted" }, "None.")),
      el("div", {}, el("h3", {}, "Provenance"), Object.keys(filed.provenance).length > 0 ? record(filed.provenance) : el("p", { class: "muted" }, "None."))),
  );
}

function beliefsKept() {
  const kept = filed.vertices.filter((vertex) => Object.keys(vertex.beliefs).length > 0).length;
  const { low, high } = filed.operating_point;
  if (kept === 0) return "none";
  return kept > new Set([low, high]).size ? "at every graph that reads" : "at the operating point only";
}

// --------------------------------------------------------------------------------------------------------- start

function setUpTheme() {
  const button = byId("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const dark = () => (document.documentElement.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";
  const label = () => (button.textContent = dark() ? "Light theme" : "Dark theme");
  button.addEventListener("click", () => {
    document.documentElement.dataset.theme = dark() ? "light" : "dark";
    label();
  });
  system.addEventListener("change", label);
  label();
}

function setUpDial() {
  const number = byId("budget");
  [number.min, number.max] = [0, ends[1]];
  byId("slider").addEventListener("input", () => turnTo(dialScale.invert(Number(byId("slider").value))));
  number.addEventListener("input", () => {
    const value = Number(number.value);
    const usable = number.value.trim() !== "" && value >= ends[0] * (1 - 1e-9);
    number.setAttribute("aria-invalid", String(!usable));
    if (usable) turnTo(value);
  });
  number.addEventListener("change", () => {
    number.setAttribute("aria-invalid", "false");
    number.value = Number(standing(state.policy).cost.toPrecision(5));
  });
  byId("reset").addEventListener("click", () => show(filed));
}

function start() {
  const tiers = filed.tiers.filter((tier) => tier.answer !== false).map((tier) => shown(tier.name));
  const rows = filed.evidence.rows;
  byId("summary").textContent = [tiers.join(" → "), isNumber(rows) ? `fitted on ${count(rows)} queries` : "", filed.provenance.method ? `method ${shown(filed.provenance.method)}` : ""].filter(Boolean).join(" · ");
  byId("drawn-from").textContent = comparison === null ? "" : " and a comparison";
  setUpTheme();
  setUpDial();
  setUpContexts();
  setUpTry();
  setUpComparison();
  drawLog();
  drawRecord();
  show(filed);
  let width = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth === width) return;
    width = innerWidth;
    show(state.policy);
  });
}

window.metaverify = Object.freeze({ policy: filed, atBudget, decide, explain, show, linesOf });
start();
