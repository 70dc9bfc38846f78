/* survey.h - finding what a deleted tag made worthless, before its page's turn comes.
 *
 * To delete a tag is to raise one fence: which entries carry it, nobody knows, and none of them is counted as
 * dead. So whoever turns a page also looks a few others through: those that hold tagged entries and were not
 * looked through since a tag was last deleted. What it finds invalid it removes, and notes as dead where it
 * lies; from there on queue.c takes the page before those that hold more. Where no tag is deleted this costs
 * a load a turn.
 */
#ifndef CACHEE_SURVEY_H
#define CACHEE_SURVEY_H

#include "pages.h"

/* Look the next few pages through that need it. */
void survey_some(struct attachment *a);

#endif
