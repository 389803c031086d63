/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The virtual world: a clock, a queue of events, dice, a trace, and machines on which runtimes
 * (src/rt) run. One world per process, one thread; everything that happens in it follows from the
 * seed. net.h gives the machines sockets, fs.h files, backend.c puts both below the runtime.
 */
#ifndef KVASIR_SIM_WORLD_H
#define KVASIR_SIM_WORLD_H

#include "rt/backend.h"

#include "base/list.h"
#include "base/util.h"

#define SIM_REACTORS_MAX 4
#define SIM_MACHINES_MAX 8
#define SIM_FDS_MAX 1024

/* --- dice --------------------------------------------------------------------------------------
 */

/** A stream of random numbers; several, so that one more roll here does not change what is there.
 */
struct sim_dice {
    uint64_t state;
};
void sim_dice_init(struct sim_dice *d, uint64_t seed, const char *purpose);
uint64_t sim_roll(struct sim_dice *d);
/** 0 .. n-1; n > 0. */
uint64_t sim_below(struct sim_dice *d, uint64_t n);
/** lo .. hi, both included. */
uint64_t sim_between(struct sim_dice *d, uint64_t lo, uint64_t hi);
/** True in `ppm` of a million cases. */
bool sim_chance(struct sim_dice *d, uint32_t ppm);
/** Between lo and hi, each power of two about as likely: short is common, long is seldom. */
uint64_t sim_skewed(struct sim_dice *d, uint64_t lo, uint64_t hi);

/* --- events ------------------------------------------------------------------------------------
 */

/** Calls fn at a time of the virtual clock, from the world's loop. Zeroed memory is not queued. */
struct sim_event {
    void (*fn)(struct sim_event *ev);
    uint64_t at_ns;
    uint64_t seq; /* of those at one time the first queued comes first */
    uint32_t heap_pos;
};
void sim_event_at(struct sim_event *ev, uint64_t at_ns);
void sim_event_in(struct sim_event *ev, uint64_t in_ns);
void sim_event_stop(struct sim_event *ev);

/* --- machines ----------------------------------------------------------------------------------
 */

struct sim_fs;
struct sim_machine;

/** Something for a reactor to take in: run() is called from its poll. */
struct sim_due {
    struct list link;
    void (*run)(struct sim_due *due);
};

struct sim_reactor {
    struct sim_machine *machine;
    struct list due;
    bool idle;              /* its last turn did nothing, and nothing has come in since */
    uint64_t stalled_until; /* another process has the core */
};

enum sim_fd_kind { SIM_FD_NONE, SIM_FD_LISTENER, SIM_FD_CONN, SIM_FD_FILE };
struct sim_fd {
    enum sim_fd_kind kind;
    void *ptr;
};

struct sim_machine {
    const char *name;
    unsigned idx;  /* its addresses are 10.0.0.(idx + 1) and fd00::(idx + 1) */
    struct rt *rt; /* NULL: down */
    unsigned nreactors;
    struct sim_reactor reactor[SIM_REACTORS_MAX];
    struct sim_fs *fs; /* what is on its disks; outlives every runtime */
    struct sim_fd fd[SIM_FDS_MAX];
    struct list inflight; /* struct sim_io: operations not yet taken in */
    struct list listeners;
    unsigned boots;
    bool doomed; /* it will crash: what it holds then is not a leak */
};

/** The lowest free descriptor, set to kind and ptr; -EMFILE. */
int sim_fd_new(struct sim_machine *m, enum sim_fd_kind kind, void *ptr);
void *sim_fd_get(struct sim_machine *m, int fd, enum sim_fd_kind kind);
void sim_fd_free(struct sim_machine *m, int fd);
unsigned sim_fd_count(const struct sim_machine *m);

/* --- the world ---------------------------------------------------------------------------------
 */

/** How bad this world is. Chances in parts per million. Filled from the seed by sim_weather(). */
struct sim_weather {
    /* network */
    uint64_t net_delay_ns, net_jitter_ns;
    uint32_t net_slow_ppm;           /* of segments: some are late by far */
    uint32_t net_split_ppm;          /* a send or receive moves a part, a segment ends anywhere */
    uint32_t net_reset_ppm;          /* of connections: dies after some bytes */
    uint32_t net_buf_bytes;          /* largest buffer of one direction */
    uint64_t net_partition_every_ns; /* 0: never */
    /* disks */
    uint64_t disk_delay_ns, disk_jitter_ns;
    uint32_t disk_slow_ppm;
    uint32_t disk_short_ppm; /* reads and writes that move a part */
    uint32_t disk_eio_ppm, disk_fsync_eio_ppm, disk_enospc_ppm;
    uint64_t disk_bytes; /* capacity; 0: enough */
    /* reactors */
    uint32_t stall_ppm; /* of turns */
};

struct sim_world {
    uint64_t seed;
    uint64_t now_ns;
    uint64_t turns;
    struct sim_weather weather;
    struct sim_dice order; /* which reactor, which event of one list */
    struct sim_dice net;
    struct sim_dice disk;
    struct sim_dice random; /* what rt_random() gives */
    struct sim_event **heap;
    uint32_t nevents, heap_cap;
    uint64_t event_seq;
    unsigned nmachines;
    struct sim_machine machine[SIM_MACHINES_MAX];
    struct sim_machine *here; /* whose reactor runs now */
    struct sim_reactor *here_reactor;
    uint64_t blocked_until[SIM_MACHINES_MAX][SIM_MACHINES_MAX]; /* partitions */
    struct list conns;
    uint64_t conn_count;
    uint16_t next_port;
    void (*abandon)(void); /* a machine has crashed: forget what its runtime had; may be NULL */
    bool verbose;
    uint64_t trace_hash;
    uint64_t trace_lines;
    /* For the report. */
    uint64_t nresets, npartitions, npowercuts, nkills, nfaults, nios, nsegs;
};
extern struct sim_world sim;

/** Begins a new world; machines are added with sim_machine_add(). */
void sim_world_init(uint64_t seed);
void sim_world_fini(void);
struct sim_machine *sim_machine_add(const char *name, unsigned nreactors);

/** Starts a runtime on a machine that is down. */
void sim_boot(struct sim_machine *m, size_t buf_bytes);
/** Starts a task on a reactor of a machine that is up. */
int sim_start(struct sim_machine *m, unsigned reactor, const char *name, rt_task_fn fn, void *arg,
              struct rt_req *done);
/** Ends the runtime in good order: no task may be left, no descriptor open, nothing in flight. */
void sim_halt(struct sim_machine *m);
/** The process is killed: its sockets are closed by the kernel, its files stay as they were
 * written. */
void sim_kill(struct sim_machine *m);
/** The power fails: peers hear nothing, the disks keep what was durable and any part of the rest.
 */
void sim_power_cut(struct sim_machine *m);

/** Turns the world until `done(arg)` or the clock reaches until_ns; returns what done says then. */
bool sim_run(bool (*done)(void *arg), void *arg, uint64_t until_ns);

/** Marks a reactor as having something to take in. */
void sim_due_add(struct sim_reactor *r, struct sim_due *due);

/** A line of the trace: hashed, kept for the report of a failure, printed when verbose. */
void sim_trace(const char *fmt, ...) PRINTF_LIKE(1, 2);
/** What the seed has found: prints the reason and the last lines of the trace, and exits. */
__attribute__((noreturn)) void sim_fail(const char *fmt, ...) PRINTF_LIKE(1, 2);
/** The last lines of the trace, for a signal handler as well. */
void sim_trace_dump(int fd);

extern const struct rt_backend_ops sim_backend_ops;

#endif
