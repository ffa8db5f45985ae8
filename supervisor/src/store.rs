//! The history on disk: SQLite, so that people can ask it questions with their own tools.
//!
//! ```text
//! event(seq, at_ms, wall_ms, slot, instance, rule, change JSON, reason)   append-only
//! snapshot(seq, state JSON)                      the state after event `seq`; the newest counts
//! spec(revision, json)                           what a revision is made of
//! meta(key, value)                               format = 1
//! ```
//!
//! WAL with `synchronous = NORMAL`: a killed process loses nothing; a power failure may lose the
//! latest events, but it also ends every container that they were about. When the disk is full
//! or the file is broken the supervisor goes on from memory and says so: containers matter more
//! than their history.

use std::path::Path;

use anyhow::{Context, Result, bail};
use minisup_core::event::Event;
use minisup_core::state::State;
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};

/// The format this program reads and writes.
const FORMAT: &str = "1";
/// Events between two snapshots: what a start has to replay at most.
const SNAPSHOT_EVERY: u64 = 2000;
/// Events kept; older ones are forgotten at a snapshot.
const KEPT: u64 = 200_000;

/// An open history.
#[derive(Debug)]
pub(crate) struct Store {
    db: Connection,
    since_snapshot: u64,
}

/// A stored event.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) seq: i64,
    pub(crate) wall_ms: i64,
    pub(crate) event: Event,
}

impl Store {
    /// Opens the history, making it if it is not there.
    pub(crate) fn open(file: &Path) -> Result<Store> {
        let db = Connection::open(file)
            .with_context(|| format!("cannot open the history {}", file.display()))?;
        db.execute_batch(
            "PRAGMA journal_mode = WAL;
             PRAGMA synchronous = NORMAL;
             PRAGMA busy_timeout = 200;
             CREATE TABLE IF NOT EXISTS meta(key TEXT PRIMARY KEY, value TEXT NOT NULL);
             INSERT OR IGNORE INTO meta VALUES ('format', '1');
             CREATE TABLE IF NOT EXISTS event(
                 seq INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, wall_ms INTEGER NOT NULL,
                 slot TEXT, instance TEXT, rule TEXT NOT NULL, change TEXT NOT NULL,
                 reason TEXT NOT NULL);
             CREATE INDEX IF NOT EXISTS event_by_slot ON event(slot, seq);
             CREATE TABLE IF NOT EXISTS snapshot(seq INTEGER PRIMARY KEY, state TEXT NOT NULL);
             CREATE TABLE IF NOT EXISTS spec(revision TEXT PRIMARY KEY, json TEXT NOT NULL);",
        )
        .with_context(|| format!("cannot prepare the history {}", file.display()))?;
        let found: String =
            db.query_row("SELECT value FROM meta WHERE key = 'format'", [], |row| row.get(0))?;
        if found != FORMAT {
            bail!(
                "the history {} has format {found}, this minisup reads format {FORMAT}; \
                 use the minisup that wrote it, or move the file away",
                file.display()
            );
        }
        Ok(Store { db, since_snapshot: 0 })
    }

    /// Opens a history that is there, perhaps another machine's, and changes nothing.
    pub(crate) fn open_to_read(file: &Path) -> Result<Store> {
        let db = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY)
            .with_context(|| format!("cannot open the history {}", file.display()))?;
        Ok(Store { db, since_snapshot: 0 })
    }

    /// Whether an error says that somebody else holds the file, not that it is broken.
    pub(crate) fn is_busy(error: &anyhow::Error) -> bool {
        let code =
            error.downcast_ref::<rusqlite::Error>().and_then(rusqlite::Error::sqlite_error_code);
        matches!(
            code,
            Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked)
        )
    }

    /// Events are missing in the history: the next append also writes the whole state.
    pub(crate) fn snapshot_next(&mut self) {
        self.since_snapshot = SNAPSHOT_EVERY;
    }

    /// The newest snapshot, and the number of the event it was made after; else the beginning.
    pub(crate) fn snapshot(&self) -> Result<(i64, State)> {
        let snapshot: Option<(i64, String)> = self
            .db
            .query_row("SELECT seq, state FROM snapshot ORDER BY seq DESC LIMIT 1", [], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .optional()?;
        match snapshot {
            Some((seq, text)) => {
                Ok((seq, serde_json::from_str(&text).context("the snapshot cannot be read")?))
            }
            None => Ok((0, State::default())),
        }
    }

    /// The state that the history leads to.
    pub(crate) fn restore(&mut self) -> Result<State> {
        let (seq, mut state) = self.snapshot()?;
        for stored in self.after(seq, None)? {
            state.apply(&stored.event);
            self.since_snapshot += 1;
        }
        Ok(state)
    }

    /// Appends what a turn brought; all of it or nothing.
    pub(crate) fn append(&mut self, events: &[Event], wall_ms: i64, state: &State) -> Result<()> {
        let transaction = self.db.transaction()?;
        {
            let mut insert = transaction.prepare_cached(
                "INSERT INTO event(at_ms, wall_ms, slot, instance, rule, change, reason)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?;
            for event in events {
                insert.execute(params![
                    i64::try_from(event.at.ms())?,
                    wall_ms,
                    event.change.slot().map(ToString::to_string),
                    event.change.instance().map(ToString::to_string),
                    serde_json::to_string(&event.reason.rule)?.trim_matches('"'),
                    serde_json::to_string(&event.change)?,
                    event.reason.evidence,
                ])?;
            }
        }
        self.since_snapshot += events.len() as u64;
        if self.since_snapshot >= SNAPSHOT_EVERY {
            let text = serde_json::to_string(state)?;
            let seq = transaction.query_row("SELECT max(seq) FROM event", [], |row| row.get(0))?;
            let seq: i64 = seq;
            transaction.execute("DELETE FROM snapshot", [])?;
            transaction.execute("INSERT INTO snapshot VALUES (?1, ?2)", params![seq, text])?;
            let oldest = seq - i64::try_from(KEPT)?;
            transaction.execute("DELETE FROM event WHERE seq <= ?1", params![oldest])?;
            self.since_snapshot = 0;
        }
        transaction.commit()?;
        Ok(())
    }

    /// The events after number `seq`, of one slot or of all, at most ten thousand.
    pub(crate) fn after(&self, seq: i64, slot: Option<&str>) -> Result<Vec<Stored>> {
        let mut query = self.db.prepare_cached(
            "SELECT seq, at_ms, wall_ms, rule, change, reason FROM event
             WHERE seq > ?1 AND (?2 IS NULL OR slot = ?2) ORDER BY seq LIMIT 10000",
        )?;
        let mut rows = query.query(params![seq, slot])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            let (rule, change): (String, String) = (row.get(3)?, row.get(4)?);
            let at_ms: i64 = row.get(1)?;
            let event = serde_json::json!({
                "at": at_ms,
                "change": serde_json::from_str::<serde_json::Value>(&change)?,
                "reason": {"rule": rule, "evidence": row.get::<_, String>(5)?},
            });
            let seq = row.get(0)?;
            let event = serde_json::from_value(event)
                .with_context(|| format!("event {seq} cannot be read"))?;
            found.push(Stored { seq, wall_ms: row.get(2)?, event });
        }
        Ok(found)
    }

    /// Remembers what a revision is made of.
    pub(crate) fn put_spec(&self, revision: &str, json: &str) -> Result<()> {
        self.db.execute("INSERT OR REPLACE INTO spec VALUES (?1, ?2)", params![revision, json])?;
        Ok(())
    }

    /// What a revision is made of.
    pub(crate) fn spec(&self, revision: &str) -> Result<Option<String>> {
        let found = self.db.query_row(
            "SELECT json FROM spec WHERE revision = ?1",
            params![revision],
            |row| row.get(0),
        );
        Ok(found.optional()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use minisup_core::input::{Command, Input};
    use minisup_core::spec::Host;
    use minisup_core::step;
    use minisup_core::time::Mono;

    #[test]
    fn a_hole_in_the_history_is_bridged_by_a_snapshot() {
        let file = std::env::temp_dir().join(format!("minisup-hole-{}.db", std::process::id()));
        let _ = std::fs::remove_file(&file);
        let mut state = State::default();
        let mut store = Store::open(&file).unwrap();
        let host = |n| Input::Host(Host { memory_bytes: n, cpu_millis: 1 });
        step(&mut state, &host(7), Mono::from_ms(1)); // never stored
        let turn = step(&mut state, &Input::Command(Command::Down), Mono::from_ms(2));
        store.snapshot_next();
        store.append(&turn.events, 0, &state).unwrap();
        assert_eq!(Store::open(&file).unwrap().restore().unwrap(), state);
        drop(store);
        for suffix in ["-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{}{suffix}", file.display()));
        }
        std::fs::write(&file, b"this is not a database, and never was").unwrap();
        let error = Store::open(&file).unwrap_err();
        assert!(!Store::is_busy(&error), "{error:#}");
        for suffix in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{}{suffix}", file.display()));
        }
    }

    #[test]
    fn what_was_appended_is_restored_from_a_snapshot_and_the_rest() {
        let file = std::env::temp_dir().join(format!("minisup-store-{}.db", std::process::id()));
        let _ = std::fs::remove_file(&file);
        let mut state = State::default();
        let mut store = Store::open(&file).unwrap();
        for n in 1..=SNAPSHOT_EVERY + 7 {
            let host = Host { memory_bytes: n, cpu_millis: 1 };
            let turn = step(&mut state, &Input::Host(host), Mono::from_ms(n));
            store.append(&turn.events, 0, &state).unwrap();
        }
        drop(store);
        let mut store = Store::open(&file).unwrap();
        assert_eq!(store.restore().unwrap(), state);
        assert_eq!(store.since_snapshot, 7, "only the rest was replayed");
        let down = step(&mut state, &Input::Command(Command::Down), Mono::from_ms(1));
        store.append(&down.events, 0, &state).unwrap();
        assert_eq!(Store::open(&file).unwrap().restore().unwrap(), state);
        for suffix in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{}{suffix}", file.display()));
        }
    }
}
