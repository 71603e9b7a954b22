// The beam as a tree: an SVG with a column per level, and the text of each beam.

import { el, svg } from "./dom.js";
import { percent, prefixText, score, trimmed, whole } from "./format.js";
import { heights, labelPlaces } from "./layout.js";
import { maskSentence } from "./tables.js";

const HEAD = 68;
const FOOT = 10;
const LEFT = 40;
// The most and the least width of the names of items, and the least width of a level.
const LABELS = 158;
const MIN_LABELS = 100;
const MIN_STEP = 48;
// A pointer shows the nearest beam within this distance.
const REACH = 18;

const key = (codes) => codes.join("-");

/** A beam in a sentence. */
export function describeBeam(beam, level, sizes, names) {
  const fate = level.isLast ? "finished" : beam.survives ? "in a finished beam" : "cut at a later level";
  const named = names.length ? `, ${names.join("; ")}` : "";
  return `${prefixText(beam.prefix, sizes)}${named}, level ${level.level}, rank ${whole(beam.rank)}, ` +
    `probability ${percent(beam.probability)}, score ${score(beam.score)}, ${fate}`;
}

export class BeamTree {
  /** `pointed(beam)` is called with the beam that the pointer or the focus is at, or null; `picked(beam)` on Enter. */
  constructor(root, { sizes, pointed, picked }) {
    Object.assign(this, { root, sizes, pointed, picked, levels: [], names: new Map(), marked: null, test: null });
    this.hint = el("div", { class: "hint", "aria-hidden": "true", hidden: true });
    this.picture = null;
    this._listen(root);
    let drawn = 0;
    new ResizeObserver(([{ contentRect }]) => {
      if (this.levels.length && Math.abs(contentRect.width - drawn) > 4) this.draw();
      drawn = contentRect.width;
    }).observe(root);
  }

  /** Show the levels of a trace, and the names of the items of its finished beams. */
  show(levels, items, nameOf) {
    this.levels = levels.map((level, number) => ({ ...level, isLast: number === levels.length - 1 }));
    this.names = new Map();
    items.forEach((item, number) => {
      const own = key(item.sid);
      this.names.set(own, [...(this.names.get(own) ?? []), { rank: number + 1, name: nameOf(item) }]);
    });
    Object.assign(this, { marked: null, test: null });
    this.draw();
  }

  clear() {
    this.levels = [];
    this.root.replaceChildren();
  }

  /** Mark the path of a SID that left the beam at a level: { sid, level, label }, or null. */
  mark(marked) {
    this.marked = marked;
    if (this.levels.length) this.draw();
  }

  _namesOf(beam, level) {
    const own = level.isLast ? this.names.get(key(trimmed(beam.prefix, this.sizes))) : null;
    return (own ?? []).map(({ rank, name }) => `item ${rank}: ${name}`);
  }

  draw() {
    const most = Math.max(...this.levels.map((level) => level.beams.length), 1);
    const body = Math.min(Math.max(most * 9.4, 240), 1000);
    const places = heights(this.levels, body);
    const least = LEFT + MIN_STEP * this.levels.length;
    const labels = this.names.size ? Math.min(Math.max(this.root.clientWidth - least, MIN_LABELS), LABELS) : 16;
    const width = Math.max(this.root.clientWidth, least + labels);
    const step = (width - LEFT - labels) / this.levels.length;
    this.spots = this.levels.map((level, number) => level.beams.map((beam, row) =>
      ({ beam, level, number, row, x: LEFT + (number + 1) * step, y: HEAD + places[number][row], node: null, edge: null })));
    const spacing = body / most;
    const edges = svg("g", { class: "edges" });
    const nodes = svg("g", { class: "nodes" });
    const start = { x: LEFT - 22, y: HEAD + body / 2 };
    for (const level of this.spots) this._drawLevel(level, start, spacing, edges, nodes);
    const focused = this.root.contains(document.activeElement);
    this.picture = svg("svg", {
      viewBox: `0 0 ${width} ${HEAD + body + FOOT}`, width, height: HEAD + body + FOOT, role: "tree",
      "aria-label": "The beams of each level. Left and right move between levels, up and down within a level.",
    },
    ...this.levels.map((level, number) => drawHead(level, LEFT + number * step + 8, step - 16)),
    edges,
    svg("g", { class: "start" },
      svg("circle", { cx: start.x, cy: start.y, r: 4 }),
      svg("text", { transform: `translate(8 ${start.y}) rotate(-90)`, "text-anchor": "middle" }, "prompt")),
    nodes, this._labels(body, width), this._mark(start));
    this.root.replaceChildren(this.picture, this.hint);
    this.highlight(this.test);
    if (focused) this.picture.querySelector("[tabindex='0']")?.focus();
  }

  _drawLevel(spots, start, spacing, edges, nodes) {
    const most = Math.max(...spots.map(({ beam }) => beam.probability), Number.MIN_VALUE);
    const best = spots[0]?.level.isLast ? spots.find(({ beam }) => beam.rank === 1) : null;
    // Cut beams first, so that the others are above them.
    for (const spot of [...spots].sort((a, b) => a.beam.survives - b.beam.survives)) {
      const { beam, level } = spot;
      const from = spot.number ? this.spots[spot.number - 1][beam.parent] : start;
      const bend = (spot.x - from.x) / 2;
      const share = Math.sqrt(beam.probability / most);
      const kind = beam.survives ? "kept" : "cut";
      const thickness = beam.survives ? 0.9 + 3.6 * share : 0.8 + 1.2 * share;
      spot.edge = svg("path", {
        class: kind, d: `M${from.x} ${from.y}C${from.x + bend} ${from.y} ${spot.x - bend} ${spot.y} ${spot.x} ${spot.y}`,
        "stroke-width": Math.min(thickness, Math.max(0.7, spacing * 0.7)).toFixed(2),
        opacity: (beam.survives ? 0.4 + 0.6 * share : 0.45 + 0.4 * share).toFixed(2),
      });
      spot.node = svg("g", {
        class: kind, role: "treeitem", tabindex: spot === best ? 0 : -1, "aria-level": spot.number + 1,
        "aria-label": describeBeam(beam, level, this.sizes, this._namesOf(beam, level)), "aria-selected": "false",
      }, svg("circle", { cx: spot.x, cy: spot.y, r: Math.min(beam.survives ? 3.2 : 2.4, spacing / 2.4).toFixed(2) }));
      spot.node.spot = spot;
      edges.append(spot.edge);
    }
    // In the order of the prefixes, which is that of the keys.
    nodes.append(...spots.map(({ node }) => node));
  }

  /** The ranks and names of the items, beside their beams. */
  _labels(body, width) {
    const group = svg("g", { class: "labels", "aria-hidden": "true" });
    const named = (this.spots.at(-1) ?? []).map((spot) => [spot, this.names.get(key(trimmed(spot.beam.prefix, this.sizes)))])
      .filter(([, own]) => own);
    const places = labelPlaces(named.map(([spot]) => spot.y - HEAD), 15, body);
    named.forEach(([spot, own], number) => {
      const y = HEAD + places[number];
      const x = spot.x + 18;
      const letters = Math.floor((width - x - 26) / 6.1);
      const name = own.map((one) => one.name).join("; ");
      const label = svg("g", {},
        svg("path", { d: `M${spot.x + 4} ${spot.y}L${x - 2} ${y}` }),
        svg("text", { x, y: y + 4 }, svg("tspan", { class: "rank" }, own.map(({ rank }) => rank).join(", ")), " ",
          name.length > letters ? `${name.slice(0, letters - 1).trimEnd()}…` : name));
      Object.assign(spot, { label, labelX: x, labelY: y });
      group.append(label);
    });
    return group;
  }

  /** A dashed line to where the marked prefix left the beam. */
  _mark(start) {
    const group = svg("g", { class: "mark", "aria-hidden": "true" });
    if (!this.marked) return group;
    let from = start;
    for (let number = 0; number < this.spots.length; number += 1) {
      const prefix = this.marked.sid.slice(0, number + 1);
      const spots = this.spots[number];
      const found = spots.find(({ beam }) => key(beam.prefix) === key(prefix));
      const lost = number === this.marked.level || !found;
      const to = lost ? { x: spots[0]?.x ?? from.x, y: between(spots, prefix) } : found;
      const bend = (to.x - from.x) / 2;
      group.append(svg("path", { d: `M${from.x} ${from.y}C${from.x + bend} ${from.y} ${to.x - bend} ${to.y} ${to.x} ${to.y}` }));
      if (lost) {
        group.append(svg("path", { class: "cross", d: `M${to.x - 5} ${to.y - 5}l10 10m0 -10l-10 10` }),
          svg("text", { x: to.x + 9, y: to.y + 4 }, this.marked.label));
        return group;
      }
      from = to;
    }
    return group;
  }

  // On the frame: Chromium would let the Tab key stop at an SVG that listens for focus.
  _listen(frame) {
    frame.addEventListener("pointermove", (event) => this._point(this._nearest(event)));
    frame.addEventListener("pointerleave", () => this._point(null));
    frame.addEventListener("click", (event) => {
      const spot = this._nearest(event);
      if (spot) this.picked(spot.beam);
    });
    frame.addEventListener("focusin", (event) => {
      const spot = event.target.closest("[role=treeitem]")?.spot ?? null;
      if (spot) {
        for (const node of this.picture.querySelectorAll("[tabindex='0']")) node.setAttribute("tabindex", -1);
        spot.node.setAttribute("tabindex", 0);
      }
      this._point(spot);
    });
    frame.addEventListener("focusout", () => this._point(null));
    frame.addEventListener("keydown", (event) => this._key(event));
  }

  _nearest(event) {
    if (!this.levels.length) return null;
    const box = this.picture.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    let best = null;
    let least = REACH ** 2;
    for (const spot of this.spots.flat()) {
      const onLabel = spot.label && x >= spot.labelX - 4 && Math.abs(spot.labelY - y) < 8;
      const distance = onLabel ? 0 : (spot.x - x) ** 2 + (spot.y - y) ** 2;
      if (distance < least) [best, least] = [spot, distance];
    }
    return best;
  }

  _key(event) {
    const spot = event.target.closest("[role=treeitem]")?.spot;
    if (!spot) return;
    const level = this.spots[spot.number];
    const children = (this.spots[spot.number + 1] ?? []).filter(({ beam }) => beam.parent === spot.row);
    const next = {
      ArrowUp: () => level[spot.row - 1],
      ArrowDown: () => level[spot.row + 1],
      ArrowLeft: () => this.spots[spot.number - 1]?.[spot.beam.parent],
      ArrowRight: () => children.sort((a, b) => a.beam.rank - b.beam.rank)[0],
      Home: () => level[0],
      End: () => level.at(-1),
    }[event.key];
    if (next) next()?.node.focus();
    else if (event.key === "Enter" || event.key === " ") this.picked(spot.beam);
    else if (event.key === "Escape") this.hint.hidden = true;
    else return;
    event.preventDefault();
  }

  _point(spot) {
    if (spot === this.at) return;
    this.at = spot;
    this.hint.hidden = spot === null;
    this.pointed(spot?.beam ?? null);
    if (!spot) return;
    const { beam, level } = spot;
    const fate = level.isLast ? "finished" : beam.survives ? "in a finished beam" : "cut at a later level";
    this.hint.replaceChildren(
      el("strong", {}, prefixText(beam.prefix, this.sizes)),
      ...this._namesOf(beam, level).map((name) => el("span", {}, name)),
      el("span", {}, `probability ${percent(beam.probability)}, score ${score(beam.score)}`),
      el("span", {}, `rank ${whole(beam.rank)} of level ${level.level}, ${fate}`));
    const room = this.root.clientWidth + this.root.scrollLeft;
    const left = spot.x + 12 + this.hint.offsetWidth > room ? spot.x - 12 - this.hint.offsetWidth : spot.x + 12;
    this.hint.style.left = `${Math.max(0, left)}px`;
    this.hint.style.top = `${Math.max(0, spot.y - this.hint.offsetHeight - 8)}px`;
  }

  /** Bring out the paths to the beams that `test(prefix)` accepts; null: all beams alike. */
  highlight(test) {
    this.test = test;
    if (!this.picture) return;
    this.picture.classList.toggle("dimmed", test !== null);
    const on = new Set();
    if (test) {
      for (const spot of this.spots.flat()) {
        if (!test(trimmed(spot.beam.prefix, this.sizes), spot.beam.prefix)) continue;
        for (let at = spot; at && !on.has(at); at = this.spots[at.number - 1]?.[at.beam.parent]) on.add(at);
      }
    }
    for (const spot of this.spots.flat()) {
      for (const part of [spot.node, spot.edge, spot.label]) part?.classList.toggle("on", on.has(spot));
      spot.node.setAttribute("aria-selected", String(on.has(spot)));
    }
  }

  /** Move the focus to the beam of a SID. */
  focus(sid) {
    this.spots.at(-1)?.find(({ beam }) => key(trimmed(beam.prefix, this.sizes)) === key(sid))?.node.focus();
  }
}

/** The place of a prefix that is not among the beams of a level: between its neighbours. */
function between(spots, prefix) {
  if (!spots.length) return HEAD;
  const isBefore = ({ beam }) => {
    const first = beam.prefix.findIndex((code, level) => code !== prefix[level]);
    return first >= 0 && beam.prefix[first] < prefix[first];
  };
  const row = spots.filter(isBefore).length;
  if (row === 0) return spots[0].y - 5;
  return row === spots.length ? spots.at(-1).y + 5 : (spots[row - 1].y + spots[row].y) / 2;
}

/** The head of a column: the level, and what the catalog and the rules take of its probability. */
function drawHead(level, x, width) {
  const { masked_probability: masked, rules_probability: rules } = level;
  const catalog = Math.max(0, masked - rules);
  const kept = Math.max(0, 1 - masked);
  const part = (kind, from, share) =>
    svg("rect", { class: kind, x: (x + from * width).toFixed(1), y: 21, width: (share * width).toFixed(1), height: 6 });
  const decimals = (share) => (share >= 0.0995 || width < 42 ? 0 : 1);
  const text = (share) => (share > 0 && share < 0.005 && width < 42 ? "< 1 %" : `${(share * 100).toFixed(decimals(share))} %`);
  const line = (kind, y, share, words) => [
    svg("rect", { class: kind, x, y: y - 8, width: 8, height: 8, rx: 1.5 }),
    svg("text", { x: x + 13, y }, text(share) + (width >= 112 ? ` ${words}` : "")),
  ];
  return svg("g", { class: "head", "aria-hidden": "true" },
    svg("title", {}, `Level ${level.level}: ${maskSentence(level)}`),
    svg("text", { class: "level", x, y: 13 }, width < 46 ? String(level.level) : `Level ${level.level}`),
    svg("rect", { class: "whole", x, y: 21, width, height: 6 }),
    part("kept", 0, kept), part("catalog", kept, catalog), part("rules", kept + catalog, rules),
    line("catalog", 42, catalog, "no such item"), rules > 0 ? line("rules", 56, rules, "against rules") : null);
}
