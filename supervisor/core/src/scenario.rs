//! Small worlds for unit tests.

use crate::name::ServiceName;
use crate::restart::RestartPolicy;
use crate::spec::{Condition, Need, Order, Probes, Reserve, Service, Startup, StopPolicy, Timing};
use crate::time::Span;

/// A routed service with `replicas` and the usual probes.
pub(crate) fn service(replicas: u32) -> Service {
    Service {
        revision: "v1".into(),
        replicas,
        parallelism: 1,
        order: Order::StartFirst,
        restart: RestartPolicy::default(),
        probes: Probes { startup: Some(startup()), ready: None, live: Some(timing()) },
        stop: StopPolicy::default(),
        needs: Default::default(),
        reserve: Reserve::default(),
        routed: true,
    }
}

/// Startup probes from 250 ms to 1 s, for half a minute.
pub(crate) fn startup() -> Startup {
    Startup {
        first_interval: Span::from_ms(250),
        interval: Span::from_secs(1),
        timeout: Span::from_secs(1),
        within: Span::from_secs(30),
    }
}

/// A probe each second, three failures are unhealthy.
pub(crate) fn timing() -> Timing {
    Timing {
        interval: Span::from_secs(1),
        timeout: Span::from_secs(1),
        retries: 3,
        rise: 1,
        confirm_interval: Span::from_ms(200),
        confirm_timeout: Span::from_ms(500),
    }
}

/// The service with one more required dependency.
pub(crate) fn needs(mut service: Service, on: &str, condition: Condition) -> Service {
    service.needs.insert(ServiceName::from(on), Need { condition, required: true });
    service
}
