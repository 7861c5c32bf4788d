/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Verdicts that each CPU keeps while the policy and the quarantines stay the same. fast_path.h
 * reads them, account.h writes them.
 *
 * A packet may be interrupted by another packet on its CPU (the network interrupts a test run). So
 * the order of reads and writes matters here:
 * - A writer clears the epoch of an entry, writes the entry, and then writes the new epoch.
 * - A reader reads the result, compares the key, and reads the result again.
 * - A writer that interrupts another writer writes nothing.
 */
#ifndef PORTCULLIS_VERDICT_CACHE_H
#define PORTCULLIS_VERDICT_CACHE_H

#include "policy.h"
#include "private.h"

static const __u64 GOLDEN_RATIO = 0x9e3779b97f4a7c15ULL;

static __always_inline struct cpu *find_cpu(void)
{
	__u32 index = 0;

	return bpf_map_lookup_elem(&cpus, &index);
}

/* Is evidence kept: does the policy observe, or does somebody learn? */
static __always_inline bool keeps_evidence(__u64 now_ns)
{
	const struct settings *settings = find_live_settings(now_ns);

	return settings &&
	       (settings->flags & SETTINGS_OBSERVE || now_ns < read_state(STATE_EVIDENCE_UNTIL_NS));
}

/* CLOCK_MONOTONIC_COARSE, which is CLOCK_MONOTONIC up to two ticks ago. What changes no verdict is looked up once a
 * tick here, so that packets pay nothing for it.
 */
static __always_inline __u64 read_clock(struct cpu *cpu)
{
	__u64 tick;

	if (load.is_private)
		return private_run.now_ns;
	tick = bpf_jiffies64();
	if (!cpu)
		return bpf_ktime_get_coarse_ns();
	if (cpu->tick != tick) {
		cpu->now_ns = bpf_ktime_get_coarse_ns();
		cpu->keeps_evidence = keeps_evidence(cpu->now_ns);
		/* in this order: a packet that interrupts here must not take an old time for new */
		barrier();
		cpu->tick = tick;
	}
	return cpu->now_ns;
}

static __always_inline __u32 find_verdicts_mask(const struct policy *policy)
{
	__u32 slot = policy->slot;
	const struct settings *settings = bpf_map_lookup_elem(&policies, &slot);

	return settings ? settings->verdicts_mask : 0;
}

/* The epoch of this CPU. It changes whenever the policy, a quarantine or an edit changes. 0: there is no
 * policy, and nothing may be cached. Read before the decision that is to be cached under it.
 */
static __always_inline __u32 read_epoch(struct cpu *cpu, const struct policy *policy)
{
	/* both only rise, so their sum tells every change */
	__u32 changes = read_state(STATE_QUARANTINE_CHANGES) + policy->edits, epoch;

	if (!cpu || !policy->generation)
		return 0;
	epoch = *(volatile __u32 *)&cpu->epoch;
	barrier();
	if (cpu->generation == policy->generation && cpu->changes == changes) {
		barrier();
		/* a packet that interrupted the comparison may have begun a new epoch */
		if (*(volatile __u32 *)&cpu->epoch == epoch)
			return epoch;
	}
	epoch = *(volatile __u32 *)&cpu->epoch + 2;
	*(volatile __u32 *)&cpu->epoch = epoch;
	barrier();
	cpu->generation = policy->generation;
	cpu->changes = changes;
	cpu->verdicts_mask = find_verdicts_mask(policy);
	return epoch;
}

/* The epoch as a cached verdict has it. Its lowest bit is the protocol, for no other field of an entry has
 * room for that.
 */
static __always_inline __u32 tag_epoch(__u32 epoch, __u8 protocol)
{
	return protocol == IPPROTO_UDP ? epoch | 1 : epoch;
}

/* False: this packet interrupted another one that was writing. */
static __always_inline bool begin_write(struct cpu *cpu)
{
	if (*(volatile __u32 *)&cpu->writes)
		return false;
	*(volatile __u32 *)&cpu->writes = 1;
	barrier();
	return true;
}

static __always_inline void end_write(struct cpu *cpu)
{
	barrier();
	*(volatile __u32 *)&cpu->writes = 0;
}

static __always_inline __u64 hash_address(const struct address *address)
{
	const __be32 *word_be = address->word_be;
	/* multiplied by the golden ratio, so that the upper bits depend on all bits */
	__u64 hash = ((__u64)word_be[0] << 32 | word_be[1]) * GOLDEN_RATIO;

	hash = (hash ^ ((__u64)word_be[2] << 32 | word_be[3])) * GOLDEN_RATIO;
	return hash ^ hash >> 32;
}

/* ---- verdicts on openings --------------------------------------------- */

/* `epoch`: see tag_epoch(). */
static __always_inline __u64 hash_opening(const struct address *source, __u16 port, __u32 epoch)
{
	return (hash_address(source) ^ (port | (epoch & 1) << 16)) * GOLDEN_RATIO;
}

static __always_inline struct verdict_bucket *locate_bucket(const struct cpu *cpu, __u64 hash)
{
	__u32 index = bpf_get_smp_processor_id() * (__u32)read_state(STATE_VERDICT_CACHE) +
		      ((__u32)(hash >> 40) & cpu->verdicts_mask);

	return bpf_map_lookup_elem(&verdict_cache, &index);
}

static __always_inline __u64 join_sender(__u64 mac, __u16 port)
{
	return mac << 16 | port;
}

static __always_inline bool match_opening(const struct cached_verdict *verdict,
					  const struct address *source, __u64 sender, __u32 epoch,
					  union cached_result *result)
{
	result->word = *(volatile __u32 *)&verdict->result.word;
	barrier();
	if (verdict->epoch != epoch || verdict->sender != sender ||
	    !same_address(&verdict->source, source))
		return false;
	barrier();
	return result->word == *(volatile __u32 *)&verdict->result.word;
}

/* The verdicts of a bucket in the order in which an opening looks for its own. Each opening begins
 * at another verdict, and nearly always finds its own there.
 */
static __always_inline struct cached_verdict *find_candidate(struct verdict_bucket *bucket,
							     __u64 hash, __u32 step)
{
	return &bucket->verdicts[((__u32)(hash >> 32) + step) & (VERDICTS_PER_BUCKET - 1)];
}

/* Looks for an opening in all verdicts of its bucket but the first. `epoch`: see tag_epoch(). Returns the word of union
 * cached_result, or 0. Not inlined, for its own stack: the filter's is full.
 */
static __noinline __u32 search_bucket(const struct cpu *cpu, const struct address *source,
				      __u64 source_mac, __u16 port, __u32 epoch)
{
	__u64 hash = hash_opening(source, port, epoch), sender = join_sender(source_mac, port);
	struct verdict_bucket *bucket = locate_bucket(cpu, hash);
	union cached_result result;

	if (!bucket)
		return 0;
	for (__u32 step = 1; step < VERDICTS_PER_BUCKET; step++)
		if (match_opening(find_candidate(bucket, hash, step), source, sender, epoch,
				  &result))
			return result.word;
	return 0;
}

/* Looks for an opening in the first verdict of its bucket. search_bucket() has the others. */
static __always_inline bool probe_bucket(const struct cpu *cpu, const struct address *source,
					 __u64 source_mac, __u16 port, __u32 epoch,
					 union cached_result *result)
{
	__u64 hash = hash_opening(source, port, epoch), sender = join_sender(source_mac, port);
	struct verdict_bucket *bucket = locate_bucket(cpu, hash);

	return bucket &&
	       match_opening(find_candidate(bucket, hash, 0), source, sender, epoch, result);
}

/* `epoch`: see tag_epoch(). `word`: of union cached_result. Not inlined, for its own stack. */
static __noinline int store_cached(const struct packet *packet, __u32 epoch, __u32 word)
{
	__u64 hash = hash_opening(&packet->source, packet->destination_port, epoch);
	__u64 sender = join_sender(read_mac(packet->source_mac), packet->destination_port);
	struct cached_verdict *victim;
	struct verdict_bucket *bucket;
	struct cpu *cpu = find_cpu();
	union cached_result result;

	if (!cpu)
		return 0;
	bucket = locate_bucket(cpu, hash);
	if (!bucket || !begin_write(cpu))
		return 0;
	/* replaces the verdict on this opening, or else the first free one, or else the first */
	victim = find_candidate(bucket, hash, 0);
	for (int step = VERDICTS_PER_BUCKET - 1; step >= 0; step--) {
		struct cached_verdict *other = find_candidate(bucket, hash, step);

		if (other->epoch != epoch)
			victim = other;
	}
	for (int step = 0; step < VERDICTS_PER_BUCKET; step++) {
		struct cached_verdict *other = find_candidate(bucket, hash, step);

		if (match_opening(other, &packet->source, sender, epoch, &result))
			victim = other;
	}
	*(volatile __u32 *)&victim->epoch = 0;
	barrier();
	victim->source = packet->source;
	victim->sender = sender;
	*(volatile __u32 *)&victim->result.word = word;
	barrier();
	*(volatile __u32 *)&victim->epoch = epoch;
	end_write(cpu);
	return 0;
}

/* ---- quotas that are used up ------------------------------------------ */

static __always_inline struct cached_quota *locate_cached_quota(const struct address *source)
{
	__u32 index = bpf_get_smp_processor_id() * QUOTA_CACHE_PER_CPU +
		      ((hash_address(source) >> 40) & (QUOTA_CACHE_PER_CPU - 1));

	return bpf_map_lookup_elem(&quota_cache, &index);
}

/* `tagged`: see tag_epoch(). The entry is for all protocols. */
static __always_inline void cache_used_up_quota(const struct address *source,
						const struct server *server, __u32 index,
						__u32 tagged)
{
	__u32 epoch = tagged & ~1U;
	struct cached_quota *entry = locate_cached_quota(source);
	struct cpu *cpu = find_cpu();

	if (!entry || !cpu || !begin_write(cpu))
		return;
	*(volatile __u32 *)&entry->epoch = 0;
	barrier();
	entry->source = *source;
	entry->server = server->id;
	entry->profile = server->profile;
	entry->ranges = server->flags & SERVER_RANGES;
	*(volatile __u32 *)&entry->index = index;
	barrier();
	*(volatile __u32 *)&entry->epoch = epoch;
	end_write(cpu);
}

#endif
