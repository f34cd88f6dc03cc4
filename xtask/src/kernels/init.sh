#!/bin/sh
# The first process of a test machine: mounts what a node has, runs /job, tells its status, ends the machine.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
mkdir -p /proc /sys /dev /run /tmp /root /var/tmp
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /run
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf
mount -t tracefs tracefs /sys/kernel/tracing
mount -t securityfs securityfs /sys/kernel/security
ip link set lo up
# Tools that read state do not load it; a node that runs kube-proxy has these.
for module in nf_conntrack nf_conntrack_netlink nf_nat ip_vs br_netfilter; do
    modprobe "$module"
done
sh /job </dev/null >/dev/ttyS1 2>&1
echo "<0>kpx-vm: status $?" >/dev/kmsg
echo b >/proc/sysrq-trigger
sleep 60
