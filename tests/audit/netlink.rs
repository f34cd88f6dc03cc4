//! Answers of the kernel about IPVS, made by hand (linux/ip_vs.h).

use kpx::capture::netlink::attribute;

const ANSWER: u16 = 30;
const DONE: u16 = 3;
const NEW_SERVICE: u8 = 1;
const NEW_DEST: u8 = 5;

fn message(kind: u16, body: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(16 + body.len()).expect("short").to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend([0; 10]);
    bytes.extend(body);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn answer(command: u8, nested: u16, attributes: &[(u16, &[u8])]) -> Vec<u8> {
    let mut inner = Vec::new();
    for (kind, value) in attributes {
        attribute(&mut inner, *kind, value);
    }
    let mut body = vec![command, 1, 0, 0];
    attribute(&mut body, nested, &inner);
    message(ANSWER, &body)
}

/// 10.96.0.1:443 of TCP, round robin, with the server 192.168.50.11:6443.
pub(crate) fn one_service() -> Vec<u8> {
    let address = |ip: [u8; 4]| [&ip[..], &[0; 12]].concat();
    let service = answer(
        NEW_SERVICE,
        1,
        &[
            (1, &2_u16.to_ne_bytes()),
            (2, &6_u16.to_ne_bytes()),
            (3, &address([10, 96, 0, 1])),
            (4, &443_u16.to_be_bytes()),
            (6, b"rr\0"),
        ],
    );
    let server = answer(
        NEW_DEST,
        2,
        &[
            (1, &address([192, 168, 50, 11])),
            (2, &6443_u16.to_be_bytes()),
            (3, &0_u32.to_ne_bytes()),
            (4, &1_u32.to_ne_bytes()),
        ],
    );
    let done = message(DONE, &[0; 4]);
    [service, done.clone(), server, done].concat()
}
