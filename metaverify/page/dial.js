// The dial, and what stands there: cost, quality, gain and the shares of the tiers.

const filed = JSON.parse(byId("policy-data").textContent);
const comparison = JSON.parse(byId("comparison-data").textContent);
const levels = JSON.parse(byId("levels").textContent);
const state = {
  policy: filed,
  without: [],
  context: null,
  chosen: null,
  sort: { key: "gain", falling: true },
  compared: null,
};

const ends = [filed.vertices[0].cost, filed.vertices.at(-1).cost];
const dialScale = scaleOf(
  Math.max(ends[0], ends[1] * 1e-9),
  ends[1],
  0,
  1000,
  costRange(filed.vertices.map((v) => v.cost)).log,
);

const mixed = (policy, of) => {
  const { low, high, share } = policy.operating_point;
  const [a, b] = [of(policy.vertices[low]), of(policy.vertices[high])];
  return a === null || b === null ? null : (1 - share) * a + share * b;
};

/** What the dial's mixture costs, earns and does, as cross-fitting found it. */
function standing(policy) {
  const of = (key) => mixed(policy, (vertex) => vertex[key]);
  const both = [policy.operating_point.low, policy.operating_point.high].every((at) => policy.vertices[at].evidence);
  const list = (key) =>
    policy.vertices[policy.operating_point.low].evidence[key].map((_, at) =>
      mixed(policy, (vertex) => vertex.evidence[key][at]),
    );
  const evidence = both
    ? Object.fromEntries(["cost", "quality", "calls", "accepts"].map((key) => [key, list(key)]))
    : null;
  return { cost: of("cost"), quality: of("quality"), evidence };
}

/** Whether the comparison has the queries and the tiers that the policy was fitted on, whatever else either was told. */
const ofThisLog = () =>
  comparison !== null &&
  (comparison.log.fingerprint === filed.provenance.log ||
    (isText(comparison.log.queries) && comparison.log.queries === filed.provenance.queries));

/** The comparison, where it may be drawn with the policy. */
const matching = ofThisLog() ? comparison : null;

/** The method of the comparison that the policy is one of: the same, described alike, or what a fit takes. */
function ownMethod() {
  const methods = matching?.methods ?? [];
  const told = JSON.stringify(sorted({ method: filed.provenance.method, options: filed.provenance.options }));
  return (
    methods.find((each) => each.describe && JSON.stringify(sorted(each.describe)) === told) ??
    methods.find((each) => each.name === "default") ??
    null
  );
}

function sorted(value) {
  if (!isMapping(value)) return value;
  return Object.keys(value)
    .sort()
    .map((key) => [key, sorted(value[key])]);
}

/** The gain at the dial: the quality that stands there less that of the hull of fixed tiers at the same cost, the hull
    of a comparison on the same log or, where the dial stands as filed, of the fit; its interval is as wide as the fit's
    where filed, elsewhere as the comparison's around that budget. */
function gainAt(policy, at) {
  const same = JSON.stringify(policy.operating_point) === JSON.stringify(filed.operating_point);
  const fit = same && isNumber(filed.evidence.gain?.mean) ? filed.evidence.gain : null;
  const hull = matching !== null ? hullAt(at.cost) : fit ? filed.evidence.hull : null;
  if (!isNumber(hull)) return null;
  const mean = at.quality - hull;
  if (fit) return { mean, low: mean + fit.low - fit.mean, high: mean + fit.high - fit.mean, from: "the fit" };
  const known = (ownMethod()?.curve ?? []).filter((point) =>
    ["mean", "low", "high"].every((key) => isNumber(point.gain[key])),
  );
  const within = known.length > 0 && at.cost >= known[0].budget && at.cost <= known.at(-1).budget;
  const end = (key) =>
    within
      ? mean +
        along(
          known.map((point) => [point.budget, point.gain[key] - point.gain.mean]),
          at.cost,
        )
      : null;
  return { mean, low: end("low"), high: end("high"), from: "the comparison’s hull" };
}

const hullAt = (cost) =>
  along(
    matching.hull.map((point) => [point.cost, point.quality]),
    cost,
  );

/** Whether a gain of a telling part of all that there is to gain would not be seen; all that is what knowing the best
    tier of each query would bring or, where no comparison says, being right always. */
function tooFew(gain, cost) {
  const most = matching ? matching.oracle.quality - hullAt(cost) : 1 - filed.evidence.hull;
  return gain.low <= 0 && gain.high >= 0 && gain.high - gain.mean > levels.telling * most;
}

function turnTo(budget) {
  const held = Math.min(Math.max(budget, ends[0]), ends[1]);
  if (!isNumber(held)) return;
  show(atBudget(filed, held));
}

function show(policy) {
  state.policy = policy;
  byId("beyond").textContent = "";
  byId("budget").setAttribute("aria-invalid", "false");
  const at = standing(policy);
  const budget = policy.operating_point.budget ?? at.cost;
  if (document.activeElement !== byId("budget")) byId("budget").value = Number(at.cost.toPrecision(5));
  const slider = byId("slider");
  if (document.activeElement !== slider) slider.value = Math.round(dialScale(Math.max(at.cost, dialScale.ends[0])));
  slider.setAttribute("aria-valuetext", `budget ${amount(Math.min(budget, ends[1]))}, quality ${quality(at.quality)}`);
  const gain = gainAt(policy, at);
  byId("brief").textContent =
    `cost ${amount(at.cost)} · quality ${quality(at.quality)}${gain ? ` · gain ${points(gain.mean)}` : ""}`;
  frontierChart(byId("frontier"), policy, matching, at, turnTo);
  drawReadout(policy, at, gain);
  drawShares(policy, at);
  drawGraphs();
  drawDecision();
  drawCurves();
}

/** What decides: the policy at the dial, as it is while the chosen tiers are down. */
const deciding = () => without(state.policy, ...state.without);

/** The tiers that are down, as words. */
const downText = () => state.without.map(shown).join(" and ");

function drawReadout(policy, at, gain) {
  const item = (name, value, range, under, doubt = "") =>
    el(
      "div",
      {},
      el("dt", {}, name),
      el(
        "dd",
        {},
        el("span", { class: "big" }, value),
        el("span", { class: "small muted" }, [range, under].filter(Boolean).join("; ")),
        doubt ? el("span", { class: "small doubt" }, doubt) : "",
      ),
    );
  const found = at.evidence;
  byId("readout").replaceChildren(
    item("Cost per query", amount(at.cost), found ? between(...found.cost, amount) : "", ""),
    item("Quality", quality(at.quality), found ? between(...found.quality, quality) : "", ""),
    item(
      "Gain over fixed tiers",
      gain ? points(gain.mean) : dash,
      gain ? between(gain.low, gain.high, points) : "",
      gain ? `points, by ${gain.from}` : "known as filed, or with a comparison on the same log",
      gain && isNumber(gain.low) && tooFew(gain, at.cost) ? "too few queries to tell" : "",
    ),
  );
  byId("frontier-caption").textContent = [
    "Each dot is a decision graph of the file; between two of them requests are mixed. Click to set the dial.",
    policy.vertices.some((vertex) => vertex.evidence)
      ? " Band and bars: 90 % intervals on unseen queries (between dots, at most so wide)."
      : "",
    matching ? " Squares: one tier for all; dashed: the best that mixing them by lot can do." : "",
  ].join("");
}

function drawShares(policy, at) {
  const abstained =
    at.evidence && policy.abstain !== null
      ? Math.max(1 - at.evidence.accepts.reduce((sum, share) => sum + (share ?? 0), 0), 0)
      : null;
  const bar = (share) => {
    const inner = el("span", {});
    inner.style.width = `${100 * (share ?? 0)}%`;
    return el("span", { class: "bar", "aria-hidden": "true" }, inner);
  };
  const rows = policy.tiers
    .map((tier, place) => [tier, place])
    .filter(([tier]) => tier.answer !== false)
    .map(([tier, place]) => {
      const [called, accepted] = at.evidence ? [at.evidence.calls[place], at.evidence.accepts[place]] : [null, null];
      return el(
        "tr",
        {},
        el("th", { scope: "row" }, nameOf(shown(tier.name))),
        el("td", {}, amount(tier.price)),
        at.evidence ? [percent(called), percent(accepted), bar(accepted)].map((each) => el("td", {}, each)) : null,
      );
    });
  if (abstained !== null)
    rows.push(
      el(
        "tr",
        {},
        el("th", { scope: "row" }, "handed over"),
        el("td", {}),
        el("td", {}),
        el("td", {}, percent(abstained)),
        el("td", {}, bar(abstained)),
      ),
    );
  const head = ["tier", "price", ...(at.evidence ? ["called", "accepted", ""] : [])].map((name) =>
    name ? el("th", { scope: "col" }, name) : el("td", {}),
  );
  byId("shares").replaceChildren(
    scrollable(
      "Shares of queries",
      el(
        "table",
        {},
        el("caption", {}, at.evidence ? "Share of queries at each tier" : "Tiers"),
        el("thead", {}, el("tr", {}, head)),
        el("tbody", {}, rows),
      ),
    ),
    at.evidence ? "" : el("p", { class: "small muted" }, "This file has no cross-fitted shares or intervals."),
  );
}

function scrollable(label, table) {
  const box = el("div", { class: "scroll" }, table);
  queueMicrotask(() => {
    if (box.scrollWidth > box.clientWidth)
      for (const [key, value] of [
        ["tabindex", "0"],
        ["role", "region"],
        ["aria-label", label],
      ])
        box.setAttribute(key, value);
  });
  return box;
}
