/* SPDX-License-Identifier: Apache-2.0 */
#include "kv.h"
#include "own.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define PAGE_BYTES 8192u

struct looker {
    struct rt_task *t;
    struct kv_dev *dev;
    struct kv_chan *chan;
    struct look *l;
    uint8_t *at;
    uint8_t *buf;
    bool no_list; /* it cannot be read: tolerant looks only */
    bool listed[KVM_KEYS + KVM_EXTRA];
    uint64_t nlisted;
};

static int list_all(struct looker *o)
{
    uint8_t last[KV_KEY_MAX];
    struct bytes from = bytes_make("", 0), key;
    bool more = true;

    while (more) {
        struct kv_list_iter it;
        size_t moved;
        int rc = kv_list(o->t, o->chan, from, bytes_make("", 0), from.len > 0 ? KV_F_AFTER : 0,
                         o->buf, PAGE_BYTES, &moved, &more);

        if (rc == -ENOTSUP)
            return o->no_list = true, 0;
        if (rc < 0)
            return o->no_list = true, look_error(o->l, "list", rc);
        it = kv_list_begin(o->buf, moved);
        if (moved == 0 && more)
            return look_bad(o->l, "list gave nothing, and says there is more");
        while (kv_list_next(&it, &key)) {
            int k = kvm_key_find(key);

            if (k < 0)
                return look_bad(o->l, "list has a key of %zu bytes that nobody stored", key.len);
            if (o->listed[k])
                return look_bad(o->l, "list has key %d twice", k);
            if (from.len > 0 && bytes_cmp(key, from) <= 0 &&
                (kv_info(o->dev)->caps & KV_CAP_ORDERED_LIST) != 0)
                return look_bad(o->l, "list has key %d out of order", k);
            o->listed[k] = true;
            o->nlisted++;
            memcpy(last, key.ptr, key.len);
            from = bytes_make(last, key.len);
        }
    }
    return 0;
}

/* The newest state that the key may be in and is. */
static int match(struct looker *o, unsigned k)
{
    const struct kvm_view *v = kvm_view(k);
    uint64_t len = 0;
    int rc = kv_retrieve(o->t, o->chan, kvm_key(k), o->buf, KV_VALUE_MAX, &len);
    uint32_t id = 0;

    if (rc < 0 && rc != -ENOENT && o->l->tolerant) {
        o->l->errors++;
        o->at[k] = (uint8_t)(v->n - 1);
        return 0;
    }
    if (rc < 0 && rc != -ENOENT)
        return look_bad(o->l, "key %u, which should be %s, cannot be read: %d (%s)", k,
                        kvm_text(&v->maybe[v->n - 1].state), rc, strerror(-rc));
    if (!o->no_list && o->listed[k] != (rc == 0))
        return look_bad(o->l, "key %u is %slisted, and a retrieve answers %d", k,
                        o->listed[k] ? "" : "not ", rc);
    for (unsigned i = v->n; i-- > 0;) {
        const struct kvm_state *s = &v->maybe[i].state;

        if (rc == -ENOENT ? !s->there
                          : s->there && kvm_len(s) == len && kvm_is(s, o->buf, 0, len)) {
            o->at[k] = (uint8_t)i;
            return 0;
        }
    }
    memcpy(&id, o->buf + 1, sizeof(id));
    kvm_blamed = k;
    return look_bad(o->l,
                    "key %u is %s, %llu bytes (value %u?); acknowledged: %s; not yet: %u, the last "
                    "%s",
                    k, rc < 0 ? "absent" : "there", (unsigned long long)len, rc < 0 ? 0 : id,
                    kvm_text(&v->maybe[0].state), v->n - 1, kvm_text(&v->maybe[v->n - 1].state));
}

static void found(void *arg, const struct kv_finding *f)
{
    struct look *l = arg;

    if (f->severity == KV_ERROR)
        look_bad(l, "check: %s at %llu: %s", f->structure, (unsigned long long)f->offset, f->text);
}

int kv_look_check(struct rt_task *t, struct kv_dev *dev, struct look *l)
{
    struct kv_check_opts opts = {
        .found = found, .arg = l, .quick = !l->tolerant && dice_below(&l->dice, 4) > 0};
    struct kv_check_report report = {.errors = 0};
    int rc = kv_check(t, dev, &opts, &report);

    if (l->tolerant) {
        l->errors += rc < 0 || report.errors + report.warnings > 0;
        l->why[0] = '\0';
        return 0;
    }
    if (rc < 0)
        return look_bad(l, "check answered %d", rc);
    return report.errors > 0 ? look_bad(l, "check finds errors") : 0;
}

/* The dir driver counts directories of its own, too; hosts are not told. */
static bool counts_keys(const struct kv_dev *dev)
{
    const char *name = kv_driver_of(dev)->name;

    return strcmp(name, "dir") != 0 && strcmp(name, "nvme_tcp") != 0;
}

static int look_all(struct looker *o)
{
    uint64_t used = 0, nkeys = 0;
    char text[200];
    int rc = list_all(o);

    for (unsigned k = 0; rc == 0 && k < KVM_KEYS; k++)
        rc = match(o, k);
    if (rc == 0 && kvm_half(o->at, text, sizeof(text)) >= 0)
        rc = look_bad(o->l, "%s", text);
    if (rc < 0)
        return rc;
    rc = kv_usage(o->t, o->dev, &used, &nkeys);
    if (rc < 0)
        return look_error(o->l, "usage", rc);
    if (o->no_list)
        return 0;
    if (nkeys != o->nlisted && counts_keys(o->dev))
        return look_bad(o->l, "usage says %llu keys, the list has %llu", (unsigned long long)nkeys,
                        (unsigned long long)o->nlisted);
    return 0;
}

int kv_look(struct rt_task *t, struct kv_dev *dev, struct look *l, uint8_t at[KVM_KEYS])
{
    struct looker *o = own_alloc(sizeof(*o));
    int rc;

    must(o != NULL);
    *o = (struct looker){.t = t, .dev = dev, .l = l, .at = at, .buf = own_alloc(KV_VALUE_MAX)};
    must(o->buf != NULL);
    rc = kv_chan_get(t, dev, &o->chan);
    if (rc < 0)
        rc = look_bad(l, "no channel: %d", rc);
    else
        rc = look_all(o);
    if (o->chan != NULL)
        kv_chan_put(t, o->chan);
    own_free(o->buf);
    own_free(o);
    return rc;
}
