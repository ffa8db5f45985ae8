//! The relay's process: packets from a tap, and back to it when they are due.
//!
//! It is single-threaded and small, and knows nothing of networks or stores.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use linux::epoll::Interest;
use linux::poll::Ready;
use linux::timer::Timer;
use linux::{Errno, fd, socket};

use super::fate::{Random, fate};
use super::waiting::Waiting;
use super::{Descriptors, Detour, Order, OrderedDetour};
use crate::error::{During, Error, Result};
use crate::netlink::{Connection, LinkNews};
use crate::traffic::Faults;

/// The numbers under which events come; smaller ones are those of detours.
const HOLDER: u64 = u64::MAX;
const NEWS: u64 = u64::MAX - 1;
const TIMER: u64 = u64::MAX - 2;
const READABLE: Ready = Ready { readable: true, writable: false, hung_up: false };

/// Larger than any packet: 64 KiB and what comes before it.
const SCRATCH_BYTES: usize = 128 << 10;
/// Packets taken from one tap before those that are due have their turn.
const ROUNDS: usize = 64;

/// Serves what a command has left to this process: its last argument.
pub fn serve_inherited(order: &str) -> Result<()> {
    let order: Order = serde_json::from_str(order)
        .map_err(|error| Error::invalid("order to a relay", order, error.to_string()))?;
    let step = || format!("relaying the packets of {}", order.interface);
    // Executed through /proc/self/exe, which would be its name in ps.
    linux::prctl::set_name(c"minirun-faults").during(step)?;
    let starter = fd::inherited(order.starter).during(step)?;
    let mut relay = Relay::new(&order).during(step)?;
    socket::send(&starter, b"ready", &[]).during(step)?;
    // Without the word the command has died before it could write down that there is a relay.
    if socket::receive(&starter, &mut [0; 8]).during(step)?.length == 0 {
        return Ok(());
    }
    drop(starter);
    while relay.goes_on().during(step)? {}
    Ok(())
}

struct Relay {
    interface: String,
    index: u32,
    kernel: Connection,
    news: LinkNews,
    /// Open, it tells of that process's end.
    _holder: Option<OwnedFd>,
    interest: Interest,
    timer: Timer,
    begun: Instant,
    random: Random,
    ways: Vec<Way>,
    scratch: Vec<u8>,
}

/// A detour, and the packets that are on it.
struct Way {
    detour: Detour,
    faults: Faults,
    waiting: Waiting,
    /// Thrown away, and not yet counted where others see it.
    lost: u64,
}

impl Relay {
    fn new(order: &Order) -> linux::Result<Self> {
        let mut ways = Vec::new();
        for OrderedDetour { descriptors: Descriptors { tap, programs, lost }, faults } in
            &order.detours
        {
            let [away, back] = programs.map(fd::inherited);
            let detour = Detour {
                tap: fd::inherited(*tap)?,
                programs: [away?, back?],
                lost: fd::inherited(*lost)?,
            };
            ways.push(Way { detour, faults: *faults, waiting: Waiting::default(), lost: 0 });
        }
        let holder = order.holder.map(fd::inherited).transpose()?;
        let (interest, news, timer) = (Interest::new()?, LinkNews::open()?, Timer::new()?);
        interest.add(&news, NEWS, READABLE)?;
        interest.add(&timer, TIMER, READABLE)?;
        if let Some(holder) = &holder {
            interest.add(holder, HOLDER, READABLE)?;
        }
        for (number, way) in (0..).zip(&ways) {
            interest.add(&way.detour.tap, number, READABLE)?;
        }
        let mut relay = Self {
            interface: order.interface.clone(),
            index: order.index,
            kernel: Connection::open()?,
            news,
            _holder: holder,
            interest,
            timer,
            begun: Instant::now(),
            random: Random::new(order.seed),
            ways,
            scratch: vec![0; SCRATCH_BYTES],
        };
        // Asked after the news was opened: when it goes from here on, there is news.
        if !relay.is_interface_there()? {
            return Err(linux::Error::new("RTM_GETLINK", &*relay.interface, Errno::ENODEV));
        }
        Ok(relay)
    }

    fn is_interface_there(&mut self) -> linux::Result<bool> {
        let link = self.kernel.find_link(&self.interface)?;
        Ok(link.is_some_and(|link| link.index == self.index))
    }

    /// Does what is to be done now, and waits for more; `false` when it is over.
    fn goes_on(&mut self) -> linux::Result<bool> {
        for (number, ready) in self.interest.wait(None)? {
            match number {
                HOLDER => return Ok(false),
                NEWS => {
                    if self.news.is_one_gone()? && !self.is_interface_there()? {
                        return Ok(false);
                    }
                }
                TIMER => {}
                number => {
                    let way = usize::try_from(number).ok().and_then(|at| self.ways.get_mut(at));
                    let Some(way) = way else { continue };
                    // Somebody has removed the tap: without it packets would be led to nowhere.
                    if ready.hung_up
                        || way.take(self.begun, &mut self.random, &mut self.scratch).is_err()
                    {
                        return Ok(false);
                    }
                }
            }
        }
        for way in &mut self.ways {
            way.send_due(self.begun.elapsed());
            way.tell_losses()?;
        }
        let next = self.ways.iter().filter_map(|way| way.waiting.next_due()).min();
        self.timer.set(next.map(|due| due.saturating_sub(self.begun.elapsed())))?;
        Ok(true)
    }
}

impl Way {
    fn take(
        &mut self,
        begun: Instant,
        random: &mut Random,
        scratch: &mut [u8],
    ) -> linux::Result<()> {
        for _ in 0..ROUNDS {
            let length = match fd::read(self.detour.tap.as_fd(), scratch) {
                Err(error) if error.errno == Errno::EAGAIN => return Ok(()),
                other => other?,
            };
            let frame = scratch.get(..length).unwrap_or(&[]);
            let (now, mut copies) = (begun.elapsed(), 0_u64);
            for delay in fate(&self.faults, random) {
                copies += 1;
                if delay.is_zero() {
                    self.send(frame);
                } else if !self.waiting.push(now + delay, frame) {
                    self.lost += 1;
                }
            }
            self.lost += u64::from(copies == 0);
        }
        Ok(())
    }

    fn send_due(&mut self, now: Duration) {
        while let Some(frame) = self.waiting.pop(now) {
            self.send(&frame);
        }
    }

    /// What the tap does not take is lost, as with any interface.
    fn send(&mut self, frame: &[u8]) {
        let sent = fd::write_some(self.detour.tap.as_fd(), frame);
        self.lost += u64::from(sent.is_err());
    }

    fn tell_losses(&mut self) -> linux::Result<()> {
        match std::mem::take(&mut self.lost) {
            0 => Ok(()),
            lost => fd::write_at_once(self.detour.lost.as_fd(), &lost.to_ne_bytes()),
        }
    }
}
