// Why an item is missing.

import { call } from "./api.js";
import { el, showMessage } from "./dom.js";
import { score, whole } from "./format.js";
import { errorWords } from "./pane.js";

const LEGEND =
  "Score: of the item's prefix up to this code. To beat: the lowest score that stayed in the beam. Rank: of the prefix " +
  "among the candidates of the level. Kept: candidates that stayed in the beam.";
const FOUND = new Set(["returned", "beyond k"]);

function levelsTable({ levels, level: lost }) {
  const heads = ["level", "code", "score", "to beat", "rank", "kept", "stays"];
  const rows = levels.map((trace, number) => {
    const { code, rank, candidates, kept } = trace;
    const stays = rank === null ? "–" : rank <= kept ? "yes" : "no";
    const cells = [
      String(code), score(trace.score), score(trace.to_beat),
      rank === null ? `– of ${whole(candidates)}` : `${whole(rank)} of ${whole(candidates)}`, whole(kept), stays,
    ];
    return el("tr", { class: number === lost ? "lost" : null },
      el("th", { scope: "row", class: "num" }, String(number)), cells.map((text) => el("td", { class: "num" }, text)));
  });
  return el("div", { class: "scroll", tabindex: 0, role: "group", "aria-label": "The prefix at each level, table" },
    el("table", {}, el("thead", {}, el("tr", {}, heads.map((name) => el("th", { scope: "col", class: "num" }, name)))),
      el("tbody", {}, rows)));
}

function shown(explanation, version, title) {
  const { outcome, text, levels } = explanation;
  return el("section", { class: "explained" },
    title ? el("h3", {}, title) : null,
    el("p", {},
      el("span", { class: `badge ${FOUND.has(outcome) ? "found" : "missing"}` }, outcome), " ", text,
      version === null ? null : el("span", { class: "note" }, ` Version ${version}.`)),
    levels.length ? [levelsTable(explanation), el("p", { class: "note" }, LEGEND)] : null);
}

/**
 * Explain an item for each search: [{ pane, body }]. Shows the sentences and tables in `root`, and marks the path in
 * the trees of the panes.
 */
export async function explain(root, item, searches, signal) {
  root.setAttribute("aria-busy", "true");
  const parts = await Promise.all(searches.map(async ({ pane, body }) => {
    const title = searches.length > 1 ? pane.name : null;
    try {
      const { explanation, version } = await call("v1/explain", { body: { ...body, ...item }, signal });
      const { level, sid } = explanation;
      pane.tree.mark(level === null ? null : { sid, level, label: `item ${explanation.item_id}` });
      return shown(explanation, version, title);
    } catch (error) {
      if (error.name === "AbortError") throw error;
      pane.tree.mark(null);
      const message = el("div");
      showMessage(message, ...errorWords(error, null));
      return el("section", {}, title ? el("h3", {}, title) : null, message);
    }
  }));
  root.removeAttribute("aria-busy");
  root.replaceChildren(...parts);
}
