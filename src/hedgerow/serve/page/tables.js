// The beam as tables: the same as the tree, for screen readers and for reading numbers.

import { el } from "./dom.js";
import { percent, prefixText, score, whole } from "./format.js";

/** What the catalog and the rules take of the probability of a level, in a sentence. */
export function maskSentence({ masked_probability: masked, rules_probability: rules }) {
  const catalog = `${percent(Math.max(0, masked - rules))} of the model's probability is on codes that lead to no item`;
  return rules > 0 ? `${catalog}; ${percent(rules)} is on codes that only the rules remove.` : `${catalog}.`;
}

/** A section with a table for each level. */
export function beamTables(levels, sizes) {
  return levels.map((level, number) => {
    const isLast = number === levels.length - 1;
    const fate = (beam) => (isLast ? "finished" : beam.survives ? "in a finished beam" : "cut later");
    const rows = [...level.beams].sort((a, b) => a.rank - b.rank).map((beam) =>
      el("tr", {},
        el("td", { class: "num" }, whole(beam.rank)),
        el("th", { scope: "row", class: "code" }, prefixText(beam.prefix, sizes)),
        el("td", { class: "num" }, percent(beam.probability)),
        el("td", { class: "num" }, score(beam.score)),
        el("td", {}, fate(beam))));
    const heads = [["rank", "num"], ["prefix", ""], ["probability", "num"], ["score", "num"], ["fate", ""]];
    return el("section", {},
      el("h3", {}, `Level ${level.level}: ${whole(level.beams.length)} beams`),
      el("p", { class: "note" }, maskSentence(level)),
      el("div", { class: "scroll", tabindex: 0, role: "group", "aria-label": `Beams of level ${level.level}` },
        el("table", {},
          el("thead", {}, el("tr", {}, heads.map(([name, kind]) => el("th", { scope: "col", class: kind || null }, name)))),
          el("tbody", {}, rows))));
  });
}
