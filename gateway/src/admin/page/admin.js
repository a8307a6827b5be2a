// Calls the admin API with the admin key, which only this tab keeps, and which is never part of a URL.

const STORED = "sq-admin-key";

export const hasKey = () => sessionStorage.getItem(STORED) !== null;
export const keepKey = (key) => sessionStorage.setItem(STORED, key);
export const forgetKey = () => sessionStorage.removeItem(STORED);

// A response that is not 2xx, or none at all.
export class Problem extends Error {
  constructor(status, { title, detail, code, field } = {}) {
    super(detail ?? title ?? `The gateway answered with status ${status}.`);
    this.status = status;
    this.code = code;
    this.field = field;
  }
}

async function call(method, path, body) {
  const headers = { Authorization: `Bearer ${sessionStorage.getItem(STORED) ?? ""}` };
  if (body) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(path, { method, headers, body: body && JSON.stringify(body), cache: "no-store" });
  } catch {
    throw new Problem(0, { detail: "The gateway does not respond; try again when it runs." });
  }
  const content = await response.json().catch(() => ({}));
  if (!response.ok) throw new Problem(response.status, content);
  return content;
}

const path = (name) => `/admin/tenants/${encodeURIComponent(name)}`;

export const tenants = () => call("GET", "/admin/tenants");
export const tenant = (name) => call("GET", path(name));
export const addTenant = (options) => call("POST", "/admin/tenants/add", options);
export const setState = (name, state) => call("PATCH", path(name), { state });
export const rotateKey = (name, options) => call("POST", `${path(name)}/keys`, options);
