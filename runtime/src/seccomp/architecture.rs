//! The architectures (strictly: the system-call ABIs) that a filter can tell apart.

use std::fmt;

use oci_spec::runtime::Arch;

/// The bit in a system-call number that marks x32 (`__X32_SYSCALL_BIT`): x32 shares its audit
/// number with x86_64, so that only this bit tells them apart.
const X32_BIT: u32 = 0x4000_0000;

/// One way of calling the kernel: numbering, width of arguments, and the value in
/// `seccomp_data.arch`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Architecture {
    /// 64-bit x86.
    X86_64,
    /// 32-bit pointers on 64-bit x86.
    X32,
    /// 32-bit x86.
    X86,
    /// 64-bit ARM.
    Aarch64,
    /// 32-bit ARM (EABI).
    Arm,
}

impl Architecture {
    /// What this program was built for.
    #[cfg(target_arch = "x86_64")]
    pub const NATIVE: Self = Self::X86_64;
    /// What this program was built for.
    #[cfg(target_arch = "x86")]
    pub const NATIVE: Self = Self::X86;
    /// What this program was built for.
    #[cfg(target_arch = "aarch64")]
    pub const NATIVE: Self = Self::Aarch64;
    /// What this program was built for.
    #[cfg(target_arch = "arm")]
    pub const NATIVE: Self = Self::Arm;

    /// All whose programs a kernel for `self` can run, `self` first.
    pub fn family(self) -> &'static [Self] {
        match self {
            Self::X86_64 => &[Self::X86_64, Self::X86, Self::X32],
            Self::X32 => &[Self::X32],
            Self::X86 => &[Self::X86],
            Self::Aarch64 => &[Self::Aarch64, Self::Arm],
            Self::Arm => &[Self::Arm],
        }
    }

    /// The `AUDIT_ARCH_*` value that the kernel shows to a filter, linux/audit.h.
    pub(super) fn audit(self) -> u32 {
        match self {
            Self::X86_64 | Self::X32 => 0xc000_003e,
            Self::X86 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
            Self::Arm => 0x4000_0028,
        }
    }

    /// Whether a filter sees 64 significant bits of each argument. libseccomp counts x32 among
    /// the 32-bit architectures, and so do we.
    pub(super) fn has_wide_arguments(self) -> bool {
        matches!(self, Self::X86_64 | Self::Aarch64)
    }

    /// What is set in every system-call number of this architecture.
    pub(super) fn number_bit(self) -> u32 {
        if self == Self::X32 { X32_BIT } else { 0 }
    }

    /// The half-open range of numbers that belong to this architecture among those that share its
    /// audit number. The last number, -1, belongs to nobody: a tracer skips calls with it.
    pub(super) fn numbers(self) -> std::ops::Range<u32> {
        match self {
            Self::X86_64 => 0..X32_BIT,
            Self::X32 => X32_BIT..u32::MAX,
            Self::X86 | Self::Aarch64 | Self::Arm => 0..u32::MAX,
        }
    }

    /// Where numbers begin that are not given out in order. 32-bit ARM keeps its private calls
    /// there (`__ARM_NR_BASE`), which say nothing about the age of a profile.
    pub(super) fn private_numbers(self) -> u32 {
        if self == Self::Arm { 0x000f_0000 } else { self.numbers().end }
    }

    /// The architecture that a profile names, if we have a table for it.
    pub(super) fn named(name: Arch, native: Self) -> Option<Self> {
        match name {
            Arch::ScmpArchNative => Some(native),
            Arch::ScmpArchX86_64 => Some(Self::X86_64),
            Arch::ScmpArchX32 => Some(Self::X32),
            Arch::ScmpArchX86 => Some(Self::X86),
            Arch::ScmpArchAarch64 => Some(Self::Aarch64),
            Arch::ScmpArchArm => Some(Self::Arm),
            _ => None,
        }
    }

    /// The name of this architecture in a profile.
    pub fn oci(self) -> Arch {
        match self {
            Self::X86_64 => Arch::ScmpArchX86_64,
            Self::X32 => Arch::ScmpArchX32,
            Self::X86 => Arch::ScmpArchX86,
            Self::Aarch64 => Arch::ScmpArchAarch64,
            Self::Arm => Arch::ScmpArchArm,
        }
    }
}

#[cfg(not(any(
    target_arch = "x86_64",
    target_arch = "x86",
    target_arch = "aarch64",
    target_arch = "arm"
)))]
compile_error!("seccomp/syscalls.tbl has no column for this architecture yet: add one");

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::X86_64 => "x86_64",
            Self::X32 => "x32",
            Self::X86 => "x86",
            Self::Aarch64 => "aarch64",
            Self::Arm => "arm",
        })
    }
}
