//! Metrics in the text format of Prometheus (exposition format 0.0.4).

use std::fmt::{Display, Write};

use super::views::StatsView;
use crate::brain::engine::Brain;
use crate::brain::traffic::TrafficView;
use crate::plane::protocol::Traffic;

/// The metrics of a project.
pub(super) fn text(brain: &mut Brain, traffic: Option<&TrafficView>) -> String {
    let stats = brain.stats();
    let mut out = String::new();
    services(brain, &mut out);
    instances(&stats, &mut out);
    if let Some(traffic) = traffic {
        requests(traffic, &mut out);
    }
    out
}

/// What the data plane has counted; the times as the quantiles of a summary, in seconds.
fn requests(traffic: &TrafficView, out: &mut String) {
    type Value = fn(&Traffic) -> f64;
    let families: [(&str, &str, &str, Value); 4] = [
        ("minisup_requests_total", "Answers.", "counter", |t| t.requests as f64),
        ("minisup_errors_total", "Answers with status 500 and above.", "counter", |t| {
            t.errors as f64
        }),
        ("minisup_lost_total", "Requests without an answer.", "counter", |t| t.lost as f64),
        ("minisup_in_flight", "Requests under way.", "gauge", |t| f64::from(t.in_flight)),
    ];
    for (name, help, kind, value) in families {
        head(out, name, help, kind);
        for (instance, counted) in &traffic.instances {
            line(out, name, &format!("instance=\"{instance}\""), value(counted));
        }
    }
    let name = "minisup_first_byte_seconds";
    head(out, name, "Time to the first byte of an answer.", "summary");
    for (service, view) in &traffic.services {
        for (quantile, us) in [("0.5", view.p50_us), ("0.95", view.p95_us), ("0.99", view.p99_us)] {
            if let Some(us) = us {
                let labels = format!("service=\"{service}\",quantile=\"{quantile}\"");
                line(out, name, &labels, us as f64 / 1e6);
            }
        }
    }
}

fn services(brain: &Brain, out: &mut String) {
    let state = &brain.state;
    let names: Vec<_> = state.project().services.keys().collect();
    let project = &brain.layout.project;
    let label = |name: &dyn Display| format!("project=\"{project}\",service=\"{name}\"");
    let mut family = |name: &str, help: &str, kind: &str, value: &dyn Fn(&_) -> f64| {
        head(out, name, help, kind);
        for service in &names {
            line(out, name, &label(service), value(service));
        }
    };
    family("minisup_replicas_wanted", "Replicas asked for.", "gauge", &|service| {
        f64::from(state.replicas(service))
    });
    family("minisup_replicas_ready", "Replicas that may have requests.", "gauge", &|service| {
        state.slots_of(service).filter(|slot| slot.is_ready()).count() as f64
    });
    family("minisup_slots_failed", "Slots given up.", "gauge", &|service| {
        state.slots_of(service).filter(|slot| slot.is_failed()).count() as f64
    });
    family("minisup_launches_total", "Containers launched.", "counter", &|service| {
        state
            .slots_of(service)
            .map(|slot| state.next_instance(&slot.id).serial.saturating_sub(1))
            .sum::<u64>() as f64
    });
    head(out, "minisup_routes_generation", "Changes of routes.", "counter");
    line(
        out,
        "minisup_routes_generation",
        &format!("project=\"{project}\""),
        state.generation() as f64,
    );
}

fn instances(stats: &[StatsView], out: &mut String) {
    type Value = fn(&StatsView) -> Option<f64>;
    let families: [(&str, &str, &str, Value); 8] = [
        ("minisup_cpu_seconds_total", "CPU time.", "counter", |s| {
            Some(s.latest.cpu_us as f64 / 1e6)
        }),
        ("minisup_memory_bytes", "Memory without inactive file cache.", "gauge", |s| {
            Some(s.latest.memory_bytes as f64)
        }),
        ("minisup_memory_limit_bytes", "The memory limit.", "gauge", |s| {
            s.latest.limit_bytes.map(|bytes| bytes as f64)
        }),
        ("minisup_processes", "Processes and threads.", "gauge", |s| Some(s.latest.pids as f64)),
        ("minisup_read_bytes_total", "Read from block devices.", "counter", |s| {
            Some(s.latest.read_bytes as f64)
        }),
        ("minisup_written_bytes_total", "Written to block devices.", "counter", |s| {
            Some(s.latest.written_bytes as f64)
        }),
        ("minisup_memory_pressure_percent", "PSI memory, some avg10.", "gauge", |s| {
            s.latest.pressure.map(|pressure| pressure.memory)
        }),
        ("minisup_cpu_pressure_percent", "PSI cpu, some avg10.", "gauge", |s| {
            s.latest.pressure.map(|pressure| pressure.cpu)
        }),
    ];
    for (name, help, kind, value) in families {
        head(out, name, help, kind);
        for one in stats {
            if let Some(value) = value(one) {
                line(out, name, &format!("instance=\"{}\"", one.instance), value);
            }
        }
    }
}

fn head(out: &mut String, name: &str, help: &str, kind: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn line(out: &mut String, name: &str, labels: &str, value: f64) {
    let _ = writeln!(out, "{name}{{{labels}}} {value}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::brain::meter::Sample;

    #[test]
    fn a_metric_is_told_for_each_instance_that_has_it() {
        let view = |instance: &str, limit_bytes| StatsView {
            instance: instance.to_string(),
            cpu_percent: None,
            latest: Sample { cpu_us: 1_500_000, limit_bytes, ..Sample::default() },
        };
        let mut out = String::new();
        instances(&[view("web.1.1", Some(4096)), view("web.2.1", None)], &mut out);
        assert!(out.contains("# TYPE minisup_cpu_seconds_total counter\n"), "{out}");
        assert!(out.contains("minisup_cpu_seconds_total{instance=\"web.2.1\"} 1.5\n"), "{out}");
        assert!(out.contains("minisup_memory_limit_bytes{instance=\"web.1.1\"} 4096\n"), "{out}");
        assert!(!out.contains("minisup_memory_limit_bytes{instance=\"web.2.1\"}"), "{out}");
    }
}
