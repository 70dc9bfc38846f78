/* torture_peers.c - waiting for the peers: a bridge that notes acknowledgements, writers that wait, slots that are reused.
 *
 * Worker 0 is the bridge. Each peer applies the ring in leaps, which is then noted; peers come and go, and their slots are
 * given to others. The other workers write, local keys too, and check whether their last announcement has arrived.
 *
 *   If a writer is told that it has arrived, every peer that was a member all the time has applied it.
 *   It has arrived once the bridge has noted all of the ring for every peer. It has not if the bridge is silent or dead, or
 *   if one peer lacks the last record.
 *
 * Its power (each break made in a copy of the core; seconds until caught, on two busy cores)
 *
 *   the last record need not be applied 0.1     a slot keeps what its last owner said      0.1
 *   what is acknowledged is not asked   0.1     a position beyond the tail is believed     0.1
 *   an announcement is not remembered   0.1     a bridge without its lock is believed      0.1
 *   a local key is                      0.1     a silent one is believed                   0.1
 *   one out of reach is waited for      0.1     a forgotten one is waited for              0.1
 */
#include "torture.h"

#include "doorbell.h"
#include "peers.h"

enum { SEGMENT_BYTES = 1 << 20, WORKERS = 3, STEADY = 3, PEERS = 5, FOR_EVER_MS = 1 << 30 };
enum { SYNCED, LACKING, ACKED, CHANGED };

static int file;
static a64 *applied; /* per slot, what is really so: never falls for the steady ones */

/* As module_sources.c opens a slot. */
static void open_slot(struct attachment *a, uint32_t i)
{
    peers_reset(&a->sources[i]);
    store_release(&applied[i], 0);
    store_release(&a->sources[i].used, 1);
}

static void tell(struct attachment *a, uint32_t i, uint64_t position)
{
    store_release(&applied[i], position);
    peers_acked(a, &a->sources[i], position);
    peers_tell(&a->sources[i], true, clock_ms(a));
    tally(ACKED);
}

static void be_the_bridge(struct attachment *a, struct chance *c)
{
    uint32_t i = 1 + chance_below(c, PEERS);
    uint64_t have = load_relaxed(&applied[i]), tail = ring_tail(a);
    if (i > STEADY && chance_below(c, 4) == 0) {
        store_release(&a->sources[i].used, 0);
        open_slot(a, i);
        tally(CHANGED);
    } else if (i > STEADY && chance_below(c, 4) == 0) {
        peers_tell(&a->sources[i], false, 0);
    } else {
        tell(a, i, chance_below(c, 8) ? tail : have + (tail - have) / 2);
    }
    peers_vouch(a, clock_ms(a) + FOR_EVER_MS);
}

static void write_and_look(struct attachment *a, struct chance *c)
{
    struct named_key k = key_named(a, chance_below(c, 100));
    struct write w = write_of(&k, "x", 1);
    w.local = chance_below(c, 4) == 0;
    chance_below(c, 2) ? (void)cache_set(a, &w) : (void)cache_delete(a, k.hash);
    uint64_t written = a->written;
    for (int looks = 0; looks < 500 && !peers_synced(a, written); looks++) {
        peers_ask(a, written);
        tally(LACKING);
        nap_us(20);
    }
    if (!peers_synced(a, written))
        return;
    for (uint32_t i = 1; i <= STEADY; i++)
        REQUIRE(load_acquire(&applied[i]) >= written, "peer %u has %llu, not %llu", i, (unsigned long long)load_acquire(&applied[i]),
                (unsigned long long)written);
    tally(SYNCED);
}

static void work(int number, uint64_t seed)
{
    struct attachment a;
    struct segment_config config = plain_config(SEGMENT_BYTES);
    struct chance c = {seed};
    config.has_bridge = true;
    attach_to(&a, file, &config);
    if (number == 0)
        REQUIRE(segment_become_bridge(&a), "there is a bridge already");
    for (uint32_t i = 1; number == 0 && i <= PEERS; i++)
        open_slot(&a, i);
    for (uint32_t i = 1; number == 0 && i <= PEERS; i++)
        tell(&a, i, 0);
    while (!torture_over())
        number == 0 ? be_the_bridge(&a, &c) : write_and_look(&a, &c);
    segment_detach(&a);
}

/* ---- one word after the other ---- */

static void announce(struct attachment *a, bool local)
{
    struct named_key k = key_named(a, 1);
    struct write w = write_of(&k, "x", 1);
    w.local = local;
    REQUIRE(cache_set(a, &w) == STORED, "a set");
}

static void check_each(struct attachment *bridge, struct attachment *a)
{
    struct source_slot *slots = bridge->sources;
    REQUIRE(!peers_synced(a, a->written), "no bridge, and it is synced");
    REQUIRE(segment_become_bridge(bridge), "there is a bridge already");
    REQUIRE(!peers_synced(a, a->written), "a bridge that has told nothing is believed");
    peers_vouch(bridge, clock_ms(bridge) + FOR_EVER_MS);
    REQUIRE(peers_synced(a, a->written), "nobody to wait for");

    open_slot(bridge, 1);
    peers_tell(&slots[1], true, 1);
    REQUIRE(!peers_synced(a, a->written), "a peer that has said nothing is taken for one that has all");
    peers_acked(a, &slots[1], ring_tail(a));
    REQUIRE(peers_synced(a, a->written), "the peer has all");
    announce(a, true);
    REQUIRE(peers_synced(a, a->written), "a local key is waited for");
    announce(a, false);
    REQUIRE(!peers_synced(a, a->written), "an announcement is not waited for");
    peers_acked(a, &slots[1], a->written - 1);
    REQUIRE(!peers_synced(a, a->written), "the last announcement is not waited for");
    store_relaxed(&slots[1].acked, ring_tail(a) + 2);
    REQUIRE(!peers_synced(a, a->written), "a position that was never written is believed");
    peers_acked(a, &slots[1], a->written - 1);
    peers_acked(a, &slots[1], ring_tail(a) + 1);
    announce(a, false);
    REQUIRE(!peers_synced(a, a->written), "a position that was written only afterwards is believed");
    peers_acked(a, &slots[1], ring_tail(a));
    REQUIRE(peers_synced(a, a->written), "the peer has all again");

    store_release(&slots[1].used, 0);
    open_slot(bridge, 1);
    peers_tell(&slots[1], true, 1);
    REQUIRE(!peers_synced(a, a->written), "a slot keeps what its last owner said");
    peers_tell(&slots[1], false, 1);
    REQUIRE(peers_synced(a, a->written), "a peer out of reach is waited for");
    peers_tell(&slots[1], true, 1);
    store_release(&slots[1].used, 0);
    REQUIRE(peers_synced(a, a->written), "a forgotten peer is waited for");
}

static void check_asking(struct attachment *bridge, struct attachment *a)
{
    REQUIRE(peers_asked(bridge) == 0, "somebody asked");
    REQUIRE(doorbell_arm(bridge, ring_tail(bridge)), "the bell");
    peers_ask(a, a->written);
    REQUIRE(peers_asked(bridge) == a->written && !load_acquire(&a->header->doorbell), "the bridge was not rung for");
    REQUIRE(doorbell_arm(bridge, ring_tail(bridge)), "the bell");
    peers_ask(a, a->written);
    REQUIRE(load_acquire(&a->header->doorbell), "the bridge was rung for twice");
    store_release(&a->header->sync_wanted, UINT64_MAX);
    REQUIRE(peers_asked(bridge) == 0, "garbage asks");
}

static void check_alone(void)
{
    struct attachment bridge, a;
    struct segment_config config = plain_config(SEGMENT_BYTES);
    int fd = memory_file();
    config.has_bridge = true;
    attach_to(&bridge, fd, &config);
    attach_to(&a, reopened(fd), &config);
    announce(&a, false);
    check_each(&bridge, &a);
    check_asking(&bridge, &a);
    struct peer peer;
    REQUIRE(!peers_look(&a, 0, &peer) && !peers_look(&a, UINT32_MAX, &peer), "a slot that there is not");
    peers_vouch(&bridge, clock_ms(&bridge) - 1);
    REQUIRE(!peers_synced(&a, 0), "a silent bridge is believed");
    peers_vouch(&bridge, clock_ms(&bridge) + FOR_EVER_MS);
    REQUIRE(peers_synced(&a, 0), "a bridge that tells is not believed");
    segment_detach(&bridge);
    REQUIRE(!peers_synced(&a, 0), "a bridge that has gone is believed");
    segment_detach(&a);
}

int main(int argc, char **argv)
{
    torture_begin(argc, argv, "torture_peers");
    file = memory_file();
    applied = shared_zeroes((PEERS + 1) * sizeof *applied);
    check_alone();
    torture_run(work, WORKERS, 0, 0, torture.seconds);
    printf("peers: %llu times synced, %llu looks in vain, %llu words of the bridge, %llu slots changed hands\n",
           (unsigned long long)tallied(SYNCED), (unsigned long long)tallied(LACKING), (unsigned long long)tallied(ACKED),
           (unsigned long long)tallied(CHANGED));
    REQUIRE(tallied(SYNCED) > 0 && tallied(CHANGED) > 0, "nothing was tried");
    return 0;
}
