//! A process that measures when told to: one line in, one line of numbers out.

#![expect(clippy::disallowed_types, reason = "the processes of a benchmark live as long as it, and are talked to")]

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// What the process is called with.
pub(super) const WORD: &str = "measure";

/// Such a process.
pub(super) struct Worker {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Worker {
    pub(super) fn start(mut command: Command) -> io::Result<Self> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let input = child.stdin.take();
        let output = child.stdout.take().ok_or_else(|| io::Error::other("stdout is piped"))?;
        Ok(Self { child, input, output: BufReader::new(output) })
    }

    /// Does something while the process stands still.
    pub(super) fn stopped<T>(&self, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let process = Pid::from_child(&self.child);
        kill_process(process, Signal::STOP)?;
        let done = work();
        kill_process(process, Signal::CONT)?;
        done
    }

    /// Tells it what to do; the numbers that it measured.
    pub(super) fn ask(&mut self, line: &str) -> io::Result<Vec<f64>> {
        let input = self.input.as_mut().ok_or_else(|| io::Error::other("stdin is piped"))?;
        writeln!(input, "{line}")?;
        let mut answer = String::new();
        self.output.read_line(&mut answer)?;
        match answer.trim().strip_prefix("error ") {
            None if !answer.is_empty() => {
                answer.split_whitespace().map(|word| word.parse().map_err(io::Error::other)).collect()
            }
            error => Err(io::Error::other(format!("{line}: {}", error.unwrap_or("the process has ended")))),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.child.wait();
    }
}

/// What the process does.
pub(super) fn work() -> io::Result<()> {
    let mut serving = None;
    for line in io::stdin().lines() {
        let line = line?;
        let words: Vec<&str> = line.split(' ').collect();
        let numbers = match &words[..] {
            ["serve", port] => serve(port.parse().map_err(io::Error::other)?).map(|thread| {
                serving = Some(thread);
                vec![0.0]
            }),
            [what, address, number] => {
                let address = address.parse().map_err(io::Error::other)?;
                let number = number.parse().map_err(io::Error::other)?;
                match *what {
                    "connect" => connect(address, number),
                    "request" => request(address, number),
                    _ => rate(address, Duration::from_millis(number as u64)),
                }
            }
            _ => Err(io::Error::other("no such work")),
        };
        match numbers {
            Ok(numbers) => {
                println!("{}", numbers.iter().map(|n| format!("{n:.3}")).collect::<Vec<_>>().join(" "));
            }
            Err(error) => println!("error {error}"),
        }
    }
    drop(serving);
    Ok(())
}

/// Answers each byte by itself, on every address.
fn serve(port: u16) -> io::Result<std::thread::JoinHandle<()>> {
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from(([0, 0, 0, 0], port)))?;
    Ok(std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime can be made");
        runtime.block_on(async {
            // Room for what comes while it stands still.
            let listener = socket.listen(4096).expect("it is not blocking");
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut bytes = [0; 256];
                    loop {
                        if stream.readable().await.is_err() {
                            return;
                        }
                        match stream.try_read(&mut bytes) {
                            Ok(0) => return,
                            Ok(n) => {
                                if stream.try_write(&bytes[..n]).is_err() {
                                    return;
                                }
                            }
                            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                            Err(_) => return,
                        }
                    }
                });
            }
        });
    }))
}

fn micros(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e6
}

fn open(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    stream.set_nodelay(true)?;
    // No TIME_WAIT: it would use up the ports.
    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO))?;
    Ok(stream)
}

/// Times of connect(), µs.
fn connect(address: SocketAddr, count: usize) -> io::Result<Vec<f64>> {
    let one = |_| {
        let start = Instant::now();
        let stream = open(address)?;
        let time = micros(start);
        drop(stream);
        Ok(time)
    };
    (0..count).map(one).collect()
}

/// Times of a request and its answer on a connection that is kept, µs.
fn request(address: SocketAddr, count: usize) -> io::Result<Vec<f64>> {
    let mut stream = open(address)?;
    let mut bytes = [7; 64];
    (0..count)
        .map(|_| {
            let start = Instant::now();
            stream.write_all(&bytes)?;
            stream.read_exact(&mut bytes)?;
            Ok(micros(start))
        })
        .collect()
}

/// Connections with one request each, a second.
fn rate(address: SocketAddr, time: Duration) -> io::Result<Vec<f64>> {
    let (start, mut count) = (Instant::now(), 0);
    while start.elapsed() < time {
        let mut stream = open(address)?;
        stream.write_all(&[7])?;
        stream.read_exact(&mut [0])?;
        count += 1;
    }
    Ok(vec![f64::from(count) / start.elapsed().as_secs_f64()])
}
