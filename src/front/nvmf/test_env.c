/* SPDX-License-Identifier: Apache-2.0 */
#include "front/nvmf/test_env.h"

#include "rt/buf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static int env_open(struct rt_task *t, struct env *e)
{
    struct nvmf_subsys_config sub = {.nqn = NQN, .allow_any_host = true};
    struct nvmf_ns_config ns = {0};
    struct net_addr any;
    struct err why = {""};
    uint32_t nsid;

    OK(blk_open(t, "mem:?size=64M&block_size=512", &e->blk, &why));
    OK(kv_open(t, "mem:", &e->kv, &why));
    OK(nvmf_target_new(&e->cfg, &e->tgt, &why));
    OK(nvmf_subsys_add(t, e->tgt, &sub, &why));
    ns.blk = e->blk;
    OK(nvmf_ns_add(t, e->tgt, NQN, &ns, &nsid, &why));
    CHECK(nsid == 1);
    ns.blk = NULL;
    ns.kv = e->kv;
    OK(nvmf_ns_add(t, e->tgt, NQN, &ns, &nsid, &why));
    CHECK(nsid == 2);
    OK(net_addr_parse("127.0.0.1:0", 1, &any, &why));
    OK(nvmf_listen(t, e->tgt, &any, &e->addr, &why));
    return 0;
}

static int env_main(struct rt_task *t, void *arg)
{
    struct env *e = arg;
    struct rt_buf_stats bufs;
    int rc = env_open(t, e);

    if (rc == 0)
        rc = e->body(t, e);
    nvmf_target_close(t, e->tgt);
    if (e->blk != NULL)
        blk_close(t, e->blk);
    if (e->kv != NULL)
        kv_close(t, e->kv);
    rt_buf_stats(&bufs);
    if (rc == 0)
        CHECK(bufs.small_free == bufs.small_total && bufs.large_free == bufs.large_total);
    return rc;
}

void run_env(struct env *e, unsigned reactors, size_t buf_bytes)
{
    struct rt_config cfg = {.reactors = reactors, .poll = RT_POLL_NEVER, .buf_bytes = buf_bytes};
    struct err why = {""};
    int rc = rt_run(&cfg, env_main, e, &why);

    if (rc < 0)
        print_error("line %d (%s)\n", -rc, why.text);
    assert_int_equal(rc, 0);
}

struct nvme_sqe rw(uint8_t opc, uint64_t lba, uint32_t nblocks)
{
    struct nvme_sqe sqe = {.opc = opc, .nsid = le32_make(1), .cdw12 = le32_make(nblocks - 1)};

    nvme_set_slba(&sqe, lba);
    return sqe;
}

void pattern(uint8_t *buf, size_t len, unsigned seed)
{
    for (size_t i = 0; i < len; i++)
        buf[i] = (uint8_t)(seed * 131 + i * 7 + (i >> 8) * 3 + (i >> 16));
}

struct nvme_sqe kv_cmd(uint8_t opc, const char *key, uint32_t cdw10, uint8_t options)
{
    struct nvme_sqe sqe = {.opc = opc, .nsid = le32_make(2), .cdw10 = le32_make(cdw10)};

    nvme_kv_key_put(&sqe, bytes_of_str(key));
    nvme_kv_set_options(&sqe, options);
    return sqe;
}

int eventually(struct rt_task *t, int (*cond)(struct rt_task *t, void *arg), void *arg)
{
    for (int i = 0; i < 5000; i++) {
        if (cond(t, arg))
            return 1;
        rt_sleep(t, NS_PER_MS);
    }
    return 0;
}

uint64_t stat_connections(struct rt_task *t, struct env *e)
{
    struct nvmf_stats s = {0};

    nvmf_stats(t, e->tgt, &s);
    return s.connections;
}
