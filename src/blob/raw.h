/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The blobstore's bytes as they lie on a device, for those who judge them: blob_check(), the dump,
 * `kvasir blob ls` and tests. Nothing is shared with the code that opens stores (load.c and its
 * codec), so that a mistake there cannot hide itself; nothing is kept between calls and nothing is
 * written. docs/formats/blobstore.md is the text that both follow.
 */
#ifndef KVASIR_BLOB_RAW_H
#define KVASIR_BLOB_RAW_H

#include "blk/blk.h"

#include "base/endian.h"

#define BLOB_RAW_BYTES 4096u /* of super block, metadata and extent pages, whatever the page size */
#define BLOB_RAW_NONE UINT32_MAX /* no page follows */
#define BLOB_RAW_ID_HIGH (1ull << 32)
#define BLOB_RAW_PER_PAGE 512u /* clusters that one entry of an extent table stands for */

enum blob_raw_type {
    BLOB_RAW_PADDING = 0,
    BLOB_RAW_RLE = 1,
    BLOB_RAW_XATTR = 2,
    BLOB_RAW_FLAGS = 3,
    BLOB_RAW_INTERNAL = 4,
    BLOB_RAW_TABLE = 5,
    BLOB_RAW_EXTENTS = 6,
};

#define BLOB_RAW_THIN (1u << 0)
#define BLOB_RAW_HAS_INTERNAL (1u << 1)
#define BLOB_RAW_HAS_TABLE (1u << 2)
#define BLOB_RAW_EXTERNAL (1u << 3)
#define BLOB_RAW_INVALID_KNOWN 15u
#define BLOB_RAW_READ_ONLY (1u << 0) /* of data_ro */
#define BLOB_RAW_CLEAR_MASK 3u       /* of md_ro */

/** The super block as numbers; zeroes of older versions already replaced by their defaults. */
struct blob_raw_super {
    bool signature_ok, crc_ok;
    uint32_t version, length, clean;
    uint64_t super_blob;
    uint32_t cluster_bytes;
    uint32_t page_mask_start, page_mask_len;
    uint32_t cluster_mask_start, cluster_mask_len;
    uint32_t md_start, md_len;
    uint8_t bstype[16];
    uint32_t blobid_mask_start, blobid_mask_len;
    uint64_t size_bytes;
    uint32_t io_unit_bytes, page_bytes;
    uint32_t crc;
};

struct blob_raw {
    struct blk_chan *chan;
    uint32_t block_bytes;
    uint64_t dev_bytes;
    struct blob_raw_super super;
    uint8_t *bounce; /* one block, when blocks are larger than what is read */
};

/**
 * Reads the super block of a channel of the current reactor; its content is not judged. 0; -EIO
 * and so on; -ERANGE the device is smaller than a super block; -ENOMEM. blob_raw_fini() after
 * either.
 */
int blob_raw_init(struct rt_task *t, struct blk_chan *chan, struct blob_raw *out);
void blob_raw_fini(struct blob_raw *raw);

void blob_raw_super_decode(const uint8_t *page, struct blob_raw_super *out);
static inline uint64_t blob_raw_clusters(const struct blob_raw_super *s)
{
    return s->cluster_bytes == 0 ? 0 : s->size_bytes / s->cluster_bytes;
}
/** Clusters 0 .. n-1 hold super block, masks and metadata. */
uint64_t blob_raw_reserved(const struct blob_raw_super *s);

/** Any bytes of the device; `buf` is best aligned to 4096. -ERANGE beyond its end. */
int blob_raw_read(struct rt_task *t, struct blob_raw *raw, uint64_t off, void *buf, size_t len);

static inline uint64_t blob_raw_page_off(const struct blob_raw *raw, uint32_t md_page)
{
    return ((uint64_t)raw->super.md_start + md_page) * raw->super.page_bytes;
}
/** One metadata page (4096 bytes). -ERANGE no such page. */
int blob_raw_page(struct rt_task *t, struct blob_raw *raw, uint32_t md_page, uint8_t *buf);

bool blob_raw_crc_ok(const uint8_t *page);
static inline uint64_t blob_raw_page_id(const uint8_t *page)
{
    return le64_at(page);
}
static inline uint32_t blob_raw_page_seq(const uint8_t *page)
{
    return le32_at(page + 8);
}
static inline uint32_t blob_raw_page_next(const uint8_t *page)
{
    return le32_at(page + 4088);
}
/** The rule of replay: a good checksum, sequence 0, and the id that this place has. */
bool blob_raw_is_root(const uint8_t *page, uint32_t md_page);

struct blob_raw_desc {
    uint32_t off; /* of its head, in the page */
    uint8_t type; /* enum blob_raw_type, or what is there */
    uint32_t len; /* of the payload */
    const uint8_t *payload;
};
/** The next descriptor of a page; *pos begins at 0. 1; 0 at the end; -EBADMSG it crosses the
 * page's end (*out is set, but for the payload). */
int blob_raw_desc_next(const uint8_t *page, uint32_t *pos, struct blob_raw_desc *out);

struct blob_raw_xattr {
    struct bytes name, value;
};
/** 0, or -EBADMSG when the lengths do not add up. */
int blob_raw_xattr(const struct blob_raw_desc *d, struct blob_raw_xattr *out);

/* --- one blob in memory (raw_blob.c) ---------------------------------------------------------- */

struct blob_raw_attr {
    bool internal;
    struct bytes name, value;
};

/** What the metadata of one blob says, without a judgement beyond what is needed to read it. */
struct blob_raw_blob {
    uint64_t id, parent; /* parent: UINT64_MAX when it has none */
    uint64_t invalid, data_ro, md_ro;
    bool table;
    uint32_t *cluster; /* nclusters of them; 0: not allocated */
    uint64_t nclusters, nallocated;
    struct blob_raw_attr *attr;
    unsigned nattrs;
    unsigned md_pages, extent_pages;
};
/** -ENOENT no root at this id's place; -EBADMSG; -EIO; -ENOMEM (also for more than 2^26 clusters).
 */
int blob_raw_blob(struct rt_task *t, struct blob_raw *raw, uint64_t id, struct blob_raw_blob **out);
void blob_raw_blob_free(struct blob_raw_blob *b);
void blob_raw_blob_free_p(struct blob_raw_blob **pb);
const struct blob_raw_attr *blob_raw_attr_find(const struct blob_raw_blob *b, bool internal,
                                               const char *name);

/**
 * A blob and those it stands on, for reading its content: what is not allocated comes from the
 * parent, beyond the last one as zeroes.
 */
#define BLOB_RAW_DEPTH_MAX 64
struct blob_raw_chain {
    struct blob_raw_blob *blob[BLOB_RAW_DEPTH_MAX];
    unsigned n;
};
/** -EBADMSG a parent is missing, or there is a cycle (or more than BLOB_RAW_DEPTH_MAX of them). */
int blob_raw_chain_load(struct rt_task *t, struct blob_raw *raw, uint64_t id,
                        struct blob_raw_chain *out);
void blob_raw_chain_fini(struct blob_raw_chain *c);
/** The content of cluster `index` (cluster_bytes of it). 1; 0 nobody has it: it is zero, and buf
 * untouched. */
int blob_raw_chain_read(struct rt_task *t, struct blob_raw *raw, const struct blob_raw_chain *c,
                        uint64_t index, uint8_t *buf);

#endif
