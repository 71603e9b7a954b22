// JSON in which whole numbers beyond 2^53 stay exact, because item ids may be any int64.

/** Parse JSON. Whole numbers that a number cannot hold become a BigInt. */
export function parse(text) {
  return JSON.parse(text, (_key, value, context) => {
    const inexact = typeof value === "number" && Number.isInteger(value) && !Number.isSafeInteger(value);
    return inexact && /^-?\d+$/.test(context?.source ?? "") ? BigInt(context.source) : value;
  });
}

/** Write JSON, with a BigInt as a number. */
export function stringify(value) {
  return JSON.stringify(value, (_key, part) => (typeof part === "bigint" ? JSON.rawJSON(String(part)) : part));
}
