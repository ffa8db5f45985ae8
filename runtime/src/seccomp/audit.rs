//! What the kernel writes down about a call that a filter has killed for.
//!
//! `audit: type=1326 audit(1.2:3): … pid=42 comm="x" exe="/x" sig=31 arch=c000003e syscall=83 …`
//!
//! See: include/uapi/linux/audit.h (`AUDIT_SECCOMP`), audit(8).

use super::{Architecture, syscalls};

/// The name (or number) of the call in `record`, if that is about process `pid`.
pub fn killed_for(record: &str, pid: i32) -> Option<String> {
    if !record.contains("type=1326 ") {
        return None;
    }
    let field = |name: &str| {
        record.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    };
    if field("pid")?.parse() != Ok(pid) {
        return None;
    }
    let number: u32 = field("syscall")?.parse().ok()?;
    let audit = u32::from_str_radix(field("arch")?, 16).ok()?;
    let family = Architecture::NATIVE.family().iter();
    // x32 has the number of x86_64, and is told from it by a bit of the call's.
    let mut named = family.filter(|architecture| architecture.audit() == audit);
    let name = named.find_map(|architecture| syscalls::name_of(*architecture, number));
    Some(name.map_or_else(|| format!("number {number}"), str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn the_call_is_found_in_the_record_of_its_process() {
        let record = "5,1,2,-;audit: type=1326 audit(1.2:3): auid=4294967295 uid=0 gid=0 ses=1 \
                      pid=42 comm=\"mkdir\" exe=\"/bin/busybox\" sig=31 arch=c000003e syscall=83 \
                      compat=0 ip=0x1 code=0x80000000";
        assert_eq!(killed_for(record, 42).as_deref(), Some("mkdir"));
        assert_eq!(killed_for(record, 43), None);
        assert_eq!(killed_for(&record.replace("1326", "1300"), 42), None);
        let unknown = record.replace("syscall=83", "syscall=9999");
        assert_eq!(killed_for(&unknown, 42).as_deref(), Some("number 9999"));
        let old = record.replace("c000003e", "40000003").replace("syscall=83", "syscall=39");
        assert_eq!(killed_for(&old, 42).as_deref(), Some("mkdir"));
    }
}
