// The policy's graphs as trees of lines: where a reading falls, and what follows.

/** The outcomes of a read node or poll that end it: [label, place among its beliefs, next node]. */
function outcomesOf(node) {
  if (has(node, "read")) {
    const ends = [null, ...node.cuts, null];
    const rows = node.then.map((next, cell) => [intervalText(node.read, ends[cell], ends[cell + 1]), cell, next]);
    return [...rows, ["missing", node.then.length, node.missing]];
  }
  const rows = [];
  let cell = 0;
  let reached = [true, true]; // with 0, 1, .. of so many votes yes
  node.tallies.forEach((tally, at) => {
    const asked = at + 1;
    const bounds = [0, ...tally.cuts, asked + 1];
    tally.then.forEach((next, part) => {
      const ends = reached
        .map((_, yes) => yes)
        .filter((yes) => yes >= bounds[part] && yes < bounds[part + 1] && reached[yes]);
      const span = ends.length === 1 ? `${ends[0]}` : `${ends[0]}–${ends.at(-1)}`;
      if (next !== null && ends.length > 0) rows.push([`${span} of ${asked} yes`, cell, next]);
      cell += 1;
    });
    const more = reached.map((here, yes) => here && tally.then[bisectRight(tally.cuts, yes)] === null);
    reached = [...more, false].map((here, yes) => here || (yes > 0 && more[yes - 1]));
  });
  return [...rows, ["missing", cell, node.missing]];
}

function intervalText(reading, low, high) {
  const name = shown(reading);
  if (low === null && high === null) return `any ${name}`;
  if (low === null) return `${name} < ${cutText(high)}`;
  return high === null ? `${name} ≥ ${cutText(low)}` : `${cutText(low)} ≤ ${name} < ${cutText(high)}`;
}

/** What the graphs in use may buy, whatever the context: a set of readings for each tier that is called or read. */
function boughtBy(policy) {
  const bought = new Map();
  const readsOf = (tier) => bought.get(tier) ?? bought.set(tier, new Set()).get(tier);
  const roots = ({ root, context_roots }) => [root, ...Object.values(context_roots)];
  const stack = armsOf(policy).flatMap(([at]) => roots(policy.vertices[at]));
  const seen = new Set();
  while (stack.length > 0) {
    const at = stack.pop();
    const node = policy.nodes[at];
    if (seen.has(at) || has(node, "accept") || has(node, "abstain")) continue;
    seen.add(at);
    if (has(node, "call")) {
      readsOf(node.call);
      stack.push(node.then);
      continue;
    }
    const name = node.read ?? node.poll;
    const { parts } = policy.tiers.find((tier) => tier.name === node.of).readings.find((each) => each.name === name);
    for (const each of [name, ...(parts ?? []).map((part) => part.of)]) readsOf(node.of).add(each);
    const next = has(node, "read") ? node.then : node.tallies.flatMap((tally) => tally.then);
    stack.push(node.missing, ...next.filter((to) => to !== null));
  }
  return bought;
}

/** How often the log's queries have each outcome of a read node, missing last; null where the file does not say. */
function histogramOf(policy, node) {
  if (!has(node, "read")) return null;
  const { cuts, counts } = policy.tiers
    .find((tier) => tier.name === node.of)
    .readings.find((reading) => reading.name === node.read);
  const total = counts.reduce((sum, each) => sum + each, 0);
  if (total === 0 || !node.cuts.every((cut) => cuts.includes(cut))) return null;
  const shares = [...node.then, node.missing].map(() => 0);
  counts.forEach((each, bin) => {
    const missing = bin === counts.length - 1;
    shares[missing ? node.then.length : bisectRight(node.cuts, bin === 0 ? -1 : cuts[bin - 1])] += each / total;
  });
  return shares;
}

/** The outcomes of a node gathered by where they lead, with the share that goes there and each tier's quality.  Where
    the file holds no beliefs, the share is that of the log's histogram if every query comes to the node. */
function branchesOf(policy, vertex, at, node, first) {
  const rows = has(vertex.beliefs, at) ? vertex.beliefs[at] : null;
  const known = rows === null && first ? histogramOf(policy, node) : null;
  const gathered = new Map();
  for (const [label, cell, next] of outcomesOf(node)) {
    if (!gathered.has(next)) gathered.set(next, []);
    gathered.get(next).push({ label, cell, belief: rows === null ? null : belief(rows[cell]) });
  }
  const sum = (cells) => cells.reduce((total, each) => total + (each.belief?.share ?? 0), 0);
  const total = [...gathered.values()].reduce((all, cells) => all + sum(cells), 0);
  return [...gathered].map(([next, cells]) => ({
    next,
    cells,
    label: cells.map((each) => each.label).join(" or "),
    share:
      rows !== null && total > 0 ? sum(cells) / total : known && cells.reduce((all, each) => all + known[each.cell], 0),
    quality: rows === null ? null : meanQuality(cells.map((each) => each.belief)),
  }));
}

function meanQuality(beliefs) {
  const total = beliefs.reduce((sum, each) => sum + each.share, 0);
  const weight = (each) => (total > 0 ? each.share / total : 1 / beliefs.length);
  return beliefs[0].quality.map((value, at) => {
    return value === null ? null : beliefs.reduce((sum, each) => sum + weight(each) * each.quality[at], 0);
  });
}

/** The lines of a tree; a subtree that stands above already is only named. */
function linesOf(policy, vertex, root) {
  const landing = (at) => (has(policy.nodes[at], "call") ? landing(policy.nodes[at].then) : at);
  const looks = (node) => has(node, "read") || has(node, "poll");
  const everyQuery = Object.keys(vertex.context_roots).length === 0;
  const parents = new Map();
  const stack = [landing(root)];
  while (stack.length > 0) {
    const at = stack.pop();
    parents.set(at, (parents.get(at) ?? 0) + 1);
    const node = policy.nodes[at];
    if (looks(node) && parents.get(at) === 1) {
      stack.push(...[...new Set(outcomesOf(node).map(([, , next]) => next))].map(landing));
    }
  }
  const lines = [];
  const numbers = new Map();
  const grow = (start, depth, branch, share, parent, trail) => {
    const calls = [];
    let at = start;
    while (has(policy.nodes[at], "call")) {
      calls.push(policy.nodes[at].call);
      at = policy.nodes[at].then;
    }
    const node = policy.nodes[at];
    const line = { place: lines.length, depth, branch, share, parent, trail, calls, ends: null, then: "", mark: "" };
    lines.push(line);
    if (!looks(node)) {
      line.ends = has(node, "accept") ? { tier: node.accept } : { tier: null };
      return;
    }
    line.then = has(node, "read")
      ? `read ${shown(node.read)}`
      : `ask ${shown(node.poll)}, up to ${node.tallies.length} votes`;
    line.of = node.of;
    if (numbers.has(at)) {
      line.mark = `as at [${numbers.get(at)}]`;
      return;
    }
    if (parents.get(at) > 1) {
      numbers.set(at, numbers.size + 1);
      line.mark = `[${numbers.get(at)}]`;
    }
    for (const child of branchesOf(policy, vertex, at, node, everyQuery && branch === null)) {
      const part = share === null || child.share === null ? null : share * child.share;
      const step = { tier: node.of, label: child.label };
      grow(child.next, depth + 1, { ...child, node: at, tier: node.of }, part, line.place, [...trail, step]);
    }
  };
  grow(root, 0, null, 1, null, []);
  return lines;
}

/** What a line does, in words. */
function actText(line) {
  const steps = line.calls.map((tier) => `call ${shown(tier)}`);
  if (line.ends !== null) steps.push(line.ends.tier === null ? "hand over" : `accept ${shown(line.ends.tier)}`);
  else steps.push(`${line.then} of ${shown(line.of)}${line.mark ? ` ${line.mark}` : ""}`);
  return steps.join(", ");
}

/** The quality that is expected of what a line accepts; null where the file holds no beliefs. */
function endQuality(policy, line) {
  if (line.ends === null) return null;
  if (line.ends.tier === null) return policy.abstain;
  const place = policy.tiers.findIndex((tier) => tier.name === line.ends.tier);
  return line.branch?.quality?.[place] ?? null;
}

/** A tree as a drawing; `choose` is told which line was chosen. */
function drawTree(policy, lines, width, title, choose) {
  const wide = width >= 620;
  const [tall, indent, top] = [wide ? 38 : 58, wide ? 26 : 16, wide ? 24 : 6];
  const height = top + lines.length * tall;
  const font = (weight) => fontOf(document.body, weight);
  const y = (line) => top + line.place * tall + (wide ? tall / 2 : 18);
  const x = (line) => 12 + line.depth * indent;
  const told = lines.filter((line) => line.branch !== null);
  const shares = told.some((line) => line.share !== null);
  const ends = told.some((line) => endQuality(policy, line) !== null);
  const right = { share: width - (ends ? 74 : 6), quality: width - 6 };
  const used = (ends ? 68 : 0) + (shares && wide ? 62 : 0); // by figures, beside what follows
  const labels = told.map((line) => x(line) + 14 + widthOf(line.branch.label, font(400)));
  const column = wide ? Math.min(Math.max(150, ...labels) + 22, width * 0.5) : 0;
  const drawn = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": title });
  if (wide && told.length > 0) {
    const head = [
      ["where it falls", 12, "start"],
      ["what follows", column, "start"],
      ...(shares ? [["share", right.share, "end"]] : []),
      ...(ends ? [["quality", right.quality, "end"]] : []),
    ];
    drawn.append(
      ...head.map(([text, at, anchor]) => svg("text", { x: at, y: 12, class: "dim", "text-anchor": anchor }, text)),
    );
  }
  const limbs = svg("g", { "aria-hidden": "true" });
  const rows = lines.map((line) => {
    const [px, py] = [x(line), y(line)];
    if (line.parent !== null) {
      const from = lines[line.parent];
      const thick = line.share === null ? 1.5 : 1.25 + 8 * line.share;
      const [fx, fy] = [x(from), y(from) + 7];
      limbs.append(
        svg("path", {
          class: "limb",
          "stroke-width": thick.toFixed(2),
          d: `M${fx} ${fy}V${py - 6}Q${fx} ${py} ${fx + 6} ${py}H${px - 2}`,
        }),
      );
    }
    const start = wide ? (line.branch === null ? px + 14 : column) : px + (line.branch === null ? 14 : 8);
    const base = wide || line.branch === null ? py + 4.5 : py + 25;
    const end = endQuality(policy, line);
    const group = svg(
      "g",
      line.branch === null
        ? {}
        : {
            role: "button",
            tabindex: "-1",
            "aria-pressed": "false",
            "aria-label": spoken(line, end),
            click: () => choose(line),
            keydown: (event) => pressed(event, group, () => choose(line)),
          },
      svg("rect", {
        class: "hit",
        x: px - 8,
        y: py - (wide ? tall / 2 - 1 : 17),
        width: width - px + 8,
        height: tall - 2,
        rx: 5,
      }),
      svg("circle", {
        cx: px,
        cy: py,
        r: line.branch === null ? 5 : 3.5,
        fill: line.ends === null ? "var(--accent)" : "var(--muted)",
      }),
    );
    if (line.branch !== null) {
      const room = wide ? column - px - 22 : width - px - (shares ? 74 : 18);
      const label = svg("text", { x: px + 12, y: py + 4.5 }, fitted(line.branch.label, room, font(400)));
      label.append(svg("title", {}, line.branch.label));
      group.append(label);
    }
    group.append(acts(policy, line, start, base, width - used - start, font));
    if (line.share !== null && line.branch !== null) {
      group.append(
        svg("text", { x: wide ? right.share : right.quality, y: py + 4.5, "text-anchor": "end" }, percent(line.share)),
      );
    }
    if (end !== null && line.branch !== null) {
      group.append(svg("text", { x: right.quality, y: base, "text-anchor": "end", class: "strong" }, end.toFixed(3)));
    }
    return group;
  });
  drawn.append(limbs, ...rows);
  drawn.querySelector('[role="button"]')?.setAttribute("tabindex", "0");
  return drawn;
}

function spoken(line, end) {
  const share = line.share === null ? "" : `; ${percent(line.share)} of this graph’s queries`;
  const right = end === null ? "" : `; expected quality ${end.toFixed(3)}`;
  return `${shown(line.branch.tier)}, ${line.branch.label}: ${actText(line)}${share}${right}`;
}

function widthOf(text, font) {
  ruler.font = font;
  return ruler.measureText(text).width;
}

/** Calls as plain words, what is accepted as a pill in the tier's colour. */
function acts(policy, line, start, base, room, font) {
  const group = svg("g", {});
  const calls = line.calls.map((tier) => `call ${shown(tier)}`).join(" › ");
  const rest = line.ends === null ? `${line.then} of ${shown(line.of)}${line.mark ? ` ${line.mark}` : ""}` : "";
  const words = [calls, rest].filter(Boolean).join(" › ");
  let at = start;
  if (words !== "") {
    const weight = line.branch === null ? 600 : 400;
    const text = fitted(words, line.ends === null ? room : room - 110, font(weight));
    const full = svg("title", {}, words);
    group.append(svg("text", { x: at, y: base, class: line.branch === null ? "strong" : null }, text, full));
    at += widthOf(text, font(weight)) + 8;
  }
  if (line.ends !== null) {
    if (words !== "") {
      group.append(svg("text", { x: at, y: base, class: "dim" }, "›"));
      at += 14;
    }
    const told = line.ends.tier === null ? "hand over" : `accept ${shown(line.ends.tier)}`;
    const text = fitted(told, Math.max(room - (at - start) - 16, 48), font(400));
    const wide = widthOf(text, font(400)) + 18;
    group.append(
      svg("rect", {
        class: "pill",
        x: at,
        y: base - 16,
        width: wide,
        height: 23,
        rx: 11.5,
        fill: tierFill(policy, line.ends.tier),
      }),
      svg("text", { x: at + 9, y: base }, text, svg("title", {}, told)),
    );
  }
  return group;
}

function tierFill(policy, name) {
  const place = policy.tiers.filter((tier) => tier.answer !== false).findIndex((tier) => tier.name === name);
  return place === -1 ? "var(--faint)" : `var(--tier${place % 6})`;
}

/** Enter and space choose; the arrows, Home and End walk the lines, of which one at a time is in the order of tabs. */
function pressed(event, group, choose) {
  if (event.key === "Enter" || event.key === " ") {
    event.preventDefault();
    choose();
    return;
  }
  const all = [...group.ownerSVGElement.querySelectorAll('[role="button"]')];
  const here = all.indexOf(group);
  const goes = { ArrowDown: here + 1, ArrowUp: here - 1, Home: 0, End: all.length - 1 };
  const next = all[goes[event.key]];
  if (next === undefined) return;
  event.preventDefault();
  group.setAttribute("tabindex", "-1");
  next.setAttribute("tabindex", "0");
  next.focus();
}
