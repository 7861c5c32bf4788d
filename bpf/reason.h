/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Properties of reasons. src/abi/reasons.rs has the same ones, and a test compares the two.
 */
#ifndef PORTCULLIS_REASON_H
#define PORTCULLIS_REASON_H

#include "contract.h"
#include <stdbool.h>

/* Can a drop be attributed to the server that has the source address? Not while the frame may come
 * from another machine: these reasons are found before the MAC and the VLAN are compared, or
 * because they differ. A pass is attributed to nobody.
 *
 * Without a default, so that a reason that is missing here does not compile.
 */
static __always_inline bool is_attributable(enum reason reason)
{
	switch (reason) {
	case REASON_NONE:
	case REASON_COUNT:
	case REASON_LINK_LAYER:
	case REASON_NEIGHBOUR:
	case REASON_DHCP:
	case REASON_UNKNOWN_ALLOWED:
	case REASON_LATER_FRAGMENT:
	case REASON_REPLY:
	case REASON_PICKUP:
	case REASON_NEED:
	case REASON_OWN_CONNECTION:
	case REASON_FLOW_ERROR:
	case REASON_ROUTER:
	case REASON_HANDOVER:
		return false;
	case REASON_ETHERTYPE:
	case REASON_MALFORMED:
	case REASON_SOURCE_ROUTE:
	case REASON_ROGUE_ROUTER:
	case REASON_UNKNOWN_SOURCE:
	case REASON_SPOOFED:
	case REASON_ELSEWHERE:
		return false;
	case REASON_QUARANTINED:
	case REASON_FRAGMENT:
	case REASON_RATE:
	case REASON_UNLISTED_SERVICE:
	case REASON_BACKSCATTER:
	case REASON_STRANGER:
	case REASON_NO_FLOW:
	case REASON_PROTOCOL:
	case REASON_DESTINATION:
	case REASON_NEW_FLOW:
	case REASON_DENIED:
	case REASON_QUESTION:
		return true;
	}
	return false;
}

/* Can somebody outside cause the drop, while the server runs only what its role says? Its answers to
 * noise, and to visitors, have a quota of their own, so that no outsider uses up the rows of what the
 * server starts by itself. An `unlisted_service` is not among them: the server has to listen.
 */
static __always_inline bool is_caused_outside(enum reason reason, __u8 flags)
{
	switch (reason) {
	case REASON_BACKSCATTER:
	case REASON_STRANGER:
	case REASON_FRAGMENT:
		return true;
	case REASON_QUARANTINED:
	case REASON_NO_FLOW:
	case REASON_DENIED:
		return flags & DROP_OWN_PORT;
	case REASON_NONE:
	case REASON_COUNT:
	case REASON_LINK_LAYER:
	case REASON_NEIGHBOUR:
	case REASON_DHCP:
	case REASON_UNKNOWN_ALLOWED:
	case REASON_LATER_FRAGMENT:
	case REASON_REPLY:
	case REASON_PICKUP:
	case REASON_NEED:
	case REASON_OWN_CONNECTION:
	case REASON_FLOW_ERROR:
	case REASON_ROUTER:
	case REASON_HANDOVER:
	case REASON_ETHERTYPE:
	case REASON_MALFORMED:
	case REASON_SOURCE_ROUTE:
	case REASON_ROGUE_ROUTER:
	case REASON_UNKNOWN_SOURCE:
	case REASON_SPOOFED:
	case REASON_RATE:
	case REASON_UNLISTED_SERVICE:
	case REASON_PROTOCOL:
	case REASON_DESTINATION:
	case REASON_NEW_FLOW:
	case REASON_ELSEWHERE:
	case REASON_QUESTION:
		return false;
	}
	return false;
}

#endif
