//! The five fields of crontab(5): is this a schedule at all?

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// Whether a text has five fields with values in their ranges.
pub(super) fn valid(text: &str) -> bool {
    let fields: Vec<&str> = text.split_whitespace().collect();
    let [minute, hour, day, month, weekday] = fields.as_slice() else { return false };
    field(minute, 0, 59, &[])
        && field(hour, 0, 23, &[])
        && field(day, 1, 31, &[])
        && field(month, 1, 12, &MONTHS)
        && field(weekday, 0, 7, &DAYS)
}

/// A list of `*`, `N`, `N-N`, each perhaps with `/STEP`. Names count from `least`.
fn field(text: &str, least: u32, most: u32, names: &[&str]) -> bool {
    let value = |text: &str| -> Option<u32> {
        let named = names.iter().position(|name| name.eq_ignore_ascii_case(text));
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let number = match named {
            Some(index) => least + u32::try_from(index).ok()?,
            None => text.parse().ok().filter(|_| digits)?,
        };
        (least..=most).contains(&number).then_some(number)
    };
    text.split(',').all(|item| {
        let (range, step) = item.split_once('/').unwrap_or((item, "1"));
        let step = step.parse::<u32>().is_ok_and(|step| step >= 1 && step <= most);
        let bounds = range.split_once('-');
        step && match bounds {
            _ if range == "*" => true,
            Some((first, last)) => match (value(first), value(last)) {
                (Some(first), Some(last)) => first <= last,
                _ => false,
            },
            None => value(range).is_some(),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::valid;

    #[test]
    fn schedules_are_told_from_other_text() {
        for text in
            ["0 9 * * 1-5", "*/5 * * * *", "0 0 1 jan,jul *", "30 8-18/2 * * MON-FRI", "0 0 * * 7"]
        {
            assert!(valid(text), "{text}");
        }
        for text in [
            "",
            "* * * *",
            "* * * * * *",
            "60 * * * *",
            "* 24 * * *",
            "* * 0 * *",
            "* * * 13 *",
            "5-1 * * * *",
            "*/0 * * * *",
            "a * * * *",
            "-1 * * * *",
            "@daily",
            "* * * * 8",
        ] {
            assert!(!valid(text), "{text}");
        }
    }
}
