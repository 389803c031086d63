/* SPDX-License-Identifier: Apache-2.0 */
#include "host.h"

#include "base/crc.h"
#include "base/util.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#define ANSWER_SECONDS 20

static int io_all(int fd, void *buf, size_t len, bool is_read)
{
    uint8_t *at = buf;

    while (len > 0) {
        ssize_t n = is_read ? recv(fd, at, len, 0) : send(fd, at, len, MSG_NOSIGNAL);

        if (n == 0)
            return -ECONNRESET;
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno == EAGAIN ? -ETIMEDOUT : -errno;
        at += n;
        len -= (size_t)n;
    }
    return 0;
}

static int write_all(struct host_conn *h, const void *buf, size_t len, struct err *why)
{
    int rc = io_all(h->fd, (void *)(uintptr_t)buf, len, false);

    return rc < 0 ? err_set(why, rc, "sending: %s", err_str(rc)) : 0;
}

int host_open(struct host_conn *h, const char *addr, struct err *why)
{
    struct timeval limit = {.tv_sec = ANSWER_SECONDS};
    struct sockaddr_in sin = {.sin_family = AF_INET};
    char host[64];
    unsigned port;
    int on = 1;

    *h = (struct host_conn){.fd = -1};
    if (sscanf(addr, "%63[^:]:%u", host, &port) != 2 || inet_aton(host, &sin.sin_addr) == 0)
        return err_set(why, -EINVAL, "'%s' is no IPv4 address with a port", addr);
    sin.sin_port = htons((uint16_t)port);
    h->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (h->fd < 0 || connect(h->fd, (void *)&sin, sizeof(sin)) < 0)
        return err_set(why, -errno, "%s: %s", addr, strerrordesc_np(errno));
    setsockopt(h->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    setsockopt(h->fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    setsockopt(h->fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
    return 0;
}

void host_close(struct host_conn *h)
{
    for (unsigned i = 0; i < HOST_RUNNING_MAX; i++)
        host_put(&h->running[i]);
    if (h->fd >= 0)
        close(h->fd);
    h->fd = -1;
}

void host_put(struct host_cmd *cmd)
{
    free(cmd->in);
    *cmd = (struct host_cmd){0};
}

static struct host_cmd *find(struct host_conn *h, uint16_t cid)
{
    for (unsigned i = 0; i < HOST_RUNNING_MAX; i++) {
        if (h->running[i].used && h->running[i].cid == cid)
            return &h->running[i];
    }
    return NULL;
}

/* --- receiving -------------------------------------------------------------------------------- */

static int fault_text(const struct nvme_tcp_ch *ch, const struct nvme_tcp_fault *f, struct err *why)
{
    return err_set(why, -EPROTO, "%s: %s, FEI %u", nvme_tcp_type_name(ch->type),
                   nvme_tcp_fes_text(f->fes), f->fei);
}

/* Reads a header with its digest and padding. */
static int read_header(struct host_conn *h, union nvme_tcp_pdu *pdu, struct nvme_tcp_layout *l,
                       struct err *why)
{
    struct nvme_tcp_fault fault;
    int rc = io_all(h->fd, pdu, sizeof(pdu->ch), true);

    if (rc < 0)
        return err_set(why, rc, "waiting for an answer: %s", err_str(rc));
    if (nvme_tcp_ch_decode(&h->rx, &pdu->ch, l, &fault) < 0)
        return fault_text(&pdu->ch, &fault, why);
    rc = io_all(h->fd, pdu->bytes + sizeof(pdu->ch), l->data_off - sizeof(pdu->ch), true);
    if (rc < 0)
        return err_set(why, rc, "inside a header: %s", err_str(rc));
    if (nvme_tcp_hdr_check(l, pdu, &fault) < 0)
        return fault_text(&pdu->ch, &fault, why);
    return 0;
}

/* The data of a C2HData into the command's buffer, in order, and its digest. */
static int take_data(struct host_conn *h, const struct nvme_tcp_layout *l,
                     const struct nvme_tcp_data *pdu, struct err *why)
{
    struct host_cmd *cmd = find(h, le16_get(pdu->cccid));
    uint8_t digest[4];
    int rc;

    if (cmd == NULL || cmd->done)
        return err_set(why, -EPROTO, "C2HData for no command, CID %u", le16_get(pdu->cccid));
    if (cmd->in_last || le32_get(pdu->datao) != cmd->in_len ||
        l->data_len > cmd->in_max - cmd->in_len)
        return err_set(why, -EPROTO, "C2HData out of order or too long, CID %u", cmd->cid);
    rc = io_all(h->fd, cmd->in + cmd->in_len, l->data_len, true);
    if (rc == 0 && l->ddgst)
        rc = io_all(h->fd, digest, sizeof(digest), true);
    if (rc < 0)
        return err_set(why, rc, "inside data: %s", err_str(rc));
    if (l->ddgst && !nvme_tcp_digest_ok(digest, crc32c(0, cmd->in + cmd->in_len, l->data_len)))
        return err_set(why, -EPROTO, "data digest, CID %u", cmd->cid);
    cmd->in_len += l->data_len;
    cmd->data_pdus++;
    cmd->in_last = l->flags & NVME_TCP_F_LAST;
    if ((l->flags & NVME_TCP_F_SUCCESS) == 0)
        return 0;
    return err_set(why, -EPROTO, "SUCCESS although the host uses SQ flow control");
}

static int send_h2c(struct host_conn *h, const struct host_cmd *cmd, uint16_t ttag, uint32_t off,
                    uint32_t len, bool last, struct err *why)
{
    uint8_t head[NVME_TCP_PUT_MAX], digest[4];
    size_t n = nvme_tcp_put_h2c_data(head, &h->tx, cmd->cid, ttag, off, len, last);
    int rc = write_all(h, head, n, why);

    if (rc == 0)
        rc = write_all(h, cmd->out.ptr + off, len, why);
    if (rc == 0 && h->tx.ddgst) {
        le32_put(digest, crc32c(0, cmd->out.ptr + off, len));
        rc = write_all(h, digest, sizeof(digest), why);
    }
    return rc;
}

static int answer_r2t(struct host_conn *h, const struct nvme_tcp_r2t *pdu, struct err *why)
{
    struct host_cmd *cmd = find(h, le16_get(pdu->cccid));
    uint32_t off = le32_get(pdu->r2to), left = le32_get(pdu->r2tl);

    if (cmd == NULL || cmd->done)
        return err_set(why, -EPROTO, "R2T for no command, CID %u", le16_get(pdu->cccid));
    if (off != cmd->asked || left > cmd->out.len - off)
        return err_set(why, -EPROTO, "R2T out of order or too long, CID %u", cmd->cid);
    cmd->asked += left;
    cmd->r2ts++;
    while (left > 0) {
        uint32_t n = MIN(left, h->maxh2cdata);
        int rc = send_h2c(h, cmd, le16_get(pdu->ttag), off, n, n == left, why);

        if (rc < 0)
            return rc;
        off += n;
        left -= n;
    }
    return 0;
}

static int take_response(struct host_conn *h, const struct nvme_cqe *cqe, struct err *why)
{
    struct host_cmd *cmd = find(h, le16_get(cqe->cid));

    if (cmd == NULL || cmd->done)
        return err_set(why, -EPROTO, "answer for no command, CID %u", le16_get(cqe->cid));
    if (cmd->data_pdus > 0 && !cmd->in_last)
        return err_set(why, -EPROTO, "answer before the last data, CID %u", cmd->cid);
    if (le16_get(cqe->sqid) != 0 || le16_get(cqe->status) & 1)
        return err_set(why, -EPROTO, "SQID or phase are not 0, CID %u", cmd->cid);
    cmd->cqe = *cqe;
    cmd->done = true;
    h->completed++;
    return 0;
}

static int take_pdu(struct host_conn *h, struct err *why)
{
    union nvme_tcp_pdu pdu;
    struct nvme_tcp_layout l;
    int rc = read_header(h, &pdu, &l, why);

    if (rc < 0)
        return rc;
    switch (l.type) {
    case NVME_TCP_C2H_DATA:
        return take_data(h, &l, &pdu.data, why);
    case NVME_TCP_R2T:
        return answer_r2t(h, &pdu.r2t, why);
    case NVME_TCP_RESP:
        return take_response(h, &pdu.resp.cqe, why);
    default:
        return err_set(why, -EPROTO, "%s: %s, FEI %u", nvme_tcp_type_name(l.type),
                       nvme_tcp_fes_text(le16_get(pdu.term.fes)), le32_get(pdu.term.fei));
    }
}

/* --- what the test does ----------------------------------------------------------------------- */

int host_init(struct host_conn *h, const struct nvme_tcp_icreq *req,
              struct nvme_tcp_icresp *out_resp, struct err *why)
{
    struct nvme_tcp_layout l;
    union nvme_tcp_pdu pdu;
    int rc = write_all(h, req, sizeof(*req), why);

    if (rc < 0)
        return rc;
    rc = read_header(h, &pdu, &l, why);
    if (rc < 0)
        return rc;
    *out_resp = pdu.icresp;
    h->rx = (struct nvme_tcp_rx){
        .ready = true,
        .hdgst = pdu.icresp.dgst & NVME_TCP_DGST_HEADER,
        .ddgst = pdu.icresp.dgst & NVME_TCP_DGST_DATA,
        .pda = req->hpda,
    };
    h->tx = (struct nvme_tcp_tx){h->rx.hdgst, h->rx.ddgst, pdu.icresp.cpda};
    h->maxh2cdata = le32_get(pdu.icresp.maxh2cdata);
    return 0;
}

int host_send(struct host_conn *h, const struct nvme_sqe *sqe, struct bytes out, bool in_capsule,
              struct err *why)
{
    struct host_cmd *cmd = find(h, le16_get(sqe->cid));
    uint8_t head[NVME_TCP_PUT_MAX], digest[4];
    uint32_t len = in_capsule ? (uint32_t)out.len : 0;
    int rc;

    /* SPDK's host forgets its event requests before it shuts down and uses their CIDs again. */
    if (cmd != NULL && cmd->is_event)
        host_put(cmd);
    else if (cmd != NULL)
        return err_set(why, -EBUSY, "CID %u twice", le16_get(sqe->cid));
    cmd = NULL;
    for (unsigned i = 0; i < HOST_RUNNING_MAX && cmd == NULL; i++)
        cmd = h->running[i].used ? NULL : &h->running[i];
    if (cmd == NULL)
        return err_set(why, -EBUSY, "too many commands at a time");
    *cmd = (struct host_cmd){.used = true,
                             .is_event = sqe->opc == NVME_OPC_ASYNC_EVENT_REQUEST,
                             .cid = le16_get(sqe->cid),
                             .out = out,
                             .in_max = out.len > 0 ? 0 : le32_get(sqe->sgl.len)};
    cmd->in = malloc(cmd->in_max + 1);
    if (cmd->in == NULL)
        return -ENOMEM;
    rc = write_all(h, head, nvme_tcp_put_cmd(head, &h->tx, sqe, len), why);
    if (rc == 0 && len > 0)
        rc = write_all(h, out.ptr, len, why);
    if (rc == 0 && len > 0 && h->tx.ddgst) {
        le32_put(digest, crc32c(0, out.ptr, len));
        rc = write_all(h, digest, sizeof(digest), why);
    }
    h->sent++;
    return rc;
}

int host_wait(struct host_conn *h, uint16_t cid, struct host_cmd **out_cmd, struct err *why)
{
    struct host_cmd *cmd = find(h, cid);

    if (cmd == NULL)
        return err_set(why, -EINVAL, "no command with CID %u", cid);
    while (!cmd->done) {
        int rc = take_pdu(h, why);

        if (rc < 0)
            return rc;
    }
    *out_cmd = cmd;
    return 0;
}
