/* SPDX-License-Identifier: Apache-2.0 */
/* Volumes that stand on others: snapshots and clones, and what makes them independent again. */
#include "blob/lvol/internal.h"

#include <string.h>

/* What is made of a volume on an external snapshot stands on that, too. */
static void keep_external(const struct lvol_info *of, struct lvol_naming *n)
{
    size_t len = strlen(of->external_uri);

    if (len > 0)
        n->xattrs[n->nxattrs++] =
            (struct blob_xattr){LVOL_EXTERNAL_XATTR, of->external_uri, (uint16_t)(len + 1)};
}

static int snapshot_blob(struct rt_task *t, struct lvol_call *c, struct blob *b)
{
    struct lvol_info info;
    int rc = lvol_info_of(c->lvs, b, &info);

    if (rc < 0)
        return rc;
    keep_external(&info, c->naming);
    return blob_snapshot(t, b, c->naming->xattrs, c->naming->nxattrs, &c->out_id);
}

static int snapshot_home(struct rt_task *t, struct lvol_call *c)
{
    struct lvol_naming n;
    int rc = lvol_naming_begin(t, c, c->name, &n);

    if (rc < 0)
        return rc;
    c->naming = &n;
    return lvol_with_blob(t, c, "take a snapshot of", snapshot_blob);
}

int lvol_snapshot(struct rt_task *t, const struct lvs *lvs, uint64_t id, const char *name,
                  uint64_t *out_id, struct err *why)
{
    struct lvol_call c = {.fn = snapshot_home, .lvs = lvs, .id = id, .name = name, .why = why};
    int rc = lvol_call_naming(t, &c);

    if (rc == 0)
        *out_id = c.out_id;
    return rc;
}

static int clone_home(struct rt_task *t, struct lvol_call *c)
{
    struct lvol_info snapshot;
    struct lvol_naming n;
    int rc = lvol_naming_begin(t, c, c->name, &n);

    if (rc < 0)
        return rc;
    rc = lvol_info_read(t, c->lvs, c->id, &snapshot);
    if (rc < 0)
        return lvol_explain(c, "clone", "the snapshot", rc);
    if (!snapshot.blob.read_only)
        return err_set(c->why, -EINVAL,
                       "%s can be written, so it cannot be cloned: take a snapshot of it and clone "
                       "that, or make it read-only",
                       snapshot.name);
    keep_external(&snapshot, &n);
    rc = blob_clone(t, c->lvs->bs, c->id, n.xattrs, n.nxattrs, &c->out_id);
    return lvol_explain(c, "clone", snapshot.name, rc);
}

int lvol_clone(struct rt_task *t, const struct lvs *lvs, uint64_t snapshot, const char *name,
               uint64_t *out_id, struct err *why)
{
    struct lvol_call c = {.fn = clone_home, .lvs = lvs, .id = snapshot, .name = name, .why = why};
    int rc = lvol_call_naming(t, &c);

    if (rc == 0)
        *out_id = c.out_id;
    return rc;
}

/* --- long work -------------------------------------------------------------------------------- */

static blob_progress_fn progress_fn(const struct lvol_call *c)
{
    return c->progress != NULL ? c->progress->fn : NULL;
}

static void *progress_arg(const struct lvol_call *c)
{
    return c->progress != NULL ? c->progress->arg : NULL;
}

static int inflate_blob(struct rt_task *t, struct lvol_call *c, struct blob *b)
{
    return blob_inflate(t, b, progress_fn(c), progress_arg(c));
}

static int inflate_home(struct rt_task *t, struct lvol_call *c)
{
    return lvol_with_blob(t, c, "inflate", inflate_blob);
}

int lvol_inflate(struct rt_task *t, const struct lvs *lvs, uint64_t id,
                 const struct lvol_progress *progress, struct err *why)
{
    struct lvol_call c = {
        .fn = inflate_home, .lvs = lvs, .id = id, .progress = progress, .why = why};

    return lvol_call(t, &c);
}

static int decouple_blob(struct rt_task *t, struct lvol_call *c, struct blob *b)
{
    struct blob_info info;

    blob_info(b, &info);
    if (!info.clone && !info.esnap_clone)
        return -EINVAL;
    return blob_decouple(t, b, progress_fn(c), progress_arg(c));
}

static int decouple_home(struct rt_task *t, struct lvol_call *c)
{
    int rc = lvol_with_blob(t, c, "decouple", decouple_blob);

    return rc == -EINVAL ? err_set(c->why, rc,
                                   "there is nothing to decouple it from: the volume "
                                   "is no clone")
                         : rc;
}

int lvol_decouple(struct rt_task *t, const struct lvs *lvs, uint64_t id,
                  const struct lvol_progress *progress, struct err *why)
{
    struct lvol_call c = {
        .fn = decouple_home, .lvs = lvs, .id = id, .progress = progress, .why = why};

    return lvol_call(t, &c);
}

static int copy_blob(struct rt_task *t, struct lvol_call *c, struct blob *b)
{
    return blob_shallow_copy(t, b, c->to, progress_fn(c), progress_arg(c));
}

static int copy_home(struct rt_task *t, struct lvol_call *c)
{
    return lvol_with_blob(t, c, "copy", copy_blob);
}

int lvol_shallow_copy(struct rt_task *t, const struct lvs *lvs, uint64_t id, struct blk_dev *to,
                      const struct lvol_progress *progress, struct err *why)
{
    struct lvol_call c = {
        .fn = copy_home, .lvs = lvs, .id = id, .to = to, .progress = progress, .why = why};
    const struct blk_info *dst = blk_info(to);
    struct lvol_info volume;
    int rc = lvol_info(t, lvs, id, &volume);

    if (rc < 0)
        return err_set(why, rc, "the volume cannot be read: %s", err_str(rc));
    if (!volume.blob.read_only)
        return err_set(why, -EINVAL,
                       "%s can be written while it is copied: copy a snapshot of it, or make it "
                       "read-only",
                       volume.name);
    if (dst->nblocks * dst->block_bytes < volume.blob.len_bytes)
        return err_set(why, -ENOSPC, "%s has %llu bytes, %s only %llu", volume.name,
                       (unsigned long long)volume.blob.len_bytes, blk_uri(to),
                       (unsigned long long)dst->nblocks * dst->block_bytes);
    return lvol_call(t, &c);
}
