//! From what was asked for to queues, and to rules where queues cannot do it.

use std::fmt::Write;
use std::os::fd::{AsFd, BorrowedFd};

use linux::Errno;
use linux::namespace::{Kind, open};

use crate::attach::Attachment;
use crate::bridge::remove_link;
use crate::collect::connect;
use crate::error::{During, Error, Result};
use crate::firewall;
use crate::lease::Lease;
use crate::netlink::{Batch, Connection, LinkChange, Qdisc, Traffic};
use crate::store::{LockedStore, Store};
use crate::traffic::record::{self, Record};
use crate::traffic::{Direction, Fault, Faults, Rates, Statistics, netem, tbf};

/// Makes an interface of a container as fast and as bad as asked, and remembers it. `netns` is the
/// container's; `guarded` when it has `CAP_NET_ADMIN` there.
///
/// What is not given stays as it is: rates and faults are set and taken back independently
/// (`Some(None)` takes a fault back).
pub fn apply(
    store: &Store,
    netns: BorrowedFd<'_>,
    lease: &Lease,
    rates: Option<Rates>,
    fault: Option<Option<Fault>>,
    guarded: bool,
) -> Result<()> {
    let locked = store.lock()?;
    if !locked.holds(lease) {
        let name = format!("{} in network {}", lease.container, lease.network);
        return Err(Error::NotFound { what: "container", name });
    }
    let before = record::read(store, lease.ipv4)?.filter(|record| record.lease == *lease);
    let mut record = before.clone().unwrap_or_else(|| Record {
        lease: lease.clone(),
        rates: Rates::default(),
        fault: None,
        guarded,
    });
    record.rates = rates.unwrap_or(record.rates);
    record.fault = fault.unwrap_or(record.fault);
    // Written first: what a crash leaves half done is then known, and the next apply completes it.
    record::write(&locked, &record)?;
    match put(&locked, netns, &record) {
        Ok(()) => Ok(()),
        Err(error) => {
            match before {
                Some(before) => {
                    record::write(&locked, &before)?;
                    // The first error is the one to tell; this one worked before.
                    let _ = put(&locked, netns, &before);
                }
                None => {
                    let nothing = Record { rates: Rates::default(), fault: None, ..record };
                    let _ = put(&locked, netns, &nothing);
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
            Some(netns) => put(locked, netns.as_fd(), &record),
            None => refresh_losses(locked, false),
        };
        if let Err(error) = repaired {
            record::write(locked, &before)?;
            return Err(error);
        }
    }
    Ok(())
}

/// The network namespace at the far end of a container's cable: the one among those of all
/// processes that has the container's interface with its hardware address.
fn netns_behind(lease: &Lease) -> Result<Option<std::os::fd::OwnedFd>> {
    let own = std::fs::read_link("/proc/thread-self/ns/net").ok();
    let mut seen = std::collections::BTreeSet::new();
    for name in crate::store::entries(std::path::Path::new("/proc"))? {
        let file = std::path::Path::new("/proc").join(&name).join("ns/net");
        let Ok(identity) = std::fs::read_link(&file) else { continue };
        if Some(&identity) == own.as_ref() || !seen.insert(identity) {
            continue;
        }
        let Ok(netns) = open(&file, Kind::Network) else { continue };
        let link = Connection::open_in(netns.as_fd())
            .and_then(|mut inside| inside.find_link(&lease.interface));
        if let Ok(Some(link)) = link
            && link.hardware == Some(lease.hardware)
        {
            return Ok(Some(netns));
        }
    }
    Ok(None)
}

fn put(locked: &LockedStore<'_>, netns: BorrowedFd<'_>, record: &Record) -> Result<()> {
    let step = || format!("shaping the traffic of {}", record.lease.container);
    let mut host = connect()?;
    let mut inside = Connection::open_in(netns).during(step)?;
    let near = host.link(&record.lease.host_interface()).during(step)?.index;
    let far = inside.link(&record.lease.interface).during(step)?.index;
    let refused = |direction| move |error| refusal(error, &faults_of(record, direction));
    let mut filtered =
        queue(&mut host, near, record, Direction::In).map_err(refused(Direction::In))?;
    let ifb = ifb_name(record.lease.ipv4);
    remove_link(&mut host, &ifb)?;
    if record.guarded {
        let device = redirect(&mut host, near, &ifb, locked.store()).during(step)?;
        filtered |=
            queue(&mut host, device, record, Direction::Out).map_err(refused(Direction::Out))?;
    } else {
        filtered |=
            queue(&mut inside, far, record, Direction::Out).map_err(refused(Direction::Out))?;
    }
    refresh_losses(locked, filtered)
}

/// The kernel says ENOENT for a kind of queue that it does not know.
fn refusal(error: linux::Error, faults: &Faults) -> Error {
    if error.errno != Errno::ENOENT {
        return Error::Kernel { step: "setting a queue".into(), source: error };
    }
    let (what, needs) = match faults.is_none() || faults.is_only_loss_and_rate() {
        true => ("a rate", "CONFIG_NET_SCH_TBF (the module sch_tbf)"),
        false => (
            "this fault",
            "CONFIG_NET_SCH_NETEM (the module sch_netem; without it: loss and rate only)",
        ),
    };
    Error::Unsupported { what: what.to_owned(), needs: format!("a kernel with {needs}") }
}

/// Sets the queue of one direction; `true` when the packet filter has to do the loss.
fn queue(
    kernel: &mut Connection,
    link: u32,
    record: &Record,
    direction: Direction,
) -> linux::Result<bool> {
    let rate = rate_of(record, direction);
    let faults = faults_of(record, direction);
    let burst = record.rates.burst_bytes;
    let shaped = rate.map(|rate| tbf::queue(rate, burst));
    let mut batch = Batch::new();
    if faults.is_none() {
        return kernel.execute(root(&mut batch, link, shaped.as_ref())).map(|()| false);
    }
    // A root of another kind cannot be changed into this one in place.
    batch.delete_root_qdisc(link).unless(Errno::ENOENT);
    batch.set_root_qdisc(link, &netem::queue(&faults));
    if let Some(shaped) = &shaped {
        batch.set_child_qdisc(link, 1, shaped);
    }
    match kernel.execute(&batch) {
        Err(error) if error.errno == Errno::ENOENT && faults.is_only_loss_and_rate() => {
            let slower = rate.into_iter().chain(faults.rate).min();
            let shaped = slower.map(|rate| tbf::queue(rate, burst));
            let mut batch = Batch::new();
            kernel.execute(root(&mut batch, link, shaped.as_ref()))?;
            Ok(faults.loss_ppm > 0)
        }
        other => other.map(|()| false),
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
            if loss > 0 {
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

pub(super) fn statistics(attachment: &Attachment) -> Result<Vec<Statistics>> {
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
        all.push(Statistics {
            network: endpoint.lease.network.clone(),
            interface: endpoint.lease.interface.clone(),
            traffic,
            shaped_drops: queue.map_or(0, |queue| queue.drops),
            shaped_waits: queue.map_or(0, |queue| queue.overlimits),
        });
    }
    Ok(all)
}
