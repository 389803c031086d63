/* SPDX-License-Identifier: Apache-2.0 */
#include "jobs.h"

#include "base/must.h"

#include <stdint.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

static pid_t start(void *job, void (*run)(void *job))
{
    pid_t pid;

    fflush(stdout);
    pid = fork();
    must(pid >= 0);
    if (pid == 0) {
        run(job);
        fflush(stdout);
        _exit(0);
    }
    return pid;
}

void jobs_run(void *jobs, size_t job_bytes, unsigned n, void (*run)(void *job),
              bool (*ended)(void *job, int status))
{
    pid_t pid[JOBS_MAX];
    unsigned left = n;

    must(n <= JOBS_MAX);
    for (unsigned i = 0; i < n; i++)
        pid[i] = start((uint8_t *)jobs + i * job_bytes, run);
    while (left > 0) {
        int status;
        pid_t who = wait(&status);

        for (unsigned i = 0; i < n; i++) {
            void *job = (uint8_t *)jobs + i * job_bytes;

            if (pid[i] != who)
                continue;
            if (ended(job, status)) {
                pid[i] = start(job, run);
            } else {
                pid[i] = -1;
                left--;
            }
        }
    }
}

const char *jobs_ended_text(int status, char out[JOBS_ENDED_TEXT])
{
    snprintf(out, JOBS_ENDED_TEXT, "the program ended with %s %d",
             WIFSIGNALED(status) ? "signal" : "code",
             WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    return out;
}
