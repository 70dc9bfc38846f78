/* steering.c - see scenes.h: how a child comes to its Nth instruction, and from there from store to store, without a stop
 * at each instruction between.
 *
 * A single step costs two changes of process, and in a virtual machine an exit from it: some 20 us. A campaign that begins
 * a verb again for each of its instructions would spend hours in them.
 */
#include "scenes.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/ucontext.h>
#include <sys/user.h>
#include <sys/wait.h>

#ifdef __x86_64__

static int resume_with(pid_t pid, int signal)
{
    int status;
    REQUIRE(ptrace(PTRACE_CONT, pid, 0, (long)signal) == 0 && waitpid(pid, &status, 0) == pid, "ptrace: %s", strerror(errno));
    REQUIRE(WIFSTOPPED(status), "the steered child ended: %x", (unsigned)status);
    return WSTOPSIG(status);
}

/* ---- to the Nth instruction ----
 *
 * All children of a scene take the same way. So the address of each instruction is noted once. A later child runs to a
 * breakpoint at an address that was passed seldom, and is stepped from there.
 */

enum { ADDRESSES_LOG2 = 16, PASSING_STEPS = 4 /* what one passage of a breakpoint costs, in single steps */, FROM_THE_START = 0 };

static struct way {
    uint32_t known;    /* instructions whose address is known */
    bool ends;         /* the verb has returned after these */
    uint64_t *address; /* of each */
    /* The breakpoint from which it is stepped: that instruction's number, how often its address is passed until then, and
     * what all of that costs, in single steps. */
    uint32_t *from, *passages, *cost;
} way;

static struct passed {
    uint64_t address;
    uint32_t times;
} *passed;

void forget_the_way(void)
{
    if (!way.address) { /* shared: a fork need not copy their page tables */
        way.address = shared_zeroes(STEPS_MAX * sizeof *way.address);
        way.from = shared_zeroes(STEPS_MAX * sizeof *way.from);
        way.passages = shared_zeroes(STEPS_MAX * sizeof *way.passages);
        way.cost = shared_zeroes(STEPS_MAX * sizeof *way.cost);
        passed = shared_zeroes(sizeof *passed << ADDRESSES_LOG2);
    }
    memset(passed, 0, sizeof *passed << ADDRESSES_LOG2);
    way.known = 0;
    way.ends = false;
}

static uint32_t pass(uint64_t address)
{
    uint64_t i = address * 0x9e3779b97f4a7c15ull >> (64 - ADDRESSES_LOG2);
    for (uint32_t tries = 0; passed[i].times && passed[i].address != address; i = (i + 1) & ((1u << ADDRESSES_LOG2) - 1))
        REQUIRE(++tries < 1u << (ADDRESSES_LOG2 - 1), "a verb of too many instructions");
    passed[i].address = address;
    return ++passed[i].times;
}

static uint64_t address_now(pid_t pid)
{
    errno = 0;
    uint64_t address = (uint64_t)ptrace(PTRACE_PEEKUSER, pid, offsetof(struct user, regs.rip), 0);
    REQUIRE(errno == 0, "ptrace: %s", strerror(errno));
    return address;
}

static void note_address(uint64_t address)
{
    uint32_t i = way.known++, passages = pass(address), cost = passages * PASSING_STEPS;
    REQUIRE(i < STEPS_MAX, "a verb does not end");
    way.address[i] = address;
    bool near = i > 0 && way.cost[i - 1] + 1 <= cost;
    way.from[i] = near ? way.from[i - 1] : i;
    way.passages[i] = near ? way.passages[i - 1] : passages;
    way.cost[i] = i == 0 ? 0 : near ? way.cost[i - 1] + 1 : cost;
}

static void poke(pid_t pid, uint64_t at, uint64_t word)
{
    REQUIRE(ptrace(PTRACE_POKETEXT, pid, at, word) == 0, "ptrace: %s", strerror(errno));
}

/* The child runs until it has come to this address so many times, and stands before the instruction. */
static void run_to_breakpoint(pid_t pid, uint64_t address, uint32_t passages)
{
    uint64_t at = address & ~7ull, shift = 8 * (address & 7), word;
    memcpy(&word, (const void *)at, sizeof word); /* ours: the child is our fork */
    uint64_t trap = (word & ~(0xffull << shift)) | 0xccull << shift;
    for (uint32_t n = 1; n <= passages; n++) {
        poke(pid, at, trap);
        REQUIRE(resume_with(pid, 0) == SIGTRAP, "the child takes another way");
        REQUIRE(ptrace(PTRACE_POKEUSER, pid, offsetof(struct user, regs.rip), address) == 0, "ptrace: %s", strerror(errno));
        poke(pid, at, word);
        if (n < passages)
            REQUIRE(step(pid), "the child takes another way");
    }
}

static void run_known(pid_t pid, uint32_t n)
{
    uint32_t at = way.from[n];
    if (at != FROM_THE_START)
        run_to_breakpoint(pid, way.address[at], way.passages[n]);
    for (; at < n; at++)
        REQUIRE(step(pid), "the child takes another way");
    REQUIRE(address_now(pid) == way.address[n], "the child takes another way");
}

bool step_to(pid_t pid, uint32_t instructions)
{
    if (way.ends && instructions >= way.known) {
        REQUIRE(resume_with(pid, 0) == SIGSTOP, "the steered child got a signal");
        return false;
    }
    uint32_t at = instructions < way.known ? instructions : way.known ? way.known - 1 : 0;
    if (way.known)
        run_known(pid, at);
    for (; at < instructions; at++) {
        if (at == way.known)
            note_address(address_now(pid));
        way.ends = !step(pid);
        if (way.ends)
            return false;
    }
    return true;
}

/* ---- from store to store ----
 *
 * The child protects its mapping of the segment. A store raises SIGSEGV; then it makes the mapping writable for one
 * instruction, which ends with SIGTRAP. Between two stores of the only process that runs, the segment stays as it is. */

enum { TRAP_FLAG = 1 << 8, BEGIN = SIGUSR1 };

static struct {
    void *base;
    size_t bytes;
} watched;

static void on_store(int signal, siginfo_t *unused, void *context)
{
    (void)unused;
    ucontext_t *c = context;
    bool stores = signal == SIGSEGV;
    if (mprotect(watched.base, watched.bytes, stores ? PROT_READ | PROT_WRITE : PROT_READ) != 0)
        _exit(1);
    if (stores)
        c->uc_mcontext.gregs[REG_EFL] |= TRAP_FLAG;
    else
        c->uc_mcontext.gregs[REG_EFL] &= ~(greg_t)TRAP_FLAG;
}

void let_stores_be_watched(const struct attachment *a)
{
    struct sigaction action = {.sa_sigaction = on_store, .sa_flags = SA_SIGINFO};
    watched.base = a->base;
    watched.bytes = a->geo.total_bytes;
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGTRAP, &action, NULL);
    sigaction(BEGIN, &action, NULL);
}

bool step_to_store(pid_t pid, bool first)
{
    int signal = resume_with(pid, first ? BEGIN : SIGTRAP);
    if (signal == SIGSTOP)
        return false;
    REQUIRE(signal == SIGSEGV && resume_with(pid, SIGSEGV) == SIGTRAP, "the steered child got signal %d", signal);
    tally(STORES);
    return true;
}

/* ---- how long is it? ----
 *
 * By the processor's trap flag, in the process itself: no other one is woken for an instruction. */

static volatile uint32_t trapped;

static void on_instruction(int unused)
{
    (void)unused;
    REQUIRE(++trapped < STEPS_MAX, "a verb does not end");
}

uint32_t instructions_of(verb *run, struct attachment *a)
{
    signal(SIGTRAP, on_instruction);
    trapped = 0;
    __asm__ volatile("pushfq; orq $0x100, (%%rsp); popfq" ::: "cc", "memory");
    run(a);
    __asm__ volatile("pushfq; andq $~0x100, (%%rsp); popfq" ::: "cc", "memory");
    return trapped;
}

#else /* no breakpoints and no trap flag are known here: each instruction is stepped */

void forget_the_way(void) {}

bool step_to(pid_t pid, uint32_t instructions)
{
    bool running = true;
    for (uint32_t i = 0; i < instructions && running; i++)
        running = step(pid);
    return running;
}

void let_stores_be_watched(const struct attachment *a) { (void)a; }

bool step_to_store(pid_t pid, bool first)
{
    (void)first;
    return step(pid);
}

uint32_t instructions_of(verb *run, struct attachment *a)
{
    run(a);
    return 0; /* it ends: no more is known */
}

#endif
