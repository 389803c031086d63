/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SELECT over NVMe: a statement goes to the device, its answer stays there as a result with a
 * number, and is fetched in pieces. Three forms, byte by byte in docs/protocols/csd.md and
 * docs/protocols/select.md:
 *
 * - the CSD dialect, on namespaces of the NVM command set: key-value commands with keys as
 *   big-endian numbers, and SEND SELECT, RETRIEVE SELECT beside them;
 * - the same two SELECT commands on KV namespaces, with keys as the standard has them;
 * - our extended form on KV namespaces, announced at byte 3968 of CNS 05h, CSI 1: whatever a
 *   query can have, results above 4 GiB, errors with text.
 *
 * The first two are foreign: reserved fields are ignored. In the third they are zero and checked.
 */
#ifndef KVASIR_PROTO_NVME_SELECT_H
#define KVASIR_PROTO_NVME_SELECT_H

#include "proto/nvme_kv.h"

/* Opcodes of the first two are in nvme_kv.h, enum nvme_kv_select_opcode. */

/** True for SEND SELECT and RETRIEVE SELECT by either of their numbers. */
static inline bool nvme_sel_is_send(uint8_t opc)
{
    return opc == NVME_KV_SELECT_SEND || opc == NVME_KV_SELECT_SEND_OLD;
}
static inline bool nvme_sel_is_receive(uint8_t opc)
{
    return opc == NVME_KV_SELECT_RECEIVE || opc == NVME_KV_SELECT_RECEIVE_OLD;
}

/* Beside NVME_SC_KV_* (88h: whatever the dialect has no code for) and NVME_SC_SELECT_INVALID. */
enum nvme_sel_status_code {
    /* Status code type 1, vendor specific. All but BUSY with DNR. */
    NVME_SC_SEL_STATEMENT = 0x1d0, /* extended form: wrong, or not allowed */
    NVME_SC_SEL_OBJECT = 0x1d1,    /* extended form: not in the format that was said */
    NVME_SC_SEL_MEMORY = 0x1d2,    /* its limit of memory */
    NVME_SC_SEL_TIME = 0x1d3,      /* its limit of time: ended before the host gives up */
    NVME_SC_SEL_QUOTA = 0x1d4,     /* the result is larger than may be held for this host */
    NVME_SC_SEL_BUSY = 0x1d5,      /* too many at a time; without DNR */
    NVME_SC_SEL_WORKER = 0x1d6,    /* extended form: its process died */
    NVME_SC_SEL_CHANGED = 0x1d7,   /* extended form: an object changed meanwhile */
};
/** As nvme_errno_of_status and nvme_status_text, knowing the codes above. */
int nvme_sel_errno_of_status(uint16_t status);
const char *nvme_sel_status_text(uint16_t status);
/** The status of what a query failed with; `extended`: with the codes of that form. */
uint16_t nvme_sel_status_of_errno(int rc, bool extended);

/* --- SEND SELECT: CDW10 bytes of the statement; key and KL; CDW11 15:8 options, 23:16 input
 *     format, 31:24 output format; DW0 id of the result, or of an error text */

#define NVME_SEL_HEADER_IN 0x01  /* the first line of CSV input names the columns */
#define NVME_SEL_HEADER_OUT 0x02 /* CSV output: likewise */

enum nvme_sel_type { NVME_SEL_CSV = 0, NVME_SEL_JSON = 1, NVME_SEL_PARQUET = 2, NVME_SEL_TYPES };

struct nvme_sel_send {
    uint32_t sql_len;
    uint8_t key_len;
    uint8_t options;            /* NVME_SEL_HEADER_* */
    enum nvme_sel_type input;
    enum nvme_sel_type output;  /* JSON: one object a line */
    uint8_t key[NVME_KV_KEY_MAX];
};
/** Target: NVME_SC_SUCCESS, 86h or 90h with DNR. csd: the key is a big-endian number. */
uint16_t nvme_sel_send_decode(const struct nvme_sqe *sqe, bool csd, struct nvme_sel_send *out);
/** Host: fills opcode (85h) and fields. -ENAMETOOLONG. */
int nvme_sel_send_encode(struct nvme_sqe *sqe, bool csd, const struct nvme_sel_send *s);

/* --- RETRIEVE SELECT: CDW10 room; CDW11 7:0 options; CDW12 offset; CDW13 id; DW0 size */

#define NVME_SEL_KEEP 0x01        /* do not free the result */
#define NVME_SEL_KEEP_UNREAD 0x02 /* free it only when offset + room reach its end */

struct nvme_sel_receive {
    uint32_t len;
    uint8_t options;
    uint64_t off;
    uint32_t id;
};
void nvme_sel_receive_decode(const struct nvme_sqe *sqe, struct nvme_sel_receive *out);
/** Host: fills opcode (86h) and fields. */
void nvme_sel_receive_encode(struct nvme_sqe *sqe, const struct nvme_sel_receive *r);
/** Whether the result is freed by this command. */
bool nvme_sel_receive_frees(const struct nvme_sel_receive *r, uint64_t result_bytes);

/* --- the CSD dialect's own */

#define NVME_CSD_STORE_APPEND 0x08 /* beside NVME_KV_STORE_*: after what is there */
/** Get and Set Features of FID 20h on such a namespace: storage, queries. */
#define NVME_CSD_FEATURES 0x03u

/** Data of its List: le32 NRK, then entries of le16 KL, key, zeroes up to 4 bytes of key. */
static inline size_t nvme_csd_list_entry_bytes(size_t key_len)
{
    return 2 + ((key_len + 3) & ~(size_t)3);
}
#define NVME_CSD_LIST_ENTRY_MAX 18
/** As nvme_kv_list_put(), on a page begun by nvme_kv_list_init(). */
bool nvme_csd_list_put(struct nvme_kv_list_page *page, struct bytes key);
/** As nvme_kv_list_next(), on a page begun by nvme_kv_list_begin(). */
bool nvme_csd_list_next(struct nvme_kv_list_iter *it, struct bytes *out_key);

/* --- the extended form: what the namespace says */

#define NVME_SEL_MAGIC "KVASIRSQ"
#define NVME_SEL_VERSION 1

struct nvme_sel_id {        /* at 3968 of struct nvme_id_ns_kv */
    uint8_t magic[8];       /*  0  NVME_SEL_MAGIC */
    le32    version;        /*  8  NVME_SEL_VERSION */
    le32    data_max;       /* 12  bytes of one query's data */
    le32    results_max;    /* 16  results held for one host; then the oldest goes */
    le32    timeout_ms;     /* 20  longest time of a query */
    le64    bytes_max;      /* 24  of all results of one host */
    le32    idle_ms;        /* 32  a result that nobody has read for so long is dropped */
    uint8_t rsvd36[92];     /* 36 */
};
static_assert(sizeof(struct nvme_sel_id) == 128, "SELECT part is 128 bytes");
#define NVME_SEL_ID_OFFSET 128 /* in nvme_id_ns_kv.vendor */

static inline struct nvme_sel_id *nvme_sel_id_of(uint8_t vendor[256])
{
    return (struct nvme_sel_id *)(vendor + NVME_SEL_ID_OFFSET);
}
bool nvme_sel_id_ok(const struct nvme_sel_id *id);

/* --- QUERY (CDh): CDW10 bytes of data; DW0 id; DW1 bytes of the result (FFFFFFFFh: that or more).
 *     Failed: DW0 the id of an error text, or 0 */

enum nvme_sel_opcode {
    NVME_SEL_QUERY = 0xcd,  /* host to controller */
    NVME_SEL_RESULT = 0xce, /* controller to host */
};

/* Formats as enum kv_select_format in kv/select.h has them. */
enum nvme_sel_format {
    NVME_SEL_F_AUTO,    /* input only */
    NVME_SEL_F_CSV,
    NVME_SEL_F_JSON,
    NVME_SEL_F_JSONL,
    NVME_SEL_F_PARQUET,
    NVME_SEL_F_ARROW,   /* output only */
    NVME_SEL_FORMATS
};
#define NVME_SEL_Q_HEADER_OUT (1u << 0) /* CSV output: column names first */

#define NVME_SEL_DATA_MAX (1u << 20)
#define NVME_SEL_SQL_MAX (64u << 10)
#define NVME_SEL_SCHEMA_MAX (64u << 10)
#define NVME_SEL_KEYS_MAX 4096u

struct nvme_sel_head {      /* statement, schema, prefix, keys (le16 length, bytes) follow */
    uint8_t version;        /*  0  NVME_SEL_VERSION */
    uint8_t input;          /*  1  enum nvme_sel_format */
    uint8_t output;         /*  2 */
    uint8_t header;         /*  3  CSV input: 0 find out, 1 yes, 2 no */
    le32    flags;          /*  4  NVME_SEL_Q_* */
    uint8_t delim;          /*  8  CSV input; 0: find out */
    uint8_t quote;          /*  9 */
    uint8_t escape;         /* 10 */
    uint8_t rsvd11;         /* 11 */
    le32    nkeys;          /* 12  0: all keys with the prefix */
    le32    sql_len;        /* 16 */
    le32    schema_len;     /* 20 */
    le32    prefix_len;     /* 24 */
    le32    keys_len;       /* 28  bytes of all keys with their lengths */
    le32    timeout_ms;     /* 32  0: the namespace's */
    uint8_t rsvd36[28];     /* 36 */
};
static_assert(sizeof(struct nvme_sel_head) == 64, "QUERY head is 64 bytes");

struct nvme_sel_query {
    enum nvme_sel_format input, output;
    uint8_t header;
    uint32_t flags;
    char delim, quote, escape;
    uint32_t nkeys;
    uint32_t timeout_ms;
    struct bytes sql, schema, prefix;
    struct bytes keys;      /* nvme_sel_key_next() takes them out */
};
/**
 * Target: takes the data apart; everything points into it. NVME_SC_SUCCESS, or with DNR: 02h for
 * what contradicts the format, 0Fh when len is not CDW10, 86h a key's length.
 */
uint16_t nvme_sel_query_decode(const struct nvme_sqe *sqe, const void *data, size_t len,
                               uint32_t key_max, struct nvme_sel_query *out);
/** The next key of checked ones: false at the end. */
bool nvme_sel_key_next(struct bytes *keys, struct bytes *out_key);
/** Bytes of data a query makes; q->keys is not looked at but `keys`. */
size_t nvme_sel_query_bytes(const struct nvme_sel_query *q, const struct bytes *keys);
/** Host: writes opcode, fields and the data, of as many bytes as said above. -EINVAL, -E2BIG. */
int nvme_sel_query_encode(struct nvme_sqe *sqe, void *data, const struct nvme_sel_query *q,
                          const struct bytes *keys);

/* --- RESULT (CEh): CDW10 room; CDW11 id; CDW12/13 offset; CDW14 flags; DW0 bytes that came, DW1
 *     NVME_SEL_MORE */

#define NVME_SEL_R_FREE (1u << 0) /* free it when the last byte has been read */
#define NVME_SEL_R_DROP (1u << 1) /* free it after this, whatever has been read */
#define NVME_SEL_R_INFO (1u << 2) /* struct nvme_sel_info comes first, room is for both */
#define NVME_SEL_MORE (1u << 0)   /* DW1: there is more after what came */

struct nvme_sel_get {
    uint32_t len;
    uint32_t id;
    uint64_t off;
    uint32_t flags;
};
/** Target: NVME_SC_SUCCESS or 02h with DNR. */
uint16_t nvme_sel_get_decode(const struct nvme_sqe *sqe, struct nvme_sel_get *out);
void nvme_sel_get_encode(struct nvme_sqe *sqe, const struct nvme_sel_get *g);

#define NVME_SEL_I_SCHEMA_KNOWN (1u << 0)
#define NVME_SEL_I_ERROR (1u << 1) /* an error text, not an answer */

struct nvme_sel_info {
    le64    result_bytes;   /*  0 */
    le64    object_bytes;   /*  8  of all objects of the table */
    le64    read_bytes;     /* 16  of them read */
    le64    rows;           /* 24  FFFF..h: not known */
    le64    queue_ns;       /* 32 */
    le64    run_ns;         /* 40 */
    le32    flags;          /* 48  NVME_SEL_I_* */
    uint8_t rsvd52[12];     /* 52 */
};
static_assert(sizeof(struct nvme_sel_info) == 64, "RESULT info is 64 bytes");

#endif
