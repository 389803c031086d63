/* SPDX-License-Identifier: Apache-2.0 */
/*
 * NVMe over Fabrics, whatever the transport: fabrics commands (Connect, properties,
 * authentication), the registers that properties stand for, and discovery.
 */
#ifndef KVASIR_PROTO_NVME_FABRICS_H
#define KVASIR_PROTO_NVME_FABRICS_H

#include "proto/nvme.h"

#define NVME_NQN_FIELD 256 /* bytes of an NQN field, its NUL included */
#define NVME_NQN_MAX 223   /* bytes of an NQN */
#define NVME_DISCOVERY_NQN "nqn.2014-08.org.nvmexpress.discovery"
#define NVME_NQN_UUID_PREFIX "nqn.2014-08.org.nvmexpress:uuid:"

/**
 * True when `field` (NVME_NQN_FIELD bytes from the wire) holds an NQN: NUL terminated, 1 to
 * NVME_NQN_MAX bytes of UTF-8 without control characters, "nqn.yyyy-mm." + something.
 */
bool nvme_nqn_field_ok(const char *field);
/** The same of a string. */
bool nvme_nqn_ok(const char *nqn);
/**
 * What we ask of an NQN that somebody else chose: terminated, not too long, UTF-8 without control
 * characters. It may even be empty (spdk_nvme_perf sends an empty HOSTNQN).
 */
bool nvme_nqn_field_printable(const char *field);

/* --- commands --------------------------------------------------------------------------------- */

enum nvme_fctype {
    NVME_FC_PROPERTY_SET = 0x00,
    NVME_FC_CONNECT = 0x01,
    NVME_FC_PROPERTY_GET = 0x04,
    NVME_FC_AUTH_SEND = 0x05,
    NVME_FC_AUTH_RECEIVE = 0x06,
    NVME_FC_DISCONNECT = 0x08,
};
const char *nvme_fctype_name(uint8_t fctype);

struct nvme_fabrics_cmd {   /* what all fabrics commands have */
    uint8_t opc;            /*  0  NVME_OPC_FABRICS */
    uint8_t flags;          /*  1  NVME_SQE_PSDT_SGL */
    le16    cid;            /*  2 */
    uint8_t fctype;         /*  4  NVME_FC_* */
    uint8_t rsvd5[19];      /*  5 */
    struct nvme_sgl sgl;    /* 24 */
    uint8_t specific[24];   /* 40 */
};
static_assert(sizeof(struct nvme_fabrics_cmd) == 64, "fabrics command is 64 bytes");

struct nvme_connect_cmd {
    uint8_t opc;            /*  0 */
    uint8_t flags;          /*  1 */
    le16    cid;            /*  2 */
    uint8_t fctype;         /*  4  NVME_FC_CONNECT */
    uint8_t rsvd5[19];      /*  5 */
    struct nvme_sgl sgl;    /* 24  1024 bytes in the capsule */
    le16    recfmt;         /* 40  0 */
    le16    qid;            /* 42  0: admin queue */
    le16    sqsize;         /* 44  0-based, not 0 */
    uint8_t cattr;          /* 46  NVME_CATTR_* */
    uint8_t rsvd47;         /* 47 */
    le32    kato;           /* 48  ms; admin queue */
    uint8_t rsvd52[12];     /* 52 */
};
static_assert(sizeof(struct nvme_connect_cmd) == 64, "Connect is 64 bytes");

#define NVME_CATTR_PRIORITY_MASK 0x03
#define NVME_CATTR_DISABLE_SQFLOW 0x04
#define NVME_CATTR_IO_QUEUE_DELETE 0x08

#define NVME_CNTLID_DYNAMIC 0xffff /* Connect asks for a new controller */
#define NVME_CNTLID_MIN 0x0001
#define NVME_CNTLID_MAX 0xffef

struct nvme_connect_data {
    uint8_t hostid[16];                /*   0 */
    le16    cntlid;                    /*  16 */
    uint8_t rsvd18[238];               /*  18 */
    char    subnqn[NVME_NQN_FIELD];    /* 256 */
    char    hostnqn[NVME_NQN_FIELD];   /* 512 */
    uint8_t rsvd768[256];              /* 768 */
};
static_assert(sizeof(struct nvme_connect_data) == 1024, "Connect data is 1024 bytes");

/** DW0 of a Connect response: success, and NVME_SC_CONNECT_INVALID_PARAM. */
#define NVME_CONNECT_CNTLID_MASK 0xffffu
#define NVME_CONNECT_ATR (1u << 17)       /* authentication required */
#define NVME_CONNECT_ASCR (1u << 18)      /* and a secure channel */
#define NVME_CONNECT_IATTR_DATA (1u << 16) /* IPO counts in the data, else in the SQE */

/**
 * Checks what of a Connect needs no knowledge of subsystems: record format, queue size, NQNs
 * (nvme_nqn_field_printable) and CNTLID against the queue. `data`: what came, `data_len` bytes.
 * Returns NVME_SC_SUCCESS, or the status (with DNR) and the DW0 to answer.
 */
uint16_t nvme_connect_check(const struct nvme_connect_cmd *cmd, const void *data, size_t data_len,
                            uint32_t *out_dw0);

struct nvme_property_cmd {  /* Get and Set */
    uint8_t opc;            /*  0 */
    uint8_t flags;          /*  1 */
    le16    cid;            /*  2 */
    uint8_t fctype;         /*  4 */
    uint8_t rsvd5[35];      /*  5 */
    uint8_t attrib;         /* 40  bits 2:0: 0 = 4 bytes, 1 = 8 bytes */
    uint8_t rsvd41[3];      /* 41 */
    le32    ofst;           /* 44  NVME_REG_* */
    le64    value;          /* 48  Set */
    uint8_t rsvd56[8];      /* 56 */
};
static_assert(sizeof(struct nvme_property_cmd) == 64, "Property Get and Set are 64 bytes");
#define NVME_PROPERTY_8_BYTES 0x01
#define NVME_PROPERTY_SIZE_MASK 0x07

struct nvme_auth_cmd {      /* Authentication Send and Receive */
    uint8_t opc;            /*  0 */
    uint8_t flags;          /*  1 */
    le16    cid;            /*  2 */
    uint8_t fctype;         /*  4 */
    uint8_t rsvd5[19];      /*  5 */
    struct nvme_sgl sgl;    /* 24 */
    uint8_t rsvd40;         /* 40 */
    uint8_t spsp0;          /* 41  01h */
    uint8_t spsp1;          /* 42  01h */
    uint8_t secp;           /* 43  E9h */
    le32    len;            /* 44  TL or AL */
    uint8_t rsvd48[16];     /* 48 */
};
static_assert(sizeof(struct nvme_auth_cmd) == 64, "authentication commands are 64 bytes");
#define NVME_AUTH_SECP 0xe9
#define NVME_AUTH_SPSP0 0x01
#define NVME_AUTH_SPSP1 0x01

struct nvme_disconnect_cmd {
    uint8_t opc;            /*  0 */
    uint8_t flags;          /*  1 */
    le16    cid;            /*  2 */
    uint8_t fctype;         /*  4 */
    uint8_t rsvd5[19];      /*  5 */
    struct nvme_sgl sgl;    /* 24 */
    le16    recfmt;         /* 40 */
    uint8_t rsvd42[22];     /* 42 */
};
static_assert(sizeof(struct nvme_disconnect_cmd) == 64, "Disconnect is 64 bytes");

/* --- registers, by Property Get and Set (PCIe: BAR0) ------------------------------------------ */

enum nvme_reg {
    NVME_REG_CAP = 0x00,   /* 8 bytes */
    NVME_REG_VS = 0x08,
    NVME_REG_INTMS = 0x0c,
    NVME_REG_INTMC = 0x10,
    NVME_REG_CC = 0x14,
    NVME_REG_CSTS = 0x1c,
    NVME_REG_NSSR = 0x20,
    NVME_REG_AQA = 0x24,
    NVME_REG_ASQ = 0x28,   /* 8 bytes */
    NVME_REG_ACQ = 0x30,   /* 8 bytes */
    NVME_REG_CRTO = 0x68,
    NVME_REG_DOORBELL = 0x1000,
};

#define NVME_VS_1_4 0x00010400u
#define NVME_VS_2_0 0x00020000u

/* Fields of CAP; values are shifted into place by NVME_CAP(). */
#define NVME_CAP_MQES(cap) NVME_BITS(cap, 15, 0)   /* 0-based */
#define NVME_CAP_TO(cap) NVME_BITS(cap, 31, 24)    /* 500 ms */
#define NVME_CAP_DSTRD(cap) NVME_BITS(cap, 35, 32)
#define NVME_CAP_CSS(cap) NVME_BITS(cap, 44, 37)   /* NVME_CAP_CSS_* */
#define NVME_CAP_MPSMIN(cap) NVME_BITS(cap, 51, 48)
#define NVME_CAP_MPSMAX(cap) NVME_BITS(cap, 55, 52)
#define NVME_CAP_CRMS(cap) NVME_BITS(cap, 60, 59)
#define NVME_CAP_MQES_SHIFT 0
#define NVME_CAP_CQR (1ull << 16)
#define NVME_CAP_TO_SHIFT 24
#define NVME_CAP_CSS_SHIFT 37
#define NVME_CAP_CRWMS (1ull << 59)
#define NVME_CAP_CRIMS (1ull << 60)
#define NVME_CAP_CSS_NVM 0x01u
#define NVME_CAP_CSS_IOCS 0x40u     /* other command sets; CC.CSS = 110b is legal */
#define NVME_CAP_CSS_ADMIN_ONLY 0x80u

#define NVME_CC_EN (1u << 0)
#define NVME_CC_CSS(cc) NVME_BITS(cc, 6, 4)        /* NVME_CSS_* */
#define NVME_CC_MPS(cc) NVME_BITS(cc, 10, 7)
#define NVME_CC_AMS(cc) NVME_BITS(cc, 13, 11)
#define NVME_CC_SHN(cc) NVME_BITS(cc, 15, 14)      /* NVME_SHN_* */
#define NVME_CC_IOSQES(cc) NVME_BITS(cc, 19, 16)   /* 6 */
#define NVME_CC_IOCQES(cc) NVME_BITS(cc, 23, 20)   /* 4 */
#define NVME_CC_CRIME (1u << 24)
#define NVME_CC_CSS_SHIFT 4
#define NVME_CC_SHN_SHIFT 14
#define NVME_CC_IOSQES_SHIFT 16
#define NVME_CC_IOCQES_SHIFT 20
#define NVME_CSS_NVM 0u
#define NVME_CSS_IOCS 6u
#define NVME_CSS_ADMIN_ONLY 7u
#define NVME_SHN_NONE 0u
#define NVME_SHN_NORMAL 1u
#define NVME_SHN_ABRUPT 2u

#define NVME_CSTS_RDY (1u << 0)
#define NVME_CSTS_CFS (1u << 1)
#define NVME_CSTS_SHST(csts) NVME_BITS(csts, 3, 2)
#define NVME_CSTS_SHST_MASK (3u << 2)
#define NVME_CSTS_SHST_OCCURRING (1u << 2)
#define NVME_CSTS_SHST_COMPLETE (2u << 2)
#define NVME_CSTS_NSSRO (1u << 4)
#define NVME_CSTS_PP (1u << 5)

/* --- discovery -------------------------------------------------------------------------------- */

enum nvme_trtype {
    NVME_TRTYPE_RDMA = 1,
    NVME_TRTYPE_FC = 2,
    NVME_TRTYPE_TCP = 3,
    NVME_TRTYPE_LOOP = 254,
};
enum nvme_adrfam {
    NVME_ADRFAM_IPV4 = 1,
    NVME_ADRFAM_IPV6 = 2,
    NVME_ADRFAM_IB = 3,
    NVME_ADRFAM_FC = 4,
};
enum nvme_subtype {
    NVME_SUBTYPE_REFERRAL = 1,
    NVME_SUBTYPE_NVM = 2,
    NVME_SUBTYPE_CURRENT_DISCOVERY = 3,
};
#define NVME_TREQ_SECURE_MASK 0x03 /* 0 unspecified, 1 required, 2 not required */
#define NVME_TREQ_SECURE_REQUIRED 0x01
#define NVME_TREQ_SECURE_NOT_REQUIRED 0x02
#define NVME_TREQ_DISABLE_SQFLOW 0x04
#define NVME_EFLAGS_DUPRETINFO 0x0001
#define NVME_EFLAGS_EPCSD 0x0002   /* explicit persistent connection */
#define NVME_TSAS_TCP_NONE 0       /* first byte of TSAS */
#define NVME_TSAS_TCP_TLS12 1
#define NVME_TSAS_TCP_TLS13 2

struct nvme_discovery_head {     /* log page 70h; entries follow at 1024 */
    le64    genctr;              /*    0 */
    le64    numrec;              /*    8 */
    le16    recfmt;              /*   16  0 */
    uint8_t rsvd18[1006];        /*   18 */
};
static_assert(sizeof(struct nvme_discovery_head) == 1024, "discovery log head is 1024 bytes");

struct nvme_discovery_entry {
    uint8_t trtype;                    /*    0  NVME_TRTYPE_* */
    uint8_t adrfam;                    /*    1  NVME_ADRFAM_* */
    uint8_t subtype;                   /*    2  NVME_SUBTYPE_* */
    uint8_t treq;                      /*    3  NVME_TREQ_* */
    le16    portid;                    /*    4 */
    le16    cntlid;                    /*    6  FFFFh: dynamic */
    le16    asqsz;                     /*    8  >= 32 */
    le16    eflags;                    /*   10  NVME_EFLAGS_* */
    uint8_t rsvd12[20];                /*   12 */
    char    trsvcid[32];               /*   32  ASCII, padded with spaces (or NUL) */
    uint8_t rsvd64[192];               /*   64 */
    char    subnqn[NVME_NQN_FIELD];    /*  256  padded with NUL */
    char    traddr[256];               /*  512  ASCII, padded with spaces (or NUL) */
    uint8_t tsas[256];                 /*  768 */
};
static_assert(sizeof(struct nvme_discovery_entry) == 1024, "discovery entry is 1024 bytes");

/** One entry for people and programs: checked, trimmed, NUL terminated. */
struct nvme_discovery_info {
    uint8_t trtype;
    uint8_t adrfam;
    uint8_t subtype;
    uint8_t treq;
    uint8_t sectype; /* NVME_TSAS_TCP_*, when trtype is TCP */
    uint16_t portid;
    uint16_t cntlid;
    uint16_t asqsz;
    uint16_t eflags;
    char trsvcid[33];
    char traddr[257];
    char subnqn[NVME_NQN_FIELD];
};

/** Number of entries a log of `len` bytes holds whole; -EBADMSG when the head is not one. */
int nvme_discovery_count(const void *log, size_t len, uint64_t *out_genctr, uint64_t *out_numrec);
/** -EBADMSG when the entry has no NQN, or an address with characters that no address has. */
int nvme_discovery_decode(const struct nvme_discovery_entry *e, struct nvme_discovery_info *out);
/** Fills an entry; texts that do not fit are -EINVAL. Addresses are padded with spaces. */
int nvme_discovery_encode(struct nvme_discovery_entry *e, const struct nvme_discovery_info *info);

#endif
