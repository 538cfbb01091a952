// Methods side by side, from a comparison.

const columns = [
  { key: "name", name: "method", of: (m) => m.name, text: true },
  { key: "gain", name: "gain, points", of: (m) => m.gain?.mean, form: points, range: (m) => intervalOf(m.gain) },
  { key: "area", name: "area, points", of: (m) => m.area?.mean, form: points, range: (m) => intervalOf(m.area) },
  {
    key: "spent",
    name: "spent, %",
    of: (m) => m.adherence?.mean,
    form: (v) => signed(v, 1),
    range: (m) => `±${decimal(100 * m.adherence.sd, 1)}`,
  },
  { key: "optimism", name: "optimism, points", of: (m) => m.optimism, form: points },
  { key: "aiq", name: "AIQ", of: (m) => m.aiq?.mean, form: (v) => decimal(v, 4) },
  { key: "apgr", name: "APGR", of: (m) => m.apgr?.mean, form: decimal },
  { key: "ibc", name: "IBC lift, %", of: (m) => m.ibc_lift?.mean, form: (v) => signed(v, 1) },
  { key: "seconds", name: "s", of: (m) => m.seconds, form: (v) => amount(v, 3) },
];
const intervalOf = (estimate) => between(estimate.low, estimate.high, points);

function setUpComparison() {
  const into = byId("comparison");
  if (comparison === null) {
    into.replaceChildren(
      el(
        "p",
        { class: "note" },
        "No comparison was given. ",
        el("code", {}, "metaverify compare LOG -o comparison.json"),
        " makes one, and ",
        el("code", {}, "metaverify report POLICY --comparison comparison.json"),
        " puts it here: other ways of learning on the same folds, their gains with intervals, and the log’s health.",
      ),
    );
    return;
  }
  const byGain = [...comparison.methods].sort((a, b) => b.gain.mean - a.gain.mean);
  const own = ownMethod();
  const first = new Set([own, ...byGain].filter(Boolean).map((method) => method.name));
  state.compared = new Set([...first].slice(0, 4));
  into.replaceChildren(
    ...[
      el(
        "p",
        { class: "muted" },
        `${count(comparison.log.rows)} queries, `,
        comparison.budgets.length === 1 ? `budget ${amount(comparison.budgets[0])}, ` : budgetsText(),
        `${comparison.folds} folds`,
        comparison.repeats > 1 ? ` × ${comparison.repeats}` : "",
        "; every query is routed by a policy that did not see it.",
        ofThisLog() ? "" : " These are not the queries that the policy above was fitted on.",
      ),
      el(
        "ul",
        { id: "verdict", class: "verdict" },
        comparison.verdict.map((line) => el("li", {}, shown(line))),
      ),
      el("div", { id: "methods" }),
      el(
        "details",
        { id: "terms" },
        el("summary", {}, "What the columns say"),
        el(
          "dl",
          { class: "record" },
          Object.entries(comparison.terms).flatMap(([name, meaning]) => [el("dt", {}, name), el("dd", {}, meaning)]),
        ),
      ),
      el("div", { id: "curves" }),
      el("div", { id: "differences" }),
      comparison.calibration.length === 0
        ? null
        : el(
            "div",
            {},
            el("h3", {}, "Are confidences what they say?"),
            el(
              "p",
              { class: "muted" },
              "Mean quality against confidence, of the tier’s own answers; a dot’s area is its share of queries. ",
              "On the dashed line a reading says what it means.",
            ),
            el("div", { class: "multiples" }, comparison.calibration.map(reliability)),
          ),
    ].filter(Boolean),
  );
  drawMethods();
}

function budgetsText() {
  const { budgets } = comparison;
  return `${budgets.length} budgets from ${amount(budgets[0])} to ${amount(budgets.at(-1))}, `;
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
  const used = columns.filter(
    (column) => column.text || comparison.methods.some((method) => isNumber(column.of(method))),
  );
  const head = used.map((column) => {
    const here = column.key === key;
    const sort = () => {
      state.sort = { key: column.key, falling: here ? !falling : !column.text };
      drawMethods();
      byId("methods").querySelector(`[data-sort="${column.key}"]`).focus();
    };
    return el(
      "th",
      {
        scope: "col",
        class: column.text ? "text" : null,
        "aria-sort": here ? (falling ? "descending" : "ascending") : "none",
      },
      el("button", { type: "button", "data-sort": column.key, click: sort }, column.name),
    );
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
      if (column.text)
        return el(
          "th",
          { scope: "row", class: "text" },
          el("label", { class: "pick" }, box, el("span", {}, shown(method.name))),
          method.label === method.name ? null : el("span", { class: "about" }, shown(method.label)),
        );
      const value = column.of(method);
      return el(
        "td",
        {},
        isNumber(value) ? column.form(value) : dash,
        isNumber(value) && column.range ? el("span", { class: "range" }, ` ${column.range(method)}`) : null,
      );
    });
    cells.splice(1, 0, el("td", {}, whisker(method.gain, range, innerWidth < 480 ? 72 : 120)));
    return el("tr", { class: method === own ? "ours" : null, "data-method": method.name }, cells);
  });
  head.splice(1, 0, el("td", {}));
  byId("methods").replaceChildren(
    scrollable(
      "Methods side by side",
      el(
        "table",
        {},
        el("caption", {}, "Methods, ", el("span", { class: "muted" }, "ticked ones are drawn below")),
        el("thead", {}, el("tr", {}, head)),
        el("tbody", {}, rows),
      ),
    ),
  );
  drawCurves();
  drawDifferences();
}

function drawCurves() {
  if (comparison === null || !byId("curves")) return;
  const drawn = comparison.methods.filter((method) => state.compared.has(method.name));
  const line = (method, over, of) =>
    method.curve
      .filter((point) => isNumber(of(point)?.mean))
      .map((point) => [over(point), of(point).mean, of(point).low, of(point).high]);
  const gains = drawn.map((method) => ({
    name: shown(method.name),
    line: line(
      method,
      (p) => p.budget,
      (p) => p.gain,
    ),
  }));
  const curves = drawn.map((method) => ({
    name: shown(method.name),
    line: line(
      method,
      (p) => p.cost.mean,
      (p) => p.quality,
    ),
  }));
  const [first, second] = [el("div", { class: "chart" }), el("div", { class: "chart" })];
  const caption = drawn.length <= 4 ? "Bands: 90 %." : "Bands are drawn for at most four.";
  byId("curves").replaceChildren(
    legend(gains),
    el(
      "div",
      { class: "pair" },
      el("figure", {}, first, el("figcaption", {}, `Gain over the hull, in points. ${caption}`)),
      el("figure", {}, second, el("figcaption", {}, "Quality; dashed, the hull of fixed tiers.")),
    ),
  );
  if (drawn.length === 0) return;
  const costs = curves.flatMap((each) => each.line.map(([cost]) => cost));
  const { range, log } = costRange([...comparison.budgets, ...costs]);
  const mark = matching ? standing(state.policy).cost : null;
  const whole = comparison.hull.map((point) => [point.cost, point.quality]);
  const inside = whole.filter(([cost]) => cost > range[0] && cost < range[1]);
  const hull = [[range[0], along(whole, range[0])], ...inside, [range[1], along(whole, range[1])]];
  const names = gains.map((each) => each.name).join(", ");
  curvesChart(first, gains, {
    label: `Gain against budget: ${names}`,
    yTitle: "gain, points",
    yForm: (v) => decimal(100 * v, 1),
    xTitle: "budget",
    range,
    log,
    mark,
    floor: 0,
  });
  curvesChart(second, curves, {
    label: `Quality against cost: ${names}`,
    yTitle: "quality",
    yForm: (v) => v.toFixed(3),
    xTitle: "cost per query",
    range,
    log,
    mark,
    under: [hull],
  });
}

function drawDifferences() {
  const { names, mean, low, high, p, holm } = comparison.differences;
  const places = names.map((_, at) => at).filter((at) => state.compared.has(names[at]));
  if (places.length < 2) {
    byId("differences").replaceChildren();
    return;
  }
  const label = (at) => shown(names[at]);
  const rows = places.map((row) =>
    el(
      "tr",
      {},
      el("th", { scope: "row" }, label(row)),
      places.map((column) => {
        if (row === column) return el("td", {}, "");
        const sure = isNumber(holm[row][column]) && holm[row][column] <= levels.clear;
        const sureness = `p ${amount(p[row][column], 2)}, ${amount(holm[row][column], 2)} after Holm`;
        const told = `${between(low[row][column], high[row][column], points)}; ${sureness}`;
        return el(
          "td",
          { class: `${sure ? "sure" : ""} ${mean[row][column] > 0 ? "more" : "less"}`, title: told },
          points(mean[row][column]),
          el("br"),
          el("span", { class: "range" }, between(low[row][column], high[row][column], points)),
        );
      }),
    ),
  );
  byId("differences").replaceChildren(
    scrollable(
      "Differences in gain",
      el(
        "table",
        { class: "matrix" },
        el(
          "caption",
          {},
          "Differences in gain between the ticked, row less column, ",
          el(
            "span",
            { class: "muted" },
            `points; bold where clear: p of at most ${amount(levels.clear)} after Holm’s correction for all pairs of methods`,
          ),
        ),
        el(
          "thead",
          {},
          el(
            "tr",
            {},
            el("td", {}),
            places.map((at) => el("th", { scope: "col" }, label(at))),
          ),
        ),
        el("tbody", {}, rows),
      ),
    ),
  );
}
