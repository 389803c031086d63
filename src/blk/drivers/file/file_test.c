/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What only files have: making, locks, growth, holes; and what the kernel may do to them: short
 * transfers and a flush that fails, by system calls of this file's own under the epoll backend.
 */
#include "blk/blk_test.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define BLOCK 512u

static char dir[] = "/tmp/kvasir-file-test-XXXXXX";
static char path[64], uri[128];
static uint8_t buf_a[64 * BLOCK], buf_b[64 * BLOCK];

/* --- the kernel as told ----------------------------------------------------------------------- */

static bool cut_transfers, fail_fdatasync;
static unsigned nfdatasync;

static ssize_t sys_iov(long nr, int fd, const struct iovec *iov, int iovcnt, off_t off)
{
    static unsigned turn;
    struct iovec part = iov[0];

    if (!cut_transfers)
        return syscall(nr, fd, iov, iovcnt, off, 0);
    turn++;
    if (turn % 3 == 0 && iovcnt > 1) /* ends at the end of an iovec */
        return syscall(nr, fd, iov, iovcnt - 1, off, 0);
    if (turn % 5 == 0) {
        errno = EINTR;
        return -1;
    }
    part.iov_len = (part.iov_len + 1) / 2;
    return syscall(nr, fd, &part, 1, off, 0);
}

ssize_t preadv(int fd, const struct iovec *iov, int iovcnt, off_t off)
{
    return sys_iov(SYS_preadv, fd, iov, iovcnt, off);
}

ssize_t pwritev(int fd, const struct iovec *iov, int iovcnt, off_t off)
{
    return sys_iov(SYS_pwritev, fd, iov, iovcnt, off);
}

int fdatasync(int fd)
{
    nfdatasync++;
    if (fail_fdatasync) {
        errno = EIO;
        return -1;
    }
    return (int)syscall(SYS_fdatasync, fd);
}

/* --- tests ------------------------------------------------------------------------------------ */

static const char *uri_of(const char *params)
{
    snprintf(uri, sizeof(uri), "file:%s%s", path, params);
    return uri;
}

static int opens(struct rt_task *t, void *arg)
{
    struct blk_dev *dev;
    struct err why = {""};
    struct stat st;

    CHECK(blk_open(t, uri_of(""), &dev, &why) == -ENOENT);
    CHECK(strstr(why.text, path) != NULL && strstr(why.text, "size=") != NULL);
    CHECK(blk_open(t, "file:", &dev, &why) == -EINVAL);
    CHECK(blk_open(t, uri_of("?size=1M&direct=perhaps"), &dev, &why) == -EINVAL);
    CHECK(blk_open(t, "file:/dev/null", &dev, &why) == -EINVAL);
    CHECK(stat(path, &st) != 0);

    CHECK(blk_open(t, uri_of("?size=1M"), &dev, &why) == 0);
    CHECK(blk_info(dev)->nblocks == 2048 && blk_info(dev)->block_bytes == 512);
    blk_close(t, dev);
    CHECK(stat(path, &st) == 0 && st.st_size == 1 << 20);
    CHECK(blk_open(t, uri_of("?size=1M"), &dev, &why) == 0);
    blk_close(t, dev);
    CHECK(blk_open(t, uri_of("?size=2M"), &dev, &why) == -EINVAL);
    CHECK(strstr(why.text, "1048576") != NULL);
    CHECK(blk_open(t, uri_of("?block_size=1000"), &dev, &why) == -EINVAL);
    CHECK(truncate(path, 4096 + 700) == 0);
    CHECK(blk_open(t, uri_of("?block_size=4096"), &dev, &why) == 0);
    CHECK(blk_info(dev)->nblocks == 1);
    blk_close(t, dev);
    CHECK(truncate(path, 100) == 0);
    CHECK(blk_open(t, uri_of(""), &dev, &why) == -EINVAL);
    return 0;
}
TEST(opens, 1)

static int locks(struct rt_task *t, void *arg)
{
    const pid_t *holder = arg;
    struct blk_dev *a, *b;
    struct err why = {""};
    char pid[32];

    CHECK(blk_open(t, uri_of(""), &a, &why) == -EBUSY);
    snprintf(pid, sizeof(pid), "pid %d", *holder);
    CHECK(strstr(why.text, path) != NULL);
    CHECK(strstr(why.text, pid) != NULL);
    CHECK(blk_open(t, uri_of("?readonly=yes"), &a, &why) == -EBUSY);
    kill(*holder, SIGKILL);
    CHECK(waitpid(*holder, NULL, 0) == *holder);

    CHECK(blk_open(t, uri_of(""), &a, &why) == 0);
    CHECK(blk_open(t, uri_of(""), &b, &why) == 0); /* the same device */
    CHECK(a == b);
    blk_close(t, b);
    CHECK(blk_open(t, uri_of("?block_size=512&size=1M"), &b, &why) == 0); /* so is this */
    CHECK(a == b);
    blk_close(t, b);
    CHECK(blk_open(t, uri_of("?block_size=4096"), &b, &why) == -EBUSY);
    CHECK(strstr(why.text, "this process") != NULL);
    blk_close(t, a);

    CHECK(blk_open(t, uri_of("?readonly=yes"), &a, &why) == 0);
    CHECK(blk_open(t, uri_of("?readonly=yes&block_size=4096"), &b, &why) == 0); /* readers share */
    CHECK(a != b);
    blk_close(t, b);
    CHECK(blk_open(t, uri_of(""), &b, &why) == -EBUSY);
    blk_close(t, a);
    return 0;
}

static void locks_test(void **state)
{
    int ready[2], fd;
    pid_t holder;
    char byte;

    (void)state;
    fd = open(path, O_RDWR | O_CREAT, 0666);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, 1 << 20), 0);
    close(fd);
    assert_int_equal(pipe(ready), 0);
    holder = fork();
    if (holder == 0) {
        fd = open(path, O_RDWR);
        if (flock(fd, LOCK_EX) == 0 && write(ready[1], "", 1) == 1)
            pause();
        _exit(1);
    }
    assert_int_equal(read(ready[0], &byte, 1), 1);
    close(ready[0]);
    close(ready[1]);
    run_task(1, locks, &holder);
}

static int read_only(struct rt_task *t, void *arg)
{
    struct blk_dev *dev;
    struct blk_chan *chan;
    struct err why;

    CHECK(dev_open(t, uri_of("?readonly=yes"), &dev, &chan) == 0);
    CHECK(blk_read(t, chan, buf_a, 0, 1) == 0);
    CHECK(blk_write(t, chan, buf_a, 0, 1, 0) == -EROFS);
    CHECK(blk_zero(t, chan, 0, 1, 0) == -EROFS);
    CHECK(blk_unmap(t, chan, 0, 1) == -EROFS);
    CHECK(blk_flush(t, chan) == 0);
    CHECK(blk_claim(dev, BLK_CLAIM_SHARED_WRITE, "test", &why) == -EROFS);
    CHECK(blk_claim(dev, BLK_CLAIM_READ, "test", &why) == 0);
    dev_close(t, dev, chan);
    return 0;
}
TEST(read_only, 1)

static unsigned nresized;

static void on_event(struct blk_watch *w, enum blk_event ev)
{
    (void)w;
    nresized += ev == BLK_EVENT_RESIZED;
}

static int grows(struct rt_task *t, void *arg)
{
    struct blk_watch watch = {.fn = on_event};
    struct blk_dev *dev;
    struct blk_chan *chan;

    CHECK(dev_open(t, uri_of(""), &dev, &chan) == 0);
    blk_watch_add(dev, &watch);
    CHECK(blk_read(t, chan, buf_a, 2048, 1) == -ERANGE);
    CHECK(blk_refresh(t, dev) == 0);
    CHECK(rt_yield(t) == 0 && nresized == 0);
    CHECK(truncate(path, 2 << 20) == 0);
    CHECK(blk_refresh(t, dev) == 0);
    CHECK(blk_info(dev)->nblocks == 4096);
    CHECK(blk_read(t, chan, buf_a, 4095, 1) == 0);
    blk_watch_del(t, dev, &watch);
    CHECK(nresized == 1);
    CHECK(truncate(path, 1 << 20) == 0); /* cut behind our back */
    CHECK(blk_read(t, chan, buf_a, 4095, 1) == -EIO);
    dev_close(t, dev, chan);
    return 0;
}
TEST(grows, 1)

static int punches_holes(struct rt_task *t, void *arg)
{
    struct blk_dev *dev;
    struct blk_chan *chan;
    struct stat full, holed;

    CHECK(dev_open(t, uri_of(""), &dev, &chan) == 0);
    memset(buf_a, 1, sizeof(buf_a));
    for (unsigned i = 0; i < 32; i++)
        CHECK(blk_write(t, chan, buf_a, i * 64, 64, 0) == 0);
    CHECK(blk_flush(t, chan) == 0);
    CHECK(stat(path, &full) == 0 && full.st_blocks >= 2048);
    if (blk_info(dev)->caps & BLK_CAP_UNMAP) {
        CHECK(blk_unmap(t, chan, 0, 2048) == 0);
        CHECK(blk_flush(t, chan) == 0);
        CHECK(stat(path, &holed) == 0);
        CHECK(holed.st_blocks < full.st_blocks / 2 && holed.st_size == full.st_size);
    }
    dev_close(t, dev, chan);
    return 0;
}
TEST(punches_holes, 1)

static int short_transfers(struct rt_task *t, void *arg)
{
    struct blk_dev *dev;
    struct blk_chan *chan;
    struct iovec iov[4];
    struct blk_req req;

    CHECK(dev_open(t, uri_of("?direct=off"), &dev, &chan) == 0);
    cut_transfers = true;
    for (unsigned round = 0; round < 20; round++) {
        for (size_t i = 0; i < sizeof(buf_a); i++)
            buf_a[i] = (uint8_t)(i * 7 + i / 256 + round);
        memset(buf_b, 0, sizeof(buf_b));
        CHECK(blk_write(t, chan, buf_a, round, 64, 0) == 0);
        for (unsigned i = 0; i < 4; i++)
            iov[i] = (struct iovec){.iov_base = buf_b + i * 16 * BLOCK, .iov_len = 16 * BLOCK};
        rt_req_init_task(&req.req, t);
        req.op = BLK_READ;
        req.flags = 0;
        req.lba = round;
        req.nblocks = 64;
        req.iov = iov;
        req.iovcnt = 4;
        blk_submit(chan, &req);
        CHECK(rt_wait(t, &req.req) == 0);
        CHECK(memcmp(buf_a, buf_b, sizeof(buf_a)) == 0);
    }
    cut_transfers = false;
    dev_close(t, dev, chan);
    return 0;
}

/* After a failed flush nothing is written and no flush succeeds, until it is opened again. */
static int failed_flush(struct rt_task *t, void *arg)
{
    struct blk_dev *dev;
    struct blk_chan *chan;

    CHECK(dev_open(t, uri_of("?direct=off"), &dev, &chan) == 0);
    nfdatasync = 0;
    CHECK(blk_write(t, chan, buf_a, 0, 1, BLK_F_FUA) == 0);
    CHECK(nfdatasync == 1);
    CHECK(blk_flush(t, chan) == 0);
    CHECK(nfdatasync == 2);
    fail_fdatasync = true;
    CHECK(blk_flush(t, chan) == -EIO);
    fail_fdatasync = false;
    CHECK(blk_flush(t, chan) == -EIO);
    CHECK(blk_write(t, chan, buf_a, 0, 1, 0) == -EIO);
    CHECK(blk_zero(t, chan, 0, 1, 0) == -EIO);
    CHECK(nfdatasync == 3);
    CHECK(blk_read(t, chan, buf_b, 0, 1) == 0);
    dev_close(t, dev, chan);
    CHECK(dev_open(t, uri_of("?direct=off"), &dev, &chan) == 0);
    CHECK(blk_write(t, chan, buf_a, 0, 1, BLK_F_FUA) == 0);
    dev_close(t, dev, chan);
    return 0;
}

/* The epoll backend carries file I/O out by plain system calls: those above. */
static void run_epoll(rt_task_fn fn)
{
    struct rt_config cfg = {
        .backend = RT_BACKEND_EPOLL, .poll = RT_POLL_NEVER, .buf_bytes = MIB, .offload_threads = 1};
    struct err why;

    assert_int_equal(rt_run(&cfg, fn, NULL, &why), 0);
}

static void short_transfers_test(void **state)
{
    (void)state;
    run_epoll(short_transfers);
}

static void failed_flush_test(void **state)
{
    (void)state;
    run_epoll(failed_flush);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(opens_test),         cmocka_unit_test(locks_test),
        cmocka_unit_test(read_only_test),     cmocka_unit_test(grows_test),
        cmocka_unit_test(punches_holes_test), cmocka_unit_test(short_transfers_test),
        cmocka_unit_test(failed_flush_test),
    };
    int rc;

    if (mkdtemp(dir) == NULL)
        return 1;
    snprintf(path, sizeof(path), "%s/disk", dir);
    rc = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(path);
    rmdir(dir);
    return rc;
}
