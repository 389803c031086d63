/* SPDX-License-Identifier: Apache-2.0 */
/*
 * blob_check(): what holds between blobs. Snapshots and clones, marks of interrupted operations,
 * sharing, and the rules of an lvolstore.
 */
#include "blob/check_internal.h"

#include <stdio.h>

#define LVOLS "lvolstore"
#define PAGE "metadata page"

/* Roots were found in ascending order. */
struct ck_blob *ck_find(struct check *ck, uint64_t id)
{
    size_t lo = 0, hi = ck->nblobs;

    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;

        if (ck->blob[mid].pub.id < id)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < ck->nblobs && ck->blob[lo].pub.id == id ? &ck->blob[lo] : NULL;
}

static void say(struct check *ck, enum blob_check_severity s, struct ck_blob *b, const char *what)
{
    b->pub.broken |= s == BLOB_CHECK_ERROR;
    ck_say(ck, s, PAGE, ck_page_off(ck, b->root), b->pub.id, "%s", what);
}

/* --- snapshots and clones --------------------------------------------------------------------- */

static void check_parent(struct check *ck, struct ck_blob *b)
{
    struct ck_blob *parent;

    if (b->pub.parent == UINT64_MAX)
        return;
    parent = ck_find(ck, b->pub.parent);
    if (parent == NULL) {
        b->pub.broken = true;
        ck_say(ck, BLOB_CHECK_ERROR, PAGE, ck_page_off(ck, b->root), b->pub.id,
               "its parent 0x%lx is not there: it cannot be opened", b->pub.parent);
        return;
    }
    parent->pub.nclones++;
    if (!(parent->pub.data_ro & BLOB_RAW_READ_ONLY) && !parent->pub.making)
        ck_say(ck, BLOB_CHECK_WARNING, PAGE, ck_page_off(ck, parent->root), parent->pub.id,
               "blob 0x%lx stands on it, but it is not read-only", b->pub.id);
}

/* Each walk towards the root has a number; who meets its own has found a cycle, who meets an older
 * one has been there. */
static void check_cycle(struct check *ck, size_t from)
{
    struct ck_blob *b = &ck->blob[from];
    uint32_t walk = (uint32_t)from + 1;

    while (b != NULL && b->walk == 0) {
        b->walk = walk;
        b = b->pub.parent == UINT64_MAX ? NULL : ck_find(ck, b->pub.parent);
    }
    if (b != NULL && b->walk == walk)
        say(ck, BLOB_CHECK_ERROR, b, "it stands on itself: parents form a cycle");
}

/* Marks are what load works off; in a store that was closed cleanly none should be left. */
static void check_mark(struct check *ck, struct ck_blob *b)
{
    bool clean = ck->raw.super.clean != 0;
    const char *mark = b->pub.removing ? "being removed" : "being made";
    const struct ck_blob *other;

    if (!b->pub.making && !b->pub.removing)
        return;
    other = ck_find(ck, b->marked);
    if (other == NULL)
        ck_say(ck, BLOB_CHECK_WARNING, PAGE, ck_page_off(ck, b->root), b->pub.id,
               "a snapshot %s, but the blob it belongs to (0x%lx) is not there", mark, b->marked);
    else
        ck_say(ck, clean ? BLOB_CHECK_WARNING : BLOB_CHECK_NOTE, PAGE, ck_page_off(ck, b->root),
               b->pub.id, "a snapshot %s, of or for blob 0x%lx: the next load %s", mark, b->marked,
               other->pub.parent == b->pub.id ? "keeps it" : "deletes it");
}

void ck_relations(struct check *ck)
{
    for (size_t i = 0; i < ck->nblobs; i++)
        check_parent(ck, &ck->blob[i]);
    for (size_t i = 0; i < ck->nblobs; i++) {
        check_cycle(ck, i);
        check_mark(ck, &ck->blob[i]);
    }
}

/* --- what two blobs name ---------------------------------------------------------------------- */

static bool names(const struct ck_blob *a, const struct ck_blob *b)
{
    return (a->pub.making || a->pub.removing) && a->marked == b->pub.id;
}

#define MORE_TEXT 40
static const char *more(uint64_t n, char *out)
{
    out[0] = '\0';
    if (n > 1)
        snprintf(out, MORE_TEXT, " (and %lu more)", n - 1);
    return out;
}

void ck_conflicts(struct check *ck)
{
    char text[MORE_TEXT];

    for (unsigned i = 0; i < ck->nconflicts; i++) {
        const struct ck_conflict *c = &ck->conflict[i];
        struct ck_blob *a = &ck->blob[c->first - 1], *b = &ck->blob[c->second - 1];
        bool legal = names(a, b) || names(b, a);

        b->pub.broken |= !legal;
        a->pub.broken |= !legal;
        ck_say(ck, legal ? BLOB_CHECK_NOTE : BLOB_CHECK_ERROR, c->page ? "extent page" : "cluster",
               c->offset, b->pub.id, "%s %lu%s also belongs to blob 0x%lx%s",
               c->page ? "extent page" : "cluster", c->number, more(c->count, text), a->pub.id,
               legal ? ", as in an interrupted snapshot operation" : "");
    }
    if (ck->more_conflicts > 0)
        ck_say(ck, BLOB_CHECK_ERROR, "cluster", 0, UINT64_MAX,
               "%lu more pages and clusters are named by two blobs", ck->more_conflicts);
}

/* --- lvolstore -------------------------------------------------------------------------------- */

static bool is_uuid(const char *s)
{
    for (unsigned i = 0; i < 36; i++) {
        bool dash = i == 8 || i == 13 || i == 18 || i == 23;
        bool hex = (s[i] >= '0' && s[i] <= '9') || (s[i] >= 'a' && s[i] <= 'f') ||
                   (s[i] >= 'A' && s[i] <= 'F');

        if (dash ? s[i] != '-' : !hex)
            return false;
    }
    return s[36] == '\0';
}

static void check_super_blob(struct check *ck)
{
    uint64_t id = ck->raw.super.super_blob;
    struct ck_blob *b = id == UINT64_MAX ? NULL : ck_find(ck, id);

    if (b == NULL) {
        if (id != UINT64_MAX)
            ck_say(ck, ck->lvolstore ? BLOB_CHECK_ERROR : BLOB_CHECK_WARNING, "super block", 20, id,
                   "the super blob 0x%lx is not there", id);
        else if (ck->lvolstore)
            ck_say(ck, BLOB_CHECK_ERROR, "super block", 20, UINT64_MAX,
                   "an lvolstore without a super blob: it is refused");
        return;
    }
    if (!ck->lvolstore)
        return;
    if (!b->has_uuid || !is_uuid(b->uuid))
        say(ck, BLOB_CHECK_ERROR, b, "the super blob has no valid uuid: the lvolstore is refused");
    if (!b->has_name || b->names_bad || b->name[0] == '\0')
        say(ck, BLOB_CHECK_ERROR, b, "the super blob has no valid name: the lvolstore is refused");
    if (b->pub.clusters != 0 || b->pub.parent != UINT64_MAX)
        say(ck, BLOB_CHECK_WARNING, b, "the super blob is not an empty blob");
}

static void check_lvol(struct check *ck, struct ck_blob *b)
{
    if (!b->has_name)
        say(ck, BLOB_CHECK_ERROR, b, "a volume without a name: the lvolstore is refused");
    else if (b->names_bad)
        say(ck, BLOB_CHECK_ERROR, b, "its name has no NUL or is longer than 63 characters");
    else if (b->name[0] == '\0')
        say(ck, BLOB_CHECK_WARNING, b, "its name is empty");
    if (!b->has_uuid)
        say(ck, BLOB_CHECK_NOTE, b, "a volume without a uuid");
    else if (!is_uuid(b->uuid))
        say(ck, BLOB_CHECK_WARNING, b, "its uuid is none");
}

static int by_name(const void *a, const void *b)
{
    const struct ck_blob *const *x = a, *const *y = b;

    return strcmp((*x)->name, (*y)->name);
}

static int by_uuid(const void *a, const void *b)
{
    const struct ck_blob *const *x = a, *const *y = b;

    return strcmp((*x)->uuid, (*y)->uuid);
}

/* Two in a row that are equal, in the order of names or uuids. */
static void check_twins(struct check *ck, struct ck_blob **list, size_t n, bool uuids)
{
    qsort(list, n, sizeof(*list), uuids ? by_uuid : by_name);
    for (size_t i = 1; i < n; i++) {
        const char *one = uuids ? list[i - 1]->uuid : list[i - 1]->name;

        if (one[0] != '\0' && strcmp(one, uuids ? list[i]->uuid : list[i]->name) == 0)
            ck_say(ck, BLOB_CHECK_WARNING, LVOLS, ck_page_off(ck, list[i]->root), list[i]->pub.id,
                   "%s '%s' is also that of blob 0x%lx", uuids ? "uuid" : "name", one,
                   list[i - 1]->pub.id);
    }
}

void ck_lvolstore(struct check *ck)
{
    CLEANUP(free_p) struct ck_blob **list = NULL;
    size_t n = 0;

    check_super_blob(ck);
    if (!ck->lvolstore || ck->nblobs == 0)
        return;
    list = calloc(ck->nblobs, sizeof(struct ck_blob *));
    for (size_t i = 0; i < ck->nblobs; i++) {
        if (ck->blob[i].pub.id == ck->raw.super.super_blob)
            continue;
        check_lvol(ck, &ck->blob[i]);
        if (list != NULL)
            list[n++] = &ck->blob[i];
    }
    if (list == NULL)
        return;
    check_twins(ck, list, n, false);
    check_twins(ck, list, n, true);
}
