/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Remembers for which name a server was answered an address, for alarms and lists. Any answer of a resolver that
 * came by the right way will do: nothing is decided by it, and all of it is only shown.
 */
#ifndef PORTCULLIS_NAME_LOOKUP_H
#define PORTCULLIS_NAME_LOOKUP_H

#include "name_query.h"

enum {
	REMEMBERED_MAX = 16, /* addresses of one answer */
};

/* The name in the scratch, or its end, as the row has it. */
static __always_inline void copy_name(struct name_scratch *scratch, struct lookup *lookup)
{
	__u32 bytes = scratch->name_bytes - 1, from = DNS_HEADER_BYTES;

	if (bytes > LOOKUP_NAME_BYTES)
		from += bytes - LOOKUP_NAME_BYTES;
	barrier_var(from);
	from &= MESSAGE_BYTES - 1;
	lookup->bytes = bytes;
	__builtin_memcpy(lookup->name, scratch->message + from, LOOKUP_NAME_BYTES);
}

/* Remembers the address in the scratch, in place of what is known of it, of nothing, or of the oldest of four. A
 * global function, which the verifier proves once.
 */
__noinline int remember_lookup(void)
{
	struct name_scratch *scratch = find_scratch(HOOK_SKB);
	__u32 room = read_state(STATE_LOOKUP_ROOM), first;
	struct lookup *lookup, *best = NULL;
	struct share_key key = {};
	const __be32 *word_be;

	if (!scratch || !room || scratch->remembered >= REMEMBERED_MAX)
		return 0;
	scratch->remembered++;
	key.server = scratch->server;
	word_be = scratch->granted_key.address.word_be;
	first = find_first_place(bpf_ntohl(word_be[0] ^ word_be[2]),
				 bpf_ntohl(word_be[1] ^ word_be[3]));
	for (int i = 0; i < LOOKUP_WAYS; i++) {
		key.place = (first + i) & (room - 1);
		lookup = bpf_map_lookup_elem(&lookups, &key);
		if (!lookup) {
			scratch->lookup.answered_ns = scratch->now_ns;
			scratch->lookup.address = scratch->granted_key.address;
			scratch->lookup.server = scratch->server;
			copy_name(scratch, &scratch->lookup);
			bpf_map_update_elem(&lookups, &key, &scratch->lookup, BPF_NOEXIST);
			return 0;
		}
		if (same_address(&lookup->address, &scratch->granted_key.address)) {
			best = lookup;
			break;
		}
		if (!best || lookup->answered_ns < best->answered_ns)
			best = lookup;
	}
	if (!best)
		return 0;
	/* While it is written it is of no time. Two writers at once may leave a name of bits of both. */
	best->answered_ns = 0;
	barrier();
	best->address = scratch->granted_key.address;
	copy_name(scratch, best);
	barrier();
	best->answered_ns = scratch->now_ns;
	return 0;
}

#endif
