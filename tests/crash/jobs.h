/* SPDX-License-Identifier: Apache-2.0 */
/* Jobs in processes of their own: one that crashes does not end the run. */
#ifndef KVASIR_TESTS_CRASH_JOBS_H
#define KVASIR_TESTS_CRASH_JOBS_H

#include <stdbool.h>
#include <stddef.h>

#define JOBS_MAX 16u

/**
 * Runs run(job) of each of `n` jobs (an array of things of `job_bytes`), all at the same time. When
 * one's process has ended, for whatever reason, ended(job, status) says, here, whether another
 * goes on with it; `status` is wait()'s.
 */
void jobs_run(void *jobs, size_t job_bytes, unsigned n, void (*run)(void *job),
              bool (*ended)(void *job, int status));
#define JOBS_ENDED_TEXT 64
/** "the program ended with signal 11". */
const char *jobs_ended_text(int status, char out[JOBS_ENDED_TEXT]);

#endif
