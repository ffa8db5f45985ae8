//! The rest of `x-minisup`: releases, restarts, leaks, promises, changed secrets.

use serde::Serialize;

#[cfg(test)]
use schemars::JsonSchema;

use super::balance::share;
use super::unset;
use crate::field::{Field, Fields};
use crate::findings::Findings;
use crate::quantity::{Millis, Percent};

/// `release`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(JsonSchema), schemars(default))]
pub struct Release {
    /// A release that is not done by then has failed. Default 10 min.
    pub deadline: Millis,
    /// How long a new replica must be ready before the next one. Default 0.
    pub min_ready: Millis,
    /// Versions kept for `minisup rollback`. Default 10.
    pub revisions: u32,
    /// First give the new version a part of the requests.
    #[serde(skip_serializing_if = "unset")]
    pub canary: Option<Canary>,
    /// Stop when users of the new version fare worse than those of the old one.
    #[serde(skip_serializing_if = "unset")]
    pub guard: Option<Guard>,
}

/// `canary`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct Canary {
    /// Share of the requests.
    pub percent: Percent,
    /// For this time. Default 1 min.
    pub hold: Millis,
}

/// `guard`: by how much the new version may be worse.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct Guard {
    /// Failed requests.
    #[serde(skip_serializing_if = "unset")]
    pub error_rate: Option<Percent>,
    /// 95th percentile of the latency.
    #[serde(skip_serializing_if = "unset")]
    pub latency_p95: Option<Millis>,
}

/// `backoff`: the first restart is immediate; then the wait is `base`, and doubles up to `max`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(JsonSchema), schemars(default))]
pub struct Backoff {
    /// Default 100 ms.
    pub base: Millis,
    /// Default 30 s.
    pub max: Millis,
    /// A replica ready for this time starts anew. Default 10 s.
    pub reset: Millis,
}

/// `leak`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct Leak {
    /// What is done.
    pub mode: LeakMode,
    /// When memory would be exhausted within this time. Default 2 min.
    pub horizon: Millis,
}

/// `leak.mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(test, derive(JsonSchema))]
pub enum LeakMode {
    /// Nothing.
    Off,
    /// An event.
    Report,
    /// Another replica takes over before this one dies.
    Recycle,
}

/// `slo`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct Slo {
    /// Share of requests that succeed.
    #[serde(skip_serializing_if = "unset")]
    pub availability: Option<Percent>,
    /// Half of the requests are faster.
    #[serde(skip_serializing_if = "unset")]
    pub latency_p50: Option<Millis>,
    /// 95 % of the requests are faster.
    #[serde(skip_serializing_if = "unset")]
    pub latency_p95: Option<Millis>,
    /// 99 % of the requests are faster.
    #[serde(skip_serializing_if = "unset")]
    pub latency_p99: Option<Millis>,
}

/// `secrets`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(JsonSchema), schemars(default))]
pub struct SecretsReload {
    /// What happens to a replica. Default `restart`.
    pub reload: Reload,
    /// The signal of `reload: signal`. Default `SIGHUP`.
    pub signal: String,
}

/// `secrets.reload`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(test, derive(JsonSchema))]
pub enum Reload {
    /// It is replaced, as by a release.
    #[default]
    Restart,
    /// Its file changes, and it gets a signal.
    Signal,
    /// It keeps the old value.
    None,
}

impl Default for Release {
    fn default() -> Self {
        Self {
            deadline: Millis(600_000),
            min_ready: Millis(0),
            revisions: 10,
            canary: None,
            guard: None,
        }
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self { base: Millis(100), max: Millis(30_000), reset: Millis(10_000) }
    }
}

impl Default for SecretsReload {
    fn default() -> Self {
        Self { reload: Reload::default(), signal: "SIGHUP".into() }
    }
}

impl Release {
    pub(super) fn read(field: &Field<'_>, cx: &mut Findings) -> Self {
        let mut f = Fields::open(field, cx);
        let d = Self::default();
        let release = Self {
            deadline: f.get("deadline", cx, Field::millis).unwrap_or(d.deadline),
            min_ready: f.get("min_ready", cx, Field::millis).unwrap_or(d.min_ready),
            revisions: f.get("revisions", cx, |x, cx| x.number(cx, 1, 1000)).unwrap_or(d.revisions),
            canary: f.get("canary", cx, Canary::read),
            guard: f.get("guard", cx, Guard::read),
        };
        f.close(cx);
        release
    }
}

impl Canary {
    fn read(field: &Field<'_>, cx: &mut Findings) -> Option<Self> {
        let mut f = Fields::open(field, cx);
        let percent = f.get("percent", cx, share);
        let hold = f.get("hold", cx, Field::millis).unwrap_or(Millis(60_000));
        if f.map_keys(&["percent"]).is_none() {
            field.error(cx, "`percent` is missing", "write the share of the requests, as in `10%`");
        }
        f.close(cx);
        Some(Self { percent: percent?, hold })
    }
}

impl Guard {
    fn read(field: &Field<'_>, cx: &mut Findings) -> Option<Self> {
        let mut f = Fields::open(field, cx);
        let guard = Self {
            error_rate: f.get("error_rate", cx, share),
            latency_p95: f.get("latency_p95", cx, Field::millis),
        };
        f.close(cx);
        Some(guard)
    }
}

impl Backoff {
    pub(super) fn read(field: &Field<'_>, cx: &mut Findings) -> Self {
        let mut f = Fields::open(field, cx);
        let d = Self::default();
        let backoff = Self {
            base: f.get("base", cx, Field::millis).unwrap_or(d.base),
            max: f.get("max", cx, Field::millis).unwrap_or(d.max),
            reset: f.get("reset", cx, Field::millis).unwrap_or(d.reset),
        };
        f.close(cx);
        if backoff.base > backoff.max {
            field.error(cx, "`base` is above `max`", "lower `base`, or raise `max`");
        }
        backoff
    }
}

impl Leak {
    pub(super) fn read(field: &Field<'_>, cx: &mut Findings) -> Option<Self> {
        let mut f = Fields::open(field, cx);
        let modes =
            [("off", LeakMode::Off), ("report", LeakMode::Report), ("recycle", LeakMode::Recycle)];
        let leak = Self {
            mode: f.get("mode", cx, |x, cx| x.one_of(cx, &modes)).unwrap_or(LeakMode::Recycle),
            horizon: f.get("horizon", cx, Field::millis).unwrap_or(Millis(120_000)),
        };
        f.close(cx);
        Some(leak)
    }
}

impl Slo {
    pub(super) fn read(field: &Field<'_>, cx: &mut Findings) -> Option<Self> {
        let mut f = Fields::open(field, cx);
        let slo = Self {
            availability: f.get("availability", cx, share),
            latency_p50: f.get("latency_p50", cx, Field::millis),
            latency_p95: f.get("latency_p95", cx, Field::millis),
            latency_p99: f.get("latency_p99", cx, Field::millis),
        };
        f.close(cx);
        Some(slo)
    }
}

impl SecretsReload {
    pub(super) fn read(field: &Field<'_>, cx: &mut Findings) -> Self {
        let mut f = Fields::open(field, cx);
        let reloads =
            [("restart", Reload::Restart), ("signal", Reload::Signal), ("none", Reload::None)];
        let d = Self::default();
        let reload = Self {
            reload: f.get("reload", cx, |x, cx| x.one_of(cx, &reloads)).unwrap_or_default(),
            signal: f.get("signal", cx, crate::model::read_signal).unwrap_or(d.signal),
        };
        f.close(cx);
        reload
    }
}
