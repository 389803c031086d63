/* SPDX-License-Identifier: Apache-2.0 */
#include "virt/query/results.h"

#include "base/must.h"
#include "rt/io.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OWNER_MAX 512u
#define OWNERS_KEPT 256u /* without results: so that numbers are not used again at once */
#define MEM_FIRST 4096u

struct owner {
    struct list link; /* query_results.owners, the last used one at the end */
    struct list done; /* query_result.link, the oldest first */
    unsigned max, n, nerrors;
    unsigned alive; /* being made, in the table, or dropped but still held */
    uint64_t bytes; /* of all those */
    uint64_t seq;   /* of the next number */
    size_t name_len;
    uint8_t name[OWNER_MAX];
    struct query_result *slot[];
};

struct query_result {
    struct query_results *store;
    struct owner *owner;
    struct list link;
    atomic_uint refs; /* the table's is one */
    uint32_t id;      /* 0: not in the table */
    uint64_t place, session;
    uint64_t last_ns;
    struct query_result_about about;
    uint64_t len;
    uint8_t *mem; /* cap bytes, while there is no file */
    size_t cap;
    int fd; /* -1: none */
};

struct query_results {
    struct query_results_config cfg;
    char *dir;
    pthread_mutex_t lock; /* of all that follows, and of owners and the table */
    struct list owners;
    unsigned nowners, nresults;
    uint64_t bytes, mem_bytes;
    struct query_results_stats stats;
};

int query_results_new(const struct query_results_config *cfg, struct query_results **out)
{
    struct query_results *s = calloc(1, sizeof(*s));

    if (s == NULL)
        return -ENOMEM;
    s->cfg = *cfg;
    if (cfg->dir != NULL) {
        s->dir = strdup(cfg->dir);
        if (s->dir == NULL) {
            free(s);
            return -ENOMEM;
        }
        s->cfg.dir = s->dir;
    }
    if (s->cfg.mem_bytes_max == 0)
        s->cfg.mem_bytes_max = 64u << 20;
    if (s->cfg.mem_one_max == 0)
        s->cfg.mem_one_max = 1u << 20;
    if (s->dir == NULL || s->cfg.mem_one_max > s->cfg.mem_bytes_max)
        s->cfg.mem_one_max = s->cfg.mem_bytes_max;
    if (s->cfg.owner_bytes_max == 0)
        s->cfg.owner_bytes_max = 1ull << 30;
    if (s->cfg.bytes_max == 0)
        s->cfg.bytes_max = 8ull << 30;
    if (s->cfg.idle_ns == 0)
        s->cfg.idle_ns = 600 * NS_PER_S;
    pthread_mutex_init(&s->lock, NULL);
    list_init(&s->owners);
    *out = s;
    return 0;
}

const struct query_results_config *query_results_config(const struct query_results *s)
{
    return &s->cfg;
}

/* --- owners; the lock is held ----------------------------------------------------------------- */

static struct owner *owner_find(struct query_results *s, struct bytes name)
{
    struct owner *o;

    list_for_each (o, &s->owners, struct owner, link) {
        if (bytes_eq(bytes_make(o->name, o->name_len), name))
            return o;
    }
    return NULL;
}

static void owner_free(struct query_results *s, struct owner *o)
{
    list_del(&o->link);
    free(o);
    s->nowners--;
}

/* Forgets the one that was used longest ago and has nothing, when there are many. */
static void trim_owners(struct query_results *s)
{
    struct owner *o;

    if (s->nowners < OWNERS_KEPT)
        return;
    list_for_each (o, &s->owners, struct owner, link) {
        if (o->alive == 0) {
            owner_free(s, o);
            return;
        }
    }
}

static struct owner *owner_get(struct query_results *s, const struct query_result_of *of)
{
    unsigned max = of->results_max != 0 ? of->results_max : QUERY_RESULTS_DEFAULT;
    struct owner *o = owner_find(s, of->owner);

    if (o != NULL) {
        list_del(&o->link);
        list_add_tail(&s->owners, &o->link);
        return o;
    }
    trim_owners(s);
    must(max <= QUERY_RESULTS_MAX);
    o = calloc(1, sizeof(*o) + max * sizeof(o->slot[0]));
    if (o == NULL)
        return NULL;
    list_init(&o->link);
    list_init(&o->done);
    o->max = max;
    o->seq = max;
    o->name_len = of->owner.len;
    memcpy(o->name, of->owner.ptr, of->owner.len);
    list_add_tail(&s->owners, &o->link);
    s->nowners++;
    return o;
}

/* --- the end of a result ---------------------------------------------------------------------- */

/* With the lock; the memory is the caller's to free when it is told so. */
static bool unref(struct query_result *r)
{
    struct query_results *s = r->store;

    if (atomic_fetch_sub(&r->refs, 1) != 1)
        return false;
    must(r->id == 0);
    r->owner->alive--;
    r->owner->bytes -= r->len;
    s->bytes -= r->len;
    s->mem_bytes -= r->cap;
    return true;
}

static void result_free(struct query_result *r)
{
    rt_close_p(&r->fd);
    free(r->mem);
    free(r);
}

/* Takes a finished result out of the table, with the lock, onto a list of those to be let go. */
static void take_out(struct query_result *r, struct list *out)
{
    struct owner *o = r->owner;

    o->slot[r->id % o->max] = NULL;
    o->n--;
    o->nerrors -= r->about.is_error;
    r->store->nresults--;
    r->id = 0;
    list_del(&r->link);
    list_add_tail(out, &r->link);
}

/* With the lock: what goes goes to `dead`; those still held go when their holder lets go. */
static void let_go(struct list *out, struct list *dead)
{
    struct query_result *r;

    while ((r = list_pop_entry(out, struct query_result, link)) != NULL) {
        if (unref(r))
            list_add_tail(dead, &r->link);
    }
}

static void bury(struct list *dead)
{
    struct query_result *r;

    while ((r = list_pop_entry(dead, struct query_result, link)) != NULL)
        result_free(r);
}

void query_result_put(struct query_result *r)
{
    struct query_results *s;
    bool gone;

    if (r == NULL)
        return;
    s = r->store;
    pthread_mutex_lock(&s->lock);
    gone = unref(r);
    pthread_mutex_unlock(&s->lock);
    if (gone)
        result_free(r);
}

/* --- making ----------------------------------------------------------------------------------- */

int query_result_new(struct query_results *s, const struct query_result_of *of,
                     struct query_result **out_r)
{
    struct query_result *r = calloc(1, sizeof(*r));

    must(of->owner.len <= OWNER_MAX);
    if (r == NULL)
        return -ENOMEM;
    r->store = s;
    r->place = of->place;
    r->session = of->session;
    r->fd = -1;
    list_init(&r->link);
    atomic_init(&r->refs, 1);
    pthread_mutex_lock(&s->lock);
    r->owner = owner_get(s, of);
    if (r->owner != NULL)
        r->owner->alive++;
    pthread_mutex_unlock(&s->lock);
    if (r->owner == NULL) {
        free(r);
        return -ENOMEM;
    }
    *out_r = r;
    return 0;
}

/* Counts `len` more bytes, for which older results of the owner may have to go. */
static int take_room(struct query_result *r, size_t len)
{
    struct query_results *s = r->store;
    struct owner *o = r->owner;
    struct list out = LIST_INIT(out), dead = LIST_INIT(dead);
    int rc = 0;

    pthread_mutex_lock(&s->lock);
    while (o->bytes + len > s->cfg.owner_bytes_max || s->bytes + len > s->cfg.bytes_max) {
        struct query_result *oldest = list_first(&o->done, struct query_result, link);

        if (oldest == NULL) {
            rc = -EDQUOT;
            break;
        }
        s->stats.evicted++;
        take_out(oldest, &out);
        let_go(&out, &dead);
    }
    if (rc == 0) {
        o->bytes += len;
        s->bytes += len;
        r->len += len;
    }
    pthread_mutex_unlock(&s->lock);
    bury(&dead);
    return rc;
}

static void give_room(struct query_result *r, size_t len)
{
    pthread_mutex_lock(&r->store->lock);
    r->owner->bytes -= len;
    r->store->bytes -= len;
    r->len -= len;
    pthread_mutex_unlock(&r->store->lock);
}

/* The memory of a result becomes `cap` bytes: false when that is more than there is to be had. */
static bool set_cap(struct query_result *r, size_t cap)
{
    struct query_results *s = r->store;
    bool fits;
    uint8_t *mem;

    pthread_mutex_lock(&s->lock);
    fits = cap <= r->cap || s->mem_bytes + (cap - r->cap) <= s->cfg.mem_bytes_max;
    if (fits)
        s->mem_bytes += cap - r->cap;
    pthread_mutex_unlock(&s->lock);
    if (!fits)
        return false;
    if (cap == 0) {
        free(r->mem);
        r->mem = NULL;
        r->cap = 0;
        return true;
    }
    mem = realloc(r->mem, cap);
    if (mem == NULL) {
        pthread_mutex_lock(&s->lock);
        s->mem_bytes -= cap - r->cap;
        pthread_mutex_unlock(&s->lock);
        return false;
    }
    r->mem = mem;
    r->cap = cap;
    return true;
}

/* Room in memory for all of r->len. */
static bool grow(struct query_result *r)
{
    uint64_t max = r->store->cfg.mem_one_max;
    size_t cap = MAX(r->cap, (size_t)MEM_FIRST);

    if (r->len > max)
        return false;
    while (cap < r->len)
        cap *= 2;
    cap = MIN(cap, MAX(max, r->len));
    return cap == r->cap || set_cap(r, cap);
}

static int open_file(struct rt_task *t, struct query_result *r)
{
    const char *dir = r->store->dir;
    char path[512];
    uint64_t n;
    int rc;

    if (dir == NULL)
        return -EDQUOT;
    rc = rt_open(t, AT_FDCWD, dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (rc >= 0) {
        r->fd = rc;
        return 0;
    }
    if (rc != -EOPNOTSUPP && rc != -EISDIR && rc != -EINVAL)
        return rc;
    /* A file system without files that have no name: one that loses it at once. */
    rt_random(&n, sizeof(n));
    if (snprintf(path, sizeof(path), "%s/kvasir-result-%016lx", dir, n) >= (int)sizeof(path))
        return -ENAMETOOLONG;
    rc = rt_open(t, AT_FDCWD, path, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
    if (rc < 0)
        return rc;
    r->fd = rc;
    return rt_unlink(t, AT_FDCWD, path, 0);
}

/* From memory to a file; `had` bytes are in it. */
static int spill(struct rt_task *t, struct query_result *r, uint64_t had)
{
    int rc = open_file(t, r);

    if (rc < 0)
        return rc;
    if (had > 0)
        rc = rt_pwrite_all(t, r->fd, r->mem, had, 0);
    if (rc < 0)
        return rc;
    must(set_cap(r, 0));
    pthread_mutex_lock(&r->store->lock);
    r->store->stats.spilled++;
    pthread_mutex_unlock(&r->store->lock);
    return 0;
}

int query_result_add(struct rt_task *t, struct query_result *r, const void *buf, size_t len)
{
    uint64_t at = r->len;
    int rc;

    must(r->last_ns == 0);
    if (len == 0)
        return 0;
    rc = take_room(r, len);
    if (rc < 0)
        return rc;
    if (r->fd < 0 && grow(r)) {
        memcpy(r->mem + at, buf, len);
        return 0;
    }
    if (r->fd < 0)
        rc = spill(t, r, at);
    if (rc == 0)
        rc = rt_pwrite_all(t, r->fd, buf, len, at);
    if (rc < 0)
        give_room(r, len);
    return rc;
}

/* The next number whose slot is free. */
static uint32_t next_id(struct owner *o)
{
    for (;;) {
        uint32_t id = (uint32_t)o->seq++;

        if (o->seq > UINT32_MAX)
            o->seq = o->max;
        if (o->slot[id % o->max] == NULL)
            return id;
    }
}

/* The oldest error text of an owner. */
static struct query_result *oldest_error(struct owner *o)
{
    struct query_result *r;

    list_for_each (r, &o->done, struct query_result, link) {
        if (r->about.is_error)
            return r;
    }
    return NULL;
}

uint32_t query_result_finish(struct query_result *r, const struct query_result_about *about)
{
    struct query_results *s = r->store;
    struct owner *o = r->owner;
    struct list out = LIST_INIT(out), dead = LIST_INIT(dead);
    uint32_t id;

    must(r->last_ns == 0);
    if (r->fd < 0 && r->cap > r->len)
        set_cap(r, r->len);
    r->about = *about;
    pthread_mutex_lock(&s->lock);
    if (about->is_error && o->nerrors >= MIN(QUERY_ERRORS_MAX, o->max)) {
        take_out(oldest_error(o), &out);
    } else if (o->n == o->max) {
        s->stats.evicted++;
        take_out(list_first(&o->done, struct query_result, link), &out);
    }
    let_go(&out, &dead);
    id = next_id(o);
    r->id = id;
    r->last_ns = MAX(rt_now(), 1u);
    o->slot[id % o->max] = r;
    o->n++;
    o->nerrors += about->is_error;
    list_add_tail(&o->done, &r->link);
    s->nresults++;
    s->stats.made++;
    atomic_fetch_add(&r->refs, 1); /* the table's */
    pthread_mutex_unlock(&s->lock);
    bury(&dead);
    return id;
}

/* --- reading ---------------------------------------------------------------------------------- */

struct query_result *query_result_get(struct query_results *s, const struct query_result_of *of,
                                      uint32_t id)
{
    struct query_result *r = NULL;
    struct owner *o;

    pthread_mutex_lock(&s->lock);
    o = owner_find(s, of->owner);
    if (o != NULL && id != 0)
        r = o->slot[id % o->max];
    if (r != NULL && (r->id != id || r->place != of->place))
        r = NULL;
    if (r != NULL) {
        r->last_ns = MAX(rt_now(), 1u);
        atomic_fetch_add(&r->refs, 1);
    }
    pthread_mutex_unlock(&s->lock);
    return r;
}

uint64_t query_result_bytes(const struct query_result *r)
{
    return r->len;
}

const struct query_result_about *query_result_about(const struct query_result *r)
{
    return &r->about;
}

const uint8_t *query_result_mem(const struct query_result *r)
{
    return r->mem;
}

int query_result_read(struct rt_task *t, struct query_result *r, uint64_t off, void *buf,
                      size_t len)
{
    must(off <= r->len);
    must(len <= r->len - off);
    if (r->fd >= 0)
        return rt_pread_all(t, r->fd, buf, len, off);
    if (len > 0)
        memcpy(buf, r->mem + off, len);
    return 0;
}

/* --- dropping --------------------------------------------------------------------------------- */

void query_result_drop(struct query_result *r)
{
    struct query_results *s = r->store;
    struct list out = LIST_INIT(out), dead = LIST_INIT(dead);

    pthread_mutex_lock(&s->lock);
    if (r->id != 0)
        take_out(r, &out);
    let_go(&out, &dead);
    pthread_mutex_unlock(&s->lock);
    must(list_empty(&dead)); /* the caller holds it */
}

enum drop_by { BY_SESSION, BY_PLACE, BY_AGE, BY_END };

static bool goes(const struct query_result *r, enum drop_by by, uint64_t what)
{
    switch (by) {
    case BY_SESSION:
        return r->session == what;
    case BY_PLACE:
        return r->place == what;
    case BY_AGE:
        return what >= r->last_ns && what - r->last_ns > r->store->cfg.idle_ns;
    default:
        return true;
    }
}

static unsigned take_out_some(struct owner *o, enum drop_by by, uint64_t what, struct list *out)
{
    struct query_result *r;
    unsigned n = 0;

    list_for_each (r, &o->done, struct query_result, link) {
        if (goes(r, by, what)) {
            take_out(r, out);
            n++;
        }
    }
    return n;
}

static void drop_some(struct query_results *s, enum drop_by by, uint64_t what)
{
    struct list out = LIST_INIT(out), dead = LIST_INIT(dead);
    struct owner *o;
    unsigned n = 0;

    pthread_mutex_lock(&s->lock);
    list_for_each (o, &s->owners, struct owner, link)
        n += take_out_some(o, by, what, &out);
    let_go(&out, &dead);
    if (by == BY_AGE)
        s->stats.expired += n;
    else
        s->stats.dropped += n;
    pthread_mutex_unlock(&s->lock);
    bury(&dead);
}

void query_results_drop_session(struct query_results *s, uint64_t session)
{
    drop_some(s, BY_SESSION, session);
}

void query_results_drop_place(struct query_results *s, uint64_t place)
{
    drop_some(s, BY_PLACE, place);
}

void query_results_expire(struct query_results *s)
{
    drop_some(s, BY_AGE, rt_now());
}

void query_results_free(struct query_results *s)
{
    struct owner *o;

    if (s == NULL)
        return;
    drop_some(s, BY_END, 0);
    while ((o = list_first(&s->owners, struct owner, link)) != NULL) {
        must(o->alive == 0);
        owner_free(s, o);
    }
    pthread_mutex_destroy(&s->lock);
    free(s->dir);
    free(s);
}

void query_results_stats(struct query_results *s, struct query_results_stats *out)
{
    pthread_mutex_lock(&s->lock);
    *out = s->stats;
    out->bytes = s->bytes;
    out->mem_bytes = s->mem_bytes;
    out->results = s->nresults;
    out->owners = s->nowners;
    pthread_mutex_unlock(&s->lock);
}
