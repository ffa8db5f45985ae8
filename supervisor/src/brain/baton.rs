//! Who the brain of a project is: the one that holds the lock of `brain.lock`.
//!
//! A brain whose keeper was killed starts another keeper, which starts another brain, and either
//! of the two can be killed as well before the successor has everything. So the old brain waits:
//! it gives the lock up, and goes only when a successor has taken it *and* has written into the file
//! how far it is ([`Stage`]). If the lock comes back before, the old brain begins again with one more
//! keeper.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// The time between two looks while neither is true: a successor that lives, and has not finished.
const LOOK: Duration = Duration::from_millis(10);

/// How far a successor is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Stage {
    /// It has every descriptor. If it ends, its keeper starts another one.
    Settled,
    /// It knows what there is, and can be asked.
    AtWork,
}

impl Stage {
    const WORDS: [(Stage, &'static str); 2] =
        [(Stage::Settled, "settled"), (Stage::AtWork, "at work")];

    /// Whether the brain whose file this is is at work, or was when it ended.
    pub(crate) fn is_at_work_in(file: &Path) -> bool {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        Stage::of(&text) == Some(Stage::AtWork)
    }

    fn of(text: &str) -> Option<Stage> {
        Self::WORDS.iter().find(|(_, word)| *word == text).map(|(stage, _)| *stage)
    }
}

/// The lock, held.
#[derive(Debug)]
pub(crate) struct Baton {
    file: File,
}

impl Baton {
    /// Takes the lock for a brain that starts.
    ///
    /// # Errors
    /// When another brain of the project lives.
    pub(crate) fn take(file: &Path) -> Result<Baton> {
        let open =
            OpenOptions::new().create(true).truncate(false).read(true).write(true).open(file);
        let file = open.with_context(|| format!("cannot open {}", file.display()))?;
        let mut baton = Baton { file };
        if !baton.try_lock()? {
            bail!("another brain of this project is at work");
        }
        baton.write("")?;
        Ok(baton)
    }

    /// This brain is so far: a predecessor that waits for it may go.
    pub(crate) fn reached(&mut self, stage: Stage) -> Result<()> {
        let word = Stage::WORDS.iter().find(|(known, _)| *known == stage);
        self.write(word.map_or("", |(_, word)| word))
    }

    /// Lets a successor take the lock.
    pub(crate) fn give_up(&mut self) -> Result<()> {
        self.write("")?;
        self.file.unlock().context("cannot give up brain.lock")
    }

    /// Waits until a successor is so far (`false`), or has ended before (`true`: the lock is ours
    /// again).
    pub(crate) fn comes_back_before(&mut self, wanted: Stage) -> Result<bool> {
        loop {
            // First the lock: a successor that had everything may have ended since.
            if self.try_lock()? {
                self.write("")?;
                return Ok(true);
            }
            let mut text = String::new();
            self.file.rewind()?;
            self.file.read_to_string(&mut text).context("cannot read brain.lock")?;
            if Stage::of(&text).is_some_and(|reached| reached >= wanted) {
                return Ok(false);
            }
            std::thread::sleep(LOOK);
        }
    }

    fn try_lock(&self) -> Result<bool> {
        match self.file.try_lock() {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(error)) => Err(error).context("cannot lock brain.lock"),
        }
    }

    fn write(&mut self, text: &str) -> Result<()> {
        let mut write = || {
            self.file.set_len(0)?;
            self.file.rewind()?;
            self.file.write_all(text.as_bytes())
        };
        write().context("cannot write brain.lock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str) -> std::path::PathBuf {
        std::env::temp_dir().join(format!("minisup-baton-{name}-{}", std::process::id()))
    }

    #[test]
    fn a_successor_with_everything_lets_its_predecessor_go() {
        let file = file("settled");
        let mut old = Baton::take(&file).expect("the first");
        assert!(Baton::take(&file).is_err(), "one at a time");
        old.give_up().expect("given up");
        let mut new = Baton::take(&file).expect("the second");
        new.reached(Stage::Settled).expect("settled");
        assert!(!old.comes_back_before(Stage::Settled).expect("an answer"));
        new.reached(Stage::AtWork).expect("at work");
        assert!(!old.comes_back_before(Stage::Settled).expect("an answer"));
        assert!(!old.comes_back_before(Stage::AtWork).expect("an answer"));
        std::fs::remove_file(&file).expect("clean up");
    }

    #[test]
    fn a_successor_that_dies_gives_the_lock_back() {
        let file = file("dead");
        let mut old = Baton::take(&file).expect("the first");
        for settled in [false, true] {
            old.give_up().expect("given up");
            let mut new = Baton::take(&file).expect("the second");
            if settled {
                new.reached(Stage::Settled).expect("settled");
            }
            drop(new);
            let back = old.comes_back_before(Stage::AtWork);
            assert!(back.expect("an answer"), "settled: {settled}");
        }
        std::fs::remove_file(&file).expect("clean up");
    }
}
