/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The collector: keeps some segments free by emptying those that cost least, and, when the store is
 * quiet, makes it small. Victims are chosen by what they give and how old they are (cost-benefit);
 * what is moved out of them goes to the cold stream, so that what lives long comes together. They
 * are free when the next checkpoint is durable.
 *
 * It goes as fast as others write: after each step it waits until so much has been written as the
 * step has gained, more when many segments are left, less when few are. So what it does is spread
 * evenly between the commits, and nobody has to wait for a segment.
 */
#include "kv/drivers/blobkv/gc.h"
#include "kv/drivers/blobkv/large.h"

#include "base/log.h"

#define QUIET_NS NS_PER_S
#define PAUSE_MAX_NS (20 * NS_PER_MS) /* when nobody writes */
#define FULL_SHARE 0.95               /* a segment that lives more than that is not worth moving */
#define TIDY_SHARE 0.6                /* when nothing is needed, only what is mostly dead */
#define INDEX_SHARE 0.5 /* pages of the index are rewritten often, without being asked */
#define VICTIM_ROUNDS 3 /* checkpoints after which it may be chosen again, if it is still there */
#define RECLAIM_BYTES (16 * MIB) /* of emptied segments, before they are freed */
#define RECLAIM_MIN 4u           /* segments, when few are left */
#define PACE_NONE 0.25           /* of what is wanted is left: no pauses */
#define PACE_EVEN 0.75           /* as fast as others write */
#define VAIN_MAX 4               /* rounds that give no segment, before the store is called full */
#define TIDY_BYTES (64 * MIB)    /* moved, before a checkpoint frees what was emptied */

/* How many segments should be there for data; below it collecting begins. */
static uint32_t wanted(const struct bkv *s)
{
    uint32_t n = s->nsegs / 48;

    return MIN(MAX(n, 4u), 64u);
}

/* Segments data may take, by now. */
static uint32_t spare(const struct bkv *s)
{
    uint32_t avail = bkv_space_avail(s), reserve = bkv_space_reserve(s, BKV_NEED_DATA);

    return avail > reserve ? avail - reserve : 0;
}

static uint32_t reclaim_batch(const struct bkv *s)
{
    return MIN(MAX((uint32_t)(RECLAIM_BYTES / s->segment_bytes), 8u), 16u);
}

/* What of a segment has been dealt with since the last time, but for what was moved elsewhere. */
static uint64_t gained(const struct bkv *s, struct bkv_pace *p, uint32_t off)
{
    uint64_t done = MAX(off, p->off) - p->off, moved = s->stats.moved_bytes - p->moved;

    p->off += (uint32_t)done;
    p->moved += moved;
    return done > moved ? done - moved : 0;
}

void bkv_collector_pace(struct rt_task *t, struct bkv *s, struct bkv_pace *p, uint32_t off)
{
    double left = (double)(2 * spare(s) + bkv_reclaimable(s)) / (2 * wanted(s));
    uint64_t bytes = gained(s, p, off), until = rt_now() + PAUSE_MAX_NS;
    bool in_time = true;

    if (left <= PACE_NONE || bytes == 0) {
        (void)rt_yield(t);
        return;
    }
    left = (left - PACE_NONE) / (PACE_EVEN - PACE_NONE);
    s->paced_until = bkv_written(s) + (uint64_t)((double)bytes * left) + 1;
    while (in_time && bkv_written(s) < s->paced_until && !s->want_room && !s->closing)
        in_time = bkv_cond_wait_until(t, &s->paced, until);
    s->paced_until = 0;
}

/* What would have to be moved, as far as is known. */
static double share_of(const struct bkv *s, const struct bkv_seg *g)
{
    uint64_t live = bkv_seg_live(g), past = (uint64_t)g->past_frozen + g->past_active;

    return (double)(live - MIN(past, (uint64_t)g->live_tree + g->live_frozen)) /
           (double)s->segment_bytes;
}

/* What the emptying of a segment gives for its cost; 0: it is not worth it. Age counts less than in
 * proportion: what is old but mostly live would be moved again and again. */
static double score_of(const struct bkv *s, const struct bkv_seg *g, double max_share)
{
    double share, score;

    if (g->state != BKV_SEG_SEALED || g->victim > 0 || g->damaged || g->live_held > 0)
        return 0;
    share = share_of(s, g);
    if (share > (g->stream == BKV_INDEX ? INDEX_SHARE : max_share) || bkv_seg_live(g) == 0)
        return 0;
    score = (1 - share) / (1 + share);
    return score * score * ((double)(s->last_order - g->order) + 1);
}

/* The segment whose emptying gives most for its cost; 0: none is worth it. */
static uint32_t choose(const struct bkv *s, double max_share)
{
    uint32_t best = 0;
    double best_score = 0;

    for (uint32_t i = 1; i < s->nsegs; i++) {
        double score = score_of(s, &s->seg[i], max_share);

        if (score > best_score) {
            best_score = score;
            best = i;
        }
    }
    return best;
}

/* What will probably be chosen next, if it is one of the log's. */
static uint32_t next_of_log(const struct bkv *s, double max_share)
{
    uint32_t idx = choose(s, max_share);

    return s->seg[idx].stream == BKV_HOT || s->seg[idx].stream == BKV_COLD ? idx : 0;
}

struct collector {
    struct bkv *s;
    struct bkv_mover *mover;
    uint64_t emptied; /* segments that the next checkpoint frees */
    uint64_t moved;   /* bytes */
    uint32_t next;    /* segment that is being read ahead; 0: none */
    uint64_t ops_seen, quiet_since;
    uint64_t tidied_at; /* operations when nothing was left to do, + 1 */
    struct rt_timer timer;
};

static int checkpoint(struct rt_task *t, struct collector *c)
{
    c->emptied = c->moved = 0;
    c->s->dirty = true; /* leaves of index victims move with it, though no key has changed */
    return bkv_checkpoint(t, c->s, NULL, NULL);
}

/* Empties one segment. False: there is none, or no room to move to. */
static bool collect_one(struct rt_task *t, struct collector *c, double max_share)
{
    struct bkv *s = c->s;
    bool chosen = c->next != 0 && score_of(s, &s->seg[c->next], max_share) > 0;
    uint32_t idx = chosen ? c->next : choose(s, max_share);
    struct bkv_seg *g = &s->seg[idx];
    uint64_t live = bkv_seg_live(g), moved = s->stats.moved_bytes;
    enum bkv_stream stream = g->stream == BKV_LARGE ? BKV_LARGE : BKV_COLD; /* it moves to */
    int rc = 0;

    if (idx == 0)
        return false;
    /* What is in memtables only moves when leaves refer to it; and the index moves by itself. */
    if (g->stream != BKV_INDEX) {
        uint32_t reserve = bkv_space_reserve(s, BKV_NEED_MOVE);
        uint64_t room = bkv_space_avail(s) > reserve
                            ? (uint64_t)(bkv_space_avail(s) - reserve) * s->segment_bytes
                            : 0;

        if (s->pos[stream].segment != 0)
            room += s->segment_bytes - s->pos[stream].offset;
        if (room < live + live / 8)
            return false;
    }
    g->victim = VICTIM_ROUNDS;
    c->next = next_of_log(s, max_share);
    if (g->stream == BKV_LARGE)
        rc = bkv_large_evacuate(t, s, idx);
    else if (g->stream != BKV_INDEX)
        rc = bkv_move_segment(t, c->mover, idx, c->next);
    if (rc == -EBADMSG) {
        log_error("%s: segment %u is damaged: what lives in it stays there", s->name, idx);
        g->damaged = true;
        g->victim = 0;
        return true;
    }
    if (rc < 0) {
        g->victim = 0;
        return false;
    }
    c->emptied++;
    c->moved += s->stats.moved_bytes - moved;
    s->stats.gc_segments++;
    return true;
}

/* Frees what was emptied, unless that is not needed any more; true when there is room then, and
 * whoever waits has been told. */
static bool has_room_now(struct rt_task *t, struct collector *c)
{
    struct bkv *s = c->s;

    if (spare(s) == 0) {
        bkv_reclaim(t, s);
        c->emptied = 0;
    }
    if (spare(s) == 0)
        return false;
    s->want_room = false;
    bkv_space_wake(s);
    return true;
}

/* Nobody will make any: whoever waits is told. */
static void no_room(struct bkv *s)
{
    if (!s->want_room)
        return;
    s->full = true;
    s->want_room = false;
    bkv_space_wake(s);
}

/* The next checkpoint would free what was emptied by itself, but perhaps too late. When few are
 * left, a few are worth a table: more of them where flushes do not hold up those who write. */
static bool is_reclaim_due(const struct bkv *s)
{
    uint32_t least = s->opts.sync ? RECLAIM_MIN : 2 * RECLAIM_MIN;

    return !s->reclaiming && bkv_reclaimable(s) >= MIN(reclaim_batch(s), MAX(spare(s), least));
}

/* Somebody waits for a segment: whatever it takes. A merge only when emptying gives nothing. */
static void make_room(struct rt_task *t, struct collector *c)
{
    struct bkv *s = c->s;
    uint32_t best = 0, vain = 0;

    while (s->want_room && !s->closing && s->poison == 0) {
        bool moved = true;

        if (has_room_now(t, c))
            break;
        for (unsigned n = 0; moved && n < reclaim_batch(s) && spare(s) == 0 && !s->closing; n++) {
            moved = collect_one(t, c, FULL_SHARE);
            if (is_reclaim_due(s))
                bkv_reclaim_soon(s);
        }
        if (c->emptied > 0 && has_room_now(t, c))
            break;
        vain = bkv_space_avail(s) > best ? 0 : vain + 1;
        best = MAX(best, bkv_space_avail(s));
        if (vain % 2 == 0)
            continue;
        if (checkpoint(t, c) < 0 || vain >= VAIN_MAX) {
            if (has_room_now(t, c))
                break;
            no_room(s); /* until something is deleted */
        }
    }
}

/* --- when nothing is needed ------------------------------------------------------------------- */

static void timer_rings(struct rt_timer *timer)
{
    struct collector *c = container_of(timer, struct collector, timer);

    bkv_collector_wake(c->s);
}

/* Whether nobody has changed anything for a while. Looks again by itself if not. */
static bool is_quiet(struct collector *c)
{
    struct bkv *s = c->s;
    uint64_t now = rt_now();

    if (s->stats.ops != c->ops_seen) {
        c->ops_seen = s->stats.ops;
        c->quiet_since = now;
    }
    if (now - c->quiet_since >= QUIET_NS)
        return true;
    rt_timer_start(&c->timer, c->quiet_since + QUIET_NS);
    return false;
}

/* More than a tenth of what is in use could be given back, and not just a few segments. */
static bool is_untidy(const struct bkv *s)
{
    uint32_t used;
    uint64_t live = bkv_space_live(s, &used);

    return (uint64_t)used * s->segment_bytes > live + live / 10 + 4ull * s->segment_bytes;
}

static void tidy(struct rt_task *t, struct collector *c)
{
    struct bkv *s = c->s;
    uint64_t ops = s->stats.ops;
    bool more = true;

    /* Between checkpoints live bytes count twice what memtables have replaced. */
    if (s->dirty && checkpoint(t, c) < 0)
        return;
    while (more && !s->closing && !s->want_room && s->stats.ops == ops && is_untidy(s) &&
           c->moved < TIDY_BYTES)
        more = collect_one(t, c, TIDY_SHARE);
    if (c->emptied > 0 && !s->closing && checkpoint(t, c) == 0 && more)
        s->collector_due = true;
    s->quiet = s->stats.ops == ops;
    bkv_supply_wake(s);
}

int bkv_collector(struct rt_task *t, void *store)
{
    struct bkv *s = store;
    struct collector c = {.s = s, .mover = bkv_mover_new(s), .timer = {.fn = timer_rings}};

    rt_task_shield(t, true);
    if (c.mover == NULL)
        log_warn("%s: no memory to collect garbage with", s->name);
    c.quiet_since = rt_now();
    while (!s->closing) {
        s->collector_due = false;
        if (s->poison == 0 && c.mover != NULL) {
            if (s->want_room) {
                make_room(t, &c);
            } else if (spare(s) < wanted(s)) {
                s->collector_due = collect_one(t, &c, FULL_SHARE);
                if (is_reclaim_due(s) || (!s->collector_due && bkv_reclaimable(s) > 0))
                    bkv_reclaim_soon(s);
            } else if (!is_quiet(&c)) {
                s->quiet = false;
            } else if (is_untidy(s) && c.tidied_at != s->stats.ops + 1) {
                tidy(t, &c);
                if (!s->collector_due)
                    c.tidied_at = s->stats.ops + 1;
            } else if (!s->quiet) {
                s->quiet = true;
                bkv_supply_wake(s);
            }
        }
        if (s->poison != 0 || c.mover == NULL)
            no_room(s);
        while (!s->closing && !s->collector_due && !s->want_room)
            (void)rt_cond_wait(t, &s->collector_wanted);
    }
    rt_timer_stop(&c.timer);
    bkv_mover_settle(t, c.mover);
    bkv_mover_free(c.mover);
    s->collecting = false;
    bkv_commit_wake(s);
    bkv_task_ended(s);
    return 0;
}
