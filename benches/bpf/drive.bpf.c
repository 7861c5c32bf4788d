// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Drivers. Each writes a frame and calls the program under test, unchanged, which
 * sees the frame as if it had arrived. BPF_PROG_TEST_RUN repeats one frame, so
 * the driver makes a new one of it each time.
 */
#include "slices.h"

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, __u32);
} filters SEC(".maps");

/* For programs without support for frames in several buffers: an array holds one type only. */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, __u32);
} plain_filters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, __u32);
} trackers SEC(".maps");

SEC("xdp.frags")
int drive_filter(struct xdp_md *ctx)
{
	struct slice *slice = write_next((void *)(long)ctx->data, (void *)(long)ctx->data_end);

	if (slice)
		bpf_tail_call(ctx, &filters, slice->target);
	return XDP_ABORTED; /* no program there */
}

SEC("xdp")
int drive_plain(struct xdp_md *ctx)
{
	struct slice *slice = write_next((void *)(long)ctx->data, (void *)(long)ctx->data_end);

	if (slice)
		bpf_tail_call(ctx, &plain_filters, slice->target);
	return XDP_ABORTED;
}

SEC("tc")
int drive_tracker(struct __sk_buff *skb)
{
	struct slice *slice = write_next((void *)(long)skb->data, (void *)(long)skb->data_end);

	if (slice)
		bpf_tail_call(skb, &trackers, slice->target);
	return -2; /* no program there: a value that no verdict has */
}

/* Never called: brings the enums into BTF. */
int carry_types(enum kind *kind, enum engine_limit *limit)
{
	return kind != NULL && limit != NULL;
}

char _license[] SEC("license") = "Dual BSD/GPL";
