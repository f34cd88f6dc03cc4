//! Tests of iptables.
