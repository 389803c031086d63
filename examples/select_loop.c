/* SPDX-License-Identifier: Apache-2.0 */
/* select_loop URI KEY SQL...: asks all the questions at once, without a thread. */
#include <kvasir/kvasir.h>

#include <poll.h>
#include <stdio.h>
#include <string.h>

#define QUESTIONS_MAX 16

static struct {
    struct kvasir_kv *kv;
    struct kvasir_key key;
    char **sql;
    int n, left, failed;
    struct kvasir_select_op op[QUESTIONS_MAX];
} app;

static void closed(void *arg)
{
    app.left = -1;
}

static int take(struct kvasir_select_op *op, const void *buf, size_t len)
{
    return fwrite(buf, 1, len, stdout) == len ? 0 : -1;
}

static void answered(struct kvasir_select_op *op)
{
    if (op->rc < 0) {
        fprintf(stderr, "%s: %s\n", op->question.sql, kvasir_error());
        app.failed = 1;
    }
    if (--app.left == 0)
        kvasir_loop_close_kv(app.kv, closed, NULL);
}

static void opened(void *arg, int rc, struct kvasir_kv *kv)
{
    if (rc < 0) {
        fprintf(stderr, "%s\n", kvasir_error());
        app.failed = 1;
        app.left = -1;
        return;
    }
    app.kv = kv;
    for (int i = 0; i < app.n; i++) {
        app.op[i] = (struct kvasir_select_op){
            .question = {.sql = app.sql[i], .keys = &app.key, .nkeys = 1, .output = "jsonl"},
            .data = take,
            .done = answered};
        app.op[i].rc = kvasir_kv_select_submit(kv, &app.op[i]);
        if (app.op[i].rc < 0)
            answered(&app.op[i]);
    }
}

int main(int argc, char **argv)
{
    struct kvasir_loop *loop;
    struct pollfd p;

    if (argc < 4 || argc > 3 + QUESTIONS_MAX) {
        fprintf(stderr, "select_loop URI KEY SQL...\n");
        return 2;
    }
    app.key = (struct kvasir_key){argv[2], strlen(argv[2])};
    app.sql = argv + 3;
    app.n = app.left = argc - 3;
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
