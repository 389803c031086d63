/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/nvme_tcp.h"

#include "base/crc.h"
#include "base/must.h"

#include <errno.h>

/* What each PDU type is: the tables of the specification's PDU chapter in one. */
struct pdu_spec {
    const char *name;
    uint8_t hlen; /* 0: reserved type */
    bool to_controller;
    bool before_ready; /* ICReq and ICResp, which come first and once */
    bool always;       /* TermReq: at any time */
    bool may_have_data;
    bool must_have_data;
    bool digests; /* as negotiated */
};

static const struct pdu_spec pdu_specs[] = {
    [NVME_TCP_ICREQ] = {"ICReq", 128, true, .before_ready = true},
    [NVME_TCP_ICRESP] = {"ICResp", 128, false, .before_ready = true},
    [NVME_TCP_H2C_TERM] = {"H2CTermReq", 24, true, .always = true},
    [NVME_TCP_C2H_TERM] = {"C2HTermReq", 24, false, .always = true},
    [NVME_TCP_CMD] = {"CapsuleCmd", 72, true, .may_have_data = true, .digests = true},
    [NVME_TCP_RESP] = {"CapsuleResp", 24, false, .digests = true},
    [NVME_TCP_H2C_DATA] = {"H2CData", 24, true, .may_have_data = true, .must_have_data = true,
                           .digests = true},
    [NVME_TCP_C2H_DATA] = {"C2HData", 24, false, .may_have_data = true, .must_have_data = true,
                           .digests = true},
    [NVME_TCP_R2T] = {"R2T", 24, false, .digests = true},
};

static const struct pdu_spec *spec_of(uint8_t type)
{
    if (type >= ARRAY_LEN(pdu_specs) || pdu_specs[type].hlen == 0)
        return NULL;
    return &pdu_specs[type];
}

const char *nvme_tcp_type_name(uint8_t type)
{
    const struct pdu_spec *spec = spec_of(type);

    return spec != NULL ? spec->name : "reserved";
}

const char *nvme_tcp_fes_text(uint16_t fes)
{
    static const char *const texts[] = {
        [NVME_TCP_FES_INVALID_FIELD] = "invalid PDU header field",
        [NVME_TCP_FES_SEQUENCE] = "PDU sequence error",
        [NVME_TCP_FES_HDGST] = "header digest error",
        [NVME_TCP_FES_OUT_OF_RANGE] = "data transfer out of range",
        [NVME_TCP_FES_LIMIT] = "R2T or data transfer limit exceeded",
        [NVME_TCP_FES_UNSUPPORTED] = "unsupported parameter",
    };

    return fes < ARRAY_LEN(texts) && texts[fes] != NULL ? texts[fes] : "unknown";
}

static int fault_set(struct nvme_tcp_fault *fault, uint16_t fes, size_t fei)
{
    fault->fes = fes;
    fault->fei = (uint32_t)fei;
    return -EPROTO;
}

#define FIELD_FAULT(fault, type, field)                                                            \
    fault_set(fault, NVME_TCP_FES_INVALID_FIELD, offsetof(type, field))

/* --- receiving -------------------------------------------------------------------------------- */

/* May this type come now? */
static int check_type(const struct nvme_tcp_rx *rx, const struct pdu_spec *spec,
                      struct nvme_tcp_fault *fault)
{
    if (spec == NULL || spec->to_controller != rx->controller)
        return FIELD_FAULT(fault, struct nvme_tcp_ch, type);
    if (!spec->always && spec->before_ready == rx->ready)
        return fault_set(fault, NVME_TCP_FES_SEQUENCE, 0);
    return 0;
}

/* The data of a PDU: what PDO and PLEN say is there. */
static int check_data(const struct nvme_tcp_rx *rx, const struct pdu_spec *spec,
                      const struct nvme_tcp_ch *ch, struct nvme_tcp_layout *out,
                      struct nvme_tcp_fault *fault)
{
    uint32_t align = 4u * (rx->pda + 1u);
    uint32_t max = ch->type == NVME_TCP_CMD ? rx->capsule_data_max : rx->data_max;
    uint32_t tail;

    if (ch->pdo < out->hdr_end || ch->pdo % align != 0 || ch->pdo > out->plen)
        return FIELD_FAULT(fault, struct nvme_tcp_ch, pdo);
    out->ddgst = rx->ready && rx->ddgst && spec->digests;
    if (out->ddgst != !!(ch->flags & NVME_TCP_F_DDGST))
        return FIELD_FAULT(fault, struct nvme_tcp_ch, flags);
    tail = out->ddgst ? NVME_TCP_DIGEST_BYTES : 0;
    if (out->plen - ch->pdo <= tail)
        return FIELD_FAULT(fault, struct nvme_tcp_ch, plen);
    out->data_off = ch->pdo;
    out->data_len = out->plen - ch->pdo - tail;
    if (out->data_len > max && (max != 0 || ch->type == NVME_TCP_CMD))
        return fault_set(fault, NVME_TCP_FES_LIMIT, 0);
    return 0;
}

int nvme_tcp_ch_decode(const struct nvme_tcp_rx *rx, const struct nvme_tcp_ch *ch,
                       struct nvme_tcp_layout *out, struct nvme_tcp_fault *fault)
{
    const struct pdu_spec *spec = spec_of(ch->type);
    int rc = check_type(rx, spec, fault);

    if (rc < 0)
        return rc;
    if (ch->hlen != spec->hlen)
        return FIELD_FAULT(fault, struct nvme_tcp_ch, hlen);
    *out = (struct nvme_tcp_layout){
        .type = ch->type,
        .flags = ch->flags,
        .hdgst = rx->ready && rx->hdgst && spec->digests,
        .hlen = spec->hlen,
        .plen = le32_get(ch->plen),
    };
    if (spec->digests && out->hdgst != !!(ch->flags & NVME_TCP_F_HDGST))
        return FIELD_FAULT(fault, struct nvme_tcp_ch, flags);
    out->hdr_end = out->hlen + (out->hdgst ? NVME_TCP_DIGEST_BYTES : 0);
    out->data_off = out->hdr_end;
    if (spec->always) {
        if (out->plen < out->hlen || out->plen > out->hlen + NVME_TCP_TERM_COPY_MAX)
            return FIELD_FAULT(fault, struct nvme_tcp_ch, plen);
        out->data_len = out->plen - out->hlen;
        return 0;
    }
    if (spec->must_have_data || (spec->may_have_data && out->plen > out->hdr_end))
        return check_data(rx, spec, ch, out, fault);
    /* No data: DDGSTF has no meaning then, and PDO none either; both are ignored. */
    if (out->plen != out->hdr_end)
        return FIELD_FAULT(fault, struct nvme_tcp_ch, plen);
    return 0;
}

static int check_icreq(const struct nvme_tcp_icreq *pdu, struct nvme_tcp_fault *fault)
{
    if (le16_get(pdu->pfv) != 0)
        return fault_set(fault, NVME_TCP_FES_UNSUPPORTED, offsetof(struct nvme_tcp_icreq, pfv));
    if (pdu->hpda > NVME_TCP_PDA_MAX)
        return FIELD_FAULT(fault, struct nvme_tcp_icreq, hpda);
    return 0;
}

static int check_icresp(const struct nvme_tcp_icresp *pdu, struct nvme_tcp_fault *fault)
{
    uint32_t maxh2cdata = le32_get(pdu->maxh2cdata);

    if (le16_get(pdu->pfv) != 0)
        return fault_set(fault, NVME_TCP_FES_UNSUPPORTED, offsetof(struct nvme_tcp_icresp, pfv));
    if (pdu->cpda > NVME_TCP_PDA_MAX)
        return FIELD_FAULT(fault, struct nvme_tcp_icresp, cpda);
    if (maxh2cdata < NVME_TCP_MAXH2CDATA_MIN || maxh2cdata % 4 != 0)
        return FIELD_FAULT(fault, struct nvme_tcp_icresp, maxh2cdata);
    return 0;
}

static int check_data_header(const struct nvme_tcp_layout *layout, const struct nvme_tcp_data *pdu,
                             struct nvme_tcp_fault *fault)
{
    uint32_t datao = le32_get(pdu->datao);

    if (le32_get(pdu->datal) != layout->data_len)
        return FIELD_FAULT(fault, struct nvme_tcp_data, datal);
    if (datao > UINT32_MAX - layout->data_len)
        return fault_set(fault, NVME_TCP_FES_OUT_OF_RANGE, 0);
    if (layout->type == NVME_TCP_C2H_DATA && (layout->flags & NVME_TCP_F_SUCCESS) != 0 &&
        (layout->flags & NVME_TCP_F_LAST) == 0)
        return FIELD_FAULT(fault, struct nvme_tcp_ch, flags);
    return 0;
}

static int check_r2t(const struct nvme_tcp_r2t *pdu, struct nvme_tcp_fault *fault)
{
    uint32_t r2tl = le32_get(pdu->r2tl);

    if (r2tl == 0)
        return FIELD_FAULT(fault, struct nvme_tcp_r2t, r2tl);
    if (le32_get(pdu->r2to) > UINT32_MAX - r2tl)
        return fault_set(fault, NVME_TCP_FES_OUT_OF_RANGE, 0);
    return 0;
}

int nvme_tcp_hdr_check(const struct nvme_tcp_layout *layout, const union nvme_tcp_pdu *pdu,
                       struct nvme_tcp_fault *fault)
{
    if (layout->hdgst) {
        uint32_t got = le32_at(pdu->bytes + layout->hlen);

        if (got != crc32c(0, pdu->bytes, layout->hlen))
            return fault_set(fault, NVME_TCP_FES_HDGST, got);
    }
    switch (layout->type) {
    case NVME_TCP_ICREQ:
        return check_icreq(&pdu->icreq, fault);
    case NVME_TCP_ICRESP:
        return check_icresp(&pdu->icresp, fault);
    case NVME_TCP_H2C_DATA:
    case NVME_TCP_C2H_DATA:
        return check_data_header(layout, &pdu->data, fault);
    case NVME_TCP_R2T:
        return check_r2t(&pdu->r2t, fault);
    default:
        return 0;
    }
}

/* Offset in the PDU of a field of the SQE. */
#define SQE_AT(field) (offsetof(struct nvme_tcp_cmd, sqe) + offsetof(struct nvme_sqe, field))

int nvme_tcp_sgl_check(const struct nvme_tcp_layout *layout, const struct nvme_sqe *sqe,
                       uint32_t *out_len, bool *out_in_capsule, struct nvme_tcp_fault *fault)
{
    uint32_t len = le32_get(sqe->sgl.len);

    switch (sqe->sgl.type) {
    case NVME_SGL_DATA_BLOCK_OFFSET:
        if (le64_get(sqe->sgl.addr) != 0)
            return fault_set(fault, NVME_TCP_FES_UNSUPPORTED, SQE_AT(sgl));
        if (len != layout->data_len)
            return FIELD_FAULT(fault, struct nvme_tcp_ch, plen);
        *out_len = len;
        *out_in_capsule = true;
        return 0;
    case NVME_SGL_TRANSPORT:
        if (layout->data_len != 0)
            return FIELD_FAULT(fault, struct nvme_tcp_ch, plen);
        *out_len = len;
        *out_in_capsule = false;
        return 0;
    default:
        return fault_set(fault, NVME_TCP_FES_UNSUPPORTED, SQE_AT(sgl));
    }
}

int nvme_tcp_h2c_check(struct nvme_tcp_window *w, const struct nvme_tcp_data *pdu,
                       struct nvme_tcp_fault *fault)
{
    uint32_t datal = le32_get(pdu->datal);
    bool last = pdu->ch.flags & NVME_TCP_F_LAST;

    must(w->next <= w->end);
    if (le16_get(pdu->ttag) != w->ttag)
        return FIELD_FAULT(fault, struct nvme_tcp_data, ttag);
    if (le16_get(pdu->cccid) != w->cccid)
        return FIELD_FAULT(fault, struct nvme_tcp_data, cccid);
    if (le32_get(pdu->datao) != w->next || datal > w->end - w->next)
        return fault_set(fault, NVME_TCP_FES_OUT_OF_RANGE, 0);
    /* LAST says that the R2T is answered in full; a PDU that fills the window has to say it. */
    if (last != (datal == w->end - w->next))
        return FIELD_FAULT(fault, struct nvme_tcp_ch, flags);
    w->next += datal;
    return last ? 1 : 0;
}

/* --- sending ---------------------------------------------------------------------------------- */

static struct nvme_tcp_ch ch_make(uint8_t type, uint8_t flags, uint8_t pdo, uint32_t plen)
{
    return (struct nvme_tcp_ch){.type = type,
                                .flags = flags,
                                .hlen = pdu_specs[type].hlen,
                                .pdo = pdo,
                                .plen = le32_make(plen)};
}

/* Completes a header of which everything but the common header is in place. */
static size_t put_header(void *out, const struct nvme_tcp_tx *tx, uint8_t type, uint8_t flags,
                         uint32_t data_len)
{
    struct nvme_tcp_ch *ch = out;
    size_t hlen = pdu_specs[type].hlen;
    size_t end = hlen + (tx->hdgst ? NVME_TCP_DIGEST_BYTES : 0);
    size_t pdo = data_len > 0 ? round_up_u64(end, 4u * (tx->pda + 1u)) : end;
    size_t plen = pdo + data_len;

    if (tx->hdgst)
        flags |= NVME_TCP_F_HDGST;
    if (tx->ddgst && data_len > 0) {
        flags |= NVME_TCP_F_DDGST;
        plen += NVME_TCP_DIGEST_BYTES;
    }
    must(plen <= UINT32_MAX);
    *ch = ch_make(type, flags, data_len > 0 ? (uint8_t)pdo : 0, (uint32_t)plen);
    if (tx->hdgst)
        le32_put((uint8_t *)out + hlen, crc32c(0, out, hlen));
    if (pdo > end)
        memset((uint8_t *)out + end, 0, pdo - end);
    return pdo;
}

size_t nvme_tcp_put_icreq(void *out, uint8_t hpda, uint8_t dgst, uint32_t maxr2t)
{
    struct nvme_tcp_icreq pdu = {
        .ch = ch_make(NVME_TCP_ICREQ, 0, 0, sizeof(pdu)),
        .hpda = hpda,
        .dgst = dgst,
        .maxr2t = le32_make(maxr2t),
    };

    memcpy(out, &pdu, sizeof(pdu));
    return sizeof(pdu);
}

size_t nvme_tcp_put_icresp(void *out, uint8_t cpda, uint8_t dgst, uint32_t maxh2cdata)
{
    struct nvme_tcp_icresp pdu = {
        .ch = ch_make(NVME_TCP_ICRESP, 0, 0, sizeof(pdu)),
        .cpda = cpda,
        .dgst = dgst,
        .maxh2cdata = le32_make(maxh2cdata),
    };

    memcpy(out, &pdu, sizeof(pdu));
    return sizeof(pdu);
}

size_t nvme_tcp_put_term(void *out, bool to_host, struct nvme_tcp_fault fault,
                         struct bytes bad_header)
{
    size_t copy = MIN(bad_header.len, (size_t)NVME_TCP_TERM_COPY_MAX);
    struct nvme_tcp_term pdu = {
        .ch = ch_make(to_host ? NVME_TCP_C2H_TERM : NVME_TCP_H2C_TERM, 0, 0,
                      (uint32_t)(sizeof(pdu) + copy)),
        .fes = le16_make(fault.fes),
        .fei = le32_make(fault.fei),
    };

    memcpy(out, &pdu, sizeof(pdu));
    if (copy > 0)
        memcpy((uint8_t *)out + sizeof(pdu), bad_header.ptr, copy);
    return sizeof(pdu) + copy;
}

size_t nvme_tcp_put_cmd(void *out, const struct nvme_tcp_tx *tx, const struct nvme_sqe *sqe,
                        uint32_t data_len)
{
    memcpy((uint8_t *)out + offsetof(struct nvme_tcp_cmd, sqe), sqe, sizeof(*sqe));
    return put_header(out, tx, NVME_TCP_CMD, 0, data_len);
}

size_t nvme_tcp_put_resp(void *out, const struct nvme_tcp_tx *tx, const struct nvme_cqe *cqe)
{
    memcpy((uint8_t *)out + offsetof(struct nvme_tcp_resp, cqe), cqe, sizeof(*cqe));
    return put_header(out, tx, NVME_TCP_RESP, 0, 0);
}

static size_t put_data(void *out, const struct nvme_tcp_tx *tx, uint8_t type, uint16_t cccid,
                       uint16_t ttag, uint32_t datao, uint32_t datal, uint8_t flags)
{
    struct nvme_tcp_data *pdu = out;

    *pdu = (struct nvme_tcp_data){
        .cccid = le16_make(cccid),
        .ttag = le16_make(ttag),
        .datao = le32_make(datao),
        .datal = le32_make(datal),
    };
    return put_header(out, tx, type, flags, datal);
}

size_t nvme_tcp_put_h2c_data(void *out, const struct nvme_tcp_tx *tx, uint16_t cccid, uint16_t ttag,
                             uint32_t datao, uint32_t datal, bool last)
{
    return put_data(out, tx, NVME_TCP_H2C_DATA, cccid, ttag, datao, datal,
                    last ? NVME_TCP_F_LAST : 0);
}

size_t nvme_tcp_put_c2h_data(void *out, const struct nvme_tcp_tx *tx, uint16_t cccid,
                             uint32_t datao, uint32_t datal, uint8_t flags)
{
    return put_data(out, tx, NVME_TCP_C2H_DATA, cccid, 0, datao, datal, flags);
}

size_t nvme_tcp_put_r2t(void *out, const struct nvme_tcp_tx *tx, uint16_t cccid, uint16_t ttag,
                        uint32_t r2to, uint32_t r2tl)
{
    struct nvme_tcp_r2t *pdu = out;

    *pdu = (struct nvme_tcp_r2t){
        .cccid = le16_make(cccid),
        .ttag = le16_make(ttag),
        .r2to = le32_make(r2to),
        .r2tl = le32_make(r2tl),
    };
    return put_header(out, tx, NVME_TCP_R2T, 0, 0);
}

static void put_sgl(struct nvme_sqe *sqe, uint32_t len, uint8_t type)
{
    sqe->flags = (sqe->flags & (uint8_t)~NVME_SQE_PSDT_MASK) | NVME_SQE_PSDT_SGL;
    sqe->sgl = (struct nvme_sgl){.len = le32_make(len), .type = type};
}

void nvme_tcp_sgl_in_capsule(struct nvme_sqe *sqe, uint32_t len)
{
    put_sgl(sqe, len, NVME_SGL_DATA_BLOCK_OFFSET);
}

void nvme_tcp_sgl_transport(struct nvme_sqe *sqe, uint32_t len)
{
    put_sgl(sqe, len, NVME_SGL_TRANSPORT);
}
