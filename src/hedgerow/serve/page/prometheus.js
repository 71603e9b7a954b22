// The text format of Prometheus, and what the page computes from two readings of it.

const SAMPLE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)(?:\s+-?\d+)?$/;
const LABEL = /([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"/g;
const ESCAPES = { "\\n": "\n", "\\\\": "\\", '\\"': '"' };

function numberOf(text) {
  return { "+Inf": Infinity, "-Inf": -Infinity }[text] ?? Number(text);
}

/** Parse the text: a Map from a name to its samples, [{ labels, value }]. */
export function parseMetrics(text) {
  const metrics = new Map();
  for (const line of text.split("\n")) {
    const [, name, labelText, value] = (line.startsWith("#") ? null : SAMPLE.exec(line.trim())) ?? [];
    if (!name) continue;
    const labels = {};
    for (const [, label, raw] of (labelText ?? "").matchAll(LABEL)) {
      labels[label] = raw.replace(/\\[n\\"]/g, (escaped) => ESCAPES[escaped]);
    }
    if (!metrics.has(name)) metrics.set(name, []);
    metrics.get(name).push({ labels, value: numberOf(value) });
  }
  return metrics;
}

const matches = (labels, wanted) => Object.entries(wanted).every(([name, value]) => labels[name] === value);

/** The sum of the samples with some labels, or null if there are none. */
export function total(metrics, name, wanted = {}) {
  const samples = (metrics.get(name) ?? []).filter(({ labels }) => matches(labels, wanted));
  return samples.length ? samples.reduce((sum, { value }) => sum + value, 0) : null;
}

/** How much a counter has grown between two readings; null if it is missing. */
export function growth(before, after, name, wanted) {
  const value = total(after, name, wanted);
  return value === null ? null : value - (total(before, name, wanted) ?? 0);
}

/** The mean of the values that a histogram or summary has counted between two readings, or null. */
export function meanBetween(before, after, name, wanted) {
  const count = growth(before, after, `${name}_count`, wanted);
  return count > 0 ? growth(before, after, `${name}_sum`, wanted) / count : null;
}

/**
 * A quantile of the values that a histogram has counted between two readings, as Prometheus computes it: linear in a
 * bucket. Returns { value, isBound }: a value beyond the last bound is that bound. Null if there are no values.
 */
export function quantileBetween(before, after, name, share, wanted = {}) {
  const counts = new Map();
  for (const { labels, value } of after.get(`${name}_bucket`) ?? []) {
    if (matches(labels, wanted)) counts.set(numberOf(labels.le), (counts.get(numberOf(labels.le)) ?? 0) + value);
  }
  for (const { labels, value } of before.get(`${name}_bucket`) ?? []) {
    if (matches(labels, wanted)) counts.set(numberOf(labels.le), (counts.get(numberOf(labels.le)) ?? 0) - value);
  }
  const buckets = [...counts].sort(([a], [b]) => a - b);
  const all = buckets.at(-1)?.[1] ?? 0;
  if (!(all > 0)) return null;
  const target = share * all;
  const row = buckets.findIndex(([, count]) => count >= target);
  const [bound, count] = buckets[row];
  const [low, below] = row ? buckets[row - 1] : [0, 0];
  if (bound === Infinity) return { value: low, isBound: true };
  return { value: count > below ? low + ((bound - low) * (target - below)) / (count - below) : bound, isBound: false };
}
