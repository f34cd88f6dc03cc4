//! A node that forwards nothing but what its rules let through, as docker leaves it.

use std::net::TcpStream;

use kpx::dataplane::Mode;
use kpx_abi::{Exposure, Flags};

use super::peers::SILENCE;
use super::services::{capacity, exposed, serve, servers};
use super::states::nft;
use super::ways::{answers, reaches};
use super::world::{CLUSTER_IP, NODE, POD, REMOTE, VIP, World, socket};

const MARK: u32 = 0x0040_0000;

#[test]
fn what_the_rules_let_through_is_let_through_by_its_mark() {
    World::with(|world| {
        let _servers = servers(world);
        let (mut dataplane, mut tables) = world.dataplane(&capacity(), Mode::Active);
        let masqueraded = exposed(Exposure::LoadBalancer).with(Flags::MASQUERADE_ALWAYS, true);
        serve(&mut tables, 1, VIP, 80, masqueraded, &[REMOTE]);
        serve(&mut tables, 11, CLUSTER_IP, 80, exposed(Exposure::ClusterIp), &[REMOTE]);
        nft(
            world,
            "table inet filter {
                chain others { }
                chain forward {
                    type filter hook forward priority filter; policy drop;
                    meta mark & 0x400000 == 0x400000 accept
                    jump others
                }
            }",
        );
        let is_silent = |space: &str, addr: [&str; 2]| {
            for addr in addr {
                let begun = world.inside(space, || TcpStream::connect_timeout(&socket(addr, 80), SILENCE));
                assert!(begun.is_err(), "{space} to {addr}");
            }
        };
        is_silent("client", VIP);
        is_silent("pod", CLUSTER_IP);
        dataplane.set_accept_mark(MARK).unwrap();
        reaches(world, "client", VIP, 80, "remote", NODE);
        // What is not masqueraded kube-proxy's rules leave to others' as well, but not its answers.
        is_silent("pod", CLUSTER_IP);
        nft(world, "add rule inet filter others ip saddr 10.244.1.0/24 accept");
        nft(world, "add rule inet filter others ip6 saddr fd44:1::/64 accept");
        reaches(world, "pod", CLUSTER_IP, 80, "remote", POD);
        assert_eq!(answers(world, "pod", CLUSTER_IP, 80).len(), 4);
        dataplane.set_accept_mark(0).unwrap();
        is_silent("client", VIP);
    });
}
