/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loading a store. The masks say which blobs there are, or, after an unclean stop, the metadata
 * pages do. Each blob is read once to see who stands on whom, snapshots that were being made or
 * removed are brought to one end or the other, and each blob is read again to claim its pages and
 * clusters: what is claimed twice, or cannot be read, is skipped.
 */
#include "blob/internal.h"

enum fate {
    FATE_FINE = 0,
    FATE_UNREADABLE,
    FATE_KEEP, /* a snapshot that is one: its mark goes */
    FATE_DROP, /* a snapshot that is none */
};

struct entry {
    uint64_t id;
    uint64_t parent;  /* or BLOB_ID_NONE */
    uint64_t partner; /* the blob its mark names */
    uint8_t fate;     /* enum fate */
    bool removing;    /* SNAPRM */
};

struct loader {
    struct rt_task *t;
    struct blob_store *bs;
    struct err *why;
    struct entry *entry; /* ascending ids */
    size_t n;
    struct blob_mask pages, clusters; /* claimed */
};

static int damaged(struct loader *l, uint64_t id, int rc)
{
    return err_set(l->why, rc,
                   "%s: blob 0x%llx: %s; the store was not closed, so what it holds is not known: "
                   "open it for reading only",
                   blk_uri(l->bs->dev), (unsigned long long)id, err_str(rc));
}

static struct entry *entry_find(const struct loader *l, uint64_t id)
{
    size_t lo = 0, hi = l->n;

    while (lo < hi) {
        size_t mid = (lo + hi) / 2;

        if (l->entry[mid].id == id)
            return &l->entry[mid];
        if (l->entry[mid].id < id)
            lo = mid + 1;
        else
            hi = mid;
    }
    return NULL;
}

/* --- who there is ----------------------------------------------------------------------------- */

static uint64_t mark_of(const struct blob *b, const char *name)
{
    const struct blob_attr *a = blob_head_find(&b->head, true, name);

    return a != NULL && a->value_len == 8 ? le64_at(a->value) : BLOB_ID_NONE;
}

static int entry_read(struct loader *l, struct entry *e)
{
    struct blob *b;
    int rc = blob_md_parse(l->t, l->bs, e->id, &b);

    e->parent = e->partner = BLOB_ID_NONE;
    if (rc == -EBADMSG) {
        e->fate = FATE_UNREADABLE;
        /* In a store that was not closed, clusters of such a blob would be taken for free. */
        return l->bs->was_clean || l->bs->read_only ? 0 : damaged(l, e->id, rc);
    }
    if (rc < 0)
        return err_set(l->why, rc, "%s: blob 0x%llx: %s", blk_uri(l->bs->dev),
                       (unsigned long long)e->id, err_str(rc));
    e->parent = blob_parent_id(b);
    e->partner = mark_of(b, BLOB_X_SNAPRM);
    e->removing = e->partner != BLOB_ID_NONE;
    if (!e->removing)
        e->partner = mark_of(b, BLOB_X_SNAPTMP);
    if (b->unknown)
        e->fate = FATE_UNREADABLE;
    blob_free(b);
    return 0;
}

static int entries_read(struct loader *l)
{
    uint64_t page = 0;

    l->entry = calloc(l->bs->ids.used + 1, sizeof(*l->entry));
    if (l->entry == NULL)
        return err_set(l->why, -ENOMEM, "%s: out of memory", blk_uri(l->bs->dev));
    for (; (page = blob_mask_next_set(&l->bs->ids, page)) != BLOB_MASK_NONE; page++) {
        struct entry *e = &l->entry[l->n++];
        int rc;

        e->id = BLOB_ID_BASE | page;
        rc = entry_read(l, e);
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* A marked snapshot is one when the blob that it names stands on it. */
static void marks_judge(struct loader *l)
{
    for (size_t i = 0; i < l->n; i++) {
        struct entry *e = &l->entry[i];
        const struct entry *partner = entry_find(l, e->partner);

        if (e->fate == FATE_UNREADABLE || e->partner == BLOB_ID_NONE)
            continue;
        if (partner == NULL || partner->fate == FATE_UNREADABLE || partner == e)
            e->fate = FATE_UNREADABLE;
        else
            e->fate = partner->parent == e->id ? FATE_KEEP : FATE_DROP;
    }
}

static bool stands(const struct loader *l, const struct entry *e)
{
    size_t depth = 0;

    while (e->fate != FATE_UNREADABLE && e->parent != BLOB_ID_NONE) {
        e = entry_find(l, e->parent);
        if (e == NULL || e->fate == FATE_DROP || depth++ == BLOB_DEPTH_MAX)
            return false;
    }
    return e->fate != FATE_UNREADABLE;
}

/* Whoever stands on a blob that is not there, or on himself, cannot be read. */
static void parents_judge(struct loader *l)
{
    for (size_t i = 0; i < l->n; i++) {
        if (l->entry[i].fate != FATE_DROP && !stands(l, &l->entry[i]))
            l->entry[i].fate = FATE_UNREADABLE;
    }
}

/* --- claims ----------------------------------------------------------------------------------- */

/* False: somebody else has it, or the masks say nobody does. Afterwards nobody gets it. */
static bool claim(struct loader *l, struct blob_mask *claimed, struct blob_mask *used, uint64_t i)
{
    bool ours = blob_mask_set(claimed, i);
    bool was_free = blob_mask_set(used, i);

    return ours && !(was_free && l->bs->was_clean);
}

static bool claim_blob(struct loader *l, const struct blob *b)
{
    struct blob_store *bs = l->bs;
    bool ok = claim(l, &l->pages, &bs->pages, (uint32_t)b->id);

    for (unsigned i = 0; i < b->nchain; i++)
        ok = claim(l, &l->pages, &bs->pages, b->chain[i]) && ok;
    for (uint32_t i = 0; i < b->map->nleaves; i++) {
        if (b->map->page[i] != 0)
            ok = claim(l, &l->pages, &bs->pages, b->map->page[i]) && ok;
    }
    for (uint64_t i = 0; i < b->map->nclusters; i++) {
        uint32_t cluster = blob_map_get(b->map, i);

        if (cluster != 0)
            ok = claim(l, &l->clusters, &bs->clusters, cluster) && ok;
    }
    return ok;
}

/*
 * SPDK removes a snapshot by writing its clusters into the clone's extent pages before the clone's
 * root. When it got no further, both name them: they are the snapshot's.
 */
static int unshare(struct loader *l, struct blob *clone, const struct entry *snapshot,
                   struct blob_run **out_run, unsigned *out_nruns)
{
    struct blob *s;
    struct blob_run *run, *all = NULL;
    unsigned n = 0;
    int rc = blob_md_parse(l->t, l->bs, snapshot->id, &s);

    if (rc < 0)
        return rc;
    for (uint64_t i = 0; i < MIN(s->map->nclusters, clone->map->nclusters); i++) {
        uint32_t cluster = blob_map_get(clone->map, i);

        if (cluster == 0 || cluster != blob_map_get(s->map, i))
            continue;
        run = realloc(all, (n + 1) * sizeof(*run));
        if (run == NULL) {
            rc = -ENOMEM;
            break;
        }
        all = run;
        all[n++] = (struct blob_run){.idx = i, .n = 1};
        blob_map_set(clone->map, i, 0);
        clone->nallocated--;
    }
    blob_free(s);
    *out_run = all;
    *out_nruns = n;
    return rc;
}

static int claim_entry(struct loader *l, struct entry *e)
{
    const struct entry *parent = entry_find(l, e->parent);
    CLEANUP(free_p) struct blob_run *run = NULL;
    struct blob_change c = {.fresh_from = UINT32_MAX, .in_place = true};
    struct blob *b;
    int rc;

    blob_mask_set(&l->bs->pages, (uint32_t)e->id);
    rc = blob_md_parse(l->t, l->bs, e->id, &b);
    if (rc == -EBADMSG)
        return 0; /* not to be read, as entry_read() has seen */
    if (rc < 0)
        return rc;
    if (parent != NULL && parent->fate == FATE_KEEP && parent->removing) {
        rc = unshare(l, b, parent, &run, &c.nruns);
        c.run = run;
    }
    if (rc == 0 && !claim_blob(l, b))
        e->fate = FATE_UNREADABLE;
    if (rc == 0 && c.nruns > 0 && e->fate != FATE_UNREADABLE && !l->bs->read_only)
        rc = blob_change_commit(l->t, b, &c);
    blob_free(b);
    return rc;
}

static int claim_all(struct loader *l)
{
    uint64_t lowest = blob_super_md_clusters(&l->bs->super);

    for (uint64_t i = 0; i < lowest; i++)
        blob_mask_set(&l->bs->clusters, i);
    for (size_t i = 0; i < l->n; i++) {
        int rc = l->entry[i].fate == FATE_DROP ? 0 : claim_entry(l, &l->entry[i]);

        if (rc < 0)
            return rc;
    }
    return 0;
}

/* --- marks ------------------------------------------------------------------------------------ */

static int keep(struct loader *l, const struct entry *e)
{
    struct blob_head head;
    struct blob_change c = {.head = &head, .fresh_from = UINT32_MAX};
    struct blob *b;
    int rc = blob_md_parse(l->t, l->bs, e->id, &b);

    if (rc < 0)
        return rc;
    rc = blob_head_copy(&b->head, &head);
    if (rc == 0) {
        blob_head_del(&head, true, BLOB_X_SNAPRM);
        blob_head_del(&head, true, BLOB_X_SNAPTMP);
        head.data_ro |= BLOB_DATA_RO_READ_ONLY;
        rc = blob_change_commit(l->t, b, &c);
        blob_head_fini(&head);
    }
    blob_free(b);
    return rc;
}

/* What nobody has claimed was the blob's alone. */
static void unclaim(const struct blob_mask *claimed, struct blob_mask *used, uint64_t i)
{
    if (!blob_mask_test(claimed, i))
        blob_mask_clear(used, i);
}

static int drop(struct loader *l, const struct entry *e)
{
    struct blob_store *bs = l->bs;
    uint32_t root = (uint32_t)e->id;
    struct blob *b;
    int rc = blob_md_parse(l->t, bs, e->id, &b);

    if (rc < 0)
        return rc;
    rc = blob_md_dirty(l->t, bs);
    if (rc == 0) {
        memset(bs->page, 0, sizeof(*bs->page));
        rc = blob_md_write(l->t, bs, root, bs->page);
    }
    if (rc == 0)
        rc = blob_md_flush(l->t, bs);
    if (rc == 0) {
        unclaim(&l->pages, &bs->pages, root);
        blob_mask_clear(&bs->ids, root);
        for (unsigned i = 0; i < b->nchain; i++)
            unclaim(&l->pages, &bs->pages, b->chain[i]);
        for (uint32_t i = 0; i < b->map->nleaves; i++) {
            if (b->map->page[i] != 0)
                unclaim(&l->pages, &bs->pages, b->map->page[i]);
        }
        for (uint64_t i = 0; i < b->map->nclusters; i++) {
            uint32_t cluster = blob_map_get(b->map, i);

            if (cluster != 0)
                unclaim(&l->clusters, &bs->clusters, cluster);
        }
    }
    blob_free(b);
    return rc;
}

static int finish(struct loader *l)
{
    struct blob_store *bs = l->bs;

    for (size_t i = 0; i < l->n; i++) {
        struct entry *e = &l->entry[i];
        int rc = 0;

        if (e->fate == FATE_UNREADABLE || e->fate == FATE_DROP)
            blob_mask_set(&bs->unreadable, (uint32_t)e->id);
        if (e->fate == FATE_UNREADABLE)
            bs->nunreadable++;
        if (e->fate == FATE_KEEP && !bs->read_only)
            rc = keep(l, e);
        if (e->fate == FATE_DROP && !bs->read_only) {
            rc = drop(l, e);
            blob_mask_clear(&bs->unreadable, (uint32_t)e->id);
        }
        if (rc == 0 && e->parent != BLOB_ID_NONE && (e->fate == FATE_FINE || e->fate == FATE_KEEP))
            rc = blob_link_set(bs, e->id, e->parent);
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* --- the store -------------------------------------------------------------------------------- */

int blob_masks_init(struct blob_store *bs)
{
    if (blob_mask_init(&bs->pages, bs->super.md_len) < 0 ||
        blob_mask_init(&bs->ids, bs->super.md_len) < 0 ||
        blob_mask_init(&bs->unreadable, bs->super.md_len) < 0 ||
        blob_mask_init(&bs->clusters, bs->total_clusters) < 0)
        return -ENOMEM;
    return 0;
}

static void masks_empty(struct blob_store *bs)
{
    memset(bs->pages.bits, 0, blob_mask_bytes(&bs->pages));
    memset(bs->ids.bits, 0, blob_mask_bytes(&bs->ids));
    memset(bs->clusters.bits, 0, blob_mask_bytes(&bs->clusters));
    blob_mask_count(&bs->pages);
    blob_mask_count(&bs->ids);
    blob_mask_count(&bs->clusters);
}

static int roots(struct loader *l)
{
    struct blob_store *bs = l->bs;
    uint32_t torn;
    int rc = blob_masks_read(l->t, bs);

    if (rc != 0) {
        bs->was_clean = rc == 1;
        return MIN(rc, 0);
    }
    masks_empty(bs);
    rc = blob_roots_find(l->t, bs, &torn);
    if (rc == 0 && torn != BLOB_NO_PAGE && !bs->read_only)
        return damaged(l, BLOB_ID_BASE | torn, -EBADMSG);
    return rc;
}

static int load(struct loader *l)
{
    struct blob_store *bs = l->bs;
    int rc = roots(l);

    if (rc == 0)
        rc = entries_read(l);
    if (rc < 0)
        return rc;
    if (blob_mask_init(&l->pages, bs->pages.n) < 0 ||
        blob_mask_init(&l->clusters, bs->clusters.n) < 0)
        return -ENOMEM;
    marks_judge(l);
    parents_judge(l);
    rc = claim_all(l);
    if (rc == 0) {
        parents_judge(l); /* with those that claimed what is another's */
        rc = finish(l);
    }
    blob_store_count(bs);
    return rc;
}

int blob_store_load(struct rt_task *t, struct blob_store *bs, struct err *why)
{
    struct loader l = {.t = t, .bs = bs, .why = why};
    const char *uri = blk_uri(bs->dev);
    uint64_t dev_bytes = blk_info(bs->dev)->nblocks * bs->block_bytes;
    struct err text;
    int rc;

    if (dev_bytes < BLOB_PAGE_BYTES)
        return err_set(why, -ENODATA, "%s: there is no blobstore on it", uri);
    rc = blk_read(t, bs->blk, bs->super_page, 0, BLOB_PAGE_BYTES >> bs->block_shift);
    if (rc < 0)
        return err_set(why, rc, "%s: %s", uri, err_str(rc));
    rc = blob_super_decode(bs->super_page, dev_bytes, &bs->super, &text);
    if (rc < 0)
        return err_set(why, rc, "%s: %s", uri, text.text);
    bs->total_clusters = blob_super_clusters(&bs->super);
    if (blob_masks_init(bs) < 0)
        return err_set(why, -ENOMEM, "%s: out of memory", uri);
    err_set(&text, 0, "%s", "");
    l.why = &text;
    rc = load(&l);
    free(l.entry);
    blob_mask_fini(&l.pages);
    blob_mask_fini(&l.clusters);
    if (rc < 0)
        return err_set(why, rc, "%s%s%s", text.text[0] != '\0' ? "" : uri,
                       text.text[0] != '\0' ? "" : ": ",
                       text.text[0] != '\0' ? text.text : err_str(rc));
    return 0;
}
