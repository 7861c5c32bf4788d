/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A run is cut into slices of a fraction of a millisecond. Each has its own plan
 * and target and is timed by itself. So filters and references take turns on one
 * core within one call, and a machine that slows down slows all of them.
 *
 * A slice that is a multiple of 64 frames ends when the kernel has delivered
 * the last of them: it sends live frames in batches of 64, and softirqs run
 * between two batches.
 */
#ifndef BENCH_SLICES_H
#define BENCH_SLICES_H

#include "traffic.h"

enum engine_limit {
	PLANS_MOST = 64,
	SLICES_MOST = 16384,
};

struct slice {
	__u64 ns;     /* time of its frames, without the first few, which warm the caches */
	__u32 target; /* an interface, or an index into the array of programs */
	__u32 plan;
};

struct progress {
	__u64 began_ns;
	__u32 slice;
	__u32 frame;
	__u32 frames_per_slice;
	__u32 warm_frames;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, PLANS_MOST);
	__type(key, __u32);
	__type(value, struct plan);
} plans SEC(".maps");

/* One more than a run can use, for the frame that ends the last slice. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SLICES_MOST + 1);
	__type(key, __u32);
	__type(value, struct slice);
} slices SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct progress);
} progresses SEC(".maps");

/* The slice that the next frame belongs to. */
static __always_inline struct slice *advance(void)
{
	__u32 zero = 0;
	struct progress *progress = bpf_map_lookup_elem(&progresses, &zero);
	struct slice *slice;

	if (!progress)
		return NULL;
	if (progress->frame == progress->frames_per_slice) {
		slice = bpf_map_lookup_elem(&slices, &progress->slice);
		if (slice)
			slice->ns = bpf_ktime_get_ns() - progress->began_ns;
		progress->slice++;
		progress->frame = 0;
	}
	if (progress->frame == progress->warm_frames)
		progress->began_ns = bpf_ktime_get_ns();
	progress->frame++;
	return bpf_map_lookup_elem(&slices, &progress->slice);
}

/* Writes the next frame and returns its slice, or NULL. */
static __always_inline struct slice *write_next(void *data, void *end)
{
	struct slice *slice = advance();
	struct plan *plan;

	if (!slice)
		return NULL;
	plan = bpf_map_lookup_elem(&plans, &slice->plan);
	if (!plan || !write_frame(data, end, plan))
		return NULL;
	return slice;
}

#endif
