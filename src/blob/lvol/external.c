/* SPDX-License-Identifier: Apache-2.0 */
/*
 * External snapshots: volumes that show another block device where they have nothing of their own.
 * The store names that device by an id only, its UUID as text; where it is, whoever opens the
 * volume says, and the store's bytes make nothing be opened. Those that are open are in a list of
 * the store's home reactor, in which the blobstore looks for the id when it opens a blob.
 */
#include "blob/lvol/internal.h"

#include <stdio.h>
#include <string.h>

#define HOLDER "external snapshot"

struct lvol_external {
    struct list link; /* lvs_shared.externals */
    unsigned refs;
    struct lvs_shared *shared;
    struct blk_dev *dev;
    struct blk_chan *chan; /* of the home reactor: none is opened while the store is locked */
    uint16_t id_len;
    uint8_t id[];
};

/* --- the id ----------------------------------------------------------------------------------- */

/* As it is shown: a text, which SPDK writes with its NUL, or else in hex. */
static void id_text(const uint8_t *id, uint16_t len, char out[LVOL_UUID_MAX])
{
    size_t n = strnlen((const char *)id, len);
    bool text = n > 0 && n < LVOL_UUID_MAX;

    for (size_t i = 0; i < n && text; i++)
        text = id[i] > ' ' && id[i] < 0x7f;
    if (text) {
        memcpy(out, id, n);
        out[n] = '\0';
        return;
    }
    for (size_t i = 0; i < len && 2 * i + 3 <= LVOL_UUID_MAX; i++)
        snprintf(out + 2 * i, 3, "%02x", id[i]);
}

void lvol_external_read(const struct blob *b, struct lvol_info *out)
{
    const void *value;
    uint16_t len;

    out->external[0] = out->external_uri[0] = '\0';
    out->external_open = false;
    if (blob_esnap_id(b, &value, &len, &out->external_open) < 0)
        return;
    id_text(value, len, out->external);
    if (blob_get_xattr(b, LVOL_EXTERNAL_XATTR, &value, &len) < 0 || len > LVOL_EXTERNAL_URI_MAX ||
        len == 0)
        return;
    memcpy(out->external_uri, value, len);
    out->external_uri[len - 1] = '\0';
}

/* UUIDs of version 8 say where a device was found, not which it is: see blk_uuid_of(). */
static bool is_other(const uint8_t *id, uint16_t len, const struct blk_dev *dev)
{
    const struct blk_info *info = blk_info(dev);
    char text[LVOL_UUID_MAX];
    uint8_t uuid[16];

    id_text(id, len, text);
    return lvol_uuid_parse(text, uuid) == 0 && memcmp(uuid, info->uuid, sizeof(uuid)) != 0 &&
           uuid[6] >> 4 != 8 && info->uuid[6] >> 4 != 8;
}

static void uuid_text(const uint8_t u[16], char out[LVOL_UUID_TEXT])
{
    size_t n = 0;

    for (unsigned i = 0; i < 16; i++)
        n += (size_t)snprintf(out + n, LVOL_UUID_TEXT - n, "%s%02x",
                              i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", u[i]);
}

/* --- the device ------------------------------------------------------------------------------- */

static bool is_device_uri(const char *what)
{
    const char *colon = strchr(what, ':');

    for (unsigned i = 0; colon != NULL && blk_drivers[i] != NULL; i++) {
        const char *name = blk_drivers[i]->name;
        size_t at = 0;

        while (name[at] != '\0' && (what[at] == name[at] || (name[at] == '_' && what[at] == '+')))
            at++;
        if (name[at] == '\0' && what + at == colon)
            return true;
    }
    return false;
}

/* A URI, or the path of a file, which is opened for reading. */
static int device_open(struct rt_task *t, const struct lvs *lvs, const char *what,
                       struct blk_dev **out_dev, struct err *why)
{
    struct lvol_file_opts file = {.path = what, .readonly = true};
    const uint32_t block_bytes = blk_info(blob_store_dev(lvs->bs))->block_bytes;
    CLEANUP(free_p) char *uri = malloc(URI_MAX);
    struct blk_dev *dev;
    int rc;

    if (uri == NULL)
        return err_set(why, -ENOMEM, "out of memory");
    if (!is_device_uri(what) && lvol_file_uri(&file, uri, URI_MAX) < 0)
        return err_set(why, -ENAMETOOLONG, "the path of the external snapshot is too long");
    rc = blk_open(t, is_device_uri(what) ? what : uri, &dev, why);
    if (rc < 0)
        return rc;
    if (lvol_dev_store(dev) == lvs->bs)
        rc = err_set(why, -EINVAL, "%s is a volume of the same store: make a clone of a snapshot",
                     what);
    else if (block_bytes % blk_info(dev)->block_bytes != 0)
        rc = err_set(why, -EINVAL,
                     "%s has blocks of %u bytes, the store of %u: the external snapshot's may not "
                     "be larger",
                     what, blk_info(dev)->block_bytes, block_bytes);
    else
        rc = blk_claim(dev, BLK_CLAIM_READ, HOLDER, why);
    if (rc < 0) {
        blk_close(t, dev);
        return rc;
    }
    *out_dev = dev;
    return 0;
}

static void device_close(struct rt_task *t, struct blk_dev *dev)
{
    blk_unclaim(dev, BLK_CLAIM_READ, HOLDER);
    blk_close(t, dev);
}

/* --- open ones, on the home reactor ----------------------------------------------------------- */

static struct lvol_external *find(const struct lvs_shared *s, const void *id, uint16_t id_len)
{
    struct lvol_external *e;

    list_for_each (e, &s->externals, struct lvol_external, link) {
        if (e->id_len == id_len && memcmp(e->id, id, id_len) == 0)
            return e;
    }
    return NULL;
}

/* The blobstore asks, with its lock: nothing waits here. */
static int esnap_find(struct rt_task *t, void *shared, const void *id, uint16_t id_len,
                      struct blk_dev **out_dev, struct err *why)
{
    const struct lvol_external *e = find(shared, id, id_len);

    (void)t;
    if (e == NULL)
        return err_set(why, -ENODEV, "the external snapshot is not open");
    *out_dev = blk_ref(e->dev);
    return 0;
}

static int say_missing(struct lvol_call *c, const struct lvol_info *info)
{
    char was[LVOL_EXTERNAL_URI_MAX + 40] = "";

    if (info->external_uri[0] != '\0')
        snprintf(was, sizeof(was), "; it was made on %s", info->external_uri);
    return err_set(c->why, -ENODEV,
                   "volume %s stands on the external snapshot %s: external=URI in its URI (and "
                   "--external URI of `kvasir lvol`) says where that is%s",
                   info->name, info->external, was);
}

/* The device of the call becomes one of the list. */
static int enter(struct rt_task *t, struct lvol_call *c, const void *id, uint16_t id_len)
{
    struct lvs_shared *s = c->lvs->shared;
    struct lvol_external *e = calloc(1, sizeof(*e) + id_len);
    int rc;

    if (e == NULL)
        return err_set(c->why, -ENOMEM, "out of memory");
    *e = (struct lvol_external){.shared = s, .refs = 1, .dev = c->to, .id_len = id_len};
    memcpy(e->id, id, id_len);
    rc = blk_chan_get(t, c->to, &e->chan);
    if (rc < 0) {
        free(e);
        return err_set(c->why, rc, "the external snapshot: %s", err_str(rc));
    }
    list_add_tail(&s->externals, &e->link);
    blob_store_set_esnap(s->bs, esnap_find, s);
    c->external = e;
    c->to = NULL;
    return 0;
}

static int enter_blob(struct rt_task *t, struct lvol_call *c, const struct blob *b)
{
    struct lvol_external *e;
    struct lvol_info info;
    const void *value;
    uint16_t len;
    bool open;
    int rc = lvol_info_of(c->lvs, b, &info);

    if (rc < 0)
        return err_set(c->why, rc, "the volume cannot be read: %s", err_str(rc));
    rc = blob_esnap_id(b, &value, &len, &open);
    if (rc < 0)
        return c->name == NULL ? 0
                               : err_set(c->why, -EINVAL,
                                         "volume %s stands on no external snapshot", info.name);
    e = find(c->lvs->shared, value, len);
    if (e == NULL && c->to == NULL)
        return say_missing(c, &info);
    if (e == NULL && is_other(value, len, c->to))
        return err_set(c->why, -EINVAL,
                       "volume %s stands on the external snapshot %s; %s is another", info.name,
                       info.external, c->name);
    if (e != NULL && c->to != NULL && e->dev != c->to)
        return err_set(c->why, -EBUSY, "the external snapshot %s is open as %s", info.external,
                       blk_uri(e->dev));
    if (e != NULL) {
        e->refs++;
        c->external = e;
        return 0;
    }
    return enter(t, c, value, len);
}

static int open_home(struct rt_task *t, struct lvol_call *c)
{
    struct blob *b;
    int rc = blob_open(t, c->lvs->bs, c->id, &b);

    if (rc < 0)
        return err_set(c->why, rc, "the volume cannot be opened: %s", err_str(rc));
    rc = enter_blob(t, c, b);
    blob_close(t, b);
    return rc;
}

int lvol_external_open(struct rt_task *t, const struct lvs *lvs, uint64_t id, const char *uri,
                       struct lvol_external **out, struct err *why)
{
    struct lvol_call c = {.fn = open_home, .lvs = lvs, .id = id, .name = uri, .why = why};
    int rc = uri != NULL ? device_open(t, lvs, uri, &c.to, why) : 0;

    if (rc < 0)
        return rc;
    rt_task_shield(t, true);
    rc = lvol_call_naming(t, &c); /* in turn: nobody else enters the same one */
    if (c.to != NULL)
        device_close(t, c.to);
    rt_task_shield(t, false);
    if (rc == 0)
        *out = c.external;
    return rc;
}

static int close_home(struct rt_task *t, void *arg)
{
    struct lvol_external *e = arg;
    struct lvs_shared *s = e->shared;

    if (--e->refs > 0)
        return 0;
    list_del(&e->link);
    if (list_empty(&s->externals))
        blob_store_set_esnap(s->bs, NULL, NULL);
    blk_chan_put(t, e->chan);
    device_close(t, e->dev);
    free(e);
    return 0;
}

void lvol_external_close(struct rt_task *t, struct lvol_external *e)
{
    if (e == NULL)
        return;
    rt_task_shield(t, true);
    while (rt_on(t, e->shared->home, close_home, e) == -ENOMEM)
        (void)rt_sleep(t, NS_PER_MS);
    rt_task_shield(t, false);
}

void lvol_external_abandon(struct lvol_external *e)
{
    if (e == NULL || --e->refs > 0)
        return;
    list_del(&e->link);
    free(e);
}

/* --- a clone ---------------------------------------------------------------------------------- */

static int clone_home(struct rt_task *t, struct lvol_call *c)
{
    const struct blk_info *info = blk_info(c->to);
    uint64_t len = c->len_bytes != 0 ? c->len_bytes : info->nblocks * info->block_bytes;
    char uuid[LVOL_UUID_TEXT];
    struct lvol_naming n;
    size_t uri_len = strlen(c->external_uri) + 1;
    int rc = lvol_naming_begin(t, c, c->name, &n);

    if (rc < 0)
        return rc;
    uuid_text(info->uuid, uuid);
    if (uri_len <= LVOL_EXTERNAL_URI_MAX)
        n.xattrs[n.nxattrs++] =
            (struct blob_xattr){LVOL_EXTERNAL_XATTR, c->external_uri, (uint16_t)uri_len};
    rc = blob_create_esnap_clone(t, c->lvs->bs, uuid, sizeof(uuid), lvol_clusters_of(c->lvs, len),
                                 n.xattrs, n.nxattrs, &c->out_id);
    return lvol_explain(c, "create", c->name, rc);
}

int lvol_clone_external(struct rt_task *t, const struct lvs *lvs, const char *uri, const char *name,
                        uint64_t len_bytes, uint64_t *out_id, struct err *why)
{
    struct lvol_call c = {.fn = clone_home,
                          .lvs = lvs,
                          .name = name,
                          .len_bytes = len_bytes,
                          .external_uri = uri,
                          .why = why};
    int rc = device_open(t, lvs, uri, &c.to, why);

    if (rc < 0)
        return rc;
    rc = lvol_call_naming(t, &c);
    rt_task_shield(t, true);
    device_close(t, c.to);
    rt_task_shield(t, false);
    if (rc == 0)
        *out_id = c.out_id;
    return rc;
}
