/* SPDX-License-Identifier: Apache-2.0 */
/* event_loop URI KEY...: reads all the keys at once, without a thread. */
#include <kvasir/kvasir.h>

#include <poll.h>
#include <stdio.h>
#include <string.h>

#define KEYS_MAX 64

struct read {
    struct kvasir_op op;
    char buf[4096];
};

static struct {
    char **keys;
    int nkeys, left;
    struct read read[KEYS_MAX];
    int failed;
} app;

static void closed(void *arg)
{
    app.left = -1;
}

static void read_done(struct kvasir_op *op)
{
    struct kvasir_kv *kv = op->user;

    if (op->rc < 0)
        printf("%.*s: %s\n", (int)op->key_len, (const char *)op->key, kvasir_strerror(op->rc));
    else
        printf("%.*s: %llu bytes\n", (int)op->key_len, (const char *)op->key,
               (unsigned long long)op->value_len);
    if (--app.left == 0)
        kvasir_loop_close_kv(kv, closed, NULL);
}

static void opened(void *arg, int rc, struct kvasir_kv *kv)
{
    if (rc < 0) {
        fprintf(stderr, "%s\n", kvasir_error());
        app.failed = 1;
        app.left = -1;
        return;
    }
    for (int i = 0; i < app.nkeys; i++) {
        struct read *r = &app.read[i];

        r->op = (struct kvasir_op){.code = KVASIR_OP_GET,
                                   .flags = KVASIR_NO_VERSION,
                                   .key = app.keys[i],
                                   .key_len = strlen(app.keys[i]),
                                   .buf = r->buf,
                                   .len = sizeof(r->buf),
                                   .done = read_done,
                                   .user = kv};
        kvasir_kv_submit(kv, &r->op);
    }
}

int main(int argc, char **argv)
{
    struct kvasir_loop *loop;
    struct pollfd p;

    if (argc < 3 || argc > 2 + KEYS_MAX) {
        fprintf(stderr, "event_loop URI KEY...\n");
        return 2;
    }
    app.keys = argv + 2;
    app.nkeys = app.left = argc - 2;
    if (kvasir_loop_new(&loop) < 0 || kvasir_loop_open_kv(loop, argv[1], opened, NULL) < 0) {
        fprintf(stderr, "%s\n", kvasir_error());
        return 1;
    }
    p = (struct pollfd){.fd = kvasir_loop_fd(loop), .events = POLLIN};
    while (app.left >= 0) {
        poll(&p, 1, kvasir_loop_timeout_ms(loop));
        kvasir_loop_turn(loop);
    }
    kvasir_loop_free(loop);
    return app.failed;
}
