/* SPDX-License-Identifier: Apache-2.0 */
#include "rt/switch.h"

#include "base/must.h"

#include <stdint.h>

#if defined(__x86_64__)

__asm__(".text\n"
        ".p2align 4\n"
        ".globl rt_switch\n"
        ".hidden rt_switch\n"
        ".type rt_switch,@function\n"
        "rt_switch:\n"
        "    pushq %rbp\n"
        "    pushq %rbx\n"
        "    pushq %r12\n"
        "    pushq %r13\n"
        "    pushq %r14\n"
        "    pushq %r15\n"
        "    movq %rsp, (%rdi)\n"
        "    movq %rsi, %rsp\n"
        "    popq %r15\n"
        "    popq %r14\n"
        "    popq %r13\n"
        "    popq %r12\n"
        "    popq %rbx\n"
        "    popq %rbp\n"
        "    ret\n"
        ".size rt_switch,.-rt_switch\n"
        ".p2align 4\n"
        ".type rt_switch_begin,@function\n"
        "rt_switch_begin:\n"
        "    movq %r12, %rdi\n"
        "    xorl %ebp, %ebp\n"
        "    callq *%rbx\n"
        "    ud2\n"
        ".size rt_switch_begin,.-rt_switch_begin\n");
extern char rt_switch_begin[];

void *rt_switch_make(void *stack, size_t stack_len, void (*entry)(void *), void *arg)
{
    uintptr_t top = ((uintptr_t)stack + stack_len) & ~(uintptr_t)15;
    void **sp = (void **)top;

    *--sp = NULL; /* two words keep the stack aligned at the call */
    *--sp = NULL;
    *--sp = rt_switch_begin; /* return address */
    *--sp = NULL;            /* rbp */
    *--sp = (void *)entry;   /* rbx */
    *--sp = arg;             /* r12 */
    *--sp = NULL;            /* r13 */
    *--sp = NULL;            /* r14 */
    *--sp = NULL;            /* r15 */
    return sp;
}

#elif defined(__aarch64__)

__asm__(".text\n"
        ".p2align 4\n"
        ".globl rt_switch\n"
        ".hidden rt_switch\n"
        ".type rt_switch,%function\n"
        "rt_switch:\n"
        "    sub sp, sp, #160\n"
        "    stp x19, x20, [sp, #0]\n"
        "    stp x21, x22, [sp, #16]\n"
        "    stp x23, x24, [sp, #32]\n"
        "    stp x25, x26, [sp, #48]\n"
        "    stp x27, x28, [sp, #64]\n"
        "    stp x29, x30, [sp, #80]\n"
        "    stp d8, d9, [sp, #96]\n"
        "    stp d10, d11, [sp, #112]\n"
        "    stp d12, d13, [sp, #128]\n"
        "    stp d14, d15, [sp, #144]\n"
        "    mov x9, sp\n"
        "    str x9, [x0]\n"
        "    mov sp, x1\n"
        "    ldp x19, x20, [sp, #0]\n"
        "    ldp x21, x22, [sp, #16]\n"
        "    ldp x23, x24, [sp, #32]\n"
        "    ldp x25, x26, [sp, #48]\n"
        "    ldp x27, x28, [sp, #64]\n"
        "    ldp x29, x30, [sp, #80]\n"
        "    ldp d8, d9, [sp, #96]\n"
        "    ldp d10, d11, [sp, #112]\n"
        "    ldp d12, d13, [sp, #128]\n"
        "    ldp d14, d15, [sp, #144]\n"
        "    add sp, sp, #160\n"
        "    ret\n"
        ".size rt_switch,.-rt_switch\n"
        ".p2align 4\n"
        ".type rt_switch_begin,%function\n"
        "rt_switch_begin:\n"
        "    mov x0, x20\n"
        "    mov x29, xzr\n"
        "    mov x30, xzr\n"
        "    blr x19\n"
        "    brk #1\n"
        ".size rt_switch_begin,.-rt_switch_begin\n");
extern char rt_switch_begin[];

void *rt_switch_make(void *stack, size_t stack_len, void (*entry)(void *), void *arg)
{
    uintptr_t top = ((uintptr_t)stack + stack_len) & ~(uintptr_t)15;
    void **sp = (void **)(top - 160);

    for (int i = 0; i < 20; i++)
        sp[i] = NULL;
    sp[0] = (void *)entry;    /* x19 */
    sp[1] = arg;              /* x20 */
    sp[11] = rt_switch_begin; /* x30 */
    return sp;
}

#else /* any other CPU: ucontext, which costs two system calls a switch */

#include <stdlib.h>
#include <ucontext.h>

/* The context lives on the stack it describes (a fresh one) or in the frame of rt_switch. */
void rt_switch(void **save_sp, void *load_sp)
{
    ucontext_t here;

    *save_sp = &here;
    must(swapcontext(&here, load_sp) == 0);
}

static void begin(unsigned entry_hi, unsigned entry_lo, unsigned arg_hi, unsigned arg_lo)
{
    void (*entry)(void *) = (void (*)(void *))(uintptr_t)((uint64_t)entry_hi << 32 | entry_lo);

    entry((void *)(uintptr_t)((uint64_t)arg_hi << 32 | arg_lo));
}

void *rt_switch_make(void *stack, size_t stack_len, void (*entry)(void *), void *arg)
{
    uintptr_t top = ((uintptr_t)stack + stack_len - sizeof(ucontext_t)) & ~(uintptr_t)63;
    ucontext_t *uc = (ucontext_t *)top;
    uint64_t e = (uintptr_t)entry;
    uint64_t a = (uintptr_t)arg;

    must(getcontext(uc) == 0);
    uc->uc_stack.ss_sp = stack;
    uc->uc_stack.ss_size = top - (uintptr_t)stack;
    uc->uc_link = NULL;
    makecontext(uc, (void (*)(void))begin, 4, (unsigned)(e >> 32), (unsigned)e, (unsigned)(a >> 32),
                (unsigned)a);
    return uc;
}

#endif
