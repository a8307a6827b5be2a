// Asks for the overview every two seconds, and hands it to those who draw it.

import { LABELS, rate, stateOf } from "./model.js";
import { Panel } from "./panel.js";
import { Grid, Legend, drawFigures, drawRefused, drawStorage, element, write } from "./view.js";

const PERIOD_MS = 2000;
const PATIENCE_MS = 5000;
const MINUTE_MS = 60_000;
const CLEAR_MS = 100;

// A change of the registry is in force within a second.
const AFTER_CHANGE_MS = [150, 500, 1000];

// More than so many tenants that change at once are counted, not named.
const NAMED = 3;

const panel = new Panel(askSoon, (name) => name !== null && grid.focus(name));
const grid = new Grid(({ tenant }) => (tenant ? panel.openTenant(tenant.name) : panel.openAdd()));
const legend = new Legend();

let latest = null;
let past = [];
let rates = [];
let timer = 0;
let isAsking = false;
let lastHeard = Date.now();

function show(overview) {
  if (latest && overview.time_ms === latest.time_ms) return;
  // The counters of a gateway that was started again begin at zero: so does what is reckoned from them.
  if (latest && overview.requests_total < latest.requests_total) [past, rates, latest] = [[], [], null];
  const perSecond = rate(latest, overview);
  if (perSecond !== null) rates = [...rates, perSecond].slice(-30);
  past = [...past.filter(({ time_ms }) => overview.time_ms - time_ms <= MINUTE_MS + PERIOD_MS), overview];
  const minuteAgo = past.find(({ time_ms }) => overview.time_ms - time_ms >= MINUTE_MS - PERIOD_MS) ?? null;
  grid.draw(overview, busySince(latest, overview));
  legend.draw(overview);
  drawFigures(overview, rates, minuteAgo);
  drawStorage(overview);
  drawRefused(overview);
  tellNews(latest, overview);
  latest = overview;
  panel.update(overview);
}

// Who had requests between two overviews.
function busySince(before, after) {
  if (!before) return new Set();
  const earlier = new Map(before.tenants.map(({ name, requests }) => [name, requests]));
  const isBusy = ({ name, requests, in_flight }) => in_flight > 0 || requests > (earlier.get(name) ?? 0);
  return new Set(after.tenants.filter(isBusy).map(({ name }) => name));
}

// Says what needs somebody, for who does not see the squares.
function tellNews(before, after) {
  if (!before) return;
  const earlier = new Map(before.tenants.map((tenant) => [tenant.name, stateOf(tenant)]));
  const news = [];
  for (const state of ["crashed", "full"]) {
    const names = after.tenants.filter((tenant) => stateOf(tenant) === state && earlier.get(tenant.name) !== state);
    if (names.length > NAMED) news.push(`${names.length} tenants: ${LABELS[state]}`);
    else news.push(...names.map(({ name }) => `${name}: ${LABELS[state]}`));
  }
  if (news.length === 0) return;
  // Text that stays the same is not read out again: it goes, and the page is drawn without it.
  write(element("theNews"), "");
  setTimeout(() => write(element("theNews"), `${news.join(", ")}.`), CLEAR_MS);
}

const PULSES = {
  ok: "Live",
  off: "Live, without the pool: pool.status_listen is off",
  unreachable: "The pool does not answer",
};

function tellPulse(isHeard) {
  const pulse = element("thePulse");
  if (isHeard) lastHeard = Date.now();
  pulse.dataset.health = isHeard && latest.pool !== "unreachable" ? "good" : "bad";
  document.body.classList.toggle("stale", !isHeard);
  if (!isHeard) write(pulse, `The gateway has not answered since ${new Date(lastHeard).toLocaleTimeString("en-GB")}`);
  else write(pulse, PULSES[latest.pool]);
}

async function ask() {
  if (isAsking) return;
  clearTimeout(timer);
  isAsking = true;
  const overview = await fetchOverview();
  isAsking = false;
  if (overview) show(overview);
  tellPulse(overview !== null);
  if (!document.hidden) timer = setTimeout(ask, PERIOD_MS);
}

async function fetchOverview() {
  try {
    const answer = await fetch("/overview", { cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) });
    return answer.ok ? await answer.json() : null;
  } catch {
    return null;
  }
}

function askSoon() {
  for (const delay_ms of AFTER_CHANGE_MS) setTimeout(ask, delay_ms);
}

show(JSON.parse(element("firstOverview").textContent));
tellPulse(true);
performance.mark("drawn");
element("addButton").addEventListener("click", () => panel.openAdd());
addEventListener("hashchange", () => panel.follow());
document.addEventListener("visibilitychange", () => document.hidden || ask());
panel.follow();
timer = setTimeout(ask, PERIOD_MS);
