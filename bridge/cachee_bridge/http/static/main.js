// Asks the bridge every two seconds while the page is looked at, and shows what it says. Nothing is kept.

import { byId, keep, make, say, set } from "./dom.js";
import * as nines from "./nines.js";
import * as panels from "./panels.js";
import * as picture from "./picture.js";
import * as trace from "./trace.js";
import { duration, troubles, verdict } from "./words.js";

const EVERY_MS = 2000;
const PATIENCE_MS = 5000;
let heard = null, timer = 0;

async function look() {
  clearTimeout(timer);
  try {
    const response = await fetch("api/mesh", { cache: "no-store", credentials: "omit", signal: AbortSignal.timeout(PATIENCE_MS) });
    if (!response.ok) throw new Error(`the bridge answers ${response.status}`);
    const mesh = await response.json();
    heard = performance.now();
    document.body.classList.remove("stale");
    show(mesh);
  } catch (error) {
    lost(error);
  }
  if (!document.hidden) timer = setTimeout(look, EVERY_MS);
}

function show(mesh) {
  say(byId("host"), mesh.host);
  say(byId("region"), mesh.region ? `, ${mesh.region}` : "");
  say(byId("clock"), `as of ${new Date().toLocaleTimeString("en-GB")}`);
  pronounce(verdict(mesh), mesh.host);
  wrong(troubles(mesh));
  nines.show(mesh);
  panels.tiles(mesh);
  picture.show(mesh);
  panels.namespaces(mesh);
  panels.spread(mesh);
  panels.hottest(mesh, trace.trace);
  trace.namespaces(mesh);
}

function pronounce({ level, mark, title, detail }, host) {
  set(byId("verdict"), "data-level", level);
  say(byId("verdict-mark"), mark);
  say(byId("verdict-title"), title);
  say(byId("verdict-detail"), detail);
  document.title = level === "good" ? `${host}: well` : `${title} – ${host}`;
}

function wrong(list) {
  byId("troubles").hidden = list.length === 0;
  keep(byId("trouble-list"), list, (each) => each.key,
    () => make("li", {}, make("span", { class: "sign", "aria-hidden": "true" }, "!"), make("div", {}, make("p", { class: "what" }), make("p", { class: "end" }))),
    (element, each) => {
      const [what, end] = element.children[1].children;
      set(element, "data-level", each.level);
      say(what, each.what);
      ending(end, each.end);
    });
}

/** What stands between two backquotes is a command. */
function ending(element, text) {
  if (element.dataset.text === text) return;
  element.dataset.text = text;
  element.replaceChildren(...text.split("`").map((part, i) => (i % 2 ? make("code", {}, part) : make("span", {}, part))));
}

function lost(error) {
  document.body.classList.add("stale");
  const since = heard === null ? "" : ` for ${duration((performance.now() - heard) / 1000)}`;
  pronounce({ level: "bad", mark: "?", title: `The bridge does not answer${since}`,
    detail: `${error.message}. ${heard === null ? "" : "What stands below is old. "}Workers of this host serve by the isolation policy while their bridge is down.` },
  byId("host").textContent);
}

nines.start();
picture.start();
trace.start();
document.addEventListener("visibilitychange", () => document.hidden || look());
look();
