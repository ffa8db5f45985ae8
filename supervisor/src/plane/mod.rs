//! The data plane: carries requests, decides nothing.
//!
//! It keeps doing what it was last told, whatever happens to the brain; a new brain says hello
//! and finds out what that is. One thread: every instance is reached through a socket made in
//! its network namespace ([`crate::netns`]), and namespaces belong to threads.

mod http;
pub(crate) mod protocol;
mod table;
mod tcp;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result};
use linux::{Errno, prctl, socket};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, LocalSet};

use crate::layout::Layout;
use crate::model::{Protocol, Publish};
use protocol::{Line, Order, Report};
use table::{Service, Table};

/// How long a request may wait for an instance before it is refused.
pub(crate) const QUEUE: Duration = Duration::from_secs(10);
/// How long the client's first bytes are waited for when they decide what it speaks.
const FIRST_BYTES: Duration = Duration::from_millis(50);

/// What every connection needs.
pub(crate) struct Port {
    pub(crate) table: Rc<Table>,
    pub(crate) service: Rc<Service>,
    pub(crate) publish: Publish,
}

/// Runs the data plane of a project, for ever.
pub(crate) fn run(project: &str) -> Result<()> {
    prctl::set_name(c"minisup-plane")?;
    linux::rlimit::raise_open_files()?;
    let layout = Layout::of(project)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, serve(&layout))
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
    let table = Rc::new(Table::new(reports));
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
            let port = Rc::new(Port { table: table.clone(), service, publish });
            let task = tokio::task::spawn_local(accept(socket, port)).abort_handle();
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
        Order::Leave => std::process::exit(0),
    }
    Ok(())
}

async fn accept(listener: TcpListener, port: Rc<Port>) {
    loop {
        match listener.accept().await {
            Ok((stream, client)) => {
                tokio::task::spawn_local(serve_client(stream, client, port.clone()));
            }
            // Out of descriptors: those who wait will be served when others are done.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

async fn serve_client(stream: TcpStream, client: SocketAddr, port: Rc<Port>) {
    let _ = stream.set_nodelay(true);
    let http = match port.publish.protocol {
        Protocol::Http => true,
        Protocol::Tcp => false,
        Protocol::Auto => speaks_http(&stream).await,
    };
    if http {
        http::serve(stream, client, port).await;
    } else {
        tcp::serve(stream, &port).await;
    }
}

/// Whether the client begins with an HTTP/1 request line. One that says nothing waits for the
/// server to speak first, which no HTTP client does.
async fn speaks_http(stream: &TcpStream) -> bool {
    const METHODS: [&[u8]; 9] =
        [b"GET ", b"HEAD", b"POST", b"PUT ", b"DELE", b"OPTI", b"PATC", b"TRAC", b"CONN"];
    let mut first = [0; 4];
    let peeked = tokio::time::timeout(FIRST_BYTES, async {
        loop {
            match stream.peek(&mut first).await {
                Ok(4) => return METHODS.contains(&&first[..]),
                Ok(0) | Err(_) => return false,
                // A first segment of one to three bytes: the rest follows.
                Ok(_) => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        }
    });
    peeked.await.unwrap_or(false)
}
