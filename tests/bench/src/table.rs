//! The figures as a table, ratios to minirun.

use crate::measure::Measurement;
use crate::work::Operation;

/// The table of one operation.
pub(crate) fn of(operation: Operation, measured: &[Measurement]) -> String {
    let base = measured.iter().find(|one| one.peer == "minirun").map(|one| one.median_us);
    let mut text = format!("\n{}\n", operation.name());
    let header = ["", "median ms", "p90", "p99", "min", "ratio", "peak KiB", "syscalls"];
    let [name, rest @ ..] = header;
    text += &format!("{name:<10}");
    for title in rest {
        text += &format!("{title:>11}");
    }
    text.push('\n');
    for one in measured {
        let ratio = base
            .filter(|base| *base > 0)
            .map_or_else(String::new, |base| format!("{:.2}", one.median_us as f64 / base as f64));
        let cells = [
            ms(one.median_us),
            ms(one.p90_us),
            ms(one.p99_us),
            ms(one.min_us),
            ratio,
            one.peak_kib.map_or_else(String::new, |kib| kib.to_string()),
            one.syscalls.map_or_else(String::new, |count| count.to_string()),
        ];
        text += &format!("{:<10}", one.peer);
        for cell in cells {
            text += &format!("{cell:>11}");
        }
        text.push('\n');
    }
    text
}

fn ms(micros: u64) -> String {
    format!("{:.2}", micros as f64 / 1000.0)
}
