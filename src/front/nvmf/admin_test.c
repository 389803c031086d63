/* SPDX-License-Identifier: Apache-2.0 */
/* Admin commands, discovery, events, and the I/O commands that the first tests leave out. */
#include "front/nvmf/test_env.h"

#include "proto/nvme_vendor.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static struct nvme_sqe identify(uint8_t cns, uint32_t nsid, uint8_t csi)
{
    return (struct nvme_sqe){.opc = NVME_OPC_IDENTIFY,
                             .nsid = le32_make(nsid),
                             .cdw10 = le32_make(cns),
                             .cdw11 = le32_make((uint32_t)csi << 24)};
}

static int do_identify(struct rt_task *t, struct cl *cl, uint8_t cns, uint32_t nsid, uint8_t csi,
                       void *page)
{
    struct nvme_sqe sqe = identify(cns, nsid, csi);
    struct cl_reply r;

    OK(cl_cmd(t, cl, &sqe, NULL, 0, page, 4096, &r));
    if (r.status == 0)
        CHECK(r.data_len == 4096);
    return r.status;
}

static int identify_data_body(struct rt_task *t, struct env *e)
{
    CLEANUP(cl_close) struct cl admin = {0};
    CLEANUP(cl_close) struct cl nvm_only = {0};
    union {
        uint8_t bytes[4096];
        struct nvme_id_ctrl ctrl;
        struct nvme_id_ns ns;
        struct nvme_id_ns_kv kv;
        struct nvme_id_ns_indep indep;
        struct nvme_ns_list list;
        struct nvme_id_iocs iocs;
        struct nvme_ctrl_list ctrls;
    } *p = malloc(4096);
    CLEANUP(free_p) void *page = p;
    struct nvme_ns_ids ids, ids2;
    uint64_t cap;

    OK(cl_admin(t, &admin, &e->addr, NQN, 0, NVME_CSS_IOCS));
    OK(cl_property_get(t, &admin, NVME_REG_CAP, true, &cap));
    CHECK(NVME_CAP_CSS(cap) == (NVME_CAP_CSS_NVM | NVME_CAP_CSS_IOCS));
    CHECK(NVME_CAP_MQES(cap) == 1023);
    OK(cl_property_get(t, &admin, NVME_REG_VS, false, &cap));
    CHECK(cap == NVME_VS_2_0);
    CHECK(cl_property_get(t, &admin, NVME_REG_CAP, false, &cap) == (NVME_SC_INVALID_FIELD | DNR));
    CHECK(cl_property_set(t, &admin, NVME_REG_CSTS, 0) == (NVME_SC_INVALID_FIELD | DNR));

    OK(do_identify(t, &admin, NVME_CNS_CTRL, 0, 0, page));
    CHECK(le16_get(p->ctrl.cntlid) == admin.cntlid && p->ctrl.mdts == 0);
    CHECK(le32_get(p->ctrl.ioccsz) == (64 + 8192) / 16 && le16_get(p->ctrl.icdoff) == 0);
    CHECK(le16_get(p->ctrl.kas) != 0 && (le32_get(p->ctrl.sgls) & 3) == 1);
    CHECK(strcmp(p->ctrl.subnqn, NQN) == 0 && le16_get(p->ctrl.maxcmd) != 0);

    OK(do_identify(t, &admin, NVME_CNS_NS, 1, 0, page));
    CHECK(le64_get(p->ns.nsze) == 64 * MIB / 512 && p->ns.lbaf[0].lbads == 9);
    OK(do_identify(t, &admin, NVME_CNS_NS, 2, 0, page));
    CHECK(le64_get(p->ns.ncap) != 0 && p->ns.lbaf[0].lbads == 9); /* SPDK looks at this */
    OK(do_identify(t, &admin, NVME_CNS_NS, 3, 0, page));
    CHECK(le64_get(p->ns.nsze) == 0);
    CHECK(do_identify(t, &admin, NVME_CNS_NS, 5000, 0, page) == (NVME_SC_INVALID_NS | DNR));
    OK(do_identify(t, &admin, NVME_CNS_CSI_NS, 2, NVME_CSI_KV, page));
    CHECK(le16_get(p->kv.kvf[0].kvkml) == 16);
    CHECK(le32_get(p->kv.kvf[0].kvvml) == MIN(kv_info(e->kv)->val_max, (uint64_t)UINT32_MAX));
    CHECK(p->kv.nkvf == 0 && nvme_kvv_id_ok((const struct nvme_kvv_id *)p->kv.vendor));
    CHECK(do_identify(t, &admin, NVME_CNS_CSI_NS, 1, NVME_CSI_KV, page) ==
          (NVME_SC_INVALID_IOCS | DNR));
    CHECK(do_identify(t, &admin, NVME_CNS_CSI_NS, 1, NVME_CSI_ZNS, page) ==
          (NVME_SC_INVALID_FIELD | DNR));
    OK(do_identify(t, &admin, NVME_CNS_CSI_CTRL, 0, NVME_CSI_NVM, page));
    OK(do_identify(t, &admin, NVME_CNS_CSI_CTRL, 0, NVME_CSI_KV, page));
    CHECK(do_identify(t, &admin, NVME_CNS_CSI_CTRL, 0, NVME_CSI_ZNS, page) ==
          (NVME_SC_INVALID_FIELD | DNR));
    OK(do_identify(t, &admin, NVME_CNS_CSI_INDEP_NS, 2, 0, page));
    CHECK(p->indep.nstat & NVME_NSTAT_NRDY);
    OK(do_identify(t, &admin, NVME_CNS_NS_ACTIVE_LIST, 0, 0, page));
    CHECK(le32_get(p->list.nsid[0]) == 1 && le32_get(p->list.nsid[1]) == 2);
    CHECK(le32_get(p->list.nsid[2]) == 0);
    OK(do_identify(t, &admin, NVME_CNS_NS_ACTIVE_LIST, 1, 0, page));
    CHECK(le32_get(p->list.nsid[0]) == 2 && le32_get(p->list.nsid[1]) == 0);
    OK(do_identify(t, &admin, NVME_CNS_CSI_NS_ACTIVE_LIST, 0, NVME_CSI_KV, page));
    CHECK(le32_get(p->list.nsid[0]) == 2);
    OK(do_identify(t, &admin, NVME_CNS_NS_DESC_LIST, 1, 0, page));
    OK(nvme_ns_desc_decode(page, 4096, &ids));
    OK(do_identify(t, &admin, NVME_CNS_NS_DESC_LIST, 2, 0, page));
    OK(nvme_ns_desc_decode(page, 4096, &ids2));
    CHECK(ids.csi == NVME_CSI_NVM && ids2.csi == NVME_CSI_KV);
    CHECK(memcmp(ids.uuid, ids2.uuid, 16) != 0 && memcmp(ids.nguid, ids2.nguid, 16) != 0);
    OK(do_identify(t, &admin, NVME_CNS_CTRL_LIST, 0, 0, page));
    CHECK(le16_get(p->ctrls.count) == 1 && le16_get(p->ctrls.cntlid[0]) == admin.cntlid);
    {
        struct nvme_sqe sqe = identify(NVME_CNS_CSI_LIST, 0, 0);
        struct cl_reply r;

        sqe.cdw10 = le32_make(NVME_CNS_CSI_LIST | 0xffff0000u);
        OK(cl_cmd(t, &admin, &sqe, NULL, 0, page, 4096, &r));
        STATUS(r, 0);
        CHECK(le64_get(p->iocs.iocsc[0]) == 3);
        sqe = identify(NVME_CNS_CTRL, 0, 0);
        OK(cl_cmd(t, &admin, &sqe, NULL, 0, page, 2048, &r));
        STATUS(r, NVME_SC_SGL_INVALID_LENGTH | DNR);
        sqe.opc = 0x7e;
        OK(cl_cmd(t, &admin, &sqe, NULL, 0, page, 4096, &r));
        STATUS(r, NVME_SC_INVALID_OPCODE | DNR);
    }
    CHECK(do_identify(t, &admin, 0x77, 0, 0, page) == (NVME_SC_INVALID_FIELD | DNR));

    /* A host that wants the NVM command set only sees no KV namespace. */
    OK(cl_admin(t, &nvm_only, &e->addr, NQN, 0, NVME_CSS_NVM));
    OK(do_identify(t, &nvm_only, NVME_CNS_NS_ACTIVE_LIST, 0, 0, page));
    CHECK(le32_get(p->list.nsid[0]) == 1 && le32_get(p->list.nsid[1]) == 0);
    CHECK(do_identify(t, &nvm_only, NVME_CNS_CSI_INDEP_NS, 2, 0, page) ==
          (NVME_SC_INVALID_NS | DNR));
    return 0;
}
TEST_ENV(identify_data, 2, 1 * MIB)

/* --- logs, features --------------------------------------------------------------------------- */

static int get_log(struct rt_task *t, struct cl *cl, uint8_t lid, uint64_t off, uint32_t len,
                   uint8_t csi, bool rae, void *out)
{
    struct nvme_sqe sqe = {0};
    struct cl_reply r;

    nvme_log_put(&sqe, lid, off, len, csi);
    sqe.nsid = le32_make(NVME_NSID_ALL);
    if (rae)
        sqe.cdw10 = le32_make(le32_get(sqe.cdw10) | NVME_LOG_RAE);
    OK(cl_cmd(t, cl, &sqe, NULL, 0, out, len, &r));
    if (r.status == 0)
        CHECK(r.data_len == len);
    return r.status;
}

static int feature(struct rt_task *t, struct cl *cl, uint8_t opc, uint32_t cdw10, uint32_t cdw11,
                   uint32_t nsid, uint32_t *out)
{
    struct nvme_sqe sqe = {
        .opc = opc, .nsid = le32_make(nsid), .cdw10 = le32_make(cdw10), .cdw11 = le32_make(cdw11)};
    struct cl_reply r;
    uint8_t data[512];

    OK(cl_cmd(t, cl, &sqe, NULL, 0, data, sizeof(data), &r));
    if (out != NULL)
        *out = r.dw0;
    return r.status;
}
#define SET(cl, fid, v) feature(t, cl, NVME_OPC_SET_FEATURES, fid, v, 0, NULL)
#define GET(cl, fid, out) feature(t, cl, NVME_OPC_GET_FEATURES, fid, 0, 0, out)

static int logs_features_body(struct rt_task *t, struct env *e)
{
    CLEANUP(cl_close) struct cl admin = {0};
    CLEANUP(free_p) uint8_t *page = malloc(300000);
    const struct nvme_log_effects *eff = (const struct nvme_log_effects *)page;
    const struct nvme_log_error *err = (const struct nvme_log_error *)page;
    uint32_t v;

    OK(cl_admin(t, &admin, &e->addr, NQN, 0, NVME_CSS_IOCS));
    OK(get_log(t, &admin, NVME_LID_EFFECTS, 0, 4096, NVME_CSI_KV, true, page));
    CHECK(le32_get(eff->io[NVME_KV_STORE]) == (NVME_EFFECT_CSUPP | NVME_EFFECT_LBCC));
    CHECK(le32_get(eff->io[NVME_KV_RETRIEVE]) == NVME_EFFECT_CSUPP);
    CHECK(le32_get(eff->io[0x55]) == 0);
    OK(get_log(t, &admin, NVME_LID_EFFECTS, 0, 4096, NVME_CSI_NVM, true, page));
    CHECK(le32_get(eff->io[NVME_OPC_WRITE]) == (NVME_EFFECT_CSUPP | NVME_EFFECT_LBCC));
    CHECK(get_log(t, &admin, NVME_LID_EFFECTS, 0, 4096, NVME_CSI_ZNS, true, page) ==
          (NVME_SC_INVALID_FIELD | DNR));
    OK(get_log(t, &admin, NVME_LID_SMART, 0, 512, 0, true, page));
    OK(get_log(t, &admin, NVME_LID_SUPPORTED, 0, 1024, 0, true, page));
    CHECK(le32_at(page + 4 * NVME_LID_EFFECTS) == 1 && le32_at(page + 4 * 0x70) == 0);
    OK(get_log(t, &admin, NVME_LID_FIRMWARE, 0, 512, 0, true, page));
    CHECK(get_log(t, &admin, 0x99, 0, 512, 0, true, page) == (NVME_SC_INVALID_LOG_PAGE | DNR));
    CHECK(get_log(t, &admin, NVME_LID_SMART, 2, 512, 0, true, page) ==
          (NVME_SC_INVALID_FIELD | DNR));
    CHECK(get_log(t, &admin, NVME_LID_SMART, 516, 4, 0, true, page) ==
          (NVME_SC_INVALID_FIELD | DNR));
    /* More than the page, and more than a buffer: zeroes. */
    memset(page, 0xff, 300000);
    OK(get_log(t, &admin, NVME_LID_FIRMWARE, 8, 300000, 0, true, page));
    CHECK(page[0] == '1' && page[512] == 0 && page[299999] == 0);
    /* The newest error is the last refusal above. */
    OK(get_log(t, &admin, NVME_LID_ERROR, 0, 64 * 16, 0, true, page));
    CHECK(le64_get(err[0].count) > 0 && err[0].opc == NVME_OPC_GET_LOG_PAGE);

    OK(SET(&admin, NVME_FID_ASYNC_EVENT, 0xffffffff));
    OK(GET(&admin, NVME_FID_ASYNC_EVENT, &v));
    CHECK(v == (NVME_OAES_NS_ATTR | 0x1f));
    OK(feature(t, &admin, NVME_OPC_SET_FEATURES, NVME_FID_QUEUES, 3 | 500 << 16, 0, &v));
    CHECK(v == (3 | 3 << 16));
    OK(GET(&admin, NVME_FID_KATO, &v));
    CHECK(v == 0);
    OK(SET(&admin, NVME_FID_KATO, 1500));
    OK(GET(&admin, NVME_FID_KATO, &v));
    CHECK(v == 2000);
    OK(SET(&admin, NVME_FID_KATO, 0));
    CHECK(SET(&admin, 0x77, 0) == (NVME_SC_INVALID_FIELD | DNR));
    CHECK(GET(&admin, 0x77, &v) == (NVME_SC_INVALID_FIELD | DNR));
    CHECK(SET(&admin, NVME_FID_POWER | NVME_FEATURE_SAVE, 0) ==
          (NVME_SC_FEATURE_NOT_SAVEABLE | DNR));
    CHECK(SET(&admin, NVME_FID_HOST_ID, 1) == (NVME_SC_CMD_SEQ_ERROR | DNR));
    CHECK(SET(&admin, NVME_FID_IOCS_PROFILE, 1) == (NVME_SC_IOCS_COMBINATION_REJECTED | DNR));
    OK(feature(t, &admin, NVME_OPC_GET_FEATURES, NVME_FID_HOST_ID, 1, 0, &v));
    OK(feature(t, &admin, NVME_OPC_GET_FEATURES, NVME_FID_KV_CONFIG | NVME_SEL_CAPS << 8, 0, 2,
               &v));
    CHECK(v == (NVME_FEATURE_CAP_PER_NS | NVME_FEATURE_CAP_CHANGEABLE));
    CHECK(feature(t, &admin, NVME_OPC_SET_FEATURES, NVME_FID_KV_CONFIG, 1, 1, &v) ==
          (NVME_SC_INVALID_NS | DNR));
    return 0;
}
TEST_ENV(logs_features, 1, 1 * MIB)

/* --- events, abort ---------------------------------------------------------------------------- */

static int send_aer(struct rt_task *t, struct cl *cl)
{
    struct nvme_sqe sqe = {.opc = NVME_OPC_ASYNC_EVENT_REQUEST};

    nvme_tcp_sgl_transport(&sqe, 0);
    return cl_send_cmd(t, cl, &sqe, NULL, 0);
}

static int abort_cid(struct rt_task *t, struct cl *cl, uint16_t sqid, uint16_t cid, uint32_t *dw0)
{
    struct nvme_sqe sqe = {.opc = NVME_OPC_ABORT, .cdw10 = le32_make(sqid | (uint32_t)cid << 16)};

    nvme_tcp_sgl_transport(&sqe, 0);
    (void)dw0;
    return cl_send_cmd(t, cl, &sqe, NULL, 0);
}

static int events_abort_body(struct rt_task *t, struct env *e)
{
    CLEANUP(cl_close) struct cl admin = {0};
    CLEANUP(cl_close) struct cl io = {0};
    struct nvmf_ns_config ns = {.nsid = 7};
    struct blk_dev *dev;
    CLEANUP(free_p) uint8_t *page = malloc(4096);
    struct nvme_sqe sqe;
    struct cl_reply r;
    uint16_t aer_cid;
    uint32_t nsid;

    OK(cl_admin(t, &admin, &e->addr, NQN, 0, NVME_CSS_IOCS));
    OK(SET(&admin, NVME_FID_ASYNC_EVENT, NVME_OAES_NS_ATTR));
    for (int i = 0; i < 4; i++)
        OK(send_aer(t, &admin));
    OK(send_aer(t, &admin));
    OK(cl_wait(t, &admin, NULL, NULL, 0, &r));
    STATUS(r, NVME_SC_ASYNC_LIMIT | DNR);

    /* Added, resized, removed: one event until the log is read. */
    OK(blk_open(t, "mem:?size=1M&name=more", &dev, NULL));
    ns.blk = dev;
    OK(nvmf_ns_add(t, e->tgt, NQN, &ns, &nsid, NULL));
    OK(cl_wait(t, &admin, NULL, NULL, 0, &r));
    STATUS(r, 0);
    CHECK(r.dw0 == NVME_AER_DW0(NVME_AER_NOTICE, NVME_AER_NOTICE_NS_CHANGED, NVME_LID_CHANGED_NS));
    blk_resized(dev, 128);
    rt_sleep(t, 5 * NS_PER_MS);
    OK(get_log(t, &admin, NVME_LID_CHANGED_NS, 0, 4096, 0, true, page));
    CHECK(le32_at(page) == 7 && le32_at(page + 4) == 0);
    /* Now, and only now, the next one. */
    sqe = (struct nvme_sqe){0};
    nvme_log_put(&sqe, NVME_LID_CHANGED_NS, 0, 4096, 0);
    nvme_tcp_sgl_transport(&sqe, 4096);
    OK(cl_send_cmd(t, &admin, &sqe, NULL, 0));
    OK(cl_wait(t, &admin, NULL, page, 4096, &r)); /* the event that had waited */
    CHECK(r.dw0 != 0);
    OK(cl_wait(t, &admin, NULL, page, 4096, &r));
    STATUS(r, 0);
    OK(cl_io(t, &io, &admin, &e->addr, NQN, 1, 0));
    sqe = rw(NVME_OPC_READ, 127, 1);
    sqe.nsid = le32_make(7);
    OK(cl_cmd(t, &io, &sqe, NULL, 0, page, 4096, &r));
    STATUS(r, 0);
    OK(get_log(t, &admin, NVME_LID_CHANGED_NS, 0, 4096, 0, false, page));
    OK(nvmf_ns_remove(t, e->tgt, NQN, 7, NULL));
    blk_close(t, dev);
    OK(cl_wait(t, &admin, NULL, NULL, 0, &r));
    CHECK(r.dw0 != 0);
    OK(cl_cmd(t, &io, &sqe, NULL, 0, page, 4096, &r));
    STATUS(r, NVME_SC_INVALID_NS | DNR);

    /* Abort: an event request; a Store that waits for its data; one that is not there. */
    aer_cid = admin.next_cid;
    OK(send_aer(t, &admin));
    OK(abort_cid(t, &admin, 0, aer_cid, NULL));
    OK(cl_wait(t, &admin, NULL, NULL, 0, &r));
    STATUS(r, NVME_SC_ABORT_REQ);
    CHECK(r.cid == aer_cid);
    OK(cl_wait(t, &admin, NULL, NULL, 0, &r));
    STATUS(r, 0);
    CHECK(r.dw0 == 0);
    for (int i = 0; i < 6; i++) { /* four have an R2T, the others wait in line */
        sqe = rw(NVME_OPC_WRITE, 0, 128);
        nvme_tcp_sgl_transport(&sqe, 65536);
        OK(cl_send_cmd(t, &io, &sqe, NULL, 0));
    }
    rt_sleep(t, 5 * NS_PER_MS);
    OK(abort_cid(t, &admin, 1, (uint16_t)(io.next_cid - 1), NULL));
    OK(cl_wait(t, &admin, NULL, NULL, 0, &r));
    STATUS(r, 0);
    CHECK(r.dw0 == 0);
    OK(abort_cid(t, &admin, 1, 9999, NULL));
    OK(cl_wait(t, &admin, NULL, NULL, 0, &r));
    CHECK(r.dw0 == 1);
    OK(abort_cid(t, &admin, 1, (uint16_t)(io.next_cid - 6), NULL));
    OK(cl_wait(t, &admin, NULL, NULL, 0, &r));
    CHECK(r.dw0 == 1); /* what was asked for still has to come */
    {
        static uint8_t data[65536];
        int aborted = 0;

        for (int i = 0; i < 6; i++) {
            OK(cl_wait(t, &io, data, NULL, 0, &r));
            aborted += r.status == (NVME_SC_ABORT_REQ | DNR);
        }
        CHECK(aborted == 2);
    }
    return 0;
}
TEST_ENV(events_abort, 2, 4 * MIB)

/* --- discovery -------------------------------------------------------------------------------- */

static int discovery_body(struct rt_task *t, struct env *e)
{
    struct nvmf_subsys_config hidden = {.nqn = "nqn.2026-11.io.kvasir:hidden"};
    struct nvmf_subsys_config shown = {.nqn = "nqn.2026-11.io.kvasir:shown",
                                       .allow_any_host = true};
    CLEANUP(cl_close) struct cl cl = {0};
    CLEANUP(cl_close) struct cl v6 = {0};
    CLEANUP(free_p) uint8_t *log = calloc(1, 65536);
    const struct nvme_discovery_entry *entry =
        (const struct nvme_discovery_entry *)(log + sizeof(struct nvme_discovery_head));
    struct nvme_discovery_info info;
    struct net_addr any, addr;
    uint64_t genctr, gen2, numrec;
    struct cl_reply r;
    struct nvme_sqe sqe;
    char text[NET_ADDR_TEXT_MAX];

    OK(nvmf_subsys_add(t, e->tgt, &hidden, NULL));
    CHECK(nvmf_subsys_add(t, e->tgt, &hidden, NULL) == -EEXIST);
    OK(cl_open(t, &cl, &e->addr, 0, 0));
    OK(cl_connect(t, &cl, NVME_DISCOVERY_NQN, 0, 31, 30000, &r));
    STATUS(r, 0);
    sqe = identify(NVME_CNS_CTRL, 0, 0);
    OK(cl_cmd(t, &cl, &sqe, NULL, 0, log, 4096, &r));
    STATUS(r, NVME_SC_CMD_SEQ_ERROR | DNR); /* not enabled yet */
    OK(cl_property_set(t, &cl, NVME_REG_CC, NVME_CC_EN | 6u << 16 | 4u << 20));
    OK(cl_cmd(t, &cl, &sqe, NULL, 0, log, 4096, &r));
    STATUS(r, 0);
    CHECK(((struct nvme_id_ctrl *)log)->cntrltype == NVME_CNTRLTYPE_DISCOVERY);
    sqe = identify(NVME_CNS_NS_ACTIVE_LIST, 0, 0);
    OK(cl_cmd(t, &cl, &sqe, NULL, 0, log, 4096, &r));
    STATUS(r, NVME_SC_INVALID_FIELD | DNR);

    OK(get_log(t, &cl, NVME_LID_DISCOVERY, 0, 8192, 0, true, log));
    CHECK(nvme_discovery_count(log, 8192, &genctr, &numrec) == 2 && numrec == 2);
    OK(nvme_discovery_decode(&entry[0], &info));
    CHECK(info.subtype == NVME_SUBTYPE_CURRENT_DISCOVERY);
    OK(nvme_discovery_decode(&entry[1], &info));
    CHECK(strcmp(info.subnqn, NQN) == 0 && strcmp(info.traddr, "127.0.0.1") == 0);
    CHECK(atoi(info.trsvcid) == net_addr_port(&e->addr) && info.cntlid == 0xffff);
    CHECK(get_log(t, &cl, NVME_LID_DISCOVERY, 100000, 1024, 0, true, log) ==
          (NVME_SC_INVALID_FIELD | DNR));

    /* A persistent host hears of changes. */
    OK(SET(&cl, NVME_FID_ASYNC_EVENT, NVME_OAES_DISCOVERY));
    OK(send_aer(t, &cl));
    OK(nvmf_subsys_add(t, e->tgt, &shown, NULL));
    OK(cl_wait(t, &cl, NULL, NULL, 0, &r));
    CHECK(r.dw0 == NVME_AER_DW0(NVME_AER_NOTICE, NVME_AER_NOTICE_DISCOVERY, NVME_LID_DISCOVERY));
    OK(nvmf_host_add(t, e->tgt, hidden.nqn, CL_HOST, NULL));
    OK(get_log(t, &cl, NVME_LID_DISCOVERY, 0, 8192, 0, false, log));
    CHECK(nvme_discovery_count(log, 8192, &gen2, &numrec) == 4 && gen2 > genctr);
    OK(nvmf_subsys_remove(t, e->tgt, shown.nqn, NULL));
    CHECK(nvmf_subsys_remove(t, e->tgt, shown.nqn, NULL) == -ENOENT);

    /* IPv6, and an address that is none: the host is told the one it has used. */
    OK(net_addr_parse("[::]:0", 1, &any, NULL));
    if (nvmf_listen(t, e->tgt, &any, &addr, NULL) != 0)
        return 0; /* no IPv6 here */
    snprintf(text, sizeof(text), "[::1]:%u", net_addr_port(&addr));
    OK(net_addr_parse(text, 1, &any, NULL));
    OK(cl_admin(t, &v6, &any, NVME_DISCOVERY_NQN, 0, NVME_CSS_NVM));
    OK(get_log(t, &v6, NVME_LID_DISCOVERY, 0, 16384, 0, true, log));
    CHECK(nvme_discovery_count(log, 16384, &gen2, &numrec) == 6);
    OK(nvme_discovery_decode(&entry[3], &info));
    CHECK(strcmp(info.traddr, "::1") == 0 && info.adrfam == NVME_ADRFAM_IPV6);
    OK(nvmf_unlisten(t, e->tgt, &addr, NULL));
    CHECK(nvmf_unlisten(t, e->tgt, &addr, NULL) == -ENOENT);
    return 0;
}
TEST_ENV(discovery, 2, 1 * MIB)

/* --- keep alive, reset, shutdown -------------------------------------------------------------- */

static int gone(struct rt_task *t, void *arg)
{
    return stat_connections(t, arg) == 0;
}

static int kato_body(struct rt_task *t, struct env *e)
{
    CLEANUP(cl_close) struct cl admin = {0};
    CLEANUP(cl_close) struct cl io = {0};
    struct nvme_sqe sqe = rw(NVME_OPC_FLUSH, 0, 1);
    struct nvmf_stats st;
    struct cl_reply r;
    uint64_t start;

    OK(cl_open(t, &admin, &e->addr, 0, 0));
    OK(cl_connect(t, &admin, NQN, 0, 31, 1000, &r));
    OK(cl_property_set(t, &admin, NVME_REG_CC, NVME_CC_EN | 6u << 16 | 4u << 20));
    OK(cl_io(t, &io, &admin, &e->addr, NQN, 1, 0));
    /* Any command on any queue counts. */
    start = rt_now();
    while (rt_now() - start < 1500 * NS_PER_MS) {
        OK(cl_cmd(t, &io, &sqe, NULL, 0, NULL, 0, &r));
        STATUS(r, 0);
        rt_sleep(t, 100 * NS_PER_MS);
    }
    CHECK(eventually(t, gone, e));
    OK(nvmf_stats(t, e->tgt, &st));
    CHECK(st.kato_expired == 1 && st.ctrlrs == 0);
    return 0;
}
TEST_ENV(kato, 2, 1 * MIB)

static int one_left(struct rt_task *t, void *arg)
{
    return stat_connections(t, arg) == 1;
}

static int two_left(struct rt_task *t, void *arg)
{
    return stat_connections(t, arg) == 2;
}

static int reset_body(struct rt_task *t, struct env *e)
{
    CLEANUP(cl_close) struct cl admin = {0};
    uint32_t cc = NVME_CC_EN | NVME_CSS_IOCS << 4 | 6u << 16 | 4u << 20;
    uint64_t csts;

    OK(cl_admin(t, &admin, &e->addr, NQN, 0, NVME_CSS_IOCS));
    for (int i = 0; i < 5; i++) {
        CLEANUP(cl_close) struct cl io = {0};
        CLEANUP(cl_close) struct cl io2 = {0};

        OK(cl_io(t, &io, &admin, &e->addr, NQN, 1, 0));
        OK(cl_io(t, &io2, &admin, &e->addr, NQN, 2, 0));
        OK(send_aer(t, &admin));
        OK(cl_property_set(t, &admin, NVME_REG_CC, cc & ~NVME_CC_EN) == (NVME_SC_ABORT_QUEUE | DNR)
               ? 0
               : -1); /* the answer to the event request comes first */
        {
            struct cl_reply r;

            OK(cl_wait(t, &admin, NULL, NULL, 0, &r));
            STATUS(r, 0);
        }
        CHECK(stat_connections(t, e) == 1);
        OK(cl_property_get(t, &admin, NVME_REG_CSTS, false, &csts));
        CHECK(csts == 0);
        CHECK(cl_property_set(t, &admin, NVME_REG_CC, cc | 1u << 7) ==
              (NVME_SC_INVALID_FIELD | DNR));
        OK(cl_property_set(t, &admin, NVME_REG_CC, cc));
    }
    OK(cl_property_set(t, &admin, NVME_REG_CC, cc | 1u << NVME_CC_SHN_SHIFT));
    OK(cl_property_get(t, &admin, NVME_REG_CSTS, false, &csts));
    CHECK((csts & NVME_CSTS_SHST_MASK) == NVME_CSTS_SHST_COMPLETE);
    CHECK(eventually(t, one_left, e));
    return 0;
}
TEST_ENV(reset, 2, 1 * MIB)

static int end_ctrlr(struct rt_task *t, struct cl *by, uint32_t cntlid)
{
    struct nvme_sqe sqe = {.opc = NVME_OPC_VENDOR_END_CTRLR, .cdw10 = le32_make(cntlid)};
    struct cl_reply r;
    int rc = cl_cmd(t, by, &sqe, NULL, 0, NULL, 0, &r);

    return rc < 0 ? rc : r.status;
}

/* Only controllers of the same host, and not the own one. When it is answered nothing is left. */
static int end_other_body(struct rt_task *t, struct env *e)
{
    CLEANUP(cl_close) struct cl old = {0};
    CLEANUP(cl_close) struct cl io = {0};
    CLEANUP(cl_close) struct cl other = {.hostid = {9}};
    CLEANUP(cl_close) struct cl new = {0};

    OK(cl_admin(t, &old, &e->addr, NQN, 0, NVME_CSS_IOCS));
    OK(cl_io(t, &io, &old, &e->addr, NQN, 1, 0));
    OK(cl_admin(t, &other, &e->addr, NQN, 0, NVME_CSS_IOCS));
    OK(cl_admin(t, &new, &e->addr, NQN, 0, NVME_CSS_IOCS));
    CHECK(stat_connections(t, e) == 4);
    CHECK(end_ctrlr(t, &new, new.cntlid) == (NVME_SC_INVALID_FIELD | DNR));
    CHECK(end_ctrlr(t, &new, 0x10000) == (NVME_SC_INVALID_FIELD | DNR));
    OK(end_ctrlr(t, &new, other.cntlid));
    CHECK(stat_connections(t, e) == 4);
    OK(end_ctrlr(t, &new, old.cntlid));
    CHECK(end_ctrlr(t, &io, 1) < 0);
    OK(end_ctrlr(t, &new, old.cntlid));
    CHECK(eventually(t, two_left, e));
    OK(end_ctrlr(t, &other, new.cntlid));
    CHECK(stat_connections(t, e) == 2);
    return 0;
}
TEST_ENV(end_other, 3, 1 * MIB)

/* --- the other NVM commands ------------------------------------------------------------------- */

static int nvm_commands_body(struct rt_task *t, struct env *e)
{
    CLEANUP(cl_close) struct cl admin = {0};
    CLEANUP(cl_close) struct cl io = {0};
    static uint8_t data[262144], zero[262144], back[262144];
    struct nvme_sqe sqe, sqe2;
    struct cl_reply r;

    pattern(data, sizeof(data), 9);
    OK(cl_admin(t, &admin, &e->addr, NQN, 0, NVME_CSS_IOCS));
    OK(cl_io(t, &io, &admin, &e->addr, NQN, 1, 0));
    sqe = rw(NVME_OPC_WRITE, 0, 512);
    OK(cl_cmd(t, &io, &sqe, data, 262144, NULL, 0, &r));
    STATUS(r, 0);
    CHECK(r.sqhd == 2); /* Connect and this one */
    /* Compare: in the capsule, in one buffer, in parts. */
    for (uint32_t n = 8; n <= 512; n *= 8) {
        sqe = rw(NVME_OPC_COMPARE, 0, n);
        OK(cl_cmd(t, &io, &sqe, data, n * 512, NULL, 0, &r));
        STATUS(r, 0);
        sqe = rw(NVME_OPC_COMPARE, 0, n);
        data[n * 512 - 1] ^= 1;
        OK(cl_cmd(t, &io, &sqe, data, n * 512, NULL, 0, &r));
        data[n * 512 - 1] ^= 1;
        CHECK((r.status & NVME_SC_CODE_MASK) == NVME_SC_COMPARE_FAILED);
    }
    /* Fused: the second is done when the first is true. */
    for (int good = 1; good >= 0; good--) {
        sqe = rw(NVME_OPC_COMPARE, 4, 1);
        sqe.flags = NVME_SQE_FUSE_FIRST;
        nvme_tcp_sgl_in_capsule(&sqe, 512);
        OK(cl_send_cmd(t, &io, &sqe, data + 2048, 512));
        sqe2 = rw(NVME_OPC_WRITE, 4, 1);
        sqe2.flags = NVME_SQE_FUSE_SECOND;
        nvme_tcp_sgl_in_capsule(&sqe2, 512);
        OK(cl_send_cmd(t, &io, &sqe2, zero, 512));
        OK(cl_wait(t, &io, NULL, NULL, 0, &r));
        CHECK(r.cid == le16_get(sqe.cid));
        CHECK((r.status & NVME_SC_CODE_MASK) == (good ? 0 : NVME_SC_COMPARE_FAILED));
        OK(cl_wait(t, &io, NULL, NULL, 0, &r));
        CHECK((r.status & NVME_SC_CODE_MASK) == (good ? 0 : NVME_SC_FUSED_FAIL));
    }
    sqe.flags = NVME_SQE_FUSE_FIRST;
    OK(cl_send_cmd(t, &io, &sqe, data, 512));
    sqe2 = rw(NVME_OPC_FLUSH, 0, 1);
    OK(cl_cmd(t, &io, &sqe2, NULL, 0, NULL, 0, &r));
    STATUS(r, NVME_SC_FUSED_MISSING | DNR);
    OK(cl_wait(t, &io, NULL, NULL, 0, &r));
    STATUS(r, 0);
    /* Zeroes and deallocation. */
    sqe = rw(NVME_OPC_WRITE_ZEROES, 0, 16);
    OK(cl_cmd(t, &io, &sqe, NULL, 0, NULL, 0, &r));
    STATUS(r, 0);
    {
        struct nvme_dsm_range range[2] = {{.slba = le64_make(16), .nblocks = le32_make(8)},
                                          {.slba = le64_make(32), .nblocks = le32_make(8)}};

        sqe = rw(NVME_OPC_DSM, 1, 1);
        sqe.cdw11 = le32_make(NVME_DSM_AD);
        OK(cl_cmd(t, &io, &sqe, range, sizeof(range), NULL, 0, &r));
        STATUS(r, 0);
        range[1].slba = le64_make(1ull << 40);
        OK(cl_cmd(t, &io, &sqe, range, sizeof(range), NULL, 0, &r));
        STATUS(r, NVME_SC_LBA_RANGE | DNR);
        sqe.cdw10 = le32_make(2);
        OK(cl_cmd(t, &io, &sqe, range, sizeof(range), NULL, 0, &r));
        STATUS(r, NVME_SC_SGL_INVALID_LENGTH | DNR);
    }
    sqe = rw(NVME_OPC_READ, 0, 64);
    OK(cl_cmd(t, &io, &sqe, NULL, 0, back, 32768, &r));
    STATUS(r, 0);
    CHECK(memcmp(back, zero, 24 * 512) == 0);
    CHECK(memcmp(back + 24 * 512, data + 24 * 512, 8 * 512) == 0);
    CHECK(memcmp(back + 32 * 512, zero, 8 * 512) == 0);
    /* Refusals. */
    sqe = rw(NVME_OPC_READ, 64 * MIB / 512 - 1, 2);
    OK(cl_cmd(t, &io, &sqe, NULL, 0, back, 1024, &r));
    STATUS(r, NVME_SC_LBA_RANGE | DNR);
    sqe = rw(NVME_OPC_WRITE, UINT64_MAX, 200);
    OK(cl_cmd(t, &io, &sqe, data, 102400, NULL, 0, &r));
    STATUS(r, NVME_SC_LBA_RANGE | DNR);
    CHECK(r.r2ts == 0);
    sqe = rw(NVME_OPC_READ, 0, 2);
    OK(cl_cmd(t, &io, &sqe, NULL, 0, back, 512, &r));
    STATUS(r, NVME_SC_SGL_INVALID_LENGTH | DNR);
    sqe = rw(NVME_OPC_READ, 0, 1);
    sqe.nsid = le32_make(9);
    OK(cl_cmd(t, &io, &sqe, NULL, 0, back, 512, &r));
    STATUS(r, NVME_SC_INVALID_NS | DNR);
    sqe = rw(0x77, 0, 1);
    OK(cl_cmd(t, &io, &sqe, NULL, 0, back, 512, &r));
    STATUS(r, NVME_SC_INVALID_OPCODE | DNR);
    return 0;
}
TEST_ENV(nvm_commands, 1, 4 * MIB)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(identify_data), cmocka_unit_test(logs_features),
        cmocka_unit_test(events_abort),  cmocka_unit_test(discovery),
        cmocka_unit_test(kato),          cmocka_unit_test(reset),
        cmocka_unit_test(end_other),     cmocka_unit_test(nvm_commands),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
