/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lvolstores: made and opened. A store without a super blob, or with nothing but a blob that would
 * be one, was left by a crash in the middle of formatting; LVS_OPEN_FORMAT goes on with it.
 */
#include "blob/lvol/internal.h"

#include "blob/format.h"
#include "rt/io.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#define PROBE_BYTES                                                                                \
    (128 * KIB) /* at each end: what other formats leave there, partition tables too */
#define PROBE_PIECE (64 * KIB)

static const uint8_t bstype[16] = "LVOLSTORE";
static const char signature[8] = "SPDKBLOB";

/* --- names and uuids -------------------------------------------------------------------------- */

int lvol_name_check(const char *what, const char *name, struct err *why)
{
    size_t len = strlen(name);

    if (len == 0 || len > LVOL_NAME_MAX)
        return err_set(why, -EINVAL, "the name of a %s has 1 to %d characters, '%.80s' has %zu",
                       what, LVOL_NAME_MAX, name, len);
    for (size_t i = 0; i < len; i++) {
        if ((unsigned char)name[i] < ' ' || name[i] == 0x7f)
            return err_set(why, -EINVAL, "the name of a %s has no control characters", what);
    }
    return 0;
}

static const uint8_t uuid_dashes[] = {8, 13, 18, 23};

void lvol_uuid_make(char out[LVOL_UUID_TEXT])
{
    uint8_t u[16];

    rt_random(u, sizeof(u));
    u[6] = (uint8_t)((u[6] & 0x0f) | 0x40);
    u[8] = (uint8_t)((u[8] & 0x3f) | 0x80);
    snprintf(out, LVOL_UUID_TEXT,
             "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", u[0], u[1],
             u[2], u[3], u[4], u[5], u[6], u[7], u[8], u[9], u[10], u[11], u[12], u[13], u[14],
             u[15]);
}

int lvol_uuid_parse(const char *text, uint8_t out[16])
{
    char hex[32];
    size_t n = 0;

    if (strlen(text) != LVOL_UUID_TEXT - 1)
        return -EINVAL;
    for (size_t i = 0; i < LVOL_UUID_TEXT - 1; i++) {
        bool dash = memchr(uuid_dashes, (int)i, sizeof(uuid_dashes)) != NULL;

        if (dash != (text[i] == '-'))
            return -EINVAL;
        if (!dash)
            hex[n++] = text[i];
    }
    return bytes_from_hex(hex, sizeof(hex), out, 16) == 16 ? 0 : -EINVAL;
}

int lvol_text_get(const struct blob *b, const char *name, char *out, size_t max)
{
    const void *value;
    uint16_t len;
    size_t n;
    int rc = blob_get_xattr(b, name, &value, &len);

    if (rc < 0)
        return rc;
    n = strnlen(value, len);
    if (n == 0 || n >= max || len > 64)
        return -EBADMSG;
    memcpy(out, value, n);
    out[n] = '\0';
    return 0;
}

/* --- what is shared --------------------------------------------------------------------------- */

struct registry {
    pthread_mutex_t lock; /* zeroed is initialised */
    struct list stores;

    /* On reactor 0: one call at a time looks at a device and formats it. */
    bool formatting;
    struct rt_cond formatted;
};

static struct registry *registry_get(void)
{
    static const char key;
    struct registry *reg = rt_local(&key, sizeof(*reg));

    pthread_mutex_lock(&reg->lock);
    if (reg->stores.next == NULL)
        list_init(&reg->stores);
    pthread_mutex_unlock(&reg->lock);
    return reg;
}

static struct lvs_shared *shared_new(struct blob_store *bs)
{
    struct lvs_shared *s = calloc(1, sizeof(*s));

    if (s == NULL)
        return NULL;
    s->bs = bs;
    s->home = blob_store_home(bs);
    pthread_mutex_init(&s->lock, NULL);
    list_init(&s->watches);
    list_init(&s->externals);
    return s;
}

static struct lvs_shared *shared_get(struct blob_store *bs)
{
    struct registry *reg = registry_get();
    struct lvs_shared *s, *found = NULL;

    pthread_mutex_lock(&reg->lock);
    list_for_each (s, &reg->stores, struct lvs_shared, link) {
        if (s->bs == bs)
            found = s;
    }
    if (found == NULL) {
        found = shared_new(bs);
        if (found != NULL)
            list_add_tail(&reg->stores, &found->link);
    }
    if (found != NULL)
        found->refs++;
    pthread_mutex_unlock(&reg->lock);
    return found;
}

static void shared_put(struct lvs_shared *s)
{
    struct registry *reg = registry_get();
    bool last;

    pthread_mutex_lock(&reg->lock);
    last = --s->refs == 0;
    if (last)
        list_del(&s->link);
    pthread_mutex_unlock(&reg->lock);
    if (!last)
        return;
    must(list_empty(&s->watches) && list_empty(&s->externals));
    pthread_mutex_destroy(&s->lock);
    free(s);
}

/* --- the super blob --------------------------------------------------------------------------- */

/* Names and super blob of a blobstore, on its home reactor. */
struct super {
    struct blob_store *bs;
    const char *name;
    struct lvs *lvs;
    struct err *why;
};

static int super_make(struct rt_task *t, void *arg)
{
    struct super *s = arg;
    char uuid[LVOL_UUID_TEXT];
    const struct blob_xattr xattrs[] = {
        {LVOL_UUID_XATTR, uuid, sizeof(uuid)},
        {LVOL_NAME_XATTR, s->name, (uint16_t)(strlen(s->name) + 1)},
    };
    const struct blob_create_opts opts = {.xattrs = xattrs, .nxattrs = ARRAY_LEN(xattrs)};
    uint64_t id;
    int rc;

    lvol_uuid_make(uuid);
    rc = blob_create(t, s->bs, &opts, &id);
    if (rc == 0)
        rc = blob_store_set_super(t, s->bs, id);
    if (rc < 0)
        err_set(s->why, rc, "%s: the super blob cannot be written: %s",
                blk_uri(blob_store_dev(s->bs)), err_str(rc));
    return rc;
}

/* A store that has no super blob: made by a format that did not come to its end? */
static int super_complete(struct rt_task *t, void *arg)
{
    struct super *s = arg;
    uint64_t id, other;
    struct blob *b;
    struct blob_info info;
    int rc = blob_next(t, s->bs, 0, &id);

    if (rc == -ENOENT)
        return super_make(t, arg);
    if (rc < 0)
        return rc;
    if (blob_next(t, s->bs, id + 1, &other) != -ENOENT || blob_open(t, s->bs, id, &b) < 0)
        return -EBADMSG;
    blob_info(b, &info);
    blob_close(t, b);
    return info.clusters == 0 ? blob_store_set_super(t, s->bs, id) : -EBADMSG;
}

static int super_read(struct rt_task *t, struct super *s, uint64_t super_id)
{
    const char *uri = blk_uri(blob_store_dev(s->bs));
    uint8_t uuid[16];
    struct blob *b;
    int rc = blob_open(t, s->bs, super_id, &b);

    if (rc < 0)
        return err_set(s->why, rc == -ENOENT ? -EBADMSG : rc,
                       "%s: the super blob of the lvolstore cannot be opened: %s", uri,
                       err_str(rc));
    rc = lvol_text_get(b, LVOL_UUID_XATTR, s->lvs->uuid, sizeof(s->lvs->uuid));
    if (rc == 0)
        rc = lvol_uuid_parse(s->lvs->uuid, uuid);
    if (rc < 0)
        err_set(s->why, -EBADMSG, "%s: the lvolstore has no valid uuid", uri);
    else if (lvol_text_get(b, LVOL_NAME_XATTR, s->lvs->name, sizeof(s->lvs->name)) < 0)
        rc = err_set(s->why, -EBADMSG, "%s: the lvolstore has no valid name", uri);
    blob_close(t, b);
    return rc < 0 ? -EBADMSG : 0;
}

/* SPDK refuses a store with a blob that has no name; so do we, for it has been made by somebody
 * whose blobs are no volumes. Blobs that cannot be opened are just missing. */
static int names_check(struct rt_task *t, struct super *s, uint64_t super_id)
{
    char name[LVOL_NAME_MAX + 1];
    struct blob *b;
    uint64_t id;
    int rc;

    for (uint64_t from = 0; (rc = blob_next(t, s->bs, from, &id)) == 0; from = id + 1) {
        if (id == super_id || blob_open(t, s->bs, id, &b) < 0)
            continue;
        rc = lvol_text_get(b, LVOL_NAME_XATTR, name, sizeof(name));
        blob_close(t, b);
        if (rc < 0)
            return err_set(s->why, -EBADMSG,
                           "%s: blob 0x%llx has no valid name, so this is no lvolstore "
                           "(`kvasir blob show` tells more)",
                           blk_uri(blob_store_dev(s->bs)), (unsigned long long)id);
    }
    return rc == -ENOENT ? 0 : rc;
}

static int super_load(struct rt_task *t, void *arg)
{
    struct super *s = arg;
    struct blob_store_info info;
    int rc;

    blob_store_info(s->bs, &info);
    if (info.super_blob == BLOB_ID_NONE && s->name != NULL && !info.read_only) {
        rc = super_complete(t, s);
        if (rc < 0 && rc != -EBADMSG)
            return err_set(s->why, rc, "%s: %s", blk_uri(blob_store_dev(s->bs)), err_str(rc));
        blob_store_info(s->bs, &info);
    }
    if (info.super_blob == BLOB_ID_NONE)
        return err_set(s->why, -EBADMSG,
                       "%s: the lvolstore has no super blob: `kvasir lvol init` would begin anew",
                       blk_uri(blob_store_dev(s->bs)));
    rc = super_read(t, s, info.super_blob);
    return rc < 0 ? rc : names_check(t, s, info.super_blob);
}

/* --- format ----------------------------------------------------------------------------------- */

int lvs_format(struct rt_task *t, struct blk_dev *dev, const struct lvs_format_opts *opts,
               struct err *why)
{
    struct blob_format_opts blob = opts != NULL ? opts->blob : (struct blob_format_opts){0};
    struct super s = {.name = opts != NULL && opts->name != NULL ? opts->name : "lvs", .why = why};
    int rc = lvol_name_check("store", s.name, why);

    if (rc < 0)
        return rc;
    memcpy(blob.bstype, bstype, sizeof(bstype));
    rc = blob_format(t, dev, &blob, why);
    if (rc < 0)
        return rc;
    rc = blob_store_open_dev(t, dev, bstype, 0, &s.bs, why);
    if (rc < 0)
        return rc;
    rc = rt_on(t, blob_store_home(s.bs), super_make, &s);
    blob_store_close(t, s.bs);
    return rc;
}

/* Whether [off, off + len) is zero: 1, 0, an errno. */
static int range_empty(struct rt_task *t, struct blk_chan *chan, uint8_t *buf, uint64_t off,
                       uint64_t len)
{
    uint32_t block_bytes = blk_info(blk_chan_dev(chan))->block_bytes;
    uint64_t n;
    int rc;

    for (uint64_t at = off; at < off + len; at += n) {
        n = MIN(off + len - at, PROBE_PIECE);
        rc = blk_read(t, chan, buf, at / block_bytes, (uint32_t)(n / block_bytes));
        if (rc < 0)
            return rc;
        if (!bytes_are_zero(buf, n))
            return 0;
    }
    return 1;
}

int lvs_probe_empty(struct rt_task *t, struct blk_dev *dev)
{
    CLEANUP(free_p) uint8_t *buf = aligned_alloc(4096, PROBE_PIECE);
    const struct blk_info *info = blk_info(dev);
    uint64_t size = info->nblocks * info->block_bytes;
    uint64_t edge = MIN(PROBE_BYTES, size);
    struct blk_chan *chan;
    int rc;

    if (buf == NULL)
        return -ENOMEM;
    rc = blk_chan_get(t, dev, &chan);
    if (rc < 0)
        return rc;
    rc = range_empty(t, chan, buf, 0, edge);
    if (rc == 1)
        rc = range_empty(t, chan, buf, size - edge, edge);
    blk_chan_put(t, chan);
    return rc;
}

/* Whether a blobstore begins there, of whatever kind and in whatever state. */
static int has_signature(struct rt_task *t, struct blk_dev *dev)
{
    uint32_t block_bytes = blk_info(dev)->block_bytes;
    CLEANUP(free_p) uint8_t *buf = aligned_alloc(4096, MAX(block_bytes, 4096u));
    struct blk_chan *chan;
    int rc;

    if (buf == NULL)
        return -ENOMEM;
    rc = blk_chan_get(t, dev, &chan);
    if (rc < 0)
        return rc;
    rc = blk_read(t, chan, buf, 0, 1);
    blk_chan_put(t, chan);
    return rc < 0 ? rc : memcmp(buf, signature, sizeof(signature)) == 0;
}

struct format_call {
    struct blk_dev *dev;
    const struct lvs_format_opts *opts;
    struct err *why;
};

static int format_if_empty(struct rt_task *t, struct format_call *f)
{
    const char *uri = blk_uri(f->dev);
    int rc = has_signature(t, f->dev);

    if (rc > 0)
        return 0;
    if (rc == 0)
        rc = lvs_probe_empty(t, f->dev);
    if (rc == 0)
        return err_set(f->why, -EEXIST,
                       "%s: holds something that is no lvolstore and is left alone; `kvasir lvol "
                       "init --force` would overwrite it",
                       uri);
    if (rc < 0)
        return err_set(f->why, rc, "%s: cannot be read: %s", uri, err_str(rc));
    rc = lvs_format(t, f->dev, f->opts, f->why);
    return rc < 0 ? rc : 1;
}

static int format_turn(struct rt_task *t, void *arg)
{
    struct registry *reg = registry_get();
    int rc;

    while (reg->formatting) {
        rc = rt_cond_wait(t, &reg->formatted);
        if (rc < 0)
            return rc;
    }
    reg->formatting = true;
    rc = format_if_empty(t, arg);
    reg->formatting = false;
    rt_cond_wake_one(&reg->formatted);
    return rc;
}

/* --- open and close --------------------------------------------------------------------------- */

static int open_dev(struct rt_task *t, struct blk_dev *dev, unsigned flags,
                    const struct lvs_format_opts *fopts, struct lvs *out, struct err *why)
{
    struct format_call f = {.dev = dev, .opts = fopts, .why = why};
    struct super s = {.lvs = out, .why = why};
    int rc = 0;

    if (flags & LVS_OPEN_FORMAT) {
        s.name = fopts != NULL && fopts->name != NULL ? fopts->name : "lvs";
        rc = rt_on(t, rt_reactor(0), format_turn, &f);
        if (rc < 0)
            return rc;
    }
    *out = (struct lvs){.formatted = rc > 0};
    rc = blob_store_open_dev(t, dev, bstype, flags & LVS_OPEN_READ_ONLY ? BLOB_OPEN_READ_ONLY : 0,
                             &out->bs, why);
    if (rc < 0)
        return rc;
    s.bs = out->bs;
    rc = rt_on(t, blob_store_home(s.bs), super_load, &s);
    if (rc == 0) {
        out->shared = shared_get(out->bs);
        rc = out->shared == NULL ? err_set(why, -ENOMEM, "%s: out of memory", blk_uri(dev)) : 0;
    }
    if (rc < 0)
        blob_store_close(t, out->bs);
    return rc;
}

int lvs_open(struct rt_task *t, const char *blk_uri, unsigned flags,
             const struct lvs_format_opts *fopts, struct lvs *out, struct err *why)
{
    struct blk_dev *dev;
    int rc;

    if ((flags & LVS_OPEN_FORMAT) && (flags & LVS_OPEN_READ_ONLY))
        return err_set(why, -EINVAL, "%s: a store that is only read cannot be made", blk_uri);
    rc = blk_open(t, blk_uri, &dev, why);
    if (rc < 0)
        return rc;
    rc = open_dev(t, dev, flags, fopts, out, why);
    blk_close(t, dev);
    return rc;
}

void lvs_close(struct rt_task *t, struct lvs *lvs)
{
    struct blob_store *bs = lvs->bs;

    shared_put(lvs->shared);
    *lvs = (struct lvs){0}; /* a crash may come while the store is being closed */
    blob_store_close(t, bs);
}

void lvs_abandon(struct lvs *lvs)
{
    if (lvs->shared != NULL)
        shared_put(lvs->shared);
    *lvs = (struct lvs){0};
}

uint64_t lvol_file_block_bytes(struct rt_task *t, const char *path)
{
    struct blob_super_disk *super = malloc(sizeof(*super));
    int fd = super != NULL ? rt_open(t, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0) : -ENOMEM;
    uint64_t bytes = 0;

    if (fd >= 0) {
        if (rt_pread_all(t, fd, super, sizeof(*super), 0) == 0 &&
            memcmp(super->signature, signature, sizeof(signature)) == 0)
            bytes = le32_get(super->io_unit_bytes);
        rt_close(t, fd);
    }
    free(super);
    return bytes == 512 || bytes == 1024 || bytes == 2048 || bytes == 4096 ? bytes : 0;
}

int lvol_file_uri(const struct lvol_file_opts *o, char *out, size_t max)
{
    size_t len = 0;
    char mark = '?';
    FILE *f = fmemopen(out, max, "w");

    if (f == NULL)
        return -ENOMEM;
    len += (size_t)fprintf(f, "file:");
    if (strncmp(o->path, "//", 2) == 0) /* would be taken for what stands before a host */
        len += (size_t)fprintf(f, "//");
    for (const char *p = o->path; *p != '\0'; p++) {
        bool plain = strchr("%?#", *p) == NULL && (unsigned char)*p >= ' ' && *p != 0x7f;

        len += (size_t)fprintf(f, plain ? "%c" : "%%%02x", (unsigned char)*p);
    }
    if (o->block_bytes != 0) {
        len += (size_t)fprintf(f, "%cblock_size=%lu", mark, o->block_bytes);
        mark = '&';
    }
    if (o->size_bytes != 0) {
        len += (size_t)fprintf(f, "%csize=%lu", mark, o->size_bytes);
        mark = '&';
    }
    if (o->direct != NULL) {
        len += (size_t)fprintf(f, "%cdirect=%s", mark, o->direct);
        mark = '&';
    }
    if (o->readonly)
        len += (size_t)fprintf(f, "%creadonly=yes", mark);
    fclose(f);
    return len < max ? 0 : -ENAMETOOLONG;
}
