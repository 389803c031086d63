/* SPDX-License-Identifier: Apache-2.0 */
/*
 * NVMe Key Value command set (CSI 1), standard commands: Store, Retrieve, List, Delete, Exist. A
 * key is a string of 1 to 16 bytes inside the SQE; "a" and "a\0" are two keys.
 *
 *   CDW10      VS (Store) or HBS (Retrieve, List): bytes, not 0-based
 *   CDW11 7:0  KL; 15:8 options
 *   key[0..7]  SQE bytes 8..15 (CDW2, CDW3); key[8..15] SQE bytes 56..63 (CDW14, CDW15)
 *   DW0        Retrieve: bytes of the whole value; else 0
 */
#ifndef KVASIR_PROTO_NVME_KV_H
#define KVASIR_PROTO_NVME_KV_H

#include "proto/nvme.h"

#include "base/bytes.h"

enum nvme_kv_opcode {
    NVME_KV_STORE = 0x01,
    NVME_KV_RETRIEVE = 0x02,
    NVME_KV_LIST = 0x06,
    NVME_KV_DELETE = 0x10,
    NVME_KV_EXIST = 0x14,
};
/** Standard and vendor commands: "store", "batch"; "unknown" for others. */
const char *nvme_kv_opcode_name(uint8_t opc);

#define NVME_KV_KEY_MAX 16

/* CDW11 15:8 */
#define NVME_KV_STORE_MUST_EXIST 0x01     /* do not store if the key does not exist */
#define NVME_KV_STORE_MUST_NOT_EXIST 0x02 /* do not store if the key exists */
#define NVME_KV_STORE_NO_COMPRESS 0x04    /* a hint; never a reason to fail */
#define NVME_KV_RETRIEVE_RAW 0x01         /* do not decompress; a hint */

static inline unsigned nvme_kv_key_len(const struct nvme_sqe *sqe)
{
    return le32_get(sqe->cdw11) & 0xff;
}
static inline uint8_t nvme_kv_options(const struct nvme_sqe *sqe)
{
    return (uint8_t)(le32_get(sqe->cdw11) >> 8);
}

/**
 * Takes the key out of a command. Returns its length (0 only when `may_be_empty`: List), or
 * -ENAMETOOLONG (status 86h) when KL is 0 or larger than 16. Bytes after KL are ignored.
 */
int nvme_kv_key_get(const struct nvme_sqe *sqe, bool may_be_empty,
                    uint8_t out_key[NVME_KV_KEY_MAX]);
/** Puts key and KL into a command (options stay). -ENAMETOOLONG when key.len > 16. */
int nvme_kv_key_put(struct nvme_sqe *sqe, struct bytes key);
static inline void nvme_kv_set_options(struct nvme_sqe *sqe, uint8_t options)
{
    sqe->cdw11 = le32_make((le32_get(sqe->cdw11) & 0xffff00ffu) | (uint32_t)options << 8);
}

/*
 * SELECT's first dialect (an NVM namespace with key-value commands): the key is a 16-byte
 * big-endian number, key[0..3] = CDW15, [4..7] = CDW14, [8..11] = CDW3, [12..15] = CDW2.
 */
int nvme_kv_key_get_be(const struct nvme_sqe *sqe, bool may_be_empty,
                       uint8_t out_key[NVME_KV_KEY_MAX]);
int nvme_kv_key_put_be(struct nvme_sqe *sqe, struct bytes key);

/* --- List data: le32 NRK, then entries of le16 KL, key, zeroes up to a multiple of 4 ---------- */

#define NVME_KV_LIST_HEAD_BYTES 4
#define NVME_KV_LIST_ENTRY_MAX 20 /* of a key of 16 bytes */

static inline size_t nvme_kv_list_entry_bytes(size_t key_len)
{
    return (2 + key_len + 3) & ~(size_t)3;
}

/**
 * Writing. `buf` grows by put; the count at its head is kept up to date, so the page is valid
 * after each. The vendor command's pages have the same form with longer keys.
 */
struct nvme_kv_list_page {
    uint8_t *buf;
    size_t max;
    size_t used;
    uint32_t nkeys;
};
/** -EINVAL when max < 4. */
int nvme_kv_list_init(struct nvme_kv_list_page *page, void *buf, size_t max);
/** False when the entry does not fit whole (or the key is longer than 65535). */
bool nvme_kv_list_put(struct nvme_kv_list_page *page, struct bytes key);

/** Reading a page of `len` bytes that somebody sent. */
struct nvme_kv_list_iter {
    const uint8_t *at;
    const uint8_t *end;
    uint32_t left; /* keys not yet seen */
    int rc;
};
/** -EBADMSG when there is no room for the count. */
int nvme_kv_list_begin(struct nvme_kv_list_iter *it, const void *page, size_t len);
/**
 * False at the end; then it->rc is 0, or -EBADMSG when an entry reaches past the page or has a key
 * of length 0 or above `key_max`. *out_key points into the page.
 */
bool nvme_kv_list_next(struct nvme_kv_list_iter *it, size_t key_max, struct bytes *out_key);
/** The same for a dialect with other padding: `entry_bytes` of an entry by its key's length. */
bool nvme_kv_list_next_padded(struct nvme_kv_list_iter *it, size_t key_max,
                              size_t (*entry_bytes)(size_t key_len), struct bytes *out_key);

/* --- identify --------------------------------------------------------------------------------- */

struct nvme_kv_format {
    le16    kvkml;          /*  0  longest key, bytes (<= 16) */
    uint8_t rsvd2;          /*  2 */
    uint8_t afo;            /*  3  bits 1:0 relative performance */
    le32    kvvml;          /*  4  largest value, bytes */
    le32    mnks;           /*  8  most keys; 0: not stated */
    uint8_t rsvd12[4];      /* 12 */
};
static_assert(sizeof(struct nvme_kv_format) == 16, "KV format is 16 bytes");

struct nvme_id_ns_kv {               /* CNS 05h, CSI 1 */
    le64    nsze;                    /*    0  bytes */
    uint8_t rsvd8[8];                /*    8 */
    le64    nuse;                    /*   16  bytes */
    uint8_t nsfeat;                  /*   24  bit 0: thin provisioning */
    uint8_t nkvf;                    /*   25  formats, 0-based */
    uint8_t nmic;                    /*   26 */
    uint8_t rescap;                  /*   27 */
    uint8_t fpi;                     /*   28 */
    uint8_t kvfc;                    /*   29  bits 3:0: format in use */
    uint8_t rsvd30[2];               /*   30 */
    le32    novg;                    /*   32  optimal value granularity, bytes */
    le32    anagrpid;                /*   36 */
    uint8_t rsvd40[3];               /*   40 */
    uint8_t nsattr;                  /*   43  bit 0: write protected */
    le16    nvmsetid;                /*   44 */
    le16    endgid;                  /*   46 */
    uint8_t nguid[16];               /*   48 */
    uint8_t eui64[8];                /*   64 */
    struct nvme_kv_format kvf[16];   /*   72 */
    uint8_t rsvd328[3512];           /*  328 */
    uint8_t vendor[256];             /* 3840  struct nvme_kvv_id, or somebody else's */
};
static_assert(sizeof(struct nvme_id_ns_kv) == 4096, "KV namespace data is 4096 bytes");
static_assert(offsetof(struct nvme_id_ns_kv, vendor) == 3840, "vendor bytes at 3840");

struct nvme_id_ctrl_kv {             /* CNS 06h, CSI 1 */
    le32    ver;                     /*    0  NVME_KV_VER_* */
    uint8_t rsvd4[4092];             /*    4 */
};
static_assert(sizeof(struct nvme_id_ctrl_kv) == 4096, "KV controller data is 4096 bytes");
#define NVME_KV_VER_1_3 0x00010300u

/** FID 20h, Key Value configuration. */
#define NVME_KV_CONFIG_EDNEK (1u << 0) /* Delete of a key that is not there is an error */

/* --- SELECT commands -------------------------------------------------------------------------- */

enum nvme_kv_select_opcode {
    NVME_KV_AM_STORE = 0x81,           /* first dialect only */
    NVME_KV_AM_RETRIEVE = 0x82,
    NVME_KV_SELECT_SEND_OLD = 0x83,    /* as its documents have it */
    NVME_KV_SELECT_RECEIVE_OLD = 0x84,
    NVME_KV_SELECT_SEND = 0x85,        /* as its code has it */
    NVME_KV_SELECT_RECEIVE = 0x86,
};

#endif
