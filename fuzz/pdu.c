/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One direction of an NVMe/TCP connection: a byte of settings, then PDUs as they come from a
 * socket. Everything that decodes has to lie inside its PDU, and a header that is encoded again
 * has to decode to the same layout.
 */
#include "fuzz/fuzz.h"

#include "base/crc.h"
#include "proto/nvme_fabrics.h"
#include "proto/nvme_tcp.h"

#define CAPSULE_DATA_MAX 8192

/* Settings: bit 0 we are the controller, 1 header digest, 2 data digest, 3 header digests are made
 * right before they are checked, 4 ICReq or ICResp have passed, 7:5 PDA. */
struct session {
    struct nvme_tcp_rx rx;
    bool fix_digests;
    struct nvme_tcp_window window;
};

static void check_layout(const struct nvme_tcp_layout *l)
{
    uint64_t end = (uint64_t)l->data_off + l->data_len + (l->ddgst ? 4 : 0);

    must(l->hdr_end == l->hlen + (l->hdgst ? 4u : 0u));
    must(l->hdr_end <= l->data_off);
    must(l->data_off <= NVME_TCP_HDR_MAX);
    must(end == l->plen);
}

/* The header as the encoder writes it: with the smallest PDO, and only the flags that count. */
static void check_encoding(const struct session *s, const struct nvme_tcp_layout *l,
                           const union nvme_tcp_pdu *pdu)
{
    struct nvme_tcp_tx tx = {.hdgst = l->hdgst, .ddgst = s->rx.ddgst, .pda = s->rx.pda};
    uint8_t out[NVME_TCP_PUT_MAX];
    struct nvme_tcp_layout again;
    struct nvme_tcp_fault fault;
    size_t n;

    switch (l->type) {
    case NVME_TCP_CMD:
        n = nvme_tcp_put_cmd(out, &tx, &pdu->cmd.sqe, l->data_len);
        break;
    case NVME_TCP_RESP:
        n = nvme_tcp_put_resp(out, &tx, &pdu->resp.cqe);
        break;
    case NVME_TCP_H2C_DATA:
        n = nvme_tcp_put_h2c_data(out, &tx, le16_get(pdu->data.cccid), le16_get(pdu->data.ttag),
                                  le32_get(pdu->data.datao), l->data_len,
                                  l->flags & NVME_TCP_F_LAST);
        break;
    case NVME_TCP_C2H_DATA:
        n = nvme_tcp_put_c2h_data(out, &tx, le16_get(pdu->data.cccid), le32_get(pdu->data.datao),
                                  l->data_len, l->flags & (NVME_TCP_F_LAST | NVME_TCP_F_SUCCESS));
        break;
    case NVME_TCP_R2T:
        n = nvme_tcp_put_r2t(out, &tx, le16_get(pdu->r2t.cccid), le16_get(pdu->r2t.ttag),
                             le32_get(pdu->r2t.r2to), le32_get(pdu->r2t.r2tl));
        break;
    default:
        return;
    }
    must(n <= sizeof(out));
    must(nvme_tcp_ch_decode(&s->rx, (const void *)out, &again, &fault) == 0);
    must(again.type == l->type);
    must(again.data_len == l->data_len);
    must(again.data_off == n);
    must(again.ddgst == l->ddgst);
}

static void check_command(const struct nvme_tcp_layout *l, const struct nvme_tcp_cmd *cmd,
                          const uint8_t *data, size_t data_len)
{
    struct nvme_tcp_fault fault = {0};
    bool in_capsule;
    uint32_t len, dw0;

    if (nvme_tcp_sgl_check(l, &cmd->sqe, &len, &in_capsule, &fault) < 0) {
        must(fault.fes != 0);
        return;
    }
    must(!in_capsule || len == data_len);
    if (cmd->sqe.opc == NVME_OPC_FABRICS && in_capsule)
        nvme_connect_check((const void *)&cmd->sqe, data, data_len, &dw0);
}

static void check_meaning(struct session *s, const struct nvme_tcp_layout *l,
                          const union nvme_tcp_pdu *pdu, const uint8_t *data, size_t data_len)
{
    struct nvme_tcp_fault fault = {0};
    int rc;

    switch (l->type) {
    case NVME_TCP_ICREQ:
    case NVME_TCP_ICRESP:
        s->rx.ready = true;
        break;
    case NVME_TCP_CMD:
        check_command(l, &pdu->cmd, data, data_len);
        break;
    case NVME_TCP_H2C_DATA:
        rc = nvme_tcp_h2c_check(&s->window, &pdu->data, &fault);
        must(rc >= 0 || fault.fes != 0);
        if (rc == 1)
            s->window = (struct nvme_tcp_window){.cccid = 1, .ttag = 2, .end = UINT32_MAX};
        break;
    }
}

/* One PDU. False: the connection ends here. */
static bool take_pdu(struct session *s, struct input *in)
{
    union nvme_tcp_pdu pdu;
    struct nvme_tcp_layout l;
    struct nvme_tcp_fault fault = {0};
    uint8_t term[NVME_TCP_PUT_MAX];
    uint8_t *data;
    size_t data_len;

    if (in->left < sizeof(pdu.ch))
        return false;
    input_fill(in, &pdu, sizeof(pdu.ch));
    if (nvme_tcp_ch_decode(&s->rx, &pdu.ch, &l, &fault) < 0) {
        must(fault.fes >= 1);
        must(fault.fes <= 6);
        nvme_tcp_put_term(term, s->rx.controller, fault, bytes_make(&pdu, sizeof(pdu.ch)));
        return false;
    }
    check_layout(&l);
    if (in->left < l.data_off - sizeof(pdu.ch))
        return false;
    input_fill(in, pdu.bytes + sizeof(pdu.ch), l.data_off - sizeof(pdu.ch));
    if (l.hdgst && s->fix_digests)
        le32_put(pdu.bytes + l.hlen, crc32c(0, pdu.bytes, l.hlen));
    if (nvme_tcp_hdr_check(&l, &pdu, &fault) < 0) {
        must(fault.fes != 0);
        nvme_tcp_put_term(term, s->rx.controller, fault, bytes_make(&pdu, l.hdr_end));
        return false;
    }
    check_encoding(s, &l, &pdu);
    if (l.data_len > in->left)
        return false;
    data = input_take(in, l.data_len, &data_len);
    check_meaning(s, &l, &pdu, data, data_len);
    free(data);
    input_fill(in, term, l.ddgst ? 4 : 0);
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct input in = {data, len};
    uint8_t set = input_u8(&in);
    struct session s = {
        .rx = {.controller = set & 1,
               .ready = set & 16,
               .hdgst = set & 2,
               .ddgst = set & 4,
               .pda = set >> 5,
               .capsule_data_max = CAPSULE_DATA_MAX},
        .fix_digests = set & 8,
        .window = {.cccid = 1, .ttag = 2, .end = UINT32_MAX},
    };

    while (take_pdu(&s, &in))
        ;
    return 0;
}
