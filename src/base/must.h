/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KVASIR_BASE_MUST_H
#define KVASIR_BASE_MUST_H

/**
 * Asserts a property of our own state. Stays on in production: a broken invariant stops the
 * process before it can damage data. Never for bytes from outside: those get an error.
 */
#define must(cond) ((cond) ? (void)0 : must_fail(#cond, __FILE__, __LINE__, __func__))

__attribute__((noreturn, cold)) void must_fail(const char *cond, const char *file, int line,
                                               const char *func);

#endif
