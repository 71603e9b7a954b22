// Live metrics: reads /metrics every two seconds while the page is visible.

import { metricsText } from "./api.js";
import { el, svg } from "./dom.js";
import { duration, percent, whole } from "./format.js";
import { growth, meanBetween, parseMetrics, quantileBetween, total } from "./prometheus.js";

const PERIOD = 2000;
const WINDOW = 30;
const KEPT = 60;
const TOTAL = { phase: "total" };

const latency = (share) => ({ before, after }) => quantileBetween(before, after, "hedgerow_phase_seconds", share, TOTAL);

const latencyText = (quantile) => (quantile.isBound ? "> " : "") + duration(quantile.value);

// A histogram, or a gauge.
function validRatio({ before, after }) {
  return meanBetween(before, after, "hedgerow_num_valid_ratio") ?? total(after, "hedgerow_num_valid_ratio");
}

const TILES = [
  // The counter appears with the first request.
  ["Requests", ({ before, after, seconds }) => (growth(before, after, "hedgerow_requests_total") ?? 0) / seconds, (value) => `${value >= 10 ? value.toFixed(0) : value.toFixed(1)}/s`, "requests per second"],
  ["p50", latency(0.5), latencyText, "half of the requests were faster"],
  ["p99", latency(0.99), latencyText, "99 % of the requests were faster"],
  ["Batch size", ({ before, after }) => meanBetween(before, after, "hedgerow_batch_size"), (value) => value.toFixed(1), "requests per batch, mean"],
  ["Queue", ({ after }) => total(after, "hedgerow_queue_length"), whole, "requests that wait now"],
  ["Shed", ({ before, after }) => growth(before, after, "hedgerow_shed_total"), whole, "requests refused because of load"],
  ["Valid beams", validRatio, percent, "beams that end at an item"],
  ["Version", ({ after }) => total(after, "hedgerow_index_version") || null, String, "of the index, now"],
];

const plain = (value) => (value !== null && typeof value === "object" ? value.value : value);

/** A sparkline. Readings without a value are gaps. */
export function sparkline(values) {
  const known = values.filter(Number.isFinite);
  const [width, height] = [96, 24];
  const root = svg("svg", { class: "spark", viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true", focusable: "false", preserveAspectRatio: "none" });
  if (!known.length) return root;
  const top = Math.max(...known, 0);
  const bottom = Math.min(...known, 0);
  const x = (row) => width - 1 - (values.length - 1 - row) * ((width - 2) / (KEPT - 1));
  const y = (value) => height - 3 - ((value - bottom) / (top - bottom || 1)) * (height - 6);
  let line = "";
  values.forEach((value, row) => {
    if (!Number.isFinite(value)) return;
    line += `${Number.isFinite(values[row - 1]) ? "L" : "M"}${x(row).toFixed(1)} ${y(value).toFixed(1)}`;
    if (!Number.isFinite(values[row - 1]) && !Number.isFinite(values[row + 1])) line += "h.01";
  });
  root.append(svg("path", { d: line, "vector-effect": "non-scaling-stroke" }));
  return root;
}

export class Metrics {
  constructor(list, note) {
    Object.assign(this, { list, note, readings: [], timer: null });
    this.tiles = TILES.map(([name, read, text, help]) => {
      const value = el("dd", { class: "value" }, "–");
      const spark = el("dd", { class: "line", "aria-hidden": "true" });
      list.append(el("div", { title: help }, el("dt", {}, name, el("span", { class: "unseen" }, `: ${help}`)), value, spark));
      return { read, text, value, spark, history: [] };
    });
    document.addEventListener("visibilitychange", () => this._schedule(0));
    this._schedule(0);
  }

  _schedule(delay) {
    clearTimeout(this.timer);
    if (!document.hidden) this.timer = setTimeout(() => this._poll(), delay);
  }

  async _poll() {
    try {
      this._add({ time: performance.now(), metrics: parseMetrics(await metricsText()) });
      this.note.textContent = `Over the last ${WINDOW} seconds; read every ${PERIOD / 1000} seconds.`;
    } catch (error) {
      this.note.textContent = `Not available: ${error.message}`;
    }
    this._schedule(PERIOD);
  }

  _add(reading) {
    const last = this.readings.at(-1);
    // A counter that went back: the server was restarted.
    if (last && growth(last.metrics, reading.metrics, "hedgerow_requests_total") < 0) this.readings = [];
    this.readings.push(reading);
    while (this.readings.length > 2 && reading.time - this.readings[1].time >= WINDOW * 1000) this.readings.shift();
    const first = this.readings[0];
    const seconds = (reading.time - first.time) / 1000;
    const pair = { before: first.metrics, after: reading.metrics, seconds };
    for (const tile of this.tiles) {
      const value = seconds ? tile.read(pair) : null;
      const known = value !== null && Number.isFinite(plain(value));
      tile.value.textContent = known ? tile.text(value) : "–";
      tile.history = [...tile.history, known ? plain(value) : null].slice(-KEPT);
      if (tile.text !== String) tile.spark.replaceChildren(sparkline(tile.history));
    }
  }
}
