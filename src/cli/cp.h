/* SPDX-License-Identifier: Apache-2.0 */
/* What the two kinds of device copies share: the state that lets a later run go on. */
#ifndef KVASIR_CLI_CP_H
#define KVASIR_CLI_CP_H

#include "cli/dev.h"
#include "cli/key.h"

/**
 * The file of --state: {"from", "to", "kind", "after" or "offset"}. Everything before that place
 * is durable at the destination. It is taken away when the copy is complete.
 */
struct cp_state {
    const char *path; /* NULL: none is kept */
    uint64_t saved_ns;
    bool resumed;
    struct cli_key after; /* keys; len 0: none yet */
    uint64_t offset;      /* blocks */
};

struct cp {
    struct cli *c;
    struct dev from, to;
    unsigned jobs;
    bool verify;
    bool update;     /* leave out what is the same already */
    bool keep_going;
    struct cp_state state;
    struct cli_progress progress;
    uint64_t copied, skipped, failed;
    int first_rc;
};

/** Reads the state, when there is one; a state of another copy is refused. */
int cp_state_load(struct rt_task *t, struct cp *cp);
/** Whether it is time to save again. */
bool cp_state_due(const struct cp *cp);
int cp_state_save(struct rt_task *t, struct cp *cp);
void cp_state_done(struct cp *cp);

int cp_keys(struct rt_task *t, struct cp *cp);
int cp_blocks(struct rt_task *t, struct cp *cp);

#endif
