/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Key-value devices: the engine in a file or on a disk, and everything else that a URI names.
 *
 *     struct kvasir_kv *kv;
 *     int rc = kvasir_open_kv("blob:/var/lib/app/data", &kv);
 *
 *     if (rc < 0) {
 *         fprintf(stderr, "%s\n", kvasir_error());
 *         return 1;
 *     }
 *     rc = kvasir_kv_put(kv, "name", 4, "value", 5, 0);
 *     ...
 *     kvasir_close_kv(kv);
 *
 * Link with -lkvasir (pkg-config kvasir). docs/tutorial-kv.md goes through all of it in one page.
 *
 * SHAPES. A key has 1 to key_max bytes of any kind (2,048 on the engine), compared as unsigned
 * bytes, a shorter one before those that it begins. A value has 0 to val_max bytes. Keys and values
 * are given as pointer and length; nothing ends in a NUL.
 *
 * OWNERSHIP. What a call is given stays the caller's and is not kept; the call has done with it
 * when it returns. What a call gives out belongs to the caller where the text says so (free it with
 * free()), and else is good until the next call on the same object.
 *
 * THREADS. Everything here is synchronous and may be called from any number of threads at once, on
 * the same device too: calls of several threads are carried out together, so that durable puts of
 * 32 threads share their flushes. Iterators and streams are used by one thread at a time. Every
 * call waits until it is done, unless its text says "never waits"; none may be made inside a
 * callback of an event loop (-EDEADLK). Without threads: kvasir_loop_* in kvasir/kvasir.h.
 *
 * RESULTS. See kvasir/base.h. Any call may also fail with -EIO (the device), -EBADMSG (what is
 * stored there is damaged), -ENODEV (the device has gone), -ECONNRESET (NVMe/TCP: nobody knows
 * whether it was done), -ENOMEM. Each text names those of its own.
 */
#ifndef KVASIR_KV_H
#define KVASIR_KV_H

#include <kvasir/base.h>

#ifdef __cplusplus
extern "C" {
#endif

/* --- open and close --------------------------------------------------------------------------- */

struct kvasir_kv;

/**
 * Opens the key-value device of a URI: "blob:PATH" the engine, in a file (made when it is not
 * there) or on a block device; "mem:", "dir:PATH", "nvme+tcp://HOST:PORT/NQN?nsid=1"; `kvasir help
 * uri` has them all with their parameters. A device that this process has open already is shared.
 * *out_kv is the caller's until kvasir_close_kv().
 * -EINVAL the URI, or a block device; -ENOENT; -EACCES; -EBUSY another process has it.
 */
KVASIR_API int kvasir_open_kv(const char *uri, struct kvasir_kv **out_kv);

/** A parameter of a URI: {"size", "10G"}. `value` is plain text, not percent-encoded. */
struct kvasir_option {
    const char *name;
    const char *value;
};
/**
 * The same with parameters added to those in the URI. -EINVAL also for one that the device does not
 * know, or that is there twice; -ENAMETOOLONG together they exceed 2,047 bytes.
 */
KVASIR_API int kvasir_open_kv_with(const char *uri, const struct kvasir_option *options,
                                   size_t noptions, struct kvasir_kv **out_kv);

/**
 * Closes it; no call of another thread may be under way, and its streams, iterators and snapshots
 * have ended. NULL is fine. Fails, and leaves it open, only inside a callback (-EDEADLK) or for a
 * device of an event loop (-EINVAL).
 */
KVASIR_API int kvasir_close_kv(struct kvasir_kv *kv);

/* What a device can beyond the core (kvasir_kv_info.caps). The engine can all of it. */
#define KVASIR_CAP_RANGE (1u << 0)        /* reading at an offset costs no reading from 0 */
#define KVASIR_CAP_VERSION (1u << 1)      /* values have versions; KVASIR_IF_VERSION works */
#define KVASIR_CAP_APPEND (1u << 2)
#define KVASIR_CAP_UNKNOWN_LEN (1u << 3)  /* streams with KVASIR_LEN_UNKNOWN */
#define KVASIR_CAP_ORDERED_LIST (1u << 4) /* lists are in the order of the keys' bytes */
#define KVASIR_CAP_BATCH (1u << 5)
#define KVASIR_CAP_SNAPSHOT (1u << 6)
#define KVASIR_CAP_READ_ONLY (1u << 7)
#define KVASIR_CAP_VOLATILE_CACHE (1u << 8) /* kvasir_kv_flush() makes durable what was stored */

struct kvasir_kv_info {
    uint32_t key_max;       /* bytes */
    uint64_t val_max;       /* bytes */
    uint32_t caps;          /* KVASIR_CAP_* */
    uint64_t size_bytes;    /* capacity; 0: not known */
    uint32_t nkeys_max;     /* 0: not stated */
    uint32_t optimal_bytes; /* granularity that suits the device; 0: none */
    uint8_t uuid[16];
};
/** Never waits, never fails. */
KVASIR_API void kvasir_kv_info(const struct kvasir_kv *kv, struct kvasir_kv_info *out_info);

/* --- one value -------------------------------------------------------------------------------- */

/* Flags of storing and deleting. */
#define KVASIR_MUST_EXIST (1u << 0)     /* -ENOENT when the key is not there */
#define KVASIR_MUST_NOT_EXIST (1u << 1) /* -EEXIST when it is */
#define KVASIR_IF_VERSION (1u << 2)     /* -ESTALE unless it has the version given */
#define KVASIR_APPEND (1u << 3)         /* add to the value; makes the key when it is not there */

/**
 * Stores a value, replacing what was there. It is visible whole or not at all, and durable on
 * return unless the device has a volatile cache. flags: KVASIR_MUST_EXIST, KVASIR_MUST_NOT_EXIST,
 * KVASIR_APPEND (KVASIR_CAP_APPEND).
 * -ENOENT, -EEXIST by the flags; -ENAMETOOLONG, -EFBIG; -ENOSPC full, and nothing has changed;
 * -EROFS; -EINVAL an empty key, or flags that contradict each other. After -EIO the key is old or
 * new, never mixed.
 */
KVASIR_API int kvasir_kv_put(struct kvasir_kv *kv, const void *key, size_t key_len,
                             const void *val, size_t val_len, unsigned flags);
/**
 * The same with versions (KVASIR_CAP_VERSION): `version` is compared with KVASIR_IF_VERSION
 * (-ESTALE another one, or no key), *out_version (may be NULL) is that of the value stored.
 * Versions of a key grow with each change and are never used twice.
 */
KVASIR_API int kvasir_kv_put_version(struct kvasir_kv *kv, const void *key, size_t key_len,
                                     const void *val, size_t val_len, unsigned flags,
                                     uint64_t version, uint64_t *out_version);
/** Adds to the end of a value: kvasir_kv_put() with KVASIR_APPEND. -ENOTSUP the device cannot. */
KVASIR_API int kvasir_kv_append(struct kvasir_kv *kv, const void *key, size_t key_len,
                                const void *val, size_t val_len);

/**
 * Reads up to `max` bytes of a value from its start. *out_len is the length of the value, which may
 * be more than `max`; then the first `max` bytes are in buf. -ENOENT.
 */
KVASIR_API int kvasir_kv_get(struct kvasir_kv *kv, const void *key, size_t key_len, void *buf,
                             size_t max, uint64_t *out_len);
/**
 * Reads a whole value into memory of its own: *out_val belongs to the caller, who calls free(). It
 * is followed by a byte 0 that does not count, and is never NULL. All of it is of one version.
 * -ENOENT; -EFBIG it is longer than `max`, of which nothing is read; -ENOMEM.
 */
KVASIR_API int kvasir_kv_get_alloc(struct kvasir_kv *kv, const void *key, size_t key_len,
                                   size_t max, void **out_val, size_t *out_len);
/**
 * Reads up to `len` bytes from `off`. Returns 0 and *out_moved bytes (fewer at the value's end, 0
 * after it); out_moved, out_len and out_version may be NULL. -ENOENT.
 */
KVASIR_API int kvasir_kv_get_range(struct kvasir_kv *kv, const void *key, size_t key_len,
                                   uint64_t off, void *buf, size_t len, size_t *out_moved,
                                   uint64_t *out_len, uint64_t *out_version);
/** Whether a key is there: 0 or -ENOENT; its length and version (either may be NULL). */
KVASIR_API int kvasir_kv_stat(struct kvasir_kv *kv, const void *key, size_t key_len,
                              uint64_t *out_len, uint64_t *out_version);
/** The same as a question: 1 it is there, 0 it is not, or a negative errno. */
KVASIR_API int kvasir_kv_exists(struct kvasir_kv *kv, const void *key, size_t key_len);

/**
 * Deletes a key; durable like a put. -ENOENT when it is not there. flags: KVASIR_IF_VERSION, with
 * which `version` counts (-ESTALE). Works on a device that is full.
 */
KVASIR_API int kvasir_kv_delete(struct kvasir_kv *kv, const void *key, size_t key_len,
                                unsigned flags, uint64_t version);

/** Makes everything stored before it durable: nothing to do unless KVASIR_CAP_VOLATILE_CACHE. */
KVASIR_API int kvasir_kv_flush(struct kvasir_kv *kv);

/* --- several changes at once ------------------------------------------------------------------ */

#define KVASIR_BATCH_DELETE 1u /* takes the key away; no error when it is not there */

struct kvasir_change {
    const void *key;
    size_t key_len;
    const void *val; /* not looked at with KVASIR_BATCH_DELETE */
    size_t val_len;
    unsigned flags;  /* 0 or KVASIR_BATCH_DELETE */
};

/**
 * Makes all changes or none, now and after any crash (KVASIR_CAP_BATCH). Of two changes of one key
 * the later one counts. -ENOTSUP; -EFBIG together they exceed what the device takes at once;
 * -ENOSPC and nothing has changed; -ENAMETOOLONG; -EROFS; -EINVAL.
 */
KVASIR_API int kvasir_kv_batch(struct kvasir_kv *kv, const struct kvasir_change *changes,
                               size_t nchanges);

/* --- lists ------------------------------------------------------------------------------------ */

/**
 * Calls each(arg, key, key_len) for the keys that begin with `prefix`, from `start` on; both may be
 * empty (NULL, 0). It is called in the calling thread and may use the device; the key is good
 * during the call. When it returns other than 0 the list ends, and that is returned. In the order
 * of the keys with KVASIR_CAP_ORDERED_LIST, else in one of the device's own. Keys that come or go
 * meanwhile may be missed or met; a snapshot lists one moment.
 */
KVASIR_API int kvasir_kv_list(struct kvasir_kv *kv, const void *prefix, size_t prefix_len,
                              const void *start, size_t start_len,
                              int (*each)(void *arg, const void *key, size_t key_len), void *arg);

/* The same, a key at a time. */
struct kvasir_iter;

#define KVASIR_AFTER (1u << 4) /* begin after `start` instead of at it */

/**
 * Begins to list. To go on later, or in another process: keep the last key, and begin with it as
 * `start` and KVASIR_AFTER. Never waits. The iterator is the caller's until kvasir_iter_end().
 */
KVASIR_API int kvasir_iter_begin(struct kvasir_kv *kv, const void *prefix, size_t prefix_len,
                                 const void *start, size_t start_len, unsigned flags,
                                 struct kvasir_iter **out_iter);
/** 1 and the next key, 0 at the end, or a negative errno. The key is good until the next call. */
KVASIR_API int kvasir_iter_next(struct kvasir_iter *iter, const void **out_key,
                                size_t *out_key_len);
/** Never waits. NULL is fine. */
KVASIR_API void kvasir_iter_end(struct kvasir_iter *iter);

/* --- values of any size, in pieces ------------------------------------------------------------ */

/*
 * A stream is used by one thread at a time and ends with exactly one of commit, abort, get_end. No
 * more than a few pieces are held in memory, whatever the length of the value.
 */
struct kvasir_put;
struct kvasir_get;

#define KVASIR_LEN_UNKNOWN UINT64_MAX

/**
 * Begins to store a value of `len` bytes, or KVASIR_LEN_UNKNOWN where the device takes it
 * (KVASIR_CAP_UNKNOWN_LEN). flags and version as for kvasir_kv_put_version(); they count at the
 * commit. -EFBIG, -ENAMETOOLONG, -EROFS, -EINVAL, -ENOTSUP.
 */
KVASIR_API int kvasir_put_begin(struct kvasir_kv *kv, const void *key, size_t key_len,
                                uint64_t len, unsigned flags, uint64_t version,
                                struct kvasir_put **out_put);
/** The next bytes of the value. -ENOSPC; -EINVAL more than was declared. The stream stays. */
KVASIR_API int kvasir_put_data(struct kvasir_put *put, const void *data, size_t len);
/**
 * Nothing is visible before it; then all is, and is durable. The stream is gone, whatever comes
 * back. -EINVAL less was given than declared; -ENOENT, -EEXIST, -ESTALE by the flags.
 */
KVASIR_API int kvasir_put_commit(struct kvasir_put *put, uint64_t *out_version);
/** As if it had never begun. NULL is fine. */
KVASIR_API int kvasir_put_abort(struct kvasir_put *put);

/**
 * Begins to read: all pieces are of one version, also when the key is changed or deleted meanwhile.
 * out_len and out_version may be NULL. -ENOENT.
 */
KVASIR_API int kvasir_get_begin(struct kvasir_kv *kv, const void *key, size_t key_len,
                                struct kvasir_get **out_get, uint64_t *out_len,
                                uint64_t *out_version);
/** Reads at `off`; fewer than `len` bytes at the end of the value, 0 after it. Going back needs
 * KVASIR_CAP_RANGE. */
KVASIR_API int kvasir_get_data(struct kvasir_get *get, uint64_t off, void *buf, size_t len,
                               size_t *out_moved);
/** NULL is fine. */
KVASIR_API int kvasir_get_end(struct kvasir_get *get);

/* --- questions -------------------------------------------------------------------------------- */

struct kvasir_key {
    const void *ptr;
    size_t len;
};

#define KVASIR_HEADER_AUTO 0
#define KVASIR_HEADER_YES 1
#define KVASIR_HEADER_NO 2

/** A question about objects as one table. Zeroed means: found out, or the default. */
struct kvasir_select {
    const char *sql;               /* one SELECT; any table name, such as s3object */
    const struct kvasir_key *keys; /* of the objects, one after the other */
    size_t nkeys;                  /* 0: all objects whose key begins with `prefix` */
    const void *prefix;
    size_t prefix_len;
    const char *input;  /* "csv", "json", "jsonl", "parquet"; NULL: by the object's first bytes */
    const char *output; /* "csv" (NULL), "json", "jsonl", "parquet", "arrow" (an IPC stream) */
    const char *schema; /* "NAME TYPE, NAME TYPE"; NULL: found out, and remembered */
    int header;         /* CSV input: KVASIR_HEADER_* */
    int header_out;     /* CSV output: names of the columns first */
    char delim, quote, escape; /* CSV input */
    uint64_t timeout_ms;       /* 0: 60 s; at most 5 minutes, or what a target says */
};

struct kvasir_select_result {
    uint64_t rows;         /* of the answer; UINT64_MAX: not known */
    uint64_t result_bytes;
    uint64_t object_bytes; /* size of all objects of the table */
    uint64_t read_bytes;   /* of them read from the device */
    int pushed;            /* the device ran it, and only the answer came here */
};

/**
 * Asks, and calls data(arg, buf, len) in the calling thread for each piece of the answer; the
 * query waits meanwhile. When it returns other than 0 the query ends, and that is returned. A
 * device of another Kvasir runs the query itself; else it runs here, in a process that can touch
 * nothing but these objects. Nothing of the answer may be used when the call fails, and
 * kvasir_error() says what is wrong with the statement. out_result may be NULL.
 * -EINVAL the statement, or it is not allowed; -ENOENT no such object; -EBADMSG an object is not
 * what the format says; -ENOMEM, -ETIMEDOUT, -EDQUOT a limit of memory, time, answer; -EAGAIN too
 * many wait; -ENOTSUP the engine or its program is not installed; -ESTALE an object changed while
 * it was read; -EPIPE the process died. On an event loop: kvasir_kv_select_submit().
 */
KVASIR_API int kvasir_kv_select(struct kvasir_kv *kv, const struct kvasir_select *question,
                                int (*data)(void *arg, const void *buf, size_t len), void *arg,
                                struct kvasir_select_result *out_result);

/* --- snapshots -------------------------------------------------------------------------------- */

/**
 * The device as it is now (KVASIR_CAP_SNAPSHOT): *out_snap is read like a device, with every call
 * above that reads, stays what it is while the device goes on, and is closed by kvasir_close_kv()
 * before the device is. What it shows is kept from being given back as long as it is open; it does
 * not outlive the process. Changes of it are -EROFS, a snapshot of it is -EINVAL. -ENOTSUP.
 */
KVASIR_API int kvasir_kv_snapshot(struct kvasir_kv *kv, struct kvasir_kv **out_snap);

/* --- how it is doing -------------------------------------------------------------------------- */

/** Operations of one kind since the device was opened by this process. */
struct kvasir_op_stats {
    uint64_t ops;
    uint64_t errors;
    uint64_t bytes;
    uint64_t p50_ns, p99_ns, p999_ns; /* within 12.5 % */
};

struct kvasir_kv_stats {
    uint64_t used_bytes; /* 0: not known */
    uint64_t nkeys;      /* 0: none, or not known */
    struct kvasir_op_stats put;    /* streams count at their commit */
    struct kvasir_op_stats get;    /* pieces of streams are gets */
    struct kvasir_op_stats stat;
    struct kvasir_op_stats del;
    struct kvasir_op_stats list;   /* pages of keys */
    struct kvasir_op_stats flush;
};

/** Counts of all users of the device in this process, of a snapshot those of its device. */
KVASIR_API int kvasir_kv_stats(struct kvasir_kv *kv, struct kvasir_kv_stats *out_stats);

/**
 * The device's own counters and sizes, those of `kvasir stats`: calls each(arg, name, value), in
 * the calling thread, for each of them; the names are good during the call. Ends as
 * kvasir_kv_list() does. -ENOTSUP it has none.
 */
KVASIR_API int kvasir_kv_counters(struct kvasir_kv *kv,
                                  int (*each)(void *arg, const char *name, uint64_t value),
                                  void *arg);

#define KVASIR_NOTE 0    /* worth knowing */
#define KVASIR_WARNING 1 /* a loss of space, or damage to what is not needed */
#define KVASIR_DAMAGE 2  /* a value or the index is damaged, or an account is wrong */

struct kvasir_finding {
    int severity;          /* KVASIR_NOTE, KVASIR_WARNING, KVASIR_DAMAGE */
    const char *structure; /* "leaf", "record", "segment", ... */
    uint64_t offset;       /* of it, in the device's own store; bytes */
    const void *key;       /* of the value that it concerns */
    size_t key_len;        /* 0: of none */
    const char *text;
};

struct kvasir_check_report {
    uint64_t errors, warnings, notes;
    uint64_t keys;
    uint64_t value_bytes; /* that were read and are right */
};

#define KVASIR_CHECK_QUICK 1u /* the index and its accounts only, no values */

/**
 * Verifies all that is stored and repairs nothing. Others may change the device meanwhile; opened
 * for reading only ({"readonly", "yes"}) it is seen as a crash left it. Calls each(arg, finding),
 * in the calling thread, for the first 10,000 findings once all has been looked at; `each` may be
 * NULL, and what it is given is good during the call. When it returns other than 0 that is the
 * end, and is returned. Else 0, whatever was found: out_report has the numbers of all. -ENOTSUP the
 * device cannot; -ESTALE it changes too fast.
 */
KVASIR_API int kvasir_kv_check(struct kvasir_kv *kv, unsigned flags,
                               int (*each)(void *arg, const struct kvasir_finding *finding),
                               void *arg, struct kvasir_check_report *out_report);

#ifdef __cplusplus
}
#endif

#endif
