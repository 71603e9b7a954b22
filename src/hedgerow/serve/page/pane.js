// One search: its items, its beam, and the links between them.

import { ApiError, call } from "./api.js";
import { el, showMessage } from "./dom.js";
import { trimmed, valueText, whole } from "./format.js";
import { itemsTable, naming } from "./items.js";
import { beamTables } from "./tables.js";
import { BeamTree } from "./tree.js";

const startsWith = (codes, start) => start.every((code, level) => codes[level] === code);

export class Pane {
  /** `retry()` repeats the search; `onWhy(item)` asks why the other search does not have an item. */
  constructor(name, index, { retry, onWhy }) {
    Object.assign(this, { name, index, retry, onWhy, retrieved: null, traced: null, fields: [], pin: null, other: null });
    this.node = el("div", { class: `pane ${name.toLowerCase()}` },
      document.getElementById("pane").content.cloneNode(true));
    this.items = this.node.querySelector(".items");
    this.beams = this.node.querySelector(".beams");
    this.tables = this.beams.querySelector(".as-tables");
    this.tree = new BeamTree(this.beams.querySelector(".tree"), {
      sizes: index.codebook_sizes,
      pointed: (beam) => this._pointAtBeam(beam),
      picked: (beam) => this._pickBeam(beam),
    });
    this.tables.addEventListener("toggle", () => this._fillTables());
    this.title(false);
    this.empty();
  }

  /** Name the pane: both panes are named while two are shown. */
  title(both) {
    const suffix = both ? ` ${this.name}` : "";
    for (const [card, text] of [[this.items, "Items"], [this.beams, "Beam"]]) {
      const heading = card.querySelector("h2");
      heading.textContent = text + suffix;
      heading.id = `${text.toLowerCase()}-${this.name.toLowerCase()}`;
      card.setAttribute("aria-labelledby", heading.id);
    }
  }

  /** What is shown before the first search. */
  empty() {
    const { num_items: items, num_levels: levels } = this.index;
    showMessage(this.items.querySelector(".message"), `Type a prompt and press Enter. The search ranks ${whole(items)} items.`,
      { kind: "hint-text" });
    showMessage(this.beams.querySelector(".message"),
      `After a search, this shows which prefixes of Semantic IDs stayed in the beam at each of the ${levels} levels.`,
      { kind: "hint-text" });
  }

  /** Retrieve the items. Returns the answer; throws as `call`. */
  async retrieve(body, signal) {
    this.pin = null;
    this.items.setAttribute("aria-busy", "true");
    this.beams.setAttribute("aria-busy", "true");
    try {
      const answer = await call("v1/retrieve", { body, signal });
      this.retrieved = answer;
      showMessage(this.items.querySelector(".message"),
        answer.items.length ? null : "No item fits: the sets and rules leave none, or the ids exclude them all.",
        { kind: "hint-text" });
      return answer;
    } catch (error) {
      if (error.name !== "AbortError") this._fail(error);
      throw error;
    } finally {
      if (!signal.aborted) this.items.removeAttribute("aria-busy");
    }
  }

  /** Trace the search of the same version as the items, and draw its beam. */
  async trace(body, signal) {
    const message = this.beams.querySelector(".message");
    const { version } = this.retrieved;
    try {
      this.traced = await call("v1/trace", { body: version === null ? body : { ...body, version }, signal });
      showMessage(message, null);
      this._drawTree();
    } catch (error) {
      if (error.name === "AbortError") return;
      this.traced = null;
      this.tree.clear();
      this.tables.hidden = true;
      showMessage(message, error.message, { actions: [["Try again", this.retry]] });
    } finally {
      if (!signal.aborted) this.beams.removeAttribute("aria-busy");
    }
  }

  _fail(error) {
    this.retrieved = this.traced = null;
    this.items.querySelector(".body").replaceChildren();
    this.items.querySelector(".facts").textContent = "";
    this.tree.clear();
    this.tables.hidden = true;
    this.beams.removeAttribute("aria-busy");
    showMessage(this.beams.querySelector(".message"), "The search gave no beam to show.", { kind: "hint-text" });
    showMessage(this.items.querySelector(".message"), ...errorWords(error, this.retry));
  }

  /** Show the items; `other` is as for `itemsTable`, without onWhy. */
  show(fields, other) {
    const fieldsChanged = fields.join("\n") !== this.fields.join("\n");
    Object.assign(this, { fields, other });
    if (!this.retrieved) return;
    const { items, version, timings, num_valid: valid, beam_width: width } = this.retrieved;
    const table = itemsTable(items, {
      fields, attributes: this.index.attributes, sizes: this.index.codebook_sizes,
      other: other && { ...other, onWhy: (item) => this.onWhy(item) },
      pointed: (item) => this._pointAtItem(item), pinned: (item) => this._pinItem(item),
    });
    const scroll = el("div", { class: "scroll", tabindex: 0, role: "group", "aria-label": `${this.node.querySelector("h2").textContent}, table` }, table);
    this.items.querySelector(".body").replaceChildren(...(items.length ? [scroll] : []));
    const facts = [`${whole(items.length)} item${items.length === 1 ? "" : "s"}`];
    if (version !== null) facts.push(`version ${version}`);
    facts.push(`${valid} of ${width} beams valid`, `${timings.total_ms.toFixed(timings.total_ms < 10 ? 1 : 0)} ms`);
    this.items.querySelector(".facts").textContent = facts.join(" · ");
    if (fieldsChanged && this.traced) this._drawTree();
  }

  _drawTree() {
    const { levels } = this.traced;
    if (!levels.some((level) => level.beams.length)) {
      this.tree.clear();
      this.tables.hidden = true;
      showMessage(this.beams.querySelector(".message"), "No beam is valid: nothing is left to search.", { kind: "hint-text" });
      return;
    }
    const field = naming(this.fields, this.index.attributes);
    this.tree.show(levels, this.traced.items, (item) => valueText(field ? item.attributes[field] : item.item_id));
    this.beams.classList.toggle("with-rules", levels.some((level) => level.rules_probability > 0));
    this.tables.hidden = false;
    this._fillTables();
  }

  _fillTables() {
    const shown = this.tables.open && this.traced ? beamTables(this.traced.levels, this.index.codebook_sizes) : [];
    this.tables.querySelector("div").replaceChildren(...shown);
  }

  _rows() {
    return [...this.items.querySelectorAll("tbody tr")];
  }

  _sidOf(item) {
    return trimmed(item.sid, this.index.codebook_sizes);
  }

  _highlight(item) {
    const sid = item && this._sidOf(item).join("-");
    this.tree.highlight(item ? (own) => own.join("-") === sid : null);
  }

  _pointAtItem(item) {
    this._highlight(item ?? this.pin);
  }

  _pinItem(item) {
    this.pin = this.pin === item ? null : item;
    for (const row of this._rows()) {
      row.querySelector(".rank").setAttribute("aria-pressed", String(row.item === this.pin));
      row.classList.toggle("pinned", row.item === this.pin);
    }
    this._highlight(this.pin ?? item);
  }

  _pointAtBeam(beam) {
    const text = beam?.prefix.join("-");
    if (beam) this.tree.highlight((_, codes) => codes.join("-") === text);
    else this._highlight(this.pin);
    const own = beam && trimmed(beam.prefix, this.index.codebook_sizes);
    for (const row of this._rows()) row.classList.toggle("linked", Boolean(own) && startsWith(this._sidOf(row.item), own));
  }

  /** Enter or a click on a beam: go to the row of its best item. */
  _pickBeam(beam) {
    const own = trimmed(beam.prefix, this.index.codebook_sizes);
    const row = this._rows().find(({ item }) => startsWith(this._sidOf(item), own));
    row?.querySelector(".rank").focus();
  }
}

/** The text and options of the message for an error. */
export function errorWords(error, retry) {
  const again = retry ? [["Try again", retry]] : [];
  if (!(error instanceof ApiError)) return [`The page has a fault: ${error.message}`, {}];
  if (error.status === 401) return [error.message, { actions: retry ? [["Enter the token", retry]] : [] }];
  if (error.status === 429) {
    const when = error.retryAfter === null ? "a moment" : `${error.retryAfter} second${error.retryAfter === 1 ? "" : "s"}`;
    return [`The server is busy. Try again in ${when}. ${error.message}`, { kind: "warning", actions: again }];
  }
  if (error.status === 503) return [`The server is not ready. ${error.message}`, { kind: "warning", actions: again }];
  if (error.status === 504) return [`The search took too long. ${error.message}`, { kind: "warning", actions: again }];
  return [error.message, { actions: error.status === 0 || error.status >= 500 ? again : [] }];
}
