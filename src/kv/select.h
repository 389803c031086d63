/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SELECT on a key-value device: one SQL statement over one object, several, or all those with a
 * prefix, as one table; only the answer moves. virt/query runs it beside the device; a driver
 * whose device can run it itself (a remote Kvasir) pushes it further, see `select` in kv_driver.
 */
#ifndef KVASIR_KV_SELECT_H
#define KVASIR_KV_SELECT_H

#include "kv/kv.h"

#define KV_SELECT_SQL_MAX (64u << 10)    /* bytes of a statement */
#define KV_SELECT_SCHEMA_MAX (64u << 10) /* bytes of a schema's text */
#define KV_SELECT_KEYS_MAX 4096          /* objects of one table */

enum kv_select_format {
    KV_SELECT_AUTO,    /* input only: by the object's first bytes */
    KV_SELECT_CSV,     /* input: also gzip and zstd */
    KV_SELECT_JSON,    /* input: array or lines, also gzip and zstd; output: one array */
    KV_SELECT_JSONL,   /* one object a line */
    KV_SELECT_PARQUET,
    KV_SELECT_ARROW,   /* output only: IPC stream */
    KV_SELECT_FORMATS
};
/** "csv", "json", "jsonl", "parquet", "arrow", "auto"; -EINVAL. */
int kv_select_format_parse(struct bytes name, enum kv_select_format *out);
const char *kv_select_format_name(enum kv_select_format f);

enum kv_select_header { KV_SELECT_HEADER_AUTO, KV_SELECT_HEADER_YES, KV_SELECT_HEADER_NO };

struct kv_select {
    const struct bytes *keys; /* in this order one after the other */
    unsigned nkeys;           /* 0: all keys with `prefix`, in key order */
    struct bytes prefix;
    struct bytes sql;         /* one SELECT; any table name; a trailing ';' is allowed */
    enum kv_select_format input, output;
    enum kv_select_header header; /* CSV input: whether the first line names the columns */
    bool header_out;              /* CSV output: column names first */
    char delim, quote, escape;    /* CSV input; 0: found out */
    struct bytes schema;          /* "NAME TYPE, NAME TYPE"; empty: found out, and remembered */
    uint64_t timeout_ns;          /* 0: the service's */
    struct bytes who;             /* whose turn it is in the queue, e.g. a host NQN; may be empty */
};

struct kv_select_result {
    /* Takes the next bytes of the answer; may wait (the query does too). <0 ends the query. */
    int (*data)(struct rt_task *t, void *arg, const void *buf, size_t len);
    void *arg;
    /* out, also after a failure as far as it came */
    uint64_t result_bytes;
    uint64_t object_bytes; /* size of all objects of the table */
    uint64_t read_bytes;   /* of them read from the device */
    uint64_t rows;         /* of the answer; UINT64_MAX: not known */
    uint64_t queue_ns, run_ns;
    bool schema_known;     /* it was given or remembered */
    bool pushed;           /* the device ran it */
};

/**
 * Pushes the query to the device. Waits. -ENOTSUP: this device cannot (run it beside the device).
 * Errors as query_select() in virt/query/query.h.
 */
int kv_select_push(struct rt_task *t, struct kv_chan *chan, const struct kv_select *q,
                   struct kv_select_result *res, struct err *why);

#endif
