/* survey.h - finding entries that a deleted tag made invalid, before their page's turn comes.
 *
 * Deleting a tag only raises one fence. No table says which entries carry the tag, so none of them is
 * counted as dead. So a process that turns a page also searches a few others: those that hold tagged
 * entries and were not searched since a tag was last deleted. It removes the invalid entries and counts
 * them as dead bytes of their page; then queue.c takes that page earlier. If no tag is deleted, this costs
 * one load for each turn.
 */
#ifndef CACHEE_SURVEY_H
#define CACHEE_SURVEY_H

#include "pages.h"

/* Search the next few pages that need it. */
void survey_some(struct attachment *a);

#endif
