//! `minisup simulate`: lives through simulated days with the real decision core.

use anyhow::{Result, bail};
use minisup_core::simulation::{self, Summary};

/// Simulates `days` seeds from `seed` on; the first broken invariant is an error.
pub(crate) fn run(seed: u64, days: u64, trace: bool) -> Result<()> {
    let mut total = Summary::default();
    for seed in seed..seed.saturating_add(days) {
        match simulation::simulate(seed, trace) {
            Ok(day) => {
                total.steps += day.steps;
                total.events += day.events;
                total.launches += day.launches;
                total.brain_deaths += day.brain_deaths;
                total.torn += day.torn;
            }
            Err(failure) => bail!("{failure}"),
        }
    }
    println!(
        "{days} days: {} inputs, {} events, {} launches, supervisor killed {} times and its \
         history torn {} times; every invariant held",
        total.steps, total.events, total.launches, total.brain_deaths, total.torn
    );
    Ok(())
}
