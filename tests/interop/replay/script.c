/* SPDX-License-Identifier: Apache-2.0 */
#include "script.h"

#include "base/util.h"
#include "proto/nvme_fabrics.h"

struct conn_state {
    size_t next;       /* PDU */
    size_t connect_at; /* step */
    bool io;           /* Connect said so */
    struct script_cmd *by_cid[1u << 16];
};

struct maker {
    struct script s;
    size_t steps_max;
    struct conn_state *conns;
};

static struct script_step *add_step(struct maker *m, enum script_op op, unsigned conn)
{
    struct script_step *step;

    if (m->s.nsteps == m->steps_max) {
        size_t max = m->steps_max * 2 + 64;
        struct script_step *grown = realloc(m->s.steps, max * sizeof(*grown));

        if (grown == NULL)
            return NULL;
        m->s.steps = grown;
        m->steps_max = max;
    }
    step = &m->s.steps[m->s.nsteps++];
    *step = (struct script_step){.op = op, .conn = conn};
    return step;
}

static int add_command(struct maker *m, unsigned conn, const struct transcript_pdu *pdu)
{
    const struct nvme_tcp_cmd *p = (const void *)pdu->bytes.ptr;
    const struct nvme_connect_cmd *connect = (const void *)&p->sqe;
    struct script_cmd *cmd = calloc(1, sizeof(*cmd));
    struct script_step *step = add_step(m, SCRIPT_SEND, conn);
    uint32_t sgl_len = le32_get(p->sqe.sgl.len);

    if (cmd == NULL || step == NULL) {
        free(cmd);
        return -ENOMEM;
    }
    step->cmd = cmd;
    cmd->conn = conn;
    cmd->sqe = p->sqe;
    if (connect->opc == NVME_OPC_FABRICS && connect->fctype == NVME_FC_CONNECT)
        m->conns[conn].io = le16_get(connect->qid) != 0;
    cmd->admin = !m->conns[conn].io;
    m->conns[conn].by_cid[le16_get(p->sqe.cid)] = cmd;
    if (p->sqe.sgl.type != NVME_SGL_DATA_BLOCK_OFFSET || sgl_len == 0)
        return 0;
    if (p->ch.pdo == 0 || p->ch.pdo + sgl_len > pdu->bytes.len)
        return -EBADMSG;
    cmd->in_capsule = true;
    cmd->out_len = sgl_len;
    cmd->out = malloc(sgl_len);
    if (cmd->out == NULL)
        return -ENOMEM;
    memcpy(cmd->out, pdu->bytes.ptr + p->ch.pdo, sgl_len);
    return 0;
}

/* Data of either direction, into its place in the command's buffer. */
static int add_data(struct script_cmd *cmd, const struct transcript_pdu *pdu)
{
    const struct nvme_tcp_data *p = (const void *)pdu->bytes.ptr;
    uint32_t off = le32_get(p->datao), len = le32_get(p->datal);
    uint32_t max = le32_get(cmd->sqe.sgl.len);
    uint8_t **buf = pdu->to_controller ? &cmd->out : &cmd->in;
    uint32_t *used = pdu->to_controller ? &cmd->out_len : &cmd->in_len;

    if (len > max || off > max - len || p->ch.pdo + len > pdu->bytes.len)
        return -EBADMSG;
    if (*buf == NULL)
        *buf = calloc(1, max);
    if (*buf == NULL)
        return -ENOMEM;
    memcpy(*buf + off, pdu->bytes.ptr + p->ch.pdo, len);
    *used = MAX(*used, off + len);
    return 0;
}

static int add_pdu(struct maker *m, unsigned conn, const struct transcript_pdu *pdu)
{
    const union nvme_tcp_pdu *p = (const void *)pdu->bytes.ptr;
    struct conn_state *cs = &m->conns[conn];
    struct script_step *step;
    struct script_cmd *cmd;

    switch (p->ch.type) {
    case NVME_TCP_ICREQ:
        cs->connect_at = m->s.nsteps;
        step = add_step(m, SCRIPT_CONNECT, conn);
        if (step == NULL)
            return -ENOMEM;
        step->icreq = pdu;
        return 0;
    case NVME_TCP_ICRESP:
        m->s.steps[cs->connect_at].icresp = pdu;
        return 0;
    case NVME_TCP_CMD:
        return add_command(m, conn, pdu);
    case NVME_TCP_H2C_DATA:
    case NVME_TCP_C2H_DATA:
        cmd = cs->by_cid[le16_get(p->data.cccid)];
        return cmd != NULL ? add_data(cmd, pdu) : -EBADMSG;
    case NVME_TCP_R2T:
        return 0;
    case NVME_TCP_RESP:
        cmd = cs->by_cid[le16_get(p->resp.cqe.cid)];
        step = add_step(m, SCRIPT_WAIT, conn);
        if (cmd == NULL || step == NULL)
            return -EBADMSG;
        step->cmd = cmd;
        cmd->answered = true;
        cmd->cqe = p->resp.cqe;
        return 0;
    default:
        return -EBADMSG;
    }
}

/* The connection with the PDU that is next in the recording; -1 at the end. */
static int next_conn(const struct maker *m, const struct transcript *tr)
{
    size_t first = SIZE_MAX;
    int conn = -1;

    for (size_t c = 0; c < tr->nconvs; c++) {
        const struct transcript_conv *conv = &tr->convs[c];
        size_t next = m->conns[c].next;

        if (next < conv->npdus && conv->pdus[next].order < first) {
            first = conv->pdus[next].order;
            conn = (int)c;
        }
    }
    return conn;
}

int script_make(const struct transcript *tr, struct script *out)
{
    struct maker m = {.s.nconns = (unsigned)tr->nconvs};
    int conn, rc = 0;

    m.conns = calloc(tr->nconvs + 1, sizeof(*m.conns));
    if (m.conns == NULL)
        return -ENOMEM;
    while (rc == 0 && (conn = next_conn(&m, tr)) >= 0)
        rc = add_pdu(&m, (unsigned)conn, &tr->convs[conn].pdus[m.conns[conn].next++]);
    free(m.conns);
    if (rc == 0)
        *out = m.s;
    else
        script_free(&m.s);
    return rc;
}

void script_free(struct script *s)
{
    for (size_t i = 0; i < s->nsteps; i++) {
        struct script_cmd *cmd = s->steps[i].cmd;

        if (s->steps[i].op != SCRIPT_SEND)
            continue;
        if (cmd != NULL) {
            free(cmd->in);
            free(cmd->out);
        }
        free(cmd);
    }
    free(s->steps);
    *s = (struct script){0};
}
