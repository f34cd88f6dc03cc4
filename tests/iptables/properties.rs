//! Generated texts: what is printed parses to the same, and no bytes make the parser or the lift panic.

use kpx::inspect::iptables::{lift, parse, quote};
use proptest::prelude::*;

/// A word as iptables-save would write it.
fn word() -> impl Strategy<Value = String> {
    let bare = "[A-Za-z0-9_./:-]{1,20}";
    let quoted = "[ -~]{0,24}".prop_map(|text| {
        let mut out = Vec::new();
        quote(text.as_bytes(), &mut out);
        String::from_utf8(out).expect("ASCII")
    });
    prop_oneof![3 => bare.prop_map(String::from), 1 => quoted, 1 => Just("!".to_owned()), 1 => Just(String::new())]
}

const CHAINS: [&str; 5] =
    ["OUTPUT", "KUBE-SERVICES", "KUBE-MARK-MASQ", "KUBE-SVC-NPX46M4PTMTKRN6Y", "KUBE-SEP-ONT5M3GKZCUX63CA"];

fn table() -> impl Strategy<Value = String> {
    let counters = proptest::option::of((any::<u64>(), any::<u64>()));
    let rule = (counters, 0..CHAINS.len(), proptest::collection::vec(word(), 0..12));
    let line = prop_oneof![
        8 => rule.prop_map(|(counters, chain, words)| {
            let counters = counters.map(|(p, b)| format!("[{p}:{b}] ")).unwrap_or_default();
            let words: String = words.iter().flat_map(|w| [" ", w]).collect();
            format!("{counters}-A {}{words}\n", CHAINS[chain])
        }),
        1 => "# [ -~]{0,30}".prop_map(|c| format!("{c}\n")),
        1 => Just("\n".to_owned()),
    ];
    ("(nat|filter|mangle|raw)", proptest::collection::vec(line, 0..20)).prop_map(|(name, lines)| {
        let chains: String =
            CHAINS.iter().flat_map(|c| [":", c, if *c == "OUTPUT" { " ACCEPT" } else { " -" }, " [1:2]\n"]).collect();
        format!("*{name}\n{chains}{}COMMIT\n", lines.concat())
    })
}

/// Lines of real dumps, shuffled: shapes that nearly are kube-proxy's.
fn real_lines() -> Vec<String> {
    let texts =
        [include_str!("../data/iptables/v1.36-nft-ipv6.txt"), include_str!("../data/iptables/v1.23-nft-ipv6.txt")];
    texts.iter().flat_map(|t| t.lines()).filter(|l| l.starts_with('[')).map(str::to_owned).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn printing_and_parsing_are_inverse(tables in proptest::collection::vec(table(), 0..4)) {
        let text = tables.concat();
        let dump = parse(text.as_bytes()).expect("a generated text parses");
        let printed = dump.to_bytes();
        prop_assert_eq!(String::from_utf8_lossy(&printed), text.as_str());
        let again = parse(&printed).expect("a printed text parses");
        prop_assert_eq!(dump.tables().len(), again.tables().len());
        for (a, b) in dump.tables().iter().zip(again.tables()) {
            prop_assert_eq!(a.chains(), b.chains());
            prop_assert_eq!(a.rules(), b.rules());
        }
        lift(Some(&dump), Some(&again));
    }

    #[test]
    fn a_quoted_word_means_what_was_quoted(text in "\\PC{0,40}") {
        let mut rule = b"*nat\n:A - [0:0]\n-A A --comment ".to_vec();
        quote(text.as_bytes(), &mut rule);
        rule.extend_from_slice(b" -j B\nCOMMIT\n");
        // A newline cannot stand in a rule; iptables has no such comments.
        prop_assume!(!text.contains('\n'));
        let dump = parse(&rule).expect("parses");
        let words: Vec<_> = dump.tables()[0].rules()[0].words().map(|w| w.text().into_owned()).collect();
        prop_assert_eq!(words, ["--comment", text.as_str(), "-j", "B"]);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        if let Ok(dump) = parse(&bytes) {
            prop_assert_eq!(dump.to_bytes(), bytes);
        }
    }

    #[test]
    fn bytes_that_look_like_rules_never_panic(text in "[*:#\\[\\]\"\\\\! A-Ca-c0-9\n-]{0,300}") {
        let text = format!("*nat\n:A - [0:0]\n{text}\nCOMMIT\n");
        if let Ok(dump) = parse(text.as_bytes()) {
            lift(Some(&dump), None);
            let _ = dump.to_string();
        }
    }

    /// Rules of real dumps in any order, some missing, some twice: the lift never panics and never claims more frontends
    /// than there are rules.
    #[test]
    fn a_mangled_dump_never_panics(picks in proptest::collection::vec(any::<prop::sample::Index>(), 0..300)) {
        let lines = real_lines();
        let mut chains = std::collections::BTreeSet::new();
        let rules: String = picks.iter().flat_map(|pick| {
            let line = pick.get(&lines).as_str();
            chains.insert(line.split(' ').nth(2).expect("a chain"));
            [line, "\n"]
        }).collect();
        let declared: String = chains.iter().flat_map(|c| [":", c, " - [0:0]\n"]).collect();
        let text = format!("*nat\n{declared}{rules}COMMIT\n*filter\n{declared}{rules}COMMIT\n");
        let dump = parse(text.as_bytes()).expect("parses");
        let lifted = lift(None, Some(&dump));
        prop_assert!(lifted.table.frontends().len() <= 2 * picks.len());
    }
}
