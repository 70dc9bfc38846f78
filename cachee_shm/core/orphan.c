/* orphan.c - see orphan.h. */
#include "orphan.h"

bool orphan_clear(struct attachment *orphan, struct attachment *successor, bool owed)
{
    bool died = recovery_claim(orphan) > 0;
    if ((died || owed) && cache_clear(successor) < 0)
        return false;
    recovery_bury(orphan);
    return true;
}
