//! A kernel by its version and by the configuration that it was built with.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// A kernel by its version, two numbers of which tell features.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32);

/// A text that is no version.
#[derive(Debug, thiserror::Error)]
#[error("{text} is no kernel version")]
pub struct VersionError {
    /// As given.
    pub text: String,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

impl FromStr for Version {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, VersionError> {
        let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(str::parse);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(major)), Some(Ok(minor))) => Ok(Self(major, minor)),
            _ => Err(VersionError { text: text.to_owned() }),
        }
    }
}

/// How an option of the configuration is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Built {
    /// `=y`: in the kernel.
    In,
    /// `=m`: a module.
    Module,
}

/// The options of a kernel's configuration that are on, without `CONFIG_`.
#[derive(Clone, Debug, Default)]
pub struct Config {
    options: BTreeMap<String, Built>,
    version: Option<Version>,
}

impl Config {
    /// Reads the text of a configuration; `None` if it is none.
    pub fn parse(text: &str) -> Option<Self> {
        let mut config = Self::default();
        let mut lines = 0;
        for line in text.lines() {
            if let Some(release) = line.strip_prefix("# Linux/").and_then(|rest| rest.split_whitespace().nth(1)) {
                config.version = release.parse().ok();
            }
            let Some(rest) = line.strip_prefix("CONFIG_") else {
                lines += usize::from(line.starts_with("# CONFIG_"));
                continue;
            };
            lines += 1;
            match rest.split_once('=') {
                Some((name, "y")) => drop(config.options.insert(name.to_owned(), Built::In)),
                Some((name, "m")) => drop(config.options.insert(name.to_owned(), Built::Module)),
                _ => {}
            }
        }
        (lines > 0).then_some(config)
    }

    /// How an option is on, such as `NFT_FIB`; `None` if it is off.
    pub fn option(&self, name: &str) -> Option<Built> {
        self.options.get(name).copied()
    }

    /// The version that its first lines name.
    pub const fn version(&self) -> Option<Version> {
        self.version
    }
}

#[cfg(test)]
mod tests {
    use super::{Built, Config, Version};

    #[test]
    fn versions_of_distributors() {
        assert_eq!("6.12.117+deb12-cloud-amd64".parse::<Version>().ok(), Some(Version(6, 12)));
        assert_eq!("4.18".parse::<Version>().ok(), Some(Version(4, 18)));
        assert!("newest".parse::<Version>().is_err());
        assert!(Version(5, 10) > Version(5, 4));
    }

    #[test]
    fn options_are_in_a_module_or_off() {
        let text =
            "# Linux/x86 6.1.192 Kernel Configuration\nCONFIG_BPF=y\nCONFIG_VETH=m\n# CONFIG_NET_XGRESS is not set\n";
        let config = Config::parse(text).expect("a configuration");
        assert_eq!(config.version(), Some(Version(6, 1)));
        let options = ["BPF", "VETH", "NET_XGRESS"].map(|name| config.option(name));
        assert_eq!(options, [Some(Built::In), Some(Built::Module), None]);
        assert!(Config::parse("hello\n").is_none());
    }
}
