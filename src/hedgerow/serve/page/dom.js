// Elements. Text is always inserted as text: attributes of items are not trusted.

const SVG = "http://www.w3.org/2000/svg";

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

/** Create an HTML element. Children are nodes or text. */
export function el(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

/** Create an SVG element. */
export function svg(name, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, name), attributes, children);
}

/** Show a message in an element, or hide the element. `actions` are buttons: [label, function]. */
export function showMessage(node, text, { kind = "error", actions = [] } = {}) {
  node.hidden = text === null;
  node.className = `message ${kind}`;
  const buttons = actions.map(([label, act]) => el("button", { type: "button", onclick: act }, label));
  node.replaceChildren(...(text === null ? [] : [el("p", {}, text), ...buttons]));
}
