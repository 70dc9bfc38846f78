// The share of checked writes that each peer saw within each window; the worst peer first.

import { byId, keep, make, say, set } from "./dom.js";
import { WINDOWS, count, decided, level, missed, percent, plural, summed } from "./words.js";

const SHOWN = 6;
let all = false;

const share = (row, window) => missed(row, window) / (decided(row, window) || 1);

/** The longest window counts first: what was not seen after 60 s is a fault, after 1 ms it is only slow. */
function worse(a, b) {
  for (const [window] of [...WINDOWS].reverse()) {
    const difference = share(b, window) - share(a, window);
    if (difference) return difference;
  }
  return a.name < b.name ? -1 : 1;
}

function regionsOf(peers) {
  const groups = Map.groupBy ? Map.groupBy(peers, (row) => row.region) : grouped(peers);
  if (groups.size < 2) return [];
  return [...groups].map(([region, rows]) => ({ ...summed(rows), name: region || "no region", isRegion: true, size: rows.length })).sort(worse);
}

function grouped(peers) {
  const groups = new Map();
  for (const row of peers) groups.set(row.region, [...(groups.get(row.region) ?? []), row]);
  return groups;
}

function createRow() {
  const row = make("tr", {}, make("th", { scope: "row" }));
  for (const _ of WINDOWS) row.append(make("td", { class: "share" }, make("span")));
  row.append(make("td", { class: "number count" }));
  return row;
}

function fillRow(element, row) {
  const [head, ...cells] = element.children;
  set(element, "class", row.isRegion ? "region" : null);
  say(head, row.isRegion ? `${row.name} (${row.size})` : row.name);
  set(head, "title", row.region ? `${row.name}, ${row.region}` : null);
  WINDOWS.forEach(([window, label], i) => {
    const late = missed(row, window), all = decided(row, window);
    set(cells[i], "data-level", level(late, all, window));
    set(cells[i], "title", all ? `${plural(late, "write")} of ${count(all)} not seen within ${label}` : null);
    say(cells[i].firstElementChild, all ? percent(all - late, all) : "–");
  });
  say(cells[WINDOWS.length], row.error ? row.error : count(row.canaries));
}

export function start() {
  const head = byId("nines-head");
  head.append(make("th", { scope: "col" }, "peer"));
  for (const [, label] of WINDOWS) head.append(make("th", { scope: "col", class: "number" }, label));
  head.append(make("th", { scope: "col", class: "number count" }, "checked"));
}

export function show(mesh) {
  const peers = Object.entries(mesh.checker?.peers ?? {}).map(([name, row]) => ({ ...row, name, region: row.region ?? "" }));
  peers.sort(worse);
  const note = byId("nines-note"), more = byId("nines-more");
  const asked = peers.filter((row) => !row.error);
  if (!mesh.checker || mesh.checker.every_s === 0) say(note, "The checker of this bridge is off: nothing is known.");
  else if (!asked.length) say(note, "No peer has been checked yet.");
  else say(note, `Since this bridge began. The worst is ${asked[0].name}. Not seen within 60 s is a fault.`);
  more.hidden = peers.length <= SHOWN;
  set(more, "aria-expanded", all);
  say(more, all ? `Only the worst ${SHOWN}` : `All ${peers.length} peers`);
  more.onclick = () => {
    all = !all;
    show(mesh);
  };
  const rows = [...regionsOf(peers), ...(all ? peers : peers.slice(0, SHOWN))];
  keep(byId("nines-body"), rows, (row) => `${row.isRegion ? "region" : "peer"} ${row.name}`, createRow, fillRow);
}
