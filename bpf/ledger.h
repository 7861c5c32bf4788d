/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The drop ledger: a row for each kind of drop, and quotas that keep one server from taking the
 * rows of the others.
 */
#ifndef PORTCULLIS_LEDGER_H
#define PORTCULLIS_LEDGER_H

#include "contacts.h"
#include "hot_kinds.h"
#include "policy.h"
#include "reason.h"
#include "verdict_cache.h"

/* Where the bits of a kind are in each half of `ledger_bloom`. src/gate/bloom.rs has the same. */
static __always_inline __u32 locate_bloom_word(const struct ledger_key *kind, __u64 state,
					       __u64 *bits)
{
	__u64 hash = (__u64)kind->server << 32 | (__u32)kind->port << 16 |
		     (__u32)kind->protocol << 8 | kind->reason;

	hash = (hash ^ (__u64)kind->flags << 56) * GOLDEN_RATIO;
	*bits = 1ULL << (hash >> 58) | 1ULL << ((hash >> 52) & 63);
	return (hash >> 20) & (__u32)state;
}

/* The first word of the half that is in use. */
static __always_inline __u32 find_bloom_half(__u64 state)
{
	return state >> 32 & BLOOM_UPPER ? (__u32)state + 1 : 0;
}

static __always_inline void set_bloom_bits(__u32 index, __u64 bits)
{
	__u64 *word = bpf_map_lookup_elem(&ledger_bloom, &index);

	if (word)
		__sync_fetch_and_or(word, bits);
}

static __always_inline void add_to_bloom(const struct ledger_key *kind)
{
	__u64 state = read_state(STATE_LEDGER_BLOOM), bits;
	__u32 index = locate_bloom_word(kind, state, &bits), words = (__u32)state + 1;

	set_bloom_bits(find_bloom_half(state) + index, bits);
	if (state >> 32 & BLOOM_BOTH)
		set_bloom_bits(words - find_bloom_half(state) + index, bits);
}

/* False: the kind has no row of its own. True: it may have one. */
static __always_inline bool may_have_row(const struct ledger_key *kind)
{
	__u64 state = read_state(STATE_LEDGER_BLOOM), bits, *word;
	__u32 index = locate_bloom_word(kind, state, &bits) + find_bloom_half(state);

	word = bpf_map_lookup_elem(&ledger_bloom, &index);
	return !word || (*word & bits) == bits;
}

/* Where in `ledger_counts` this CPU counts a row. Caches keep this index, to save its calculation. */
static __always_inline __u32 locate_counts(__u32 number)
{
	return bpf_get_smp_processor_id() * (__u32)read_state(STATE_LEDGER_ROWS) + number;
}

/* The number of the row that this CPU counts there. */
static __always_inline __u32 find_row_number(__u32 index)
{
	return index - bpf_get_smp_processor_id() * (__u32)read_state(STATE_LEDGER_ROWS);
}

/* Counts a drop on this CPU, which alone writes `counts`: so there are no atomics. `index`: of `counts` in
 * the map.
 */
static __always_inline void count_in_row(struct cpu *cpu, __u32 index, struct row_counts *counts,
					 const struct address *source,
					 const struct address *destination, __u32 bytes,
					 __u64 now_ns)
{
	__u32 full = counts->due_ns & COUNTS_FLAGS, weight;

	/* a list that is full needs no comparison, and a worm's destinations seldom repeat */
	if (!(full & COUNTS_SOURCES_FULL) && same_address(&counts->last_source, source))
		full |= COUNTS_SOURCES_FULL;
	else
		counts->last_source = *source;
	if (!(full & COUNTS_DESTINATIONS_FULL) &&
	    same_address(&counts->last_destination, destination))
		full |= COUNTS_DESTINATIONS_FULL;
	else
		counts->last_destination = *destination;
	counts->packets++;
	counts->last_ns = now_ns;
	counts->bytes += bytes;
	weight = pick_packet(cpu, counts->packets);
	if (weight || full != COUNTS_FLAGS)
		counts->due_ns |=
			note_addresses(find_row_number(index), source, destination, full, weight) &
			COUNTS_FLAGS;
}

struct packet_sum {
	__u64 packets;
	__u32 number;
	__u32 rows;
};

static long add_packets_of_cpu(__u32 cpu, struct packet_sum *sum)
{
	__u32 index = cpu * sum->rows + sum->number;
	const struct row_counts *counts = bpf_map_lookup_elem(&ledger_counts, &index);

	if (counts)
		sum->packets += counts->packets;
	return 0;
}

/* The packets that all CPUs have counted in a row. Called for samples only, for it reads the cache
 * lines of the others.
 */
static __noinline __u64 sum_packets(__u32 number)
{
	struct packet_sum sum = { .number = number, .rows = read_state(STATE_LEDGER_ROWS) };

	bpf_loop(read_state(STATE_CPUS), add_packets_of_cpu, &sum, 0);
	return sum.packets;
}

static __always_inline struct ledger_row *find_row(void *table, const struct ledger_key *kind)
{
	__u32 *number = bpf_map_lookup_elem(table, kind);

	return number ? bpf_map_lookup_elem(&ledger_rows, number) : NULL;
}

static __always_inline struct row_quota *find_quota(__u32 key)
{
	struct row_quota *quota = bpf_map_lookup_elem(&ledger_quotas, &key);
	struct row_quota fresh = {};

	if (quota)
		return quota;
	/* when another CPU has just added the entry, this one finds it */
	bpf_map_update_elem(&ledger_quotas, &key, &fresh, BPF_NOEXIST);
	return bpf_map_lookup_elem(&ledger_quotas, &key);
}

/* Takes one row of a quota. False: it is used up. The row is taken before the test and given back
 * after it, so that two CPUs can't both have the last one.
 */
static __always_inline bool take_row(struct row_quota *quota, __u64 limit, __u64 *before)
{
	if (quota->rows >= limit)
		return false;
	*before = __sync_fetch_and_add(&quota->rows, 1);
	if (*before < limit)
		return true;
	__sync_fetch_and_add(&quota->rows, -1);
	return false;
}

/* Takes the number of a row that was given back. Several CPUs may try at once, and then one of them takes
 * a new row instead.
 */
static __always_inline bool reuse_row(__u32 *number)
{
	__u32 freed_key = QUOTA_ROWS_FREED, reused_key = QUOTA_ROWS_REUSED, index;
	struct row_quota *freed = bpf_map_lookup_elem(&ledger_quotas, &freed_key);
	struct row_quota *reused = bpf_map_lookup_elem(&ledger_quotas, &reused_key);
	__u64 rows = read_state(STATE_LEDGER_ROWS), taken;
	__u32 *place;

	if (!freed || !reused || !rows)
		return false;
	taken = *(volatile __u64 *)&reused->rows;
	if (taken >= *(volatile __u64 *)&freed->rows ||
	    __sync_val_compare_and_swap(&reused->rows, taken, taken + 1) != taken)
		return false;
	index = taken % rows;
	place = bpf_map_lookup_elem(&ledger_free, &index);
	if (!place)
		return false;
	*number = *place;
	return true;
}

/* Makes a row for a kind that `table` lacks. `quota`: see struct ledger_row. `created`: this call made
 * it. If another CPU was faster, its row is returned. NULL: the table is full.
 */
static __always_inline struct ledger_row *add_row(void *table, const struct ledger_key *kind,
						  enum row_class class, __u32 quota, __u64 now_ns,
						  bool *created)
{
	struct row_quota *issued = find_quota(QUOTA_ROWS_ISSUED);
	struct ledger_row *row;
	__u64 before = 0;
	bool reused;
	__u32 number = 0;

	*created = false;
	if (!issued)
		return NULL;
	reused = reuse_row(&number);
	if (!reused) {
		before = __sync_fetch_and_add(&issued->rows, 1);
		number = before;
	}
	row = bpf_map_lookup_elem(&ledger_rows, &number);
	if (row) {
		/* filled in before another CPU can find it */
		row->first_ns = now_ns;
		row->kind = *kind;
		row->number = number;
		row->class = class;
		row->quota = quota;
		if (class == ROW_OWN)
			add_to_bloom(kind);
		if (!bpf_map_update_elem(table, kind, &number, BPF_NOEXIST)) {
			*created = true;
			return row;
		}
	}
	/* Given back, unless another CPU has taken the next row by now. Then this row stays empty, as
	 * one does that was in use before. The array has some to spare, and the tool gives them back.
	 */
	if (!reused)
		__sync_val_compare_and_swap(&issued->rows, before + 1, before);
	return find_row(table, kind);
}

static __always_inline enum quota_class find_class(const struct ledger_key *kind)
{
	return is_caused_outside(kind->reason, kind->flags) ? CLASS_OUTSIDE : CLASS_OWN;
}

/* The key of a kind's quota. A machine that borrows a server's address must not use up the server's. */
static __always_inline __u32 find_quota_key(const struct ledger_key *kind, enum quota_class class)
{
	__u32 owner = is_attributable(kind->reason) ? kind->server : QUOTA_UNKNOWN;

	return owner + class * QUOTA_OUTSIDE;
}

/* The limits of a class under the live policy. NULL: before the first policy. */
static __always_inline const struct class_limits *find_limits(__u32 class, __u64 now_ns)
{
	const struct settings *settings = find_live_settings(now_ns);

	/* a compiler that knows the classes would leave the mask out, which the verifier needs */
	barrier_var(class);
	return settings ? &settings->limits[class & (CLASSES - 1)] : NULL;
}

/* Makes the ledger's row of a kind. NULL: the ledger or a quota is full. Each server has its guaranteed
 * rows, and after these it may take some that all servers share. So a server that calls every port uses
 * up its own quota, and never the guaranteed rows of another. Not inlined, for its own stack.
 */
static __noinline struct ledger_row *make_row(const struct ledger_key *kind, enum quota_class class,
					      __u64 now_ns)
{
	const struct class_limits *limits = find_limits(class, now_ns);
	__u32 key = find_quota_key(kind, class);
	struct row_quota *quota = find_quota(key), *shared = NULL;
	__u64 before = 0, ignored;
	struct ledger_row *row;
	bool created;

	if (!quota || !limits || !take_row(quota, limits->max, &before))
		return NULL;
	if (before >= limits->guaranteed) {
		shared = find_quota(QUOTA_SHARED + class);
		if (!shared || !take_row(shared, limits->shared, &ignored)) {
			__sync_fetch_and_add(&quota->rows, -1);
			return NULL;
		}
	}
	row = add_row(&ledger, kind, ROW_OWN, key, now_ns, &created);
	if (!created) {
		/* the ledger is full, or another CPU made the row and took the quota for it */
		__sync_fetch_and_add(&quota->rows, -1);
		if (shared)
			__sync_fetch_and_add(&shared->rows, -1);
	}
	return row;
}

/* How many destinations make a kind without a row hot: the more reserve rows its server has, the more,
 * so that decoys make a worm rise later and no more.
 */
static __always_inline __u32 find_hot_destinations(const struct ledger_key *kind, __u64 now_ns)
{
	__u32 key = find_quota_key(kind, CLASS_RESERVE);
	const struct class_limits *limits;
	struct row_quota *reserve;

	/* no outsider may use the reserve up, and a quiet kind raises no alarm */
	if (kind->flags & DROP_QUIET || find_class(kind) == CLASS_OUTSIDE)
		return NEVER_HOT;
	reserve = bpf_map_lookup_elem(&ledger_quotas, &key);
	if (!reserve)
		return HOT_DESTINATIONS;
	limits = find_limits(CLASS_RESERVE, now_ns);
	return limits && reserve->rows < limits->max ? HOT_DESTINATIONS + reserve->rows : NEVER_HOT;
}

/* Makes the row that counts all kinds of a server and reason that have none. NULL: the table is full. Not
 * inlined, for its own stack.
 */
static __noinline struct ledger_row *make_overflow_row(const struct ledger_key *kind, __u64 now_ns)
{
	struct row_quota *overflow = find_quota(QUOTA_OVERFLOW);
	struct ledger_row *row;
	bool created;

	row = add_row(&ledger_overflow, kind, ROW_OVERFLOW, 0, now_ns, &created);
	if (created && overflow)
		__sync_fetch_and_add(&overflow->rows, 1);
	return row;
}

#endif
