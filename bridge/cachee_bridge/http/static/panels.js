// Tiles and charts: lag, repairs, over-eviction, refused fills; namespaces, propagation, hottest invalidations.

import { byId, draw, keep, make, say, set } from "./dom.js";
import { LATE_RECORDS, bytes, count, duration, nameOf, others, percent, plural, worstLag } from "./words.js";

const HISTORY = 150; // points of a namespace's line: five minutes
const lines = new Map();

// Tiles

export function tiles(mesh) {
  const stats = Object.values(mesh.stats ?? {});
  const sum = (name) => (stats.some((each) => name in each) ? stats.reduce((all, each) => all + (each[name] ?? 0), 0) : null);
  const shown = [lagTile(mesh), repairsTile(mesh), overTile(sum), refusedTile(sum)];
  keep(byId("tiles"), shown, (tile) => tile.title,
    (tile) => make("div", { class: "card tile" }, make("h2", {}, tile.title), make("p", { class: "figure" }), make("p", { class: "note" })),
    (element, tile) => {
      const [, figure, note] = element.children;
      set(element, "data-level", tile.figure === null ? "none" : tile.level ?? null);
      say(figure, tile.figure === null ? "not counted" : tile.figure);
      say(note, tile.note);
    });
}

function lagTile(mesh) {
  const rows = others(mesh).map((peer) => ({ ...worstLag(peer), name: nameOf(peer) }));
  const worst = rows.sort((a, b) => b.records - a.records)[0];
  if (!worst?.records) return { title: "Lag", figure: "0", note: "every peer has all records" };
  return { title: "Lag", figure: count(worst.records), level: worst.records >= LATE_RECORDS ? "warn" : null,
    note: `records of ${worst.namespace}, ${worst.direction === "to this host" ? "from" : "to"} ${worst.name}` };
}

function repairsTile(mesh) {
  const totals = { replays: 0, maps: 0, flushes: 0, incarnations: 0 };
  let isKnown = false;
  for (const peer of others(mesh)) {
    for (const stream of Object.values(peer.namespaces ?? {})) {
      if (!stream.repairs) continue;
      isKnown = true;
      for (const kind of Object.keys(totals)) totals[kind] += stream.repairs[kind] ?? 0;
    }
  }
  const all = totals.replays + totals.maps + totals.flushes + totals.incarnations;
  const kinds = [["asked again", totals.replays], ["lapped", totals.maps], ["all evicted", totals.flushes], ["new segment", totals.incarnations]];
  const note = kinds.filter(([, number]) => number).map(([kind, number]) => `${kind} ${count(number)}`).join(", ");
  return { title: "Repairs", figure: isKnown ? count(all) : null, note: note || "nothing was missed", level: totals.maps ? "warn" : null };
}

function overTile(sum) {
  const over = sum("overevicted"), applied = sum("invalidated");
  const note = over && applied ? `values, beside ${count(applied)} that were announced` : "values evicted without need";
  return { title: "Over-eviction", figure: over === null ? null : count(over), note };
}

function refusedTile(sum) {
  const refused = sum("fills_refused"), fills = sum("fills");
  return { title: "Refused fills", figure: refused === null ? null : count(refused), note: `of ${plural(fills + refused || 0, "load")}; each would have been stale` };
}

// Namespaces

export function namespaces(mesh) {
  const isolated = new Set((mesh.namespaces ?? []).filter((space) => space.isolated).map((space) => space.namespace));
  const rows = Object.entries(mesh.stats ?? {}).map(([name, stats]) => ({ name, stats, line: lineOf(name, stats), isolated: isolated.has(name) }));
  rows.sort((a, b) => b.stats.hits + b.stats.misses - a.stats.hits - a.stats.misses);
  keep(byId("spaces"), rows, (row) => row.name, () => {
    const spark = draw("svg", { class: "spark", viewBox: "0 0 100 24", preserveAspectRatio: "none", "aria-hidden": "true" },
      draw("path", { class: "base", d: "M0 23.5H100" }), draw("path"));
    return make("tr", {}, make("th", { scope: "row" }), make("td"), make("td", {}, spark), make("td", { class: "number" }), make("td", { class: "number" }), make("td", { class: "number" }));
  }, fillSpace);
}

function fillSpace(element, row) {
  const [head, ratio, spark, reads, entries, memory] = element.children, all = row.stats.hits + row.stats.misses;
  say(head, row.isolated ? `${row.name} (isolated)` : row.name);
  set(head, "class", row.isolated ? "isolated" : null);
  say(ratio, row.line.now === null ? (all ? `${percent(row.stats.hits, all)} %` : "–") : `${(row.line.now * 100).toFixed(1)} %`);
  set(spark.firstElementChild.lastElementChild, "d", row.line.path);
  say(reads, row.line.rate === null ? count(all) : `${count(Math.round(row.line.rate))}/s`);
  say(entries, count(row.stats.entries ?? 0));
  say(memory, bytes(row.stats.memory_bytes ?? 0));
}

/** The hit ratio of the last minutes, between two looks each. */
function lineOf(name, stats) {
  const line = lines.get(name) ?? { points: [], last: null, now: null, rate: null };
  lines.set(name, line);
  const reads = stats.hits + stats.misses, at = performance.now() / 1000;
  if (line.last && reads >= line.last.reads && at - line.last.at > 0.5) {
    const newer = reads - line.last.reads;
    line.rate = newer / (at - line.last.at);
    line.now = newer ? (stats.hits - line.last.hits) / newer : line.now;
    line.points.push(line.now);
    if (line.points.length > HISTORY) line.points.shift();
  }
  if (!line.last || at - line.last.at > 0.5) line.last = { reads, hits: stats.hits, at };
  const step = 100 / Math.max(1, line.points.length - 1);
  const known = line.points.map((point, i) => [i * step, point]).filter(([, point]) => point !== null);
  return { now: line.now, rate: line.rate, path: known.map(([x, point], i) => `${i ? "L" : "M"}${x.toFixed(1)} ${(23 - point * 22).toFixed(1)}`).join("") };
}

// Propagation

export function spread(mesh) {
  const bars = (mesh.propagation ?? []).map(([bound, number]) => ({ bound: bound ?? Infinity, number }));
  const all = bars.reduce((sum, bar) => sum + bar.number, 0);
  const most = Math.max(1, ...bars.map((bar) => bar.number));
  say(byId("spread-note"), all ? `Checked writes, by this host's clock, from the write to the peer's acknowledgement: upper bounds. Half came within ${quantile(bars, all, 0.5)}, 99 % within ${quantile(bars, all, 0.99)}.`
    : "No write has been measured yet.");
  byId("spread").hidden = bars.length === 0;
  keep(byId("spread"), bars, (bar) => bar.bound, () => make("li", {}, make("div", { class: "bar" }), make("span", { class: "label", "aria-hidden": "true" }), make("span", { class: "unseen" })),
    (element, bar) => {
      const [column, label, spoken] = element.children, text = bar.bound === Infinity ? "more" : duration(bar.bound);
      column.style.height = `${(100 * Math.sqrt(bar.number / most)).toFixed(1)}%`;
      set(element, "data-level", bar.bound > 1 ? "bad" : bar.bound > 0.1 ? "warn" : null);
      set(element, "title", `${plural(bar.number, "write")} within ${text}`);
      say(label, text);
      say(spoken, `${plural(bar.number, "write")} within ${text}`);
    });
}

function quantile(bars, all, share) {
  let seen = 0;
  for (const bar of bars) {
    seen += bar.number;
    if (seen >= share * all) return bar.bound === Infinity ? "more than the last bucket" : duration(bar.bound);
  }
  return "–";
}

// Hottest invalidations

export function hottest(mesh, trace) {
  const rows = Object.entries(mesh.hottest ?? {}).flatMap(([namespace, keys]) => keys.map((key) => ({ namespace, ...key })));
  rows.sort((a, b) => b.count - a.count);
  const top = rows.slice(0, 8), most = top[0]?.count ?? 1;
  say(byId("hot-note"), top.length ? "Hashes of the keys that were written or deleted most. Choose one to trace it." : "Nothing has been invalidated lately.");
  keep(byId("hot"), top, (row) => `${row.namespace} ${row.hash}`, (row) => {
    const button = make("button", { type: "button", title: `trace it in ${row.namespace}` }, row.hash);
    button.addEventListener("click", () => trace(row.namespace, row.hash));
    return make("li", {}, button, make("div", { "aria-hidden": "true" }, make("div", { class: "bar" })), make("span"));
  }, (element, row) => {
    element.children[1].firstElementChild.style.width = `${(100 * row.count) / most}%`;
    say(element.children[2], `${row.namespace} · ${count(row.count)}`);
  });
}
