//! The data plane's part: DNS at the bridge's address, and every service at its own.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::{IpAddr, SocketAddr, SocketAddrV4, TcpListener as StdListener, UdpSocket as StdUdp};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::rc::Rc;

use anyhow::{Context, Result};
use simple_dns::RCODE;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;

use super::names::{self, Instances};
use super::{Directory, address, forward};
use crate::door::Door;
use crate::model::{Protocol, Publish};
use crate::netns;
use crate::settings::Resolver as Resolution;

/// The longest question; longer ones are nobody's.
const QUESTION: usize = 4096;
/// Questions that may be passed on at the same time.
const PASSED_ON: usize = 256;

/// What has been opened in the project's network.
pub(crate) struct Discovery<I> {
    directory: Rc<RefCell<Directory>>,
    instances: Rc<I>,
    opened: RefCell<BTreeMap<Door, (Protocol, AbortHandle)>>,
}

impl<I: Instances + 'static> Discovery<I> {
    pub(crate) fn new(instances: Rc<I>) -> Discovery<I> {
        Discovery { directory: Rc::default(), instances, opened: RefCell::default() }
    }

    /// Follows a new directory. `listen` takes a listening socket for a service's port over.
    pub(crate) fn follow(
        &self,
        directory: Directory,
        network: BorrowedFd<'_>,
        listen: impl Fn(&str, Publish, OwnedFd) -> Result<AbortHandle>,
    ) -> Result<()> {
        if self.directory.borrow().project.is_empty() {
            self.offer_names(network).context("cannot offer DNS")?;
        }
        let mut wanted = BTreeMap::new();
        for (name, entry) in &directory.services {
            for (port, protocol) in &entry.ports {
                let at = SocketAddr::from((entry.address, *port));
                let door = Door { at, transport: protocol.transport() };
                wanted.insert(door, (name.clone(), *protocol));
            }
        }
        *self.directory.borrow_mut() = directory;
        let mut opened = self.opened.borrow_mut();
        opened.retain(|door, (protocol, task)| {
            let stays = wanted.get(door).is_some_and(|(_, wanted)| wanted == protocol);
            if !stays {
                task.abort();
            }
            stays
        });
        for (door, (service, protocol)) in wanted {
            if let Entry::Vacant(place) = opened.entry(door) {
                let socket = netns::within(network, || door.open())?;
                let socket =
                    socket.with_context(|| format!("cannot listen at {door} for {service}"))?;
                let publish =
                    Publish { host: door.at, among: None, port: door.at.port(), protocol };
                place.insert((protocol, listen(&service, publish, socket)?));
            }
        }
        Ok(())
    }

    fn offer_names(&self, network: BorrowedFd<'_>) -> Result<()> {
        let at = SocketAddrV4::new(address::GATEWAY, 53);
        let socket = netns::within(network, || StdUdp::bind(at))??;
        socket.set_nonblocking(true)?;
        let listener = netns::within(network, || StdListener::bind(at))??;
        listener.set_nonblocking(true)?;
        let (socket, listener) = (UdpSocket::from_std(socket)?, TcpListener::from_std(listener)?);
        let resolver = Rc::new(Resolver {
            directory: self.directory.clone(),
            instances: self.instances.clone(),
            passed_on: Semaphore::new(PASSED_ON),
        });
        tokio::task::spawn_local(datagrams(Rc::new(socket), resolver.clone()));
        tokio::task::spawn_local(streams(listener, resolver));
        Ok(())
    }
}

struct Resolver<I> {
    directory: Rc<RefCell<Directory>>,
    instances: Rc<I>,
    passed_on: Semaphore,
}

impl<I: Instances> Resolver<I> {
    /// An answer that is known here.
    fn known(&self, question: &[u8]) -> Option<Vec<u8>> {
        names::answer(question, &self.directory.borrow(), &*self.instances)
    }

    /// The answer of somebody else; who is asked too much at a time says that it failed.
    async fn other(&self, question: &[u8], by_tcp: bool, client: IpAddr) -> Vec<u8> {
        let given = match client {
            IpAddr::V4(client) => self.directory.borrow().servers.get(&client).cloned(),
            IpAddr::V6(_) => None,
        };
        let given = given.unwrap_or_default();
        let answer = match self.passed_on.try_acquire() {
            Ok(_permit) => forward::ask(question, by_tcp, &given).await,
            Err(_) => None,
        };
        answer.unwrap_or_else(|| names::failure(question, RCODE::ServerFailure))
    }
}

async fn datagrams<I: Instances + 'static>(socket: Rc<UdpSocket>, resolver: Rc<Resolver<I>>) {
    let mut buffer = [0; QUESTION];
    loop {
        // An error is about a datagram sent before, to somebody who is gone.
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else { continue };
        let question = &buffer[..length];
        match resolver.known(question) {
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

async fn streams<I: Instances + 'static>(listener: TcpListener, resolver: Rc<Resolver<I>>) {
    loop {
        let Ok((stream, client)) = listener.accept().await else {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            continue;
        };
        let resolver = resolver.clone();
        tokio::task::spawn_local(async move {
            // It ends when the client does.
            let _ = serve(stream, client.ip(), &resolver).await;
        });
    }
}

async fn serve<I: Instances>(
    mut stream: TcpStream,
    client: IpAddr,
    resolver: &Resolver<I>,
) -> std::io::Result<()> {
    loop {
        let length = usize::from(stream.read_u16().await?);
        if length > QUESTION {
            return Ok(());
        }
        let mut question = vec![0; length];
        stream.read_exact(&mut question).await?;
        let answer = match resolver.known(&question) {
            Some(answer) => answer,
            None => resolver.other(&question, true, client).await,
        };
        let length = u16::try_from(answer.len()).map_err(std::io::Error::other)?;
        stream.write_all(&[&length.to_be_bytes()[..], &answer].concat()).await?;
    }
}

/// The text of a container's `/etc/resolv.conf`: for the project's network, if it is in that; none
/// if it is in none of ours and nothing was said.
pub(crate) fn resolv_conf(project: Option<&str>, asked: &Resolution) -> Option<String> {
    if project.is_none() && *asked == Resolution::default() {
        return None;
    }
    let servers: Vec<IpAddr> = match project {
        // Who is asked for other names is the data plane's business.
        Some(_) => vec![address::GATEWAY.into()],
        None => asked.servers.clone(),
    };
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
        let ours = resolv_conf(Some("shop"), &asked).unwrap();
        let expected = "nameserver 10.77.0.1\nsearch shop.internal example.org\noptions ndots:2\n";
        assert_eq!(ours, expected);
        let of_host = resolv_conf(None, &asked).unwrap();
        assert!(of_host.starts_with("nameserver 192.0.2.1\nsearch example.org\n"), "{of_host}");
        assert_eq!(resolv_conf(None, &Resolution::default()), None);
    }
}
