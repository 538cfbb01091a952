// Charts of cost and quality: the frontier, curves with bands, reliability.

/** A frame with axes, into which `draw(plot, x, y)` draws.  `domain` is {x: [low, high], y: [low, high]}. */
function chart(
  place,
  { label, domain, xTitle, yTitle, yForm, log = false, tall = 320, low = 210, xForm = (v) => amount(v, 3) },
  draw,
) {
  const width = Math.max(place.clientWidth, 240);
  const height = Math.min(tall, Math.max(low, width * 0.62));
  const [left, right, top, bottom] = [46, 12, 22, 40];
  const x = scaleOf(...domain.x, left, width - right, log);
  const y = scaleOf(...domain.y, height - bottom, top);
  const plot = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
  for (const tick of ticksOf(y, 5)) {
    plot.append(svg("line", { class: "grid", x1: left, x2: width - right, y1: y(tick), y2: y(tick) }));
    plot.append(svg("text", { class: "dim", x: left - 8, y: y(tick) + 4, "text-anchor": "end" }, yForm(tick)));
  }
  for (const tick of ticksOf(x, Math.floor(width / (log ? 56 : 80)))) {
    plot.append(svg("line", { class: "axis", x1: x(tick), x2: x(tick), y1: height - bottom, y2: height - bottom + 4 }));
    plot.append(
      svg("text", { class: "dim", x: x(tick), y: height - bottom + 18, "text-anchor": "middle" }, xForm(tick)),
    );
  }
  plot.append(svg("line", { class: "axis", x1: left, x2: width - right, y1: height - bottom, y2: height - bottom }));
  plot.append(svg("text", { class: "dim", x: 0, y: 10 }, yTitle));
  plot.append(
    svg(
      "text",
      { class: "dim", x: width - right, y: height - 4, "text-anchor": "end" },
      xTitle + (log ? ", logarithmic" : ""),
    ),
  );
  draw(plot, x, y, { left, right: width - right, top, bottom: height - bottom });
  place.replaceChildren(plot);
  return { x, plot };
}

/** A path through points [x, y].  Mixtures lie on a line in their own units, so it bends on a logarithmic scale. */
function pathOf(line, x, y, mixtures = true) {
  const fine = line.flatMap(([px, py], at) => {
    const next = line[at + 1];
    if (next === undefined || !x.log || !mixtures) return [[px, py]];
    return Array.from({ length: 12 }, (_, step) => [
      px + ((next[0] - px) * step) / 12,
      py + ((next[1] - py) * step) / 12,
    ]);
  });
  return fine.map(([px, py], at) => `${at ? "L" : "M"}${x(px).toFixed(1)} ${y(py).toFixed(1)}`).join("");
}

function bandOf(lows, highs, x, y, mixtures = true) {
  const back = pathOf(highs, x, y, mixtures).slice(1).split("L").reverse().join("L");
  return `${pathOf(lows, x, y, mixtures)}L${back}Z`;
}

/** The least range that holds all values, with some air. */
function rangeOf(values, air = 0.06) {
  const known = values.filter(isNumber);
  if (known.length === 0) return [0, 1];
  const [low, high] = [Math.min(...known), Math.max(...known)];
  const room = (high - low) * air || Math.abs(high) * air || air;
  return [low - room, high + room];
}

const WIDE = 10;

/** The range of costs, and whether it is so wide that it is shown in logarithms. */
function costRange(values) {
  const known = values.filter(isNumber);
  const [low, high] = [Math.min(...known), Math.max(...known)];
  const log = low > 0 && high > WIDE * low;
  const room = (high - low) * 0.03 || 0.5;
  return log ? { range: [low / 1.15, high * 1.15], log } : { range: [Math.max(low - room, 0), high + room], log };
}

function frontierChart(place, policy, comparison, at, turn) {
  const { vertices } = policy;
  const tiers = (comparison?.log.tiers ?? []).map((tier) => ({
    name: tier.name,
    cost: tier.cost.mean,
    quality: tier.quality.mean,
  }));
  const best = comparison?.oracle ?? null;
  const { range, log } = costRange([
    ...vertices.map((v) => v.cost),
    ...tiers.map((t) => t.cost),
    ...(best ? [best.cost] : []),
  ]);
  const known = vertices.filter((vertex) => vertex.evidence);
  const heights = [...vertices.map((v) => v.quality), ...tiers.map((t) => t.quality), best?.quality ?? null];
  heights.push(...known.flatMap((vertex) => vertex.evidence.quality));
  const top = rangeOf(heights);
  const domain = { x: range, y: [Math.max(top[0], 0), Math.min(top[1], 1.01)] };
  const told = (point) => `cost ${amount(point.cost)}, quality ${quality(point.quality)}`;
  const span = `${told(vertices[0])}, to ${told(vertices.at(-1))}`;
  const label = `Quality against cost: ${vertices.length} policies from ${span}; the dial stands at ${told(at)}.`;
  const { x, plot } = chart(
    place,
    {
      label,
      domain,
      log,
      xTitle: "cost per query",
      yTitle: "quality",
      yForm: (v) => v.toFixed(2),
      tall: 360,
      low: tiers.length > 5 ? 340 : 240,
    },
    (into, px, py, frame) => {
      if (known.length > 1) {
        const side = (end) => known.map((vertex) => [vertex.cost, vertex.evidence.quality[end]]);
        into.append(svg("path", { class: "band", fill: "var(--accent)", d: bandOf(side(0), side(1), px, py) }));
      }
      if (comparison)
        into.append(
          svg("path", {
            class: "hull",
            d: pathOf(
              comparison.hull.map((p) => [p.cost, p.quality]),
              px,
              py,
            ),
          }),
        );
      into.append(
        svg("path", {
          class: "curve",
          stroke: "var(--accent)",
          d: pathOf(
            vertices.map((v) => [v.cost, v.quality]),
            px,
            py,
          ),
        }),
      );
      for (const vertex of vertices)
        into.append(svg("circle", { cx: px(vertex.cost), cy: py(vertex.quality), r: 2.25, fill: "var(--accent)" }));
      const marks = [...tiers, ...(best ? [{ ...best, name: "oracle", oracle: true }] : [])].map((tier) => {
        const [cx, cy] = [px(tier.cost), py(tier.quality)];
        const mark = tier.oracle
          ? svg("path", { d: `M${cx} ${cy - 5}l5 5l-5 5l-5 -5Z`, fill: "var(--paper)", stroke: "var(--muted)" })
          : svg("rect", { x: cx - 3.5, y: cy - 3.5, width: 7, height: 7, fill: "var(--ink)" });
        mark.append(svg("title", {}, `${shown(tier.name)}: ${told(tier)}`));
        return { x: cx, y: cy, mark, text: fitted(shown(tier.name), 150, fontOf(document.body)) };
      });
      const dots = vertices.map((vertex) => [px(vertex.cost), py(vertex.quality), 4]);
      const dial = [px(at.cost), py(at.quality), 8];
      into.append(...nameMarks(marks, [...dots, dial], frame), ...marks.map(({ mark }) => mark));
      const [cx, cy] = [px(Math.min(Math.max(at.cost, range[0]), range[1])), py(at.quality)];
      into.append(svg("path", { class: "dial-line", d: `M${cx} ${frame.bottom}V${cy}H${frame.left}`, fill: "none" }));
      const bars = [];
      if (at.evidence) {
        bars.push(`M${cx} ${py(at.evidence.quality[0])}V${py(at.evidence.quality[1])}`);
        bars.push(
          `M${px(Math.max(at.evidence.cost[0], range[0]))} ${cy}H${px(Math.min(at.evidence.cost[1], range[1]))}`,
        );
      }
      into.append(svg("path", { d: bars.join(""), stroke: "var(--accent)", "stroke-width": 2.5, fill: "none" }));
      into.append(svg("circle", { cx, cy, r: 6.5, fill: "var(--accent)", stroke: "var(--paper)", "stroke-width": 2 }));
    },
  );
  plot.addEventListener("click", (event) => turn(x.invert(event.clientX - plot.getBoundingClientRect().left)));
}

/** Names beside their marks: each takes the first free place around its own, tied to it where that is not near; one
    that finds none is left to the mark's title.  `others` are [x, y, half a side] that names keep off, too. */
function nameMarks(marks, others, frame) {
  const taken = [...marks.map(({ x, y }) => [x, y, 5]), ...others].map(([x, y, half]) => {
    return [x - half, y - half, x + half, y + half];
  });
  const free = ([left, top, right, bottom]) =>
    left >= frame.left &&
    right <= frame.right + 12 &&
    top >= frame.top - 12 &&
    bottom <= frame.bottom &&
    taken.every((box) => right < box[0] || left > box[2] || bottom < box[1] || top > box[3]);
  return marks.flatMap(({ x, y, text }) => {
    const wide = widthOf(text, fontOf(document.body));
    for (const far of [9, 22, 38, 56, 76]) {
      for (const turn of [0.12, -0.12, 0.88, -0.88, 0.3, -0.3, 0.7, -0.7, 0.5, -0.5].map((part) => part * Math.PI)) {
        const [dx, dy] = [far * Math.cos(turn), far * Math.sin(turn)];
        const left = Math.abs(dx) < 1 ? x - wide / 2 : dx > 0 ? x + dx : x + dx - wide;
        const box = [left, y + dy - 7, left + wide, y + dy + 7];
        if (!free(box)) continue;
        taken.push(box);
        const lead = svg("line", { class: "lead", x1: x, y1: y, x2: x + dx, y2: y + dy });
        const name = svg("text", { class: "dim halo", x: left, y: y + dy + 4 }, text);
        return far > 9 ? [lead, name] : [name];
      }
    }
    return [];
  });
}

/** Six colours and six kinds of dashes make 36 lines that differ. */
const DASHES = ["", "7 4", "2 4", "9 3 2 3", "12 4", "4 2"];
const lineStyle = (at) => ({
  stroke: `var(--line${at % 6})`,
  "stroke-dasharray": DASHES[(at + Math.floor(at / 6)) % 6],
});

/** Curves of several methods; each series is {name, line: [[x, mean, low, high]]}. */
function curvesChart(place, series, { label, yTitle, yForm, xTitle, mark, under = [], log, range, floor = null }) {
  const heights = series.flatMap((each) => each.line.flatMap((point) => point.slice(1)));
  const y = rangeOf([
    ...heights,
    ...under.flatMap((line) => line.map((point) => point[1])),
    ...(floor === null ? [] : [floor]),
  ]);
  chart(place, { label, domain: { x: range, y }, log, xTitle, yTitle, yForm }, (into, px, py, frame) => {
    if (floor !== null)
      into.append(svg("line", { class: "axis", x1: frame.left, x2: frame.right, y1: py(floor), y2: py(floor) }));
    for (const line of under) into.append(svg("path", { class: "hull", d: pathOf(line, px, py) }));
    series.forEach((each, at) => {
      const side = (end) => each.line.filter((p) => isNumber(p[2]) && isNumber(p[3])).map((p) => [p[0], p[end]]);
      if (side(2).length > 1 && series.length <= 4) {
        into.append(
          svg("path", { class: "band", fill: `var(--line${at % 6})`, d: bandOf(side(2), side(3), px, py, false) }),
        );
      }
    });
    series.forEach((each, at) => {
      const line = each.line.filter((p) => isNumber(p[1]));
      into.append(
        svg("path", { class: "curve", ...lineStyle(at), d: pathOf(line, px, py, false) }, svg("title", {}, each.name)),
      );
    });
    if (mark !== null && mark >= range[0] && mark <= range[1]) {
      into.append(svg("line", { class: "dial-line", x1: px(mark), x2: px(mark), y1: frame.top, y2: frame.bottom }));
    }
  });
}

function legend(series) {
  return el(
    "ul",
    { class: "legend" },
    series.map((each, at) => {
      const swatch = svg(
        "svg",
        { width: 26, height: 8, "aria-hidden": "true" },
        svg("line", { x1: 1, x2: 25, y1: 4, y2: 4, "stroke-width": 2, ...lineStyle(at) }),
      );
      return el("li", {}, swatch, each.name);
    }),
  );
}

/** An estimate as a dot on its interval, on a scale shared by a column. */
function whisker(estimate, [low, high], width) {
  const x = scaleOf(low, high, 4, width - 4);
  const drawn = svg("svg", { width, height: 14, "aria-hidden": "true" });
  drawn.append(svg("line", { x1: x(0), x2: x(0), y1: 0, y2: 14, stroke: "var(--muted)", "stroke-dasharray": "2 2" }));
  if (isNumber(estimate?.low) && isNumber(estimate?.high)) {
    drawn.append(
      svg("line", {
        x1: x(estimate.low),
        x2: x(estimate.high),
        y1: 7,
        y2: 7,
        stroke: "var(--accent)",
        "stroke-width": 2,
      }),
    );
  }
  if (isNumber(estimate?.mean))
    drawn.append(svg("circle", { cx: x(estimate.mean), cy: 7, r: 3.5, fill: "var(--accent)" }));
  return drawn;
}

/** How right answers are that a reading is so sure of. */
function reliability(item) {
  const [side, left, bottom] = [164, 26, 26];
  const x = scaleOf(0, 1, left, side - 6);
  const y = scaleOf(0, 1, side - bottom, 8);
  const worst = item.bins.reduce((most, bin) => Math.max(most, Math.abs(bin.confidence - bin.quality.mean)), 0);
  const name = `${shown(item.reading)} of ${shown(item.tier)}`;
  const far = `the farthest lies ${points(worst).slice(1)} points from its confidence`;
  const label = `${name}: ${item.bins.length} bins; ${far}`;
  const drawn = svg("svg", {
    width: side,
    height: side,
    viewBox: `0 0 ${side} ${side}`,
    role: "img",
    "aria-label": label,
  });
  for (const tick of [0, 0.5, 1]) {
    drawn.append(svg("line", { class: "grid", x1: left, x2: side - 6, y1: y(tick), y2: y(tick) }));
    drawn.append(svg("text", { class: "dim", x: left - 6, y: y(tick) + 4, "text-anchor": "end" }, String(tick)));
    drawn.append(
      svg(
        "text",
        {
          class: "dim",
          x: x(tick),
          y: side - bottom + 16,
          "text-anchor": tick === 1 ? "end" : tick ? "middle" : "start",
        },
        String(tick),
      ),
    );
  }
  drawn.append(svg("line", { class: "hull", x1: x(0), y1: y(0), x2: x(1), y2: y(1) }));
  for (const bin of item.bins) {
    if (!isNumber(bin.confidence) || !isNumber(bin.quality.mean)) continue;
    const cx = x(bin.confidence);
    if (isNumber(bin.quality.low) && isNumber(bin.quality.high)) {
      const [from, to] = [bin.quality.low, bin.quality.high].map((end) => y(Math.min(Math.max(end, 0), 1)));
      drawn.append(svg("line", { x1: cx, x2: cx, y1: from, y2: to, stroke: "var(--accent)", "stroke-width": 1.5 }));
    }
    drawn.append(
      svg("circle", {
        cx,
        cy: y(bin.quality.mean),
        r: 2 + 6 * Math.sqrt(bin.share ?? 0),
        fill: "var(--accent)",
        "fill-opacity": 0.75,
      }),
    );
  }
  return el("figure", {}, drawn, el("figcaption", {}, name));
}
