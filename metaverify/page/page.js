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
  byId("summary").textContent = [
    tiers.join(" → "),
    isNumber(rows) ? `fitted on ${count(rows)} queries` : "",
    filed.provenance.method ? `method ${shown(filed.provenance.method)}` : "",
  ]
    .filter(Boolean)
    .join(" · ");
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
