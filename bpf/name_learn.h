/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Makes grants of the addresses that an answer has, unless no name may have them. All of it runs in the
 * tracker, with its state in struct name_scratch.
 */
#ifndef PORTCULLIS_NAME_LEARN_H
#define PORTCULLIS_NAME_LEARN_H

#include "name_grant.h"

/* For people: the daemon makes an alarm of it. */
static __noinline int note_name_event(struct name_scratch *scratch, __u32 kind,
				      const struct address *address)
{
	struct name_event *event;

	scratch->event_key.kind = kind;
	scratch->event_key.server = scratch->server;
	scratch->event_key.name = kind == NAME_EVENT_REBINDING ? scratch->name : 0;
	event = bpf_map_lookup_elem(&name_events, &scratch->event_key);
	if (!event) {
		scratch->event.first_ns = scratch->now_ns;
		scratch->event.last_ns = scratch->now_ns;
		scratch->event.count = 1;
		scratch->event.resolver = scratch->resolver;
		scratch->event.address = *address;
		scratch->event.interface = scratch->interface;
		if (bpf_map_update_elem(&name_events, &scratch->event_key, &scratch->event,
					BPF_NOEXIST))
			add_name_count(NAME_EVENT_LOST, 1);
		return 0;
	}
	__sync_fetch_and_add(&event->count, 1);
	event->last_ns = scratch->now_ns;
	event->resolver = scratch->resolver;
	event->address = *address;
	event->interface = scratch->interface;
	event->mapped = scratch->event.mapped;
	return 0;
}

/* No name may have the address in the scratch. */
static __always_inline void refuse_address(struct name_scratch *scratch, bool mapped)
{
	scratch->event.mapped = mapped;
	add_name_count(NAME_ADDRESS_PRIVATE, 1);
	note_name_event(scratch, NAME_EVENT_REBINDING, &scratch->granted_key.address);
}

/* Which enum name_range the policy has for the address in the scratch; 0: none. */
static __always_inline __u32 find_range(struct name_scratch *scratch, const struct address *address)
{
	__u32 slot = scratch->slot, *range;
	void *table = bpf_map_lookup_elem(&name_ranges, &slot);

	scratch->prefix_key.prefix_bits = 128;
	scratch->prefix_key.address = *address;
	range = table ? bpf_map_lookup_elem(table, &scratch->prefix_key) : NULL;
	return range ? *range : 0;
}

/* The IPv4 address in one with a prefix of NAT64 (RFC 6052, 2.2). Bits 64 to 71 are left out. */
static __always_inline __be32 extract_ipv4(const struct address *address, __u32 bits)
{
	__u64 upper = (__u64)bpf_ntohl(address->word_be[0]) << 32 | bpf_ntohl(address->word_be[1]);
	__u64 lower = (__u64)bpf_ntohl(address->word_be[2]) << 32 | bpf_ntohl(address->word_be[3]);

	switch (bits) {
	case 32:
		return bpf_htonl(upper);
	case 40:
		return bpf_htonl(upper << 8 | (lower >> 48 & 0xff));
	case 48:
		return bpf_htonl(upper << 16 | (lower >> 40 & 0xffff));
	case 56:
		return bpf_htonl(upper << 24 | (lower >> 32 & 0xffffff));
	case 64:
		return bpf_htonl(lower >> 24);
	default:
		return bpf_htonl(lower);
	}
}

/* May a name have this address? Global functions from here on: the verifier proves each once. */
__noinline int may_be_granted(void)
{
	struct name_scratch *scratch = find_scratch(HOOK_SKB);
	struct address address;
	struct server *server;
	struct policy policy = {};
	__u32 range;

	if (!scratch)
		return 0;
	address = scratch->granted_key.address;
	range = find_range(scratch, &address);
	if ((range & 0xff) == NAME_RANGE_NAT64) {
		map_ipv4(&address, extract_ipv4(&address, range >> 8 & 0xff));
		range = find_range(scratch, &address);
	}
	if (range == NAME_RANGE_PRIVATE)
		return 1;
	if (range)
		return 0;
	/* still in the scratch: the last key that was looked for */
	if (bpf_map_lookup_elem(&own_networks, &scratch->prefix_key))
		return 0;
	policy.slot = scratch->slot;
	policy.generation = 1;
	policy.flags = SETTINGS_PREFIXES;
	server = (struct server *)find_server(&policy, &address);
	return !server;
}

enum {
	LIST_GOING = 0xffffffff, /* in the first place of a list: a CPU takes it away */
};

/* Takes a place out of the list of the forgotten key, and the list away when nothing is left. Whoever adds a
 * place meanwhile either is seen here, or sees LIST_GOING: else a fresh grant would go with the list.
 */
static __noinline int forget_place(struct name_scratch *scratch, __u32 place)
{
	struct granted *list = bpf_map_lookup_elem(&granted, &scratch->forgotten_key);
	__u32 left = 0;

	if (!list)
		return 0;
#pragma clang loop unroll(disable)
	for (int i = 0; i < GRANTS_OF_ADDRESS_MAX; i++) {
		__sync_val_compare_and_swap(&list->place_plus_one[i], place + 1, 0);
		left |= list->place_plus_one[i];
	}
	if (left || __sync_val_compare_and_swap(&list->place_plus_one[0], 0, LIST_GOING))
		return 0;
#pragma clang loop unroll(disable)
	for (int i = 1; i < GRANTS_OF_ADDRESS_MAX; i++)
		left |= list->place_plus_one[i];
	if (left)
		__sync_val_compare_and_swap(&list->place_plus_one[0], LIST_GOING, 0);
	else
		bpf_map_delete_elem(&granted, &scratch->forgotten_key);
	return 0;
}

/* Is the list still the one of the address in the scratch, and does it stay? */
static __always_inline bool is_kept(struct name_scratch *scratch, const struct granted *list)
{
	return *(const volatile __u32 *)&list->place_plus_one[0] != LIST_GOING &&
	       bpf_map_lookup_elem(&granted, &scratch->granted_key) == list;
}

/* Adds a place to the list of the address in the scratch. False: it has to be tried again, for another CPU
 * takes the list away.
 */
static __noinline bool add_place(struct name_scratch *scratch, __u32 place)
{
	struct granted *list = bpf_map_lookup_elem(&granted, &scratch->granted_key);
	__u32 index;

	if (!list) {
		__builtin_memset(&scratch->granted, 0, sizeof(scratch->granted));
		scratch->granted.place_plus_one[0] = place + 1;
		return !bpf_map_update_elem(&granted, &scratch->granted_key, &scratch->granted,
					    BPF_NOEXIST);
	}
#pragma clang loop unroll(disable)
	for (int i = 0; i < GRANTS_OF_ADDRESS_MAX; i++)
		if (!list->place_plus_one[i] &&
		    !__sync_val_compare_and_swap(&list->place_plus_one[i], 0, place + 1))
			return is_kept(scratch, list);
	/* more names than one address can have: a random one goes */
	index = bpf_get_prandom_u32() & (GRANTS_OF_ADDRESS_MAX - 1);
	list->place_plus_one[index] = place + 1;
	return is_kept(scratch, list);
}

enum renewal {
	RENEWAL_NONE = 0, /* there is no such grant, or another CPU is about to replace it */
	RENEWAL_DONE = 1,
	RENEWAL_UNCHECKED = 2, /* it may be that no name may have the address any more */
};

/* Renews the grant in the scratch. Its address was looked at for an earlier answer, and is not again while policy
 * and own networks stay as they are: three tries take more time than the rest. `checked`: it was looked at just
 * now.
 */
__noinline int renew_grant(__u32 checked)
{
	struct name_scratch *scratch = find_scratch(HOOK_SKB);
	struct granted *list;

	if (!scratch)
		return RENEWAL_NONE;
	list = bpf_map_lookup_elem(&granted, &scratch->granted_key);
	if (!list)
		return RENEWAL_NONE;
#pragma clang loop unroll(disable)
	for (int i = 0; i < GRANTS_OF_ADDRESS_MAX; i++) {
		struct grant *grant = find_listed(scratch, list->place_plus_one[i]);

		if (!grant || grant->name != scratch->name)
			continue;
		if (!checked && grant->checked != scratch->checked)
			return RENEWAL_UNCHECKED;
		/* Another CPU may be about to replace it. It sees the time, or its claim is seen here. */
		__sync_lock_test_and_set(&grant->answered_ns, scratch->now_ns);
		if (*(volatile __u32 *)&grant->claimed)
			return RENEWAL_NONE;
		grant->checked = scratch->checked;
		grant->origin = scratch->grantee ? GRANT_ANSWER : GRANT_FORWARDED;
		if ((__s64)(scratch->until_ns - grant->open_until_ns) > 0)
			grant->open_until_ns = scratch->until_ns;
		add_name_count(NAME_GRANT_RENEWED, 1);
		return RENEWAL_DONE;
	}
	return RENEWAL_NONE;
}

/* When an open grant was last of use, counted from the time before which its answer would be over: one that was
 * put back after a reboot may be older than the clock.
 */
static __always_inline __u64 find_age_mark(const struct grant *grant, __u64 now_ns, __u64 cap_ns)
{
	__u64 mark_ns = grant->answered_ns;

	if (grant->used_ns && (__s64)(grant->used_ns - mark_ns) > 0)
		mark_ns = grant->used_ns;
	return mark_ns - (now_ns - cap_ns);
}

/* Makes a row of the grant in the scratch: at an empty place of its share, in place of one that is over, or of
 * the one of eight that is longest unused. Returns 0 when another CPU was in the way.
 */
__noinline int make_grant(void)
{
	struct name_scratch *scratch = find_scratch(HOOK_SKB);
	struct share_key key = {};
	struct grant *grant, *best = NULL;
	__u32 room = read_state(STATE_GRANT_ROOM), first, place = 0;
	struct name_share *share;
	__u64 mark_ns, best_ns = ~0ULL;
	bool fresh = false;

	if (!scratch || !room)
		return 0;
	key.server = scratch->grantee;
	share = find_share(key.server);
	if (!share)
		return 0;
	first = __sync_fetch_and_add(&share->grants, 1);
	for (int i = 0; i < CANDIDATES; i++) {
		/* every room is a power of two, and a division takes as long as a lookup */
		key.place = (first + i) & (room - 1);
		grant = bpf_map_lookup_elem(&grants, &key);
		if (!grant) {
			place = key.place;
			best = NULL;
			fresh = true;
			break;
		}
		if (grant->claimed)
			continue;
		mark_ns = is_open(grant, scratch->now_ns, scratch->cap_ns) ?
				  find_age_mark(grant, scratch->now_ns, scratch->cap_ns) :
				  0;
		if (mark_ns < best_ns) {
			best_ns = mark_ns;
			best = grant;
			place = key.place;
		}
		if (!mark_ns)
			break;
	}
	key.place = place;
	if (!fresh) {
		if (!best || __sync_val_compare_and_swap(&best->claimed, 0, 1))
			return 0;
		barrier();
		/* renewed since it was chosen */
		if (best_ns && find_age_mark(best, scratch->now_ns, scratch->cap_ns) > best_ns) {
			best->claimed = 0;
			return 0;
		}
		if (best_ns)
			add_name_count(NAME_GRANT_PUSHED, 1);
		scratch->forgotten_key.address = best->address;
		scratch->forgotten_key.server = key.server;
		forget_place(scratch, place);
	}
	scratch->grant.answered_ns = scratch->now_ns;
	scratch->grant.open_until_ns = scratch->until_ns;
	scratch->grant.used_ns = 0;
	scratch->grant.address = scratch->granted_key.address;
	scratch->grant.server = key.server;
	scratch->grant.name = scratch->name;
	scratch->grant.origin = key.server ? GRANT_ANSWER : GRANT_FORWARDED;
	scratch->grant.claimed = 0;
	scratch->grant.checked = scratch->checked;
	if (bpf_map_update_elem(&grants, &key, &scratch->grant, fresh ? BPF_NOEXIST : BPF_ANY) ||
	    (!add_place(scratch, place) && !add_place(scratch, place)))
		return 0;
	add_name_count(NAME_GRANT_MADE, 1);
	return 1;
}

/* Grants the address in the scratch. */
__noinline int grant_address(void)
{
	struct name_scratch *scratch = find_scratch(HOOK_SKB);

	int renewal;

	if (!scratch)
		return 0;
	renewal = renew_grant(false);
	if (renewal == RENEWAL_DONE)
		return 1;
	if (!may_be_granted()) {
		refuse_address(scratch, false);
		return 0;
	}
	/* Two CPUs may choose the same row, or one renews what the other replaces. A lost grant would be a SYN that
	 * is dropped, so each tries again, at other places.
	 */
	if ((renewal == RENEWAL_UNCHECKED && renew_grant(true) == RENEWAL_DONE) || make_grant() ||
	    make_grant() || make_grant() || make_grant())
		return 1;
	add_name_count(NAME_GRANT_LOST, 1);
	return 0;
}

#endif
