// The form as an object, and as the hash of the address, so that a search can be shared.

const SIDES = ["", "b."];

export const emptySide = () => ({ version: null, beam: null, sets: [], where: "", exclude: "" });

/** Write a state as the text after "#". Values that are the defaults are left out. */
export function toHash(state) {
  const words = new URLSearchParams();
  if (state.prompt) words.set("q", state.prompt);
  if (state.k !== 10) words.set("k", state.k);
  for (const field of state.fields ?? []) words.append("field", field);
  if (state.compare) words.set("compare", "1");
  state.sides.slice(0, state.compare ? 2 : 1).forEach((side, number) => {
    const name = SIDES[number];
    if (side.version !== null) words.set(`${name}version`, side.version);
    if (side.beam !== null) words.set(`${name}beam`, side.beam);
    for (const set of side.sets) words.append(`${name}set`, set);
    if (side.where) words.set(`${name}where`, side.where);
    if (side.exclude) words.set(`${name}exclude`, side.exclude);
  });
  return words.toString();
}

function positive(text) {
  return /^\d+$/.test(text ?? "") && Number(text) > 0 ? Number(text) : null;
}

/** Read a state from the text after "#". */
export function fromHash(hash) {
  const words = new URLSearchParams(hash.replace(/^#/, ""));
  return {
    prompt: words.get("q") ?? "",
    k: positive(words.get("k")) ?? 10,
    fields: words.has("field") ? words.getAll("field") : null,
    compare: words.get("compare") === "1",
    sides: SIDES.map((name) => ({
      version: /^\d+$/.test(words.get(`${name}version`) ?? "") ? Number(words.get(`${name}version`)) : null,
      beam: positive(words.get(`${name}beam`)),
      sets: words.getAll(`${name}set`),
      where: words.get(`${name}where`) ?? "",
      exclude: words.get(`${name}exclude`) ?? "",
    })),
  };
}

/** Read ids: integers if the ids of the index are integers, as far as the text is one. */
export function parseIds(text, areIntegers) {
  const words = text.split(/[,\n]/).map((word) => word.trim()).filter(Boolean);
  return words.map((word) => parseId(word, areIntegers));
}

export function parseId(word, areIntegers) {
  if (!areIntegers || !/^-?\d+$/.test(word)) return word;
  const number = Number(word);
  return Number.isSafeInteger(number) ? number : BigInt(word);
}

/** The item that a text names, as fields of a request: its id, or "title=Alien". */
export function itemOf(word, attributes, areIntegers) {
  const [name, ...rest] = word.split("=");
  const named = rest.length && attributes.some((attribute) => attribute.name === name);
  return named ? { item: { [name]: rest.join("=") } } : { item_id: parseId(word, areIntegers) };
}

/** The body of a request: what /v1/retrieve, /v1/trace and /v1/explain share. */
export function requestOf(state, side, areIntegers) {
  const body = { prompt: state.prompt, k: state.k };
  if (side.beam !== null) body.beam_width = side.beam;
  if (side.version !== null) body.version = side.version;
  if (side.sets.length) body.sets = side.sets;
  if (side.where.trim()) body.where = side.where;
  const exclude = parseIds(side.exclude, areIntegers);
  if (exclude.length) body.exclude = exclude;
  return body;
}
