// The page as a whole: its theme, its dial's controls, and the order in which it is drawn.

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
    const value = number.valueAsNumber;
    const usable = value >= ends[0] * (1 - 1e-9);
    if (usable) turnTo(value);
    number.setAttribute("aria-invalid", String(!usable));
    byId("beyond").textContent = beyondText(value);
  });
  number.addEventListener("change", () => {
    const value = number.valueAsNumber;
    if (isNumber(value)) turnTo(value);
    number.value = Number(standing(state.policy).cost.toPrecision(5));
    byId("beyond").textContent = beyondText(value);
  });
  byId("reset").addEventListener("click", () => show(filed));
}

/** Why the dial does not follow to a budget; empty where it does. */
function beyondText(budget) {
  const [least, most] = ends.map((end) => amount(end));
  if (budget < ends[0] * (1 - 1e-9))
    return `No policy of this file costs less than ${least}: the dial goes no lower, and ${amount(budget)} would be overspent.`;
  return budget > ends[1] * (1 + 1e-9)
    ? `Nothing in this file costs more than ${most}: of ${amount(budget)} the rest would not be spent.`
    : "";
}

/** Say at the top that the comparison is of other queries; what is drawn of the policy then leaves it out. */
function tellOfOtherLog() {
  if (comparison === null || ofThisLog()) return;
  byId("foreign").hidden = false;
  byId("foreign").append(
    el("strong", {}, "Another log. "),
    "The comparison was made on other queries or other tiers than this policy was fitted on. It stands ",
    el("a", { href: "#side" }, "side by side"),
    " below, on its own; nothing of it is drawn with the policy.",
  );
}

function start() {
  const tiers = filed.tiers.filter((tier) => tier.answer !== false).map((tier) => shown(tier.name));
  const rows = filed.evidence.rows;
  byId("summary").textContent = [
    tiers.join(" → "),
    isNumber(rows) ? `fitted on ${count(rows)} queries` : "",
    filed.provenance.method ? `method ${shown(filed.provenance.method)}` : "",
  ]
    .filter(Boolean)
    .join(" · ");
  byId("drawn-from").textContent = comparison === null ? "" : " and a comparison";
  tellOfOtherLog();
  setUpTheme();
  setUpDial();
  setUpContexts();
  setUpOutages();
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

window.metaverify = Object.freeze({ policy: filed, atBudget, without, decide, explain, show, linesOf });
start();
