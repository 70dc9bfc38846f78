// The mesh as this host sees it: itself in the middle, its peers around it by region, a line for each way to them.

import { byId, draw, keep, make, say, set } from "./dom.js";
import { count, duration, isLate, nameOf, others, plural, regionOf, worstLag } from "./words.js";

const CROWDED = 14; // with more peers, names stand along the rays
const NAME_MAX = 20;
const BESIDE_PX = 620; // a picture narrower than this is a phone's

const layers = {};
let chosen = null, latest = null, width = 0;
const before = new Map();

export function start() {
  for (const name of ["arcs", "wires", "nodes", "middle"]) {
    layers[name] = draw("g");
    byId("mesh").append(layers[name]);
  }
  layers.middle.append(draw("rect", { class: "self", height: 30, y: -15, rx: 15 }), draw("text", { class: "self-name" }));
  new ResizeObserver(() => {
    if (latest && Math.abs(byId("mesh").clientWidth - width) > 1) show(latest);
  }).observe(byId("mesh"));
  byId("mesh").addEventListener("keydown", onKey);
}

const short = (name, most) => (name.length > most ? `${name.slice(0, most - 1)}…` : name);

/** Places on a circle, in order of region and name, with a gap between two regions. */
function placed(mesh) {
  const peers = others(mesh).map((peer) => ({ peer, key: nameOf(peer), region: regionOf(mesh, peer) }));
  const own = mesh.region ?? "";
  const rank = (region) => (region === own ? "" : `~${region}`);
  peers.sort((a, b) => rank(a.region).localeCompare(rank(b.region)) || a.key.localeCompare(b.key, "en", { numeric: true }));
  const regions = [...new Set(peers.map((each) => each.region))];
  const gap = regions.length > 1 ? Math.max(0.6, peers.length / 40) : 0;
  const step = (2 * Math.PI) / Math.max(1, peers.length + gap * regions.length);
  let angle = -Math.PI / 2 - (step * (peers.filter((each) => each.region === own).length - 1)) / 2;
  const arcs = [];
  peers.forEach((each, i) => {
    const isFirst = i === 0 || peers[i - 1].region !== each.region;
    if (i && isFirst) angle += gap * step;
    each.angle = angle;
    if (isFirst) arcs.push({ region: each.region, from: angle, to: angle });
    arcs[arcs.length - 1].to = angle;
    angle += step;
  });
  return { peers, arcs: regions.length > 1 ? arcs : [] };
}

const at = (angle, radius) => [Math.cos(angle) * radius, Math.sin(angle) * radius];
const path = (...parts) => parts.map((part) => (typeof part === "number" && !Number.isInteger(part) ? part.toFixed(1) : part)).join(" ");

export function show(mesh) {
  latest = mesh;
  const svg = byId("mesh"), { peers, arcs } = placed(mesh);
  width = svg.clientWidth || 600;
  const isCrowded = peers.length > CROWDED, isNarrow = width < BESIDE_PX;
  const longest = Math.min(NAME_MAX, Math.max(4, ...peers.map((each) => each.key.length)));
  const nameMax = isNarrow ? Math.min(longest, isCrowded ? 11 : 9) : longest;
  const room = nameMax * (isCrowded ? 6.1 : 6.8) + 26 + (arcs.length && isCrowded ? 0 : 6);
  const radius = Math.max(62, Math.min(width / 2 - room, isCrowded ? 230 : 150));
  const rise = Math.max(0.2, ...peers.map((each) => Math.abs(Math.sin(each.angle))));
  const height = 2 * (radius * rise + (isCrowded ? room : 36));
  set(svg, "viewBox", `${-width / 2} ${-height / 2} ${width} ${height}`);
  set(svg, "height", height);
  const where = new Map(peers.map((each) => [each.key, at(each.angle, radius)]));
  for (const each of peers) {
    each.radius = radius;
    each.isCrowded = isCrowded;
    each.nameMax = nameMax;
    each.through = where.get(each.peer.through);
    each.moves = moved(each.peer);
  }
  if (!peers.some((each) => each.key === chosen)) chosen = null;
  const stop = chosen ?? peers[0]?.key;
  keep(layers.arcs, arcs, (arc) => arc.region, () => draw("g", {}, draw("path", { class: "arc" }), draw("text", { class: "arc-name" })),
    (group, arc) => fillArc(group, arc, radius));
  keep(layers.wires, peers, (each) => each.key, () => draw("g", {}, draw("path"), draw("path", { class: "flow out" }), draw("path", { class: "flow back" })), fillWire);
  keep(layers.nodes, peers, (each) => each.key, createNode, (group, each) => fillNode(group, each, stop));
  const own = short(mesh.host ?? "this host", NAME_MAX);
  const [rect, text] = layers.middle.children;
  set(rect, "width", own.length * 8 + 26);
  set(rect, "x", -(own.length * 8 + 26) / 2);
  say(text, own);
  note(mesh, peers);
  details(mesh);
}

function note(mesh, peers) {
  const tally = (state) => peers.filter((each) => each.peer.state === state).length;
  const parts = [[tally("up"), "linked"], [tally("relayed"), "through a relay"], [tally("down"), "cut off"],
    [tally("connecting") + tally("waiting"), "never heard"]];
  const shown = parts.filter(([number]) => number).map(([number, what]) => `${number} ${what}`);
  say(byId("mesh-note"), peers.length ? `${plural(peers.length, "peer")}: ${shown.join(", ")}. Dots move along a line while records do.` : "No peers are known.");
}

function fillArc(group, arc, radius) {
  const [line, text] = group.children, inner = radius - 17, spread = 0.04;
  const [x1, y1] = at(arc.from - spread, inner), [x2, y2] = at(arc.to + spread, inner);
  const isLarge = arc.to - arc.from + 2 * spread > Math.PI ? 1 : 0;
  set(line, "d", path("M", x1, y1, "A", inner, inner, 0, isLarge, 1, x2, y2));
  const middle = (arc.from + arc.to) / 2, [x, y] = at(middle, inner - 17 - 20 * Math.abs(Math.cos(middle)));
  set(text, "x", x.toFixed(1));
  set(text, "y", (y + 4).toFixed(1));
  say(text, arc.region || "no region");
}

const stateOf = (peer) => (peer.state === "connecting" ? "waiting" : peer.state);

function fillWire(group, each) {
  const [x, y] = at(each.angle, each.radius), state = stateOf(each.peer);
  const isRelayed = state === "relayed" && each.through;
  const bend = isRelayed ? [(each.through[0] + x) * 0.3, (each.through[1] + y) * 0.3] : [];
  const d = isRelayed ? path("M", ...each.through, "Q", ...bend, x, y) : path("M 0 0 L", x, y);
  const [wire, out, back] = group.children;
  set(wire, "d", d);
  set(wire, "class", `wire ${state}${isLate(each.peer) ? " late" : ""}`);
  for (const [line, moves] of [[out, each.moves.out], [back, each.moves.back]]) {
    set(line, "d", d);
    set(line, "class", `flow ${line === back ? "back" : "out"}${moves ? " moving" : ""}${each.isCrowded ? " sparse" : ""}`);
  }
}

/** Whether records went either way since the last look. */
function moved(peer) {
  let applied = 0, sent = 0;
  for (const stream of Object.values(peer.namespaces ?? {})) {
    applied += stream.cursor;
    sent += stream.acked ?? 0;
  }
  const key = nameOf(peer), last = before.get(key);
  before.set(key, { applied, sent });
  return { back: last !== undefined && applied > last.applied, out: last !== undefined && sent > last.sent };
}

function createNode(each) {
  const group = draw("g", { class: "peer-node", role: "button", tabindex: -1 },
    draw("circle", { class: "halo", r: 10 }), draw("g"), draw("text"));
  group.addEventListener("click", () => choose(each.key));
  return group;
}

function mark(state, isLateOne) {
  if (state === "down") return [draw("path", { class: "cross", d: "M-4.5-4.5 4.5 4.5M-4.5 4.5 4.5-4.5" })];
  if (state === "waiting") return [draw("rect", { class: "dot waiting", x: -4, y: -4, width: 8, height: 8 })];
  if (state === "relayed") return [draw("circle", { class: "dot relayed", r: 5 }), draw("circle", { class: "core", r: 2 })];
  return [draw("circle", { class: `dot up${isLateOne ? " late" : ""}`, r: 5.5 })];
}

function fillNode(group, each, stop) {
  const { peer, key, angle, radius, isCrowded } = each, [x, y] = at(angle, radius);
  const [, sign, text] = group.children, state = stateOf(peer), late = isLate(peer);
  set(group, "transform", `translate(${x.toFixed(1)} ${y.toFixed(1)})`);
  set(group, "tabindex", key === stop ? 0 : -1);
  set(group, "aria-pressed", key === chosen);
  set(group, "aria-label", `${key}, ${spoken(peer)}`);
  if (group.dataset.state !== state || group.dataset.late !== String(late)) {
    sign.replaceChildren(...mark(state, late));
    group.dataset.state = state;
    group.dataset.late = late;
  }
  const isLeft = Math.cos(angle) < -0.001, degrees = (angle * 180) / Math.PI;
  set(text, "class", isCrowded ? "crowded" : null);
  if (isCrowded) {
    set(text, "transform", `rotate(${(isLeft ? degrees + 180 : degrees).toFixed(2)}) translate(${isLeft ? -12 : 12} 3.5)`);
    set(text, "text-anchor", isLeft ? "end" : "start");
  } else {
    const side = Math.cos(angle), isUpright = Math.abs(side) < 0.35;
    set(text, "transform", isUpright ? `translate(0 ${Math.sin(angle) < 0 ? -14 : 24})` : `translate(${side < 0 ? -13 : 13} 4)`);
    set(text, "text-anchor", isUpright ? "middle" : side < 0 ? "end" : "start");
  }
  say(text, short(key, each.nameMax));
}

function spoken(peer) {
  if (peer.state === "up") return `linked${isLate(peer) ? `, ${count(worstLag(peer).records)} records late` : ""}`;
  if (peer.state === "relayed") return `through ${peer.through}`;
  if (peer.state === "down") return `cut off for ${duration(peer.for_s)}`;
  return "nobody has answered there";
}

function choose(key) {
  chosen = chosen === key ? null : key;
  show(latest);
}

/** Arrows go from peer to peer, so that the tab key passes the picture in one step. */
function onKey(event) {
  const node = event.target.closest(".peer-node");
  if (!node) return;
  const nodes = [...layers.nodes.children], here = nodes.indexOf(node);
  const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
  let next = here + (steps[event.key] ?? 0);
  if (event.key === "Home") next = 0;
  else if (event.key === "End") next = nodes.length - 1;
  else if (event.key === "Enter" || event.key === " ") choose(node.dataset.key);
  else if (!(event.key in steps)) return;
  event.preventDefault();
  next = (next + nodes.length) % nodes.length;
  nodes.forEach((each, i) => set(each, "tabindex", i === next ? 0 : -1));
  nodes[next].focus();
}

function details(mesh) {
  const box = byId("peer"), peer = others(mesh).find((each) => nameOf(each) === chosen);
  if (!peer) {
    box.replaceChildren(make("p", { class: "note" }, "Choose a peer to see its streams. Arrow keys go from peer to peer."));
    return;
  }
  const rows = [["state", spoken(peer)], ["address", peer.address || "it dials this host"], ["since", duration(peer.for_s)]];
  if (regionOf(mesh, peer)) rows.splice(1, 0, ["region", regionOf(mesh, peer)]);
  if (peer.isolates?.length) rows.push(["isolates", peer.isolates.join(", ")]);
  if (peer.removed_from?.length) rows.push(["removed from", peer.removed_from.join(", ")]);
  const list = make("dl");
  for (const [term, value] of rows) list.append(make("dt", {}, term), make("dd", {}, value));
  const body = make("tbody");
  for (const [namespace, stream] of Object.entries(peer.namespaces ?? {})) {
    body.append(make("tr", {}, make("th", { scope: "row" }, namespace), make("td", { class: "number" }, count(stream.behind)),
      make("td", { class: "number" }, count(stream.lag)), make("td", { class: "number" }, duration(stream.fresh_ago_s))));
  }
  const head = make("tr");
  for (const title of ["namespace", "not here", "not there", "fresh"]) {
    head.append(make("th", { scope: "col", class: title === "namespace" ? null : "number" }, title));
  }
  box.replaceChildren(make("h3", {}, nameOf(peer)), list, make("table", {}, make("thead", {}, head), body),
    make("p", { class: "note" }, "Records that are not applied here, and not applied there; how old its newest word is."));
}
