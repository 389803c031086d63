/* SPDX-License-Identifier: Apache-2.0 */
/* What a worker gives up before it looks at its query. */
#include "virt/query/worker/query.h"

#include <errno.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#define NOBODY 65534

static int drop_user(void)
{
    if (geteuid() != 0)
        return 0;
    if (setgroups(0, NULL) < 0 || setresgid(NOBODY, NOBODY, NOBODY) < 0 ||
        setresuid(NOBODY, NOBODY, NOBODY) < 0)
        return -errno;
    return 0;
}

int qw_sandbox_early(pid_t zygote, struct qw_text *why)
{
    int rc = drop_user();

    if (rc < 0)
        return qw_fail(why, rc, "the worker cannot become nobody: %s", strerror(-rc));
    /* After the change of user, which would undo it. */
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
        prctl(PR_SET_DUMPABLE, 0) < 0)
        return qw_fail(why, -errno, "prctl: %s", strerror(errno));
    if (getppid() != zygote) /* it died before */
        return qw_fail(why, -ECONNRESET, "the zygote is gone");
    return 0;
}

int qw_sandbox_enter(int fd, const struct qw_query *q, struct qw_text *why)
{
    (void)fd;
    (void)q;
    (void)why;
    return 0;
}
