// Decisions by hand: a field for every reading, and what the policy does with them.

const fields = { tiers: [], context: null, key: null };

function setUpTry() {
  const form = byId("try");
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", drawDecision);
  const field = (label, ...inside) => el("label", { class: "field" }, el("span", {}, label), ...inside);
  for (const tier of filed.tiers) {
    const own = { tier, answered: null, box: null, readings: [], fieldset: null };
    if (tier.answer !== false) {
      own.answered = el("input", { type: "checkbox" });
      own.box = el(
        "label",
        { class: "field" },
        el("span", {}, "answer"),
        el("span", { class: "check" }, own.answered, "in hand"),
      );
    }
    for (const reading of tier.readings) {
      const name = shown(reading.name);
      const price = reading.price > 0 ? ` (costs ${amount(reading.price)})` : "";
      if (reading.votes) {
        const [yes, asked] = ["yes", "asked"].map((what) =>
          el("input", {
            type: "text",
            inputmode: "numeric",
            placeholder: what,
            "aria-label": `${name} of ${shown(tier.name)}: ${what}`,
          }),
        );
        const box = el(
          "div",
          { class: "field" },
          el("span", {}, `${name}, of ${reading.votes} votes${price}`),
          el("span", { class: "votes" }, yes, "of", asked),
        );
        own.readings.push({ reading, inputs: [yes, asked], box });
      } else {
        const input = el("input", {
          type: "text",
          inputmode: "decimal",
          placeholder: reading.parts ? "added up" : "not read",
          "aria-label": `${name} of ${shown(tier.name)}`,
        });
        own.readings.push({ reading, inputs: [input], box: field(name + price, input) });
      }
    }
    fields.tiers.push(own);
    const what =
      tier.answer === false
        ? `signal${tier.needs?.length ? `, once ${tier.needs.map(shown).join(" and ")} answered` : ""}`
        : `price ${amount(tier.price)}`;
    const boxes = [own.box, ...own.readings.map((each) => each.box)].filter(Boolean);
    own.fieldset = el(
      "fieldset",
      {},
      el("legend", {}, shown(tier.name), " ", el("span", { class: "muted small" }, what)),
      el("div", { class: "fields" }, boxes),
    );
    form.append(own.fieldset);
  }
  fields.key = el("input", { type: "text", value: "request 1" });
  const request = [field("key", fields.key)];
  const labels = Object.keys(filed.vertices[0].context_roots);
  if (labels.length > 0 || filed.context.length > 0) {
    const select = el(
      "select",
      {},
      el("option", { value: "" }, "not told"),
      labels.map((label, at) => el("option", { value: String(at) }, shown(label))),
      filed.context.length > 0 ? el("option", { value: "columns" }, "by its columns") : null,
    );
    const columns = filed.context.map((name) => {
      const numeric = has(filed.context_cuts ?? {}, name);
      const input = el("input", { type: "text", inputmode: numeric ? "decimal" : "text" });
      return { name, numeric, input, box: field(shown(name) + (numeric ? " (number)" : ""), input) };
    });
    fields.context = { select, columns, labels };
    select.addEventListener("change", () =>
      columns.forEach((column) => (column.box.hidden = select.value !== "columns")),
    );
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
  if (told.some((part) => !Number.isInteger(part)) || told[0] < 0 || told[0] > told[1])
    throw new Error("votes are two whole numbers, such as 2 of 3, or the word missing");
  return told;
}

/** Leave out what the policy never buys. */
function leaveOut(policy) {
  const bought = boughtBy(policy);
  for (const { tier, box, readings, fieldset } of fields.tiers) {
    const reads = bought.get(tier.name);
    fieldset.hidden = reads === undefined;
    if (box !== null) box.hidden = fieldset.hidden;
    for (const each of readings) each.box.hidden = !reads?.has(each.reading.name);
  }
}

/** What the form says: readings, context and key; a field that cannot be read is marked, and told of. */
function told() {
  const readings = Object.create(null);
  const faults = [];
  for (const own of fields.tiers) {
    const known = Object.create(null);
    for (const { reading, inputs } of own.readings.filter((each) => !each.box.hidden)) {
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
    const inHand = own.answered?.checked && !own.box.hidden;
    if (inHand || Object.keys(known).length > 0) readings[own.tier.name] = known;
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
  const policy = deciding();
  leaveOut(policy);
  const { readings, context, key, faults } = told();
  for (const own of fields.tiers)
    for (const box of [own.box, ...own.readings.map((each) => each.box)]) box?.classList.remove("next");
  if (faults.length > 0) {
    into.replaceChildren(
      el("p", { class: "act bad" }, "That cannot be read"),
      el(
        "ul",
        {},
        faults.map((fault) => el("li", {}, fault)),
      ),
    );
    return;
  }
  const found = explain(policy, readings, { context, key });
  const own = fields.tiers.find((each) => each.tier.name === found.action.tier);
  if (found.action.action === "call") own.box.classList.add("next");
  if (found.action.action === "verify")
    own.readings.find((each) => each.reading.name === found.action.reading).box.classList.add("next");
  const table = (caption, rows) =>
    rows.length === 0
      ? null
      : el(
          "table",
          {},
          el("caption", {}, caption),
          el(
            "tbody",
            {},
            rows.map(([name, value]) =>
              el("tr", {}, el("th", { scope: "row" }, nameOf(shown(name))), el("td", {}, decimal(value))),
            ),
          ),
        );
  const looks = found.looks.map((look) => {
    const what = `${shown(look.reading)} of ${shown(look.tier)}`;
    if (look.votes !== null) return `${what}: ${look.votes[0]} of ${look.votes[1]} yes`;
    return look.confidence === null
      ? `${what} is missing`
      : `${what} is ${cutText(look.confidence)}: ${intervalText(look.reading, look.low, look.high)}`;
  });
  const share = found.share === 1 ? "all requests" : `${percent(found.share)} of requests`;
  const graph =
    found.context === null
      ? ""
      : found.context_known
        ? `, in the context ${shown(found.context)}`
        : `; the context ${shown(found.context)} is not known, so the graph for all others`;
  const down = state.without.length > 0 ? ` as it is without ${downText()}` : "";
  const parts = [
    el("p", { class: "act" }, actionText(found.action)),
    looks.length > 0
      ? el(
          "ol",
          {},
          looks.map((look) => el("li", {}, look)),
        )
      : null,
    el(
      "p",
      { class: "small muted" },
      `By graph ${found.vertex}${down}, which ${share} follow${found.share === 1 ? "" : ", this key among them"}${graph}.`,
    ),
    table("Expected quality of each answer", found.quality),
    table("Worth of each action", found.worth),
    found.rival === null
      ? null
      : el(
          "p",
          { class: "small muted" },
          `${shown(found.rival)} looks better here, but the policy was kept simpler than these figures: it has one branch for queries that it treats nearly as well alike.`,
        ),
    looks.length > 0 && found.quality.length === 0
      ? el("p", { class: "small muted" }, "The file holds no beliefs at this place.")
      : null,
  ];
  into.replaceChildren(...parts.filter(Boolean));
}
