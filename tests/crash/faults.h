/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KVASIR_CRASH_FAULTS_H
#define KVASIR_CRASH_FAULTS_H

#include "walk.h"

struct faults_opts {
    uint64_t seed;
    unsigned jobs;
    bool disk, memory; /* which faults */
    unsigned stride;   /* every so many-th only; 1: all */
    uint32_t nth;      /* this one only; 0: all */
    unsigned kind;     /* with nth: the number of the kind of fault */
    bool verbose;
};
/** Fails each read, write, flush, hole and allocation of a short workload in turn. */
int faults(const struct subject *s, const struct faults_opts *o);

struct rot_opts {
    uint64_t seed;
    unsigned jobs;
    uint64_t flips;
    uint64_t at; /* this byte only; UINT64_MAX: many */
    bool verbose;
};
/** Flips bytes of a closed store, one at a time: found, or harmless, never a wrong value. */
int rot(const struct subject *s, const struct rot_opts *o);

#endif
