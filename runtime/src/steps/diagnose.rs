//! Why a program does not start: `ENOENT` for a file that exists has puzzled generations.
//!
//! The kernel says "no such file or directory" when the *interpreter* is missing, and "exec format
//! error" for a program of another machine. So after a failed execve we look into the file.

use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use linux::Errno;

/// How much of a file is looked at: ELF headers and a `#!` line fit.
const HEAD: u64 = 4096;

/// One sentence about why `program` did not start, when there is more to say than the errno.
pub(crate) fn why(program: &Path, errno: Errno) -> Option<String> {
    if !matches!(errno, Errno::ENOENT | Errno::ENOEXEC | Errno::EACCES) {
        return None;
    }
    let head = head_of(program, HEAD)?;
    explain(&head, |path| Path::new(path).exists())
}

/// The first bytes of an ordinary file, `None` for anything else: an image can put a pipe where a
/// file is expected, and whoever opens that waits for ever.
pub(super) fn head_of(file: &Path, limit: u64) -> Option<Vec<u8>> {
    let ordinary = |metadata: std::io::Result<Metadata>| metadata.is_ok_and(|m| m.is_file());
    if !ordinary(std::fs::metadata(file)) {
        return None;
    }
    let mut options = File::options();
    // It may have become a pipe since.
    let opened =
        options.read(true).custom_flags(linux::OFlag::O_NONBLOCK.bits()).open(file).ok()?;
    if !ordinary(opened.metadata()) {
        return None;
    }
    let mut head = Vec::new();
    opened.take(limit).read_to_end(&mut head).ok()?;
    Some(head)
}

/// The same, from the head of the file and a way to ask whether a path exists.
fn explain(head: &[u8], exists: impl Fn(&str) -> bool) -> Option<String> {
    if let Some(line) = head.strip_prefix(b"#!") {
        return script(line, exists);
    }
    if !head.starts_with(b"\x7fELF") {
        return Some("the file is neither a program (ELF) nor a script with a #! line".into());
    }
    let machine = u16_at(head, 18)?;
    if machine != native_machine() {
        return Some(format!(
            "the program is for {}, this machine is {}",
            machine_name(machine),
            std::env::consts::ARCH
        ));
    }
    let interpreter = elf_interpreter(head)?;
    (!exists(&interpreter)).then(|| {
        format!(
            "the program is dynamically linked and its loader {interpreter} is not in the image"
        )
    })
}

fn script(line: &[u8], exists: impl Fn(&str) -> bool) -> Option<String> {
    let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    if line.ends_with('\r') {
        return Some(
            "the script's first line ends in a carriage return (CRLF): convert it with dos2unix"
                .into(),
        );
    }
    let interpreter = line.split_whitespace().next()?;
    (!exists(interpreter))
        .then(|| format!("the script's interpreter {interpreter} is not in the image"))
}

/// `e_machine` of elf(5) for the machine that this program was built for.
fn native_machine() -> u16 {
    match std::env::consts::ARCH {
        "x86_64" => 62,
        "aarch64" => 183,
        "riscv64" => 243,
        _ => 0,
    }
}

fn machine_name(machine: u16) -> String {
    let name = match machine {
        3 => "x86 (32 bits)",
        8 => "mips",
        21 => "ppc64",
        22 => "s390x",
        40 => "arm (32 bits)",
        62 => "x86_64",
        183 => "aarch64",
        243 => "riscv64",
        other => return format!("machine number {other}"),
    };
    name.to_owned()
}

/// The loader that a 64-bit little-endian ELF file names in its `PT_INTERP` segment.
fn elf_interpreter(head: &[u8]) -> Option<String> {
    const PT_INTERP: u32 = 3;
    let offset = usize::try_from(u64_at(head, 32)?).ok()?;
    let (size, count) = (usize::from(u16_at(head, 54)?), usize::from(u16_at(head, 56)?));
    for index in 0..count {
        let start = offset.checked_add(index.checked_mul(size)?)?;
        if u32_at(head, start)? != PT_INTERP {
            continue;
        }
        let from = usize::try_from(u64_at(head, start.checked_add(8)?)?).ok()?;
        let length = usize::try_from(u64_at(head, start.checked_add(32)?)?).ok()?;
        let name = head.get(from..from.checked_add(length)?)?;
        return Some(String::from_utf8_lossy(name).trim_end_matches('\0').to_owned());
    }
    None
}

fn bytes_at<const N: usize>(head: &[u8], at: usize) -> Option<[u8; N]> {
    head.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn u16_at(head: &[u8], at: usize) -> Option<u16> {
    bytes_at(head, at).map(u16::from_le_bytes)
}

fn u32_at(head: &[u8], at: usize) -> Option<u32> {
    bytes_at(head, at).map(u32::from_le_bytes)
}

fn u64_at(head: &[u8], at: usize) -> Option<u64> {
    bytes_at(head, at).map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elf(machine: u16, interpreter: Option<&str>) -> Vec<u8> {
        let mut head = vec![0; 64];
        head[..4].copy_from_slice(b"\x7fELF");
        head[18..20].copy_from_slice(&machine.to_le_bytes());
        head[32..40].copy_from_slice(&64_u64.to_le_bytes());
        head[54..56].copy_from_slice(&56_u16.to_le_bytes());
        if let Some(name) = interpreter {
            head[56..58].copy_from_slice(&1_u16.to_le_bytes());
            let mut segment = vec![0; 56];
            segment[..4].copy_from_slice(&3_u32.to_le_bytes());
            segment[8..16].copy_from_slice(&120_u64.to_le_bytes());
            segment[32..40].copy_from_slice(&(name.len() as u64 + 1).to_le_bytes());
            head.extend(segment);
            head.extend(name.bytes().chain([0]));
        }
        head
    }

    #[test]
    fn each_reason_is_told() {
        let never = |_: &str| false;
        let reason = |head: &[u8]| explain(head, never).unwrap_or_default();
        assert!(reason(b"#!/bin/sh\r\necho").contains("CRLF"));
        assert!(
            reason(b"#!/usr/bin/python3 -u\n").contains("/usr/bin/python3 is not in the image")
        );
        assert!(reason(b"just text").contains("neither a program"));
        assert!(reason(&elf(8, None)).contains("for mips"));
        let dynamic = elf(native_machine(), Some("/lib64/ld-linux-x86-64.so.2"));
        assert!(reason(&dynamic).contains("/lib64/ld-linux-x86-64.so.2 is not in the image"));
        assert_eq!(explain(&dynamic, |_| true), None);
    }

    #[test]
    fn broken_files_never_panic() {
        let whole = elf(native_machine(), Some("/lib/ld.so"));
        for length in 0..whole.len() {
            let _ = explain(&whole[..length], |_| false);
        }
        let mut hostile = whole;
        hostile[32..40].copy_from_slice(&u64::MAX.to_le_bytes());
        let _ = explain(&hostile, |_| false);
    }
}
