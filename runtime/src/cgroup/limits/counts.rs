//! What is counted and not timed: processes, huge pages, RDMA handles, packets' class and
//! priority; and the files of version 2 that a configuration names itself.

use oci_spec::runtime::LinuxResources;

use super::super::Error;
use super::super::host::{Controller, Version};
use super::{Setting, or_max};

pub(super) fn settings(
    resources: &LinuxResources,
    version_of: impl Fn(Controller) -> Version,
) -> Result<Vec<Setting>, Error> {
    let mut all = Vec::new();
    if let Some(pids) = resources.pids() {
        let here = (Controller::Pids, version_of(Controller::Pids));
        // Both versions call it max. Zero is a limit since runtime-spec 1.3: no fork at all.
        let value = or_max(pids.limit(), Version::V2);
        all.push(Setting::new(here, "pids.limit", "pids.max", value));
    }
    all.extend(huge_pages(resources, version_of(Controller::Hugetlb))?);
    all.extend(rdma(resources, version_of(Controller::Rdma)));
    all.extend(network(resources));
    all.extend(unified(resources)?);
    Ok(all)
}

/// Pages in use, and pages reserved (Linux 5.7): without the second, a program that maps more than
/// its limit is killed by SIGBUS at first touch instead of being told at mmap(2).
fn huge_pages(resources: &LinuxResources, version: Version) -> Result<Vec<Setting>, Error> {
    let here = (Controller::Hugetlb, version);
    let end = if version == Version::V2 { "max" } else { "limit_in_bytes" };
    let mut all = Vec::new();
    for limit in resources.hugepage_limits().as_deref().unwrap_or_default() {
        let size = limit.page_size();
        if !is_page_size(size) {
            let why = format!("{size:?} is not a page size such as 2MB or 1GB");
            return Err(Error::invalid("linux.resources.hugepageLimits", why));
        }
        let value = or_max(limit.limit(), version);
        let put = |file| Setting::new(here, "hugepageLimits", file, value.clone());
        all.push(put(format!("hugetlb.{size}.{end}")));
        all.push(put(format!("hugetlb.{size}.rsvd.{end}")).fine_when_absent(true));
    }
    Ok(all)
}

/// A number without leading zero, then KB, MB or GB: the kernel names its files so.
fn is_page_size(text: &str) -> bool {
    let digits = ["KB", "MB", "GB"].iter().find_map(|unit| text.strip_suffix(unit));
    digits.is_some_and(|digits| {
        !digits.starts_with('0')
            && !digits.is_empty()
            && digits.bytes().all(|byte| byte.is_ascii_digit())
    })
}

fn rdma(resources: &LinuxResources, version: Version) -> Vec<Setting> {
    let mut devices: Vec<_> = resources.rdma().iter().flatten().collect();
    devices.sort_by_key(|(name, _)| *name);
    let mut all = Vec::new();
    for (device, limits) in devices {
        let mut value = device.clone();
        if let Some(handles) = limits.hca_handles() {
            value.push_str(&format!(" hca_handle={handles}"));
        }
        if let Some(objects) = limits.hca_objects() {
            value.push_str(&format!(" hca_object={objects}"));
        }
        if value != *device {
            all.push(Setting::new((Controller::Rdma, version), "rdma", "rdma.max", value));
        }
    }
    all
}

/// Version 2 has neither: nftables and tc match on the group itself there.
fn network(resources: &LinuxResources) -> Vec<Setting> {
    let mut all = Vec::new();
    let Some(network) = resources.network() else { return all };
    if let Some(class) = network.class_id().filter(|class| *class != 0) {
        let here = (Controller::NetCls, Version::V1);
        all.push(Setting::new(here, "network.classID", "net_cls.classid", class));
    }
    for interface in network.priorities().as_deref().unwrap_or_default() {
        let here = (Controller::NetPrio, Version::V1);
        let value = format!("{} {}", interface.name(), interface.priority());
        all.push(Setting::new(here, "network.priorities", "net_prio.ifpriomap", value));
    }
    all
}

/// Files of version 2 by name. The kernel takes one line at a time.
fn unified(resources: &LinuxResources) -> Result<Vec<Setting>, Error> {
    let mut files: Vec<_> = resources.unified().iter().flatten().collect();
    files.sort();
    let mut all = Vec::new();
    for (file, text) in files {
        let asked = format!("unified[{file:?}]");
        let refuse = |why: &str| Err(Error::invalid(format!("linux.resources.{asked}"), why));
        if file.contains('/') || file.is_empty() || file == "." || file == ".." {
            return refuse("it must be the name of a file in the container's own group");
        }
        let Some((prefix, _)) = file.split_once('.') else {
            return refuse("a file of cgroup v2 has its controller before the first dot");
        };
        let Some(controller) = Controller::V2.into_iter().find(|c| c.v2_name() == prefix) else {
            return refuse(
                "only the files of a controller can be set (cpu, cpuset, io, memory, hugetlb, \
                 pids, rdma, misc)",
            );
        };
        for line in text.lines() {
            let here = (controller, Version::V2);
            all.push(Setting::new(here, asked.clone(), file.clone(), line));
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::super::testing::writes;
    use super::*;

    #[test]
    fn no_process_is_a_limit_too() {
        for version in [Version::V1, Version::V2] {
            assert_eq!(writes(r#"{"pids":{"limit":0}}"#, version).unwrap(), ["pids.max=0"]);
            assert_eq!(writes(r#"{"pids":{"limit":-1}}"#, version).unwrap(), ["pids.max=max"]);
        }
    }

    #[test]
    fn page_sizes_are_spelled_as_the_kernel_names_its_files() {
        let json = r#"{"hugepageLimits":[{"pageSize":"1GB","limit":1073741824}]}"#;
        assert_eq!(
            writes(json, Version::V1).unwrap(),
            ["hugetlb.1GB.limit_in_bytes=1073741824", "hugetlb.1GB.rsvd.limit_in_bytes=1073741824"]
        );
        for bad in ["2", "MB", "02MB", "2mb", "2MiB", "../2MB", "-2MB"] {
            assert!(!is_page_size(bad), "{bad}");
        }
    }

    #[test]
    fn maps_come_out_in_order() {
        let json = r#"{"rdma":{"mlx5_1":{"hcaHandles":3,"hcaObjects":10000},
                               "mlx4_0":{"hcaObjects":5},"none":{}},
            "network":{"classID":1048577,"priorities":[{"name":"eth0","priority":5}]},
            "unified":{"memory.high":"900000","io.max":"8:0 rbps=1\n8:16 rbps=2"}}"#;
        assert_eq!(
            writes(json, Version::V2).unwrap(),
            [
                "rdma.max=mlx4_0 hca_object=5",
                "rdma.max=mlx5_1 hca_handle=3 hca_object=10000",
                "net_cls.classid=1048577",
                "net_prio.ifpriomap=eth0 5",
                "io.max=8:0 rbps=1",
                "io.max=8:16 rbps=2",
                "memory.high=900000"
            ]
        );
    }

    #[test]
    fn only_files_of_the_own_group_and_of_controllers_are_taken() {
        for name in ["../memory.max", "a/b", "", "memory", "cgroup.procs", "..", "x.y"] {
            let json = format!(r#"{{"unified":{{{name:?}:"1"}}}}"#);
            assert!(writes(&json, Version::V2).is_err(), "{name}");
        }
    }
}
