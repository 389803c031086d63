/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the sectors of a region may hold, as their writer is entitled to expect.
 *
 * Each sector has a floor, the write that is known to be durable, and after it the writes begun
 * since, in order. Normally the last one acknowledged is to be seen, or one whose outcome nobody
 * knows (its connection was lost: it may have happened, may still happen, or never). After a power
 * cut of the server it may be the floor or any write after it.
 */
#ifndef KVASIR_SIM_MODEL_BLK_H
#define KVASIR_SIM_MODEL_BLK_H

#include <stdbool.h>
#include <stdint.h>

#define MODEL_WRITES_MAX 16

struct model_write {
    uint32_t id;
    bool acked;
    bool in_flight;
    bool doubtful;   /* a flush has failed since: no later one makes it durable for certain */
    uint64_t seq;    /* of the acknowledgement */
    uint64_t end_ns; /* unknown outcome: since when */
};

struct model_sector {
    uint32_t floor;
    uint8_t nwrites;
    bool cut; /* the power has failed since: anything after the floor may be lost */
    struct model_write write[MODEL_WRITES_MAX];
};

struct model_blk {
    const char *name;
    uint64_t place; /* of sector 0, for the content */
    uint32_t nsectors;
    uint32_t next_id;
    uint64_t seq;
    uint64_t crashes;    /* of the server */
    uint64_t crash_seq;  /* the last one */
    uint64_t settled_ns; /* what was unknown before that will not happen any more */
    struct model_sector *sector;
};

void model_blk_init(struct model_blk *m, const char *name, uint64_t place, uint32_t nsectors);
void model_blk_fini(struct model_blk *m);

/** Whether a write of these sectors can be taken down: a flush, or patience, makes room. */
bool model_blk_room(const struct model_blk *m, uint32_t first, uint32_t n);
/** A write (or zeroes: id SIM_ZEROES) begins. */
void model_blk_write(struct model_blk *m, uint32_t first, uint32_t n, uint32_t id);
/** It has been acknowledged (durable: with FUA), or nobody knows. */
void model_blk_written(struct model_blk *m, uint32_t first, uint32_t n, uint32_t id, bool acked,
                       bool durable);
/** It has been refused before it could do anything. */
void model_blk_refused(struct model_blk *m, uint32_t first, uint32_t n, uint32_t id);

struct model_flush {
    uint64_t seq, crashes;
};
struct model_flush model_blk_flush(const struct model_blk *m);
void model_blk_flushed(struct model_blk *m, struct model_flush f);
void model_blk_flush_failed(struct model_blk *m);

/** The server has crashed; with the power its volatile cache is gone. */
void model_blk_crash(struct model_blk *m, bool power);
/** The writer has crashed: what it had in flight has an unknown outcome. */
void model_blk_orphan(struct model_blk *m);

/** Whether reading write `id` in this sector is right. */
bool model_blk_may(const struct model_blk *m, uint32_t sector, uint32_t id);
/** It has been read, and no crash of the server fell into the read: narrows what may be there. */
void model_blk_seen(struct model_blk *m, uint32_t sector, uint32_t id);
/** The content that has to be there; SIM_NO_CONTENT when several may be. */
uint32_t model_blk_only(const struct model_blk *m, uint32_t sector);
/** What may be there, as text, for the report. */
void model_blk_text(const struct model_blk *m, uint32_t sector, char *out, unsigned max);

#endif
