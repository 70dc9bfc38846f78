/* recovery.h - joining and leaving a segment, and paying what dead processes owe.
 *
 * It stands above cache.c: no verb waits for a death, and no verb needs anything from this file. What a
 * process owes when it dies is in roster_debts.h. Each living process looks once a second whether
 * housekeeping is due (recovery_look_after). At most one of them sweeps in each half second: it announces
 * what dead processes owe, then gives back what they held.
 *
 * The word of a dead process's roster slot goes
 *
 *   LIVE, holder dead ── anybody announces its debts, any number of times ──▶ SWEPT, naming the sweeper
 *   SWEPT ── its sweeper seals the pages and forgets the debts ──▶ FREE
 *   SWEPT, sweeper dead ── another one takes its place, by CAS ──▶ SWEPT
 *
 * A sweeper needs no lock and opens no file, so a process that has dropped its privileges can sweep too. A
 * process that joins does the same with the slot that it wants, and holds the slot's lock byte meanwhile.
 */
#ifndef CACHEE_RECOVERY_H
#define CACHEE_RECOVERY_H

#include "cache.h"
#include "roster_debts.h"

enum recovery_join { RECOVERY_JOINED = 0, RECOVERY_FULL = 1, RECOVERY_FAILED = 2 /* errno says why */ };

enum recovery_join recovery_join(struct attachment *a, enum roster_kind kind, uint64_t now_ms);
void recovery_leave(struct attachment *a);

/* recovery_sweep is declared in evict.h, because evict.c calls it. */

/* In an orphan: claim the slots of all dead processes, announcing nothing. Returns how many slots this
 * process has claimed and not yet given back. */
uint32_t recovery_claim(struct attachment *a);

/* Give back the slots that this process has claimed, unless another process has claimed them since. */
void recovery_bury(struct attachment *a);

/* For a process that leaves a retired segment: may the successor hold a value that is older than a write in
 * this segment? Then the successor must be cleared. False only if that is certain: no process died in here
 * with a debt, nothing is damaged, and this process has not written, or swept, since some time before the
 * segment was retired. The slots of dead processes are claimed: see orphan.h. */
bool recovery_owes_clear(struct attachment *a);

/* Housekeeping: sweep if no process has for half a second; retire a segment that is damaged or whose name
 * leads to another file. Every verb begins with recovery_look_after, before it checks whether the segment
 * is retired. So the debts of a process that has been dead for two seconds are paid before the verb
 * answers, at any rate of use. */
void recovery_keep_house(struct attachment *a, uint64_t second);

static inline bool recovery_look_due(const struct attachment *a) { return clock_second() != a->house_second; }

static inline void recovery_look_after(struct attachment *a)
{
    if (recovery_look_due(a))
        recovery_keep_house(a, clock_second());
}

#endif
