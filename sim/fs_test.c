/* SPDX-License-Identifier: Apache-2.0 */
/* The virtual file system: what programs see, and what power cuts leave. */
#include "sim/fs.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <cmocka.h>

#define CHECK(cond)                                                                                \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            fprintf(stderr, "line %d: %s\n", __LINE__, #cond);                                     \
            return -__LINE__;                                                                      \
        }                                                                                          \
    } while (0)

static struct sim_machine *machine;
static struct rt_req task_done;

static void on_done(struct rt_req *req)
{
    (void)req;
}

static bool is_done(void *arg)
{
    (void)arg;
    return task_done.state == RT_REQ_IDLE;
}

static int run(rt_task_fn fn, void *arg)
{
    rt_req_init(&task_done, on_done);
    assert_int_equal(sim_start(machine, 0, "test", fn, arg, &task_done), 0);
    assert_true(sim_run(is_done, NULL, sim.now_ns + 1000 * NS_PER_S));
    return task_done.rc;
}

static void begin(uint64_t seed)
{
    sim_world_init(seed);
    machine = sim_machine_add("m", 1);
    sim_boot(machine, MIB);
}

static void end(void)
{
    sim_halt(machine);
    sim_world_fini();
}

static int names_task(struct rt_task *t, void *arg)
{
    uint8_t buf[256];
    struct stat st;
    int fd, dir, n, count = 0;

    (void)arg;
    CHECK(rt_mkdir_all(t, "/a/b", 0755, true) == 0);
    CHECK(rt_mkdir(t, AT_FDCWD, "/a", 0755) == -EEXIST);
    dir = rt_open(t, AT_FDCWD, "/a/b", O_RDONLY | O_DIRECTORY, 0);
    CHECK(dir >= 0);
    CHECK(rt_open(t, dir, "x", O_RDWR, 0) == -ENOENT);
    fd = rt_open(t, dir, "x", O_RDWR | O_CREAT | O_EXCL, 0644);
    CHECK(fd >= 0);
    CHECK(rt_open(t, dir, "x", O_RDWR | O_CREAT | O_EXCL, 0644) == -EEXIST);
    CHECK(rt_pwrite_all(t, fd, "hello", 5, 3) == 0);
    CHECK(rt_stat(t, dir, "x", &st) == 0 && st.st_size == 8 && S_ISREG(st.st_mode));
    CHECK(rt_link(t, dir, "x", dir, "y") == 0);
    CHECK(rt_link(t, dir, "x", dir, "y") == -EEXIST);
    CHECK(rt_rename(t, dir, "y", AT_FDCWD, "/a/z", 0) == 0);
    CHECK(rt_rename(t, dir, "x", AT_FDCWD, "/a/z", 1) == -EEXIST);
    CHECK(rt_unlink(t, AT_FDCWD, "/a/b", AT_REMOVEDIR) == -ENOTEMPTY);
    CHECK(rt_unlink(t, dir, "x", 0) == 0);
    CHECK(rt_unlink(t, dir, "x", 0) == -ENOENT);
    CHECK(rt_stat(t, fd, "", &st) == 0 && st.st_nlink == 1);
    CHECK(rt_pread_all(t, fd, buf, 8, 0) == 0 && memcmp(buf, "\0\0\0hello", 8) == 0);
    CHECK(rt_pread(t, fd, buf, 8, 8) == 0);
    CHECK(rt_close(t, fd) == 0);
    CHECK(rt_close(t, fd) == -EBADF);
    for (int i = 0; i < 30; i++) {
        char name[16];

        snprintf(name, sizeof(name), "file%d", i);
        fd = rt_open(t, dir, name, O_WRONLY | O_CREAT, 0644);
        CHECK(fd >= 0 && rt_close(t, fd) == 0);
    }
    for (bool rewind = true; (n = rt_readdir(t, dir, rewind, buf, sizeof(buf))) > 0;
         rewind = false) {
        for (int at = 0; at < n; at += ((struct rt_dirent *)(void *)(buf + at))->size)
            count++;
    }
    CHECK(n == 0 && count == 30);
    CHECK(rt_close(t, dir) == 0);
    return 0;
}

static void names(void **state)
{
    (void)state;
    begin(1);
    assert_int_equal(run(names_task, NULL), 0);
    end();
}

static int locks_task(struct rt_task *t, void *arg)
{
    int a = rt_open(t, AT_FDCWD, "/l", O_RDWR | O_CREAT, 0644);
    int b = rt_open(t, AT_FDCWD, "/l", O_RDWR, 0);

    (void)arg;
    CHECK(rt_flock(t, a, LOCK_EX | LOCK_NB) == 0);
    CHECK(rt_flock(t, b, LOCK_SH | LOCK_NB) == -EWOULDBLOCK);
    CHECK(rt_flock(t, a, LOCK_SH | LOCK_NB) == 0);
    CHECK(rt_flock(t, b, LOCK_SH | LOCK_NB) == 0);
    CHECK(rt_flock(t, b, LOCK_EX | LOCK_NB) == -EWOULDBLOCK);
    CHECK(rt_close(t, a) == 0);
    CHECK(rt_flock(t, b, LOCK_EX | LOCK_NB) == 0);
    CHECK(rt_close(t, b) == 0);
    return 0;
}

static int holes_task(struct rt_task *t, void *arg)
{
    static uint8_t buf[4096];
    int fd = rt_open(t, AT_FDCWD, "/h", O_RDWR | O_CREAT, 0644);
    struct rt_geometry geo;

    (void)arg;
    memset(buf, 0xaa, sizeof(buf));
    CHECK(rt_pwrite_all(t, fd, buf, 4096, 0) == 0);
    CHECK(rt_fallocate(t, fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 1000, 9000) == 0);
    CHECK(rt_geometry(t, fd, &geo) == 0 && geo.size_bytes == 4096);
    CHECK(rt_pread_all(t, fd, buf, 4096, 0) == 0);
    CHECK(buf[999] == 0xaa && buf[1000] == 0 && buf[4095] == 0);
    CHECK(rt_ftruncate(t, fd, 10000) == 0 && rt_ftruncate(t, fd, 100) == 0);
    CHECK(rt_geometry(t, fd, &geo) == 0 && geo.size_bytes == 100);
    CHECK(rt_close(t, fd) == 0);
    return 0;
}

static void locks_and_holes(void **state)
{
    (void)state;
    begin(2);
    assert_int_equal(run(locks_task, NULL), 0);
    assert_int_equal(run(holes_task, NULL), 0);
    end();
}

/* Synced: 1 everywhere. Then 2 is written over the first half, without a sync. */
static int write_task(struct rt_task *t, void *arg)
{
    uint8_t buf[1024];
    int fd = rt_open(t, AT_FDCWD, "/data", O_RDWR | O_CREAT, 0644);
    int dir = rt_open(t, AT_FDCWD, "/", O_RDONLY | O_DIRECTORY, 0);

    (void)arg;
    for (int pass = 1; pass <= 2; pass++) {
        memset(buf, pass, sizeof(buf));
        for (uint64_t off = 0; off < 32768 / (unsigned)pass; off += sizeof(buf))
            CHECK(rt_pwrite_all(t, fd, buf, sizeof(buf), off) == 0);
        if (pass == 1)
            CHECK(rt_fdatasync(t, fd) == 0 && rt_fsync(t, dir) == 0);
    }
    CHECK(rt_close(t, dir) == 0 && rt_close(t, fd) == 0);
    return 0;
}

/* Counts sectors of 1 and of 2; anything else, or a mixed sector, is a failure. */
static int count_task(struct rt_task *t, void *arg)
{
    unsigned *count = arg;
    uint8_t buf[512];
    int fd = rt_open(t, AT_FDCWD, "/data", O_RDONLY, 0);

    CHECK(fd >= 0);
    for (uint64_t off = 0; off < 32768; off += sizeof(buf)) {
        CHECK(rt_pread_all(t, fd, buf, sizeof(buf), off) == 0);
        CHECK(buf[0] == 1 || (buf[0] == 2 && off < 16384));
        CHECK(memcmp(buf, buf + 1, sizeof(buf) - 1) == 0);
        count[buf[0]]++;
    }
    CHECK(rt_close(t, fd) == 0);
    return 0;
}

static void power_cuts(void **state)
{
    unsigned none = 0, all = 0, some = 0, torn = 0;

    (void)state;
    for (uint64_t seed = 0; seed < 60; seed++) {
        unsigned count[3] = {0};

        begin(seed);
        assert_int_equal(run(write_task, NULL), 0);
        sim_power_cut(machine);
        sim_boot(machine, MIB);
        assert_int_equal(run(count_task, count), 0);
        none += count[2] == 0;
        all += count[2] == 32;
        some += count[2] > 0 && count[2] < 32;
        torn += count[2] % 2;
        end();
    }
    assert_true(none > 0);
    assert_true(all > 0);
    assert_true(some > 0);
    assert_true(torn > 0);
}

static void kill_keeps(void **state)
{
    unsigned count[3] = {0};

    (void)state;
    begin(5);
    assert_int_equal(run(write_task, NULL), 0);
    sim_kill(machine);
    sim_boot(machine, MIB);
    assert_int_equal(run(count_task, count), 0);
    assert_int_equal(count[2], 32);
    end();
}

/* After a failed sync the data are there, but no later sync makes them durable. */
static int failed_sync_task(struct rt_task *t, void *arg)
{
    uint8_t buf[512];
    int fd = rt_open(t, AT_FDCWD, "/data", O_RDWR, 0);

    (void)arg;
    memset(buf, 2, sizeof(buf));
    for (int i = 0; i < 32; i++)
        CHECK(rt_pwrite_all(t, fd, buf, sizeof(buf), (uint64_t)i * 512) == 0);
    sim.weather.disk_fsync_eio_ppm = 1000000;
    CHECK(rt_fdatasync(t, fd) == -EIO);
    sim.weather.disk_fsync_eio_ppm = 0;
    CHECK(rt_fdatasync(t, fd) == 0);
    CHECK(rt_pread_all(t, fd, buf, sizeof(buf), 0) == 0 && buf[0] == 2);
    CHECK(rt_close(t, fd) == 0);
    return 0;
}

static void failed_sync(void **state)
{
    unsigned count[3] = {0};

    (void)state;
    begin(6);
    sim_fs_make_file(machine->fs, "/data", 0);
    assert_int_equal(run(write_task, NULL), 0);
    assert_int_equal(run(failed_sync_task, NULL), 0);
    sim_power_cut(machine);
    sim_boot(machine, MIB);
    assert_int_equal(run(count_task, count), 0);
    assert_true(count[2] < 32);
    end();
}

/* Replaces /k by a rename: a synced 1, then 2 without a sync of the directory. */
static int replace_task(struct rt_task *t, void *arg)
{
    int dir = rt_open(t, AT_FDCWD, "/", O_RDONLY | O_DIRECTORY, 0);

    (void)arg;
    for (int pass = 1; pass <= 2; pass++) {
        uint8_t byte = (uint8_t)pass;
        int fd = rt_open(t, dir, "tmp", O_RDWR | O_CREAT | O_EXCL, 0644);

        CHECK(fd >= 0);
        CHECK(rt_pwrite_all(t, fd, &byte, 1, 0) == 0);
        CHECK(rt_fsync(t, fd) == 0 && rt_close(t, fd) == 0);
        CHECK(rt_rename(t, dir, "tmp", dir, "k", 0) == 0);
        if (pass == 1)
            CHECK(rt_fsync(t, dir) == 0);
    }
    CHECK(rt_close(t, dir) == 0);
    return 0;
}

static int which_task(struct rt_task *t, void *arg)
{
    uint8_t byte = 0;
    int fd = rt_open(t, AT_FDCWD, "/k", O_RDONLY, 0);

    (void)arg;
    CHECK(fd >= 0);
    CHECK(rt_pread_all(t, fd, &byte, 1, 0) == 0);
    CHECK(rt_close(t, fd) == 0);
    return byte;
}

static void renames(void **state)
{
    unsigned seen[3] = {0};

    (void)state;
    for (uint64_t seed = 0; seed < 40; seed++) {
        int which;

        begin(seed);
        assert_int_equal(run(replace_task, NULL), 0);
        sim_power_cut(machine);
        sim_boot(machine, MIB);
        which = run(which_task, NULL);
        assert_in_range(which, 1, 2);
        seen[which]++;
        end();
    }
    assert_true(seen[1] > 0);
    assert_true(seen[2] > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names),       cmocka_unit_test(locks_and_holes),
        cmocka_unit_test(power_cuts),  cmocka_unit_test(kill_keeps),
        cmocka_unit_test(failed_sync), cmocka_unit_test(renames),
    };

    return cmocka_run_group_tests_name("sim/fs", tests, NULL, NULL);
}
