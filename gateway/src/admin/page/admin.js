// The admin API, with the admin's key: asked for once, kept by this tab alone, and never in an address.

const STORED = "sq-admin-key";

export const hasKey = () => sessionStorage.getItem(STORED) !== null;
export const keepKey = (key) => sessionStorage.setItem(STORED, key);
export const forgetKey = () => sessionStorage.removeItem(STORED);

// An answer that is none of 2xx: what went wrong, what to do, and at which field.
export class Problem extends Error {
  constructor(status, { title, detail, code, field } = {}) {
    super(detail ?? title ?? `The gateway answered ${status}.`);
    this.status = status;
    this.code = code;
    this.field = field;
  }
}

async function ask(method, path, body) {
  const headers = { Authorization: `Bearer ${sessionStorage.getItem(STORED) ?? ""}` };
  if (body) headers["Content-Type"] = "application/json";
  let answer;
  try {
    answer = await fetch(path, { method, headers, body: body && JSON.stringify(body), cache: "no-store" });
  } catch {
    throw new Problem(0, { detail: "The gateway does not answer; try again when it runs." });
  }
  const said = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Problem(answer.status, said);
  return said;
}

const path = (name) => `/admin/tenants/${encodeURIComponent(name)}`;

export const tenants = () => ask("GET", "/admin/tenants");
export const tenant = (name) => ask("GET", path(name));
export const addTenant = (terms) => ask("POST", "/admin/tenants/add", terms);
export const setState = (name, state) => ask("PATCH", path(name), { state });
export const rotateKey = (name, terms) => ask("POST", `${path(name)}/keys`, terms);
