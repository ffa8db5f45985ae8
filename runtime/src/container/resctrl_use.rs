//! What a container uses of the processor's cache and memory bandwidth, from the files of its group
//! in the resctrl file system.
//!
//! The names are those of runc's `events`. What the processor or the kernel does not know is left
//! out; a domain whose counter cannot be read at this moment (`Unavailable`) keeps its place in the
//! list, without the figure.
//!
//! See: the kernel's documentation of resctrl, "Info directory" and "mon_data".

use std::path::Path;

use serde::Serialize;

/// What the files say.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Statistics {
    #[serde(skip_serializing_if = "Option::is_none")]
    l3_cache_info: Option<CacheInfo>,
    #[serde(skip_serializing_if = "String::is_empty")]
    l3_cache_schema_root: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    l3_cache_schema: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    mem_bw_info: Option<BandwidthInfo>,
    #[serde(skip_serializing_if = "String::is_empty")]
    mem_bw_schema_root: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    mem_bw_schema: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    schemata: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    mbm_stats: Vec<BandwidthUse>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cmt_stats: Vec<CacheUse>,
}

/// How the cache can be divided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct CacheInfo {
    /// A mask in hexadecimal digits, one bit for each part.
    cbm_mask: String,
    min_cbm_bits: u64,
    num_closids: u64,
}

/// How the bandwidth can be divided, in percent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct BandwidthInfo {
    bandwidth_gran: u64,
    delay_linear: u64,
    min_bandwidth: u64,
    num_closids: u64,
}

/// What has passed between memory and one cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct BandwidthUse {
    #[serde(skip_serializing_if = "Option::is_none")]
    mbm_total_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mbm_local_bytes: Option<u64>,
}

/// What is in one cache now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct CacheUse {
    /// In bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    llc_occupancy: Option<u64>,
}

impl Statistics {
    /// Reads the files of the group `group`, and the counters of `monitor`, which is that group or
    /// one below it.
    pub(crate) fn of(group: &Path, monitor: &Path) -> Self {
        // Only the root has it.
        let is_root = group.join("info").is_dir();
        let root = if is_root { group } else { group.parent().unwrap_or(group) };
        let (of_root, own) = (schemata(root), schemata(group));
        let domains = domains(&monitor.join("mon_data"));
        let has = |file: &str| domains.iter().any(|domain| domain.join(file).exists());
        let (mut mbm_stats, mut cmt_stats) = (Vec::new(), Vec::new());
        for domain in &domains {
            let counter = |file: &str| text(&domain.join(file))?.parse().ok();
            if has("mbm_total_bytes") || has("mbm_local_bytes") {
                mbm_stats.push(BandwidthUse {
                    mbm_total_bytes: counter("mbm_total_bytes"),
                    mbm_local_bytes: counter("mbm_local_bytes"),
                });
            }
            if has("llc_occupancy") {
                cmt_stats.push(CacheUse { llc_occupancy: counter("llc_occupancy") });
            }
        }
        Self {
            l3_cache_info: CacheInfo::read(&root.join("info/L3")),
            l3_cache_schema_root: of_kind(&of_root, "L3"),
            l3_cache_schema: of_kind(&own, "L3"),
            mem_bw_info: BandwidthInfo::read(&root.join("info/MB")),
            mem_bw_schema_root: of_kind(&of_root, "MB"),
            mem_bw_schema: of_kind(&own, "MB"),
            schemata: own,
            mbm_stats,
            cmt_stats,
        }
    }
}

impl CacheInfo {
    fn read(info: &Path) -> Option<Self> {
        let number = |file: &str| text(&info.join(file))?.parse().ok();
        Some(Self {
            cbm_mask: text(&info.join("cbm_mask"))?,
            min_cbm_bits: number("min_cbm_bits")?,
            num_closids: number("num_closids")?,
        })
    }
}

impl BandwidthInfo {
    fn read(info: &Path) -> Option<Self> {
        let number = |file: &str| text(&info.join(file))?.parse().ok();
        Some(Self {
            bandwidth_gran: number("bandwidth_gran")?,
            // Only some vendors' processors have it.
            delay_linear: number("delay_linear").unwrap_or(0),
            min_bandwidth: number("min_bandwidth")?,
            num_closids: number("num_closids")?,
        })
    }
}

fn text(file: &Path) -> Option<String> {
    std::fs::read_to_string(file).ok().map(|text| text.trim().to_owned())
}

fn schemata(group: &Path) -> Vec<String> {
    let text = text(&group.join("schemata")).unwrap_or_default();
    text.lines().map(|line| line.trim().to_owned()).collect()
}

/// The line about a resource; with code and data apart (`L3CODE`, `L3DATA`) there are two.
fn of_kind(lines: &[String], resource: &str) -> String {
    let lines = lines.iter().filter(|line| line.starts_with(resource));
    lines.map(String::as_str).collect::<Vec<_>>().join("\n")
}

/// The directories of the caches, in order.
fn domains(data: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(data).into_iter().flatten().flatten();
    let mut domains: Vec<_> = entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("mon_L3_"))
        .map(|entry| entry.path())
        .collect();
    domains.sort();
    domains
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn put(root: &Path, files: &[(&str, &str)]) {
        for (name, text) in files {
            let file = root.join(name);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        }
    }

    #[test]
    fn everything_that_there_is_is_told_by_runcs_names() {
        let root = tempfile::tempdir().unwrap();
        put(
            root.path(),
            &[
                ("schemata", "    MB:0=100;1=100\n    L3:0=fffff;1=fffff\n"),
                ("info/L3/cbm_mask", "fffff\n"),
                ("info/L3/min_cbm_bits", "1\n"),
                ("info/L3/num_closids", "16\n"),
                ("info/MB/bandwidth_gran", "10\n"),
                ("info/MB/delay_linear", "1\n"),
                ("info/MB/min_bandwidth", "10\n"),
                ("info/MB/num_closids", "8\n"),
                ("web/schemata", "    MB:0= 50;1= 50\n    L3:0=f;1=f\n"),
                ("web/mon_data/mon_L3_00/llc_occupancy", "65536\n"),
                ("web/mon_groups/web/mon_data/mon_L3_01/llc_occupancy", "Unavailable\n"),
                ("web/mon_groups/web/mon_data/mon_L3_00/llc_occupancy", "4096\n"),
                ("web/mon_groups/web/mon_data/mon_L3_00/mbm_total_bytes", "7\n"),
                ("web/mon_groups/web/mon_data/mon_L3_00/mbm_local_bytes", "5\n"),
                ("web/mon_groups/web/mon_data/mon_L3_01/mbm_total_bytes", "3\n"),
            ],
        );
        let group = root.path().join("web");
        let told = Statistics::of(&group, &group.join("mon_groups/web"));
        let expected = json!({
            "l3_cache_info": {"cbm_mask": "fffff", "min_cbm_bits": 1, "num_closids": 16},
            "l3_cache_schema_root": "L3:0=fffff;1=fffff",
            "l3_cache_schema": "L3:0=f;1=f",
            "mem_bw_info":
                {"bandwidth_gran": 10, "delay_linear": 1, "min_bandwidth": 10, "num_closids": 8},
            "mem_bw_schema_root": "MB:0=100;1=100",
            "mem_bw_schema": "MB:0= 50;1= 50",
            "schemata": ["MB:0= 50;1= 50", "L3:0=f;1=f"],
            "mbm_stats": [{"mbm_total_bytes": 7, "mbm_local_bytes": 5}, {"mbm_total_bytes": 3}],
            "cmt_stats": [{"llc_occupancy": 4096}, {}],
        });
        assert_eq!(serde_json::to_value(&told).unwrap(), expected);
        let unmonitored = Statistics::of(&group, &group);
        assert_eq!(unmonitored.cmt_stats, [CacheUse { llc_occupancy: Some(65536) }]);
    }

    #[test]
    fn the_root_group_is_its_own_root() {
        let root = tempfile::tempdir().unwrap();
        put(root.path(), &[("schemata", "L3CODE:0=f\nL3DATA:0=3\n"), ("info/L3/cbm_mask", "f\n")]);
        let told = serde_json::to_value(Statistics::of(root.path(), root.path())).unwrap();
        // Without its other files, the directory about the cache says nothing.
        let lines = "L3CODE:0=f\nL3DATA:0=3";
        assert_eq!(
            told,
            json!({"l3_cache_schema_root": lines, "l3_cache_schema": lines,
                "schemata": ["L3CODE:0=f", "L3DATA:0=3"]})
        );
    }

    #[test]
    fn nothing_is_told_where_there_is_nothing() {
        let told = Statistics::of(Path::new("/nowhere/web"), Path::new("/nowhere/web"));
        assert_eq!(serde_json::to_value(told).unwrap(), json!({}));
    }
}
