/* SPDX-License-Identifier: Apache-2.0 */
/* The key-value engine as a subject: mixed operations of several workers, cut anywhere. */
#include "blobs.h"
#include "kv.h"
#include "own.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define OPS 950 /* of each worker */
#define CHURN_OPS 400
#define TROUBLE_OPS 25
#define TROUBLE_CHURN_OPS 60
#define EXTRA_ID 8000000u
#define EXTRA_MAX (96 * KIB)

static struct {
    char uri[400];
    unsigned shards;
    bool churn;
} subject = {.uri = KV_SUBJECT_URI, .shards = 1};
const char *kv_subject_uri = subject.uri;

static void subject_changed(void)
{
    snprintf(subject.uri, sizeof(subject.uri),
             "blob:" DISK_PATH "?block_size=512&segment=256K&memory=%uM&checkpoint=%uM",
             subject.shards > 1 ? 16u : 4u, subject.churn ? 8u : 1u);
    snprintf(walk_more, sizeof(walk_more), "%s", subject.churn ? "--churn " : "");
    if (subject.shards > 1) {
        size_t used = strlen(subject.uri), said = strlen(walk_more);

        snprintf(subject.uri + used, sizeof(subject.uri) - used, "&shards=%u", subject.shards);
        snprintf(walk_more + said, sizeof(walk_more) - said, "--shards %u ", subject.shards);
    }
}

void kv_subject_shards(unsigned n)
{
    subject.shards = n;
    kvm_any_order = n > 1;
    subject_changed();
}

void kv_subject_churn(void)
{
    subject.churn = true;
    subject_changed();
}

void kv_subject_opts(const char *params)
{
    size_t used = strlen(subject.uri), said = strlen(walk_more);

    snprintf(subject.uri + used, sizeof(subject.uri) - used, "&%s", params);
    snprintf(walk_more + said, sizeof(walk_more) - said, "--opts '%s' ", params);
}

static struct kvm_state seen[KVM_KEYS]; /* by the look before this one */

static int open_kv(struct rt_task *t, struct kv_dev **out, struct err *why)
{
    int rc = kv_open(t, kv_subject_uri, out, why);

    if (rc < 0)
        printf("crash: kv: %s\n", why->text);
    return rc;
}

static int format(struct rt_task *t, void *arg)
{
    struct err why = {""};
    struct kv_dev *dev;
    int rc = open_kv(t, &dev, &why);

    (void)arg;
    if (rc == 0) {
        kv_close(t, dev);
        blobs_find_metadata();
    }
    return rc;
}

static int work(struct rt_task *t, void *arg)
{
    struct kv_work w = {.seed = *(uint64_t *)arg,
                        .ops = subject.churn ? CHURN_OPS : OPS,
                        .churn = subject.churn,
                        .pauses = true};
    struct err why = {""};
    struct kv_dev *dev;
    int rc;

    disk.sparse = w.seed % 2 == 1; /* the engine writes zeroes ahead then */
    rc = open_kv(t, &dev, &why);
    if (rc < 0)
        return rc;
    kv_work_reset((kv_info(dev)->caps & KV_CAP_VOLATILE_CACHE) == 0);
    rc = kv_work(t, dev, &w);
    if (rc < 0)
        printf("crash: kv: %s\n", w.why);
    else if (w.refused > 0)
        printf("crash: kv: %llu of %llu operations found the store full\n",
               (unsigned long long)w.refused, (unsigned long long)w.done);
    kv_close(t, dev);
    return rc;
}

/* Things fail: some may keep the store from being opened, or closed. */
static int trouble(struct rt_task *t, void *arg)
{
    struct kv_work w = {.seed = *(uint64_t *)arg,
                        .ops = subject.churn ? TROUBLE_CHURN_OPS : TROUBLE_OPS,
                        .faulty = true,
                        .churn = subject.churn};
    struct err why = {""};
    struct kv_dev *dev;
    int rc;

    kv_work_reset(true);
    if (kv_open(t, kv_subject_uri, &dev, &why) < 0)
        return 0;
    kv_work_reset((kv_info(dev)->caps & KV_CAP_VOLATILE_CACHE) == 0);
    rc = kv_work(t, dev, &w);
    if (rc < 0)
        printf("crash: kv: %s\n", w.why);
    kv_close(t, dev);
    return rc;
}

/* --- going on --------------------------------------------------------------------------------- */

/* Extra key e and what it holds in the end: some are deleted, some stored twice. */
static bool extra_stays(unsigned e)
{
    return e % 4 != 3;
}

static struct kvm_state extra_state(unsigned e, bool last)
{
    uint32_t len = e == 0 ? EXTRA_MAX : 50 + e * e * 97;

    return (struct kvm_state){.there = true, .n = 1, .piece = {{EXTRA_ID + 2 * e + last, len}}};
}

static int store_extra(struct rt_task *t, struct kv_chan *chan, unsigned e, bool last, uint8_t *buf)
{
    struct kvm_state s = extra_state(e, last);

    kvm_fill(buf, s.piece[0].id, 0, s.piece[0].len);
    return kv_store(t, chan, kvm_key(KVM_KEYS + e), bytes_make(buf, s.piece[0].len), 0);
}

static int go_on(struct rt_task *t, struct kv_chan *chan, struct look *l, uint8_t *buf)
{
    int rc = 0;

    for (unsigned e = 0; rc == 0 && e < KVM_EXTRA; e++)
        rc = store_extra(t, chan, e, e % 2 == 0, buf);
    for (unsigned e = 1; rc == 0 && e < KVM_EXTRA; e += 2)
        rc = extra_stays(e) ? store_extra(t, chan, e, true, buf)
                            : kv_delete(t, chan, kvm_key(KVM_KEYS + e));
    return rc < 0 && rc != -ENOSPC
               ? look_bad(l, "going on: a change answered %d (%s)", rc, strerror(-rc))
               : rc;
}

static int look_extra(struct rt_task *t, struct kv_chan *chan, struct look *l, uint8_t *buf)
{
    for (unsigned e = 0; e < KVM_EXTRA; e++) {
        struct kvm_state s = extra_state(e, true);
        uint64_t len = 0;
        int rc = kv_retrieve(t, chan, kvm_key(KVM_KEYS + e), buf, EXTRA_MAX, &len);

        if (rc != (extra_stays(e) ? 0 : -ENOENT))
            return look_bad(l, "going on: key x%u answers %d", e, rc);
        if (rc == 0 && (len != kvm_len(&s) || !kvm_is(&s, buf, 0, len)))
            return look_bad(l, "going on: key x%u has %llu bytes of another value", e,
                            (unsigned long long)len);
    }
    return 0;
}

static int with_extra(struct rt_task *t, struct kv_dev *dev, struct look *l)
{
    static bool full;
    uint8_t *buf = own_alloc(EXTRA_MAX);
    struct kv_chan *chan;
    int rc = kv_chan_get(t, dev, &chan);

    must(buf != NULL && rc == 0);
    if (l->go_on) {
        rc = go_on(t, chan, l, buf);
        full = rc == -ENOSPC;
    }
    if (rc == 0 && !full)
        rc = look_extra(t, chan, l, buf);
    kv_chan_put(t, chan);
    own_free(buf);
    return rc == -ENOSPC ? 0 : rc;
}

static int compare_seen(struct look *l, const uint8_t *at, bool first)
{
    for (unsigned k = 0; k < KVM_KEYS; k++) {
        const struct kvm_state *s = &kvm_view(k)->maybe[at[k]].state;

        if (first)
            seen[k] = *s;
        else if (!kvm_state_eq(&seen[k], s))
            return look_bad(l, "key %u was %s before, and is %s now", k, kvm_text(&seen[k]),
                            kvm_text(s));
    }
    return 0;
}

/* Opens the store for reading only, which writes nothing and collects nothing, and checks it. */
static int look_inside(struct rt_task *t, struct look *l)
{
    struct err why = {""};
    struct kv_dev *dev;
    char uri[400];
    int rc;

    snprintf(uri, sizeof(uri), "%s&readonly=yes", kv_subject_uri);
    rc = kv_open(t, uri, &dev, &why);
    if (rc < 0)
        return l->tolerant ? look_error(l, why.text, rc)
                           : look_bad(l, "cannot be opened to be read: %d %s", rc, why.text);
    rc = kv_look_check(t, dev, l);
    if (rc == 0)
        kv_close(t, dev);
    return rc;
}

static int look(struct rt_task *t, void *arg)
{
    uint8_t at[KVM_KEYS];
    struct look *l = arg;
    struct err why = {""};
    struct kv_dev *dev;
    int rc = dice_one_in(&l->dice, 8) ? blobs_check(t, l) : 0;

    if (rc == 0 && (l->tolerant || dice_one_in(&l->dice, 2)))
        rc = look_inside(t, l);
    if (rc < 0)
        return rc;
    rc = kv_open(t, kv_subject_uri, &dev, &why);
    if (rc < 0)
        return l->tolerant ? look_error(l, why.text, rc)
                           : look_bad(l, "cannot be opened: %d %s", rc, why.text);
    rc = kv_look(t, dev, l, at);
    if (rc == 0)
        rc = compare_seen(l, at, !l->after);
    if (rc == 0 && (l->go_on || l->after))
        rc = with_extra(t, dev, l);
    if (rc == 0 && l->go_on) {
        rc = kv_look(t, dev, l, at);
        if (rc == 0)
            rc = compare_seen(l, at, false);
    }
    if (rc == 0 && l->close)
        kv_close(t, dev);
    return rc;
}

static void show(void)
{
    kvm_show(kvm_blamed);
}

const struct subject subject_kv = {
    .name = "kv",
    .disk_bytes = KV_DISK_BYTES,
    .block_bytes = 512,
    .format = format,
    .work = work,
    .trouble = trouble,
    .model_begin = kvm_begin,
    .model_to = kvm_to,
    .look = look,
    .show = show,
};
