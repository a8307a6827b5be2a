// Draws an overview. Nodes are created once, and an update writes only what differs, so nothing flickers, moves or loses
// the focus. Text is inserted as text, never as markup.

import {
  STATES, bytes, describe, duration, isNearlyFull, latencyBetween, number, percent, quantile, share, short, stateOf,
} from "./model.js";

const RANKS = 8;

export const element = (id) => document.getElementById(id);

export function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function mark(node, name, value) {
  if (node.getAttribute(name) !== value) node.setAttribute(name, value);
}

function make(tag, className, parent) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  parent?.append(node);
  return node;
}

// The squares, one per slot. The tab key reaches one of them; the arrow keys move between them.
export class Grid {
  #list = element("theGrid");
  #reading = element("theReading");
  #slots = [];
  #pointed = null;
  #open;

  constructor(open) {
    this.#open = open;
    this.#list.addEventListener("keydown", (event) => this.#move(event));
    this.#list.addEventListener("click", (event) => this.#choose(event.target));
    this.#list.addEventListener("focusin", (event) => this.#point(event.target));
    this.#list.addEventListener("pointerover", (event) => this.#read(event.target));
    this.#list.addEventListener("pointerleave", () => this.#read(this.#list.querySelector("[tabindex='0']")));
  }

  draw(overview, busy) {
    const { first, last } = overview.slots;
    if (this.#slots.length !== last - first + 1 || this.#slots[0]?.port !== first) this.#build(first, last);
    const byPort = new Map(overview.tenants.map((tenant) => [tenant.port, tenant]));
    for (const slot of this.#slots) {
      slot.tenant = byPort.get(slot.port) ?? null;
      mark(slot.square, "data-state", stateOf(slot.tenant));
      mark(slot.square, "aria-label", describe(slot.port, slot.tenant));
      slot.square.toggleAttribute("data-busy", busy.has(slot.tenant?.name));
    }
    this.#read(this.#pointed);
  }

  focus(name) {
    this.#slots.find((slot) => slot.tenant?.name === name)?.square.focus();
  }

  #build(first, last) {
    this.#list.replaceChildren();
    this.#slots = [];
    for (let port = first; port <= last; port += 1) {
      const item = make("li", "", this.#list);
      item.dataset.port = port;
      const square = make("button", "square", item);
      square.type = "button";
      square.tabIndex = port === first ? 0 : -1;
      this.#slots.push({ port, square, tenant: null });
    }
    this.#read(this.#slots[0]?.square);
  }

  #slotOf(square) {
    return this.#slots.find((slot) => slot.square === square);
  }

  #choose(square) {
    const slot = this.#slotOf(square);
    if (slot) this.#open(slot);
  }

  #point(square) {
    if (!this.#slotOf(square)) return;
    const previous = this.#list.querySelector("[tabindex='0']");
    if (previous) previous.tabIndex = -1;
    square.tabIndex = 0;
    this.#read(square);
  }

  #read(square) {
    const slot = this.#slotOf(square);
    if (!slot) return;
    this.#pointed = square;
    write(this.#reading, describe(slot.port, slot.tenant));
  }

  #move(event) {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const columns = getComputedStyle(this.#list).gridTemplateColumns.split(" ").length;
    const at = this.#slots.findIndex((slot) => slot.square === event.target);
    const end = this.#slots.length - 1;
    const row = at - (at % columns);
    const target = {
      ArrowLeft: at - 1, ArrowRight: at + 1, ArrowUp: at - columns, ArrowDown: at + columns,
      Home: event.shiftKey ? 0 : row, End: event.shiftKey ? end : Math.min(row + columns - 1, end),
      PageUp: at % columns, PageDown: Math.min(end - (end % columns) + (at % columns), end),
    }[event.key];
    if (at < 0 || target === undefined) return;
    event.preventDefault();
    this.#slots[target]?.square.focus();
  }
}

// The states, and how many slots have each.
export class Legend {
  #entries = STATES.map((state) => {
    const entry = make("li", "", element("theLegend"));
    entry.title = state.meaning;
    make("span", "square", entry).dataset.state = state.id;
    make("span", "", entry).textContent = state.label;
    return { id: state.id, entry, count: make("b", "", entry) };
  });

  draw(overview) {
    const counts = new Map();
    for (const tenant of overview.tenants) {
      const state = stateOf(tenant);
      counts.set(state, (counts.get(state) ?? 0) + 1);
    }
    const { first, last } = overview.slots;
    const inRange = overview.tenants.filter(({ port }) => port >= first && port <= last).length;
    counts.set("free", last - first + 1 - inRange);
    for (const { id, entry, count } of this.#entries) {
      write(count, number(counts.get(id) ?? 0));
      entry.classList.toggle("empty", !counts.get(id));
      if (id === "unknown") entry.hidden = !counts.get(id);
    }
  }
}

// The entries with the largest values, each with a bar. Rows are reused.
class Ranks {
  #rows;
  #list;
  #none;

  constructor(list, none) {
    [this.#list, this.#none] = [list, none];
    this.#rows = Array.from({ length: RANKS }, () => {
      const row = make("li", "", list);
      const [name, value, bar] = [make("span", "name", row), make("span", "value", row), make("div", "bar", row)];
      return { row, name, value, bar: make("i", "", bar) };
    });
  }

  draw(entries) {
    this.#none.hidden = entries.length > 0;
    this.#list.hidden = entries.length === 0;
    this.#rows.forEach(({ row, name, value, bar }, rank) => {
      const entry = entries[rank];
      row.hidden = !entry;
      if (!entry) return;
      write(name, entry.name);
      write(value, entry.value);
      fill(bar, entry.part);
      bar.classList.toggle("full", entry.isFull);
    });
  }
}

export function fill(bar, part) {
  const width = `${(Math.min(part ?? 0, 1) * 100).toFixed(1)}%`;
  if (bar.style.getPropertyValue("--part") !== width) bar.style.setProperty("--part", width);
}

const storage = new Ranks(element("storageRanks"), element("storageNone"));
const refused = new Ranks(element("refusedRanks"), element("refusedNone"));

export function drawStorage(overview) {
  const holders = overview.tenants.filter((tenant) => tenant.storage_bytes > 0);
  holders.sort((one, other) => other.storage_bytes - one.storage_bytes);
  const entry = (tenant) => {
    const quota = tenant.quota_bytes === null ? "" : ` of ${bytes(tenant.quota_bytes)}`;
    return { name: tenant.name, value: bytes(tenant.storage_bytes) + quota, part: share(tenant), isFull: isNearlyFull(tenant) };
  };
  write(element("storageNone"), overview.pool === "ok" ? "Nothing is stored yet." : "The pool does not report it.");
  storage.draw(holders.slice(0, RANKS).map(entry));
}

export function drawRefused(overview) {
  const reasons = Object.entries(overview.rejected).sort(([, one], [, other]) => other - one);
  const total = reasons.reduce((sum, [, count]) => sum + count, 0);
  const of = overview.requests_total > 0 ? `, ${percent(total / overview.requests_total)} of all` : "";
  write(element("refusedTotal"), total > 0 ? `${number(total)} since the start${of}` : "");
  refused.draw(reasons.slice(0, RANKS).map(([code, count]) =>
    ({ name: code.replaceAll("_", " "), value: number(count), part: count / total, isFull: false })));
}

// The figures at the top. `minuteAgo` is the overview of a minute ago, if there is one.
export function drawFigures(overview, rates, minuteAgo) {
  const all = overview.slots.last - overview.slots.first + 1;
  write(element("theVersion"), overview.version);
  write(element("claimedCount"), number(overview.tenants.length));
  write(element("claimedOf"), `of ${number(all)}`);
  fill(element("claimedBar"), overview.tenants.length / all);
  const latest = rates.at(-1);
  write(element("requestRate"), latest === undefined ? "–" : short(latest));
  drawTrace(rates);
  const latency = latencyBetween(minuteAgo, overview);
  write(element("latencyHalf"), duration(quantile(0.5, latency)));
  write(element("latencyMost"), duration(quantile(0.99, latency)));
  write(element("latencyWindow"), minuteAgo ? "in the last minute" : "since the start");
  write(element("connectionCount"), number(overview.connections));
  write(element("requestTotal"), `${number(overview.requests_total)} ${overview.requests_total === 1 ? "request" : "requests"} since the start`);
}

function drawTrace(rates) {
  const top = Math.max(...rates, 1);
  const step = 120 / 29;
  const start = 120 - (rates.length - 1) * step;
  const points = rates.map((rate, index) => `${(start + index * step).toFixed(1)},${(22.5 - (rate / top) * 21).toFixed(1)}`);
  mark(element("requestTrace").firstElementChild, "points", points.join(" "));
}
