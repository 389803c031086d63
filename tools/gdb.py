# SPDX-License-Identifier: Apache-2.0
"""For gdb: the tasks of a process or a core file, each with its own backtrace.

    gdb -x tools/gdb.py -p PID           gdb -x tools/gdb.py build/kvasird core
    (gdb) tasks                          all reactors' tasks: name, what it waits for, backtrace
    (gdb) tasks NAME                     those whose name contains NAME

A parked task is a saved stack pointer (src/rt/task.c, src/rt/switch.c): its frames are followed by
frame pointers, which all our code keeps, so that this works on core files too.
"""
import gdb

DEPTH_MAX = 40
# Where rt_switch() saved the frame pointer and the return address, in words from the stack pointer.
SAVED = {"i386:x86-64": (5, 6), "aarch64": (10, 11)}


def word(address):
    pointer = gdb.lookup_type("unsigned long").pointer()
    return int(gdb.Value(address).cast(pointer).dereference())


def place(pc):
    """`function (file:line)` of a return address."""
    block = gdb.block_for_pc(pc - 1)
    name = None
    while block is not None and name is None:
        name = block.function
        block = block.superblock
    line = gdb.find_pc_line(pc - 1)
    if name is None:
        return gdb.execute(f"info symbol {pc}", to_string=True).strip()
    return f"{name} ({line.symtab.filename}:{line.line})" if line.symtab else str(name)


def frames(sp, stack_low, stack_high):
    fp_at, pc_at = SAVED[gdb.selected_inferior().architecture().name()]
    fp, pc = word(sp + 8 * fp_at), word(sp + 8 * pc_at)
    for _ in range(DEPTH_MAX):
        if pc == 0:
            return
        yield pc
        if not stack_low <= fp < stack_high:
            return
        fp, pc = word(fp), word(fp + 8)


def entries(head, type_name, member):
    """The objects on an intrusive list (src/base/list.h)."""
    pointer = gdb.lookup_type(type_name).pointer()
    offset = next(f.bitpos // 8 for f in gdb.lookup_type(type_name).fields() if f.name == member)
    at = head["next"]
    while int(at) != int(head.address) and int(at) != 0:
        yield gdb.Value(int(at) - offset).cast(pointer)
        at = at["next"]


def runtimes():
    """Every struct rt that a thread of this process belongs to."""
    found = {}
    before = gdb.selected_thread()
    for thread in gdb.selected_inferior().threads():
        thread.switch()
        try:
            reactor = gdb.parse_and_eval("rt_self_reactor")
            if int(reactor) != 0:
                found[int(reactor["rt"])] = reactor["rt"].dereference()
        except gdb.error:
            pass
    if before is not None:
        before.switch()
    return found.values()


class Tasks(gdb.Command):
    """Lists tasks with their backtraces: tasks [NAME]."""

    def __init__(self):
        super().__init__("tasks", gdb.COMMAND_STACK)

    def invoke(self, argument, from_tty):
        total = 0
        for rt in runtimes():
            for i in range(int(rt["nreactors"])):
                reactor = rt["reactors"][i]
                for task in entries(reactor["tasks"], "struct rt_task", "link"):
                    total += self.show(reactor, task, argument.strip())
        print(f"{total} tasks")

    def show(self, reactor, task, wanted):
        name = task["name"].string()
        if wanted not in name:
            return 0
        state = "runs now" if reactor["task"] == task else "ready"
        if int(task["waiting"]) != 0:
            # The cancel function tells what kind of request it is.
            cancel = int(task["waiting"]["cancel"])
            kind = gdb.execute(f"info symbol {cancel}", to_string=True).split()[0] if cancel else "request"
            state = f"waits for {kind.removesuffix('_cancel')} {task['waiting']}"
        if int(task["cancel_rc"]) != 0:
            state += f", cancelled ({int(task['cancel_rc'])})"
        print(f"{name}  reactor {int(reactor['idx'])}  trace {int(task['trace_id']):x}  {state}")
        if reactor["task"] != task:
            low = int(task["stack"])
            for n, pc in enumerate(frames(int(task["sp"]), low, low + int(task["stack_len"]))):
                print(f"  #{n:<2} {place(pc)}")
        return 1


Tasks()
