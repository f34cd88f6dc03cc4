//! Tells systemd how the agent is: a datagram to the socket that a unit of `Type=notify` is given (sd_notify(3)).

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;

/// Sends lines such as `READY=1`; nothing where nobody listens.
pub(super) fn say(lines: &str) {
    let Some(at) = std::env::var_os("NOTIFY_SOCKET") else { return };
    if let Err(error) = send(Path::new(&at), lines) {
        tracing::warn!("cannot tell systemd: {error}");
    }
}

/// A name that begins with `@` is one without a file.
fn send(at: &Path, lines: &str) -> io::Result<()> {
    let address = match at.as_os_str().as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(at)?,
    };
    UnixDatagram::unbound()?.send_to_addr(lines.as_bytes(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_with_and_without_a_file_are_spoken_to() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("notify");
        let name = format!("kpx-notify-{}", std::process::id());
        let nameless = SocketAddr::from_abstract_name(&name).expect("a name");
        for (socket, at) in [
            (UnixDatagram::bind(&file).expect("bound"), file.display().to_string()),
            (UnixDatagram::bind_addr(&nameless).expect("bound"), format!("@{name}")),
        ] {
            send(Path::new(&at), "READY=1\nSTATUS=all is well").expect("sent");
            let mut room = [0; 64];
            let size = socket.recv(&mut room).expect("received");
            assert_eq!(&room[..size], b"READY=1\nSTATUS=all is well");
        }
        assert!(send(&folder.path().join("nobody"), "READY=1").is_err());
    }
}
