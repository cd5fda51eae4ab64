//! The hunt for canaries, with each step of a reset left out once: then it has to find some. Guests plant them wherever they can, in
//! instances that go through [`Supply`] as those of requests do; `tests/tests/it/rewind.rs` hunts in a whole host.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use wasmtime::Store;
use wasmtime::component::{Component, Instance, TypedFunc};

use super::step::{self, Step};
use super::supply::{Entry, Supply};
use super::{Belongings, CallState, Engine, State, Variant};
use crate::bundle::Manifest;
use crate::config::{Config, Instances, Kept};
use crate::deploy::{self, images};
use crate::telemetry::RequestId;

/// How often each app is called. Slots go from one to the other meanwhile.
const ROUNDS: usize = 3;

/// Calls of a longer hunt, in which no step is left out: `HUNT_CALLS=100000`.
const CALLS: &str = "HUNT_CALLS";

/// What a hunter finds, as bits: whatever is not as it was when its instance was made.
const FOUND: [&str; 8] = [
    "a canary in its memory",
    "a longer memory",
    "a global",
    "another module's memory",
    "another module's longer memory",
    "data that changed, or another app's",
    "a table",
    "a handle's number",
];

/// A guest that looks for what calls before have left, and then leaves all that it can.
struct Hunter {
    name: &'static str,
    pages: u32,
    /// What it has of the rest.
    traits: &'static [Trait],
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Trait {
    /// Data of its own, enough of it to be mapped.
    Data,
    /// Code that changes a table.
    Table,
    /// It keeps a handle of the host's in each call.
    Handles,
}

/// With two memories each they need fourteen slots.
const HUNTERS: [Hunter; 7] = [
    // So large that the kernel is not asked for its pages each time, and not too large to be put back in place.
    Hunter { name: "middle", pages: 40, traits: &[] },
    Hunter { name: "data", pages: 5, traits: &[Trait::Data] },
    Hunter { name: "small", pages: 1, traits: &[] },
    Hunter { name: "large", pages: 80, traits: &[] },
    Hunter { name: "much", pages: 81, traits: &[Trait::Data] },
    Hunter { name: "table", pages: 6, traits: &[Trait::Table] },
    Hunter { name: "handles", pages: 7, traits: &[Trait::Handles] },
];

impl Hunter {
    fn component(&self) -> Vec<u8> {
        let has = |wanted| self.traits.contains(&wanted);
        let choose = |wanted, text: &'static str| if has(wanted) { text } else { "" };
        let data = format!("(data (i32.const 131072) \"{}\")", "canary! ".repeat(10_000));
        let text = include_str!("hunt.wat")
            .replace(";; OWN DATA", if has(Trait::Data) { &data } else { "" })
            .replace("$IS-MINE", if has(Trait::Data) { "(i32.const 1)" } else { "(i32.const 0)" })
            .replace(";; TABLE", choose(Trait::Table, "(if (call $table) (then (call $find (i32.const 64))))"))
            .replace(";; SET", choose(Trait::Table, "(table.set $table (i32.const 0) (ref.func $target))"))
            .replace(";; HANDLES", choose(Trait::Handles, "(if (call $handle) (then (call $find (i32.const 128))))"))
            .replace("PAGES", &self.pages.to_string());
        wat::parse_str(text).unwrap_or_else(|error| panic!("{error}"))
    }
}

/// The functions of a hunter.
struct Hunts;

type Hunt = (TypedFunc<(u32,), (u32,)>, TypedFunc<(), (u64,)>);

impl Entry for Hunts {
    type Functions = Hunt;

    fn find(&self, store: &mut Store<State>, instance: &Instance) -> wasmtime::Result<Hunt> {
        Ok((instance.get_typed_func(&mut *store, "hunt")?, instance.get_typed_func(store, "seed")?))
    }
}

/// A release of a hunter, as a host with this policy deploys it: prepared by the passes, and by that of rewinding if it can be.
fn release(engine: &Arc<Engine>, config: &Config, hunter: &Hunter, instances: Instances) -> Arc<Supply<Hunts>> {
    let wasm = hunter.component();
    let prepared = deploy::prepare(&wasm, Variant::Own, config.passes).expect("it is a component");
    let is_mapped = prepared.contents.iter().any(Option::is_some);
    assert_eq!(is_mapped, hunter.traits.contains(&Trait::Data), "{}", hunter.name);
    let rewound = match instances {
        Instances::Rewind(_) => deploy::prepare_for_rewinding(&prepared.component).ok(),
        _ => None,
    };
    let (code, variant) = match &rewound {
        Some(rewound) => (&rewound[..], Variant::Rewind),
        None => (&prepared.component[..], Variant::Own),
    };
    let component =
        Component::new(engine.wasmtime(variant).expect("there is address space"), code).expect("it compiles");
    let mut spec = config.app_spec(hunter.name, None, &Manifest::default()).expect("nothing is wrong with it");
    spec.instances = instances;
    let images = images::of_contents(&prepared.contents).expect("there is room");
    let own = Belongings::of_nobody(config, &spec, images).expect("there is a descriptor");
    Supply::new(engine, engine.link(&component).expect("it imports what there is"), Hunts, &spec, own)
}

/// What hunters find in turns, in instances of this policy, where there may be so many.
async fn hunt(instances: Instances, sandboxes: u32, rounds: usize) -> BTreeSet<String> {
    let mut config = Config { sandboxes, ..Config::default() };
    // A long hunt is one for idle moments of the machine: the process may wait for minutes in the middle of a call.
    config.limits.cpu_time = Duration::from_secs(3600);
    let engine = Arc::new(Engine::new(&config).expect("there is address space"));
    let releases: Vec<_> =
        HUNTERS.iter().map(|hunter| (hunter, release(&engine, &config, hunter, instances))).collect();
    let mut found = BTreeSet::new();
    let mut seeds = BTreeSet::new();
    for round in 0..rounds {
        for (Hunter { name, pages, .. }, supply) in &releases {
            let limits = &supply.app.limits;
            let call = CallState::new(RequestId::next(), Instant::now(), limits.cpu_time, &supply.app.account);
            let mut sandbox = supply.open(&Arc::new(call)).await.expect("there is room");
            let (hunt, seed) = sandbox.functions;
            // The first time each leaves one half as it is, which the next then finds never written.
            let from = if round == 0 { half(*pages) } else { 0 };
            match hunt.call_async(&mut sandbox.store, (from,)).await {
                Ok((bits,)) => {
                    let words = FOUND.iter().enumerate().filter(|(bit, _)| bits & (1 << bit) != 0);
                    found.extend(words.map(|(_, word)| format!("{name}: {word}")));
                }
                Err(error) => drop(found.insert(format!("{name}: {error:#}"))),
            }
            if let Ok((seed,)) = seed.call_async(&mut sandbox.store, ()).await
                && !seeds.insert(seed)
            {
                found.insert(format!("{name}: a seed of the host's"));
            }
            supply.keep(sandbox);
        }
    }
    found
}

/// The middle of its main memory.
fn half(pages: u32) -> u32 {
    pages / 2 * (64 << 10)
}

fn hunt_without(step: Option<Step>, instances: Instances) -> BTreeSet<String> {
    let calls = std::env::var(CALLS).ok().and_then(|calls| calls.parse::<usize>().ok()).filter(|_| step.is_none());
    // In two ways.
    let rounds = calls.map_or(ROUNDS, |calls| calls.div_ceil(2 * HUNTERS.len()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("there is a thread");
    step::without(step, || {
        // Once with slots for all of them, and once with few, which go from one release to the next.
        let mut found = runtime.block_on(hunt(instances, 16, rounds));
        found.append(&mut runtime.block_on(hunt(instances, 4, rounds)));
        // What is in stock goes with it, on this thread.
        drop(runtime);
        found
    })
}

/// The steps that both policies have.
const OF_MEMORIES: [Step; 7] =
    [Step::News, Step::Growth, Step::Protection, Step::Image, Step::Zeros, Step::Release, Step::Wipe];

/// `Step::Absent` has its test in `memory/tests.rs`: a page has to be out of memory for it.
fn check(instances: Instances, steps: &[Step]) {
    let found = hunt_without(None, instances);
    assert!(found.is_empty(), "{found:#?}");
    for step in steps {
        let found = hunt_without(Some(*step), instances);
        println!("{instances}, without {step:?}: {found:?}");
        assert!(!found.is_empty(), "{instances}: nobody notices that {step:?} is left out");
    }
}

#[test]
fn a_fresh_instance_shows_it_if_any_step_is_left_out() {
    check(Instances::Fresh, &OF_MEMORIES);
}

#[test]
fn a_rewound_instance_shows_it_if_any_step_is_left_out() {
    let kept = Kept { requests_max: u32::MAX, idle_time: Duration::MAX, memory_bytes_max: u64::MAX };
    let own = [Step::Globals, Step::Lengths, Step::Handles, Step::Host, Step::Tables];
    check(Instances::Rewind(kept), &[&OF_MEMORIES[..], &own].concat());
}
