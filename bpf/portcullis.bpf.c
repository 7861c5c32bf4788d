// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The programs. Each reads as a table of contents: parse, decide, account.
 */
#include "account.h"
#include "contract.h"
#include "decide.h"
#include "flow.h"
#include "verdict_cache.h"
#include "maps.h"
#include "parse.h"
#include "policy.h"
#include "private.h"
#include "evidence.h"
#include "fast_path.h"
#include "name_answer.h"
#include "sweep.h"
#include "track.h"

/* The filter: packets from the servers. */
SEC("xdp.frags")
int portcullis_filter(struct xdp_md *ctx)
{
	/* the two are never in use at the same time, and stack is scarce */
	union {
		struct fast_path fast_path;
		struct packet packet;
	} scratch;
	struct decision decision = {};
	struct cpu *cpu = find_cpu();
	__u64 now_ns = read_clock(cpu);
	__u32 assume = 0, epoch = 0;

	/* the fast path comes to the same verdicts, but makes no decision that could be read */
	if (!load.is_private && read_plain_frame(ctx, &scratch.fast_path.frame) &&
	    !(is_keeping(cpu) && may_be_evidence(&scratch.fast_path.frame))) {
		int action = try_fast_path(ctx, &scratch.fast_path, cpu, now_ns, &assume, &epoch);

		if (action >= 0)
			return action;
	}
	__builtin_memset(&scratch.packet, 0, sizeof(scratch.packet));
	parse_frame(ctx, &scratch.packet);
	decide(ctx, &scratch.packet, now_ns, assume, &decision);
	if (load.is_private)
		private_run.decision = decision;
	account(ctx, &scratch.packet, &decision, now_ns, epoch);
	if (is_keeping(cpu))
		keep_from_server(&scratch.packet, &decision, now_ns);
	/* fails closed: any other verdict is a drop */
	return decision.verdict == VERDICT_PASS || decision.verdict == VERDICT_WOULD_DROP ?
		       XDP_PASS :
		       XDP_DROP;
}

/* The same decision without its consequences, for test runs. A struct question and the frame go in,
 * a struct decision and the frame come out.
 */
SEC("xdp.frags")
int portcullis_explain(struct xdp_md *ctx)
{
	struct packet packet = {};
	struct decision decision = {};
	struct question question = {};
	void *data, *end;

	if (load_bytes(ctx, HOOK_XDP, 0, &question, sizeof(question)) ||
	    bpf_xdp_adjust_head(ctx, sizeof(question)))
		return XDP_ABORTED;
	parse_frame(ctx, &packet);
	decide(ctx, &packet, read_coarse_clock(), question.assume & ASSUME_OPENED, &decision);
	if (bpf_xdp_adjust_head(ctx, -(int)sizeof(decision)))
		return XDP_ABORTED;
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	if (data + sizeof(decision) > end)
		return XDP_ABORTED;
	__builtin_memcpy(data, &decision, sizeof(decision));
	return decision.verdict == VERDICT_DROP ? XDP_DROP : XDP_PASS;
}

/* Gives rows of the ledger back, in test runs of the tool. A struct sweep_request and its rows go in, how many
 * rows it was done for comes out.
 */
SEC("xdp.frags")
int portcullis_sweep(struct xdp_md *ctx)
{
	return sweep_rows(ctx);
}

/* The tracker: packets to the servers, for strict tracking. */
SEC("tc")
int portcullis_track(struct __sk_buff *skb)
{
	struct packet packet = {};
	struct cpu *cpu = find_cpu();
	__u64 now_ns = read_clock(cpu);

	track(skb, &packet, now_ns);
	if (is_keeping(cpu))
		keep_to_server(skb, &packet, now_ns);
	if (may_be_answer(&packet))
		read_answers(skb, &packet, now_ns);
	return -1; /* TCX_NEXT and TC_ACT_UNSPEC: the next program decides */
}

/* Types that no map definition names, so that user space finds them in BTF. The parameter of a
 * global function brings them there. Nothing calls it.
 */
struct exported_types {
	struct server server;
	struct prefix_key prefix_key;
	struct range_key range_key;
	struct need need;
	struct peer_key peer_key;
	struct rule rule;
	struct mac_key mac_key;
	struct router_key router_key;
	struct question question;
	struct sample sample;
	enum layout layout;
	enum verdict verdict;
	enum reason reason;
	enum drop_flag drop_flag;
	enum state state;
	enum active_word active_word;
	enum quota_class quota_class;
	enum statistic statistic;
	enum settings_flag settings_flag;
	enum server_flag server_flag;
	enum rule_flag rule_flag;
	struct edit_key edit_key;
	struct edit_cell edit_cell;
	enum edits_word edits_word;
	enum edit_direction edit_direction;
	enum edit_scope edit_scope;
	enum quota_key quota_key;
	enum own_mac_flag own_mac_flag;
	enum row_class row_class;
	enum bloom_word bloom_word;
	enum sweep_step sweep_step;
	struct sweep_request sweep_request;
	struct sweep_row sweep_row;
	enum flow_flag flow_flag;
	enum assumption assumption;
	struct private_run private_run;
	struct load_constants load_constants;
	struct name_key name_key;
	struct name_pattern name_pattern;
	enum pattern_flag pattern_flag;
	struct name_need_key name_need_key;
	struct name_peer_key name_peer_key;
	struct resolver resolver;
	enum resolver_flag resolver_flag;
	enum name_range name_range;
	enum own_network own_network;
	enum grant_origin grant_origin;
	enum name_count name_count;
	enum name_event_kind name_event_kind;
	enum one_way_port one_way_port;
	enum exchange_step exchange_step;
};

int export_types(struct exported_types *types)
{
	return types != NULL;
}

char _license[] SEC("license") = "Dual BSD/GPL";
