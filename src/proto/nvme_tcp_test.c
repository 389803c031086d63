/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PDUs byte by byte, and what is wrong with wrong ones. What real hosts send is in
 * tests/transcript_test.c; here are the things they do not.
 */
#include "proto/nvme_tcp.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static const struct nvme_tcp_rx host_rx = {.ready = true};
static const struct nvme_tcp_rx ctrl_rx = {
    .controller = true, .ready = true, .capsule_data_max = 8192, .data_max = 131072};

/* A common header as a number of fields. */
static struct nvme_tcp_ch ch(uint8_t type, uint8_t flags, uint8_t hlen, uint8_t pdo, uint32_t plen)
{
    return (struct nvme_tcp_ch){type, flags, hlen, pdo, le32_make(plen)};
}

/* FES and FEI of a header: fes << 16 | fei; 0 when it is fine. */
static uint32_t fault_of(const struct nvme_tcp_rx *rx, struct nvme_tcp_ch c)
{
    struct nvme_tcp_fault fault = {0};
    struct nvme_tcp_layout l;
    int rc = nvme_tcp_ch_decode(rx, &c, &l, &fault);

    assert_true(rc == 0 || rc == -EPROTO);
    return rc == 0 ? 0 : (uint32_t)fault.fes << 16 | fault.fei;
}

#define FIELD(offset) (1u << 16 | (offset)) /* invalid header field at offset */
#define SEQUENCE (2u << 16)
#define LIMIT (5u << 16)

static void headers_are_laid_out(void **state)
{
    struct nvme_tcp_rx rx = ctrl_rx;
    struct nvme_tcp_fault fault;
    struct nvme_tcp_layout l;
    struct nvme_tcp_ch c = ch(NVME_TCP_CMD, 0, 72, 72, 72 + 4096);

    assert_int_equal(nvme_tcp_ch_decode(&rx, &c, &l, &fault), 0);
    assert_int_equal(l.hdr_end, 72);
    assert_int_equal(l.data_off, 72);
    assert_int_equal(l.data_len, 4096);
    assert_false(l.ddgst);

    rx.hdgst = rx.ddgst = true;
    rx.pda = 31; /* data at multiples of 128 */
    c = ch(NVME_TCP_CMD, 3, 72, 128, 128 + 4096 + 4);
    assert_int_equal(nvme_tcp_ch_decode(&rx, &c, &l, &fault), 0);
    assert_int_equal(l.hdr_end, 76);
    assert_int_equal(l.data_off, 128);
    assert_int_equal(l.data_len, 4096);
    assert_true(l.ddgst);

    c = ch(NVME_TCP_CMD, 1, 72, 0, 76);
    assert_int_equal(nvme_tcp_ch_decode(&rx, &c, &l, &fault), 0);
    assert_int_equal(l.data_off, 76);
    assert_int_equal(l.data_len, 0);
    assert_false(l.ddgst);

    c = ch(NVME_TCP_H2C_TERM, 0, 24, 0, 24 + 128);
    assert_int_equal(nvme_tcp_ch_decode(&rx, &c, &l, &fault), 0);
    assert_int_equal(l.hdr_end, 24);
    assert_int_equal(l.data_len, 128);
}

static void wrong_headers_are_named(void **state)
{
    struct nvme_tcp_rx fresh = {.controller = true};
    struct nvme_tcp_rx digests = ctrl_rx, aligned = ctrl_rx;

    digests.hdgst = digests.ddgst = true;
    aligned.pda = 1;
    /* type */
    assert_int_equal(fault_of(&ctrl_rx, ch(8, 0, 24, 0, 24)), FIELD(0));
    assert_int_equal(fault_of(&ctrl_rx, ch(0x0a, 0, 24, 0, 24)), FIELD(0));
    assert_int_equal(fault_of(&ctrl_rx, ch(0xff, 0, 24, 0, 24)), FIELD(0));
    assert_int_equal(fault_of(&ctrl_rx, ch(NVME_TCP_RESP, 0, 24, 0, 24)), FIELD(0));
    assert_int_equal(fault_of(&host_rx, ch(NVME_TCP_CMD, 0, 72, 0, 72)), FIELD(0));
    /* sequence */
    assert_int_equal(fault_of(&fresh, ch(NVME_TCP_CMD, 0, 72, 0, 72)), SEQUENCE);
    assert_int_equal(fault_of(&ctrl_rx, ch(NVME_TCP_ICREQ, 0, 128, 0, 128)), SEQUENCE);
    assert_int_equal(fault_of(&fresh, ch(NVME_TCP_ICREQ, 0, 128, 0, 128)), 0);
    assert_int_equal(fault_of(&fresh, ch(NVME_TCP_H2C_TERM, 0, 24, 0, 24)), 0);
    /* flags */
    assert_int_equal(fault_of(&digests, ch(NVME_TCP_CMD, 0, 72, 0, 72)), FIELD(1));
    assert_int_equal(fault_of(&ctrl_rx, ch(NVME_TCP_CMD, 1, 72, 0, 76)), FIELD(1));
    assert_int_equal(fault_of(&digests, ch(NVME_TCP_CMD, 1, 72, 76, 76 + 8)), FIELD(1));
    assert_int_equal(fault_of(&ctrl_rx, ch(NVME_TCP_CMD, 2, 72, 72, 72 + 8)), FIELD(1));
    /* header length */
    assert_int_equal(fault_of(&ctrl_rx, ch(NVME_TCP_CMD, 0, 71, 0, 72)), FIELD(2));
    assert_int_equal(fault_of(&fresh, ch(NVME_TCP_ICREQ, 0, 0, 0, 128)), FIELD(2));
    /* data offset */
    assert_int_equal(fault_of(&ctrl_rx, ch(NVME_TCP_CMD, 0, 72, 0, 72 + 8)), FIELD(3));
    assert_int_equal(fault_of(&ctrl_rx, ch(NVME_TCP_CMD, 0, 72, 74, 72 + 8)), FIELD(3));
    assert_int_equal(fault_of(&ctrl_rx, ch(NVME_TCP_CMD, 0, 72, 252, 72 + 8)), FIELD(3));
    assert_int_equal(fault_of(&aligned, ch(NVME_TCP_CMD, 0, 72, 76, 76 + 8)), FIELD(3));
    assert_int_equal(fault_of(&digests, ch(NVME_TCP_H2C_DATA, 3, 24, 24, 24 + 8)), FIELD(3));
    /* length */
    assert_int_equal(fault_of(&ctrl_rx, ch(NVME_TCP_CMD, 0, 72, 0, 0)), FIELD(4));
    assert_int_equal(fault_of(&ctrl_rx, ch(NVME_TCP_CMD, 0, 72, 0, 71)), FIELD(4));
    assert_int_equal(fault_of(&ctrl_rx, ch(NVME_TCP_CMD, 0, 72, 72, 72)), 0);
    assert_int_equal(fault_of(&digests, ch(NVME_TCP_CMD, 3, 72, 76, 76 + 4)), FIELD(4));
    assert_int_equal(fault_of(&ctrl_rx, ch(NVME_TCP_H2C_DATA, 4, 24, 24, 24)), FIELD(4));
    assert_int_equal(fault_of(&host_rx, ch(NVME_TCP_R2T, 0, 24, 0, 25)), FIELD(4));
    assert_int_equal(fault_of(&fresh, ch(NVME_TCP_ICREQ, 0, 128, 0, 129)), FIELD(4));
    assert_int_equal(fault_of(&fresh, ch(NVME_TCP_H2C_TERM, 0, 24, 0, 23)), FIELD(4));
    assert_int_equal(fault_of(&fresh, ch(NVME_TCP_H2C_TERM, 0, 24, 0, 153)), FIELD(4));
    /* limits */
    assert_int_equal(fault_of(&ctrl_rx, ch(NVME_TCP_CMD, 0, 72, 72, 72 + 8192)), 0);
    assert_int_equal(fault_of(&ctrl_rx, ch(NVME_TCP_CMD, 0, 72, 72, 72 + 8193)), LIMIT);
    assert_int_equal(fault_of(&ctrl_rx, ch(NVME_TCP_H2C_DATA, 4, 24, 24, 24 + 131073)), LIMIT);
    assert_int_equal(fault_of(&host_rx, ch(NVME_TCP_C2H_DATA, 4, 24, 24, UINT32_MAX)), 0);
}

static uint32_t hdr_fault_of(struct nvme_tcp_layout l, const void *pdu)
{
    struct nvme_tcp_fault fault = {0};
    int rc = nvme_tcp_hdr_check(&l, pdu, &fault);

    return rc == 0 ? 0 : (uint32_t)fault.fes << 16 | fault.fei;
}

static void wrong_parameters_are_named(void **state)
{
    struct nvme_tcp_layout req = {.type = NVME_TCP_ICREQ, .hlen = 128, .hdr_end = 128};
    struct nvme_tcp_layout resp = {.type = NVME_TCP_ICRESP, .hlen = 128, .hdr_end = 128};
    struct nvme_tcp_layout data = {
        .type = NVME_TCP_C2H_DATA, .hlen = 24, .hdr_end = 24, .data_len = 512};
    struct nvme_tcp_layout r2t = {.type = NVME_TCP_R2T, .hlen = 24, .hdr_end = 24};
    union nvme_tcp_pdu pdu = {.bytes = {0}};

    nvme_tcp_put_icreq(&pdu, 31, 3, 0);
    assert_int_equal(hdr_fault_of(req, &pdu), 0);
    pdu.icreq.hpda = 32;
    assert_int_equal(hdr_fault_of(req, &pdu), FIELD(10));
    pdu.icreq.pfv = le16_make(1);
    assert_int_equal(hdr_fault_of(req, &pdu), 6u << 16 | 8);

    nvme_tcp_put_icresp(&pdu, 0, 0, 4096);
    assert_int_equal(hdr_fault_of(resp, &pdu), 0);
    nvme_tcp_put_icresp(&pdu, 0, 0, 4092);
    assert_int_equal(hdr_fault_of(resp, &pdu), FIELD(12));
    nvme_tcp_put_icresp(&pdu, 0, 0, 4098);
    assert_int_equal(hdr_fault_of(resp, &pdu), FIELD(12));
    nvme_tcp_put_icresp(&pdu, 40, 0, 4096);
    assert_int_equal(hdr_fault_of(resp, &pdu), FIELD(10));

    pdu.data = (struct nvme_tcp_data){.datal = le32_make(512)};
    assert_int_equal(hdr_fault_of(data, &pdu), 0);
    data.flags = NVME_TCP_F_SUCCESS;
    assert_int_equal(hdr_fault_of(data, &pdu), FIELD(1));
    data.flags = NVME_TCP_F_SUCCESS | NVME_TCP_F_LAST;
    assert_int_equal(hdr_fault_of(data, &pdu), 0);
    pdu.data.datao = le32_make(UINT32_MAX - 511);
    assert_int_equal(hdr_fault_of(data, &pdu), 4u << 16);
    pdu.data.datal = le32_make(511);
    assert_int_equal(hdr_fault_of(data, &pdu), FIELD(16));

    pdu.r2t = (struct nvme_tcp_r2t){.r2to = le32_make(4096), .r2tl = le32_make(1)};
    assert_int_equal(hdr_fault_of(r2t, &pdu), 0);
    pdu.r2t.r2to = le32_make(UINT32_MAX);
    assert_int_equal(hdr_fault_of(r2t, &pdu), 4u << 16);
    pdu.r2t.r2tl = le32_make(0);
    assert_int_equal(hdr_fault_of(r2t, &pdu), FIELD(16));
}

static void header_digest_covers_the_header(void **state)
{
    struct nvme_tcp_tx tx = {.hdgst = true};
    struct nvme_tcp_layout l = {.type = NVME_TCP_RESP, .hdgst = true, .hlen = 24, .hdr_end = 28};
    struct nvme_cqe cqe = {.dw0 = le32_make(7)};
    union nvme_tcp_pdu pdu;

    assert_int_equal(nvme_tcp_put_resp(&pdu, &tx, &cqe), 28);
    assert_int_equal(hdr_fault_of(l, &pdu), 0);
    for (unsigned bit = 0; bit < 28 * 8; bit++) {
        struct nvme_tcp_fault fault;

        pdu.bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_int_equal(nvme_tcp_hdr_check(&l, &pdu, &fault), -EPROTO);
        assert_int_equal(fault.fes, NVME_TCP_FES_HDGST);
        assert_int_equal(fault.fei, le32_at(pdu.bytes + 24));
        pdu.bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
}

static void sgls_agree_with_capsules(void **state)
{
    struct nvme_tcp_layout with = {.data_len = 512}, without = {0};
    struct nvme_tcp_fault fault;
    struct nvme_sqe sqe = {0};
    bool in_capsule;
    uint32_t len;

    nvme_tcp_sgl_in_capsule(&sqe, 512);
    assert_int_equal(sqe.flags, 0x40);
    assert_int_equal(nvme_tcp_sgl_check(&with, &sqe, &len, &in_capsule, &fault), 0);
    assert_true(in_capsule);
    assert_int_equal(len, 512);
    assert_int_equal(nvme_tcp_sgl_check(&without, &sqe, &len, &in_capsule, &fault), -EPROTO);
    assert_int_equal(fault.fes, NVME_TCP_FES_INVALID_FIELD);
    assert_int_equal(fault.fei, 4);
    sqe.sgl.addr = le64_make(1);
    assert_int_equal(nvme_tcp_sgl_check(&with, &sqe, &len, &in_capsule, &fault), -EPROTO);
    assert_int_equal(fault.fes, NVME_TCP_FES_UNSUPPORTED);
    assert_int_equal(fault.fei, 32);

    nvme_tcp_sgl_transport(&sqe, UINT32_MAX);
    assert_int_equal(nvme_tcp_sgl_check(&without, &sqe, &len, &in_capsule, &fault), 0);
    assert_false(in_capsule);
    assert_int_equal(len, UINT32_MAX);
    assert_int_equal(nvme_tcp_sgl_check(&with, &sqe, &len, &in_capsule, &fault), -EPROTO);
    for (unsigned type = 0; type < 256; type++) {
        sqe.sgl = (struct nvme_sgl){.type = (uint8_t)type};
        assert_int_equal(nvme_tcp_sgl_check(&without, &sqe, &len, &in_capsule, &fault),
                         type == 0x01 || type == 0x5a ? 0 : -EPROTO);
    }
}

static void h2c_data_fills_its_window_in_order(void **state)
{
    struct nvme_tcp_window w = {.cccid = 7, .ttag = 9, .next = 1000, .end = 1100};
    struct nvme_tcp_tx tx = {0};
    struct nvme_tcp_fault fault;
    union nvme_tcp_pdu pdu;

    nvme_tcp_put_h2c_data(&pdu, &tx, 7, 8, 1000, 60, false);
    assert_int_equal(nvme_tcp_h2c_check(&w, &pdu.data, &fault), -EPROTO);
    assert_int_equal(fault.fei, 10);
    nvme_tcp_put_h2c_data(&pdu, &tx, 6, 9, 1000, 60, false);
    assert_int_equal(nvme_tcp_h2c_check(&w, &pdu.data, &fault), -EPROTO);
    assert_int_equal(fault.fei, 8);
    nvme_tcp_put_h2c_data(&pdu, &tx, 7, 9, 1001, 60, false);
    assert_int_equal(nvme_tcp_h2c_check(&w, &pdu.data, &fault), -EPROTO);
    assert_int_equal(fault.fes, NVME_TCP_FES_OUT_OF_RANGE);
    nvme_tcp_put_h2c_data(&pdu, &tx, 7, 9, 1000, 60, true); /* LAST too early */
    assert_int_equal(nvme_tcp_h2c_check(&w, &pdu.data, &fault), -EPROTO);
    assert_int_equal(fault.fei, 1);
    nvme_tcp_put_h2c_data(&pdu, &tx, 7, 9, 1000, 60, false);
    assert_int_equal(nvme_tcp_h2c_check(&w, &pdu.data, &fault), 0);
    assert_int_equal(nvme_tcp_h2c_check(&w, &pdu.data, &fault), -EPROTO); /* again */
    nvme_tcp_put_h2c_data(&pdu, &tx, 7, 9, 1060, 41, true);
    assert_int_equal(nvme_tcp_h2c_check(&w, &pdu.data, &fault), -EPROTO);
    assert_int_equal(fault.fes, NVME_TCP_FES_OUT_OF_RANGE);
    nvme_tcp_put_h2c_data(&pdu, &tx, 7, 9, 1060, 40, false); /* full without LAST */
    assert_int_equal(nvme_tcp_h2c_check(&w, &pdu.data, &fault), -EPROTO);
    nvme_tcp_put_h2c_data(&pdu, &tx, 7, 9, 1060, 40, true);
    assert_int_equal(nvme_tcp_h2c_check(&w, &pdu.data, &fault), 1);
}

static void pdus_are_padded_and_counted(void **state)
{
    struct nvme_tcp_tx tx = {.hdgst = true, .ddgst = true, .pda = 15};
    struct nvme_sqe sqe = {.opc = NVME_OPC_WRITE};
    uint8_t pdu[NVME_TCP_PUT_MAX];

    memset(pdu, 0xee, sizeof(pdu));
    assert_int_equal(nvme_tcp_put_cmd(pdu, &tx, &sqe, 512), 128);
    assert_memory_equal(pdu, "\x04\x03\x48\x80\x84\x02\x00\x00\x01", 9); /* PLEN 128+512+4 */
    assert_true(bytes_are_zero(pdu + 76, 128 - 76));
    assert_int_equal(nvme_tcp_put_cmd(pdu, &tx, &sqe, 0), 76);
    assert_memory_equal(pdu, "\x04\x01\x48\x00\x4c\x00\x00\x00", 8);
    assert_int_equal(nvme_tcp_put_c2h_data(pdu, &tx, 3, 0x1000, 1, NVME_TCP_F_LAST), 64);
    assert_memory_equal(pdu, "\x07\x07\x18\x40\x45\x00\x00\x00\x03\x00\x00\x00\x00\x10\x00\x00",
                        16);
    tx = (struct nvme_tcp_tx){0};
    assert_int_equal(nvme_tcp_put_r2t(pdu, &tx, 0x102, 0x304, 5, 6), 24);
    assert_memory_equal(
        pdu, "\x09\x00\x18\x00\x18\x00\x00\x00\x02\x01\x04\x03\x05\0\0\0\x06\0\0\0\0\0\0\0", 24);
}

static void term_requests_carry_the_bad_header(void **state)
{
    struct nvme_tcp_fault fault = {NVME_TCP_FES_INVALID_FIELD, 0x01020304};
    uint8_t bad[200], pdu[NVME_TCP_PUT_MAX];

    memset(bad, 0xab, sizeof(bad));
    assert_int_equal(nvme_tcp_put_term(pdu, true, fault, bytes_make(bad, 8)), 32);
    assert_memory_equal(pdu, "\x03\x00\x18\x00\x20\x00\x00\x00\x01\x00\x04\x03\x02\x01", 14);
    assert_memory_equal(pdu + 24, bad, 8);
    assert_int_equal(nvme_tcp_put_term(pdu, false, fault, bytes_make(bad, 200)), 152);
    assert_int_equal(pdu[0], 2);
    assert_int_equal(nvme_tcp_put_term(pdu, false, fault, bytes_make(NULL, 0)), 24);
    assert_string_equal(nvme_tcp_fes_text(3), "header digest error");
    assert_string_equal(nvme_tcp_fes_text(0), "unknown");
    assert_string_equal(nvme_tcp_fes_text(7), "unknown");
    assert_string_equal(nvme_tcp_type_name(8), "reserved");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(headers_are_laid_out),
        cmocka_unit_test(wrong_headers_are_named),
        cmocka_unit_test(wrong_parameters_are_named),
        cmocka_unit_test(header_digest_covers_the_header),
        cmocka_unit_test(sgls_agree_with_capsules),
        cmocka_unit_test(h2c_data_fills_its_window_in_order),
        cmocka_unit_test(pdus_are_padded_and_counted),
        cmocka_unit_test(term_requests_carry_the_bad_header),
    };

    return cmocka_run_group_tests_name("proto/nvme_tcp", tests, NULL, NULL);
}
