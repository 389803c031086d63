/* SPDX-License-Identifier: Apache-2.0 */
/*
 * replay ADDRESS NQN FILE: plays a recorded host against a target of ours, which has to have a
 * namespace 1 like the recorded one (16 MiB of 4 KiB blocks, not written to). Each command is sent
 * when the recorded host sent it, with what depends on the controller exchanged: subsystem NQN,
 * controller id, transfer tags and the way data is cut up. Each answer has to be of the kind that
 * the host got then, and to have what hosts insist on. Exit code 0 when all were.
 */
#include "expect.h"

#include "base/util.h"
#include "proto/nvme_fabrics.h"

#include <stdio.h>

#define CONNS_MAX 32

struct replay {
    const char *addr;
    struct expect e;
    struct script script;
    struct host_conn conn[CONNS_MAX];
    struct nvme_connect_data connect_data[CONNS_MAX];
    unsigned skipped;
};

/* Authentication belongs to the recorded controller's configuration; ours asks for none. */
static bool is_auth(const struct script_cmd *cmd)
{
    const struct nvme_fabrics_cmd *f = (const void *)&cmd->sqe;

    return cmd->sqe.opc == NVME_OPC_FABRICS &&
           (f->fctype == NVME_FC_AUTH_SEND || f->fctype == NVME_FC_AUTH_RECEIVE);
}

static bool is_connect(const struct script_cmd *cmd)
{
    return cmd->sqe.opc == NVME_OPC_FABRICS &&
           ((const struct nvme_fabrics_cmd *)&cmd->sqe)->fctype == NVME_FC_CONNECT;
}

static int step_connect(struct replay *r, const struct script_step *step, struct err *why)
{
    struct host_conn *h = &r->conn[step->conn];
    const struct nvme_tcp_icresp *then = (const void *)step->icresp->bytes.ptr;
    struct nvme_tcp_icresp now;
    int rc = host_open(h, r->addr, why);

    if (rc == 0)
        rc = host_init(h, (const void *)step->icreq->bytes.ptr, &now, why);
    if (rc < 0)
        return rc;
    r->e.fields += 2;
    /* Linux: the digests as asked for, no alignment. */
    if (now.dgst != then->dgst || now.cpda != 0)
        return err_set(why, -EPROTO, "ICResp with digests %u instead of %u, CPDA %u", now.dgst,
                       then->dgst, now.cpda);
    return 0;
}

/* Connect data with our names and numbers in it. */
static struct bytes connect_data(struct replay *r, const struct script_cmd *cmd)
{
    struct nvme_connect_data *d = &r->connect_data[cmd->conn];
    uint16_t cntlid;

    memset(d, 0, sizeof(*d));
    memcpy(d, cmd->out, MIN(sizeof(*d), cmd->out_len));
    cntlid = le16_get(d->cntlid);
    if (cntlid != NVME_CNTLID_DYNAMIC)
        d->cntlid = le16_make(r->e.cntlid[cntlid]);
    if (nvme_cqe_status(&cmd->cqe) == NVME_SC_SUCCESS &&
        strcmp(d->subnqn, NVME_DISCOVERY_NQN) != 0) {
        memset(d->subnqn, 0, sizeof(d->subnqn));
        snprintf(d->subnqn, sizeof(d->subnqn), "%s", r->e.nqn);
    }
    return bytes_make(d, sizeof(*d));
}

static int step_send(struct replay *r, const struct script_cmd *cmd, struct err *why)
{
    struct bytes out = bytes_make(cmd->out, cmd->out_len);

    if (is_connect(cmd))
        out = connect_data(r, cmd);
    return host_send(&r->conn[cmd->conn], &cmd->sqe, out, cmd->in_capsule, why);
}

static int step_wait(struct replay *r, const struct script_cmd *cmd, struct err *why)
{
    struct host_conn *h = &r->conn[cmd->conn];
    struct host_cmd *now;
    int rc = host_wait(h, le16_get(cmd->sqe.cid), &now, why);

    if (rc < 0)
        return rc;
    expect_answer(&r->e, h, cmd, now);
    host_put(now);
    return 0;
}

static int run_step(struct replay *r, const struct script_step *step, struct err *why)
{
    if (step->op == SCRIPT_CONNECT)
        return step_connect(r, step, why);
    if (is_auth(step->cmd)) {
        r->skipped += step->op == SCRIPT_SEND;
        return 0;
    }
    return step->op == SCRIPT_SEND ? step_send(r, step->cmd, why) : step_wait(r, step->cmd, why);
}

/* Commands that had no answer then have none now (event requests). */
static void check_unanswered(struct replay *r)
{
    for (unsigned c = 0; c < r->script.nconns; c++) {
        for (unsigned i = 0; i < HOST_RUNNING_MAX; i++) {
            if (r->conn[c].running[i].done) {
                printf("  wrong: connection %u, CID %u has an answer, and had none\n", c,
                       r->conn[c].running[i].cid);
                r->e.wrong++;
            }
        }
    }
}

static int run(struct replay *r)
{
    struct err why = {""};

    for (unsigned c = 0; c < CONNS_MAX; c++)
        r->conn[c].fd = -1;
    for (size_t i = 0; i < r->script.nsteps; i++) {
        const struct script_step *step = &r->script.steps[i];
        char name[96] = "connect";
        int rc = run_step(r, step, &why);

        if (rc == 0)
            continue;
        if (step->cmd != NULL)
            expect_name(&step->cmd->sqe, step->cmd->admin, name, sizeof(name));
        printf("  broken off: connection %u, %s: %s\n", step->conn, name, why.text);
        r->e.wrong++;
        return rc;
    }
    check_unanswered(r);
    return 0;
}

int main(int argc, char **argv)
{
    static struct replay r;
    struct transcript tr;
    struct err why = {""};

    if (argc != 4) {
        fprintf(stderr, "usage: replay ADDRESS NQN FILE.pcap.zst\n");
        return 2;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    r.addr = argv[1];
    r.e.nqn = argv[2];
    r.e.port = (uint16_t)atoi(strrchr(argv[1], ':') != NULL ? strrchr(argv[1], ':') + 1 : "0");
    if (transcript_open(argv[3], &tr, &why) < 0 || script_make(&tr, &r.script) < 0 ||
        r.script.nconns > CONNS_MAX) {
        fprintf(stderr, "replay: %s: %s\n", argv[3], why.text);
        return 2;
    }
    run(&r);
    for (unsigned c = 0; c < r.script.nconns; c++)
        host_close(&r.conn[c]);
    printf("  %u connections, %u answers, %u fields checked, %llu bytes written, %llu read, %llu "
           "compared, %u authentication steps left out, %u wrong\n",
           r.script.nconns, r.e.answers, r.e.fields, (unsigned long long)r.e.written_bytes,
           (unsigned long long)r.e.read_bytes, (unsigned long long)r.e.compared_bytes, r.skipped,
           r.e.wrong);
    script_free(&r.script);
    transcript_close(&tr);
    return r.e.wrong == 0 ? 0 : 1;
}
