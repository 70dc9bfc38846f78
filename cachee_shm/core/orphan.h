/* orphan.h - a segment that was left, because its name is another's or nobody's, and the one that took its
 * place.
 *
 * Whoever dies in the orphan may owe something, an open `writing` block above all, and the successor knows
 * nothing of it. So each process that goes on from the orphan to the successor clears the successor for a
 * death in the orphan, as long as anybody else lives there. A dead process's slot says how far that is:
 *
 *   LIVE, holder dead ── claimed ──▶ SWEPT ── the successor is cleared ──▶ FREE
 *   SWEPT, its claimant dead, or gone on ── claimed by another ──▶ SWEPT
 *
 * So no slot is given back before a clear that began after its claim, and who dies in between leaves the
 * clear to the next. Nothing is announced in the orphan: nobody reads it any more. */
#ifndef CACHEE_ORPHAN_H
#define CACHEE_ORPHAN_H

#include "recovery.h"

/* Clear the successor, if one is owed for any reason, or somebody has died in the orphan. False: the
 * successor is retired, and the clear is owed still. */
bool orphan_clear(struct attachment *orphan, struct attachment *successor, bool owed);

#endif
