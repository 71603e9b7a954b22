// The page of a retrieval service.

import { call } from "./api.js";
import { el, showMessage } from "./dom.js";
import { explain } from "./explain.js";
import { Form } from "./form.js";
import { age, valueText, whole } from "./format.js";
import { compareItems } from "./items.js";
import { Metrics } from "./metrics.js";
import { errorWords, Pane } from "./pane.js";
import { fromHash, itemOf, requestOf, toHash } from "./state.js";

const RELOAD_MS = 2000;

const byId = (id) => document.getElementById(id);

class App {
  constructor() {
    Object.assign(this, { index: null, panes: [], searched: null, searching: new AbortController(), explaining: new AbortController() });
    this.form = new Form(byId("search"), (what) => this.changed(what));
    byId("search").addEventListener("submit", (event) => {
      event.preventDefault();
      this.search();
    });
    byId("explain").addEventListener("submit", (event) => {
      event.preventDefault();
      this.explain(byId("explain").item.value);
    });
    document.querySelector(".skip").addEventListener("click", (event) => {
      // The hash of the address is the search.
      event.preventDefault();
      byId("results").focus();
    });
    window.addEventListener("popstate", () => this.restore());
    this.start();
  }

  /** Read the index, and search if the address has a search. */
  async start() {
    try {
      this.index = await call("v1/index");
    } catch (error) {
      showMessage(byId("message"), ...errorWords(error, () => this.start()));
      // It may still be loading its model.
      if (error.status === 503) setTimeout(() => this.index ?? this.start(), RELOAD_MS);
      return;
    }
    showMessage(byId("message"), null);
    showIndex(this.index);
    this.form.offer(this.index);
    this.panes = ["A", "B"].map((name, number) => new Pane(name, this.index, {
      retry: () => this.search(),
      onWhy: (item) => this.explain(valueText(item.item_id), [1 - number]),
    }));
    this.restore();
  }

  /** Show the search of the address. */
  restore() {
    if (!this.index) return;
    const state = fromHash(location.hash);
    this.form.write(state);
    this.arrange(state.compare);
    if (state.prompt.trim()) this.search({ keepAddress: true });
  }

  /** Show one or two panes. */
  arrange(both) {
    byId("items").replaceChildren(...(both ? this.panes : this.panes.slice(0, 1)).map((pane) => pane.node));
    byId("results").classList.toggle("both", both);
    for (const pane of this.panes) pane.title(both);
  }

  changed(what) {
    if (what === "compare") this.arrange(this.form.read().compare);
    if (what === "field") this.show();
    if (what === "compare" && this.searched) this.search();
    else if (what) history.replaceState(null, "", `#${toHash(this.form.read())}`);
  }

  get idsAreIntegers() {
    const { item_id_type: type } = this.index;
    if (type) return /int/.test(type);
    const known = this.panes.flatMap((pane) => pane.retrieved?.items ?? []);
    return !known.length || typeof known[0].item_id !== "string";
  }

  async search({ keepAddress = false } = {}) {
    if (!this.index) return;
    const state = this.form.read();
    this.form.markInvalid(null);
    if (!state.prompt.trim()) {
      this.form.markInvalid("prompt");
      this.say("The prompt is empty.");
      byId("search").prompt.focus();
      return;
    }
    this.searching.abort();
    this.searching = new AbortController();
    const { signal } = this.searching;
    const address = `#${toHash(state)}`;
    if (!keepAddress && address !== location.hash) history.pushState(null, "", address);
    byId("explanation").replaceChildren();
    this.searched = state;
    this.say("Searching.");
    const active = this.panes.slice(0, state.compare ? 2 : 1);
    const done = await Promise.all(active.map(async (pane, number) => {
      const body = requestOf(state, state.sides[number], this.idsAreIntegers);
      try {
        await pane.retrieve(body, signal);
        return { pane, body };
      } catch (error) {
        if (error.name !== "AbortError" && error.param) this.form.markInvalid(error.param, number);
        return { pane, error };
      }
    }));
    if (signal.aborted) return;
    this.show();
    this.announce(done);
    for (const { pane, body } of done) if (body) pane.trace(body, signal);
    const versions = done.map(({ pane }) => pane.retrieved?.version ?? this.index.version);
    if (versions.some((version) => !this.index.versions.includes(version) && version !== this.index.version)) this.reread();
  }

  /** Read the index again: it has a version that the page does not know. */
  async reread() {
    try {
      this.index = await call("v1/index");
    } catch {
      // The next search tries again.
      return;
    }
    showIndex(this.index);
    this.form.offer(this.index);
    for (const pane of this.panes) pane.index = this.index;
  }

  /** Show the items of the panes, compared if there are two. */
  show() {
    const { fields } = this.form;
    const [a, b] = this.panes;
    const lists = this.searched?.compare ? [a.retrieved?.items, b.retrieved?.items] : [];
    const compared = lists[0] && lists[1];
    a.show(fields, compared ? { name: "B", ranks: compareItems(lists[0], lists[1]).ranks } : null);
    if (this.searched?.compare) b.show(fields, compared ? { name: "A", ranks: compareItems(lists[1], lists[0]).ranks } : null);
    this.summarize(compared ? lists : null);
  }

  summarize(lists) {
    byId("items").querySelector(".summary")?.remove();
    if (!lists) return;
    const { both, onlyHere } = compareItems(...lists);
    const { onlyHere: onlyThere, ranks } = compareItems(lists[1], lists[0]);
    const moved = lists[1].filter((item, row) => (ranks.get(String(item.item_id)) ?? row + 1) !== row + 1).length;
    const parts = [`${both} in both`, `${onlyHere} only in A`, `${onlyThere} only in B`, `${moved} moved`];
    byId("items").prepend(el("p", { class: "summary" }, ...parts.map((text) => el("span", {}, text))));
  }

  announce(done) {
    const parts = done.map(({ pane, error }) => {
      const name = done.length > 1 ? `${pane.name}: ` : "";
      return error ? `${name}${errorWords(error, null)[0]}` : `${name}${pane.items.querySelector(".facts").textContent}.`;
    });
    const summary = [...byId("items").querySelectorAll(".summary span")].map((part) => part.textContent).join(", ");
    this.say([...parts, summary].filter(Boolean).join(" "));
  }

  say(text) {
    byId("status").textContent = text;
  }

  /** Explain an item for the searches that are shown, or for those with some numbers. */
  async explain(text, numbers = [0, 1]) {
    const word = text.trim();
    const input = byId("explain").item;
    input.value = word;
    input.toggleAttribute("aria-invalid", false);
    const root = byId("explanation");
    if (!word || !this.searched) {
      if (!word) input.setAttribute("aria-invalid", "true");
      root.replaceChildren(el("p", { class: "note" }, word ? "Search first." : "Enter the id of an item, or an attribute that only this item has, as title=Alien."));
      return;
    }
    this.explaining.abort();
    this.explaining = new AbortController();
    const state = this.searched;
    const searches = this.panes.map((pane, number) => {
      const body = requestOf(state, state.sides[number], this.idsAreIntegers);
      const version = pane.retrieved?.version ?? null;
      return { pane, body: version === null ? body : { ...body, version } };
    }).filter((_, number) => numbers.includes(number) && (number === 0 || state.compare));
    try {
      await explain(root, itemOf(word, this.index.attributes, this.idsAreIntegers), searches, this.explaining.signal);
      root.scrollIntoView({ block: "nearest" });
    } catch (error) {
      if (error.name !== "AbortError") throw error;
    }
  }
}

function showIndex(index) {
  const { codebook_sizes: sizes, canary } = index;
  const same = sizes.every((size) => size === sizes[0]);
  const facts = [
    ["index", index.index], ["model", index.model], ["items", whole(index.num_items)],
    ["levels", same ? `${index.num_levels} × ${whole(sizes[0])} codes` : `${index.num_levels}: ${sizes.map(whole).join(", ")} codes`],
  ];
  if (index.version !== null) facts.push(["version", `${index.version}${index.age_seconds === null ? "" : `, ${age(index.age_seconds)}`}`]);
  if (canary) facts.push(["canary", `version ${canary.version}, ${Number((canary.share * 100).toPrecision(3))} %`]);
  byId("index").replaceChildren(...facts.map(([name, value]) => el("li", {}, el("span", {}, name), " ", el("b", {}, value))));
}

new App();
new Metrics(byId("metrics"), byId("metrics-note"));
