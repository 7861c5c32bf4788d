// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Programs that the gate is compared with: no work at all, parsing, and one table
 * lookup. Those with a table parse first, as every filter must.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>
#include <stdbool.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

enum {
	HASH_PORTS = 512,
	HASH_ADDRESSES = 65536,
	LRU_FLOWS = 1 << 21, /* for a million flows, as the gate's own table in that run */
	LRU_OPENINGS = 65536,
	FLAG_SYN = 0x02,
	FLAG_ACK = 0x10,
};

struct tuple {
	__u32 source[4];
	__u32 destination[4];
	__u16 source_port;
	__u16 destination_port;
	__u8 protocol;
	__u8 tcp_flags;
	__u8 padding[2];
};

/* As large as the key and the value of an established flow of the gate. */
struct flow_key {
	__u32 source[4];
	__u32 destination[4];
	__u16 source_port;
	__u16 destination_port;
	__u8 protocol;
	__u8 padding[3];
};

struct flow {
	__u64 last_ns;
	__u64 more[2];
};

struct port_key {
	__u8 protocol;
	__u8 padding;
	__u16 port;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, HASH_PORTS);
	__type(key, struct port_key);
	__type(value, __u64);
} ports SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, HASH_ADDRESSES);
	__uint(key_size, 16);
	__uint(value_size, sizeof(__u64));
} addresses SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, LRU_FLOWS);
	__type(key, struct flow_key);
	__type(value, struct flow);
} flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, LRU_OPENINGS);
	__type(key, struct flow_key);
	__type(value, struct flow);
} openings SEC(".maps");

static __always_inline bool parse(void *data, void *end, struct tuple *tuple)
{
	struct ethhdr *ethernet = data;
	struct tcphdr *tcp;
	void *l4;

	if ((void *)(ethernet + 1) > end)
		return false;
	if (ethernet->h_proto == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = (void *)(ethernet + 1);

		if ((void *)(ip + 1) > end || ip->ihl != 5 || ip->frag_off & bpf_htons(0x3fff))
			return false;
		tuple->source[3] = ip->saddr;
		tuple->destination[3] = ip->daddr;
		tuple->protocol = ip->protocol;
		l4 = ip + 1;
	} else if (ethernet->h_proto == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip = (void *)(ethernet + 1);

		if ((void *)(ip + 1) > end)
			return false;
		__builtin_memcpy(tuple->source, &ip->saddr, 16);
		__builtin_memcpy(tuple->destination, &ip->daddr, 16);
		tuple->protocol = ip->nexthdr;
		l4 = ip + 1;
	} else {
		return false;
	}
	tcp = l4;
	if (l4 + 8 > end)
		return false;
	tuple->source_port = tcp->source;
	tuple->destination_port = tcp->dest;
	if (tuple->protocol == IPPROTO_TCP) {
		if ((void *)(tcp + 1) > end)
			return false;
		tuple->tcp_flags = ((__u8 *)tcp)[13];
	}
	return true;
}

static __always_inline bool is_bare_syn(const struct tuple *tuple)
{
	return (tuple->tcp_flags & (FLAG_SYN | FLAG_ACK)) == FLAG_SYN;
}

static __always_inline void fill_key(struct flow_key *key, const struct tuple *tuple)
{
	__builtin_memcpy(key, tuple, 36);
	key->protocol = tuple->protocol;
	key->padding[0] = key->padding[1] = key->padding[2] = 0;
}

static __always_inline bool is_listed(const struct tuple *tuple)
{
	struct port_key key = { .protocol = tuple->protocol, .port = tuple->destination_port };
	__u64 *count = bpf_map_lookup_elem(&ports, &key);

	if (!count)
		return false;
	__sync_fetch_and_add(count, 1);
	return true;
}

#define PARSE(ctx, tuple) parse((void *)(long)(ctx)->data, (void *)(long)(ctx)->data_end, tuple)

SEC("xdp.frags")
int bare_drop(struct xdp_md *ctx)
{
	return XDP_DROP;
}

/* The base of programs without support for frames in several buffers. */
SEC("xdp")
int bare_drop_plain(struct xdp_md *ctx)
{
	return XDP_DROP;
}

SEC("xdp.frags")
int bare_pass(struct xdp_md *ctx)
{
	return XDP_PASS;
}

SEC("xdp.frags")
int parse_only(struct xdp_md *ctx)
{
	struct tuple tuple = {};

	if (!PARSE(ctx, &tuple))
		return XDP_DROP;
	return is_bare_syn(&tuple) ? XDP_DROP : XDP_PASS;
}

SEC("xdp.frags")
int hash_ports(struct xdp_md *ctx)
{
	struct tuple tuple = {};

	if (!PARSE(ctx, &tuple))
		return XDP_DROP;
	return is_listed(&tuple) ? XDP_DROP : XDP_PASS;
}

SEC("tc")
int hash_ports_tc(struct __sk_buff *skb)
{
	struct tuple tuple = {};

	if (!PARSE(skb, &tuple))
		return TC_ACT_SHOT;
	return is_listed(&tuple) ? TC_ACT_SHOT : TC_ACT_OK;
}

SEC("xdp.frags")
int hash_addresses(struct xdp_md *ctx)
{
	struct tuple tuple = {};

	if (!PARSE(ctx, &tuple))
		return XDP_ABORTED;
	return bpf_map_lookup_elem(&addresses, &tuple.source) ? XDP_PASS : XDP_DROP;
}

SEC("xdp.frags")
int lru_lookup(struct xdp_md *ctx)
{
	struct tuple tuple = {};
	struct flow_key key;

	if (!PARSE(ctx, &tuple))
		return XDP_ABORTED;
	fill_key(&key, &tuple);
	return bpf_map_lookup_elem(&flows, &key) ? XDP_PASS : XDP_DROP;
}

/* Fills `flows` before a run. */
SEC("xdp.frags")
int lru_fill(struct xdp_md *ctx)
{
	struct tuple tuple = {};
	struct flow_key key;
	struct flow fresh = {};

	if (!PARSE(ctx, &tuple))
		return XDP_ABORTED;
	fill_key(&key, &tuple);
	return bpf_map_update_elem(&flows, &key, &fresh, BPF_ANY) ? XDP_ABORTED : XDP_PASS;
}

/* Fills `addresses` before a run. */
SEC("xdp.frags")
int address_fill(struct xdp_md *ctx)
{
	struct tuple tuple = {};
	__u64 fresh = 0;

	if (!PARSE(ctx, &tuple))
		return XDP_ABORTED;
	return bpf_map_update_elem(&addresses, &tuple.source, &fresh, BPF_ANY) ? XDP_ABORTED :
										 XDP_PASS;
}

SEC("tc")
int bare_next(struct __sk_buff *skb)
{
	return TC_ACT_UNSPEC;
}

SEC("tc")
int bare_shot(struct __sk_buff *skb)
{
	return TC_ACT_SHOT;
}

SEC("tc")
int lru_insert(struct __sk_buff *skb)
{
	struct tuple tuple = {};
	struct flow_key key;
	struct flow fresh = {};

	if (!PARSE(skb, &tuple))
		return TC_ACT_SHOT;
	fill_key(&key, &tuple);
	return bpf_map_update_elem(&openings, &key, &fresh, BPF_ANY) ? TC_ACT_SHOT : TC_ACT_UNSPEC;
}

char _license[] SEC("license") = "Dual BSD/GPL";
