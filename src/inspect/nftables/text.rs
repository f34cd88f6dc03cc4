//! Rules and elements as `nft list` prints them.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use super::ruleset::{Addresses, Balance, Key, Match, Rule, Side, Statement, Verdict};
use crate::model::Family;

/// nftables' word for a family.
pub(super) const fn word(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}

impl Rule {
    /// The rule without its comment, as `nft list` prints it in a table of this family.
    pub const fn text(&self, family: Family) -> RuleText<'_> {
        RuleText { rule: self, family }
    }
}

/// A rule to be printed.
#[derive(Clone, Copy, Debug)]
pub struct RuleText<'a> {
    rule: &'a Rule,
    family: Family,
}

impl fmt::Display for RuleText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, statement) in self.rule.statements.iter().enumerate() {
            if i > 0 {
                f.write_str(" ")?;
            }
            self.statement(statement, f)?;
        }
        Ok(())
    }
}

impl RuleText<'_> {
    fn statement(&self, statement: &Statement, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ip = word(self.family);
        match statement {
            Statement::Match(m) => self.condition(m, f),
            Statement::MarkOr(bits) => write!(f, "meta mark set meta mark | {bits:#010x}"),
            Statement::MarkXor(bits) => write!(f, "meta mark set meta mark ^ {bits:#010x}"),
            Statement::ServiceMap(map) => write!(f, "{ip} daddr . meta l4proto . th dport vmap @{map}"),
            Statement::NodePortMap(map) => write!(f, "meta l4proto . th dport vmap @{map}"),
            Statement::Spread(balance) => {
                write!(f, "numgen random mod {} vmap ", balance.modulus)?;
                choices(f, balance, |verdict, f| write!(f, "{verdict}"))
            }
            Statement::DnatSpread(balance) => {
                write!(f, "dnat {ip} to numgen random mod {} map ", balance.modulus)?;
                choices(f, balance, |(addr, port), f| write!(f, "{addr} . {port}"))
            }
            Statement::Dnat(addr, port) => write!(f, "dnat to {}", std::net::SocketAddr::new(*addr, *port)),
            Statement::Remember(set) => write!(f, "update @{set} {{ {ip} saddr }}"),
            Statement::Masquerade { fully_random: true } => f.write_str("masquerade fully-random"),
            Statement::Masquerade { fully_random: false } => f.write_str("masquerade"),
            Statement::Reject => f.write_str("reject"),
            Statement::Verdict(verdict) => write!(f, "{verdict}"),
            Statement::Elsewhere(text) | Statement::Other(text) => f.write_str(text),
        }
    }

    fn condition(&self, condition: &Match, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ip = word(self.family);
        let negation = |not: bool| if not { "!= " } else { "" };
        match condition {
            Match::Address { side, not, among } => {
                write!(f, "{ip} {side} {}", negation(*not))?;
                match among {
                    Addresses::Set(name) => write!(f, "@{name}"),
                    Addresses::Nets(nets) => match nets.as_slice() {
                        [net] => f.write_str(&net_text(*net)),
                        nets => {
                            let nets: Vec<_> = nets.iter().map(|net| net_text(*net)).collect();
                            write!(f, "{{ {} }}", nets.join(", "))
                        }
                    },
                }
            }
            Match::Local(side) => write!(f, "fib {side} type local"),
            Match::Protocol(protocol) => write!(f, "meta l4proto {}", protocol.lower()),
            Match::Port(protocol, port) => write!(f, "{} dport {port}", protocol.lower()),
            Match::Interface { not, by_index, name } => {
                write!(f, "{} {}\"{name}\"", if *by_index { "iif" } else { "iifname" }, negation(*not))
            }
            Match::Marked { bits, set } => {
                write!(f, "meta mark & {bits:#010x} {} 0x00000000", if *set { "!=" } else { "==" })
            }
            Match::New => f.write_str("ct state new"),
            Match::Translated => f.write_str("ct status dnat"),
            Match::Hairpin(set) => write!(f, "{ip} saddr . {ip} daddr . meta l4proto . th dport @{set}"),
        }
    }
}

fn choices<T>(
    f: &mut fmt::Formatter<'_>,
    balance: &Balance<T>,
    mut each: impl FnMut(&T, &mut fmt::Formatter<'_>) -> fmt::Result,
) -> fmt::Result {
    f.write_str("{ ")?;
    for (i, (number, choice)) in balance.choices.iter().enumerate() {
        write!(f, "{}{number} : ", if i == 0 { "" } else { ", " })?;
        each(choice, f)?;
    }
    f.write_str(" }")
}

/// A network as nftables prints it: a single address has no length.
fn net_text(net: IpNet) -> String {
    if net.prefix_len() == net.max_prefix_len() { net.addr().to_string() } else { net.to_string() }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Source => "saddr",
            Self::Destination => "daddr",
        })
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accept => f.write_str("accept"),
            Self::Drop => f.write_str("drop"),
            Self::Continue => f.write_str("continue"),
            Self::Return => f.write_str("return"),
            Self::Jump(chain) => write!(f, "jump {chain}"),
            Self::Goto(chain) => write!(f, "goto {chain}"),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(ip) => write!(f, "{ip}"),
            Self::Service(ip, protocol, port) => write!(f, "{ip} . {} . {port}", protocol.lower()),
            Self::NodePort(protocol, port) => write!(f, "{} . {port}", protocol.lower()),
            Self::Hairpin(source, destination, protocol, port) => {
                write!(f, "{source} . {destination} . {} . {port}", protocol.lower())
            }
            Self::Other(text) => f.write_str(text),
        }
    }
}

/// The network of one address.
pub(super) fn host(ip: IpAddr) -> IpNet {
    IpNet::from(ip)
}
