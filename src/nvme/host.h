/* SPDX-License-Identifier: Apache-2.0 */
/*
 * NVMe/TCP, the host side. A struct nvme_ctrl is one association with a subsystem: an admin queue
 * on the reactor that opened it (its home) and one I/O queue, which is one TCP connection, per
 * reactor that uses it. When a connection is lost the whole association is made anew, with
 * back-off; commands that may be repeated are sent again, the others end with -ECONNRESET,
 * because nobody knows whether they took effect. After `ctrl_loss_ns` without success the
 * controller is gone for good and everything ends with -ENODEV.
 */
#ifndef KVASIR_NVME_HOST_H
#define KVASIR_NVME_HOST_H

#include "net/addr.h"
#include "proto/nvme_admin.h"
#include "proto/nvme_fabrics.h"
#include "proto/nvme_kv.h"
#include "rt/rt.h"

struct nvme_ctrl;
struct nvme_queue;

#define NVME_DEPTH_DEFAULT 128
#define NVME_DEPTH_MAX 1022
#define NVME_QUEUES_MAX 256
#define NVME_KATO_NONE UINT32_MAX

/* --- commands --------------------------------------------------------------------------------- */

#define NVME_REQ_REPEAT 1u   /* may be sent again after a lost connection or a passing error */
#define NVME_REQ_CONNECT 2u  /* the layer's own: allowed before the queue is in use */
#define NVME_REQ_BOUND 4u    /* means something on connection number `connection` only (it names a
                                handle of the target's); -ECONNRESET when that is another one now */

/**
 * One command. The caller sets sqe (opcode, NSID, dwords; the layer sets CID, data pointer and
 * the PSDT bits), the direction and the data, and zeroes the rest.
 */
struct nvme_req {
    struct rt_req req;          /* first. rc: 0, the errno of the status, or of the connection */
    struct nvme_sqe sqe;
    const struct iovec *iov;    /* stays, with the bytes, until completion */
    unsigned iovcnt;
    uint32_t data_len;          /* bytes to send, or room for what comes; the iovecs hold as many */
    uint8_t dir;                /* enum nvme_dir: NONE, H2C or C2H */
    uint8_t flags;              /* NVME_REQ_* */
    uint32_t connection;        /* with NVME_REQ_BOUND */
    uint64_t timeout_ns;        /* for the answer, when it may take longer than of others */
    /* out */
    uint16_t status;            /* of the completion entry; 0 also when there was none */
    uint32_t dw0, dw1;
    uint32_t moved;             /* bytes of data that were sent or came */
    bool repeated;              /* sent before, without an answer: that may have taken effect, so a
                                   failure does not mean that nothing has happened */

    /*
     * Streams: data that the caller brings (or takes) piece by piece, so that a value of any size
     * needs no memory. With `fed` set, iov holds only a window of the data, at first
     * `window_len` bytes (it may be 0); when it has been moved, or data is asked for while there
     * is none (or has come), fed() is called from the loop; the next window is given by
     * nvme_req_feed() then or later. done() may come at any time without fed(). Only on queues
     * opened as streams: the connection stands still meanwhile.
     */
    void (*fed)(struct nvme_req *req);
    uint32_t window_len;

    /* The layer's own. */
    uint32_t window_off;
    uint8_t tries;
    bool cancelled;
    struct nvme_slot *slot;     /* NULL: waits in line */
    struct nvme_queue *queue;
    struct list link;
};

/**
 * Begins a command on a queue of the current reactor. Never waits, never completes inside. When
 * all command slots are taken or the connection is away it waits in line. Cancelling takes it out
 * of the line; once it has been sent it is only not repeated (a stream's connection is dropped).
 * rc: 0; -ENODEV, -ECONNRESET, -EPROTO; -EBADMSG data digest; else nvme_errno_of_status().
 */
void nvme_submit(struct nvme_queue *q, struct nvme_req *req);

/** The next `len` bytes of a stream's data; the window before it has been used up. */
void nvme_req_feed(struct nvme_req *req, const struct iovec *iov, unsigned iovcnt, uint32_t len);

/** For tasks: one command with one buffer. out_dw0 may be NULL. */
int nvme_exec(struct rt_task *t, struct nvme_queue *q, const struct nvme_sqe *sqe,
              enum nvme_dir dir, void *buf, uint32_t len, uint32_t *out_dw0);
/**
 * Asks the controller to abort a command that has been sent, on its reactor and while it lasts;
 * for another task than the one that waits for it. The command completes by itself. 0, also when
 * it has not been sent.
 */
int nvme_abort(struct rt_task *t, const struct nvme_req *req);
/** As nvme_exec(), on the admin queue, from any reactor. */
int nvme_admin(struct rt_task *t, struct nvme_ctrl *ctrl, const struct nvme_sqe *sqe,
               enum nvme_dir dir, void *buf, uint32_t len, uint32_t *out_dw0);

/* --- controllers ------------------------------------------------------------------------------ */

struct nvme_ctrl_opts {
    char addr[NET_ADDR_TEXT_MAX];   /* "host:port"; the port may be absent */
    char subnqn[NVME_NQN_FIELD];    /* NVME_DISCOVERY_NQN: a discovery controller, no I/O queues */
    char hostnqn[NVME_NQN_FIELD];   /* "": this machine's, see nvme_host_identity() */
    uint8_t hostid[16];             /* zeroes: belongs to hostnqn */
    bool hdgst, ddgst;              /* ask for header and data digests */
    uint16_t queues;                /* I/O queues to ask for; 0: one per reactor and some more */
    uint16_t depth;                 /* commands in flight per I/O queue; 0: NVME_DEPTH_DEFAULT */
    uint32_t kato_ms;               /* keep alive; 0: 10 s (discovery: none); NVME_KATO_NONE */
    uint64_t ctrl_loss_ns;          /* how long to try to reconnect; 0: not at all */
    uint64_t timeout_ns;            /* for the answer to a command; 0: 30 s. Then we reconnect */
    /*
     * Called after every connect (the first one included) before commands are sent, and when the
     * target reports that namespaces have changed. Runs in the controller's task and may use
     * nvme_admin(). A failure means that what was opened is not there any more: the controller
     * is gone for good. May be NULL.
     */
    int (*check)(struct rt_task *t, struct nvme_ctrl *ctrl, void *arg, struct err *why);
    /* Once, when the controller is gone for good. May be NULL. */
    void (*gone)(struct nvme_ctrl *ctrl, void *arg);
    void *arg;
};

/**
 * Connects and enables a controller. Waits (at most about 10 s for a silent peer). Errors with
 * text: -EINVAL options; -ENOENT no such host or subsystem; -ECONNREFUSED and the like;
 * -EACCES not allowed, or authentication wanted; -EPROTO; -ETIMEDOUT.
 */
int nvme_ctrl_open(struct rt_task *t, const struct nvme_ctrl_opts *opts,
                   struct nvme_ctrl **out_ctrl, struct err *why);
/** Ends the association with a shutdown. Every queue has been closed; from the home reactor. */
void nvme_ctrl_close(struct rt_task *t, struct nvme_ctrl *ctrl);

/** Identify Controller data of the present association. */
const struct nvme_id_ctrl *nvme_ctrl_id(const struct nvme_ctrl *ctrl);
/** CAP and VS registers. */
uint64_t nvme_ctrl_cap(const struct nvme_ctrl *ctrl);
uint32_t nvme_ctrl_vs(const struct nvme_ctrl *ctrl);
/** I/O queues the controller granted. */
unsigned nvme_ctrl_queues(const struct nvme_ctrl *ctrl);
/** Largest transfer of one command in bytes; UINT32_MAX when the controller has no limit. */
uint32_t nvme_ctrl_transfer_max(const struct nvme_ctrl *ctrl);
/** How often the association has been made: 1 after open. */
unsigned nvme_ctrl_epoch(const struct nvme_ctrl *ctrl);

/* --- I/O queues ------------------------------------------------------------------------------- */

/**
 * Opens an I/O queue on the current reactor. Waits. -EBUSY when the controller grants no more;
 * -ENODEV; errors of the connection. A `stream` queue is for one stream at a time: it is not
 * repaired when its connection is lost (its command ends with -ECONNRESET; close it then).
 */
int nvme_queue_open(struct rt_task *t, struct nvme_ctrl *ctrl, bool stream,
                    struct nvme_queue **out_q, struct err *why);
/** Closes the connection; what is still in flight ends with -ECONNRESET first. */
void nvme_queue_close(struct rt_task *t, struct nvme_queue *q);
/** True while commands are sent at once (for streams: the queue is usable). */
bool nvme_queue_live(const struct nvme_queue *q);
/** Number of the present connection, or of the last one: it changes when the queue is repaired. */
uint32_t nvme_queue_connection(const struct nvme_queue *q);
/** Drops the connection now: for giving up a stream. */
void nvme_queue_drop(struct nvme_queue *q);

struct nvme_queue_stats {
    uint64_t sent, done, repeated, connects, pdus_in;
    uint32_t in_flight, in_line;
};
void nvme_queue_stats(const struct nvme_queue *q, struct nvme_queue_stats *out);

/* --- identify, logs --------------------------------------------------------------------------- */

/** Identify into 4096 bytes. */
int nvme_identify(struct rt_task *t, struct nvme_ctrl *ctrl, uint8_t cns, uint32_t nsid,
                  uint8_t csi, void *out_page);
/** Get Log Page: `len` bytes (a multiple of 4) from `offset`, in steps the controller takes. */
int nvme_get_log(struct rt_task *t, struct nvme_ctrl *ctrl, uint8_t lid, uint32_t nsid,
                 uint8_t csi, uint64_t offset, void *out, uint32_t len);
/** Active NSIDs above `after`, ascending, up to 1024; returns how many. */
int nvme_ns_ids(struct rt_task *t, struct nvme_ctrl *ctrl, uint32_t after, uint32_t *out_nsids,
                unsigned max);

/** What one namespace is, from its identify data, checked. */
struct nvme_ns {
    uint32_t nsid;
    uint8_t csi;              /* enum nvme_csi */
    bool write_protected;
    bool shared;
    struct nvme_ns_ids ids;
    uint8_t uuid[16];         /* UUID, else NGUID, else made of EUI64; zeroes when there is none */
    uint64_t used_bytes;
    /* NVM */
    uint32_t block_bytes;
    uint64_t nblocks;
    uint8_t dlfeat;           /* NVME_DLFEAT_* */
    uint32_t preferred_write_bytes; /* granularity; 0 not stated */
    /* KV */
    uint64_t size_bytes;
    uint32_t key_max;
    uint32_t val_max;
    uint32_t nkeys_max;
    uint32_t optimal_bytes;
    uint8_t vendor[256];      /* bytes 3840..4095 of the KV identify data */
};
/** -ENOENT with text when there is no such namespace. */
int nvme_ns_read(struct rt_task *t, struct nvme_ctrl *ctrl, uint32_t nsid, struct nvme_ns *out,
                 struct err *why);
/**
 * The namespace `nsid`, or the first of that command set when nsid is 0. -ENOENT there is none;
 * -EINVAL it is of another kind, with a text that says how to use it instead.
 */
int nvme_ns_find(struct rt_task *t, struct nvme_ctrl *ctrl, uint8_t csi, uint32_t nsid,
                 struct nvme_ns *out, struct err *why);

/* --- discovery -------------------------------------------------------------------------------- */

struct nvme_discovery {
    uint64_t genctr;
    unsigned count;
    struct nvme_discovery_info entry[];
};
#define NVME_DISCOVERY_MAX 4096 /* entries we take; a log with more is cut */

/**
 * Reads the discovery log of a discovery controller: what `hostnqn` ("": this machine's) may see.
 * The log is read again when it changed meanwhile. Entries that make no sense are left out.
 * Free *out_log with free().
 */
int nvme_discover(struct rt_task *t, const char *addr, const char *hostnqn,
                  struct nvme_discovery **out_log, struct err *why);

/**
 * Who we are: /etc/nvme/hostnqn and /etc/nvme/hostid, which other NVMe tools of this machine use
 * as well; where they are missing, names made for this process.
 */
int nvme_host_identity(struct rt_task *t, char *out_hostnqn, uint8_t out_hostid[16]);

#endif
