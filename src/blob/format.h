/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The blobstore on disk: SPDK's super block version 3, its masks and metadata pages. Pure: bytes
 * to structs and back, everything that comes from the disk checked. docs/formats/blobstore.md has
 * the prose.
 */
#ifndef KVASIR_BLOB_FORMAT_H
#define KVASIR_BLOB_FORMAT_H

#include "base/endian.h"
#include "base/err.h"
#include "base/must.h"

#include <assert.h>

#define BLOB_PAGE_BYTES 4096u
#define BLOB_NO_PAGE UINT32_MAX        /* `next` of the last page of a chain */
#define BLOB_ID_BASE (UINT64_C(1) << 32) /* id = this | md page of the root */
#define BLOB_LEAF_CLUSTERS 512u        /* one entry of an extent table, one extent page */
#define BLOB_CLUSTERS_MAX (UINT64_C(1) << 32)
#define BLOB_DESC_BYTES 4072u

struct blob_super_disk {
    uint8_t signature[8];     /*  0  "SPDKBLOB" */
    le32 version;             /*  8  3; 1 and 2 are read */
    le32 length;              /* 12  4096 */
    le32 clean;               /* 16  1 after a clean stop */
    le64 super_blob;          /* 20  all ones: none */
    le32 cluster_bytes;       /* 28 */
    le32 page_mask_start;     /* 32  in pages of the device, all of these */
    le32 page_mask_len;       /* 36 */
    le32 cluster_mask_start;  /* 40 */
    le32 cluster_mask_len;    /* 44 */
    le32 md_start;            /* 48 */
    le32 md_len;              /* 52 */
    uint8_t bstype[16];       /* 56 */
    le32 id_mask_start;       /* 72 */
    le32 id_mask_len;         /* 76  0: written before version 3 */
    le64 size_bytes;          /* 80  0: the device's */
    le32 io_unit_bytes;       /* 88  0: 4096 */
    le32 md_page_bytes;       /* 92  0: 4096 */
    uint8_t reserved[3996];   /* 96 */
    le32 crc;                 /* 4092  CRC-32C of what is before it */
};
static_assert(sizeof(struct blob_super_disk) == BLOB_PAGE_BYTES, "super block is a page");

struct blob_page_disk {
    le64 id;                         /*  0  of the blob it belongs to */
    le32 sequence;                   /*  8  0 root and extent pages, then 1, 2, ... */
    le32 reserved;                   /* 12  0 */
    uint8_t desc[BLOB_DESC_BYTES];   /* 16 */
    le32 next;                       /* 4088  md page, or BLOB_NO_PAGE */
    le32 crc;                        /* 4092 */
};
static_assert(sizeof(struct blob_page_disk) == BLOB_PAGE_BYTES, "metadata page is a page");

struct blob_desc_disk {
    uint8_t type;  /* 0  enum blob_desc_type */
    le32 len;      /* 1  of what follows */
};
static_assert(sizeof(struct blob_desc_disk) == 5, "descriptor head is 5 bytes");

struct blob_mask_disk {
    uint8_t type;  /* 0  enum blob_mask_type */
    le32 nbits;    /* 1 */
};
static_assert(sizeof(struct blob_mask_disk) == 5, "mask head is 5 bytes");

struct blob_flags_disk {
    le64 invalid;  /*  0  an unknown bit: the blob cannot be opened */
    le64 data_ro;  /*  8  an unknown bit: read-only */
    le64 md_ro;    /* 16  an unknown bit: metadata read-only */
};
static_assert(sizeof(struct blob_flags_disk) == 24, "flags are 24 bytes");

struct blob_pair_disk { /* of extent RLE and of the extent table */
    le32 at;     /* 0  first cluster; md page of an extent page. 0: none */
    le32 count;  /* 4  clusters; entries */
};
static_assert(sizeof(struct blob_pair_disk) == 8, "pair is 8 bytes");

enum blob_desc_type {
    BLOB_DESC_PADDING = 0,
    BLOB_DESC_RLE = 1,
    BLOB_DESC_XATTR = 2,
    BLOB_DESC_FLAGS = 3,
    BLOB_DESC_XATTR_INTERNAL = 4,
    BLOB_DESC_TABLE = 5,
    BLOB_DESC_EXTENT_PAGE = 6,
};
enum blob_mask_type { BLOB_MASK_PAGES = 0, BLOB_MASK_CLUSTERS = 1, BLOB_MASK_IDS = 2 };

#define BLOB_INVALID_THIN 1u
#define BLOB_INVALID_INTERNAL_XATTR 2u
#define BLOB_INVALID_TABLE 4u
#define BLOB_INVALID_ESNAP 8u
#define BLOB_INVALID_KNOWN 15u
#define BLOB_DATA_RO_READ_ONLY 1u
#define BLOB_DATA_RO_KNOWN 1u
#define BLOB_MD_RO_CLEAR_MASK 3u /* enum blob_clear */
#define BLOB_MD_RO_KNOWN 3u

/* Internal xattrs. */
#define BLOB_X_SNAP "SNAP"       /* parent */
#define BLOB_X_SNAPTMP "SNAPTMP" /* snapshot in the making; of which blob */
#define BLOB_X_SNAPRM "SNAPRM"   /* snapshot being removed; its only clone */
#define BLOB_X_EXTSNAP "EXTSNAP" /* id of an external snapshot */

/* --- super block ------------------------------------------------------------------------------ */

struct blob_super {
    uint32_t version;
    bool clean;
    uint64_t super_blob;
    uint32_t cluster_bytes;
    uint32_t page_mask_start, page_mask_len;
    uint32_t cluster_mask_start, cluster_mask_len;
    uint32_t id_mask_start, id_mask_len;
    uint32_t md_start, md_len;
    uint8_t bstype[16];
    uint64_t size_bytes;
    uint32_t io_unit_bytes;
    uint32_t md_page_bytes;
};

/**
 * Checks all of it: the rest of the blobstore relies on every range lying inside the device.
 * -ENODATA no blobstore; -ENOTSUP its version; -EBADMSG. With text.
 */
int blob_super_decode(const struct blob_super_disk *d, uint64_t dev_bytes, struct blob_super *out,
                      struct err *why);
/** Sets the fields and the checksum; leaves the reserved bytes as they are. */
void blob_super_encode(const struct blob_super *s, struct blob_super_disk *d);
/** Clusters of the store, and how many of them the metadata takes from the start. */
uint64_t blob_super_clusters(const struct blob_super *s);
uint64_t blob_super_md_clusters(const struct blob_super *s);
/** Where masks and metadata go in a new store. -EINVAL, -ENOSPC, with text. */
int blob_super_layout(struct blob_super *s, struct err *why);

/* --- metadata pages --------------------------------------------------------------------------- */

bool blob_page_crc_good(const void *page);
void blob_page_seal(void *page);
static inline bool blob_id_valid(uint64_t id, uint32_t md_len)
{
    return (id & ~(uint64_t)UINT32_MAX) == BLOB_ID_BASE && (uint32_t)id < md_len;
}

struct blob_desc {
    uint8_t type;
    uint32_t len;
    const uint8_t *data;
};
/** The descriptor at *pos and the place of the next: 1; 0 no more; -EBADMSG it leaves the page. */
int blob_desc_next(const struct blob_page_disk *p, uint32_t *pos, struct blob_desc *out);

struct blob_attr {
    char *name; /* NUL behind it, not counted */
    uint8_t *value;
    uint16_t name_len, value_len;
    bool internal;
};

/** What a chain says but for its extents. */
struct blob_head {
    uint64_t invalid, data_ro, md_ro;
    struct blob_attr *attr;
    unsigned nattrs;
};
void blob_head_fini(struct blob_head *h);
int blob_head_copy(const struct blob_head *from, struct blob_head *out);
/** Replaces or adds. -ENOMEM. */
int blob_head_set(struct blob_head *h, bool internal, const char *name, uint16_t name_len,
                  const void *value, uint16_t value_len);
bool blob_head_del(struct blob_head *h, bool internal, const char *name);
struct blob_attr *blob_head_find(const struct blob_head *h, bool internal, const char *name);

/**
 * The clusters of a blob: leaves of 512, of which those that have none are not there, and for each
 * the md page of its extent page. Other reactors read a map that the home reactor changes: entries
 * and leaves go through the functions below.
 */
struct blob_leaf {
    uint32_t cluster[BLOB_LEAF_CLUSTERS];
};
struct blob_map {
    uint64_t nclusters;
    uint32_t nleaves;
    struct blob_leaf **leaf;
    uint32_t *page; /* md page of the extent page; 0: none */
    struct blob_map *older;
};
struct blob_map *blob_map_new(uint64_t nclusters);
/** Another one with another size; with_pages: the same extent pages. NULL: no memory. */
struct blob_map *blob_map_copy(const struct blob_map *m, uint64_t nclusters, bool with_pages);
/** Leaves and all. */
void blob_map_free(struct blob_map *m);
static inline uint32_t blob_map_get(const struct blob_map *m, uint64_t idx)
{
    const struct blob_leaf *l =
        __atomic_load_n(&m->leaf[idx / BLOB_LEAF_CLUSTERS], __ATOMIC_ACQUIRE);

    return l == NULL
               ? 0
               : __atomic_load_n(&l->cluster[idx % BLOB_LEAF_CLUSTERS], __ATOMIC_ACQUIRE);
}
/** The leaf of `idx` is there afterwards. -ENOMEM. */
int blob_map_reserve(struct blob_map *m, uint64_t idx);
/** The leaf has to be there unless `cluster` is 0. */
void blob_map_set(struct blob_map *m, uint64_t idx, uint32_t cluster);
/** Clusters of one leaf: those the blob has left, at most 512. */
static inline uint32_t blob_map_leaf_len(const struct blob_map *m, uint32_t leaf)
{
    uint64_t left = m->nclusters - (uint64_t)leaf * BLOB_LEAF_CLUSTERS;

    return (uint32_t)(left < BLOB_LEAF_CLUSTERS ? left : BLOB_LEAF_CLUSTERS);
}

/** Reading a chain: page by page, then its extent pages. Bounded by `total_clusters`, `md_len`. */
struct blob_parse {
    uint64_t id;
    uint32_t md_len;
    uint64_t total_clusters;
    struct blob_head head;
    struct blob_map *map;
    bool has_flags, has_table, has_rle;
    bool unknown; /* flags or descriptors nobody here knows: it must not be opened */
    uint64_t ntable;   /* entries seen */
    uint64_t nrle;     /* clusters seen */
    uint64_t nlisted;  /* clusters the table says */
    struct blob_pair { uint32_t at, count; } *pair;
    size_t npairs, pairs_cap;
};
void blob_parse_fini(struct blob_parse *p);
/** Page `seq` of the chain; its checksum is good. -EBADMSG, -ENOMEM. */
int blob_parse_page(struct blob_parse *p, const struct blob_page_disk *page, uint32_t seq);
/** After the last page: makes p->map. */
int blob_parse_end(struct blob_parse *p);
/** The extent page of a leaf into p->map. */
int blob_parse_extent_page(struct blob_parse *p, const struct blob_page_disk *page, uint32_t leaf);

/* --- writing ---------------------------------------------------------------------------------- */

/** Pages of a chain in the making. */
struct blob_pages {
    struct blob_page_disk *page; /* aligned to a page */
    unsigned n, cap;
    uint32_t used; /* bytes of descriptors in the last one */
};
void blob_pages_fini(struct blob_pages *p);
int blob_pages_head(struct blob_pages *p, const struct blob_head *h);
/** Runs of clusters are given one by one, entries of a table too; end writes what is left. */
struct blob_pairs_enc {
    struct blob_pages *to;
    uint8_t type;
    uint64_t nclusters; /* TABLE */
    struct blob_pair last;
    struct blob_pair_disk buf[512];
    unsigned n;
    unsigned max; /* how many the descriptor in the making may have */
};
void blob_pairs_begin(struct blob_pairs_enc *e, struct blob_pages *to, uint8_t type,
                      uint64_t nclusters);
int blob_pairs_add(struct blob_pairs_enc *e, uint32_t at, uint32_t count);
int blob_pairs_end(struct blob_pairs_enc *e);
/** Ids, sequence, links and checksums. where[i]: md page of page i. */
void blob_pages_seal(struct blob_pages *p, uint64_t id, const uint32_t *where);
/** An extent page; `cluster[n]`. */
void blob_extent_page(struct blob_page_disk *page, uint64_t id, uint32_t start,
                      const uint32_t *cluster, uint32_t n);

#endif
