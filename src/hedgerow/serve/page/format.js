// Numbers and values as text.

const WHOLE = new Intl.NumberFormat("en");
const ENDED = -1;

export const whole = (value) => WHOLE.format(value);

/** A probability in percent, with two or three digits. */
export function percent(value) {
  if (!Number.isFinite(value)) return "–";
  const share = value * 100;
  if (share === 0) return "0 %";
  if (share === 100) return "100 %";
  if (share >= 99.95) return "> 99.9 %";
  if (share >= 10) return `${share.toFixed(1)} %`;
  if (share >= 0.1) return `${share.toFixed(2)} %`;
  return share >= 0.0001 ? `${Number(share.toPrecision(2))} %` : `${share.toExponential(1)} %`;
}

export const score = (value) => (Number.isFinite(value) ? value.toFixed(3).replace("-", "−") : "−∞");

/** A duration in seconds. */
export function duration(seconds) {
  if (!Number.isFinite(seconds)) return "–";
  if (seconds >= 10) return `${seconds.toFixed(0)} s`;
  if (seconds >= 1) return `${seconds.toFixed(1)} s`;
  const ms = seconds * 1000;
  return `${ms >= 10 ? ms.toFixed(0) : ms.toFixed(1)} ms`;
}

/** An age in seconds, in its largest unit. */
export function age(seconds) {
  for (const [unit, size] of [["day", 86400], ["hour", 3600], ["minute", 60]]) {
    const count = Math.floor(seconds / size);
    if (count) return `${whole(count)} ${unit}${count === 1 ? "" : "s"} old`;
  }
  return `${Math.max(0, Math.floor(seconds))} s old`;
}

/** The codes of a SID without the end codes of a ragged one, which are -1 or not below the size of the codebook. */
export function trimmed(codes, sizes) {
  let length = codes.length;
  while (length && (codes[length - 1] <= ENDED || codes[length - 1] >= (sizes[length - 1] ?? Infinity))) length -= 1;
  return codes.slice(0, length);
}

/** A prefix as text: its codes, and "end" if its SID has ended. */
export function prefixText(codes, sizes) {
  const own = trimmed(codes, sizes);
  return [...own, ...(own.length < codes.length ? ["end"] : [])].join("-");
}

/** The value of an attribute as text. */
export function valueText(value) {
  if (value === null || value === undefined) return "–";
  if (Array.isArray(value)) return value.map(valueText).join(", ");
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}
