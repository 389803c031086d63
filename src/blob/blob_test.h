/* SPDX-License-Identifier: Apache-2.0 */
/* What the unit tests of src/blob share: a store on a mem device that outlives it. */
#ifndef KVASIR_BLOB_BLOB_TEST_H
#define KVASIR_BLOB_BLOB_TEST_H

#include "blk/blk_test.h"
#include "blob/check.h"
#include "blob/internal.h"

#define TEST_CLUSTER 65536u

struct rig {
    const char *uri;
    struct blk_dev *dev; /* held, so that its content stays */
    struct blk_chan *blk;
    struct blob_store *bs;
    struct blob_chan *chan;
};

static inline int rig_store(struct rt_task *t, struct rig *r, unsigned flags)
{
    struct err why = {""};
    int rc = blob_store_open(t, r->uri, NULL, flags, &r->bs, &why);

    if (rc < 0) {
        fprintf(stderr, "%s\n", why.text);
        return rc;
    }
    return blob_chan_get(t, r->bs, &r->chan);
}

static inline void rig_store_close(struct rt_task *t, struct rig *r)
{
    blob_chan_put(t, r->chan);
    blob_store_close(t, r->bs);
    r->bs = NULL;
}

static inline int rig_open(struct rt_task *t, struct rig *r, const struct blob_format_opts *opts)
{
    struct err why = {""};
    int rc = blk_open(t, r->uri, &r->dev, &why);

    if (rc == 0)
        rc = blk_chan_get(t, r->dev, &r->blk);
    if (rc == 0)
        rc = blob_format(t, r->dev, opts, &why);
    if (rc == 0)
        return rig_store(t, r, 0);
    fprintf(stderr, "%s\n", why.text);
    return rc;
}

static inline void rig_close(struct rt_task *t, struct rig *r)
{
    if (r->bs != NULL)
        rig_store_close(t, r);
    blk_chan_put(t, r->blk);
    blk_close(t, r->dev);
}

static inline void rig_found(void *arg, const struct blob_check_finding *f)
{
    if (f->severity != BLOB_CHECK_NOTE)
        fprintf(stderr, "check: %s %s: %s\n", blob_check_severity_name(f->severity), f->structure,
                f->text);
}

/* What the checker says of the bytes: errors and warnings. */
static inline int rig_check(struct rt_task *t, struct rig *r)
{
    struct blob_check_opts opts = {.found = rig_found};
    struct blob_check_report rep;
    int rc = blob_check(t, r->blk, &opts, &rep);

    if (rc < 0)
        return rc;
    return (int)(rep.errors + rep.warnings);
}

#endif
