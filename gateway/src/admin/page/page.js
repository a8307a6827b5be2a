// Polls the overview every two seconds, and passes it to the parts that draw it.

import { LABELS, rate, stateOf } from "./model.js";
import { Panel } from "./panel.js";
import { Grid, Legend, drawFigures, drawRefused, drawStorage, element, write } from "./view.js";

const PERIOD_MS = 2000;
const TIMEOUT_MS = 5000;
const MINUTE_MS = 60_000;

// Screen readers do not read the same text again, so the announcement is cleared, and set after this pause.
const CLEAR_MS = 100;

// When to poll after a change of the registry, which takes effect within a second.
const AFTER_CHANGE_MS = [150, 500, 1000];

// If more tenants change state at once, they are counted instead of named.
const NAMED_TENANTS = 3;

const panel = new Panel(pollSoon, (name) => name !== null && grid.focus(name));
const grid = new Grid(({ tenant }) => (tenant ? panel.openTenant(tenant.name) : panel.openAdd()));
const legend = new Legend();

let latest = null;
let past = [];
let rates = [];
let timer = 0;
let isPolling = false;
let lastResponseMs = Date.now();

function show(overview) {
  if (latest && overview.time_ms === latest.time_ms) return;
  // The counters of a restarted gateway begin at zero: discard what was computed from the old ones.
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
  announce(latest, overview);
  latest = overview;
  panel.update(overview);
}

// The names of tenants with requests between two overviews.
function busySince(before, after) {
  if (!before) return new Set();
  const earlier = new Map(before.tenants.map(({ name, requests }) => [name, requests]));
  const isBusy = ({ name, requests, in_flight }) => in_flight > 0 || requests > (earlier.get(name) ?? 0);
  return new Set(after.tenants.filter(isBusy).map(({ name }) => name));
}

// Announces tenants that need attention to screen readers.
function announce(before, after) {
  if (!before) return;
  const earlier = new Map(before.tenants.map((tenant) => [tenant.name, stateOf(tenant)]));
  const changes = [];
  for (const state of ["crashed", "full"]) {
    const names = after.tenants.filter((tenant) => stateOf(tenant) === state && earlier.get(tenant.name) !== state);
    if (names.length > NAMED_TENANTS) changes.push(`${names.length} tenants: ${LABELS[state]}`);
    else changes.push(...names.map(({ name }) => `${name}: ${LABELS[state]}`));
  }
  if (changes.length === 0) return;
  write(element("theNews"), "");
  setTimeout(() => write(element("theNews"), `${changes.join(", ")}.`), CLEAR_MS);
}

const CONNECTION = {
  ok: "Live",
  off: "Live, without the pool: pool.status_listen is off",
  unreachable: "The pool does not respond",
};

function showConnection(hasResponse) {
  const pulse = element("thePulse");
  if (hasResponse) lastResponseMs = Date.now();
  pulse.dataset.health = hasResponse && latest.pool !== "unreachable" ? "good" : "bad";
  document.body.classList.toggle("stale", !hasResponse);
  if (!hasResponse) write(pulse, `The gateway has not responded since ${new Date(lastResponseMs).toLocaleTimeString("en-GB")}`);
  else write(pulse, CONNECTION[latest.pool]);
}

async function poll() {
  if (isPolling) return;
  clearTimeout(timer);
  isPolling = true;
  const overview = await fetchOverview();
  isPolling = false;
  if (overview) show(overview);
  showConnection(overview !== null);
  if (!document.hidden) timer = setTimeout(poll, PERIOD_MS);
}

async function fetchOverview() {
  try {
    const response = await fetch("/overview", { cache: "no-store", signal: AbortSignal.timeout(TIMEOUT_MS) });
    return response.ok ? await response.json() : null;
  } catch {
    return null;
  }
}

function pollSoon() {
  for (const delay_ms of AFTER_CHANGE_MS) setTimeout(poll, delay_ms);
}

show(JSON.parse(element("firstOverview").textContent));
showConnection(true);
performance.mark("drawn");
element("addButton").addEventListener("click", () => panel.openAdd());
addEventListener("hashchange", () => panel.follow());
document.addEventListener("visibilitychange", () => document.hidden || poll());
panel.follow();
timer = setTimeout(poll, PERIOD_MS);
