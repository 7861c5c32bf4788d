/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What a verdict leaves behind: counters, the drop ledger, samples, and the
 * effects that the decision named. It changes no verdict.
 */
#ifndef PORTCULLIS_ACCOUNT_H
#define PORTCULLIS_ACCOUNT_H

#include "flow.h"

enum {
	SAMPLE_INTERVAL_NS = 1000000000, /* of one kind of drop, at least */
	ROWS_PER_SAMPLE = 32,            /* a second, of the rows that a server owns */
	ERROR_NO_SPACE = 28,             /* ENOSPC: the perf buffer is full */
};

static __always_inline void add_to_counter(struct counter *counter, __u32 bytes)
{
	counter->packets++;
	counter->bytes += bytes;
}

static __always_inline void count_packet(const struct packet *packet,
					 const struct decision *decision)
{
	__u32 index = decision->reason;
	struct counter *counter;

	if (decision->verdict == VERDICT_WOULD_DROP)
		index += REASON_COUNT;
	counter = bpf_map_lookup_elem(&counters, &index);
	if (counter)
		add_to_counter(counter, packet->length);
}

static __always_inline void add_to_row(struct ledger_row *row, const struct address *source,
				       const struct address *destination, __u32 bytes,
				       __u64 now_ns)
{
	__sync_fetch_and_add(&row->packets, 1);
	__sync_fetch_and_add(&row->bytes, bytes);
	/* another CPU may have read its clock a tick later, or made the row then */
	if (now_ns > row->last_ns)
		row->last_ns = now_ns;
	row->last_source = *source;
	row->last_destination = *destination;
}

/* Global for its own stack: the sample is large. */
__noinline int send_sample(struct xdp_md *ctx, const struct packet *packet,
			   const struct decision *decision, __u64 now_ns, __u64 drops)
{
	struct sample sample = {};
	__u64 frame_bytes;
	long result;

	if (!packet || !decision)
		return 0;
	frame_bytes = packet->length;
	if (frame_bytes > SAMPLE_FRAME_BYTES)
		frame_bytes = SAMPLE_FRAME_BYTES;
	sample.time_ns = now_ns;
	sample.drops = drops;
	sample.source = packet->source;
	sample.destination = packet->destination;
	sample.interface = ctx->ingress_ifindex;
	sample.server = decision->server;
	sample.rule = decision->rule;
	sample.length = packet->length;
	sample.source_port = packet->source_port;
	sample.destination_port = packet->destination_port;
	sample.ethertype = packet->ethertype;
	sample.vlan = packet->vlan;
	sample.frame_bytes = frame_bytes;
	sample.port = decision->port;
	sample.verdict = decision->verdict;
	sample.reason = decision->reason;
	sample.flags = decision->flags;
	sample.protocol = packet->protocol;
	sample.tcp_flags = packet->tcp_flags;
	sample.icmp_type = packet->icmp_type;
	sample.icmp_code = packet->icmp_code;
	sample.ip_version = packet->ip_version;
	__builtin_memcpy(sample.source_mac, packet->source_mac, ETH_ALEN);
	__builtin_memcpy(sample.destination_mac, packet->destination_mac, ETH_ALEN);

	result = bpf_perf_event_output(ctx, &samples, BPF_F_CURRENT_CPU | frame_bytes << 32,
				       &sample, sizeof(sample));
	if (!result)
		add_statistic(STATISTIC_SAMPLES_SENT, 1);
	else
		add_statistic(result == -ERROR_NO_SPACE ? STATISTIC_SAMPLES_LOST : STATISTIC_SAMPLES_NO_READER, 1);
	return 0;
}

static __always_inline struct row_quota *find_quota(__u32 key)
{
	struct row_quota *quota = bpf_map_lookup_elem(&ledger_quotas, &key);
	struct row_quota fresh = {};

	if (quota)
		return quota;
	/* another CPU may have been first: then its quota is ours too */
	bpf_map_update_elem(&ledger_quotas, &key, &fresh, BPF_NOEXIST);
	return bpf_map_lookup_elem(&ledger_quotas, &key);
}

/* One row more; false when that would be one too many. Taken first and given
 * back, so that two CPUs can't both have the last one.
 */
static __always_inline bool take_row(struct row_quota *quota, __u64 most, __u64 *before)
{
	if (quota->rows >= most)
		return false;
	*before = __sync_fetch_and_add(&quota->rows, 1);
	if (*before < most)
		return true;
	__sync_fetch_and_add(&quota->rows, -1);
	return false;
}

static __always_inline struct ledger_row *find_row(void *table, const struct ledger_key *kind)
{
	__u32 *number = bpf_map_lookup_elem(table, kind);

	return number ? bpf_map_lookup_elem(&ledger_rows, number) : NULL;
}

/* A row for a kind that `table` does not have. `ours` is false when there is no
 * room, or when another CPU was first: then its row is returned.
 */
static __always_inline struct ledger_row *add_row(void *table, const struct ledger_key *kind,
						  __u32 overflow, __u64 now_ns, bool *ours)
{
	struct row_quota *issued = find_quota(QUOTA_ROWS_ISSUED);
	struct ledger_row *row;
	__u64 before;
	__u32 number;

	*ours = false;
	if (!issued)
		return NULL;
	before = __sync_fetch_and_add(&issued->rows, 1);
	number = before;
	row = bpf_map_lookup_elem(&ledger_rows, &number);
	if (row) {
		/* whole before anyone can find it */
		row->first_ns = now_ns;
		row->last_ns = now_ns;
		row->kind = *kind;
		row->number = number;
		row->overflow = overflow;
		if (!overflow)
			add_to_bloom(kind);
		if (!bpf_map_update_elem(table, kind, &number, BPF_NOEXIST)) {
			*ours = true;
			return row;
		}
	}
	/* Given back, unless somebody has taken the next one meanwhile: such a row stays
	 * empty. The table has some to spare.
	 */
	__sync_val_compare_and_swap(&issued->rows, before + 1, before);
	return find_row(table, kind);
}

/* Whose quota a kind spends. Whoever borrows an address must not spend its
 * owner's: these reasons are found before it is known whose the frame is.
 */
static __always_inline __u32 find_owner(const struct ledger_key *kind)
{
	return kind->reason <= REASON_SPOOFED ? QUOTA_UNKNOWN : kind->server;
}

/* How much longer than SAMPLE_INTERVAL_NS a kind is silent after a sample. Of
 * a server that calls every port each row would have its sample a second: tens
 * of thousands, that tell the daemon nothing more and cost it a core. So its
 * rows take turns; what is dropped meanwhile is in the ledger. The first
 * sample of a kind never waits.
 */
static __always_inline __u64 find_silence(const struct ledger_key *kind)
{
	__u64 turns = read_state(STATE_QUOTA_GUARANTEED) / ROWS_PER_SAMPLE ?: 1;
	__u32 owner = find_owner(kind);
	struct row_quota *quota = bpf_map_lookup_elem(&ledger_quotas, &owner);

	if (!quota || quota->rows <= turns)
		return 0;
	return (quota->rows - turns) * SAMPLE_INTERVAL_NS / turns;
}

/* The ledger's row of a kind that has none yet. Each server has rows that
 * nobody can take from it, and some of those that all have in common: so one
 * that calls every port spends its own quota and never another's.
 */
static __always_inline struct ledger_row *make_row(const struct ledger_key *kind, __u64 now_ns)
{
	__u32 owner = find_owner(kind);
	struct row_quota *quota = find_quota(owner), *shared = NULL;
	__u64 own = read_state(STATE_QUOTA_GUARANTEED), before = 0, ignored;
	struct ledger_row *row;
	bool ours;

	if (!quota || !take_row(quota, read_state(STATE_QUOTA_MAX), &before))
		return NULL;
	if (before >= own) {
		shared = find_quota(QUOTA_SHARED);
		if (!shared || !take_row(shared, read_state(STATE_QUOTA_SHARED), &ignored)) {
			__sync_fetch_and_add(&quota->rows, -1);
			return NULL;
		}
	}
	row = add_row(&ledger, kind, 0, now_ns, &ours);
	if (!ours) {
		/* full, or another CPU was first: then its row is ours too */
		__sync_fetch_and_add(&quota->rows, -1);
		if (shared)
			__sync_fetch_and_add(&shared->rows, -1);
	}
	return row;
}

/* For lookup_cached(). `number` is of the row that counts it, or of the server that may. */
static __always_inline void cache_verdict(const struct packet *packet,
					 const struct decision *decision, __u32 number, bool overflow,
					 __u32 epoch)
{
	union cached_result found = {
		.number = number,
		.reason = decision->reason,
		.quiet = !!(decision->flags & DROP_QUIET),
		.overflow = overflow,
	};

	if (found.number == number)
		store_cached(packet, epoch, found.word);
}

/* For drop_over_quota(): the ledger has no room for any further kind of this server, and
 * never gives a row back.
 */
static __always_inline void note_exhausted_quota(const struct packet *packet,
					     const struct decision *decision, __u32 row,
					     __u32 epoch)
{
	__u32 owner = decision->server, all = QUOTA_SHARED;
	const struct row_quota *quota, *shared;
	struct policy policy = live_policy();
	const struct server *server;

	if (decision->reason != REASON_NEW_FLOW || decision->flags ||
	    policy.generation != decision->generation)
		return;
	/* that it got no row this time may have other reasons, which pass */
	quota = bpf_map_lookup_elem(&ledger_quotas, &owner);
	shared = bpf_map_lookup_elem(&ledger_quotas, &all);
	if (!quota || (quota->rows < read_state(STATE_QUOTA_MAX) &&
		       (quota->rows < read_state(STATE_QUOTA_GUARANTEED) || !shared ||
			shared->rows < read_state(STATE_QUOTA_SHARED))))
		return;
	server = find_server(&policy, &packet->source);
	/* whose it is would have to be looked at again for each frame */
	if (server && !(server->flags & (SERVER_MAC | SERVER_VLAN)))
		cache_exhausted_quota(&packet->source, server, row, epoch);
}

static __always_inline void count_drop(struct xdp_md *ctx, const struct packet *packet,
				       const struct decision *decision, __u64 now_ns, __u32 epoch)
{
	struct ledger_key kind = {
		.server = decision->server,
		.port = decision->port,
		.protocol = packet->protocol,
		.reason = decision->reason,
		.flags = decision->flags,
	};
	struct ledger_row *row = find_row(&ledger, &kind);
	__u64 packets, sampled_ns, sampled_packets;
	/* of the next ones too, and outright */
	bool lasting = epoch && decision->scope == SCOPE_PORT && decision->verdict == VERDICT_DROP;

	if (!row)
		row = make_row(&kind, now_ns);
	if (!row) {
		bool ours;

		add_statistic(STATISTIC_LEDGER_FULL, 1);
		kind.port = 0;
		kind.protocol = 0;
		row = find_row(&ledger_overflow, &kind);
		if (!row)
			row = add_row(&ledger_overflow, &kind, 1, now_ns, &ours);
	}
	if (!row) {
		add_statistic(STATISTIC_LEDGER_OVERFLOW_FULL, 1);
		return;
	}
	add_to_row(row, &packet->source, &packet->destination, packet->length, now_ns);
	packets = row->packets;
	if (lasting && row->overflow)
		note_exhausted_quota(packet, decision, row->number, epoch);
	if (lasting)
		cache_verdict(packet, decision, row->number, row->overflow, epoch);

	if (decision->flags & DROP_QUIET)
		return;
	sampled_ns = row->sampled_ns;
	if (sampled_ns && now_ns < sampled_ns + SAMPLE_INTERVAL_NS)
		return;
	/* one CPU wins the right to speak for this second, or for longer */
	if (__sync_val_compare_and_swap(&row->sampled_ns, sampled_ns,
					now_ns + find_silence(&kind)) != sampled_ns)
		return;
	sampled_packets = row->sampled_packets;
	row->sampled_packets = packets;
	send_sample(ctx, packet, decision, now_ns, packets - sampled_packets);
}

static __always_inline void spend_limit(const struct decision *decision, __u64 now_ns)
{
	struct limit_key key = { .server = decision->server, .limit_key = decision->limit_key };
	struct limit *limit = bpf_map_lookup_elem(&limits, &key);
	__u64 old_ns;

	if (!limit)
		return;
	old_ns = limit->arrival_ns;
	if (old_ns < now_ns &&
	    __sync_val_compare_and_swap(&limit->arrival_ns, old_ns,
					now_ns + decision->interval_ns) == old_ns)
		return;
	/* still ahead of now, or another CPU has just moved it there */
	__sync_fetch_and_add(&limit->arrival_ns, decision->interval_ns);
}

static __always_inline void apply_effects(const struct packet *packet,
				      const struct decision *decision, __u64 now_ns)
{
	__u32 effects = decision->effects;

	if (effects & (EFFECT_TOUCH_FLOW | EFFECT_OPEN_FLOW | EFFECT_NOTE_SYN_ACK)) {
		struct flow_key key;

		fill_reply_key(&key, packet);
		if (effects & EFFECT_OPEN_FLOW)
			make_established(&key, decision->generation, decision->rule, decision->server,
					 FLOW_PICKED_UP | ended_by_server(packet), now_ns);
		if (effects & EFFECT_NOTE_SYN_ACK)
			note_syn_ack(&key, packet);
		if (effects & EFFECT_TOUCH_FLOW)
			touch_flow(&key, packet, decision, now_ns);
	}
	if (effects & EFFECT_SPEND_LIMIT)
		spend_limit(decision, now_ns);
	if (effects & EFFECT_REMEMBER_FRAGMENT)
		remember_fragment(packet, decision, now_ns);
}

/* `epoch` is that of a plain TCP opening, and else 0. Global, so that the verifier
 * proves it once.
 */
__noinline int account(struct xdp_md *ctx, const struct packet *packet,
		       const struct decision *decision, __u64 now_ns, __u32 epoch)
{
	if (!packet || !decision)
		return 0;
	count_packet(packet, decision);
	if (decision->verdict != VERDICT_PASS)
		count_drop(ctx, packet, decision, now_ns, epoch);
	else if (decision->effects)
		apply_effects(packet, decision, now_ns);
	else if (epoch && decision->scope == SCOPE_PORT)
		cache_verdict(packet, decision, decision->server, false, epoch);
	return 0;
}

#endif
