//! The numbers of all system calls on the architectures that we filter.
//!
//! The table is a text file, so that a reader sees it as the kernel's own `.tbl` files look, and is
//! read while compiling, so that a start pays nothing for it. It comes from the kernel's headers
//! (Linux 6.18) by way of the `syscalls` crate; `tests/seccomp_syscall_table.rs` checks each line.

use super::{Architecture, multiplexed};

const TEXT: &str = include_str!("syscalls.tbl");
const COUNT: usize = line_count(TEXT.as_bytes()) - 1;
/// Stands in the table for "not on this architecture". No system call has this number: it is -1,
/// by which a tracer skips a call.
const ABSENT: u32 = u32::MAX;
/// The columns of the table, in the order of [`Architecture`].
const COLUMNS: [Architecture; 5] = [
    Architecture::X86_64,
    Architecture::X32,
    Architecture::X86,
    Architecture::Aarch64,
    Architecture::Arm,
];

/// Sorted by name; the compiler checks that ([`parse`]).
static TABLE: [Syscall; COUNT] = parse(TEXT);
/// Where a name stands in the table, by its hash: a profile has hundreds of names, and this takes
/// a quarter of the time of a binary search.
static SLOTS: [u16; SLOT_COUNT] = slots();
const SLOT_COUNT: usize = 2048;
const EMPTY: u16 = u16::MAX;

/// A system call by name, with its number on each architecture.
#[derive(Debug, Clone, Copy)]
pub(super) struct Syscall {
    name: &'static str,
    numbers: [u32; COLUMNS.len()],
    /// Whether 32-bit x86 has another way to it, see [`multiplexed`].
    pub(super) is_multiplexed: bool,
}

impl Syscall {
    /// The number that `architecture` has for this call; for x32 with the bit that marks it.
    pub(super) fn number(&self, architecture: Architecture) -> Option<u32> {
        match self.numbers[architecture as usize] {
            ABSENT => None,
            number => Some(number | architecture.number_bit()),
        }
    }
}

/// The call of that name, if any of our architectures has it.
pub(super) fn by_name(name: &str) -> Option<&'static Syscall> {
    let mut slot = slot_of(name.as_bytes());
    loop {
        // An empty slot's index is beyond the table.
        let call = TABLE.get(usize::from(SLOTS[slot]))?;
        if call.name == name {
            return Some(call);
        }
        slot = (slot + 1) % SLOT_COUNT;
    }
}

/// The name behind a number (with the x32 bit where that is meant).
pub(super) fn name_of(architecture: Architecture, number: u32) -> Option<&'static str> {
    TABLE.iter().find(|call| call.number(architecture) == Some(number)).map(|call| call.name)
}

/// Every name and number of one architecture, in the order of the names.
#[cfg(test)]
pub(super) fn all(architecture: Architecture) -> impl Iterator<Item = (&'static str, u32)> {
    TABLE.iter().filter_map(move |call| Some((call.name, call.number(architecture)?)))
}

/// The first slot to look at for a name: FNV-1a, folded.
const fn slot_of(name: &[u8]) -> usize {
    let mut hash: u32 = 0x811c_9dc5;
    let mut at = 0;
    while at < name.len() {
        hash = (hash ^ name[at] as u32).wrapping_mul(0x0100_0193);
        at += 1;
    }
    (hash ^ hash >> 16) as usize % SLOT_COUNT
}

const fn slots() -> [u16; SLOT_COUNT] {
    const { assert!(COUNT < SLOT_COUNT / 2, "so many names need more slots") };
    let mut slots = [EMPTY; SLOT_COUNT];
    let mut index = 0;
    while index < COUNT {
        let mut slot = slot_of(TABLE[index].name.as_bytes());
        while slots[slot] != EMPTY {
            slot = (slot + 1) % SLOT_COUNT;
        }
        slots[slot] = index as u16;
        index += 1;
    }
    slots
}

const fn line_count(text: &[u8]) -> usize {
    let (mut at, mut count) = (0, 0);
    while at < text.len() {
        if text[at] == b'\n' {
            count += 1;
        }
        at += 1;
    }
    count
}

/// Reads `name n n n n n` from every line but the first, which is the heading.
const fn parse(text: &'static str) -> [Syscall; COUNT] {
    let bytes = text.as_bytes();
    let none = Syscall { name: "", numbers: [ABSENT; COLUMNS.len()], is_multiplexed: false };
    let mut table = [none; COUNT];
    let mut at = end_of_field(bytes, 0, b'\n') + 1;
    let mut row = 0;
    while row < COUNT {
        let end = end_of_field(bytes, at, b' ');
        table[row].name = text.split_at(end).0.split_at(at).1;
        table[row].is_multiplexed = multiplexed::has_way(table[row].name);
        if row > 0 {
            assert!(is_before(table[row - 1].name, table[row].name), "syscalls.tbl is not sorted");
        }
        at = end + 1;
        let mut column = 0;
        while column < COLUMNS.len() {
            let last = column + 1 == COLUMNS.len();
            let end = end_of_field(bytes, at, if last { b'\n' } else { b' ' });
            table[row].numbers[column] = number(bytes, at, end);
            at = end + 1;
            column += 1;
        }
        row += 1;
    }
    table
}

const fn end_of_field(text: &[u8], mut at: usize, separator: u8) -> usize {
    while text[at] != separator {
        at += 1;
    }
    at
}

const fn number(text: &[u8], mut at: usize, end: usize) -> u32 {
    if text[at] == b'-' {
        return ABSENT;
    }
    let mut value = 0;
    while at < end {
        assert!(text[at].is_ascii_digit(), "syscalls.tbl has something that is no number");
        value = value * 10 + (text[at] - b'0') as u32;
        at += 1;
    }
    value
}

const fn is_before(left: &str, right: &str) -> bool {
    let (left, right) = (left.as_bytes(), right.as_bytes());
    let mut at = 0;
    while at < left.len() && at < right.len() {
        if left[at] != right[at] {
            return left[at] < right[at];
        }
        at += 1;
    }
    left.len() < right.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_the_numbers_of_each_architecture() {
        let ioctl = by_name("ioctl").unwrap();
        let numbers: Vec<_> = COLUMNS.map(|architecture| ioctl.number(architecture)).into();
        assert_eq!(numbers, [Some(16), Some(0x4000_0000 + 514), Some(54), Some(29), Some(54)]);
        assert_eq!(by_name("open").unwrap().number(Architecture::Aarch64), None);
        assert!(by_name("opencontainer").is_none());
    }

    #[test]
    fn columns_are_in_the_order_of_the_architectures() {
        for (index, architecture) in COLUMNS.into_iter().enumerate() {
            assert_eq!(architecture as usize, index);
        }
    }

    #[test]
    fn every_number_leads_back_to_its_name() {
        for architecture in COLUMNS {
            for (name, number) in all(architecture) {
                assert_eq!(name_of(architecture, number), Some(name), "{architecture:?}");
            }
        }
    }
}
