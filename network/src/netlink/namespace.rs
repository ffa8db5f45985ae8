//! Network namespaces as another one knows them: by number, ip-netns(8).

use std::os::fd::{AsRawFd, BorrowedFd};

use super::{Connection, Result, Verb, attribute, attributes_of};

/// `struct rtgenmsg` of linux/rtnetlink.h, a family that is of no importance here, padded.
const HEADER: [u8; 4] = [0; 4];
/// Of linux/net_namespace.h.
const NETNSA_NSID: u16 = 1;
const NETNSA_FD: u16 = 3;

impl Connection {
    /// The number that this connection's namespace has for the one behind `file`; none if it has
    /// had nothing to do with it yet.
    pub fn number_of(&mut self, file: BorrowedFd<'_>) -> Result<Option<i32>> {
        let ask = |bytes: &mut Vec<u8>| {
            bytes.extend(HEADER);
            bytes.extend(attribute(NETNSA_FD, &file.as_raw_fd().to_ne_bytes()));
        };
        self.ask(Verb::GET_NSID, &format!("fd {}", file.as_raw_fd()), ask, number)
    }
}

fn number(answer: &[u8]) -> Option<i32> {
    let mut attributes = attributes_of(answer.get(HEADER.len()..)?);
    let (_, value) = attributes.find(|(kind, _)| *kind == NETNSA_NSID)?;
    // The kernel says -1 where there is none.
    value.try_into().ok().map(i32::from_ne_bytes).filter(|number| *number >= 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read() {
        let answer = |number: i32| [HEADER.to_vec(), attribute(1, &number.to_ne_bytes())].concat();
        assert_eq!(number(&answer(7)), Some(7));
        assert_eq!(number(&answer(-1)), None);
        assert_eq!((number(&[]), number(&HEADER), number(&answer(7)[..10])), (None, None, None));
    }
}
