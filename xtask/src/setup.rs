//! What the machine needs besides Rust: the kernel's own tools, by apt-get, and only those that are missing.

use anyhow::{Result, bail};

use crate::shell::{Privilege, cmd, say, which};

/// A program and the Debian package that has it.
const TOOLS: [(&str, &str); 10] = [
    ("iptables-save", "iptables"),
    ("nft", "nftables"),
    ("nfacct", "nfacct"),
    ("ipset", "ipset"),
    ("conntrack", "conntrack"),
    ("ip", "iproute2"),
    ("ethtool", "ethtool"),
    ("bpftool", "bpftool"),
    ("sysctl", "procps"),
    ("curl", "curl"),
];

/// What is built with: libFuzzer, which the fuzz targets are linked with, is compiled from its source.
const COMPILERS: [(&str, &str); 1] = [("c++", "g++")];

/// What test machines are made with.
const MACHINE_TOOLS: [(&str, &str); 4] =
    [("qemu-system-x86_64", "qemu-system-x86"), ("depmod", "kmod"), ("xz", "xz-utils"), ("strip", "binutils")];

/// The programs that tests use.
pub(crate) fn programs() -> impl Iterator<Item = &'static str> {
    TOOLS.iter().map(|(program, _)| *program)
}

/// Installs what tests are built with or use and is missing. The error says what to install by hand.
pub(crate) fn run(privilege: &Privilege) -> Result<()> {
    install(TOOLS.iter().chain(&COMPILERS), privilege)
}

/// The same for what test machines are made with.
pub(crate) fn machines(privilege: &Privilege) -> Result<()> {
    install(MACHINE_TOOLS.iter(), privilege)
}

fn install<'t>(tools: impl Iterator<Item = &'t (&'t str, &'t str)>, privilege: &Privilege) -> Result<()> {
    let missing: Vec<&str> =
        tools.filter(|(program, _)| which(program).is_none()).map(|(_, package)| *package).collect();
    if missing.is_empty() {
        say("nothing is missing");
        return Ok(());
    }
    let by_hand = format!("install by hand: {}", missing.join(" "));
    if which("apt-get").is_none() {
        bail!("this is no Debian machine (no apt-get); {by_hand}");
    }
    if let Privilege::None(reason) = privilege {
        bail!("{reason}; {by_hand}");
    }
    let apt = |args: &[&str]| {
        let words = ["DEBIAN_FRONTEND=noninteractive", "apt-get", "--quiet"].iter().chain(args).copied();
        cmd("env", words).privileged(privilege).run()
    };
    apt(&["update"])?;
    let mut install = vec!["install", "--yes", "--no-install-recommends"];
    install.extend(&missing);
    apt(&install)
}
