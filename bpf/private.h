/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A private load: programs that no NIC uses, with tables of their own. They go by a time that the tool
 * sets, and leave their decision where it can be read without another run. `replay` runs captures
 * through them.
 */
#ifndef PORTCULLIS_PRIVATE_H
#define PORTCULLIS_PRIVATE_H

#include "contract.h"
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

/* 0 in a gate that asks for nothing more. The tool sets them before the load, and .rodata is frozen then. So
 * the verifier knows the values, and removes the branches that a load does not need. A load that does not ask
 * conntrack does not need its module either.
 */
const volatile struct load_constants load = {};

/* Written by the tool (the time) and by the filter (the decision), read by both. In .bss, which the tool
 * maps: a system call for each frame would cost as much as the frame. Can't fill.
 */
struct private_run private_run = {};

/* CLOCK_MONOTONIC_COARSE, for what is done seldom. Packets go by read_clock(). */
static __always_inline __u64 read_coarse_clock(void)
{
	return load.is_private ? private_run.now_ns : bpf_ktime_get_coarse_ns();
}

#endif
