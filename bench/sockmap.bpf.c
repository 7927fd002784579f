// The other way to shorten the path between two pods of one node: once a connection is established, what one end sends is put straight
// into the receive queue of the other (bpf(2) sockhash, sk_msg redirect). A yardstick for the bench, not a part of vsocket.
//
// The sockops program is attached to a cgroup that only the measured programs are in, so every IPv4 connection it sees is wanted.
#include <linux/bpf.h>
// The helpers' headers use the types of the one above.
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define AF_INET 2

// A connection as one of its ends sees it. Ports in host byte order.
struct end {
  __u32 local_ip;
  __u32 remote_ip;
  __u32 local_port;
  __u32 remote_port;
};

struct {
  __uint(type, BPF_MAP_TYPE_SOCKHASH);
  __uint(max_entries, 65536);
  __type(key, struct end);
  __type(value, __u64);
} ends SEC(".maps");

// How many messages were redirected: proof that the path was taken.
struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, 1);
  __type(key, __u32);
  __type(value, __u64);
} redirected SEC(".maps");

SEC("sockops")
int remember_end(struct bpf_sock_ops* ops) {
  if (ops->op != BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB && ops->op != BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB) return 0;
  if (ops->family != AF_INET) return 0;
  struct end own = {ops->local_ip4, ops->remote_ip4, ops->local_port, bpf_ntohl(ops->remote_port)};
  bpf_sock_hash_update(ops, &ends, &own, BPF_ANY);
  return 0;
}

SEC("sk_msg")
int redirect_message(struct sk_msg_md* message) {
  struct end peer = {message->remote_ip4, message->local_ip4, bpf_ntohl(message->remote_port), message->local_port};
  __u32 zero = 0;
  __u64* count = bpf_map_lookup_elem(&redirected, &zero);
  if (bpf_msg_redirect_hash(message, &ends, &peer, BPF_F_INGRESS) == SK_PASS && count) __sync_fetch_and_add(count, 1);
  return SK_PASS;
}

char _license[] SEC("license") = "Dual MIT/GPL";
