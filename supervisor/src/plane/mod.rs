//! The data plane: carries requests, decides nothing.
//!
//! It keeps doing what it was last told, whatever happens to the brain; a new brain says hello
//! and finds out what that is. One thread: every instance is reached through a socket made in
//! its network namespace ([`crate::netns`]), and namespaces belong to threads.

mod access_log;
mod backend;
mod budget;
mod buffer;
mod choice;
pub(crate) mod histogram;
mod http;
mod http2;
mod listen;
pub(crate) mod protocol;
mod proxy_protocol;
mod reach;
mod table;
mod tcp;
mod turn;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use anyhow::{Context, Result};
use linux::{Errno, prctl, socket};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::layout::Layout;
use crate::model::Publish;
use protocol::{Line, Order, Report};
use table::{Service, Table};

/// What every connection needs.
pub(crate) struct Port {
    pub(crate) service: Rc<Service>,
    pub(crate) publish: Publish,
}

/// Runs the data plane of a project, for ever.
pub(crate) fn run(project: &str) -> Result<()> {
    prctl::set_name(c"minisup-plane")?;
    linux::rlimit::raise_open_files()?;
    let layout = Layout::of(project)?;
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    runtime.block_on(serve(&layout))
}

type Listeners = RefCell<BTreeMap<SocketAddr, AbortHandle>>;

async fn serve(layout: &Layout) -> Result<()> {
    // One at a time: two would both accept connections, and one of them with old routes.
    let lock = std::fs::File::create(layout.plane_lock())?;
    lock.lock().context("cannot lock the data plane's place")?;
    // Left behind by a predecessor that was killed.
    let _ = std::fs::remove_file(layout.plane());
    let dir = std::fs::File::open(layout.run())?;
    let listener =
        socket::listen_at(dir.as_fd(), "plane.sock").context("cannot listen for the brain")?;
    linux::fd::set_nonblocking(listener.as_fd())?;
    let (reports, mut outbox) = mpsc::unbounded_channel();
    let table = Rc::new(Table::new(reports, layout.logs()));
    let listeners = Listeners::default();
    let door = crate::ready::readable(listener)?;
    loop {
        let brain = next_brain(&door).await?;
        while outbox.try_recv().is_ok() {} // meant for a brain that is gone
        let hello = Report::Hello {
            followed: table.followed(),
            listeners: listeners.borrow().keys().copied().collect(),
            endpoints: table.endpoints(),
        };
        if brain.say(&hello, None).is_err() {
            continue;
        }
        // Ends when the brain does.
        if let Err(error) = obey(&brain, &table, &listeners, &mut outbox).await {
            eprintln!("minisup plane: {error:#}");
        }
    }
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
    table: &Rc<Table>,
    listeners: &Listeners,
    outbox: &mut mpsc::UnboundedReceiver<Report>,
) -> Result<()> {
    loop {
        tokio::select! {
            order = brain.hear() => match order? {
                Some((order, fd)) => take(order, fd, table, listeners)?,
                None => return Ok(()),
            },
            Some(report) = outbox.recv() => brain.say(&report, None)?,
        }
    }
}

fn take(order: Order, fd: Option<OwnedFd>, table: &Rc<Table>, listeners: &Listeners) -> Result<()> {
    match order {
        Order::Listener { service, publish } => {
            let socket = std::net::TcpListener::from(fd.context("a listener without a socket")?);
            socket.set_nonblocking(true)?;
            let socket = TcpListener::from_std(socket)?;
            let host = publish.host;
            let service = table.service(&service);
            let port = Rc::new(Port { service, publish });
            let task = tokio::task::spawn_local(listen::accept(socket, port)).abort_handle();
            if let Some(old) = listeners.borrow_mut().insert(host, task) {
                old.abort();
            }
        }
        Order::Close { host } => {
            if let Some(task) = listeners.borrow_mut().remove(&host) {
                task.abort();
            }
        }
        Order::Endpoint { instance } => {
            table.add_endpoint(instance, fd.context("an endpoint without a namespace")?);
        }
        Order::Routes(routes) => table.follow(&routes),
        Order::Rules { service, rules } => table.rule(&service, *rules),
        Order::Count { after } => table.tell_traffic(after.as_ref()),
        Order::Leave => std::process::exit(0),
    }
    Ok(())
}
