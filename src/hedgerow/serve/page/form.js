// The search form: it shows what the index offers, and reads and writes the state.

import { el } from "./dom.js";
import { whole } from "./format.js";

const NAMES = ["A", "B"];
const DEFAULT_COLUMNS = 4;
// The field of each parameter that an error of the service names.
const FIELDS = {
  prompt: "prompt", k: "k", beam_width: "beam", version: "version", where: "where", exclude: "exclude", sets: "sets",
};

export class Form {
  /** `changed(rerun)` is called after each change; `rerun` if the results on the page no longer fit the form. */
  constructor(form, changed) {
    Object.assign(this, { form, changed, index: null, sides: [] });
    const template = document.getElementById("side");
    for (const name of NAMES) {
      const side = template.content.firstElementChild.cloneNode(true);
      side.querySelector("datalist").id = `widths-${name}`;
      side.querySelector("[name=beam]").setAttribute("list", `widths-${name}`);
      side.querySelector("legend").textContent = name;
      this.sides.push(side);
    }
    document.getElementById("sides").append(...this.sides);
    this.columns = document.querySelector("#columns .sheet");
    form.prompt.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      form.requestSubmit();
    });
    form.addEventListener("input", () => this.markInvalid(null));
    form.addEventListener("change", (event) => this._changed(event.target));
    closeOnEscapeAndOutside(document.getElementById("columns"));
  }

  _changed(field) {
    if (field.name === "compare") {
      this._showSides();
      // The second search starts as the first.
      if (field.checked) this._writeSide(1, this._readSide(0));
    }
    this.changed(field.name === "compare" || field.name === "field" ? field.name : null);
  }

  _showSides() {
    const both = this.form.compare.checked;
    this.sides[1].hidden = !both;
    document.getElementById("sides").classList.toggle("both", both);
    this.sides[0].querySelector("legend").textContent = both ? NAMES[0] : "Options";
  }

  /** Offer what an index has: the answer of GET /v1/index. */
  offer(index) {
    const state = this.index ? this.read() : null;
    this.index = index;
    this.form.k.max = index.max_k;
    this.sides.forEach((side) => this._offerSide(side));
    const boxes = index.attributes.map(({ name, type }) =>
      el("label", { title: type }, el("input", { type: "checkbox", name: "field", value: name }), el("span", {}, name)));
    this.columns.replaceChildren(...boxes);
    document.getElementById("columns").hidden = boxes.length === 0;
    if (state) this.write(state);
  }

  _offerSide(side) {
    const { versions, version, sets, beam_widths: widths, allows_where: allowsWhere } = this.index;
    const current = el("option", { value: "" }, version === null ? "current" : `current (${version})`);
    const field = (name) => side.querySelector(`.${name}`);
    field("version").querySelector("select").replaceChildren(current, ...versions.map((number) => option(number)));
    field("version").hidden = versions.length < 2;
    const beam = field("beam").querySelector("input");
    beam.max = widths.at(-1);
    beam.placeholder = widths[0];
    side.querySelector("datalist").replaceChildren(...widths.map((width) => option(width)));
    const chips = sets.map(({ name, rule, num_items: count }) =>
      el("label", { class: "chip", title: rule },
        el("input", { type: "checkbox", name: "set", value: name }),
        el("span", {}, name), el("small", {}, whole(count), el("span", { class: "unseen" }, " items"))));
    field("sets").querySelector(".chips").replaceChildren(...chips);
    field("sets").hidden = sets.length === 0;
    field("where").hidden = !allowsWhere;
  }

  /** The state that the form shows. */
  read() {
    const { form } = this;
    const boxes = [...this.columns.querySelectorAll("input")];
    const fields = boxes.filter((box) => box.checked).map((box) => box.value);
    const isDefault = fields.join("\n") === boxes.slice(0, DEFAULT_COLUMNS).map((box) => box.value).join("\n");
    return {
      prompt: form.prompt.value,
      k: Number(form.k.value),
      fields: isDefault ? null : fields,
      compare: form.compare.checked,
      sides: this.sides.map((_, number) => this._readSide(number)),
    };
  }

  _readSide(number) {
    const side = this.sides[number];
    const value = (name) => side.querySelector(`[name=${name}]`).value;
    return {
      version: value("version") === "" ? null : Number(value("version")),
      beam: value("beam") === "" || Number(value("beam")) === this.index.beam_widths[0] ? null : Number(value("beam")),
      sets: [...side.querySelectorAll("[name=set]:checked")].map((box) => box.value),
      where: value("where"),
      exclude: value("exclude"),
    };
  }

  /** Show a state. */
  write(state) {
    const { form } = this;
    form.prompt.value = state.prompt;
    form.k.value = state.k;
    form.compare.checked = state.compare;
    [...this.columns.querySelectorAll("input")].forEach((box, number) => {
      box.checked = state.fields ? state.fields.includes(box.value) : number < DEFAULT_COLUMNS;
    });
    state.sides.forEach((side, number) => this._writeSide(number, side));
    this._showSides();
  }

  _writeSide(number, { version, beam, sets, where, exclude }) {
    const side = this.sides[number];
    choose(side.querySelector("[name=version]"), version ?? "");
    side.querySelector("[name=beam]").value = beam ?? this.index.beam_widths[0];
    for (const box of side.querySelectorAll("[name=set]")) box.checked = sets.includes(box.value);
    side.querySelector("[name=where]").value = where;
    side.querySelector("[name=exclude]").value = exclude;
  }

  /** The names of the attributes to show. */
  get fields() {
    return [...this.columns.querySelectorAll("input:checked")].map((box) => box.value);
  }

  /** Mark the field of a parameter as invalid; null: none. */
  markInvalid(param, number = 0) {
    for (const field of this.form.querySelectorAll("[aria-invalid]")) field.removeAttribute("aria-invalid");
    const name = FIELDS[param?.split(/[.[]/)[0]];
    if (!name) return;
    const root = name === "prompt" || name === "k" ? this.form : this.sides[number];
    root.querySelector(name === "sets" ? ".sets" : `[name=${name}]`)?.setAttribute("aria-invalid", "true");
  }
}

const option = (value, text = String(value)) => el("option", { value }, text);

/** Choose a version. One that is not served is added, so that a shared search shows what it asks for. */
function choose(select, value) {
  const text = String(value);
  if (![...select.options].some((other) => other.value === text)) select.append(option(text, `${text} (not served now)`));
  select.value = text;
}

function closeOnEscapeAndOutside(details) {
  details.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !details.open) return;
    details.open = false;
    details.querySelector("summary").focus();
  });
  document.addEventListener("pointerdown", (event) => {
    if (!details.contains(event.target)) details.open = false;
  });
  details.addEventListener("focusout", (event) => {
    if (event.relatedTarget && !details.contains(event.relatedTarget)) details.open = false;
  });
}
