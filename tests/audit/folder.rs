//! A snapshot to edit: the recorded node that the repository carries, and what a check may want beside it.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use kpx::audit::Judged;
use kpx::capture::NodeOptions;
use serde_json::Value;
use tempfile::TempDir;

/// A snapshot in a folder of its own.
pub(super) struct Folder(TempDir);

fn data(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(path)
}

fn unpacked(path: &Path) -> String {
    let mut text = String::new();
    flate2::read::GzDecoder::new(&fs_err::read(path).expect("it is there")[..])
        .read_to_string(&mut text)
        .expect("gzip");
    text
}

impl Folder {
    /// A node in iptables mode, v1.36 on iptables-nft, in sync with its API objects.
    pub(super) fn iptables() -> Self {
        let folder = Self(tempfile::tempdir().expect("a folder"));
        for entry in fs_err::read_dir(data("lab/node")).expect("it is there") {
            let path = entry.expect("it can be read").path();
            fs_err::copy(&path, folder.path(path.file_name().and_then(|n| n.to_str()).expect("a name")))
                .expect("copied");
        }
        folder.write("nft-ruleset.json", "{\"nftables\": [{\"metainfo\": {\"version\": \"1.0.6\"}}]}");
        folder.write("bpf.json", "{\"programs\": [], \"links\": [], \"maps\": []}");
        folder.write("kernel-config.txt", &fs_err::read_to_string(data("kernels/config-6.12")).expect("text"));
        folder.write("setup.json", &serde_json::to_string(&kpx::capture::Setup::default()).expect("plain"));
        folder.write("processes.json", "[{\"name\": \"kube-proxy\", \"pid\": 9, \"flags\": []}]");
        let health_checks = [30722, 31313, 32001, 32066].map(|port| (port, "kube-proxy"));
        folder.listeners(&[&[(10256, "kube-proxy"), (10249, "kube-proxy")], &health_checks[..]].concat());
        folder
    }

    /// A copy of a recorded node.
    pub(super) fn copy_of(world: &Path) -> Self {
        let folder = Self(tempfile::tempdir().expect("a folder"));
        for entry in fs_err::read_dir(world).expect("it is there") {
            let path = entry.expect("it can be read").path();
            // Recordings may be read-only, and so would be their copies.
            let bytes = fs_err::read(&path).expect("it can be read");
            fs_err::write(folder.path(path.file_name().and_then(|n| n.to_str()).expect("a name")), bytes)
                .expect("written");
        }
        folder
    }

    /// The same objects served in nftables mode.
    pub(super) fn nftables(version: &str) -> Self {
        let folder = Self::iptables();
        folder.write("proxyMode.txt", "nftables");
        folder.write("iptables-save.txt", "");
        folder.write("ip6tables-save.txt", "");
        folder.write("nfacct-list.txt", "");
        folder.replace("sysctl.txt", "net.ipv4.conf.all.route_localnet = 1", "net.ipv4.conf.all.route_localnet = 0");
        folder.write("nft-ruleset.json", &unpacked(&data(&format!("nftables/{version}/nft-ruleset.json.gz"))));
        folder
    }

    pub(super) fn folder(&self) -> &Path {
        self.0.path()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(super) fn read(&self, name: &str) -> String {
        match fs_err::read_to_string(self.path(name)) {
            Ok(text) => text,
            Err(_) => unpacked(&self.path(&format!("{name}.gz"))),
        }
    }

    pub(super) fn write(&self, name: &str, text: &str) {
        if let Some(folder) = self.path(name).parent() {
            fs_err::create_dir_all(folder).expect("made");
        }
        let _ = fs_err::remove_file(self.path(&format!("{name}.gz")));
        fs_err::write(self.path(name), text).expect("written");
    }

    pub(super) fn write_bytes(&self, name: &str, bytes: &[u8]) {
        fs_err::write(self.path(name), bytes).expect("written");
    }

    pub(super) fn remove(&self, name: &str) {
        let packed = format!("{name}.gz");
        let name = if self.path(name).exists() { name } else { &packed };
        fs_err::remove_file(self.path(name)).expect("it was there");
    }

    /// Replaces a text where it first stands.
    pub(super) fn replace(&self, name: &str, from: &str, to: &str) {
        let text = self.read(name);
        assert!(text.contains(from), "{name} has {from}");
        self.write(name, &text.replacen(from, to, 1));
    }

    /// Replaces a text wherever it stands.
    pub(super) fn replace_all(&self, name: &str, from: &str, to: &str) {
        let text = self.read(name);
        assert!(text.contains(from), "{name} has {from}");
        self.write(name, &text.replace(from, to));
    }

    /// Takes out the lines with a text in them.
    pub(super) fn without(&self, name: &str, part: &str) {
        let text = self.read(name);
        assert!(text.contains(part), "{name} has {part}");
        let kept: String = text.lines().filter(|line| !line.contains(part)).flat_map(|line| [line, "\n"]).collect();
        self.write(name, &kept);
    }

    /// Adds lines to a table of iptables-save: chains after its heading, rules before its COMMIT.
    pub(super) fn add(&self, name: &str, table: &str, lines: &[&str]) {
        let text = self.read(name);
        let heading = format!("*{table}\n");
        let start = text.find(&heading).unwrap_or_else(|| panic!("{name} has {heading}")) + heading.len();
        let end = start + text[start..].find("COMMIT").expect("it ends");
        let join = |wanted: fn(&&&str) -> bool| -> String {
            lines.iter().filter(wanted).flat_map(|line| [line, "\n"]).collect()
        };
        let (chains, rules) = (join(|line| line.starts_with(':')), join(|line| !line.starts_with(':')));
        self.write(name, &format!("{}{chains}{}{rules}{}", &text[..start], &text[start..end], &text[end..]));
    }

    /// Adds a line in front of the first one with a text in it.
    pub(super) fn before(&self, name: &str, part: &str, line: &str) {
        let text = self.read(name);
        let at = text.find(part).unwrap_or_else(|| panic!("{name} has {part}"));
        let start = text[..at].rfind('\n').map_or(0, |n| n + 1);
        self.write(name, &format!("{}{line}\n{}", &text[..start], &text[start..]));
    }

    /// Edits a file of JSON.
    pub(super) fn json(&self, name: &str, edit: impl FnOnce(&mut Value)) {
        let mut value = serde_json::from_str(&self.read(name)).expect("JSON");
        edit(&mut value);
        self.write(name, &value.to_string());
    }

    /// Objects of one kind in the nft ruleset.
    pub(super) fn nft(&self, kind: &str, mut edit: impl FnMut(&mut Value)) {
        self.json("nft-ruleset.json", |ruleset| {
            for object in ruleset["nftables"].as_array_mut().expect("a list") {
                if let Some(object) = object.get_mut(kind) {
                    edit(object);
                }
            }
        });
    }

    pub(super) fn listeners(&self, all: &[(u16, &str)]) {
        let one = |(port, program): &(u16, &str)| serde_json::json!({"port": port, "ip": "0.0.0.0", "pid": 9, "program": program});
        self.write("listeners.json", &Value::Array(all.iter().map(one).collect()).to_string());
    }

    pub(super) fn judged(&self) -> Vec<Judged> {
        super::judged(NodeOptions { from: Some(self.0.path().to_owned()), ..NodeOptions::default() })
    }
}
