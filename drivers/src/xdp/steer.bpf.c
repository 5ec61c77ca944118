// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Which packets of an interface are ours: those go to the AF_XDP socket of their queue, all else goes on to the kernel.
//
// Own address      Everything sent to it is ours, fragments and malformed headers included, so that our stack answers
//                  or counts them; with it ARP and neighbour discovery about it. The kernel must not hold the address.
// Shared address   It is the kernel's. Ours are unfragmented TCP segments to a listed port, and ICMP errors that quote
//                  a segment sent from a listed port. All else, ARP and neighbour discovery included, is the kernel's.
//
// XDP cannot clone: router advertisements and other multicast go to the kernel, whoever else would like to see them.
//
// No header is included, so the object depends on the compiler alone. Rebuild it with scripts/build-steer.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define SECTION(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))
#define NET16(x) ((u16)(((x) & 0xff) << 8 | ((x) >> 8 & 0xff))) // the object is little-endian
#define NET32(x) ((u32)__builtin_bswap32(x))

// ---- maps: program.rs has the same layouts -------------------------------------------------------------------------

enum { HASH = 1, ARRAY = 2, PERCPU_ARRAY = 6, XSKMAP = 17 };
enum { MMAPABLE = 1 << 10 };
enum { ADDRESSES_MAX = 256, QUEUES_MAX = 64 };

#define ATTRIBUTE(name, value) int (*name)[value]

struct address { u32 word[4]; };          // IPv4 as ::ffff:a.b.c.d
struct claim { u32 slot, flags; };        // slot: this address's row in `ports`
struct port_bits { u64 word[65536 / 64]; };
enum { OWN = 1 };

// What became of a packet, counted per CPU.
enum verdict { NOT_OURS, NEIGHBOUR, OWN_ADDRESS, SHARED_ADDRESS, NO_SOCKET, VERDICTS };

struct {
	ATTRIBUTE(type, HASH);
	ATTRIBUTE(max_entries, ADDRESSES_MAX);
	struct address *key;
	struct claim *value;
} addresses SECTION(".maps");

struct {
	ATTRIBUTE(type, ARRAY);
	ATTRIBUTE(map_flags, MMAPABLE);
	ATTRIBUTE(max_entries, ADDRESSES_MAX);
	u32 *key;
	struct port_bits *value;
} ports SECTION(".maps");

struct {
	ATTRIBUTE(type, XSKMAP);
	ATTRIBUTE(max_entries, QUEUES_MAX);
	u32 *key;
	u32 *value;
} sockets SECTION(".maps");

struct {
	ATTRIBUTE(type, PERCPU_ARRAY);
	ATTRIBUTE(max_entries, VERDICTS);
	u32 *key;
	u64 *value;
} verdicts SECTION(".maps");

// ---- the kernel's side ---------------------------------------------------------------------------------------------

struct xdp_md { u32 data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex; };
enum { XDP_PASS = 2, XDP_REDIRECT = 4 };

static void *(*map_lookup)(void *map, const void *key) = (void *)1;
static long (*redirect_map)(void *map, u64 key, u64 otherwise) = (void *)51;

// ---- headers -------------------------------------------------------------------------------------------------------

struct ethernet { u8 destination[6], source[6]; u16 type; };
struct vlan { u16 tag, type; };
struct arp {
	u16 hardware, protocol;
	u8 hardware_len, protocol_len;
	u16 operation;
	u8 sender_hardware[6], sender[4], target_hardware[6];
	u32 target;
};
struct ipv4 {
	u8 version_len, service;
	u16 len, id, fragment;
	u8 hops, protocol;
	u16 checksum;
	u32 source, destination;
};
struct ipv6 {
	u32 version_flow;
	u16 payload_len;
	u8 next, hops;
	struct address source, destination;
};
struct extension { u8 next, len; };
struct icmp { u8 type, code; u16 checksum; u32 rest; }; // in an error, a quoted packet follows
struct tcp_ports { u16 source, destination; };

enum { TYPE_IPV4 = NET16(0x0800), TYPE_ARP = NET16(0x0806), TYPE_VLAN = NET16(0x8100), TYPE_IPV6 = NET16(0x86dd) };
enum { MORE_OR_OFFSET = NET16(0x3fff), OFFSET = NET16(0x1fff) };
enum { HOP_BY_HOP = 0, ICMP = 1, TCP = 6, ROUTING = 43, ICMPV6 = 58, DESTINATION_OPTIONS = 60 };
enum { EXTENSIONS_MAX = 4 };

#define WHOLE(header, end) ((void *)((header) + 1) <= (end))

// ---- the program ---------------------------------------------------------------------------------------------------

INLINE struct claim *claim_on_ipv4(u32 address)
{
	struct address key = {{0, 0, NET32(0xffff), address}};
	return map_lookup(&addresses, &key);
}

INLINE struct claim *claim_on_ipv6(const struct address *address)
{
	struct address key = *address;
	return map_lookup(&addresses, &key);
}

INLINE int listed(const struct claim *claim, u16 net_port)
{
	u32 slot = claim->slot, port = NET16(net_port);
	struct port_bits *bits = map_lookup(&ports, &slot);
	return bits && (bits->word[port / 64] >> port % 64 & 1);
}

INLINE enum verdict arp(void *at, void *end)
{
	struct arp *arp = at;
	if (!WHOLE(arp, end) || arp->protocol != TYPE_IPV4 || arp->hardware_len != 6 || arp->protocol_len != 4)
		return NOT_OURS;
	struct claim *claim = claim_on_ipv4(arp->target);
	return claim && claim->flags & OWN ? NEIGHBOUR : NOT_OURS;
}

INLINE enum verdict shared_tcp(const struct claim *claim, void *at, void *end)
{
	struct tcp_ports *tcp = at;
	return WHOLE(tcp, end) && listed(claim, tcp->destination) ? SHARED_ADDRESS : NOT_OURS;
}

INLINE enum verdict quoted_tcp(const struct claim *claim, void *at, void *end)
{
	struct tcp_ports *tcp = at;
	return WHOLE(tcp, end) && listed(claim, tcp->source) ? SHARED_ADDRESS : NOT_OURS;
}

// Bytes of an IPv4 header; 0 if it says something impossible.
INLINE u32 ipv4_len(const struct ipv4 *ip)
{
	u32 len = (ip->version_len & 15) * 4;
	return ip->version_len >> 4 == 4 && len >= sizeof(*ip) ? len : 0;
}

INLINE enum verdict shared_icmp(const struct claim *claim, u32 to, void *at, void *end)
{
	struct icmp *icmp = at;
	struct ipv4 *quoted = (void *)(icmp + 1);
	if (!WHOLE(quoted, end))
		return NOT_OURS;
	// RFC 792: unreachable (and fragmentation needed), time exceeded, parameter problem.
	if (icmp->type != 3 && icmp->type != 11 && icmp->type != 12)
		return NOT_OURS;
	u32 len = ipv4_len(quoted);
	if (!len || quoted->source != to || quoted->protocol != TCP || quoted->fragment & OFFSET)
		return NOT_OURS;
	return quoted_tcp(claim, (void *)quoted + len, end);
}

INLINE enum verdict ipv4(void *at, void *end)
{
	struct ipv4 *ip = at;
	if (!WHOLE(ip, end))
		return NOT_OURS;
	struct claim *claim = claim_on_ipv4(ip->destination);
	if (!claim)
		return NOT_OURS;
	if (claim->flags & OWN)
		return OWN_ADDRESS;
	u32 len = ipv4_len(ip);
	if (!len || ip->fragment & MORE_OR_OFFSET)
		return NOT_OURS;
	if (ip->protocol == TCP)
		return shared_tcp(claim, at + len, end);
	if (ip->protocol == ICMP)
		return shared_icmp(claim, ip->destination, at + len, end);
	return NOT_OURS;
}

// Steps over the few extension headers that may precede TCP and ICMPv6 (RFC 8200 §4.1); a fragment header ends it.
INLINE u8 upper_layer(const struct ipv6 *ip, void **at, void *end)
{
	u8 next = ip->next;
	*at = (void *)(ip + 1);
#pragma unroll
	for (int i = 0; i < EXTENSIONS_MAX; i++) {
		struct extension *extension = *at;
		if (next != HOP_BY_HOP && next != ROUTING && next != DESTINATION_OPTIONS)
			break;
		if (!WHOLE(extension, end))
			break;
		next = extension->next;
		*at += (extension->len + 1) * 8;
	}
	return next;
}

INLINE enum verdict shared_icmpv6(const struct claim *claim, const struct address *to, void *at, void *end)
{
	struct icmp *icmp = at;
	struct ipv6 *quoted = (void *)(icmp + 1);
	if (!WHOLE(quoted, end))
		return NOT_OURS;
	// RFC 4443 §2.1: unreachable, too big, time exceeded, parameter problem.
	if (icmp->type < 1 || icmp->type > 4)
		return NOT_OURS;
	if (quoted->source.word[0] != to->word[0] || quoted->source.word[1] != to->word[1] ||
	    quoted->source.word[2] != to->word[2] || quoted->source.word[3] != to->word[3])
		return NOT_OURS;
	return upper_layer(quoted, &at, end) == TCP ? quoted_tcp(claim, at, end) : NOT_OURS;
}

// RFC 4861 §4.3, §4.4: a solicitation or advertisement about our address, sent to a multicast group.
INLINE enum verdict multicast_neighbour(const struct ipv6 *ip, void *end)
{
	void *at;
	if (upper_layer(ip, &at, end) != ICMPV6)
		return NOT_OURS;
	struct icmp *icmp = at;
	struct address *target = (void *)(icmp + 1);
	if (!WHOLE(target, end) || (icmp->type != 135 && icmp->type != 136))
		return NOT_OURS;
	struct claim *claim = claim_on_ipv6(target);
	return claim && claim->flags & OWN ? NEIGHBOUR : NOT_OURS;
}

INLINE enum verdict ipv6(void *at, void *end)
{
	struct ipv6 *ip = at;
	if (!WHOLE(ip, end))
		return NOT_OURS;
	if ((ip->destination.word[0] & NET32(0xff000000)) == NET32(0xff000000))
		return multicast_neighbour(ip, end);
	struct claim *claim = claim_on_ipv6(&ip->destination);
	if (!claim)
		return NOT_OURS;
	if (claim->flags & OWN)
		return OWN_ADDRESS;
	u8 protocol = upper_layer(ip, &at, end);
	if (protocol == TCP)
		return shared_tcp(claim, at, end);
	if (protocol == ICMPV6)
		return shared_icmpv6(claim, &ip->destination, at, end);
	return NOT_OURS;
}

INLINE enum verdict judge(void *at, void *end)
{
	struct ethernet *ethernet = at;
	if (!WHOLE(ethernet, end))
		return NOT_OURS;
	u16 type = ethernet->type;
	at = ethernet + 1;
	if (type == TYPE_VLAN) {
		struct vlan *vlan = at;
		if (!WHOLE(vlan, end))
			return NOT_OURS;
		type = vlan->type;
		at = vlan + 1;
	}
	switch (type) {
	case TYPE_ARP:
		return arp(at, end);
	case TYPE_IPV4:
		return ipv4(at, end);
	case TYPE_IPV6:
		return ipv6(at, end);
	default:
		return NOT_OURS;
	}
}

INLINE int steer(struct xdp_md *ctx)
{
	u32 verdict = judge((void *)(long)ctx->data, (void *)(long)ctx->data_end);
	int action = XDP_PASS;
	if (verdict != NOT_OURS) {
		action = redirect_map(&sockets, ctx->rx_queue_index, XDP_PASS);
		if (action != XDP_REDIRECT)
			verdict = NO_SOCKET;
	}
	u64 *count = map_lookup(&verdicts, &verdict);
	if (count)
		(*count)++;
	return action;
}

// Linux 5.18 and later: also packets that span several buffers.
SECTION("xdp.frags") int steer_frags(struct xdp_md *ctx) { return steer(ctx); }

SECTION("xdp") int steer_linear(struct xdp_md *ctx) { return steer(ctx); }

char licence[] SECTION("license") = "MIT OR Apache-2.0";
