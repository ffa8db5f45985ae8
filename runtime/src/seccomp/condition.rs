//! What a rule asks of one argument.

use std::cmp::Ordering;
use std::fmt;

use oci_spec::runtime::{LinuxSeccompArg, LinuxSeccompOperator};

/// How an argument is compared. Equality looks at the bits of a mask only.
///
/// Of two neighbours on the same value, the first lets less through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Test {
    Equal,
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
    /// The bits that count. All of them but for `SCMP_CMP_MASKED_EQ`.
    pub(super) mask: u64,
}

impl Condition {
    /// The condition as the profile has it, on 64 bits; `None` when there is no such argument.
    pub(super) fn of_profile(written: &LinuxSeccompArg) -> Option<Self> {
        use LinuxSeccompOperator as Named;
        let argument = u8::try_from(written.index()).ok().filter(|index| *index < 6)?;
        let plain = |test| Self { argument, test, value: written.value(), mask: u64::MAX };
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
                Self { argument, test: Test::Equal, value: value & mask, mask }
            }
        })
    }

    /// The condition as a 32-bit architecture can check it: on the lower half of everything.
    pub(super) fn narrow(self) -> Self {
        Self { value: self.value & LOW, mask: self.mask & LOW, ..self }
    }

    /// Whether no argument can fail this.
    pub(super) fn is_void(self) -> bool {
        self.mask == 0
    }

    /// Whether the arguments meet it.
    pub(super) fn holds(self, arguments: &[u64; 6]) -> bool {
        let argument = arguments[usize::from(self.argument)] & self.mask;
        match self.test {
            Test::Equal => argument == self.value,
            Test::NotEqual => argument != self.value,
            Test::Greater => argument > self.value,
            Test::GreaterOrEqual => argument >= self.value,
            Test::Less => argument < self.value,
            Test::LessOrEqual => argument <= self.value,
        }
    }

    /// Which of two conditions libseccomp checks first: the later argument, then equality before
    /// "below" before "above", then the value that lets less through. What libseccomp leaves to the
    /// order of the rules is settled here by test and mask, so that only equals are `Equal`.
    pub(super) fn precedence(self, other: Self) -> Ordering {
        let by_value = || match self.test {
            Test::Less | Test::LessOrEqual => self.value.cmp(&other.value),
            _ => other.value.cmp(&self.value),
        };
        (other.argument.cmp(&self.argument))
            .then_with(|| self.kind().cmp(&other.kind()))
            .then_with(by_value)
            .then_with(|| self.test.cmp(&other.test))
            .then_with(|| other.mask.cmp(&self.mask))
    }

    fn kind(self) -> u8 {
        match self.test {
            Test::Equal | Test::NotEqual => 0,
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
        let Self { argument, test, value, mask } = *self;
        let sign = match test {
            Test::Equal => "==",
            Test::NotEqual => "!=",
            Test::Greater => ">",
            Test::GreaterOrEqual => ">=",
            Test::Less => "<",
            Test::LessOrEqual => "<=",
        };
        if mask == u64::MAX || mask == LOW {
            write!(f, "arg{argument} {sign} {value:#x}")
        } else {
            write!(f, "(arg{argument} & {mask:#x}) {sign} {value:#x}")
        }
    }
}
