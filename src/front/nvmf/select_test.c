/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SELECT over NVMe, all three forms, with a query service that does as its statement says: what is
 * tested is the way of statements and answers, limits, and who sees what.
 */
#include "front/nvmf/test_select.h"
#include "proto/nvme_select.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#define KV_NSID 2u
#define CSD_NSID 3u

/* --- hosts ------------------------------------------------------------------------------------ */

struct hosts {
    struct cl admin, io;
};

static void hosts_close(struct hosts *h)
{
    cl_close(&h->io);
    cl_close(&h->admin);
}

static int join(struct rt_task *t, struct env *e, struct hosts *h)
{
    OK(cl_admin(t, &h->admin, &e->addr, NQN, 0, NVME_CSS_IOCS));
    return cl_io(t, &h->io, &h->admin, &e->addr, NQN, 1, 0);
}

static int begin(struct rt_task *t, struct env *e, struct fake *f, struct hosts *h)
{
    struct nvmf_ns_config ns = {.nsid = CSD_NSID, .kv = e->kv, .csd = true};
    struct err why = {""};

    OK(nvmf_ns_add(t, e->tgt, NQN, &ns, NULL, &why));
    nvmf_set_select(e->tgt, fake_select, f);
    return join(t, e, h);
}

static struct nvme_sqe send_cmd(uint32_t nsid, const char *sql, const char *key)
{
    struct nvme_sel_send s = {.sql_len = (uint32_t)strlen(sql), .key_len = (uint8_t)strlen(key)};
    struct nvme_sqe sqe = {.nsid = le32_make(nsid)};

    memcpy(s.key, key, s.key_len);
    nvme_sel_send_encode(&sqe, nsid == CSD_NSID, &s);
    return sqe;
}

/* Sends a statement: the number of its result in *out_id. */
static int select_id(struct rt_task *t, struct cl *io, uint32_t nsid, const char *sql,
                     uint16_t want, uint32_t *out_id)
{
    struct nvme_sqe sqe = send_cmd(nsid, sql, "test_key");
    struct cl_reply r;

    OK(cl_cmd(t, io, &sqe, sql, (uint32_t)strlen(sql), NULL, 0, &r));
    STATUS(r, want);
    *out_id = r.dw0;
    return 0;
}

static int fetch(struct rt_task *t, struct cl *io, uint32_t nsid, struct nvme_sel_receive g,
                 void *in, uint16_t want, struct cl_reply *r)
{
    struct nvme_sqe sqe = {.nsid = le32_make(nsid)};

    nvme_sel_receive_encode(&sqe, &g);
    OK(cl_cmd(t, io, &sqe, NULL, 0, in, g.len, r));
    STATUS(*r, want);
    return 0;
}

/* The whole text of a result, in `text`. */
static int text_of(struct rt_task *t, struct cl *io, uint32_t nsid, uint32_t id, char text[600])
{
    struct nvme_sel_receive g = {.len = 599, .id = id};
    struct cl_reply r;

    OK(fetch(t, io, nsid, g, text, 0, &r));
    text[r.data_len] = '\0';
    return 0;
}

/* --- the two commands ------------------------------------------------------------------------- */

static int both(struct rt_task *t, struct cl *io, uint32_t nsid)
{
    char text[600];
    struct nvme_sqe sqe;
    struct cl_reply r;
    uint32_t id;

    OK(select_id(t, io, nsid, "select 1", 0, &id));
    OK(text_of(t, io, nsid, id, text));
    CHECK(strcmp(text, "select 1|csv|csv|h20|---|||" CL_HOST "|test_key,") == 0);
    /* Fetched is gone. */
    OK(fetch(t, io, nsid, (struct nvme_sel_receive){.len = 10, .id = id}, text,
             NVME_SC_KV_KEY_NOT_EXIST | DNR, &r));
    /* By the numbers of the documents; with the zero at the end; headers; JSON to Parquet. */
    sqe = send_cmd(nsid, "select 2;  ", "k");
    sqe.opc = NVME_KV_SELECT_SEND_OLD;
    sqe.cdw11 = le32_make(0x02010301);
    sqe.cdw10 = le32_make(12);
    OK(cl_cmd(t, io, &sqe, "select 2;  ", 12, NULL, 0, &r));
    STATUS(r, 0);
    sqe = (struct nvme_sqe){.opc = NVME_KV_SELECT_RECEIVE_OLD,
                            .nsid = le32_make(nsid),
                            .cdw10 = le32_make(599),
                            .cdw13 = le32_make(r.dw0)};
    OK(cl_cmd(t, io, &sqe, NULL, 0, text, 599, &r));
    STATUS(r, 0);
    CHECK(r.data_len == r.dw0);
    text[r.data_len] = '\0';
    CHECK(strcmp(text, "select 2;|json|parquet|h01|---|||" CL_HOST "|k,") == 0);
    /* CSV with a header in, lines of JSON out. */
    sqe = send_cmd(nsid, "select 3", "k");
    sqe.cdw11 = le32_make(0x01000101);
    OK(cl_cmd(t, io, &sqe, "select 3", 8, NULL, 0, &r));
    STATUS(r, 0);
    OK(text_of(t, io, nsid, r.dw0, text));
    CHECK(strcmp(text, "select 3|csv|jsonl|h10|---|||" CL_HOST "|k,") == 0);
    return 0;
}

static int two_commands_body(struct rt_task *t, struct env *e)
{
    CLEANUP(hosts_close) struct hosts h = {0};
    struct fake f = {0};
    struct nvme_sqe sqe;
    struct cl_reply r;
    char text[600];
    uint32_t id;

    OK(begin(t, e, &f, &h));
    OK(both(t, &h.io, CSD_NSID));
    OK(both(t, &h.io, KV_NSID));
    /* The key is that of the objects of the same namespace. */
    sqe = kv_cmd(NVME_KV_STORE, "test_key", 5, 0);
    OK(cl_cmd(t, &h.io, &sqe, "value", 5, NULL, 0, &r));
    STATUS(r, 0);
    OK(select_id(t, &h.io, CSD_NSID, "object", 0, &id));
    OK(text_of(t, &h.io, CSD_NSID, id, text));
    CHECK(strcmp(text, "value") == 0);
    OK(select_id(t, &h.io, KV_NSID, "object", 0, &id));
    OK(text_of(t, &h.io, KV_NSID, id, text));
    CHECK(strcmp(text, "value") == 0);
    return 0;
}
TEST_ENV(two_commands, 1, 8 * MIB)

static int pieces_body(struct rt_task *t, struct env *e)
{
    enum { LEN = 2500000 };
    CLEANUP(hosts_close) struct hosts h = {0};
    CLEANUP(free_p) uint8_t *want = malloc(LEN), *in = malloc(LEN + 100);
    struct nvme_sel_receive g = {.options = NVME_SEL_KEEP};
    struct fake f = {0};
    struct cl_reply r;
    uint32_t first;

    pattern(want, LEN, 9);
    OK(begin(t, e, &f, &h));
    OK(select_id(t, &h.io, CSD_NSID, "size 2500000", 0, &g.id));
    CHECK(g.id == 32);
    /* Any piece, any number of times; truncation is success. */
    for (unsigned i = 0; i < 40; i++) {
        uint32_t n;

        g.off = (i * 733331u) % (LEN + 1000);
        g.len = (i * 91127u) % 400000 + 1;
        n = g.off < LEN ? MIN(g.len, LEN - (uint32_t)g.off) : 0;
        OK(fetch(t, &h.io, CSD_NSID, g, in, 0, &r));
        CHECK(r.dw0 == LEN && r.data_len == n);
        CHECK(n == 0 || memcmp(in, want + g.off, n) == 0);
    }
    /* 02h: stays until a piece has reached its end. */
    g = (struct nvme_sel_receive){.options = NVME_SEL_KEEP_UNREAD, .id = g.id, .len = LEN - 1};
    OK(fetch(t, &h.io, CSD_NSID, g, in, 0, &r));
    g.off = 1;
    OK(fetch(t, &h.io, CSD_NSID, g, in, 0, &r));
    CHECK(r.data_len == LEN - 1 && memcmp(in, want + 1, LEN - 1) == 0);
    OK(fetch(t, &h.io, CSD_NSID, g, in, NVME_SC_KV_KEY_NOT_EXIST | DNR, &r));
    /* None: gone after the first piece, whatever was missed. */
    OK(select_id(t, &h.io, CSD_NSID, "size 1000", 0, &g.id));
    CHECK(g.id == 33);
    g = (struct nvme_sel_receive){.id = g.id, .len = 10};
    OK(fetch(t, &h.io, CSD_NSID, g, in, 0, &r));
    CHECK(r.dw0 == 1000 && r.data_len == 10);
    OK(fetch(t, &h.io, CSD_NSID, g, in, NVME_SC_KV_KEY_NOT_EXIST | DNR, &r));
    /* Nothing selected; only its size asked for; a buffer that is smaller than it is said to be. */
    OK(select_id(t, &h.io, CSD_NSID, "size 0", 0, &g.id));
    g.options = NVME_SEL_KEEP;
    OK(fetch(t, &h.io, CSD_NSID, g, in, 0, &r));
    CHECK(r.dw0 == 0 && r.data_len == 0);
    OK(select_id(t, &h.io, CSD_NSID, "size 77", 0, &g.id));
    g.len = 0;
    OK(fetch(t, &h.io, CSD_NSID, g, NULL, 0, &r));
    CHECK(r.dw0 == 77 && r.data_len == 0);
    /* 32 of a host: the next takes the place of the oldest. */
    OK(select_id(t, &h.io, CSD_NSID, "size 5", 0, &first));
    for (int i = 0; i < 31; i++)
        OK(select_id(t, &h.io, CSD_NSID, "size 5", 0, &g.id));
    g = (struct nvme_sel_receive){.options = NVME_SEL_KEEP, .id = first, .len = 10};
    OK(fetch(t, &h.io, CSD_NSID, g, in, 0, &r));
    OK(select_id(t, &h.io, CSD_NSID, "size 5", 0, &g.id));
    g.id = first;
    OK(fetch(t, &h.io, CSD_NSID, g, in, NVME_SC_KV_KEY_NOT_EXIST | DNR, &r));
    return 0;
}
TEST_ENV(pieces, 2, 8 * MIB)

static int refusals_body(struct rt_task *t, struct env *e)
{
    static const struct {
        const char *sql;
        uint16_t csd;
    } fails[] = {
        {"fail 22", NVME_SC_KV_UNRECOVERED},  {"fail 74", NVME_SC_KV_UNRECOVERED},
        {"fail 2", NVME_SC_KV_KEY_NOT_EXIST}, {"fail 12", NVME_SC_SEL_MEMORY},
        {"fail 122", NVME_SC_SEL_QUOTA},      {"fail 110", NVME_SC_SEL_TIME},
        {"fail 32", NVME_SC_KV_UNRECOVERED},
    };
    CLEANUP(hosts_close) struct hosts h = {0};
    CLEANUP(free_p) char *sql = malloc(70000);
    struct fake f = {0};
    struct nvme_sqe sqe;
    struct cl_reply r;
    char text[600];
    uint32_t id;

    OK(begin(t, e, &f, &h));
    for (size_t i = 0; i < ARRAY_LEN(fails); i++) {
        OK(select_id(t, &h.io, CSD_NSID, fails[i].sql, fails[i].csd | DNR, &id));
        CHECK(id >= 32);
        OK(text_of(t, &h.io, CSD_NSID, id, text));
        CHECK(strcmp(text, "it failed as it was told") == 0);
        OK(select_id(t, &h.io, KV_NSID, fails[i].sql, fails[i].csd | DNR, &id));
    }
    OK(select_id(t, &h.io, CSD_NSID, "fail 11", NVME_SC_SEL_BUSY, &id));
    /* Formats, keys, lengths. */
    sqe = send_cmd(CSD_NSID, "x", "k");
    sqe.cdw11 = le32_make(0x00030001);
    OK(cl_cmd(t, &h.io, &sqe, "x", 1, NULL, 0, &r));
    STATUS(r, NVME_SC_SELECT_INVALID | DNR);
    sqe = send_cmd(CSD_NSID, "x", "");
    OK(cl_cmd(t, &h.io, &sqe, "x", 1, NULL, 0, &r));
    STATUS(r, NVME_SC_KV_INVALID_KEY_SIZE | DNR);
    sqe = send_cmd(CSD_NSID, "", "k");
    OK(cl_cmd(t, &h.io, &sqe, NULL, 0, NULL, 0, &r));
    STATUS(r, NVME_SC_SELECT_INVALID | DNR);
    sqe = send_cmd(CSD_NSID, "    ", "k");
    OK(cl_cmd(t, &h.io, &sqe, "  \n\0", 4, NULL, 0, &r));
    STATUS(r, NVME_SC_SELECT_INVALID | DNR);
    sqe = send_cmd(CSD_NSID, "xxxx", "k");
    OK(cl_cmd(t, &h.io, &sqe, "xxx", 3, NULL, 0, &r));
    STATUS(r, NVME_SC_SGL_INVALID_LENGTH | DNR);
    /* Long statements come by R2T. */
    memset(sql, ' ', 70000);
    memcpy(sql, "size 7", 6);
    for (uint32_t len = 65535; len <= 65537; len++) {
        sqe = send_cmd(CSD_NSID, "", "k");
        sqe.cdw10 = le32_make(len);
        OK(cl_cmd(t, &h.io, &sqe, sql, len, NULL, 0, &r));
        STATUS(r, len <= 65536 ? 0 : NVME_SC_SELECT_INVALID | DNR);
    }
    /* No service. */
    nvmf_set_select(e->tgt, NULL, NULL);
    OK(select_id(t, &h.io, CSD_NSID, "x", NVME_SC_INVALID_OPCODE | DNR, &id));
    OK(select_id(t, &h.io, KV_NSID, "x", NVME_SC_INVALID_OPCODE | DNR, &id));
    return 0;
}
TEST_ENV(refusals, 1, 8 * MIB)

/* --- the extended form ------------------------------------------------------------------------ */

static int query(struct rt_task *t, struct cl *io, const struct nvme_sel_query *q,
                 const struct bytes *keys, struct cl_reply *r)
{
    size_t len = nvme_sel_query_bytes(q, keys);
    CLEANUP(free_p) uint8_t *data = malloc(len);
    struct nvme_sqe sqe = {.nsid = le32_make(KV_NSID)};

    OK(nvme_sel_query_encode(&sqe, data, q, keys));
    OK(cl_cmd(t, io, &sqe, data, (uint32_t)len, NULL, 0, r));
    return 0;
}

static int result(struct rt_task *t, struct cl *io, struct nvme_sel_get g, void *in,
                  struct cl_reply *r)
{
    struct nvme_sqe sqe = {.nsid = le32_make(KV_NSID)};

    nvme_sel_get_encode(&sqe, &g);
    return cl_cmd(t, io, &sqe, NULL, 0, in, g.len, r);
}

static int extended_body(struct rt_task *t, struct env *e)
{
    enum { LEN = 600001 };
    CLEANUP(hosts_close) struct hosts h = {0};
    CLEANUP(free_p) uint8_t *want = malloc(LEN), *in = malloc(LEN + 64), *page = malloc(4096);
    struct bytes keys[] = {bytes_of_str("a key that is longer than sixteen"), bytes_of_str("b")};
    struct nvme_sel_query q = {.output = NVME_SEL_F_ARROW,
                               .input = NVME_SEL_F_CSV,
                               .header = 1,
                               .flags = NVME_SEL_Q_HEADER_OUT,
                               .delim = ';',
                               .nkeys = 2,
                               .sql = bytes_of_str("select *"),
                               .schema = bytes_of_str("a int")};
    struct nvme_sqe ident = {.opc = NVME_OPC_IDENTIFY,
                             .nsid = le32_make(KV_NSID),
                             .cdw10 = le32_make(NVME_CNS_CSI_NS),
                             .cdw11 = le32_make((uint32_t)NVME_CSI_KV << 24)};
    const struct nvme_sel_info *info = (const struct nvme_sel_info *)in;
    struct nvme_sel_get g = {.len = 1000, .flags = NVME_SEL_R_INFO | NVME_SEL_R_FREE};
    struct fake f = {0};
    struct cl_reply r;

    OK(begin(t, e, &f, &h));
    OK(cl_cmd(t, &h.admin, &ident, NULL, 0, page, 4096, &r));
    STATUS(r, 0);
    CHECK(nvme_sel_id_ok(nvme_sel_id_of(((struct nvme_id_ns_kv *)page)->vendor)));

    OK(query(t, &h.io, &q, keys, &r));
    STATUS(r, 0);
    g.id = r.dw0;
    OK(result(t, &h.io, g, in, &r));
    STATUS(r, 0);
    CHECK(r.dw0 == r.data_len && r.dw1 == 0 && le64_get(info->result_bytes) == r.data_len - 64);
    CHECK(le64_get(info->object_bytes) == 1000 && le64_get(info->read_bytes) == 10 &&
          le64_get(info->rows) == 3 && le32_get(info->flags) == 0);
    in[r.data_len] = '\0';
    CHECK(strcmp((char *)in + 64, "select *|csv|arrow|h11|;--|a int||" CL_HOST
                                  "|a key that is longer than sixteen,b,") == 0);
    OK(result(t, &h.io, g, in, &r));
    STATUS(r, NVME_SC_KV_KEY_NOT_EXIST | DNR);

    /* By prefix; more than a piece, with the info before it. */
    q = (struct nvme_sel_query){.output = NVME_SEL_F_CSV, .prefix = bytes_of_str("logs/")};
    q.sql = bytes_of_str("size 600001");
    OK(query(t, &h.io, &q, NULL, &r));
    STATUS(r, 0);
    CHECK(r.dw1 == LEN);
    pattern(want, LEN, 9);
    g = (struct nvme_sel_get){.id = r.dw0, .len = 400000, .flags = NVME_SEL_R_INFO};
    g.flags |= NVME_SEL_R_FREE;
    OK(result(t, &h.io, g, in, &r));
    STATUS(r, 0);
    CHECK(r.data_len == 400000 && r.dw1 == NVME_SEL_MORE);
    CHECK(memcmp(in + 64, want, 400000 - 64) == 0);
    g = (struct nvme_sel_get){.id = g.id, .len = LEN, .off = 400000 - 64, .flags = NVME_SEL_R_FREE};
    OK(result(t, &h.io, g, in, &r));
    STATUS(r, 0);
    CHECK(r.dw0 == LEN - g.off && r.dw1 == 0 && memcmp(in, want + g.off, r.dw0) == 0);
    OK(result(t, &h.io, g, in, &r));
    STATUS(r, NVME_SC_KV_KEY_NOT_EXIST | DNR);

    /* Dropped without being read. */
    OK(query(t, &h.io, &q, NULL, &r));
    g = (struct nvme_sel_get){.id = r.dw0, .flags = NVME_SEL_R_DROP};
    OK(result(t, &h.io, g, NULL, &r));
    STATUS(r, 0);
    OK(result(t, &h.io, g, NULL, &r));
    STATUS(r, NVME_SC_KV_KEY_NOT_EXIST | DNR);

    /* Errors keep their meaning, and have a text. */
    q.sql = bytes_of_str("fail 74");
    OK(query(t, &h.io, &q, NULL, &r));
    STATUS(r, NVME_SC_SEL_OBJECT | DNR);
    g = (struct nvme_sel_get){.id = r.dw0, .len = 1000, .flags = NVME_SEL_R_INFO};
    OK(result(t, &h.io, g, in, &r));
    STATUS(r, 0);
    CHECK(le32_get(info->flags) == NVME_SEL_I_ERROR && r.data_len == 64 + 24 &&
          memcmp(in + 64, "it failed as it was told", 24) == 0);
    q.sql = bytes_of_str("fail 22");
    OK(query(t, &h.io, &q, NULL, &r));
    STATUS(r, NVME_SC_SEL_STATEMENT | DNR);
    /* None of it on the CSD namespace. */
    ident = (struct nvme_sqe){.opc = NVME_SEL_RESULT, .nsid = le32_make(CSD_NSID)};
    OK(cl_cmd(t, &h.io, &ident, NULL, 0, NULL, 0, &r));
    STATUS(r, NVME_SC_INVALID_OPCODE | DNR);
    return 0;
}
TEST_ENV(extended, 1, 8 * MIB)

/* --- who sees what, and how long -------------------------------------------------------------- */

static int others_body(struct rt_task *t, struct env *e)
{
    CLEANUP(hosts_close) struct hosts h = {0};
    CLEANUP(hosts_close)
    struct hosts other = {.admin.hostnqn = "nqn.2026-11.io.kvasir:other",
                          .io.hostnqn = "nqn.2026-11.io.kvasir:other"};
    CLEANUP(hosts_close) struct hosts again = {0};
    struct nvme_sel_receive g = {.len = 10, .options = NVME_SEL_KEEP};
    struct fake f = {0};
    struct cl_reply r;
    uint32_t theirs;
    char in[16];

    OK(begin(t, e, &f, &h));
    OK(join(t, e, &other));
    OK(select_id(t, &h.io, CSD_NSID, "size 5", 0, &g.id));
    OK(fetch(t, &h.io, CSD_NSID, g, in, 0, &r));
    /* Another host, another namespace; its own numbers are its own. */
    OK(fetch(t, &other.io, CSD_NSID, g, in, NVME_SC_KV_KEY_NOT_EXIST | DNR, &r));
    OK(fetch(t, &h.io, KV_NSID, g, in, NVME_SC_KV_KEY_NOT_EXIST | DNR, &r));
    OK(select_id(t, &other.io, CSD_NSID, "size 6", 0, &theirs));
    CHECK(theirs == g.id);
    OK(fetch(t, &other.io, CSD_NSID, g, in, 0, &r));
    CHECK(r.dw0 == 6);
    OK(fetch(t, &h.io, CSD_NSID, g, in, 0, &r));
    CHECK(r.dw0 == 5);
    /* Guessing finds nothing. */
    for (g.id = 0; g.id < 2000; g.id++)
        OK(fetch(t, &other.io, KV_NSID, g, in, NVME_SC_KV_KEY_NOT_EXIST | DNR, &r));
    g.id = theirs;

    /* A second controller of the host sees it; it goes with the one that made it. */
    OK(join(t, e, &again));
    OK(fetch(t, &again.io, CSD_NSID, g, in, 0, &r));
    hosts_close(&h);
    for (int i = 0; i < 5000; i++) {
        struct nvme_sqe sqe = {.nsid = le32_make(CSD_NSID)};

        nvme_sel_receive_encode(&sqe, &g);
        OK(cl_cmd(t, &again.io, &sqe, NULL, 0, in, 10, &r));
        if (r.status != 0)
            break;
        rt_sleep(t, NS_PER_MS);
    }
    STATUS(r, NVME_SC_KV_KEY_NOT_EXIST | DNR);
    OK(fetch(t, &other.io, CSD_NSID, g, in, 0, &r));

    /* A reset drops it as well. */
    OK(select_id(t, &again.io, CSD_NSID, "size 5", 0, &g.id));
    OK(cl_property_set(t, &again.admin, NVME_REG_CC, 0));
    cl_close(&again.io);
    OK(cl_property_set(t, &again.admin, NVME_REG_CC,
                       NVME_CC_EN | (unsigned)NVME_CSS_IOCS << NVME_CC_CSS_SHIFT |
                           6u << NVME_CC_IOSQES_SHIFT | 4u << NVME_CC_IOCQES_SHIFT));
    OK(cl_io(t, &again.io, &again.admin, &e->addr, NQN, 1, 0));
    OK(fetch(t, &again.io, CSD_NSID, g, in, NVME_SC_KV_KEY_NOT_EXIST | DNR, &r));
    return 0;
}
TEST_ENV(others, 2, 8 * MIB)

static int limits_body(struct rt_task *t, struct env *e)
{
    CLEANUP(hosts_close) struct hosts h = {0};
    struct fake f = {0};
    char text[600];
    uint32_t id;

    OK(begin(t, e, &f, &h));
    /* More than may be held for a host. */
    OK(select_id(t, &h.io, CSD_NSID, "size 1000001", NVME_SC_SEL_QUOTA | DNR, &id));
    OK(text_of(t, &h.io, CSD_NSID, id, text));
    CHECK(strstr(text, "larger than the target holds") != NULL);
    OK(select_id(t, &h.io, CSD_NSID, "size 999999", 0, &id));
    /* Longer than its time. */
    OK(select_id(t, &h.io, CSD_NSID, "sleep", NVME_SC_SEL_TIME | DNR, &id));
    OK(text_of(t, &h.io, CSD_NSID, id, text));
    CHECK(strcmp(text, "its time is over") == 0);
    return 0;
}

static void limits(void **state)
{
    struct env e = {.body = limits_body,
                    .cfg = {.select_timeout_ms = 50, .results.owner_bytes_max = 1000000}};

    run_env(&e, 1, 8 * MIB);
}

/* --- beside other work ------------------------------------------------------------------------ */

static int nobody_runs(struct rt_task *t, void *arg)
{
    return ((struct fake *)arg)->running == 0;
}

static int store_one(struct rt_task *t, struct cl *io, const char *key, uint32_t len)
{
    CLEANUP(free_p) uint8_t *data = calloc(1, len);
    struct nvme_sqe sqe = kv_cmd(NVME_KV_STORE, key, len, 0);
    struct cl_reply r;

    OK(cl_cmd(t, io, &sqe, data, len, NULL, 0, &r));
    STATUS(r, 0);
    sqe = kv_cmd(NVME_KV_RETRIEVE, key, len, 0);
    OK(cl_cmd(t, io, &sqe, NULL, 0, data, len, &r));
    STATUS(r, 0);
    CHECK(r.data_len == len);
    return 0;
}

static int flood_body(struct rt_task *t, struct env *e)
{
    CLEANUP(hosts_close) struct hosts h = {0};
    CLEANUP(cl_close) struct cl second = {0};
    struct fake f = {0};
    struct nvme_sqe sqe, abort = {.opc = NVME_OPC_ABORT};
    struct cl_reply r;
    uint8_t page[256];

    OK(begin(t, e, &f, &h));
    /* As many as the queue takes, and nobody fetches: some run, the others stand in line. */
    for (int i = 0; i < 100; i++) {
        sqe = send_cmd(CSD_NSID, "sleep", "k");
        nvme_tcp_sgl_in_capsule(&sqe, 5);
        OK(cl_send_cmd(t, &h.io, &sqe, "sleep", 5));
    }
    while (f.running < 16)
        rt_sleep(t, NS_PER_MS);
    /* Storage commands of the same queue: whole values, streams, lists. */
    OK(store_one(t, &h.io, "small", 100));
    OK(store_one(t, &h.io, "large", 3000000));
    sqe = kv_cmd(NVME_KV_LIST, "", sizeof(page), 0);
    OK(cl_cmd(t, &h.io, &sqe, NULL, 0, page, sizeof(page), &r));
    STATUS(r, 0);
    /* Aborted, one that runs and one that waits: both say so. */
    for (unsigned cid = 3; cid <= 91; cid += 88) {
        abort.cdw10 = le32_make(1u | cid << 16);
        OK(cl_cmd(t, &h.admin, &abort, NULL, 0, NULL, 0, &r));
        STATUS(r, 0);
        CHECK(r.dw0 == (cid == 3)); /* one that runs was asked to end */
        OK(cl_wait(t, &h.io, NULL, NULL, 0, &r));
        STATUS(r, NVME_SC_ABORT_REQ | DNR);
        CHECK(r.cid == cid);
    }
    /* The place of the one that ran was taken. */
    rt_sleep(t, 5 * NS_PER_MS);
    CHECK(f.running == 16 && f.peak == 16 && f.cancelled == 1);
    /* Disconnected in the middle: all end, and what they had is given back (see env_main). */
    cl_close(&h.io);
    CHECK(eventually(t, nobody_runs, &f));
    CHECK(f.cancelled == 17);
    OK(cl_io(t, &second, &h.admin, &e->addr, NQN, 2, 0));
    OK(store_one(t, &second, "small", 100));
    /* The namespace goes while one runs. */
    sqe = send_cmd(CSD_NSID, "sleep", "k");
    nvme_tcp_sgl_in_capsule(&sqe, 5);
    OK(cl_send_cmd(t, &second, &sqe, "sleep", 5));
    while (f.running < 1)
        rt_sleep(t, NS_PER_MS);
    OK(nvmf_ns_remove(t, e->tgt, NQN, CSD_NSID, NULL));
    OK(cl_wait(t, &second, NULL, NULL, 0, &r));
    STATUS(r, NVME_SC_ABORT_REQ | DNR);
    return 0;
}
TEST_ENV(flood, 2, 8 * MIB)

/* A host that says that a statement comes, and goes, or sends it in drops. */
static int slow_statements_body(struct rt_task *t, struct env *e)
{
    CLEANUP(hosts_close) struct hosts h = {0};
    CLEANUP(hosts_close) struct hosts slow = {.io.send_step = 700, .io.h2c_len = 4096};
    CLEANUP(free_p) char *sql = malloc(60000);
    struct fake f = {0};
    struct nvme_sqe sqe;
    struct cl_reply r;

    OK(begin(t, e, &f, &h));
    OK(join(t, e, &slow));
    for (int i = 0; i < 8; i++) {
        sqe = send_cmd(CSD_NSID, "", "k");
        sqe.cdw10 = le32_make(60000);
        nvme_tcp_sgl_transport(&sqe, 60000);
        OK(cl_send_cmd(t, &h.io, &sqe, NULL, 0));
    }
    memset(sql, ' ', 60000);
    memcpy(sql, "size 9", 6);
    sqe = send_cmd(CSD_NSID, "", "k");
    sqe.cdw10 = le32_make(60000);
    OK(cl_cmd(t, &slow.io, &sqe, sql, 60000, NULL, 0, &r));
    STATUS(r, 0);
    return 0;
}
TEST_ENV(slow_statements, 1, 2 * MIB)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_commands), cmocka_unit_test(pieces),
        cmocka_unit_test(refusals),     cmocka_unit_test(extended),
        cmocka_unit_test(others),       cmocka_unit_test(limits),
        cmocka_unit_test(flood),        cmocka_unit_test(slow_statements),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
