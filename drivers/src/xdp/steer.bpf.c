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

enum { HASH = 1, ARRAY = 2, PERCPU_ARRAY = 6, LPM_TRIE = 11, XSKMAP = 17 };
enum { NO_PREALLOC = 1 << 0, MMAPABLE = 1 << 10 };
enum { ADDRESSES_MAX = 256, PREFIXES_MAX = 1 << 16, QUEUES_MAX = 64 };

#define ATTRIBUTE(name, value) int (*name)[value]

struct address { u32 word[4]; };          // IPv4 as ::ffff:a.b.c.d
struct prefix { u32 len; struct address address; };
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

// Own addresses that lie together.
struct {
	ATTRIBUTE(type, LPM_TRIE);
	ATTRIBUTE(map_flags, NO_PREALLOC);
	ATTRIBUTE(max_entries, PREFIXES_MAX);
	struct prefix *key;
	struct claim *value;
} prefixes SECTION(".maps");

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
static long (*load_bytes)(struct xdp_md *ctx, u32 offset, void *into, u32 len) = (void *)189; // Linux 5.18

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

struct packet {
	struct xdp_md *ctx;
	void *start, *end;
	int by_helper;
};

// Copies from an offset known only at run time. Pointing there directly needs CAP_PERFMON, the helper does not.
INLINE int read(const struct packet *packet, u32 offset, void *into, u32 len)
{
	if (packet->by_helper)
		return load_bytes(packet->ctx, offset, into, len) == 0;
	void *at = packet->start + offset;
	if (at + len > packet->end)
		return 0;
	__builtin_memcpy(into, at, len);
	return 1;
}

INLINE struct claim *claim_on_ipv6(const struct address *address)
{
	struct prefix key = {128, *address};
	struct claim *claim = map_lookup(&addresses, &key.address);
	return claim ? claim : map_lookup(&prefixes, &key);
}

INLINE struct claim *claim_on_ipv4(u32 address)
{
	struct address mapped = {{0, 0, NET32(0xffff), address}};
	return claim_on_ipv6(&mapped);
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

// Directly after a plain IP header, as it nearly always is: no copy.
INLINE enum verdict plain_tcp(const struct tcp_ports *tcp, const void *end, const struct claim *claim)
{
	return WHOLE(tcp, end) && listed(claim, tcp->destination) ? SHARED_ADDRESS : NOT_OURS;
}

INLINE enum verdict shared_tcp(const struct packet *packet, u32 offset, const struct claim *claim)
{
	struct tcp_ports tcp;
	return read(packet, offset, &tcp, sizeof(tcp)) && listed(claim, tcp.destination) ? SHARED_ADDRESS : NOT_OURS;
}

INLINE enum verdict quoted_tcp(const struct packet *packet, u32 offset, const struct claim *claim)
{
	struct tcp_ports tcp;
	return read(packet, offset, &tcp, sizeof(tcp)) && listed(claim, tcp.source) ? SHARED_ADDRESS : NOT_OURS;
}

// Bytes of an IPv4 header; 0 if it says something impossible.
INLINE u32 ipv4_len(const struct ipv4 *ip)
{
	u32 len = (ip->version_len & 15) * 4;
	return ip->version_len >> 4 == 4 && len >= sizeof(*ip) ? len : 0;
}

INLINE enum verdict shared_icmp(const struct packet *packet, u32 offset, const struct claim *claim, u32 to)
{
	struct { struct icmp icmp; struct ipv4 quoted; } error;
	if (!read(packet, offset, &error, sizeof(error)))
		return NOT_OURS;
	// RFC 792: unreachable (and fragmentation needed), time exceeded, parameter problem.
	if (error.icmp.type != 3 && error.icmp.type != 11 && error.icmp.type != 12)
		return NOT_OURS;
	u32 len = ipv4_len(&error.quoted);
	if (!len || error.quoted.source != to || error.quoted.protocol != TCP || error.quoted.fragment & OFFSET)
		return NOT_OURS;
	return quoted_tcp(packet, offset + sizeof(error.icmp) + len, claim);
}

INLINE enum verdict ipv4(const struct packet *packet, u32 offset, void *at)
{
	struct ipv4 *ip = at;
	if (!WHOLE(ip, packet->end))
		return NOT_OURS;
	struct claim *claim = claim_on_ipv4(ip->destination);
	if (!claim)
		return NOT_OURS;
	if (claim->flags & OWN)
		return OWN_ADDRESS;
	u32 len = ipv4_len(ip);
	if (!len || ip->fragment & MORE_OR_OFFSET)
		return NOT_OURS;
	if (ip->protocol == TCP && len == sizeof(*ip))
		return plain_tcp((void *)(ip + 1), packet->end, claim);
	if (ip->protocol == TCP)
		return shared_tcp(packet, offset + len, claim);
	if (ip->protocol == ICMP)
		return shared_icmp(packet, offset + len, claim, ip->destination);
	return NOT_OURS;
}

// Steps over the few extension headers that may precede TCP and ICMPv6 (RFC 8200 §4.1); a fragment header ends it.
INLINE u8 upper_layer(const struct packet *packet, u32 *offset, u8 next)
{
#pragma unroll
	for (int i = 0; i < EXTENSIONS_MAX; i++) {
		struct extension extension;
		if (next != HOP_BY_HOP && next != ROUTING && next != DESTINATION_OPTIONS)
			break;
		if (!read(packet, *offset, &extension, sizeof(extension)))
			break;
		next = extension.next;
		*offset += (extension.len + 1) * 8;
	}
	return next;
}

INLINE enum verdict
shared_icmpv6(const struct packet *packet, u32 offset, const struct claim *claim, const struct address *to)
{
	struct { struct icmp icmp; struct ipv6 quoted; } error;
	if (!read(packet, offset, &error, sizeof(error)))
		return NOT_OURS;
	// RFC 4443 §2.1: unreachable, too big, time exceeded, parameter problem.
	if (error.icmp.type < 1 || error.icmp.type > 4)
		return NOT_OURS;
	const struct address *from = &error.quoted.source;
	if (from->word[0] != to->word[0] || from->word[1] != to->word[1] || from->word[2] != to->word[2] ||
	    from->word[3] != to->word[3])
		return NOT_OURS;
	offset += sizeof(error);
	return upper_layer(packet, &offset, error.quoted.next) == TCP ? quoted_tcp(packet, offset, claim) : NOT_OURS;
}

// RFC 4861 §4.3, §4.4: a solicitation or advertisement about our address, sent to a multicast group.
INLINE enum verdict multicast_neighbour(const struct packet *packet, u32 offset, u8 next)
{
	struct { struct icmp icmp; struct address target; } about;
	if (upper_layer(packet, &offset, next) != ICMPV6 || !read(packet, offset, &about, sizeof(about)))
		return NOT_OURS;
	if (about.icmp.type != 135 && about.icmp.type != 136)
		return NOT_OURS;
	struct claim *claim = claim_on_ipv6(&about.target);
	return claim && claim->flags & OWN ? NEIGHBOUR : NOT_OURS;
}

INLINE enum verdict ipv6(const struct packet *packet, u32 offset, void *at)
{
	struct ipv6 *ip = at;
	if (!WHOLE(ip, packet->end))
		return NOT_OURS;
	offset += sizeof(*ip);
	if ((ip->destination.word[0] & NET32(0xff000000)) == NET32(0xff000000))
		return multicast_neighbour(packet, offset, ip->next);
	struct claim *claim = claim_on_ipv6(&ip->destination);
	if (!claim)
		return NOT_OURS;
	if (claim->flags & OWN)
		return OWN_ADDRESS;
	if (ip->next == TCP)
		return plain_tcp((void *)(ip + 1), packet->end, claim);
	u8 protocol = upper_layer(packet, &offset, ip->next);
	if (protocol == TCP)
		return shared_tcp(packet, offset, claim);
	if (protocol == ICMPV6)
		return shared_icmpv6(packet, offset, claim, &ip->destination);
	return NOT_OURS;
}

INLINE enum verdict judge(const struct packet *packet)
{
	struct ethernet *ethernet = packet->start;
	if (!WHOLE(ethernet, packet->end))
		return NOT_OURS;
	u16 type = ethernet->type;
	void *at = ethernet + 1;
	u32 offset = sizeof(*ethernet); // of `at`, where it is needed as a number
	if (type == TYPE_VLAN) {
		struct vlan *vlan = at;
		if (!WHOLE(vlan, packet->end))
			return NOT_OURS;
		type = vlan->type;
		at = vlan + 1;
		offset += sizeof(*vlan);
	}
	switch (type) {
	case TYPE_ARP:
		return arp(at, packet->end);
	case TYPE_IPV4:
		return ipv4(packet, offset, at);
	case TYPE_IPV6:
		return ipv6(packet, offset, at);
	default:
		return NOT_OURS;
	}
}

INLINE int steer(struct xdp_md *ctx, int by_helper)
{
	struct packet packet = {ctx, (void *)(long)ctx->data, (void *)(long)ctx->data_end, by_helper};
	u32 verdict = judge(&packet);
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

// Linux 5.18 and later: packets may span several buffers.
SECTION("xdp.frags") int steer_frags(struct xdp_md *ctx) { return steer(ctx, 1); }

SECTION("xdp") int steer_linear(struct xdp_md *ctx) { return steer(ctx, 0); }

char licence[] SECTION("license") = "MIT OR Apache-2.0";
