/* SPDX-License-Identifier: Apache-2.0 */
#include "expect.h"

#include "base/util.h"
#include "proto/nvme_admin.h"
#include "proto/nvme_fabrics.h"

#include <stdio.h>

struct answer {
    struct expect *e;
    char name[96];
    const struct script_cmd *then;
    const struct host_cmd *now;
};

void expect_name(const struct nvme_sqe *sqe, bool admin, char *out, size_t max)
{
    uint8_t cdw10 = (uint8_t)le32_get(sqe->cdw10);

    if (sqe->opc == NVME_OPC_FABRICS)
        snprintf(out, max, "%s", nvme_fctype_name(((const struct nvme_fabrics_cmd *)sqe)->fctype));
    else if (!admin)
        snprintf(out, max, "%s", nvme_nvm_opcode_name(sqe->opc));
    else if (sqe->opc == NVME_OPC_IDENTIFY)
        snprintf(out, max, "identify %02Xh (%s)", cdw10, nvme_cns_name(cdw10));
    else if (sqe->opc == NVME_OPC_GET_LOG_PAGE)
        snprintf(out, max, "log page %02Xh (%s)", cdw10, nvme_lid_name(cdw10));
    else if (sqe->opc == NVME_OPC_SET_FEATURES || sqe->opc == NVME_OPC_GET_FEATURES)
        snprintf(out, max, "%s %02Xh (%s)", nvme_admin_opcode_name(sqe->opc), cdw10,
                 nvme_fid_name(cdw10));
    else
        snprintf(out, max, "%s", nvme_admin_opcode_name(sqe->opc));
}

/* One property of the answer; the text says what was wanted. */
#define CHECK(a, cond) check(a, cond, #cond)

static void check(const struct answer *a, bool ok, const char *text)
{
    a->e->fields++;
    if (ok)
        return;
    a->e->wrong++;
    printf("  wrong: connection %u, CID %u, %s: not so: %s\n", a->then->conn, a->now->cid, a->name,
           text);
}

static void check_same(const struct answer *a, const char *what, uint64_t then, uint64_t now)
{
    a->e->fields++;
    if (then == now)
        return;
    a->e->wrong++;
    printf("  wrong: connection %u, CID %u, %s: %s was %llXh and is %llXh\n", a->then->conn,
           a->now->cid, a->name, what, (unsigned long long)then, (unsigned long long)now);
}

/* --- fabrics ---------------------------------------------------------------------------------- */

static void check_connect(const struct answer *a)
{
    const struct nvme_connect_cmd *cmd = (const void *)&a->then->sqe;
    uint32_t then = le32_get(a->then->cqe.dw0), now = le32_get(a->now->cqe.dw0);
    uint16_t cntlid = (uint16_t)now;

    if (nvme_cqe_status(&a->then->cqe) != NVME_SC_SUCCESS) {
        check_same(a, "DW0", then, now); /* the offset of the field at fault */
        return;
    }
    CHECK(a, cntlid >= NVME_CNTLID_MIN && cntlid <= NVME_CNTLID_MAX);
    if (le16_get(cmd->qid) == 0)
        a->e->cntlid[(uint16_t)then] = cntlid;
    else
        check_same(a, "CNTLID of an I/O queue", a->e->cntlid[(uint16_t)then], cntlid);
}

static void check_property(const struct answer *a)
{
    const struct nvme_property_cmd *cmd = (const void *)&a->then->sqe;
    uint64_t now = le32_get(a->now->cqe.dw0) | (uint64_t)le32_get(a->now->cqe.dw1) << 32;

    switch (le32_get(cmd->ofst)) {
    case NVME_REG_CAP:
        CHECK(a, NVME_CAP_MQES(now) >= 31);
        CHECK(a, (now & NVME_CAP_CQR) != 0);
        CHECK(a, NVME_CAP_TO(now) != 0);
        CHECK(a, (NVME_CAP_CSS(now) & NVME_CAP_CSS_NVM) != 0);
        CHECK(a, NVME_CAP_MPSMIN(now) == 0);
        CHECK(a, NVME_CAP_DSTRD(now) == 0);
        a->e->cap = now;
        break;
    case NVME_REG_VS:
        CHECK(a, now >= 0x00010300); /* descriptor lists */
        a->e->vs = (uint32_t)now;
        break;
    case NVME_REG_CC:
    case NVME_REG_CSTS:
        check_same(a, "CC or CSTS", le32_get(a->then->cqe.dw0), now);
        break;
    case NVME_REG_CRTO:
        CHECK(a, (a->e->cap & NVME_CAP_CRWMS) == 0 || (now & 0xffff) >= NVME_CAP_TO(a->e->cap));
        break;
    }
}

static void check_fabrics(const struct answer *a)
{
    switch (((const struct nvme_fabrics_cmd *)&a->then->sqe)->fctype) {
    case NVME_FC_CONNECT:
        check_connect(a);
        break;
    case NVME_FC_PROPERTY_GET:
        check_property(a);
        break;
    }
}

/* --- identify --------------------------------------------------------------------------------- */

static bool is_padded_ascii(const char *s, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (s[i] < ' ' || s[i] > '~')
            return false;
    }
    return s[0] != ' ';
}

/* What Linux and SPDK look at before they use a controller. */
static void check_id_ctrl(const struct answer *a)
{
    const struct nvme_id_ctrl *then = (const void *)a->then->in, *now = (const void *)a->now->in;
    bool discovery = then->cntrltype == NVME_CNTRLTYPE_DISCOVERY;

    check_same(a, "CNTRLTYPE", then->cntrltype, now->cntrltype);
    check_same(a, "CNTLID", a->e->cntlid[le16_get(then->cntlid)], le16_get(now->cntlid));
    check_same(a, "VER", a->e->vs, le32_get(now->ver));
    CHECK(a, le16_get(now->maxcmd) != 0);
    CHECK(a, NVME_BITS(le32_get(now->sgls), 1, 0) == NVME_SGLS_SUPPORTED);
    CHECK(a, (le32_get(now->sgls) & NVME_SGLS_OFFSET) != 0);
    CHECK(a, nvme_nqn_field_ok(now->subnqn));
    CHECK(a, is_padded_ascii(now->fr, sizeof(now->fr)));
    CHECK(a, (now->lpa & NVME_LPA_EXTENDED) != 0);
    CHECK(a, le16_get(now->icdoff) == 0);
    if (discovery) {
        CHECK(a, strcmp(now->subnqn, NVME_DISCOVERY_NQN) == 0);
        return;
    }
    CHECK(a, strcmp(now->subnqn, a->e->nqn) == 0);
    CHECK(a, is_padded_ascii(now->sn, sizeof(now->sn)));
    CHECK(a, is_padded_ascii(now->mn, sizeof(now->mn)));
    CHECK(a, le16_get(now->kas) != 0);
    CHECK(a, now->sqes == 0x66);
    CHECK(a, now->cqes == 0x44);
    CHECK(a, le32_get(now->nn) >= 1);
    CHECK(a, (now->lpa & NVME_LPA_EFFECTS) != 0);
    CHECK(a, now->msdbd == 1);
    CHECK(a, (le32_get(now->oaes) & NVME_OAES_NS_ATTR) != 0);
    CHECK(a, le32_get(now->ioccsz) >= le32_get(then->ioccsz)); /* what the host put in capsules */
    CHECK(a, le32_get(now->iorcsz) == 1);
}

static void check_id_ns(const struct answer *a)
{
    const struct nvme_id_ns *then = (const void *)a->then->in, *now = (const void *)a->now->in;
    unsigned index = now->flbas & NVME_FLBAS_INDEX_MASK;

    check_same(a, "NSZE", le64_get(then->nsze), le64_get(now->nsze));
    CHECK(a, le64_get(now->ncap) == le64_get(now->nsze));
    CHECK(a, le64_get(now->nuse) <= le64_get(now->ncap));
    CHECK(a, index <= now->nlbaf);
    check_same(a, "LBADS", then->lbaf[then->flbas & NVME_FLBAS_INDEX_MASK].lbads,
               now->lbaf[index].lbads);
    CHECK(a, le16_get(now->lbaf[index].ms) == 0);
    CHECK(a, !bytes_are_zero(now->nguid, 16) || !bytes_are_zero(now->eui64, 8));
}

static void check_descriptors(const struct answer *a)
{
    struct nvme_ns_ids then = {0}, now = {0};

    CHECK(a, nvme_ns_desc_decode(a->then->in, a->then->in_len, &then) == 0);
    CHECK(a, nvme_ns_desc_decode(a->now->in, a->now->in_len, &now) == 0);
    CHECK(a, (now.have & (1u << NVME_NIDT_UUID | 1u << NVME_NIDT_NGUID)) != 0);
    CHECK(a, now.csi == NVME_CSI_NVM);
}

static void check_ns_list(const struct answer *a)
{
    const struct nvme_ns_list *list = (const void *)a->now->in;
    uint32_t last = 0;

    CHECK(a, le32_get(list->nsid[0]) == 1);
    for (unsigned i = 0; i < 1024; i++) {
        uint32_t nsid = le32_get(list->nsid[i]);

        if (nsid == 0)
            break;
        CHECK(a, nsid > last);
        last = nsid;
    }
}

static void check_identify(const struct answer *a)
{
    if (a->now->in_len != NVME_IDENTIFY_BYTES)
        return; /* counted already */
    switch (nvme_identify_cns(&a->then->sqe)) {
    case NVME_CNS_CTRL:
        check_id_ctrl(a);
        break;
    case NVME_CNS_NS:
        check_id_ns(a);
        break;
    case NVME_CNS_NS_DESC_LIST:
        check_descriptors(a);
        break;
    case NVME_CNS_NS_ACTIVE_LIST:
        check_ns_list(a);
        break;
    }
}

/* --- log pages and features ------------------------------------------------------------------- */

static void check_effects(const struct answer *a)
{
    const struct nvme_log_effects *now = (const void *)a->now->in;

    CHECK(a, (le32_get(now->admin[NVME_OPC_IDENTIFY]) & NVME_EFFECT_CSUPP) != 0);
    CHECK(a, (le32_get(now->io[NVME_OPC_READ]) & NVME_EFFECT_CSUPP) != 0);
    CHECK(a, (le32_get(now->io[NVME_OPC_WRITE]) & NVME_EFFECT_LBCC) != 0);
    CHECK(a, (le32_get(now->io[NVME_OPC_FLUSH]) & NVME_EFFECT_CSUPP) != 0);
    /* No host should have to freeze its queues for an I/O command. */
    for (unsigned opc = 0; opc < 256; opc++)
        CHECK(a, (le32_get(now->io[opc]) & (NVME_EFFECT_NCC | 7u << 16)) == 0);
}

static void check_discovery(const struct answer *a)
{
    uint64_t genctr, numrec;
    int n = nvme_discovery_count(a->now->in, a->now->in_len, &genctr, &numrec);
    const struct nvme_discovery_entry *e = (const void *)(a->now->in + 1024);
    bool found = false;

    CHECK(a, n >= 0);
    CHECK(a, numrec >= 1);
    if (a->now->in_len <= sizeof(struct nvme_discovery_head))
        return;
    CHECK(a, (uint64_t)n == MIN(numrec, (a->now->in_len - 1024) / 1024));
    for (int i = 0; i < n; i++) {
        struct nvme_discovery_info info = {0};

        CHECK(a, nvme_discovery_decode(&e[i], &info) == 0);
        CHECK(a, info.trtype == NVME_TRTYPE_TCP);
        CHECK(a, info.adrfam == NVME_ADRFAM_IPV4);
        CHECK(a, strcmp(info.traddr, "127.0.0.1") == 0);
        CHECK(a, (unsigned)atoi(info.trsvcid) == a->e->port);
        CHECK(a, info.cntlid == NVME_CNTLID_DYNAMIC);
        CHECK(a, info.asqsz >= 32);
        found |= strcmp(info.subnqn, a->e->nqn) == 0 && info.subtype == NVME_SUBTYPE_NVM;
    }
    CHECK(a, found);
}

static void check_log(const struct answer *a)
{
    const struct nvme_log_smart *smart = (const void *)a->now->in;
    const struct nvme_log_firmware *fw = (const void *)a->now->in;

    switch (nvme_log_lid(&a->then->sqe)) {
    case NVME_LID_SMART:
        CHECK(a, smart->critical == 0);
        CHECK(a, smart->avail_spare >= smart->spare_thresh);
        break;
    case NVME_LID_FIRMWARE:
        CHECK(a, (fw->afi & 7) == 1);
        break;
    case NVME_LID_EFFECTS:
        check_effects(a);
        break;
    case NVME_LID_DISCOVERY:
        check_discovery(a);
        break;
    }
}

static void check_feature(const struct answer *a)
{
    uint32_t then = le32_get(a->then->cqe.dw0), now = le32_get(a->now->cqe.dw0);

    switch ((uint8_t)le32_get(a->then->sqe.cdw10)) {
    case NVME_FID_QUEUES:
        CHECK(a, (now & 0xffff) == now >> 16);
        CHECK(a, (now & 0xffff) <= 0xfffe);
        break;
    case NVME_FID_KATO:
        check_same(a, "KATO", then, now);
        break;
    }
}

/* --- I/O -------------------------------------------------------------------------------------- */

#define BLOCK_BYTES 4096u

static void check_io(const struct answer *a)
{
    uint64_t lba = nvme_slba(&a->then->sqe);
    uint32_t n = nvme_nlb(&a->then->sqe);
    bool known = true;

    if (a->then->sqe.opc == NVME_OPC_WRITE) {
        a->e->written_bytes += a->then->out_len;
        CHECK(a, a->then->out_len == n * BLOCK_BYTES);
    }
    if (a->then->sqe.opc == NVME_OPC_READ)
        a->e->read_bytes += a->now->in_len;
    if (lba + n > EXPECT_BLOCKS_MAX)
        return;
    for (uint64_t b = lba; b < lba + n; b++) {
        known &= a->e->known[b];
        a->e->known[b] |= a->then->sqe.opc == NVME_OPC_WRITE;
    }
    if (a->then->sqe.opc != NVME_OPC_READ || !known)
        return;
    CHECK(a, a->then->in_len == a->now->in_len);
    CHECK(a, memcmp(a->then->in, a->now->in, MIN(a->then->in_len, a->now->in_len)) == 0);
    a->e->compared_bytes += a->now->in_len;
}

/* --- all answers ------------------------------------------------------------------------------ */

/* SQHD is at least past what has been answered and not past what was sent. */
static void check_sqhd(const struct answer *a, const struct host_conn *h)
{
    unsigned sqhd = le16_get(a->now->cqe.sqhd);

    if (h->sent < 32) /* before any queue of these recordings wraps */
        CHECK(a, sqhd >= h->completed && sqhd <= h->sent);
}

void expect_answer(struct expect *e, const struct host_conn *h, const struct script_cmd *then,
                   const struct host_cmd *now)
{
    struct answer a = {.e = e, .then = then, .now = now};
    uint16_t status_then = nvme_cqe_status(&then->cqe), status = nvme_cqe_status(&now->cqe);

    expect_name(&then->sqe, then->admin, a.name, sizeof(a.name));
    e->answers++;
    check_same(&a, "the status", status_then & NVME_SC_CODE_MASK, status & NVME_SC_CODE_MASK);
    if (status != NVME_SC_SUCCESS || status_then != NVME_SC_SUCCESS) {
        if (then->sqe.opc == NVME_OPC_FABRICS)
            check_fabrics(&a);
        return;
    }
    check_sqhd(&a, h);
    check_same(&a, "the length of its data", then->in_len, now->in_len);
    if (then->out_len > 0 && !then->in_capsule)
        check_same(&a, "what R2Ts asked for", then->out_len, now->asked);
    if (then->sqe.opc == NVME_OPC_FABRICS)
        check_fabrics(&a);
    else if (!then->admin)
        check_io(&a);
    else if (then->sqe.opc == NVME_OPC_IDENTIFY)
        check_identify(&a);
    else if (then->sqe.opc == NVME_OPC_GET_LOG_PAGE)
        check_log(&a);
    else if (then->sqe.opc == NVME_OPC_SET_FEATURES || then->sqe.opc == NVME_OPC_GET_FEATURES)
        check_feature(&a);
}
