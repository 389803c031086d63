/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The IPC stream format of Apache Arrow: a schema, dictionaries of enums, a record batch for each
 * chunk of the answer, an end. Written from the structs of Arrow's C data interface, which the
 * engine fills.
 */
#ifndef KVASIR_QUERY_WORKER_ARROW_H
#define KVASIR_QUERY_WORKER_ARROW_H

#include "virt/query/worker/flat.h"

/* As in Arrow's specification of the C data interface. */
struct ArrowSchema {
    const char *format, *name, *metadata;
    int64_t flags, n_children;
    struct ArrowSchema **children, *dictionary;
    void (*release)(struct ArrowSchema *);
    void *private_data;
};
struct ArrowArray {
    int64_t length, null_count, offset, n_buffers, n_children;
    const void **buffers;
    struct ArrowArray **children, *dictionary;
    void (*release)(struct ArrowArray *);
    void *private_data;
};
#define ARROW_FLAG_DICTIONARY_ORDERED 1
#define ARROW_FLAG_NULLABLE 2
#define ARROW_FLAG_MAP_KEYS_SORTED 4

struct arrow_writer {
    /** Takes the next bytes; an error ends the writing. */
    int (*put)(void *arg, const void *buf, size_t len);
    void *arg;
    struct flat flat;
    struct arrow_part *parts; /* of the body of one message */
    int64_t *nodes;           /* pairs: length, NULLs */
    size_t nparts, nnodes, parts_size, nodes_size;
    char text[256]; /* of an error */
};

/**
 * One after the other: schema, dictionaries of the first batch, batches, end. The schema is a
 * struct whose children are the columns. 0; -ENOMEM; -ENOTSUP with text: a type that is not
 * known; -EIO with text: an array is not what the schema says; what put() returned.
 */
int arrow_put_schema(struct arrow_writer *w, const struct ArrowSchema *schema);
int arrow_put_dictionaries(struct arrow_writer *w, const struct ArrowSchema *schema,
                           const struct ArrowArray *batch);
int arrow_put_batch(struct arrow_writer *w, const struct ArrowSchema *schema,
                    const struct ArrowArray *batch);
int arrow_put_end(struct arrow_writer *w);
void arrow_writer_free(struct arrow_writer *w);

#endif
