/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The contract between the programs in this folder and the control tool: every struct and number
 * that both sides use, and nothing else. User space takes these types from the object's BTF.
 * Enums reach BTF and #defines don't, so numbers are enums here. A test compares sizes and
 * offsets.
 *
 * Over 500 lines on purpose: it is one list of types and numbers, and both sides read it whole.
 *
 * Fields are in host byte order. A name that ends in _be and the type struct address mean network
 * byte order. Units stand in names: _ns are of CLOCK_MONOTONIC, _s are UNIX time or a duration.
 */
#ifndef PORTCULLIS_CONTRACT_H
#define PORTCULLIS_CONTRACT_H

#include <linux/types.h>

enum layout {
	/* Counts up with every change to a pinned map's name, key, value, type or meaning.
	 * 1: the first.
	 * 2: headers_bytes of struct fragment; a map of the rows that each server has.
	 * 3: the ledger's rows in an array; the server of struct flow.
	 * 4: the order in struct ledger_row; the caches, the Bloom filter and cpus.
	 * 5: new names of maps: ledger_quotas, ledger_overflow, ledger_bloom, verdict_cache,
	 *    quota_cache, statistics.
	 * 6: later_bytes of struct fragment; refused fragments, heard peers, MACs, routers, source
	 *    ports, quarantined addresses and MACs, quiet EtherTypes, own openings, lessors.
	 * 7: the ledger counts by CPU, in a map of its own, and keeps addresses.
	 *    Quotas for what outsiders cause, reserve rows, hot kinds. Rows are given back.
	 * 8: trials of a policy, in STATE_ACTIVE. Quotas and the size of the verdict cache in
	 *    struct settings. Buckets of `own_openings`. Uses of needs.
	 *    Edits, and a flag for them in rules; `edits` of struct fragment and struct decision.
	 *    Words of `state`, statistics and a flag of flows for handovers.
	 *    Names as destinations. Evidence for learn. `datagram_ports`. The lowest bit of an
	 *    epoch.
	 */
	LAYOUT_VERSION = 8,
	/* Policy slots: the live one, the one before it, which a packet may still be reading, and
	 * the one that is being written. See docs/internals.md.
	 */
	SLOTS = 3,
	SAMPLE_FRAME_BYTES = 128,
	NAME_BYTES = 64,
	FILE_BYTES = 256,
	SOURCE_CHUNK_BYTES = 4096,
	VERDICTS_PER_BUCKET = 4,    /* of `verdict_cache`, a power of two */
	QUOTA_CACHE_PER_CPU = 4096, /* entries of `quota_cache`, a power of two */
	QUIET_ETHERTYPES_MAX = 16,
	LIMITS_OF_FLOW_MAX = 8, /* rules with a limit that are asked for one flow */
	HEARD_REGIONS = 16,     /* of `heard`, a power of two */
	HEARD_EPOCH_S = 600,
	LESSORS_MAX = 4,         /* a power of two */
	LESSORS_OF_LINK = 0,     /* in place of a server's id: they have answered the whole link */
	FIRST_ADDRESSES = 16,    /* of struct row_addresses */
	FREQUENT_ADDRESSES = 8,  /* of struct frequent */
	FREQUENT_PER_CPU = 1024, /* entries of `frequent`, a power of two */
	HOT_KINDS_PER_CPU = 65536, /* entries of `hot_kinds`, one for each port */
	SWEEP_ROWS = 128,          /* in one run of portcullis_sweep */
	EDIT_SLOTS = 2,            /* of `edit_tables` */
	PORT_WORDS = 1024,         /* of 64 bits each: a bit for each port */
	UNLISTED_PLACE = (SLOTS + EDIT_SLOTS) * PORT_WORDS, /* the first in `datagram_ports` */
	UNLISTED_PLACES = 4096,                             /* a power of two */
	OPENING_REGIONS = 64,                               /* of `own_openings`, a power of two */
	OPENING_BUCKETS = 2048,                             /* of a region, a power of two */
	OPENINGS_PER_BUCKET = 4,                            /* a power of two */
	OPENING_TICK_SHIFT =
		24, /* a tick of their times, 17 ms, is a nanosecond shifted by so much */
	NEED_NUMBERS_MAX = 8192,     /* entries of `need_uses`, see union cached_result */
	DOMAIN_BYTES = 256,          /* of struct domain and struct name_key */
	RESOLVER_INTERFACES_MAX = 8, /* by which a resolver's answers may come */
	GRANTS_OF_ADDRESS_MAX = 16,  /* names that one address has for one server */
	LOOKUP_NAME_BYTES = 96,      /* of a name that are remembered */
	LOOKUP_WAYS = 4,             /* places of a share where an address may stand */
	GRANT_GRACE_S = 30,          /* that a grant is longer open than its answer says */
	EVIDENCE_PEERS_MAX = 64,     /* of one service of a server that have rows in `evidence` */
	EVIDENCE_ROWS_MAX = 4096,    /* of one server */
};

/* IPv6 in network byte order. IPv4 stands as ::ffff:a.b.c.d (RFC 4291, 2.5.5.2). An IPv6 header
 * with such an address is malformed, so the two families never meet in one key.
 */
struct address {
	__be32 word_be[4];
};

enum verdict {
	VERDICT_DROP = 1,
	VERDICT_PASS = 2,
	VERDICT_WOULD_DROP = 3, /* mode observe: counted as a drop, and passed */
};

/*
 * The reason of a verdict: one list for counters, ledger, samples, `explain` and alarms. A number
 * is never given to another reason. The name in lower case, without the prefix, is the word that
 * users read. Numbers from 1 to 31 are passes, from 32 to 63 drops.
 *
 * A new reason needs a row here and a case in reason.h. src/abi/reasons.rs then refuses to compile
 * until it describes the reason.
 */
enum reason {
	REASON_NONE = 0,

	REASON_LINK_LAYER = 1,      /* ARP, LLDP, 802.1X, slow protocols, 802.3 */
	REASON_NEIGHBOUR = 2,       /* IPv6 neighbour discovery, MLD reports */
	REASON_DHCP = 3,            /* a DHCP client that talks to its link */
	REASON_UNKNOWN_ALLOWED = 4, /* unknown source, and unknown_sources = "allow" */
	REASON_LATER_FRAGMENT = 5,  /* its first fragment passed */
	REASON_REPLY = 6,           /* an answer in a flow that a peer opened */
	REASON_PICKUP = 7,          /* a flow that was open before the gate was attached */
	REASON_NEED = 8,            /* an `out` need */
	REASON_OWN_CONNECTION = 9,  /* TCP of a connection that an `out` need permits */
	REASON_FLOW_ERROR = 10,     /* an ICMP error about a permitted flow */
	REASON_ROUTER = 11,         /* VRRP of a router of the policy */
	REASON_HANDOVER = 12,       /* a flow that conntrack has: another router let it be opened */

	REASON_ETHERTYPE = 32,        /* a protocol other than IP, and not of the link */
	REASON_MALFORMED = 33,        /* a header is cut short or contradicts itself */
	REASON_SOURCE_ROUTE = 34,     /* IPv4 source route, IPv6 routing header */
	REASON_ROGUE_ROUTER = 35,     /* router advertisement, redirect, or VRRP of a server */
	REASON_UNKNOWN_SOURCE = 36,   /* no server has the source address */
	REASON_SPOOFED = 37,          /* the frame has another MAC or VLAN than its server */
	REASON_QUARANTINED = 38,      /* the server is in quarantine */
	REASON_FRAGMENT = 39,         /* a fragment that follows no permitted first one */
	REASON_RATE = 40,             /* over the `limit` of its `out` need */
	REASON_UNLISTED_SERVICE = 41, /* an answer on a port that is no `in` service */
	REASON_BACKSCATTER = 42,      /* a reset, ICMP error or ICMP reply of no flow */
	REASON_STRANGER = 43,         /* an `in` service answers a peer outside its `from` */
	REASON_NO_FLOW = 44,          /* a TCP segment or an answer of no flow */
	REASON_PROTOCOL = 45,         /* an IP protocol that no `out` need has */
	REASON_DESTINATION = 46,      /* an `out` need has the port, but for other peers */
	REASON_NEW_FLOW = 47,         /* the server opens a flow that no `out` need has */
	REASON_ELSEWHERE = 48,        /* a frame to the MAC of another host of the link */
	REASON_DENIED = 49,           /* an edit denies what would have passed */
	REASON_QUESTION = 50,         /* asks a resolver for what its role does not let it ask */

	REASON_COUNT = 64,
};

/* Flags of a drop, in ledger rows, samples and decisions. */
enum drop_flag {
	DROP_QUIET = 1,    /* raises no alarm: a `quiet` need, or unknown_sources = "quiet" */
	DROP_WOULD = 2,    /* mode observe: the packet passed */
	DROP_OWN_PORT = 4, /* the port is the server's own, for it answered */
	/* What the gate can't know is taken for harmless: the memory of peers was full, so this one
	 * counts as heard; or the first fragment of the datagram may still come.
	 */
	DROP_PRESUMED = 8,
};

/* Writes that a packet causes. decide() names them, account() carries them out. */
enum effect {
	EFFECT_REMEMBER_FRAGMENT = 1, /* later fragments follow this one */
	EFFECT_TOUCH_FLOW = 2,        /* a reply: refresh and advance its flow */
	EFFECT_OPEN_FLOW = 4,         /* pickup or handover: make the flow */
	EFFECT_NOTE_SYN_ACK = 8,      /* keep the sequence number for the peer's ACK */
	EFFECT_SPEND_LIMIT = 16,      /* take one token of a `limit` */
	EFFECT_COUNT_FRAGMENT = 32,   /* a later fragment: add its bytes to the first one */
	EFFECT_LEARN_MAC = 64,        /* a host of the link sent it: note its MAC */
	EFFECT_REFUSE_FRAGMENT = 128, /* a drop: later fragments share its reason */
	EFFECT_NOTE_OPENING = 256,    /* the server itself opens this connection */
	EFFECT_COUNT_USE = 512,       /* the need that permits it was used: something opens by it */
	EFFECT_SEE_USE = 1024,        /* .. or something goes on that was opened by it */
	EFFECT_USE_GRANT = 2048,      /* an opening that a grant lets pass */
	EFFECT_TOUCH_CONNECTION = 4096, /* a segment of a connection that a grant has let pass */
	EFFECT_COUNT_ASKED = 8192,      /* conntrack was asked for the flow */
	EFFECT_COUNT_REFUSED = 16384,   /* .. or not, for this CPU has asked in vain too often */
};

/* Indexes of the map `state`. Each value is one aligned 64-bit word, so a reader sees the old
 * value or the new one and never a mixture.
 */
enum state {
	STATE_LAYOUT = 0, /* LAYOUT_VERSION of the tool that made the maps */
	STATE_ACTIVE = 1, /* see enum active_word; 0: no policy yet */
	STATE_PICKUP_UNTIL_NS = 2,
	STATE_QUARANTINES = 3, /* not 0: a table of quarantines may hold an entry */
	STATE_SERVER_ID = 4,   /* the last id that was given to a server's name */
	/* 5 to 7 and 15 to 20 were the limits of quotas, see struct class_limits */
	/* Counts up after every change to a table of quarantines, and outdates the cached verdicts
	 * that were found before the change. Never reset.
	 */
	STATE_QUARANTINE_CHANGES = 8,
	STATE_VERDICT_CACHE = 9, /* entries of each CPU's part of `verdict_cache` */
	STATE_LEDGER_BLOOM = 10, /* see enum bloom_word */
	/* The NIC's MAC, its first byte in bits 40 to 47; 0: unknown. */
	STATE_OWN_MAC = 11,
	/* Words of one region in one half of `heard`, a power of two; 0: nothing is remembered. */
	STATE_HEARD_WORDS = 12,
	STATE_LEDGER_ROWS = 13, /* of `ledger_rows`, and of each CPU's part of `ledger_counts` */
	STATE_CPUS = 14,        /* parts of `ledger_counts` */
	/* Odd while portcullis_sweep moves counts, and higher after each time. Whoever reads the ledger
	 * meanwhile reads it again.
	 */
	STATE_LEDGER_SWEEPS = 21,
	/* The last generation that was given to a policy. It only rises, also when a trial ends by
	 * itself: flows and cached verdicts are reported apart by it.
	 */
	STATE_GENERATION = 22,
	/* 23 is reserved for trials */
	/* Bits 0 and 1: the slot of `edit_tables` in use plus one; 0: there is no edit. From bit
	 * EDITS_CHANGES_SHIFT on it counts up with each change, and is never reset: so it outdates cached
	 * verdicts and first fragments of before. A packet reads the lower 32 bits, once.
	 */
	STATE_EDITS = 24,
	STATE_EDIT_NUMBER = 25, /* the last number that was given to an edit */
	/* 26 to 31 are reserved. */
	STATE_NAME_ID = 32, /* the last id that was given to a name of the policy, see `domains` */
	/* A random number. The hash of a question depends on it, so that nobody can prepare two questions
	 * of the same hash.
	 */
	STATE_NAME_SECRET = 33,
	/* How many rows each server has: of `grants`, `name_connections`, `queries` and `streams`. */
	STATE_GRANT_ROOM = 34,
	STATE_CONNECTION_ROOM = 35,
	STATE_QUERY_ROOM = 36,
	STATE_STREAM_ROOM = 37,
	STATE_LOOKUP_ROOM = 38, /* of `lookups` */
	/* Counts up after every change of `own_networks`, and outdates what was found about an address before. */
	STATE_OWN_NETWORKS = 39,
	/* Until then `evidence` is kept, whatever the mode. While the policy observes it is kept anyway. */
	STATE_EVIDENCE_UNTIL_NS = 40,
	STATE_CONNTRACK = 41, /* not 0: the programs on the NIC can ask conntrack */
	/* While a router takes over, answers that conntrack does not know yet are dropped quietly. */
	STATE_TAKEOVER_UNTIL_NS = 42,
	STATE_TAKEOVER_NS = 43, /* when the last takeover began: what is known from before is old */
	STATE_COUNT = 44,
};

/* The word STATE_ACTIVE. Bits 0 and 1: the slot of the policy that was made the live one last, plus one.
 * Bits 2 and 3: the slot of the one before it, plus one. A packet may still be reading that one, so the next
 * policy gets the third slot. Bits 8 to 63: while the policy is on trial, the time at which the one before is
 * the live one again.
 */
enum active_word {
	ACTIVE_SLOT_MASK = 3,
	ACTIVE_SLOT_BITS = 2,
	ACTIVE_DEADLINE_SHIFT = 8,
	ACTIVE_TICK_BITS = 24, /* a deadline counts 2^24 ns */
};

/* The word STATE_EDITS. */
enum edits_word {
	EDITS_SLOT_MASK = 3,
	EDITS_CHANGES_SHIFT = 2,
};

/* The word STATE_LEDGER_BLOOM. Lower 32 bits: the last index of one half of `ledger_bloom`, a power of two
 * less one.
 */
enum bloom_word {
	BLOOM_UPPER = 1, /* bit 32: the upper half is in use, and not the lower one */
	BLOOM_BOTH = 2,  /* bit 33: the tool rebuilds the other half, so kinds are added to both */
};

/* Indexes of the per-CPU map `statistics`. */
enum statistic {
	STATISTIC_SAMPLES_SENT = 0,
	STATISTIC_SAMPLES_LOST = 1,         /* the perf buffer was full */
	STATISTIC_SAMPLES_NO_READER = 2,    /* no daemon had the perf buffer open */
	STATISTIC_LEDGER_FULL = 3,          /* drops counted in `ledger_overflow` */
	STATISTIC_LEDGER_OVERFLOW_FULL = 4, /* drops counted in `counters` only */
	STATISTIC_FLOW_LOST = 5,            /* a flow could not be recorded */
	STATISTIC_EVIDENCE_LOST = 6,    /* an answered opening found no row in `evidence` at all */
	STATISTIC_HANDOVER_ASKED = 7,   /* conntrack was asked for a flow */
	STATISTIC_HANDOVER_REFUSED = 8, /* .. or not, for a CPU had asked in vain too often */
	STATISTIC_COUNT = 9,
};

enum settings_flag {
	SETTINGS_OBSERVE = 1,
	SETTINGS_STRICT = 2,
	SETTINGS_DHCP = 4,
	SETTINGS_UNKNOWN_ALLOW = 8,
	SETTINGS_UNKNOWN_QUIET = 16,
	SETTINGS_PREFIXES = 32,       /* `prefixes` is not empty */
	SETTINGS_RANGES = 64,         /* `ranges` holds rows of profile 0 */
	SETTINGS_BOUND = 128,         /* a server has a `mac` or a `vlan` */
	SETTINGS_ROUTERS = 256,       /* `routers` is not empty */
	SETTINGS_LINK_SERVICES = 512, /* profile 0 has `out` needs, for link-local sources */
	/* The tracker records flows: for this policy, or for the one before it while this one is on
	 * trial.
	 */
	SETTINGS_TRACKED = 1024,
	SETTINGS_NAMES = 2048,         /* a need names a name */
	SETTINGS_COMMON_GRANTS = 4096, /* `grants` may have rows of server 0 */
	SETTINGS_RESOLVERS = 8192,     /* `resolvers` is not empty */
	SETTINGS_NAMED = 16384,        /* a server has SERVER_NAMED */
	SETTINGS_HANDOVER = 32768,     /* flows of no table are asked of conntrack */
};

/* Quotas of a server in the ledger, each apart from the others. */
enum quota_class {
	CLASS_OWN = 0,     /* what the server starts by itself */
	CLASS_OUTSIDE = 1, /* what outsiders can cause */
	CLASS_RESERVE = 2, /* kinds that are hot when CLASS_OWN is used up */
	CLASSES = 4,       /* a power of two; the last is unused */
};

/* How many rows of the ledger each server is guaranteed, how many one server may have at most, and how many
 * all servers share beyond the guaranteed ones, see enum quota_key.
 */
struct class_limits {
	__u32 guaranteed;
	__u32 max;
	__u32 shared;
	__u32 zero;
};

/* One generation of the policy, value of `policies`. */
struct settings {
	__u64 generation;   /* counts up from 1; 0: empty slot */
	__u64 applied_s;    /* UNIX time */
	__u32 flags;        /* enum settings_flag */
	__u32 source_bytes; /* length of the policy text in `sources` */
	__u32 servers;      /* rows of servers, needs and peers, for `show status` */
	__u32 needs;
	__u32 peers;
	__u32 pickup_s;
	__u8 hash[32];                                /* SHA-256 of the policy text */
	__u8 file[FILE_BYTES];                        /* path of the text's file, NUL-terminated */
	__u16 quiet_ethertypes[QUIET_ETHERTYPES_MAX]; /* 0: unused */
	struct class_limits limits[CLASSES];          /* by enum quota_class */
	/* The last index of each CPU's part of `verdict_cache` that this policy uses, a power of two
	 * less one. The fewer servers, the fewer entries are used, and all of these stay in the
	 * CPU's own cache.
	 */
	__u32 verdicts_mask;
	__u32 zero;
	/* Seconds for which an answer opens its addresses, at least and at most. */
	__u32 name_floor_s;
	__u32 name_cap_s;
};

enum server_flag {
	SERVER_OBSERVE = 1,
	SERVER_MAC = 2,
	SERVER_VLAN = 4,
	SERVER_RANGES = 8,  /* its profile has rows in `ranges` */
	SERVER_MACS = 16,   /* `macs` has further MACs of it */
	SERVER_SPORTS = 32, /* its profile has rows in `sports` */
	SERVER_FORWARDS =
		64, /* what it is answered is a grant for all servers whose needs have the name */
	SERVER_NAMED = 128, /* it may ask resolvers for the names of the policy alone */
};

/* Value of `hosts` and `prefixes`. */
struct server {
	__u32 id;      /* key of `names`; a name keeps its id across policies */
	__u32 profile; /* set of needs; 0 belongs to no server */
	__u16 vlan;
	__u8 mac[6];
	__u32 flags; /* enum server_flag */
};

struct prefix_key {
	__u32 prefix_bits; /* 0 to 128 */
	struct address address;
};

struct need_key {
	__u32 profile;
	__u8 protocol;
	__u8 zero;
	__be16 port_be; /* ICMP: the type. Protocols without ports: 0 */
};

struct range_key {
	__u32 prefix_bits; /* 48 plus the bits of the port's prefix */
	struct need_key need;
};

/* The peers that a need permits. Rule ids carry enum rule_flag. */
struct peer_match {
	__u32 any; /* the rule for every peer; 0: none */
	__u32 set; /* the set in which the peer is looked up first; 0: none */
};

struct need {
	struct peer_match inbound;
	struct peer_match outbound;
	struct peer_match quiet;
};

struct peer_key {
	__u32 prefix_bits; /* 32 for the set, plus 0 to 128 for the address */
	__u32 set;
	struct address address;
};

enum rule_flag {
	RULE_ID_MASK = 0x0fffffff,
	RULE_EDIT = 0x10000000,       /* no rule of the policy: the number of an edit */
	RULE_LIMITED = 0x20000000,    /* `rules` holds its limit */
	RULE_MANAGEMENT = 0x40000000, /* stays open in quarantine */
};

/* The side that opens the flows of an edit. */
enum edit_direction {
	EDIT_IN = 1,
	EDIT_OUT = 2,
};

/* The upper bits of `scope` in struct edit_key. Ids of servers have none of them. */
enum edit_scope {
	EDIT_SCOPE_NUMBER = 0x40000000, /* the rest is the number of an edit */
	EDIT_SCOPE_SET = 0x80000000,    /* the rest is the number of a set of peers */
};

/* Key of the tables in `edit_tables`, which hold three kinds of rows. */
struct edit_key {
	/* 48 plus the bits of the port's prefix, or 32 plus those of the peer's, or 32 */
	__u32 prefix_bits;
	__u32 scope; /* the id of a server, or enum edit_scope */
	/* Of a server: the first word has the direction, the protocol and the port, from the highest byte
	 * on. Of a set: the peer. Of a number: 0.
	 */
	struct address place;
};

/* Value of the tables in `edit_tables`. */
struct edit_cell {
	__u64 allow_until_ns; /* 0: no edit allows it */
	__u64 deny_until_ns;
	__u32 allow; /* the number of the edit that ends at allow_until_ns */
	__u32 deny;
	__u32 set; /* of ports: the set in which the peer is looked up first; 0: none */
	__u32 zero;
};

/* A token bucket in the form of GCRA (ITU-T I.371), value of `rules`. */
struct rule {
	__u32 limit_key;    /* a need keeps its key, and with it its tokens, across policies */
	__u32 next;         /* the rule that is asked when this one's bucket is empty; 0: none */
	__u64 interval_ns;  /* between two flows at the permitted rate */
	__u64 tolerance_ns; /* by which a burst may run ahead of that rate */
};

struct limit_key {
	__u32 server;
	__u32 limit_key;
};

struct limit {
	__u64 arrival_ns; /* theoretical arrival time of the next flow */
};

struct name {
	__u8 text[NAME_BYTES]; /* NUL-terminated */
};

/* Value of `quarantines`, `quarantined_addresses` and `quarantined_macs`. The filter reads the time
 * only. The rest is the tool's own.
 */
struct quarantine {
	__u64 until_ns; /* 0: until released */
	__u64 since_ns;
	__u64 mac;    /* of `quarantined_addresses`: cut off with the address; 0: none */
	__u32 server; /* of `quarantined_addresses`: cut off under this name; 0: by the address */
	__u32 zero;
};

/* One flow that a peer opened, seen from the server. */
struct flow_key {
	struct address server;
	struct address peer;
	__be16 server_port_be; /* ICMP: the identifier */
	__be16 peer_port_be;   /* ICMP: the type of the request */
	__u8 protocol;
	__u8 zero[3];
};

enum flow_flag {
	FLOW_FIN_SERVER = 1,
	FLOW_FIN_PEER = 2,
	FLOW_RST_SERVER = 4,
	/* 8 was a peer's reset, which may be forged */
	FLOW_ANSWERED = 16,
	FLOW_PICKED_UP = 32,
	/* A policy has revoked its service. Its time was set back by as long as a flow lives, so it is over,
	 * and conntrack is not asked for it. Set where the policy has `handover`.
	 */
	FLOW_REVOKED = 64,
};

/* Value of `established`, `datagrams` and `icmp_queries`. */
struct flow {
	__u64 last_ns;
	/* These two are written as one word, see renew_flow(). */
	/* of the policy that last permitted the service (low 32 bits); 0: an edit permitted it */
	__u32 generation;
	__u32 server; /* its id under that policy; 0: unknown */
	__u32 rule;
	__u32 flags; /* enum flow_flag */
};

/* Value of `half_open`. A SYN+ACK that is sent again may carry another initial sequence number
 * (SYN cookies), so the last two are kept.
 */
struct half_open {
	__u64 opened_ns;
	__u32 generation;
	__u32 rule;
	__u32 sequence[2];
	__u32 sequence_end; /* end of the data that the server sent after sequence[0] */
	__u32 syn_acks;     /* 0: none was seen yet, and `sequence` is empty */
};

/* Value of `unlisted`. */
struct opening {
	__u64 opened_ns;
};

/* Value of `own_openings`. Of each entry the upper half is a tag by the flow, and the lower one the time in
 * ticks, see OPENING_TICK_SHIFT. 0: empty.
 */
struct opening_bucket {
	__u64 entries[OPENINGS_PER_BUCKET];
};

/* Value of `need_uses`: what one CPU has seen. */
struct need_use {
	__u64 openings; /* flows that peers opened and the server answered, or packets of the server that open */
	__u64 last_ns; /* of the last packet that passed by it, of a known flow at most a second before; 0: never */
};

/* Value of `counted_needs`. The times are of the clock on the wall. */
struct counted_need {
	__u8 identity[24];  /* of role, direction and text: a SHA-256, cut off */
	__u64 since_s;      /* it is counted */
	__u64 live_since_s; /* the live policy has had it without a break */
};

/* Value of `lessors`. */
struct lessors {
	struct address known[LESSORS_MAX];
	__u32 count; /* more than LESSORS_MAX: some were not kept */
	__u32 zero;
};

struct fragment_key {
	struct address source;
	struct address destination;
	__u32 id;
	__u8 protocol; /* IPv4: of the datagram. IPv6: 0, for receivers ignore it there */
	__u8 zero[3];
};

struct fragment {
	__u64 passed_ns;
	__u32 rule;
	__u32 generation;    /* of the policy that let it pass */
	__u32 headers_bytes; /* at its start, which no later fragment may overwrite */
	__u8 protocol;       /* from its IP or fragment header */
	__u8 zero[3];
	__u32 later_bytes; /* data of the later fragments that followed it */
	__u32 edits;       /* STATE_EDITS when it passed */
};

/* Value of `refused_fragments`: the kind under which later fragments are counted too. */
struct refused_fragment {
	__u64 refused_ns;
	__u16 port;
	__u8 protocol;          /* of the kind */
	__u8 fragment_protocol; /* from its IP or fragment header */
	__u8 reason;
	__u8 flags; /* enum drop_flag */
	__u8 zero[2];
};

/* Key of `macs` and `quarantined_macs`. In `macs` server 0 is any server or router. */
struct mac_key {
	__u64 mac; /* the first byte in bits 40 to 47 */
	__u32 server;
	__u32 zero;
};

/* Key of `routers`. */
struct router_key {
	struct address address;
	__u64 mac; /* as in struct mac_key */
};

/* A kind of drop. */
struct ledger_key {
	__u32 server; /* 0: no server has the source address */
	/* The flow's destination port, or the server's own (DROP_OWN_PORT). ICMP: the type.
	 * Reason `ethertype`: the EtherType.
	 */
	__u16 port;
	__u8 protocol;
	__u8 reason;
	__u8 flags; /* enum drop_flag */
	__u8 zero[3];
};

/* Values of `own_macs`. */
enum own_mac_flag {
	OWN_MAC_DEVICE = 1, /* of a device of this machine */
	/* Of the NIC's own MAC: the NIC is one of several ports of a bridge, so this machine forwards
	 * frames to other MACs too.
	 */
	OWN_MAC_BRIDGED = 2,
	/* From this bit on, of a host behind another port of the bridge: the second of
	 * CLOCK_MONOTONIC in which it was seen there. The tool's own.
	 */
	OWN_MAC_SEEN_SHIFT = 2,
};

/* Keys of `ledger_quotas`. The id of a server alone: rows of what it starts by itself. Ids are smaller
 * than QUOTA_OUTSIDE.
 */
enum quota_key {
	QUOTA_UNKNOWN = 0, /* rows of drops that are attributed to no server, see reason.h */
	/* Added to an id: rows of what outsiders can cause. */
	QUOTA_OUTSIDE = 0x20000000,
	/* Added to an id: reserve rows, for kinds that are hot when the quota is used up. */
	QUOTA_RESERVE = 0x40000000,
	/* Rows of all servers beyond the guaranteed ones, of each kind of quota. */
	QUOTA_SHARED = 0x60000000,
	QUOTA_OUTSIDE_SHARED = 0x60000001,
	QUOTA_RESERVE_SHARED = 0x60000002,
	QUOTA_ROWS_ISSUED = 0x60000003, /* rows of `ledger_rows` that were ever given out */
	QUOTA_OVERFLOW = 0x60000004,    /* rows of `ledger_overflow` */
	QUOTA_ROWS_FREED = 0x60000005,  /* numbers that were ever put into `ledger_free` */
	QUOTA_ROWS_REUSED = 0x60000006, /* and taken out of it */
};

struct row_quota {
	__u64 rows; /* used; for a moment one too many, until a CPU gives it back */
};

enum row_class {
	ROW_OWN = 0,      /* of one kind, which `ledger` has */
	ROW_OVERFLOW = 1, /* of all kinds of a server and reason that have none */
	ROW_RETIRED = 2,  /* no new packet finds it, and it is about to be given back */
};

/* Value of `ledger_rows`: a row's facts, which no drop of a known kind writes. One cache line. */
struct ledger_row {
	__u64 first_ns;        /* 0: unused */
	__u64 sampled_ns;      /* of the last sample; postponed while the server has many rows */
	__u64 sampled_packets; /* of all CPUs, at sampled_ns */
	struct ledger_key kind;
	__u32 number; /* its index in `ledger_rows` */
	__u8 class;   /* enum row_class */
	/* Of a row of the overflow: a kind without a row that has so many destinations may get one.
	 * 0: not known, and so is any number that is out of date.
	 */
	__u8 hot_destinations;
	__u8 zero[2];
	__u32 quota; /* key of the quota that it uses; of the overflow: 0 */
	/* What was counted and reported when the row was retired. */
	__u64 retired_packets;
	__u64 retired_bytes;
};

/* Value of `ledger_given_back`: what rows have counted that were given back. */
struct given_back {
	__u64 packets;
	__u64 bytes;
	__u64 first_ns;
	__u64 last_ns;
	struct address last_source;
	struct address last_destination;
};

/* Stands before the rows in a frame for portcullis_sweep. */
struct sweep_request {
	__u32 step; /* enum sweep_step */
	__u32 rows; /* that follow, at most SWEEP_ROWS */
	__u64 zero;
};

enum sweep_step {
	SWEEP_RETIRE = 1,  /* hide the rows from new packets */
	SWEEP_RECLAIM = 2, /* move their counts, once no packet can see them any more */
};

/* A row that may go, as the tool knows it. If it is another by now, it stays. */
struct sweep_row {
	__u64 first_ns;
	__u64 packets; /* all of them reported */
	__u32 number;
	__u32 zero;
};

/* Value of `ledger_counts`: what one CPU has counted in a row. One cache line, which this CPU alone
 * writes.
 */
struct row_counts {
	__u64 packets;
	__u64 bytes;
	__u64 last_ns;
	/* Before it, this CPU sends no sample, and need not look at the row. The two lowest bits
	 * are enum counts_flag.
	 */
	__u64 due_ns;
	struct address last_source;
	struct address last_destination;
};

enum counts_flag {
	COUNTS_SOURCES_FULL = 1, /* the row's list of first sources, or of destinations, is full */
	COUNTS_DESTINATIONS_FULL = 2,
	COUNTS_FLAGS = 3,
};

/* Value of `hot_kinds`: a kind without a row of its own. */
struct hot_kind {
	__u32 destinations; /* a bit for each, by a hash */
	__u16 tag;          /* of server, protocol, reason and flags; the port is in the index */
	__u16 window;       /* of time, see HOT_WINDOW_SHIFT; the highest bit: it was sampled */
};

/* Value of `ledger_addresses`: the first distinct addresses of a row's drops. */
struct row_addresses {
	__u32 sources; /* places that were claimed; beyond FIRST_ADDRESSES: there are more */
	__u32 destinations;
	struct address source[FIRST_ADDRESSES]; /* 0: being written */
	struct address destination[FIRST_ADDRESSES];
};

struct frequent_address {
	struct address address;
	__u64 packets; /* 0: unused */
};

/* Value of `frequent`: the addresses that a CPU saw most often in one row. */
struct frequent {
	__u32 row;
	__u32 estimated; /* not 0: some packets were weighed, or an address took another's place */
	__u64 packets;   /* 0: of no row */
	struct frequent_address source[FREQUENT_ADDRESSES];
	struct frequent_address destination[FREQUENT_ADDRESSES];
};

struct counter {
	__u64 packets;
	__u64 bytes;
};

/* ---- evidence for learn ------------------------------------------------ */

/* Key of `evidence`: what one side opens on the other. Without a peer: what peers without a row did with this
 * service. With the server alone: services without a row.
 */
struct evidence_key {
	struct address peer;
	__u32 server;
	__u16 port; /* that was opened. ICMP: the type of the request */
	__u8 protocol;
	__u8 direction; /* enum edit_direction */
};

/* Value of `evidence`. */
struct evidence {
	__u64 answered; /* openings that were answered */
	__u64 asked;    /* datagrams that expect no answer, see expects_no_answer() */
	__u64 first_ns;
	__u64 last_ns;
	__u32 nonce; /* random: tells the row from one of the same key in an earlier gate */
	__u32 rows;  /* of a service: peers with rows. Of a server: its rows */
};

/* Ports to which datagrams go that nobody answers: log lines, traps, flow records, measurements. */
enum one_way_port {
	ONE_WAY_TRAP = 162,
	ONE_WAY_SYSLOG = 514,
	ONE_WAY_NETFLOW = 2055,
	ONE_WAY_IPFIX = 4739,
	ONE_WAY_SFLOW = 6343,
	ONE_WAY_STATSD = 8125,
	ONE_WAY_NETFLOW_OTHER = 9995,
	ONE_WAY_GELF = 12201,
};

enum exchange_step {
	EXCHANGE_ASKED = 1,
	EXCHANGE_ACCEPTED = 2, /* the server has sent its SYN+ACK */
	EXCHANGE_COUNTED = 3,
};

/* Value of `exchanges`: how far an opening has come. */
struct exchange {
	__u64 last_ns;
	__u32 sequence;  /* TCP: of the SYN, or of the server's SYN+ACK */
	__u32 step;      /* enum exchange_step */
	__u32 by_server; /* not 0: the server has opened it */
	__u32 zero;
};

/* The header of a sample in the perf buffer. Up to SAMPLE_FRAME_BYTES of the frame follow it, and
 * perf pads the end.
 */
struct sample {
	__u64 time_ns;
	__u64 drops; /* of this kind since its last sample, this one included */
	struct address source;
	struct address destination;
	__u32 interface; /* index */
	__u32 server;
	__u32 rule;
	__u32 length; /* of the frame, bytes */
	__u16 source_port;
	__u16 destination_port;
	__u16 ethertype;
	__u16 vlan;        /* tag control information; 0: none */
	__u16 frame_bytes; /* that follow the header */
	__u16 port;        /* as in struct ledger_key */
	__u8 verdict;
	__u8 reason;
	__u8 flags; /* enum drop_flag */
	__u8 protocol;
	__u8 tcp_flags;
	__u8 icmp_type;
	__u8 icmp_code;
	__u8 ip_version; /* 4, 6; 0: not IP */
	__u8 source_mac[6];
	__u8 destination_mac[6];
	__u8 rest; /* not 0: the kind has no row, and `drops` are those of `ledger_overflow` */
	__u8 zero[7];
};

/* The result of decide(), and the answer to `explain`. */
struct decision {
	__u8 verdict;
	__u8 reason;
	__u8 flags;    /* enum drop_flag */
	__u8 scope;    /* enum scope */
	__u32 effects; /* enum effect */
	__u32 server;
	__u32 rule; /* that permitted the packet, or that came nearest; 0: none */
	__u32 generation;
	__u32 edits;   /* STATE_EDITS that the verdict was found under */
	__u16 port;    /* as in struct ledger_key */
	__u8 protocol; /* as in struct ledger_key */
	__u8 observed; /* not 0: a drop only counts, for its server or the policy observes */
};

/* The packets for which a decision holds. */
enum scope {
	SCOPE_PACKET = 0, /* the one that was asked about */
	SCOPE_PORT = 1,   /* TCP openings from this address and MAC to this port of any peer */
};

enum assumption {
	ASSUME_OPENED = 1,  /* that the peer opened the flow of this frame */
	ASSUME_NO_FLOW = 2, /* that `established` or `datagrams` has no entry: just looked up */
	ASSUME_CUT_OFF = 4, /* that the sender is in quarantine: just found */
};

/* Stands before the frame of a question to `explain`. */
struct question {
	__u32 assume; /* enum assumption */
	__u32 zero;
};

/* What the tool says of a load before it, see private.h. */
struct load_constants {
	__u32 is_private;
	__u32 asks_conntrack;
};

/* Of a private load alone, see private.h: the time that its programs go by, and what the filter decided last. */
struct private_run {
	__u64 now_ns;
	struct decision decision;
	__u32 reserved;
};

/* ---- names as destinations -------------------------------------------- */

/* Value of `domains`: a name of a policy, as the policy has it, in lower case. */
struct domain {
	__u8 text[DOMAIN_BYTES]; /* NUL-terminated */
};

/* Key of `name_patterns`: a name on the wire (RFC 1035, 3.1) without its root, in lower case, the last byte
 * first. In each length byte the highest bit is set, so that no byte of a label looks like a border.
 */
struct name_key {
	__u32 prefix_bits;
	__u8 bytes[DOMAIN_BYTES];
};

enum pattern_flag {
	PATTERN_PARENT =
		1, /* a name of the policy is below it, or it is the domain of a wildcard */
	PATTERN_REVERSE = 2, /* addresses are looked up below it */
	/* The key is no name backwards, but forwards: of a name to which resolvers' clients append what
	 * they search. No name backwards begins with a length byte, so both share a table.
	 */
	PATTERN_FRONT = 4,
	PATTERN_FRONT_OF_BELOW = 8, /* .. behind the first label, for what a wildcard has */
};

/* Value of `name_patterns`. The ids are those of the most specific names of the policy, wildcards of shorter
 * patterns included.
 */
struct name_pattern {
	__u32 exact; /* for the pattern itself; 0: none */
	__u32 below; /* for what has more labels in front; 0: none */
	__u32 bytes; /* of the pattern */
	__u32 flags; /* enum pattern_flag */
};

/* Key of `name_needs`. Profile 0: any profile. */
struct name_need_key {
	__u32 profile;
	__u32 name;
};

/* Key of `name_peers`. */
struct name_peer_key {
	__u32 set; /* as in struct peer_key */
	__u32 name;
};

enum resolver_flag {
	RESOLVER_LOCAL = 1, /* it runs on this machine, so its answers come by no interface */
};

/* Value of `resolvers`. */
struct resolver {
	__u32 flags;                              /* enum resolver_flag */
	__u32 interface[RESOLVER_INTERFACES_MAX]; /* indexes; 0: unused */
};

/* The lowest byte of the values of `name_ranges`. */
enum name_range {
	NAME_RANGE_REFUSED = 1,
	NAME_RANGE_PRIVATE = 2, /* permitted, although others like it are not */
	NAME_RANGE_NAT64 = 3,   /* the embedded address decides; bits 8 to 15: bits of the prefix */
};

/* Values of `own_networks`. */
enum own_network {
	OWN_NETWORK_LINK = 1,    /* a prefix that is on the NIC's link */
	OWN_NETWORK_ADDRESS = 2, /* an address of this machine */
};

/* A place in a server's share of a table. Places are counted from 0. */
struct share_key {
	__u32 server; /* its id; 0: grants that all servers have */
	__u32 place;
};

/* Where the next row of a server goes, value of `name_shares`. */
struct name_share {
	__u32 grants;
	__u32 connections;
};

enum grant_origin {
	GRANT_ANSWER = 1, /* to the server itself */
	GRANT_DAEMON = 2,
	GRANT_SAVED = 3,
	GRANT_FORWARDED = 4, /* to a server that forwards */
};

/* Value of `grants`: an address that a name was seen to have. */
struct grant {
	__u64 answered_ns;
	__u64 open_until_ns; /* openings pass before it, and before answered_ns plus the cap */
	__u64 used_ns;       /* by the last opening; 0: never */
	struct address address;
	__u32 server;
	__u32 name;
	__u32 origin;  /* enum grant_origin */
	__u32 claimed; /* not 0: a CPU is about to replace it */
	/* The generation of the policy under which the address was last found to be one that names may have, and
	 * STATE_OWN_NETWORKS at that time. 0: to be looked at.
	 */
	__u64 checked;
};

struct granted_key {
	struct address address;
	__u32 server;
};

/* Value of `granted`: the places in `grants` of an address. */
struct granted {
	__u32 place_plus_one[GRANTS_OF_ADDRESS_MAX]; /* 0: unused */
};

/* Value of `name_connections`: a connection whose SYN a grant has let pass. */
struct name_connection {
	__u64 last_ns;
	__u32 server;
	__u32 name;
	__u32 place; /* in `connection_places` */
	__u32 ended; /* not 0: the server has sent FIN or RST */
};

/* Value of `queries`: a question that a server has asked a resolver. */
struct query {
	__u64 asked_ns; /* 0: answered, or being written */
	__u64 hash;     /* of the question */
	struct address resolver;
	__u32 server;
	__u16 port; /* of the server */
	__u16 id;
};

/* Value of `streams`: a TCP connection to a resolver. */
struct stream {
	__u64 opened_ns;
	struct address resolver;
	__u32 server;
	__u32 first; /* sequence number of the resolver's SYN */
	__u32 next;  /* sequence number at which its next message begins */
	__u16 port;  /* of the server */
	__u8 lost;   /* not 0: it isn't known where messages begin */
	__u8 ended;  /* not 0: its place may go to another one */
};

/* Value of `lookups`: the name for which a server was last answered an address. For people alone. */
struct lookup {
	__u64 answered_ns;
	struct address address;
	__u32 server;
	__u32 bytes; /* of the whole name, without its root */
	/* On the wire, with the marks of struct name_key. Of a longer name its end. */
	__u8 name[LOOKUP_NAME_BYTES];
};

/* Indexes of the per-CPU map `name_counts`. */
enum name_count {
	NAME_QUERY_NOTED = 0,
	NAME_QUERY_PUSHED = 1, /* an unanswered query lost its place to another of its server */
	NAME_ANSWER_READ = 2,
	NAME_ANSWER_NEGATIVE = 3,  /* an error, or nothing in the answer section */
	NAME_ANSWER_NO_QUERY = 4,  /* nobody has asked, or not within 30 s, or it was answered */
	NAME_ANSWER_QUESTION = 5,  /* it answers another question than was asked */
	NAME_ANSWER_INTERFACE = 6, /* it came by the wrong interface */
	NAME_ANSWER_MALFORMED = 7,
	NAME_ANSWER_CUT = 8,       /* only a part of it could be read */
	NAME_ANSWER_OTHER = 9,     /* no name of the policy */
	NAME_ADDRESS_PRIVATE = 10, /* an address that no name may have */
	NAME_GRANT_MADE = 11,
	NAME_GRANT_RENEWED = 12,
	NAME_GRANT_PUSHED = 13, /* an open grant lost its row to another of its server */
	NAME_GRANT_LOST = 14,   /* no room for it */
	NAME_CONNECTION_PUSHED = 15,
	NAME_CONNECTION_LOST = 16,
	NAME_STREAM_LOST = 17, /* it isn't known any more where a resolver's messages begin */
	NAME_EVENT_LOST = 18,
	NAME_COUNT = 20,
};

enum name_event_kind {
	NAME_EVENT_REBINDING = 1, /* a name has an address that no name may have */
	NAME_EVENT_FORGED = 2,    /* an answer came by the wrong interface */
};

/* Key of `name_events`. */
struct name_event_key {
	__u32 kind; /* enum name_event_kind */
	__u32 server;
	__u32 name; /* of a rebinding; else 0 */
};

struct name_event {
	__u64 first_ns;
	__u64 last_ns;
	__u64 count;
	struct address resolver;
	struct address address; /* of a rebinding: the last one */
	__u32 interface;        /* by which the last answer came; 0: none */
	__u32 mapped;           /* that address stood in an AAAA record, as ::ffff:a.b.c.d */
};

_Static_assert(sizeof(struct address) == 16, "address");
_Static_assert(sizeof(struct settings) == 152 + FILE_BYTES + 2 * QUIET_ETHERTYPES_MAX, "settings");
_Static_assert(sizeof(struct class_limits) == 16, "class_limits");
_Static_assert(sizeof(struct server) == 20, "server");
_Static_assert(sizeof(struct prefix_key) == 20, "prefix_key");
_Static_assert(sizeof(struct need_key) == 8, "need_key");
_Static_assert(sizeof(struct range_key) == 12, "range_key");
_Static_assert(sizeof(struct need) == 24, "need");
_Static_assert(sizeof(struct peer_key) == 24, "peer_key");
_Static_assert(sizeof(struct rule) == 24, "rule");
_Static_assert(sizeof(struct quarantine) == 32, "quarantine");
_Static_assert(sizeof(struct edit_key) == 24, "edit_key");
_Static_assert(sizeof(struct edit_cell) == 32, "edit_cell");
_Static_assert(sizeof(struct flow_key) == 40, "flow_key");
_Static_assert(sizeof(struct flow) == 24, "flow");
_Static_assert(__builtin_offsetof(struct flow, generation) == 8, "flow");
_Static_assert(__builtin_offsetof(struct flow, server) == 12, "flow");
_Static_assert(sizeof(struct half_open) == 32, "half_open");
_Static_assert(sizeof(struct opening_bucket) == 32, "opening_bucket");
_Static_assert(sizeof(struct need_use) == 16, "need_use");
_Static_assert(sizeof(struct counted_need) == 40, "counted_need");
_Static_assert(sizeof(struct lessors) == 72, "lessors");
_Static_assert(sizeof(struct fragment_key) == 40, "fragment_key");
_Static_assert(sizeof(struct fragment) == 32, "fragment");
_Static_assert(sizeof(struct refused_fragment) == 16, "refused_fragment");
_Static_assert(sizeof(struct mac_key) == 16, "mac_key");
_Static_assert(sizeof(struct router_key) == 24, "router_key");
_Static_assert(sizeof(struct ledger_key) == 12, "ledger_key");
_Static_assert(sizeof(struct row_quota) == 8, "row_quota");
_Static_assert(sizeof(struct ledger_row) == 64, "ledger_row");
_Static_assert(sizeof(struct row_counts) == 64, "row_counts");
_Static_assert(sizeof(struct given_back) == 64, "given_back");
_Static_assert(sizeof(struct sweep_request) == 16, "sweep_request");
_Static_assert(sizeof(struct sweep_row) == 24, "sweep_row");
_Static_assert(sizeof(struct hot_kind) == 8, "hot_kind");
_Static_assert(sizeof(struct row_addresses) == 520, "row_addresses");
_Static_assert(sizeof(struct frequent_address) == 24, "frequent_address");
_Static_assert(sizeof(struct frequent) == 400, "frequent");
_Static_assert(sizeof(struct evidence_key) == 24, "evidence_key");
_Static_assert(sizeof(struct evidence) == 40, "evidence");
_Static_assert(sizeof(struct exchange) == 24, "exchange");
_Static_assert(sizeof(struct sample) == 104, "sample");
_Static_assert(sizeof(struct decision) == 28, "decision");
_Static_assert(sizeof(struct private_run) == 40, "private_run");
_Static_assert(sizeof(struct name_key) == 260, "name_key");
_Static_assert(sizeof(struct name_pattern) == 16, "name_pattern");
_Static_assert(sizeof(struct resolver) == 36, "resolver");
_Static_assert(sizeof(struct grant) == 64, "grant");
_Static_assert(sizeof(struct granted_key) == 20, "granted_key");
_Static_assert(sizeof(struct granted) == 64, "granted");
_Static_assert(sizeof(struct name_connection) == 24, "name_connection");
_Static_assert(sizeof(struct query) == 40, "query");
_Static_assert(sizeof(struct stream) == 40, "stream");
_Static_assert(sizeof(struct lookup) == 128, "lookup");
_Static_assert(sizeof(struct name_event) == 64, "name_event");

#endif
