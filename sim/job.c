/* SPDX-License-Identifier: Apache-2.0 */
#include "sim/job.h"

#include "base/err.h"

static void job_done(struct rt_req *req)
{
    struct sim_job *job = container_of(req, struct sim_job, done);

    sim_trace("%s: ends with %d after %llu operations", job->name, req->rc,
              (unsigned long long)job->nops);
    if (req->rc != 0)
        sim_fail("%s: ends with %d (%s)", job->name, req->rc, err_str(req->rc));
    job->running = false;
}

void sim_job_start(struct sim_job *job)
{
    must(!job->running);
    job->running = true;
    rt_req_init(&job->done, job_done);
    if (sim_start(job->machine, job->reactor, job->name, job->kind->run, job, &job->done) != 0)
        sim_fail("%s: cannot be started", job->name);
}

void sim_job_crashed(struct sim_job *job)
{
    if (!job->running)
        return;
    job->running = false;
    job->busy_since_ns = 0;
    job->kind->orphan(job);
}

void sim_job_busy(struct sim_job *job)
{
    job->busy_since_ns = sim.now_ns;
    job->nops++;
}

void sim_job_idle(struct sim_job *job)
{
    job->busy_since_ns = 0;
}

void sim_job_failed(struct sim_job *job, const char *what, int rc)
{
    bool expected = false;

    job->nfailed++;
    sim_trace("%s: %s failed: %d (%s)", job->name, what, rc, err_str(rc));
    switch (-rc) {
    case ECONNRESET:
    case ETIMEDOUT:
    case ECONNREFUSED:
    case EHOSTUNREACH:
    case ENODEV:
    case ECANCELED:
    case EPIPE:
        expected = job->net_fails || job->server_fails;
        break;
    case EIO:
    case ENOSPC:
        expected = job->disk_fails;
        break;
    default:
        break;
    }
    if (!expected)
        sim_fail("%s: %s: %d (%s), and nothing here explains it", job->name, what, rc, err_str(rc));
}
