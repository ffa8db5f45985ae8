//! Extended headers: PAX records (pax(1), "pax Extended Header") and GNU long names.
//!
//! Our own reader and not the tar crate's: that one keeps records apart by line feeds, and a file
//! capability is binary and may hold one.

use crate::error::{Error, Result};

/// What the extended headers before an entry say about it. Each field wins over the header's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Extension {
    /// The path.
    pub path: Option<Vec<u8>>,
    /// The target of a link.
    pub link: Option<Vec<u8>>,
    /// The size of what follows in the archive, in bytes.
    pub size: Option<u64>,
    /// The owner.
    pub uid: Option<u64>,
    /// The group.
    pub gid: Option<u64>,
    /// The time of the last change: seconds and nanoseconds.
    pub mtime: Option<(i64, u32)>,
    /// Extended attributes, in the archive's order.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Records about a sparse file (`GNU.sparse.*`), in the archive's order: some are repeated.
    pub sparse: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Extension {
    /// Adds the records of one PAX header; later records win.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a record that is not `LENGTH KEY=VALUE\n`.
    pub fn add_records(&mut self, mut data: &[u8]) -> Result<()> {
        while !data.is_empty() {
            let (key, value, rest) =
                record(data).ok_or_else(|| Error::Invalid("a PAX record is malformed".into()))?;
            self.add_record(key, value)?;
            data = rest;
        }
        Ok(())
    }

    fn add_record(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        match key {
            // An empty value takes a record back (pax(1)).
            b"path" => self.path = some(value),
            b"linkpath" => self.link = some(value),
            b"size" => self.size = number(value)?,
            b"uid" => self.uid = number(value)?,
            b"gid" => self.gid = number(value)?,
            b"mtime" => self.mtime = if value.is_empty() { None } else { Some(time(value)?) },
            _ if key.starts_with(b"GNU.sparse.") => {
                self.sparse.push((key[b"GNU.sparse.".len()..].to_vec(), value.to_vec()));
            }
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.xattrs.retain(|(other, _)| other != name);
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                }
                // What remains describes the archive (comment, atime, ctime, user names, the
                // same attributes in LIBARCHIVE's spelling), not the tree that is unpacked.
            }
        }
        Ok(())
    }
}

/// Splits `LENGTH KEY=VALUE\n` off the front.
fn record(data: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = data.iter().take(8).position(|&byte| byte == b' ')?;
    let length: usize = std::str::from_utf8(&data[..space]).ok()?.parse().ok()?;
    let body = data.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = body.iter().position(|&byte| byte == b'=')?;
    Some((&body[..equals], &body[equals + 1..], &data[length..]))
}

fn some(value: &[u8]) -> Option<Vec<u8>> {
    (!value.is_empty()).then(|| value.to_vec())
}

fn number(value: &[u8]) -> Result<Option<u64>> {
    if value.is_empty() {
        return Ok(None);
    }
    decimal(value).map(Some)
}

/// A decimal number without sign.
///
/// # Errors
/// [`Error::Invalid`] when it is none.
pub(super) fn decimal(value: &[u8]) -> Result<u64> {
    let digits = std::str::from_utf8(value).ok().filter(|text| !text.starts_with('+'));
    digits.and_then(|text| text.parse().ok()).ok_or_else(|| {
        Error::Invalid(format!("`{}` in a PAX record is not a number", super::name::show(value)))
    })
}

/// `1700000000.25`, `-1.5`: seconds with a fraction of any length.
fn time(value: &[u8]) -> Result<(i64, u32)> {
    let invalid = || Error::Invalid("a time in a PAX record is not a number".into());
    let text = std::str::from_utf8(value).map_err(|_| invalid())?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().map_err(|_| invalid())?;
    if !fraction.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(invalid());
    }
    let nine: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let nanos: u32 = nine.parse().map_err(|_| invalid())?;
    // -1.5 is half a second before -1, and a timespec counts its nanoseconds forward.
    if whole.starts_with('-') && nanos > 0 {
        return Ok((seconds.saturating_sub(1), 1_000_000_000 - nanos));
    }
    Ok((seconds, nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(list: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        builder.append_pax_extensions(list.iter().copied()).unwrap();
        let archive = builder.into_inner().unwrap();
        let size = tar::Header::from_byte_slice(&archive[..512]).size().unwrap();
        archive[512..][..usize::try_from(size).unwrap()].to_vec()
    }

    #[test]
    fn records_are_read_by_their_length() {
        let data = records(&[
            ("path", b"a/b"),
            ("uid", b"4000000000"),
            ("mtime", b"1700000000.25"),
            ("SCHILY.xattr.security.capability", b"\x01\n\x00="),
            ("comment", b"no matter"),
        ]);
        let mut extension = Extension::default();
        extension.add_records(&data).unwrap();
        assert_eq!(extension.path.as_deref(), Some(&b"a/b"[..]));
        assert_eq!(extension.uid, Some(4_000_000_000));
        assert_eq!(extension.mtime, Some((1_700_000_000, 250_000_000)));
        let capability = (b"security.capability".to_vec(), b"\x01\n\x00=".to_vec());
        assert_eq!(extension.xattrs, [capability]);
    }

    #[test]
    fn times_before_the_epoch_count_forward() {
        assert_eq!(time(b"-1.5").unwrap(), (-2, 500_000_000));
        assert_eq!(time(b"-0.25").unwrap(), (-1, 750_000_000));
        assert_eq!(time(b"-7").unwrap(), (-7, 0));
        assert_eq!(time(b"1.0000000019").unwrap(), (1, 1));
        assert!(time(b"1.x").is_err());
    }

    #[test]
    fn malformed_records_are_refused() {
        for data in [&b"x"[..], b"5 a=b", b"0 a=b\n", b"3 a", b"99 a=b\n", b"6 ab\n", b"7 uid=x\n"]
        {
            assert!(Extension::default().add_records(data).is_err(), "{}", data.escape_ascii());
        }
    }

    #[test]
    fn an_empty_value_takes_a_record_back() {
        let mut extension = Extension::default();
        extension.add_records(&records(&[("path", b"a"), ("path", b"")])).unwrap();
        assert_eq!(extension.path, None);
    }
}
