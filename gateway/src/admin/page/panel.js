// The panel that shows a tenant's numbers and keys and changes it, or adds a tenant.

import * as admin from "./admin.js";
import { LABELS, ago, bytes, number, percent, share, stateOf } from "./model.js";
import { element, write } from "./view.js";

// The URL fragment of the form that adds a tenant; no tenant can have this name.
const ADD = "/add";

const NUMBERS = ["Slot", "Plan", "Stored", "Requests", "Refused", "In flight", "Last request", "Worker starts", "Crashes"];

const SERVICE = {
  active: { text: "Its requests are served.", button: "Suspend", to: "suspended" },
  suspended: { text: "Its requests are refused with 403. Its data stays.", button: "Activate", to: "active" },
  reserved: { text: "The slot is kept for a customer; its requests are refused with 403.", button: "Activate", to: "active" },
};

export class Panel {
  #dialog = element("thePanel");
  #overview = null;
  #name = null;
  #details = null;
  #rotated = null;
  #values = new Map();
  #changed;
  #closed;

  // Calls `changed` after each change, and `closed` with the tenant's name when the panel closes.
  constructor(changed, closed) {
    [this.#changed, this.#closed] = [changed, closed];
    for (const name of NUMBERS) {
      const row = document.createElement("div");
      const [term, value] = [document.createElement("dt"), document.createElement("dd")];
      term.textContent = name;
      row.append(term, value);
      element("theNumbers").append(row);
      this.#values.set(name, value);
    }
    this.#listen();
    this.#showLock();
  }

  openTenant(name) {
    location.hash = name;
  }

  openAdd() {
    location.hash = ADD;
  }

  // Shows what the URL fragment names.
  follow() {
    if (this.#isBusy()) return history.replaceState(null, "", `#${this.#name ?? ADD}`);
    const fragment = location.hash.slice(1);
    if (fragment === "") return this.#dialog.open && this.#dialog.close();
    this.#name = fragment === ADD ? null : fragment;
    this.#details = null;
    this.#clear();
    this.#fill();
    if (!this.#dialog.open) this.#dialog.showModal();
    this.#focusFirst();
    this.#load();
  }

  // Shows a new overview.
  update(overview) {
    this.#overview = overview;
    if (this.#dialog.open) this.#fill();
  }

  #listen() {
    const on = (id, event, act) => element(id).addEventListener(event, (fired) => {
      fired.preventDefault();
      act();
    });
    on("closeButton", "click", () => this.#dialog.close());
    on("keyForm", "submit", () => this.#unlock());
    on("addForm", "submit", () => this.#add());
    on("rotateForm", "submit", () => this.#rotate());
    on("rotateCancel", "click", () => this.#askGrace(null));
    on("stateButton", "click", () => this.#askState());
    on("stateYes", "click", () => this.#setState("suspended"));
    on("stateNo", "click", () => this.#cancelState());
    on("copyButton", "click", () => this.#copy());
    on("lockButton", "click", () => this.#lock());
    this.#dialog.addEventListener("close", () => this.#close());
    // A click beside the sheet closes it.
    this.#dialog.addEventListener("click", (event) => event.target === this.#dialog && this.#dialog.close());
  }

  // A panel that waits for a response stays open: a key that arrived later would be lost.
  #close() {
    if (this.#isBusy() && !this.#dialog.open) this.#dialog.showModal();
    // The event is asynchronous: the panel may be open again.
    if (this.#dialog.open) return;
    this.#clear();
    if (location.hash) history.replaceState(null, "", location.pathname);
    this.#closed(this.#name);
  }

  #tenant() {
    return this.#overview?.tenants.find((tenant) => tenant.name === this.#name) ?? null;
  }

  // Fills in the overview's values; the keys are loaded with the admin key.
  #fill() {
    const tenant = this.#tenant();
    const isAdding = this.#name === null;
    element("theNumbers").hidden = !tenant;
    element("panelSquare").dataset.state = stateOf(tenant);
    write(element("panelTitle"), isAdding ? "Add a tenant" : this.#name);
    const free = this.#freeSlot();
    const slot = free === null ? "Every slot has a tenant." : `It gets the lowest free slot, ${free}.`;
    write(element("panelSubtitle"), isAdding ? slot : tenant ? LABELS[stateOf(tenant)] : "There is no tenant of this name.");
    if (tenant) this.#fillNumbers(tenant);
    this.#showSections(tenant);
  }

  #fillNumbers(tenant) {
    const used = share(tenant);
    const quota = tenant.quota_bytes === null ? "no quota" : `of ${bytes(tenant.quota_bytes)}`;
    const stored = tenant.storage_bytes === null ? `unknown ${quota}` : `${bytes(tenant.storage_bytes)} ${quota}`;
    const values = {
      Slot: String(tenant.port),
      Plan: tenant.plan ?? "none",
      Stored: used === null ? stored : `${stored} (${percent(used)})`,
      Requests: number(tenant.requests),
      Refused: number(tenant.rejected),
      "In flight": number(tenant.in_flight),
      "Last request": ago(tenant.last_request_s, this.#overview.time_ms),
      "Worker starts": number(tenant.starts),
      Crashes: number(tenant.crashes),
    };
    for (const [name, value] of Object.entries(values)) write(this.#values.get(name), value);
  }

  #showSections(tenant) {
    const [isAdding, hasKey, hasNewKey] = [this.#name === null, admin.hasKey(), !element("newKey").hidden];
    element("keyForm").hidden = hasKey || (!isAdding && !tenant);
    element("addForm").hidden = !hasKey || !isAdding || hasNewKey;
    element("theKeys").hidden = !hasKey || !tenant || !this.#details;
    element("theState").hidden = !hasKey || !tenant;
    if (tenant) {
      write(element("stateText"), SERVICE[tenant.state].text);
      write(element("stateButton"), SERVICE[tenant.state].button);
    }
    const plans = [...new Set(this.#overview?.tenants.map(({ plan }) => plan).filter(Boolean))];
    const known = element("knownPlans");
    if (known.childElementCount !== plans.length) {
      known.replaceChildren(...plans.map((plan) => Object.assign(document.createElement("option"), { value: plan })));
    }
  }

  #freeSlot() {
    if (!this.#overview) return null;
    const taken = new Set(this.#overview.tenants.map(({ port }) => port));
    const { first, last } = this.#overview.slots;
    for (let port = first; port <= last; port += 1) if (!taken.has(port)) return port;
    return null;
  }

  #clear() {
    for (const problem of this.#dialog.querySelectorAll(".problem")) problem.textContent = "";
    for (const input of this.#dialog.querySelectorAll("[aria-invalid]")) input.removeAttribute("aria-invalid");
    element("newKey").hidden = true;
    write(element("newKeyToken"), "");
    write(element("copyResult"), "");
    element("adminKey").value = "";
    element("addForm").reset();
    this.#askGrace(null);
    this.#cancelState();
  }

  // Calls the API, and shows an error at the field that it concerns.
  async #attempt(at, call, fields = {}) {
    for (const id of [at, ...Object.values(fields)]) this.#showProblem(id, "");
    try {
      return await call();
    } catch (problem) {
      if (!(problem instanceof admin.Problem)) throw problem;
      if (problem.status === 401) return this.#refuseKey();
      this.#showProblem(fields[problem.field ?? problem.code] ?? at, problem.message);
      return undefined;
    }
  }

  // The same for a change: one at a time, and the panel stays open until it is done.
  async #change(at, call, fields) {
    if (this.#isBusy()) return undefined;
    this.#dialog.setAttribute("aria-busy", "true");
    try {
      return await this.#attempt(at, call, fields);
    } finally {
      this.#dialog.removeAttribute("aria-busy");
    }
  }

  #isBusy() {
    return this.#dialog.hasAttribute("aria-busy");
  }

  #showProblem(id, message) {
    write(element(`${id}Problem`), message);
    const input = element(id);
    if (!(input instanceof HTMLInputElement)) return;
    if (message) {
      input.setAttribute("aria-invalid", "true");
      input.focus();
      input.select();
    } else {
      input.removeAttribute("aria-invalid");
    }
  }

  #refuseKey() {
    admin.forgetKey();
    this.#showLock();
    this.#fill();
    this.#showProblem("adminKey", "This is not the admin’s key. Its digest is admin_key_sha256 in gateway.toml.");
  }

  async #unlock() {
    const key = element("adminKey").value.trim();
    if (!/^[\x21-\x7e]+$/.test(key)) return this.#showProblem("adminKey", "Enter the admin key.");
    admin.keepKey(key);
    const isValid = await this.#attempt("adminKey", async () => (await admin.tenants(), true));
    if (!isValid) return admin.forgetKey();
    element("adminKey").value = "";
    this.#showLock();
    this.#fill();
    await this.#load();
    this.#focusFirst();
  }

  #lock() {
    admin.forgetKey();
    this.#showLock();
  }

  #showLock() {
    element("lockButton").hidden = !admin.hasKey();
  }

  async #load() {
    const name = this.#name;
    if (!admin.hasKey() || name === null) return;
    const details = await this.#attempt("keys", () => admin.tenant(name));
    if (!details || name !== this.#name) return;
    this.#details = details;
    this.#fillKeys();
    this.#fill();
  }

  #fillKeys() {
    const rows = this.#details.keys.map((key) => {
      const row = document.createElement("li");
      const [id, about, button] = ["code", "span", "button"].map((tag) => document.createElement(tag));
      id.textContent = key.id;
      const scope = key.scope === "read" ? "reads" : "reads and writes";
      const end = key.expired ? "expired" : key.expires && `until ${when(key.expires)}`;
      about.textContent = [scope, end].filter(Boolean).join(", ");
      button.type = "button";
      button.textContent = "Rotate";
      button.hidden = key.expired;
      button.setAttribute("aria-label", `Rotate key ${key.id}`);
      button.addEventListener("click", () => this.#askGrace(key.id));
      row.append(id, about, button);
      return row;
    });
    element("keyList").replaceChildren(...rows);
  }

  // Asks how long the old key stays valid.
  #askGrace(id) {
    this.#rotated = id;
    element("rotateForm").reset();
    element("rotateForm").hidden = id === null;
    if (id === null) return;
    write(element("rotateLabel"), `A new key replaces ${id}, which stops working`);
    element("rotateGrace").focus();
  }

  async #rotate() {
    const grace_s = Number(element("rotateGrace").value);
    const options = { replaces: this.#rotated, ...(grace_s > 0 && { grace_s }) };
    const made = await this.#change("keys", () => admin.rotateKey(this.#name, options));
    if (!made) return;
    this.#askGrace(null);
    this.#showNewKey(made);
    this.#changed();
    await this.#load();
  }

  async #add() {
    const name = element("addName").value.trim();
    const [plan, quota] = [element("addPlan").value.trim(), element("addQuota").value.trim()];
    if (!name) return this.#showProblem("addName", "A tenant needs a name.");
    if (quota && !/^[0-9]{1,15}$/.test(quota)) return this.#showProblem("addQuota", "A whole number of MiB, or nothing.");
    const options = { name, ...(plan && { plan }), ...(quota && { quota_mb: Number(quota) }) };
    const fields = { name: "addName", tenant_exists: "addName", plan: "addPlan", quota_mb: "addQuota" };
    const made = await this.#change("add", () => admin.addTenant(options), fields);
    if (!made) return;
    this.#showNewKey(made);
    this.#changed();
    await this.#load();
  }

  // Focuses the visible form's first field, or the title.
  #focusFirst() {
    const input = ["adminKey", "addName"].map(element).find((field) => field.checkVisibility());
    (input ?? element("panelTitle")).focus();
  }

  // Switches the panel to the tenant with the new key.
  #showNewKey(made) {
    this.#name = made.name;
    history.replaceState(null, "", `#${made.name}`);
    if (!this.#dialog.open) this.#dialog.showModal();
    write(element("newKeyTitle"), `The new key of ${made.name}`);
    write(element("newKeyToken"), made.key);
    element("newKey").hidden = false;
    this.#fill();
    element("copyButton").focus();
  }

  async #copy() {
    const token = element("newKeyToken");
    try {
      await navigator.clipboard.writeText(token.textContent);
      write(element("copyResult"), "Copied.");
    } catch {
      getSelection().selectAllChildren(token);
      write(element("copyResult"), "The browser does not let this page copy. The key is selected: press Ctrl-C.");
    }
  }

  #askState() {
    const service = SERVICE[this.#tenant()?.state];
    if (!service) return undefined;
    if (service.to === "active") return this.#setState("active");
    element("stateButton").hidden = true;
    element("stateConfirm").hidden = false;
    element("stateYes").focus();
    return undefined;
  }

  #cancelState() {
    const hadFocus = element("stateConfirm").contains(document.activeElement);
    element("stateConfirm").hidden = true;
    element("stateButton").hidden = false;
    if (hadFocus) element("stateButton").focus();
  }

  async #setState(state) {
    const changed = await this.#change("state", () => admin.setState(this.#name, state));
    if (!changed) return;
    this.#cancelState();
    this.#changed();
  }
}

function when(text) {
  const time = new Date(text);
  return Number.isNaN(time.getTime()) ? text : time.toLocaleString("en", { dateStyle: "medium", timeStyle: "short" });
}
