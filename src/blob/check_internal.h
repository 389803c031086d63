/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the parts of blob_check() share: check.c (super block, masks, the walk over the pages),
 * check_blob.c (the pages of one blob), check_rules.c (what holds between blobs).
 */
#ifndef KVASIR_BLOB_CHECK_INTERNAL_H
#define KVASIR_BLOB_CHECK_INTERNAL_H

#include "blob/check.h"

#define CK_NAME_MAX 64 /* bytes of an lvol's name, NUL included */
#define CK_UUID_BYTES 37
#define CK_CONFLICTS_MAX 256
#define CK_NOBODY 0u /* no blob; else its index + 1 */

struct ck_blob {
    struct blob_check_blob pub; /* name and uuid are set at the end */
    uint32_t root;
    uint64_t marked;            /* what SNAPTMP or SNAPRM names */
    bool has_flags, has_rle, has_snap, has_esnap, has_name, has_uuid;
    bool hole;                  /* an unallocated cluster */
    bool names_bad;             /* name not as an lvol's has to be */
    uint32_t walk;              /* of the search for cycles */
    char name[CK_NAME_MAX + 1], uuid[CK_UUID_BYTES + 1];
};

/* One thing named by two blobs: counted per pair, judged when all marks are known. */
struct ck_conflict {
    uint32_t first, second; /* index + 1 */
    bool page;              /* extent page; else cluster */
    uint64_t number, count, offset;
};

enum ck_page { CK_FREE = 0, CK_CHAIN, CK_EXTENTS };
#define CK_PAGE_KIND 3u
#define CK_PAGE_NONZERO 4u /* seen by the walk */
#define CK_PAGE_ROOTLIKE 8u /* looks like the root of its place, but for the checksum */

struct check {
    struct blob_raw raw;
    const struct blob_check_opts *opts;
    struct blob_check_report *rep;
    uint64_t clusters, reserved;
    uint32_t md_len;
    bool lvolstore;
    uint32_t *page_owner;    /* md_len: index + 1 */
    uint8_t *page_kind;      /* md_len: enum ck_page and CK_PAGE_* */
    uint32_t *cluster_owner; /* clusters: index + 1 */
    struct ck_blob *blob;
    size_t nblobs, cap;
    struct ck_conflict *conflict;
    unsigned nconflicts;
    uint64_t more_conflicts;
    /* The blob being walked. */
    struct ck_blob *b;
    uint64_t want, seen;       /* clusters: of the table, so far */
    uint64_t page_at;          /* byte of the metadata page that is being read */
    uint64_t name_hash[64];    /* of its xattrs */
    unsigned nnames;
    uint8_t *mem;              /* the pages below, in one piece */
    uint8_t *window, *chain, *extents;
    char text[320];
};
#define CK_WINDOW_BYTES (256 * 1024u)

void ck_say(struct check *ck, enum blob_check_severity s, const char *structure, uint64_t off,
            uint64_t blob, const char *fmt, ...) PRINTF_LIKE(6, 7);
static inline uint64_t ck_page_off(const struct check *ck, uint32_t md_page)
{
    return blob_raw_page_off(&ck->raw, md_page);
}
struct ck_blob *ck_find(struct check *ck, uint64_t id);

/* check_blob.c: walks the blob whose root is in `root` (good checksum). 0, -EIO, -ENOMEM. */
int ck_walk_blob(struct rt_task *t, struct check *ck, uint32_t md_page, const uint8_t *root);

/* check_rules.c */
void ck_relations(struct check *ck);
void ck_conflicts(struct check *ck);
void ck_lvolstore(struct check *ck);

#endif
