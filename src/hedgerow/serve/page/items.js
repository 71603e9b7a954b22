// The table of the items.

import { el, svg } from "./dom.js";
import { percent, prefixText, score, valueText } from "./format.js";

const NUMBER = /^(u?int|float|double|half|decimal)/;

/**
 * The ranks of items in another list, by id, and the difference in words.
 * Returns { ranks: Map id -> rank, both, onlyHere }.
 */
export function compareItems(items, others) {
  const ranks = new Map(others.map((item, row) => [String(item.item_id), row + 1]));
  const both = items.filter((item) => ranks.has(String(item.item_id))).length;
  return { ranks, both, onlyHere: items.length - both };
}

/** The attribute that names items: the first of the fields that is text, or null. */
export function naming(fields, attributes) {
  const types = new Map(attributes.map(({ name, type }) => [name, type]));
  return fields.find((name) => /^(large_)?(string|utf8)|^dictionary/.test(types.get(name) ?? "")) ?? null;
}

function bar(share) {
  return svg("svg", { class: "bar", viewBox: "0 0 48 4", width: 48, height: 4, "aria-hidden": "true", focusable: "false" },
    svg("rect", { class: "track", width: 48, height: 4, rx: 2 }),
    svg("rect", { class: "fill", width: Math.max(1.5, 48 * share).toFixed(1), height: 4, rx: 2 }));
}

/** The cell that says where an item is in the other list. `gained` is from list A to list B. */
function comparison(rank, otherRank, { name, onWhy, item }) {
  if (otherRank === undefined) {
    const why = el("button", { type: "button", class: "link", onclick: () => onWhy(item) }, "why?",
      el("span", { class: "unseen" }, ` is item ${valueText(item.item_id)} not in ${name}`));
    return el("td", { class: "other" }, el("span", { class: "badge" }, "only here"), why);
  }
  const gained = name === "B" ? rank - otherRank : otherRank - rank;
  if (!gained) return el("td", { class: "other same" }, String(otherRank), el("span", { class: "unseen" }, ", the same rank"));
  const words = `, ${Math.abs(gained)} ${gained > 0 ? "higher" : "lower"} in B than in A`;
  return el("td", { class: "other" }, String(otherRank), " ",
    el("span", { class: gained > 0 ? "up" : "down", "aria-hidden": "true" }, `${gained > 0 ? "▲" : "▼"}${Math.abs(gained)}`),
    el("span", { class: "unseen" }, words));
}

/** The cell of the item: its name if it has one, its id and its SID. */
function itemCell(item, field, sizes) {
  const id = valueText(item.item_id);
  const sid = el("span", { class: "sid", title: "Semantic ID" }, prefixText(item.sid, sizes));
  const under = el("span", { class: "under" }, field ? el("span", { class: "id", title: "item id" }, id) : null, sid);
  const name = field ? valueText(item.attributes[field]) : id;
  return el("th", { scope: "row", class: "item" }, el("span", { class: "name", title: name }, name), under);
}

function head(fields, types, other, field) {
  const column = (name, kind, title) => el("th", { scope: "col", class: kind ?? null, title: title ?? null }, name);
  return el("thead", {}, el("tr", {},
    column("#", "num", "rank"),
    other ? column(`in ${other.name}`, null, "The rank in the other list, and the places gained or lost from A to B") : null,
    column(`${field ? `${field}, ` : ""}id, SID`),
    ...fields.map((name) => column(name, NUMBER.test(types.get(name)) ? "num" : null)),
    column("score", "num", "sum of log-probabilities"), column("probability", "num")));
}

/**
 * The table of items.
 * Options: `fields` to show, `attributes` of the index, `sizes` of the codebooks, `other` list to compare with
 * ({ name, ranks, onWhy }) or null, and `pointed(item)`, `pinned(item)` for rows.
 */
export function itemsTable(items, { fields, attributes, sizes, other, pointed, pinned }) {
  const types = new Map(attributes.map(({ name, type }) => [name, type]));
  const field = naming(fields, attributes);
  const rest = fields.filter((name) => name !== field);
  const most = Math.max(...items.map((item) => Math.exp(item.score))) || 1;
  const rows = items.map((item, row) => {
    const rank = row + 1;
    const cells = rest.map((name) => {
      const text = valueText(item.attributes[name]);
      if (NUMBER.test(types.get(name))) return el("td", { class: "num" }, text);
      return el("td", { class: "text", title: text.length > 14 ? text : null }, el("span", {}, text));
    });
    const probability = Math.exp(item.score);
    const pin = el("button", {
      type: "button", class: "rank", "aria-pressed": "false", onclick: () => pinned(item),
      "aria-label": `Rank ${rank}: show the path of item ${valueText(item.item_id)}`,
    }, String(rank));
    const node = el("tr", {
      onpointerenter: () => pointed(item), onpointerleave: () => pointed(null),
      onfocusin: () => pointed(item), onfocusout: () => pointed(null),
    },
    el("td", { class: "num" }, pin),
    other ? comparison(rank, other.ranks.get(String(item.item_id)), { ...other, item }) : null,
    itemCell(item, field, sizes), ...cells,
    el("td", { class: "num" }, score(item.score)),
    el("td", { class: "num share" }, percent(probability), bar(probability / most)));
    if (other && !other.ranks.has(String(item.item_id))) node.classList.add("only");
    node.item = item;
    return node;
  });
  return el("table", { class: "ranked" }, head(rest, types, other, field), el("tbody", {}, rows));
}
