/* recovery.h - how a process joins and leaves a segment, what the dead owe, and who pays it.
 *
 * It stands above cache.c: a verb never waits for a death, and needs nothing of what is done here. What a
 * process owes when it dies is in roster_debts.h. Each living process looks once a second whether
 * housekeeping is due (recovery_look_after). Of all of them one sweeps in each half second: it announces what
 * the dead owe, then gives back what they held.
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

/* recovery_sweep (evict.h, which calls it) returns the slots of the dead, paying their debts, and how many
 * they were. */

/* In a segment that was left: claim the slots of all who died, announcing nothing. Returns how many this
 * process has claimed and not yet given back. */
uint32_t recovery_claim(struct attachment *a);

/* Give back what this process has claimed, unless another has claimed it since. */
void recovery_bury(struct attachment *a);

/* Whoever leaves a retired segment: may its successor hold what is older than a write that was done here?
 * Then it has to be cleared. False only where this can be told: nobody died in here with a debt, nothing is
 * damaged, and this process has not written, or swept, since some time before it was retired. Those who died
 * are claimed: see orphan.h. */
bool recovery_owes_clear(struct attachment *a);

/* Housekeeping: sweep what the dead left, if nobody has for half a second; retire a segment that is damaged
 * or whose name leads elsewhere. Whoever begins a verb of any kind calls recovery_look_after first, before it
 * looks whether the segment is retired: so that what a dead process owed is paid within two seconds before
 * the answer is given, at any rate of use. */
void recovery_keep_house(struct attachment *a, uint64_t second);

static inline bool recovery_look_due(const struct attachment *a) { return clock_second() != a->house_second; }

static inline void recovery_look_after(struct attachment *a)
{
    if (recovery_look_due(a))
        recovery_keep_house(a, clock_second());
}

#endif
