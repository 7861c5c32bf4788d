/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Copies bytes of a frame: from its linear part where they lie there, and else by a helper, for a
 * frame in several buffers.
 */
#ifndef PORTCULLIS_LOAD_H
#define PORTCULLIS_LOAD_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

enum {
	DEEPEST_HEADER = 0x7fff, /* two tags and eight extension headers of 2 KiB end before it */
};

enum hook {
	HOOK_XDP,
	HOOK_SKB,
};

static __always_inline int load_bytes(void *ctx, const enum hook hook, __u32 offset, void *to,
				      const __u32 size)
{
	if (offset > DEEPEST_HEADER)
		return -1;
	/* The compiler knows the limit now. The verifier of Linux 6.1 has lost it if the value was
	 * spilled before the test, so it is stated again.
	 */
	barrier_var(offset);
	offset &= DEEPEST_HEADER;

	if (hook == HOOK_XDP) {
		struct xdp_md *xdp = ctx;
		void *from = (void *)(long)xdp->data + offset;
		void *end = (void *)(long)xdp->data_end;

		/* One register for test and access: to the verifier of Linux 6.1 a second
		 * addition makes another pointer.
		 */
		barrier_var(from);
		if (from + size <= end) {
			__builtin_memcpy(to, from, size);
			return 0;
		}
		return bpf_xdp_load_bytes(xdp, offset, to, size);
	} else {
		struct __sk_buff *skb = ctx;
		void *from = (void *)(long)skb->data + offset;
		void *end = (void *)(long)skb->data_end;

		barrier_var(from);
		if (from + size <= end) {
			__builtin_memcpy(to, from, size);
			return 0;
		}
		return bpf_skb_load_bytes(skb, offset, to, size);
	}
}

/* The length of the whole frame, for exact counters. The packet inside may claim another. */
static __always_inline __u32 frame_length(void *ctx, const enum hook hook)
{
	return hook == HOOK_SKB ? ((struct __sk_buff *)ctx)->len : bpf_xdp_get_buff_len(ctx);
}

#endif
