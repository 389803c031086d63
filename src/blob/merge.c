/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Removing a snapshot that has one clone: the clone takes over what it sees through it. The
 * snapshot is marked SNAPRM first; the clone's new root (with its own extent pages written anew,
 * and those only the snapshot has handed over) is the commit; after it load drops the snapshot.
 */
#include "blob/internal.h"

struct merging {
    struct blob *s;       /* snapshot */
    struct blob *c;       /* clone */
    struct blob_map *map; /* the clone's, as it will be, but for `run` */
    struct blob_run *run; /* clusters of leaves that are written anew */
    unsigned nruns;
    bool *taken_leaf; /* by leaf of the snapshot: its extent page is the clone's now */
};

static int run_add(struct merging *m, uint64_t idx, uint32_t cluster)
{
    struct blob_run *more = m->run;

    if ((m->nruns & (m->nruns - 1)) == 0)
        more = realloc(m->run, (m->nruns == 0 ? 1 : 2 * (size_t)m->nruns) * sizeof(*more));
    if (more == NULL)
        return -ENOMEM;
    m->run = more;
    m->run[m->nruns++] = (struct blob_run){.idx = idx, .n = 1, .cluster = cluster};
    return 0;
}

/* A leaf of which the clone has nothing goes over with its page when both are as long in it. */
static bool takes_leaf(const struct merging *m, uint32_t leaf)
{
    return !m->s->rle && !m->c->rle && m->map->page[leaf] == 0 && m->s->map->page[leaf] != 0 &&
           blob_map_leaf_len(m->map, leaf) == blob_map_leaf_len(m->s->map, leaf);
}

static int merge_leaf(struct merging *m, uint32_t leaf)
{
    uint64_t first = (uint64_t)leaf * BLOB_LEAF_CLUSTERS;
    uint32_t len = MIN(blob_map_leaf_len(m->map, leaf), blob_map_leaf_len(m->s->map, leaf));
    bool whole = takes_leaf(m, leaf);

    if (m->s->map->leaf[leaf] == NULL)
        return 0;
    if (whole) {
        m->map->page[leaf] = m->s->map->page[leaf];
        m->taken_leaf[leaf] = true;
    }
    for (uint32_t i = 0; i < len; i++) {
        uint32_t cluster = blob_map_get(m->s->map, first + i);
        int rc;

        if (cluster == 0 || blob_map_get(m->map, first + i) != 0)
            continue;
        rc = whole ? blob_map_reserve(m->map, first) : run_add(m, first + i, cluster);
        if (rc < 0)
            return rc;
        if (whole)
            blob_map_set(m->map, first + i, cluster);
    }
    return 0;
}

static int merge(struct merging *m)
{
    int rc = 0;

    m->map = blob_map_copy(m->c->map, m->c->map->nclusters, true);
    m->taken_leaf = calloc(m->s->map->nleaves + 1, sizeof(*m->taken_leaf));
    if (m->map == NULL || m->taken_leaf == NULL)
        return -ENOMEM;
    for (uint32_t l = 0; l < MIN(m->map->nleaves, m->s->map->nleaves) && rc == 0; l++)
        rc = merge_leaf(m, l);
    return rc;
}

static int mark(struct rt_task *t, struct blob *s, uint64_t clone_id)
{
    struct blob_head head;
    struct blob_change c = {.head = &head, .fresh_from = UINT32_MAX};
    uint8_t id[8];
    int rc = blob_head_copy(&s->head, &head);

    if (rc < 0)
        return rc;
    le64_put(id, clone_id);
    if (clone_id == BLOB_ID_NONE)
        blob_head_del(&head, true, BLOB_X_SNAPRM);
    else
        rc = blob_head_set(&head, true, BLOB_X_SNAPRM, (uint16_t)strlen(BLOB_X_SNAPRM), id,
                           sizeof(id));
    if (rc == 0)
        rc = blob_change_commit(t, s, &c);
    blob_head_fini(&head);
    return rc;
}

/* The commit. */
static int clone_write(struct rt_task *t, struct merging *m)
{
    struct blob_head head;
    struct blob_change c = {
        .head = &head, .map = m->map, .run = m->run, .nruns = m->nruns, .fresh_from = UINT32_MAX};
    int rc = blob_head_copy(&m->c->head, &head);

    if (rc < 0)
        return rc;
    rc = blob_head_stand(&head, blob_parent_id(m->s), &m->s->head);
    if (rc == 0)
        rc = blob_change_commit(t, m->c, &c);
    m->map = c.map;
    blob_head_fini(&head);
    return rc;
}

/* In memory: the clone stands where the snapshot stood. */
static int clone_moves(struct rt_task *t, struct merging *m)
{
    struct blob *parent = m->s->parent;
    struct blk_dev *esnap = m->s->esnap;

    if (parent != NULL) {
        parent->inside++;
        blob_link_set(m->c->bs, m->c->id, parent->id);
    } else {
        blob_link_del(m->c->bs, m->c->id);
    }
    m->s->esnap = NULL;
    return blob_stand(t, m->c, parent, esnap);
}

/* Without memory for a list of them, and without giving them back to the device. */
static void free_singly(const struct blob *s)
{
    for (uint64_t i = 0; i < s->map->nclusters; i++) {
        struct blob_run r = {.idx = i, .n = 1, .cluster = blob_map_get(s->map, i)};

        if (r.cluster != 0)
            blob_free_clusters(s->bs, &r, 1);
    }
}

/* What the clone has not taken over is free. */
static void snapshot_goes(struct rt_task *t, const struct merging *m)
{
    CLEANUP(free_p) struct blob_run *run = NULL;
    struct blob *s = m->s;
    struct blob_store *bs = s->bs;
    unsigned nruns = 0;

    blob_mask_clear(&bs->ids, (uint32_t)s->id);
    blob_mask_clear(&bs->pages, (uint32_t)s->id);
    blob_md_zero(t, bs, s->chain, s->nchain);
    for (unsigned i = 0; i < s->nchain; i++)
        blob_mask_clear(&bs->pages, s->chain[i]);
    for (uint32_t l = 0; l < s->map->nleaves; l++) {
        if (s->map->page[l] == 0 || m->taken_leaf[l])
            continue;
        blob_md_zero(t, bs, &s->map->page[l], 1);
        blob_mask_clear(&bs->pages, s->map->page[l]);
    }
    for (uint64_t i = 0; i < MIN(s->map->nclusters, m->c->map->nclusters); i++) {
        if (blob_map_get(s->map, i) == blob_map_get(m->c->map, i))
            blob_map_set(s->map, i, 0);
    }
    if (blob_runs_from(s->map, 0, s->map->nclusters, &run, &nruns) == 0) {
        blob_clear_clusters(t, s, run, nruns);
        blob_free_clusters(bs, run, nruns);
    } else {
        free_singly(s);
    }
    blob_link_del(bs, s->id);
    blob_store_count(bs);
}

/* Beyond the snapshot's end the clone reads zeroes, also when it stands on what is below. */
static int fill_beyond(struct rt_task *t, const struct merging *m)
{
    int rc = 0;

    for (uint64_t i = m->s->map->nclusters; i < m->c->map->nclusters && rc == 0; i++) {
        if (blob_map_get(m->c->map, i) == 0 && blob_shows_below(m->s, i))
            rc = blob_copy_up(t, m->c, i, 1, false);
    }
    return rc;
}

static int delete_merge(struct rt_task *t, struct merging *m)
{
    int rc = fill_beyond(t, m), moved;

    if (rc == 0)
        rc = merge(m);
    if (rc == 0)
        rc = mark(t, m->s, m->c->id);
    if (rc < 0)
        return rc;
    rc = clone_write(t, m);
    if (rc < 0) {
        if (m->s->bs->failed == 0)
            mark(t, m->s, BLOB_ID_NONE);
        return rc;
    }
    moved = clone_moves(t, m);
    rc = blob_root_zero(t, m->s);
    if (rc == 0 && moved == 0)
        snapshot_goes(t, m);
    return rc;
}

int blob_delete_merge(struct rt_task *t, struct blob *s, uint64_t clone_id)
{
    struct merging m = {.s = s};
    int rc = blob_get(t, s->bs, clone_id, &m.c);

    if (rc < 0)
        return rc;
    rc = delete_merge(t, &m);
    blob_map_free(m.map);
    free(m.run);
    free(m.taken_leaf);
    blob_put(t, m.c);
    return rc;
}
