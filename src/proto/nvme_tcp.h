/* SPDX-License-Identifier: Apache-2.0 */
/*
 * NVMe/TCP PDUs. One PDU on the wire is: header (HLEN bytes), header digest, padding up to PDO,
 * data, data digest; which of them are there says struct nvme_tcp_layout.
 *
 * A receiver reads 8 bytes and calls nvme_tcp_ch_decode(), reads the rest of the header (to
 * layout.hdr_end) and calls nvme_tcp_hdr_check(), then skips to layout.data_off and takes
 * layout.data_len bytes of data and, when layout.ddgst, 4 bytes of digest. Whatever is wrong
 * comes back as a struct nvme_tcp_fault, ready for the TermReq to send.
 *
 * A sender calls one nvme_tcp_put_*(): it writes everything before the data (with header digest
 * and padding); data and data digest are the caller's. No sockets, no memory, no state here.
 */
#ifndef KVASIR_PROTO_NVME_TCP_H
#define KVASIR_PROTO_NVME_TCP_H

#include "proto/nvme.h"

#include "base/bytes.h"

#define NVME_TCP_PORT 4420
#define NVME_TCP_DISCOVERY_PORT 8009

enum nvme_tcp_type {
    NVME_TCP_ICREQ = 0x00,
    NVME_TCP_ICRESP = 0x01,
    NVME_TCP_H2C_TERM = 0x02,
    NVME_TCP_C2H_TERM = 0x03,
    NVME_TCP_CMD = 0x04,
    NVME_TCP_RESP = 0x05,
    NVME_TCP_H2C_DATA = 0x06,
    NVME_TCP_C2H_DATA = 0x07,
    NVME_TCP_R2T = 0x09,
};
/** "ICReq", "CapsuleCmd", ...; "reserved" for others. */
const char *nvme_tcp_type_name(uint8_t type);

#define NVME_TCP_F_HDGST 0x01
#define NVME_TCP_F_DDGST 0x02
#define NVME_TCP_F_LAST 0x04    /* H2CData, C2HData */
#define NVME_TCP_F_SUCCESS 0x08 /* C2HData: no CapsuleResp follows. Only with LAST */

#define NVME_TCP_DIGEST_BYTES 4
#define NVME_TCP_IC_BYTES 128
#define NVME_TCP_TERM_BYTES 24
#define NVME_TCP_TERM_COPY_MAX 128 /* of the offending header */
#define NVME_TCP_CMD_BYTES 72
#define NVME_TCP_RESP_BYTES 24
#define NVME_TCP_DATA_BYTES 24
#define NVME_TCP_R2T_BYTES 24
/* Room that is enough for what stands before the data of any PDU, padding included. */
#define NVME_TCP_HDR_MAX 256
/* What nvme_tcp_put_* writes at most: IC and TermReq are whole, padding is to 128 bytes. */
#define NVME_TCP_PUT_MAX 160
#define NVME_TCP_PDA_MAX 31
#define NVME_TCP_MAXH2CDATA_MIN 4096

struct nvme_tcp_ch {      /* common header */
    uint8_t type;         /* 0  NVME_TCP_* */
    uint8_t flags;        /* 1  NVME_TCP_F_* */
    uint8_t hlen;         /* 2  header bytes, digest not counted */
    uint8_t pdo;          /* 3  offset of the data; 0 without */
    le32    plen;         /* 4  all bytes of the PDU */
};
static_assert(sizeof(struct nvme_tcp_ch) == 8, "common header is 8 bytes");

struct nvme_tcp_icreq {
    struct nvme_tcp_ch ch;   /*  0 */
    le16    pfv;             /*  8  0 */
    uint8_t hpda;            /* 10  0-based dwords: alignment of C2HData */
    uint8_t dgst;            /* 11  NVME_TCP_DGST_* wanted */
    le32    maxr2t;          /* 12  0-based */
    uint8_t rsvd[112];       /* 16 */
};
static_assert(sizeof(struct nvme_tcp_icreq) == 128, "ICReq is 128 bytes");

struct nvme_tcp_icresp {
    struct nvme_tcp_ch ch;   /*  0 */
    le16    pfv;             /*  8  0 */
    uint8_t cpda;            /* 10  0-based dwords: alignment of H2CData and capsules */
    uint8_t dgst;            /* 11  NVME_TCP_DGST_* in use */
    le32    maxh2cdata;      /* 12  bytes of one H2CData: >= 4096, multiple of 4 */
    uint8_t rsvd[112];       /* 16 */
};
static_assert(sizeof(struct nvme_tcp_icresp) == 128, "ICResp is 128 bytes");

#define NVME_TCP_DGST_HEADER 0x01
#define NVME_TCP_DGST_DATA 0x02

struct nvme_tcp_term {       /* H2CTermReq, C2HTermReq; the offending header follows */
    struct nvme_tcp_ch ch;   /*  0 */
    le16    fes;             /*  8  NVME_TCP_FES_* */
    le32    fei;             /* 10 */
    uint8_t rsvd[10];        /* 14 */
};
static_assert(sizeof(struct nvme_tcp_term) == 24, "TermReq is 24 bytes");

enum nvme_tcp_fes {
    NVME_TCP_FES_INVALID_FIELD = 1, /* fei: byte offset of the field */
    NVME_TCP_FES_SEQUENCE = 2,
    NVME_TCP_FES_HDGST = 3,         /* fei: the digest received */
    NVME_TCP_FES_OUT_OF_RANGE = 4,  /* data outside what was asked for */
    NVME_TCP_FES_LIMIT = 5,         /* more R2Ts or data than agreed */
    NVME_TCP_FES_UNSUPPORTED = 6,   /* fei: byte offset of the parameter */
};
/** "invalid PDU header field", ...; "unknown" for others. */
const char *nvme_tcp_fes_text(uint16_t fes);

struct nvme_tcp_cmd {        /* CapsuleCmd */
    struct nvme_tcp_ch ch;   /*  0 */
    struct nvme_sqe sqe;     /*  8 */
};
static_assert(sizeof(struct nvme_tcp_cmd) == 72, "CapsuleCmd is 72 bytes");

struct nvme_tcp_resp {       /* CapsuleResp */
    struct nvme_tcp_ch ch;   /*  0 */
    struct nvme_cqe cqe;     /*  8 */
};
static_assert(sizeof(struct nvme_tcp_resp) == 24, "CapsuleResp is 24 bytes");

struct nvme_tcp_data {       /* H2CData, C2HData */
    struct nvme_tcp_ch ch;   /*  0 */
    le16    cccid;           /*  8  of the command */
    le16    ttag;            /* 10  H2CData: of the R2T; C2HData: reserved */
    le32    datao;           /* 12  offset in the command's data */
    le32    datal;           /* 16  bytes in this PDU */
    uint8_t rsvd[4];         /* 20 */
};
static_assert(sizeof(struct nvme_tcp_data) == 24, "data PDU header is 24 bytes");

struct nvme_tcp_r2t {
    struct nvme_tcp_ch ch;   /*  0 */
    le16    cccid;           /*  8 */
    le16    ttag;            /* 10  chosen by the controller */
    le32    r2to;            /* 12 */
    le32    r2tl;            /* 16  > 0 */
    uint8_t rsvd[4];         /* 20 */
};
static_assert(sizeof(struct nvme_tcp_r2t) == 24, "R2T is 24 bytes");

/** Room for the header of any PDU. */
union nvme_tcp_pdu {
    struct nvme_tcp_ch ch;
    struct nvme_tcp_icreq icreq;
    struct nvme_tcp_icresp icresp;
    struct nvme_tcp_term term;
    struct nvme_tcp_cmd cmd;
    struct nvme_tcp_resp resp;
    struct nvme_tcp_data data;
    struct nvme_tcp_r2t r2t;
    uint8_t bytes[NVME_TCP_HDR_MAX];
};

/* --- receiving -------------------------------------------------------------------------------- */

/** What the peer did wrong: becomes FES and FEI of the TermReq. */
struct nvme_tcp_fault {
    uint16_t fes; /* enum nvme_tcp_fes */
    uint32_t fei;
};

/** What a receiver knows when a PDU begins. */
struct nvme_tcp_rx {
    bool controller; /* we are the controller: ICReq, CapsuleCmd, H2CData, H2CTermReq come in */
    bool ready;      /* ICReq and ICResp have been exchanged */
    bool hdgst;      /* negotiated; with `ready` only */
    bool ddgst;
    uint8_t pda;     /* our CPDA (controller) or HPDA (host): PDO is a multiple of 4 * (pda + 1) */
    uint32_t capsule_data_max; /* controller: data one capsule may carry */
    uint32_t data_max;         /* data of one H2CData (MAXH2CDATA) or C2HData; 0: no limit */
};

/** Where the parts of one PDU are, from its first byte. */
struct nvme_tcp_layout {
    uint8_t type;
    uint8_t flags;
    bool hdgst;
    bool ddgst;         /* 4 bytes follow the data */
    uint32_t hlen;      /* header, without digest */
    uint32_t hdr_end;   /* header with digest: the bytes nvme_tcp_hdr_check() wants */
    uint32_t data_off;  /* of the data (PDO); hdr_end when there is none */
    uint32_t data_len;  /* bytes of data, digest not counted; TermReq: of the header copy */
    uint32_t plen;
};

/**
 * Checks a common header against the state of the connection.
 * Returns 0, or -EPROTO with *fault: the connection ends with a TermReq (never as answer to one).
 */
int nvme_tcp_ch_decode(const struct nvme_tcp_rx *rx, const struct nvme_tcp_ch *ch,
                       struct nvme_tcp_layout *out, struct nvme_tcp_fault *fault);

/**
 * Checks the header digest and what of the header needs no knowledge of commands: parameters of
 * ICReq and ICResp, DATAL against PLEN, R2TL, SUCCESS without LAST.
 * `pdu` holds layout->hdr_end bytes. Returns 0, or -EPROTO with *fault.
 */
int nvme_tcp_hdr_check(const struct nvme_tcp_layout *layout, const union nvme_tcp_pdu *pdu,
                       struct nvme_tcp_fault *fault);

/** True when the 4 bytes at `digest` are the CRC-32C `crc` of the data. */
static inline bool nvme_tcp_digest_ok(const void *digest, uint32_t crc)
{
    return le32_at(digest) == crc;
}

/**
 * Controller: checks the data pointer of a command that moves `len` bytes or has none, against the
 * capsule it came in. On success *out_len is the SGL's length and *out_in_capsule tells where the
 * data is (in the capsule, or to be moved by R2T and C2HData).
 * Returns 0, or -EPROTO with *fault.
 */
int nvme_tcp_sgl_check(const struct nvme_tcp_layout *layout, const struct nvme_sqe *sqe,
                       uint32_t *out_len, bool *out_in_capsule, struct nvme_tcp_fault *fault);

/** One R2T that was sent, and how much of it came. */
struct nvme_tcp_window {
    uint16_t cccid;
    uint16_t ttag;
    uint32_t next; /* the DATAO expected next */
    uint32_t end;  /* R2TO + R2TL */
};

/**
 * Controller: checks an H2CData header against its window and moves `next` on.
 * Returns 1 when it was the last of the window, 0 when more is to come, or -EPROTO with *fault.
 */
int nvme_tcp_h2c_check(struct nvme_tcp_window *w, const struct nvme_tcp_data *pdu,
                       struct nvme_tcp_fault *fault);

/* --- sending ---------------------------------------------------------------------------------- */

/** What was negotiated. */
struct nvme_tcp_tx {
    bool hdgst;
    bool ddgst;
    uint8_t pda; /* the peer's: CPDA when we are the host, HPDA when we are the controller */
};

/* All return the number of bytes written to `out` (up to NVME_TCP_PUT_MAX), which is PDO of PDUs
 * with data. PLEN and flags count `data_len` bytes and the data digest, which the caller sends. */
size_t nvme_tcp_put_icreq(void *out, uint8_t hpda, uint8_t dgst, uint32_t maxr2t);
size_t nvme_tcp_put_icresp(void *out, uint8_t cpda, uint8_t dgst, uint32_t maxh2cdata);
/** `to_host` makes it a C2HTermReq. Copies the first bytes of the offending header. */
size_t nvme_tcp_put_term(void *out, bool to_host, struct nvme_tcp_fault fault,
                         struct bytes bad_header);
size_t nvme_tcp_put_cmd(void *out, const struct nvme_tcp_tx *tx, const struct nvme_sqe *sqe,
                        uint32_t data_len);
size_t nvme_tcp_put_resp(void *out, const struct nvme_tcp_tx *tx, const struct nvme_cqe *cqe);
size_t nvme_tcp_put_h2c_data(void *out, const struct nvme_tcp_tx *tx, uint16_t cccid,
                             uint16_t ttag, uint32_t datao, uint32_t datal, bool last);
/** flags: NVME_TCP_F_LAST, NVME_TCP_F_SUCCESS. */
size_t nvme_tcp_put_c2h_data(void *out, const struct nvme_tcp_tx *tx, uint16_t cccid,
                             uint32_t datao, uint32_t datal, uint8_t flags);
size_t nvme_tcp_put_r2t(void *out, const struct nvme_tcp_tx *tx, uint16_t cccid, uint16_t ttag,
                        uint32_t r2to, uint32_t r2tl);

/** Fills the data pointer of a command that sends its data in the capsule / by other PDUs. */
void nvme_tcp_sgl_in_capsule(struct nvme_sqe *sqe, uint32_t len);
void nvme_tcp_sgl_transport(struct nvme_sqe *sqe, uint32_t len);

#endif
