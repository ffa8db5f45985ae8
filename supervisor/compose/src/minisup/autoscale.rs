//! `x-minisup.autoscale` and `x-minisup.vertical`: more and fewer, larger and smaller replicas.

use serde::Serialize;

#[cfg(test)]
use schemars::JsonSchema;

use super::balance::share;
use super::{cron, unset};
use crate::field::{Field, Fields};
use crate::findings::Findings;
use crate::quantity::{Bytes, Cpus, Millis, Percent};

/// `autoscale`. The number of replicas is the largest that any metric or schedule asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct Autoscale {
    /// Never fewer; 0 lets the service sleep until a request comes.
    pub min: u32,
    /// Never more.
    pub max: u32,
    /// What is measured, and the value aimed at.
    #[serde(skip_serializing_if = "unset")]
    pub metrics: Vec<Metric>,
    /// Scale up to the lowest wish of this time. Default 0.
    pub up_window: Millis,
    /// Scale down to the highest wish of this time. Default 60 s.
    pub down_window: Millis,
    /// Differences below this share change nothing. Default 10 %.
    pub tolerance: Percent,
    /// How fast; the most generous policy counts. Default: as fast as needed.
    #[serde(skip_serializing_if = "unset")]
    pub policies: Policies,
    /// Bounds by the clock.
    #[serde(skip_serializing_if = "unset")]
    pub schedules: Vec<Schedule>,
    /// By what the past foretells.
    #[serde(skip_serializing_if = "unset")]
    pub predict: Option<Predict>,
}

/// An entry of `metrics`, as the average of the ready replicas.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(test, derive(JsonSchema))]
pub enum Metric {
    /// CPU time, as a share of the reservation, else of the limit.
    Cpu(Percent),
    /// Working set, as a share of the reservation, else of the limit.
    Memory(Percent),
    /// Bytes in and out in a second.
    Net(Bytes),
    /// Requests in a second.
    Rps(u32),
    /// Requests at a time.
    Inflight(u32),
    /// Half of the requests are faster.
    LatencyP50(Millis),
    /// 95 % of the requests are faster.
    LatencyP95(Millis),
    /// 99 % of the requests are faster.
    LatencyP99(Millis),
    /// Share of time in which some process waits for a CPU.
    PsiCpu(Percent),
    /// Share of time in which some process waits for memory.
    PsiMemory(Percent),
    /// Share of time in which some process waits for a disk.
    PsiIo(Percent),
    /// A number in a JSON document that each replica serves.
    Custom(CustomMetric),
}

/// `custom`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct CustomMetric {
    /// The port in the container.
    pub port: u16,
    /// The path of the document.
    pub path: String,
    /// Where in the document, RFC 6901, as `/queue/length`.
    pub pointer: String,
    /// The value aimed at.
    pub target: u64,
}

/// `policies`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct Policies {
    /// When scaling up.
    #[serde(skip_serializing_if = "unset")]
    pub up: Vec<Policy>,
    /// When scaling down.
    #[serde(skip_serializing_if = "unset")]
    pub down: Vec<Policy>,
}

/// At most so many replicas, or such a share of them, in a period: one of the two.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct Policy {
    /// So many.
    #[serde(skip_serializing_if = "unset")]
    pub replicas: Option<u32>,
    /// Such a share; above 100 % is allowed.
    #[serde(skip_serializing_if = "unset")]
    pub percent: Option<Percent>,
    /// In this time.
    pub period: Millis,
}

/// An entry of `schedules`: from that minute until the next entry's, at least `min` replicas.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct Schedule {
    /// Minute, hour, day, month, weekday, as in crontab(5).
    pub cron: String,
    /// A name of the time zone database. Default UTC.
    pub timezone: String,
    /// Never fewer.
    pub min: u32,
    /// Never more. Default: that of `autoscale`.
    #[serde(skip_serializing_if = "unset")]
    pub max: Option<u32>,
}

/// `predict`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct Predict {
    /// Whether the forecast acts.
    pub mode: PredictMode,
    /// After this time the load repeats. Default: found in the history.
    #[serde(skip_serializing_if = "unset")]
    pub season: Option<Millis>,
}

/// `predict.mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(test, derive(JsonSchema))]
pub enum PredictMode {
    /// No forecast.
    Off,
    /// The forecast is only shown.
    ForecastOnly,
    /// The forecast scales up ahead of the load, never down.
    Apply,
}

/// `vertical`: limits that follow what a replica uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct Vertical {
    /// Whether the recommendation acts.
    pub mode: VerticalMode,
    /// Bounds of the memory limit.
    #[serde(skip_serializing_if = "unset")]
    pub memory: VerticalMemory,
    /// Bounds of the CPU limit.
    #[serde(skip_serializing_if = "unset")]
    pub cpus: VerticalCpus,
}

/// `vertical.mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(test, derive(JsonSchema))]
pub enum VerticalMode {
    /// Nothing is recommended.
    Off,
    /// The recommendation is shown.
    Recommend,
    /// The limits of running replicas are changed, without a restart.
    Apply,
}

/// `vertical.memory`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct VerticalMemory {
    /// Never less.
    #[serde(skip_serializing_if = "unset")]
    pub min: Option<Bytes>,
    /// Never more.
    #[serde(skip_serializing_if = "unset")]
    pub max: Option<Bytes>,
}

/// `vertical.cpus`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[cfg_attr(test, derive(JsonSchema))]
pub struct VerticalCpus {
    /// Never less.
    #[serde(skip_serializing_if = "unset")]
    pub min: Option<Cpus>,
    /// Never more.
    #[serde(skip_serializing_if = "unset")]
    pub max: Option<Cpus>,
}

const REPLICAS: u32 = 10_000;

impl Autoscale {
    pub(super) fn read(field: &Field<'_>, cx: &mut Findings) -> Option<Self> {
        let mut f = Fields::open(field, cx);
        let min = f.get("min", cx, |x, cx| x.number(cx, 0, REPLICAS));
        let max = f.get("max", cx, |x, cx| x.number(cx, 1, REPLICAS));
        let missing = ["min", "max"].into_iter().find(|key| f.map_keys(&[key]).is_none());
        let metrics = f.list("metrics", cx, |x, cx| {
            x.items(cx).iter().filter_map(|item| Metric::read(item, cx)).collect()
        });
        let schedules = f.list("schedules", cx, |x, cx| {
            x.items(cx).iter().filter_map(|item| Schedule::read(item, cx)).collect()
        });
        let up_window = f.get("up_window", cx, Field::millis).unwrap_or(Millis(0));
        let down_window = f.get("down_window", cx, Field::millis).unwrap_or(Millis(60_000));
        let tolerance = f.get("tolerance", cx, share).unwrap_or(Percent(100_000));
        let policies = f.list("policies", cx, Policies::read);
        let predict = f.get("predict", cx, Predict::read);
        f.close(cx);
        if let Some(missing) = missing {
            field.error(cx, format!("`{missing}` is missing"), "write `min:` and `max:`");
        }
        let (min, max) = (min?, max?);
        if min > max {
            field.error(cx, format!("`min` ({min}) is above `max` ({max})"), "exchange them");
        }
        let metrics: Vec<Metric> = metrics;
        let schedules: Vec<Schedule> = schedules;
        if metrics.is_empty() && schedules.is_empty() && predict.is_none() {
            field.error(
                cx,
                "nothing says when to scale",
                "add `metrics`, `schedules` or `predict`",
            );
        }
        Some(Self {
            min,
            max,
            metrics,
            up_window,
            down_window,
            tolerance,
            policies,
            schedules,
            predict,
        })
    }
}

impl Metric {
    fn read(field: &Field<'_>, cx: &mut Findings) -> Option<Self> {
        let mut f = Fields::open(field, cx);
        let count = |x: &Field<'_>, cx: &mut Findings| x.number(cx, 1, u32::MAX);
        let found = [
            f.get("cpu", cx, Field::percent).map(Self::Cpu),
            f.get("memory", cx, Field::percent).map(Self::Memory),
            f.get("net", cx, Field::bytes).map(Self::Net),
            f.get("rps", cx, count).map(Self::Rps),
            f.get("inflight", cx, count).map(Self::Inflight),
            f.get("latency_p50", cx, Field::millis).map(Self::LatencyP50),
            f.get("latency_p95", cx, Field::millis).map(Self::LatencyP95),
            f.get("latency_p99", cx, Field::millis).map(Self::LatencyP99),
            f.get("psi_cpu", cx, share).map(Self::PsiCpu),
            f.get("psi_memory", cx, share).map(Self::PsiMemory),
            f.get("psi_io", cx, share).map(Self::PsiIo),
            f.get("custom", cx, CustomMetric::read).map(Self::Custom),
        ];
        f.close(cx);
        let given = field.node.as_map().map_or(0, |map| map.len());
        if given != 1 {
            field.error(cx, "an entry is one metric and its target", "write it as in `- cpu: 60%`");
            return None;
        }
        found.into_iter().flatten().next()
    }
}

impl CustomMetric {
    fn read(field: &Field<'_>, cx: &mut Findings) -> Option<Self> {
        let mut f = Fields::open(field, cx);
        let slash = |x: &Field<'_>, cx: &mut Findings| {
            x.parsed(cx, "a text that begins with `/`", |t| {
                t.starts_with('/').then(|| t.to_owned())
            })
        };
        let port = f.get("port", cx, |x, cx| x.number(cx, 1, u16::MAX));
        let (path, pointer) = (f.get("path", cx, slash), f.get("pointer", cx, slash));
        let target = f.get("target", cx, |x, cx| x.number(cx, 1, u64::MAX));
        let keys = ["port", "path", "pointer", "target"];
        let missing = keys.into_iter().find(|key| f.map_keys(&[key]).is_none());
        f.close(cx);
        if let Some(missing) = missing {
            field.error(
                cx,
                format!("`{missing}` is missing"),
                "write `port`, `path`, `pointer` and `target`",
            );
        }
        Some(Self { port: port?, path: path?, pointer: pointer?, target: target? })
    }
}

impl Policies {
    fn read(field: &Field<'_>, cx: &mut Findings) -> Self {
        let mut f = Fields::open(field, cx);
        let read = |x: &Field<'_>, cx: &mut Findings| {
            x.items(cx).iter().filter_map(|item| Policy::read(item, cx)).collect()
        };
        let policies = Self { up: f.list("up", cx, read), down: f.list("down", cx, read) };
        f.close(cx);
        policies
    }
}

impl Policy {
    fn read(field: &Field<'_>, cx: &mut Findings) -> Option<Self> {
        let mut f = Fields::open(field, cx);
        let replicas = f.get("replicas", cx, |x, cx| x.number(cx, 1, REPLICAS));
        let percent = f.get("percent", cx, Field::percent);
        let period = f.get("period", cx, Field::millis);
        f.close(cx);
        if replicas.is_some() == percent.is_some() || period.is_none() {
            field.error(
                cx,
                "is not a policy",
                "write `{replicas: 4, period: 15s}` or `{percent: 100%, period: 15s}`",
            );
            return None;
        }
        Some(Self { replicas, percent, period: period? })
    }
}

impl Schedule {
    fn read(field: &Field<'_>, cx: &mut Findings) -> Option<Self> {
        let mut f = Fields::open(field, cx);
        let cron = f.get("cron", cx, |x, cx| {
            x.parsed(cx, "minute, hour, day, month and weekday, as in `0 9 * * 1-5`", |text| {
                cron::valid(text).then(|| text.to_owned())
            })
        });
        let timezone = f.get("timezone", cx, |x, cx| {
            x.parsed(cx, "a name such as `UTC` or `Asia/Seoul`", |text| {
                let known = |c: char| c.is_ascii_alphanumeric() || "/_+-".contains(c);
                (!text.is_empty() && text.chars().all(known)).then(|| text.to_owned())
            })
        });
        let min = f.get("min", cx, |x, cx| x.number(cx, 0, REPLICAS));
        let max = f.get("max", cx, |x, cx| x.number(cx, 1, REPLICAS));
        let missing = ["cron", "min"].into_iter().find(|key| f.map_keys(&[key]).is_none());
        f.close(cx);
        if let Some(missing) = missing {
            field.error(cx, format!("`{missing}` is missing"), "write `cron:` and `min:`");
        }
        let (cron, min) = (cron?, min?);
        if max.is_some_and(|max| max < min) {
            field.error(cx, "`min` is above `max`", "exchange them");
        }
        Some(Self { cron, timezone: timezone.unwrap_or_else(|| "UTC".into()), min, max })
    }
}

impl Predict {
    fn read(field: &Field<'_>, cx: &mut Findings) -> Option<Self> {
        let mut f = Fields::open(field, cx);
        let modes = [
            ("off", PredictMode::Off),
            ("forecast-only", PredictMode::ForecastOnly),
            ("apply", PredictMode::Apply),
        ];
        let mode =
            f.get("mode", cx, |x, cx| x.one_of(cx, &modes)).unwrap_or(PredictMode::ForecastOnly);
        let season = f.get("season", cx, Field::millis);
        f.close(cx);
        Some(Self { mode, season })
    }
}

impl Vertical {
    pub(super) fn read(field: &Field<'_>, cx: &mut Findings) -> Option<Self> {
        let mut f = Fields::open(field, cx);
        let modes = [
            ("off", VerticalMode::Off),
            ("recommend", VerticalMode::Recommend),
            ("apply", VerticalMode::Apply),
        ];
        let mode =
            f.get("mode", cx, |x, cx| x.one_of(cx, &modes)).unwrap_or(VerticalMode::Recommend);
        let memory = f.list("memory", cx, |field, cx| {
            let mut f = Fields::open(field, cx);
            let (min, max) = (f.get("min", cx, Field::bytes), f.get("max", cx, Field::bytes));
            f.close(cx);
            ordered(field, cx, min, max);
            VerticalMemory { min, max }
        });
        let cpus = f.list("cpus", cx, |field, cx| {
            let mut f = Fields::open(field, cx);
            let (min, max) = (f.get("min", cx, Field::cpus), f.get("max", cx, Field::cpus));
            f.close(cx);
            ordered(field, cx, min, max);
            VerticalCpus { min, max }
        });
        f.close(cx);
        Some(Self { mode, memory, cpus })
    }
}

fn ordered<T: PartialOrd>(field: &Field<'_>, cx: &mut Findings, min: Option<T>, max: Option<T>) {
    if let (Some(min), Some(max)) = (min, max)
        && min > max
    {
        field.error(cx, "`min` is above `max`", "exchange them");
    }
}
