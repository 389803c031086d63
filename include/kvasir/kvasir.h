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
 * Results and error texts are in kvasir/base.h, key-value devices in kvasir/kv.h; here are block
 * devices, discovery and event loops. A program that wants the key-value part only includes
 * kvasir/kv.h alone.
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

#include <kvasir/base.h>
#include <kvasir/kv.h>

#ifdef __cplusplus
extern "C" {
#endif

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

/* Flag of PUT, GET and STAT: nobody looks at op->version afterwards. Saves a round trip where
 * versions cost one. */
#define KVASIR_NO_VERSION (1u << 5)

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

#define KVASIR_SELECT_WAIT 1 /* of data(): go on when kvasir_select_resume() is called */

/**
 * A question on a loop. The memory is the caller's and stays, with the question and all that it
 * points to, until done() is called; from then on it may be used again or freed.
 */
struct kvasir_select_op {
    struct kvasir_select question;
    /**
     * Takes the next bytes of the answer. 0: goes on. KVASIR_SELECT_WAIT: the query stands still,
     * and the bytes stay, until it is resumed or cancelled: for a receiver that is slower. Less
     * than 0: ends the query, and is its rc.
     */
    int (*data)(struct kvasir_select_op *op, const void *buf, size_t len);
    void (*done)(struct kvasir_select_op *op);
    void *user; /* the caller's own */
    /* out */
    int rc; /* as kvasir_kv_select(); inside done() kvasir_error() has the text */
    struct kvasir_select_result result;
    /* The library's own. */
    void *opaque[4];
};

/**
 * Begins it; data() and done() are called from later turns, never inside. 0, or -EINVAL, -ENOMEM,
 * and it has not begun.
 */
KVASIR_API int kvasir_kv_select_submit(struct kvasir_kv *kv, struct kvasir_select_op *op);
/** After KVASIR_SELECT_WAIT. */
KVASIR_API void kvasir_select_resume(struct kvasir_select_op *op);
/** Asks that it end soon, before done(). done() is still called; data() is not, and what a waiting
 * one was given is gone. */
KVASIR_API void kvasir_select_cancel(struct kvasir_select_op *op);

#ifdef __cplusplus
}
#endif

#endif
