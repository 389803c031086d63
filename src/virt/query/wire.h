/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the daemon and its query workers say to each other. Neither trusts the other's bytes.
 *
 * The daemon starts one zygote (kvasir-query), which opens the engine once. Between them: a
 * SOCK_SEQPACKET pair, descriptor QW_ZYGOTE_FD in the zygote, one struct qw_ctl a message. QW_SPAWN
 * carries two descriptors: the worker's end of a SOCK_STREAM pair, and a memfd, the window. The
 * zygote forks a worker, which gives up what it does not need, waits on its stream for QW_QUERY,
 * answers it, waits until the daemon has closed the stream, and exits: a worker sees one query.
 *
 * On the stream each message is a struct qw_head and `len` bytes. The objects of a query are
 * numbered from 0. A worker reads them with QW_READ into a slot of the window, which is the
 * worker's to choose and must not be in use; several may be under way. The daemon answers each
 * with QW_DATA when the bytes are there.
 */
#ifndef KVASIR_VIRT_QUERY_WIRE_H
#define KVASIR_VIRT_QUERY_WIRE_H

#include "base/endian.h"

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>

#define QW_ZYGOTE_FD 3
#define QW_VERSION 2u

enum qw_ctl_type {
    QW_READY = 1, /* from the zygote, once: value = QW_VERSION; the engine is open */
    QW_SPAWN,     /* to it: tag, two descriptors; value = memory in bytes, and cpu_us: the limits */
    QW_SPAWNED,   /* from it: tag; value = pid, or a negative errno */
    QW_KILL,      /* to it: tag; no answer but QW_EXITED */
    QW_EXITED,    /* from it: tag; value = the status of wait4(); cpu_us, rss_bytes */
    QW_FAILED,    /* from it instead of QW_READY: text; it exits */
};
struct qw_ctl {
    le32 type; /* enum qw_ctl_type */
    le32 tag;  /* of a worker, the daemon's choice */
    le64 value;
    le64 cpu_us;
    le64 rss_bytes;
    char text[224]; /* NUL terminated */
};
static_assert(sizeof(struct qw_ctl) == 256, "a control message is 256 bytes");

#define QW_SLOT_BYTES (512u << 10)
#define QW_SLOTS 8u
#define QW_WINDOW_BYTES (QW_SLOT_BYTES * QW_SLOTS)
#define QW_RESULT_BYTES (256u << 10) /* at most, of one QW_RESULT */
#define QW_JSON_BYTES (4u << 20)     /* at most, of QW_QUERY, QW_SCHEMA, QW_DONE */

enum qw_type {
    QW_QUERY = 1, /* to the worker: JSON, see below */
    QW_READ,      /* from it: a = object, b = offset; slot, want <= QW_SLOT_BYTES; no bytes */
    QW_DATA,      /* to it: slot; a = bytes that are there (short only at the end), or a negative
                     errno in 64 bits; no bytes */
    QW_RESULT,    /* from it: the next bytes of the answer */
    QW_SCHEMA,    /* from it, at most once: what it found out, JSON; the daemon hands it back as
                     "known" with the next query on the same versions with the same options */
    QW_DONE,      /* from it, last: JSON {"rc": 0 or a negative errno, "text": "...", "rows": n} */
};
struct qw_head {
    le32 type; /* enum qw_type */
    le32 len;  /* bytes that follow */
    le64 a;
    le64 b;
    le32 slot;
    le32 want;
};
static_assert(sizeof(struct qw_head) == 32, "a head is 32 bytes");

/*
 * QW_QUERY: {"sql": text, "input": "csv"|..., "output": ..., "header": "auto"|"yes"|"no",
 * "header_out": bool, "delim": "", "quote": "", "escape": "", "schema": "" or "NAME TYPE, ...",
 * "known": null or what QW_SCHEMA said, "objects": [{"name": text, "size": n}, ...],
 * "ahead": n}. With `ahead` (no member: 0) the daemon reads the first n bytes of object 0 into
 * slot 0, as if the worker had asked for them.
 */

/** Whether a head that came may stand: type known in that direction, lengths within bounds. */
bool qw_head_ok(const struct qw_head *h, bool from_worker);

#endif
