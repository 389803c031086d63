/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bugs planted on purpose for tests/crash to find: PLANTED("name") is false, and costs nothing, but
 * in a build with -Dplant=crash, where the environment variable PLANT names the one that is there.
 */
#ifndef KVASIR_BASE_PLANT_H
#define KVASIR_BASE_PLANT_H

#include <stdbool.h>

#ifdef PLANT_CRASH
#include <stdlib.h>
#include <string.h>

static inline bool plant_is(const char *name)
{
    const char *chosen = getenv("PLANT");

    return chosen != NULL && strcmp(chosen, name) == 0;
}
#define PLANTED(name) plant_is(name)
#else
#define PLANTED(name) false
#endif

#endif
