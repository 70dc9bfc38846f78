/* module_transactions.h - the verbs' questions about the caller's database transactions. transactions.py
 * decides.
 *
 * Transactions are found by a context variable. While no transaction of this process writes, no verb looks
 * for one: a read costs one load and one branch more.
 */
#ifndef CACHEE_MODULE_TRANSACTIONS_H
#define CACHEE_MODULE_TRANSACTIONS_H

#include "module.h"

extern uint32_t transactions_open, transactions_writing; /* of this process; under the interpreter's lock */

enum kept_kind { KEPT_KEY = 0, KEPT_TAG = 1, KEPT_ALL = 2 };

/* 1: a transaction of this context writes, so this read has to miss. 0: it does not. -1: an error is set. */
int transaction_hides_slowly(void);
static inline int transaction_hides(void)
{
    return __builtin_expect(transactions_writing != 0, 0) ? transaction_hides_slowly() : 0;
}

/* 1: a transaction of this context writes and announces this invalidation when it ends. 0: do it now. -1: an
 * error is set. */
int transaction_keeps(SegmentObject *s, enum kept_kind kind, const struct key *k);

/* What the context's transactions mean for a load that begins or ends here. False: an error is set. */
struct snapshot {
    bool unstored; /* the loader may see uncommitted rows, so its value is not stored */
    /* the loader may see what was committed when the ring was at `token`, and nothing newer */
    bool older;
    uint64_t token;
};
bool transaction_snapshot(SegmentObject *s, struct snapshot *snapshot);

#endif
