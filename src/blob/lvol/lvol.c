/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Logical volumes: blobs with a name and a uuid. Every call goes to the store's home reactor, where
 * xattrs may be looked at; those that give a name take turns, so that no name is given twice.
 */
#include "blob/lvol/internal.h"

#include <stdio.h>
#include <string.h>

static int call_run(struct rt_task *t, void *arg)
{
    struct lvol_call *c = arg;

    return c->fn(t, c);
}

int lvol_call(struct rt_task *t, struct lvol_call *c)
{
    return rt_on(t, c->lvs->shared->home, call_run, c);
}

static int naming_run(struct rt_task *t, void *arg)
{
    struct lvol_call *c = arg;
    struct lvs_shared *s = c->lvs->shared;
    int rc;

    while (s->naming) {
        rc = rt_cond_wait(t, &s->named);
        if (rc < 0)
            return rc;
    }
    s->naming = true;
    rc = c->fn(t, c);
    s->naming = false;
    rt_cond_wake_one(&s->named);
    return rc;
}

int lvol_call_naming(struct rt_task *t, struct lvol_call *c)
{
    return rt_on(t, c->lvs->shared->home, naming_run, c);
}

/* --- finding ---------------------------------------------------------------------------------- */

/* A blob that is not there any more, or cannot be read, is none of the volumes. */
static bool is_missing(int rc)
{
    return rc == -ENOENT || rc == -EBADMSG || rc == -ENOTSUP;
}

/* Reads names of an open blob. */
int lvol_info_of(const struct lvs *lvs, const struct blob *b, struct lvol_info *out)
{
    int rc = lvol_text_get(b, LVOL_NAME_XATTR, out->name, sizeof(out->name));

    if (rc < 0)
        return rc;
    blob_info(b, &out->blob);
    lvol_external_read(b, out);
    if (lvol_text_get(b, LVOL_KV_XATTR, out->kv, sizeof(out->kv)) < 0)
        out->kv[0] = '\0';
    memset(out->uuid_bytes, 0, sizeof(out->uuid_bytes));
    if (lvol_text_get(b, LVOL_UUID_XATTR, out->uuid, LVOL_UUID_TEXT) < 0 ||
        lvol_uuid_parse(out->uuid, out->uuid_bytes) < 0)
        snprintf(out->uuid, sizeof(out->uuid), "%s_%llu", lvs->uuid,
                 (unsigned long long)out->blob.id);
    return 0;
}

int lvol_info_read(struct rt_task *t, const struct lvs *lvs, uint64_t id, struct lvol_info *out)
{
    struct blob *b;
    int rc = blob_open(t, lvs->bs, id, &b);

    if (rc < 0)
        return rc;
    rc = lvol_info_of(lvs, b, out);
    blob_close(t, b);
    return rc;
}

static int info_home(struct rt_task *t, struct lvol_call *c)
{
    return lvol_info_read(t, c->lvs, c->id, c->info);
}

int lvol_info(struct rt_task *t, const struct lvs *lvs, uint64_t id, struct lvol_info *out)
{
    struct lvol_call c = {.fn = info_home, .lvs = lvs, .id = id, .info = out};

    return lvol_call(t, &c);
}

static int next_home(struct rt_task *t, struct lvol_call *c)
{
    struct blob_store_info info;
    struct lvol_info volume;
    int rc;

    blob_store_info(c->lvs->bs, &info);
    while ((rc = blob_next(t, c->lvs->bs, c->id, &c->out_id)) == 0) {
        if (c->out_id != info.super_blob) {
            rc = lvol_info_read(t, c->lvs, c->out_id, &volume);
            if (!is_missing(rc))
                return rc;
        }
        c->id = c->out_id + 1;
    }
    return rc;
}

int lvol_next(struct rt_task *t, const struct lvs *lvs, uint64_t from, uint64_t *out_id)
{
    struct lvol_call c = {.fn = next_home, .lvs = lvs, .id = from};
    int rc = lvol_call(t, &c);

    if (rc == 0)
        *out_id = c.out_id;
    return rc;
}

static int find_home(struct rt_task *t, struct lvol_call *c)
{
    struct blob_store_info info;
    struct lvol_info volume;
    int rc;

    blob_store_info(c->lvs->bs, &info);
    for (uint64_t from = 0; (rc = blob_next(t, c->lvs->bs, from, &c->out_id)) == 0;
         from = c->out_id + 1) {
        if (c->out_id == info.super_blob)
            continue;
        rc = lvol_info_read(t, c->lvs, c->out_id, &volume);
        if (rc < 0 && !is_missing(rc))
            return rc;
        if (rc == 0 && (strcmp(volume.name, c->name) == 0 || strcmp(volume.uuid, c->name) == 0))
            return 0;
    }
    return rc;
}

int lvol_find(struct rt_task *t, const struct lvs *lvs, const char *name_or_uuid, uint64_t *out_id)
{
    struct lvol_call c = {.fn = find_home, .lvs = lvs, .name = name_or_uuid};
    int rc = lvol_call(t, &c);

    if (rc == 0)
        *out_id = c.out_id;
    return rc;
}

/* Names of volumes for an error text, as many as fit. */
static int list_home(struct rt_task *t, struct lvol_call *c)
{
    char names[ERR_TEXT_MAX / 2] = "";
    struct lvol_call next = {.lvs = c->lvs};
    struct lvol_info volume;
    size_t len = 0;

    while (len < sizeof(names) && next_home(t, &next) == 0) {
        if (lvol_info_read(t, c->lvs, next.out_id, &volume) == 0)
            len += (size_t)snprintf(names + len, sizeof(names) - len, " %s", volume.name);
        next.id = next.out_id + 1;
    }
    if (len >= sizeof(names))
        memcpy(names + sizeof(names) - 4, "...", 4);
    if (c->name == NULL)
        return err_set(c->why, -EINVAL, "which volume of %s? #NAME; there %s%s", c->lvs->name,
                       len == 0 ? "is none" : "are", names);
    return err_set(c->why, -ENOENT, "there is no volume '%.63s' in %s; there %s%s", c->name,
                   c->lvs->name, len == 0 ? "is none" : "are", names);
}

int lvol_lookup(struct rt_task *t, const struct lvs *lvs, const char *what, uint64_t *out_id,
                struct err *why)
{
    struct lvol_call c = {.fn = list_home, .lvs = lvs, .name = what, .why = why};
    size_t store_len = strlen(lvs->name);
    int rc = -ENOENT;

    if (what == NULL || what[0] == '\0') {
        c.name = NULL;
        return lvol_call(t, &c);
    }
    if (strncmp(what, lvs->name, store_len) == 0 && what[store_len] == '/')
        rc = lvol_find(t, lvs, what + store_len + 1, out_id);
    if (rc == -ENOENT) /* a name may have a '/' */
        rc = lvol_find(t, lvs, what, out_id);
    if (rc == -ENOENT)
        return lvol_call(t, &c);
    if (rc < 0)
        return err_set(why, rc, "%.63s in %s: %s", what, lvs->name, err_str(rc));
    return 0;
}

/* --- making ----------------------------------------------------------------------------------- */

uint64_t lvol_clusters_of(const struct lvs *lvs, uint64_t len_bytes)
{
    struct blob_store_info info;

    blob_store_info(lvs->bs, &info);
    return len_bytes / info.cluster_bytes + (len_bytes % info.cluster_bytes != 0);
}

/* Says what an errno of the blobstore means for a volume. */
int lvol_explain(const struct lvol_call *c, const char *what, const char *name, int rc)
{
    struct blob_store_info info;

    if (rc >= 0 || rc == -ECANCELED)
        return rc;
    blob_store_info(c->lvs->bs, &info);
    if (rc == -ENOSPC)
        return err_set(c->why, rc,
                       "cannot %s %s: %s has %llu of %llu clusters (%u bytes each) free, and %llu "
                       "metadata pages",
                       what, name, c->lvs->name, (unsigned long long)info.free_clusters,
                       (unsigned long long)info.clusters, info.cluster_bytes,
                       (unsigned long long)info.free_md_pages);
    if (rc == -EROFS)
        return err_set(c->why, rc, "cannot %s %s: %s", what, name,
                       info.read_only ? "the store is open for reading only" : "it is read-only");
    return err_set(c->why, rc, "cannot %s %s: %s", what, name, err_str(rc));
}

static int name_free(struct rt_task *t, struct lvol_call *c, const char *name)
{
    struct lvol_call find = {.lvs = c->lvs, .name = name};
    int rc = lvol_name_check("volume", name, c->why);

    if (rc < 0)
        return rc;
    rc = find_home(t, &find);
    if (rc == 0)
        return err_set(c->why, -EEXIST, "%s has a volume '%s' already", c->lvs->name, name);
    if (rc != -ENOENT)
        return err_set(c->why, rc, "%s: %s", c->lvs->name, err_str(rc));
    return 0;
}

int lvol_naming_begin(struct rt_task *t, struct lvol_call *c, const char *name,
                      struct lvol_naming *n)
{
    int rc = name_free(t, c, name);

    if (rc < 0)
        return rc;
    memset(n, 0, sizeof(*n));
    memcpy(n->name, name, strlen(name));
    lvol_uuid_make(n->uuid);
    n->xattrs[0] = (struct blob_xattr){LVOL_NAME_XATTR, n->name, sizeof(n->name)};
    n->xattrs[1] = (struct blob_xattr){LVOL_UUID_XATTR, n->uuid, sizeof(n->uuid)};
    n->nxattrs = 2;
    return 0;
}

static int create_home(struct rt_task *t, struct lvol_call *c)
{
    const struct lvol_create_opts *o = c->create;
    struct blob_create_opts blob = {
        .clusters = lvol_clusters_of(c->lvs, o->len_bytes), .thin = o->thin, .clear = o->clear};
    struct lvol_naming n;
    int rc = lvol_naming_begin(t, c, o->name, &n);

    if (rc < 0)
        return rc;
    must(o->nxattrs <= LVOL_EXTRA_XATTRS_MAX);
    for (unsigned i = 0; i < o->nxattrs; i++)
        n.xattrs[n.nxattrs++] = o->xattrs[i];
    blob.xattrs = n.xattrs;
    blob.nxattrs = n.nxattrs;
    return lvol_explain(c, "create", o->name, blob_create(t, c->lvs->bs, &blob, &c->out_id));
}

int lvol_create(struct rt_task *t, const struct lvs *lvs, const struct lvol_create_opts *opts,
                uint64_t *out_id, struct err *why)
{
    struct lvol_call c = {.fn = create_home, .lvs = lvs, .create = opts, .why = why};
    int rc = lvol_call_naming(t, &c);

    if (rc == 0)
        *out_id = c.out_id;
    return rc;
}

/* Opens the blob of a call for what needs it open, and closes it again. */
int lvol_with_blob(struct rt_task *t, struct lvol_call *c, const char *what,
                   int (*fn)(struct rt_task *t, struct lvol_call *c, struct blob *b))
{
    char name[LVOL_NAME_MAX + 1] = "the volume";
    struct blob *b;
    int rc = blob_open(t, c->lvs->bs, c->id, &b);

    if (rc < 0)
        return lvol_explain(c, what, name, rc);
    lvol_text_get(b, LVOL_NAME_XATTR, name, sizeof(name));
    rc = fn(t, c, b);
    rt_task_shield(t, true);
    blob_close(t, b);
    rt_task_shield(t, false);
    return lvol_explain(c, what, name, rc);
}

/* --- changing --------------------------------------------------------------------------------- */

static int rename_blob(struct rt_task *t, struct lvol_call *c, struct blob *b)
{
    return blob_set_xattr(t, b, LVOL_NAME_XATTR, c->name, (uint16_t)(strlen(c->name) + 1));
}

static int rename_home(struct rt_task *t, struct lvol_call *c)
{
    struct lvs_shared *s = c->lvs->shared;
    struct lvol_watch *w;
    int rc = name_free(t, c, c->name);

    if (rc == 0)
        rc = lvol_with_blob(t, c, "rename", rename_blob);
    if (rc < 0)
        return rc;
    pthread_mutex_lock(&s->lock);
    list_for_each (w, &s->watches, struct lvol_watch, link) {
        if (w->id == c->id)
            w->renamed(w, c->name);
    }
    pthread_mutex_unlock(&s->lock);
    return 0;
}

int lvol_rename(struct rt_task *t, const struct lvs *lvs, uint64_t id, const char *name,
                struct err *why)
{
    struct lvol_call c = {.fn = rename_home, .lvs = lvs, .id = id, .name = name, .why = why};

    return lvol_call_naming(t, &c);
}

static int delete_home(struct rt_task *t, struct lvol_call *c)
{
    struct lvol_info volume = {.name = "the volume"};
    int rc = lvol_info_read(t, c->lvs, c->id, &volume);

    if (rc == 0 && volume.blob.nclones > 1)
        return err_set(c->why, -EBUSY,
                       "cannot remove %s: %u volumes stand on it; remove, inflate or decouple them "
                       "first",
                       volume.name, volume.blob.nclones);
    if (rc == 0)
        rc = blob_delete(t, c->lvs->bs, c->id);
    if (rc == -EBUSY)
        return err_set(c->why, rc, "cannot remove %s: it is in use", volume.name);
    return lvol_explain(c, "remove", volume.name, rc);
}

int lvol_delete(struct rt_task *t, const struct lvs *lvs, uint64_t id, struct err *why)
{
    struct lvol_call c = {.fn = delete_home, .lvs = lvs, .id = id, .why = why};

    return lvol_call_naming(t, &c);
}

static int resize_blob(struct rt_task *t, struct lvol_call *c, struct blob *b)
{
    struct lvs_shared *s = c->lvs->shared;
    struct blob_info info;
    struct lvol_watch *w;
    int rc = blob_resize(t, b, lvol_clusters_of(c->lvs, c->len_bytes));

    if (rc < 0)
        return rc;
    blob_info(b, &info);
    pthread_mutex_lock(&s->lock);
    list_for_each (w, &s->watches, struct lvol_watch, link) {
        if (w->id == c->id)
            w->resized(w, info.len_bytes);
    }
    pthread_mutex_unlock(&s->lock);
    return 0;
}

static int resize_home(struct rt_task *t, struct lvol_call *c)
{
    return lvol_with_blob(t, c, "resize", resize_blob);
}

int lvol_resize(struct rt_task *t, const struct lvs *lvs, uint64_t id, uint64_t len_bytes,
                struct err *why)
{
    struct lvol_call c = {
        .fn = resize_home, .lvs = lvs, .id = id, .len_bytes = len_bytes, .why = why};

    return lvol_call_naming(t, &c); /* in turn: watches learn sizes in the order of the changes */
}

static int read_only_blob(struct rt_task *t, struct lvol_call *c, struct blob *b)
{
    return blob_set_read_only(t, b);
}

static int read_only_home(struct rt_task *t, struct lvol_call *c)
{
    return lvol_with_blob(t, c, "make read-only", read_only_blob);
}

int lvol_set_read_only(struct rt_task *t, const struct lvs *lvs, uint64_t id, struct err *why)
{
    struct lvol_call c = {.fn = read_only_home, .lvs = lvs, .id = id, .why = why};

    return lvol_call(t, &c);
}

/* --- watches ---------------------------------------------------------------------------------- */

uint64_t lvol_watch_add(const struct lvs *lvs, struct lvol_watch *w, const struct blob *b)
{
    struct blob_info info;

    pthread_mutex_lock(&lvs->shared->lock);
    list_add_tail(&lvs->shared->watches, &w->link);
    blob_info(b, &info);
    pthread_mutex_unlock(&lvs->shared->lock);
    return info.len_bytes;
}

void lvol_watch_del(const struct lvs *lvs, struct lvol_watch *w)
{
    pthread_mutex_lock(&lvs->shared->lock);
    list_del(&w->link);
    pthread_mutex_unlock(&lvs->shared->lock);
}
