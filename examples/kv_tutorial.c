/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kv_tutorial URI: the program of docs/tutorial-kv.md. URI names a key-value device with all
 * capabilities, "blob:/tmp/tutorial.kv" or "mem:"; it may hold other keys.
 */
#include <kvasir/kv.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int check(int rc, const char *what)
{
    if (rc < 0) {
        fprintf(stderr, "%s: %s\n", what, kvasir_error());
        exit(1);
    }
    return rc;
}

static void one_value(struct kvasir_kv *kv)
{
    uint64_t len;
    char buf[64];
    size_t n;
    void *val;

    check(kvasir_kv_put(kv, "user/1", 6, "Ada", 3, 0), "put");
    check(kvasir_kv_get(kv, "user/1", 6, buf, sizeof(buf), &len), "get");
    printf("user/1 is %.*s\n", (int)len, buf);

    check(kvasir_kv_append(kv, "user/1", 6, " Lovelace", 9), "append");
    check(kvasir_kv_get_alloc(kv, "user/1", 6, 1 << 20, &val, &n), "get");
    printf("user/1 is %s\n", (char *)val);
    free(val);

    check(kvasir_kv_get_range(kv, "user/1", 6, 4, buf, 8, &n, NULL, NULL), "get_range");
    printf("and from byte 4: %.*s\n", (int)n, buf);

    if (kvasir_kv_get(kv, "user/9", 6, buf, sizeof(buf), &len) == -ENOENT)
        printf("user/9: %s\n", kvasir_error());
}

/* Adds one to a number that others may be changing, too. */
static void count(struct kvasir_kv *kv)
{
    uint64_t n = 0, version = 0;
    int rc;

    do {
        unsigned flag = KVASIR_IF_VERSION;

        rc = kvasir_kv_get_range(kv, "visits", 6, 0, &n, sizeof(n), NULL, NULL, &version);
        if (rc == -ENOENT) {
            n = 0;
            flag = KVASIR_MUST_NOT_EXIST;
        } else {
            check(rc, "get");
        }
        n++;
        rc = kvasir_kv_put_version(kv, "visits", 6, &n, sizeof(n), flag, version, NULL);
    } while (rc == -ESTALE || rc == -EEXIST);
    check(rc, "put");
    printf("visit %llu\n", (unsigned long long)n);
}

static void rename_user(struct kvasir_kv *kv)
{
    struct kvasir_change changes[] = {
        {.key = "user/2", .key_len = 6, .val = "Ada Lovelace", .val_len = 12},
        {.key = "user/1", .key_len = 6, .flags = KVASIR_BATCH_DELETE},
    };

    check(kvasir_kv_batch(kv, changes, 2), "batch");
    printf("user/1 is %s\n", check(kvasir_kv_exists(kv, "user/1", 6), "exists") ? "there" : "gone");
}

static void list_users(struct kvasir_kv *kv)
{
    struct kvasir_iter *it;
    const void *key;
    size_t len;

    check(kvasir_iter_begin(kv, "user/", 5, NULL, 0, 0, &it), "list");
    while (check(kvasir_iter_next(it, &key, &len), "list") == 1)
        printf("key %.*s\n", (int)len, (const char *)key);
    kvasir_iter_end(it);
}

/* 8 MiB in pieces of 64 KiB, in and out. */
static void large_value(struct kvasir_kv *kv)
{
    static char piece[65536];
    struct kvasir_put *put;
    struct kvasir_get *get;
    uint64_t len, at = 0;
    size_t n;

    check(kvasir_put_begin(kv, "film", 4, KVASIR_LEN_UNKNOWN, 0, 0, &put), "put");
    for (int i = 0; i < 128; i++) {
        memset(piece, 'a' + i % 26, sizeof(piece));
        if (kvasir_put_data(put, piece, sizeof(piece)) < 0) {
            fprintf(stderr, "put: %s\n", kvasir_error());
            kvasir_put_abort(put);
            return;
        }
    }
    check(kvasir_put_commit(put, NULL), "commit");

    check(kvasir_get_begin(kv, "film", 4, &get, &len, NULL), "get");
    do {
        check(kvasir_get_data(get, at, piece, sizeof(piece), &n), "get");
        at += n;
    } while (n > 0);
    check(kvasir_get_end(get), "get");
    printf("film: %llu of %llu bytes\n", (unsigned long long)at, (unsigned long long)len);
}

static void yesterday(struct kvasir_kv *kv)
{
    struct kvasir_kv *snap;
    uint64_t len;
    char buf[64];

    check(kvasir_kv_snapshot(kv, &snap), "snapshot");
    check(kvasir_kv_put(kv, "user/2", 6, "Countess", 8, 0), "put");
    check(kvasir_kv_get(snap, "user/2", 6, buf, sizeof(buf), &len), "get");
    printf("then user/2 was %.*s\n", (int)len, buf);
    check(kvasir_close_kv(snap), "close");
}

static void figures(struct kvasir_kv *kv)
{
    struct kvasir_kv_stats stats;

    check(kvasir_kv_stats(kv, &stats), "stats");
    printf("%llu puts, %llu gets, %llu keys\n", (unsigned long long)stats.put.ops,
           (unsigned long long)stats.get.ops, (unsigned long long)stats.nkeys);
}

int main(int argc, char **argv)
{
    const struct kvasir_option options[] = {{"size", "256M"}};
    struct kvasir_kv *kv;

    if (argc != 2) {
        fprintf(stderr, "kv_tutorial URI\n");
        return 2;
    }
    check(kvasir_open_kv_with(argv[1], options, 1, &kv), "open");
    one_value(kv);
    count(kv);
    rename_user(kv);
    list_users(kv);
    large_value(kv);
    yesterday(kv);
    check(kvasir_kv_flush(kv), "flush");
    figures(kv);
    check(kvasir_close_kv(kv), "close");
    return 0;
}
