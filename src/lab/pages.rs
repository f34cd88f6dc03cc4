//! The recorded node's kube-proxy, as far as its own ports go: `/configz`, `/healthz` and their kin, as recorded.
//!
//! No kube-proxy runs in a lab; what reads its configuration over HTTP finds it here all the same.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use super::serve::Pages;
use super::{LabError, netns};
use crate::model::Protocol;

/// kube-proxy's default ports for metrics and for its health check.
const PORTS: [u16; 2] = [10_249, 10_256];

/// Starts answering in threads of this process.
pub(super) fn serve(pages: &Pages) -> Result<(), LabError> {
    let listeners = netns::inside(&pages.netns, || {
        let mut listeners = Vec::new();
        for port in PORTS {
            let addr = (Ipv4Addr::LOCALHOST, port).into();
            let listener = TcpListener::bind(addr).map_err(|source| LabError::Listen {
                addr,
                protocol: Protocol::Tcp,
                netns: pages.netns.clone(),
                source,
            })?;
            listeners.push(listener);
        }
        Ok(listeners)
    })?;
    for listener in listeners {
        let files = pages.files.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A client that went away has no use for the answer.
                let _ = answer(stream, &files);
            }
        });
    }
    Ok(())
}

fn answer(mut stream: TcpStream, files: &[(String, PathBuf)]) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    stream.set_write_timeout(Some(Duration::from_secs(1)))?;
    let mut request = Vec::new();
    let mut bytes = [0; 1024];
    while !request.windows(4).any(|w| w == b"\r\n\r\n") && request.len() < 8192 {
        match stream.read(&mut bytes)? {
            0 => return Ok(()),
            length => request.extend_from_slice(&bytes[..length]),
        }
    }
    let path = request.split(|b| *b == b' ').nth(1).unwrap_or_default();
    let path = path.split(|b| *b == b'?').next().unwrap_or_default();
    let file = files.iter().find(|(name, _)| name.as_bytes() == path);
    let (status, body) = match file.map(|(_, file)| fs_err::read(file)) {
        // Recorded with its headers.
        Some(Ok(whole)) if whole.starts_with(b"HTTP/") => return stream.write_all(&whole),
        Some(Ok(body)) => ("200 OK", body),
        _ => ("404 Not Found", Vec::new()),
    };
    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len())?;
    stream.write_all(&body)
}
