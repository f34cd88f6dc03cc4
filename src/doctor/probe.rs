//! Connections made to try: by a child process, since a socket belongs to the cgroup and the network namespace of the process
//! that makes it.
//!
//! TCP connections are closed as soon as they stand, and nothing is sent; UDP sockets are connected only, which sends no packet.

use std::io;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::capture::{command, netns};
use crate::model::{Family, Protocol};

/// How long a connection may take. Linux sends the second SYN after one second.
const PATIENCE: Duration = Duration::from_millis(2500);

/// Where the child goes, and what it tries there.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Request {
    /// The cgroup whose socket it shall be; `None`: this process's.
    pub cgroup: Option<PathBuf>,
    /// The network namespace, as a path; `None`: this process's.
    pub netns: Option<String>,
    /// Where to connect to.
    pub to: Vec<(SocketAddr, Protocol)>,
}

/// One attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Where to.
    pub to: SocketAddr,
    /// The protocol.
    pub protocol: Protocol,
    /// The address that the socket had, or why there was no connection.
    pub outcome: Result<SocketAddr, String>,
    /// How long it took, in milliseconds.
    pub millis: u64,
}

/// Why there was no attempt.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The child could not be run.
    #[error(transparent)]
    Command(#[from] command::CommandError),
    /// This program's own path is not known.
    #[error("cannot find kpx's own program")]
    Program(#[from] io::Error),
    /// It gave no answer.
    #[error("the child gave no answer")]
    Answer(#[from] serde_json::Error),
    /// It could not get to where it should be.
    #[error("{0}")]
    Place(String),
}

/// Tries in a child process.
pub fn run(request: &Request) -> Result<Vec<Attempt>, ProbeError> {
    let program = std::env::current_exe()?;
    let input = serde_json::to_vec(request)?;
    let output = command::output(&program.to_string_lossy(), ["doctor-probe"], Some(&input))?;
    serde_json::from_slice::<Result<_, String>>(&output)?.map_err(ProbeError::Place)
}

/// The child's side: `request` is what [`run`] wrote, the answer is what it reads.
pub fn serve(request: &str) -> Result<String, serde_json::Error> {
    let request: Request = serde_json::from_str(request)?;
    serde_json::to_string(&go(&request).map(|()| request.to.iter().map(|to| attempt(*to)).collect::<Vec<_>>()))
}

fn go(request: &Request) -> Result<(), String> {
    if let Some(cgroup) = &request.cgroup {
        fs_err::write(cgroup.join("cgroup.procs"), "0").map_err(|e| format!("cannot join the cgroup: {e}"))?;
    }
    if let Some(path) = &request.netns {
        netns::enter(path).map_err(|error| crate::error::with_causes(&error))?;
    }
    Ok(())
}

fn attempt((to, protocol): (SocketAddr, Protocol)) -> Attempt {
    let start = Instant::now();
    let outcome = match protocol {
        Protocol::Tcp => TcpStream::connect_timeout(&to, PATIENCE).and_then(|stream| stream.local_addr()),
        Protocol::Udp => UdpSocket::bind((Family::of(to.ip()).unspecified(), 0))
            .and_then(|socket| socket.connect(to).and_then(|()| socket.local_addr())),
        Protocol::Sctp => Err(io::Error::new(io::ErrorKind::Unsupported, "SCTP is not tried")),
    };
    let millis = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    Attempt { to, protocol, outcome: outcome.map_err(|error| error.to_string()), millis }
}
