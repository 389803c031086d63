/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Asks one question again and again, from one or more threads, and prints what each took as a line
 * of JSON: bench-ask URI KEY SQL [times N] [threads N] [pause MS] [input FORMAT] [schema TEXT]
 */
#include <kvasir/kvasir.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define THREADS_MAX 64

static struct kvasir_kv *kv;
static struct kvasir_key key;
static struct kvasir_select question = {.nkeys = 1, .keys = &key, .input = "csv"};
static struct kvasir_select_result result;
static unsigned times = 1, threads = 1, pause_ms;
static double *took_ms;

static double now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static int pass(void *arg, const void *buf, size_t len)
{
    (void)arg;
    (void)buf;
    (void)len;
    return 0;
}

static void *ask(void *arg)
{
    double *took = arg;
    struct kvasir_select_result mine;

    for (unsigned i = 0; i < times; i++) {
        double began;

        usleep(pause_ms * 1000);
        began = now_ms();
        if (kvasir_kv_select(kv, &question, pass, NULL, &mine) < 0) {
            fprintf(stderr, "%s\n", kvasir_error());
            exit(1);
        }
        took[i] = now_ms() - began;
    }
    if (took == took_ms)
        result = mine;
    return NULL;
}

static int options(int argc, char **argv)
{
    for (int i = 4; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "times") == 0)
            times = (unsigned)strtoul(argv[i + 1], NULL, 10);
        else if (strcmp(argv[i], "threads") == 0)
            threads = (unsigned)strtoul(argv[i + 1], NULL, 10);
        else if (strcmp(argv[i], "pause") == 0)
            pause_ms = (unsigned)strtoul(argv[i + 1], NULL, 10);
        else if (strcmp(argv[i], "input") == 0)
            question.input = argv[i + 1];
        else if (strcmp(argv[i], "schema") == 0)
            question.schema = argv[i + 1];
        else
            return -1;
    }
    return argc < 4 || argc % 2 != 0 || times == 0 || threads == 0 || threads > THREADS_MAX ? -1
                                                                                            : 0;
}

int main(int argc, char **argv)
{
    pthread_t thread[THREADS_MAX];
    double began;

    if (options(argc, argv) < 0) {
        fprintf(stderr, "bench-ask URI KEY SQL [times N] [threads N] [pause MS] [input F] "
                        "[schema S]\n");
        return 2;
    }
    key = (struct kvasir_key){argv[2], strlen(argv[2])};
    question.sql = argv[3];
    took_ms = calloc((size_t)times * threads, sizeof(*took_ms));
    if (took_ms == NULL || kvasir_open_kv(argv[1], &kv) < 0) {
        fprintf(stderr, "%s\n", kvasir_error());
        return 1;
    }
    began = now_ms();
    for (unsigned i = 0; i < threads; i++)
        if (pthread_create(&thread[i], NULL, ask, took_ms + (size_t)i * times) != 0)
            return 1;
    for (unsigned i = 0; i < threads; i++)
        pthread_join(thread[i], NULL);
    printf(
        "{\"all_ms\": %.3f, \"answer_bytes\": %llu, \"read_bytes\": %llu, \"object_bytes\": %llu, "
        "\"pushed\": %d, \"ms\": [",
        now_ms() - began, (unsigned long long)result.result_bytes,
        (unsigned long long)result.read_bytes, (unsigned long long)result.object_bytes,
        result.pushed);
    for (unsigned i = 0; i < times * threads; i++)
        printf("%s%.3f", i > 0 ? ", " : "", took_ms[i]);
    printf("]}\n");
    kvasir_close_kv(kv);
    free(took_ms);
    return 0;
}
