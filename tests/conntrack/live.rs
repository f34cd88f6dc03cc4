//! A namespace into which the conntrack tool put entries.

use kpx::capture::netlink::{Netlink, Request};
use kpx::capture::{Node, NodeOptions};
use kpx::inspect::conntrack::{Census, Entry, Form, Nat, read_node};
use kpx::model::ServiceTable;

use crate::capture::network::Netns;
use crate::support;

/// Entries of every kind, in the words of `conntrack -I`.
const ENTRIES: [&str; 5] = [
    "-p tcp -s 10.0.0.1 -d 10.96.0.10 --sport 40000 --dport 80 -r 10.244.0.5 -q 10.0.0.1 --reply-port-src 8080 \
     --reply-port-dst 40000 --state ESTABLISHED -t 1000 -u ASSURED -m 7",
    "-p udp -s 10.0.0.1 -d 10.96.0.10 --sport 40001 --dport 53 -r 10.96.0.10 -q 10.0.0.1 --reply-port-src 53 \
     --reply-port-dst 40001 -t 1000 -g 10.244.0.6:5353",
    "-p udp -s 10.0.0.1 -d 10.0.0.2 --sport 40002 --dport 53 -t 1000 -w 9",
    "-p sctp -s 10.0.0.1 -d 10.0.0.2 --sport 40003 --dport 99 --state ESTABLISHED --orig-vtag 1 --reply-vtag 2 -t 1000",
    "-p udp -s fd00::1 -d fd00::2 --sport 40004 --dport 53 -t 1000 -u SEEN_REPLY",
];

fn read(netns: &Netns) -> Vec<Entry> {
    netns.inside(|| {
        let node = Node::open(&NodeOptions::default()).expect("the live node opens");
        let mut entries = Vec::new();
        let form = read_node(&node, |entry| entries.push(*entry)).expect("the kernel tells");
        assert_eq!(form, Form::Netlink);
        entries
    })
}

#[test]
fn the_kernel_tells_what_the_tool_put_there() {
    if !support::privileged() {
        return;
    }
    let netns = Netns::new();
    assert!(read(&netns).is_empty(), "nothing is there yet");
    for words in ENTRIES {
        let args: Vec<&str> = ["-I"].into_iter().chain(words.split_ascii_whitespace()).collect();
        netns.run("conntrack", &args, None);
    }
    let ours = read(&netns);
    // What the tool prints of the same table, by our reader of texts.
    let listed = ["ipv4", "ipv6"].map(|family| netns.run("conntrack", &["-L", "-o", "extended", "-f", family], None));
    let (by_tool, _) = super::entries(listed.concat().as_bytes());
    assert_eq!(super::told(&ours), super::told(&by_tool));
    assert_eq!(ours.len(), ENTRIES.len());

    let find = |port: u16| ours.iter().find(|e| e.original.source.port() == port).expect("it is there");
    let tcp = find(40000);
    assert_eq!((tcp.phase(), tcp.mark, tcp.nat()), ("ESTABLISHED", 7, Nat::Destination));
    assert_eq!(tcp.reply.source, "10.244.0.5:8080".parse().expect("an address"));
    assert!(tcp.timeout.is_some_and(|t| (900..=1000).contains(&t)), "{tcp:?}");
    assert_eq!(find(40001).reply.source, "10.244.0.6:5353".parse().expect("an address"));
    assert_eq!(find(40002).zone, 9);
    assert_eq!(find(40003).state, Some("ESTABLISHED"));
    assert_eq!(find(40004).phase(), "REPLIED");

    let table = ServiceTable::default();
    let mut census = Census::new(&table);
    for entry in &ours {
        census.add(entry);
    }
    // nf_nat translates the one whose destination was given to it; a translated reply tuple alone translates nothing.
    let by: Vec<String> = census.translations().iter().map(|((nat, by), n)| format!("{nat} {by:?} {n}")).collect();
    assert_eq!(by, ["none None 3", "DNAT Some(Netfilter) 1", "DNAT Some(Other) 1"]);
}

#[test]
fn a_table_told_in_parts_is_told_once_even_by_a_kernel_that_does_not_filter() {
    if !support::privileged() {
        return;
    }
    let netns = Netns::new();
    for words in ENTRIES {
        let args: Vec<&str> = ["-I"].into_iter().chain(words.split_ascii_whitespace()).collect();
        netns.run("conntrack", &args, None);
    }
    let all: usize = netns.run("conntrack", &["-C"], None).trim().parse().expect("a number");
    let told = netns.inside(|| {
        let whole = || Request::netfilter(1, 1, 0);
        let by_mark = |mark: u32, mask: u32| whole().with(8, &mark.to_be_bytes()).with(21, &mask.to_be_bytes());
        [vec![by_mark(7, 7), by_mark(0, 7)], vec![whole(), whole(), whole()]].map(|parts| {
            let sockets = parts.iter().map(|_| Netlink::conntrack().expect("a socket").expect("ctnetlink")).collect();
            let mut told = 0;
            Netlink::dump_parts(sockets, &parts, |_, _| told += 1).expect("the kernel tells");
            told
        })
    });
    assert_eq!(told, [all; 2]);
}

#[test]
fn a_snapshot_keeps_what_the_kernel_told() {
    if !support::privileged() {
        return;
    }
    let netns = Netns::new();
    let args: Vec<&str> = ["-I"].into_iter().chain(ENTRIES[1].split_ascii_whitespace()).collect();
    netns.run("conntrack", &args, None);
    let folder = tempfile::tempdir().expect("a folder");
    let target = folder.path().join("node");
    let path = target.display().to_string();
    let taken = crate::cli::environment::run(&["snapshot", &path, "--netns", &netns.name, "-q"]);
    assert!(target.join("netlink-conntrack.bin").exists(), "{}", taken.err);
    let (kept, form) = super::entries(&fs_err::read(target.join("netlink-conntrack.bin")).expect("it is there"));
    assert_eq!((form, super::told(&kept)), (Form::Netlink, super::told(&read(&netns))));
    assert!(fs_err::read_to_string(target.join("conntrack-S.txt")).expect("it is there").starts_with("cpu=0 "));
}
