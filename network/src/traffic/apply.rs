//! From what was asked for to queues, and to rules where queues cannot do it.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use linux::Errno;
use linux::namespace::{Kind, open};

use crate::attach::Attachment;
use crate::bridge::remove_link;
use crate::collect::connect;
use crate::error::{During, Error, Result};
use crate::firewall;
use crate::lease::Lease;
use crate::netlink::{Batch, Connection, LinkChange, Qdisc, Traffic};
use crate::store::{LockedStore, Store, entries};
use crate::traffic::record::{self, Record};
use crate::traffic::relay::{self, Launch, Work};
use crate::traffic::{Direction, Fault, Faults, Rates, Statistics, netem, tbf};

/// Makes an interface of a container as fast and as bad as asked, and remembers it. `netns` is the
/// container's; `guarded` when it has `CAP_NET_ADMIN` there. Without `launch`, what takes a relay
/// is refused.
///
/// What is not given stays as it is: rates and faults are set and taken back independently
/// (`Some(None)` takes a fault back). A fault whose relay has died is over.
pub fn apply(
    store: &Store,
    netns: BorrowedFd<'_>,
    lease: &Lease,
    rates: Option<Rates>,
    fault: Option<Option<Fault>>,
    guarded: bool,
    launch: Option<Launch<'_>>,
) -> Result<()> {
    let locked = store.lock()?;
    if !locked.holds(lease) {
        let name = format!("{} in network {}", lease.container, lease.network);
        return Err(Error::NotFound { what: "container", name });
    }
    let before = record::read(store, lease.ipv4)?.filter(|record| record.lease == *lease);
    let before = before.map(Record::without_what_is_over);
    let mut record = before.clone().unwrap_or_else(|| Record {
        lease: lease.clone(),
        rates: Rates::default(),
        fault: None,
        guarded,
        relay: None,
    });
    record.rates = rates.unwrap_or(record.rates);
    record.fault = fault.unwrap_or(record.fault);
    // Written first: what a crash leaves half done is then known, and the next apply completes it.
    record::write(&locked, &record)?;
    match put(&locked, netns, &mut record, launch) {
        Ok(()) => Ok(()),
        Err(error) => {
            match before {
                Some(mut before) => {
                    record::write(&locked, &before)?;
                    // The first error is the one to tell; this one worked before.
                    let _ = put(&locked, netns, &mut before, launch);
                }
                None => {
                    record = Record { rates: Rates::default(), fault: None, ..record };
                    let _ = put(&locked, netns, &mut record, None);
                    record::remove(store, lease.ipv4)?;
                }
            }
            Err(error)
        }
    }
}

/// Takes back the faults of processes that are gone.
pub fn forget_faults_of_the_dead(locked: &LockedStore<'_>) -> Result<()> {
    for mut record in record::records(locked.store())? {
        let Some(holder) = record.fault.and_then(|fault| fault.holder) else { continue };
        if holder.is_alive() {
            continue;
        }
        let before = record.clone();
        record.fault = None;
        // Written first, because the losses follow from the records.
        record::write(locked, &record)?;
        // A namespace without a process in it has nobody whose traffic could suffer.
        let repaired = match netns_behind(&record.lease)? {
            Some(netns) => put(locked, netns.as_fd(), &mut record, None),
            None => set_relay(locked, &mut record, Work::default(), None)
                .and_then(|()| refresh_losses(locked, false)),
        };
        if let Err(error) = repaired {
            record::write(locked, &before)?;
            return Err(error);
        }
    }
    Ok(())
}

/// The network namespace at the far end of a container's cable, if a process is in it. What is seen
/// inside would not do: containers of another store, behind other namespaces of hosts, may have
/// the same addresses.
fn netns_behind(lease: &Lease) -> Result<Option<OwnedFd>> {
    let step = || format!("looking for the network namespace of {}", lease.container);
    let mut host = connect()?;
    let near = host.find_link(&lease.host_interface()).during(step)?;
    let Some(number) = near.and_then(|link| link.far_namespace) else { return Ok(None) };
    let mut seen = BTreeSet::new();
    for process in entries(Path::new("/proc"))? {
        let file = Path::new("/proc").join(&process).join("ns/net");
        let Ok(identity) = std::fs::read_link(&file) else { continue };
        if !seen.insert(identity) {
            continue;
        }
        let Ok(netns) = open(&file, Kind::Network) else { continue };
        if host.number_of(netns.as_fd()).during(step)? != Some(number) {
            continue;
        }
        let inside = Connection::open_in(netns.as_fd())
            .and_then(|mut inside| inside.find_link(&lease.interface));
        return Ok(inside.during(step)?.map(|_| netns));
    }
    Ok(None)
}

/// What of a fault the kernel's queues do not do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rest {
    Nothing,
    /// Only losses: the packet filter does them.
    Losses,
    /// All but the rate: it takes a relay.
    Most,
}

fn put(
    locked: &LockedStore<'_>,
    netns: BorrowedFd<'_>,
    record: &mut Record,
    launch: Option<Launch<'_>>,
) -> Result<()> {
    let container = record.lease.container.clone();
    let step = || format!("shaping the traffic of {container}");
    let mut host = connect()?;
    let mut inside = Connection::open_in(netns).during(step)?;
    let near = host.link(&record.lease.host_interface()).during(step)?.index;
    let far = inside.link(&record.lease.interface).during(step)?.index;
    let inward = queue(&mut host, near, record, Direction::In).map_err(refusal)?;
    let ifb = ifb_name(record.lease.ipv4);
    remove_link(&mut host, &ifb)?;
    let outward = if record.guarded {
        let device = redirect(&mut host, near, &ifb, locked.store()).during(step)?;
        queue(&mut host, device, record, Direction::Out)
    } else {
        queue(&mut inside, far, record, Direction::Out)
    };
    let outward = outward.map_err(refusal)?;
    let work = |rest, direction| match rest {
        Rest::Most => Faults { rate: None, ..faults_of(record, direction) },
        Rest::Nothing | Rest::Losses => Faults::default(),
    };
    let mut work = Work {
        inward: work(inward, Direction::In),
        outward: work(outward, Direction::Out),
        holder: None,
    };
    if !work.is_none() {
        work.holder = record.fault.and_then(|fault| fault.holder);
    }
    set_relay(locked, record, work, launch)?;
    refresh_losses(locked, [inward, outward].contains(&Rest::Losses))
}

/// Sees to it that a relay does this work, and only this one.
fn set_relay(
    locked: &LockedStore<'_>,
    record: &mut Record,
    work: Work,
    launch: Option<Launch<'_>>,
) -> Result<()> {
    if record.relay.is_some_and(|relay| relay.work == work && relay.process.is_alive()) {
        return Ok(());
    }
    let launch = match (work.is_none(), launch) {
        (true, _) => None,
        (false, None) => return Err(unsupported_fault("nobody said how to start a relay")),
        (false, some) => some,
    };
    let Some(launch) = launch else {
        let Some(old) = record.relay.take() else { return Ok(()) };
        old.process.kill_and_wait()?;
        return record::write(locked, record);
    };
    let (address, label) = (record.lease.ipv4, locked.store().label());
    // Until the new one is written down the record names the old one: a fault that is over.
    let starting = relay::start(launch, address, label, work, record.relay)?;
    record.relay = Some(starting.relay);
    record::write(locked, record)?;
    starting.begin()
}

/// The kernel says ENOENT for a kind of queue that it does not know.
fn refusal(error: linux::Error) -> Error {
    if error.errno != Errno::ENOENT {
        return Error::Kernel { step: "setting a queue".into(), source: error };
    }
    Error::Unsupported {
        what: "a rate".to_owned(),
        needs: "a kernel with CONFIG_NET_SCH_TBF (the module sch_tbf)".to_owned(),
    }
}

/// Neither way is there.
pub(super) fn unsupported_fault(why_no_relay: &str) -> Error {
    let needs = format!(
        "a kernel with CONFIG_NET_SCH_NETEM (the module sch_netem), or one from 6.6 on with tcx \
         (CONFIG_NET_XGRESS) and /dev/net/tun; without either: loss and rate only \
         ({why_no_relay})"
    );
    Error::Unsupported { what: "this fault".to_owned(), needs }
}

/// Sets the queue of one direction, and says what it does not do.
fn queue(
    kernel: &mut Connection,
    link: u32,
    record: &Record,
    direction: Direction,
) -> linux::Result<Rest> {
    let rate = rate_of(record, direction);
    let faults = faults_of(record, direction);
    let burst = record.rates.burst_bytes;
    let shaped = rate.map(|rate| tbf::queue(rate, burst));
    let mut batch = Batch::new();
    if faults.is_none() {
        return kernel.execute(root(&mut batch, link, shaped.as_ref())).map(|()| Rest::Nothing);
    }
    // A root of another kind cannot be changed into this one in place.
    batch.delete_root_qdisc(link).unless(Errno::ENOENT);
    batch.set_root_qdisc(link, &netem::queue(&faults));
    if let Some(shaped) = &shaped {
        batch.set_child_qdisc(link, 1, shaped);
    }
    match kernel.execute(&batch) {
        Err(error) if error.errno == Errno::ENOENT => {
            let slower = rate.into_iter().chain(faults.rate).min();
            let shaped = slower.map(|rate| tbf::queue(rate, burst));
            let mut batch = Batch::new();
            kernel.execute(root(&mut batch, link, shaped.as_ref()))?;
            Ok(match faults.is_only_loss_and_rate() {
                true if faults.loss_ppm > 0 => Rest::Losses,
                true => Rest::Nothing,
                false => Rest::Most,
            })
        }
        other => other.map(|()| Rest::Nothing),
    }
}

/// The root queue, or none: then the kernel's default is to be there, and may be already.
fn root<'a>(batch: &'a mut Batch, link: u32, shaped: Option<&Qdisc>) -> &'a Batch {
    batch.delete_root_qdisc(link).unless(Errno::ENOENT);
    if let Some(shaped) = shaped {
        batch.set_root_qdisc(link, shaped);
    }
    batch
}

/// Leads what comes from the container through a device of the host, where it can wait.
fn redirect(host: &mut Connection, near: u32, ifb: &str, store: &Store) -> linux::Result<u32> {
    let mut batch = Batch::new();
    batch.add_ifb(ifb).set_alias(ifb, &format!("{} traffic", store.label()));
    host.execute(&batch)?;
    let device = host.link(ifb)?.index;
    let mut batch = Batch::new();
    batch.delete_ingress(near).unless(Errno::ENOENT);
    batch.redirect_ingress(near, device).change_link(device, LinkChange::Up(true));
    host.execute(&batch)?;
    Ok(device)
}

/// The name of the intermediate device of a container.
pub(crate) fn ifb_name(address: std::net::Ipv4Addr) -> String {
    format!("mi{:08x}", address.to_bits())
}

fn rate_of(record: &Record, direction: Direction) -> Option<crate::traffic::Rate> {
    match direction {
        Direction::In => record.rates.inward,
        Direction::Out => record.rates.outward,
    }
}

fn faults_of(record: &Record, direction: Direction) -> Faults {
    let fault = record.fault.map(|fault| match direction {
        Direction::In => fault.inward,
        Direction::Out => fault.outward,
    });
    fault.unwrap_or_default()
}

/// Makes the table of losses what the records ask for. Only where netem is missing.
pub(crate) fn refresh_losses(locked: &LockedStore<'_>, needed: bool) -> Result<()> {
    let store = locked.store();
    let table = format!("{}_losses", store.label());
    let there = firewall::carries(firewall::Family::Bridge, &table, None)?;
    if !needed && !there {
        return Ok(());
    }
    let rules = losses(&record::records(store)?);
    let mut text = format!("add table bridge {table}\ndelete table bridge {table}\n");
    if !rules.is_empty() {
        let _ = write!(text, "table bridge {table} {{\n{rules}}}\n");
    }
    firewall::apply(&table, &text)
}

fn losses(records: &[Record]) -> String {
    let rules = |direction, key| {
        let mut text = String::new();
        for record in records {
            let loss = faults_of(record, direction).loss_ppm;
            if loss > 0 && record.relayed(direction).is_none() {
                let _ = writeln!(
                    text,
                    "\t\t{key} \"{}\" numgen random mod 1000000 <= {} counter drop",
                    record.lease.host_interface(),
                    loss - 1
                );
            }
        }
        text
    };
    let (out, inward) = (rules(Direction::Out, "iifname"), rules(Direction::In, "oifname"));
    if out.is_empty() && inward.is_empty() {
        return String::new();
    }
    format!(
        "\tchain out {{\n\t\ttype filter hook prerouting priority -300;\n{out}\t}}\n\
         \tchain in {{\n\t\ttype filter hook postrouting priority 300;\n{inward}\t}}\n"
    )
}

pub(super) fn statistics(store: &Store, attachment: &Attachment) -> Result<Vec<Statistics>> {
    let mut host = connect()?;
    let step = || "reading the counters of interfaces".to_owned();
    let queues = host.qdiscs().during(step)?;
    let mut all = Vec::new();
    for endpoint in &attachment.endpoints {
        let Some(link) = host.find_link(&endpoint.lease.host_interface()).during(step)? else {
            continue;
        };
        // What the host's end sends is what the container receives.
        let traffic = Traffic {
            received_bytes: link.traffic.sent_bytes,
            received_packets: link.traffic.sent_packets,
            received_dropped: link.traffic.sent_dropped,
            sent_bytes: link.traffic.received_bytes,
            sent_packets: link.traffic.received_packets,
            sent_dropped: link.traffic.received_dropped,
        };
        let queue = queues.iter().find(|q| q.link == link.index && q.parent.is_none());
        let record = record::read(store, endpoint.lease.ipv4)?;
        let relay = record.filter(|record| record.lease == endpoint.lease).and_then(|r| r.relay);
        let relay_drops = relay.map_or(0, |relay| relay.lost_inward());
        all.push(Statistics {
            network: endpoint.lease.network.clone(),
            interface: endpoint.lease.interface.clone(),
            traffic,
            shaped_drops: queue.map_or(0, |queue| queue.drops) + relay_drops,
            shaped_waits: queue.map_or(0, |queue| queue.overlimits),
        });
    }
    Ok(all)
}
