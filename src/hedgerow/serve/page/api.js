// Calls of the service, its errors, and the token.

import { parse, stringify } from "./json.js";

// The page is at BASE + "ui": BASE is not "/" behind a proxy that adds a prefix.
const BASE = new URL("..", import.meta.url);
const KEY = "hedgerow-token";

let kept = null;
let asking = null;

function token() {
  try {
    return sessionStorage.getItem(KEY) ?? kept;
  } catch {
    return kept;
  }
}

function keepToken(value) {
  kept = value;
  try {
    sessionStorage.setItem(KEY, value);
  } catch {
    // Without storage, it is kept until the page is left.
  }
}

/** An error that the service reports, or "unreachable". `retryAfter` is in seconds, or null. */
export class ApiError extends Error {
  constructor(message, { status = 0, type = "unreachable", param = null, retryAfter = null } = {}) {
    super(message);
    Object.assign(this, { status, type, param, retryAfter });
  }
}

/** Ask the user for a token. Returns whether one was given. Several calls share one dialog. */
function askToken(message) {
  asking ??= new Promise((resolve) => {
    const dialog = document.getElementById("token");
    const input = dialog.querySelector("input");
    document.getElementById("token-message").textContent = message;
    input.value = "";
    dialog.returnValue = "";
    const closed = () => {
      dialog.removeEventListener("close", closed);
      asking = null;
      const given = dialog.returnValue === "use" && input.value.trim() !== "";
      if (given) keepToken(input.value.trim());
      input.value = "";
      resolve(given);
    };
    dialog.addEventListener("close", closed);
    dialog.showModal();
  });
  return asking;
}

async function send(path, { body, signal }) {
  const headers = {};
  const sent = token();
  if (sent) headers.authorization = `Bearer ${sent}`;
  if (body !== undefined) headers["content-type"] = "application/json";
  const options = { method: body === undefined ? "GET" : "POST", headers, signal, cache: "no-store" };
  if (body !== undefined) options.body = stringify(body);
  try {
    return { response: await fetch(new URL(path, BASE), options), sent };
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The server does not answer. Is it running, and is the network up?");
  }
}

async function errorOf(response) {
  let told = {};
  try {
    told = parse(await response.text()).error ?? {};
  } catch {
    // Not a document of the service: an error of a proxy.
  }
  const seconds = Number(response.headers.get("retry-after"));
  return new ApiError(told.message ?? `The server answered with status ${response.status}.`, {
    status: response.status,
    type: told.type ?? "server_error",
    param: told.param ?? null,
    retryAfter: seconds > 0 ? seconds : null,
  });
}

/**
 * Call the service: POST if there is a body, else GET. Asks for the token if the service needs one.
 * Throws an ApiError, or the AbortError of the signal.
 */
export async function call(path, { body, signal } = {}) {
  for (;;) {
    const { response, sent } = await send(path, { body, signal });
    if (response.ok) return parse(await response.text());
    const error = await errorOf(response);
    if (response.status !== 401) throw error;
    // Another call may have got a token since this one was sent.
    if (token() !== sent) continue;
    if (!(await askToken(sent ? "The server refused this token. Enter another one." : error.message))) throw error;
    signal?.throwIfAborted();
  }
}

/** Read the metrics as text. Never asks for the token. */
export async function metricsText() {
  const { response } = await send("metrics", {});
  if (!response.ok) throw await errorOf(response);
  return response.text();
}
