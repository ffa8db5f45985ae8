//! Requests to the kernel's network code and its answers, rtnetlink(7).
//!
//! One [`Connection`] belongs to the network namespace in which it was opened and keeps talking to
//! that one. Requests are collected in a [`Batch`] and go to the kernel with one system call: the
//! kernel executes them in order and answers each, so that the whole set-up of an interface costs
//! one round trip, and an error still names the request that failed.
//!
//! The message formats come from `netlink-bindings`, which is generated from the kernel's own
//! description of them; this module wraps them once. That crate encodes into the batch itself and
//! decodes attribute by attribute, so that only the formats that are used become part of a program.

mod address;
mod link;
mod namespace;
mod neighbour;
mod qdisc;
mod request;
mod route;
mod rule;

use std::os::fd::{AsFd, BorrowedFd};

use linux::namespace::visit_network;
use linux::netlink::{Netlink, Protocol};
use linux::{Errno, trace};
use netlink_bindings::builtin::NlmsgerrAttrs;
use netlink_bindings::utils::{IterableChunks, align, push_header};

pub use address::AssignedAddress;
pub use link::{Bridge, Link, LinkChange, Traffic, Veth};
pub use neighbour::Neighbour;
pub use qdisc::{InstalledQdisc, Qdisc};
use request::{HEADER_BYTES, Verb, append};
pub use route::Route;
pub use rule::MarkRule;

const NLM_F_ACK: u16 = 0x4;
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_CREATE: u16 = 0x400;
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const RTM_DELLINK: u16 = 17;

/// Make it; it must not exist.
const CREATE: u16 = NLM_F_CREATE | NLM_F_EXCL;
/// Make it, or make it so.
const REPLACE: u16 = NLM_F_CREATE | NLM_F_REPLACE;

/// What can fail with a name: the request, its object, the kernel's answer.
pub type Result<T> = linux::Result<T>;

/// Requests that go to the kernel together.
#[derive(Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    requests: Vec<Described>,
}

#[derive(Debug)]
struct Described {
    name: &'static str,
    arguments: String,
    /// An answer that is as good as success (`EEXIST` for what may exist already).
    tolerated: Option<Errno>,
}

impl Batch {
    /// No requests.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    fn push(
        &mut self,
        verb: Verb,
        arguments: String,
        flags: u16,
        encode: impl FnOnce(&mut Vec<u8>),
    ) -> &mut Self {
        let sequence = u32::try_from(self.requests.len()).unwrap_or(u32::MAX);
        append(&mut self.bytes, verb, flags | NLM_F_ACK, sequence, encode);
        self.requests.push(Described { name: verb.name, arguments, tolerated: None });
        self
    }

    /// Takes this answer to the last request as success.
    pub fn unless(&mut self, errno: Errno) -> &mut Self {
        if let Some(last) = self.requests.last_mut() {
            last.tolerated = Some(errno);
        }
        self
    }
}

/// A way to the network code of one network namespace.
#[derive(Debug)]
pub struct Connection(Netlink);

impl Connection {
    /// To that of the current network namespace.
    pub fn open() -> Result<Self> {
        Netlink::open(Protocol::Route).map(Self)
    }

    /// To that of the network namespace behind `file`.
    pub fn open_in(file: BorrowedFd<'_>) -> Result<Self> {
        visit_network(file, Self::open)?
    }

    /// Executes all requests of the batch. The first error is reported; the kernel has tried the
    /// others as well.
    pub fn execute(&mut self, batch: &Batch) -> Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        self.0.send(&batch.bytes, || match &batch.requests[..] {
            [one] => format!("{} {}", one.name, one.arguments),
            several => format!("{} requests", several.len()),
        })?;
        let mut first_error = None;
        let mut answered = 0;
        while answered < batch.requests.len() {
            for message in Messages(self.0.receive()?) {
                if message.kind != NLMSG_ERROR {
                    continue;
                }
                answered += 1;
                let index = usize::try_from(message.sequence).unwrap_or(usize::MAX);
                if let Some(request) = batch.requests.get(index)
                    && let Err(error) = request.judge(&message)
                {
                    first_error.get_or_insert(error);
                }
            }
        }
        first_error.map_or(Ok(()), Err)
    }

    /// Asks for one object; `read` reads what follows the header of the answer.
    fn ask<T>(
        &mut self,
        verb: Verb,
        arguments: &str,
        encode: impl FnOnce(&mut Vec<u8>),
        read: impl FnOnce(&[u8]) -> T,
    ) -> Result<T> {
        let mut request = Vec::new();
        append(&mut request, verb, 0, 0, encode);
        self.0.send(&request, || format!("{} {arguments}", verb.name))?;
        let described =
            Described { name: verb.name, arguments: arguments.to_owned(), tolerated: None };
        for message in Messages(self.0.receive()?) {
            if message.kind == NLMSG_ERROR {
                described.judge(&message)?;
            } else if verb.is_answered_by(message.kind) {
                return Ok(read(message.body()));
            }
        }
        Err(linux::Error::new(verb.name, arguments, Errno::ENODATA))
    }

    /// Asks for all objects of a kind; `keep` chooses and converts what follows the headers.
    fn dump<T>(
        &mut self,
        verb: Verb,
        encode: impl FnOnce(&mut Vec<u8>),
        keep: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Vec<T>> {
        let mut request = Vec::new();
        append(&mut request, verb, NLM_F_DUMP, 0, encode);
        self.0.send(&request, || format!("{} all", verb.name))?;
        let described = Described { name: verb.name, arguments: "all".into(), tolerated: None };
        let mut found = Vec::new();
        loop {
            for message in Messages(self.0.receive()?) {
                match message.kind {
                    NLMSG_DONE => return Ok(found),
                    NLMSG_ERROR => described.judge(&message)?,
                    kind if verb.is_answered_by(kind) => found.extend(keep(message.body())),
                    _ => {}
                }
            }
        }
    }
}

/// News of the interfaces of one network namespace.
#[derive(Debug)]
pub struct LinkNews(Netlink);

impl LinkNews {
    /// Of the current network namespace, from now on.
    pub fn open() -> Result<Self> {
        Netlink::open_for_news_of_links().map(Self)
    }

    /// Takes all the news there is, and says whether an interface is gone, or may be.
    pub fn is_one_gone(&mut self) -> Result<bool> {
        let mut gone = false;
        loop {
            match self.0.receive() {
                Ok(news) => gone |= Messages(news).any(|message| message.kind == RTM_DELLINK),
                Err(error) if error.errno == Errno::EAGAIN => return Ok(gone),
                // More than fits: what is lost may be just that.
                Err(error) if error.errno == Errno::ENOBUFS => gone = true,
                Err(error) => return Err(error),
            }
        }
    }
}

impl AsFd for LinkNews {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Described {
    fn judge(&self, answer: &Message<'_>) -> Result<()> {
        let (errno, says) = answer.verdict();
        let result = match errno {
            0 => Ok(()),
            number => Err(Errno::from_raw(-number)),
        };
        let result = trace::observe(self.name, || self.arguments.clone(), result);
        match result {
            Err(error) if Some(error.errno) == self.tolerated => Ok(()),
            Err(error) => Err(error.with_kernel_log(says)),
            Ok(()) => Ok(()),
        }
    }
}

/// One message of the kernel, still in its bytes.
struct Message<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    whole: &'a [u8],
}

impl<'a> Message<'a> {
    /// What follows the header.
    fn body(&self) -> &'a [u8] {
        self.whole.get(HEADER_BYTES..).unwrap_or(&[])
    }

    /// The errno (negative, or 0) and the kernel's words of an `NLMSG_ERROR`.
    fn verdict(&self) -> (i32, Option<String>) {
        let errno = number(self.whole, HEADER_BYTES).map_or(-libc_eio(), u32::cast_signed);
        // The errno is followed by the header of the request, then by attributes.
        let attributes = self.whole.get(HEADER_BYTES + 4 + HEADER_BYTES..);
        let says = attributes.filter(|_| self.flags & NLM_F_ACK_TLVS != 0).and_then(|bytes| {
            let text = NlmsgerrAttrs::new(bytes).get_msg().ok()?;
            Some(text.to_string_lossy().into_owned())
        });
        (errno, says)
    }
}

fn libc_eio() -> i32 {
    Errno::EIO as i32
}

/// The attributes in `bytes`: kind and value of each, netlink(7).
pub(crate) fn attributes_of(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    IterableChunks::new(bytes).map(|(header, value)| (header.r#type, value))
}

/// One netlink attribute in bytes, padded.
pub(crate) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    push_header(&mut bytes, kind, u16::try_from(value.len()).unwrap_or(u16::MAX - 4));
    bytes.extend(value);
    align(&mut bytes);
    bytes
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

/// The messages of one datagram.
struct Messages<'a>(&'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let length = usize::try_from(number(self.0, 0)?).ok()?;
        let whole = self.0.get(..length).filter(|whole| whole.len() >= HEADER_BYTES)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some(Message {
            kind: half(whole, 4)?,
            flags: half(whole, 6)?,
            sequence: number(whole, 8)?,
            whole,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_are_cut_at_their_lengths_and_never_read_past_the_end() {
        let mut bytes = Vec::new();
        for kind in [NLMSG_ERROR, NLMSG_DONE] {
            bytes.extend(20_u32.to_ne_bytes());
            bytes.extend(kind.to_ne_bytes());
            bytes.extend([0; 10]);
            bytes.extend((-17_i32).to_ne_bytes());
        }
        let kinds: Vec<_> = Messages(&bytes).map(|message| message.kind).collect();
        assert_eq!(kinds, [NLMSG_ERROR, NLMSG_DONE]);
        assert_eq!(Messages(&bytes).next().unwrap().verdict(), (-17, None));
        assert_eq!(Messages(&bytes[..39]).count(), 1);
        bytes[0] = 8;
        assert_eq!(Messages(&bytes).count(), 0);
    }

    #[test]
    fn the_kernels_words_are_read() {
        let mut bytes = vec![0; 6];
        bytes.extend(NLM_F_ACK_TLVS.to_ne_bytes());
        bytes.extend([0; 8]);
        bytes.extend((-22_i32).to_ne_bytes());
        bytes.extend([0; 16]);
        bytes.extend(8_u16.to_ne_bytes());
        bytes.extend(1_u16.to_ne_bytes());
        bytes.extend(b"why\0");
        let whole = &bytes[..];
        let message = Message { kind: NLMSG_ERROR, flags: NLM_F_ACK_TLVS, sequence: 0, whole };
        assert_eq!(message.verdict(), (-22, Some("why".into())));
    }
}
