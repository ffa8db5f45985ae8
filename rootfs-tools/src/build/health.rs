//! HEALTHCHECK in the form of an image's configuration: durations in nanoseconds (Docker's image
//! specification 1.2, "Healthcheck").

use crate::error::{Error, Result};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The value of `Healthcheck`.
///
/// # Errors
/// When an option is not a duration, or not a number.
pub fn healthcheck(test: Value, options: &BTreeMap<String, String>) -> Result<Value> {
    let mut value = json!({ "Test": test });
    for (option, key) in [
        ("interval", "Interval"),
        ("timeout", "Timeout"),
        ("start-period", "StartPeriod"),
        ("start-interval", "StartInterval"),
    ] {
        if let Some(text) = options.get(option) {
            let duration = humantime::parse_duration(text)
                .map_err(|error| Error::Invalid(format!("--{option}={text}: {error}")))?;
            value[key] = json!(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
        }
    }
    if let Some(text) = options.get("retries") {
        let retries: u32 = text
            .parse()
            .map_err(|_| Error::Invalid(format!("--retries={text}: it is a number")))?;
        value["Retries"] = json!(retries);
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_nanoseconds() {
        let options =
            BTreeMap::from([("interval".into(), "1m30s".into()), ("retries".into(), "3".into())]);
        let value = healthcheck(json!(["NONE"]), &options).unwrap();
        assert_eq!(value, json!({"Test": ["NONE"], "Interval": 90_000_000_000_u64, "Retries": 3}));
        let wrong = BTreeMap::from([("timeout".into(), "soon".into())]);
        assert!(healthcheck(json!([]), &wrong).is_err());
    }
}
