//! What connection tracking did, by processor: the text of `conntrack -S`.

use serde::Serialize;

/// The counters of one processor, or their sum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Cpu {
    /// Packets of entries found while another was to be inserted.
    pub found: u64,
    /// Packets that fit no flow.
    pub invalid: u64,
    /// Entries that could not be inserted: another had the tuple.
    pub insert_failed: u64,
    /// Packets dropped since no entry could be made.
    pub drop: u64,
    /// Entries given up to make room.
    pub early_drop: u64,
    /// Packets with errors.
    pub error: u64,
    /// Searches begun again since the table was resized.
    pub search_restart: u64,
    /// Clashes resolved by using the entry that was there.
    pub clash_resolve: u64,
    /// Packets dropped since the chain of the hash table was too long.
    pub chaintoolong: u64,
}

/// All processors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// By number of the processor, as listed.
    pub cpus: Vec<Cpu>,
}

impl Stats {
    /// Reads `cpu=0 found=0 invalid=1 …`, one line a processor; `None` if no line is one.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(text);
        let cpus: Vec<Cpu> = text.lines().filter(|line| line.starts_with("cpu=")).map(cpu).collect();
        (!cpus.is_empty()).then_some(Self { cpus })
    }

    /// The sum over all processors.
    pub fn total(&self) -> Cpu {
        self.cpus.iter().fold(Cpu::default(), |sum, cpu| Cpu {
            found: sum.found.saturating_add(cpu.found),
            invalid: sum.invalid.saturating_add(cpu.invalid),
            insert_failed: sum.insert_failed.saturating_add(cpu.insert_failed),
            drop: sum.drop.saturating_add(cpu.drop),
            early_drop: sum.early_drop.saturating_add(cpu.early_drop),
            error: sum.error.saturating_add(cpu.error),
            search_restart: sum.search_restart.saturating_add(cpu.search_restart),
            clash_resolve: sum.clash_resolve.saturating_add(cpu.clash_resolve),
            chaintoolong: sum.chaintoolong.saturating_add(cpu.chaintoolong),
        })
    }
}

fn cpu(line: &str) -> Cpu {
    let mut cpu = Cpu::default();
    for (key, value) in line.split_ascii_whitespace().filter_map(|word| word.split_once('=')) {
        let Ok(value) = value.parse() else { continue };
        match key {
            "found" => cpu.found = value,
            "invalid" => cpu.invalid = value,
            "insert_failed" => cpu.insert_failed = value,
            "drop" => cpu.drop = value,
            "early_drop" => cpu.early_drop = value,
            "error" => cpu.error = value,
            "search_restart" => cpu.search_restart = value,
            "clash_resolve" => cpu.clash_resolve = value,
            "chaintoolong" => cpu.chaintoolong = value,
            _ => {}
        }
    }
    cpu
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_and_summed() {
        let text =
            b"cpu=0   \tfound=1 invalid=2 insert=0 insert_failed=3 drop=4 early_drop=5 error=6 search_restart=7 \
                     clash_resolve=8 chaintoolong=9 \ncpu=1 found=10 drop=18446744073709551615\nrubbish\n";
        let stats = Stats::parse(text).expect("two processors");
        assert_eq!(stats.cpus.len(), 2);
        let total = stats.total();
        assert_eq!((total.found, total.invalid, total.insert_failed), (11, 2, 3));
        assert_eq!((total.drop, total.chaintoolong), (u64::MAX, 9));
        assert_eq!(Stats::parse(b"conntrack v1.4.7: no\n"), None);
    }
}
