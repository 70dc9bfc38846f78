/* scenes.h - verbs on one key in given circumstances, run by a child that is stepped, stopped or killed; and what must
 * hold after. For torture_steps (images and interleavings) and torture_kill (real deaths and stops).
 *
 * scenes.c has the verbs and the circumstances, stepping.c the child and the checks, steering.c brings the child quickly to
 * a place on its way.
 */
#ifndef CACHEE_SCENES_H
#define CACHEE_SCENES_H

#include "lock.h"
#include "relay_buckets.h"
#include "torture.h"

enum { SCENE_BYTES = 528 << 10, SCENE_BYTES_LARGE = 2 << 20, STEPS_MAX = 3 << 20, FROZEN_MS = 5000000 };
enum { TARGET = 1, OTHER = 2, COUNTER = 3, SLOT_OF_THE_DEAD = 9, LIFE_OF_THE_DEAD = 3 };
enum { STEPS, STORES, IMAGES, PAIRS, RUNS, KILLS, STOPS, CARRIED, ADDED }; /* tallies */

typedef void verb(struct attachment *a);

struct scene {
    const char *name;
    verb *before, *warm_up, *run; /* by this process; by the child before; what the child is stepped through */
    bool alone;                   /* what it does, others of the same key need not see: not interleaved */
    uint32_t bytes;               /* of the segment; 0: SCENE_BYTES */
    bool owes; /* an invalidation of TARGET is owed as the verb begins: whatever is left of it, a sweep pays that */
    bool prewarms;
};

enum { SCENES = 65 };
extern const struct scene scenes[SCENES];
extern const uint64_t scene_tag;

/* The scene that is set up. */
extern int scene_file;
extern struct segment_config scene_config;
extern struct attachment here; /* this process's attachment */
extern struct named_key target, other, counter;
extern uint64_t start_token;     /* the ring's tail before the child's verb */
extern uint64_t digest_of_set_1; /* what a peer that set the same value announces */

void set_up(const struct scene *s);
void tear_down(void);
void begin_run(void); /* everything as set_up left it */
void note_digest(void);

/* Verbs that others name too. */
verb do_nothing, nearly_full, fill_a_little, set_large, set_1, set_2, set_local, set_nothing, set_1_local, set_1_expiring_now, set_1_pending, add_7, add_13, add_7_pending, fill_8, slide, fill_late, fenced_10,
    delete_target, touch_target, clear_all, delete_tag, apply_key, apply_same, apply_different, apply_all, apply_bucket, raise_bucket, evict_bucket,
    fill_pages, take_lease, take_lock, get_target, find_target_there, sweep, have_a_page, incr_counter, count_up, fill_counters_buckets, heal;
void fill_other(struct attachment *a, uint32_t key, uint32_t bytes); /* no record */
struct write target_write(uint64_t number, uint32_t bytes);
uint64_t number_read(struct attachment *a); /* the number of TARGET's value, 0: a miss */
void set_counter(struct attachment *a, int64_t number);
int64_t counted(struct attachment *a);      /* what COUNTER says, 0: a miss */
enum { COUNT_BEFORE = 5 };                  /* where a scene has it */

/* ---- the child ---- */

bool can_trace(void);
pid_t traced_child(void (*body)(void *), void *with); /* at the first SIGSTOP that it sends itself */
pid_t child_at_verb(const struct scene *s);
int resume(pid_t pid, int how); /* ptrace requests; the signal at which it stands then */
bool step(pid_t pid);           /* one instruction. False: the verb has returned */
void end_child(pid_t pid);

/* ---- the child, steered (steering.c): as if it were stepped, in less time ---- */

void forget_the_way(void); /* the next child is another one, or begins in another state */
/* To the place after so many instructions, from its start. False: the verb has returned. */
bool step_to(pid_t pid, uint32_t instructions);
/* To the place after its next store into the segment, whether or not that changes anything; `first`: of this child. It is not
 * stepped in other ways any more. False: the verb has returned. */
bool step_to_store(pid_t pid, bool first);
void let_stores_be_watched(const struct attachment *a); /* by the child, beforehand */
uint32_t instructions_of(verb *run, struct attachment *a); /* run by this process, which nobody traces; 0 where they cannot be counted */

/* ---- what must hold ---- */

void check_nothing_outlived(const struct attachment *a, uint64_t after, uint64_t upto, bool remote_too, const char *when);
void check_ring(struct attachment *a);
void check_swept(struct attachment *a); /* sweeps first: nothing may be left of the dead */

enum first { VERBS_FIRST, SWEEP_FIRST, HEAL_FIRST, FIRSTS };

struct death {
    const unsigned char *image; /* a copy of the segment's bytes; NULL: the segment itself */
    uint64_t total;
    enum first first; /* what is done before anything else */
    bool owed;        /* before the verb that was died in */
};
void check_death(void *death); /* in a process of its own, after the stepped one's end */

#endif
