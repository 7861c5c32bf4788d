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
#include "name_grant.h"

enum {
	SAMPLE_INTERVAL_NS = 1000000000, /* between two samples of one kind of drop, at least */
	ROWS_PER_SAMPLE = 32, /* guaranteed rows of a server for each of its samples in a second */
	REST_INTERVAL_NS = SAMPLE_INTERVAL_NS / 8, /* between two samples of an overflow row */
	RESTS_PER_INTERVAL = 32, /* overflow rows, beyond which these intervals grow */
	NO_INDEX = -1,
	ERROR_NO_SPACE = 28, /* ENOSPC: the perf buffer is full */
};

static const __u64 NEVER_NS = ~0ULL;
static const __u64 IN_REST = 1ULL << 63; /* marks the drops of a kind without a row */

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
	sample.drops = drops & ~IN_REST;
	sample.rest = drops >> 63;
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
static __noinline __u64 find_sample_delay_ns(const struct ledger_key *kind, __u64 now_ns)
{
	enum quota_class class = find_class(kind);
	const struct class_limits *limits = find_limits(class, now_ns);
	__u64 samples = (limits ? limits->guaranteed : 0) / ROWS_PER_SAMPLE ?: 1;
	__u32 key = find_quota_key(kind, class);
	struct row_quota *quota = bpf_map_lookup_elem(&ledger_quotas, &key);

	if (!quota || quota->rows <= samples)
		return 0;
	return (quota->rows - samples) * SAMPLE_INTERVAL_NS / samples;
}

/* For lookup_cached(). `index`: of this CPU's counts. */
static __always_inline void cache_drop(const struct packet *packet, const struct decision *decision,
				       __u32 index, bool overflow, __u32 epoch)
{
	union cached_result result = {
		.index = index,
		.reason = decision->reason,
		.quiet = !!(decision->flags & DROP_QUIET),
		.overflow = overflow,
	};

	if (result.index == index)
		store_cached(packet, epoch, result.word);
}

/* As cache_drop(). `use`: the number of the need. */
static __always_inline void cache_pass(const struct packet *packet, __u32 server, __u32 use,
				       __u32 epoch)
{
	union cached_result result = { .server = server, .use = use };

	if (result.server == server && result.use == use)
		store_cached(packet, epoch, result.word);
}

/* For drop_over_quota(). */
static __always_inline void note_used_up_quota(const struct packet *packet,
					       const struct decision *decision, __u32 index,
					       __u32 epoch, __u64 now_ns)
{
	__u32 key = decision->server, shared_key = QUOTA_SHARED;
	const struct row_quota *quota, *shared;
	struct policy policy = live_policy(now_ns);
	const struct class_limits *limits;
	const struct server *server;

	if (decision->reason != REASON_NEW_FLOW || decision->flags ||
	    policy.generation != decision->generation)
		return;
	/* the kind may have got no row for another reason, which does not last */
	quota = bpf_map_lookup_elem(&ledger_quotas, &key);
	shared = bpf_map_lookup_elem(&ledger_quotas, &shared_key);
	limits = find_limits(CLASS_OWN, now_ns);
	if (!quota || !limits ||
	    (quota->rows < limits->max &&
	     (quota->rows < limits->guaranteed || !shared || shared->rows < limits->shared)))
		return;
	server = find_server(&policy, &packet->source);
	/* a server with a MAC or VLAN is left out: each frame has to be compared with them */
	if (server && !(server->flags & (SERVER_MAC | SERVER_VLAN)))
		cache_used_up_quota(&packet->source, server, index, epoch);
}

/* The time between two samples of an overflow row. All such rows together send 256 a second at most, so
 * that many servers which call every port don't keep the daemon busy.
 */
static __always_inline __u64 find_rest_interval_ns(void)
{
	__u32 key = QUOTA_OVERFLOW;
	struct row_quota *overflow = bpf_map_lookup_elem(&ledger_quotas, &key);

	if (!overflow || overflow->rows <= RESTS_PER_INTERVAL)
		return REST_INTERVAL_NS;
	return overflow->rows * (REST_INTERVAL_NS / RESTS_PER_INTERVAL);
}

/* No sample is due on this CPU before that time. */
static __always_inline void set_due(struct row_counts *counts, __u64 due_ns)
{
	counts->due_ns = (due_ns & ~(__u64)COUNTS_FLAGS) | (counts->due_ns & COUNTS_FLAGS);
}

/* Whether this CPU is to send the sample of this interval. */
static __always_inline bool claim_sample(const struct ledger_key *kind, struct ledger_row *row,
					 struct row_counts *counts, __u64 now_ns)
{
	__u64 sampled_ns = row->sampled_ns, interval_ns = SAMPLE_INTERVAL_NS, next_ns = now_ns;

	if (row->class == ROW_OVERFLOW)
		interval_ns = find_rest_interval_ns();
	if (sampled_ns && now_ns < sampled_ns + interval_ns) {
		set_due(counts, sampled_ns + interval_ns);
		return false;
	}
	/* a row of the reserve takes no turns */
	if (row->class != ROW_OVERFLOW && !(row->quota & QUOTA_RESERVE))
		next_ns += find_sample_delay_ns(kind, now_ns);
	/* one CPU wins, and the others wait for as long */
	set_due(counts, next_ns + interval_ns);
	return __sync_val_compare_and_swap(&row->sampled_ns, sampled_ns, next_ns) == sampled_ns;
}

/* Finds or makes the row of a kind that `ledger` lacks: one from its quota, or from the reserve if the
 * kind is hot, or that of the overflow. `hot`: what is known of a kind without a row. NULL: there is no
 * room.
 */
static __always_inline struct ledger_row *place_kind(const struct ledger_key *kind, struct cpu *cpu,
						     const struct address *destination,
						     __u64 now_ns, struct hot_kind **hot)
{
	struct ledger_key rest = *kind;
	__u32 destinations = 0, needed;
	struct ledger_row *row;

	row = make_row(kind, find_class(kind), now_ns);
	if (row)
		return row;
	*hot = find_hot_kind(kind, now_ns);
	needed = find_hot_destinations(kind, now_ns);
	if (*hot) {
		add_destination(cpu, *hot, destination);
		destinations = count_bits((*hot)->destinations);
	}
	if (destinations >= needed) {
		row = make_row(kind, CLASS_RESERVE, now_ns);
		if (row) {
			/* a sample of the rest is none of this row */
			*hot = NULL;
			return row;
		}
	}
	add_statistic(STATISTIC_LEDGER_FULL, 1);
	rest.port = 0;
	rest.protocol = 0;
	row = find_row(&ledger_overflow, &rest);
	if (!row)
		row = make_overflow_row(&rest, now_ns);
	if (row && row->hot_destinations != needed)
		row->hot_destinations = needed;
	return row;
}

/* A global function, for its own stack. `epoch`: as for account(). */
__noinline int count_drop(struct xdp_md *ctx, const struct packet *packet,
			  const struct decision *decision, __u64 now_ns, __u32 epoch)
{
	struct ledger_key kind = {};
	struct hot_kind *hot = NULL;
	struct cpu *cpu = find_cpu();
	struct row_counts *counts;
	struct ledger_row *row;
	__u64 before, drops;
	__u32 index;

	if (!packet || !decision || !cpu)
		return 0;
	kind.server = decision->server;
	kind.port = decision->port;
	kind.protocol = decision->protocol;
	kind.reason = decision->reason;
	kind.flags = decision->flags;
	row = find_row(&ledger, &kind);
	if (!row)
		row = place_kind(&kind, cpu, &packet->destination, now_ns, &hot);
	index = row ? locate_counts(row->number) : NO_INDEX;
	counts = bpf_map_lookup_elem(&ledger_counts, &index);
	if (!row || !counts) {
		add_statistic(STATISTIC_LEDGER_OVERFLOW_FULL, 1);
		return 0;
	}
	count_in_row(cpu, index, counts, &packet->source, &packet->destination, packet->length,
		     now_ns);
	if (epoch && decision->scope == SCOPE_PORT && decision->verdict == VERDICT_DROP) {
		if (row->class == ROW_OVERFLOW)
			note_used_up_quota(packet, decision, index, epoch, now_ns);
		cache_drop(packet, decision, index, row->class == ROW_OVERFLOW, epoch);
	}

	if (decision->flags & DROP_QUIET) {
		set_due(counts, NEVER_NS);
		return 0;
	}
	/* of kinds without a row each has its turn */
	if (now_ns < counts->due_ns || (hot && was_sampled(hot)) ||
	    !claim_sample(&kind, row, counts, now_ns))
		return 0;
	drops = sum_packets(row->number);
	before = row->sampled_packets;
	row->sampled_packets = drops;
	drops -= before;
	if (hot) {
		hot->window |= HOT_SAMPLED;
		drops |= IN_REST;
	}
	send_sample(ctx, packet, decision, now_ns, drops);
	return 0;
}

static __always_inline void spend_limit(const struct decision *decision, __u64 now_ns)
{
	struct limit_key key = { .server = decision->server };
	struct policy policy = live_policy(now_ns);
	const struct rule *rule;
	struct limit *limit;
	__u64 old_ns;

	/* a swap since the decision: its rule is gone, and this one packet is free */
	if (policy.generation != decision->generation)
		return;
	rule = find_limit(&policy, decision->rule);
	if (!rule)
		return;
	key.limit_key = rule->limit_key;
	limit = bpf_map_lookup_elem(&limits, &key);
	if (!limit)
		return;
	old_ns = limit->arrival_ns;
	if (old_ns < now_ns && __sync_val_compare_and_swap(&limit->arrival_ns, old_ns,
							   now_ns + rule->interval_ns) == old_ns)
		return;
	/* the bucket is still ahead of now, or another CPU has just moved it there */
	__sync_fetch_and_add(&limit->arrival_ns, rule->interval_ns);
}

/* Makes a flow that was open before it was seen here. */
static __always_inline void open_flow(const struct flow_key *key, const struct packet *packet,
				      const struct decision *decision, __u64 now_ns)
{
	__u32 generation = noted_generation(decision->generation, decision->rule);
	/* conntrack has heard the peer */
	__u32 flags = decision->reason == REASON_HANDOVER ? 0 : FLOW_PICKED_UP;

	if (key->protocol == IPPROTO_TCP)
		make_established(key, generation, decision->rule, decision->server,
				 flags | ended_by_server(packet), now_ns);
	else
		make_answered(key, generation, decision->rule, decision->server, now_ns);
}

/* Conntrack was asked for a flow, or was to be asked. */
static __always_inline void count_question(const struct decision *decision, __u64 now_ns)
{
	__u32 second = now_ns / SECOND_NS;
	struct cpu *cpu = find_cpu();

	if (decision->effects & EFFECT_COUNT_REFUSED) {
		add_statistic(STATISTIC_HANDOVER_REFUSED, 1);
		return;
	}
	add_statistic(STATISTIC_HANDOVER_ASKED, 1);
	if (decision->reason == REASON_HANDOVER || !cpu)
		return;
	if (cpu->asked_s != second)
		cpu->asked_in_vain = 0;
	cpu->asked_s = second;
	cpu->asked_in_vain++;
}

/* A global function, for its own stack. */
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
			note_own_opening(&key, decision->server, now_ns);
		if (effects & EFFECT_OPEN_FLOW)
			open_flow(&key, packet, decision, now_ns);
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
	if (effects & EFFECT_USE_GRANT)
		use_grant(packet, decision, now_ns);
	if (effects & EFFECT_TOUCH_CONNECTION)
		touch_name_connection(packet, now_ns);
	if (effects & EFFECTS_OF_QUESTIONS)
		count_question(decision, now_ns);
	return 0;
}

/* A packet passes by a need. `epoch`: as for account(). Not inlined, for its own stack. */
static __noinline int count_use(const struct packet *packet, const struct decision *decision,
				__u64 now_ns, __u32 epoch)
{
	__u32 use = note_use(decision->generation, decision->rule,
			     !!(decision->effects & EFFECT_COUNT_USE), now_ns);

	if (epoch && decision->scope == SCOPE_PORT)
		cache_pass(packet, decision->server, use, epoch);
	return 0;
}

/* `epoch`: of a plain TCP opening or datagram, whose verdict may be cached, see tag_epoch(); else 0. */
static __always_inline void account(struct xdp_md *ctx, const struct packet *packet,
				    const struct decision *decision, __u64 now_ns, __u32 epoch)
{
	const __u32 uses = EFFECT_COUNT_USE | EFFECT_SEE_USE;

	count_packet(packet, decision);
	if (decision->effects & EFFECT_REFUSE_FRAGMENT)
		remember_refused(packet, decision, now_ns);
	if (decision->effects & ~(EFFECT_REFUSE_FRAGMENT | uses))
		apply_effects(packet, decision, now_ns);
	if (may_be_query(packet, decision))
		note_queries(ctx, packet, decision, now_ns);
	if (decision->verdict != VERDICT_PASS) {
		count_drop(ctx, packet, decision, now_ns, epoch);
	} else if (decision->effects & uses) {
		count_use(packet, decision, now_ns, epoch);
	}
}

#endif
