/* SPDX-License-Identifier: Apache-2.0 */
/*
 * seeds DIR TRANSCRIPT...: writes the corpus that the fuzz targets begin with, one directory per
 * target below DIR, from recorded conversations and from what the encoders make.
 */
#include "tests/transcript.h"

#include "base/util.h"
#include "kv/drivers/blobkv/chunk.h"
#include "kv/drivers/blobkv/fence.h"
#include "kv/drivers/blobkv/leaf.h"
#include "kv/drivers/blobkv/record.h"
#include "proto/nvme_admin.h"
#include "proto/nvme_fabrics.h"
#include "proto/nvme_kv_vendor.h"
#include "proto/nvme_select.h"
#include "proto/nvme_tcp.h"
#include "virt/query/wire.h"

#include <err.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define SEED_MAX 16384

static const char *top;
static unsigned nseeds;

/* Adds DIR/target/NNNNN, a run of pieces. */
static void seed(const char *target, const struct iovec *iov, int iovcnt)
{
    char path[512];
    int fd;

    snprintf(path, sizeof(path), "%s/%s", top, target);
    mkdir(path, 0777);
    snprintf(path, sizeof(path), "%s/%s/seed-%05u", top, target, nseeds++);
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0)
        err(1, "%s", path);
    if (writev(fd, iov, iovcnt) != (ssize_t)iov_len(iov, (unsigned)iovcnt))
        err(1, "%s", path);
    close(fd);
}

static void seed_bytes(const char *target, struct bytes b)
{
    struct iovec iov = {(void *)(uintptr_t)b.ptr, b.len};

    seed(target, &iov, 1);
}

/* The settings byte of fuzz/pdu.c. */
static uint8_t pdu_settings(const struct transcript_conv *conv, bool to_controller, bool ready)
{
    uint8_t set = (to_controller ? 1 : 0) | (ready ? 16 : 0);

    for (size_t i = 0; i < conv->npdus; i++) {
        const struct nvme_tcp_icresp *p = (const void *)conv->pdus[i].bytes.ptr;

        if (p->ch.type == NVME_TCP_ICRESP)
            return set | (p->dgst & NVME_TCP_DGST_HEADER ? 2 : 0) |
                   (p->dgst & NVME_TCP_DGST_DATA ? 4 : 0);
    }
    return set;
}

/* One direction, in pieces of up to SEED_MAX bytes that begin at a PDU. */
static void seed_direction(const struct transcript_conv *conv, bool to_controller)
{
    enum { PDUS_MAX = 64 };
    struct iovec iov[PDUS_MAX + 1];
    uint8_t set = pdu_settings(conv, to_controller, false);
    size_t len = 0;
    int n = 1;

    for (size_t i = 0; i < conv->npdus; i++) {
        const struct transcript_pdu *pdu = &conv->pdus[i];

        if (pdu->to_controller != to_controller || pdu->bytes.len > SEED_MAX)
            continue;
        if (n > PDUS_MAX || len + pdu->bytes.len > SEED_MAX) {
            iov[0] = (struct iovec){&set, 1};
            seed("pdu", iov, n);
            set = pdu_settings(conv, to_controller, true);
            n = 1;
            len = 0;
        }
        iov[n++] = (struct iovec){(void *)(uintptr_t)pdu->bytes.ptr, pdu->bytes.len};
        len += pdu->bytes.len;
    }
    iov[0] = (struct iovec){&set, 1};
    seed("pdu", iov, n);
}

/* --- scripts for fuzz/target.c: the numbers are its enum op ----------------------------------- */

enum {
    OP_OPEN,
    OP_HOST,
    OP_RAW,
    OP_IC,
    OP_CONNECT,
    OP_ENABLE,
    OP_COMMAND,
    OP_SHORT,
    OP_H2C,
    OP_QUIET
};

static uint8_t script[65536];
static size_t script_len;

static void add(const void *data, size_t len)
{
    if (len > sizeof(script) - script_len)
        return;
    memcpy(script + script_len, data, len);
    script_len += len;
}

#define ADD(...) add((const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

static void add_command(const struct nvme_sqe *sqe, uint8_t how, const void *data, uint16_t len)
{
    ADD(OP_COMMAND);
    add(sqe, sizeof(*sqe));
    ADD(how, (uint8_t)len, (uint8_t)(len >> 8));
    if (how & 1)
        add(data, len);
    ADD(OP_QUIET);
}

/* What a recorded host did with up to four connections, one after the other. */
static void script_pdu(unsigned host, const struct transcript_pdu *pdu)
{
    const union nvme_tcp_pdu *p = (const void *)pdu->bytes.ptr;
    const struct nvme_connect_cmd *connect = (const void *)&p->cmd.sqe;
    uint32_t len;

    switch (p->ch.type) {
    case NVME_TCP_ICREQ:
        ADD(OP_OPEN, (uint8_t)host, OP_IC, p->icreq.dgst, p->icreq.hpda, OP_QUIET);
        break;
    case NVME_TCP_CMD:
        ADD(OP_HOST, (uint8_t)host);
        len = le32_get(p->cmd.sqe.sgl.len);
        if (connect->opc == NVME_OPC_FABRICS && connect->fctype == NVME_FC_CONNECT)
            ADD(OP_CONNECT, (uint8_t)le16_get(connect->qid), 2, OP_QUIET);
        else if (p->ch.pdo != 0)
            add_command(&p->cmd.sqe, 1, pdu->bytes.ptr + p->ch.pdo, (uint16_t)len);
        else
            add_command(&p->cmd.sqe, 2, NULL, (uint16_t)len);
        break;
    case NVME_TCP_H2C_DATA:
        ADD(OP_HOST, (uint8_t)host, OP_H2C, 0, OP_QUIET);
        break;
    }
}

static void seed_script(const struct transcript *tr)
{
    script_len = 0;
    for (size_t c = 0; c < tr->nconvs && c < 4; c++) {
        for (size_t i = 0; i < tr->convs[c].npdus; i++) {
            if (tr->convs[c].pdus[i].to_controller)
                script_pdu((unsigned)c, &tr->convs[c].pdus[i]);
        }
    }
    seed_bytes("target", bytes_make(script, script_len));
}

static void script_begin(uint8_t dgst)
{
    script_len = 0;
    ADD(OP_OPEN, 0, OP_IC, dgst, 0, OP_QUIET, OP_CONNECT, 0, 2, OP_QUIET, OP_ENABLE, OP_QUIET);
    ADD(OP_OPEN, 1, OP_IC, dgst, 0, OP_QUIET, OP_CONNECT, 1, 0, OP_QUIET);
}

/* A command of a KV namespace, with its data in the capsule or by R2T. */
static void script_kv(uint8_t opc, uint32_t cdw10, uint8_t how, const void *data, uint16_t len)
{
    struct nvme_sqe sqe = {.opc = opc, .nsid = le32_make(2), .cdw10 = le32_make(cdw10)};

    nvme_kv_key_put(&sqe, bytes_of_str("key"));
    add_command(&sqe, how, data, len);
}

static void seed_kv_scripts(void)
{
    for (uint8_t dgst = 0; dgst < 4; dgst++) {
        script_begin(dgst);
        script_kv(NVME_KV_STORE, 5, 1, "value", 5);
        script_kv(NVME_KV_RETRIEVE, 4096, 0, NULL, 4096);
        script_kv(NVME_KV_STORE, 30000, 0, NULL, 30000);
        ADD(OP_H2C, 1, OP_QUIET, OP_H2C, 0, OP_QUIET);
        script_kv(NVME_KV_LIST, 4096, 0, NULL, 4096);
        script_kv(NVME_KV_EXIST, 0, 0, NULL, 0);
        script_kv(NVME_KV_DELETE, 0, 0, NULL, 0);
        script_kv(NVME_KV_RETRIEVE, 4096, 0, NULL, 4096);
        seed_bytes("target", bytes_make(script, script_len));
    }
}

static void script_open(const struct nvme_kvv_open *open)
{
    struct nvme_sqe sqe = {.nsid = le32_make(2)};
    uint8_t data[256];
    int len = nvme_kvv_open_encode(&sqe, data, sizeof(data), open);

    add_command(&sqe, 1, data, (uint16_t)len);
}

/* On the handle that came last. */
static void script_io(enum nvme_kvv_opcode opc, uint32_t len, uint64_t offset, uint32_t flags)
{
    struct nvme_kvv_io io = {.len = len, .offset = offset, .flags = flags};
    struct nvme_sqe sqe = {.nsid = le32_make(2)};

    nvme_kvv_io_encode(&sqe, opc, &io);
    add_command(&sqe, opc == NVME_KVV_WRITE ? 5 : 4, "0123456789", (uint16_t)len);
}

static void seed_vendor_scripts(void)
{
    struct bytes key = bytes_of_str("a key longer than sixteen bytes");
    struct nvme_kvv_item put = {.key = bytes_of_str("k"), .val = bytes_of_str("v")};
    struct nvme_sqe sqe = {.nsid = le32_make(2)};
    uint8_t data[256];
    size_t used = 0;

    script_begin(0);
    script_open(
        &(struct nvme_kvv_open){.mode = NVME_KVV_MODE_STORE, .declared_len = 10, .key = key});
    script_io(NVME_KVV_WRITE, 5, 0, 0);
    script_io(NVME_KVV_WRITE, 5, 5, NVME_KVV_IO_COMMIT);
    script_open(&(struct nvme_kvv_open){.mode = NVME_KVV_MODE_READ, .key = key});
    script_io(NVME_KVV_INFO, 32, 0, 0);
    script_io(NVME_KVV_READ, 10, 2, NVME_KVV_IO_CLOSE);
    script_open(&(struct nvme_kvv_open){.mode = NVME_KVV_MODE_STAT, .key = key});
    seed_bytes("target", bytes_make(script, script_len));

    script_begin(3);
    nvme_kvv_batch_put(data, sizeof(data), &used, &put);
    nvme_kvv_batch_encode(&sqe, (uint32_t)used, 1);
    add_command(&sqe, 1, data, (uint16_t)used);
    script_open(&(struct nvme_kvv_open){.mode = NVME_KVV_MODE_SNAPSHOT});
    script_open(&(struct nvme_kvv_open){.mode = NVME_KVV_MODE_LIST, .prefix = put.key});
    script_io(NVME_KVV_READ, 64, 0, 0);
    script_io(NVME_KVV_CLOSE, 0, 0, 0);
    script_open(&(struct nvme_kvv_open){.mode = NVME_KVV_MODE_DELETE, .key = put.key});
    script_open(&(struct nvme_kvv_open){
        .mode = NVME_KVV_MODE_STORE, .declared_len = NVME_KVV_LEN_UNKNOWN, .key = key});
    script_io(NVME_KVV_WRITE, 5, 0, 0);
    script_io(NVME_KVV_COMMIT, 0, 0, 0);
    seed_bytes("target", bytes_make(script, script_len));
}

/* The CSD dialect, and SELECT in all three forms. */
static void seed_select_scripts(void)
{
    struct nvme_sel_query q = {.output = NVME_SEL_F_CSV, .sql = bytes_of_str("z")};
    struct nvme_sqe csd = {.nsid = le32_make(3), .cdw10 = le32_make(5)}, sqe;
    uint8_t data[128];

    nvme_kv_key_put_be(&csd, bytes_of_str("key"));
    for (uint8_t form = 0; form < 4; form++) {
        struct nvme_sel_send s = {.sql_len = 1, .key_len = 3, .key = "key"};
        struct nvme_sel_receive r = {.len = 4096, .options = form % 3};

        script_begin(form);
        csd.opc = NVME_KV_AM_STORE;
        add_command(&csd, 1, "value", 5);
        csd.opc = NVME_KV_AM_RETRIEVE;
        add_command(&csd, 0, NULL, 5);
        csd.opc = NVME_KV_LIST;
        add_command(&csd, 0, NULL, 5);
        sqe = (struct nvme_sqe){.nsid = le32_make(form & 1 ? 3 : 2)};
        nvme_sel_send_encode(&sqe, form & 1, &s);
        add_command(&sqe, 1, form == 3 ? "f" : "z", 1);
        sqe = (struct nvme_sqe){.nsid = le32_make(form & 1 ? 3 : 2)};
        nvme_sel_receive_encode(&sqe, &r);
        add_command(&sqe, 8, NULL, 4096);
        seed_bytes("target", bytes_make(script, script_len));
    }
    script_begin(0);
    sqe = (struct nvme_sqe){.nsid = le32_make(2)};
    nvme_sel_query_encode(&sqe, data, &q, NULL);
    add_command(&sqe, 1, data, (uint16_t)nvme_sel_query_bytes(&q, NULL));
    for (uint32_t flags = 0; flags < 8; flags++) {
        struct nvme_sel_get g = {.len = 4096, .off = flags * 1000, .flags = flags};

        sqe = (struct nvme_sqe){.nsid = le32_make(2)};
        nvme_sel_get_encode(&sqe, &g);
        add_command(&sqe, 4, NULL, 4096);
    }
    seed_bytes("target", bytes_make(script, script_len));
}

/* Commands with what came in their capsules; log pages and lists that came back. */
static void seed_pdu(const struct transcript_pdu *pdu)
{
    const struct nvme_tcp_ch *ch = (const void *)pdu->bytes.ptr;
    size_t data_off = ch->pdo != 0 ? ch->pdo : pdu->bytes.len;
    struct bytes data = bytes_make(pdu->bytes.ptr + data_off, pdu->bytes.len - data_off);
    struct iovec iov[2] = {{(void *)(uintptr_t)(pdu->bytes.ptr + 8), 64},
                           {(void *)(uintptr_t)data.ptr, data.len}};

    if (ch->type == NVME_TCP_CMD && data.len <= SEED_MAX)
        seed("command", iov, 2);
    if (ch->type == NVME_TCP_C2H_DATA && data.len >= 1024 && data.len <= SEED_MAX)
        seed_bytes("discovery", data);
}

static void seed_transcript(const char *path)
{
    struct transcript tr;
    struct err why = {""};

    if (transcript_open(path, &tr, &why) < 0)
        errx(1, "%s: %s", path, why.text);
    for (size_t c = 0; c < tr.nconvs; c++) {
        seed_direction(&tr.convs[c], false);
        seed_direction(&tr.convs[c], true);
        for (size_t i = 0; i < tr.convs[c].npdus; i++)
            seed_pdu(&tr.convs[c].pdus[i]);
    }
    seed_script(&tr);
    transcript_close(&tr);
}

static void seed_command(const struct nvme_sqe *sqe, const void *data, size_t len)
{
    struct iovec iov[2] = {{(void *)(uintptr_t)sqe, sizeof(*sqe)}, {(void *)(uintptr_t)data, len}};

    seed("command", iov, 2);
}

static void seed_vendor_commands(void)
{
    struct nvme_kvv_item put = {.key = bytes_of_str("key"), .val = bytes_of_str("value")};
    struct nvme_kvv_item del = {.is_delete = true, .key = bytes_of_str("another key")};
    uint8_t data[512];
    size_t used = 0;

    for (unsigned mode = NVME_KVV_MODE_READ; mode <= NVME_KVV_MODE_SNAPSHOT; mode++) {
        struct nvme_kvv_open open = {.mode = (enum nvme_kvv_mode)mode};
        struct nvme_sqe sqe = {0};

        if (mode != NVME_KVV_MODE_SNAPSHOT)
            open.key = bytes_of_str("a key that is longer than sixteen bytes");
        if (mode == NVME_KVV_MODE_LIST)
            open.prefix = bytes_of_str("a key");
        seed_command(&sqe, data, (size_t)nvme_kvv_open_encode(&sqe, data, sizeof(data), &open));
    }
    for (unsigned opc = NVME_KVV_CLOSE; opc <= NVME_KVV_INFO; opc++) {
        struct nvme_kvv_io io = {.len = 4096, .handle = 1, .offset = 8192};
        struct nvme_sqe sqe = {0};

        nvme_kvv_io_encode(&sqe, (enum nvme_kvv_opcode)opc, &io);
        seed_command(&sqe, NULL, 0);
    }
    struct nvme_sqe batch = {0};

    nvme_kvv_batch_put(data, sizeof(data), &used, &put);
    nvme_kvv_batch_put(data, sizeof(data), &used, &del);
    nvme_kvv_batch_encode(&batch, (uint32_t)used, 2);
    seed_command(&batch, data, used);
}

static void seed_select(void)
{
    struct bytes keys[] = {bytes_of_str("a key"), bytes_of_str("another")};
    struct nvme_sel_query q = {.output = NVME_SEL_F_ARROW, .nkeys = 2, .schema = keys[0]};
    struct nvme_sel_send s = {.sql_len = 8, .key_len = 5, .key = "hello"};
    struct nvme_sel_receive r = {.len = 4096, .id = 32, .off = 7};
    struct nvme_sel_get g = {.len = 4096, .id = 256, .off = 7, .flags = NVME_SEL_R_INFO};
    struct nvme_sqe sqe = {0};
    uint8_t data[256];

    q.sql = bytes_of_str("select 1");
    nvme_sel_query_encode(&sqe, data, &q, keys);
    seed_command(&sqe, data, nvme_sel_query_bytes(&q, keys));
    nvme_sel_send_encode(&sqe, true, &s);
    seed_command(&sqe, "select 1", 8);
    nvme_sel_receive_encode(&sqe, &r);
    seed_command(&sqe, NULL, 0);
    nvme_sel_get_encode(&sqe, &g);
    seed_command(&sqe, NULL, 0);
}

static void seed_kv(void)
{
    static const uint8_t opcodes[] = {NVME_KV_STORE, NVME_KV_RETRIEVE, NVME_KV_LIST, NVME_KV_DELETE,
                                      NVME_KV_EXIST};
    uint8_t data[1 + 512] = {1};
    struct nvme_kv_list_page page;

    for (size_t i = 0; i < ARRAY_LEN(opcodes); i++) {
        struct nvme_sqe sqe = {.opc = opcodes[i], .cdw10 = le32_make(5)};

        nvme_kv_key_put(&sqe, bytes_of_str("hello"));
        seed_command(&sqe, "value", opcodes[i] == NVME_KV_STORE ? 5 : 0);
    }
    nvme_kv_list_init(&page, data + 1, sizeof(data) - 1);
    for (size_t n = 1; n <= 16; n++) {
        nvme_kv_list_put(&page, bytes_make("0123456789abcdef", n));
        seed_bytes("kv_list", bytes_make(data, 1 + page.used));
    }
}

static void seed_texts(void)
{
    static const char *const texts[] = {
        "mem:?size=1G",
        "dir:/srv/objects?bus=0&ns=1",
        "nvme+tcp://[::1]:4420/nqn.2026-11.io.kvasir:demo?nsid=1&sync",
        "lvol:/srv/disk.kvasir?block_size=512#store/name",
        "file:///srv/a%20b.img?delay=5ms&share=0.25&name=x%26y",
        "127.0.0.1:4420",
        "[fe80::1]:8009",
        "1.5G",
        "250ms",
        "0xffffffffffffffff",
    };

    for (size_t i = 0; i < ARRAY_LEN(texts); i++)
        seed_bytes("uri", bytes_of_str(texts[i]));
}

/* A tree with a node of each kind that the filter tells apart, and a query with all its members. */
static void seed_query(void)
{
    static const char ast[] =
        "{\"error\":false,\"statements\":[{\"node\":{\"type\":\"SELECT_NODE\",\"modifiers\":[{"
        "\"type\":"
        "\"LIMIT_MODIFIER\",\"limit\":null}],\"cte_map\":{\"map\":[{\"key\":\"t\",\"value\":{"
        "\"query\":{"
        "\"node\":{\"type\":\"SELECT_NODE\",\"select_list\":[],\"from_table\":{\"type\":\"EMPTY\"}}"
        "}}}]},"
        "\"select_list\":[{\"class\":\"FUNCTION\",\"type\":\"FUNCTION\",\"function_name\":\"sum\","
        "\"catalog\":\"\",\"export_state\":false,\"children\":[{\"class\":\"COLUMN_REF\",\"type\":"
        "\"COLUMN_REF\",\"query_location\":7}]},{\"class\":\"WINDOW\",\"function_name\":\"rank\"}],"
        "\"from_table\":{\"type\":\"JOIN\",\"left\":{\"type\":\"BASE_TABLE\",\"table_name\":\"x\","
        "\"schema_name\":\"\",\"catalog_name\":\"\",\"at_clause\":null},\"right\":{\"type\":"
        "\"TABLE_FUNCTION\",\"function\":{\"class\":\"FUNCTION\",\"function_name\":\"range\","
        "\"children\":[]}}}}}]}";
    static const char query[] =
        "{\"sql\":\"select "
        "1\",\"input\":\"csv\",\"output\":\"json\",\"header\":\"auto\",\"header_out\":"
        "true,\"delim\":\",\",\"quote\":\"\",\"escape\":\"\",\"schema\":\"a INTEGER, \\\"b c\\\" "
        "DECIMAL(4, 2)\","
        "\"known\":{\"format\":\"csv\",\"compression\":\"none\",\"columns\":[[\"a\",\"BIGINT\"]],"
        "\"delim\":"
        "\",\",\"skip\":0,\"header\":true},\"objects\":[{\"name\":\"x\",\"size\":77}]}";
    struct qw_head h = {.type = le32_make(QW_QUERY), .len = le32_make(sizeof(query) - 1)};
    struct iovec iov[] = {{&h, sizeof(h)}, {(void *)(uintptr_t)query, sizeof(query) - 1}};

    seed_bytes("query_filter", bytes_make(ast, sizeof(ast) - 1));
    seed("query_wire", iov, 2);
}

struct said {
    enum qw_type type;
    uint64_t a, b;
    uint32_t slot, want;
    const char *body;
};

/* fuzz/query_serve.c: the worker's status, and what it said before. */
static void seed_talk(uint16_t status, const struct said *said, unsigned n)
{
    struct qw_head heads[8];
    struct iovec iov[17];
    le16 first = le16_make(status);

    iov[0] = (struct iovec){&first, sizeof(first)};
    for (unsigned i = 0; i < n; i++) {
        size_t len = said[i].body != NULL ? strlen(said[i].body) : 0;

        heads[i] = (struct qw_head){.type = le32_make(said[i].type),
                                    .len = le32_make((uint32_t)len),
                                    .a = le64_make(said[i].a),
                                    .b = le64_make(said[i].b),
                                    .slot = le32_make(said[i].slot),
                                    .want = le32_make(said[i].want)};
        iov[1 + 2 * i] = (struct iovec){&heads[i], sizeof(heads[i])};
        iov[2 + 2 * i] = (struct iovec){(void *)(uintptr_t)said[i].body, len};
    }
    seed("query_serve", iov, (int)(1 + 2 * n));
}

static void seed_talks(void)
{
    static const char schema[] =
        "{\"format\":\"csv\",\"compression\":\"none\",\"delim\":\",\",\"quote\":\"\\\"\","
        "\"escape\":\"\\\"\",\"newline\":\"\\\\n\",\"comment\":\"\",\"dateformat\":\"\","
        "\"timestampformat\":\"\",\"skip\":0,\"header\":true,\"long_lines\":false,"
        "\"columns\":[[\"a\",\"BIGINT\"],[\"b\",\"VARCHAR\"]]}";
    static const struct said good[] = {
        {QW_READ, 0, 0, 3, 4096, NULL}, /* slot 0 may have what was sent ahead */
        {QW_READ, 1, 0, 1, QW_SLOT_BYTES, NULL},
        {QW_SCHEMA, 0, 0, 0, 0, schema},
        {QW_READ, 1, 99990, 2, 100, NULL},
        {QW_RESULT, 0, 0, 0, 0, "a,b\n1,2\n"},
        {QW_RESULT, 0, 0, 0, 0, "3,4\n"},
        {QW_DONE, 0, 0, 0, 0, "{\"rc\":0,\"text\":\"\",\"rows\":2}"},
    };
    static const struct said failed[] = {
        {QW_SCHEMA, 0, 0, 0, 0, "{\"format\":\"parquet\",\"compression\":\"none\"}"},
        {QW_DONE, 0, 0, 0, 0,
         "{\"rc\":-22,\"text\":\"Binder Error: \\u00e9\\u0007\\n\\nLINE 1: x\",\"rows\":0}"},
    };
    static const uint16_t statuses[] = {0, 3 << 8, 9, 11, 24, 31, 0xffff};

    seed_talk(0, good, ARRAY_LEN(good));
    seed_talk(0, failed, ARRAY_LEN(failed));
    seed_talk(0, good, 2);
    for (size_t i = 0; i < ARRAY_LEN(statuses); i++)
        seed_talk(statuses[i], good, ARRAY_LEN(good) - 1);
}

struct control {
    enum qw_ctl_type type;
    uint32_t tag;
    int64_t value;
    const char *text;
};

/* fuzz/query_control.c: messages in short, the first one being the greeting. */
static void seed_control(const struct control *said, unsigned n)
{
    struct __attribute__((packed)) {
        uint8_t cut;
        le32 type, tag;
        le64 value, cpu_us, rss_bytes;
        uint8_t text_len;
    } shorts[12];
    struct iovec iov[2 * ARRAY_LEN(shorts)];

    for (unsigned i = 0; i < n; i++) {
        size_t len = said[i].text != NULL ? strlen(said[i].text) : 0;

        memset(&shorts[i], 0, sizeof(shorts[i]));
        shorts[i].type = le32_make(said[i].type);
        shorts[i].tag = le32_make(said[i].tag);
        shorts[i].value = le64_make((uint64_t)said[i].value);
        shorts[i].cpu_us = le64_make(said[i].type == QW_EXITED ? 12345 : 0);
        shorts[i].rss_bytes = le64_make(said[i].type == QW_EXITED ? 50 * MIB : 0);
        shorts[i].text_len = (uint8_t)len;
        iov[2 * i] = (struct iovec){&shorts[i], sizeof(shorts[i])};
        iov[2 * i + 1] = (struct iovec){(void *)(uintptr_t)said[i].text, len};
    }
    seed("query_control", iov, (int)(2 * n));
}

static void seed_controls(void)
{
    static const struct control good[] = {
        {QW_READY, 0, QW_VERSION, NULL}, {QW_SPAWNED, 1, 4711, NULL},  {QW_SPAWNED, 2, 4712, NULL},
        {QW_SPAWNED, 4, -ENOMEM, NULL},  {QW_EXITED, 3, 3 << 8, NULL}, {QW_EXITED, 1, 9, NULL},
        {QW_SPAWNED, 5, 4713, NULL},     {QW_EXITED, 99, 0, NULL},     {QW_EXITED, 6, 11, NULL},
        {QW_EXITED, 5, 0, NULL},
    };
    static const struct control failed[] = {
        {QW_FAILED, 0, -ENOENT, "/opt/\xc3\xa9ngine/libduckdb.so cannot be opened"}};
    static const struct control other[] = {{QW_READY, 0, QW_VERSION + 1, NULL}};
    static const struct control wrong[] = {
        {QW_READY, 0, QW_VERSION, NULL}, {QW_SPAWNED, 1, 1, NULL}, {QW_KILL, 1, 0, NULL}};
    static const struct control cut[] = {{QW_FAILED, 0, -ENOENT, "\x1b[1mno \xc3\xa9ngine \xc3"}};
    static const struct control no_errno[] = {{QW_READY, 0, QW_VERSION, NULL},
                                              {QW_SPAWNED, 1, INT32_MIN, NULL}};
    static const struct control no_status[] = {{QW_READY, 0, QW_VERSION, NULL},
                                               {QW_EXITED, 1, INT64_MIN, NULL}};

    seed_control(good, ARRAY_LEN(good));
    seed_control(failed, ARRAY_LEN(failed));
    seed_control(other, ARRAY_LEN(other));
    seed_control(wrong, ARRAY_LEN(wrong));
    seed_control(cut, ARRAY_LEN(cut));
    seed_control(no_errno, ARRAY_LEN(no_errno));
    seed_control(no_status, ARRAY_LEN(no_status));
}

/* fuzz/middle.c: settings, and an edit of each kind at places where PDUs are likely. */
static void seed_edits(void)
{
    static const uint16_t places[] = {0, 2, 130, 200, 1400, 2000, 4300, 9000, 25000};

    for (uint8_t set = 0; set < 4; set++) {
        seed_bytes("middle", bytes_make(&set, 1));
        for (uint8_t i = 0; i < ARRAY_LEN(places); i++) {
            for (uint8_t dir = 0; dir < 2; dir++) {
                uint8_t edit[] = {set,
                                  (uint8_t)(dir << 2 | (i & 1)),
                                  (uint8_t)places[i],
                                  (uint8_t)(places[i] >> 8),
                                  0,
                                  (uint8_t)((i + dir) % 5),
                                  16};

                seed_bytes("middle", bytes_make(edit, sizeof(edit)));
            }
        }
    }
}

/* As fuzz/bkv_record.c takes them: a mode, then bytes that lie at 30000h in life 5. */
static void seed_blobkv(void)
{
    static uint8_t data[1 + 4096 + 64];
    uint8_t type[] = {BKV_VALUE, BKV_LARGE_VALUE, BKV_DELETE};
    struct iovec iov = {data + sizeof(data) - 64, 64};
    struct bkv_chunk_head *head = (struct bkv_chunk_head *)(data + 1);
    uint32_t crc;

    for (size_t i = 0; i < ARRAY_LEN(type); i++) {
        uint32_t len = type[i] == BKV_DELETE ? 0 : 56;
        struct bkv_record_in in = {
            .type = type[i],
            .key = bytes_of_str("a key"),
            .seq = 7,
            .iov = &iov,
            .iovcnt = 1,
            .value_bytes = len,
            .value_len = len,
        };
        int n = bkv_record_encode(NULL, &in, 0x30000, 5, data + 1, sizeof(data) - 65);

        data[0] = 2;
        seed_bytes("bkv_record", bytes_make(data, 1 + (size_t)n));
    }
    bkv_chunk_begin(head, 0, 64, 5, 99, 0);
    bkv_chunk_sum(head, 0x30000, 5, 512, &iov, 1);
    if (bkv_chunk_finish(NULL, head, bytes_of_str("a key"), 0x30000, 5, 512, &crc) < 0)
        errx(1, "cannot encode a chunk");
    data[0] = 3;
    seed_bytes("bkv_record", bytes_make(data, 1 + 512));
}

/* fuzz/bkv_leaf.c: leaves of a few kinds of keys. fuzz/bkv_fences.c: fences of them. */
static void seed_index(void)
{
    static struct bkv_leaf_build build;
    static struct bkv_fence_build fences;
    static uint8_t data[1 + 65536];
    struct bkv_tree *tree;
    uint64_t pos = 0;

    for (unsigned kind = 0; kind < 3; kind++) {
        struct bkv_place place = {.addr = 8192, .type = BKV_VALUE};
        char key[300];
        int rc = 1;

        bkv_leaf_begin(&build, data + 1);
        for (unsigned i = 0; rc == 1 && i < (kind == 1 ? 5 : 1000); i++) {
            int len = snprintf(key, sizeof(key), kind == 2 ? "%0250u" : "key-%u", 100000 + i);

            place.addr += 4160;
            place.seq = i * 1000 + 1;
            place.rec_len = 32 * (1 + i % 3) + 304;
            place.value_len = i % 7 == 0 ? 1ull << 33 : 16 + i % 5;
            place.type = i % 7 == 0 ? BKV_LARGE_VALUE : BKV_VALUE;
            rc = bkv_leaf_add(&build, bytes_make(key, (size_t)len), &place);
            if (bkv_fence_add(&fences, bytes_make(key, i == 0 ? 0 : (size_t)len), 8192ull * (i + 1),
                              i) < 0)
                return;
            if (i % 10 == 9)
                i += 9;
        }
        bkv_leaf_end(&build, 3);
        seed_bytes("bkv_leaf", bytes_make(data, 1 + BKV_PAGE_BYTES));
        tree = bkv_fence_tree(&fences, NULL);
        if (tree == NULL)
            return;
        tree->nkeys = tree->nleaves * 10;
        data[0] = (uint8_t)(kind * 50);
        pos = 0;
        seed_bytes("bkv_fences",
                   bytes_make(data, 1 + bkv_tree_encode(tree, &pos, data + 1, 65536)));
        bkv_tree_put(tree);
        data[0] = 0;
    }
}

int main(int argc, char **argv)
{
    if (argc < 3)
        errx(2, "usage: seeds DIR TRANSCRIPT...");
    top = argv[1];
    for (int i = 2; i < argc; i++)
        seed_transcript(argv[i]);
    seed_vendor_commands();
    seed_select();
    seed_kv();
    seed_texts();
    seed_query();
    seed_kv_scripts();
    seed_vendor_scripts();
    seed_select_scripts();
    seed_talks();
    seed_controls();
    seed_edits();
    seed_blobkv();
    seed_index();
    printf("%u seeds in %s\n", nseeds, top);
    return 0;
}
