//! Amounts as people write them: `512m`, `1.5`, `0-1,3`.
//!
//! Each error says where in the text it goes wrong and what would be right, because that is all that
//! its reader needs.

use std::collections::BTreeSet;
use std::fmt;

/// A number of bytes: digits, perhaps with a point, then nothing, `b`, `k`, `m`, `g` or `t` (powers
/// of 1024; `KiB`, `MB` and the like are understood in the same way). Parts of a byte are cut off.
///
/// # Errors
/// What is wrong and what would be right.
pub fn bytes(text: &str) -> Result<i64, String> {
    let wrong = |why: String| format!("{text:?} is no size: {why}; write 512m, 1g or 268435456");
    if text.starts_with('-') {
        return Err(wrong("it is below 0".into()));
    }
    let unit_at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(wrong(format!("{unit:?} at character {} is no unit", unit_at + 1))),
    };
    let Decimal { digits, places } = decimal(number).map_err(wrong)?;
    if shift == 0 && places > 0 {
        return Err(wrong("there are no parts of a byte".into()));
    }
    let bytes = (digits << shift) / 10_u128.pow(places);
    i64::try_from(bytes).map_err(|_| wrong("it is more than 8 EiB".into()))
}

/// A number of processors as (quota, period) in microseconds: `1.5` is 150000 of every 100000.
///
/// # Errors
/// What is wrong and what would be right.
pub fn cpus(text: &str) -> Result<(i64, u64), String> {
    /// The kernel's usual period, and the shortest quota that it takes, in microseconds.
    const PERIOD: u64 = 100_000;
    const SHORTEST: i64 = 1_000;
    let wrong =
        |why: String| format!("{text:?} is no number of processors: {why}; write 2, 1.5 or 0.25");
    let Decimal { digits, places } = decimal(text).map_err(wrong)?;
    let (scaled, unit) = (digits * u128::from(PERIOD), 10_u128.pow(places));
    if !scaled.is_multiple_of(unit) {
        return Err(wrong("the kernel counts in steps of 0.00001".into()));
    }
    match i64::try_from(scaled / unit) {
        Ok(quota) if quota >= SHORTEST => Ok((quota, PERIOD)),
        Ok(_) => Err(wrong("the least is 0.01".into())),
        Err(_) => Err(wrong("it is too large".into())),
    }
}

/// `digits` / 10^`places`.
struct Decimal {
    digits: u128,
    places: u32,
}

/// Digits with at most one point; at most 18 of them, so that nothing later can overflow.
fn decimal(text: &str) -> Result<Decimal, String> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    if let Some(at) = part.find('.').map(|at| whole.len() + 1 + at) {
        return Err(format!("there is a second point at character {}", at + 1));
    }
    if let Some((at, odd)) = text.char_indices().find(|(_, c)| !c.is_ascii_digit() && *c != '.') {
        return Err(format!("{odd:?} at character {} is no digit", at + 1));
    }
    let part = part.trim_end_matches('0');
    let digits = format!("{whole}{part}");
    match (text.bytes().any(|byte| byte.is_ascii_digit()), digits.len()) {
        (false, _) => Err("there is no digit".into()),
        (true, 19..) => Err("it has more than 18 digits".into()),
        (true, _) => {
            let places = u32::try_from(part.len()).unwrap_or(0);
            Ok(Decimal { digits: digits.parse().unwrap_or(0), places })
        }
    }
}

/// A set of processors or memory nodes, by number.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NumberList(BTreeSet<u32>);

impl NumberList {
    /// The numbers in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().copied()
    }

    /// Those of `self` that `others` lacks: processors that a container asks for and the host has
    /// not, say.
    #[must_use]
    pub fn without(&self, others: &Self) -> Self {
        Self(self.0.difference(&others.0).copied().collect())
    }

    /// Whether it has no number.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for NumberList {
    /// In the kernel's form, the shortest: `0-1,3`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers: Vec<u32> = self.iter().collect();
        for (index, run) in numbers.chunk_by(|one, next| one + 1 == *next).enumerate() {
            let comma = if index == 0 { "" } else { "," };
            match run {
                [first, .., last] => write!(f, "{comma}{first}-{last}")?,
                [only] => write!(f, "{comma}{only}")?,
                [] => {}
            }
        }
        Ok(())
    }
}

/// A list of processors or memory nodes as the kernel writes it: `0-1,3`, also `0-7:1/2` (of each
/// 2, the first 1). See cpuset(7), "List format".
///
/// # Errors
/// What is wrong and what would be right.
pub fn number_list(text: &str) -> Result<NumberList, String> {
    let wrong = |why: String| format!("{text:?} is no list of processors: {why}; write 0-1,3");
    let mut numbers = BTreeSet::new();
    let mut at = 1;
    for item in text.split(',') {
        add(item, at, &mut numbers).map_err(wrong)?;
        at += item.chars().count() + 1;
    }
    Ok(NumberList(numbers))
}

/// More than any kernel is built for (`NR_CPUS` is at most 8192).
const LARGEST: u32 = 65_535;

/// Adds `item`, which begins at character `at`.
fn add(item: &str, at: usize, numbers: &mut BTreeSet<u32>) -> Result<(), String> {
    let number = |digits: &str, what: &str| {
        let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        let parsed = digits.parse().ok().filter(|number| plain && *number <= LARGEST);
        parsed.ok_or_else(|| match (item.is_empty(), plain) {
            (true, _) => format!("a number is missing at character {at}"),
            (false, true) => format!("{what} of {item:?} at character {at} is above {LARGEST}"),
            (false, false) => format!("{what} of {item:?} at character {at} is no number"),
        })
    };
    let (range, pattern) = match item.split_once(':') {
        Some((range, pattern)) => (range, Some(pattern)),
        None => (item, None),
    };
    let (first, last) = match range.split_once('-') {
        Some((first, last)) => (number(first, "the start")?, number(last, "the end")?),
        None => (number(range, "the value")?, number(range, "the value")?),
    };
    if first > last {
        return Err(format!("{item:?} at character {at} runs backwards"));
    }
    let (used, group) = match pattern.map(|pattern| pattern.split_once('/')) {
        None => (1, 1),
        Some(Some((used, group))) => (number(used, "the used part")?, number(group, "the group")?),
        Some(None) => return Err(format!("{item:?} at character {at} lacks a / after the :")),
    };
    if used == 0 || used > group {
        return Err(format!("{item:?} at character {at} uses {used} of each {group}"));
    }
    numbers.extend((first..=last).filter(|number| (number - first) % group < used));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, expected) in [
            ("512m", 512 << 20),
            ("1g", 1 << 30),
            ("1GiB", 1 << 30),
            ("1.5g", 3 << 29),
            ("0.5k", 512),
            (".5k", 512),
            ("1.0001k", 1024),
            ("2.0", 2),
            ("268435456", 268_435_456),
            ("7b", 7),
            ("8388607t", 8_388_607 << 40),
            ("0", 0),
        ] {
            assert_eq!(bytes(text), Ok(expected), "{text:?}");
        }
    }

    #[test]
    fn what_is_no_size_says_why() {
        for (text, why) in [
            ("", "there is no digit"),
            ("m", "there is no digit"),
            (".", "there is no digit"),
            ("-1", "it is below 0"),
            ("12x", "\"x\" at character 3 is no unit"),
            ("1 g", "\" g\" at character 2 is no unit"),
            ("1.2.3g", "there is a second point at character 4"),
            ("1.5", "there are no parts of a byte"),
            ("8388608t", "it is more than 8 EiB"),
            ("1234567890123456789", "it has more than 18 digits"),
            ("٣m", "\"٣m\" at character 1 is no unit"),
        ] {
            let expected = format!("{text:?} is no size: {why}; write 512m, 1g or 268435456");
            assert_eq!(bytes(text), Err(expected), "{text:?}");
        }
    }

    #[test]
    fn processors() {
        for (text, quota) in [
            ("1.5", 150_000),
            ("2", 200_000),
            (".25", 25_000),
            ("0.01", 1_000),
            ("0.33333", 33_333),
            ("1.500000000", 150_000),
        ] {
            assert_eq!(cpus(text), Ok((quota, 100_000)), "{text:?}");
        }
        for (text, why) in [
            ("0.001", "the least is 0.01"),
            ("0", "the least is 0.01"),
            ("0.333333", "the kernel counts in steps of 0.00001"),
            (".", "there is no digit"),
            ("1.2.3", "there is a second point at character 4"),
            ("-1", "'-' at character 1 is no digit"),
            ("1e3", "'e' at character 2 is no digit"),
            ("999999999999999999", "it is too large"),
        ] {
            let start = format!("{text:?} is no number of processors: {why}; ");
            let error = cpus(text).unwrap_err();
            assert!(error.starts_with(&start), "{error}");
        }
    }

    #[test]
    fn lists_are_read_and_written_in_the_kernels_form() {
        for (text, written) in [
            ("0-1,3", "0-1,3"),
            ("3,1,2", "1-3"),
            ("7", "7"),
            ("0-3,2-5", "0-5"),
            ("0-7:1/2", "0,2,4,6"),
            ("1-10:2/4,0", "0-2,5-6,9-10"),
            ("65535", "65535"),
        ] {
            assert_eq!(number_list(text).map(|list| list.to_string()), Ok(written.into()));
        }
    }

    #[test]
    fn lists_can_be_compared() {
        let list = |text| number_list(text).unwrap();
        let missing = list("0-3,8").without(&list("0-2"));
        assert_eq!(missing.iter().collect::<Vec<_>>(), [3, 8]);
        assert!(!missing.is_empty() && missing.without(&missing).is_empty());
    }

    #[test]
    fn what_is_no_list_says_where() {
        for (text, why) in [
            ("", "a number is missing at character 1"),
            ("0,,1", "a number is missing at character 3"),
            ("0,1,", "a number is missing at character 5"),
            ("0,3-2", "\"3-2\" at character 3 runs backwards"),
            ("0-1 ,3", "the end of \"0-1 \" at character 1 is no number"),
            ("a", "the value of \"a\" at character 1 is no number"),
            ("1-", "the end of \"1-\" at character 1 is no number"),
            ("-1", "the start of \"-1\" at character 1 is no number"),
            ("+1", "the value of \"+1\" at character 1 is no number"),
            ("0-65536", "the end of \"0-65536\" at character 1 is above 65535"),
            ("0-7:2", "\"0-7:2\" at character 1 lacks a / after the :"),
            ("0-7:0/2", "\"0-7:0/2\" at character 1 uses 0 of each 2"),
            ("0-7:3/2", "\"0-7:3/2\" at character 1 uses 3 of each 2"),
        ] {
            let expected = format!("{text:?} is no list of processors: {why}; write 0-1,3");
            assert_eq!(number_list(text), Err(expected), "{text:?}");
        }
    }
}
