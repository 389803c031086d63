/* SPDX-License-Identifier: Apache-2.0 */
/* NVMe admin commands: identify data, log pages, features, asynchronous events. */
#ifndef KVASIR_PROTO_NVME_ADMIN_H
#define KVASIR_PROTO_NVME_ADMIN_H

#include "proto/nvme.h"

#define NVME_IDENTIFY_BYTES 4096

/* --- Identify: CDW10 7:0 CNS, 31:16 CNTID; CDW11 15:0 specific id, 31:24 CSI ------------------ */

enum nvme_cns {
    NVME_CNS_NS = 0x00,             /* struct nvme_id_ns */
    NVME_CNS_CTRL = 0x01,           /* struct nvme_id_ctrl */
    NVME_CNS_NS_ACTIVE_LIST = 0x02, /* struct nvme_ns_list */
    NVME_CNS_NS_DESC_LIST = 0x03,   /* struct nvme_ns_desc ... */
    NVME_CNS_CSI_NS = 0x05,         /* struct nvme_id_ns_kv for CSI 1 */
    NVME_CNS_CSI_CTRL = 0x06,       /* struct nvme_id_ctrl_nvm, nvme_id_ctrl_kv */
    NVME_CNS_CSI_NS_ACTIVE_LIST = 0x07,
    NVME_CNS_CSI_INDEP_NS = 0x08,   /* struct nvme_id_ns_indep */
    NVME_CNS_NS_ALLOCATED_LIST = 0x10,
    NVME_CNS_NS_ALLOCATED = 0x11,
    NVME_CNS_NS_CTRL_LIST = 0x12,   /* struct nvme_ctrl_list */
    NVME_CNS_CTRL_LIST = 0x13,
    NVME_CNS_PRIMARY_CAPS = 0x14,
    NVME_CNS_CSI_NS_ALLOCATED_LIST = 0x1a,
    NVME_CNS_CSI_NS_ALLOCATED = 0x1b,
    NVME_CNS_CSI_LIST = 0x1c,       /* struct nvme_id_iocs */
};
const char *nvme_cns_name(uint8_t cns);

static inline uint8_t nvme_identify_cns(const struct nvme_sqe *sqe)
{
    return (uint8_t)le32_get(sqe->cdw10);
}
static inline uint16_t nvme_identify_cntid(const struct nvme_sqe *sqe)
{
    return (uint16_t)(le32_get(sqe->cdw10) >> 16);
}
static inline uint8_t nvme_identify_csi(const struct nvme_sqe *sqe)
{
    return (uint8_t)(le32_get(sqe->cdw11) >> 24);
}

struct nvme_power_state {
    le16    mp;             /*  0  max power */
    uint8_t rsvd2;          /*  2 */
    uint8_t flags;          /*  3  bit 0 MXPS, bit 1 NOPS */
    le32    enlat;          /*  4  us */
    le32    exlat;          /*  8  us */
    uint8_t rrt;            /* 12 */
    uint8_t rrl;            /* 13 */
    uint8_t rwt;            /* 14 */
    uint8_t rwl;            /* 15 */
    uint8_t rest[16];       /* 16 */
};
static_assert(sizeof(struct nvme_power_state) == 32, "power state is 32 bytes");

struct nvme_id_ctrl {
    le16    vid;            /*    0 */
    le16    ssvid;          /*    2 */
    char    sn[20];         /*    4  ASCII, padded with spaces */
    char    mn[40];         /*   24  same */
    char    fr[8];          /*   64  same */
    uint8_t rab;            /*   72 */
    uint8_t ieee[3];        /*   73 */
    uint8_t cmic;           /*   76  NVME_CMIC_* */
    uint8_t mdts;           /*   77  2^n pages of CAP.MPSMIN; 0: no limit */
    le16    cntlid;         /*   78 */
    le32    ver;            /*   80 */
    le32    rtd3r;          /*   84  us */
    le32    rtd3e;          /*   88  us */
    le32    oaes;           /*   92  NVME_OAES_* */
    le32    ctratt;         /*   96  NVME_CTRATT_* */
    le16    rrls;           /*  100 */
    uint8_t rsvd102[9];     /*  102 */
    uint8_t cntrltype;      /*  111  NVME_CNTRLTYPE_* */
    uint8_t fguid[16];      /*  112 */
    le16    crdt[3];        /*  128  100 ms */
    uint8_t rsvd134[119];   /*  134 */
    uint8_t nvmsr;          /*  253 */
    uint8_t vwci;           /*  254 */
    uint8_t mec;            /*  255 */
    le16    oacs;           /*  256  NVME_OACS_* */
    uint8_t acl;            /*  258  0-based */
    uint8_t aerl;           /*  259  0-based */
    uint8_t frmw;           /*  260 */
    uint8_t lpa;            /*  261  NVME_LPA_* */
    uint8_t elpe;           /*  262  0-based */
    uint8_t npss;           /*  263  0-based */
    uint8_t avscc;          /*  264 */
    uint8_t apsta;          /*  265 */
    le16    wctemp;         /*  266  K */
    le16    cctemp;         /*  268  K */
    le16    mtfa;           /*  270 */
    le32    hmpre;          /*  272 */
    le32    hmmin;          /*  276 */
    uint8_t tnvmcap[16];    /*  280  bytes, 128 bits */
    uint8_t unvmcap[16];    /*  296 */
    le32    rpmbs;          /*  312 */
    le16    edstt;          /*  316 */
    uint8_t dsto;           /*  318 */
    uint8_t fwug;           /*  319 */
    le16    kas;            /*  320  100 ms; not 0 on fabrics */
    le16    hctma;          /*  322 */
    le16    mntmt;          /*  324 */
    le16    mxtmt;          /*  326 */
    le32    sanicap;        /*  328 */
    le32    hmminds;        /*  332 */
    le16    hmmaxd;         /*  336 */
    le16    nsetidmax;      /*  338 */
    le16    endgidmax;      /*  340 */
    uint8_t anatt;          /*  342  s */
    uint8_t anacap;         /*  343 */
    le32    anagrpmax;      /*  344 */
    le32    nanagrpid;      /*  348 */
    le32    pels;           /*  352 */
    le16    domain_id;      /*  356 */
    uint8_t rsvd358[10];    /*  358 */
    uint8_t megcap[16];     /*  368 */
    uint8_t rsvd384[128];   /*  384 */
    uint8_t sqes;           /*  512  66h */
    uint8_t cqes;           /*  513  44h */
    le16    maxcmd;         /*  514  not 0 on fabrics */
    le32    nn;             /*  516  highest NSID */
    le16    oncs;           /*  520  NVME_ONCS_* */
    le16    fuses;          /*  522  NVME_FUSES_* */
    uint8_t fna;            /*  524 */
    uint8_t vwc;            /*  525  NVME_VWC_* */
    le16    awun;           /*  526  0-based blocks */
    le16    awupf;          /*  528  same */
    uint8_t icsvscc;        /*  530 */
    uint8_t nwpc;           /*  531 */
    le16    acwu;           /*  532  0-based blocks */
    le16    ocfs;           /*  534  copy formats */
    le32    sgls;           /*  536  NVME_SGLS_* */
    le32    mnan;           /*  540 */
    uint8_t maxdna[16];     /*  544 */
    le32    maxcna;         /*  560 */
    uint8_t rsvd564[204];   /*  564 */
    char    subnqn[256];    /*  768  padded with NUL */
    uint8_t rsvd1024[768];  /* 1024 */
    le32    ioccsz;         /* 1792  largest command capsule, 16 bytes */
    le32    iorcsz;         /* 1796  response capsule, 16 bytes: 1 */
    le16    icdoff;         /* 1800  0 */
    uint8_t fcatt;          /* 1802  bit 0: static controllers */
    uint8_t msdbd;          /* 1803  1 */
    le16    ofcs;           /* 1804  bit 0: Disconnect */
    uint8_t dctype;         /* 1806 */
    uint8_t rsvd1807[241];  /* 1807 */
    struct nvme_power_state psd[32]; /* 2048 */
    uint8_t vendor[1024];   /* 3072 */
};
static_assert(sizeof(struct nvme_id_ctrl) == 4096, "controller data is 4096 bytes");
static_assert(offsetof(struct nvme_id_ctrl, oacs) == 256, "OACS at 256");
static_assert(offsetof(struct nvme_id_ctrl, kas) == 320, "KAS at 320");
static_assert(offsetof(struct nvme_id_ctrl, anatt) == 342, "ANATT at 342");
static_assert(offsetof(struct nvme_id_ctrl, sqes) == 512, "SQES at 512");
static_assert(offsetof(struct nvme_id_ctrl, sgls) == 536, "SGLS at 536");
static_assert(offsetof(struct nvme_id_ctrl, subnqn) == 768, "SUBNQN at 768");
static_assert(offsetof(struct nvme_id_ctrl, ioccsz) == 1792, "IOCCSZ at 1792");
static_assert(offsetof(struct nvme_id_ctrl, psd) == 2048, "PSD at 2048");

#define NVME_CMIC_MULTI_PORT 0x01
#define NVME_CMIC_MULTI_CTRL 0x02
#define NVME_CMIC_ANA 0x08
#define NVME_OAES_NS_ATTR (1u << 8)
#define NVME_OAES_FW_ACTIVATION (1u << 9)
#define NVME_OAES_ANA (1u << 11)
#define NVME_OAES_DISCOVERY (1u << 31)
#define NVME_CTRATT_HOSTID_128 (1u << 0)
#define NVME_CTRATT_TBKAS (1u << 6) /* any command is a keep alive */
#define NVME_CTRATT_ELBAS (1u << 15)
#define NVME_CNTRLTYPE_IO 1
#define NVME_CNTRLTYPE_DISCOVERY 2
#define NVME_CNTRLTYPE_ADMIN 3
#define NVME_OACS_SECURITY (1u << 0)
#define NVME_OACS_FORMAT (1u << 1)
#define NVME_OACS_NS_MANAGEMENT (1u << 3)
#define NVME_OACS_DIRECTIVES (1u << 5)
#define NVME_OACS_DOORBELL_BUFFER (1u << 8)
#define NVME_LPA_SMART_PER_NS 0x01
#define NVME_LPA_EFFECTS 0x02
#define NVME_LPA_EXTENDED 0x04 /* log page offset and long lengths */
#define NVME_ONCS_COMPARE (1u << 0)
#define NVME_ONCS_WRITE_UNCORRECTABLE (1u << 1)
#define NVME_ONCS_DSM (1u << 2)
#define NVME_ONCS_WRITE_ZEROES (1u << 3)
#define NVME_ONCS_SAVE (1u << 4)
#define NVME_ONCS_RESERVATIONS (1u << 5)
#define NVME_ONCS_TIMESTAMP (1u << 6)
#define NVME_ONCS_VERIFY (1u << 7)
#define NVME_ONCS_COPY (1u << 8)
#define NVME_FUSES_COMPARE_WRITE (1u << 0)
#define NVME_VWC_PRESENT 0x01
#define NVME_VWC_FLUSH_ONE 0x04 /* Flush with NSID FFFFFFFFh is refused */
#define NVME_VWC_FLUSH_ALL 0x06 /* and is done to all namespaces */
#define NVME_SGLS_SUPPORTED 0x00000001u
#define NVME_SGLS_OFFSET 0x00100000u /* data in the capsule */

struct nvme_lbaf {
    le16    ms;             /*  0 */
    uint8_t lbads;          /*  2  log2 of the block size */
    uint8_t rp;             /*  3 */
};

struct nvme_id_ns {         /* CNS 00h */
    le64    nsze;           /*    0  blocks */
    le64    ncap;           /*    8 */
    le64    nuse;           /*   16 */
    uint8_t nsfeat;         /*   24  NVME_NSFEAT_* */
    uint8_t nlbaf;          /*   25  0-based */
    uint8_t flbas;          /*   26  bits 3:0: format in use */
    uint8_t mc;             /*   27 */
    uint8_t dpc;            /*   28 */
    uint8_t dps;            /*   29 */
    uint8_t nmic;           /*   30  NVME_NMIC_* */
    uint8_t rescap;         /*   31  NVME_RESCAP_* */
    uint8_t fpi;            /*   32 */
    uint8_t dlfeat;         /*   33  NVME_DLFEAT_* */
    le16    nawun;          /*   34 */
    le16    nawupf;         /*   36 */
    le16    nacwu;          /*   38 */
    le16    nabsn;          /*   40 */
    le16    nabo;           /*   42 */
    le16    nabspf;         /*   44 */
    le16    noiob;          /*   46 */
    uint8_t nvmcap[16];     /*   48  bytes */
    le16    npwg;           /*   64  0-based blocks, this and the next four */
    le16    npwa;           /*   66 */
    le16    npdg;           /*   68 */
    le16    npda;           /*   70 */
    le16    nows;           /*   72 */
    le16    mssrl;          /*   74 */
    le32    mcl;            /*   76 */
    uint8_t msrc;           /*   80 */
    uint8_t rsvd81[11];     /*   81 */
    le32    anagrpid;       /*   92 */
    uint8_t rsvd96[3];      /*   96 */
    uint8_t nsattr;         /*   99  NVME_NSATTR_* */
    le16    nvmsetid;       /*  100 */
    le16    endgid;         /*  102 */
    uint8_t nguid[16];      /*  104 */
    uint8_t eui64[8];       /*  120 */
    struct nvme_lbaf lbaf[64]; /* 128 */
    uint8_t vendor[3712];   /*  384 */
};
static_assert(sizeof(struct nvme_id_ns) == 4096, "namespace data is 4096 bytes");
static_assert(offsetof(struct nvme_id_ns, nguid) == 104, "NGUID at 104");
static_assert(offsetof(struct nvme_id_ns, lbaf) == 128, "LBAF at 128");

#define NVME_NSFEAT_THIN 0x01
#define NVME_NSFEAT_DEALLOC_ERROR 0x04
#define NVME_NSFEAT_OPTPERF 0x10
#define NVME_FLBAS_INDEX_MASK 0x0f
#define NVME_NMIC_SHARED 0x01
#define NVME_RESCAP_PTPL 0x01
#define NVME_DLFEAT_READS_ZERO 0x01
#define NVME_DLFEAT_WZ_DEALLOCATES 0x08
#define NVME_NSATTR_WRITE_PROTECTED 0x01

struct nvme_ns_list {       /* CNS 02h, 07h, 10h; log page 04h */
    le32 nsid[1024];        /*  ascending, the rest 0 */
};
static_assert(sizeof(struct nvme_ns_list) == 4096, "namespace list is 4096 bytes");

struct nvme_ctrl_list {     /* CNS 12h, 13h */
    le16 count;             /*  0 */
    le16 cntlid[2047];      /*  2 */
};
static_assert(sizeof(struct nvme_ctrl_list) == 4096, "controller list is 4096 bytes");

struct nvme_ns_desc {       /* CNS 03h: packed one after the other, nidl 0 ends */
    uint8_t nidt;           /*  0  NVME_NIDT_* */
    uint8_t nidl;           /*  1  bytes of the id that follows */
    uint8_t rsvd[2];        /*  2 */
};
static_assert(sizeof(struct nvme_ns_desc) == 4, "descriptor head is 4 bytes");
enum nvme_nidt {
    NVME_NIDT_EUI64 = 1, /* 8 bytes */
    NVME_NIDT_NGUID = 2, /* 16 */
    NVME_NIDT_UUID = 3,  /* 16 */
    NVME_NIDT_CSI = 4,   /* 1 */
};

/** What a descriptor list says; `have` has bit NVME_NIDT_* for each that is there. */
struct nvme_ns_ids {
    uint32_t have;
    uint8_t eui64[8];
    uint8_t nguid[16];
    uint8_t uuid[16];
    uint8_t csi;
};
/** Reads a list of `len` bytes; unknown types are skipped. -EBADMSG on a wrong length. */
int nvme_ns_desc_decode(const void *list, size_t len, struct nvme_ns_ids *out);
/** Writes those in ids->have into a zeroed page; returns bytes used or -E2BIG. */
int nvme_ns_desc_encode(void *list, size_t max, const struct nvme_ns_ids *ids);

struct nvme_id_ns_indep {   /* CNS 08h */
    uint8_t nsfeat;         /*  0  NVME_NSFEAT_INDEP_* */
    uint8_t nmic;           /*  1 */
    uint8_t rescap;         /*  2 */
    uint8_t fpi;            /*  3 */
    le32    anagrpid;       /*  4 */
    uint8_t nsattr;         /*  8 */
    uint8_t rsvd9;          /*  9 */
    le16    nvmsetid;       /* 10 */
    le16    endgid;         /* 12 */
    uint8_t nstat;          /* 14  NVME_NSTAT_NRDY */
    uint8_t kpios;          /* 15 */
    le16    maxkt;          /* 16 */
    uint8_t rsvd18[2];      /* 18 */
    le32    rgrpid;         /* 20 */
    uint8_t rsvd24[4072];   /* 24 */
};
static_assert(sizeof(struct nvme_id_ns_indep) == 4096, "namespace data is 4096 bytes");
#define NVME_NSFEAT_INDEP_UIDREUSE 0x08
#define NVME_NSFEAT_INDEP_ROTATIONAL 0x10
#define NVME_NSFEAT_INDEP_VWCNP 0x20
#define NVME_NSTAT_NRDY 0x01

struct nvme_id_ctrl_nvm {   /* CNS 06h, CSI 0 */
    uint8_t vsl;            /*  0 */
    uint8_t wzsl;           /*  1 */
    uint8_t wusl;           /*  2 */
    uint8_t dmrl;           /*  3 */
    le32    dmrsl;          /*  4 */
    le64    dmsl;           /*  8 */
    uint8_t rsvd16[4080];   /* 16 */
};
static_assert(sizeof(struct nvme_id_ctrl_nvm) == 4096, "NVM controller data is 4096 bytes");

struct nvme_id_iocs {       /* CNS 1Ch */
    le64 iocsc[512];        /*  bit NVME_CSI_* of each combination */
};
static_assert(sizeof(struct nvme_id_iocs) == 4096, "command set data is 4096 bytes");

/* --- Get Log Page: CDW10 7:0 LID, 14:8 LSP, 15 RAE, 31:16 NUMDL; CDW11 15:0 NUMDU, 31:16 LSI;
 *     CDW12/13 offset; CDW14 6:0 UUID, 23 OT, 31:24 CSI ---------------------------------------- */

enum nvme_lid {
    NVME_LID_SUPPORTED = 0x00,
    NVME_LID_ERROR = 0x01,
    NVME_LID_SMART = 0x02,
    NVME_LID_FIRMWARE = 0x03,
    NVME_LID_CHANGED_NS = 0x04,
    NVME_LID_EFFECTS = 0x05,
    NVME_LID_ANA = 0x0c,
    NVME_LID_DISCOVERY = 0x70,
    NVME_LID_RESERVATION = 0x80,
};
const char *nvme_lid_name(uint8_t lid);

#define NVME_LOG_RAE (1u << 15) /* CDW10: keep the event */

static inline uint8_t nvme_log_lid(const struct nvme_sqe *sqe)
{
    return (uint8_t)le32_get(sqe->cdw10);
}
/** Bytes asked for: up to 16 GiB, so 64 bits. */
static inline uint64_t nvme_log_len(const struct nvme_sqe *sqe)
{
    uint32_t numd = le32_get(sqe->cdw10) >> 16 | le32_get(sqe->cdw11) << 16;

    return ((uint64_t)numd + 1) * 4;
}
static inline uint64_t nvme_log_offset(const struct nvme_sqe *sqe)
{
    return le32_get(sqe->cdw12) | (uint64_t)le32_get(sqe->cdw13) << 32;
}
static inline uint8_t nvme_log_csi(const struct nvme_sqe *sqe)
{
    return (uint8_t)(le32_get(sqe->cdw14) >> 24);
}
/** Fills a Get Log Page; len is a multiple of 4, not 0. */
void nvme_log_put(struct nvme_sqe *sqe, uint8_t lid, uint64_t offset, uint32_t len, uint8_t csi);

struct nvme_log_supported {
    le32 lids[256];         /*  bit 0: supported */
};
static_assert(sizeof(struct nvme_log_supported) == 1024, "supported logs are 1024 bytes");

struct nvme_log_error {     /* one entry */
    le64    count;          /*  0 */
    le16    sqid;           /*  8 */
    le16    cid;            /* 10 */
    le16    status;         /* 12 */
    le16    location;       /* 14 */
    le64    lba;            /* 16 */
    le32    nsid;           /* 24 */
    uint8_t vs;             /* 28 */
    uint8_t trtype;         /* 29 */
    uint8_t csi;            /* 30 */
    uint8_t opc;            /* 31 */
    le64    cs;             /* 32 */
    le16    trtype_info;    /* 40 */
    uint8_t rsvd42[21];     /* 42 */
    uint8_t lpver;          /* 63 */
};
static_assert(sizeof(struct nvme_log_error) == 64, "error entry is 64 bytes");

struct nvme_log_smart {
    uint8_t critical;       /*   0 */
    le16    temperature;    /*   1  K */
    uint8_t avail_spare;    /*   3  % */
    uint8_t spare_thresh;   /*   4  % */
    uint8_t percent_used;   /*   5 */
    uint8_t egcws;          /*   6 */
    uint8_t rsvd7[25];      /*   7 */
    uint8_t units_read[16]; /*  32  1000 * 512 bytes; 128 bits, as all below */
    uint8_t units_written[16]; /* 48 */
    uint8_t host_reads[16]; /*  64 */
    uint8_t host_writes[16];/*  80 */
    uint8_t busy_minutes[16]; /* 96 */
    uint8_t power_cycles[16]; /* 112 */
    uint8_t power_hours[16];  /* 128 */
    uint8_t unsafe_shutdowns[16]; /* 144 */
    uint8_t media_errors[16]; /* 160 */
    uint8_t error_entries[16]; /* 176 */
    le32    warn_minutes;   /* 192 */
    le32    crit_minutes;   /* 196 */
    le16    temp_sensor[8]; /* 200 */
    uint8_t rsvd216[296];   /* 216 */
};
static_assert(sizeof(struct nvme_log_smart) == 512, "SMART log is 512 bytes");
static_assert(offsetof(struct nvme_log_smart, warn_minutes) == 192, "warning time at 192");

struct nvme_log_firmware {
    uint8_t afi;            /*   0  01h: slot 1 */
    uint8_t rsvd1[7];       /*   1 */
    char    frs[7][8];      /*   8 */
    uint8_t rsvd64[448];    /*  64 */
};
static_assert(sizeof(struct nvme_log_firmware) == 512, "firmware log is 512 bytes");

struct nvme_log_effects {   /* of the CSI in CDW14 */
    le32    admin[256];     /*    0  NVME_EFFECT_* */
    le32    io[256];        /* 1024 */
    uint8_t rsvd[2048];     /* 2048 */
};
static_assert(sizeof(struct nvme_log_effects) == 4096, "effects log is 4096 bytes");
#define NVME_EFFECT_CSUPP (1u << 0)
#define NVME_EFFECT_LBCC (1u << 1) /* changes content */
#define NVME_EFFECT_NCC (1u << 2)
#define NVME_EFFECT_NIC (1u << 3)
#define NVME_EFFECT_CCC (1u << 4)

struct nvme_log_ana {       /* head; groups follow */
    le64    chgcnt;         /*  0 */
    le16    ngrps;          /*  8 */
    uint8_t rsvd[6];        /* 10 */
};
static_assert(sizeof(struct nvme_log_ana) == 16, "ANA log head is 16 bytes");
struct nvme_ana_group {     /* nnsids * le32 follow */
    le32    grpid;          /*  0 */
    le32    nnsids;         /*  4 */
    le64    chgcnt;         /*  8 */
    uint8_t state;          /* 16  NVME_ANA_* */
    uint8_t rsvd[15];       /* 17 */
};
static_assert(sizeof(struct nvme_ana_group) == 32, "ANA group is 32 bytes");
enum nvme_ana_state {
    NVME_ANA_OPTIMIZED = 1,
    NVME_ANA_NON_OPTIMIZED = 2,
    NVME_ANA_INACCESSIBLE_STATE = 3,
    NVME_ANA_PERSISTENT_LOSS_STATE = 4,
    NVME_ANA_CHANGE = 15,
};

/* --- features: CDW10 7:0 FID, Get 10:8 SEL, Set 31 SV ----------------------------------------- */

enum nvme_fid {
    NVME_FID_ARBITRATION = 0x01,
    NVME_FID_POWER = 0x02,
    NVME_FID_TEMPERATURE = 0x04,
    NVME_FID_ERROR_RECOVERY = 0x05,
    NVME_FID_WRITE_CACHE = 0x06,  /* bit 0: enabled */
    NVME_FID_QUEUES = 0x07,       /* 15:0 submission, 31:16 completion queues, 0-based */
    NVME_FID_WRITE_ATOMIC = 0x0a,
    NVME_FID_ASYNC_EVENT = 0x0b,  /* NVME_OAES_* */
    NVME_FID_TIMESTAMP = 0x0e,
    NVME_FID_KATO = 0x0f,         /* ms */
    NVME_FID_HOST_BEHAVIOR = 0x16,
    NVME_FID_IOCS_PROFILE = 0x19, /* 8:0 index */
    NVME_FID_KV_CONFIG = 0x20,    /* NVME_KV_CONFIG_* */
    NVME_FID_HOST_ID = 0x81,      /* bit 0: 16 bytes */
    NVME_FID_RESV_MASK = 0x82,
    NVME_FID_RESV_PERSIST = 0x83,
};
const char *nvme_fid_name(uint8_t fid);
#define NVME_FEATURE_SAVE (1u << 31) /* Set, CDW10 */
#define NVME_FEATURE_SEL(cdw10) (((cdw10) >> 8) & 7)
#define NVME_SEL_CURRENT 0
#define NVME_SEL_DEFAULT 1
#define NVME_SEL_SAVED 2
#define NVME_SEL_CAPS 3
/* DW0 of Get with SEL 3. */
#define NVME_FEATURE_CAP_SAVEABLE (1u << 0)
#define NVME_FEATURE_CAP_PER_NS (1u << 1)
#define NVME_FEATURE_CAP_CHANGEABLE (1u << 2)

/* --- asynchronous events: DW0 2:0 type, 15:8 info, 23:16 log page ----------------------------- */

#define NVME_AER_ERROR 0
#define NVME_AER_SMART 1
#define NVME_AER_NOTICE 2
#define NVME_AER_IO_CMD 6
#define NVME_AER_NOTICE_NS_CHANGED 0x00
#define NVME_AER_NOTICE_ANA 0x03
#define NVME_AER_NOTICE_DISCOVERY 0xf0
#define NVME_AER_DW0(type, info, lid)                                                              \
    ((uint32_t)(type) | (uint32_t)(info) << 8 | (uint32_t)(lid) << 16)

#endif
