// Computes and formats what the page shows: states, shares, rates, quantiles. Uses neither the document nor the network.

// In the order of the legend.
export const STATES = [
  { id: "awake", label: "awake", meaning: "its worker runs" },
  { id: "asleep", label: "asleep", meaning: "the next request wakes it" },
  { id: "full", label: "quota nearly used", meaning: "90 % or more; writes beyond the quota are refused" },
  { id: "crashed", label: "crashed", meaning: "its worker crashed; the pool waits before it starts the next one" },
  { id: "suspended", label: "suspended", meaning: "its requests are refused" },
  { id: "reserved", label: "reserved", meaning: "kept for a customer; its requests are refused" },
  { id: "unknown", label: "unknown", meaning: "the pool does not report it" },
  { id: "free", label: "free", meaning: "no tenant" },
];

export const LABELS = Object.fromEntries(STATES.map((state) => [state.id, state.label]));

// The share of the quota that counts as nearly used, as in the alert SqQuotaNearlyUsed.
const NEARLY_USED = 0.9;

export const isNearlyFull = (tenant) => share(tenant) >= NEARLY_USED;

// The most urgent state wins: a crash, then a nearly used quota, then a running worker.
export function stateOf(tenant) {
  if (!tenant) return "free";
  if (tenant.state !== "active") return tenant.state;
  if (tenant.worker === "backing_off") return "crashed";
  if (isNearlyFull(tenant)) return "full";
  if (tenant.worker === "running" || tenant.worker === "stopping") return "awake";
  return tenant.worker === "sleeping" ? "asleep" : "unknown";
}

// The used share of the quota; null without a quota, or if the pool does not report the storage.
export function share(tenant) {
  if (!tenant.quota_bytes || tenant.storage_bytes === null) return null;
  return tenant.storage_bytes / tenant.quota_bytes;
}

// Describes a slot for screen readers and on hover.
export function describe(port, tenant) {
  const parts = [`slot ${port}`];
  if (tenant) parts.push(tenant.name);
  parts.push(LABELS[stateOf(tenant)]);
  const used = tenant ? share(tenant) : null;
  if (used !== null) parts.push(`${percent(used)} of quota`);
  return parts.join(", ");
}

// Requests per second between two overviews; null if unknown.
export function rate(before, after) {
  const seconds = before ? (after.time_ms - before.time_ms) / 1000 : 0;
  const requests = before ? after.requests_total - before.requests_total : 0;
  return seconds > 0 && requests >= 0 ? requests / seconds : null;
}

// The latencies between two overviews; without the first, since the gateway started.
export function latencyBetween(before, after) {
  if (!before) return after.latency;
  const earlier = before.latency;
  return {
    count: after.latency.count - earlier.count,
    buckets: after.latency.buckets.map((bucket, index) => ({
      le_s: bucket.le_s,
      count: bucket.count - (earlier.buckets[index]?.count ?? 0),
    })),
  };
}

// A quantile of the latencies in seconds, computed like Prometheus's histogram_quantile: spread evenly within a bucket.
// Null without requests.
export function quantile(part, latency) {
  if (latency.count <= 0) return null;
  const rank = part * latency.count;
  let [low_s, below] = [0, 0];
  for (const { le_s, count } of latency.buckets) {
    if (count >= rank) return low_s + (le_s - low_s) * ((rank - below) / Math.max(count - below, 1));
    [low_s, below] = [le_s, count];
  }
  return low_s;
}

// Not Intl: its first use takes some milliseconds, which would delay the first paint.
export const number = (value) => value.toFixed(0).replace(/\B(?=(\d{3})+$)/g, ",");
export const short = (value) => (value < 9.95 && value > 0 ? value.toFixed(1) : number(value));

export function percent(part) {
  if (part > 0 && part < 0.01) return "under 1 %";
  return `${number(Math.floor(part * 100))} %`;
}

export function bytes(count) {
  let [value, unit] = [count, 0];
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  while (value >= 1024 && unit < units.length - 1) [value, unit] = [value / 1024, unit + 1];
  return `${unit === 0 ? number(value) : short(value).replace(/\.0$/, "")} ${units[unit]}`;
}

export function duration(seconds) {
  if (seconds === null) return "–";
  return seconds < 1 ? `${short(seconds * 1000)} ms` : `${short(seconds)} s`;
}

export function ago(time_s, now_ms) {
  if (time_s === null) return "never";
  const seconds = Math.max(0, Math.round(now_ms / 1000 - time_s));
  if (seconds < 5) return "just now";
  for (const [unit, size] of [["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]]) {
    const count = Math.floor(seconds / size);
    if (count > 0) return `${count} ${unit}${count > 1 ? "s" : ""} ago`;
  }
  return "just now";
}
