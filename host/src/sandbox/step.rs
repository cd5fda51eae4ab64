//! The steps of a reset, by name, so that a test can leave out each of them once and see that the hunt for canaries ([`super::hunt`])
//! finds what stayed: a hunt that would find nothing anyway proves nothing. Outside of tests all are taken, and the names are gone when
//! it is compiled.

/// One step of putting a sandbox back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// What a memory has grown by is thrown away.
    Growth,
    /// It is out of reach again, and the memory as short as it was.
    Protection,
    /// Pages that are in swap, or on their way elsewhere, are asked for.
    Absent,
    /// What was written before is believed to be all that is only if no page has come to the process since.
    News,
    /// Written pages get what the image has of them.
    Image,
    /// Written pages around the image become zeros.
    Zeros,
    /// What is too much for putting back in place is given back to the kernel.
    Release,
    /// What was in a slot is gone before another release has it.
    Wipe,
    /// Mutable globals of a rewound instance go back.
    Globals,
    /// A rewound instance learns how long its memories are.
    Lengths,
    /// A rewound instance that has handles, or has shown that it had some, goes.
    Handles,
    /// The host's side of a rewound instance is new.
    Host,
    /// Who could change tables or segments is not rewound.
    Tables,
}

impl Step {
    /// Whether it is taken.
    #[cfg(not(test))]
    pub(crate) const fn is_taken(self) -> bool {
        true
    }

    /// Whether it is taken, or this thread's test has left it out.
    #[cfg(test)]
    pub(crate) fn is_taken(self) -> bool {
        LEFT_OUT.get() != Some(self)
    }
}

#[cfg(test)]
thread_local! {
    static LEFT_OUT: std::cell::Cell<Option<Step>> = const { std::cell::Cell::new(None) };
}

/// Does something with a step left out on this thread.
#[cfg(test)]
pub(super) fn without<T>(step: Option<Step>, act: impl FnOnce() -> T) -> T {
    LEFT_OUT.set(step);
    let done = act();
    LEFT_OUT.set(None);
    done
}
