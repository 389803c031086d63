/* SPDX-License-Identifier: Apache-2.0 */
/* Intrusive doubly linked list. An entry that is on no list points to itself or is all zero. */
#ifndef KVASIR_BASE_LIST_H
#define KVASIR_BASE_LIST_H

#include "base/util.h"

struct list {
    struct list *next;
    struct list *prev;
};

#define LIST_INIT(l) ((struct list){.next = &(l), .prev = &(l)})

static inline void list_init(struct list *l)
{
    l->next = l;
    l->prev = l;
}

static inline bool list_empty(const struct list *l)
{
    return l->next == l || l->next == NULL;
}

static inline void list_add_tail(struct list *head, struct list *e)
{
    e->prev = head->prev;
    e->next = head;
    head->prev->next = e;
    head->prev = e;
}

static inline void list_add_head(struct list *head, struct list *e)
{
    list_add_tail(head->next, e);
}

/** Takes `e` off its list, if it is on one. */
static inline void list_del(struct list *e)
{
    if (e->next == NULL)
        return;
    e->prev->next = e->next;
    e->next->prev = e->prev;
    list_init(e);
}

/** Takes the first entry off and returns it; NULL when the list is empty. */
static inline struct list *list_pop(struct list *head)
{
    struct list *e = head->next;

    if (list_empty(head))
        return NULL;
    list_del(e);
    return e;
}

#define list_first(head, type, member)                                                             \
    (list_empty(head) ? NULL : container_of((head)->next, type, member))
#define list_pop_entry(head, type, member)                                                         \
    ({                                                                                             \
        struct list *popped_ = list_pop(head);                                                     \
        popped_ ? container_of(popped_, type, member) : NULL;                                      \
    })
/** Walks a list; `pos` may be taken off inside the loop. */
#define list_for_each(pos, head, type, member)                                                     \
    for (struct list *n_ = NULL, *e_ = (head)->next;                                               \
         e_ != (head) && ((n_ = e_->next), (pos = container_of(e_, type, member)), 1); e_ = n_)

#endif
