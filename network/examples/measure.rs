//! Measures what a network costs a container's start. Not a test: nothing here passes or fails by
//! the clock. Run as root; everything happens inside network namespaces of its own.
//!
//! ```text
//! cargo run --release -p network --example measure -- attach 200
//! ```

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use linux::namespace::{self, Kind, Namespaces};
use network::attach::{Request, attach, detach};
use network::networks;
use network::store::Store;
use network::traffic::{Fault, Faults, apply, relay};

type Anything = Box<dyn std::error::Error>;

fn main() -> Result<(), Anything> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "one") {
        return one(&arguments);
    }
    if arguments.first().is_some_and(|first| first == "relay") {
        let order = arguments.get(1).ok_or("no order")?;
        return Ok(relay::serve_inherited(order)?);
    }
    let count = arguments.get(1).map_or(Ok(100), |text| text.parse())?;
    namespace::unshare(Namespaces::from_iter([Kind::Network]))?;
    linux::netdev::bring_loopback_up()?;
    // As /run is: in memory.
    let directory =
        std::path::Path::new("/dev/shm").join(format!("network-measure-{}", std::process::id()));
    let store = Store::open(&directory.join("config"), &directory.join("run"))?;
    let result = match arguments.first().map(String::as_str) {
        Some("attach") => one_after_the_other(&store, count),
        Some("many") => nobody_leaves(&store, count),
        Some("cycles") => cycles(&store, count),
        Some("parallel") => parallel(&store, &directory, count),
        Some("rate") => rate(&store, count),
        Some("faults") => faults(&store, count),
        _ => {
            let usage = "measure attach|many|cycles|parallel COUNT, measure rate|faults SECONDS";
            Err(usage.into())
        }
    };
    std::fs::remove_dir_all(&directory)?;
    result
}

/// A network namespace without any process in it.
fn new_namespace() -> Result<OwnedFd, Anything> {
    let home = namespace::current(Kind::Network)?;
    namespace::unshare(Namespaces::from_iter([Kind::Network]))?;
    let made = namespace::current(Kind::Network)?;
    namespace::enter(home.as_fd(), Kind::Network)?;
    Ok(made)
}

fn request() -> Vec<Request> {
    vec![Request { network: "bridge".into(), ..Request::default() }]
}

/// Isolated starts, with a pause before each: what one user sees.
fn one_after_the_other(store: &Store, count: usize) -> Result<(), Anything> {
    let first = new_namespace()?;
    let began = Instant::now();
    let kept = attach(store, first.as_fd(), "first", &request())?;
    println!("first container of a network: {:?}", began.elapsed());
    let (mut setups, mut teardowns) = (Vec::new(), Vec::new());
    for number in 0..count {
        let netns = new_namespace()?;
        std::thread::sleep(Duration::from_millis(20));
        let began = Instant::now();
        let made = attach(store, netns.as_fd(), &format!("c{number}"), &request())?;
        setups.push(began.elapsed());
        let began = Instant::now();
        detach(store, &made)?;
        teardowns.push(began.elapsed());
    }
    report("attach", setups);
    report("detach", teardowns);
    detach(store, &kept)?;
    networks::prune(store)?;
    Ok(())
}

/// How the cost grows when nobody leaves.
fn nobody_leaves(store: &Store, count: usize) -> Result<(), Anything> {
    let mut kept = Vec::new();
    let mut setups = Vec::new();
    for number in 0..count {
        let netns = new_namespace()?;
        let began = Instant::now();
        let made = attach(store, netns.as_fd(), &format!("c{number}"), &request())?;
        setups.push(began.elapsed());
        kept.push((netns, made));
    }
    let last = setups.split_off(count.saturating_sub(50));
    report("attach, the first ones", setups);
    report("attach, the last fifty", last);
    drop(kept);
    Ok(())
}

/// Starts and ends without a goodbye, as after `kill -9`; the next command collects.
fn cycles(store: &Store, count: usize) -> Result<(), Anything> {
    let began = Instant::now();
    let mut setups = Vec::new();
    for number in 0..count {
        let netns = new_namespace()?;
        let began = Instant::now();
        attach(store, netns.as_fd(), &format!("c{number}"), &request())?;
        setups.push(began.elapsed());
    }
    println!("{count} starts and ends in {:?}", began.elapsed());
    report("attach", setups);
    left_over(store)
}

/// Waits for the kernel to remove the namespaces, collects, and counts what is left.
fn left_over(store: &Store) -> Result<(), Anything> {
    let mut kernel = network::netlink::Connection::open()?;
    let count = |kernel: &mut network::netlink::Connection| -> Result<usize, Anything> {
        Ok(kernel.links()?.iter().filter(|link| link.name.starts_with("mr")).count())
    };
    let began = Instant::now();
    while count(&mut kernel)? > 0 {
        std::thread::sleep(Duration::from_millis(20));
    }
    println!("the kernel removed the namespaces {:?} later", began.elapsed());
    let began = Instant::now();
    let collected = network::collect::collect(store)?;
    println!("collected {} addresses in {:?}", collected.addresses.len(), began.elapsed());
    println!("left after that: {} leases", store.leases("bridge")?.len());
    networks::prune(store)?;
    let links: Vec<String> = kernel.links()?.into_iter().map(|link| link.name).collect();
    println!("interfaces after prune: {}", links.join(" "));
    Ok(())
}

/// Many processes that start at the same time.
fn parallel(store: &Store, directory: &std::path::Path, count: usize) -> Result<(), Anything> {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};
    attach(store, new_namespace()?.as_fd(), "first", &request())?;
    let began = Instant::now();
    let program = std::env::current_exe()?;
    let mut children = Vec::new();
    for number in 0..count {
        let mut command = Command::new(&program);
        command.arg("one").arg(directory).arg(format!("p{number}"));
        children.push(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?);
    }
    let mut addresses = std::collections::BTreeSet::new();
    let mut setups = Vec::new();
    for child in &mut children {
        let mut line = String::new();
        let output = child.stdout.take().ok_or("no output")?;
        BufReader::new(output).read_line(&mut line)?;
        let (address, micros) = line.trim().split_once(' ').ok_or("a child failed")?;
        addresses.insert(address.to_owned());
        setups.push(Duration::from_micros(micros.parse()?));
    }
    println!("{count} at once: all connected after {:?}", began.elapsed());
    println!("different addresses: {}", addresses.len());
    report("attach", setups);
    for mut child in children {
        child.kill()?;
        child.wait()?;
    }
    left_over(store)
}

fn one(arguments: &[String]) -> Result<(), Anything> {
    let [_, directory, name] = arguments else { return Err("one DIRECTORY NAME".into()) };
    let directory = std::path::Path::new(directory);
    let store = Store::open(&directory.join("config"), &directory.join("run"))?;
    let netns = new_namespace()?;
    let began = Instant::now();
    let made = attach(&store, netns.as_fd(), name, &request())?;
    let micros = began.elapsed().as_micros();
    println!("{} {micros}", made.addresses().first().ok_or("no address")?);
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
    Ok(())
}

/// Transfers for some seconds in each direction under a rate.
fn rate(store: &Store, seconds: usize) -> Result<(), Anything> {
    let (a, b) = (new_namespace()?, new_namespace()?);
    let to_a = attach(store, a.as_fd(), "a", &request())?;
    let to_b = attach(store, b.as_fd(), "b", &request())?;
    for guarded in [false, true] {
        for (text, inward, outward) in
            [("in=100mbit,out=50mbit", 100.0, 50.0), ("in=1gbit,out=20mbit", 1000.0, 20.0)]
        {
            let rates = network::traffic::Rates::parse(text)?;
            let lease = &to_a.endpoints[0].lease;
            apply(store, a.as_fd(), lease, Some(rates), None, guarded, None)?;
            let into = transfer(&b, &a, to_a.addresses()[0], seconds)?;
            let out = transfer(&a, &b, to_b.addresses()[0], seconds)?;
            println!(
                "{text} guarded={guarded}: in {into:.1} mbit ({:+.1} %), out {out:.1} mbit ({:+.1} %)",
                (into / inward - 1.0) * 100.0,
                (out / outward - 1.0) * 100.0
            );
        }
    }
    drop((a, b));
    left_over(store)
}

/// What a fault costs that does next to nothing: the process that makes it, or netem.
fn faults(store: &Store, seconds: usize) -> Result<(), Anything> {
    let (a, b) = (new_namespace()?, new_namespace()?);
    let to_a = attach(store, a.as_fd(), "a", &request())?;
    let to_b = attach(store, b.as_fd(), "b", &request())?;
    let (lease, at) = (&to_a.endpoints[0].lease, to_a.addresses()[0]);
    let program = std::path::Path::new("/proc/self/exe");
    let launch = relay::Launch { program, arguments: &["measure", "relay"] };
    for (name, text) in [("no fault", None), ("latency=1us", Some("latency=1us")), ("again", None)]
    {
        let fault = text.map(Faults::parse).transpose()?;
        let fault = fault.map(|faults| Fault { inward: faults, outward: faults, holder: None });
        apply(store, a.as_fd(), lease, None, Some(fault), false, Some(launch))?;
        let relayed = network::traffic::records(store)?.iter().any(|one| one.relay.is_some());
        let by = if relayed { " (by a relay)" } else { "" };
        let into = transfer(&b, &a, at, seconds)? / 1000.0;
        let out = transfer(&a, &b, to_b.addresses()[0], seconds)? / 1000.0;
        println!("{name}{by}: in {into:.2} gbit/s, out {out:.2} gbit/s");
        report("  there and back", round_trips(&b, &a, at, 5000)?);
    }
    drop((a, b));
    left_over(store)
}

/// How long datagrams take there and back.
fn round_trips(
    from: &OwnedFd,
    to: &OwnedFd,
    address: std::net::IpAddr,
    count: usize,
) -> Result<Vec<Duration>, Anything> {
    use std::net::UdpSocket;
    let server = namespace::visit_network(to.as_fd(), || UdpSocket::bind((address, 0)))??;
    let at = server.local_addr()?;
    let client = namespace::visit_network(from.as_fd(), || UdpSocket::bind("0.0.0.0:0"))??;
    client.connect(at)?;
    client.set_read_timeout(Some(Duration::from_secs(1)))?;
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut byte = [0];
            while let Ok((1, client)) = server.recv_from(&mut byte) {
                if byte == *b"." || server.send_to(&byte, client).is_err() {
                    return;
                }
            }
        });
        let (mut times, mut byte) = (Vec::new(), [0]);
        for _ in 0..count {
            let began = Instant::now();
            client.send(b"?")?;
            client.recv(&mut byte)?;
            times.push(began.elapsed());
        }
        client.send(b".")?;
        Ok(times)
    })
}

/// Megabits of payload and headers per second that reach `to`, after half a second.
fn transfer(
    from: &OwnedFd,
    to: &OwnedFd,
    address: std::net::IpAddr,
    seconds: usize,
) -> Result<f64, Anything> {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    let listener = namespace::visit_network(to.as_fd(), || TcpListener::bind((address, 0)))??;
    let at = listener.local_addr()?;
    let mut sender = namespace::visit_network(from.as_fd(), || TcpStream::connect(at))??;
    let (mut receiver, _) = listener.accept()?;
    let whole = Duration::from_secs(u64::try_from(seconds)?);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let block = vec![0; 64 << 10];
            while sender.write_all(&block).is_ok() {}
        });
        let mut buffer = vec![0; 64 << 10];
        let mut read_for = |time: Duration| -> std::io::Result<(usize, Duration)> {
            let (began, mut bytes) = (Instant::now(), 0);
            while began.elapsed() < time {
                bytes += receiver.read(&mut buffer)?;
            }
            Ok((bytes, began.elapsed()))
        };
        read_for(Duration::from_millis(500))?;
        let (bytes, time) = read_for(whole)?;
        drop(receiver);
        // The queue counts Ethernet frames of 1514 bytes with 1448 bytes of payload.
        let frames = bytes as f64 * 1514.0 / 1448.0;
        Ok(frames * 8.0 / 1e6 / time.as_secs_f64())
    })
}

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |share: usize| times.get(times.len() * share / 100).copied().unwrap_or_default();
    println!("{what}: p10 {:?}  p50 {:?}  p90 {:?}  of {}", at(10), at(50), at(90), times.len());
}
