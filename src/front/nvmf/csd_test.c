/* SPDX-License-Identifier: Apache-2.0 */
/* The CSD dialect on namespace 3, a second view of the device of namespace 2. */
#include "front/nvmf/test_env.h"
#include "proto/nvme_select.h"

#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#define CSD_NSID 3u

struct hosts {
    struct cl admin, io;
};

static void hosts_close(struct hosts *h)
{
    cl_close(&h->io);
    cl_close(&h->admin);
}

/* A host that knows nothing of command sets: as the dialect's own clients. */
static int hosts_open_on(struct rt_task *t, struct env *e, struct hosts *h, unsigned css,
                         struct kv_dev *kv)
{
    struct nvmf_ns_config ns = {.nsid = CSD_NSID, .kv = kv, .csd = true};
    struct err why = {""};

    OK(nvmf_ns_add(t, e->tgt, NQN, &ns, NULL, &why));
    OK(cl_admin(t, &h->admin, &e->addr, NQN, 0, css));
    return cl_io(t, &h->io, &h->admin, &e->addr, NQN, 1, 0);
}

static int hosts_open(struct rt_task *t, struct env *e, struct hosts *h, unsigned css)
{
    return hosts_open_on(t, e, h, css, e->kv);
}

static struct nvme_sqe csd_cmd(uint8_t opc, const char *key, uint32_t cdw10, uint8_t options)
{
    struct nvme_sqe sqe = {.opc = opc, .nsid = le32_make(CSD_NSID), .cdw10 = le32_make(cdw10)};

    nvme_kv_key_put_be(&sqe, bytes_of_str(key));
    nvme_kv_set_options(&sqe, options);
    return sqe;
}

static int store(struct rt_task *t, struct cl *io, const char *key, const void *data, uint32_t len,
                 uint8_t options, uint16_t want)
{
    struct nvme_sqe sqe = csd_cmd(NVME_KV_AM_STORE, key, len, options);
    struct cl_reply r;

    OK(cl_cmd(t, io, &sqe, data, len, NULL, 0, &r));
    STATUS(r, want);
    return 0;
}

/* Retrieves from `off` into `max` bytes and compares with what is there then. */
static int retrieve(struct rt_task *t, struct cl *io, const char *key, uint32_t off, uint32_t max,
                    const uint8_t *all, uint32_t all_len)
{
    struct nvme_sqe sqe = csd_cmd(NVME_KV_AM_RETRIEVE, key, max, 0);
    CLEANUP(free_p) uint8_t *in = malloc(max + 1);
    uint32_t want = off < all_len ? MIN(all_len - off, max) : 0;
    struct cl_reply r;

    sqe.cdw12 = le32_make(off);
    OK(cl_cmd(t, io, &sqe, NULL, 0, in, max, &r));
    STATUS(r, 0);
    CHECK(r.dw0 == all_len);
    CHECK(r.data_len == want);
    CHECK(want == 0 || memcmp(in, all + off, want) == 0);
    return 0;
}

static int simple(struct rt_task *t, struct cl *io, uint8_t opc, const char *key, uint16_t want)
{
    struct nvme_sqe sqe = csd_cmd(opc, key, 0, 0);
    struct cl_reply r;

    OK(cl_cmd(t, io, &sqe, NULL, 0, NULL, 0, &r));
    STATUS(r, want);
    return 0;
}

static int objects(struct rt_task *t, struct cl *io)
{
    enum { LEN = 3000001 };
    CLEANUP(free_p) uint8_t *data = malloc(LEN);
    struct nvme_sqe sqe;
    struct cl_reply r;
    uint8_t in[16];

    pattern(data, LEN, 7);
    OK(store(t, io, "test_key", data, 100, 0, 0));
    OK(retrieve(t, io, "test_key", 0, 100, data, 100));
    OK(retrieve(t, io, "test_key", 0, 1000, data, 100));
    OK(retrieve(t, io, "test_key", 0, 10, data, 100));
    OK(retrieve(t, io, "test_key", 0, 0, data, 100));
    OK(retrieve(t, io, "test_key", 90, 1000, data, 100));
    OK(retrieve(t, io, "test_key", 100, 1000, data, 100));
    OK(retrieve(t, io, "test_key", 4000000000u, 1000, data, 100));

    /* Larger than any buffer, by one command and by a store with appends. */
    OK(store(t, io, "0123456789abcdef", data, LEN, 0, 0));
    OK(retrieve(t, io, "0123456789abcdef", 0, LEN, data, LEN));
    OK(retrieve(t, io, "0123456789abcdef", 131073, 1000000, data, LEN));
    OK(retrieve(t, io, "0123456789abcdef", LEN - 200000, 1000000, data, LEN));
    OK(retrieve(t, io, "0123456789abcdef", LEN, 1000000, data, LEN));
    for (uint32_t off = 0; off < LEN; off += 1000000)
        OK(store(t, io, "appended", data + off, MIN(1000000u, LEN - off), off > 0 ? 8 : 0, 0));
    OK(retrieve(t, io, "appended", 0, LEN, data, LEN));
    OK(store(t, io, "none yet", data, 5, NVME_CSD_STORE_APPEND, 0));
    OK(retrieve(t, io, "none yet", 0, 10, data, 5));

    /* Conditions, alone and with append; the hint. */
    OK(store(t, io, "absent", data, 5, 1, NVME_SC_KV_KEY_NOT_EXIST | DNR));
    OK(store(t, io, "absent", data, 5, 9, NVME_SC_KV_KEY_NOT_EXIST | DNR));
    OK(store(t, io, "none yet", data, 5, 2, NVME_SC_KV_KEY_EXISTS | DNR));
    OK(store(t, io, "none yet", data, 5, 3, NVME_SC_KV_UNRECOVERED | DNR));
    OK(store(t, io, "none yet", data + 5, 5, 9, 0));
    OK(retrieve(t, io, "none yet", 0, 100, data, 10));
    OK(store(t, io, "none yet", data, 7, 5, 0));
    OK(retrieve(t, io, "none yet", 0, 100, data, 7));
    OK(store(t, io, "none yet", NULL, 0, 0, 0));
    OK(retrieve(t, io, "none yet", 0, 100, data, 0));

    /* Exist, Delete: the second one is told, unlike on KV namespaces. */
    OK(simple(t, io, NVME_KV_EXIST, "appended", 0));
    OK(simple(t, io, NVME_KV_DELETE, "appended", 0));
    OK(simple(t, io, NVME_KV_EXIST, "appended", NVME_SC_KV_KEY_NOT_EXIST | DNR));
    OK(simple(t, io, NVME_KV_DELETE, "appended", NVME_SC_KV_KEY_NOT_EXIST | DNR));
    sqe = csd_cmd(NVME_KV_AM_RETRIEVE, "appended", 16, 0);
    OK(cl_cmd(t, io, &sqe, NULL, 0, in, 16, &r));
    STATUS(r, NVME_SC_KV_KEY_NOT_EXIST | DNR);
    OK(simple(t, io, NVME_KV_EXIST, "", NVME_SC_KV_INVALID_KEY_SIZE | DNR));
    sqe = csd_cmd(NVME_KV_EXIST, "a", 0, 0);
    sqe.cdw11 = le32_make(17);
    OK(cl_cmd(t, io, &sqe, NULL, 0, NULL, 0, &r));
    STATUS(r, NVME_SC_KV_INVALID_KEY_SIZE | DNR);
    OK(simple(t, io, 0x7e, "a", NVME_SC_INVALID_OPCODE | DNR));
    /* Shorter than it says. */
    sqe = csd_cmd(NVME_KV_AM_STORE, "a", 100, 0);
    OK(cl_cmd(t, io, &sqe, data, 99, NULL, 0, &r));
    STATUS(r, NVME_SC_SGL_INVALID_LENGTH | DNR);
    return 0;
}

static int objects_in_mem_body(struct rt_task *t, struct env *e)
{
    CLEANUP(hosts_close) struct hosts h = {0};

    OK(hosts_open(t, e, &h, NVME_CSS_NVM));
    return objects(t, &h.io);
}
TEST_ENV(objects_in_mem, 1, 8 * MIB)

/* The dialect is the same whatever stands behind it. */
static int objects_on(struct rt_task *t, struct env *e, const char *uri)
{
    CLEANUP(hosts_close) struct hosts h = {0};
    struct err why = {""};
    struct kv_dev *kv;
    int rc = kv_open(t, uri, &kv, &why);

    if (rc < 0)
        fprintf(stderr, "%s: %s\n", uri, why.text);
    CHECK(rc == 0);
    rc = hosts_open_on(t, e, &h, NVME_CSS_NVM, kv);
    kv_close(t, kv);
    return rc < 0 ? rc : objects(t, &h.io);
}

static char last_dir[64];

static char *temp_dir(void)
{
    snprintf(last_dir, sizeof(last_dir), "/tmp/kvasir-csd-XXXXXX");
    return mkdtemp(last_dir);
}

static int forget(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st;
    (void)flag;
    (void)ftw;
    return remove(path);
}

static int objects_in_files_body(struct rt_task *t, struct env *e)
{
    char uri[100];
    char *dir = temp_dir();

    CHECK(dir != NULL);
    snprintf(uri, sizeof(uri), "dir:%s/objects", dir);
    return objects_on(t, e, uri);
}

static int objects_in_engine_body(struct rt_task *t, struct env *e)
{
    char uri[100];
    char *dir = temp_dir();

    CHECK(dir != NULL);
    snprintf(uri, sizeof(uri), "blob:%s/store?size=64M", dir);
    return objects_on(t, e, uri);
}

static void objects_in(int (*body)(struct rt_task *t, struct env *e))
{
    struct env e = {.body = body};

    run_env(&e, 1, 8 * MIB);
    /* After the target and the device have closed. */
    nftw(last_dir, forget, 8, FTW_DEPTH | FTW_PHYS);
}

static void objects_in_files(void **state)
{
    (void)state;
    objects_in(objects_in_files_body);
}

static void objects_in_engine(void **state)
{
    (void)state;
    objects_in(objects_in_engine_body);
}

/* --- List ------------------------------------------------------------------------------------- */

static int list_body(struct rt_task *t, struct env *e)
{
    enum { N = 2000, ROOM = 4000 };
    CLEANUP(hosts_close) struct hosts h = {0};
    struct nvme_kv_list_iter it;
    struct nvme_sqe sqe;
    struct cl_reply r;
    struct bytes key;
    char name[17], last[17] = "";
    CLEANUP(free_p) uint8_t *page = malloc(ROOM);
    unsigned seen = 0;

    OK(hosts_open(t, e, &h, NVME_CSS_NVM));
    for (int i = 0; i < N; i++) {
        snprintf(name, sizeof(name), "%0*d", 4 + i % 13, i);
        OK(store(t, &h.io, name, "x", 1, 0, 0));
    }
    /* Page by page from the last key, which comes again; DW0 tells how many there are from it. */
    for (;;) {
        unsigned fresh = 0, n = 0;

        sqe = csd_cmd(NVME_KV_LIST, last, ROOM, 0);
        OK(cl_cmd(t, &h.io, &sqe, NULL, 0, page, ROOM, &r));
        STATUS(r, 0);
        CHECK(r.dw0 == N - seen + (seen > 0 ? 1u : 0u));
        OK(nvme_kv_list_begin(&it, page, r.data_len));
        while (nvme_csd_list_next(&it, &key)) {
            if (n++ == 0 && seen > 0) {
                CHECK(bytes_eq(key, bytes_of_str(last)));
                continue;
            }
            CHECK(bytes_cmp(bytes_of_str(last), key) < 0);
            snprintf(last, sizeof(last), "%.*s", (int)key.len, (const char *)key.ptr);
            fresh++;
        }
        CHECK(it.rc == 0);
        seen += fresh;
        if (n == r.dw0)
            break;
        CHECK(fresh > 0);
    }
    CHECK(seen == N);

    /* No room: only the number. Less than that is refused. */
    sqe = csd_cmd(NVME_KV_LIST, "", 4, 0);
    OK(cl_cmd(t, &h.io, &sqe, NULL, 0, page, 4, &r));
    STATUS(r, 0);
    CHECK(r.dw0 == N && r.data_len == 4 && le32_at(page) == 0);
    sqe = csd_cmd(NVME_KV_LIST, "", 3, 0);
    OK(cl_cmd(t, &h.io, &sqe, NULL, 0, page, 3, &r));
    STATUS(r, NVME_SC_CMD_SIZE_LIMIT | DNR);
    /* An entry that fills the buffer to its last byte. */
    sqe = csd_cmd(NVME_KV_LIST, "0000", 10, 0);
    OK(cl_cmd(t, &h.io, &sqe, NULL, 0, page, 10, &r));
    STATUS(r, 0);
    CHECK(r.data_len == 10 && le32_at(page) == 1 && memcmp(page + 4, "\4\0000000", 6) == 0);
    /* After the last. */
    sqe = csd_cmd(NVME_KV_LIST, "zz", 100, 0);
    OK(cl_cmd(t, &h.io, &sqe, NULL, 0, page, 100, &r));
    STATUS(r, 0);
    CHECK(r.data_len == 4 && r.dw0 == 0);
    return 0;
}
TEST_ENV(list, 1, 8 * MIB)

/* --- what the dialect's and other hosts see --------------------------------------------------- */

static int identify(struct rt_task *t, struct cl *admin, uint8_t cns, uint32_t nsid, uint8_t csi,
                    void *page, uint16_t want)
{
    struct nvme_sqe sqe = {.opc = NVME_OPC_IDENTIFY,
                           .nsid = le32_make(nsid),
                           .cdw10 = le32_make(cns),
                           .cdw11 = le32_make((uint32_t)csi << 24)};
    struct cl_reply r;

    memset(page, 0, NVME_IDENTIFY_BYTES);
    OK(cl_cmd(t, admin, &sqe, NULL, 0, page, NVME_IDENTIFY_BYTES, &r));
    STATUS(r, want);
    return 0;
}

static int seen_as_blocks(struct rt_task *t, struct env *e, unsigned css)
{
    CLEANUP(hosts_close) struct hosts h = {0};
    CLEANUP(free_p) uint8_t *page = malloc(NVME_IDENTIFY_BYTES);
    CLEANUP(free_p) uint8_t *in = malloc(MIB);
    struct nvme_id_ns *id = (struct nvme_id_ns *)page;
    struct nvme_ns_list *list = (struct nvme_ns_list *)page;
    struct nvme_log_effects *log = (struct nvme_log_effects *)page;
    struct nvme_sqe sqe;
    struct cl_reply r;
    uint64_t nblocks;

    OK(hosts_open(t, e, &h, css));
    OK(identify(t, &h.admin, NVME_CNS_NS, CSD_NSID, 0, page, 0));
    nblocks = le64_get(id->nsze);
    CHECK(nblocks >= 8 && nblocks == le64_get(id->ncap) && id->lbaf[0].lbads == 9);
    CHECK(id->nsattr & NVME_NSATTR_WRITE_PROTECTED);
    OK(identify(t, &h.admin, NVME_CNS_CSI_NS, CSD_NSID, NVME_CSI_NVM, page, 0));
    OK(identify(t, &h.admin, NVME_CNS_CSI_NS, CSD_NSID, NVME_CSI_KV, page,
                NVME_SC_INVALID_IOCS | DNR));
    OK(identify(t, &h.admin, NVME_CNS_CSI_NS_ACTIVE_LIST, 0, NVME_CSI_NVM, page, 0));
    CHECK(le32_get(list->nsid[0]) == 1 && le32_get(list->nsid[1]) == 3 &&
          le32_get(list->nsid[2]) == 0);
    OK(identify(t, &h.admin, NVME_CNS_NS_DESC_LIST, CSD_NSID, 0, page, 0));

    /* Blocks: the first, the last, many at once, none behind the end; no writing. */
    sqe = rw(NVME_OPC_READ, 0, 8);
    sqe.nsid = le32_make(CSD_NSID);
    memset(in, 1, MIB);
    OK(cl_cmd(t, &h.io, &sqe, NULL, 0, in, 4096, &r));
    STATUS(r, 0);
    CHECK(r.data_len == 4096 && bytes_are_zero(in, 4096));
    sqe = rw(NVME_OPC_READ, nblocks - 2048, 2048);
    sqe.nsid = le32_make(CSD_NSID);
    OK(cl_cmd(t, &h.io, &sqe, NULL, 0, in, MIB, &r));
    STATUS(r, 0);
    CHECK(r.data_len == MIB && bytes_are_zero(in, MIB));
    sqe = rw(NVME_OPC_READ, nblocks, 1);
    sqe.nsid = le32_make(CSD_NSID);
    OK(cl_cmd(t, &h.io, &sqe, NULL, 0, in, 512, &r));
    STATUS(r, NVME_SC_LBA_RANGE | DNR);
    sqe = rw(NVME_OPC_WRITE, 0, 1);
    sqe.nsid = le32_make(CSD_NSID);
    OK(cl_cmd(t, &h.io, &sqe, in, 512, NULL, 0, &r));
    STATUS(r, NVME_SC_NS_WRITE_PROTECTED | DNR);
    sqe = (struct nvme_sqe){.opc = NVME_OPC_FLUSH, .nsid = le32_make(CSD_NSID)};
    OK(cl_cmd(t, &h.io, &sqe, NULL, 0, NULL, 0, &r));
    STATUS(r, 0);

    /* Feature 20h has the dialect's meaning here, and is not of the blocks beside it. */
    for (int set = 0; set < 2; set++) {
        sqe = (struct nvme_sqe){.opc = set ? NVME_OPC_SET_FEATURES : NVME_OPC_GET_FEATURES,
                                .nsid = le32_make(CSD_NSID),
                                .cdw10 = le32_make(NVME_FID_KV_CONFIG)};
        OK(cl_cmd(t, &h.admin, &sqe, NULL, 0, NULL, 0, &r));
        STATUS(r, 0);
        CHECK(r.dw0 == 3);
        sqe.nsid = le32_make(1);
        OK(cl_cmd(t, &h.admin, &sqe, NULL, 0, NULL, 0, &r));
        STATUS(r, NVME_SC_INVALID_NS | DNR);
    }
    sqe = (struct nvme_sqe){.opc = NVME_OPC_GET_LOG_PAGE,
                            .cdw10 = le32_make(NVME_LID_EFFECTS | 1023u << 16)};
    OK(cl_cmd(t, &h.admin, &sqe, NULL, 0, page, 4096, &r));
    STATUS(r, 0);
    CHECK(le32_get(log->io[NVME_KV_AM_STORE]) == (NVME_EFFECT_CSUPP | NVME_EFFECT_LBCC));
    CHECK(le32_get(log->io[NVME_KV_LIST]) == NVME_EFFECT_CSUPP);
    return 0;
}

static int nvm_host_body(struct rt_task *t, struct env *e)
{
    return seen_as_blocks(t, e, NVME_CSS_NVM);
}
TEST_ENV(nvm_host, 1, 8 * MIB)

static int iocs_host_body(struct rt_task *t, struct env *e)
{
    return seen_as_blocks(t, e, NVME_CSS_IOCS);
}
TEST_ENV(iocs_host, 2, 8 * MIB)

/* Both views are one store. */
static int two_views_body(struct rt_task *t, struct env *e)
{
    CLEANUP(hosts_close) struct hosts h = {0};
    struct nvme_sqe sqe;
    struct cl_reply r;
    uint8_t in[16];

    OK(hosts_open(t, e, &h, NVME_CSS_IOCS));
    OK(store(t, &h.io, "shared", "by csd", 6, 0, 0));
    sqe = kv_cmd(NVME_KV_RETRIEVE, "shared", sizeof(in), 0);
    OK(cl_cmd(t, &h.io, &sqe, NULL, 0, in, sizeof(in), &r));
    STATUS(r, 0);
    CHECK(r.data_len == 6 && memcmp(in, "by csd", 6) == 0);
    /* Opcodes of the dialect are none on the other namespace. */
    sqe = kv_cmd(NVME_KV_AM_RETRIEVE, "shared", sizeof(in), 0);
    OK(cl_cmd(t, &h.io, &sqe, NULL, 0, in, sizeof(in), &r));
    STATUS(r, NVME_SC_INVALID_OPCODE | DNR);
    OK(nvmf_ns_remove(t, e->tgt, NQN, CSD_NSID, NULL));
    OK(simple(t, &h.io, NVME_KV_EXIST, "shared", NVME_SC_INVALID_NS | DNR));
    sqe = kv_cmd(NVME_KV_EXIST, "shared", 0, 0);
    OK(cl_cmd(t, &h.io, &sqe, NULL, 0, NULL, 0, &r));
    STATUS(r, 0);
    return 0;
}
TEST_ENV(two_views, 2, 8 * MIB)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(objects_in_mem),    cmocka_unit_test(objects_in_files),
        cmocka_unit_test(objects_in_engine), cmocka_unit_test(list),
        cmocka_unit_test(nvm_host),          cmocka_unit_test(iocs_host),
        cmocka_unit_test(two_views),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
