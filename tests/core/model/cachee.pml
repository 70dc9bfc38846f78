/* cachee.pml - one key of a segment: ring, fence, publish, fill, delete, apply. Checked by test_model.py.
 *
 * What it follows, step by step, in cachee_shm/core: ring_append and ring_help (ring.c); superseded, stands, finish,
 * replace, meet, index_publish, index_kill_lower, index_move (index.c); set, fenced set, fill and delete (cache.c);
 * apply, the digest rule and healing (relay.c).
 *
 * Each shared access is one step; what lies between two of them is private. Sequential consistency is assumed: it
 * is the order of the steps that is checked, not the barriers that keep them in order (atomics.h argues those).
 * A load and the CAS that depends on it are one step where a failed CAS only leads back to the load, since words
 * never come back (entries are numbered; in the core the page's generation sees to it).
 *
 * Death needs no step of its own: a process that is never scheduled again is dead to all others, and safety is
 * checked in every state. Only for "at rest" the survivor must know (-DPROBE): at any moment all die at once, and one
 * newcomer must be able to write.
 *
 * What must hold (P1 to P4 below):
 *   P1  Once a verb has completed, no word older than it is visible, or ever will be. The same once a word was seen:
 *       reads of a key never go back.
 *   P2  What was loaded (a fill), or computed under a token (a fenced set), before an origin write, is not visible
 *       once that write's verb has completed.
 *   P3  At rest at most one word of the key is visible, and none of the living is pending; what the dead left
 *       stops nobody.
 *   P4  The ring has no hole, and a record's fence is raised before the tail passes it.
 * A miss is always legal.
 *
 * Not modelled: pages and their generations (words that come back), laps of the ring, tags and clear, add, expiry, the
 * guard of plain sets, other keys of the bucket (but for what they evict), sweeps, and tries that have a bound.
 *
 * -DPROCS=n processes do one verb each, out of -DVERBS (bits), on -DNWORDS words; -DNO_BRIDGE is a host on its own.
 * -DMUTATE_... breaks one rule. To see how it fails:
 *
 *   spin -a -DPROCS=2 -DMUTATE_NO_STANDS cachee.pml && gcc -O1 -w -DSAFETY -DREACH -DVECTORSZ=512 -o pan pan.c
 *   ./pan -m2000 -E -i && spin -k cachee.pml.trail -t -p -g -DPROCS=2 -DMUTATE_NO_STANDS cachee.pml
 */

#ifndef PROCS
#define PROCS 3
#endif
#ifndef NWORDS
#define NWORDS 2
#endif

/* The verbs, as bits of VERBS; VERBS_1 to VERBS_3 for each process alone. */
#define SET 0
#define FENCED_SET 1 /* a set whose origin write began under a token */
#define LOCAL_SET 2 /* one that never leaves the host: remote records spare it */
#define FILL 3
#define DELETE 4
#define APPLY 5     /* a remote record that evicts */
#define APPLY_SET 6 /* a remote record that says which bytes are right now: an entry that holds them is kept */
#define HEAL 7      /* the bridge: evict at home what an own record should have evicted, then announce it */
#define MOVE 8      /* an entry is copied under its version: touch, and pages that are drained */
#define EVICT 9     /* a word is dropped for room */
#define LAST_VERB 9
#ifndef VERBS
#define VERBS 1023
#endif
#ifndef VERBS_1
#define VERBS_1 VERBS
#define VERBS_2 VERBS
#define VERBS_3 VERBS
#endif
#define MAY(process, verb) (((process == 1 -> VERBS_1 : (process == 2 -> VERBS_2 : VERBS_3)) >> verb) & 1)

/* The ring holds all records of a run; laps are not modelled. */
#define RECORDS (PROCS + 3)
#define NO_RECORD 0
#define OWN 1
#define REMOTE 2

byte slot[RECORDS];    /* what ring_append publishes; record number s is in slot s - 1 */
byte written[RECORDS]; /* ghost: the origin's value that the record announces */
byte tail, fence;

/* An entry is immutable once a word names it. Entry 1 was there before; process p writes entry p + 1. */
#define ENTRIES (PROCS + 4)
byte version[ENTRIES];
bool is_local[ENTRIES];
byte value[ENTRIES];    /* the origin's value that it was made of; its lowest bit is its bytes, so bytes come back */
byte position[ENTRIES]; /* ghost: right as of this record */
bool guarded[ENTRIES];  /* ghost: P2 speaks of it */
#define BYTES(v) ((v) & 1)
#ifdef MUTATE_TIE
#define SET_VERSION(s) (2 * (s) + 1)
#define FILL_VERSION(t) (2 * (t))
#define IS_FILL(e) (!(version[e] & 1))
#else
#define SET_VERSION(s) (2 * (s))
#define FILL_VERSION(t) (2 * (t) + 1)
#define IS_FILL(e) (version[e] & 1)
#endif

/* Index words: an entry's number and a pending bit; 0 is empty. */
byte word[NWORDS];
#define PENDING(e) (2 * (e) + 1)
#define VISIBLE(e) (2 * (e))
#define ENTRY(w) ((w) >> 1)
#define IS_PENDING(w) ((w) & 1)

byte origin = 1;   /* the truth: a number that each write raises; the next has the bytes of entry 1 again */
byte floor_own;    /* ghost: the newest record whose verb has completed, or whose value was seen; of this host */
byte floor_all;    /* ghost: the same, remote ones with it (they spare local entries) */
byte floor_origin; /* ghost: the newest origin value whose verb has completed */
byte finished;     /* processes that came to their end */
bool all_dead;

#define PROBE_PID (PROCS + 1)
#ifdef PROBE
#define STEP d_step { (!all_dead || _pid == PROBE_PID) ->
#define WHEN(c) d_step { ((!all_dead || _pid == PROBE_PID) && (c)) ->
#else
#define STEP d_step {
#define WHEN(c) d_step { (c) ->
#endif
#define END }

#define RAISE(x, v) if :: (x) < (v) -> x = (v) :: else fi
#define FRESH(e) (position[e] >= (is_local[e] -> floor_own : floor_all) && (!guarded[e] || value[e] >= floor_origin))

/* P1, P2, where a word becomes visible. What may have been read is not taken back. (A value that a peer's event kept is
 * as new as the event to all but local values: the event says nothing about those.) */
#define SHOWN(e) assert(FRESH(e)); RAISE(floor_own, version[e] >> 1); RAISE(floor_all, position[e])

/* P1, P2, where a verb has completed. */
inline complete(s, v, own)
{
    STEP
        RAISE(floor_all, s);
        if :: own -> RAISE(floor_own, s) :: else fi;
        RAISE(floor_origin, v);
        n = 0;
        do
        :: n < NWORDS ->
            assert(word[n] == 0 || IS_PENDING(word[n]) || FRESH(ENTRY(word[n])));
            n++
        :: else -> break
        od;
        n = 0
    END
}

/* ---- ring.c ---- */

inline raise_fence(p) { STEP RAISE(fence, p + 1) END }

inline advance_tail(p)
{
    STEP
        if
        :: tail == p ->
            assert(slot[p] != NO_RECORD); /* P4 */
#ifndef MUTATE_FENCE_AFTER_TAIL
            assert(fence > p);
#endif
            tail = p + 1
        :: else
        fi
    END
}

inline help(p)
{
#ifdef MUTATE_FENCE_AFTER_TAIL
    advance_tail(p);
    raise_fence(p)
#else
    raise_fence(p);
    advance_tail(p)
#endif
}

inline stamp(e, ver, pos, v) { version[e] = ver; position[e] = pos; value[e] = v }

/* Append a record; s is its sequence. A set's entry gets its version with it. */
inline append(kind, e, v)
{
#ifdef MUTATE_RESERVE_FIRST
    STEP p = tail; tail++ END;
    STEP slot[p] = kind; written[p] = v; stamp(e, SET_VERSION(p + 1), p + 1, v) END;
    raise_fence(p);
#else
    do
    :: STEP p = tail END;
        if
        :: WHEN(slot[p] == NO_RECORD) slot[p] = kind; written[p] = v; stamp(e, SET_VERSION(p + 1), p + 1, v) END;
            help(p);
            break
        :: WHEN(slot[p] != NO_RECORD) skip END;
            help(p)
        fi
    od;
#endif
    s = p + 1; p = 0
}

/* ---- index.c ---- */

#define TRYING 0
#define OK 1
#define LOST 2

/* ring_conflict: is there a record of the key in (after, upto]? */
inline conflict(after, upto, result)
{
    n = after; result = 0;
    do
    :: n < upto -> if :: slot[n] != NO_RECORD -> result = 1 :: else fi; n++
    :: else -> break
    od;
    n = 0
}

inline superseded(e, result)
{
    STEP
        if
        :: IS_FILL(e) -> result = (fence > version[e] >> 1)
        :: else -> conflict(version[e] >> 1, fence, result)
        fi
    END
}

inline kill(at, w) { if :: word[at] == w -> word[at] = 0 :: else fi }

inline kill_lower(ver, sparing)
{
    i = 0;
    do
    :: i < NWORDS ->
#ifdef MUTATE_KILL_ONCE
        STEP w = word[i] END;
        STEP
            if :: w != 0 && version[ENTRY(w)] < ver && !(sparing && is_local[ENTRY(w)]) -> kill(i, w) :: else fi;
            w = 0; i++
        END
#else
        STEP
            if
            :: word[i] != 0 && version[ENTRY(word[i])] < ver && !(sparing && is_local[ENTRY(word[i])]) -> word[i] = 0
            :: else
            fi;
            i++
        END
#endif
    :: else -> break
    od;
    i = 0
}

#define NEWER(x, at_x, y, at_y) (version[x] > version[y] || (version[x] == version[y] && at_x < at_y))

/* finish(): judge the pending word of entry e at `at`, and make it visible or withdraw it. The helper's variables
 * are others, since a finisher helps one level deep. */
inline end_pending(at, e, lost, result)
{
    if
    :: lost -> STEP kill(at, PENDING(e)) END; result = LOST
    :: else ->
        STEP
            if
            :: word[at] == PENDING(e) -> word[at] = VISIBLE(e); SHOWN(e); result = OK
            :: word[at] == VISIBLE(e) -> result = OK
            :: else -> result = LOST
            fi
        END
    fi
}

inline finish_as_helper(at, e, result)
{
    superseded(e, lost2);
#ifdef MUTATE_NO_FENCE_CHECK
    lost2 = 0;
#endif
#ifndef MUTATE_NO_STANDS
    k2 = 0;
    do
    :: !lost2 && k2 == at -> k2++
    :: !lost2 && k2 < NWORDS && k2 != at ->
        STEP
            if
            :: word[k2] == 0
            :: word[k2] != 0 && NEWER(ENTRY(word[k2]), k2, e, at) -> lost2 = 1
            :: else -> word[k2] = 0
            fi;
            k2++
        END
    :: else -> break
    od;
    k2 = 0;
#endif
    end_pending(at, e, lost2, result);
    lost2 = 0
}

inline finish(at, e, result)
{
    superseded(e, lost);
#ifdef MUTATE_NO_FENCE_CHECK
    lost = 0;
#endif
#ifndef MUTATE_NO_STANDS
    k = 0;
    do
    :: !lost && k == at -> k++
    :: !lost && k < NWORDS && k != at ->
        STEP
            if
            :: word[k] == 0
            :: word[k] != 0 && NEWER(ENTRY(word[k]), k, e, at) ->
                lost = 1;
                if :: IS_PENDING(word[k]) -> other = ENTRY(word[k]) :: else fi
            :: else -> word[k] = 0
            fi;
            if :: !lost -> k++ :: else fi
        END;
        if :: other != 0 -> finish_as_helper(k, other, ignored); other = 0; ignored = 0 :: else fi
    :: else -> break
    od;
    k = 0;
#endif
    end_pending(at, e, lost, result);
    lost = 0
}

/* replace(): the word w at i, of an older entry, gives way to e. In place where every event after e would have removed
 * it; pending, and judged like a new one, where a peer's event may have spared it. */
#ifdef NO_BRIDGE
#define SPARED(e) (!is_local[e] && is_local[ENTRY(w)])
#else
#define SPARED(e) (!is_local[e])
#endif

inline replace(e)
{
#if defined(MUTATE_REPLACE_AT_ONCE) || defined(MUTATE_JUDGE_AFTERWARDS)
    STEP if :: word[i] == w -> word[i] = VISIBLE(e); SHOWN(e); result = OK :: else fi END;
#else
    STEP
        if
        :: word[i] == w && SPARED(e) -> word[i] = PENDING(e); placed = 1
        :: word[i] == w && !SPARED(e) -> word[i] = VISIBLE(e); SHOWN(e); result = OK
        :: else
        fi
    END;
#endif
#ifdef MUTATE_JUDGE_AFTERWARDS
    if
    :: result == OK ->
        superseded(e, lost);
        if :: lost -> STEP kill(i, VISIBLE(e)) END; result = LOST; lost = 0 :: else fi
    :: else
    fi
#endif
}

inline meet(e)
{
    if
    :: IS_PENDING(w) && version[ENTRY(w)] < version[e] -> STEP kill(i, w) END
#ifdef MUTATE_NO_HELP
    :: IS_PENDING(w) && version[ENTRY(w)] >= version[e] -> result = LOST
#else
    :: IS_PENDING(w) && version[ENTRY(w)] >= version[e] -> finish(i, ENTRY(w), ignored); ignored = 0
#endif
    :: !IS_PENDING(w) && version[ENTRY(w)] > version[e] -> result = LOST
    :: !IS_PENDING(w) && version[ENTRY(w)] <= version[e] ->
        if :: IS_FILL(e) -> superseded(e, lost) :: else fi;
        if
        :: lost -> result = LOST; lost = 0
        :: !lost -> replace(e)
        fi
    fi
}

#ifdef MUTATE_VISIBLE_AT_ONCE
#define put(e) word[i] = VISIBLE(e); SHOWN(e); placed = 1
#else
#define put(e) word[i] = PENDING(e); placed = 1
#endif

/* choose_slot and the CAS: any empty word, or (the bucket may be full of other keys) any visible one. */
inline insert(e)
{
    if
    :: WHEN(word[0] == 0 || !IS_PENDING(word[0])) i = 0; put(e) END
    :: WHEN(word[1] == 0 || !IS_PENDING(word[1])) i = 1; put(e) END
#if NWORDS > 2
    :: WHEN(word[2] == 0 || !IS_PENDING(word[2])) i = 2; put(e) END
#endif
    :: WHEN(IS_PENDING(word[0]) && IS_PENDING(word[1]) && IS_PENDING(word[NWORDS - 1]))
            i = 0; other = ENTRY(word[0])
        END;
        finish_as_helper(i, other, ignored); other = 0; ignored = 0
    fi
}

inline publish(e)
{
    do
    :: result == TRYING ->
        w = 0; i = 0;
        do
        :: i < NWORDS && w == 0 -> STEP w = word[i]; if :: w == 0 -> i++ :: else fi END
        :: else -> break
        od;
        if
        :: w != 0 -> meet(e)
        :: else -> insert(e)
        fi;
        if :: placed -> finish(i, e, result); placed = 0 :: else fi
    :: else -> break
    od;
    w = 0; i = 0
}

/* ---- cache.c ---- */

inline write_origin() { STEP origin++; v = origin END }

inline take_token() { STEP token = tail END }

/* cache_fill up to its publish: what was loaded, and the first look at the fence. */
inline load_and_stamp(e)
{
#ifdef MUTATE_TOKEN_LATE
    STEP v = origin END;
    take_token();
#else
    take_token();
    STEP v = origin END;
#endif
    STEP stamp(e, FILL_VERSION(token), token, v); result = (fence > token -> LOST : TRYING) END
}

/* A fenced set looks twice at the key's own events: between its token and the look, and up to its record. */
inline look_since_token()
{
    STEP since = tail END;
    STEP conflict(token, fence, moved) END
}

inline look_up_to_record()
{
#ifndef MUTATE_LOOK_ONCE
    STEP if :: !moved -> conflict(since, s - 1, moved) :: else fi END;
#endif
    if :: moved -> result = LOST; moved = 0 :: else fi
}

/* ---- relay.c ---- */

/* evict_others: an entry that holds the announced bytes is kept, and is as new as the event from here on. */
inline evict_others()
{
    i = 0;
    do
    :: i < NWORDS ->
        STEP
            w = word[i];
            if
            :: w == 0
            :: w != 0 && (version[ENTRY(w)] >= SET_VERSION(s) || is_local[ENTRY(w)]) -> w = 0
            :: w != 0 && version[ENTRY(w)] < SET_VERSION(s) && !is_local[ENTRY(w)] ->
                if
                :: !IS_PENDING(w) && BYTES(value[ENTRY(w)]) == BYTES(v) ->
                    RAISE(position[ENTRY(w)], s);
                    RAISE(value[ENTRY(w)], v);
                    w = 0
                :: else
                fi
            fi;
            if :: w == 0 -> i++ :: else fi
        END;
        if
        :: w != 0 ->
            STEP if :: word[i] == w -> word[i] = 0; i++ :: else -> moved = 1 fi; w = 0 END;
            if :: moved -> evicts = 1; moved = 0; i = NWORDS :: else fi
        :: else
        fi
    :: else -> break
    od
}

/* ---- the rest ---- */

/* Ghosts are copied with the CAS: an event that spares the old word meanwhile speaks of the copy's bytes too. */
#define copy(e) w = word[i]; version[e] = version[ENTRY(w)]; is_local[e] = is_local[ENTRY(w)]; \
    guarded[e] = guarded[ENTRY(w)]

inline move(e)
{
    if
    :: WHEN(word[0] != 0 && !IS_PENDING(word[0])) i = 0; copy(e) END
    :: WHEN(word[1] != 0 && !IS_PENDING(word[1])) i = 1; copy(e) END
    :: goto over
    fi;
    STEP
        if
        :: word[i] == w -> position[e] = position[ENTRY(w)]; value[e] = value[ENTRY(w)]; word[i] = VISIBLE(e); SHOWN(e)
        :: else
        fi
    END
}

inline evict()
{
    if
    :: WHEN(word[0] != 0 && !IS_PENDING(word[0])) word[0] = 0 END
    :: WHEN(word[1] != 0 && !IS_PENDING(word[1])) word[1] = 0 END
    :: goto over
    fi
}

#define MINE (1 + _pid)

/* P3 and P4, when nothing moves any more. */
inline at_rest()
{
    STEP
        k = 0; n = 0;
        do
        :: n < NWORDS ->
#ifndef PROBE
            assert(!IS_PENDING(word[n]) || ENTRY(word[n]) == 1);
#endif
            if :: word[n] != 0 && !IS_PENDING(word[n]) -> k++ :: else fi;
            n++
        :: else -> break
        od;
        assert(k <= 1);
        assert(slot[tail] == NO_RECORD || guarded[MINE]); /* a newcomer's fill helps nobody's record */
        k = 0; n = 0
    END
}

/* What a process keeps for itself; cleaned at its end, so that states which differ in nothing else are one. */
#define CLEAN s = 0; v = 0; p = 0; i = 0; w = 0; token = 0; since = 0; moved = 0; placed = 0; evicts = 0; \
    result = TRYING
#define PRIVATE byte s, v, p, i, w, k, k2, n, other, token, since, result, ignored; \
    bool lost, lost2, moved, placed, evicts

#define STORES (verb <= FILL)
#define REMOTELY (verb == APPLY || verb == APPLY_SET)

proctype worker(byte verb)
{
    PRIVATE;

    if
    :: verb == MOVE -> move(MINE); goto over
    :: verb == EVICT -> evict(); goto over
    :: verb == FILL -> load_and_stamp(MINE)
    :: verb == HEAL ->
        /* The bridge forwards a record after this: then it counts as completed, whatever became of its writer. */
        STEP s = tail; v = written[s - 1]; evicts = (slot[s - 1] == OWN) END;
        if :: !evicts -> goto over :: else fi
    :: else ->
        if :: verb == FENCED_SET -> take_token() :: else fi;
        write_origin();
        if :: verb == FENCED_SET -> look_since_token() :: else fi;
        append((REMOTELY -> REMOTE : OWN), MINE, v);
        if :: verb == FENCED_SET -> look_up_to_record() :: else fi;
        evicts = (verb == DELETE || verb == APPLY)
    fi;

    if
    :: STORES -> publish(MINE)
    :: verb == APPLY_SET -> evict_others()
    :: else
    fi;
    if
    :: verb == FILL -> goto over
#ifndef MUTATE_LOSER_KILLS_NOTHING
    :: STORES && verb != FILL && result != OK -> evicts = 1 /* what is not stored still evicts what is older */
#endif
    :: else
    fi;
    if :: evicts -> kill_lower(SET_VERSION(s), REMOTELY) :: else fi;
    complete(s, v, !REMOTELY);
over: skip;
    STEP CLEAN; finished++ END;
#ifndef PROBE
    finished == PROCS -> at_rest()
#endif
}

#ifdef PROBE
/* All have died, each where it stood: a set takes, and so does a fill (but for one that waits until the next record
 * or the sweep has helped a record whose tail has not moved). */
proctype newcomer()
{
    PRIVATE;
    d_step { all_dead = 1 };
    if
    :: write_origin();
        append(OWN, MINE, v)
    :: fence <= tail ->
        guarded[MINE] = 1;
        load_and_stamp(MINE)
    fi;
    publish(MINE);
    assert(result == OK);
    at_rest()
}
#endif

/* How the key stood before: absent, visible, or left pending by a writer that has died. */
inline begin()
{
    stamp(1, SET_VERSION(1), 1, 0);
    slot[0] = OWN; tail = 1; fence = 1;
    if
    :: true
    :: word[0] = VISIBLE(1); SHOWN(1)
    :: word[1] = VISIBLE(1); SHOWN(1)
    :: word[0] = PENDING(1)
    :: word[1] = PENDING(1)
    fi
}

init
{
    byte n = 1, verb = 0;
    atomic {
        begin();
        do
        :: n <= PROCS ->
            do /* in rising order, since processes do not differ */
            :: verb < LAST_VERB -> verb++
            :: MAY(n, verb) -> break
            od;
            is_local[n + 1] = (verb == LOCAL_SET);
            guarded[n + 1] = (verb == FILL || verb == FENCED_SET);
            run worker(verb);
            n++
        :: else -> break
        od;
#ifdef PROBE
        run newcomer();
#endif
        n = 0; verb = 0
    }
}
