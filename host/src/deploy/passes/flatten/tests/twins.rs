//! A component and its flattened twin, side by side: whatever one of them answers, the other has to.

use wasmtime::component::{Component, Instance, Linker, ResourceType, Val};
use wasmtime::{Engine, Store, StoreContextMut};

use crate::deploy::passes::flatten::{Refusal, component};
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
}

impl Twins {
    pub(super) fn new() -> Self {
        Self { engine: sandbox::compiler(1 << 20, Variant::Sync).expect("this machine is supported") }
    }

    /// Calls every function that the component exports (one number in, one out) with each of the arguments, in turn, and
    /// expects the same of both. Says what was noticed.
    #[track_caller]
    pub(super) fn compare(&self, wasm: &[u8], arguments: &[u32]) -> Result<Vec<Event>, Refusal> {
        let flat = component(wasm)?;
        let (before, after) = (self.events(wasm, arguments), self.events(&flat.wasm, arguments));
        assert_eq!(before, after, "{flat}");
        Ok(before)
    }

    fn events(&self, wasm: &[u8], arguments: &[u32]) -> Vec<Event> {
        let compiled = Component::new(&self.engine, wasm).expect("it compiles");
        let mut store = Store::new(&self.engine, Vec::new());
        store.set_epoch_deadline(1);
        let Ok(instance) = linker(&self.engine).instantiate(&mut store, &compiled) else {
            store.data_mut().push(Event::NotMade);
            return store.into_data();
        };
        let ty = compiled.component_type();
        let names: Vec<_> = ty.exports(&self.engine).map(|(name, _)| name.to_owned()).collect();
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
