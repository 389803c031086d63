/* SPDX-License-Identifier: Apache-2.0 */
/* Status codes, fabrics, admin structures. */
#include "proto/nvme.h"

#include "base/err.h"
#include "proto/nvme_admin.h"
#include "proto/nvme_fabrics.h"
#include "proto/nvme_kv_vendor.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static void status_is_as_linux_prints_it(void **state)
{
    struct nvme_cqe cqe = {.status = nvme_status_field(NVME_SC_KV_KEY_NOT_EXIST | NVME_SC_DNR)};

    assert_int_equal(le16_get(cqe.status), 0x810e); /* DNR 15, SC in 8:1 */
    assert_int_equal(nvme_cqe_status(&cqe), 0x4087);
    assert_int_equal(NVME_STATUS_SC(0x4285), 0x85);
    assert_int_equal(NVME_STATUS_SCT(0x4285), NVME_SCT_MEDIA);
    cqe.status = le16_make(0x0001); /* a phase bit is no status */
    assert_int_equal(nvme_cqe_status(&cqe), NVME_SC_SUCCESS);
}

static const int errnos[] = {ENOENT,       EEXIST,     ESTALE, EINVAL,  ERANGE,  EFBIG,
                             ENAMETOOLONG, ENOSPC,     EROFS,  ENOTSUP, EBADMSG, EIO,
                             ENODEV,       ECONNRESET, EILSEQ, EBUSY,   EACCES,  ECANCELED,
                             ETIMEDOUT,    ENOMEM,     EPROTO, EDEADLK, EAGAIN,  9999};

/* What a KV device says has to come out at the other end of the wire. */
static void kv_errors_survive_the_wire(void **state)
{
    static const int same[] = {ENOENT, EEXIST, ESTALE,  EINVAL,   EFBIG, ENAMETOOLONG,
                               ENOSPC, EROFS,  ENOTSUP, EBADMSG,  EIO,   ENODEV,
                               EILSEQ, EBUSY,  EACCES,  ECANCELED};

    for (size_t i = 0; i < ARRAY_LEN(same); i++) {
        uint16_t status = nvme_status_of_errno(-same[i], NVME_FOR_KV);

        assert_int_equal(nvme_kvv_errno_of_status(status), -same[i]);
    }
    assert_int_equal(nvme_errno_of_status(nvme_status_of_errno(-ERANGE, NVME_FOR_READ)), -ERANGE);
    assert_int_equal(nvme_status_of_errno(-EBADMSG, NVME_FOR_READ), 0x4281);
    assert_int_equal(nvme_status_of_errno(-EIO, NVME_FOR_WRITE), 0x4280);
    assert_int_equal(nvme_status_of_errno(-EILSEQ, NVME_FOR_READ), 0x4285);
    assert_int_equal(nvme_status_of_errno(0, NVME_FOR_KV), 0);
}

static void no_failure_becomes_success(void **state)
{
    for (size_t i = 0; i < ARRAY_LEN(errnos); i++) {
        for (unsigned w = NVME_FOR_OTHER; w <= NVME_FOR_KV; w++) {
            uint16_t status = nvme_status_of_errno(-errnos[i], (enum nvme_status_for)w);

            assert_int_not_equal(status & NVME_SC_CODE_MASK, NVME_SC_SUCCESS);
            assert_true(nvme_errno_of_status(status) < 0);
        }
    }
    for (unsigned status = 0; status < 0x8000; status++) {
        bool success = (status & NVME_SC_CODE_MASK) == 0;

        assert_true((nvme_errno_of_status((uint16_t)status) == 0) == success);
        assert_true((nvme_errno_of_fabrics_status((uint16_t)status) == 0) == success);
        assert_true((nvme_kvv_errno_of_status((uint16_t)status) == 0) == success);
        assert_non_null(nvme_status_text((uint16_t)status));
        if (status & NVME_SC_DNR)
            assert_false(nvme_status_may_retry((uint16_t)status));
    }
    assert_true(nvme_status_may_retry(NVME_SC_CMD_INTERRUPTED));
    assert_false(nvme_status_may_retry(NVME_SC_INVALID_FIELD));
    assert_string_equal(nvme_fabrics_status_text(0x4191), "authentication required");
    assert_string_equal(nvme_status_text(0x4182), "attempted write to read-only range");
    assert_string_equal(nvme_fabrics_status_text(0x4182), "invalid parameters of connect");
    assert_int_equal(nvme_errno_of_fabrics_status(0x4184), -EACCES);
}

/* --- fabrics ---------------------------------------------------------------------------------- */

static void nqns_are_checked(void **state)
{
    char field[NVME_NQN_FIELD];

    assert_true(nvme_nqn_ok(NVME_DISCOVERY_NQN));
    assert_true(nvme_nqn_ok("nqn.2026-11.io.kvasir:d\xc3\xa9mo"));
    assert_false(nvme_nqn_ok(""));
    assert_false(nvme_nqn_ok("nqn.2026-11."));
    assert_false(nvme_nqn_ok("nqn.2026-1.x:a"));
    assert_false(nvme_nqn_ok("nqn.2026-11.x:\xff"));
    assert_false(nvme_nqn_ok("nqn.2026-11.x:\xc0\x80"));     /* overlong NUL */
    assert_false(nvme_nqn_ok("nqn.2026-11.x:\xed\xa0\x80")); /* surrogate */
    assert_false(nvme_nqn_ok("nqn.2026-11.x:a\nb"));
    assert_false(nvme_nqn_ok("iqn.2026-11.x:a"));
    memset(field, 'a', sizeof(field));
    memcpy(field, "nqn.2026-11.", 12);
    assert_false(nvme_nqn_field_ok(field)); /* not terminated */
    field[NVME_NQN_MAX + 1] = '\0';
    assert_false(nvme_nqn_field_ok(field));
    assert_false(nvme_nqn_field_printable(field));
    field[NVME_NQN_MAX] = '\0';
    assert_true(nvme_nqn_field_ok(field));
    field[0] = '\0';
    assert_false(nvme_nqn_field_ok(field));
    assert_true(nvme_nqn_field_printable(field));
}

static void connect_faults_point_at_their_field(void **state)
{
    struct nvme_connect_cmd cmd = {.sqsize = le16_make(31)};
    struct nvme_connect_data data = {
        .cntlid = le16_make(0xffff), .subnqn = "nqn.2026-11.x:a", .hostnqn = "nqn.2026-11.x:host"};
    uint32_t dw0 = 77;

    assert_int_equal(nvme_connect_check(&cmd, &data, sizeof(data), &dw0), 0);
    assert_int_equal(dw0, 0);
    assert_int_equal(nvme_connect_check(&cmd, &data, sizeof(data) - 1, &dw0), 0x400f);
    cmd.sqsize = le16_make(0);
    assert_int_equal(nvme_connect_check(&cmd, &data, sizeof(data), &dw0), 0x4182);
    assert_int_equal(dw0, 44);
    cmd.sqsize = le16_make(127);
    cmd.qid = le16_make(1);
    assert_int_equal(nvme_connect_check(&cmd, &data, sizeof(data), &dw0), 0x4182);
    assert_int_equal(dw0, 1u << 16 | 16); /* CNTLID FFFFh for an I/O queue */
    data.cntlid = le16_make(1);
    assert_int_equal(nvme_connect_check(&cmd, &data, sizeof(data), &dw0), 0);
    cmd.qid = le16_make(0);
    assert_int_equal(nvme_connect_check(&cmd, &data, sizeof(data), &dw0), 0x4182);
    data.cntlid = le16_make(0xffff);
    memset(data.hostnqn, 'x', sizeof(data.hostnqn));
    assert_int_equal(nvme_connect_check(&cmd, &data, sizeof(data), &dw0), 0x4182);
    assert_int_equal(dw0, 1u << 16 | 512);
    data.subnqn[0] = '\t';
    assert_int_equal(nvme_connect_check(&cmd, &data, sizeof(data), &dw0), 0x4182);
    assert_int_equal(dw0, 1u << 16 | 256);
    cmd.recfmt = le16_make(1);
    assert_int_equal(nvme_connect_check(&cmd, &data, sizeof(data), &dw0), 0x4180);
}

static void registers_are_taken_apart(void **state)
{
    uint64_t cap = 0x080000201e01007f; /* SPDK's target */

    assert_int_equal(NVME_CAP_MQES(cap), 127);
    assert_true(cap & NVME_CAP_CQR);
    assert_int_equal(NVME_CAP_TO(cap), 0x1e);
    assert_int_equal(NVME_CAP_CSS(cap), NVME_CAP_CSS_NVM);
    assert_true(cap & NVME_CAP_CRWMS);
    assert_int_equal(NVME_CAP_CRMS(cap), 1);
    assert_int_equal(NVME_CC_IOSQES(0x460001), 6);
    assert_int_equal(NVME_CC_IOCQES(0x460001), 4);
    assert_int_equal(NVME_CC_SHN(0x464001), NVME_SHN_NORMAL);
    assert_int_equal(NVME_CC_CSS(0x460061), NVME_CSS_IOCS);
    assert_int_equal(NVME_CSTS_SHST(9), 2);
}

static void discovery_entries_go_both_ways(void **state)
{
    struct nvme_discovery_info in = {.trtype = NVME_TRTYPE_TCP,
                                     .adrfam = NVME_ADRFAM_IPV6,
                                     .subtype = NVME_SUBTYPE_NVM,
                                     .treq = NVME_TREQ_DISABLE_SQFLOW,
                                     .portid = 1,
                                     .cntlid = 0xffff,
                                     .asqsz = 32,
                                     .sectype = NVME_TSAS_TCP_TLS13,
                                     .trsvcid = "4420",
                                     .traddr = "fe80::1",
                                     .subnqn = "nqn.2026-11.x:a"};
    struct nvme_discovery_info out = {0};
    struct nvme_discovery_entry e;

    assert_int_equal(nvme_discovery_encode(&e, &in), 0);
    assert_int_equal(e.trsvcid[4], ' ');
    assert_int_equal(e.subnqn[15], '\0');
    assert_int_equal(nvme_discovery_decode(&e, &out), 0);
    assert_memory_equal(&in, &out, sizeof(in));
    memset(e.trsvcid, 0, sizeof(e.trsvcid)); /* NUL padded, as others do */
    memcpy(e.trsvcid, "8009", 4);
    assert_int_equal(nvme_discovery_decode(&e, &out), 0);
    assert_string_equal(out.trsvcid, "8009");
    memset(e.traddr, '1', sizeof(e.traddr)); /* no terminator anywhere */
    assert_int_equal(nvme_discovery_decode(&e, &out), 0);
    assert_int_equal(strlen(out.traddr), 256);
    e.traddr[3] = '\x1b';
    assert_int_equal(nvme_discovery_decode(&e, &out), -EBADMSG);
    e.traddr[3] = '1';
    memset(e.subnqn, 'n', sizeof(e.subnqn));
    assert_int_equal(nvme_discovery_decode(&e, &out), -EBADMSG);
    in.subnqn[0] = '\0';
    assert_int_equal(nvme_discovery_encode(&e, &in), -EINVAL);
}

static void discovery_logs_are_bounded(void **state)
{
    static uint8_t log[4096];
    struct nvme_discovery_head *head = (void *)log;
    uint64_t genctr, numrec;

    head->genctr = le64_make(5);
    head->numrec = le64_make(UINT64_MAX);
    assert_int_equal(nvme_discovery_count(log, sizeof(log), &genctr, &numrec), 3);
    assert_int_equal(genctr, 5);
    head->numrec = le64_make(1);
    assert_int_equal(nvme_discovery_count(log, sizeof(log), &genctr, &numrec), 1);
    assert_int_equal(nvme_discovery_count(log, 1024, &genctr, &numrec), 0);
    assert_int_equal(nvme_discovery_count(log, 1023, &genctr, &numrec), -EBADMSG);
    head->recfmt = le16_make(1);
    assert_int_equal(nvme_discovery_count(log, sizeof(log), &genctr, &numrec), -EBADMSG);
}

/* --- admin ------------------------------------------------------------------------------------ */

static void descriptors_go_both_ways(void **state)
{
    struct nvme_ns_ids in = {
        .have = 1u << NVME_NIDT_UUID | 1u << NVME_NIDT_CSI, .uuid = {1, 2, 3}, .csi = NVME_CSI_KV};
    struct nvme_ns_ids out;
    uint8_t page[4096] = {0};

    assert_int_equal(nvme_ns_desc_encode(page, sizeof(page), &in), 4 + 16 + 4 + 1);
    assert_memory_equal(page, "\x03\x10\0\0\x01\x02\x03", 7);
    assert_memory_equal(page + 20, "\x04\x01\0\0\x01\0", 6);
    assert_int_equal(nvme_ns_desc_decode(page, sizeof(page), &out), 0);
    assert_memory_equal(&in, &out, sizeof(in));
    assert_int_equal(nvme_ns_desc_decode(page, 22, &out), 0); /* cut inside the second head */
    assert_int_equal(out.have, 1u << NVME_NIDT_UUID);
    assert_int_equal(nvme_ns_desc_decode(page, 19, &out), -EBADMSG);
    page[1] = 15;
    assert_int_equal(nvme_ns_desc_decode(page, sizeof(page), &out), -EBADMSG);
    page[0] = 9; /* an unknown type is skipped, whatever its length */
    page[1] = 16;
    assert_int_equal(nvme_ns_desc_decode(page, sizeof(page), &out), 0);
    assert_int_equal(out.have, 1u << NVME_NIDT_CSI);
    assert_int_equal(nvme_ns_desc_encode(page, 24, &in), -E2BIG);
}

static void log_pages_are_asked_for(void **state)
{
    struct nvme_sqe sqe = {0};

    nvme_log_put(&sqe, NVME_LID_DISCOVERY, 0x100000400, 0x80000, 1);
    assert_int_equal(sqe.opc, NVME_OPC_GET_LOG_PAGE);
    assert_int_equal(nvme_log_lid(&sqe), 0x70);
    assert_true(nvme_log_len(&sqe) == 0x80000);
    assert_true(nvme_log_offset(&sqe) == 0x100000400);
    assert_int_equal(nvme_log_csi(&sqe), 1);
    nvme_log_put(&sqe, NVME_LID_EFFECTS, 0, 4096, 1);
    assert_int_equal(le32_get(sqe.cdw10), 0x03ff0005); /* as Linux sends it */
    sqe.cdw10 = le32_make(0xffff0000);
    sqe.cdw11 = le32_make(0xffffffff);
    assert_true(nvme_log_len(&sqe) == 0x400000000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(status_is_as_linux_prints_it),
        cmocka_unit_test(kv_errors_survive_the_wire),
        cmocka_unit_test(no_failure_becomes_success),
        cmocka_unit_test(nqns_are_checked),
        cmocka_unit_test(connect_faults_point_at_their_field),
        cmocka_unit_test(registers_are_taken_apart),
        cmocka_unit_test(discovery_entries_go_both_ways),
        cmocka_unit_test(discovery_logs_are_bounded),
        cmocka_unit_test(descriptors_go_both_ways),
        cmocka_unit_test(log_pages_are_asked_for),
    };

    return cmocka_run_group_tests_name("proto/nvme", tests, NULL, NULL);
}
