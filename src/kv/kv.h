/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Key-value devices: the contract of DESIGN "What a KV device promises". Opened once per process
 * by URI and shared; a channel is the use from one reactor. The layer checks key and value sizes,
 * read-only and capability, gives each capability that a driver lacks its written way (or
 * -ENOTSUP), keeps the statistics, and carries requests to the home reactor of those that have one.
 *
 * Small values move in one request (KV_STORE, KV_RETRIEVE). Values of any size move as streams:
 * KV_STORE_OPEN, then KV_WRITE in order, then KV_COMMIT (nothing is visible before it) or KV_ABORT;
 * KV_RETRIEVE_OPEN, then KV_READ at any offsets of that one version, then KV_READ_CLOSE.
 * src/kv/README.md tells how the parts work together.
 */
#ifndef KVASIR_KV_KV_H
#define KVASIR_KV_KV_H

#include "rt/rt.h"

#include "base/bytes.h"
#include "base/endian.h"
#include "base/err.h"
#include "base/hist.h"
#include "base/param.h"

#define KV_KEY_MAX 2048
#define KV_LEN_UNKNOWN UINT64_MAX

enum kv_op {
    KV_STORE,         /* key, iov = the whole value (len); flags; version with KV_F_IF_VERSION */
    KV_RETRIEVE,      /* key, off; iov <- min(len, value_len - off) bytes; out: value_len,
                         version, moved */
    KV_STAT,          /* key; out: value_len, version (the core's `exist` and `stat`) */
    KV_DELETE,        /* key; -ENOENT when it is not there; KV_F_IF_VERSION */
    KV_LIST,          /* key = where to start (may be empty), prefix; iov[0] <- entries; out: moved,
                         nkeys, more. No keys and `more`: iov[0] has no room for the next one */
    KV_FLUSH,         /* everything completed before it is durable */
    KV_STORE_OPEN,    /* key, len = declared length or KV_LEN_UNKNOWN, flags; out: stream */
    KV_WRITE,         /* stream, iov, len: the next len bytes; one at a time. The layer sets off */
    KV_COMMIT,        /* stream: visible and durable; the stream is gone, whatever rc */
    KV_ABORT,         /* stream: as if it had never begun; the stream is gone */
    KV_RETRIEVE_OPEN, /* key; out: stream, value_len, version */
    KV_READ,          /* stream, off, iov, len; out: moved (short at the end of the value) */
    KV_READ_CLOSE,    /* stream: gone */
    KV_BATCH,         /* batch: all or nothing; who has read one part of it finds the others, too */
    KV_SNAP_OPEN,     /* out: snap, a view of now for RETRIEVE, RETRIEVE_OPEN, STAT, LIST */
    KV_SNAP_CLOSE,    /* snap */
    KV_OPS
};
const char *kv_op_name(enum kv_op op);

#define KV_F_MUST_EXIST (1u << 0)     /* store: -ENOENT when the key is not there */
#define KV_F_MUST_NOT_EXIST (1u << 1) /* store: -EEXIST when it is */
#define KV_F_IF_VERSION (1u << 2)     /* store, delete: -ESTALE unless the key has `version` */
#define KV_F_APPEND (1u << 3)         /* store: after the present value (a stream: at its commit);
                                         makes the key when absent */
#define KV_F_AFTER (1u << 4)          /* list: begin after `key` instead of at it */
#define KV_F_NO_VERSION (1u << 5)     /* store, retrieve, stat: nobody looks at the version that
                                         comes back; where it costs a round trip it stays 0 */

/* Capabilities; what a driver lacks the layer provides as said, or answers -ENOTSUP. */
#define KV_CAP_RANGE (1u << 0)          /* off in RETRIEVE, READ; else: read from 0 and discard */
#define KV_CAP_VERSION (1u << 1)        /* versions are real; else 0, and IF_VERSION is -ENOTSUP */
#define KV_CAP_APPEND (1u << 2)         /* else -ENOTSUP */
#define KV_CAP_UNKNOWN_LEN (1u << 3)    /* else -ENOTSUP: the layer above spools */
#define KV_CAP_ORDERED_LIST (1u << 4)   /* LIST by key order with prefix; else the order is its own,
                                           stable, continued from the last key; the layer filters */
#define KV_CAP_BATCH (1u << 5)
#define KV_CAP_SNAPSHOT (1u << 6)
#define KV_CAP_READ_ONLY (1u << 7)
#define KV_CAP_VOLATILE_CACHE (1u << 8) /* completed stores need KV_FLUSH to be durable */

struct kv_driver;
struct kv_dev;
struct kv_chan;
struct kv_stream; /* opaque; belongs to the channel that opened it. At most KV_STREAMS_MAX of one
                     channel are open (-ENOMEM). What a driver gives out and gets is its own */
struct kv_snap;   /* the driver's own, opaque; of the device */
struct kv_held;
struct kv_emul;
struct kv_select;
struct kv_select_result;

#define KV_STREAMS_MAX 4096

struct kv_info {
    uint32_t key_max;
    uint64_t val_max;     /* bytes */
    uint32_t caps;
    uint64_t size_bytes;  /* capacity; 0: not known */
    uint32_t nkeys_max;   /* 0: not stated */
    uint32_t optimal_bytes; /* granularity that suits the device; 0: none */
    uint8_t uuid[16];
};

/** A UUID that is always the same for the same text. */
void kv_uuid_of(const char *text, uint8_t out_uuid[16]);

/** One entry of LIST in iov[0]: packed, no padding. Walk with kv_list_next(). */
struct kv_list_iter {
    const uint8_t *at, *end;
};
static inline struct kv_list_iter kv_list_begin(const void *buf, size_t moved)
{
    return (struct kv_list_iter){.at = buf, .end = (const uint8_t *)buf + moved};
}
/** False at the end. *out_key points into the buffer. */
static inline bool kv_list_next(struct kv_list_iter *it, struct bytes *out_key)
{
    size_t left = (size_t)(it->end - it->at), len;

    if (left < 2)
        return false;
    len = le16_at(it->at);
    if (left - 2 < len)
        return false;
    *out_key = bytes_make(it->at + 2, len);
    it->at += 2 + len;
    return true;
}
/** For drivers: adds a key (le16 length, bytes) at *used; false when it does not fit. */
bool kv_list_put(uint8_t *buf, size_t max, size_t *used, struct bytes key);

struct kv_batch_item {
    struct bytes key;
    struct bytes val;  /* ignored for deletes */
    bool is_delete;    /* a delete of a key that is not there is no error in a batch */
};

struct kv_req {
    struct rt_req req; /* first */
    uint8_t op;        /* enum kv_op */
    uint32_t flags;    /* KV_F_* */
    unsigned iovcnt;
    const struct iovec *iov;
    struct bytes key;     /* bytes stay until completion */
    struct bytes prefix;  /* LIST */
    uint64_t off;
    uint64_t len;         /* bytes of iov that count; STORE_OPEN: the value's length */
    uint64_t version;     /* in: for IF_VERSION; out: of the value stored or read */
    struct kv_stream *stream;
    struct kv_snap *snap; /* NULL: the present */
    const struct kv_batch_item *batch;
    unsigned nbatch;
    /* out */
    uint64_t value_len;
    uint64_t moved;
    uint32_t nkeys;
    bool more;            /* LIST: there are keys after the last one returned */

    struct kv_chan *chan; /* set by kv_submit */
    /* The layer's own. */
    uint64_t start_ns;
    struct kv_held *held;      /* the stream it works on */
    struct kv_emul *emul;      /* the task that carries it out, when it takes more than one hop */
    struct rt_reactor *origin; /* carried from there to another reactor; NULL: not carried */
    struct rt_reactor *there;  /* and that is this one */
    struct rt_msg msg;
    struct rt_msg cancel_msg;
    struct list link;  /* in line for an emul */
    int fwd_rc;
    bool inner;        /* a step of another request: not counted */
    bool at_home;      /* the driver has it; changed where it was carried to only */
    bool returned;     /* the answer is back, but not yet the cancel that was sent after it */
    bool cancel_sent;
    void *part; /* the driver's own: which part of the device it is for; stays when carried */
    /* The driver's own. */
    union {
        uint64_t align_;
        uint8_t driver[384];
    };
};

struct kv_op_stats {
    uint64_t ops, bytes, errors;
    struct hist latency_ns;
};
struct kv_stats {
    struct kv_op_stats op[KV_OPS];
};

/**
 * Opens the device of a URI, or takes another reference to it when this process has it open.
 * Waits. Errors with text: -EINVAL the URI, -ENOENT, -EACCES, -EBUSY held by another process, ...
 */
int kv_open(struct rt_task *t, const char *uri, struct kv_dev **out_dev, struct err *why);
/** Gives a reference back; the last one closes the device. Channels have to be closed before. */
void kv_close(struct rt_task *t, struct kv_dev *dev);
struct kv_dev *kv_ref(struct kv_dev *dev);
const struct kv_info *kv_info(const struct kv_dev *dev);
const char *kv_uri(const struct kv_dev *dev);
const struct kv_driver *kv_driver_of(const struct kv_dev *dev);
/** Bytes in use and number of keys, as far as the device knows; 0 = not known. May wait. */
int kv_usage(struct rt_task *t, struct kv_dev *dev, uint64_t *out_used_bytes, uint64_t *out_keys);

/** The channel of the current reactor (one per reactor and device, counted, shared by users). */
int kv_chan_get(struct rt_task *t, struct kv_dev *dev, struct kv_chan **out_chan);
/** The last one closes it: nothing is in flight and every stream has ended. */
void kv_chan_put(struct rt_task *t, struct kv_chan *chan);
struct kv_dev *kv_chan_dev(const struct kv_chan *chan);

/**
 * Submits one request on a channel of the current reactor. Never waits, never completes inside.
 * rc: 0; -ENOENT; -EEXIST; -ESTALE; -EFBIG value or -ENAMETOOLONG key too long; -EINVAL (key of
 * length 0, contradicting flags, more bytes written than declared, commit before all are);
 * -ENOSPC device full and unchanged; -EROFS; -ENOTSUP; -EBADMSG; -EIO the key is old or new,
 * never mixed; -ENODEV; -ECANCELED.
 */
void kv_submit(struct kv_chan *chan, struct kv_req *req);

/* For tasks. */
int kv_store(struct rt_task *t, struct kv_chan *chan, struct bytes key, struct bytes val,
             uint32_t flags);
/** Reads into buf from the value's start; *out_len is the value's length, which may be more. */
int kv_retrieve(struct rt_task *t, struct kv_chan *chan, struct bytes key, void *buf, size_t max,
                uint64_t *out_len);
int kv_stat(struct rt_task *t, struct kv_chan *chan, struct bytes key, uint64_t *out_len,
            uint64_t *out_version);
int kv_delete(struct rt_task *t, struct kv_chan *chan, struct bytes key);
/** Keys from `start` (KV_F_AFTER in flags: after it) with `prefix`; packed for kv_list_next. */
int kv_list(struct rt_task *t, struct kv_chan *chan, struct bytes start, struct bytes prefix,
            uint32_t flags, void *buf, size_t max, size_t *out_moved, bool *out_more);
int kv_flush(struct rt_task *t, struct kv_chan *chan);

/**
 * Claims: who may use the device how. Readers and shared writers (the front ends of one daemon) get
 * on with each other; exclusive (a layer that owns the format) gets on with nobody.
 */
enum kv_claim { KV_CLAIM_READ, KV_CLAIM_SHARED_WRITE, KV_CLAIM_EXCLUSIVE };
/**
 * `holder` is a static name for error texts. -EBUSY with text naming who holds it; -EROFS when the
 * device is read-only and the claim is not; -ENODEV.
 */
int kv_claim(struct kv_dev *dev, enum kv_claim claim, const char *holder, struct err *why);
void kv_unclaim(struct kv_dev *dev, enum kv_claim claim, const char *holder);

/**
 * Told, on the reactor that watches, when the device has been resized or has gone. Events that
 * come before the first was delivered are delivered as one. Set `fn`, zero the rest.
 */
enum kv_event { KV_EVENT_RESIZED, KV_EVENT_REMOVED };
struct kv_watch {
    void (*fn)(struct kv_watch *w, enum kv_event ev);
    struct rt_reactor *reactor;
    struct list link;
    struct rt_msg msg;
    uint32_t pending;
};
/** The current reactor watches. A device that has already gone says so at once (from the loop). */
void kv_watch_add(struct kv_dev *dev, struct kv_watch *w);
/** Any reactor. `fn` is not called any more once this has returned. */
void kv_watch_del(struct rt_task *t, struct kv_dev *dev, struct kv_watch *w);
/**
 * For drivers and administration, from any reactor: the device is gone. Requests get -ENODEV, the
 * next open of the URI opens anew. What is in flight the driver completes; streams still have to
 * be ended by their users.
 */
void kv_removed(struct kv_dev *dev);

/** Sums of all channels, as of now, those closed included. Waits (it asks each reactor). */
int kv_stats(struct rt_task *t, struct kv_dev *dev, struct kv_stats *out);

/* --- looking inside (look.c), where the driver can -------------------------------------------- */

enum kv_severity {
    KV_NOTE,    /* worth knowing */
    KV_WARNING, /* a loss of space, or damage to what is not needed */
    KV_ERROR,   /* a value or the index is damaged, or an account is wrong */
};
struct kv_finding {
    enum kv_severity severity;
    const char *structure; /* "leaf", "record", "segment", ... */
    uint64_t offset;       /* of it, in the device's own store; bytes */
    struct bytes key;      /* empty: of none */
    const char *text;      /* good until `found` returns */
};
struct kv_check_opts {
    void (*found)(void *arg, const struct kv_finding *f); /* must not wait */
    void *arg;
    bool quick; /* the index and its accounts only, no values */
};
struct kv_check_report {
    uint64_t errors, warnings, notes;
    uint64_t keys;        /* entries of the index, and of the log since its checkpoint */
    uint64_t value_bytes; /* that were read and are right */
    uint64_t live_bytes, segments_used, segments;
};
/**
 * Verifies what is stored; changes and repairs nothing. Others may use the device meanwhile: it is
 * checked as of the beginning. 0 when all could be looked at, whatever was found; -ENOTSUP the
 * driver cannot; -ESTALE it changed too fast; -ECANCELED it is being closed; -EIO, -ENOMEM, ...
 */
int kv_check(struct rt_task *t, struct kv_dev *dev, const struct kv_check_opts *opts,
             struct kv_check_report *out);
/** The driver's own counters and sizes, one call each. -ENOTSUP it has none. */
int kv_counters(struct rt_task *t, struct kv_dev *dev,
                void (*each)(void *arg, const char *name, uint64_t value), void *arg);

/* --- for drivers ------------------------------------------------------------------------------ */

struct kv_driver {
    const char *name;
    const char *help;
    const struct param *params;
    bool fragment; /* its URIs may end in #name (params->fragment) */
    size_t dev_bytes;
    size_t chan_bytes;
    /* All requests run on the reactor that opened the device; the layer carries them there. */
    bool home;
    /* Those that need it do: the driver hands them over by kv_to_home(). Meant for snapshots: the
     * device has a channel there when the driver offers KV_CAP_SNAPSHOT. */
    bool some_home;
    /* For drivers whose devices have parts on several reactors: what kv_to_reactor() has carried
     * arrives here, on that reactor, whether or not the device has a channel there. */
    void (*arrive)(struct kv_dev *dev, struct kv_req *req);
    /* path: what stands between "scheme:" and "?"; fill in `info`. May wait. */
    int (*open)(struct rt_task *t, struct kv_dev *dev, const char *path,
                const struct param_values *params, struct kv_info *info, struct err *why);
    /* Whether an open device is the one this URI names: 1, 0, or an errno with text when it is but
     * contradicts. NULL: it is when the URIs are the same text. Never waits; any reactor. */
    int (*same)(struct kv_dev *dev, const char *path, const struct param_values *params,
                struct err *why);
    /* On the reactor of open; nothing is in flight. */
    void (*close)(struct rt_task *t, struct kv_dev *dev);
    int (*chan_open)(struct rt_task *t, struct kv_dev *dev, struct kv_chan *chan); /* may be NULL */
    void (*chan_close)(struct rt_task *t, struct kv_chan *chan);                   /* may be NULL */
    /* Checked and within caps. COMMIT comes only when everything declared was written and nothing
     * failed, else the layer sends ABORT; the driver's stream ends with either, whatever rc.
     * Without KV_CAP_RANGE the READs of a stream come in order, one at a time. */
    void (*submit)(struct kv_chan *chan, struct kv_req *req);
    void (*cancel)(struct kv_chan *chan, struct kv_req *req); /* may be NULL */
    int (*usage)(struct rt_task *t, struct kv_dev *dev, uint64_t *out_used, uint64_t *out_keys);
    /* These may be NULL; on the home reactor, if the driver has one. */
    int (*check)(struct rt_task *t, struct kv_dev *dev, const struct kv_check_opts *opts,
                 struct kv_check_report *out);
    int (*counters)(struct rt_task *t, struct kv_dev *dev,
                    void (*each)(void *arg, const char *name, uint64_t value), void *arg);
    void (*abandon)(struct kv_dev *dev); /* see kv_abandon(); NULL: nothing to free */
    /* Runs a query where the device is, see kv/select.h; on the channel's reactor. May be NULL. */
    int (*select)(struct rt_task *t, struct kv_chan *chan, const struct kv_select *q,
                  struct kv_select_result *res, struct err *why);
};

void *kv_driver_dev(const struct kv_dev *dev);
void *kv_driver_chan(const struct kv_chan *chan);
/** The channel of the home reactor, for drivers that have one and act on their own. */
struct kv_chan *kv_home_chan(const struct kv_dev *dev);
/**
 * In a driver's submit, on another reactor: the request is submitted to the driver again on the
 * home reactor, with the channel that is there. Its completion finds its way back.
 */
void kv_to_home(struct kv_req *req);
/** The same to any reactor but this one, for drivers with `arrive` (and without `cancel`). */
void kv_to_reactor(struct kv_req *req, struct rt_reactor *to);
/** In drivers: begins a step of another request, on the same channel. It is not checked and not
 * counted; the driver carries it out and completes it as any other. */
void kv_begin_step(struct kv_chan *chan, struct kv_req *step);
/** Completes a request from the driver (rc 0 or a negative errno), on the reactor it came to. */
void kv_complete(struct kv_req *req, int rc);

/**
 * For sim, after a simulated crash of the current runtime (rt_manual_enter, before
 * rt_manual_free with `abandon`): forgets its devices and frees their memory without any I/O.
 */
void kv_abandon(void);

extern const struct kv_driver *const kv_drivers[];

#endif
