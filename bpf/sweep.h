/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Gives rows of the ledger back, for the tool. It happens in two steps, and between them the tool waits
 * until no program runs that may have seen a row. A program does each step, and not the tool: so no
 * process can die in the middle of one, and quotas are taken back by atomics.
 */
#ifndef PORTCULLIS_SWEEP_H
#define PORTCULLIS_SWEEP_H

#include "ledger.h"
#include "load.h"
#include "private.h"

struct sweep {
	struct xdp_md *ctx;
	__u32 done;
};

struct row_sum {
	struct given_back sum;
	__u32 number;
	__u32 rows;
};

static long add_counts_of_cpu(__u32 cpu, struct row_sum *row)
{
	__u32 index = cpu * row->rows + row->number;
	const struct row_counts *counts = bpf_map_lookup_elem(&ledger_counts, &index);

	if (!counts || !counts->packets)
		return 0;
	row->sum.packets += counts->packets;
	row->sum.bytes += counts->bytes;
	if (counts->last_ns >= row->sum.last_ns) {
		row->sum.last_ns = counts->last_ns;
		row->sum.last_source = counts->last_source;
		row->sum.last_destination = counts->last_destination;
	}
	return 0;
}

static long clear_counts_of_cpu(__u32 cpu, struct row_sum *row)
{
	__u32 index = cpu * row->rows + row->number;
	struct row_counts *counts = bpf_map_lookup_elem(&ledger_counts, &index);
	struct frequent *entry;

	if (counts)
		__builtin_memset(counts, 0, sizeof(*counts));
	index = cpu * FREQUENT_PER_CPU + (row->number & (FREQUENT_PER_CPU - 1));
	entry = bpf_map_lookup_elem(&frequent, &index);
	/* a packet of another row may take the entry over just now, which makes its numbers estimates */
	if (entry && entry->row == row->number)
		entry->packets = 0;
	return 0;
}

static __always_inline bool read_wanted(struct sweep *sweep, __u32 at, struct sweep_row *wanted)
{
	return !bpf_xdp_load_bytes(sweep->ctx, sizeof(struct sweep_request) + at * sizeof(*wanted),
				   wanted, sizeof(*wanted));
}

/* Hides a row from new packets. Packets that know it already still count in it. */
static long retire_row(__u32 at, struct sweep *sweep)
{
	struct row_sum row_sum = { .rows = read_state(STATE_LEDGER_ROWS) };
	struct sweep_row wanted;
	struct ledger_key kind;
	struct ledger_row *row;
	__u32 *number;

	if (!read_wanted(sweep, at, &wanted))
		return 1;
	row = bpf_map_lookup_elem(&ledger_rows, &wanted.number);
	if (!row || row->class != ROW_OWN || !row->first_ns || row->first_ns != wanted.first_ns)
		return 0;
	row_sum.number = wanted.number;
	bpf_loop(read_state(STATE_CPUS), add_counts_of_cpu, &row_sum, 0);
	if (row_sum.sum.packets != wanted.packets)
		return 0;
	kind = row->kind;
	number = bpf_map_lookup_elem(&ledger, &kind);
	if (!number || *number != wanted.number)
		return 0;
	row->retired_packets = row_sum.sum.packets;
	row->retired_bytes = row_sum.sum.bytes;
	row->class = ROW_RETIRED;
	bpf_map_delete_elem(&ledger, &kind);
	sweep->done++;
	return 0;
}

/* Adds what a row had reported to what was given back. False: there is no room. */
static __always_inline bool keep_reported(const struct ledger_key *kind,
					  const struct ledger_row *row,
					  const struct given_back *sum)
{
	struct given_back *kept = bpf_map_lookup_elem(&ledger_given_back, kind);
	struct given_back fresh = {};

	if (!kept) {
		fresh.first_ns = row->first_ns;
		if (bpf_map_update_elem(&ledger_given_back, kind, &fresh, BPF_NOEXIST))
			return false;
		kept = bpf_map_lookup_elem(&ledger_given_back, kind);
		if (!kept)
			return false;
	}
	kept->packets += row->retired_packets;
	kept->bytes += row->retired_bytes;
	if (row->first_ns < kept->first_ns)
		kept->first_ns = row->first_ns;
	if (sum->last_ns >= kept->last_ns) {
		kept->last_ns = sum->last_ns;
		kept->last_source = sum->last_source;
		kept->last_destination = sum->last_destination;
	}
	return true;
}

/* Counts drops that came while the row was being retired among those without a row. Nobody has reported
 * them. Atomics, for a packet may interrupt this program on its CPU. False: there is no room.
 */
static __always_inline bool move_unreported(const struct ledger_key *kind, __u64 packets,
					    __u64 bytes, const struct given_back *sum)
{
	struct ledger_row *rest = find_row(&ledger_overflow, kind);
	struct row_counts *counts;
	__u32 index;

	if (!rest)
		rest = make_overflow_row(kind, sum->last_ns);
	if (!rest)
		return false;
	index = locate_counts(rest->number);
	counts = bpf_map_lookup_elem(&ledger_counts, &index);
	if (!counts)
		return false;
	if (!counts->packets) {
		counts->last_ns = sum->last_ns;
		counts->last_source = sum->last_source;
		counts->last_destination = sum->last_destination;
	}
	__sync_fetch_and_add(&counts->packets, packets);
	__sync_fetch_and_add(&counts->bytes, bytes);
	add_statistic(STATISTIC_LEDGER_FULL, packets);
	return true;
}

/* Gives back what the row has of its quotas. */
static __always_inline void return_quota(__u32 key)
{
	__u32 class = key / QUOTA_OUTSIDE, shared_key = QUOTA_SHARED + class;
	struct row_quota *quota = bpf_map_lookup_elem(&ledger_quotas, &key), *shared;
	const struct class_limits *limits;
	__u64 before;

	if (!quota || !quota->rows)
		return;
	before = __sync_fetch_and_add(&quota->rows, -1);
	shared = bpf_map_lookup_elem(&ledger_quotas, &shared_key);
	limits = find_limits(class, read_coarse_clock());
	if (shared && shared->rows && limits && before > limits->guaranteed)
		__sync_fetch_and_add(&shared->rows, -1);
}

static __always_inline bool put_into_ring(__u32 number)
{
	struct row_quota *freed = find_quota(QUOTA_ROWS_FREED);
	struct row_quota *reused = find_quota(QUOTA_ROWS_REUSED);
	__u64 rows = read_state(STATE_LEDGER_ROWS);
	__u32 index, *place;

	if (!freed || !reused || !rows)
		return false;
	index = freed->rows % rows;
	place = bpf_map_lookup_elem(&ledger_free, &index);
	if (!place)
		return false;
	*place = number;
	/* a full barrier: no CPU sees the place before its number */
	__sync_fetch_and_add(&freed->rows, 1);
	return true;
}

/* Moves the counts of a retired row, and gives its number back. A row that two CPUs made for one kind, so
 * that one of the two counts nothing, is given back as well.
 */
static long reclaim_row(__u32 at, struct sweep *sweep)
{
	struct row_sum row_sum = { .rows = read_state(STATE_LEDGER_ROWS) };
	struct row_addresses *addresses;
	struct sweep_row wanted;
	struct ledger_key kind;
	struct ledger_row *row;
	__u64 packets, bytes;
	__u32 *number;

	if (!read_wanted(sweep, at, &wanted))
		return 1;
	row = bpf_map_lookup_elem(&ledger_rows, &wanted.number);
	if (!row || !row->first_ns || row->first_ns != wanted.first_ns)
		return 0;
	row_sum.number = wanted.number;
	bpf_loop(read_state(STATE_CPUS), add_counts_of_cpu, &row_sum, 0);
	kind = row->kind;
	if (row->class == ROW_RETIRED) {
		kind.port = 0;
		kind.protocol = 0;
		packets = row_sum.sum.packets - row->retired_packets;
		bytes = row_sum.sum.bytes - row->retired_bytes;
		/* first, for only the other can't fail once it has its entry */
		if (packets && !move_unreported(&kind, packets, bytes, &row_sum.sum))
			return 0;
		if (!keep_reported(&kind, row, &row_sum.sum)) {
			/* stays as it is, and without those that were moved just now */
			row->retired_packets += packets;
			row->retired_bytes += bytes;
			return 0;
		}
		return_quota(row->quota);
	} else {
		number = bpf_map_lookup_elem(&ledger, &kind);
		if (row->class != ROW_OWN || row_sum.sum.packets ||
		    (number && *number == wanted.number))
			return 0;
	}
	row->first_ns = 0;
	row->sampled_ns = 0;
	row->sampled_packets = 0;
	row->class = ROW_OWN;
	bpf_loop(read_state(STATE_CPUS), clear_counts_of_cpu, &row_sum, 0);
	addresses = bpf_map_lookup_elem(&ledger_addresses, &wanted.number);
	if (addresses)
		__builtin_memset(addresses, 0, sizeof(*addresses));
	if (put_into_ring(wanted.number))
		sweep->done++;
	return 0;
}

/* Carries out the request in the frame, and returns for how many rows it did. */
static __always_inline int sweep_rows(struct xdp_md *ctx)
{
	struct sweep sweep = { .ctx = ctx };
	struct sweep_request request;
	__u32 index = STATE_LEDGER_SWEEPS;
	__u64 *sweeps;

	if (load_bytes(ctx, HOOK_XDP, 0, &request, sizeof(request)) || request.rows > SWEEP_ROWS)
		return 0;
	sweeps = bpf_map_lookup_elem(&state, &index);
	if (!sweeps)
		return 0;
	__sync_fetch_and_add(sweeps, 1);
	if (request.step == SWEEP_RETIRE)
		bpf_loop(request.rows, retire_row, &sweep, 0);
	else if (request.step == SWEEP_RECLAIM)
		bpf_loop(request.rows, reclaim_row, &sweep, 0);
	__sync_fetch_and_add(sweeps, 1);
	return sweep.done;
}

#endif
