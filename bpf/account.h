/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The consequences of a verdict: counters, the drop ledger, samples, and the effects that the
 * decision names. Accounting changes no verdict.
 */
#ifndef PORTCULLIS_ACCOUNT_H
#define PORTCULLIS_ACCOUNT_H

#include "elsewhere.h"
#include "fragment.h"
#include "ledger.h"

enum {
	SAMPLE_INTERVAL_NS = 1000000000, /* between two samples of one kind of drop, at least */
	ROWS_PER_SAMPLE = 32, /* guaranteed rows of a server for each of its samples in a second */
	ERROR_NO_SPACE = 28,  /* ENOSPC: the perf buffer is full */
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

/* A global function, for its own stack: the sample is large. */
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
	sample.protocol = decision->protocol;
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
		add_statistic(result == -ERROR_NO_SPACE ? STATISTIC_SAMPLES_LOST :
							  STATISTIC_SAMPLES_NO_READER,
			      1);
	return 0;
}

/* The time that a kind waits for its next sample beyond SAMPLE_INTERVAL_NS. The first sample of a
 * kind never waits.
 *
 * A server that calls every port has tens of thousands of kinds. A sample of each every second
 * would cost the daemon a core and tell it nothing new. So the rows of such a server take turns,
 * and the ledger counts the drops in between.
 *
 * Not inlined: it is called at most once a second for a kind, and the verifier has less to prove.
 */
static __noinline __u64 find_sample_delay_ns(const struct ledger_key *kind)
{
	__u64 samples = read_state(STATE_QUOTA_GUARANTEED) / ROWS_PER_SAMPLE ?: 1;
	__u32 key = find_quota_key(kind);
	struct row_quota *quota = bpf_map_lookup_elem(&ledger_quotas, &key);

	if (!quota || quota->rows <= samples)
		return 0;
	return (quota->rows - samples) * SAMPLE_INTERVAL_NS / samples;
}

/* For lookup_cached(). `number`: of the ledger's row for a drop, of the server for a pass. */
static __always_inline void cache_verdict(const struct packet *packet,
					  const struct decision *decision, __u32 number,
					  bool overflow, __u32 epoch)
{
	union cached_result result = {
		.number = number,
		.reason = decision->reason,
		.quiet = !!(decision->flags & DROP_QUIET),
		.overflow = overflow,
	};

	if (result.number == number)
		store_cached(packet, epoch, result.word);
}

/* For drop_over_quota(). The ledger never takes a row back, so a quota that is used up stays so. */
static __always_inline void note_used_up_quota(const struct packet *packet,
					       const struct decision *decision, __u32 row,
					       __u32 epoch)
{
	__u32 key = decision->server, shared_key = QUOTA_SHARED;
	const struct row_quota *quota, *shared;
	struct policy policy = live_policy();
	const struct server *server;

	if (decision->reason != REASON_NEW_FLOW || decision->flags ||
	    policy.generation != decision->generation)
		return;
	/* the kind may have got no row for another reason, which does not last */
	quota = bpf_map_lookup_elem(&ledger_quotas, &key);
	shared = bpf_map_lookup_elem(&ledger_quotas, &shared_key);
	if (!quota || (quota->rows < read_state(STATE_QUOTA_MAX) &&
		       (quota->rows < read_state(STATE_QUOTA_GUARANTEED) || !shared ||
			shared->rows < read_state(STATE_QUOTA_SHARED))))
		return;
	server = find_server(&policy, &packet->source);
	/* a server with a MAC or VLAN is left out: each frame has to be compared with them */
	if (server && !(server->flags & (SERVER_MAC | SERVER_VLAN)))
		cache_used_up_quota(&packet->source, server, row, epoch);
}

static __always_inline void count_drop(struct xdp_md *ctx, const struct packet *packet,
				       const struct decision *decision, __u64 now_ns, __u32 epoch)
{
	struct ledger_key kind = {
		.server = decision->server,
		.port = decision->port,
		.protocol = decision->protocol,
		.reason = decision->reason,
		.flags = decision->flags,
	};
	struct ledger_row *row = find_row(&ledger, &kind);
	__u64 packets, sampled_ns, sampled_packets;
	bool cacheable =
		epoch && decision->scope == SCOPE_PORT && decision->verdict == VERDICT_DROP;

	if (!row)
		row = make_row(&kind, now_ns);
	if (!row) {
		bool created;

		add_statistic(STATISTIC_LEDGER_FULL, 1);
		kind.port = 0;
		kind.protocol = 0;
		row = find_row(&ledger_overflow, &kind);
		if (!row)
			row = add_row(&ledger_overflow, &kind, 1, now_ns, &created);
	}
	if (!row) {
		add_statistic(STATISTIC_LEDGER_OVERFLOW_FULL, 1);
		return;
	}
	add_to_row(row, &packet->source, &packet->destination, packet->length, now_ns);
	packets = row->packets;
	if (cacheable && row->overflow)
		note_used_up_quota(packet, decision, row->number, epoch);
	if (cacheable)
		cache_verdict(packet, decision, row->number, row->overflow, epoch);

	if (decision->flags & DROP_QUIET)
		return;
	sampled_ns = row->sampled_ns;
	if (sampled_ns && now_ns < sampled_ns + SAMPLE_INTERVAL_NS)
		return;
	/* one CPU wins, and sends the sample of this interval */
	if (__sync_val_compare_and_swap(&row->sampled_ns, sampled_ns,
					now_ns + find_sample_delay_ns(&kind)) != sampled_ns)
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
	/* the bucket is still ahead of now, or another CPU has just moved it there */
	__sync_fetch_and_add(&limit->arrival_ns, decision->interval_ns);
}

/* A global function, for its own stack: the account of a drop fills one. */
__noinline int apply_effects(const struct packet *packet, const struct decision *decision,
			     __u64 now_ns)
{
	__u32 effects;

	if (!packet || !decision)
		return 0;
	effects = decision->effects;
	if (effects &
	    (EFFECT_TOUCH_FLOW | EFFECT_OPEN_FLOW | EFFECT_NOTE_SYN_ACK | EFFECT_NOTE_OPENING)) {
		struct flow_key key;

		fill_reply_key(&key, packet);
		if (effects & EFFECT_NOTE_OPENING)
			note_own_opening(&key, now_ns);
		if (effects & EFFECT_OPEN_FLOW)
			make_established(&key, decision->generation, decision->rule,
					 decision->server, FLOW_PICKED_UP | ended_by_server(packet),
					 now_ns);
		if (effects & EFFECT_NOTE_SYN_ACK)
			note_syn_ack(&key, packet);
		if (effects & EFFECT_TOUCH_FLOW)
			touch_flow(&key, packet, decision, now_ns);
	}
	if (effects & EFFECT_SPEND_LIMIT)
		spend_limit(decision, now_ns);
	if (effects & EFFECT_REMEMBER_FRAGMENT)
		remember_fragment(packet, decision, now_ns);
	if (effects & EFFECT_COUNT_FRAGMENT)
		count_fragment(packet);
	if (effects & EFFECT_LEARN_MAC)
		learn_mac(packet);
	return 0;
}

/* `epoch`: of a plain TCP opening, whose verdict may be cached; else 0. A global function: the
 * verifier proves it once.
 */
__noinline int account(struct xdp_md *ctx, const struct packet *packet,
		       const struct decision *decision, __u64 now_ns, __u32 epoch)
{
	if (!packet || !decision)
		return 0;
	count_packet(packet, decision);
	if (decision->effects & EFFECT_REFUSE_FRAGMENT)
		remember_refused(packet, decision, now_ns);
	if (decision->effects & ~EFFECT_REFUSE_FRAGMENT)
		apply_effects(packet, decision, now_ns);
	if (decision->verdict != VERDICT_PASS)
		count_drop(ctx, packet, decision, now_ns, epoch);
	else if (epoch && decision->scope == SCOPE_PORT)
		cache_verdict(packet, decision, decision->server, false, epoch);
	return 0;
}

#endif
