//! Sparse files: a map of the parts that have data, in four dialects of GNU tar (its manual,
//! "Storing Sparse Files"). The holes are left out on disk as well.

use super::extension::{Extension, decimal};
use super::limits::Limits;
use crate::error::{Error, Result};
use std::io::Read;
use tar::{GnuExtSparseHeader, GnuSparseHeader, Header};

/// A part of a file that has data: its offset in the file and its length, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Where in the file.
    pub offset: u64,
    /// How long.
    pub length: u64,
}

/// The map of a sparse file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Map {
    /// The parts with data, in order, apart from each other.
    pub extents: Vec<Extent>,
    /// The size of the file with its holes.
    pub size: u64,
}

/// More parts than this are not a file with holes but an attempt on our memory.
const MOST_EXTENTS: usize = 1 << 16;

impl Map {
    /// Checks that the parts are in order, within the file, and use the data up exactly.
    fn checked(extents: Vec<Extent>, size: u64, stored: u64) -> Result<Self> {
        let mut end = 0;
        let mut total: u64 = 0;
        for extent in &extents {
            let next = extent.offset.checked_add(extent.length);
            if extent.offset < end || next.is_none_or(|next| next > size) {
                return Err(invalid());
            }
            end = extent.offset + extent.length;
            total += extent.length;
        }
        if total != stored { Err(invalid()) } else { Ok(Self { extents, size }) }
    }
}

fn invalid() -> Error {
    Error::Invalid("the map of a sparse file contradicts itself".into())
}

/// The old GNU format: type `S`, four parts in the header and more in blocks behind it.
///
/// # Errors
/// When the map is cut short or contradicts itself.
pub(super) fn from_header(header: &Header, stored: u64, input: &mut impl Read) -> Result<Map> {
    let gnu = header.as_gnu().ok_or_else(invalid)?;
    let mut extents = Vec::new();
    add(&mut extents, &gnu.sparse)?;
    let mut more = gnu.is_extended();
    while more {
        let mut block = GnuExtSparseHeader::new();
        input.read_exact(block.as_mut_bytes())?;
        add(&mut extents, block.sparse())?;
        more = block.is_extended();
    }
    Map::checked(extents, gnu.real_size().map_err(|_| invalid())?, stored)
}

fn add(extents: &mut Vec<Extent>, headers: &[GnuSparseHeader]) -> Result<()> {
    for header in headers.iter().filter(|header| !header.is_empty()) {
        let offset = header.offset().map_err(|_| invalid())?;
        let length = header.length().map_err(|_| invalid())?;
        push(extents, offset, length)?;
    }
    Ok(())
}

fn push(extents: &mut Vec<Extent>, offset: u64, length: u64) -> Result<()> {
    if extents.len() == MOST_EXTENTS {
        return Err(Error::Invalid("a sparse file has more than 65536 parts".into()));
    }
    extents.push(Extent { offset, length });
    Ok(())
}

/// The PAX formats 0.0, 0.1 and 1.0. Returns the map, and the file's true name where the header
/// has a made-up one. `stored` is the size in the archive; format 1.0 has its map in front of the
/// data, so it is read from there and counted off.
///
/// # Errors
/// When the map is cut short or contradicts itself.
pub(super) fn from_records(
    extension: &Extension,
    stored: &mut u64,
    input: &mut impl Read,
) -> Result<Option<(Map, Option<Vec<u8>>)>> {
    let value = |key: &[u8]| {
        let found = extension.sparse.iter().rev().find(|(name, _)| name == key);
        found.map(|(_, value)| value.as_slice())
    };
    if extension.sparse.is_empty() {
        return Ok(None);
    }
    let size = value(b"realsize").or_else(|| value(b"size")).ok_or_else(invalid)?;
    let mut extents = Vec::new();
    if value(b"major") == Some(b"1") {
        read_map(&mut extents, stored, input)?;
    } else if let Some(map) = value(b"map") {
        let numbers: Vec<_> = map.split(|&byte| byte == b',').collect();
        for pair in numbers.chunks(2) {
            let &[offset, length] = pair else { return Err(invalid()) };
            push(&mut extents, decimal(offset)?, decimal(length)?)?;
        }
    } else {
        let all = |key: &'static [u8]| {
            extension.sparse.iter().filter(move |(name, _)| name == key).map(|(_, value)| value)
        };
        for (offset, length) in all(b"offset").zip(all(b"numbytes")) {
            push(&mut extents, decimal(offset)?, decimal(length)?)?;
        }
    }
    let map = Map::checked(extents, decimal(size)?, *stored)?;
    Ok(Some((map, value(b"name").map(<[u8]>::to_vec))))
}

/// Format 1.0: the count and then each offset and length, a decimal number on a line each, padded
/// to a whole block.
fn read_map(extents: &mut Vec<Extent>, stored: &mut u64, input: &mut impl Read) -> Result<()> {
    let mut taken = 0;
    let mut block = [0; 512];
    let mut at = block.len();
    let mut line = Vec::new();
    let mut next_number = || -> Result<u64> {
        line.clear();
        loop {
            if at == block.len() {
                if taken + 512 > *stored || taken > Limits::EXTENSION_BYTES * 4 {
                    return Err(invalid());
                }
                input.read_exact(&mut block)?;
                taken += 512;
                at = 0;
            }
            at += 1;
            match block[at - 1] {
                b'\n' => return decimal(&line),
                byte if line.len() < 20 => line.push(byte),
                _ => return Err(invalid()),
            }
        }
    };
    for _ in 0..next_number()? {
        let (offset, length) = (next_number()?, next_number()?);
        push(extents, offset, length)?;
    }
    *stored -= taken;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extension(records: &[(&str, &str)]) -> Extension {
        let sparse = records
            .iter()
            .map(|(key, value)| (key.as_bytes().to_vec(), value.as_bytes().to_vec()))
            .collect();
        Extension { sparse, ..Extension::default() }
    }

    #[test]
    fn the_three_pax_formats_say_the_same() {
        let expected = vec![Extent { offset: 0, length: 4 }, Extent { offset: 100, length: 2 }];
        let zero_zero = extension(&[
            ("size", "200"),
            ("offset", "0"),
            ("numbytes", "4"),
            ("offset", "100"),
            ("numbytes", "2"),
        ]);
        let zero_one = extension(&[("size", "200"), ("map", "0,4,100,2"), ("name", "x")]);
        let one_zero = extension(&[("major", "1"), ("minor", "0"), ("realsize", "200")]);
        let mut block = b"2\n0\n4\n100\n2\n".to_vec();
        block.resize(512, 0);

        for (records, mut stored, input) in
            [(zero_zero, 6, &b""[..]), (zero_one, 6, b""), (one_zero, 518, &block)]
        {
            let (map, _) = from_records(&records, &mut stored, &mut &input[..]).unwrap().unwrap();
            assert_eq!(map, Map { extents: expected.clone(), size: 200 });
            assert_eq!(stored, 6);
        }
    }

    #[test]
    fn maps_that_contradict_themselves_are_refused() {
        for (map, stored) in [("0,4,2,2", 6), ("0,4", 5), ("199,2", 2), ("5", 0), ("0,x", 0)] {
            let records = extension(&[("size", "200"), ("map", map)]);
            let mut stored = stored;
            assert!(from_records(&records, &mut stored, &mut &b""[..]).is_err(), "{map}");
        }
    }

    #[test]
    fn a_map_that_never_ends_is_cut() {
        let records = extension(&[("major", "1"), ("realsize", "200")]);
        let mut endless = std::io::repeat(b'1');
        assert!(from_records(&records, &mut (1 << 40), &mut endless).is_err());
        assert!(from_records(&records, &mut 100, &mut endless).is_err());
    }
}
