//! Foreign bytes: an error or less, never a panic.

use kpx::capture::Item;
use kpx::inspect::ipset;
use kpx::inspect::ipvs::{Addresses, decode, parse_connections};
use proptest::prelude::*;

#[test]
fn a_recording_cut_anywhere_is_an_error_or_less() {
    let Some(small) = super::small() else { return };
    let whole = super::bytes(&small.join("ipvs/running"), Item::Ipvs);
    let all = decode(&whole).expect("whole").services.len();
    for cut in (0..whole.len().min(60_000)).step_by(97) {
        assert!(decode(&whole[..cut]).is_ok_and(|ipvs| ipvs.services.len() <= all) || decode(&whole[..cut]).is_err());
    }
}

proptest! {
    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..800)) {
        let _ = decode(&bytes);
        let _ = ipset::parse(&bytes);
        let _ = (parse_connections(&bytes), Addresses::parse(&bytes));
    }

    #[test]
    fn any_message(command in any::<u8>(), body in proptest::collection::vec(any::<u8>(), 0..300), end in any::<bool>()) {
        let message = |kind: u16, body: &[u8]| {
            let length = u32::try_from(body.len() + 16).expect("short");
            let mut out = length.to_ne_bytes().to_vec();
            out.extend(kind.to_ne_bytes());
            out.extend([0; 10]);
            out.extend(body);
            out.resize(out.len().next_multiple_of(4), 0);
            out
        };
        let mut bytes = message(32, &[&[command, 1, 0, 0], &body[..]].concat());
        if end {
            bytes.extend(message(3, &[0; 4]));
        }
        bytes.extend(message(32, &[&[5, 1, 0, 0], &body[..]].concat()));
        let _ = decode(&bytes);
    }

    #[test]
    fn any_sets(text in "((create|add) KUBE-[A-C] ?(hash:ip,port|bitmap:port|[0-9.]{0,9}(,(tcp|udp|x)?:?[0-9]{0,6})?)( [a-z]+){0,3}\n){0,8}") {
        let _ = ipset::parse(text.as_bytes());
    }
}
