// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The traffic generator: run by BPF_PROG_TEST_RUN with BPF_F_TEST_XDP_LIVE_FRAMES. */
#include "slices.h"

SEC("xdp")
int generate(struct xdp_md *ctx)
{
	struct slice *slice = write_next((void *)(long)ctx->data, (void *)(long)ctx->data_end);

	return slice ? bpf_redirect(slice->target, 0) : XDP_ABORTED;
}

/* Never called: brings the enums into BTF. */
int carry_types(enum kind *kind, enum engine_limit *limit)
{
	return kind != NULL && limit != NULL;
}

char _license[] SEC("license") = "Dual BSD/GPL";
