/* cachee.pml - one key of a segment: ring, fence, publish, fill, delete, apply. Checked by test_model.py.
 *
 * What it follows, step by step, in cachee_shm/core: ring_append and ring_help (ring.c); index_publish, index_meet,
 * index_replace, index_finish, index_stands, index_superseded, index_outranks, index_is_current, index_decide, index_remove,
 * index_kill_lower, index_kill_unless and index_move (index.c); set, fenced set, fill, add, incr and delete (cache.c); apply,
 * the digest rule and healing (relay.c). Its steps have these names without the prefix.
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
 * What must hold (P1 to P5 below):
 *   P1  Once a verb has completed, no word older than it is visible, or ever will be. The same once a word was seen:
 *       reads of a key never go back.
 *   P2  What was loaded (a fill), or computed under a token (a fenced set), before an origin write, is not visible
 *       once that write's verb has completed.
 *   P3  At rest at most one word of the key is visible, and none of the living is pending; what the dead left
 *       stops nobody.
 *   P4  The ring has no hole, and a record's fence is raised before the tail passes it.
 *   P5  What a verb answers has happened. Set, fill and add say "stored" exactly if their value became visible. An add says
 *       "lost" only if a value was visible while it ran, and is shown only while none is. A set that races with adds alone
 *       says "stored" (-DSET_WINS). Of calls of incr none is lost or counted twice, the first one included (-DCOUNTED).
 * A miss is always legal.
 *
 * An add is not ordered by its record: it is older than every set with which it is raced. So it raises no floor (P1), but
 * must not be visible below one.
 *
 * Not modelled: pages and their generations (words that come back), laps of the ring, tags and clear, expiry, the
 * guard of plain sets, other keys of the bucket (but for what they evict), sweeps, and tries that have a bound (an add begins
 * anew TRIES times; then it is not looked at any further).
 *
 * -DCOARSE takes larger steps, for three processes.
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
#define ADD 10
#define INCR 11     /* a local count, begun by an add where there is none; touch answers by the same steps */
#define LAST_VERB 11
#ifndef VERBS
#define VERBS 4095
#endif
#ifndef VERBS_1
#define VERBS_1 VERBS
#endif
#ifndef VERBS_2
#define VERBS_2 VERBS
#endif
#ifndef VERBS_3
#define VERBS_3 VERBS
#endif
#define MAY(process, verb) (((process == 1 -> VERBS_1 : (process == 2 -> VERBS_2 : VERBS_3)) >> verb) & 1)

/* The ring holds all records of a run; laps are not modelled. */
#ifndef TRIES
#define TRIES 2
#endif
#define RECORDS (PROCS * TRIES + 3)
#define NO_RECORD 0
#define OWN 1
#define REMOTE 2
#define ADDED 3 /* an add's: it raises the fence, and is no event */
#define CONFLICTS(kind, e) ((kind) == OWN || ((kind) == REMOTE && !is_local[e]))

byte slot[RECORDS];    /* what ring_append publishes; record number s is in slot s - 1 */
byte written[RECORDS]; /* ghost: the origin's value that the record announces */
byte tail, fence;

/* An entry is immutable once a word names it, but for its verdict. Entry 1 was there before; process p writes entry p + 1,
 * and others when it tries again. */
#define ENTRIES (2 + (PROCS + 1) * TRIES)
#define LAST_ENTRY (ENTRIES - 1)
byte version[ENTRIES];
bool is_local[ENTRIES];
bool is_add[ENTRIES];
byte verdict[ENTRIES];
byte count[ENTRIES]; /* INCR: the number that it holds */
#define UNDECIDED 0
#define SHOW 1
#define WITHDRAWN 2
byte value[ENTRIES];    /* the origin's value that it was made of; its lowest bit is its bytes, so bytes come back */
byte position[ENTRIES]; /* ghost: right as of this record */
bool guarded[ENTRIES];  /* ghost: P2 speaks of it */
bool was_visible[ENTRIES], said_lost[ENTRIES]; /* ghosts of P5 */
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
#define IS_VISIBLE(w) ((w) != 0 && !IS_PENDING(w))

byte origin = 1;   /* the truth: a number that each write raises; the next has the bytes of entry 1 again */
byte floor_own;    /* ghost: the newest record whose verb has completed, or whose value was seen; of this host */
byte floor_all;    /* ghost: the same, remote ones with it (they spare local entries) */
byte floor_origin; /* ghost: the newest origin value whose verb has completed */
byte finished;     /* processes that came to their end */
byte counted;      /* ghost: calls of incr that are done */
byte adding, saw;  /* ghosts, a bit for each process: its add is under way; a value was visible meanwhile */
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
#define SHOWN(e) assert(FRESH(e)); \
    if :: !is_add[e] -> RAISE(floor_own, version[e] >> 1); RAISE(floor_all, position[e]) :: else fi; \
    assert(!said_lost[e]); was_visible[e] = 1; saw = saw | adding
#if NWORDS > 2
#define ANY_VISIBLE (IS_VISIBLE(word[0]) || IS_VISIBLE(word[1]) || IS_VISIBLE(word[2]))
#else
#define ANY_VISIBLE (IS_VISIBLE(word[0]) || IS_VISIBLE(word[1]))
#endif

/* P1, P2, where a verb has completed. */
inline complete(s, v, own)
{
    STEP
        if :: !adds -> RAISE(floor_all, s) :: else fi;
        if :: own && !adds -> RAISE(floor_own, s) :: else fi;
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

/* ring_conflict: is there an event of the key in (after, upto] that concerns e? */
inline conflict(e, after, upto, result)
{
    n = after; result = 0;
    do
    :: n < upto -> if :: CONFLICTS(slot[n], e) -> result = 1 :: else fi; n++
    :: else -> break
    od;
    n = 0
}

inline superseded(e, result)
{
    STEP
        if
        :: IS_FILL(e) -> result = (fence > version[e] >> 1)
        :: else -> conflict(e, version[e] >> 1, fence, result)
        fi
    END
}

inline kill(at, w) { if :: word[at] == w -> word[at] = 0 :: else fi }

inline decide(e, answer) { if :: verdict[e] == UNDECIDED -> verdict[e] = answer :: else fi }

inline make_visible(at, e)
{
    if
    :: word[at] == PENDING(e) ->
        assert(!is_add[e] || !ANY_VISIBLE); /* P5 */
        word[at] = VISIBLE(e); SHOWN(e)
    :: else
    fi
}

/* index_remove(): the word x at `at` is taken away; of a pending one the verdict first. Not gone: it has changed. */
inline remove(at, x, gone)
{
    if
    :: IS_PENDING(x) ->
#ifdef MUTATE_KILL_PENDING
        skip
#else
        STEP decide(ENTRY(x), WITHDRAWN); gone = (verdict[ENTRY(x)] == WITHDRAWN) END;
        if :: !gone -> STEP make_visible(at, ENTRY(x)) END :: else fi
#endif
    :: else -> gone = 1
    fi;
#ifdef MUTATE_KILL_PENDING
    gone = 1;
#endif
    if
    :: gone -> STEP if :: word[at] == x -> word[at] = 0 :: else -> gone = 0 fi END
    :: else
    fi
}

/* -DCOARSE: what is seen, decided and taken away is one step, so that three verbs can be tried. */
#define TAKE(at, x) \
    if :: IS_PENDING(x) -> decide(ENTRY(x), WITHDRAWN) :: else fi; \
    if :: IS_PENDING(x) && verdict[ENTRY(x)] == SHOW -> make_visible(at, ENTRY(x)) :: else -> word[at] = 0 fi

#ifdef COARSE
inline kill_lower(ver, sparing)
{
    i = 0;
    do
    :: i < NWORDS ->
        STEP
            w = word[i];
            if :: w != 0 && version[ENTRY(w)] < ver && !(sparing && is_local[ENTRY(w)]) -> TAKE(i, w) :: else -> i++ fi;
            w = 0
        END
    :: else -> break
    od;
    i = 0
}
#else
inline kill_lower(ver, sparing)
{
    i = 0;
    do
    :: i < NWORDS ->
        STEP
            w = word[i];
            if :: w != 0 && version[ENTRY(w)] < ver && !(sparing && is_local[ENTRY(w)]) :: else -> w = 0; i++ fi
        END;
        if
        :: w != 0 ->
            remove(i, w, moved);
#ifdef MUTATE_KILL_ONCE
            moved = 1;
#endif
            if :: moved -> i++ :: else fi;
            moved = 0; w = 0
        :: else
        fi
    :: else -> break
    od;
    i = 0
}
#endif

#define NEWER(x, at_x, y, at_y) (version[x] > version[y] || (version[x] == version[y] && at_x < at_y))

/* Does e, at at_e, take the place of the word w at at_w? By the table in index.c; nothing expires here. */
#ifdef MUTATE_SET_YIELDS
#define SET_OVER_ADD(e, w) 0
#else
#define SET_OVER_ADD(e, w) (is_add[ENTRY(w)] && !IS_FILL(e))
#endif
#define ADD_OVER_ADD(e, w) (IS_PENDING(w) && is_add[ENTRY(w)] && version[e] < version[ENTRY(w)])
#define OUTRANKS(e, at_e, w, at_w) \
    ((IS_PENDING(w) && verdict[ENTRY(w)] == WITHDRAWN) || \
     (is_add[e] -> ADD_OVER_ADD(e, w) : (SET_OVER_ADD(e, w) || NEWER(e, at_e, ENTRY(w), at_w))))

/* is_current(): what was judged so far holds, also of a word that came since. */
inline check_current(e, x, lost)
{
    STEP lost = (verdict[e] != UNDECIDED) END;
    if
    :: !lost && version[ENTRY(x)] > version[e] -> superseded(e, lost)
    :: else
    fi
}

/* finish(): judge the pending word of entry e at `at`, and make it visible or withdraw it. The helper's variables
 * are others, since a finisher helps one level deep. */
inline end_pending(at, e, lost, result)
{
#ifdef MUTATE_ANSWER_BY_WORD
    if
    :: lost -> STEP kill(at, PENDING(e)); result = LOST END
    :: else ->
        STEP
            if
            :: word[at] == PENDING(e) -> word[at] = VISIBLE(e); SHOWN(e); result = OK
            :: word[at] == VISIBLE(e) -> result = OK
            :: else -> result = LOST
            fi
        END
    fi
#elif defined(COARSE)
    STEP
        decide(e, (lost -> WITHDRAWN : SHOW));
        result = (verdict[e] == SHOW -> OK : LOST);
        if :: result == OK -> make_visible(at, e) :: else -> kill(at, PENDING(e)) fi
    END
#else
    STEP decide(e, (lost -> WITHDRAWN : SHOW)); result = (verdict[e] == SHOW -> OK : LOST) END;
    STEP
        if
        :: result == OK -> make_visible(at, e)
        :: else -> kill(at, PENDING(e))
        fi
    END
#endif
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
            x2 = word[k2];
            if
            :: x2 == 0 -> k2++
            :: x2 != 0 && !OUTRANKS(e, at, x2, k2) -> lost2 = 1; x2 = 0
#ifdef COARSE
            :: x2 != 0 && OUTRANKS(e, at, x2, k2) ->
                if :: verdict[e] == UNDECIDED -> TAKE(k2, x2) :: else -> lost2 = 1 fi;
                x2 = 0
#else
            :: else
#endif
            fi
        END;
        if
        :: x2 != 0 ->
            check_current(e, x2, lost2);
            if :: !lost2 -> remove(k2, x2, gone2); if :: gone2 -> k2++ :: else fi; gone2 = 0 :: else fi;
            x2 = 0
        :: else
        fi
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
            x = word[k];
            if
            :: x == 0 -> k++
            :: x != 0 && !OUTRANKS(e, at, x, k) ->
                if :: IS_PENDING(x) -> other = ENTRY(x) :: else -> lost = 1 fi;
                x = 0
#ifdef COARSE
            :: x != 0 && OUTRANKS(e, at, x, k) ->
                if :: verdict[e] == UNDECIDED -> TAKE(k, x) :: else -> lost = 1 fi;
                x = 0
#else
            :: else
#endif
            fi
        END;
        if
        :: x != 0 ->
            check_current(e, x, lost);
            if :: !lost -> remove(k, x, gone); if :: gone -> k++ :: else fi; gone = 0 :: else fi;
            x = 0
        :: other != 0 -> finish_as_helper(k, other, ignored); other = 0; ignored = 0
        :: else
        fi
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
    STEP if :: word[i] == w -> verdict[e] = SHOW; word[i] = VISIBLE(e); SHOWN(e); result = OK :: else fi END;
#else
    STEP
        if
        :: word[i] == w && SPARED(e) -> word[i] = PENDING(e); placed = 1
        :: word[i] == w && !SPARED(e) -> verdict[e] = SHOW; word[i] = VISIBLE(e); SHOWN(e); result = OK
        :: else
        fi
    END;
#endif
#ifdef MUTATE_JUDGE_AFTERWARDS
    if
    :: result == OK ->
        superseded(e, lost);
        if :: lost -> STEP kill(i, VISIBLE(e)) END; result = LOST; was_visible[e] = 0; lost = 0 :: else fi
    :: else
    fi
#endif
}

inline meet(e)
{
    STEP lost = !OUTRANKS(e, 0, w, i + 1) END; /* not in a word yet: of two that tie, the newer one */
    if
    :: IS_PENDING(w) && !lost -> remove(i, w, gone); gone = 0
#ifdef MUTATE_NO_HELP
    :: IS_PENDING(w) && lost -> result = LOST; lost = 0
#else
    :: IS_PENDING(w) && lost -> lost = 0; finish(i, ENTRY(w), ignored); ignored = 0
#endif
    :: !IS_PENDING(w) && lost -> result = LOST; lost = 0
    :: !IS_PENDING(w) && !lost ->
        if :: IS_FILL(e) || version[ENTRY(w)] > version[e] -> superseded(e, lost) :: else fi;
        if
        :: lost -> result = LOST; lost = 0
        :: !lost -> replace(e)
        fi
    fi
}

#ifdef MUTATE_VISIBLE_AT_ONCE
#define put(e) verdict[e] = SHOW; word[i] = VISIBLE(e); SHOWN(e); placed = 1
#else
#define put(e) word[i] = PENDING(e); placed = 1
#endif

/* choose_slot and the CAS: any empty word. (Of a full bucket another key's word is dropped, never one of this key.) */
#ifdef MUTATE_OWN_VICTIM
#define ROOM(w) ((w) == 0 || !IS_PENDING(w))
#else
#define ROOM(w) ((w) == 0)
#endif
#define NO_EMPTY (!ROOM(word[0]) && !ROOM(word[1]) && !ROOM(word[NWORDS - 1]))
inline insert(e)
{
    if
    :: WHEN(ROOM(word[0])) i = 0; put(e) END
    :: WHEN(ROOM(word[1])) i = 1; put(e) END
#if NWORDS > 2
    :: WHEN(ROOM(word[2])) i = 2; put(e) END
#endif
    :: WHEN(NO_EMPTY) other = (IS_PENDING(word[0]) -> ENTRY(word[0]) : 0) END;
        i = 0;
        if :: other != 0 -> finish_as_helper(i, other, ignored); other = 0; ignored = 0 :: else fi
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

/* Local or not: no event of this host. */
#ifdef MUTATE_ADD_IS_EVENT
#define ADD_RECORD OWN
#else
#define ADD_RECORD ADDED
#endif

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
    STEP conflict(0, token, fence, moved) END
}

inline look_up_to_record()
{
#ifndef MUTATE_LOOK_ONCE
    STEP if :: !moved -> conflict(0, since, s - 1, moved) :: else fi END;
#endif
    if :: moved -> result = LOST; moved = 0 :: else fi
}

/* ---- relay.c ---- */

/* index_kill_unless, spared_by_set: an entry that holds the announced bytes is kept, and is as new as the event from here on. A
 * word that has changed is looked at again. */
inline kill_unless_same()
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
            remove(i, w, moved);
            w = 0;
            if :: moved -> i++ :: else fi;
            moved = 0
        :: else
        fi
    :: else -> break
    od
}

/* ---- the rest ---- */

/* Ghosts are copied with the CAS: an event that spares the old word meanwhile speaks of the copy's bytes too. */
#define copy(e) w = word[i]; version[e] = version[ENTRY(w)]; is_local[e] = is_local[ENTRY(w)]; \
    guarded[e] = guarded[ENTRY(w)]; is_add[e] = is_add[ENTRY(w)]; count[e] = count[ENTRY(w)]

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

#define MY_BIT (1 << _pid)

/* cache_incr: one CAS, of a copy that counts one more. */
inline count_on(e)
{
    STEP
        i = (IS_VISIBLE(word[0]) -> 0 : (IS_VISIBLE(word[1]) -> 1 : NWORDS));
        if :: i < NWORDS -> copy(e); count[e]++ :: else fi
    END;
    STEP
        if
        :: i < NWORDS && word[i] == w ->
            position[e] = position[ENTRY(w)]; value[e] = value[ENTRY(w)]; word[i] = VISIBLE(e); SHOWN(e);
            result = OK
        :: i < NWORDS && word[i] != w -> result = TRYING
        :: else -> result = LOST
        fi;
        w = 0; i = 0
    END
}

/* An add is begun, or begun anew: lost, if a get would hit. */
inline begin_add(e)
{
    STEP
        adding = adding | MY_BIT;
        if :: ANY_VISIBLE -> saw = saw | MY_BIT :: else fi
    END;
    STEP result = (IS_VISIBLE(word[0]) -> LOST : TRYING) END;
    STEP if :: IS_VISIBLE(word[1]) -> result = LOST :: else fi END
}

inline end_add() { adding = adding & ~MY_BIT; saw = saw & ~MY_BIT }

/* P5, where set, fill or add has its answer for one entry. */
inline answer(e)
{
    STEP
        assert((result == OK) == was_visible[e]);
        said_lost[e] = (result == LOST)
    END
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
#ifdef COUNTED
        assert(!ANY_VISIBLE || counted == (IS_VISIBLE(word[0]) -> count[ENTRY(word[0])] : count[ENTRY(word[1])]));
        assert(ANY_VISIBLE || counted == 0);
#endif
        assert(slot[tail] == NO_RECORD || guarded[MINE]); /* a newcomer's fill helps nobody's record */
        k = 0; n = 0
    END
}

/* What a process keeps for itself; cleaned at its end, so that states which differ in nothing else are one. */
#define CLEAN s = 0; v = 0; p = 0; i = 0; w = 0; token = 0; since = 0; moved = 0; placed = 0; evicts = 0; \
    result = TRYING; mine = 0
#define PRIVATE byte s, v, p, i, w, x, x2, k, k2, n, other, token, since, result, ignored, mine; \
    bool lost, lost2, gone, gone2, moved, placed, evicts, adds

#define STORES (verb <= FILL)
#define REMOTELY (verb == APPLY || verb == APPLY_SET)

proctype worker(byte verb)
{
    PRIVATE;

    mine = MINE;
    if
    :: verb == ADD || verb == INCR ->
        adds = 1;
again:
        result = TRYING;
        if
        :: verb == INCR ->
            count_on(mine);
            if :: result == OK -> counted++; goto over :: result == TRYING -> goto again :: else fi
        :: else
        fi;
        begin_add(mine);
        if
        :: result == TRYING ->
            append(ADD_RECORD, mine, 0);
            STEP is_add[mine] = 1; is_local[mine] = (verb == INCR); count[mine] = 1 END;
            publish(mine);
            answer(mine);
            if
            :: result == OK -> counted = counted + (verb == INCR); end_add(); goto added
#ifndef MUTATE_ADD_GIVES_UP
            :: result == LOST ->
                s = 0;
                STEP
                    if
                    :: mine + PROCS + 1 < ENTRIES -> mine = mine + PROCS + 1
                    :: else -> mine = 0
                    fi
                END;
                end_add();
                mine != 0; /* else no more tries: it is not looked at any further */
                goto again
#endif
            :: else
            fi
        :: else
        fi;
        STEP assert(saw & MY_BIT); end_add() END; /* P5 */
        if :: verb == INCR -> goto again :: else -> goto over fi;
added:
        complete(s, 0, 1);
        goto over
    :: verb == MOVE -> move(MINE); goto over
    :: verb == EVICT -> evict(); goto over
    :: verb == FILL -> load_and_stamp(MINE)
    :: verb == HEAL ->
        /* The bridge forwards a record after this: then it counts as completed, whatever became of its writer. */
#ifdef MUTATE_HEAL_ADDS
        STEP s = tail; v = written[s - 1]; evicts = (slot[s - 1] == OWN || slot[s - 1] == ADDED) END;
#else
        STEP s = tail; v = written[s - 1]; evicts = (slot[s - 1] == OWN) END;
#endif
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
    :: STORES -> publish(MINE); answer(MINE)
    :: verb == APPLY_SET -> kill_unless_same()
    :: else
    fi;
    if
    :: verb == FILL -> goto over
#ifdef SET_WINS
    :: verb == SET && result != OK -> assert(false)
#endif
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
 * or the sweep has helped a record whose tail has not moved). An add takes, or a value is there, once it was begun anew. */
proctype newcomer()
{
    PRIVATE;
    d_step { all_dead = 1 };
    mine = MINE;
    if
    :: write_origin();
        append(OWN, mine, v);
        publish(mine);
        assert(result == OK)
    :: fence <= tail ->
        guarded[mine] = 1;
        load_and_stamp(mine);
        publish(mine);
        assert(result == OK)
    :: adds = 1;
        do
        :: begin_add(mine);
            if :: result == LOST -> goto there :: else fi; /* it appends nothing, so helps nobody's record */
            append(ADD_RECORD, mine, 0);
            STEP is_add[mine] = 1 END;
            publish(mine);
            if :: result == OK -> break :: else fi;
            assert(mine == MINE);
            mine = LAST_ENTRY
        od
    fi;
    at_rest();
there: skip
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
