// What is in the log, and where the file comes from.

/** A table of `rows` below `head`, the first columns texts; a column without anything in it is left out. */
function tableOf(caption, allHeads, allRows, texts = 1) {
  const some = allHeads.map((_, at) => at === 0 || allRows.some((row) => row[at] !== dash && row[at] !== ""));
  const [head, ...rows] = [allHeads, ...allRows].map((row) => row.filter((_, at) => some[at]));
  const cells = (row) =>
    row.map((cell, at) => {
      if (at === 0) return el("th", { scope: "row" }, nameOf(cell));
      return at < texts ? el("td", { class: "text" }, nameOf(cell)) : el("td", {}, cell);
    });
  return scrollable(
    caption,
    el(
      "table",
      { class: "narrow" },
      el("caption", {}, caption),
      el(
        "thead",
        {},
        el(
          "tr",
          {},
          head.map((name, at) =>
            name ? el("th", { scope: "col", class: at < texts ? "text" : null }, nameOf(name)) : el("td", {}),
          ),
        ),
      ),
      el(
        "tbody",
        {},
        rows.map((row) => el("tr", {}, cells(row))),
      ),
    ),
  );
}

function drawLog() {
  const into = byId("log");
  const found = matching?.inspection;
  if (!found) {
    const rows = filed.tiers.flatMap((tier) =>
      tier.readings.map((reading) => {
        const total = reading.counts.reduce((sum, each) => sum + each, 0);
        return [
          shown(tier.name),
          shown(reading.name),
          reading.price > 0 ? amount(reading.price) : "free",
          percent(total > 0 ? reading.counts.at(-1) / total : null),
          count(reading.cuts.length + 1),
        ];
      }),
    );
    into.replaceChildren(
      tableOf(
        "Tiers and signals, as fitted",
        ["name", "price", "readings"],
        filed.tiers.map((tier) => [
          shown(tier.name),
          tier.answer === false ? "signal" : amount(tier.price),
          tier.readings.map((r) => shown(r.name)).join(", ") || "none",
        ]),
      ),
      rows.length > 0 ? tableOf("Readings, as fitted", ["of", "reading", "price", "missing", "bins"], rows, 2) : "",
    );
    return;
  }
  const hull = new Set(found.hull.map((point) => point.tier));
  const readings = [...found.tiers, ...(found.signals ?? [])].flatMap((tier) =>
    tier.readings.map((reading) => [
      shown(tier.name),
      shown(reading.name),
      reading.price > 0 ? amount(reading.price) : "free",
      percent(reading.missing),
      count(reading.values),
      ...["auroc", "calibration_error", "bias"].map((key) => decimal(reading[key])),
    ]),
  );
  const names = found.tiers.map((tier) => shown(tier.name));
  into.replaceChildren(
    ...[
      el(
        "p",
        { class: "muted" },
        [
          `${count(found.rows)} queries`,
          found.groups ? `${count(found.groups)} groups` : "",
          found.contexts ? `${count(found.contexts.length)} contexts` : "",
          `best tier of each query, were it known: ${quality(found.oracle.quality)} at ${amount(found.oracle.cost)}`,
        ]
          .filter(Boolean)
          .join("; "),
      ),
      found.warnings.length === 0
        ? el("p", { class: "note" }, "Nothing about this log calls for a warning.")
        : el(
            "div",
            {},
            el("h3", {}, "Warnings"),
            el(
              "ul",
              { class: "warnings" },
              found.warnings.map((each) =>
                el(
                  "li",
                  {},
                  shown(each.text),
                  (each.cases ?? []).length > 0
                    ? el(
                        "ul",
                        {},
                        each.cases.map((one) => el("li", { class: "small" }, shown(one))),
                      )
                    : null,
                ),
              ),
            ),
          ),
      tableOf(
        "Tiers",
        ["tier", "price", "95th percentile", "quality", "on the hull"],
        found.tiers.map((tier) => [
          shown(tier.name),
          amount(tier.price),
          amount(tier.price_p95),
          quality(tier.quality),
          hull.has(tier.name) ? "yes" : "no",
        ]),
      ),
      readings.length > 0
        ? tableOf(
            "Readings: AUROC tells right from wrong, ECE is the calibration error, bias the overconfidence",
            ["of", "reading", "price", "missing", "values", "AUROC", "ECE", "bias"],
            readings,
            2,
          )
        : null,
      names.length > 1
        ? tableOf(
            "Correlation of errors, 1 where two tiers fail on the same queries",
            ["tier", ...names],
            found.error_correlation.map((row, at) => [
              names[at],
              ...row.map((cell, to) => (to > at ? "" : decimal(cell, 2))),
            ]),
          )
        : null,
      found.contexts
        ? tableOf(
            "Contexts, and the tiers’ quality there",
            ["context", "rows", ...names],
            found.contexts
              .slice(0, 20)
              .map((each) => [
                shown(each.name || "(empty)"),
                count(each.rows),
                ...each.qualities.map((value) => decimal(value)),
              ]),
          )
        : null,
    ].filter(Boolean),
  );
}

/** The longest list that stands there unfolded. */
const MANY = 12;

function record(value) {
  if (!isMapping(value)) {
    if (value === null) return dash;
    if (Array.isArray(value) && value.length > MANY) {
      return el("details", {}, el("summary", {}, `${count(value.length)} values`), value.map(shown).join(", "));
    }
    if (Array.isArray(value))
      return value.map((each) => (isMapping(each) ? shown(JSON.stringify(each)) : shown(each))).join(", ") || dash;
    return typeof value === "string"
      ? el("span", { class: value.startsWith("sha256:") ? "mono" : null }, shown(value))
      : String(value);
  }
  if (Object.keys(value).length === 3 && ["mean", "low", "high"].every((key) => isNumber(value[key]))) {
    return `${amount(value.mean, 5)} (${between(value.low, value.high, (v) => amount(v, 5))})`;
  }
  return el(
    "dl",
    { class: "record" },
    Object.entries(value).flatMap(([key, each]) => [el("dt", {}, shown(key)), el("dd", {}, record(each))]),
  );
}

function drawRecord() {
  const point = filed.operating_point;
  const facts = {
    "policy id": filed.id,
    "file format": `${filed.format}, version ${filed.version}`,
    filed:
      point.budget !== null
        ? `at budget ${amount(point.budget)}`
        : point.price !== null
          ? `at price ${amount(point.price)}`
          : "at a quality floor",
    nodes: filed.nodes.length,
    graphs: filed.vertices.length,
    "beliefs kept": beliefsKept(),
  };
  byId("record").replaceChildren(
    el(
      "div",
      { class: "pair" },
      el(
        "div",
        {},
        el("h3", {}, "The file"),
        record(facts),
        el("h3", {}, "Certificate, as filed"),
        filed.certificate ? record(filed.certificate) : el("p", { class: "muted" }, "None."),
        el("h3", {}, "Evidence, as filed"),
        Object.keys(filed.evidence).length > 0 ? record(filed.evidence) : el("p", { class: "muted" }, "None."),
      ),
      el(
        "div",
        {},
        el("h3", {}, "Provenance"),
        Object.keys(filed.provenance).length > 0 ? record(filed.provenance) : el("p", { class: "muted" }, "None."),
        comparison === null ? null : [el("h3", {}, "Comparison"), record(comparisonFacts())],
      ),
    ),
  );
}

/** Where the comparison comes from, as far as it says. */
function comparisonFacts() {
  const { log, methods, failed, folds, repeats, seed, resamples, metaverify } = comparison;
  const facts = {
    log: log.fingerprint,
    queries: log.queries,
    "as this policy’s": ofThisLog() ? "the same queries and tiers" : "other queries or tiers",
    methods: methods.length,
    failed: failed.length || undefined,
    folds: repeats > 1 ? `${folds}, ${repeats} times` : folds,
    resamples,
    seed,
    metaverify,
  };
  return Object.fromEntries(Object.entries(facts).filter(([, value]) => value !== undefined && value !== null));
}

function beliefsKept() {
  const kept = filed.vertices.filter((vertex) => Object.keys(vertex.beliefs).length > 0).length;
  const { low, high } = filed.operating_point;
  if (kept === 0) return "none";
  return kept > new Set([low, high]).size ? "at every graph that reads" : "at the operating point only";
}
