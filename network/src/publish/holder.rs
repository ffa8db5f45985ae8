//! Who has a port: from the port to the socket's inode (`/proc/net/tcp`), from there to the process
//! that has it open (`/proc/PID/fd`).

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use linux::inet::Transport;

/// The state of a listening TCP socket, `TCP_LISTEN` of net/tcp_states.h.
const TCP_LISTEN: &str = "0A";

/// The process that has the port of that address, as `name (pid 7)`, where it can be known: it must
/// be in this network namespace, and this process must be allowed to look into it.
pub(super) fn of(transport: Transport, ip: IpAddr, port: u16) -> Option<String> {
    let inode = tables(transport).into_iter().find_map(|name| {
        // Not /proc/net, which is the main thread's.
        let text = fs::read_to_string(format!("/proc/thread-self/net/{name}")).ok()?;
        find_inode(&text, transport, ip, port)
    })?;
    let link = format!("socket:[{inode}]");
    for entry in fs::read_dir("/proc").ok()?.flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        if has_open(&entry.path(), &link) {
            let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            return Some(format!("{} (pid {pid})", name.trim()));
        }
    }
    Some("a process that is not in sight (in another PID namespace, or of another user)".into())
}

fn tables(transport: Transport) -> [&'static str; 2] {
    match transport {
        Transport::Tcp => ["tcp", "tcp6"],
        Transport::Udp => ["udp", "udp6"],
    }
}

fn has_open(process: &Path, link: &str) -> bool {
    let fds = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
    fds.into_iter().any(|fd| fs::read_link(fd.path()).is_ok_and(|to| to.as_os_str() == link))
}

/// The inode of the socket in a table of proc_net(5) that stands in the way of `ip:port`.
fn find_inode(table: &str, transport: Transport, ip: IpAddr, port: u16) -> Option<u64> {
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let (address, at) = fields.get(1)?.split_once(':')?;
        if u16::from_str_radix(at, 16).ok()? != port {
            return None;
        }
        if transport == Transport::Tcp && *fields.get(3)? != TCP_LISTEN {
            return None;
        }
        let has = address_of(address)?;
        let clash = has == ip || has.is_unspecified() || ip.is_unspecified();
        clash.then(|| fields.get(9)?.parse().ok()).flatten()
    })
}

/// Addresses are written as words of 32 bits in the order of the machine.
fn address_of(text: &str) -> Option<IpAddr> {
    let words: Vec<[u8; 4]> = (0..text.len() / 8)
        .map(|word| u32::from_str_radix(text.get(word * 8..word * 8 + 8)?, 16).ok())
        .map(|word| word.map(u32::to_ne_bytes))
        .collect::<Option<_>>()?;
    let bytes = words.concat();
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0
   1: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4712 1 0
   2: 0100007F:0050 0100007F:1F90 01 00000000:00000000 00:00000000 00000000     0        0 4713 1 0
";

    #[test]
    #[cfg(target_endian = "little")]
    fn the_socket_in_the_way_is_found() {
        let find = |ip: &str, port| find_inode(TABLE, Transport::Tcp, ip.parse().unwrap(), port);
        assert_eq!(find("127.0.0.1", 8080), Some(4711));
        assert_eq!(find("0.0.0.0", 8080), Some(4711));
        assert_eq!(find("127.0.0.2", 8080), None);
        assert_eq!(find("192.0.2.1", 22), Some(4712));
        assert_eq!(find("127.0.0.1", 80), None, "a connection does not hold the port");
    }

    #[test]
    fn a_listener_of_this_process_is_named() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let named = of(Transport::Tcp, "127.0.0.1".parse().unwrap(), port).unwrap();
        assert!(named.ends_with(&format!("(pid {})", std::process::id())), "{named}");
    }
}
