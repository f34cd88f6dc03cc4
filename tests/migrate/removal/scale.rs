//! 10 000 Services.

use std::time::Instant;

use kpx::capture::Variant;
use kpx::migrate::removal::{State, remove, restore};
use kpx::model::Family;

use super::rules::{make_counters, node};
use super::text::{assert_same, load, others, saved};
use crate::support::{in_new_netns, privileged, recordings};

#[test]
#[ignore = "takes minutes, most of them in iptables-nft-restore; prints how long removal and restoration take"]
fn ten_thousand_services() {
    let (true, Some(recordings)) = (privileged(), recordings()) else { return };
    let text = gunzip(&recordings.join("scale/10000/iptables-save.txt.gz"));
    for variant in Variant::BOTH {
        in_new_netns(|| {
            make_counters();
            load(variant, Family::V4, &text);
            let before = saved(variant, Family::V4);
            let timed = |what: &str, work: &dyn Fn()| {
                let begun = Instant::now();
                work();
                println!("{variant}, {} lines: {what} took {:?}", before.len(), begun.elapsed());
            };
            let kept = State::read(&node()).expect("the rules can be read");
            timed("removal", &|| drop(remove(&node(), &kept, None).expect("it goes")));
            assert_same(&saved(variant, Family::V4), &others(&before, &[]), "removed");
            timed("restoration", &|| drop(restore(&node(), &kept).expect("it comes back")));
            assert_same(&saved(variant, Family::V4), &before, "restored");
        });
    }
}

fn gunzip(path: &std::path::Path) -> String {
    let mut text = String::new();
    let file = fs_err::File::open(path).expect("the recording is there");
    std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(file), &mut text).expect("it unpacks");
    text
}
