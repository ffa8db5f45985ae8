//! The checked-in syscall table is what the kernel's headers say, as the `syscalls` crate has them.
//!
//! The crate is generated from the kernel's own tables and follows each release, but it weighs a
//! match arm per name and architecture and has no x32. So it stays out of the binary, and this test
//! derives the table from it. After an update of the crate, write the table anew with
//! `MINIRUN_WRITE_TABLE=1 cargo test -p minirun --test seccomp_syscall_table`.

use std::collections::BTreeMap;
use std::path::Path;

/// Numbers of one name, in the order of the table's columns.
type Numbers = [Option<u32>; 5];

const X86_64: usize = 0;
const X32: usize = 1;
const X86: usize = 2;
const AARCH64: usize = 3;
const ARM: usize = 4;

/// What x32 has under a number of its own (512..=547), in that order: the calls whose structures
/// hold pointers or longs. From arch/x86/entry/syscalls/syscall_64.tbl, whose range is closed.
const X32_OWN: [&str; 36] = [
    "rt_sigaction",
    "rt_sigreturn",
    "ioctl",
    "readv",
    "writev",
    "recvfrom",
    "sendmsg",
    "recvmsg",
    "execve",
    "ptrace",
    "rt_sigpending",
    "rt_sigtimedwait",
    "rt_sigqueueinfo",
    "sigaltstack",
    "timer_create",
    "mq_notify",
    "kexec_load",
    "waitid",
    "set_robust_list",
    "get_robust_list",
    "vmsplice",
    "move_pages",
    "preadv",
    "pwritev",
    "rt_tgsigqueueinfo",
    "recvmmsg",
    "sendmmsg",
    "process_vm_readv",
    "process_vm_writev",
    "setsockopt",
    "getsockopt",
    "io_setup",
    "io_submit",
    "execveat",
    "preadv2",
    "pwritev2",
];

/// What x86_64 has and x32 has not, marked `64` in the same table.
const X86_64_ONLY: [&str; 12] = [
    "_sysctl",
    "create_module",
    "epoll_ctl_old",
    "epoll_wait_old",
    "get_kernel_syms",
    "get_thread_area",
    "map_shadow_stack",
    "nfsservctl",
    "query_module",
    "set_thread_area",
    "uselib",
    "vserver",
];

/// The private calls of 32-bit ARM, arch/arm/include/uapi/asm/unistd.h.
const ARM_PRIVATE: [&str; 6] = ["breakpoint", "cacheflush", "usr26", "usr32", "set_tls", "get_tls"];

/// Every call of one table of the crate, whose own iterator stops before the last one.
macro_rules! table {
    ($architecture:ident) => {{
        use syscalls::$architecture::Sysno;
        Sysno::iter()
            .filter(|call| *call != Sysno::last())
            .chain([Sysno::last()])
            .map(|call| (call.name().trim_start_matches("r#"), call.id().unsigned_abs()))
    }};
}

/// Puts right where the crate's aarch64 table differs from the kernel's: the `*_time64` calls are
/// for 32-bit architectures only, and number 79 is called newfstatat where a long has 64 bits
/// (include/uapi/asm-generic/unistd.h, `__BITS_PER_LONG` and `__NR3264_fstatat`).
fn on_aarch64((name, number): (&'static str, u32)) -> Option<(&'static str, u32)> {
    match (name, number) {
        (_, 403..=423) => None,
        ("fstatat", _) => Some(("newfstatat", number)),
        _ => Some((name, number)),
    }
}

fn expected() -> String {
    let mut names: BTreeMap<&'static str, Numbers> = BTreeMap::new();
    let mut put = |column: usize, (name, number): (&'static str, u32)| {
        names.entry(name).or_default()[column] = Some(number);
    };
    table!(x86_64).for_each(|call| put(X86_64, call));
    table!(x86_64)
        .filter(|(name, _)| !X86_64_ONLY.contains(name) && !X32_OWN.contains(name))
        .chain(X32_OWN.into_iter().zip(512..))
        .for_each(|call| put(X32, call));
    table!(x86).for_each(|call| put(X86, call));
    table!(aarch64).filter_map(on_aarch64).for_each(|call| put(AARCH64, call));
    table!(arm).chain(ARM_PRIVATE.into_iter().zip(0xf_0001..)).for_each(|call| put(ARM, call));
    let mut text = String::from("# name x86_64 x32 x86 aarch64 arm\n");
    for (name, numbers) in names {
        text.push_str(name);
        for number in numbers {
            text.push(' ');
            text.push_str(&number.map_or_else(|| "-".into(), |number: u32| number.to_string()));
        }
        text.push('\n');
    }
    text
}

#[test]
fn the_table_says_what_the_kernel_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/seccomp/syscalls.tbl");
    let expected = expected();
    if std::env::var_os("MINIRUN_WRITE_TABLE").is_some() {
        std::fs::write(&path, &expected).unwrap();
    }
    let actual = std::fs::read_to_string(&path).unwrap();
    for (line, (expected, actual)) in expected.lines().zip(actual.lines()).enumerate() {
        assert_eq!(expected, actual, "line {} of {}", line + 1, path.display());
    }
    assert_eq!(expected.lines().count(), actual.lines().count());
}
