// The trees in use, and what is believed at the line that was chosen.

/** Whether a policy holds beliefs at all. */
const believes = (policy) => policy.vertices.some((vertex) => Object.keys(vertex.beliefs).length > 0);

function armsOf(policy) {
  const { low, high, share } = policy.operating_point;
  if (low === high || share === 0) return [[low, 1]];
  if (share === 1) return [[high, 1]];
  return [
    [high, share],
    [low, 1 - share],
  ].sort((a, b) => b[1] - a[1]);
}

function drawGraphs() {
  const policy = deciding();
  const width = Math.max(byId("graphs").clientWidth, 280);
  const arms = armsOf(policy);
  let chosen = null;
  const walks = [];
  const figures = arms.map(([at, share]) => {
    const vertex = policy.vertices[at];
    const root =
      state.context !== null && has(vertex.context_roots, state.context)
        ? vertex.context_roots[state.context]
        : vertex.root;
    const lines = linesOf(policy, vertex, root);
    walks.push([share, lines]);
    const title = arms.length === 1 ? "Every request" : `${percent(share)} of requests, drawn by key`;
    const choose = (line) => {
      const again = document.activeElement?.getAttribute("aria-label");
      state.chosen = { vertex: at, trail: JSON.stringify(line.trail) };
      drawGraphs();
      const same = [...byId("graphs").querySelectorAll('[aria-pressed="true"]')][0];
      if (again && same) same.focus();
    };
    const drawn = drawTree(policy, lines, width, title, choose);
    const buttons = drawn.querySelectorAll('[role="button"]');
    lines
      .filter((line) => line.branch !== null)
      .forEach((line, place) => {
        if (state.chosen === null || state.chosen.vertex !== at || state.chosen.trail !== JSON.stringify(line.trail))
          return;
        for (const button of buttons) button.setAttribute("tabindex", "-1");
        buttons[place].setAttribute("aria-pressed", "true");
        buttons[place].setAttribute("tabindex", "0");
        chosen = [at, line];
      });
    return el(
      "div",
      { class: "tree" },
      el(
        "h3",
        { class: "tree-head" },
        title,
        el("span", { class: "muted small" }, `pays ${amount(vertex.price)} of quality per unit of cost`),
      ),
      drawn,
    );
  });
  byId("graphs").replaceChildren(...figures);
  byId("lines").textContent =
    "Each line is where a reading falls and what follows. Choose one, by click or with Enter, to see " +
    (believes(policy) ? "what is believed there" : "the whole way to it") +
    "; the arrow keys walk the lines." +
    (believes(filed) ? "" : " This file holds no beliefs, so what is expected there is not known.");
  drawOutage(policy, walks);
  drawBelief(policy, chosen);
}

/** What is done without the chosen tiers: who is called and answers, as far as the first reading tells. */
function drawOutage(policy, walks) {
  const into = byId("outage");
  into.hidden = state.without.length === 0;
  if (into.hidden) return;
  const context = state.context === null ? "" : ` in the context ${shown(state.context)}`;
  const mean = (parts) => (parts.includes(null) ? null : parts.reduce((sum, part) => sum + part, 0));
  const shareOf = (found) =>
    mean(walks.flatMap(([share, lines]) => lines.filter(found).map((line) => line.share && share * line.share)));
  const rows = policy.tiers
    .filter((tier) => tier.answer !== false)
    .map((tier) => [
      shown(tier.name),
      state.without.includes(tier.name) ? "down" : amount(tier.price),
      percent(shareOf((line) => line.calls.includes(tier.name))),
      percent(shareOf((line) => line.ends?.tier === tier.name)),
    ]);
  if (policy.abstain !== null) rows.push(["handed over", "", "", percent(shareOf((line) => line.ends?.tier === null))]);
  into.replaceChildren(
    el(
      "p",
      { class: "note" },
      `Without ${downText()}: what is best at the same prices while it is down. Cost, quality and gain above are those while all tiers are up.`,
    ),
    tableOf(`Share of queries${context} without ${downText()}`, ["tier", "price", "called", "accepted"], rows),
    rows.some((row) => row.includes(dash))
      ? el(
          "p",
          { class: "small muted" },
          `${dash} is not in the file: it depends on more than the first reading, of which the file has the log’s histogram.`,
        )
      : "",
  );
}

function drawBelief(policy, chosen) {
  const into = byId("belief");
  if (chosen === null) {
    const title = believes(policy) ? "What it believes" : "The way to a line";
    const reads = byId("graphs").querySelector('[role="button"]') !== null;
    const nothing = reads ? "Nothing is chosen yet." : "Nothing is read at this budget, so there is no line to choose.";
    into.replaceChildren(el("h3", {}, title), el("p", { class: "muted" }, nothing));
    return;
  }
  const [at, line] = chosen;
  const path = el(
    "ol",
    {},
    line.trail.map((step) => el("li", {}, `${shown(step.tier)}: ${step.label}`)),
  );
  const cells = line.branch.cells;
  const title = believes(policy) ? "What it believes there" : "The way there";
  const parts = [el("h3", {}, title), path, el("p", {}, `Then: ${actText(line)}.`)];
  if (!believes(policy)) {
    const kept = believes(filed) ? "The file holds no beliefs of outages." : "This file holds no beliefs.";
    parts.push(el("p", { class: "note" }, kept));
  } else if (cells.every((cell) => cell.belief === null)) {
    parts.push(
      el(
        "p",
        { class: "note" },
        "The file keeps beliefs at the operating point only. ",
        el("button", { type: "button", class: "quiet", click: () => show(filed) }, "Turn the dial back"),
      ),
    );
  } else {
    for (const cell of cells) parts.push(beliefTable(policy, cell));
    parts.push(
      el(
        "p",
        { class: "small muted" },
        `Going on: expected quality less ${amount(policy.vertices[at].price)} × the cost to come.`,
      ),
    );
  }
  into.replaceChildren(...parts);
}

function beliefTable(policy, cell) {
  const known = policy.tiers.map((tier, place) => [tier, cell.belief.quality[place], cell.belief.worth[place]]);
  const rows = known
    .filter(([, right, worth]) => right !== null || worth !== null)
    .map(([tier, right, worth]) => {
      return el(
        "tr",
        {},
        el("th", { scope: "row" }, nameOf(shown(tier.name))),
        el("td", {}, decimal(right)),
        el("td", {}, decimal(worth)),
      );
    });
  return scrollable(
    cell.label,
    el(
      "table",
      {},
      el(
        "caption",
        {},
        cell.label,
        " ",
        el("span", { class: "muted small" }, `${percent(cell.belief.share)} of queries`),
      ),
      el(
        "thead",
        {},
        el(
          "tr",
          {},
          ["tier", "quality", "going on"].map((name) => el("th", { scope: "col" }, name)),
        ),
      ),
      el("tbody", {}, rows),
    ),
  );
}

function setUpContexts() {
  const labels = Object.keys(filed.vertices[0].context_roots);
  if (labels.length === 0) return;
  byId("context-label").hidden = false;
  const select = byId("context");
  select.append(
    el("option", { value: "" }, "any other"),
    ...labels.map((label, at) => el("option", { value: String(at) }, shown(label))),
  );
  select.addEventListener("change", () => {
    state.context = select.value === "" ? null : labels[Number(select.value)];
    drawGraphs();
  });
  select.value = "0";
  state.context = labels[0];
}

function setUpOutages() {
  const outages = (filed.vertices[0].outages ?? []).map((outage) => outage.without);
  if (outages.length === 0) return;
  byId("without-label").hidden = false;
  const select = byId("without");
  select.append(
    el("option", { value: "" }, "none"),
    ...outages.map((names, at) => el("option", { value: String(at) }, names.map(shown).join(" and "))),
  );
  select.addEventListener("change", () => {
    state.without = select.value === "" ? [] : outages[Number(select.value)];
    state.chosen = null;
    drawGraphs();
    drawDecision();
  });
}
