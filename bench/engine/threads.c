/* SPDX-License-Identifier: Apache-2.0 */
/* A thread per worker, for engines whose calls wait. */
#include "engine.h"

#include <pthread.h>

static void *worker_main(void *arg)
{
    struct worker *w = arg;
    struct bench *b = w->load->b;

    while (load_next(w))
        load_done(w, b->engine->op(b, w));
    return NULL;
}

int threads_drive(struct bench *b, struct load *load)
{
    CLEANUP(free_p) pthread_t *thread = calloc(load->depth, sizeof(*thread));
    unsigned n = 0;
    int rc = 0;

    if (thread == NULL)
        return -ENOMEM;
    for (; n < load->depth && rc == 0; n += rc == 0)
        rc = -pthread_create(&thread[n], NULL, worker_main, &load->workers[n]);
    if (rc < 0)
        atomic_store(&load->error, rc);
    while (n > 0)
        pthread_join(thread[--n], NULL);
    return rc;
}
