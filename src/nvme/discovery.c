/* SPDX-License-Identifier: Apache-2.0 */
/* Reading the discovery log: head, entries, head again, until nothing changed in between. */
#include "nvme/internal.h"

#include <stdio.h>
#include <string.h>

#define ROUNDS_MAX 5

static int read_head(struct rt_task *t, struct nvme_ctrl *ctrl, uint64_t *out_genctr,
                     uint64_t *out_numrec)
{
    CLEANUP(free_p) struct nvme_discovery_head *head = malloc(sizeof(*head));
    int rc;

    if (head == NULL)
        return -ENOMEM;
    rc = nvme_get_log(t, ctrl, NVME_LID_DISCOVERY, 0, 0, 0, head, sizeof(*head));
    if (rc < 0)
        return rc;
    if (le16_get(head->recfmt) != 0)
        return -EPROTO;
    *out_genctr = le64_get(head->genctr);
    *out_numrec = le64_get(head->numrec);
    return 0;
}

static int read_entries(struct rt_task *t, struct nvme_ctrl *ctrl, unsigned count,
                        struct nvme_discovery **out_log)
{
    CLEANUP(free_p) struct nvme_discovery_entry *raw = NULL;
    CLEANUP(free_p) struct nvme_discovery *log = NULL;

    raw = malloc(sizeof(*raw));
    log = calloc(1, sizeof(*log) + count * sizeof(log->entry[0]));
    if (raw == NULL || log == NULL)
        return -ENOMEM;
    for (unsigned i = 0; i < count; i++) {
        int rc =
            nvme_get_log(t, ctrl, NVME_LID_DISCOVERY, 0, 0,
                         sizeof(struct nvme_discovery_head) + i * sizeof(*raw), raw, sizeof(*raw));

        if (rc < 0)
            return rc;
        if (nvme_discovery_decode(raw, &log->entry[log->count]) == 0)
            log->count++;
    }
    *out_log = take_ptr(&log);
    return 0;
}

static int read_log(struct rt_task *t, struct nvme_ctrl *ctrl, struct nvme_discovery **out_log)
{
    uint64_t genctr, again, numrec, ignored;
    int rc = read_head(t, ctrl, &genctr, &numrec);

    for (int round = 0; rc == 0 && round < ROUNDS_MAX; round++) {
        struct nvme_discovery *log = NULL;

        rc = read_entries(t, ctrl, (unsigned)MIN(numrec, (uint64_t)NVME_DISCOVERY_MAX), &log);
        if (rc == 0)
            rc = read_head(t, ctrl, &again, &ignored);
        if (rc == 0 && again == genctr) {
            log->genctr = genctr;
            *out_log = log;
            return 0;
        }
        free(log);
        genctr = again;
        numrec = ignored;
    }
    return rc < 0 ? rc : -EAGAIN;
}

int nvme_discover(struct rt_task *t, const char *addr, const char *hostnqn,
                  struct nvme_discovery **out_log, struct err *why)
{
    CLEANUP(free_p) struct nvme_ctrl_opts *opts = calloc(1, sizeof(*opts));
    struct nvme_ctrl *ctrl;
    int rc;

    if (opts == NULL)
        return err_set(why, -ENOMEM, "out of memory");
    if (strlen(addr) >= sizeof(opts->addr) || strlen(hostnqn) >= sizeof(opts->hostnqn))
        return err_set(why, -ENAMETOOLONG, "the address or the host NQN is too long");
    snprintf(opts->addr, sizeof(opts->addr), "%s", addr);
    snprintf(opts->hostnqn, sizeof(opts->hostnqn), "%s", hostnqn);
    snprintf(opts->subnqn, sizeof(opts->subnqn), "%s", NVME_DISCOVERY_NQN);
    rc = nvme_ctrl_open(t, opts, &ctrl, why);
    if (rc < 0)
        return rc;
    rc = read_log(t, ctrl, out_log);
    if (rc < 0)
        err_set(why, rc, "reading the discovery log of %s: %s", addr, err_str(rc));
    nvme_ctrl_close(t, ctrl);
    return rc;
}
