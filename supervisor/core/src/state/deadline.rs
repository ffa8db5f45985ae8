//! The next deadline, remembered.
//!
//! It is asked for with every piece of news, and most news (a probe has passed once more) changes
//! nothing. To look at every instance each time would make a thousand replicas cost a million looks
//! a second.

use std::cell::Cell;

use crate::time::Mono;

/// What was found last: the moment after which was looked, and the first deadline after it. No part
/// of the state: it follows from it, so copies begin without, and equality does not see it.
#[derive(Debug, Default)]
pub(super) struct Memo(Cell<Option<(Mono, Option<Mono>)>>);

impl Memo {
    /// The first deadline after `now`: the one that is remembered, if there cannot be another one,
    /// or else what `find` finds.
    pub(super) fn after(&self, now: Mono, find: impl FnOnce() -> Option<Mono>) -> Option<Mono> {
        if let Some((since, next)) = self.0.get()
            && since <= now
            && next.is_none_or(|next| now < next)
        {
            return next;
        }
        let next = find();
        self.0.set(Some((now, next)));
        next
    }

    /// Something has changed.
    pub(super) fn forget(&mut self) {
        self.0.set(None);
    }
}

impl Clone for Memo {
    fn clone(&self) -> Self {
        Memo::default()
    }
}

impl PartialEq for Memo {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Memo {}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of these deadlines the first after `now`, as the memo says it, and whether it had to look.
    fn ask(memo: &Memo, deadlines: &[u64], now: u64) -> (Option<u64>, bool) {
        let mut looked = false;
        let found = memo.after(Mono::from_ms(now), || {
            looked = true;
            deadlines.iter().copied().filter(|at| *at > now).min().map(Mono::from_ms)
        });
        (found.map(Mono::ms), looked)
    }

    #[test]
    fn it_is_looked_for_once() {
        let mut memo = Memo::default();
        let deadlines = [10, 20];
        assert_eq!(ask(&memo, &deadlines, 0), (Some(10), true));
        assert_eq!(ask(&memo, &deadlines, 9), (Some(10), false));
        assert_eq!(ask(&memo, &deadlines, 10), (Some(20), true), "it has passed");
        assert_eq!(ask(&memo, &deadlines, 5), (Some(10), true), "an earlier one may be the first");
        assert_eq!(ask(&memo, &deadlines, 30), (None, true));
        assert_eq!(ask(&memo, &deadlines, 40), (None, false));
        memo.forget();
        assert_eq!(ask(&memo, &[50], 40), (Some(50), true));
        assert_eq!(ask(&memo.clone(), &[60], 40), (Some(60), true), "a copy begins without");
    }
}
