/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/dev.h"

#include "cli/key.h"

#include <string.h>

#define HOLDER "kvasir"

/* A driver's name is its scheme with "_" for "+". */
static bool scheme_is(const char *scheme, const char *driver)
{
    for (; *scheme != '\0' && *driver != '\0'; scheme++, driver++) {
        if (*scheme != *driver && !(*scheme == '+' && *driver == '_'))
            return false;
    }
    return *scheme == *driver;
}

unsigned dev_kinds(const char *uri)
{
    static struct uri parsed; /* large; used between two waits */
    struct err why;
    unsigned kinds = 0;

    if (uri_parse(uri, &parsed, &why) < 0)
        return 0;
    for (unsigned i = 0; kv_drivers[i] != NULL; i++)
        kinds |= scheme_is(parsed.scheme, kv_drivers[i]->name) ? DEV_KV : 0;
    for (unsigned i = 0; blk_drivers[i] != NULL; i++)
        kinds |= scheme_is(parsed.scheme, blk_drivers[i]->name) ? DEV_BLK : 0;
    return kinds;
}

static int open_kv(struct rt_task *t, const char *uri, bool writes, struct dev *d, struct err *why)
{
    enum kv_claim claim = writes ? KV_CLAIM_SHARED_WRITE : KV_CLAIM_READ;
    int rc;

    rc = kv_open(t, uri, &d->kv, why);
    if (rc < 0)
        return rc;
    rc = kv_claim(d->kv, claim, HOLDER, why);
    if (rc == 0) {
        rc = kv_chan_get(t, d->kv, &d->kv_chan);
        if (rc == 0) {
            d->kind = DEV_KV;
            return 0;
        }
        kv_unclaim(d->kv, claim, HOLDER);
        err_set(why, rc, "%s", err_str(rc));
    }
    kv_close(t, d->kv);
    return rc;
}

static int open_blk(struct rt_task *t, const char *uri, bool writes, struct dev *d, struct err *why)
{
    enum blk_claim claim = writes ? BLK_CLAIM_SHARED_WRITE : BLK_CLAIM_READ;
    int rc;

    rc = blk_open(t, uri, &d->blk, why);
    if (rc < 0)
        return rc;
    rc = blk_claim(d->blk, claim, HOLDER, why);
    if (rc == 0) {
        rc = blk_chan_get(t, d->blk, &d->blk_chan);
        if (rc == 0) {
            d->kind = DEV_BLK;
            return 0;
        }
        blk_unclaim(d->blk, claim, HOLDER);
        err_set(why, rc, "%s", err_str(rc));
    }
    blk_close(t, d->blk);
    return rc;
}

/* Adds " scheme:" to a list that does not have it yet. */
static void add_scheme(char *list, size_t max, const char *driver)
{
    char scheme[40];
    size_t used = strlen(list);

    snprintf(scheme, sizeof(scheme), " %s:", driver);
    for (char *p = scheme; *p != '\0'; p++)
        *p = *p == '_' ? '+' : *p;
    if (strstr(list, scheme) == NULL)
        snprintf(list + used, max - used, "%s", scheme);
}

/* No driver for what the verb wants: says which there are. */
static int no_driver(struct cli *c, const char *uri, unsigned have, unsigned want)
{
    char list[256] = "";

    if (have != 0)
        return cli_fail(c, -EINVAL, "'%s' is a %s; this verb is for %s", uri,
                        have == DEV_KV ? "key-value device" : "block device",
                        want == DEV_KV ? "key-value devices (read and write move blocks)"
                                       : "block devices (put and get move values)");
    for (unsigned i = 0; (want & DEV_KV) && kv_drivers[i] != NULL; i++)
        add_scheme(list, sizeof(list), kv_drivers[i]->name);
    for (unsigned i = 0; (want & DEV_BLK) && blk_drivers[i] != NULL; i++)
        add_scheme(list, sizeof(list), blk_drivers[i]->name);
    return cli_fail(c, -EINVAL, "'%s' is no device; its URI begins with one of%s", uri, list);
}

static const char *advice(int rc)
{
    switch (cli_exit_of(rc)) {
    case CLI_EXIT_CONNECTION:
    case CLI_EXIT_TIMEOUT:
        return " (is the daemon running there? `kvasir discover HOST:PORT` lists what it offers)";
    case CLI_EXIT_PERMISSION:
        return " (who may use it? permissions of files, or the hosts that the subsystem allows)";
    default:
        return "";
    }
}

/* What a KV driver says of a namespace that is another thing; the initial -EINVAL too. */
static bool may_be_blocks(int rc)
{
    return rc == -EINVAL || rc == -ENOTSUP || rc == -ENOENT;
}

int dev_open(struct rt_task *t, struct cli *c, const char *uri, unsigned kinds, bool writes,
             struct dev *out)
{
    unsigned have = dev_kinds(uri);
    struct err why = {""}, why_blk = {""};
    int rc = -EINVAL;

    *out = (struct dev){.uri = uri, .writes = writes};
    if ((have & kinds) == 0)
        return no_driver(c, uri, have, kinds);
    if (have & kinds & DEV_KV)
        rc = open_kv(t, uri, writes, out, &why);
    if (rc < 0 && may_be_blocks(rc) && (have & kinds & DEV_BLK)) {
        bool second = (have & kinds & DEV_KV) != 0;
        int blk_rc = open_blk(t, uri, writes, out, second ? &why_blk : &why);

        if (!second || blk_rc == 0)
            rc = blk_rc;
    }
    if (rc < 0)
        return cli_fail(c, rc, "cannot open %s: %s%s", uri,
                        why.text[0] != '\0' ? why.text : err_str(rc), advice(rc));
    return 0;
}

void dev_close(struct rt_task *t, struct dev *d)
{
    rt_task_shield(t, true);
    if (d->kind == DEV_KV) {
        kv_chan_put(t, d->kv_chan);
        kv_unclaim(d->kv, d->writes ? KV_CLAIM_SHARED_WRITE : KV_CLAIM_READ, HOLDER);
        kv_close(t, d->kv);
    } else if (d->kind == DEV_BLK) {
        blk_chan_put(t, d->blk_chan);
        blk_unclaim(d->blk, d->writes ? BLK_CLAIM_SHARED_WRITE : BLK_CLAIM_READ, HOLDER);
        blk_close(t, d->blk);
    }
    rt_task_shield(t, false);
    d->kind = DEV_NONE;
}

/* What a refusal of a key or value means here, beyond its errno. */
static void explain(const struct dev *d, size_t key_len, int rc, char *out, size_t max)
{
    const struct kv_info *info = kv_info(d->kv);
    char size[CLI_SIZE_TEXT];

    out[0] = '\0';
    switch (rc) {
    case -ENOENT:
        snprintf(out, max, " (`kvasir ls %.200s` lists the keys)", d->uri);
        break;
    case -ENAMETOOLONG:
        snprintf(out, max, " (it has %zu bytes, the device takes 1 to %u%s)", key_len,
                 info->key_max, info->key_max == 16 ? ", as NVMe key-value namespaces do" : "");
        break;
    case -EFBIG:
        snprintf(out, max, " (the device takes up to %s)", cli_size_text(info->val_max, size));
        break;
    case -EROFS:
        snprintf(out, max, " (the device, or how it was opened, allows no change)");
        break;
    case -EBADMSG:
        snprintf(out, max, " (what is stored does not match its checksum: restore it from a copy)");
        break;
    case -ENOSPC:
        snprintf(out, max, " (it is unchanged; `kvasir rm` makes room)");
        break;
    default:
        break;
    }
}

int dev_kv_fail(struct cli *c, const struct dev *d, const char *what, struct bytes key, int rc,
                const char *text)
{
    static char name[CLI_KEY_TEXT_MAX]; /* one at a time: no wait in here */
    char more[320];

    explain(d, key.len, rc, more, sizeof(more));
    return cli_fail(c, rc, "cannot %s '%.300s' in %s: %s%s", what, cli_key_text(key, name), d->uri,
                    text != NULL && text[0] != '\0' ? text : err_str(rc), more);
}

int dev_list_fail(struct cli *c, const struct dev *d, int rc)
{
    return rc == -ECANCELED
               ? rc
               : cli_fail(c, rc, "cannot list the keys of %s: %s", d->uri, err_str(rc));
}

int dev_blk_fail(struct cli *c, const struct dev *d, const char *what, uint64_t off, uint64_t len,
                 int rc)
{
    return cli_fail(c, rc, "cannot %s %lu bytes at byte %lu of %s: %s", what, len, off, d->uri,
                    err_str(rc));
}
