//! The data plane: carries requests, decides nothing.
//!
//! It keeps doing what it was last told, whatever happens to the brain; a new brain says hello
//! and finds out what that is. One thread: every instance is reached through a socket made in
//! its network namespace ([`crate::netns`]), and namespaces belong to threads.

mod access_log;
mod ahead;
mod backend;
mod budget;
mod buffer;
mod choice;
pub(crate) mod histogram;
mod http;
mod http2;
pub(crate) mod line;
mod listen;
pub(crate) mod protocol;
mod proxy_protocol;
mod reach;
mod silence;
mod table;
mod tcp;
mod term;
mod tls;
mod turn;
mod udp;

pub(crate) use http2::Local;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use linux::inet::{self, Transport};
use linux::{Errno, prctl, socket};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::AbortHandle;

use crate::discovery::server::Discovery;
use crate::door::Door;
use crate::layout::{Layout, Place, is_at};
use crate::model::Publish;
use line::Line;
use protocol::{Hello, Order, Report};
use table::{Service, Table};
use term::Term;

/// The time between two looks whether the project is still there.
const LOOK: Duration = Duration::from_secs(5);
/// One connection between services for so many descriptors that there may be, of which it takes
/// two: a container that connects without end leaves the other half to requests from outside.
const FILES_FOR_EACH_OTHER: usize = 4;

/// What every connection needs.
pub(crate) struct Port {
    pub(crate) service: Rc<Service>,
    pub(crate) publish: Publish,
    /// It is the host's; else it is another service's way here.
    pub(crate) published: bool,
    pub(crate) term: Rc<Term>,
    /// Places for connections, if there is an end of them.
    pub(crate) places: Option<Arc<Semaphore>>,
    /// Here the server has spoken first, as databases and mail servers do.
    pub(crate) greets: Cell<bool>,
}

/// Runs the data plane of a project, for ever.
pub(crate) fn run(project: &str) -> Result<()> {
    prctl::set_name(c"minisup-plane")?;
    let files = linux::rlimit::raise_open_files()?;
    let layout = Layout::of(project)?;
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    runtime.block_on(serve(&layout, files))
}

/// Everything there is.
struct Plane {
    table: Rc<Table>,
    listeners: RefCell<BTreeMap<Door, Listener>>,
    discovery: Discovery<Table>,
    term: Rc<Term>,
    opener: Opener,
}

/// What sockets are given to.
#[derive(Clone)]
struct Opener {
    table: Rc<Table>,
    term: Rc<Term>,
    /// For connections between services.
    places: Arc<Semaphore>,
}

/// What takes connections or datagrams at one of the host's addresses.
struct Listener {
    /// For which service, and where it leads.
    told: (String, Publish),
    task: AbortHandle,
}

/// `files` is how many descriptors there may be.
async fn serve(layout: &Layout, files: u64) -> Result<()> {
    // One at a time: two would both accept connections, and one of them with old routes.
    let lock = File::create(layout.plane_lock())?;
    lock.lock().context("cannot lock the data plane's place")?;
    if !is_at(&lock, &layout.plane_lock()) {
        return Ok(()); // the project has gone meanwhile
    }
    // Left behind by a predecessor that was killed.
    let _ = std::fs::remove_file(layout.plane());
    let dir = File::open(layout.run())?;
    let listener =
        socket::listen_at(dir.as_fd(), "plane.sock").context("cannot listen for the brain")?;
    let socket = layout.plane_place();
    linux::fd::set_nonblocking(listener.as_fd())?;
    let (reports, mut outbox) = mpsc::unbounded_channel();
    let table = Rc::new(Table::new(reports, layout.logs()));
    let places = usize::try_from(files)?.min(Semaphore::MAX_PERMITS) / FILES_FOR_EACH_OTHER;
    let term = Rc::<Term>::default();
    let places = Arc::new(Semaphore::new(places));
    let opener = Opener { table: table.clone(), term: term.clone(), places };
    let inside = opener.clone();
    let open = move |service: &str, publish, socket| inside.listen(service, publish, socket, false);
    let discovery = Discovery::new(table.clone(), Box::new(open));
    let plane = Plane { table, listeners: RefCell::default(), discovery, term, opener };
    let door = crate::ready::readable(listener)?;
    tokio::task::spawn_local(end_with(layout.clone(), layout.place()));
    loop {
        let brain = next_brain(&door).await?;
        while outbox.try_recv().is_ok() {} // meant for a brain that is gone
        let hello = Report::Hello(Hello {
            process: std::process::id(),
            followed: plane.table.followed(),
            listeners: plane.listeners.borrow().keys().copied().collect(),
            endpoints: plane.table.endpoints(),
        });
        if brain.say(&hello, None).is_err() {
            continue;
        }
        // Ends when the brain does.
        if let Err(error) = obey(&brain, &plane, &mut outbox).await {
            eprintln!("minisup plane: {error:#}");
        }
        if plane.term.is_over() {
            break;
        }
    }
    // What is left to report is about requests that the next brain knows nothing of.
    drop((door, outbox));
    plane.retire(lock, layout, socket).await;
    Ok(())
}

/// Ends this process when the directory of its project has gone: whoever would have ended it has
/// been killed before.
async fn end_with(layout: Layout, place: Option<Place>) {
    while layout.place() == place {
        tokio::time::sleep(LOOK).await;
    }
    std::process::exit(0);
}

async fn next_brain(door: &tokio::io::unix::AsyncFd<OwnedFd>) -> Result<Line> {
    loop {
        let mut ready = door.readable().await?;
        match socket::accept(door.get_ref()) {
            Ok(brain) => return Line::new(brain),
            Err(error) if error.errno == Errno::EAGAIN => ready.clear_ready(),
            Err(error) => return Err(error.into()),
        }
    }
}

async fn obey(
    brain: &Line,
    plane: &Plane,
    outbox: &mut mpsc::UnboundedReceiver<Report>,
) -> Result<()> {
    while !plane.term.is_over() {
        tokio::select! {
            order = brain.hear() => match order? {
                Some((order, fd)) => plane.take(order, fd)?,
                None => return Ok(()),
            },
            Some(report) = outbox.recv() => brain.say(&report, None)?,
        }
    }
    Ok(())
}

impl Plane {
    fn take(&self, order: Order, fd: Option<OwnedFd>) -> Result<()> {
        match order {
            Order::Listener { service, publish } => {
                let socket = fd.context("a listener without a socket")?;
                let door = publish.door();
                let told = (service, publish);
                // Told once more, as after every `up`: who speaks there is not disturbed.
                if self.listeners.borrow().get(&door).is_some_and(|known| known.told == told) {
                    return Ok(());
                }
                let task = self.opener.listen(&told.0, told.1.clone(), socket, true)?;
                let new = Listener { told, task };
                if let Some(old) = self.listeners.borrow_mut().insert(door, new) {
                    old.task.abort();
                }
            }
            Order::Close { door } => {
                if let Some(old) = self.listeners.borrow_mut().remove(&door) {
                    old.task.abort();
                }
            }
            Order::Endpoint { instance, addresses } => {
                let namespace = fd.context("an endpoint without a namespace")?;
                self.table.add_endpoint(instance, namespace, addresses);
            }
            Order::Routes(routes) => {
                self.table.follow(&routes);
                self.discovery.look();
            }
            Order::Rules { service, rules } => self.table.rule(&service, *rules),
            Order::Directory(directory) => {
                let network = fd.context("a directory without a network")?;
                // Requests from outside do not depend on names.
                if let Err(error) = self.discovery.follow(directory, network) {
                    eprintln!("minisup plane: services cannot find each other: {error:#}");
                }
            }
            Order::Forget { network } => self.discovery.forget(&network),
            Order::Count { after } => self.table.tell_traffic(after.as_ref()),
            Order::Retire => self.term.end(),
            Order::Leave => std::process::exit(0),
        }
        Ok(())
    }

    /// Lets a successor begin, and finishes what it has begun itself.
    async fn retire(&self, lock: File, layout: &Layout, socket: Option<Place>) {
        for listener in std::mem::take(&mut *self.listeners.borrow_mut()).into_values() {
            listener.task.abort();
        }
        tokio::task::yield_now().await; // until then the sockets are open
        drop(lock);
        term::successor(layout, socket).await;
        self.discovery.end();
        self.term.close();
        self.table.wake_all();
        self.term.everybody_left().await;
    }
}

impl Opener {
    /// Takes connections, or datagrams, for a service from a socket.
    fn listen(
        &self,
        service: &str,
        publish: Publish,
        socket: OwnedFd,
        published: bool,
    ) -> Result<AbortHandle> {
        linux::fd::set_nonblocking(socket.as_fd())?;
        let transport = publish.protocol.transport();
        let (service, term) = (self.table.service(service), self.term.clone());
        let places = (!published).then(|| self.places.clone());
        let port =
            Rc::new(Port { service, publish, published, term, places, greets: Cell::default() });
        let task = match transport {
            Transport::Tcp => {
                inet::ask_silent_clients(&socket)?;
                let socket = TcpListener::from_std(socket.into())?;
                tokio::task::spawn_local(listen::accept(socket, port))
            }
            Transport::Udp => {
                let socket = crate::ready::readable(socket)?;
                tokio::task::spawn_local(udp::accept(socket, port))
            }
        };
        Ok(task.abort_handle())
    }
}

#[cfg(test)]
mod tests;
