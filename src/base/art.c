/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Four kinds of inner nodes, by the number of children. A child is a node, or a key with the low
 * bit of its pointer set. `end` is the key that ends where the node's prefix does. Each node keeps
 * the first PREFIX_KEPT bytes of the prefix its keys share; the others are read from any key below.
 * A node has always at least two of {end, children}.
 */
#include "base/art.h"

#include "base/must.h"

#include <errno.h>

#define PREFIX_KEPT 8u

enum node_type { NODE4, NODE16, NODE48, NODE256 };

struct node {
    uint8_t type;
    uint16_t nchildren;
    uint32_t prefix_len;
    struct art_key *end;
    uint8_t prefix[PREFIX_KEPT];
};
struct node4 {
    struct node n;
    uint8_t byte[8]; /* ascending; 4 in use */
    void *child[4];
};
struct node16 {
    struct node n;
    uint8_t byte[16]; /* ascending */
    void *child[16];
};
struct node48 {
    struct node n;
    uint8_t slot[256]; /* index + 1 */
    void *child[48];
};
struct node256 {
    struct node n;
    void *child[256];
};

static const size_t node_bytes[] = {sizeof(struct node4), sizeof(struct node16),
                                    sizeof(struct node48), sizeof(struct node256)};
static const unsigned node_room[] = {4, 16, 48, 256};

void art_init(struct art *a, struct slab *slab)
{
    *a = (struct art){.slab = slab};
}

static bool is_key(const void *p)
{
    return ((uintptr_t)p & 1) != 0;
}

static struct art_key *to_key(const void *p)
{
    return (struct art_key *)((uintptr_t)p & ~(uintptr_t)1);
}

static void *from_key(struct art_key *k)
{
    return (void *)((uintptr_t)k | 1);
}

/* The bytes and children of the two small kinds, which differ in size only. */
static uint8_t *small_bytes(struct node *n)
{
    return n->type == NODE4 ? ((struct node4 *)n)->byte : ((struct node16 *)n)->byte;
}

static void **small_children(struct node *n)
{
    return n->type == NODE4 ? ((struct node4 *)n)->child : ((struct node16 *)n)->child;
}

/* Where the child for `b` is kept, or NULL. */
static void **child_slot(struct node *n, uint8_t b)
{
    if (n->type <= NODE16) {
        const uint8_t *byte = small_bytes(n);

        for (unsigned i = 0; i < n->nchildren; i++) {
            if (byte[i] == b)
                return &small_children(n)[i];
        }
        return NULL;
    }
    if (n->type == NODE48) {
        struct node48 *n48 = (struct node48 *)n;

        return n48->slot[b] == 0 ? NULL : &n48->child[n48->slot[b] - 1];
    }
    return ((struct node256 *)n)->child[b] == NULL ? NULL : &((struct node256 *)n)->child[b];
}

/* The child with the smallest byte >= from (0..256), or NULL. */
static void *child_from(struct node *n, unsigned from)
{
    if (n->type <= NODE16) {
        const uint8_t *byte = small_bytes(n);

        for (unsigned i = 0; i < n->nchildren; i++) {
            if (byte[i] >= from)
                return small_children(n)[i];
        }
        return NULL;
    }
    for (unsigned b = from; b < 256; b++) {
        void **slot = child_slot(n, (uint8_t)b);

        if (slot != NULL)
            return *slot;
    }
    return NULL;
}

static void *child_last(struct node *n)
{
    if (n->type <= NODE16)
        return n->nchildren == 0 ? NULL : small_children(n)[n->nchildren - 1];
    for (unsigned b = 256; b-- > 0;) {
        void **slot = child_slot(n, (uint8_t)b);

        if (slot != NULL)
            return *slot;
    }
    return NULL;
}

static struct art_key *first_below(void *p)
{
    while (p != NULL && !is_key(p)) {
        struct node *n = p;

        if (n->end != NULL)
            return n->end;
        p = child_from(n, 0);
    }
    return p == NULL ? NULL : to_key(p);
}

static struct art_key *last_below(void *p)
{
    while (p != NULL && !is_key(p)) {
        struct node *n = p;
        void *child = child_last(n);

        if (child == NULL)
            return n->end;
        p = child;
    }
    return p == NULL ? NULL : to_key(p);
}

/* The node's whole prefix: kept in the node, or read from a key below it. */
static const uint8_t *prefix_of(struct node *n, size_t depth)
{
    return n->prefix_len <= PREFIX_KEPT ? n->prefix : first_below(n)->bytes + depth;
}

static size_t common(const uint8_t *a, const uint8_t *b, size_t max)
{
    size_t i = 0;

    while (i < max && a[i] == b[i])
        i++;
    return i;
}

struct art_key *art_find(const struct art *a, struct bytes key)
{
    void *p = a->root;
    size_t depth = 0;

    while (p != NULL) {
        struct node *n = p;
        struct art_key *k;
        void **slot;

        if (is_key(p)) {
            k = to_key(p);
            return bytes_eq(art_key_bytes(k), key) ? k : NULL;
        }
        if (key.len - depth < n->prefix_len ||
            memcmp(n->prefix, key.ptr + depth, MIN(n->prefix_len, PREFIX_KEPT)) != 0)
            return NULL;
        depth += n->prefix_len;
        if (depth == key.len)
            return n->end != NULL && bytes_eq(art_key_bytes(n->end), key) ? n->end : NULL;
        slot = child_slot(n, key.ptr[depth++]);
        p = slot == NULL ? NULL : *slot;
    }
    return NULL;
}

struct art_key *art_seek(const struct art *a, struct bytes key, bool after)
{
    void *p = a->root;
    void *above = NULL; /* the subtree that follows the path, nearest to it */
    size_t depth = 0;

    if (key.len == 0)
        return first_below(p);
    while (p != NULL && !is_key(p)) {
        struct node *n = p;
        size_t left = key.len - depth;
        int cmp = memcmp(prefix_of(n, depth), key.ptr + depth, MIN(n->prefix_len, left));
        void *next;
        void **slot;

        if (cmp > 0 || (cmp == 0 && left < n->prefix_len))
            return first_below(n);
        if (cmp < 0)
            return first_below(above);
        depth += n->prefix_len;
        if (depth == key.len) {
            if (!after && n->end != NULL)
                return n->end;
            next = child_from(n, 0);
            return first_below(next != NULL ? next : above);
        }
        next = child_from(n, key.ptr[depth] + 1u);
        if (next != NULL)
            above = next;
        slot = child_slot(n, key.ptr[depth++]);
        p = slot == NULL ? NULL : *slot;
    }
    if (p != NULL) {
        int cmp = bytes_cmp(art_key_bytes(to_key(p)), key);

        if (cmp > 0 || (cmp == 0 && !after))
            return to_key(p);
    }
    return first_below(above);
}

struct art_key *art_last(const struct art *a)
{
    return last_below(a->root);
}

static struct node *node_new(struct art *a, enum node_type type)
{
    struct node *n = slab_alloc(a->slab, node_bytes[type]);

    if (n == NULL)
        return NULL;
    memset(n, 0, node_bytes[type]);
    n->type = (uint8_t)type;
    a->nodes[type]++;
    return n;
}

static void node_free(struct art *a, struct node *n)
{
    a->nodes[n->type]--;
    slab_free(a->slab, n);
}

static void set_prefix(struct node *n, const uint8_t *bytes, size_t len)
{
    n->prefix_len = (uint32_t)len;
    memmove(n->prefix, bytes, MIN(len, PREFIX_KEPT));
}

/* Puts a child where none is for this byte; the node has room. */
static void child_put(struct node *n, uint8_t b, void *child)
{
    must(n->nchildren < node_room[n->type]);
    if (n->type <= NODE16) {
        uint8_t *byte = small_bytes(n);
        void **children = small_children(n);
        unsigned i = n->nchildren;

        for (; i > 0 && byte[i - 1] > b; i--) {
            byte[i] = byte[i - 1];
            children[i] = children[i - 1];
        }
        byte[i] = b;
        children[i] = child;
    } else if (n->type == NODE48) {
        struct node48 *n48 = (struct node48 *)n;
        unsigned i = 0;

        while (n48->child[i] != NULL)
            i++;
        n48->child[i] = child;
        n48->slot[b] = (uint8_t)(i + 1);
    } else {
        ((struct node256 *)n)->child[b] = child;
    }
    n->nchildren++;
}

static void child_drop(struct node *n, uint8_t b)
{
    if (n->type <= NODE16) {
        uint8_t *byte = small_bytes(n);
        void **children = small_children(n);
        unsigned i = 0;

        while (byte[i] != b)
            i++;
        for (; i + 1 < n->nchildren; i++) {
            byte[i] = byte[i + 1];
            children[i] = children[i + 1];
        }
    } else if (n->type == NODE48) {
        struct node48 *n48 = (struct node48 *)n;

        n48->child[n48->slot[b] - 1] = NULL;
        n48->slot[b] = 0;
    } else {
        ((struct node256 *)n)->child[b] = NULL;
    }
    n->nchildren--;
}

/* A copy of `n` as another kind, which has room for its children. NULL: no memory. */
static struct node *node_retype(struct art *a, struct node *n, enum node_type type)
{
    struct node *to = node_new(a, type);

    if (to == NULL)
        return NULL;
    to->end = n->end;
    set_prefix(to, n->prefix, MIN(n->prefix_len, PREFIX_KEPT));
    to->prefix_len = n->prefix_len;
    for (unsigned b = 0; b < 256; b++) {
        void **slot = child_slot(n, (uint8_t)b);

        if (slot != NULL)
            child_put(to, (uint8_t)b, *slot);
    }
    return to;
}

/* Hangs the key below `n`, at whose end (depth bytes) it has arrived. */
static void hang(struct node *n, struct art_key *k, size_t depth)
{
    if (k->len == depth)
        n->end = k;
    else
        child_put(n, k->bytes[depth], from_key(k));
}

/* *slot is a key that shares `same` bytes from depth with `k`: a node takes its place. */
static int split_key(struct art *a, void **slot, struct art_key *k, size_t depth)
{
    struct art_key *old = to_key(*slot);
    size_t same =
        common(old->bytes + depth, k->bytes + depth, (size_t)MIN(old->len, k->len) - depth);
    struct node *n;

    if (old->len == k->len && depth + same == k->len)
        return -EEXIST;
    n = node_new(a, NODE4);
    if (n == NULL)
        return -ENOMEM;
    set_prefix(n, k->bytes + depth, same);
    hang(n, old, depth + same);
    hang(n, k, depth + same);
    *slot = n;
    return 0;
}

/* The key leaves the node's prefix after `same` bytes: a node with that much of it goes above. */
static int split_prefix(struct art *a, void **slot, struct art_key *k, size_t depth, size_t same)
{
    struct node *n = *slot;
    struct node *top = node_new(a, NODE4);
    const uint8_t *prefix;

    if (top == NULL)
        return -ENOMEM;
    prefix = prefix_of(n, depth);
    set_prefix(top, prefix, same);
    child_put(top, prefix[same], n);
    set_prefix(n, prefix + same + 1, n->prefix_len - same - 1);
    hang(top, k, depth + same);
    *slot = top;
    return 0;
}

/* Adds the key as a new child of *slot, which may have to grow. */
static int add_child(struct art *a, void **slot, struct art_key *k, size_t depth)
{
    struct node *n = *slot;

    if (n->nchildren == node_room[n->type]) {
        struct node *bigger = node_retype(a, n, n->type + 1u);

        if (bigger == NULL)
            return -ENOMEM;
        node_free(a, n);
        *slot = n = bigger;
    }
    child_put(n, k->bytes[depth], from_key(k));
    return 0;
}

static int add_at(struct art *a, struct art_key *k)
{
    void **slot = &a->root;
    size_t depth = 0;

    for (;;) {
        struct node *n = *slot;
        void **child;
        size_t same;

        if (n == NULL) {
            *slot = from_key(k);
            return 0;
        }
        if (is_key(n))
            return split_key(a, slot, k, depth);
        same = common(prefix_of(n, depth), k->bytes + depth,
                      MIN((size_t)n->prefix_len, k->len - depth));
        if (same < n->prefix_len)
            return split_prefix(a, slot, k, depth, same);
        depth += n->prefix_len;
        if (depth == k->len) {
            if (n->end != NULL)
                return -EEXIST;
            n->end = k;
            return 0;
        }
        child = child_slot(n, k->bytes[depth]);
        if (child == NULL)
            return add_child(a, slot, k, depth);
        slot = child;
        depth++;
    }
}

/*
 * One add makes one node at most: a NODE4 where a key or a prefix is split, or a bigger one for a
 * node that is full. Only nodes that are there can be full at once; one made now takes as many adds
 * to fill as its kind has room above the kind below.
 */
uint64_t art_spans_worst(const struct art *a, uint64_t adds)
{
    uint64_t spans = 0;

    for (unsigned type = NODE4; type <= NODE256; type++) {
        uint64_t made = adds;
        uint64_t per_span = SLAB_SPAN_BYTES / round_up_u64(node_bytes[type] + 8, 16);

        if (type > NODE4) {
            unsigned room = node_room[type - 1] - (type > NODE16 ? node_room[type - 2] : 2);

            made = MIN(adds, a->nodes[type - 1] + adds / room);
        }
        spans += (made + per_span - 1) / per_span;
    }
    return spans;
}

int art_add(struct art *a, struct art_key *k)
{
    int rc;

    must(k->len > 0);
    must(!is_key(k));
    rc = add_at(a, k);
    if (rc == 0)
        a->count++;
    return rc;
}

/* The node at *slot has one child and no end: joins it with the child. */
static void merge_child(struct art *a, void **slot)
{
    struct node *n = *slot;
    void *child = child_from(n, 0);

    if (!is_key(child)) {
        struct node *c = child;
        uint8_t joined[2 * PREFIX_KEPT + 1];
        size_t len = MIN(n->prefix_len, PREFIX_KEPT);
        unsigned byte = n->type <= NODE16 ? small_bytes(n)[0] : 0;

        if (n->type > NODE16) {
            while (child_slot(n, (uint8_t)byte) == NULL)
                byte++;
        }
        memcpy(joined, n->prefix, len);
        joined[len] = (uint8_t)byte;
        memcpy(joined + len + 1, c->prefix, MIN(c->prefix_len, PREFIX_KEPT));
        memcpy(c->prefix, joined, PREFIX_KEPT);
        c->prefix_len += n->prefix_len + 1;
    }
    *slot = child;
    node_free(a, n);
}

/* Brings the node at *slot back into shape after something was taken out of it. */
static void tidy(struct art *a, void **slot)
{
    struct node *n = *slot;

    if (n->nchildren == 0) {
        *slot = from_key(n->end);
        node_free(a, n);
        return;
    }
    if (n->nchildren == 1 && n->end == NULL) {
        merge_child(a, slot);
        return;
    }
    /* A smaller kind when it would be three quarters full; without memory it stays as it is. */
    if (n->type > NODE4 && n->nchildren <= node_room[n->type - 1] * 3 / 4) {
        struct node *smaller = node_retype(a, n, n->type - 1u);

        if (smaller == NULL)
            return;
        *slot = smaller;
        node_free(a, n);
    }
}

void art_del(struct art *a, struct art_key *k)
{
    void **slot = &a->root;
    void **parent = NULL;
    uint8_t byte = 0;
    size_t depth = 0;

    while (!is_key(*slot)) {
        struct node *n = *slot;

        must(n != NULL);
        depth += n->prefix_len;
        must(depth <= k->len);
        if (depth == k->len) {
            must(n->end == k);
            n->end = NULL;
            a->count--;
            tidy(a, slot);
            return;
        }
        parent = slot;
        byte = k->bytes[depth++];
        slot = child_slot(n, byte);
        must(slot != NULL);
    }
    must(to_key(*slot) == k);
    a->count--;
    if (parent == NULL) {
        a->root = NULL;
        return;
    }
    child_drop(*parent, byte);
    tidy(a, parent);
}
