/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Changing stacks: callee-saved registers on the old stack, its pointer to *save_sp, then the same
 * in reverse from load_sp. Twenty instructions on x86-64 and arm64; elsewhere ucontext.
 */
#ifndef KVASIR_RT_SWITCH_H
#define KVASIR_RT_SWITCH_H

#include <stddef.h>

/** Saves the present context and continues another one. */
void rt_switch(void **save_sp, void *load_sp);

/** Makes a context that calls entry(arg) on a fresh stack; entry never returns. */
void *rt_switch_make(void *stack, size_t stack_len, void (*entry)(void *), void *arg);

#endif
