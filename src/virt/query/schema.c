/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What workers found out about objects, for the next query over the same bytes. The whole name is
 * compared, so that nobody can make one object pass for another.
 */
#include "virt/query/service.h"

#include <stdlib.h>
#include <string.h>

#define BYTES_MAX (32 * MIB)

struct entry {
    struct list link;
    uint64_t hash;
    size_t key_len, text_len;
    uint8_t data[]; /* the key, the text, a NUL */
};

void query_schemas_init(struct query_schemas *s, unsigned max)
{
    *s = (struct query_schemas){.max = max};
    pthread_mutex_init(&s->lock, NULL);
    list_init(&s->entries);
}

static void forget(struct query_schemas *s, struct entry *e)
{
    list_del(&e->link);
    s->count--;
    s->bytes -= e->key_len + e->text_len;
    free(e);
}

void query_schemas_fini(struct query_schemas *s)
{
    struct entry *e;

    while ((e = list_first(&s->entries, struct entry, link)) != NULL)
        forget(s, e);
    pthread_mutex_destroy(&s->lock);
}

/* FNV-1a: only to pass over most of the list. */
static uint64_t hash_of(struct bytes key)
{
    uint64_t h = 0xcbf29ce484222325u;

    for (size_t i = 0; i < key.len; i++)
        h = (h ^ key.ptr[i]) * 0x100000001b3u;
    return h;
}

static struct entry *find(struct query_schemas *s, struct bytes key)
{
    uint64_t hash = hash_of(key);
    struct entry *e;

    list_for_each (e, &s->entries, struct entry, link) {
        if (e->hash == hash && bytes_eq(bytes_make(e->data, e->key_len), key))
            return e;
    }
    return NULL;
}

char *query_schemas_get(struct query_schemas *s, struct bytes key)
{
    char *text = NULL;
    struct entry *e;

    pthread_mutex_lock(&s->lock);
    e = find(s, key);
    if (e != NULL) {
        list_del(&e->link);
        list_add_head(&s->entries, &e->link);
        text = strdup((const char *)e->data + e->key_len);
        s->remembered += text != NULL;
    }
    pthread_mutex_unlock(&s->lock);
    return text;
}

void query_schemas_put(struct query_schemas *s, struct bytes key, const char *text, size_t len)
{
    struct entry *e = malloc(sizeof(*e) + key.len + len + 1);
    struct entry *old;

    if (e == NULL)
        return;
    *e = (struct entry){.hash = hash_of(key), .key_len = key.len, .text_len = len};
    memcpy(e->data, key.ptr, key.len);
    memcpy(e->data + key.len, text, len);
    e->data[key.len + len] = '\0';
    pthread_mutex_lock(&s->lock);
    old = find(s, key);
    if (old != NULL)
        forget(s, old);
    list_add_head(&s->entries, &e->link);
    s->count++;
    s->bytes += e->key_len + e->text_len;
    s->sniffed++;
    while (s->count > s->max || s->bytes > BYTES_MAX)
        forget(s, container_of(s->entries.prev, struct entry, link));
    pthread_mutex_unlock(&s->lock);
}
