#!/bin/bash
# Process 1 of a guest once the host's root is its own: network, rdma_rxe, then the command server; its end is the machine's.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 TERM=dumb
for word in $(</proc/cmdline); do
  case "$word" in bed.*=*) declare "bed_${word#bed.}" ;; esac
done
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /run # the host's own would show its sockets and namespaces, none of which work here
mkdir -p /run/lock /run/netns
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir -p /lib/modules
mount --bind "$bed_modules" /lib/modules
ulimit -l unlimited
ulimit -n 65536
hostname "$bed_name"
# Under emulation fq_codel, Debian's default, takes the machine's slowness for congestion and drops: each drop costs a queue pair a timeout.
sysctl -qw net.core.default_qdisc=pfifo_fast
ip link set lo up
ip link set eth0 mtu "$bed_mtu" txqueuelen 10000 up
ip address add "$bed_address" dev eth0
rdma link add rxe0 type rxe netdev eth0
for port in /sys/class/virtio-ports/*; do
  [[ $(<"$port/name") != commands ]] || python3 -E -s "${bed_boot%/*}/guest.py" "/dev/${port##*/}"
done
echo "guest: the command server has ended" >/dev/console
echo o >/proc/sysrq-trigger
