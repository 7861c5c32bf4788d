// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The traffic generator: run by BPF_PROG_TEST_RUN with BPF_F_TEST_XDP_LIVE_FRAMES. */
#include "traffic.h"

SEC("xdp")
int generate(struct xdp_md *ctx)
{
	struct plan *plan = find_plan();

	if (!plan || !write_frame((void *)(long)ctx->data, (void *)(long)ctx->data_end, plan))
		return XDP_ABORTED;
	return bpf_redirect(plan->interface, 0);
}

/* Called by nobody: brings the enum into BTF. */
int carry_types(enum kind *kind)
{
	return kind != NULL;
}

char _license[] SEC("license") = "Dual BSD/GPL";
