//! A component and its twins, side by side: one that is flattened, and one whose memories begin with images. Whatever one of them
//! answers, the others have to.

use wasmtime::component::{Component, Instance, Linker, ResourceType, Val};
use wasmtime::{Engine, Store, StoreContextMut};

use crate::config::Config;
use crate::deploy::images;
use crate::deploy::passes::flatten::{Refusal, component, image};
use crate::sandbox::{self, Variant};

/// What the host noticed of a guest, and what a guest answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    Called(u32),
    Said(String),
    Dropped(u32),
    Answered(String, u32),
    Trapped(String),
    NotMade,
}

/// Something of the host's that guests have handles of.
struct Thing;

pub(super) struct Twins {
    engine: Engine,
    /// With memories of our own.
    own: sandbox::Engine,
    runtime: tokio::runtime::Runtime,
}

impl Twins {
    pub(super) fn new() -> Self {
        let config = Config { sandboxes: 32, ..Config::default() };
        Self {
            engine: sandbox::compiler(1 << 20, Variant::Sync).expect("this machine is supported"),
            own: sandbox::Engine::new(&config).expect("there is address space"),
            runtime: tokio::runtime::Builder::new_current_thread().build().expect("it needs nothing"),
        }
    }

    /// Calls every function that the component exports (one number in, one out) with each of the arguments, in turn, and
    /// expects the same of both. Says what was noticed.
    #[track_caller]
    pub(super) fn compare(&self, wasm: &[u8], arguments: &[u32]) -> Result<Vec<Event>, Refusal> {
        let before = self.events(wasm, arguments);
        let flat = component(wasm)?;
        assert_eq!(before, self.events(&flat.wasm, arguments), "{flat}");
        // What can't be is judged by the tests of that.
        let _ = self.compare_imaged(wasm, arguments, &before);
        let _ = self.compare_imaged(&flat.wasm, arguments, &before);
        Ok(before)
    }

    /// Expects that of the component without its data, if that can be taken out. Says whether it can.
    #[track_caller]
    pub(super) fn compare_imaged(&self, wasm: &[u8], arguments: &[u32], expected: &[Event]) -> Result<(), Refusal> {
        let imaged = image::with_data(wasm, 0)?;
        let engine = self.own.wasmtime(Variant::Own).expect("this machine is supported");
        let compiled = Component::new(engine, &imaged.wasm).expect("it compiles");
        let linked = linker(engine).instantiate_pre(&compiled).expect("it imports what there is");
        let images = images::of_contents(&imaged.contents).expect("there is room");
        let shelves = self.own.shelves(&compiled, &images);
        assert!(shelves.is_some(), "the engine has memories of our own");
        // The later ones have the slots that the earlier ones had.
        for _ in 0..3 {
            let mut store = Store::new(engine, Vec::new());
            store.set_epoch_deadline(1 << 40);
            let made = self.runtime.block_on(sandbox::instantiate(shelves.as_ref(), &linked, &mut store));
            let events = made.map_or_else(
                |_| vec![Event::NotMade],
                |instance| call_all(store, engine, &compiled, instance, arguments),
            );
            assert_eq!(events, expected, "with an image");
        }
        Ok(())
    }

    pub(super) fn events(&self, wasm: &[u8], arguments: &[u32]) -> Vec<Event> {
        let compiled = Component::new(&self.engine, wasm).expect("it compiles");
        let mut store = Store::new(&self.engine, Vec::new());
        store.set_epoch_deadline(1);
        let Ok(instance) = linker(&self.engine).instantiate(&mut store, &compiled) else {
            store.data_mut().push(Event::NotMade);
            return store.into_data();
        };
        call_all(store, &self.engine, &compiled, instance, arguments)
    }
}

fn call_all(
    mut store: Store<Vec<Event>>,
    engine: &Engine,
    compiled: &Component,
    instance: Instance,
    arguments: &[u32],
) -> Vec<Event> {
    let ty = compiled.component_type();
    let names: Vec<_> = ty.exports(engine).map(|(name, _)| name.to_owned()).collect();
    for argument in arguments {
        for name in &names {
            let event = call(&mut store, instance, name, *argument);
            let has_trapped = matches!(event, Event::Trapped(_));
            store.data_mut().push(event);
            if has_trapped {
                // The instance cannot be called any more.
                return store.into_data();
            }
        }
    }
    store.into_data()
}

fn call(store: &mut Store<Vec<Event>>, instance: Instance, name: &str, argument: u32) -> Event {
    let function = instance.get_func(&mut *store, name).expect("it is exported");
    let mut results = [Val::U32(0)];
    match function.call(&mut *store, &[Val::U32(argument)], &mut results) {
        Ok(()) => match results {
            [Val::U32(answer)] => Event::Answered(name.to_owned(), answer),
            [other] => panic!("{name} answers {other:?}"),
        },
        Err(error) => Event::Trapped(format!("{name}: {}", error.root_cause())),
    }
}

/// What these components may import.
fn linker(engine: &Engine) -> Linker<Vec<Event>> {
    let mut linker: Linker<Vec<Event>> = Linker::new(engine);
    let mut root = linker.root();
    root.func_wrap("ask", |mut store: StoreContextMut<'_, Vec<Event>>, (number,): (u32,)| {
        store.data_mut().push(Event::Called(number));
        Ok((number.wrapping_mul(3).wrapping_add(1),))
    })
    .expect("the name is free");
    root.func_wrap("say", |mut store: StoreContextMut<'_, Vec<Event>>, (text,): (String,)| {
        let length = u32::try_from(text.len()).expect("it is short");
        store.data_mut().push(Event::Said(text));
        Ok((length,))
    })
    .expect("the name is free");
    root.func_wrap("name", |_, (number,): (u32,)| Ok((format!("number {number}"),))).expect("the name is free");
    root.resource("thing", ResourceType::host::<Thing>(), |mut store, thing| {
        store.data_mut().push(Event::Dropped(thing));
        Ok(())
    })
    .expect("the name is free");
    root.func_wrap("make-thing", |_, (number,): (u32,)| Ok((wasmtime::component::Resource::<Thing>::new_own(number),)))
        .expect("the name is free");
    linker
}
