/* SPDX-License-Identifier: Apache-2.0 */
/* Trees of files as keys: put -r and get -r. Several values at a time, each in its own lane. */
#include "cli/tree.h"

#include "cli/file.h"
#include "cli/keys.h"
#include "cli/lanes.h"
#include "rt/io.h"

#include <fts.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

#define BATCH 64

/* The sums of both directions. */
struct tree_sums {
    struct cli_progress progress;
    uint64_t files;
    uint64_t failed;
    int first_rc; /* of those that failed and did not stop us */
};

static int report(struct cli *c, struct tree_sums *s, const char *verb)
{
    char rate[CLI_RATE_TEXT];
    double secs = (double)cli_progress_ns(&s->progress) / (double)NS_PER_S;

    cli_progress_stop(&s->progress);
    if (c->json)
        cli_json(c,
                 json_pack("{s:I, s:I, s:I, s:f, s:f}", "files", (json_int_t)s->files, "bytes",
                           (json_int_t)s->progress.done_bytes, "failed", (json_int_t)s->failed,
                           "seconds", secs, "bytes_per_s", (double)s->progress.done_bytes / secs));
    else
        cli_note(c, "%s %lu files, %s", verb, s->files, cli_rate_text(&s->progress, rate));
    return s->first_rc;
}

/* Counts a value that is through. */
static void one_done(struct cli *c, struct tree_sums *s, struct bytes key, uint64_t bytes)
{
    s->files++;
    s->progress.items = s->files;
    if (c->json) {
        json_t *obj = json_object();

        cli_key_json(obj, key);
        json_object_set_new(obj, "bytes", json_integer((json_int_t)bytes));
        cli_json(c, obj);
    }
}

/* After a failure that the user has been told: 0 to go on. */
static int one_failed(struct tree_sums *s, bool keep_going, int rc)
{
    s->failed++;
    if (s->first_rc == 0)
        s->first_rc = rc;
    return keep_going && rc != -ECANCELED && rc != -ENODEV ? 0 : rc;
}

/* PREFIX and the slash that joins it to paths. */
static void join_prefix(struct bytes prefix, struct cli_key *out)
{
    memcpy(out->data, prefix.ptr, prefix.len);
    out->len = prefix.len;
    if (out->len > 0 && out->len < CLI_KEY_MAX && out->data[out->len - 1] != '/')
        out->data[out->len++] = '/';
}

const char *tree_path_wrong(struct bytes rel)
{
    size_t begin = 0;

    if (rel.len == 0)
        return "nothing follows the prefix";
    if (rel.ptr[0] == '/')
        return "it would be an absolute path";
    if (memchr(rel.ptr, '\0', rel.len) != NULL)
        return "it has a zero byte";
    for (size_t i = 0; i <= rel.len; i++) {
        struct bytes part;

        if (i < rel.len && rel.ptr[i] != '/')
            continue;
        part = bytes_make(rel.ptr + begin, i - begin);
        if (part.len == 0)
            return "a part of the path is empty";
        if (bytes_eq(part, bytes_of_str(".")) || bytes_eq(part, bytes_of_str("..")))
            return "\".\" and \"..\" are no names";
        if (part.len > NAME_MAX)
            return "a part of the path is longer than 255 bytes";
        begin = i + 1;
    }
    return NULL;
}

/* --- put -------------------------------------------------------------------------------------- */

/* Regular files below a directory, found in batches by the offload pool. */
struct walk {
    FTS *fts;
    size_t root_len;
    char *rel[BATCH];
    unsigned count, at;
    bool ended, busy;
    struct rt_cond idle;
    uint64_t left_out;
    size_t key_max, prefix_len; /* counting those that are too long */
    uint64_t seen, too_long;
    char *first_too_long;
    char failed[PATH_MAX];
};

static int walk_open(struct walk *w, const char *dir)
{
    char *roots[] = {(char *)dir, NULL};

    w->fts = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
    if (w->fts == NULL)
        return -errno;
    w->root_len = strlen(dir);
    while (w->root_len > 1 && dir[w->root_len - 1] == '/')
        w->root_len--;
    w->ended = false;
    return 0;
}

static void walk_close(struct walk *w)
{
    for (; w->at < w->count; w->at++)
        free(w->rel[w->at]);
    if (w->fts != NULL)
        fts_close(w->fts);
    w->fts = NULL;
    free(take_ptr(&w->first_too_long));
}

static int walk_fail(struct walk *w, const char *path, int rc)
{
    snprintf(w->failed, sizeof(w->failed), "%s", path);
    return rc;
}

/* The next regular file's path below the root into *out; NULL at the end. */
static int walk_step(struct walk *w, const char **out)
{
    FTSENT *e;

    *out = NULL;
    while ((e = fts_read(w->fts)) != NULL) {
        switch (e->fts_info) {
        case FTS_F:
            if (e->fts_level == 0)
                return walk_fail(w, e->fts_path, -ENOTDIR);
            *out = e->fts_path + w->root_len;
            while (**out == '/')
                ++*out;
            return 0;
        case FTS_NS:
        case FTS_ERR:
        case FTS_DNR:
            return walk_fail(w, e->fts_path, -e->fts_errno);
        case FTS_SL:
        case FTS_SLNONE:
        case FTS_DEFAULT:
            w->left_out++;
            break;
        default:
            break;
        }
    }
    return 0;
}

static int walk_batch_fn(void *arg)
{
    struct walk *w = arg;
    const char *rel;
    int rc;

    w->count = w->at = 0;
    while (w->count < BATCH) {
        rc = walk_step(w, &rel);
        if (rc < 0)
            return rc;
        if (rel == NULL) {
            w->ended = true;
            return 0;
        }
        w->rel[w->count] = strdup(rel);
        if (w->rel[w->count] == NULL)
            return -ENOMEM;
        w->count++;
    }
    return 0;
}

/* Looks at all names before anything is stored: whether they fit the device's keys. */
static int walk_check_fn(void *arg)
{
    struct walk *w = arg;
    const char *rel;
    int rc;

    while ((rc = walk_step(w, &rel)) == 0 && rel != NULL) {
        w->seen++;
        if (w->prefix_len + strlen(rel) <= w->key_max)
            continue;
        w->too_long++;
        if (w->first_too_long == NULL)
            w->first_too_long = strdup(rel);
    }
    return rc;
}

/* 1 and a path that the caller frees; 0 at the end. */
static int walk_next(struct rt_task *t, struct walk *w, char **out)
{
    int rc = 0;

    for (;;) {
        while (w->busy && rc == 0)
            rc = rt_cond_wait(t, &w->idle);
        if (rc < 0)
            return rc;
        if (w->at < w->count) {
            *out = take_ptr(&w->rel[w->at]);
            w->at++;
            return 1;
        }
        if (w->ended)
            return 0;
        w->busy = true;
        rc = rt_offload(t, walk_batch_fn, w);
        w->busy = false;
        rt_cond_wake_all(&w->idle);
        if (rc < 0)
            return rc;
    }
}

struct put_run {
    struct tree_put *job;
    struct tree_sums sums;
    struct walk walk;
    struct cli_key prefix;
};

/* One lane's own things. */
struct put_lane {
    struct xfer *x;
    struct cli_key key;
    char path[PATH_MAX];
};

static int put_file(struct rt_task *t, struct put_run *run, struct put_lane *l, const char *rel)
{
    CLEANUP(cli_file_close_p) struct cli_file in = CLI_FILE_CLOSED;
    struct tree_put *job = run->job;
    struct xfer_store st = {.flags = job->flags | KV_F_NO_VERSION};
    struct cli_file_source src;
    struct err why = {""};
    int rc;

    snprintf(l->path, sizeof(l->path), "%s/%s", job->dir, rel);
    l->key = run->prefix;
    if (l->key.len + strlen(rel) > CLI_KEY_MAX) {
        rc = cli_fail(job->c, -ENAMETOOLONG, "'%s' is longer than any key can be (%u bytes)",
                      l->path, CLI_KEY_MAX);
        return one_failed(&run->sums, job->keep_going, rc);
    }
    memcpy(l->key.data + l->key.len, rel, strlen(rel));
    l->key.len += strlen(rel);
    rc = cli_file_open(t, l->path, &in, &why);
    if (rc < 0) {
        cli_fail(job->c, rc, "%s", why.text);
        return one_failed(&run->sums, job->keep_going, rc);
    }
    st.key = cli_key_bytes(&l->key);
    st.len = in.size_bytes;
    src = cli_file_source(&in, &run->sums.progress);
    rc = xfer_store(t, l->x, job->dev.kv_chan, &st, &src.source, &why);
    if (rc < 0) {
        dev_kv_fail(job->c, &job->dev, "store", st.key, rc, why.text);
        return one_failed(&run->sums, job->keep_going, rc);
    }
    one_done(job->c, &run->sums, st.key, st.moved);
    return cli_flush(t, job->c, false);
}

static int put_lane(struct rt_task *t, void *arg, unsigned lane)
{
    struct put_run *run = arg;
    CLEANUP(free_p) struct put_lane *l = calloc(1, sizeof(*l));
    int rc;

    if (l == NULL || (l->x = xfer_new(XFER_LANE_BYTES)) == NULL)
        return -ENOMEM;
    for (;;) {
        CLEANUP(free_p) char *rel = NULL;

        rc = walk_next(t, &run->walk, &rel);
        if (rc < 0 && rc != -ECANCELED)
            cli_fail(run->job->c, rc, "cannot read '%s': %s",
                     run->walk.failed[0] != '\0' ? run->walk.failed : run->job->dir, err_str(rc));
        if (rc > 0)
            rc = put_file(t, run, l, rel);
        else
            break;
        if (rc < 0)
            break;
    }
    xfer_free(l->x);
    return rc;
}

static int put_check(struct rt_task *t, struct put_run *run)
{
    struct tree_put *job = run->job;
    struct walk *w = &run->walk;
    int rc;

    w->key_max = kv_info(job->dev.kv)->key_max;
    w->prefix_len = run->prefix.len;
    rc = walk_open(w, job->dir);
    if (rc == 0)
        rc = rt_offload(t, walk_check_fn, w);
    if (rc < 0)
        rc = cli_fail(job->c, rc, "cannot read '%s': %s",
                      w->failed[0] != '\0' ? w->failed : job->dir, err_str(rc));
    else if (w->too_long > 0 && !job->keep_going)
        rc = cli_fail(job->c, -ENAMETOOLONG,
                      "%lu of %lu paths below '%s' are longer than the keys of %s, which have up "
                      "to %zu bytes%s (the first: '%s', %zu bytes): nothing was stored. Use a "
                      "device with longer keys, shorter names, or --keep-going for those that fit",
                      w->too_long, w->seen, job->dir, job->dev.uri, w->key_max,
                      w->key_max == 16 ? ", as those of NVMe key-value namespaces" : "",
                      w->first_too_long, w->prefix_len + strlen(w->first_too_long));
    walk_close(w);
    return rc;
}

int tree_put(struct rt_task *t, struct tree_put *job)
{
    CLEANUP(free_p) struct put_run *run = calloc(1, sizeof(*run));
    int rc;

    if (run == NULL)
        return cli_fail(job->c, -ENOMEM, "no memory");
    run->job = job;
    join_prefix(job->prefix, &run->prefix);
    rc = put_check(t, run);
    if (rc < 0)
        return rc;
    run->walk.left_out = 0;
    rc = walk_open(&run->walk, job->dir);
    if (rc < 0)
        return cli_fail(job->c, rc, "cannot read '%s': %s", job->dir, err_str(rc));
    cli_progress_start(&run->sums.progress, job->c, job->dir, 0);
    rc = lanes_run(t, MIN(MAX(job->jobs, 1u), LANES_MAX), put_lane, run);
    walk_close(&run->walk);
    cli_progress_stop(&run->sums.progress);
    if (run->walk.left_out > 0)
        cli_note(job->c, "left out %lu symbolic links and special files", run->walk.left_out);
    return rc < 0 ? rc : report(job->c, &run->sums, "stored");
}

/* --- get -------------------------------------------------------------------------------------- */

struct get_run {
    struct tree_get *job;
    struct tree_sums sums;
    struct keys *keys;
    struct cli_key prefix;
    int rootfd;
};

struct get_lane {
    struct xfer *x;
    struct cli_key key;
    char rel[CLI_KEY_MAX + 1];
    char text[CLI_KEY_TEXT_MAX];
};

static int get_file(struct rt_task *t, struct get_run *run, struct get_lane *l)
{
    CLEANUP(cli_file_close_p) struct cli_file out = CLI_FILE_CLOSED;
    struct tree_get *job = run->job;
    struct xfer_retrieve re = {
        .key = cli_key_bytes(&l->key), .flags = KV_F_NO_VERSION, .len = UINT64_MAX};
    struct bytes rel = bytes_make(l->key.data + run->prefix.len, l->key.len - run->prefix.len);
    struct cli_file_sink sink;
    const char *wrong = tree_path_wrong(rel);
    struct err why = {""};
    int rc;

    if (wrong != NULL) {
        rc = cli_fail(job->c, -EACCES, "key '%.300s' is refused as a file's name: %s",
                      cli_key_text(re.key, l->text), wrong);
        return one_failed(&run->sums, true, rc);
    }
    memcpy(l->rel, rel.ptr, rel.len);
    l->rel[rel.len] = '\0';
    rc = cli_file_create_below(t, run->rootfd, l->rel, &out, &why);
    if (rc < 0) {
        cli_fail(job->c, rc, "%s", why.text);
        return one_failed(&run->sums, job->keep_going, rc);
    }
    sink = cli_file_sink(&out, &run->sums.progress);
    rc = xfer_retrieve(t, l->x, job->dev.kv_chan, &re, &sink.sink, &why);
    if (rc < 0) {
        dev_kv_fail(job->c, &job->dev, "retrieve", re.key, rc, why.text);
        return one_failed(&run->sums, job->keep_going, rc);
    }
    rc = cli_file_commit(t, &out, &why);
    if (rc < 0) {
        cli_fail(job->c, rc, "%s", why.text);
        return one_failed(&run->sums, job->keep_going, rc);
    }
    one_done(job->c, &run->sums, re.key, re.moved);
    return cli_flush(t, job->c, false);
}

static int get_lane(struct rt_task *t, void *arg, unsigned lane)
{
    struct get_run *run = arg;
    CLEANUP(free_p) struct get_lane *l = calloc(1, sizeof(*l));
    int rc;

    if (l == NULL || (l->x = xfer_new(XFER_LANE_BYTES)) == NULL)
        return -ENOMEM;
    while ((rc = keys_next(t, run->keys, &l->key)) > 0) {
        rc = get_file(t, run, l);
        if (rc < 0)
            goto out;
    }
    if (rc < 0)
        dev_list_fail(run->job->c, &run->job->dev, rc);
out:
    xfer_free(l->x);
    return rc;
}

static int open_root(struct rt_task *t, const char *dir)
{
    int rc = rt_mkdir_all(t, dir, 0777, false);
    int fd;

    if (rc < 0)
        return rc;
    fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

int tree_get(struct rt_task *t, struct tree_get *job)
{
    CLEANUP(free_p) struct get_run *run = calloc(1, sizeof(*run));
    int rc;

    if (run == NULL)
        return cli_fail(job->c, -ENOMEM, "no memory");
    run->job = job;
    join_prefix(job->prefix, &run->prefix);
    run->rootfd = open_root(t, job->dir);
    if (run->rootfd < 0)
        return cli_fail(job->c, run->rootfd, "cannot make or open directory '%s': %s", job->dir,
                        err_str(run->rootfd));
    run->keys = keys_new(job->dev.kv_chan, cli_key_bytes(&run->prefix), NULL);
    cli_progress_start(&run->sums.progress, job->c, job->dir, 0);
    rc = run->keys == NULL ? -ENOMEM
                           : lanes_run(t, MIN(MAX(job->jobs, 1u), LANES_MAX), get_lane, run);
    keys_free(run->keys);
    close(run->rootfd);
    cli_progress_stop(&run->sums.progress);
    if (rc < 0)
        return rc;
    if (run->sums.files + run->sums.failed == 0 && job->prefix.len > 0)
        return dev_kv_fail(job->c, &job->dev, "retrieve", cli_key_bytes(&run->prefix), -ENOENT,
                           "no key begins with it");
    return report(job->c, &run->sums, "retrieved");
}
