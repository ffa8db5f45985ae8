//! What a rule asks of one argument.

use std::cmp::Ordering;
use std::fmt;

use oci_spec::runtime::{LinuxSeccompArg, LinuxSeccompOperator};

/// How an argument is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Test {
    Equal,
    /// Equal in the bits of the mask.
    MaskedEqual,
    NotEqual,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

/// One comparison of one argument. Arguments are unsigned, whatever the call makes of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Condition {
    /// Which argument, 0 to 5.
    pub(super) argument: u8,
    pub(super) test: Test,
    pub(super) value: u64,
    /// The bits that count: all that there are, but for [`Test::MaskedEqual`].
    pub(super) mask: u64,
    /// Whether arguments have 64 bits.
    wide: bool,
}

impl Condition {
    /// The condition as the profile has it, on 64 bits; `None` when there is no such argument.
    pub(super) fn of_profile(written: &LinuxSeccompArg) -> Option<Self> {
        use LinuxSeccompOperator as Named;
        let argument = u8::try_from(written.index()).ok().filter(|index| *index < 6)?;
        let plain = |test| Self { argument, test, ..Self::equal(argument, written.value()) };
        Some(match written.op() {
            Named::ScmpCmpEq => plain(Test::Equal),
            Named::ScmpCmpNe => plain(Test::NotEqual),
            Named::ScmpCmpGt => plain(Test::Greater),
            Named::ScmpCmpGe => plain(Test::GreaterOrEqual),
            Named::ScmpCmpLt => plain(Test::Less),
            Named::ScmpCmpLe => plain(Test::LessOrEqual),
            // Here `value` is the mask. Bits of `valueTwo` outside of it do not count.
            Named::ScmpCmpMaskedEq => {
                let (mask, value) = (written.value(), written.value_two().unwrap_or(0));
                let test = Test::MaskedEqual;
                Self { argument, test, value: value & mask, mask, wide: true }
            }
        })
    }

    /// The condition that an argument has exactly this value.
    pub(super) fn equal(argument: u8, value: u64) -> Self {
        Self { argument, test: Test::Equal, value, mask: u64::MAX, wide: true }
    }

    /// The condition as a 32-bit architecture can check it: on the lower half of everything.
    pub(super) fn narrow(self) -> Self {
        Self { value: self.value & LOW, mask: self.mask & LOW, wide: false, ..self }
    }

    /// Whether no argument can fail this.
    pub(super) fn is_void(self) -> bool {
        self.mask == 0
    }

    /// Whether the arguments meet it.
    pub(super) fn holds(self, arguments: &[u64; 6]) -> bool {
        let argument = arguments[usize::from(self.argument)] & self.mask;
        match self.test {
            Test::Equal | Test::MaskedEqual => argument == self.value,
            Test::NotEqual => argument != self.value,
            Test::Greater => argument > self.value,
            Test::GreaterOrEqual => argument >= self.value,
            Test::Less => argument < self.value,
            Test::LessOrEqual => argument <= self.value,
        }
    }

    /// Which of two conditions libseccomp checks first: the later argument, then equality before
    /// "below" before "above", then the value that lets less through. `Equal` is a draw.
    ///
    /// Values are compared by halves, the upper one first, and go on to the lower one only where
    /// both conditions can share the comparison of the upper one.
    pub(super) fn precedence(self, other: Self) -> Ordering {
        let by = |shift: u32| {
            let half = |value: u64| value >> shift & LOW;
            match self.test {
                Test::Less | Test::LessOrEqual => half(self.value).cmp(&half(other.value)),
                _ => half(other.value).cmp(&half(self.value)),
            }
        };
        let shared = !self.wide
            || self.mask >> 32 == other.mask >> 32 && self.is_masked() == other.is_masked();
        (other.argument.cmp(&self.argument))
            .then_with(|| self.kind().cmp(&other.kind()))
            .then_with(|| by(32))
            .then_with(|| if shared { by(0) } else { Ordering::Equal })
    }

    fn is_masked(self) -> bool {
        self.test == Test::MaskedEqual
    }

    fn kind(self) -> u8 {
        match self.test {
            Test::Equal | Test::MaskedEqual | Test::NotEqual => 0,
            Test::Less | Test::LessOrEqual => 1,
            Test::Greater | Test::GreaterOrEqual => 2,
        }
    }
}

/// The operators that a profile can name.
pub(super) const NAMED: [LinuxSeccompOperator; 7] = [
    LinuxSeccompOperator::ScmpCmpEq,
    LinuxSeccompOperator::ScmpCmpGe,
    LinuxSeccompOperator::ScmpCmpGt,
    LinuxSeccompOperator::ScmpCmpLe,
    LinuxSeccompOperator::ScmpCmpLt,
    LinuxSeccompOperator::ScmpCmpMaskedEq,
    LinuxSeccompOperator::ScmpCmpNe,
];

const LOW: u64 = 0xffff_ffff;

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { argument, test, value, mask, .. } = *self;
        let sign = match test {
            Test::Equal | Test::MaskedEqual => "==",
            Test::NotEqual => "!=",
            Test::Greater => ">",
            Test::GreaterOrEqual => ">=",
            Test::Less => "<",
            Test::LessOrEqual => "<=",
        };
        if self.is_masked() {
            write!(f, "(arg{argument} & {mask:#x}) {sign} {value:#x}")
        } else {
            write!(f, "arg{argument} {sign} {value:#x}")
        }
    }
}
