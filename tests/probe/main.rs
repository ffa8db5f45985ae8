//! `probe`: the program that the test containers run. It says what it sees, as JSON, and does what
//! ordinary tools do not: use up memory, open many files, wait until it is told.
//!
//! - `probe look` prints what a process sees of its container
//! - `probe alloc MIB` writes to that much memory, says so, and ends
//! - `probe exit N` ends with status N
//! - `probe fork N` starts N copies of itself that wait, and says how many there were
//! - `probe wait` waits for a signal
//! - `probe ready` tells NOTIFY_SOCKET that it is ready, and waits
//! - `probe echo PORT` answers datagrams with the name of its slot and what they said
//! - `probe ask ADDRESS TEXT` sends a datagram until it is answered, and prints the answer
//! - `probe upgrade PORT` agrees to leave HTTP, and sends back what comes then
//! - `probe keeper …` says what a minisup says that can take over, and then does not
//! - `probe swap A B` exchanges two names for ever
//! - `probe write FILE` tries to open FILE for writing and says how that went

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, UdpSocket};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let words: Vec<&str> = arguments.iter().skip(1).map(String::as_str).collect();
    match words.as_slice() {
        ["look", ..] => say(&look().to_string()),
        ["alloc", mib] => alloc(mib.parse().expect("MiB")),
        ["exit", status] => return ExitCode::from(status.parse::<u8>().expect("a status")),
        ["fork", count] => fork(count.parse().expect("a number")),
        ["wait"] => wait(),
        ["ready"] => ready(),
        ["echo", port] => echo(port.parse().expect("a port")),
        ["upgrade", port] => upgrade(port.parse().expect("a port")),
        ["keeper", "--help"] => say("--estate-fd"),
        ["keeper", ..] => return ExitCode::from(3),
        ["ask", address, text] => ask(address, text),
        ["swap", one, other] => swap(one, other),
        ["write", file] => say(&match fs::OpenOptions::new().write(true).open(file) {
            Ok(_) => "opened".to_owned(),
            Err(error) => format!("refused: {error}"),
        }),
        other => {
            eprintln!("probe: unknown command {other:?}");
            return ExitCode::from(64);
        }
    }
    ExitCode::SUCCESS
}

fn ready() {
    let name = std::env::var("NOTIFY_SOCKET").expect("a socket");
    let socket = std::os::unix::net::UnixDatagram::unbound().expect("a socket");
    socket.send_to(b"STATUS=warming up", &name).expect("say something");
    socket.send_to(b"STATUS=warm\nREADY=1\n", &name).expect("say it");
    wait();
}

fn echo(port: u16) {
    let socket = UdpSocket::bind(("0.0.0.0", port)).expect("a free port");
    let slot = std::env::var("MINISUP_SLOT").unwrap_or_default();
    let mut buffer = [0; 65_535];
    loop {
        let (length, client) = socket.recv_from(&mut buffer).expect("a datagram");
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        drop(socket.send_to(format!("{slot} {text}").as_bytes(), client));
    }
}

fn upgrade(port: u16) {
    let listener = TcpListener::bind(("0.0.0.0", port)).expect("a free port");
    for stream in listener.incoming().flatten() {
        std::thread::spawn(move || {
            let mut reader = BufReader::new(stream.try_clone().expect("a descriptor"));
            let mut stream = stream;
            let mut line = String::new();
            while matches!(reader.read_line(&mut line), Ok(1..)) && line.trim() != "" {
                line.clear();
            }
            let agreed = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
                          Upgrade: websocket\r\n\r\n";
            drop(stream.write_all(agreed.as_bytes()));
            drop(std::io::copy(&mut reader, &mut stream));
        });
    }
}

fn ask(address: &str, text: &str) {
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
    socket.connect(address).expect("an address");
    socket.set_read_timeout(Some(Duration::from_millis(500))).expect("not for ever");
    let mut buffer = [0; 65_535];
    for _ in 0..100 {
        drop(socket.send(text.as_bytes()));
        if let Ok(length) = socket.recv(&mut buffer) {
            return say(&String::from_utf8_lossy(&buffer[..length]));
        }
    }
    panic!("no answer from {address}");
}

/// Whether anybody listens is not this program's business.
fn say(text: &str) {
    drop(writeln!(std::io::stdout(), "{text}"));
}

fn look() -> Value {
    let list = |dir: &str| -> Vec<String> {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        let mut names: Vec<_> =
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    };
    let link = |path: &str| fs::read_link(path).ok().map(|to| to.to_string_lossy().into_owned());
    let namespaces: BTreeMap<_, _> = list("/proc/self/ns")
        .into_iter()
        .map(|kind| (kind.clone(), link(&format!("/proc/self/ns/{kind}"))))
        .collect();
    // The directory that is being listed is open too: it is the highest number, and left out.
    let descriptors: BTreeMap<_, _> = list("/proc/self/fd")
        .into_iter()
        .filter_map(|fd| Some((fd.clone(), link(&format!("/proc/self/fd/{fd}"))?)))
        .collect();
    json!({
        "pid": std::process::id(),
        "args": std::env::args().collect::<Vec<_>>(),
        "env": std::env::vars().collect::<BTreeMap<_, _>>(),
        "cwd": std::env::current_dir().ok(),
        "uid": rustix::process::getuid().as_raw(),
        "gid": rustix::process::getgid().as_raw(),
        "groups": rustix::process::getgroups().unwrap_or_default().iter()
            .map(|group| group.as_raw()).collect::<Vec<_>>(),
        "hostname": rustix::system::uname().nodename().to_string_lossy(),
        "domainname": rustix::system::uname().domainname().to_string_lossy(),
        "machine": rustix::system::uname().machine().to_string_lossy(),
        "release": rustix::system::uname().release().to_string_lossy(),
        "session": rustix::process::getsid(None).map(|sid| sid.as_raw_nonzero().get()).ok(),
        "status": fields("/proc/self/status"),
        "limits": limits(),
        "namespaces": namespaces,
        "descriptors": descriptors,
        "mounts": lines("/proc/self/mountinfo"),
        "cgroup": lines("/proc/self/cgroup"),
        "root": list("/"),
        "dev": list("/dev"),
        "processes": list("/proc").into_iter().filter(|name| name.parse::<u32>().is_ok())
            .collect::<Vec<_>>(),
        "interfaces": list("/sys/class/net"),
        "oom_score_adj": lines("/proc/self/oom_score_adj").first(),
    })
}

fn lines(file: &str) -> Vec<String> {
    fs::read_to_string(file).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// `Name: value` of proc_pid_status(5).
fn fields(file: &str) -> BTreeMap<String, String> {
    let split = |line: String| -> Option<(String, String)> {
        let (name, value) = line.split_once(':')?;
        Some((name.to_owned(), value.split_whitespace().collect::<Vec<_>>().join(" ")))
    };
    lines(file).into_iter().filter_map(split).collect()
}

/// proc_pid_limits(5): name, soft, hard.
fn limits() -> BTreeMap<String, (String, String)> {
    let row = |line: &String| -> Option<(String, (String, String))> {
        let name = line.get(..26)?.trim().to_owned();
        let mut values = line.get(26..)?.split_whitespace();
        Some((name, (values.next()?.to_owned(), values.next()?.to_owned())))
    };
    lines("/proc/self/limits").iter().skip(1).filter_map(row).collect()
}

fn alloc(mib: usize) {
    let mut blocks: Vec<Vec<u8>> = Vec::new();
    for _ in 0..mib {
        blocks.push(std::hint::black_box(vec![0xa5; 1 << 20]));
    }
    say(&format!("holding {} MiB", blocks.len()));
}

fn fork(count: usize) {
    let mut made = Vec::new();
    for _ in 0..count {
        match Command::new("/proc/self/exe").arg("wait").stdout(Stdio::null()).spawn() {
            Ok(child) => made.push(child),
            Err(error) => {
                say(&format!("stopped at {}: {error}", made.len()));
                break;
            }
        }
    }
    say(&format!("{} copies", made.len()));
    for mut child in made {
        drop(child.kill());
        drop(child.wait());
    }
}

fn wait() {
    say("waiting");
    loop {
        std::thread::park();
    }
}

fn swap(one: &str, other: &str) {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    say("swapping");
    loop {
        let _ = renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE);
    }
}
