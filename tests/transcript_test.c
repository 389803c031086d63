/* SPDX-License-Identifier: Apache-2.0 */
/*
 * transcript_test FILE...: every PDU of every recorded conversation decodes without fault, its
 * digests check, its command and its data agree, and encoding it again gives the same bytes.
 */
#include "tests/transcript.h"

#include "base/crc.h"
#include "base/util.h"
#include "proto/nvme_admin.h"
#include "proto/nvme_fabrics.h"
#include "proto/nvme_tcp.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define CAPSULE_DATA_MAX 8192
#define WINDOWS_MAX 64

static struct {
    unsigned convs, pdus, of_type[16], hdgst, ddgst, commands, fabrics, h2c_windows, cut;
} count;

/* What both sides of one connection know. */
struct side {
    struct nvme_tcp_rx rx;
    struct nvme_tcp_tx tx;
};
struct conv_state {
    struct side side[2]; /* [1] what goes to the controller */
    struct nvme_tcp_window windows[WINDOWS_MAX];
    unsigned nwindows;
};

static void negotiated(struct conv_state *cs, const struct nvme_tcp_icresp *resp)
{
    for (unsigned d = 0; d < 2; d++) {
        struct side *s = &cs->side[d];

        s->rx.ready = true;
        s->rx.hdgst = s->tx.hdgst = resp->dgst & NVME_TCP_DGST_HEADER;
        s->rx.ddgst = s->tx.ddgst = resp->dgst & NVME_TCP_DGST_DATA;
    }
    cs->side[1].rx.data_max = le32_get(resp->maxh2cdata);
    cs->side[1].rx.pda = cs->side[1].tx.pda = resp->cpda;
}

/* Encodes what a header says; returns the bytes before the data. */
static size_t encode_again(const struct conv_state *cs, const struct transcript_pdu *pdu,
                           const union nvme_tcp_pdu *p, const struct nvme_tcp_layout *l, void *out)
{
    const struct nvme_tcp_tx *tx = &cs->side[pdu->to_controller].tx;
    struct nvme_tcp_fault fault;

    switch (l->type) {
    case NVME_TCP_ICREQ:
        return nvme_tcp_put_icreq(out, p->icreq.hpda, p->icreq.dgst, le32_get(p->icreq.maxr2t));
    case NVME_TCP_ICRESP:
        return nvme_tcp_put_icresp(out, p->icresp.cpda, p->icresp.dgst,
                                   le32_get(p->icresp.maxh2cdata));
    case NVME_TCP_H2C_TERM:
    case NVME_TCP_C2H_TERM:
        fault = (struct nvme_tcp_fault){le16_get(p->term.fes), le32_get(p->term.fei)};
        nvme_tcp_put_term(out, !pdu->to_controller, fault,
                          bytes_make(p->bytes + l->hlen, l->data_len));
        return l->hlen;
    case NVME_TCP_CMD:
        return nvme_tcp_put_cmd(out, tx, &p->cmd.sqe, l->data_len);
    case NVME_TCP_RESP:
        return nvme_tcp_put_resp(out, tx, &p->resp.cqe);
    case NVME_TCP_H2C_DATA:
        return nvme_tcp_put_h2c_data(out, tx, le16_get(p->data.cccid), le16_get(p->data.ttag),
                                     le32_get(p->data.datao), le32_get(p->data.datal),
                                     l->flags & NVME_TCP_F_LAST);
    case NVME_TCP_C2H_DATA:
        return nvme_tcp_put_c2h_data(out, tx, le16_get(p->data.cccid), le32_get(p->data.datao),
                                     le32_get(p->data.datal),
                                     l->flags & (NVME_TCP_F_LAST | NVME_TCP_F_SUCCESS));
    case NVME_TCP_R2T:
        return nvme_tcp_put_r2t(out, tx, le16_get(p->r2t.cccid), le16_get(p->r2t.ttag),
                                le32_get(p->r2t.r2to), le32_get(p->r2t.r2tl));
    }
    fail_msg("type %u decodes and cannot be encoded", l->type);
    return 0;
}

/* A command's fields have to make sense to the decoders of the target. */
static void check_command(const struct nvme_tcp_layout *l, const struct nvme_tcp_cmd *cmd,
                          const uint8_t *data)
{
    struct nvme_tcp_fault fault;
    uint32_t len, dw0;
    bool in_capsule;

    assert_int_equal(cmd->sqe.flags & NVME_SQE_PSDT_MASK, NVME_SQE_PSDT_SGL);
    if (cmd->sqe.sgl.type != 0) { /* Property Get and Set have no data pointer */
        assert_int_equal(nvme_tcp_sgl_check(l, &cmd->sqe, &len, &in_capsule, &fault), 0);
        assert_int_equal(in_capsule ? len : 0, l->data_len);
    }
    count.commands++;
    if (cmd->sqe.opc != NVME_OPC_FABRICS)
        return;
    const struct nvme_connect_cmd *connect = (const void *)&cmd->sqe;

    count.fabrics++;
    assert_string_not_equal(nvme_fctype_name(connect->fctype), "unknown");
    if (connect->fctype == NVME_FC_CONNECT &&
        nvme_connect_check(connect, data, l->data_len, &dw0) != NVME_SC_SUCCESS)
        fail_msg("Connect is refused, DW0 %x", dw0);
}

static void add_window(struct conv_state *cs, const struct nvme_tcp_r2t *r2t)
{
    uint32_t r2to = le32_get(r2t->r2to);

    assert_true(cs->nwindows < WINDOWS_MAX);
    cs->windows[cs->nwindows++] = (struct nvme_tcp_window){
        .cccid = le16_get(r2t->cccid),
        .ttag = le16_get(r2t->ttag),
        .next = r2to,
        .end = r2to + le32_get(r2t->r2tl),
    };
}

static void check_h2c_data(struct conv_state *cs, const struct nvme_tcp_data *pdu)
{
    struct nvme_tcp_fault fault;

    for (unsigned i = 0; i < cs->nwindows; i++) {
        int rc;

        if (cs->windows[i].ttag != le16_get(pdu->ttag))
            continue;
        rc = nvme_tcp_h2c_check(&cs->windows[i], pdu, &fault);
        assert_true(rc >= 0);
        if (rc == 1) {
            cs->windows[i] = cs->windows[--cs->nwindows];
            count.h2c_windows++;
        }
        return;
    }
    fail_msg("H2CData without R2T");
}

static void check_response(const struct nvme_cqe *cqe)
{
    uint16_t status = nvme_cqe_status(cqe);

    assert_null(strstr(nvme_fabrics_status_text(status), "unknown"));
    assert_true((nvme_errno_of_fabrics_status(status) == 0) == (status == NVME_SC_SUCCESS));
    assert_int_equal(le16_get(nvme_status_field(status)), le16_get(cqe->status));
}

static void check_meaning(struct conv_state *cs, const struct nvme_tcp_layout *l,
                          const union nvme_tcp_pdu *p, const uint8_t *data)
{
    switch (l->type) {
    case NVME_TCP_ICRESP:
        negotiated(cs, &p->icresp);
        break;
    case NVME_TCP_CMD:
        check_command(l, &p->cmd, data);
        break;
    case NVME_TCP_R2T:
        add_window(cs, &p->r2t);
        break;
    case NVME_TCP_H2C_DATA:
        check_h2c_data(cs, &p->data);
        break;
    case NVME_TCP_RESP:
        check_response(&p->resp.cqe);
        break;
    }
}

static void check_pdu(struct conv_state *cs, const struct transcript_pdu *pdu)
{
    const uint8_t *raw = pdu->bytes.ptr;
    struct nvme_tcp_fault fault = {0};
    union nvme_tcp_pdu p = {.bytes = {0}};
    uint8_t again[NVME_TCP_PUT_MAX];
    struct nvme_tcp_layout l;
    size_t n;

    if (nvme_tcp_ch_decode(&cs->side[pdu->to_controller].rx, (const void *)raw, &l, &fault) < 0)
        fail_msg("%s: FES %u, FEI %u", nvme_tcp_type_name(raw[0]), fault.fes, fault.fei);
    assert_int_equal(l.plen, pdu->bytes.len);
    memcpy(p.bytes, raw, MIN(l.data_off + NVME_TCP_TERM_COPY_MAX, pdu->bytes.len));
    if (nvme_tcp_hdr_check(&l, &p, &fault) < 0)
        fail_msg("%s: FES %u, FEI %u", nvme_tcp_type_name(raw[0]), fault.fes, fault.fei);
    if (l.ddgst)
        assert_true(nvme_tcp_digest_ok(raw + l.data_off + l.data_len,
                                       crc32c(0, raw + l.data_off, l.data_len)));
    n = encode_again(cs, pdu, &p, &l, again);
    assert_int_equal(n, l.data_off);
    assert_memory_equal(again, raw, n);

    check_meaning(cs, &l, &p, raw + l.data_off);
    count.pdus++;
    count.of_type[l.type]++;
    count.hdgst += l.hdgst;
    count.ddgst += l.ddgst;
}

static int files_n;
static char **files;

static void every_pdu_decodes_and_encodes_to_the_same_bytes(void **state)
{
    for (int i = 0; i < files_n; i++) {
        struct transcript tr;
        struct err why = {""};

        if (transcript_open(files[i], &tr, &why) < 0)
            fail_msg("%s: %s", files[i], why.text);
        for (size_t c = 0; c < tr.nconvs; c++) {
            struct conv_state cs = {
                .side = {{.tx.pda = 0},
                         {.rx = {.controller = true, .capsule_data_max = CAPSULE_DATA_MAX}}},
            };

            for (size_t k = 0; k < tr.convs[c].npdus; k++)
                check_pdu(&cs, &tr.convs[c].pdus[k]);
            count.cut += tr.convs[c].cut_bytes;
            count.convs++;
        }
        transcript_close(&tr);
    }
    print_message("%u connections, %u PDUs, %u header digests, %u data digests, %u commands "
                  "(%u fabrics), %u R2T windows filled, %u bytes cut off\n",
                  count.convs, count.pdus, count.hdgst, count.ddgst, count.commands, count.fabrics,
                  count.h2c_windows, count.cut);
    for (unsigned t = 0; t < ARRAY_LEN(count.of_type); t++) {
        if (count.of_type[t] > 0)
            print_message("  %-12s %u\n", nvme_tcp_type_name((uint8_t)t), count.of_type[t]);
    }
}

/* Proof that the test above sees something: changed bytes are noticed. */
static void a_changed_byte_is_noticed(void **state)
{
    unsigned header = 0, data = 0;
    struct transcript tr;
    struct err why;

    for (int i = 0; i < files_n; i++) {
        if (transcript_open(files[i], &tr, &why) < 0)
            fail_msg("%s", why.text);
        for (size_t c = 0; c < tr.nconvs; c++) {
            struct nvme_tcp_rx rx = {.ready = true,
                                     .hdgst = true,
                                     .ddgst = true,
                                     .controller = true,
                                     .capsule_data_max = CAPSULE_DATA_MAX};

            for (size_t k = 0; k < tr.convs[c].npdus; k++) {
                const struct transcript_pdu *pdu = &tr.convs[c].pdus[k];
                union nvme_tcp_pdu p = {.bytes = {0}};
                struct nvme_tcp_fault fault;
                struct nvme_tcp_layout l;
                uint8_t bit = (uint8_t)(1u << k % 8);

                if (!pdu->to_controller ||
                    nvme_tcp_ch_decode(&rx, (const void *)pdu->bytes.ptr, &l, &fault) < 0)
                    continue;
                memcpy(p.bytes, pdu->bytes.ptr, l.hdr_end);
                p.bytes[8 + k % (l.hdr_end - 8)] ^= bit;
                assert_int_equal(nvme_tcp_hdr_check(&l, &p, &fault), -EPROTO);
                assert_int_equal(fault.fes, NVME_TCP_FES_HDGST);
                header++;
                if (l.ddgst) {
                    uint32_t crc = crc32c(0, pdu->bytes.ptr + l.data_off, l.data_len);

                    assert_false(
                        nvme_tcp_digest_ok(pdu->bytes.ptr + l.data_off + l.data_len, crc ^ bit));
                    data++;
                }
            }
        }
        transcript_close(&tr);
    }
    assert_true(header > 50);
    assert_true(data > 10);
}

static void what_is_no_transcript_is_refused(void **state)
{
    struct transcript tr;
    struct err why = {""};

    assert_int_equal(transcript_open("/nonexistent/x.zst", &tr, &why), -ENOENT);
    assert_int_equal(transcript_open("/proc/self/exe", &tr, &why), -EBADMSG);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_pdu_decodes_and_encodes_to_the_same_bytes),
        cmocka_unit_test(a_changed_byte_is_noticed),
        cmocka_unit_test(what_is_no_transcript_is_refused),
    };

    files = argv + 1;
    files_n = argc - 1;
    if (files_n == 0) {
        fprintf(stderr, "usage: transcript_test FILE.pcap.zst...\n");
        return 2;
    }
    return cmocka_run_group_tests_name("transcripts", tests, NULL, NULL);
}
