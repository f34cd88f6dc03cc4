//! Help: short with `-h`, with two examples in `--help`, for every command; mistakes named.

use super::environment::run;

/// Every command that does something, as its words.
fn commands(command: &clap::Command, words: &[String], out: &mut Vec<Vec<String>>) {
    for below in command.get_subcommands().filter(|below| !below.is_hide_set() && below.get_name() != "help") {
        let words: Vec<String> = words.iter().cloned().chain([below.get_name().to_owned()]).collect();
        if below.has_subcommands() {
            commands(below, &words, out);
        } else {
            out.push(words);
        }
    }
}

#[test]
fn every_command_has_two_examples_and_short_help() {
    let mut all = Vec::new();
    commands(&kpx::cmd::command(), &[], &mut all);
    assert!(all.len() >= 10, "{all:?}");
    let mut poor = Vec::new();
    for words in all {
        let with = |flag: &str| run(&words.iter().map(String::as_str).chain([flag]).collect::<Vec<_>>());
        let (long, short) = (with("--help"), with("-h"));
        assert_eq!((long.code, short.code), (0, 0));
        let example = |line: &&str| line.starts_with("  ") && line.contains("kpx ");
        let examples = long.out.lines().skip_while(|line| !line.starts_with("Examples:")).filter(example).count();
        let lines = short.out.lines().count();
        if examples < 2 || lines > 45 || short.out.lines().any(|line| line.chars().count() > 100) {
            poor.push(format!("kpx {}: {examples} examples, {lines} lines of -h", words.join(" ")));
        }
    }
    assert!(poor.is_empty(), "{poor:#?}");
}

#[test]
fn short_help_of_the_whole() {
    insta::assert_snapshot!(run(&["-h"]).out, @r"
    Moves Kubernetes nodes from kube-proxy to eBPF without an outage

    Usage: kpx [OPTIONS] <COMMAND>

    Commands:
      inspect      Show what serves on this node: Services, backends, flows, BPF objects
      diff         Compare two descriptions of a node's Services
      path         Follow a packet: which rules and maps it meets in each dataplane, and where it ends
      doctor       Find out why a Service does not work, from the API to a connection
      top          Watch how busy each Service and backend is
      monitor      See which backend each connection gets, or why none, as it happens
      audit        Judge what the old dataplanes left on a node: what is wrong, and what to do
      preflight    Try what this kernel and node can do, or foretell it from a kernel's files
      explain      Explain a check of audit or preflight
      snapshot     Record a node, for reports, tests and reading elsewhere
      report       Write what is to be known of a node as one page for a browser
      agent        Keep serving this node's Services, as kube-proxy did
      migrate      Carry this node from kube-proxy to eBPF, and back
      lab          Rehearse on a recorded node, inside network namespaces
      version      Print the version, the eBPF object's hash and the kernel floor
      completions  Print a completion script for a shell
      help         Print this message or the help of the given subcommand(s)

    Options:
      -h, --help     Print help (see more with '--help')
      -V, --version  Print version

    Output:
      -o, --output <FORMAT>  Output format [default: table] [possible values: table, wide, json, yaml,
                             name, markdown, github]
      -q, --quiet            Say less: errors and data only
      -v, --verbose...       Say more on stderr: -v info, -vv debug, -vvv trace

    Node:
          --from <SNAPSHOT>    Read a snapshot (directory or .tar.zst) instead of the live node
          --netns <NAME|PATH>  Network namespace of the node: a name from `ip netns`, or a path

    Cluster:
          --services-from <FILE|DIR>  API objects from a file or folder instead of a cluster
    ");
}

#[test]
fn a_typing_mistake_is_named_and_exits_64() {
    let typo = run(&["inpsect"]);
    assert_eq!((typo.out.as_str(), typo.code), ("", 64));
    insta::assert_snapshot!(typo.err, @r"
    error: unrecognized subcommand 'inpsect'

      tip: a similar subcommand exists: 'inspect'

    Usage: kpx [OPTIONS] <COMMAND>

    For more information, try '--help'.
    ");
    let source = run(&["diff", "api", "iptable"]);
    assert_eq!((source.out.as_str(), source.code), ("", 64));
    insta::assert_snapshot!(source.err, @r"
    error: invalid value 'iptable' for '<B>'
      [possible values: api, iptables, nftables, ipvs, ebpf, cilium]

      tip: a similar value exists: 'iptables'

    For more information, try '--help'.
    ");
}

#[test]
fn usage_that_only_the_command_knows_to_be_wrong_exits_64_too() {
    let same = run(&["diff", "api", "api"]);
    assert_eq!((same.out.as_str(), same.code), ("", 64));
    insta::assert_snapshot!(same.err, @r"
    error: api compared with itself never differs
    hint: name two of api, iptables, nftables, ipvs, ebpf and cilium, such as kpx diff api iptables
    ");
    for wrong in [&["inspect", "services", "--service", "cart"][..], &["inspect", "services", "-o", "xml"], &[]] {
        assert_eq!(run(wrong).code, 64, "{wrong:?}");
    }
}
