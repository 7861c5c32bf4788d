/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The drop ledger: a row for each kind of drop, and quotas that keep one server from taking the
 * rows of the others.
 */
#ifndef PORTCULLIS_LEDGER_H
#define PORTCULLIS_LEDGER_H

#include "policy.h"
#include "reason.h"
#include "verdict_cache.h"

static __always_inline __u64 *locate_bloom_word(const struct ledger_key *kind, __u64 *bits)
{
	__u64 hash = (__u64)kind->server << 32 | (__u32)kind->port << 16 |
		     (__u32)kind->protocol << 8 | kind->reason;
	__u32 index;

	hash = (hash ^ (__u64)kind->flags << 56) * GOLDEN_RATIO;
	*bits = 1ULL << (hash >> 58) | 1ULL << ((hash >> 52) & 63);
	index = (hash >> 20) & read_state(STATE_LEDGER_BLOOM_MASK);
	return bpf_map_lookup_elem(&ledger_bloom, &index);
}

static __always_inline void add_to_bloom(const struct ledger_key *kind)
{
	__u64 bits, *word = locate_bloom_word(kind, &bits);

	if (word)
		__sync_fetch_and_or(word, bits);
}

/* False: the kind has no row of its own. True: it may have one. */
static __always_inline bool may_have_row(const struct ledger_key *kind)
{
	__u64 bits, *word = locate_bloom_word(kind, &bits);

	return !word || (*word & bits) == bits;
}

static __always_inline void add_to_row(struct ledger_row *row, const struct address *source,
				       const struct address *destination, __u32 bytes, __u64 now_ns)
{
	__sync_fetch_and_add(&row->packets, 1);
	__sync_fetch_and_add(&row->bytes, bytes);
	/* another CPU may be a tick ahead of this one */
	if (now_ns > row->last_ns)
		row->last_ns = now_ns;
	row->last_source = *source;
	row->last_destination = *destination;
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

/* Makes a row for a kind that `table` lacks. `created`: this call made it. If another CPU was
 * faster, its row is returned. NULL: the table is full.
 */
static __always_inline struct ledger_row *add_row(void *table, const struct ledger_key *kind,
						  __u32 overflow, __u64 now_ns, bool *created)
{
	struct row_quota *issued = find_quota(QUOTA_ROWS_ISSUED);
	struct ledger_row *row;
	__u64 before;
	__u32 number;

	*created = false;
	if (!issued)
		return NULL;
	before = __sync_fetch_and_add(&issued->rows, 1);
	number = before;
	row = bpf_map_lookup_elem(&ledger_rows, &number);
	if (row) {
		/* filled in before another CPU can find it */
		row->first_ns = now_ns;
		row->last_ns = now_ns;
		row->kind = *kind;
		row->number = number;
		row->overflow = overflow;
		if (!overflow)
			add_to_bloom(kind);
		if (!bpf_map_update_elem(table, kind, &number, BPF_NOEXIST)) {
			*created = true;
			return row;
		}
	}
	/* Given back, unless another CPU has taken the next row by now. Then this row stays empty.
	 * The array has some to spare.
	 */
	__sync_val_compare_and_swap(&issued->rows, before + 1, before);
	return find_row(table, kind);
}

/* The key of the quota that a kind uses. A machine that borrows a server's address must not use up
 * the server's quota.
 */
static __always_inline __u32 find_quota_key(const struct ledger_key *kind)
{
	return is_attributable(kind->reason) ? kind->server : QUOTA_UNKNOWN;
}

/* Makes the ledger's row of a kind. NULL: the ledger or the quota is full. Each server has its
 * guaranteed rows, and after these it may take some that all servers share. So a server that calls
 * every port uses up its own quota, and never the guaranteed rows of another.
 */
static __always_inline struct ledger_row *make_row(const struct ledger_key *kind, __u64 now_ns)
{
	__u32 key = find_quota_key(kind);
	struct row_quota *quota = find_quota(key), *shared = NULL;
	__u64 guaranteed = read_state(STATE_QUOTA_GUARANTEED), before = 0, ignored;
	struct ledger_row *row;
	bool created;

	if (!quota || !take_row(quota, read_state(STATE_QUOTA_MAX), &before))
		return NULL;
	if (before >= guaranteed) {
		shared = find_quota(QUOTA_SHARED);
		if (!shared || !take_row(shared, read_state(STATE_QUOTA_SHARED), &ignored)) {
			__sync_fetch_and_add(&quota->rows, -1);
			return NULL;
		}
	}
	row = add_row(&ledger, kind, 0, now_ns, &created);
	if (!created) {
		/* the ledger is full, or another CPU made the row and took the quota for it */
		__sync_fetch_and_add(&quota->rows, -1);
		if (shared)
			__sync_fetch_and_add(&shared->rows, -1);
	}
	return row;
}

#endif
