/* SPDX-License-Identifier: Apache-2.0 */
/*
 * NVMe: what every command has (submission and completion entry, data pointer, status) and the
 * commands of the NVM command set. Names are the specification's. The rest is in nvme_admin.h
 * (identify, logs, features), nvme_fabrics.h (properties, Connect, discovery, authentication),
 * nvme_kv.h and nvme_kv_vendor.h (key-value commands) and nvme_tcp.h (PDUs).
 *
 * All structs are bytes on the wire; reserved fields are ignored when read and zero when written.
 */
#ifndef KVASIR_PROTO_NVME_H
#define KVASIR_PROTO_NVME_H

#include "base/endian.h"
#include "base/util.h"

#include <assert.h>

/* Bits high..low of x. */
#define NVME_BITS(x, high, low) (((x) >> (low)) & ((1ull << ((high) - (low) + 1)) - 1))

#define NVME_NSID_ALL 0xffffffffu

enum nvme_csi {
    NVME_CSI_NVM = 0,
    NVME_CSI_KV = 1,
    NVME_CSI_ZNS = 2,
};

/* --- data pointer ----------------------------------------------------------------------------- */

struct nvme_sgl {       /* one descriptor */
    le64    addr;       /*  0  address, or offset in the capsule */
    le32    len;        /*  8  bytes */
    uint8_t rsvd[3];    /* 12 */
    uint8_t type;       /* 15  NVME_SGL_*: type in bits 7:4, subtype in bits 3:0 */
};
static_assert(sizeof(struct nvme_sgl) == 16, "SGL descriptor is 16 bytes");

#define NVME_SGL_DATA_BLOCK 0x00        /* data block, address: PCIe */
#define NVME_SGL_DATA_BLOCK_OFFSET 0x01 /* data block, offset: data in the capsule */
#define NVME_SGL_SEGMENT 0x20
#define NVME_SGL_LAST_SEGMENT 0x30
#define NVME_SGL_TRANSPORT 0x5a         /* transport data block: data moves in PDUs of its own */

/* --- submission and completion queue entries -------------------------------------------------- */

struct nvme_sqe {
    uint8_t opc;             /*  0  NVME_OPC_*; NVME_OPC_FABRICS: see nvme_fabrics.h */
    uint8_t flags;           /*  1  NVME_SQE_* */
    le16    cid;             /*  2 */
    le32    nsid;            /*  4 */
    le32    cdw2;            /*  8 */
    le32    cdw3;            /* 12 */
    le64    mptr;            /* 16 */
    union {
        struct {
            le64 prp1;       /* 24 */
            le64 prp2;       /* 32 */
        };
        struct nvme_sgl sgl; /* 24 */
    };
    le32    cdw10;           /* 40 */
    le32    cdw11;           /* 44 */
    le32    cdw12;           /* 48 */
    le32    cdw13;           /* 52 */
    le32    cdw14;           /* 56 */
    le32    cdw15;           /* 60 */
};
static_assert(sizeof(struct nvme_sqe) == 64, "SQE is 64 bytes");
static_assert(offsetof(struct nvme_sqe, sgl) == 24, "DPTR at 24");

#define NVME_SQE_FUSE_MASK 0x03
#define NVME_SQE_FUSE_FIRST 0x01
#define NVME_SQE_FUSE_SECOND 0x02
#define NVME_SQE_PSDT_MASK 0xc0
#define NVME_SQE_PSDT_PRP 0x00
#define NVME_SQE_PSDT_SGL 0x40 /* SGL, metadata pointer is one buffer: always on fabrics */
#define NVME_SQE_PSDT_SGL_MPTR 0x80

struct nvme_cqe {
    le32    dw0;    /*  0 */
    le32    dw1;    /*  4 */
    le16    sqhd;   /*  8 */
    le16    sqid;   /* 10  0 on fabrics */
    le16    cid;    /* 12 */
    le16    status; /* 14  bit 0 phase (0 on fabrics), bits 15:1 nvme_cqe_status() */
};
static_assert(sizeof(struct nvme_cqe) == 16, "CQE is 16 bytes");

/** Data direction of an opcode (FCTYPE for fabrics): its bits 1:0. SELECT's 83h and 84h lie. */
enum nvme_dir {
    NVME_DIR_NONE = 0,
    NVME_DIR_H2C = 1,
    NVME_DIR_C2H = 2,
    NVME_DIR_BOTH = 3,
};
static inline enum nvme_dir nvme_opc_dir(uint8_t opc)
{
    return (enum nvme_dir)(opc & 3);
}

/* --- status ----------------------------------------------------------------------------------- */

/*
 * A status in memory is the status field without the phase bit, as Linux and nvme-cli print it:
 * bits 7:0 SC, 10:8 SCT, 12:11 CRD, 13 MORE, 14 DNR. NVME_SC_* are SCT and SC together.
 */
enum nvme_sct {
    NVME_SCT_GENERIC = 0,
    NVME_SCT_COMMAND = 1,
    NVME_SCT_MEDIA = 2,
    NVME_SCT_PATH = 3,
    NVME_SCT_VENDOR = 7,
};

enum nvme_status_code {
    /* SCT 0, generic */
    NVME_SC_SUCCESS = 0x000,
    NVME_SC_INVALID_OPCODE = 0x001,
    NVME_SC_INVALID_FIELD = 0x002,
    NVME_SC_CMDID_CONFLICT = 0x003,
    NVME_SC_DATA_XFER_ERROR = 0x004,
    NVME_SC_POWER_LOSS = 0x005,
    NVME_SC_INTERNAL = 0x006,
    NVME_SC_ABORT_REQ = 0x007,
    NVME_SC_ABORT_QUEUE = 0x008,
    NVME_SC_FUSED_FAIL = 0x009,
    NVME_SC_FUSED_MISSING = 0x00a,
    NVME_SC_INVALID_NS = 0x00b,
    NVME_SC_CMD_SEQ_ERROR = 0x00c,
    NVME_SC_SGL_INVALID_SEGMENT = 0x00d,
    NVME_SC_SGL_INVALID_COUNT = 0x00e,
    NVME_SC_SGL_INVALID_LENGTH = 0x00f,
    NVME_SC_SGL_INVALID_METADATA = 0x010,
    NVME_SC_SGL_INVALID_TYPE = 0x011,
    NVME_SC_CMB_INVALID_USE = 0x012,
    NVME_SC_PRP_INVALID_OFFSET = 0x013,
    NVME_SC_ATOMIC_WRITE_UNIT = 0x014,
    NVME_SC_OP_DENIED = 0x015,
    NVME_SC_SGL_INVALID_OFFSET = 0x016,
    NVME_SC_HOSTID_FORMAT = 0x018,
    NVME_SC_KAT_EXPIRED = 0x019,
    NVME_SC_KAT_INVALID = 0x01a,
    NVME_SC_ABORT_PREEMPT = 0x01b,
    NVME_SC_SANITIZE_FAILED = 0x01c,
    NVME_SC_SANITIZE_IN_PROGRESS = 0x01d,
    NVME_SC_SGL_INVALID_GRANULARITY = 0x01e,
    NVME_SC_CMD_NOT_IN_CMB = 0x01f,
    NVME_SC_NS_WRITE_PROTECTED = 0x020,
    NVME_SC_CMD_INTERRUPTED = 0x021,
    NVME_SC_TRANSIENT_TRANSPORT = 0x022,
    NVME_SC_ADMIN_MEDIA_NOT_READY = 0x024,
    NVME_SC_LBA_RANGE = 0x080,
    NVME_SC_CAPACITY_EXCEEDED = 0x081,
    NVME_SC_NS_NOT_READY = 0x082,
    NVME_SC_RESERVATION_CONFLICT = 0x083,
    NVME_SC_FORMAT_IN_PROGRESS = 0x084,
    NVME_SC_KV_INVALID_VALUE_SIZE = 0x085,
    NVME_SC_KV_INVALID_KEY_SIZE = 0x086,
    NVME_SC_KV_KEY_NOT_EXIST = 0x087,
    NVME_SC_KV_UNRECOVERED = 0x088,
    NVME_SC_KV_KEY_EXISTS = 0x089,
    NVME_SC_SELECT_INVALID = 0x090, /* SELECT commands: invalid parameter */
    /* SCT 1, command specific */
    NVME_SC_CQ_INVALID = 0x100,
    NVME_SC_QID_INVALID = 0x101,
    NVME_SC_QUEUE_SIZE = 0x102,
    NVME_SC_ABORT_LIMIT = 0x103,
    NVME_SC_ASYNC_LIMIT = 0x105,
    NVME_SC_FIRMWARE_SLOT = 0x106,
    NVME_SC_FIRMWARE_IMAGE = 0x107,
    NVME_SC_INVALID_VECTOR = 0x108,
    NVME_SC_INVALID_LOG_PAGE = 0x109,
    NVME_SC_INVALID_FORMAT = 0x10a,
    NVME_SC_INVALID_QUEUE_DELETION = 0x10c,
    NVME_SC_FEATURE_NOT_SAVEABLE = 0x10d,
    NVME_SC_FEATURE_NOT_CHANGEABLE = 0x10e,
    NVME_SC_FEATURE_NOT_PER_NS = 0x10f,
    NVME_SC_OVERLAPPING_RANGE = 0x114,
    NVME_SC_NS_ALREADY_ATTACHED = 0x118,
    NVME_SC_NS_NOT_ATTACHED = 0x11a,
    NVME_SC_CTRL_LIST_INVALID = 0x11c,
    NVME_SC_INVALID_CTRL_ID = 0x11f,
    NVME_SC_ANA_GROUP_INVALID = 0x124,
    NVME_SC_IOCS_NOT_SUPPORTED = 0x129,
    NVME_SC_IOCS_NOT_ENABLED = 0x12a,
    NVME_SC_IOCS_COMBINATION_REJECTED = 0x12b,
    NVME_SC_INVALID_IOCS = 0x12c,
    /* SCT 1 of I/O commands */
    NVME_SC_CONFLICTING_ATTRIBUTES = 0x180,
    NVME_SC_INVALID_PI = 0x181,
    NVME_SC_READ_ONLY_RANGE = 0x182,
    NVME_SC_CMD_SIZE_LIMIT = 0x183,
    /* SCT 1 of fabrics commands: the same numbers again */
    NVME_SC_CONNECT_FORMAT = 0x180,
    NVME_SC_CONNECT_CTRL_BUSY = 0x181,
    NVME_SC_CONNECT_INVALID_PARAM = 0x182,
    NVME_SC_CONNECT_RESTART_DISCOVERY = 0x183,
    NVME_SC_CONNECT_INVALID_HOST = 0x184,
    NVME_SC_DISCOVERY_RESTART = 0x190,
    NVME_SC_AUTH_REQUIRED = 0x191,
    /* SCT 2, media and data integrity */
    NVME_SC_WRITE_FAULT = 0x280,
    NVME_SC_READ_ERROR = 0x281,
    NVME_SC_GUARD_CHECK = 0x282,
    NVME_SC_APPTAG_CHECK = 0x283,
    NVME_SC_REFTAG_CHECK = 0x284,
    NVME_SC_COMPARE_FAILED = 0x285,
    NVME_SC_ACCESS_DENIED = 0x286,
    NVME_SC_UNWRITTEN_BLOCK = 0x287,
    /* SCT 3, path */
    NVME_SC_INTERNAL_PATH_ERROR = 0x300,
    NVME_SC_ANA_PERSISTENT_LOSS = 0x301,
    NVME_SC_ANA_INACCESSIBLE = 0x302,
    NVME_SC_ANA_TRANSITION = 0x303,
    NVME_SC_CTRL_PATH_ERROR = 0x360,
    NVME_SC_HOST_PATH_ERROR = 0x370,
    NVME_SC_HOST_ABORTED = 0x371,
    /* Flags */
    NVME_SC_CODE_MASK = 0x7ff, /* SCT and SC */
    NVME_SC_CRD = 0x1800,
    NVME_SC_MORE = 0x2000,
    NVME_SC_DNR = 0x4000,
};

#define NVME_STATUS_SC(status) ((status) & 0xff)
#define NVME_STATUS_SCT(status) (((status) >> 8) & 7)

static inline uint16_t nvme_cqe_status(const struct nvme_cqe *cqe)
{
    return le16_get(cqe->status) >> 1;
}
static inline le16 nvme_status_field(uint16_t status)
{
    return le16_make((uint16_t)(status << 1));
}

/** Whose status it is, where one errno means different things. */
enum nvme_status_for {
    NVME_FOR_OTHER, /* flush, admin, ... */
    NVME_FOR_READ,  /* NVM commands that move data to the host */
    NVME_FOR_WRITE, /* NVM commands that change blocks */
    NVME_FOR_KV,    /* KV commands, standard and vendor */
};

/** The status (with DNR where a retry cannot help) for 0 or one of the errnos of base/err.h. */
uint16_t nvme_status_of_errno(int rc, enum nvme_status_for for_what);
/** 0 or the negative errno of a status an I/O or admin command got. Never loses a failure. */
int nvme_errno_of_status(uint16_t status);
/** The same for Connect and the other fabrics commands. */
int nvme_errno_of_fabrics_status(uint16_t status);
/** True when the command may be sent again as it is: DNR is clear, and the status a passing one. */
bool nvme_status_may_retry(uint16_t status);
/** What a status means, for people: "invalid field in command". Never NULL. */
const char *nvme_status_text(uint16_t status);
const char *nvme_fabrics_status_text(uint16_t status);

/* --- opcodes ---------------------------------------------------------------------------------- */

enum nvme_admin_opcode {
    NVME_OPC_DELETE_SQ = 0x00,
    NVME_OPC_CREATE_SQ = 0x01,
    NVME_OPC_GET_LOG_PAGE = 0x02,
    NVME_OPC_DELETE_CQ = 0x04,
    NVME_OPC_CREATE_CQ = 0x05,
    NVME_OPC_IDENTIFY = 0x06,
    NVME_OPC_ABORT = 0x08,
    NVME_OPC_SET_FEATURES = 0x09,
    NVME_OPC_GET_FEATURES = 0x0a,
    NVME_OPC_ASYNC_EVENT_REQUEST = 0x0c,
    NVME_OPC_NS_MANAGEMENT = 0x0d,
    NVME_OPC_FIRMWARE_COMMIT = 0x10,
    NVME_OPC_FIRMWARE_DOWNLOAD = 0x11,
    NVME_OPC_NS_ATTACHMENT = 0x15,
    NVME_OPC_KEEP_ALIVE = 0x18,
    NVME_OPC_DIRECTIVE_SEND = 0x19,
    NVME_OPC_DIRECTIVE_RECEIVE = 0x1a,
    NVME_OPC_DOORBELL_BUFFER_CONFIG = 0x7c,
    NVME_OPC_FABRICS = 0x7f,
    NVME_OPC_FORMAT_NVM = 0x80,
    NVME_OPC_SECURITY_SEND = 0x81,
    NVME_OPC_SECURITY_RECEIVE = 0x82,
    NVME_OPC_SANITIZE = 0x84,
};

enum nvme_nvm_opcode {
    NVME_OPC_FLUSH = 0x00,
    NVME_OPC_WRITE = 0x01,
    NVME_OPC_READ = 0x02,
    NVME_OPC_WRITE_UNCORRECTABLE = 0x04,
    NVME_OPC_COMPARE = 0x05,
    NVME_OPC_WRITE_ZEROES = 0x08,
    NVME_OPC_DSM = 0x09,
    NVME_OPC_VERIFY = 0x0c,
    NVME_OPC_RESV_REGISTER = 0x0d,
    NVME_OPC_RESV_REPORT = 0x0e,
    NVME_OPC_RESV_ACQUIRE = 0x11,
    NVME_OPC_RESV_RELEASE = 0x15,
    NVME_OPC_COPY = 0x19,
};

/** Names for logs and tools: "identify", "read"; "unknown" for others. */
const char *nvme_admin_opcode_name(uint8_t opc);
const char *nvme_nvm_opcode_name(uint8_t opc);

/* --- NVM commands ----------------------------------------------------------------------------- */

/* Read, Write, Compare, Write Zeroes, Verify: CDW10/11 SLBA, CDW12 below. */
#define NVME_NLB_MASK 0xffffu       /* CDW12 15:0, 0-based */
#define NVME_CDW12_DEAC (1u << 25)  /* Write Zeroes: may deallocate */
#define NVME_CDW12_FUA (1u << 30)
#define NVME_CDW12_LR (1u << 31)

static inline uint64_t nvme_slba(const struct nvme_sqe *sqe)
{
    return le32_get(sqe->cdw10) | (uint64_t)le32_get(sqe->cdw11) << 32;
}
static inline uint32_t nvme_nlb(const struct nvme_sqe *sqe)
{
    return (le32_get(sqe->cdw12) & NVME_NLB_MASK) + 1;
}
static inline void nvme_set_slba(struct nvme_sqe *sqe, uint64_t slba)
{
    sqe->cdw10 = le32_make((uint32_t)slba);
    sqe->cdw11 = le32_make((uint32_t)(slba >> 32));
}

/* Dataset Management: CDW10 7:0 number of ranges, 0-based; CDW11 below. */
#define NVME_DSM_NR_MASK 0xffu
#define NVME_DSM_IDR (1u << 0)
#define NVME_DSM_IDW (1u << 1)
#define NVME_DSM_AD (1u << 2) /* deallocate */
#define NVME_DSM_RANGES_MAX 256

struct nvme_dsm_range {
    le32 attr;    /* 0 */
    le32 nblocks; /* 4  not 0-based */
    le64 slba;    /* 8 */
};
static_assert(sizeof(struct nvme_dsm_range) == 16, "DSM range is 16 bytes");

/* Copy: CDW10/11 SDLBA, CDW12 7:0 number of ranges (0-based), 11:8 format. */
struct nvme_copy_range0 { /* format 0 */
    uint8_t rsvd0[8];     /*  0 */
    le64    slba;         /*  8 */
    le16    nlb;          /* 16  0-based */
    uint8_t rsvd18[14];   /* 18 */
};
static_assert(sizeof(struct nvme_copy_range0) == 32, "copy range is 32 bytes");

/* --- reservations (NVM and KV) ---------------------------------------------------------------- */

enum nvme_resv_type {
    NVME_RESV_WRITE_EXCLUSIVE = 1,
    NVME_RESV_EXCLUSIVE_ACCESS = 2,
    NVME_RESV_WRITE_EXCLUSIVE_REG_ONLY = 3,
    NVME_RESV_EXCLUSIVE_ACCESS_REG_ONLY = 4,
    NVME_RESV_WRITE_EXCLUSIVE_ALL_REGS = 5,
    NVME_RESV_EXCLUSIVE_ACCESS_ALL_REGS = 6,
};

/* Data of Register, Acquire (16 bytes) and Release (crkey only, 8 bytes). */
struct nvme_resv_keys {
    le64 crkey; /* 0  current key */
    le64 key;   /* 8  Register: new key; Acquire: key to preempt */
};
static_assert(sizeof(struct nvme_resv_keys) == 16, "reservation keys are 16 bytes");

struct nvme_resv_status {  /* Report; entries follow */
    le32    gen;           /*  0 */
    uint8_t rtype;         /*  4 */
    le16    regctl;        /*  5  number of registrants */
    uint8_t rsvd7[2];      /*  7 */
    uint8_t ptpls;         /*  9 */
    uint8_t rsvd10[14];    /* 10 */
};
static_assert(sizeof(struct nvme_resv_status) == 24, "reservation status is 24 bytes");

struct nvme_resv_ctrl {    /* entries at 24 */
    le16    cntlid;        /*  0 */
    uint8_t rcsts;         /*  2  bit 0: holds the reservation */
    uint8_t rsvd3[5];      /*  3 */
    uint8_t hostid[8];     /*  8 */
    le64    rkey;          /* 16 */
};
static_assert(sizeof(struct nvme_resv_ctrl) == 24, "registered controller is 24 bytes");

struct nvme_resv_ctrl_ext { /* entries at 64, with EDS */
    le16    cntlid;         /*  0 */
    uint8_t rcsts;          /*  2 */
    uint8_t rsvd3[5];       /*  3 */
    le64    rkey;           /*  8 */
    uint8_t hostid[16];     /* 16 */
    uint8_t rsvd32[32];     /* 32 */
};
static_assert(sizeof(struct nvme_resv_ctrl_ext) == 64, "extended entry is 64 bytes");

#endif
