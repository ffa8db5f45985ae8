//! A process that makes a network bad where the kernel has no `netem`.
//!
//! # What the kernel offers
//! Since Linux 6.6 a small program (BPF) can stand at each end of an interface (tcx) and send
//! packets to another interface instead. It stays as long as a descriptor keeps it. A tap is an
//! interface whose packets a process reads and writes, and it too goes with its descriptor.
//!
//! # What we do
//! ```text
//!   in:   bridge ──▶ mr… egress ──▶ container        out:   container ──▶ mr… ingress ──▶ bridge
//!                     │      ▲                                             │      ▲
//!                     ▼      │ marked                                      ▼      │ marked
//!                     mt…i ──┘                                             mt…o ──┘
//!                     │      ▲                                             │      ▲
//!                     ▼      │                                             ▼      │
//!                      relay                                                relay
//! ```
//! Each direction with a fault makes a detour by a tap. The relay reads a packet there, decides
//! what becomes of it (`fate.rs`), lets it wait (`waiting.rs`) and writes it back. Then it comes in
//! at the tap, where the second program (`program.rs`) marks it and puts it back where it was; the
//! mark is what the first program lets pass, and takes off.
//!
//! Large packets pass whole and checksums stay undone, as within the kernel, so a transfer costs
//! one read and one write for 64 KiB. As with netem, such a packet is one: lost, doubled and
//! delayed as a whole.
//!
//! The command that wants a fault makes taps and programs, so that it can tell what does not work,
//! and leaves the descriptors to the relay. From then on **only the relay has them**. However it
//! ends, and be it by `kill -9`, the kernel takes everything away and packets go their usual way.
//! The relay ends by itself when the interface of the container is gone, and when the process is
//! that the fault is tied to. A fault that is taken back or changed kills it; with a change the
//! next relay takes over its descriptors first, so that no packet passes by in between.
//!
//! # What goes wrong without it
//! A relay between two cables, or a bridge in user space, has to be there for any packet to pass:
//! it cuts the container off when it is killed.

mod fate;
mod program;
mod serve;
mod waiting;

use std::hash::{BuildHasher, RandomState};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use linux::bpf::{Hook, attach_packet_program, load_packet_program};
use linux::{Errno, counter, pidfd, socket};
use serde::{Deserialize, Serialize};

use crate::companion;
use crate::error::{During, Error, Result};
use crate::netlink::{Batch, Connection, LinkChange};
use crate::process::Process;
use crate::traffic::{Direction, Faults};
use program::Mark;
pub use serve::serve_inherited;

/// Packets that may wait for the relay to read them: what comes while it is not given a processor.
const QUEUE_PACKETS: u32 = 2000;

/// How to start a relay: the program, and the arguments before the one that it gives to
/// [`serve_inherited`]. Whoever starts one must be single-threaded.
#[derive(Debug, Clone, Copy)]
pub struct Launch<'a> {
    /// Its file.
    pub program: &'a Path,
    /// Its arguments, its name first.
    pub arguments: &'a [&'a str],
}

/// What a relay does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Work {
    /// What it makes wrong towards the container; nothing leads these packets to it when empty.
    #[serde(rename = "in")]
    pub inward: Faults,
    /// The same from the container.
    #[serde(rename = "out")]
    pub outward: Faults,
    /// It ends when this process does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<Process>,
}

/// A relay that was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Relay {
    /// Its process.
    pub process: Process,
    /// What it does, or did.
    pub work: Work,
    /// Its descriptors, towards the container and from it.
    descriptors: [Option<Descriptors>; 2],
}

/// The numbers of a relay's descriptors for one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Descriptors {
    tap: i32,
    programs: [i32; 2],
    lost: i32,
}

impl Work {
    /// Whether there is anything to do.
    pub(super) fn is_none(&self) -> bool {
        self.inward.is_none() && self.outward.is_none()
    }

    /// What it makes wrong in one direction.
    pub fn towards(&self, direction: Direction) -> &Faults {
        match direction {
            Direction::In => &self.inward,
            Direction::Out => &self.outward,
        }
    }
}

impl Relay {
    /// How many packets on their way in it has thrown away.
    pub(super) fn lost_inward(&self) -> u64 {
        let [inward, _] = self.descriptors;
        let Some(inward) = inward.filter(|_| self.process.is_alive()) else { return 0 };
        let file = format!("/proc/{}/fdinfo/{}", self.process.pid, inward.lost);
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let count = text.lines().find_map(|line| line.strip_prefix("eventfd-count:"));
        count.and_then(|count| u64::from_str_radix(count.trim(), 16).ok()).unwrap_or(0)
    }

    /// Its detours, so that the next relay goes on with them: no packet passes by in between. None
    /// when it has died, or may not be looked into.
    fn take_over(&self) -> [Option<Detour>; 2] {
        let Some(process) = self.process.open() else { return [None, None] };
        let take = |number| pidfd::take_descriptor(&process, number).ok();
        self.descriptors.map(|numbers| {
            let Descriptors { tap, programs: [away, back], lost } = numbers?;
            let programs = [take(away)?, take(back)?];
            Some(Detour { tap: take(tap)?, programs, lost: take(lost)? })
        })
    }
}

/// The names of the interfaces that packets of a container wait at.
pub(crate) fn tap_names(address: Ipv4Addr) -> [String; 2] {
    [Direction::In, Direction::Out].map(|direction| tap_name(address, direction))
}

fn tap_name(address: Ipv4Addr, direction: Direction) -> String {
    let end = match direction {
        Direction::In => 'i',
        Direction::Out => 'o',
    };
    format!("mt{:08x}{end}", address.to_bits())
}

/// What the relay's process is told: which descriptors are what.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    /// The interface of the container.
    interface: String,
    index: u32,
    /// The way to the command that starts it.
    starter: i32,
    /// Readable when the process is gone that the fault is tied to.
    holder: Option<i32>,
    seed: u64,
    detours: Vec<OrderedDetour>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OrderedDetour {
    descriptors: Descriptors,
    faults: Faults,
}

/// A way of packets through a process.
#[derive(Debug)]
struct Detour {
    tap: OwnedFd,
    /// What leads packets there and back, as long as these are open.
    programs: [OwnedFd; 2],
    /// Counts packets that are thrown away.
    lost: OwnedFd,
}

/// A relay that waits for the word to begin. When this is dropped, it ends.
#[derive(Debug)]
pub(super) struct Starting {
    /// What is to be remembered before.
    pub(super) relay: Relay,
    line: OwnedFd,
}

impl Starting {
    /// Lets it begin. From here on it stays when this command dies.
    pub(super) fn begin(self) -> Result<()> {
        socket::send(&self.line, b"go", &[]).during(step)
    }
}

fn step() -> String {
    "starting the process that makes a network bad".to_owned()
}

/// Leads packets of the interface of `address` away to a new process, in the place of `old`, which
/// is killed. `label` marks its interfaces.
pub(super) fn start(
    launch: Launch<'_>,
    address: Ipv4Addr,
    label: &str,
    work: Work,
    old: Option<Relay>,
) -> Result<Starting> {
    let holder = work.holder.map(|holder| {
        let gone = || Error::NotFound { what: "process", name: holder.pid.to_string() };
        holder.open().ok_or_else(gone)
    });
    let holder = holder.transpose()?;
    let mut kernel = crate::collect::connect()?;
    let interface = crate::lease::host_interface(address);
    let index = kernel.link(&interface).during(step)?.index;
    let [inward, outward] = old.map_or([None, None], |old| old.take_over());
    if let Some(old) = old {
        old.process.kill_and_wait()?;
    }
    let mut detour = |direction, taken: Option<Detour>| match (taken, work.towards(direction)) {
        (_, faults) if faults.is_none() => Ok(None),
        (Some(taken), _) => Ok(Some(taken)),
        (None, _) => {
            let name = tap_name(address, direction);
            Detour::make(&mut kernel, index, &name, label, direction).map(Some).map_err(refusal)
        }
    };
    let detours = [detour(Direction::In, inward)?, detour(Direction::Out, outward)?];
    let descriptors = detours.each_ref().map(|one| one.as_ref().map(Detour::descriptors));
    let faults = [work.inward, work.outward];
    let ordered = descriptors.iter().zip(faults).filter_map(|(descriptors, faults)| {
        descriptors.map(|descriptors| OrderedDetour { descriptors, faults })
    });
    let (line, theirs) = socket::pair().during(step)?;
    let order = Order {
        interface,
        index,
        starter: theirs.as_raw_fd(),
        holder: holder.as_ref().map(AsRawFd::as_raw_fd),
        seed: random(),
        detours: ordered.collect(),
    };
    let order = serde_json::to_string(&order)
        .map_err(|error| Error::invalid("order to a relay", "", error.to_string()))?;
    let of_detours = detours.iter().flatten().flat_map(Detour::all);
    let inherited: Vec<_> =
        [&theirs].into_iter().chain(&holder).chain(of_detours).map(AsFd::as_fd).collect();
    let child = companion::start(launch.program, launch.arguments, order, &inherited);
    let child = child.during(step)?;
    drop(inherited);
    drop(theirs);
    let is_ready = socket::receive(&line, &mut [0; 8]).is_ok_and(|answer| answer.length > 0);
    let process = u32::try_from(child.pid.as_raw()).ok().and_then(Process::of);
    let process = process.filter(|_| is_ready).ok_or_else(|| Error::Kernel {
        step: step(),
        source: linux::Error::new("recvmsg", "its first word", Errno::EPIPE),
    })?;
    Ok(Starting { relay: Relay { process, work, descriptors }, line })
}

impl Detour {
    fn make(
        kernel: &mut Connection,
        container: u32,
        name: &str,
        label: &str,
        direction: Direction,
    ) -> linux::Result<Self> {
        let tap = linux::tap::make(name)?;
        let index = kernel.link(name)?.index;
        let mut batch = Batch::new();
        batch.set_alias(name, &format!("{label} traffic"));
        batch.change_link(index, LinkChange::NoOwnAddresses).unless(Errno::EAFNOSUPPORT);
        batch.change_link(index, LinkChange::QueueLength(QUEUE_PACKETS));
        batch.change_link(index, LinkChange::Up(true));
        kernel.execute(&batch)?;
        let mark = Mark::new(random());
        let back = load_packet_program(&program::back(mark, container, direction))?;
        let away = load_packet_program(&program::away(mark, index))?;
        let hook = match direction {
            Direction::In => Hook::Egress,
            Direction::Out => Hook::Ingress,
        };
        // The way back first: no packet is led to where there is none.
        let back = attach_packet_program(index, Hook::Ingress, back.as_fd())?;
        let away = attach_packet_program(container, hook, away.as_fd())?;
        Ok(Self { tap, programs: [away, back], lost: counter::new()? })
    }

    fn all(&self) -> [&OwnedFd; 4] {
        let [away, back] = &self.programs;
        [&self.tap, away, back, &self.lost]
    }

    fn descriptors(&self) -> Descriptors {
        let [tap, away, back, lost] = self.all().map(AsRawFd::as_raw_fd);
        Descriptors { tap, programs: [away, back], lost }
    }
}

/// A number that nobody can know before.
fn random() -> u64 {
    RandomState::new().hash_one(0_u8)
}

/// What a kernel says that cannot do it, and what it needs.
fn refusal(error: linux::Error) -> Error {
    const LACKS: [Errno; 8] = [
        Errno::ENOENT,
        Errno::ENODEV,
        Errno::ENXIO,
        Errno::ENOSYS,
        Errno::EINVAL,
        Errno::EPERM,
        Errno::EACCES,
        Errno::EOPNOTSUPP,
    ];
    if !LACKS.contains(&error.errno) {
        return Error::Kernel { step: step(), source: error };
    }
    super::apply::unsupported_fault(&error.to_string())
}
