// Numbers and states as people read them. Functions of their arguments alone.

export const WINDOWS = [["0.001", "1 ms"], ["0.01", "10 ms"], ["0.1", "100 ms"], ["1", "1 s"], ["60", "60 s"]];
export const LATE_RECORDS = 1000;
const SUSPECT_S = 1; // younger ones are most often under way

const whole = new Intl.NumberFormat("en");

export const count = (number) => whole.format(number);

export const plural = (number, one, many = `${one}s`) => `${count(number)} ${number === 1 ? one : many}`;

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "never";
  if (seconds < 0.001) return `${Math.round(seconds * 1e6)} µs`;
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} days`;
}

export function bytes(number) {
  const units = ["B", "KiB", "MiB", "GiB"];
  let unit = 0;
  while (number >= 1024 && unit < units.length - 1) {
    number /= 1024;
    unit += 1;
  }
  return `${number >= 100 || unit === 0 ? Math.round(number) : number.toFixed(1)} ${units[unit]}`;
}

/** A share in percent, never rounded up, up to its first digit that is no 9: "99.998". "100": none is missing. */
export function percent(part, all) {
  if (part >= all) return "100";
  const missing = (all - part) / all;
  const digits = Math.min(4, Math.max(1, Math.ceil(-Math.log10(missing)) - 2));
  const scale = 10 ** digits;
  return (Math.floor((part / all) * 100 * scale) / scale).toFixed(digits);
}

/** How bad it is that `missing` of `all` writes were not seen within a window. */
export function level(missing, all, window) {
  if (all === 0) return "none";
  const seconds = Number(window);
  if (missing === 0) return "good";
  if (seconds >= 60) return "bad";
  const share = missing / all;
  if (seconds >= 1) return share > 0.001 ? "bad" : "warn";
  if (seconds >= 0.01) return share > 0.01 ? "warn" : "fair";
  return "fair";
}

/** Checked writes of all peers together: {canaries, visible, pending}. */
export function summed(rows) {
  const sum = { canaries: 0, visible: {}, pending: {} };
  for (const row of rows) {
    sum.canaries += row.canaries;
    for (const [window] of WINDOWS) {
      for (const counts of ["visible", "pending"]) {
        sum[counts][window] = (sum[counts][window] ?? 0) + (row[counts]?.[window] ?? 0);
      }
    }
  }
  return sum;
}

/** Of how many writes it is known whether they were seen within a window: the others are younger than it. */
export const decided = (row, window) => row.canaries - (row.pending?.[window] ?? 0);

export const missed = (row, window) => decided(row, window) - (row.visible?.[window] ?? 0);

/** Peers that should be there: without this host's own addresses. */
export const others = (mesh) => (mesh.peers ?? []).filter((peer) => peer.state !== "self");

export const nameOf = (peer) => peer.name || peer.address;

export const regionOf = (mesh, peer) => peer.region ?? mesh.checker?.peers?.[peer.name]?.region ?? "";

/** The most records by which a peer is behind, in either direction: {records, namespace, direction}. */
export function worstLag(peer) {
  let worst = { records: 0, namespace: "", direction: "" };
  for (const [namespace, stream] of Object.entries(peer.namespaces ?? {})) {
    for (const [records, direction] of [[stream.behind, "to this host"], [stream.lag, "from this host"]]) {
      if (records > worst.records) worst = { records, namespace, direction };
    }
  }
  return worst;
}

/** Whether a peer that is reached lacks many records; of one that is cut off, that is not the news. */
export const isLate = (peer) => peer.state !== "down" && worstLag(peer).records >= LATE_RECORDS;

/** What isolates namespaces: one for each reason and peer, however many namespaces it holds back. */
function isolations(mesh) {
  const found = new Map();
  for (const space of (mesh.namespaces ?? []).filter((each) => each.isolated)) {
    for (const { reason, who, end } of space.why ?? []) {
      const key = `isolated ${reason} ${who}`;
      if (!found.has(key)) found.set(key, { level: "bad", key, reason, who, end, names: [], longest: 0 });
      found.get(key).names.push(space.namespace);
      found.get(key).longest = Math.max(found.get(key).longest, space.isolated_for_s ?? Infinity);
    }
  }
  for (const each of found.values()) {
    const since = each.longest === Infinity ? "since the bridge began" : `for ${duration(each.longest)}`;
    each.what = `${each.who || "this host"}: ${each.reason}; ${listed(each.names)} isolated ${since}`;
  }
  return [...found.values()];
}

const listed = (names) => (names.length === 1 ? `${names[0]} is` : names.length > 4 ? `${names.length} namespaces are`
  : `${names.slice(0, -1).join(", ")} and ${names.at(-1)} are`);

/** What is wrong, worst first: {level, key, what, end}. */
export function troubles(mesh) {
  const found = isolations(mesh);
  for (const suspect of mesh.checker?.suspects ?? []) {
    if (!suspect.over && suspect.since_s < SUSPECT_S) continue;
    found.push({
      level: suspect.over ? "bad" : "warn", key: `suspect ${suspect.peer} ${suspect.namespace} ${suspect.hash}`,
      what: `${suspect.peer}: ${suspect.name}, ${duration(suspect.since_s)} after a write in ${suspect.namespace}, hash ${suspect.hash}`,
      end: suspect.why,
    });
  }
  for (const peer of others(mesh)) {
    if (peer.state === "down" && !peer.isolates?.length) {
      found.push({ level: "warn", key: `down ${nameOf(peer)}`, what: `${nameOf(peer)} is cut off for ${duration(peer.for_s)}`,
        end: `ends when it is linked again, or by \`cachee peers forget ${nameOf(peer)}\` if it is dead` });
    }
    const lag = worstLag(peer);
    if (isLate(peer)) {
      found.push({ level: "warn", key: `late ${nameOf(peer)}`,
        what: `${count(lag.records)} records of ${lag.namespace} are under way ${lag.direction === "to this host" ? "from" : "to"} ${nameOf(peer)}`,
        end: "ends by itself when all are applied" });
    }
  }
  if (mesh.discovery?.failure) {
    found.push({ level: "warn", key: "discovery", what: `${mesh.discovery.what} does not answer: ${mesh.discovery.failure}`,
      end: "the last answer stays in use; see the name server" });
  }
  return found;
}

/** One sentence for the whole: {level, mark, title, detail}. */
export function verdict(mesh) {
  const wrong = troubles(mesh);
  const isolated = (mesh.namespaces ?? []).filter((space) => space.isolated);
  const peers = others(mesh);
  const linked = peers.filter((peer) => peer.state === "up" || peer.state === "relayed").length;
  const reached = `${linked} of ${plural(peers.length, "peer")} reached`;
  if (isolated.length) {
    const from = [...new Set(wrong.filter((each) => each.names && each.who).map((each) => each.who))];
    const names = from.length > 3 ? `${from.slice(0, 3).join(", ")} and ${from.length - 3} more` : from.join(", ");
    const policies = [...new Set(isolated.map((space) => space.policy))].join(", ");
    return { level: "bad", mark: "!", title: `${listed(isolated.map((space) => space.namespace))} isolated${names ? ` from ${names}` : ""}`,
      detail: `Values are served by the isolation policy (${policies}). ${reached}.` };
  }
  if (wrong.some((each) => each.level === "bad")) {
    return { level: "bad", mark: "!", title: "A write was not seen where it should be", detail: `${reached}. Trace the key below.` };
  }
  if (wrong.length) return { level: "warn", mark: "!", title: wrong[0].what, detail: `Nothing is isolated. ${reached}.` };
  if (!peers.length) return { level: "good", mark: "✓", title: "This host has no peers", detail: "Its workers share one segment. No host has to be told." };
  const late = latest(mesh);
  if (late) return { level: "warn", mark: "!", title: "All is well now, but writes were seen late since this bridge began", detail: `${late}. ${reached}.` };
  const checked = summed(Object.values(mesh.checker?.peers ?? {}));
  return { level: "good", mark: "✓", title: "All is well", detail: `${reached}. ${seen(checked)}` };
}

/** The peer that has missed most writes within 60 s, or else within 1 s, in words; "" if every peer saw all of them
 * in 1 s. The table has such cells in red or yellow until the bridge ends, when troubles() has nothing any more. */
function latest(mesh) {
  for (const [window, label] of WINDOWS.filter(([window]) => Number(window) >= 1).reverse()) {
    const rows = Object.entries(mesh.checker?.peers ?? {}).map(([name, row]) => ({ name, late: missed(row, window), all: decided(row, window) }));
    const worst = rows.filter((row) => level(row.late, row.all, window) !== "good" && row.late > 0).sort((a, b) => b.late - a.late)[0];
    if (worst) return `${worst.name} did not see ${count(worst.late)} of ${plural(worst.all, "checked write")} within ${label}`;
  }
  return "";
}

function seen(checked) {
  const all = decided(checked, "0.01");
  if (!all) return "No write has been checked yet.";
  return `${percent(all - missed(checked, "0.01"), all)} % of ${plural(all, "checked write")} seen within 10 ms.`;
}
