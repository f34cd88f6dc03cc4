//! Damaged and hostile snapshots: an error that names the file, never a panic.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use kpx::capture::{CaptureError, Damage, Item};
use tar::{EntryType, Header};

use super::{kpx, scratch, try_open};

/// Packs tar entries of which the name is taken as it is.
fn archive(folder: &Path, entries: &[(&[u8], EntryType, &[u8])]) -> PathBuf {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, kind, content) in entries {
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        header.set_entry_type(*kind);
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        tar.append(&header, *content).expect("packs");
    }
    write(folder, &tar.into_inner().expect("packs"))
}

fn write(folder: &Path, tar: &[u8]) -> PathBuf {
    let path = folder.join("bad.tar.zst");
    fs_err::write(&path, zstd::encode_all(tar, 1).expect("compresses")).expect("written");
    path
}

fn damage(path: &Path) -> (String, Damage) {
    match try_open(path) {
        Err(CaptureError::Damaged { place, source }) => (place, source),
        other => panic!("{} is damaged, not {other:?}", path.display()),
    }
}

const RULES: (&[u8], EntryType, &[u8]) = (b"iptables-save.txt", EntryType::Regular, b"*nat\nCOMMIT\n");

#[test]
fn names_that_lead_elsewhere_are_refused() {
    let folder = scratch();
    for name in [&b"../iptables-save.txt"[..], b"node/../../x", b"/etc/passwd"] {
        let path = archive(folder.path(), &[RULES, (name, EntryType::Regular, b"x")]);
        let (place, damage) = damage(&path);
        assert!(matches!(damage, Damage::Name), "{damage:?}");
        assert!(place.contains("bad.tar.zst:") && place.contains(&*String::from_utf8_lossy(name)), "{place}");
    }
}

#[test]
fn names_that_are_no_text_links_and_doubles_are_refused() {
    let folder = scratch();
    let path = archive(folder.path(), &[RULES, (b"caf\xe9.txt", EntryType::Regular, b"x")]);
    assert!(matches!(damage(&path).1, Damage::NotUtf8));
    for kind in [EntryType::Symlink, EntryType::Link, EntryType::Char, EntryType::Fifo] {
        let path = archive(folder.path(), &[(RULES.0, kind, b"")]);
        assert!(matches!(damage(&path).1, Damage::NotAFile), "{kind:?}");
    }
    assert!(matches!(damage(&archive(folder.path(), &[RULES, RULES])).1, Damage::Twice));
}

#[test]
fn huge_entries_are_refused_before_they_are_read() {
    let folder = scratch();
    let mut header = Header::new_gnu();
    header.set_path("iptables-save.txt").expect("a name");
    header.set_size(1 << 40);
    header.set_cksum();
    let (place, damage) = damage(&write(folder.path(), header.as_bytes()));
    assert!(matches!(damage, Damage::TooLarge { .. }), "{damage:?}");
    assert!(place.ends_with("bad.tar.zst:iptables-save.txt"), "{place}");
}

#[test]
fn long_names_are_read_and_bounded() {
    let folder = scratch();
    let top = "n".repeat(120);
    let mut tar = tar::Builder::new(Vec::new());
    for name in ["iptables-save.txt", "sysctl.txt"] {
        let mut header = Header::new_gnu();
        header.set_size(4);
        tar.append_data(&mut header, format!("{top}/{name}"), &b"# x\n"[..]).expect("packs");
    }
    let node = try_open(&write(folder.path(), &tar.into_inner().expect("packs"))).expect("opens");
    assert_eq!(super::read(&node, Item::Sysctl), Ok(b"# x\n".to_vec()));

    let endless = vec![b'n'; 1 << 20];
    let path = archive(folder.path(), &[(b"././@LongLink", EntryType::GNULongName, &endless), RULES]);
    assert!(matches!(damage(&path).1, Damage::Corrupt { .. }));
    let path = archive(folder.path(), &[(b"././@LongLink", EntryType::GNULongName, b"../../etc/x\0"), RULES]);
    assert!(matches!(damage(&path).1, Damage::Name));
    let path = archive(folder.path(), &[(b"x", EntryType::XHeader, b"19 path=/etc/passwd\n"), RULES]);
    assert!(matches!(damage(&path).1, Damage::Corrupt { .. }), "the record's length is wrong");
    let path = archive(folder.path(), &[(b"x", EntryType::XHeader, b"20 path=/etc/passwd\n"), RULES]);
    assert!(matches!(damage(&path).1, Damage::Name));
}

#[test]
fn an_archive_cut_anywhere_is_an_error() {
    let folder = scratch();
    // Text that hardly compresses, so that the cuts fall into every part.
    let content: Vec<u8> = (0..40_000u64).map(|n| b'a' + ((n * n * 7919) >> 7) as u8 % 26).collect();
    let path = archive(folder.path(), &[RULES, (b"sysctl.txt", EntryType::Regular, &content)]);
    let whole = fs_err::read(&path).expect("read");
    assert!(try_open(&path).is_ok());
    for cut in (0..whole.len()).step_by(97).chain(whole.len() - 8..whole.len()) {
        fs_err::write(&path, &whole[..cut]).expect("written");
        assert!(try_open(&path).is_err(), "cut at {cut} of {}", whole.len());
    }
    let mut flipped = whole.clone();
    for at in (4..whole.len()).step_by(61) {
        flipped[at] ^= 0x55;
        fs_err::write(&path, &flipped).expect("written");
        // Some flips only change text: what matters is that none panics.
        if let Ok(node) = try_open(&path) {
            for item in Item::ALL {
                let _ = node.read(item);
            }
        }
        flipped[at] ^= 0x55;
    }
}

#[test]
fn what_is_no_archive_says_so() {
    let folder = scratch();
    for content in [&b""[..], b"PK\x03\x04", b"iptables"] {
        let path = folder.path().join("x.tar.zst");
        fs_err::write(&path, content).expect("written");
        let error = try_open(&path).expect_err("no archive");
        assert!(matches!(error, CaptureError::NotASnapshot { .. }), "{error:?}");
    }
    let nothing_known = archive(folder.path(), &[(b"holiday.jpg", EntryType::Regular, b"x")]);
    assert!(matches!(try_open(&nothing_known), Err(CaptureError::NotASnapshot { .. })));
}

#[test]
fn damaged_files_in_a_folder_are_named() {
    let folder = scratch();
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    packed.write_all(&[b'x'; 5000]).expect("packs");
    let packed = packed.finish().expect("packs");
    fs_err::write(folder.path().join("sysctl.txt.gz"), &packed[..packed.len() - 5]).expect("written");
    let node = try_open(folder.path()).expect("opens");
    let error = node.read(Item::Sysctl).expect_err("cut");
    assert!(error.to_string().ends_with("sysctl.txt.gz is damaged"), "{error}");

    fs_err::create_dir(folder.path().join("ip-addr.json")).expect("mkdir");
    assert!(matches!(node.read(Item::Addresses), Err(CaptureError::Read { .. })), "a folder is no file");

    fs_err::write(folder.path().join("capture.json"), "{\"kind\":").expect("written");
    let error = try_open(folder.path()).expect_err("no manifest");
    assert!(matches!(&error, CaptureError::Damaged { source: Damage::Manifest { .. }, .. }), "{error:?}");
}

#[test]
fn the_command_line_shows_cause_and_hint() {
    let folder = scratch();
    let path = archive(folder.path(), &[RULES, (b"../x", EntryType::Regular, b"x")]);
    let output = kpx().arg("--from").arg(&path).args(["snapshot", "/nonexistent/x"]).output().expect("kpx runs");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr.contains("bad.tar.zst:../x is damaged"), "{stderr}");
    assert!(stderr.contains("the name is no plain path inside the archive") && stderr.contains("hint: "), "{stderr}");
}
