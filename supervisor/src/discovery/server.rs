//! The data plane's part: DNS at each bridge's address, and every service at its own.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use linux::inet::Transport;
use simple_dns::RCODE;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;

use super::doors::{Doors, Open, Replicas};
use super::names::{self, View};
use super::{Directory, forward};
use crate::door::Door;
use crate::netns;
use crate::settings::Resolver as Resolution;

/// The longest question; longer ones are nobody's.
const QUESTION: usize = 4096;
/// How many may ask by TCP at a time, in one network: each takes a descriptor that the project's
/// requests need, too.
const STREAMS: usize = 64;
/// How long whoever asks by TCP may say nothing (RFC 7766, section 6.2.3).
const SILENCE: Duration = Duration::from_secs(10);
/// Questions that may be passed on at the same time.
const PASSED_ON: usize = 256;

/// Whether connections that nobody has accepted yet, when one of two data planes at an address
/// goes, are the other's (ip-sysctl of the kernel's documentation); a setting of each network.
const MIGRATE: &str = "/proc/sys/net/ipv4/tcp_migrate_req";

/// Who can be found, by the keys of networks.
type Known = Rc<RefCell<BTreeMap<String, Directory>>>;

/// What has been opened in the project's networks.
pub(crate) struct Discovery<R> {
    known: Known,
    doors: Rc<Doors<R>>,
    passed_on: Rc<Semaphore>,
    /// Who offers names, by the keys of networks.
    resolvers: RefCell<BTreeMap<String, [AbortHandle; 2]>>,
}

impl<R: Replicas + 'static> Discovery<R> {
    /// `open` takes a listening socket for a service's port over.
    pub(crate) fn new(replicas: Rc<R>, open: Open) -> Discovery<R> {
        Discovery {
            known: Rc::default(),
            doors: Rc::new(Doors::new(replicas, open)),
            passed_on: Rc::new(Semaphore::new(PASSED_ON)),
            resolvers: RefCell::default(),
        }
    }

    /// Follows a new directory of a network.
    pub(crate) fn follow(&self, directory: Directory, network: OwnedFd) -> Result<()> {
        let key = directory.net.key();
        if !self.resolvers.borrow().contains_key(&key) {
            let made = self.offer_names(&key, directory.net.gateway, network.as_fd());
            let made = made.with_context(|| format!("cannot offer DNS in {key}"))?;
            self.resolvers.borrow_mut().insert(key.clone(), made);
        }
        let followed = self.doors.follow(&directory, network);
        self.known.borrow_mut().insert(key, directory);
        followed
    }

    /// Routes have changed: looks where services listen at which nobody has looked yet. A client
    /// may have been told of their ports by a data plane before this one.
    pub(crate) fn look(&self) {
        for (key, directory) in self.known.borrow().iter() {
            for (name, entry) in directory.services.iter().filter(|(_, entry)| !entry.direct) {
                self.doors.look_first(key, name, entry);
            }
        }
    }

    /// Another data plane does all this from now on.
    pub(crate) fn end(&self) {
        let keys: Vec<String> = self.resolvers.borrow().keys().cloned().collect();
        keys.iter().for_each(|key| self.forget(key));
    }

    /// A network is gone.
    pub(crate) fn forget(&self, key: &str) {
        self.known.borrow_mut().remove(key);
        self.doors.forget(key);
        let tasks = self.resolvers.borrow_mut().remove(key);
        tasks.into_iter().flatten().for_each(|task| task.abort());
    }

    fn offer_names(
        &self,
        key: &str,
        gateway: Ipv4Addr,
        network: BorrowedFd<'_>,
    ) -> Result<[AbortHandle; 2]> {
        // Without it (before Linux 5.14) who connects in that instant is refused.
        drop(netns::within(network, || std::fs::write(MIGRATE, "1"))?);
        let open = |transport| {
            let door = Door { at: (gateway, 53).into(), transport };
            netns::within(network, || door.open_beside())
        };
        let (socket, listener) = (open(Transport::Udp)??, open(Transport::Tcp)??);
        let socket = UdpSocket::from_std(socket.into())?;
        let listener = TcpListener::from_std(listener.into())?;
        let resolver = Rc::new(Resolver {
            key: key.to_string(),
            known: self.known.clone(),
            doors: self.doors.clone(),
            passed_on: self.passed_on.clone(),
        });
        let datagrams = tokio::task::spawn_local(datagrams(Rc::new(socket), resolver.clone()));
        let streams = tokio::task::spawn_local(streams(listener, resolver));
        Ok([datagrams.abort_handle(), streams.abort_handle()])
    }
}

/// Answers in one network.
struct Resolver<R> {
    key: String,
    known: Known,
    doors: Rc<Doors<R>>,
    passed_on: Rc<Semaphore>,
}

impl<R: Replicas> Resolver<R> {
    /// What a client can see: all of its networks, or only this one if nobody knows it.
    fn seen<T>(&self, client: IpAddr, look: impl FnOnce(&View<'_>) -> T) -> T {
        let known = self.known.borrow();
        let member = match client {
            IpAddr::V4(client) => known.get(&self.key).and_then(|here| here.members.get(&client)),
            IpAddr::V6(_) => None,
        };
        let own = std::slice::from_ref(&self.key);
        let keys = member.map_or(own, |member| &member.networks);
        let found = keys.iter().filter_map(|key| known.get_key_value(key));
        look(&View(found.map(|(key, directory)| (key.as_str(), directory)).collect()))
    }

    /// An answer that is known here.
    fn known(&self, question: &[u8], client: IpAddr) -> Option<Vec<u8>> {
        self.seen(client, |view| names::answer(question, view, &*self.doors))
    }

    /// The answer of somebody else; who is asked too much at a time says that it failed.
    async fn other(&self, question: &[u8], by_tcp: bool, client: IpAddr) -> Vec<u8> {
        let given = match client {
            IpAddr::V4(client) => self.known.borrow().get(&self.key).and_then(|directory| {
                directory.members.get(&client).map(|member| member.servers.clone())
            }),
            IpAddr::V6(_) => None,
        };
        let given = given.unwrap_or_default();
        let may = !self.seen(client, |view| view.is_internal());
        let answer = match self.passed_on.try_acquire() {
            Ok(_permit) if may => forward::ask(question, by_tcp, &given).await,
            _ => None,
        };
        answer.unwrap_or_else(|| names::failure(question, RCODE::ServerFailure))
    }
}

async fn datagrams<R: Replicas + 'static>(socket: Rc<UdpSocket>, resolver: Rc<Resolver<R>>) {
    let mut buffer = [0; QUESTION];
    loop {
        // An error is about a datagram sent before, to somebody who is gone.
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else { continue };
        let question = &buffer[..length];
        match resolver.known(question, client.ip()) {
            Some(answer) if answer.is_empty() => {}
            // Who does not read loses an answer, as with any datagram.
            Some(answer) => drop(socket.try_send_to(&answer, client)),
            None => {
                let (socket, resolver) = (socket.clone(), resolver.clone());
                let question = question.to_vec();
                tokio::task::spawn_local(async move {
                    let answer = resolver.other(&question, false, client.ip()).await;
                    let _ = socket.send_to(&answer, client).await;
                });
            }
        }
    }
}

async fn streams<R: Replicas + 'static>(listener: TcpListener, resolver: Rc<Resolver<R>>) {
    let places = Arc::new(Semaphore::new(STREAMS));
    loop {
        let Ok((stream, client)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let Ok(place) = places.clone().try_acquire_owned() else { continue };
        let resolver = resolver.clone();
        tokio::task::spawn_local(async move {
            // It ends when the client does, or falls silent.
            let _ = serve(stream, client.ip(), &resolver).await;
            drop(place);
        });
    }
}

async fn serve<R: Replicas>(
    mut stream: TcpStream,
    client: IpAddr,
    resolver: &Resolver<R>,
) -> std::io::Result<()> {
    loop {
        let Some(question) = tokio::time::timeout(SILENCE, question(&mut stream)).await?? else {
            return Ok(());
        };
        let answer = match resolver.known(&question, client) {
            Some(answer) => answer,
            None => resolver.other(&question, true, client).await,
        };
        let length = u16::try_from(answer.len()).map_err(std::io::Error::other)?;
        let answer = [&length.to_be_bytes()[..], &answer].concat();
        tokio::time::timeout(SILENCE, stream.write_all(&answer)).await??;
    }
}

/// The next question; `None` if it is too long.
async fn question(stream: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Option<Vec<u8>>> {
    let length = usize::from(stream.read_u16().await?);
    if length > QUESTION {
        return Ok(None);
    }
    let mut question = vec![0; length];
    stream.read_exact(&mut question).await?;
    Ok(Some(question))
}

/// The text of a container's `/etc/resolv.conf`: for a project's network, given by the project's
/// name and the network's gateway, if it is in one; none if it is in none and nothing was said.
pub(crate) fn resolv_conf(within: Option<(&str, Ipv4Addr)>, asked: &Resolution) -> Option<String> {
    if within.is_none() && *asked == Resolution::default() {
        return None;
    }
    let servers: Vec<IpAddr> = match within {
        // Who is asked for other names is the data plane's business.
        Some((_, gateway)) => vec![gateway.into()],
        None => asked.servers.clone(),
    };
    let project = within.map(|(project, _)| project);
    let mut text: String = servers.iter().map(|ip| format!("nameserver {ip}\n")).collect();
    let more = asked.search.iter().filter(|domain| *domain != ".").cloned();
    let search: Vec<String> = project.map(names::suffix).into_iter().chain(more).collect();
    for (key, words) in [("search", &search), ("options", &asked.options)] {
        if !words.is_empty() {
            text.push_str(&format!("{key} {}\n", words.join(" ")));
        }
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_says_what_was_asked_for() {
        let asked = Resolution {
            servers: vec!["192.0.2.1".parse().unwrap()],
            options: vec!["ndots:2".into()],
            search: vec!["example.org".into(), ".".into()],
        };
        let ours = resolv_conf(Some(("shop", Ipv4Addr::new(10, 77, 0, 1))), &asked).unwrap();
        let expected = "nameserver 10.77.0.1\nsearch shop.internal example.org\noptions ndots:2\n";
        assert_eq!(ours, expected);
        let of_host = resolv_conf(None, &asked).unwrap();
        assert!(of_host.starts_with("nameserver 192.0.2.1\nsearch example.org\n"), "{of_host}");
        assert_eq!(resolv_conf(None, &Resolution::default()), None);
    }
}
