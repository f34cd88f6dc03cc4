//! A rule with types: the matches and targets kpx understands, and whether a rule has anything beyond them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};

use ipnet::IpNet;

use super::words::{Word, Words};
use crate::model::Protocol;

/// Which parts a rule has, or which of them are negated: a set of the constants here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parts(u32);

impl Parts {
    /// None.
    pub const NONE: Self = Self(0);
    /// `-s`.
    pub const SOURCE: Self = Self(1);
    /// `-d`.
    pub const DESTINATION: Self = Self(1 << 1);
    /// `-i`.
    pub const IN: Self = Self(1 << 2);
    /// `-o`.
    pub const OUT: Self = Self(1 << 3);
    /// `-p`.
    pub const PROTOCOL: Self = Self(1 << 4);
    /// `--sport`.
    pub const SPORT: Self = Self(1 << 5);
    /// `--dport`.
    pub const DPORT: Self = Self(1 << 6);
    /// `-m mark --mark`.
    pub const MARK: Self = Self(1 << 7);
    /// `-m conntrack --ctstate`.
    pub const CTSTATE: Self = Self(1 << 8);
    /// `-m addrtype --src-type`.
    pub const SRC_TYPE: Self = Self(1 << 9);
    /// `-m addrtype --dst-type`.
    pub const DST_TYPE: Self = Self(1 << 10);
    /// `-m statistic --mode random --probability`.
    pub const PROBABILITY: Self = Self(1 << 11);
    /// `-m recent`.
    pub const RECENT: Self = Self(1 << 12);
    /// `-m comment`.
    pub const COMMENT: Self = Self(1 << 13);
    /// `-m nfacct`.
    pub const NFACCT: Self = Self(1 << 14);
    /// `-j` or `-g`.
    pub const TARGET: Self = Self(1 << 15);
    /// Something that has no type here.
    pub const OTHER: Self = Self(1 << 31);

    /// Both sets together.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// This set without `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether all of `other` is in this set.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// `-m recent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recent<'a> {
    /// `--set` (else `--rcheck`).
    pub set: bool,
    /// `--seconds`.
    pub seconds: Option<u32>,
    /// `--reap`.
    pub reap: bool,
    /// `--name`.
    pub name: &'a [u8],
    /// `--rsource`, not `--rdest`.
    pub source: bool,
}

/// What a target does, with its options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action<'a> {
    /// A built-in verdict without options, or a chain.
    Plain,
    /// `DNAT --to-destination ADDRESS:PORT`.
    Dnat(SocketAddr),
    /// `MARK --set-xmark VALUE/MASK`.
    Mark {
        /// Value.
        value: u32,
        /// Mask.
        mask: u32,
    },
    /// `REJECT --reject-with TYPE`.
    Reject(&'a [u8]),
    /// `MASQUERADE`.
    Masquerade {
        /// `--random-fully`.
        random_fully: bool,
    },
}

/// `-j` or `-g`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    /// Name of the chain, verdict or extension.
    pub name: &'a [u8],
    /// `-g`: does not come back.
    pub goto: bool,
    /// Its options.
    pub action: Action<'a>,
}

/// What kpx understands of a rule.
///
/// A part that stands in [`Self::parts`] has its field set. A rule is understood in full when `parts` lacks
/// [`Parts::OTHER`]; nothing may be concluded from a rule that is not.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spec<'a> {
    /// The parts that are there.
    pub parts: Parts,
    /// The parts that are negated.
    pub negated: Parts,
    /// `-s`.
    pub source: Option<IpNet>,
    /// `-d`.
    pub destination: Option<IpNet>,
    /// `-i`, with `+` at the end for a prefix.
    pub in_interface: Option<&'a [u8]>,
    /// `-o`, with `+` at the end for a prefix.
    pub out_interface: Option<&'a [u8]>,
    /// `-p`, if it is a protocol that a Service can have.
    pub protocol: Option<Protocol>,
    /// `--sport`, first and last.
    pub sport: Option<(u16, u16)>,
    /// `--dport`, first and last.
    pub dport: Option<(u16, u16)>,
    /// `--mark VALUE/MASK`.
    pub mark: Option<(u32, u32)>,
    /// `--ctstate`, comma-separated.
    pub ctstate: Option<&'a [u8]>,
    /// `--src-type`.
    pub src_type: Option<&'a [u8]>,
    /// `--dst-type`.
    pub dst_type: Option<&'a [u8]>,
    /// `--probability`.
    pub probability: Option<f64>,
    /// `-m recent`.
    pub recent: Option<Recent<'a>>,
    /// The first `--comment`.
    pub comment: Option<Word<'a>>,
    /// `--nfacct-name`.
    pub nfacct: Option<&'a [u8]>,
    /// `-j` or `-g`.
    pub target: Option<Target<'a>>,
}

impl<'a> Spec<'a> {
    /// Reads the words of a rule.
    #[inline]
    pub fn read(words: Words<'a>) -> Self {
        let mut spec = Self::default();
        let mut reader = Reader { words, module: Module::Other, negate: false, spec: &mut spec };
        while let Some(word) = reader.words.next() {
            reader.option(word.raw());
        }
        if reader.negate {
            reader.other();
        }
        spec
    }

    /// Whether exactly these parts are there, none of them negated.
    pub fn is(&self, parts: Parts) -> bool {
        self.parts == parts && self.negated == Parts::NONE
    }

    /// The chain, verdict or extension it jumps to; empty for a rule without target.
    pub fn target_name(&self) -> &'a [u8] {
        self.target.map_or(b"", |t| t.name)
    }

    /// The comment where it needs no unescaping, which holds for all that kube-proxy writes.
    pub fn plain_comment(&self) -> Option<&'a str> {
        self.comment.and_then(Word::plain).and_then(|c| std::str::from_utf8(c).ok())
    }

    /// The one destination address.
    pub fn destination_host(&self) -> Option<IpAddr> {
        self.destination.and_then(host)
    }

    /// The one destination port.
    pub fn destination_port(&self) -> Option<u16> {
        self.dport.filter(|(first, last)| first == last).map(|(first, _)| first)
    }
}

/// The address of a network that holds one address.
pub(super) fn host(net: IpNet) -> Option<IpAddr> {
    (net.prefix_len() == net.max_prefix_len()).then(|| net.addr())
}

/// The match extension that the options behind `-m NAME` belong to.
#[derive(Clone, Copy)]
enum Module {
    /// tcp, udp, sctp.
    Ports,
    Comment,
    Statistic,
    Recent,
    Addrtype,
    Conntrack,
    Mark,
    Nfacct,
    /// None, or one without types here.
    Other,
}

impl Module {
    fn named(name: &[u8]) -> Self {
        match name {
            b"tcp" | b"udp" | b"sctp" => Self::Ports,
            b"comment" => Self::Comment,
            b"statistic" => Self::Statistic,
            b"recent" => Self::Recent,
            b"addrtype" => Self::Addrtype,
            b"conntrack" => Self::Conntrack,
            b"mark" => Self::Mark,
            b"nfacct" => Self::Nfacct,
            _ => Self::Other,
        }
    }
}

struct Reader<'r, 'a> {
    words: Words<'a>,
    module: Module,
    negate: bool,
    spec: &'r mut Spec<'a>,
}

impl<'a> Reader<'_, 'a> {
    /// Notes a part; a second one of its kind is more than the types here can say.
    fn add(&mut self, part: Parts) {
        if self.spec.parts.has(part) {
            self.spec.parts = self.spec.parts.and(Parts::OTHER);
        }
        self.spec.parts = self.spec.parts.and(part);
        if std::mem::take(&mut self.negate) {
            self.spec.negated = self.spec.negated.and(part);
        }
    }

    fn other(&mut self) {
        self.negate = false;
        self.spec.parts = self.spec.parts.and(Parts::OTHER);
    }

    /// The next word's meaning, past empty words, and past the `!` of iptables 1.4 and older.
    fn value(&mut self) -> &'a [u8] {
        loop {
            match self.words.next() {
                Some(word) if word.raw().is_empty() => {}
                Some(word) if word.raw() == b"!" => self.negate = true,
                Some(word) => return word.plain().unwrap_or(b"\0"),
                None => return b"",
            }
        }
    }

    /// Reads a value into a part, or gives the rule up as not understood.
    fn set<T>(&mut self, part: Parts, read: impl FnOnce(&'a [u8]) -> Option<T>) -> Option<T> {
        let value = self.value();
        let read = read(value);
        if read.is_some() {
            self.add(part);
        } else {
            self.other();
        }
        read
    }

    fn option(&mut self, option: &'a [u8]) {
        match option {
            [] => {}
            [b'!'] => self.negate = true,
            [b'-', b's'] => self.spec.source = self.set(Parts::SOURCE, read_net),
            [b'-', b'd'] => self.spec.destination = self.set(Parts::DESTINATION, read_net),
            [b'-', b'i'] => self.spec.in_interface = self.set(Parts::IN, some),
            [b'-', b'o'] => self.spec.out_interface = self.set(Parts::OUT, some),
            [b'-', b'p'] => self.spec.protocol = self.set(Parts::PROTOCOL, read_protocol),
            [b'-', b'm'] => self.module = Module::named(self.value()),
            [b'-', jump @ (b'j' | b'g')] => self.target(*jump == b'g'),
            [b'-', b'-', name @ ..] => self.long_option(name),
            _ => self.other(),
        }
    }

    /// An option of the match extension named last.
    fn long_option(&mut self, name: &'a [u8]) {
        match (self.module, name) {
            (Module::Comment, b"comment") => self.comment(),
            (Module::Ports, b"dport") => self.spec.dport = self.set(Parts::DPORT, read_ports),
            (Module::Ports, b"sport") => self.spec.sport = self.set(Parts::SPORT, read_ports),
            (Module::Statistic, b"mode") => {
                if self.value() != b"random" {
                    self.other();
                }
            }
            (Module::Statistic, b"probability") => {
                self.spec.probability = self.set(Parts::PROBABILITY, read_probability);
            }
            (Module::Recent, b"set" | b"rcheck") => self.recent(name == b"set"),
            (Module::Addrtype, b"src-type") => self.spec.src_type = self.set(Parts::SRC_TYPE, some),
            (Module::Addrtype, b"dst-type") => self.spec.dst_type = self.set(Parts::DST_TYPE, some),
            (Module::Conntrack, b"ctstate") => self.spec.ctstate = self.set(Parts::CTSTATE, some),
            (Module::Mark, b"mark") => self.spec.mark = self.set(Parts::MARK, read_mark),
            (Module::Nfacct, b"nfacct-name") => self.spec.nfacct = self.set(Parts::NFACCT, some),
            _ => self.other(),
        }
    }

    /// A comment may be any word, even one that looks like an option.
    fn comment(&mut self) {
        match self.words.next() {
            Some(comment) => {
                self.spec.comment = self.spec.comment.or(Some(comment));
                self.add(Parts::COMMENT);
            }
            None => self.other(),
        }
    }

    /// `recent` in the order in which iptables-save prints its options.
    fn recent(&mut self, set: bool) {
        let mut recent = Recent { set, seconds: None, reap: false, name: b"", source: false };
        loop {
            match self.words.next().map(Word::raw) {
                Some(b"--seconds") => recent.seconds = read_number(self.value()),
                Some(b"--reap") => recent.reap = true,
                Some(b"--name") => recent.name = self.value(),
                Some(b"--mask") => {
                    if !matches!(self.value(), b"255.255.255.255" | b"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff") {
                        self.other();
                    }
                }
                Some(side @ (b"--rsource" | b"--rdest")) => {
                    recent.source = side == b"--rsource";
                    break;
                }
                _ => {
                    self.other();
                    break;
                }
            }
        }
        self.spec.recent = Some(recent);
        self.add(Parts::RECENT);
    }

    fn target(&mut self, goto: bool) {
        let name = self.value();
        if name.is_empty() {
            self.other();
            return;
        }
        let action = match name {
            b"DNAT" => self.only_option(b"--to-destination").and_then(read_socket).map(Action::Dnat),
            b"MARK" => {
                self.only_option(b"--set-xmark").and_then(read_mark).map(|(value, mask)| Action::Mark { value, mask })
            }
            b"REJECT" => self.only_option(b"--reject-with").map(Action::Reject),
            b"MASQUERADE" => match self.words.next().map(Word::raw) {
                None | Some(b"") => Some(Action::Masquerade { random_fully: false }),
                Some(b"--random-fully") => Some(Action::Masquerade { random_fully: true }),
                Some(_) => None,
            },
            _ => Some(Action::Plain),
        };
        if action.is_none() {
            self.other();
        }
        self.spec.target = Some(Target { name, goto, action: action.unwrap_or(Action::Plain) });
        self.add(Parts::TARGET);
        // Options of a target come last; what is left belongs to a target without type here.
        if self.words.by_ref().any(|w| !w.raw().is_empty()) {
            self.other();
        }
    }

    fn only_option(&mut self, name: &[u8]) -> Option<&'a [u8]> {
        (self.words.next()?.raw() == name).then(|| self.value())
    }
}

fn some(value: &[u8]) -> Option<&[u8]> {
    (!value.is_empty() && value != b"\0").then_some(value)
}

fn read_number<T: std::str::FromStr>(value: &[u8]) -> Option<T> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

fn read_probability(value: &[u8]) -> Option<f64> {
    read_number(value).filter(|p: &f64| (0.0..=1.0).contains(p))
}

fn read_protocol(value: &[u8]) -> Option<Protocol> {
    match value {
        b"tcp" => Some(Protocol::Tcp),
        b"udp" => Some(Protocol::Udp),
        b"sctp" => Some(Protocol::Sctp),
        _ => None,
    }
}

fn read_ports(value: &[u8]) -> Option<(u16, u16)> {
    match value.iter().position(|&b| b == b':') {
        Some(colon) => Some((read_number(&value[..colon])?, read_number(&value[colon + 1..])?)),
        None => read_number(value).map(|port| (port, port)),
    }
}

fn read_mark(value: &[u8]) -> Option<(u32, u32)> {
    let hex = |text: &str| u32::from_str_radix(text.strip_prefix("0x")?, 16).ok();
    let text = std::str::from_utf8(value).ok()?;
    match text.split_once('/') {
        Some((value, mask)) => Some((hex(value)?, hex(mask)?)),
        None => Some((hex(text)?, u32::MAX)),
    }
}

fn read_ip(value: &[u8]) -> Option<IpAddr> {
    if value.contains(&b':') {
        std::str::from_utf8(value).ok()?.parse().ok().map(IpAddr::V6)
    } else {
        read_v4(value).map(IpAddr::V4)
    }
}

fn read_net(value: &[u8]) -> Option<IpNet> {
    let Some(slash) = value.iter().rposition(|&b| b == b'/') else {
        return read_ip(value).map(IpNet::from);
    };
    let ip = read_ip(&value[..slash])?;
    // A mask with holes is printed as an address and has no prefix length.
    IpNet::new(ip, read_number(&value[slash + 1..])?).ok()
}

fn read_socket(value: &[u8]) -> Option<SocketAddr> {
    if value.first() == Some(&b'[') {
        return std::str::from_utf8(value).ok()?.parse().ok();
    }
    let colon = value.iter().rposition(|&b| b == b':')?;
    let ip = read_v4(&value[..colon])?;
    Some(SocketAddr::V4(SocketAddrV4::new(ip, read_number(&value[colon + 1..])?)))
}

/// As [`Ipv4Addr`]'s own parser, without the detour over text: dumps hold an address in every other rule.
fn read_v4(value: &[u8]) -> Option<Ipv4Addr> {
    let mut octets = [0_u8; 4];
    let mut parts = value.split(|&b| b == b'.');
    for octet in &mut octets {
        let digits = parts.next()?;
        if digits.is_empty() || digits.len() > 3 || (digits.len() > 1 && digits[0] == b'0') {
            return None;
        }
        let mut sum = 0_u16;
        for &digit in digits {
            if !digit.is_ascii_digit() {
                return None;
            }
            sum = sum * 10 + u16::from(digit - b'0');
        }
        *octet = u8::try_from(sum).ok()?;
    }
    parts.next().is_none().then(|| Ipv4Addr::from(octets))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(rule: &str) -> Spec<'_> {
        Spec::read(Words::new(rule.as_bytes()))
    }

    #[test]
    fn a_dispatch_rule_is_understood_in_full() {
        let rule = r#"-d 10.96.0.1/32 -p tcp -m comment --comment "default/kubernetes:https cluster IP" -m tcp --dport 443 -j KUBE-SVC-NPX46M4PTMTKRN6Y"#;
        let spec = spec(rule);
        let parts = Parts::DESTINATION.and(Parts::PROTOCOL).and(Parts::COMMENT).and(Parts::DPORT).and(Parts::TARGET);
        assert!(spec.is(parts));
        assert_eq!(spec.destination_host(), Some([10, 96, 0, 1].into()));
        assert_eq!(spec.destination_port(), Some(443));
        assert_eq!(spec.protocol, Some(Protocol::Tcp));
        assert_eq!(spec.plain_comment(), Some("default/kubernetes:https cluster IP"));
        assert_eq!(spec.target_name(), b"KUBE-SVC-NPX46M4PTMTKRN6Y");
    }

    #[test]
    fn negation_stands_before_the_option_or_behind_it() {
        for rule in ["! -s 10.0.0.0/8 -j X", "-s ! 10.0.0.0/8 -j X"] {
            let spec = spec(rule);
            assert_eq!(spec.negated, Parts::SOURCE, "{rule}");
            assert_eq!(spec.source, Some("10.0.0.0/8".parse().expect("a network")));
            assert_eq!(spec.parts, Parts::SOURCE.and(Parts::TARGET), "{rule}");
        }
        let spec = spec("-m mark ! --mark 0x4000/0x4000 -j RETURN");
        assert_eq!((spec.negated, spec.mark), (Parts::MARK, Some((0x4000, 0x4000))));
    }

    #[test]
    fn matches_and_targets_have_types() {
        let mark = spec("-j MARK --set-xmark 0x4000/0x0").target.expect("a target");
        assert_eq!(mark.action, Action::Mark { value: 0x4000, mask: 0 });
        let dnat = spec("-p tcp -m tcp -j DNAT --to-destination [fd00::1]:80").target.expect("a target");
        assert_eq!(dnat.action, Action::Dnat("[fd00::1]:80".parse().expect("an address")));
        let goto = spec("-g SOMEWHERE").target.expect("a target");
        assert!(goto.goto && goto.name == b"SOMEWHERE");
        let masquerade = spec("-j MASQUERADE --random-fully").target.expect("a target");
        assert_eq!(masquerade.action, Action::Masquerade { random_fully: true });
        let counted = spec("-m nfacct --nfacct-name  ct_state_invalid_dropped_pkts -j DROP");
        assert_eq!(counted.nfacct, Some(&b"ct_state_invalid_dropped_pkts"[..]));
        assert!(counted.is(Parts::NFACCT.and(Parts::TARGET)));
        let recent = spec("-m recent --rcheck --seconds 10800 --reap --name N --mask 255.255.255.255 --rsource -j N");
        let wanted = Recent { set: false, seconds: Some(10800), reap: true, name: b"N", source: true };
        assert_eq!(recent.recent, Some(wanted));
        assert!(recent.is(Parts::RECENT.and(Parts::TARGET)));
        let half = spec("-m statistic --mode random --probability 0.50000000000 -j N");
        assert_eq!(half.probability, Some(0.5));
        let none = spec(r#"-m comment --comment "nothing happens""#);
        assert!(none.is(Parts::COMMENT) && none.target.is_none());
    }

    #[test]
    fn a_comment_is_never_taken_for_an_option() {
        let bare = spec("-m comment --comment -j -s 10.0.0.1/32");
        assert_eq!(bare.plain_comment(), Some("-j"));
        assert!(bare.is(Parts::COMMENT.and(Parts::SOURCE)) && bare.target.is_none());
        let quoted = spec(r#"-m comment --comment "x -j DROP" -j ACCEPT"#);
        assert_eq!(quoted.target_name(), b"ACCEPT");
    }

    #[test]
    fn addresses_are_read_as_the_standard_library_reads_them() {
        for text in [
            "0.0.0.0",
            "255.255.255.255",
            "10.0.0.1",
            "256.0.0.1",
            "1.2.3",
            "1.2.3.4.5",
            "01.2.3.4",
            "1..2.3",
            "a.b.c.d",
            "",
            "1.2.3.4 ",
            "1000.1.1.1",
            "0.0.0.00",
        ] {
            assert_eq!(read_v4(text.as_bytes()), text.parse().ok(), "{text:?}");
        }
    }

    #[test]
    fn what_has_no_type_is_never_overlooked() {
        for rule in [
            "-m multiport --dports 80,443 -j X",
            "-m set --match-set KUBE-CLUSTER-IP dst,dst -j X",
            "-m physdev ! --physdev-is-in -j X",
            "-m ipvs --vaddr 1.2.3.4 -j X",
            "-p icmp -j X",
            "-s 10.0.0.0/255.0.255.0 -j X",
            "-s 10.0.0.1/32 -s 10.0.0.2/32 -j X",
            "-j DNAT --to-destination 10.0.0.1",
            "-j DNAT --to-destination 10.0.0.1:80-90",
            "-j DNAT --to-destination 10.0.0.1:80 --random",
            "-j MASQUERADE --to-ports 1024-2048",
            "-j LOG --log-prefix \"KUBE-SERVICES \"",
            "-m statistic --mode nth --every 2 --packet 0 -j X",
            "-m recent --update --seconds 10 --name N --mask 255.255.255.255 --rsource -j X",
            "-m recent --set --name N --mask 255.255.255.0 --rsource -j X",
            "--dport 80 -j X",
            "-f -j X",
            "-j\tX",
            "-j",
            "! -j X !",
            "-m comment --comment",
        ] {
            assert!(spec(rule).parts.has(Parts::OTHER), "{rule}");
        }
    }
}
