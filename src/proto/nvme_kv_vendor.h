/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Kvasir's vendor commands on KV namespaces: long keys, ranges, versions, append, stores of
 * unknown length, ordered lists with prefix, batches, snapshots. docs/protocols/kv-vendor.md has
 * them byte by byte with every status; this is the same for the compiler.
 *
 * A namespace that has them says so at byte 3840 of CNS 05h, CSI 1. Unlike in the specification's
 * own structures, reserved bits and bytes here are zero and checked.
 */
#ifndef KVASIR_PROTO_NVME_KV_VENDOR_H
#define KVASIR_PROTO_NVME_KV_VENDOR_H

#include "proto/nvme_kv.h"

enum nvme_kvv_opcode {
    NVME_KVV_CLOSE = 0xc0,  /* no data */
    NVME_KVV_OPEN = 0xc1,   /* host to controller */
    NVME_KVV_READ = 0xc2,   /* controller to host */
    NVME_KVV_COMMIT = 0xc4, /* no data */
    NVME_KVV_WRITE = 0xc5,  /* host to controller */
    NVME_KVV_INFO = 0xc6,   /* controller to host */
    NVME_KVV_BATCH = 0xc9,  /* host to controller */
};

/* Status code type 1, vendor specific codes: of these commands only. */
enum nvme_kvv_status_code {
    NVME_SC_KVV_BAD_HANDLE = 0x1c0, /* none such on this queue (any more) */
    NVME_SC_KVV_NO_HANDLE = 0x1c1,  /* all are in use; without DNR */
    NVME_SC_KVV_STALE = 0x1c2,      /* the key has another version */
    NVME_SC_KVV_SEQUENCE = 0x1c3,   /* another command is at work on the handle, or a WRITE's offset
                                       is not where the last one ended; nothing has changed */
};
/** As nvme_errno_of_status and nvme_status_text, knowing the codes above. */
int nvme_kvv_errno_of_status(uint16_t status);
const char *nvme_kvv_status_text(uint16_t status);

/* --- what the namespace says ------------------------------------------------------------------ */

#define NVME_KVV_MAGIC "KVASIRKV"
#define NVME_KVV_VERSION 1

struct nvme_kvv_id {         /* at 3840 of struct nvme_id_ns_kv */
    uint8_t magic[8];        /*  0  NVME_KVV_MAGIC */
    le32    version;         /*  8  NVME_KVV_VERSION */
    le32    caps;            /* 12  NVME_KVV_CAP_* */
    le32    key_max;         /* 16  bytes */
    le32    handles_max;     /* 20  of one queue */
    le64    val_max;         /* 24  bytes */
    le32    idle_ms;         /* 32  a handle without commands is closed after so long */
    le32    batch_bytes_max; /* 36  data of one BATCH */
    le32    batch_items_max; /* 40 */
    uint8_t rsvd44[84];      /* 44 */
    uint8_t select[128];     /* 128  zeroes, or struct nvme_sel_id of nvme_select.h */
};
static_assert(sizeof(struct nvme_kvv_id) == 256, "vendor part is 256 bytes");

/* The bits of KV_CAP_* in kv/kv.h. OPEN, READ, WRITE, COMMIT, INFO and CLOSE are always there. */
#define NVME_KVV_CAP_RANGE (1u << 0)        /* READ at an offset costs no reading from 0 */
#define NVME_KVV_CAP_VERSION (1u << 1)      /* real versions; else 0, no IF_VERSION */
#define NVME_KVV_CAP_APPEND (1u << 2)
#define NVME_KVV_CAP_UNKNOWN_LEN (1u << 3)
#define NVME_KVV_CAP_ORDERED_LIST (1u << 4)
#define NVME_KVV_CAP_BATCH (1u << 5)
#define NVME_KVV_CAP_SNAPSHOT (1u << 6)
#define NVME_KVV_CAPS 0x7fu

/** True when a namespace has the commands in a version known here. */
bool nvme_kvv_id_ok(const struct nvme_kvv_id *id);

/* --- OPEN: CDW10 bytes of data; CDW11 7:0 mode, 31:8 flags; CDW2/3 declared length; CDW12 snapshot
 *     handle or 0; CDW14/15 version ------------------------------------------------------------ */

enum nvme_kvv_mode {
    NVME_KVV_MODE_READ = 0,     /* DW0 handle, DW1 value length (FFFFFFFFh: that or more) */
    NVME_KVV_MODE_STORE = 1,    /* DW0 handle */
    NVME_KVV_MODE_LIST = 2,     /* DW0 handle */
    NVME_KVV_MODE_DELETE = 3,   /* done; no handle */
    NVME_KVV_MODE_STAT = 4,     /* DW0, DW1: value length; no handle */
    NVME_KVV_MODE_SNAPSHOT = 5, /* DW0 handle */
};

/* The same bits as KV_F_* in kv/kv.h. */
#define NVME_KVV_F_MUST_EXIST (1u << 0)     /* STORE */
#define NVME_KVV_F_MUST_NOT_EXIST (1u << 1) /* STORE */
#define NVME_KVV_F_IF_VERSION (1u << 2)     /* STORE, DELETE */
#define NVME_KVV_F_APPEND (1u << 3)         /* STORE */
#define NVME_KVV_F_AFTER (1u << 4)          /* LIST */

#define NVME_KVV_LEN_UNKNOWN UINT64_MAX

struct nvme_kvv_open_head {  /* the data; key and prefix follow without padding */
    le16    key_len;         /*  0 */
    le16    prefix_len;      /*  2  LIST */
    le32    rsvd;            /*  4 */
};
static_assert(sizeof(struct nvme_kvv_open_head) == 8, "OPEN head is 8 bytes");

/** Bytes of OPEN data that are enough for any key and prefix of up to `key_max` bytes. */
#define NVME_KVV_OPEN_BYTES(key_max) (sizeof(struct nvme_kvv_open_head) + 2 * (size_t)(key_max))

struct nvme_kvv_open {
    enum nvme_kvv_mode mode;
    uint32_t flags;        /* NVME_KVV_F_* */
    uint64_t declared_len; /* STORE; NVME_KVV_LEN_UNKNOWN */
    uint32_t snapshot;     /* READ, LIST, STAT: handle of a snapshot, 0: the present */
    uint64_t version;      /* with IF_VERSION */
    struct bytes key;
    struct bytes prefix;   /* LIST */
};

/**
 * Target: the length of the data that has to come with an OPEN or BATCH (CDW10).
 */
static inline uint32_t nvme_kvv_data_len(const struct nvme_sqe *sqe)
{
    return le32_get(sqe->cdw10);
}

/**
 * Target: takes an OPEN apart; key and prefix point into `data`, `len` bytes of which are there.
 * Returns NVME_SC_SUCCESS, or the status to answer (with DNR): 02h for anything that contradicts
 * the format, 0Fh when len is not CDW10, 86h for a key or prefix of a length the device lacks.
 */
uint16_t nvme_kvv_open_decode(const struct nvme_sqe *sqe, const void *data, size_t len,
                              uint32_t key_max, struct nvme_kvv_open *out);
/**
 * Host: writes the data of an OPEN and the fields of its SQE (not CID, NSID, SGL). Returns the
 * bytes of data, or -ENAMETOOLONG, -E2BIG when `max` is too small.
 */
int nvme_kvv_open_encode(struct nvme_sqe *sqe, void *data, size_t max,
                         const struct nvme_kvv_open *open);
/** The same for who sends the data from its places: this head, then the key, then the prefix. */
int nvme_kvv_open_head(struct nvme_sqe *sqe, struct nvme_kvv_open_head *out_head,
                       const struct nvme_kvv_open *open);

/* --- on handles: CDW10 bytes; CDW11 handle; CDW12/13 offset; CDW14 flags ---------------------- */

#define NVME_KVV_IO_CLOSE (1u << 0)  /* READ, INFO: the handle is closed when this succeeds */
#define NVME_KVV_IO_COMMIT (1u << 0) /* WRITE: commits when all is there; DW0, DW1 as COMMIT */
#define NVME_KVV_MORE (1u << 0)      /* DW1 of READ: there is more after what came */

struct nvme_kvv_io {
    uint32_t len;    /* READ, WRITE; INFO: room, >= 32 */
    uint32_t handle; /* never 0 */
    uint64_t offset; /* READ of values, WRITE */
    uint32_t flags;  /* NVME_KVV_IO_* */
};
/** Target: NVME_SC_SUCCESS, or 02h with DNR when reserved bits are set. */
uint16_t nvme_kvv_io_decode(const struct nvme_sqe *sqe, struct nvme_kvv_io *out);
/** Host: fills opcode and fields (not CID, NSID, SGL). */
void nvme_kvv_io_encode(struct nvme_sqe *sqe, enum nvme_kvv_opcode opc,
                        const struct nvme_kvv_io *io);

struct nvme_kvv_info {       /* the data of INFO */
    le64    value_len;       /*  0  READ: of the value; STORE: bytes accepted so far */
    le64    version;         /*  8  READ: of the value; else 0 */
    le32    mode;            /* 16  NVME_KVV_MODE_* of the handle */
    uint8_t rsvd20[12];      /* 20 */
};
static_assert(sizeof(struct nvme_kvv_info) == 32, "INFO data is 32 bytes");

/* --- BATCH: CDW10 bytes of data, CDW11 number of records -------------------------------------- */

struct nvme_kvv_record {     /* key and value follow without padding, then the next record */
    uint8_t op;              /*  0  NVME_KVV_PUT, NVME_KVV_DELETE */
    uint8_t rsvd;            /*  1 */
    le16    key_len;         /*  2 */
    le32    val_len;         /*  4  0 for DELETE */
};
static_assert(sizeof(struct nvme_kvv_record) == 8, "record head is 8 bytes");
#define NVME_KVV_PUT 0
#define NVME_KVV_DELETE 1

struct nvme_kvv_item {
    bool is_delete;
    struct bytes key;
    struct bytes val;
};

/** What one BATCH may be: from struct nvme_kvv_id. */
struct nvme_kvv_batch_limits {
    uint32_t key_max;
    uint64_t val_max;
    uint32_t bytes_max;
    uint32_t items_max;
};

/**
 * Target: CDW10 and CDW11 against the limits, before any data is here. 02h, or 0Fh when the SGL's
 * length `len` is not CDW10.
 */
uint16_t nvme_kvv_batch_check(const struct nvme_sqe *sqe, size_t len,
                              const struct nvme_kvv_batch_limits *limits);
/**
 * Target: takes the data apart into up to `items_max` items, which point into it. Returns
 * NVME_SC_SUCCESS and *out_nitems, or the status (02h, 85h, 86h) with *out_nitems the record at
 * fault.
 */
uint16_t nvme_kvv_batch_decode(const struct nvme_sqe *sqe, const void *data, size_t len,
                               const struct nvme_kvv_batch_limits *limits,
                               struct nvme_kvv_item *items, uint32_t items_max,
                               uint32_t *out_nitems);
/** Host: adds a record at *used; false when it does not fit. */
bool nvme_kvv_batch_put(void *data, size_t max, size_t *used, const struct nvme_kvv_item *item);
/** Host: fills opcode and fields (not CID, NSID, SGL). */
void nvme_kvv_batch_encode(struct nvme_sqe *sqe, uint32_t bytes, uint32_t nitems);

#endif
