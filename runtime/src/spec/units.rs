//! Amounts as people write them: `512m`, `1.5`, `/dev/sda:10m`.

/// A number of bytes: digits, then nothing, `b`, `k`, `m`, `g` or `t` (powers of 1024; `KiB`, `MB`
/// and the like are understood in the same way).
///
/// # Errors
/// What is wrong and what would be right.
pub fn bytes(text: &str) -> Result<i64, String> {
    let wrong = |why: &str| format!("{text:?} is no size: {why}; write 512m, 1g or 268435456");
    let lower = text.to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor: i64 = match &lower[digits.len()..] {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        "t" | "tb" | "tib" => 1 << 40,
        unit => return Err(wrong(&format!("the unit {unit:?} is unknown"))),
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong("it wants a whole number"));
    }
    let number: i64 = digits.parse().map_err(|_| wrong("it is too large"))?;
    number.checked_mul(factor).ok_or_else(|| wrong("it is too large"))
}

/// A number of processors as (quota, period) in microseconds: `1.5` is 150000 of every 100000.
///
/// # Errors
/// What is wrong and what would be right.
pub fn cpus(text: &str) -> Result<(i64, u64), String> {
    /// The kernel's usual period, and the shortest quota that it takes, in microseconds.
    const PERIOD: u64 = 100_000;
    const SHORTEST: i64 = 1_000;
    let wrong = |why: &str| format!("{text:?} is no number of processors: {why}; write 2 or 0.5");
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() && part.is_empty() || !digits(whole) || !digits(part) {
        return Err(wrong("it wants digits and at most one point"));
    }
    let whole: i64 =
        if whole.is_empty() { 0 } else { whole.parse().map_err(|_| wrong("it is too large"))? };
    let fraction: i64 = format!("{part:0<5}")[..5].parse().unwrap_or(0);
    let quota = whole.checked_mul(100_000).and_then(|quota| quota.checked_add(fraction));
    match quota {
        Some(quota) if quota >= SHORTEST => Ok((quota, PERIOD)),
        Some(_) => Err(wrong("the least is 0.01")),
        None => Err(wrong("it is too large")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, expected) in [
            ("512m", Some(512 << 20)),
            ("1g", Some(1 << 30)),
            ("1GiB", Some(1 << 30)),
            ("268435456", Some(268_435_456)),
            ("0", Some(0)),
            ("", None),
            ("m", None),
            ("1.5g", None),
            ("-1", None),
            ("12x", None),
            ("9999999999t", None),
            ("1 g", None),
        ] {
            assert_eq!(bytes(text).ok(), expected, "{text:?}");
        }
    }

    #[test]
    fn processors() {
        for (text, expected) in [
            ("1.5", Some((150_000, 100_000))),
            ("2", Some((200_000, 100_000))),
            (".25", Some((25_000, 100_000))),
            ("0.01", Some((1_000, 100_000))),
            ("0.001", None),
            ("0", None),
            (".", None),
            ("1.2.3", None),
            ("-1", None),
            ("1e3", None),
        ] {
            assert_eq!(cpus(text).ok(), expected, "{text:?}");
        }
    }
}
