//! The brain's connection to the data plane: finds it, keeps it told, hears from it.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use anyhow::Result;
use linux::socket;
use minisup_core::input::Followed;
use minisup_core::name::InstanceId;
use tokio::sync::mpsc::UnboundedSender;

use super::News;
use crate::balance::Balance;
use crate::discovery::Directory;
use crate::door::Door;
use crate::layout::Layout;
use crate::plane::line::Line;
use crate::plane::protocol::{Hello, Order, Report};

/// The pause between two tries to reach a data plane that is starting.
const AGAIN: Duration = Duration::from_millis(20);

/// The connection, when there is one, and what went over it.
#[derive(Debug, Default)]
pub(crate) struct Link {
    line: Option<Rc<Line>>,
    /// The data plane's process; 0 if there is none.
    pub(crate) process: u32,
    pub(crate) endpoints: BTreeSet<InstanceId>,
    pub(crate) listeners: BTreeSet<Door>,
    /// The rules it has been told.
    pub(crate) rules: BTreeMap<String, Balance>,
    /// Who can be found, as it has been told, by the keys of networks.
    pub(crate) directories: BTreeMap<String, Directory>,
}

impl Link {
    /// A data plane has said hello; the answer is what it follows.
    pub(crate) fn connected(&mut self, line: Rc<Line>, hello: Hello) -> Followed {
        *self = Link {
            line: Some(line),
            process: hello.process,
            endpoints: hello.endpoints.into_iter().collect(),
            listeners: hello.listeners.into_iter().collect(),
            ..Link::default()
        };
        hello.followed
    }

    pub(crate) fn lost(&mut self) {
        *self = Link::default();
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.line.is_some()
    }

    /// Tells the data plane something. One that cannot be told is cut off; it will be found again.
    pub(crate) fn tell(&mut self, order: &Order, fd: Option<&OwnedFd>) {
        if let Some(line) = &self.line
            && let Err(error) = line.say(order, fd.map(AsFd::as_fd))
        {
            eprintln!("minisup brain: the data plane cannot be told: {error:#}");
            line.cut();
            self.lost();
        }
    }
}

/// Finds the data plane, again and again, and passes on what it says.
pub(crate) async fn hear(layout: Layout, news: UnboundedSender<News>) {
    loop {
        if let Ok(line) = connect(&layout) {
            let line = Rc::new(line);
            while let Ok(Some((report, _))) = line.hear::<Report>().await {
                let word = match report {
                    Report::Hello(hello) => News::PlaneIsThere { line: line.clone(), hello },
                    other => News::Plane(other),
                };
                if news.send(word).is_err() {
                    return;
                }
            }
            if news.send(News::PlaneIsGone).is_err() {
                return;
            }
        }
        tokio::time::sleep(AGAIN).await;
    }
}

fn connect(layout: &Layout) -> Result<Line> {
    let dir = std::fs::File::open(layout.run())?;
    Line::new(socket::connect_at(dir.as_fd(), "plane.sock")?)
}
