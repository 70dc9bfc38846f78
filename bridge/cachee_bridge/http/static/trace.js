// What every host has journalled of one key: GET by its hash, POST with a token by its text.

import { byId, keep, make, say, set } from "./dom.js";
import { duration, plural } from "./words.js";

const HASH = /^[0-9a-f]{16}$/i;
const LEVELS = { stale_served: "bad", refused: "warn", isolated: "warn" };
const WORDS = { stale_served: "stale value served", first_read: "first read after it was asked for", refused: "fill refused" };
const DETAILS_S = 1.5e9; // times above are of the wall clock

export function start() {
  byId("trace").addEventListener("submit", (event) => {
    event.preventDefault();
    ask(byId("trace-namespace").value, byId("trace-key").value);
  });
}

export function namespaces(mesh) {
  keep(byId("trace-namespace"), (mesh.namespaces ?? []).map((space) => space.namespace), (name) => name,
    (name) => make("option", { value: name }, name), () => {});
}

export function trace(namespace, hash) {
  byId("trace-namespace").value = namespace;
  byId("trace-key").value = hash;
  byId("trace").scrollIntoView({ block: "nearest" });
  ask(namespace, hash);
}

async function ask(namespace, text) {
  const note = byId("trace-note"), result = byId("trace-result");
  say(note, "Asking all hosts");
  try {
    const answer = await answerOf(namespace, text.trim());
    show(answer, note, result);
  } catch (error) {
    result.replaceChildren();
    say(note, error.message);
  }
}

async function answerOf(namespace, text) {
  const token = byId("trace-token").value;
  let response;
  if (HASH.test(text)) {
    response = await fetch(`api/explain?namespace=${encodeURIComponent(namespace)}&hash=${text.toLowerCase()}`, { credentials: "omit" });
  } else if (token) {
    response = await fetch("api/explain", { method: "POST", credentials: "omit",
      headers: { "Content-Type": "application/json", Authorization: `Bearer ${token}` }, body: JSON.stringify({ namespace, key: text }) });
  } else {
    throw new Error("A key is looked up with a token of http_token_file. Without one, give its hash: 16 hexadecimal digits.");
  }
  if (!response.ok) throw new Error((await response.text()).trim());
  return response.json();
}

function show(answer, note, result) {
  const rows = [], silent = [];
  for (const [host, told] of Object.entries(answer.hosts ?? {})) {
    if (Array.isArray(told)) rows.push(...told.map((row) => ({ host, ...row })));
    else silent.push(`${host}: ${told?.error ?? "no answer"}`);
  }
  rows.sort((a, b) => a.at - b.at);
  const clocks = Object.values(answer.clocks ?? {}).filter((each) => typeof each === "number");
  const doubt = clocks.length ? ` Clocks of hosts differ by up to ${duration(Math.max(...clocks))}.` : "";
  const hosts = Object.keys(answer.hosts ?? {}).length - silent.length;
  say(note, rows.length ? `${plural(rows.length, "event")} on ${plural(hosts, "host")}.${doubt}` : `No host has journalled this key. It is recorded from now on.${doubt}`);
  const list = make("ol", { class: "life", tabindex: 0, "aria-label": "Events, the newest last" });
  for (const row of rows) list.append(line(row));
  for (const text of silent) list.append(make("li", { "data-level": "warn" }, make("span", { class: "at" }, "–"), make("span", { class: "where" }, text), make("span", { class: "what" })));
  result.replaceChildren(...held(answer.holds), list);
  list.scrollTop = list.scrollHeight;
}

/** What each host's segment holds of the key now. */
function held(holds) {
  if (!holds) return [];
  const body = make("tbody");
  for (const [host, told] of Object.entries(holds)) {
    const what = told.error ?? (told.held === "absent" ? "nothing" : `a value, ${told.filled ? "loaded" : "written"} ${duration(told.age_s)} ago`);
    body.append(make("tr", {}, make("th", { scope: "row" }, host), make("td", {}, what)));
  }
  const head = make("tr", {}, make("th", { scope: "col" }, "host"), make("th", { scope: "col" }, "holds"));
  return [make("table", { class: "held" }, make("thead", {}, head), body)];
}

function line(row) {
  const who = [row.service, row.command, row.pid ? `pid ${row.pid}` : ""].filter(Boolean).join(" ");
  const from = row.source && row.source !== row.host ? ` from ${row.source}` : "";
  const number = row.sequence ? ` #${row.sequence}` : "";
  const what = make("span", { class: "what" }, make("span", { class: "kind" }, WORDS[row.kind] ?? row.kind), `${from}${number}${row.why ? `: ${row.why}` : ""}`);
  if (who) what.append(make("span", { class: "who" }, ` by ${who}`));
  const element = make("li", {}, make("time", { class: "at" }, clock(row.at)), make("span", { class: "where" }, row.layer === "near" ? `${row.host}, near cache` : row.host), what);
  set(element, "data-level", LEVELS[row.kind] ?? null);
  return element;
}

function clock(at) {
  if (at < DETAILS_S) return duration(at);
  const date = new Date(at * 1000), two = (number) => String(number).padStart(2, "0");
  return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}.${String(date.getMilliseconds()).padStart(3, "0")}`;
}
