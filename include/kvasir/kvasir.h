/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libkvasir: key-value and block devices by URI, from C and everything that calls C.
 *
 *     struct kvasir_kv *kv;
 *     int rc = kvasir_open_kv("nvme+tcp://storage:4420/nqn.2026-11.io.kvasir:default", &kv);
 *
 *     if (rc < 0) {
 *         fprintf(stderr, "%s\n", kvasir_error());
 *         return 1;
 *     }
 *     rc = kvasir_kv_put(kv, "name", 4, "value", 5, 0);
 *     ...
 *     kvasir_close_kv(kv);
 *
 * Link with -lkvasir (pkg-config kvasir). URIs are those of the command line: `kvasir help uri`.
 *
 * RESULTS. Functions return 0 (or a count) when all went well and a negative errno otherwise:
 * -ENOENT no such key; -EEXIST it is there and must not be; -ESTALE it has another version;
 * -EINVAL an argument; -ERANGE outside the device; -EFBIG, -ENAMETOOLONG value, key too long for
 * the device; -ENOSPC full; -EROFS; -ENOTSUP the device cannot; -EBADMSG corrupt data; -EIO;
 * -ENODEV the device has gone for good; -ECONNRESET the connection ended before the answer, and
 * nobody knows whether it was done; -EILSEQ compare found a difference; -EBUSY in use; -EACCES;
 * -ECANCELED; -ETIMEDOUT; -ENOMEM; -EPROTO; -EDEADLK a blocking call inside a callback.
 * Outputs (`out_x`) are set on success only and may be NULL where the text says so.
 *
 * TWO FORMS. The synchronous calls may come from any number of threads; each waits until it is
 * done. The library works on a thread of its own, which lives while something is open. The
 * event-loop form (kvasir_loop_*) has no thread: its owner turns it, and results come to callbacks.
 * A device belongs to the form in which it was opened; using it in the other one is -EINVAL.
 * Calling a synchronous function inside a callback of a loop is -EDEADLK.
 *
 * The library does not fork, print, or touch signals; after a fork only the parent may use it.
 * Everything it exports begins with kvasir_ or KVASIR_.
 */
#ifndef KVASIR_KVASIR_H
#define KVASIR_KVASIR_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define KVASIR_API __attribute__((visibility("default")))

/** "0.1.0" */
KVASIR_API const char *kvasir_version(void);
/**
 * The text of the last call of this thread that failed, for people: "127.0.0.1:4420: connection
 * refused: no target listens there". Stays until the next failure. Never NULL.
 */
KVASIR_API const char *kvasir_error(void);
/** A few words for an error code: "not found". Never NULL. */
KVASIR_API const char *kvasir_strerror(int rc);

/* --- key-value devices ------------------------------------------------------------------------ */

struct kvasir_kv;

/* What a device can beyond the core (kvasir_kv_info.caps). */
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

/* Flags of storing and deleting. */
#define KVASIR_MUST_EXIST (1u << 0)     /* -ENOENT when the key is not there */
#define KVASIR_MUST_NOT_EXIST (1u << 1) /* -EEXIST when it is */
#define KVASIR_IF_VERSION (1u << 2)     /* -ESTALE unless it has the version given */
#define KVASIR_APPEND (1u << 3)         /* add to the value; makes the key when it is not there */

/* Event loops only, PUT, GET and STAT: nobody looks at op->version afterwards. Saves a round trip
 * where versions cost one. */
#define KVASIR_NO_VERSION (1u << 5)

#define KVASIR_LEN_UNKNOWN UINT64_MAX

/** Opens the KV device of a URI. -EINVAL when it is a block device. */
KVASIR_API int kvasir_open_kv(const char *uri, struct kvasir_kv **out_kv);
/**
 * Closes it; no call of another thread may be under way, and its streams have ended. NULL is fine.
 * Fails, and leaves it open, only inside a callback (-EDEADLK) or for the other form (-EINVAL).
 */
KVASIR_API int kvasir_close_kv(struct kvasir_kv *kv);
KVASIR_API void kvasir_kv_info(const struct kvasir_kv *kv, struct kvasir_kv_info *out_info);

/**
 * Stores a value, replacing what was there. It is visible whole or not at all, and durable on
 * return unless the device has a volatile cache. Keys have 1 to key_max bytes, of any kind.
 */
KVASIR_API int kvasir_kv_put(struct kvasir_kv *kv, const void *key, size_t key_len,
                             const void *val, size_t val_len, unsigned flags);
/**
 * The same with versions (KVASIR_CAP_VERSION): `version` is compared with KVASIR_IF_VERSION,
 * *out_version (may be NULL) is that of the value stored.
 */
KVASIR_API int kvasir_kv_put_version(struct kvasir_kv *kv, const void *key, size_t key_len,
                                     const void *val, size_t val_len, unsigned flags,
                                     uint64_t version, uint64_t *out_version);
/**
 * Reads up to `max` bytes of a value from its start. *out_len is the length of the value, which may
 * be more than `max`; then the first `max` bytes are in buf.
 */
KVASIR_API int kvasir_kv_get(struct kvasir_kv *kv, const void *key, size_t key_len, void *buf,
                             size_t max, uint64_t *out_len);
/**
 * Reads up to `len` bytes from `off`. Returns 0 and *out_moved bytes (fewer at the value's end);
 * out_len and out_version may be NULL.
 */
KVASIR_API int kvasir_kv_get_range(struct kvasir_kv *kv, const void *key, size_t key_len,
                                   uint64_t off, void *buf, size_t len, size_t *out_moved,
                                   uint64_t *out_len, uint64_t *out_version);
/** Whether a key is there: 0 or -ENOENT; its length and version (either may be NULL). */
KVASIR_API int kvasir_kv_stat(struct kvasir_kv *kv, const void *key, size_t key_len,
                              uint64_t *out_len, uint64_t *out_version);
/** Deletes a key. -ENOENT when it is not there. `version` counts with KVASIR_IF_VERSION. */
KVASIR_API int kvasir_kv_delete(struct kvasir_kv *kv, const void *key, size_t key_len,
                                unsigned flags, uint64_t version);
/**
 * Calls each(arg, key, key_len) for the keys that begin with `prefix`, from `start` on; both may be
 * empty (NULL, 0). It is called in the calling thread and may use the device. When it returns other
 * than 0 the list ends, and that is returned.
 */
KVASIR_API int kvasir_kv_list(struct kvasir_kv *kv, const void *prefix, size_t prefix_len,
                              const void *start, size_t start_len,
                              int (*each)(void *arg, const void *key, size_t key_len), void *arg);
/** Makes everything stored before it durable. */
KVASIR_API int kvasir_kv_flush(struct kvasir_kv *kv);

/*
 * Values of any size, in pieces. A stream is used by one thread at a time and ends with exactly one
 * of commit, abort, get_end.
 */
struct kvasir_put;
struct kvasir_get;

/** Begins to store a value of `len` bytes, or KVASIR_LEN_UNKNOWN where the device takes it. */
KVASIR_API int kvasir_put_begin(struct kvasir_kv *kv, const void *key, size_t key_len,
                                uint64_t len, unsigned flags, uint64_t version,
                                struct kvasir_put **out_put);
KVASIR_API int kvasir_put_data(struct kvasir_put *put, const void *data, size_t len);
/** Nothing is visible before it; then all is. The stream is gone, whatever comes back. */
KVASIR_API int kvasir_put_commit(struct kvasir_put *put, uint64_t *out_version);
/** As if it had never begun. NULL is fine. */
KVASIR_API int kvasir_put_abort(struct kvasir_put *put);

/** Begins to read: all pieces are of one version. out_len and out_version may be NULL. */
KVASIR_API int kvasir_get_begin(struct kvasir_kv *kv, const void *key, size_t key_len,
                                struct kvasir_get **out_get, uint64_t *out_len,
                                uint64_t *out_version);
/** Reads at `off`; fewer than `len` bytes at the end of the value, 0 after it. Going back needs
 * KVASIR_CAP_RANGE. */
KVASIR_API int kvasir_get_data(struct kvasir_get *get, uint64_t off, void *buf, size_t len,
                               size_t *out_moved);
KVASIR_API int kvasir_get_end(struct kvasir_get *get);

/* --- block devices ---------------------------------------------------------------------------- */

struct kvasir_blk;

#define KVASIR_BLK_READ_ONLY (1u << 0)
#define KVASIR_BLK_VOLATILE_CACHE (1u << 7) /* writes are durable after kvasir_blk_flush() */

struct kvasir_blk_info {
    uint32_t block_bytes;
    uint64_t nblocks;    /* may grow while the device is open */
    uint32_t caps;       /* KVASIR_BLK_* */
    uint8_t uuid[16];
};

#define KVASIR_FUA (1u << 0)   /* write, zero: durable on return */
#define KVASIR_UNMAP (1u << 1) /* zero: may give the blocks back as well */

/** Opens the block device of a URI. -EINVAL when it is a KV device. */
KVASIR_API int kvasir_open_blk(const char *uri, struct kvasir_blk **out_blk);
KVASIR_API int kvasir_close_blk(struct kvasir_blk *blk);
KVASIR_API void kvasir_blk_info(const struct kvasir_blk *blk, struct kvasir_blk_info *out_info);

/* Offsets and lengths are bytes and multiples of block_bytes, else -EINVAL. */
KVASIR_API int kvasir_blk_read(struct kvasir_blk *blk, void *buf, uint64_t off, size_t len);
KVASIR_API int kvasir_blk_write(struct kvasir_blk *blk, const void *buf, uint64_t off, size_t len,
                                unsigned flags);
KVASIR_API int kvasir_blk_flush(struct kvasir_blk *blk);
KVASIR_API int kvasir_blk_zero(struct kvasir_blk *blk, uint64_t off, uint64_t len, unsigned flags);
/** Gives blocks back. What they read as afterwards is the device's choice. */
KVASIR_API int kvasir_blk_unmap(struct kvasir_blk *blk, uint64_t off, uint64_t len);

/* --- discovery -------------------------------------------------------------------------------- */

struct kvasir_subsystem {
    const char *nqn;
    const char *addr;      /* "192.0.2.7" */
    const char *port;      /* "4420" */
    const char *transport; /* "tcp", "rdma", "fc", "loop" */
    int is_discovery;      /* another discovery service, not a subsystem with namespaces */
    int needs_tls;
};

/**
 * Asks the NVMe/TCP discovery service at "host:port" (port 8009 when it is absent) what `hostnqn`
 * (NULL: this machine) may connect to, and calls each(arg, subsystem) for every entry, in the
 * calling thread; the texts are good during the call. Ends as kvasir_kv_list() does.
 */
KVASIR_API int kvasir_discover(const char *address, const char *hostnqn,
                               int (*each)(void *arg, const struct kvasir_subsystem *s), void *arg);

/* --- event loops ------------------------------------------------------------------------------ */

/*
 * A loop is turned by its owner:
 *
 *     struct pollfd p = {.fd = kvasir_loop_fd(loop), .events = POLLIN};
 *
 *     for (;;) {
 *         poll(&p, 1, kvasir_loop_timeout_ms(loop));
 *         kvasir_loop_turn(loop);
 *     }
 *
 * A loop, its devices and its operations are used by one thread at a time. Callbacks run inside
 * kvasir_loop_turn(); they may submit, open and close, and must not turn or free the loop.
 */
struct kvasir_loop;

KVASIR_API int kvasir_loop_new(struct kvasir_loop **out_loop);
/** Everything of it has been closed and completed. */
KVASIR_API void kvasir_loop_free(struct kvasir_loop *loop);
/** Readable when there is something to do. */
KVASIR_API int kvasir_loop_fd(const struct kvasir_loop *loop);
/** Turn it at the latest after so many ms; -1: no hurry. Ask again after each turn and submit. */
KVASIR_API int kvasir_loop_timeout_ms(const struct kvasir_loop *loop);
KVASIR_API void kvasir_loop_turn(struct kvasir_loop *loop);

/**
 * Opens a device for this loop. opened(arg, rc, device) is called later; with rc < 0 the device is
 * NULL and kvasir_error() has the text. Returns 0, or why it could not even begin.
 */
KVASIR_API int kvasir_loop_open_kv(struct kvasir_loop *loop, const char *uri,
                                   void (*opened)(void *arg, int rc, struct kvasir_kv *kv),
                                   void *arg);
KVASIR_API int kvasir_loop_open_blk(struct kvasir_loop *loop, const char *uri,
                                    void (*opened)(void *arg, int rc, struct kvasir_blk *blk),
                                    void *arg);
/** Closes; closed(arg) is called when it is done (may be NULL). No operation is under way. */
KVASIR_API int kvasir_loop_close_kv(struct kvasir_kv *kv, void (*closed)(void *arg), void *arg);
KVASIR_API int kvasir_loop_close_blk(struct kvasir_blk *blk, void (*closed)(void *arg), void *arg);

enum kvasir_op_code {
    KVASIR_OP_PUT,       /* kv: key, buf, len, flags, version; out: version */
    KVASIR_OP_GET,       /* kv: key, off, buf, len; out: moved, value_len, version */
    KVASIR_OP_STAT,      /* kv: key; out: value_len, version */
    KVASIR_OP_DELETE,    /* kv: key, flags, version */
    KVASIR_OP_KV_FLUSH,  /* kv */
    KVASIR_OP_READ,      /* blk: off, buf, len */
    KVASIR_OP_WRITE,     /* blk: off, buf, len, flags */
    KVASIR_OP_ZERO,      /* blk: off, len (up to 2^32 - 1 blocks), flags */
    KVASIR_OP_UNMAP,     /* blk: off, len */
    KVASIR_OP_BLK_FLUSH, /* blk */
};

/**
 * One operation. The memory is the caller's and stays, with key and buffer, until done() is called;
 * from then on it may be used again or freed, also inside done(). Nothing is allocated.
 */
struct kvasir_op {
    uint32_t code;   /* enum kvasir_op_code */
    uint32_t flags;
    const void *key;
    size_t key_len;
    void *buf;       /* read from by PUT and WRITE */
    uint64_t len;
    uint64_t off;
    uint64_t version;
    void (*done)(struct kvasir_op *op);
    void *user;      /* the caller's own */
    /* out */
    int rc;
    uint64_t moved;
    uint64_t value_len;
    /* The library's own. */
    uint64_t opaque[128];
};

/** Begins an operation; done() is called from a later turn, never inside. 0 or -EINVAL. */
KVASIR_API int kvasir_kv_submit(struct kvasir_kv *kv, struct kvasir_op *op);
KVASIR_API int kvasir_blk_submit(struct kvasir_blk *blk, struct kvasir_op *op);
/** Asks that an operation end soon. done() is still called, with -ECANCELED or as if not asked. */
KVASIR_API void kvasir_cancel(struct kvasir_op *op);

#ifdef __cplusplus
}
#endif

#endif
