//! The JSON schema for editors, generated from the types and held against the loader.
//!
//! `UPDATE_SCHEMA=1 cargo test -p minisup-compose schema` writes it anew.

use serde_json::{Map, Value, json};

use super::{ProjectExtension, ServiceExtension};
use crate::{Loader, Tree};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/compose.schema.json");
const COMPOSE: &str =
    "https://raw.githubusercontent.com/compose-spec/compose-spec/main/schema/compose-spec.json";

/// Keys that must be there. The tests below show that the loader says the same.
const REQUIRED: [(&str, &[&str]); 10] = [
    ("HttpProbe", &["port"]),
    ("TcpProbe", &["port"]),
    ("GrpcProbe", &["port"]),
    ("UnixProbe", &["path"]),
    ("Autoscale", &["min", "max"]),
    ("Schedule", &["cron", "min"]),
    ("Policy", &["period"]),
    ("CustomMetric", &["port", "path", "pointer", "target"]),
    ("Canary", &["percent"]),
    ("Tls", &["certificate", "key"]),
];

fn generated() -> Value {
    let settings = schemars::generate::SchemaSettings::draft07();
    let mut generator = settings.into_generator();
    let service = serde_json::to_value(generator.subschema_for::<ServiceExtension>()).unwrap();
    let project = serde_json::to_value(generator.subschema_for::<ProjectExtension>()).unwrap();
    let mut definitions = generator.take_definitions(false);
    for (name, definition) in &mut definitions {
        tidy(name, definition);
    }
    json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Compose file for minisup",
        "description": "The Compose Specification and `x-minisup`. Generated; do not edit.",
        "allOf": [{"$ref": COMPOSE}],
        "properties": {
            "x-minisup": project,
            "services": {"additionalProperties": {"properties": {"x-minisup": service}}},
        },
        "definitions": definitions,
    })
}

/// Brings a definition to what the loader takes: no other keys, numbers also as variables.
fn tidy(name: &str, schema: &mut Value) {
    let Some(object) = schema.as_object_mut() else { return };
    object.remove("required");
    let required = REQUIRED.iter().find(|(of, _)| *of == name);
    if let Some((_, keys)) = required {
        object.insert("required".into(), json!(keys));
    }
    if object.contains_key("properties") {
        hoist_choice(object);
        object.insert("additionalProperties".into(), json!(false));
    }
    variables(schema);
}

/// A choice of keys beside others (`Probe`): draft 7 forbids other keys only where it sees all.
fn hoist_choice(object: &mut Map<String, Value>) {
    let Some(Value::Array(mut branches)) = object.remove("oneOf") else { return };
    for branch in &mut branches {
        let choice = branch["properties"].as_object().unwrap().clone();
        let keys: Vec<String> = choice.keys().cloned().collect();
        let properties = object["properties"].as_object_mut().unwrap();
        for (key, mut value) in choice {
            if let (Some(text), Some(value)) = (branch.get("description"), value.as_object_mut()) {
                value.insert("description".into(), text.clone());
            }
            properties.insert(key, value);
        }
        *branch = json!({"required": keys});
    }
    object.insert("oneOf".into(), Value::Array(branches));
}

/// Where a number or a boolean is, `${NAME}` may be.
fn variables(schema: &mut Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(variables),
        Value::Object(object) => {
            let kinds: Vec<String> = match object.get("type") {
                Some(Value::String(kind)) => vec![kind.clone()],
                Some(Value::Array(kinds)) => {
                    kinds.iter().map(|k| k.as_str().unwrap().to_owned()).collect()
                }
                _ => Vec::new(),
            };
            let number = kinds.iter().any(|kind| kind == "integer" || kind == "boolean");
            if number && !object.contains_key("pattern") {
                let kinds: Vec<_> =
                    kinds.into_iter().filter(|k| k != "null").chain(["string".into()]).collect();
                object.insert("type".into(), json!(kinds));
                object.insert("pattern".into(), json!(r"\$|^[0-9]+$|^(true|false)$"));
                object.remove("format");
            }
            object.values_mut().for_each(variables);
        }
        _ => {}
    }
}

#[test]
fn the_schema_for_editors_is_that_of_the_types() {
    let text = serde_json::to_string_pretty(&generated()).unwrap() + "\n";
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        std::fs::write(FILE, &text).unwrap();
    }
    let file = std::fs::read_to_string(FILE).unwrap_or_default();
    assert!(file == text, "docs/reference/compose.schema.json is old: run with UPDATE_SCHEMA=1");
}

/// Whether the schema takes an `x-minisup` of a service. The published schema is not fetched.
fn schema_takes(extension: &Value) -> bool {
    let mut schema = generated();
    schema.as_object_mut().unwrap().remove("allOf");
    let document = json!({"services": {"a": {"image": "i", "x-minisup": extension}}});
    let (mut schemas, mut compiler) = (boon::Schemas::new(), boon::Compiler::new());
    compiler.add_resource("compose.json", schema).unwrap();
    let compiled = compiler.compile("compose.json", &mut schemas).unwrap();
    schemas.validate(&document, compiled).is_ok()
}

fn load(extension: &Value) -> Result<(crate::Project, Vec<crate::Warning>), crate::Errors> {
    let text = json!({"services": {"a": {"image": "i", "x-minisup": extension}}}).to_string();
    Loader::new(&Tree::new().with("/p/compose.yaml", text), ["/p/compose.yaml"]).load()
}

/// Every key of `x-minisup` of a service.
fn full() -> Value {
    json!({
        "probes": {
            "startup": {"exec": ["/bin/true"], "failures": 60},
            "ready": {
                "http": {"port": 3000, "path": "/health", "host": "x"},
                "interval": "500ms", "timeout": "200ms", "successes": 2,
            },
            "live": {"grpc": {"port": 50051, "service": "s"}},
        },
        "lb": {
            "algorithm": "least-connections", "protocol": "tcp", "retries": 1,
            "retry_budget": "10%",
            "retry_unsafe": true, "slow_start": "5s", "max_inflight": 200,
            "queue": {"size": 10, "timeout": "3s"}, "drain": "20s",
            "outlier": {"consecutive": 3, "base": "1s", "max_percent": "30%"},
            "panic_threshold": "40%", "connect_timeout": "250ms", "response_timeout": "30s",
            "idle_timeout": "5m", "proxy_protocol": "v2", "accept_proxy": true, "access_log": true,
            "tls": {"certificate": "/c.pem", "key": "/k.pem"},
        },
        "autoscale": {
            "min": 2, "max": 12, "up_window": "1s", "down_window": "30s", "tolerance": "5%",
            "metrics": [
                {"cpu": "60%"}, {"memory": "80%"}, {"net": "10m"}, {"rps": 200}, {"inflight": 50},
                {"latency_p50": "20ms"}, {"latency_p95": "150ms"}, {"latency_p99": "300ms"},
                {"psi_cpu": "20%"}, {"psi_memory": "5%"}, {"psi_io": "10%"},
                {"custom": {"port": 9000, "path": "/m", "pointer": "/queue", "target": 10}},
            ],
            "policies": {
                "up": [{"replicas": 4, "period": "15s"}],
                "down": [{"percent": "50%", "period": "1m"}],
            },
            "schedules": [{"cron": "0 9 * * 1-5", "timezone": "Asia/Seoul", "min": 6, "max": 10}],
            "predict": {"mode": "apply", "season": "1d"},
        },
        "vertical": {
            "mode": "apply",
            "memory": {"min": "128m", "max": "1g"},
            "cpus": {"min": "0.1", "max": "2"},
        },
        "leak": {"mode": "report", "horizon": "5m"},
        "slo": {
            "availability": "99.99%",
            "latency_p50": "50ms", "latency_p95": "200ms", "latency_p99": "1s",
        },
        "spare": 1,
        "backoff": {"base": "50ms", "max": "10s", "reset": "1m"},
        "release": {
            "deadline": "5m", "min_ready": "2s", "revisions": 5,
            "canary": {"percent": "10%", "hold": "2m"},
            "guard": {"error_rate": "1%", "latency_p95": "100ms"},
        },
        "secrets": {"reload": "signal", "signal": "SIGUSR1"},
        "follow_dependencies": true,
    })
}

#[test]
fn schema_and_loader_take_every_key_and_print_it_again() {
    let full = full();
    assert!(schema_takes(&full));
    let (project, warnings) = load(&full).unwrap_or_else(|errors| panic!("{errors}"));
    assert!(warnings.is_empty());
    let printed = project.to_value()["services"]["a"]["x-minisup"].clone();
    assert!(schema_takes(&printed));
    // Every key of the sample comes back with its value, and everything printed is in the types.
    assert_contains(&printed, &full, "x-minisup");
    for (key, other) in [("tcp", json!({"port": 1})), ("unix", json!({"path": "/s"}))] {
        let probe = json!({"probes": {"ready": {key: other}}});
        assert!(schema_takes(&probe) && load(&probe).is_ok(), "{probe}");
    }
}

fn assert_contains(all: &Value, part: &Value, path: &str) {
    match (all, part) {
        (Value::Object(all), Value::Object(part)) => {
            for (key, value) in part {
                let found = all.get(key).unwrap_or_else(|| panic!("{path}.{key} is not printed"));
                assert_contains(found, value, &format!("{path}.{key}"));
            }
        }
        (Value::Array(all), Value::Array(part)) => {
            assert_eq!(all.len(), part.len(), "{path}");
            all.iter().zip(part).for_each(|(a, b)| assert_contains(a, b, path));
        }
        _ => assert_eq!(all, part, "{path}"),
    }
}

#[test]
fn the_sample_has_every_key_of_the_schema() {
    let schema = generated();
    let text = full().to_string();
    for (name, definition) in schema["definitions"].as_object().unwrap() {
        for key in definition["properties"].as_object().into_iter().flatten().map(|(key, _)| key) {
            let other =
                ["reserve", "retention", "age", "size", "tcp", "unix"].contains(&key.as_str());
            assert!(other || text.contains(&format!("\"{key}\":")), "{name}.{key} is in no test");
        }
    }
}

#[test]
fn schema_and_loader_refuse_the_same() {
    let bad = [
        json!({"prob": {}}),
        json!({"probes": {"alive": {}}}),
        json!({"probes": {"ready": {}}}),
        json!({"probes": {"ready": {"tcp": {"port": 1}, "http": {"port": 1}}}}),
        json!({"probes": {"ready": {"tcp": {}}}}),
        json!({"probes": {"ready": {"http": {"path": "/"}}}}),
        json!({"probes": {"ready": {"grpc": {"service": "x"}}}}),
        json!({"probes": {"ready": {"unix": {}}}}),
        json!({"probes": {"ready": {"tcp": {"port": 1}, "retries": 3}}}),
        json!({"probes": {"ready": {"tcp": {"port": 1}, "interval": "1"}}}),
        json!({"lb": {"algorithm": "random"}}),
        json!({"lb": {"retry_budget": "20"}}),
        json!({"lb": {"tls": {"certificate": "/c"}}}),
        json!({"lb": {"tls": {"key": "/c"}}}),
        json!({"lb": {"retries": "many"}}),
        json!({"autoscale": {"min": 1, "metrics": []}}),
        json!({"autoscale": {"max": 1, "metrics": []}}),
        json!({"autoscale": {"min": 1, "max": 2, "metrics": [{"cpus": "1%"}]}}),
        json!({"autoscale": {"min": 1, "max": 2, "metrics": [{"cpu": "1%", "rps": 1}]}}),
        json!({"autoscale": {"min": 1, "max": 2, "schedules": [{"min": 1}]}}),
        json!({"autoscale": {"min": 1, "max": 2, "schedules": [{"cron": "* * * * *"}]}}),
        json!({"autoscale": {"min": 1, "max": 2, "metrics": [{"custom": {"port": 1}}]}}),
        json!({"autoscale": {
            "min": 1, "max": 2, "metrics": [{"rps": 1}], "policies": {"up": [{"replicas": 1}]},
        }}),
        json!({"vertical": {"mode": "auto"}}),
        json!({"leak": {"mode": "kill"}}),
        json!({"slo": {"availability": 99.9}}),
        json!({"release": {"canary": {"hold": "1m"}}}),
        json!({"secrets": {"reload": "always"}}),
        json!({"follow_dependencies": "maybe"}),
    ];
    for extension in bad {
        assert!(load(&extension).is_err(), "the loader takes {extension}");
        assert!(!schema_takes(&extension), "the schema takes {extension}");
    }
    // Only the loader can tell.
    for extension in [
        json!({"autoscale": {"min": 3, "max": 2, "metrics": [{"rps": 1}]}}),
        json!({"autoscale": {"min": 1, "max": 2}}),
        json!({"backoff": {"base": "2m", "max": "1m"}}),
        json!({"slo": {"availability": "101%"}}),
        json!({"vertical": {"memory": {"min": "2g", "max": "1g"}}}),
    ] {
        assert!(load(&extension).is_err(), "{extension}");
    }
}

#[test]
fn project_keys_are_read() {
    let text = json!({"services": {"a": {"image": "i"}}, "x-minisup": {
        "reserve": {"cpus": "0.5", "memory": "256m"}, "retention": {"age": "7d", "size": "64m"}}});
    let files = Tree::new().with("/p/compose.yaml", text.to_string());
    let (project, _) = Loader::new(&files, ["/p/compose.yaml"]).load().unwrap();
    assert_eq!(project.to_value()["x-minisup"], text["x-minisup"]);
}

#[test]
fn the_reference_names_every_key_of_the_extension() {
    let schema = generated();
    let definitions = schema["definitions"].as_object().unwrap();
    let text = |value: &Value| value["description"].as_str().unwrap_or("").replace('\n', " ");
    let mut page = String::new();
    for (name, definition) in definitions {
        let mut rows: Vec<(String, String)> = Vec::new();
        for (key, value) in definition["properties"].as_object().into_iter().flatten() {
            rows.push((key.clone(), text(value)));
        }
        for choice in definition["oneOf"].as_array().into_iter().flatten() {
            let word = choice["const"].as_str().map(str::to_owned);
            let key = choice["properties"].as_object().and_then(|map| map.keys().next().cloned());
            rows.extend(word.or(key).map(|word| (word, text(choice))));
        }
        if rows.is_empty() {
            continue;
        }
        page.push_str(&format!("\n### {name}\n\n{}\n\n", text(definition)));
        page.push_str("| key or value | meaning |\n|---|---|\n");
        for (key, meaning) in rows {
            page.push_str(&format!("| `{key}` | {meaning} |\n"));
        }
    }
    page.push('\n');
    crate::reference::assert_part("x-minisup", &page);
}
